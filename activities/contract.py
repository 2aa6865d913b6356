"""What workflows ask of activities: the calls with their arguments and answers, and how they fail.

Loads no library that does I/O, so that workflows may import it. The activities themselves, which do, are in
the modules beside it; a type checker holds them to these signatures.
"""

from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from pydantic import Field
from temporalio import activity

from waystation.models.base import Frozen
from waystation.models.mandates import (
    CommitRequest,
    MandateView,
    RefundRequest,
    ReleaseRequest,
    Reservation,
    ReserveAnswer,
    ReserveRequest,
)
from waystation.models.money import Money
from waystation.models.payments import (
    AllowanceAnswer,
    AllowancePayment,
    ClosedCredential,
    HeaderPair,
    MintCall,
    Offer,
    PaidHttpRequest,
    ProbeAnswer,
    Rail,
    RedeemAnswer,
    SealedCredential,
)
from waystation.models.proofs import ProofQuestion, ProofVerdict, Sealed
from waystation.models.purchases import (
    AuthenticationDone,
    CartFulfillment,
    CheckoutAnswer,
    IssueToken,
    OrderPlaced,
    PaymentToken,
    PurchaseRequest,
    PurchaseView,
)
from waystation.models.trail import NoteEvents
from waystation.models.webhooks import NewsTypes, SecretMade, Subscription, SubscriptionList, WebhookAttempt

# Types of failures

SELLER_UNAVAILABLE: Final = "SellerUnavailable"
"""Retryable: no answer, a 5xx, or told to come back later. After a completion: the outcome is unknown."""

SELLER_REFUSED: Final = "SellerRefused"
"""Final: a 4xx. ``details``: code, HTTP status, param."""

SELLER_ANSWER_INVALID: Final = "SellerAnswerInvalid"
"""Final: the answer breaks the protocol. After a completion: the outcome is unknown."""

PROCESSOR_UNAVAILABLE: Final = "ProcessorUnavailable"
"""Retryable: no answer, a 5xx, or a request with the same key still under way."""

PROCESSOR_REFUSED: Final = "ProcessorRefused"
"""Final: the processor understood and said no. ``details``: code, HTTP status, param."""

PAYMENT_METHOD_DECLINED: Final = "PaymentMethodDeclined"
"""Final: the payment method was declined. ``details``: decline code."""

MANDATE_REFUSED: Final = "MandateRefused"
"""Error type of a refusal by the mandate; ``details[0]`` is the rule's name."""

MANDATE_UNAVAILABLE: Final = "MandateUnavailable"
"""Retryable: the mandate's workflow gave no answer."""

HOUSE_UNAVAILABLE: Final = "HouseUnavailable"
"""Retryable: Temporal or this project's own part gave no answer, and no peer was asked."""

SEALING_FAILED: Final = "SealingFailed"
"""This worker can't seal (final) or open a payment secret; the message says what to set."""

REQUEST_INVALID: Final = "PaidRequestInvalid"
"""Final: the request can't be made at all (no TLS, bad URL). ``details``: the rule's name."""
CREDENTIAL_NOT_MINTED: Final = "CredentialNotMinted"
"""Final: this side can't pay the offer. ``details``: the rule's name."""


class ReserveFor(Frozen):
    """A reservation to make from one mandate."""

    mandate_id: str
    request: ReserveRequest


class CommitFor(Frozen):
    """A payment made under one mandate."""

    mandate_id: str
    request: CommitRequest


class RefundFor(Frozen):
    """Money that has come back from a payment made under one mandate."""

    mandate_id: str
    request: RefundRequest


class ReleaseFor(Frozen):
    """A reservation to release to one mandate."""

    mandate_id: str
    request: ReleaseRequest


class MandateQuestion(Frozen):
    """Which mandate."""

    mandate_id: str


class HolderQuestion(Frozen):
    """Is this workflow still running?"""

    workflow_id: str


class MandateCalls(Protocol):
    """What is asked of mandates. All calls are idempotent by the reservation's key."""

    @activity.defn
    async def read_mandate(self, question: MandateQuestion) -> MandateView:
        """Returns the mandate as it stands, without its reservations."""
        ...

    @activity.defn
    async def reserve_from_mandate(self, call: ReserveFor) -> ReserveAnswer:
        """Reserves an amount, or confirms its reservation."""
        ...

    @activity.defn
    async def commit_to_mandate(self, call: CommitFor) -> Reservation:
        """Records what was spent."""
        ...

    @activity.defn
    async def refund_to_mandate(self, call: RefundFor) -> Reservation | None:
        """Records what has come back. A mandate that has ended takes nothing back."""
        ...

    @activity.defn
    async def release_to_mandate(self, call: ReleaseFor) -> Reservation | None:
        """Releases room. A mandate that has ended needs nothing back."""
        ...

    @activity.defn
    async def holder_is_running(self, question: HolderQuestion) -> bool:
        """Returns whether the workflow that holds a reservation is still open."""
        ...


class ProofCalls(Protocol):
    """What is asked about who decided."""

    @activity.defn
    async def check_proof(self, question: ProofQuestion) -> ProofVerdict:
        """Returns whether a decision about the workflow that asks counts."""
        ...


class OpenCheckout(Frozen):
    """A checkout to create for a request."""

    request: PurchaseRequest
    purchase_id: str
    idempotency_key: str


class CheckoutRef(Frozen):
    """One checkout at one seller."""

    seller: str
    api_base_url: str
    checkout_id: str


class ChangeCheckout(Frozen):
    """A change of a checkout: the whole request again, with the fulfillment options to select."""

    checkout: CheckoutRef
    request: PurchaseRequest
    select: tuple[CartFulfillment, ...] = ()
    restate: bool = False
    """Whether items, buyer, address and codes are sent again, and not only the selection."""

    idempotency_key: str


class CompleteCheckout(Frozen):
    """A checkout to pay with a token."""

    checkout: CheckoutRef
    request: PurchaseRequest
    handler_id: str
    token: Sealed = Field(repr=False)
    authentication: AuthenticationDone | None = None
    idempotency_key: str


class CancelCheckout(Frozen):
    """A checkout to give up."""

    checkout: CheckoutRef
    reason: str
    idempotency_key: str


class CheckoutCalls(Protocol):
    """What is asked of sellers, over ACP."""

    @activity.defn
    async def open_checkout(self, call: OpenCheckout) -> CheckoutAnswer:
        """Finds the seller's API by its discovery document and creates a checkout there."""
        ...

    @activity.defn
    async def update_checkout(self, call: ChangeCheckout) -> CheckoutAnswer:
        """Changes a checkout (``POST /checkout_sessions/{id}``)."""
        ...

    @activity.defn
    async def read_checkout(self, checkout: CheckoutRef) -> CheckoutAnswer | OrderPlaced:
        """Reads a checkout (``GET /checkout_sessions/{id}``). Of a completed one, the order suffices."""
        ...

    @activity.defn
    async def complete_checkout(self, call: CompleteCheckout) -> CheckoutAnswer | OrderPlaced:
        """Pays and orders (``POST …/complete``). Of a completed checkout, the order suffices."""
        ...

    @activity.defn
    async def cancel_checkout(self, call: CancelCheckout) -> CheckoutAnswer | OrderPlaced | None:
        """Cancels a checkout. One already closed (405) is read instead; returns ``None`` if it is gone."""
        ...


class PurchaseNote(Frozen):
    """Something to tell a session."""

    session_id: str
    note: NoteEvents


Told = Literal["told", "closed", "unknown"]
"""Whether a session was told; ``unknown``: there is none with that id."""


class AnnouncementCalls(Protocol):
    """What sessions are told."""

    @activity.defn
    async def announce_purchase(self, call: PurchaseNote) -> Told:
        """Signals ``note`` to the session's workflow."""
        ...


class OrderRoute(Frozen):
    """The workflow that receives a checkout's order webhooks, and the purchase that it passes them on to."""

    route_id: str
    purchase_id: str
    lasts: timedelta
    """How long the purchase follows its order."""


class OrderRoutingCalls(Protocol):
    """Where order webhooks go."""

    @activity.defn
    async def route_order_events(self, call: OrderRoute) -> None:
        """Starts the checkout's ``OrderEvents`` workflow, or binds the one that a webhook started."""
        ...


class PurchaseQuestion(Frozen):
    """Which purchase to look at."""

    purchase_id: str


class PurchaseReadingCalls(Protocol):
    """What a purchase says of itself."""

    @activity.defn
    async def read_purchase(self, call: PurchaseQuestion) -> PurchaseView:
        """Returns the purchase as it stands."""
        ...


class TokenRef(Frozen):
    """One issued token."""

    token: PaymentToken


class RevokeToken(Frozen):
    """A token to revoke."""

    token: PaymentToken
    idempotency_key: str


class PaymentTokenCalls(Protocol):
    """What is asked of the processor about shared payment tokens."""

    @activity.defn
    async def issue_payment_token(self, call: IssueToken) -> PaymentToken:
        """Issues a token (``POST /v1/shared_payment/issued_tokens``)."""
        ...

    @activity.defn
    async def read_payment_token(self, call: TokenRef) -> PaymentToken:
        """Returns what the processor says of a token (``GET …/{id}``)."""
        ...

    @activity.defn
    async def revoke_payment_token(self, call: RevokeToken) -> PaymentToken:
        """Revokes a token; its state afterwards tells whether it had been spent."""
        ...


class ReadOffers(Frozen):
    """The headers of a 402 answer that the caller already has."""

    request: PaidHttpRequest
    headers: tuple[HeaderPair, ...]


class RedeemCall(Frozen):
    """A request to send with its credential."""

    request: PaidHttpRequest
    offer: Offer
    credential: SealedCredential
    key: str


class CloseCall(Frozen):
    """A credential to close: find out whether it moved money, and if not, make sure it never will."""

    offer: Offer
    credential: SealedCredential
    key: str


class AllowanceCall(Frozen):
    """One payment within an allowance, with everything that shapes its credential."""

    payment: AllowancePayment
    payment_id: str
    max_price: Money
    rails: tuple[Rail, ...]
    expected_payee: str | None
    payment_method: str | None
    at: datetime
    expires_at: datetime


class PaidRequestCalls(Protocol):
    """What is asked of paid servers, the processor and the wallet."""

    @activity.defn
    async def probe_paid_resource(self, request: PaidHttpRequest) -> ProbeAnswer:
        """Makes the request without paying."""
        ...

    @activity.defn
    async def read_payment_offers(self, call: ReadOffers) -> ProbeAnswer:
        """Reads the offers of an earlier 402 answer."""
        ...

    @activity.defn
    async def mint_payment_credential(self, call: MintCall) -> SealedCredential:
        """Issues a token or signs an authorization for exactly this offer. Sends nothing to the server."""
        ...

    @activity.defn
    async def redeem_payment_credential(self, call: RedeemCall) -> RedeemAnswer:
        """Sends the request with the credential; after a lost answer, the same credential again."""
        ...

    @activity.defn
    async def close_payment_credential(self, call: CloseCall) -> ClosedCredential:
        """Asks the processor or the chain what became of a credential, and revokes an unused token."""
        ...

    @activity.defn
    async def pay_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """Chooses, mints, sends and closes in one call."""
        ...

    @activity.defn
    async def close_within_allowance(self, call: AllowanceCall) -> AllowanceAnswer:
        """Finds out whether a payment without an answer moved money, and makes sure it never will."""
        ...


class WebhookCall(Frozen):
    """One attempt at delivering one message."""

    url: str
    delivery_id: str
    body: str
    secrets: tuple[Sealed, ...] = Field(repr=False)
    """The newest first; the message is signed with each."""


class WebhookOutcome(Frozen):
    """What came of it."""

    attempt: WebhookAttempt
    delivered: bool
    gone: bool = False
    """The receiver wants no more of these, ever (410)."""
    retry_after: timedelta | None = None


class PushCall(Frozen):
    """One attempt at telling a browser something."""

    endpoint: str = Field(repr=False)
    p256dh: str
    auth: str = Field(repr=False)
    body: str
    topic: str
    keep_seconds: int
    """For how long the push service keeps it for a browser that is away."""


class PushOutcome(Frozen):
    """What came of it."""

    attempt: WebhookAttempt
    delivered: bool
    gone: bool = False
    """There is no such browser any more (404, 410)."""
    final: bool = False
    """It is no use to try again."""
    retry_after: timedelta | None = None


class PushCalls(Protocol):
    """What is asked of push services."""

    @activity.defn
    async def deliver_push(self, call: PushCall) -> PushOutcome:
        """Sends a message once. A push service that fails is an outcome, and no failure."""
        ...


class SecretCall(Frozen):
    """A secret to make, and for whom."""

    recipient: str


class NewSecret(Frozen):
    """A secret as the endpoint keeps it, and as its owner gets it."""

    sealed: Sealed = Field(repr=False)
    made: SecretMade


class WebhookCalls(Protocol):
    """What is asked about webhooks, and of their receivers."""

    @activity.defn
    async def webhook_subscribers(self, news: NewsTypes) -> SubscriptionList:
        """Returns who wants news of these types. Asks Temporal, and no worker."""
        ...

    @activity.defn
    async def register_webhook(self, subscription: Subscription) -> None:
        """Tells the registry, which is started if need be; from then on it is so for everybody."""
        ...

    @activity.defn
    async def make_webhook_secret(self, call: SecretCall) -> NewSecret:
        """Makes a secret."""
        ...

    @activity.defn
    async def deliver_webhook(self, call: WebhookCall) -> WebhookOutcome:
        """Sends a message once. A receiver that fails is an outcome, and no failure."""
        ...
