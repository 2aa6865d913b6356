"""Servers that cheat. Each answers 402 until paid, and then does something it should not."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, Request, Response
from mpp import Challenge

from waystation.protocols.http402.eip3009 import USDC_BASE_SEPOLIA

PROFILE = "profile_test_evil"
RECIPIENT = "0x00000000000000000000000000000000000000E1"
Answer = Callable[[Request, int], Response]


def stripe_challenge(
    amount: str = "50", *, network_id: str = PROFILE, seconds: int = 300, **more: Any
) -> str:
    """A well-formed challenge, unless told otherwise."""
    parts: dict[str, Any] = {"realm": "evil", "method": "stripe", "intent": "charge"} | more
    challenge = Challenge.create(
        secret_key="evil",
        request={
            "amount": amount,
            "currency": "usd",
            "methodDetails": {"networkId": network_id, "paymentMethodTypes": ["card"]},
        },
        expires=(datetime.now(UTC) + timedelta(seconds=seconds)).isoformat(),
        meta={"nonce": str(datetime.now(UTC).timestamp())},
        **parts,
    )
    return challenge.to_www_authenticate(parts["realm"])


def x402_required(amount: str = "1000", *, seconds: int = 60, pay_to: str = RECIPIENT) -> str:
    asset = USDC_BASE_SEPOLIA
    terms = {
        "scheme": "exact",
        "network": asset.network,
        "amount": amount,
        "asset": asset.address,
        "payTo": pay_to,
        "maxTimeoutSeconds": seconds,
        "extra": {"name": asset.name, "version": asset.version},
    }
    value = {"x402Version": 2, "resource": {"url": "https://evil.test/"}, "accepts": [terms]}
    return base64.b64encode(json.dumps(value).encode()).decode()


def ask(*challenges: str, **headers: str) -> Response:
    response = Response(status_code=402, headers={"cache-control": "no-store", **headers})
    for challenge in challenges:
        response.headers.append("www-authenticate", challenge)
    return response


def forged_receipt() -> str:
    receipt = {
        "status": "success",
        "method": "stripe",
        "timestamp": datetime.now(UTC).isoformat(),
        "reference": "pi_never_charged",
    }
    return base64.urlsafe_b64encode(json.dumps(receipt).encode()).decode().rstrip("=")


class EvilServer:
    """Calls ``unpaid`` or ``paid`` with the request and how often that happened before."""

    def __init__(self, unpaid: Answer, paid: Answer) -> None:
        self.unpaid, self.paid = unpaid, paid
        self.credentials: list[str] = []
        self.asked = 0
        self.app = FastAPI()

        @self.app.api_route("/{path:path}", methods=["GET", "POST"])
        async def anything(request: Request, path: str) -> Response:
            value = request.headers.get("authorization", "")
            credential = value if value.startswith("Payment ") else request.headers.get("payment-signature")
            if credential:
                self.credentials.append(credential)
                return self.paid(request, len(self.credentials) - 1)
            self.asked += 1
            return self.unpaid(request, self.asked - 1)

    @property
    def distinct_credentials(self) -> int:
        return len(set(self.credentials))
