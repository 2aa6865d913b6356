"""A turn's steps: what its workflow is asked to remember of them, and gives back to a later attempt."""

from typing import Annotated, Final

from pydantic import Field, JsonValue, StringConstraints

from waystation.models.base import BoundedJson, Frozen, FrozenOpen

MAX_STEPS: Final = 1_000
"""Of one turn."""
MAX_STEP_KEY_CHARACTERS: Final = 128
MAX_STEP_RESULT_BYTES: Final = 8 * 1_048_576
"""Of one result as JSON: what Temporal itself takes is less, so from 2 MB on a payload storage is needed."""
MAX_STEPS_BYTES: Final = 32_000_000
"""Of all results of a turn: they are held by its workflow, and a history ends at 50 MB."""
MAX_INLINE_STEP_RESULT_BYTES: Final = 1_048_576
MAX_INLINE_STEPS_BYTES: Final = 8_000_000
"""The same two where there is no payload storage, and every result stands in the history."""
MAX_STEPS_PAGE_BYTES: Final = 192 * 1_024
"""Of results in one answer to ``steps``; a larger one has a page for itself."""

StepKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STEP_KEY_CHARACTERS)]


class RecordStep(Frozen):
    """The argument of the ``record_step`` update: a step of this attempt has ended, with this result."""

    attempt: int = Field(ge=1)
    key: StepKey
    result: BoundedJson = None


class StepRecorded(FrozenOpen):
    """The answer to ``record_step``: the first result under a key counts, and is given back to any other."""

    is_first: bool
    result: JsonValue = None
    """What was recorded before; missing where it was this."""


class RememberedStep(FrozenOpen):
    """A step that has ended, and its result."""

    key: str
    result: JsonValue = None


class StepsPage(FrozenOpen):
    """The answer of the ``steps`` query: steps after the first ``after`` of a turn, in order.

    ``next_after`` is what to ask for next; ``more`` says whether there is more.
    """

    steps: tuple[RememberedStep, ...]
    next_after: int
    more: bool
