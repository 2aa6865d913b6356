"""Every timeout and retry policy of what runs in other people's workflows, each with its reason."""

from datetime import timedelta
from typing import Final

from temporalio.common import RetryPolicy

WRITE_TIMEOUT: Final = timedelta(seconds=10)
"""A signal and a query of a session take milliseconds; a worker restart takes seconds."""

WRITE_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
)
"""No end: the session is our own and comes back, and what is written is recorded once however often it is
tried."""

ANNOUNCE_TIMEOUT: Final = timedelta(seconds=2)
ANNOUNCE_RETRY: Final = RetryPolicy(maximum_attempts=1)
"""Telling the API that there is something new is a courtesy: its own poll finds it anyway."""
