"""Tokens and keys never reach a log."""

import io
import logging
import re

from waystation.redaction import RedactingFilter, fingerprint, redact


def test_tokens_keys_and_bearer_credentials_are_blanked() -> None:
    text = (
        "POST /v1/shared_payment/issued_tokens/spt_1AbCdEf/revoke"
        " with sk_test_agent and Bearer abc.def-123456"
    )
    clean = redact(text)
    for secret in ("spt_1AbCdEf", "sk_test_agent", "abc.def-123456"):
        assert secret not in clean
    assert clean.startswith("POST /v1/shared_payment/issued_tokens/[redacted]/revoke")


def test_ordinary_words_stay() -> None:
    text = "checkout_session_123 of profile_test_shop, order spt-7 in receipt_9"
    assert redact(text) == text


def test_the_filter_cleans_messages_arguments_and_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("tests.redaction")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        logger.warning("charged %s", "spt_fromArguments")
        try:
            raise ValueError("spt_fromTraceback is spent")
        except ValueError:
            logger.exception("it broke")
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert "spt_" not in written
    assert "it broke" in written
    assert "ValueError" in written


def test_no_text_in_a_record_commands_a_terminal_or_forges_another_record() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(RedactingFilter())
    logger = logging.getLogger("tests.redaction.foreign")
    logger.propagate = False
    logger.addHandler(handler)
    hostile = "no\x1b[2J\n2026-01-01 INFO all is well\u202e"
    try:
        logger.warning("the seller says %s", hostile)
        try:
            raise ValueError(hostile)
        except ValueError:
            logger.exception("it broke")
    finally:
        logger.removeHandler(handler)
    written = stream.getvalue()
    assert not re.search("[\x1b\u202e]", written)
    assert not re.search("^2026", written, re.MULTILINE)


def test_a_fingerprint_tells_two_tokens_apart_and_reveals_neither() -> None:
    assert fingerprint("spt_a1b2") != fingerprint("spt_a1b3")
    assert "a1b2" not in fingerprint("spt_a1b2")
