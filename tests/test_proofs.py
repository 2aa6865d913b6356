"""Proofs of decisions: what a signature covers, and that nothing else passes."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waystation.models.base import replaced
from waystation.models.decisions import Approve
from waystation.models.proofs import DecisionKind, Proof, ProofQuestion, facts
from waystation.proofs import (
    CLOCK_LEEWAY_SECONDS,
    MAX_LIFETIME_SECONDS,
    DecisionKeyError,
    Signer,
    Verifier,
    new_signing_key,
    signer_from,
)

NOW = 1_800_000_000
DIGEST, OTHER_DIGEST = "sha256:" + "0" * 64, "sha256:" + "1" * 64
APPROVAL = Approve(digest=DIGEST, approver="alice")
OURS, NEW, FOREIGN = (Signer.of(new_signing_key(name)) for name in ("ours", "new", "ours"))
VERIFIER = Verifier([OURS.public_key, NEW.public_key])


def question(proof: Proof | None, said: Approve = APPROVAL, kind: DecisionKind = "approve") -> ProofQuestion:
    return ProofQuestion(kind=kind, said=facts(said), proof=proof)


def signed(by: Signer = OURS, workflow: str = "p1", said: Approve = APPROVAL, lasts: int = 60) -> Proof:
    return by.sign("approve", workflow, said, lasts_seconds=lasts, now=NOW)


@pytest.mark.parametrize("signer", [OURS, NEW], ids=["the key", "the key after it"])
def test_a_signed_decision_counts_and_names_its_key(signer: Signer) -> None:
    verdict = VERIFIER.judge("p1", question(signed(signer)), now=NOW + 59)
    assert verdict.valid
    assert verdict.key == signer.public_key.partition(":")[0]


FORGERIES: dict[str, Callable[[], ProofQuestion]] = {
    "unsigned": lambda: question(None),
    "of another workflow": lambda: question(signed(workflow="p2")),
    "of another digest": lambda: question(signed(said=replaced(APPROVAL, digest=OTHER_DIGEST))),
    "of another person": lambda: question(signed(said=replaced(APPROVAL, approver="mallory"))),
    "of another kind": lambda: question(signed(), kind="reject"),
    "by a key of the same name": lambda: question(signed(FOREIGN)),
    "by an unknown key": lambda: question(replaced(signed(), key="theirs")),
    "under another known key's name": lambda: question(replaced(signed(), key="new")),
    "lasting longer than it was signed for": lambda: question(
        replaced(signed(), expires_at=NOW + MAX_LIFETIME_SECONDS)
    ),
    "lasting for ever": lambda: question(signed(lasts=MAX_LIFETIME_SECONDS + 1)),
    "not even a signature": lambda: question(replaced(signed(), signature="A" * 86)),
}


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_nothing_else_counts(forged: Callable[[], ProofQuestion]) -> None:
    for verifier in (VERIFIER, Verifier([OURS.public_key, NEW.public_key], unsigned=True)):
        asked = forged()
        verdict = verifier.judge("p1", asked, now=NOW)
        assert verdict.valid == (asked.proof is None and verifier.takes_unsigned)
        assert verdict.valid or verdict.why


@pytest.mark.parametrize(
    ("after", "counts"),
    [
        (-CLOCK_LEEWAY_SECONDS - 1, False),
        (-CLOCK_LEEWAY_SECONDS, True),
        (0, True),
        (59, True),
        (60, False),
        (10**9, False),
    ],
)
def test_a_signature_has_its_time(after: int, counts: bool) -> None:
    assert VERIFIER.judge("p1", question(signed()), now=NOW + after).valid is counts
    started = replaced(question(signed()), at=NOW + after)
    assert VERIFIER.judge("p1", started, now=int(time.time())).valid is counts


def test_a_key_that_was_removed_counts_no_more() -> None:
    assert not Verifier([NEW.public_key]).judge("p1", question(signed()), now=NOW).valid


def test_a_worker_without_keys_says_what_to_set() -> None:
    verdict = Verifier().judge("p1", question(None), now=NOW)
    assert not verdict.valid
    assert "WAYSTATION_DECISION_PUBLIC_KEYS" in verdict.why


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_a_signature_is_worth_nothing_for_another_workflow(one: str, other: str) -> None:
    proof = OURS.sign("approve", one, APPROVAL, now=NOW)
    assert VERIFIER.judge(other, question(proof), now=NOW).valid is (one == other)


@pytest.mark.parametrize("text", ["", "x", "a:", "a:###", "a:AAAA", " :" + "A" * 43, "a b:" + "A" * 43])
def test_a_malformed_key_is_refused_without_repeating_it(text: str) -> None:
    for use in (lambda: signer_from([text]), lambda: Verifier([text])):
        with pytest.raises(DecisionKeyError) as refused:
            use()
        assert "A" * 43 not in str(refused.value)


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(DecisionKeyError, match="the id 'ours'"):
        Verifier([OURS.public_key, FOREIGN.public_key])


def test_the_first_key_signs_and_none_is_shown() -> None:
    keys = [new_signing_key("b"), new_signing_key("a")]
    signer = signer_from(keys)
    assert signer is not None
    assert signer.public_key.startswith("b:")
    assert keys[0].partition(":")[2] not in repr(signer) + signer.public_key
    assert signer_from([]) is None
