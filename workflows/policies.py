"""Every timeout and retry policy of the workflows, named, each with its reason."""

from datetime import timedelta
from typing import Final

from temporalio.common import RetryPolicy

# Sessions

ONE_ATTEMPT = RetryPolicy(maximum_attempts=1)
"""The turn's workflow counts attempts itself: each is fenced, and Temporal's retries don't show."""

ANNOUNCE_TIMEOUT = timedelta(seconds=2)
"""Telling the API that there is something new is a courtesy: its fallback poll finds it anyway."""

RETRY_PAUSE = timedelta(seconds=1)
"""Between attempts of a turn that asked to be tried again; grows with each failure."""

TURN_REPORT_MARGIN = timedelta(seconds=10)
"""What a stopped turn's workflow may take, beyond the grace, to report its end: then the session goes on."""

CHECK_TURNS_EVERY = timedelta(minutes=10)
"""At most so often a new run of a session looks whether turns of earlier runs are still there."""

SEARCH_KEY_TIMEOUT = timedelta(seconds=30)
"""A session that no worker tells its key in time goes on without search attributes."""

SUGGESTION_START_TIMEOUT = timedelta(seconds=10)
"""An operator looks at the page and waits: who isn't there now is not waited for."""

SUGGESTION_TIMEOUT = timedelta(seconds=60)
"""Longer than a model takes for one reply; the operator writes it meanwhile."""

ACTIVITY_STEP = timedelta(minutes=1)
"""Search attributes say when something last happened in a session; each time costs an event."""

# Mandates and purchases

LOCAL_CALL_TIMEOUT: Final = timedelta(seconds=2)
"""Local activities of workflows that began with them. Far shorter than a task may last; what takes longer
becomes an activity of its own."""

MANDATE_CALL_TIMEOUT: Final = timedelta(seconds=10)
"""One update of a mandate answers in milliseconds; a worker restart takes seconds."""

MANDATE_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
)
"""No end: the mandate is our own and comes back, and what was spent must be recorded."""

PROOF_CALL_TIMEOUT: Final = timedelta(seconds=5)
"""Checking a signature takes microseconds, and asks nobody."""

PROOF_CALL_RETRY: Final = MANDATE_CALL_RETRY
"""No end: it fails where a worker of an earlier release took it, and a decision must not get lost there."""

SELLER_CALL_TIMEOUT: Final = timedelta(seconds=30)
"""Longer than any seller may take to price a cart; also what a killed worker costs at most."""

SELLER_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=15),
    maximum_attempts=8,
)
"""About a minute of trouble at a seller before the purchase is given up and undone."""

COMPLETE_CALL_TIMEOUT: Final = timedelta(seconds=45)
"""A seller charges the card within this call."""

COMPLETE_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=4,
)
"""The same key each time, so a repeat cannot charge twice; soon the purchase reads the checkout instead."""

READ_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=2),
    maximum_attempts=3,
)
"""Reading is repeated by the purchase itself, which can tell what the answer is worth."""

UNDO_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=20,
)
"""Canceling a checkout is a courtesy to the seller: tried for minutes, not forever."""

TOKEN_CALL_TIMEOUT: Final = timedelta(seconds=30)
"""The processor answers in well under a second."""

TOKEN_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=15),
    maximum_attempts=8,
)
"""About a minute of trouble at the processor before a purchase is given up; no token, no charge."""

TOKEN_REVOKE_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=60),
)
"""No end: whether money moved depends on the answer, and room is released only after it."""

PURCHASE_READ_TIMEOUT: Final = timedelta(seconds=10)
PURCHASE_READ_RETRY: Final = MANDATE_CALL_RETRY
"""No end: the purchase is our own and comes back, and whoever wanted it waits for its word."""

PURCHASE_NOTE_TIMEOUT: Final = timedelta(seconds=5)
PURCHASE_NOTE_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_attempts=5
)
"""Telling a session is best effort: the purchase itself keeps the truth."""

ACTIVITY_HEARTBEAT_TIMEOUT: Final = timedelta(seconds=6)
"""Activities beat every 1.5 s: a killed worker's work is taken up by another one this soon."""

TOKEN_LIFETIME: Final = timedelta(minutes=15)
"""How long a payment token can be charged: enough for a slow seller, too short to be worth stealing."""

TOKEN_EXPIRY_MARGIN: Final = timedelta(minutes=2)
"""A token this close to its end is replaced before it is sent."""

HOLD_MARGIN: Final = timedelta(hours=1)
"""A reservation outlives the wait for approval by this much; the mandate extends it while we run."""

APPROVAL_LIFETIME: Final = timedelta(hours=1)
"""A person's approval is asked for again if it has not led to a payment by then."""

CONFIRM_GIVE_UP: Final = timedelta(minutes=5)
"""After this long without a clear answer the token is revoked, which tells for sure whether money moved."""

CONFIRM_DEADLINE: Final = timedelta(hours=24)
"""After money moved, how long the purchase goes on asking for its order before a person must look."""

FOLLOW_ORDER: Final = timedelta(days=90)
"""How long after completion webhooks still change the order (deliveries, refunds)."""

UNBOUND_ORDER_LIFETIME: Final = timedelta(days=1)
"""Events for a checkout that no purchase claims are forgotten after this."""

MIN_ESCALATION_POLL: Final = timedelta(seconds=2)
"""A person at the seller's page takes minutes; the seller is not asked more often than this."""

MIN_AUTHENTICATION_POLL: Final = timedelta(seconds=1)
"""A person at the bank's page; the processor may be asked a little more often."""


# Paid requests

PAID_REQUEST_HEARTBEAT: Final = timedelta(seconds=5)
"""The activities beat every second: a killed worker is missed after this, not after the call's whole time."""

PROBE_CALL_TIMEOUT: Final = timedelta(seconds=60)
"""An unpaid request: the activity itself gives up on a dripping answer before this."""

PROBE_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=5),
    maximum_attempts=8,
)
"""Nothing is at stake yet: eighteen seconds, enough for a server on a busy machine to restart, and the
caller is told."""

READ_OFFERS_TIMEOUT: Final = timedelta(seconds=5)
READ_OFFERS_RETRY: Final = RetryPolicy(maximum_attempts=3)
"""Parsing headers in memory; it fails by a bug or not at all."""

MINT_CALL_TIMEOUT: Final = timedelta(seconds=30)
MINT_CALL_RETRY: Final = TOKEN_CALL_RETRY
"""Issuing a token or signing; the same key gives the same credential, so a repeat is harmless."""

REDEEM_CALL_TIMEOUT: Final = timedelta(seconds=65)
"""The server settles within this call; the activity gives up after 55 seconds by itself."""

REDEEM_CALL_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=250),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=15),
    maximum_attempts=12,
)
"""The same credential each time, so a repeat can't pay twice; about two minutes of trouble at the server."""

LATE_REDEEM_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(seconds=5),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(minutes=5),
    maximum_attempts=20,
)
"""The money moved and the answer is owed: asked for over an hour or more before a person must look."""

ALLOWANCE_CALL_TIMEOUT: Final = timedelta(seconds=130)
"""Minting, sending and closing in one call; each part gives up earlier by itself."""

LEASE_LIFETIME: Final = timedelta(seconds=60)
"""A holder renews it with every report, twice as often at least; a vanished one blocks no longer."""

LEASE_GRACE: Final = timedelta(seconds=60)
"""After a lease's end: a payment that was begun just before it is over by then (55 seconds at most)."""

LOST_HOLDER_PATIENCE: Final = timedelta(hours=1)
"""A machine that restarts reports from its journal; after this what it was leased counts as spent."""

CLOSE_CALL_TIMEOUT: Final = timedelta(seconds=45)
CLOSE_CALL_RETRY: Final = TOKEN_REVOKE_RETRY
"""Often: whether money moved depends on the answer, and room is released only after it."""

CLOSE_GIVE_UP: Final = timedelta(hours=24)
"""After a day without a word from processor or chain the amount counts as spent and a person must look."""

CREDENTIAL_LIFETIME: Final = timedelta(minutes=10)
"""How long a token for a paid request can be charged: enough for a slow server and a few resends."""

AUTHORIZATION_MARGIN: Final = timedelta(seconds=65)
"""After its end a signed authorization may still sit in a block that the chain endpoint has not seen."""

CHALLENGE_MARGIN: Final = timedelta(seconds=20)
"""A challenge this close to its end is asked for again (at the same terms) before anything is minted."""

# Webhooks

WEBHOOK_RETRY_DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=8),
    timedelta(hours=10),
)
"""Between the attempts of one delivery: nine within 25 and a half hours, so that a receiver that is down over
night, and whoever mends it in the morning, lose nothing."""

WEBHOOK_SHORTEST_WAIT: Final = timedelta(seconds=1)
"""What is due within this time is due: messages that failed together are tried together, without a timer for
each of the milliseconds between them."""

WEBHOOK_GATHERING: Final = timedelta(seconds=1)
"""How long news of a purchase or paid request waits for more: most have ended by then."""

WEBHOOK_DISABLED_AFTER: Final = timedelta(days=3)
"""An endpoint at which nothing has arrived for so long has been forgotten by whoever ran it; a weekend is
shorter."""

WEBHOOK_CALL_TIMEOUT: Final = timedelta(seconds=30)
"""The activity itself gives up on a receiver after 15 seconds."""

WEBHOOK_CALL_RETRY: Final = MANDATE_CALL_RETRY
"""No end: it fails only here, with the worker or for want of a key. What a receiver does is no failure."""

WEBHOOK_HOUSE_TIMEOUT: Final = timedelta(seconds=10)
WEBHOOK_HOUSE_RETRY: Final = MANDATE_CALL_RETRY
"""No end: what the registry is told or asked is our own, and comes back."""

# Web Push

PUSH_RETRY_DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=6),
)
"""Between the attempts at telling a browser something: it is told only while that still waits."""

PUSH_KEPT_FOR: Final = timedelta(days=1)
"""For how long a push service keeps a message for a browser that is away."""

PUSH_OPENING_TIMEOUT: Final = timedelta(minutes=10)
"""A person's workflow that was started without a browser ends after that."""

SHORTEST_RUN: Final = timedelta(seconds=1.5)
"""No session continues as new before. Temporal puts off the first task of a run that follows one of less than
a second, and adds to that pause with each such run; updates and queries fail in the meantime."""
