"""Every message that workflows take, and what else is called by its name, with its types.

The names are fixed: recorded histories, running processes of an older release and people with Temporal's
command line use them. A handler's name is that of its method, and ``tests/temporal/test_names.py`` compares
it and its types with the token. Where a result may be missing, the token's declared type says so.
"""

from types import NoneType
from typing import Final

from waystation.models.attention import Waiting
from waystation.models.decisions import Approve, Cancel, Decision, Reject
from waystation.models.events import Publish
from waystation.models.mandates import (
    CommitRequest,
    MandateView,
    RefundRequest,
    ReleaseRequest,
    Reservation,
    ReserveAnswer,
    ReserveRequest,
    RevokeRequest,
)
from waystation.models.owners import QuestionRef, SessionNews, SessionWrite
from waystation.models.payments import (
    AllowanceAnswer,
    AllowanceLease,
    AllowanceOpening,
    AllowancePayment,
    AllowanceReport,
    AllowanceView,
    LeaseRequest,
    PaidRequestStart,
    PaidRequestView,
)
from waystation.models.purchases import (
    AuthenticationDone,
    BuyStart,
    Cart,
    OrderBinding,
    OrderEventReceived,
    OrderEventsStart,
    OutcomeWanted,
    PurchaseView,
    RetryPayment,
    Revise,
)
from waystation.models.push import PushOpening, PushRemoval, PushTarget, PushView, PushWaiting
from waystation.models.questions import Answered, AnswerQuestion, OpenApprovals, QuestionOutcome, QuestionView
from waystation.models.sessions import (
    AddNote,
    Assign,
    Close,
    LogPosition,
    LogReading,
    Membership,
    Note,
    Outcome,
    Recorded,
    Release,
    ReplayPage,
    SendMessage,
    Sent,
    SessionOpening,
    Snapshot,
    Spawn,
    Spawned,
    Steer,
    Stop,
    Suggestion,
    SuggestionInput,
    SuggestReply,
    TakeOver,
    TurnAttempt,
    TurnEnded,
    TurnInput,
    TurnResult,
    TurnResume,
    TurnWaiting,
    Withdraw,
    Withdrawn,
)
from waystation.models.steps import RecordStep, StepRecorded, StepsPage
from waystation.models.trail import AuditTrail
from waystation.models.webhooks import (
    DeliveriesWanted,
    DeliveryWanted,
    RegistryStart,
    SecretMade,
    SecretWanted,
    Subscription,
    SubscriptionList,
    WebhookChange,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookNews,
    WebhookOpening,
    WebhookView,
)
from waystation.temporal.tokens import ActivityName, QueryName, SignalName, UpdateName, WorkflowName

# Sessions and their turns

SESSION: Final = WorkflowName("AgentSession", SessionOpening, NoneType)
SESSION_PUBLISH: Final = SignalName("publish", Publish)
SESSION_NOTE: Final = SignalName("note", Note)
SESSION_TURN_ATTEMPT: Final = SignalName("turn_attempt", TurnAttempt)
SESSION_TURN_ENDED: Final = SignalName("turn_ended", TurnEnded)
SESSION_TURN_WAITING: Final = SignalName("turn_waiting", TurnWaiting)
SESSION_ANSWER: Final = SignalName("answer", AnswerQuestion)
SESSION_ANSWER_QUESTION: Final = UpdateName("answer_question", AnswerQuestion, Answered)
SESSION_STOP: Final = SignalName("stop", Stop)
SESSION_STEER: Final = SignalName("steer", Steer)
SESSION_CLOSE: Final = SignalName("close", Close)
SESSION_TELL_AGAIN: Final = SignalName("tell_again", NoneType)
"""From a session's owner that has begun again and knows nothing of the running turn."""
SESSION_SEND: Final = UpdateName("send", SendMessage, Sent)
SESSION_WITHDRAW: Final = UpdateName("withdraw", Withdraw, Withdrawn)
SESSION_SPAWN: Final = UpdateName("spawn", Spawn, Spawned)
SESSION_JOIN: Final = UpdateName("join", Membership, Recorded)
SESSION_LEAVE: Final = UpdateName("leave", Membership, Recorded)
SESSION_TAKE_OVER: Final = UpdateName("take_over", TakeOver, Recorded)
SESSION_ADD_NOTE: Final = UpdateName("add_note", AddNote, Recorded)
SESSION_ASSIGN: Final = UpdateName("assign", Assign, Recorded)
SESSION_SUGGEST_REPLY: Final = UpdateName("suggest_reply", SuggestReply, Recorded)
SESSION_RELEASE: Final = UpdateName("release", Release, Recorded)
SESSION_REPLAY: Final = QueryName("replay", int, ReplayPage)
"""Its argument is the cursor; how many events a page has is the handler's second one, with a default."""
SESSION_READ: Final = QueryName("read", LogPosition, LogReading)
SESSION_SNAPSHOT: Final = QueryName("snapshot", NoneType, Snapshot)
SESSION_APPROVALS: Final = QueryName("approvals", NoneType, OpenApprovals)
SESSION_OPEN_QUESTIONS: Final = QueryName("open_questions", NoneType, OpenApprovals)
SESSION_WAITING: Final = QueryName("waiting", NoneType, Waiting)
SESSION_OUTCOME: Final[QueryName[str, Outcome | None]] = QueryName("outcome", str, Outcome)

SESSION_QUESTION: Final[QueryName[str, QuestionView | None]] = QueryName("question", str, QuestionView)

TURN_CHECK: Final = SignalName("check", NoneType)
"""Tells the turn nothing; it can't be sent to one whose workflow is gone."""
TURN_RECORD_STEP: Final = UpdateName("record_step", RecordStep, StepRecorded)
TURN_STEPS: Final = QueryName("steps", int, StepsPage)
"""Its argument is how many of the first steps to leave out."""

TURN_RESUME: Final = SignalName("resume", TurnResume)

ASKER_ANSWERED: Final = SignalName("waystation_answer", QuestionOutcome)
"""What a workflow hears that has asked with ``reply_to``."""

RUN_TURN: Final = ActivityName("run_turn", TurnInput, TurnResult)
"""The activity in which an agent's process runs one attempt of a turn."""

SUGGEST_REPLY: Final = ActivityName("suggest_reply", SuggestionInput, Suggestion)
"""The activity in which an agent's process drafts a reply for the operator who speaks in its place."""

SEARCH_KEY: Final = ActivityName("search_key", str, str)
"""Tells a session the key of its digests; an empty one where the namespace has no search attributes."""
ANNOUNCE: Final = ActivityName("announce", str, NoneType)
"""Its argument is the id of the session that has news."""

WRITE_TO_SESSION: Final = ActivityName("write_to_session", SessionWrite, NoneType)
"""What a workflow writes into a session: done once it is recorded, failed as ``WriteRefused`` if it isn't."""
READ_OUTCOME: Final[ActivityName[QuestionRef, QuestionOutcome | None]] = ActivityName(
    "read_outcome", QuestionRef, QuestionOutcome
)
"""What has become of a question, as its session has recorded it; nothing while it waits."""

OWNER_NEWS: Final = SignalName("waystation_session", SessionNews)
"""What a session tells its owner, a workflow of somebody else's; ``waystation.workflow`` takes it there."""

# Mandates

MANDATE_RESERVE: Final = UpdateName("reserve", ReserveRequest, ReserveAnswer)
MANDATE_COMMIT: Final = UpdateName("commit", CommitRequest, Reservation)
MANDATE_RELEASE: Final = UpdateName("release", ReleaseRequest, Reservation)
MANDATE_REFUND: Final = UpdateName("refund", RefundRequest, Reservation)
MANDATE_REVOKE: Final = SignalName("revoke", RevokeRequest)
MANDATE_STANDING: Final = QueryName("standing", NoneType, MandateView)
MANDATE_BALANCE: Final = QueryName("balance", NoneType, MandateView)

HOLDER_MANDATE_REVOKED: Final = SignalName("mandate_revoked", RevokeRequest)
"""What a mandate tells everything that holds a reservation: purchases, paid requests and allowances."""

# Purchases

PURCHASE_APPROVE: Final = SignalName("approve", Approve)
PURCHASE_REJECT: Final = SignalName("reject", Reject)
PURCHASE_DECIDE: Final = UpdateName("decide", Decision, PurchaseView)
PURCHASE_OUTCOME: Final = UpdateName("outcome", OutcomeWanted, PurchaseView)
PURCHASE_REVISE: Final = SignalName("revise", Revise)
PURCHASE_CANCEL: Final = SignalName("cancel", Cancel)
PURCHASE_TURN_STOPPED: Final = SignalName("turn_stopped", Cancel)
PURCHASE_AUTHENTICATION_RESULT: Final = SignalName("authentication_result", AuthenticationDone)
PURCHASE_RETRY_PAYMENT: Final = SignalName("retry_payment", RetryPayment)
PURCHASE_ORDER_EVENT: Final = SignalName("order_event", OrderEventReceived)
PURCHASE_STATUS: Final = QueryName("status", NoneType, PurchaseView)
PURCHASE_CART: Final[QueryName[None, Cart | None]] = QueryName("cart", NoneType, Cart)
PURCHASE_AUDIT: Final = QueryName("audit", NoneType, AuditTrail)

ORDER_EVENTS: Final = WorkflowName("OrderEvents", OrderEventsStart, int)
ORDER_EVENTS_BIND: Final = SignalName("bind", OrderBinding)
ORDER_EVENTS_DELIVER: Final = SignalName("deliver", OrderEventReceived)

BUY: Final = WorkflowName("Buy", BuyStart, PurchaseView)
BUY_ENDED: Final = SignalName("ended", NoneType)
"""Tells the workflow that started a purchase to look how it ended; it is not believed on how, for whoever
reaches Temporal can send it."""

# Paid requests

PAID_REQUEST: Final = WorkflowName("PaidRequest", PaidRequestStart, PaidRequestView)
PAID_REQUEST_APPROVE: Final = SignalName("approve", Approve)
PAID_REQUEST_REJECT: Final = SignalName("reject", Reject)
PAID_REQUEST_DECIDE: Final = UpdateName("decide", Decision, PaidRequestView)
PAID_REQUEST_CANCEL: Final = SignalName("cancel", Cancel)
PAID_REQUEST_ANSWERED: Final = UpdateName("answered", NoneType, PaidRequestView)
PAID_REQUEST_OUTCOME: Final = UpdateName("outcome", NoneType, PaidRequestView)
PAID_REQUEST_STATUS: Final = QueryName("status", NoneType, PaidRequestView)
PAID_REQUEST_DIGEST: Final = QueryName("digest", NoneType, str)
PAID_REQUEST_AUDIT: Final = QueryName("audit", NoneType, AuditTrail)

# Allowances

ALLOWANCE: Final = WorkflowName("Allowance", AllowanceOpening, AllowanceView)
ALLOWANCE_LEASE: Final = UpdateName("lease", LeaseRequest, AllowanceLease)
ALLOWANCE_REPORT: Final = UpdateName("report", AllowanceReport, AllowanceLease)
ALLOWANCE_UNTIL_CLOSING: Final = UpdateName("until_closing", NoneType, bool)
ALLOWANCE_PAY: Final = UpdateName("pay", AllowancePayment, AllowanceAnswer)
ALLOWANCE_SETTLE: Final = SignalName("settle", Cancel)
ALLOWANCE_STATUS: Final = QueryName("status", NoneType, AllowanceView)
ALLOWANCE_ANSWER: Final[QueryName[str, AllowanceAnswer | None]] = QueryName("answer", str, AllowanceAnswer)
ALLOWANCE_DIGEST: Final = QueryName("digest", NoneType, str)
ALLOWANCE_DIGEST_OF: Final[QueryName[str, str | None]] = QueryName("digest_of", str, str)
ALLOWANCE_AUDIT: Final = QueryName("audit", NoneType, AuditTrail)

# Webhooks

WEBHOOK: Final = WorkflowName("WebhookEndpoint", WebhookOpening, NoneType)
WEBHOOK_NEWS: Final = SignalName("news", WebhookNews)
WEBHOOK_MAKE_SECRET: Final = UpdateName("make_secret", SecretWanted, SecretMade)
WEBHOOK_CHANGE: Final = UpdateName("change", WebhookChange, WebhookView)
WEBHOOK_REMOVE: Final = UpdateName("remove", NoneType, WebhookView)
WEBHOOK_TEST: Final = UpdateName("test", NoneType, WebhookDelivery)
WEBHOOK_REDELIVER: Final = UpdateName("redeliver", DeliveryWanted, WebhookDelivery)
WEBHOOK_STATUS: Final = QueryName("status", NoneType, WebhookView)
WEBHOOK_DELIVERIES: Final = QueryName("deliveries", DeliveriesWanted, WebhookDeliveries)
WEBHOOK_DELIVERY: Final[QueryName[str, WebhookDelivery | None]] = QueryName("delivery", str, WebhookDelivery)

# Web Push

PUSH: Final = WorkflowName("PushSubscriber", PushOpening, NoneType)
PUSH_SUBSCRIBE: Final = UpdateName("subscribe", PushTarget, PushView)
PUSH_UNSUBSCRIBE: Final = UpdateName("unsubscribe", PushRemoval, PushView)
PUSH_ATTENTION: Final = SignalName("attention", PushWaiting)
PUSH_STATUS: Final = QueryName("status", NoneType, PushView)

WEBHOOKS: Final = WorkflowName("Webhooks", RegistryStart, NoneType)
WEBHOOKS_SUBSCRIBE: Final = UpdateName("subscribe", Subscription, SubscriptionList)
WEBHOOKS_SUBSCRIPTIONS: Final = QueryName("subscriptions", NoneType, SubscriptionList)
