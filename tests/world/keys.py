"""The keys of test servers: who signs decisions, who checks them, what seals payment tokens."""

import json
from typing import Final

from waystation.proofs import Signer, Verifier
from waystation.temporal.sealing import Vault

DECISION_KEY: Final = "tests:" + "A" * 43
SIGNER: Final = Signer.of(DECISION_KEY)
TOKEN_KEY: Final = "tests:" + "B" * 42 + "A"
VAULT: Final = Vault([TOKEN_KEY])
TRUSTING: Final = Verifier([SIGNER.public_key], unsigned=True)
"""For tests of other things, which decide by plain signals too."""
STRICT: Final = Verifier([SIGNER.public_key])


def api_keys() -> dict[str, str]:
    """Returns the settings of an API that signs."""
    return {"WAYSTATION_DECISION_KEYS": json.dumps([DECISION_KEY])}


def worker_keys() -> dict[str, str]:
    """Returns the settings of a worker that takes signed decisions only."""
    return {
        "WAYSTATION_DECISION_PUBLIC_KEYS": json.dumps([SIGNER.public_key]),
        "WAYSTATION_TOKEN_KEYS": json.dumps([TOKEN_KEY]),
    }
