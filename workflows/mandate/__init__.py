"""One person's permission for one agent to spend."""

from workflows.mandate.workflow import Mandate, MandateStart

__all__ = [
    "Mandate",
    "MandateStart",
]
