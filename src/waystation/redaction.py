"""Keeps payment tokens and keys out of logs and error texts, and terminal commands out of logs.

HTTP clients log request paths, and the processor's paths hold token ids; a token
id *is* the token. Install the filter once per process, before the first request.
"""

import hashlib
import logging
import re
from typing import Final

from waystation.plain_text import indented_lines

REDACTED: Final = "[redacted]"

_SECRETS: Final = re.compile(
    r"""
    \b(?:spt|vt|sk_live|sk_test|rk_live|rk_test)_[A-Za-z0-9_]{4,}   # tokens and processor keys
    | \bwhsec_[A-Za-z0-9_+/=-]{4,}                                       # secrets of webhooks
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/=-]{8,}                              # credentials in headers
    """,
    re.VERBOSE,
)

_CHATTY_LOGGERS: Final = (
    "stripe",
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "uvicorn.access",
    "uvicorn.error",
    "temporalio.activity",
    "temporalio.workflow",
)


def redact(text: str) -> str:
    """Returns the text with every token, processor key and bearer credential blanked."""
    return _SECRETS.sub(REDACTED, text)


def fingerprint(secret: str) -> str:
    """Returns the name of a token or credential in logs and trails: its SHA-256, which reveals nothing."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


class RedactingFilter(logging.Filter):
    """Blanks secrets in a record's text and arguments before any handler sees it.

    Foreign text in a record can't command the terminal that shows the log, nor pretend to be another record:
    see ``waystation.plain_text``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts in place; always lets the record through."""
        message = record.getMessage()
        clean = indented_lines(redact(message))
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            text = logging.Formatter().formatException(record.exc_info)
            clean = indented_lines(redact(text))
            if clean != text:
                record.exc_text = clean
        return True


_FILTER: Final = RedactingFilter()


def install_redaction() -> None:
    """Puts the filter on every root handler and on the loggers of the libraries that see tokens.

    Also on the handler that Python uses as long as there is no other.

    Safe to call again; call it after the handlers are configured.
    """
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)
    for handler in (*logging.getLogger().handlers, logging.lastResort):
        if handler is not None:
            handler.addFilter(_FILTER)
