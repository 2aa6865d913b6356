"""What a turn remembers of its steps. Pure: no Temporal, no I/O."""

from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

from waystation.models.steps import (
    MAX_STEP_RESULT_BYTES,
    MAX_STEPS,
    MAX_STEPS_BYTES,
    MAX_STEPS_PAGE_BYTES,
    RecordStep,
    RememberedStep,
    StepRecorded,
    StepsPage,
)
from waystation.temporal.names import STEP_REFUSED, TURN_OVER
from workflows.session.refused import Refused

_STEP_BYTES: Final = 200
"""About what a step takes besides its result."""


class TurnSteps:
    """The results of a turn's steps by their keys, in the order in which they were recorded."""

    def __init__(self) -> None:
        self.attempt = 1
        """The attempt that may record; what an earlier one still sends was run beside this one."""
        self._results: dict[str, JsonValue] = {}
        self._sizes: dict[str, int] = {}
        self._size_bytes = 0

    def why_not(self, step: RecordStep) -> Refused | None:
        """Returns why this can't be recorded, or ``None``."""
        if step.attempt != self.attempt:
            return Refused(TURN_OVER, f"Attempt {step.attempt} is over; attempt {self.attempt} goes on.")
        if step.key in self._results:
            return None
        if len(self._results) >= MAX_STEPS:
            return Refused(STEP_REFUSED, f"A turn has at most {MAX_STEPS:,} steps.")
        size_bytes = _size_bytes(step)
        if size_bytes > MAX_STEP_RESULT_BYTES:
            return Refused(
                STEP_REFUSED, f"A step's result has at most {MAX_STEP_RESULT_BYTES:,} bytes of JSON."
            )
        if self._size_bytes + size_bytes > MAX_STEPS_BYTES:
            return Refused(
                STEP_REFUSED, f"The results of a turn's steps have at most {MAX_STEPS_BYTES:,} bytes of JSON."
            )
        return None

    def record(self, step: RecordStep) -> StepRecorded:
        """Records a step's result; the first one under its key counts."""
        if step.key in self._results:
            return StepRecorded(is_first=False, result=self._results[step.key])
        self._results[step.key] = step.result
        self._sizes[step.key] = _size_bytes(step)
        self._size_bytes += self._sizes[step.key]
        return StepRecorded(is_first=True)

    def page(self, after: int) -> StepsPage:
        """Returns the steps after the first ``after``: as many as fit into an answer, but one at least."""
        steps, left = list[RememberedStep](), MAX_STEPS_PAGE_BYTES
        for key in list(self._results)[max(after, 0) :]:
            left -= self._sizes[key] + _STEP_BYTES
            if steps and left < 0:
                break
            steps.append(RememberedStep(key=key, result=self._results[key]))
        reached = max(after, 0) + len(steps)
        return StepsPage(steps=tuple(steps), next_after=reached, more=reached < len(self._results))


def _size_bytes(step: RecordStep) -> int:
    return len(to_json(step.result, inf_nan_mode="null"))
