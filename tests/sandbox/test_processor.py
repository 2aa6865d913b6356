"""The sandbox processor, driven by Stripe's own client."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import stripe

from tests.support import eventually, wait_until
from tests.world.sandbox import Processor, running_processor
from waystation.sandbox.ledger import Ledger, StripeRefusal
from waystation.stripe_http import open_stripe

AGENT, SHOP = "sk_test_agent", "sk_test_shop"

Json = dict[str, Any]


class Account:
    """Stripe's client for one account of the sandbox."""

    def __init__(self, server: Processor, key: str) -> None:
        self.client, self.http = open_stripe(key, api_base=server.url)

    async def raw(self, method: str, path: str, *, key: str | None = None, **params: Any) -> Json:
        options: Json = {}
        if method == "post":
            options["idempotency_key"] = key or secrets.token_hex(8)
        response = await self.client.raw_request_async(method, path, **options, **params)
        decoded: Json = json.loads(response.body)
        return decoded

    async def issue(self, amount: int = 2500, card: str = "pm_card_visa", **more: Any) -> str:
        token = await self.raw(
            "post",
            "/v1/shared_payment/issued_tokens",
            payment_method=card,
            seller_details={"network_business_profile": "profile_test_shop", "external_id": "cart_1"},
            usage_limits={"currency": "usd", "max_amount": amount, **more},
        )
        return str(token["id"])

    async def charge(self, token: str, amount: int = 2500, *, key: str | None = None, **more: Any) -> Json:
        return await self.raw(
            "post",
            "/v1/payment_intents",
            key=key,
            amount=amount,
            currency="usd",
            confirm=True,
            payment_method_data={"shared_payment_granted_token": token},
            **more,
        )


Opener = Callable[[Processor, str], Account]


@pytest.fixture
async def open_account() -> AsyncIterator[Opener]:
    opened: list[Account] = []

    def open_one(server: Processor, key: str) -> Account:
        opened.append(Account(server, key))
        return opened[-1]

    yield open_one
    for account in opened:
        await account.http.close_async()


@pytest.fixture
async def accounts(
    processor_server: Processor, open_account: Opener
) -> AsyncIterator[tuple[Account, Account]]:
    yield open_account(processor_server, AGENT), open_account(processor_server, SHOP)
    processor_server.heal()


def charges_of(server: Processor, intent: str) -> list[Json]:
    entries: Any = server.books()["entries"]
    return [entry for entry in entries if entry["payment_intent"] == intent and entry["kind"] == "charge"]


async def refusal(work: Any) -> stripe.StripeError:
    with pytest.raises(stripe.StripeError) as caught:
        await work
    return caught.value


async def test_a_token_is_charged_once_and_consumed(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    token = await agent.issue()
    seen = await shop.raw("get", f"/v1/shared_payment/granted_tokens/{token}")
    assert seen["payment_method_details"]["card"]["last4"] == "4242"
    assert seen["payment_method_details"]["card"]["funding"] == "credit"
    assert seen["agent_details"]["network_business_profile"] == "profile_test_agent"
    assert seen["risk_details"]["insights"]["stolen_card"]["score"] == 6
    assert not {"payment_method", "status", "next_action", "seller_details", "return_url"} & seen.keys()

    intent = await shop.charge(token, metadata={"order": "1"})
    assert (intent["status"], intent["amount_received"]) == ("succeeded", 2500)
    assert len(charges_of(processor_server, intent["id"])) == 1

    issued = await agent.raw("get", f"/v1/shared_payment/issued_tokens/{token}")
    assert (issued["status"], issued["deactivated_reason"]) == ("deactivated", "consumed")
    assert issued["usage_details"]["amount_captured"]["value"] == 2500

    again = await refusal(shop.charge(token))
    assert again.http_status == 400
    assert again.code is None
    assert "already in a deactivated state" in str(again)


async def test_more_than_the_token_allows_is_refused_with_stripes_text(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    token = await agent.issue(2500)
    before = len(processor_server.books()["entries"])
    error = await refusal(shop.charge(token, 5000))
    assert isinstance(error, stripe.InvalidRequestError)
    assert error.http_status == 400
    assert error.code is None
    assert error.user_message == (
        "The requested amount is greater than the remaining amount capturable "
        "with this shared payment granted token."
    )
    assert len(processor_server.books()["entries"]) == before
    assert (await shop.charge(token, 2500))["status"] == "succeeded"


async def test_the_other_limits_of_a_token(
    accounts: tuple[Account, Account], processor_server: Processor, open_account: Opener
) -> None:
    agent, shop = accounts
    token = await agent.issue()
    wrong_currency = await refusal(
        shop.raw(
            "post",
            "/v1/payment_intents",
            amount=100,
            currency="eur",
            confirm=True,
            payment_method_data={"shared_payment_granted_token": token},
        )
    )
    assert "currency" in str(wrong_currency)

    stranger = open_account(processor_server, "sk_test_stranger")
    unseen = await refusal(stranger.charge(token))
    assert (unseen.http_status, unseen.code) == (404, "resource_missing")
    assert token not in str(unseen)

    revoked = await agent.raw("post", f"/v1/shared_payment/issued_tokens/{token}/revoke")
    assert revoked["deactivated_reason"] == "revoked"
    assert "deactivated" in str(await refusal(shop.charge(token)))
    assert (
        await refusal(agent.raw("post", f"/v1/shared_payment/issued_tokens/{token}/revoke"))
    ).http_status == 400


def test_a_token_expires(tmp_path: Path) -> None:
    clock = [1_000_000]
    ledger = Ledger(tmp_path / "books.db", now=lambda: clock[0])
    params = {
        "payment_method": "pm_card_visa",
        "usage_limits": {"currency": "usd", "max_amount": "100", "expires_at": "1000060"},
    }
    with ledger.transaction():
        token = ledger.issue_token("acct_agent", "profile_test_shop", params)
    clock[0] += 60
    with ledger.transaction():
        seen = ledger.token(token["id"])
    assert seen is not None
    assert (seen["status"], seen["deactivated_reason"]) == ("deactivated", "expired")
    for too_far in ("1000060", str(clock[0] + 90 * 24 * 3600 + 1)):
        params["usage_limits"] = {"currency": "usd", "max_amount": "100", "expires_at": too_far}
        with pytest.raises(StripeRefusal, match="expiry"), ledger.transaction():
            ledger.issue_token("acct_agent", "profile_test_shop", params)
    ledger.close()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"payment_method": ""}, "payment_method"),
        ({"seller_details": {"external_id": "x"}}, "seller_details[network_business_profile]"),
        (
            {"seller_details": {"network_business_profile": "profile_test_agent"}},
            "seller_details[network_business_profile]",
        ),
        ({"usage_limits": {"currency": "usd"}}, "usage_limits[max_amount]"),
        ({"usage_limits": {"currency": "usd", "max_amount": 0}}, "usage_limits[max_amount]"),
        ({"usage_limits": {"currency": "usd", "max_amount": -5}}, "usage_limits[max_amount]"),
        ({"usage_limits": {"currency": "usd", "max_amount": "10.5"}}, "usage_limits[max_amount]"),
        ({"usage_limits": {"currency": "usd", "max_amount": 10**16}}, "usage_limits[max_amount]"),
        ({"usage_limits": {"currency": "dollars", "max_amount": 5}}, "usage_limits[currency]"),
        ({"usage_limits": {"currency": "usd", "max_amount": 5, "expires_at": 1}}, "usage_limits[expires_at]"),
    ],
)
async def test_bad_parameters_name_the_parameter(
    accounts: tuple[Account, Account], change: Json, param: str
) -> None:
    good: Json = {
        "payment_method": "pm_card_visa",
        "seller_details": {"network_business_profile": "profile_test_shop"},
        "usage_limits": {"currency": "usd", "max_amount": 100},
    }
    error = await refusal(accounts[0].raw("post", "/v1/shared_payment/issued_tokens", **{**good, **change}))
    assert isinstance(error, stripe.InvalidRequestError)
    assert error.param == param


async def test_preview_version_and_key_are_needed(processor_server: Processor, open_account: Opener) -> None:
    shop = open_account(processor_server, SHOP)
    error = await refusal(
        shop.client.raw_request_async(
            "get", "/v1/shared_payment/granted_tokens/spt_x", stripe_version="2026-03-25.dahlia"
        )
    )
    assert "preview" in str(error)
    assert isinstance(
        await refusal(open_account(processor_server, "sk_live_shop").charge("spt_x")),
        stripe.AuthenticationError,
    )


async def test_declines_carry_the_intent_and_leave_the_token_usable(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    token = await agent.issue(card="pm_card_chargeDeclinedInsufficientFunds")
    key = secrets.token_hex(8)
    error = await refusal(shop.charge(token, key=key))
    assert isinstance(error, stripe.CardError)
    assert error.http_status == 402
    assert (error.code, error.error.decline_code) == ("card_declined", "insufficient_funds")  # type: ignore[union-attr]
    intent = error.json_body["error"]["payment_intent"]
    assert intent["status"] == "requires_payment_method"
    assert charges_of(processor_server, intent["id"]) == []
    kept = await shop.client.v1.payment_intents.retrieve_async(intent["id"])
    assert kept.last_payment_error is not None
    assert kept.last_payment_error.decline_code == "insufficient_funds"

    replayed = await refusal(shop.charge(token, key=key))
    assert replayed.json_body["error"]["payment_intent"]["id"] == intent["id"]
    assert replayed.headers["idempotent-replayed"] == "true"
    assert (await agent.raw("get", f"/v1/shared_payment/issued_tokens/{token}"))["status"] == "active"

    good = await agent.issue()
    confirmed = await shop.raw(
        "post",
        f"/v1/payment_intents/{intent['id']}/confirm",
        payment_method_data={"shared_payment_granted_token": good},
    )
    assert confirmed["status"] == "succeeded"
    assert len(charges_of(processor_server, intent["id"])) == 1


async def test_3ds_needs_a_proof(accounts: tuple[Account, Account], processor_server: Processor) -> None:
    agent, shop = accounts
    intent = await shop.charge(await agent.issue(card="pm_card_threeDSecure2Required"))
    assert intent["status"] == "requires_action"
    path = f"/v1/payment_intents/{intent['id']}/confirm"
    assert (await shop.raw("post", path))["status"] == "requires_action"
    proof = {"cryptogram": "ABCDEFGHIJKLMNOPQRSTUVWXYZA=", "transaction_id": "ds_1", "version": "2.2.0"}
    done = await shop.raw("post", path, payment_method_options={"card": {"three_d_secure": proof}})
    assert done["status"] == "succeeded"
    assert len(charges_of(processor_server, intent["id"])) == 1


async def test_idempotency_is_stripes(accounts: tuple[Account, Account], processor_server: Processor) -> None:
    agent, shop = accounts
    token, key = await agent.issue(), secrets.token_hex(8)
    first = await shop.charge(token, key=key)
    second = await shop.charge(token, key=key)
    assert first["id"] == second["id"]
    assert len(charges_of(processor_server, first["id"])) == 1
    assert isinstance(await refusal(shop.charge(token, 2400, key=key)), stripe.IdempotencyError)
    other_path = await refusal(shop.raw("post", "/v1/refunds", key=key, payment_intent=first["id"]))
    assert "endpoint" in str(other_path)
    # A parameter that was wrong in itself is not kept.
    fresh = secrets.token_hex(8)
    assert (
        await refusal(shop.raw("post", "/v1/payment_intents", key=fresh, amount=0, currency="usd"))
    ).http_status == 400
    assert (await shop.raw("post", "/v1/payment_intents", key=fresh, amount=50, currency="usd"))[
        "amount"
    ] == 50


async def test_a_key_in_flight_is_409(
    accounts: tuple[Account, Account], processor_server: Processor, open_account: Opener
) -> None:
    agent, shop = accounts
    token, key = await agent.issue(), secrets.token_hex(8)
    processor_server.trouble(kind="slow", match="POST /v1/payment_intents", delay_ms=4000)
    slow = asyncio.create_task(shop.charge(token, key=key))
    other = open_account(processor_server, SHOP)

    async def conflicted() -> bool:
        if await asyncio.to_thread(processor_server.armed):
            return False
        assert (await refusal(other.charge(token, key=key))).http_status == 409
        return True

    await eventually(conflicted)
    assert (await slow)["status"] == "succeeded"
    assert (await other.charge(token, key=key))["id"] == (await slow)["id"]


@pytest.mark.parametrize("trouble", [{"kind": "lose_answer"}, {"kind": "error", "when": "after"}])
async def test_a_lost_answer_is_found_again_by_the_key(
    accounts: tuple[Account, Account], processor_server: Processor, trouble: Json
) -> None:
    agent, shop = accounts
    token, key = await agent.issue(), secrets.token_hex(8)
    processor_server.trouble(match="POST /v1/payment_intents", **trouble)
    with pytest.raises((stripe.APIConnectionError, stripe.APIError)):
        await shop.charge(token, key=key, metadata={"checkout": key})
    found = await shop.client.v1.payment_intents.search_async({"query": f"metadata['checkout']:'{key}'"})
    assert [one.status for one in found.data] == ["succeeded"]
    listed = await shop.client.v1.payment_intents.list_async({"limit": 3, "created": {"gte": 0}})
    assert found.data[0].id in [one.id for one in listed.data]
    again = await shop.charge(token, key=key, metadata={"checkout": key})
    assert again["id"] == found.data[0].id
    assert len(charges_of(processor_server, again["id"])) == 1


@pytest.mark.parametrize("how", ["unknown_fields", "deep", "huge", "half", "page"])
async def test_a_garbled_answer_comes_after_the_work(
    accounts: tuple[Account, Account], processor_server: Processor, how: str
) -> None:
    agent, shop = accounts
    token, key = await agent.issue(), secrets.token_hex(8)
    processor_server.trouble(match="POST /v1/payment_intents", kind="garble", how=how)
    try:
        charged = await shop.charge(token, key=key)
    except stripe.APIError:
        assert how in ("deep", "half", "page")
    else:
        assert (charged["status"], "surprise" in charged) == ("succeeded", True)
    again = await shop.charge(token, key=key)
    assert again["status"] == "succeeded"
    assert len(charges_of(processor_server, again["id"])) == 1


async def test_an_error_before_the_work_charges_nothing(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    token, key = await agent.issue(), secrets.token_hex(8)
    processor_server.trouble(kind="error", status=503, match="POST /v1/payment_intents")
    error = await refusal(shop.charge(token, key=key))
    assert error.http_status == 503
    assert (await agent.raw("get", f"/v1/shared_payment/issued_tokens/{token}"))["status"] == "active"
    assert (await shop.charge(token, key=key))["status"] == "succeeded"


async def test_refunds_never_exceed_the_charge(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    intent = await shop.charge(await agent.issue())
    options: Any = {"idempotency_key": secrets.token_hex(8)}
    part = await shop.client.v1.refunds.create_async(
        {"payment_intent": intent["id"], "amount": 1000}, options
    )
    assert part.amount == 1000
    assert (
        await shop.client.v1.refunds.create_async({"payment_intent": intent["id"], "amount": 1000}, options)
    ).id == part.id
    too_much = await refusal(shop.raw("post", "/v1/refunds", payment_intent=intent["id"], amount=1501))
    assert "greater than unrefunded amount" in str(too_much)
    rest = await shop.raw("post", "/v1/refunds", payment_intent=intent["id"])
    assert rest["amount"] == 1500
    done = await refusal(shop.raw("post", "/v1/refunds", payment_intent=intent["id"]))
    assert done.code == "charge_already_refunded"
    charge = await shop.client.v1.charges.retrieve_async(intent["latest_charge"])
    assert (charge.refunded, charge.amount_refunded) == (True, 2500)
    expanded = await shop.raw("get", f"/v1/payment_intents/{intent['id']}", expand=["latest_charge"])
    assert expanded["latest_charge"]["payment_method_details"]["card"]["brand"] == "visa"


async def test_a_canceled_intent_can_never_be_charged(accounts: tuple[Account, Account]) -> None:
    agent, shop = accounts
    intent = await shop.raw("post", "/v1/payment_intents", amount=2500, currency="usd")
    assert (await shop.raw("post", f"/v1/payment_intents/{intent['id']}/cancel"))["status"] == "canceled"
    late = await refusal(
        shop.raw(
            "post",
            f"/v1/payment_intents/{intent['id']}/confirm",
            payment_method_data={"shared_payment_granted_token": await agent.issue()},
        )
    )
    assert late.code == "payment_intent_unexpected_state"
    charged = await shop.charge(await agent.issue())
    assert (await refusal(shop.raw("post", f"/v1/payment_intents/{charged['id']}/cancel"))).http_status == 400


async def test_the_test_helper_grants_to_the_caller(accounts: tuple[Account, Account]) -> None:
    _, shop = accounts
    token = await shop.raw(
        "post",
        "/v1/test_helpers/shared_payment/granted_tokens",
        payment_method="pm_card_mastercard",
        usage_limits={"currency": "usd", "max_amount": 700},
    )
    assert token["object"] == "shared_payment.granted_token"
    # The top-level parameter, which MPP's own server sends, is understood as well.
    paid = await shop.raw(
        "post",
        "/v1/payment_intents",
        amount=700,
        currency="usd",
        confirm=True,
        shared_payment_granted_token=token["id"],
    )
    assert paid["status"] == "succeeded"
    method = await shop.raw("get", f"/v1/payment_methods/{paid['payment_method']}")
    assert method["shared_payment_granted_token"] == token["id"]


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"use_stripe_sdk": True}, "use_stripe_sdk"),
        ({"return_url": "https://agent.example/done"}, "redirect_to_url"),
        ({"return_url": "https://agent.example/done", "use_stripe_sdk": True}, "use_stripe_sdk"),
    ],
)
async def test_the_issuer_chooses_how_a_person_authenticates(
    accounts: tuple[Account, Account], processor_server: Processor, asked: Json, kind: str
) -> None:
    agent, _ = accounts
    token = await agent.raw(
        "post",
        "/v1/shared_payment/issued_tokens",
        payment_method="pm_card_authenticationRequiredOnSetup",
        seller_details={"network_business_profile": "profile_test_shop"},
        usage_limits={"currency": "usd", "max_amount": 700},
        **asked,
    )
    action = token["next_action"]
    assert (token["status"], action["type"]) == ("requires_action", kind)
    assert token["id"] not in json.dumps(action)
    step = action[kind].get("value") or action[kind]["url"].rpartition("/")[2]
    async with httpx.AsyncClient() as http:
        assert (await http.post(f"{processor_server.url}/sandbox/next_actions/{step}")).is_success
    seen = await agent.raw("get", f"/v1/shared_payment/issued_tokens/{token['id']}")
    assert (seen["status"], seen["next_action"]) == ("active", None)


async def test_an_intent_allows_payment_methods_by_their_new_name(accounts: tuple[Account, Account]) -> None:
    _, shop = accounts
    intent: Json = {"amount": 700, "currency": "usd"}
    made = await shop.raw("post", "/v1/payment_intents", **intent, allowed_payment_method_types=["card"])
    assert (made["allowed_payment_method_types"], made["payment_method_types"]) == (["card"], ["card"])
    older = await refusal(shop.raw("post", "/v1/payment_intents", **intent, payment_method_types=["card"]))
    assert (older.http_status, older.code) == (400, "parameter_unknown")


async def test_card_numbers_are_refused(accounts: tuple[Account, Account]) -> None:
    agent, _ = accounts
    error = await refusal(
        agent.raw("post", "/v1/payment_methods", type="card", card={"number": "4242424242424242"})
    )
    assert isinstance(error, stripe.CardError)
    made = await agent.raw("post", "/v1/payment_methods", type="card", card={"token": "tok_visa"})
    assert (await agent.issue(card=made["id"])).startswith("spt_")


async def test_each_side_has_its_events(processor_server: Processor, open_account: Opener) -> None:
    agent, shop = (open_account(processor_server, f"sk_test_{who}") for who in ("eventful", "shop"))
    token = await agent.issue()
    await shop.charge(token)
    revoked = await agent.issue()
    await agent.raw("post", f"/v1/shared_payment/issued_tokens/{revoked}/revoke")
    events = (await agent.client.v1.events.list_async({"limit": 100})).data
    kinds = [(event.type, event.data.object["id"]) for event in reversed(events)]
    assert kinds == [
        ("shared_payment.issued_token.active", token),
        ("shared_payment.issued_token.used", token),
        ("shared_payment.issued_token.deactivated", token),
        ("shared_payment.issued_token.active", revoked),
        ("shared_payment.issued_token.deactivated", revoked),
    ]
    sellers = [event.type for event in (await shop.client.v1.events.list_async({"limit": 5})).data]
    assert sellers == [
        "shared_payment.granted_token.deactivated",
        "shared_payment.granted_token.deactivated",
        "shared_payment.granted_token.used",
        "payment_intent.succeeded",
        "charge.succeeded",
    ]
    first = (await shop.client.v1.events.list_async({"limit": 1})).data[0]
    assert (await shop.client.v1.events.retrieve_async(first.id)).type == first.type


class _Receiver:
    """A webhook endpoint that fails its first delivery."""

    def __init__(self) -> None:
        received: list[tuple[bytes, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append((body, self.headers["Stripe-Signature"]))
                self.send_response(500 if len(received) == 1 else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.received = received
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


async def test_events_are_signed_and_sent_again(processor_server: Processor, open_account: Opener) -> None:
    account = open_account(processor_server, "sk_test_hooked")
    receiver = _Receiver()
    try:
        endpoint = await account.client.v1.webhook_endpoints.create_async(
            {
                "url": f"http://127.0.0.1:{receiver.server.server_port}/hooks",
                "enabled_events": ["payment_intent.succeeded"],
            },
            {"idempotency_key": secrets.token_hex(8)},
        )
        paid = await account.raw(
            "post",
            "/v1/payment_intents",
            amount=900,
            currency="usd",
            confirm=True,
            payment_method="pm_card_visa",
        )
        arrived: Callable[[], bool] = lambda: len(receiver.received) >= 2  # noqa: E731
        await asyncio.to_thread(wait_until, arrived, "the event was sent again")
        body, signature = receiver.received[1]
        event = stripe.Webhook.construct_event(body, signature, endpoint.secret, api_key="sk_test_hooked")
        assert event.type == "payment_intent.succeeded"
        assert event.data.object["id"] == paid["id"]
        with pytest.raises(stripe.SignatureVerificationError):
            stripe.Webhook.construct_event(body + b" ", signature, endpoint.secret, api_key="sk_test_hooked")
    finally:
        receiver.close()


async def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path, open_account: Opener) -> None:
    with running_processor(tmp_path) as server:
        agent, shop = open_account(server, AGENT), open_account(server, SHOP)
        for moment in ("before", "after"):
            token, key = await agent.issue(), secrets.token_hex(8)
            server.trouble(kind="die", when=moment, match="POST /v1/payment_intents")
            with pytest.raises(stripe.APIConnectionError):
                await shop.charge(token, key=key)
            server.wait_dead()
            server.start().wait()
            entries: Any = server.books()["entries"]
            assert len([entry for entry in entries if entry["token"] == token]) == (moment == "after")
            paid = await shop.charge(token, key=key)
            assert paid["status"] == "succeeded"
            assert len(charges_of(server, paid["id"])) == 1


async def test_two_charges_of_one_token_at_once(
    accounts: tuple[Account, Account], processor_server: Processor
) -> None:
    agent, shop = accounts
    token = await agent.issue()
    results = await asyncio.gather(*(shop.charge(token) for _ in range(5)), return_exceptions=True)
    assert len([one for one in results if isinstance(one, dict)]) == 1
    entries: Any = processor_server.books()["entries"]
    assert len([entry for entry in entries if entry["token"] == token]) == 1


@pytest.mark.parametrize(
    ("currency", "amount", "code"),
    [
        ("usd", 49, "amount_too_small"),
        ("usd", 50, None),
        ("gbp", 29, "amount_too_small"),
        ("gbp", 30, None),
        ("jpy", 49, "amount_too_small"),
        ("jpy", 50, None),
        ("jpy", 1_490, None),
        ("huf", 17_499, "amount_too_small"),
        ("isk", 500_00, None),
        ("isk", 500_50, "invalid_charge_amount"),
        ("kwd", 5_120, None),
        ("kwd", 5_124, "invalid_charge_amount"),
    ],
)
async def test_amounts_are_refused_as_stripe_refuses_them(
    accounts: tuple[Account, Account], currency: str, amount: int, code: str | None
) -> None:
    _, shop = accounts
    asked = shop.raw("post", "/v1/payment_intents", amount=amount, currency=currency)
    if code is None:
        assert (await asked)["amount"] == amount
    else:
        refused = await refusal(asked)
        assert (refused.http_status, refused.code, refused.param) == (400, code, "amount")
    intent = await shop.raw("post", "/v1/payment_intents", amount=100_000, currency=currency)
    changed = shop.raw("post", f"/v1/payment_intents/{intent['id']}", amount=amount)
    assert (code is None) == (not isinstance(await _outcome(changed), stripe.StripeError))


async def _outcome(asked: Any) -> Any:
    try:
        return await asked
    except stripe.StripeError as error:
        return error


async def test_payment_method_data_needs_a_token_or_a_type(accounts: tuple[Account, Account]) -> None:
    _, shop = accounts
    refused = await refusal(
        shop.raw(
            "post",
            "/v1/payment_intents",
            amount=100,
            currency="usd",
            payment_method_data={"billing_details": {"name": "A"}},
        )
    )
    assert (refused.http_status, refused.param) == (400, "payment_method_data[type]")
