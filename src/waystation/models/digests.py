"""What an id stands for, as a digest: the same id with anything else is told apart, and refused.

One rule for everything that is begun or sent under an id of the caller's choice: the digest covers the whole
input, but for the fields that its model names in ``NOT_DIGESTED``, each with a reason.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from pydantic import JsonValue

from waystation.models.base import Frozen


class Digested(Frozen):
    """An input for which an id may stand once."""

    NOT_DIGESTED: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Fields that may differ under the same id, and why."""

    def covered(self) -> JsonValue:
        """Returns what the digest covers.

        Fields that are as they are by default are left out: a release that adds one knows the digests of
        earlier ones.
        """
        dumped = self.model_dump(mode="json", exclude=set(self.NOT_DIGESTED), exclude_defaults=True)
        parts = {name: getattr(self, name) for name in dumped}
        return {
            name: parts[name].covered() if isinstance(parts[name], Digested) else value
            for name, value in dumped.items()
        }

    def digest(self) -> str:
        """Returns what an id stands for, as a SHA-256 in hex."""
        return hashlib.sha256(json.dumps(self.covered(), sort_keys=True).encode()).hexdigest()

    def earlier_digest(self) -> str | None:
        """Returns the digest of earlier releases, which covered less; ``None`` where it was the same."""
        return None

    def matches(self, recorded: str | None) -> bool:
        """Returns whether this is what an id stands for, by the digest that was recorded for it."""
        return recorded is not None and recorded in (self.digest(), self.earlier_digest())
