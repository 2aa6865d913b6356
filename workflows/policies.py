"""Every timeout and retry policy of the workflows, named, each with its reason."""

from datetime import timedelta

from temporalio.common import RetryPolicy

# Sessions

ONE_ATTEMPT = RetryPolicy(maximum_attempts=1)
"""The turn's workflow counts attempts itself: each is fenced, and Temporal's retries don't show."""

ANNOUNCE_TIMEOUT = timedelta(seconds=2)
"""Telling the API that there is something new is a courtesy: its fallback poll finds it anyway."""

RETRY_PAUSE = timedelta(seconds=1)
"""Between attempts of a turn that asked to be tried again; grows by itself with each attempt."""

WORKFLOW_TASK_TIMEOUT = timedelta(seconds=10)
"""Temporal's default, stated: a worker killed in the middle of a task is replaced after this."""
