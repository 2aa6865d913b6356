"""Names that two processes must agree on: task queues, workflow ids, types of errors.

What carries an argument or a result is in ``messages``, with its types.
"""

SESSION_TASK_QUEUE = "waystation"
"""Where the workers of ``worker.py`` get workflows and their activities."""

# Workflows that are started by their class, and found in lists by their name.
SESSION_WORKFLOW = "AgentSession"
TURN_WORKFLOW = "AgentTurn"
MANDATE_WORKFLOW = "Mandate"
PURCHASE_WORKFLOW = "Purchase"


def agent_task_queue(agent: str) -> str:
    """Returns the task queue from which processes that run this agent take its turns."""
    return f"waystation-agent-{agent}"


def webhook_registry_id(task_queue: str) -> str:
    """Returns the id of the workflow that knows every endpoint: one for all workers of one task queue."""
    return "webhooks" if task_queue == SESSION_TASK_QUEUE else f"webhooks-{task_queue}"


def turn_workflow_id(session_id: str, turn_id: str) -> str:
    """Returns the id of a turn's workflow; a session's own id can't contain the slash."""
    return f"{session_id}/{turn_id}"


# What the registry of webhooks says in its memo, where it is read without asking a worker.
SUBSCRIPTIONS = "subscriptions"

# Whom a workflow tells by Web Push, in its memo.
PUSH_PERSON = "push_person"

# What a workflow's memo says of people: lists are filtered by it.
WAITS_FOR = "waits_for"
WAITS_FOR_APPROVAL = "approval"
WAITS_FOR_ANSWER = "answer"
LISTED = "listed"
"""What a list shows of a session: ``waystation.models.listing.SessionRow``."""

TURNS_TAKEN_BY = "turns_taken_by"
"""What a session's memo says of the workflow that is its agent, if one is."""


# Types of application errors, raised in one process and matched in another.
RETRY_TURN = "RetryTurn"
WORKER_SHUTDOWN = "WorkerShutdown"
AGENT_FAILED = "AgentFailed"
TURN_DIVERGED = "TurnDiverged"
NO_SUGGESTIONS = "NoSuggestions"
ACTIVITY_UNKNOWN = "NotFoundError"
"""How the SDK fails an activity that its process doesn't have: of an earlier release, say."""
PAYLOADS_UNAVAILABLE = "PayloadsUnavailableError"
"""The name of ``storage.PayloadsUnavailableError``, which the SDK makes the type of the failure."""
PAYLOADS_UNAVAILABLE_WORDS = "A payload can't be"
"""How it begins, for the SDK keeps only its words where not even the failure can be stored."""

INVALID_ROLE = "InvalidRole"
SESSION_CLOSED = "SessionClosed"
SESSION_BUSY = "SessionBusy"
SESSION_FULL = "SessionFull"
QUEUE_FULL = "QueueFull"
NOT_QUEUED = "NotQueued"
"""Of a message that is to be withdrawn and doesn't wait for a turn (any more)."""
TAKEN_OVER = "TakenOver"
NOT_TAKEN_OVER = "NotTakenOver"
TOO_MANY_PARTICIPANTS = "TooManyParticipants"
UNKNOWN_TURN = "UnknownTurn"
SPAWN_REFUSED = "SpawnRefused"
STEP_REFUSED = "StepRefused"
TURN_OVER = "TurnOver"
"""What an attempt of a turn hears that is not the current one (any more)."""
UNKNOWN_QUESTION = "UnknownQuestion"
QUESTION_SETTLED = "QuestionSettled"
NOT_ASKED = "NotAsked"
"""Of an answer by somebody whom the question is not for."""
INVALID_ANSWER = "InvalidAnswer"
MESSAGE_ID_TAKEN = "MessageIdTaken"
PURCHASE_ID_TAKEN = "PurchaseIdTaken"
TURN_STOPPED = "TurnStopped"
"""Of an activity that writes in a turn which was stopped meanwhile."""
WRITE_REFUSED = "WriteRefused"
"""Of what a workflow has written into a session; ``details[0]`` is the code."""
UNKNOWN_DELIVERY = "UnknownDelivery"
DELIVERY_WAITS = "DeliveryWaits"
"""Of a redelivery of what is still to be delivered."""
TOO_MANY_WEBHOOKS = "TooManyWebhooks"
WEBHOOK_DISABLED = "WebhookDisabled"
TOO_MANY_BROWSERS = "TooManyBrowsers"
"""A person has as many push subscriptions as they may."""
WEBHOOKS_NEED_KEYS = "WebhooksNeedKeys"
"""Workers have no key that seals a webhook's secret."""
INVALID_ARGUMENT = "InvalidArgument"
UNEXPECTED = "Unexpected"
"""Of an ending or an answer that nobody expected: a bug to be reported."""

# For a decision on a purchase or payment that does not count.
INVALID_DECISION = "InvalidDecision"
NOT_AWAITING_APPROVAL = "NotAwaitingApproval"
ALREADY_DECIDED = "AlreadyDecided"
STALE_DIGEST = "StaleDigest"
NOT_AN_APPROVER = "NotAnApprover"
NOT_PROVEN = "NotProven"

# For a query
RUN_HAS_ENDED = "waystation-run-has-ended"
"""A query's header: no task of the run will begin any more."""
NOT_BEGUN = "The worker has yet to begin this workflow's next task; ask again."
"""How it is refused while its answer would carry out the task's events ahead of the task."""
