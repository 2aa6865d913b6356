"""The keys of test servers: who signs decisions, who checks them, what seals payment tokens."""

import json
from typing import Final

from waystation.proofs import Signer, Verifier
from waystation.temporal.sealing import Vault
from waystation.web_push import VapidSigner

DECISION_KEY: Final = "tests:" + "A" * 43
SIGNER: Final = Signer.of(DECISION_KEY)
TOKEN_KEY: Final = "tests:" + "B" * 42 + "A"
VAULT: Final = Vault([TOKEN_KEY])
TRUSTING: Final = Verifier([SIGNER.public_key], unsigned=True)
"""For tests of other things, which decide by plain signals too."""
STRICT: Final = Verifier([SIGNER.public_key])


VAPID_PRIVATE_KEY: Final = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
"""That of the standard's own example (RFC 8291, 5)."""
VAPID: Final = VapidSigner(VAPID_PRIVATE_KEY, "mailto:tests@waystation.example")


def api_keys() -> dict[str, str]:
    """Returns the settings of an API that signs."""
    return {
        "WAYSTATION_DECISION_KEYS": json.dumps([DECISION_KEY]),
        "WAYSTATION_VAPID_PUBLIC_KEY": VAPID.public_key,
    }


def worker_keys() -> dict[str, str]:
    """Returns the settings of a worker that takes signed decisions only."""
    return {
        "WAYSTATION_DECISION_PUBLIC_KEYS": json.dumps([SIGNER.public_key]),
        "WAYSTATION_TOKEN_KEYS": json.dumps([TOKEN_KEY]),
        "WAYSTATION_VAPID_PRIVATE_KEY": VAPID_PRIVATE_KEY,
        "WAYSTATION_VAPID_SUBJECT": "mailto:tests@waystation.example",
    }
