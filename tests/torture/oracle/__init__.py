"""The promises of README and docs, each as a function that judges what a run has left. Pure.

A promise is a function with ``@promise``, its sentence and the page that makes it. Those about money have
files of their own, imported here. ``judge`` counts how often each was checked: one that never was says
nothing.
"""

from tests.torture.oracle import (
    agents,
    control,
    log,
    mandates,
    money_requests,
    paid_requests,
    processes,
    purchases,
    questions,
    requests,
    screens,
    turns,
)
from tests.torture.oracle.promises import PROMISES, Judged, Judgement, judge, promise

__all__ = [
    "PROMISES", "Judged", "Judgement", "agents", "control", "judge", "log", "mandates", "money_requests",
    "paid_requests", "processes", "promise", "purchases", "questions", "requests", "screens", "turns",
]  # fmt: skip
