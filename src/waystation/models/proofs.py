"""What makes a person's decision believable: the signature of whoever authenticated the person."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field, StrictInt, StringConstraints

from waystation.models.base import Frozen, JsonObject

KEY_ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"

SEALED_PATTERN: Final = r"^sealed:[A-Za-z0-9._-]{0,64}:[A-Za-z0-9_-]*$"

Sealed = Annotated[str, StringConstraints(pattern=SEALED_PATTERN, max_length=32_768)]
"""A secret that only workers can open (``waystation.temporal.sealing``): ``sealed:<key id>:<base64>``."""

FORGOTTEN: Final = "sealed::"
"""In place of a secret that a history of an earlier release holds in clear. Nothing opens it."""

DecisionKind = Literal["approve", "reject", "retry", "grant", "answer"]
"""What was decided: a cart or terms approved or rejected, a payment to be retried, a mandate granted, whether
a tool may run."""


class Proof(Frozen):
    """An Ed25519 signature over a decision, the workflow it is for, and these two times (unix seconds)."""

    key: Annotated[str, StringConstraints(pattern=KEY_ID_PATTERN)]
    issued_at: Annotated[StrictInt, Field(ge=0)]
    expires_at: Annotated[StrictInt, Field(ge=0)]
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]


class ProofQuestion(Frozen):
    """Was this decided by somebody whom a holder of a signing key has authenticated?"""

    kind: DecisionKind
    said: JsonObject
    """The decision without its proof."""
    proof: Proof | None = None
    at: Annotated[StrictInt, Field(ge=0)] | None = None
    """When it was said, where that is known (unix seconds); by default now."""


class ProofVerdict(Frozen):
    """Whether a decision counts, and if not, why: recorded, so that a replay never asks again."""

    valid: bool
    key: str | None = None
    """Whose signature it was; ``None`` where unsigned decisions are taken."""
    why: str = ""


def facts(said: BaseModel) -> JsonObject:
    """Returns what a proof covers of a decision.

    Defaults are left out: a release that adds a field with a default still reads the older one's signatures.
    """
    return said.model_dump(mode="json", exclude={"proof"}, exclude_defaults=True)
