"""The base of every contract model: immutable, and closed to unknown fields."""

from typing import Annotated, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

from waystation.foreign_json import check_nesting, check_numbers

JsonObject = dict[str, JsonValue]
"""A JSON object as Python values."""

BoundedJson = Annotated[JsonValue, AfterValidator(check_nesting)]
BoundedObject = Annotated[JsonObject, AfterValidator(check_nesting)]
"""JSON that somebody else made, on its way in: what is taken must survive every envelope on its way out."""
ExactObject = Annotated[BoundedObject, AfterValidator(check_numbers)]
"""JSON that people decide on, so that they see what is done: it has no number that JSON can't say."""


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields.

    A sender of bad input must be told what is wrong with it; input is never half understood. Only between our
    own processes, of which one may be newer, what is unknown is left out (``waystation.temporal``), and so is
    it by our client in what a newer API answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class FrozenOpen(BaseModel):
    """An immutable model for what we *read* from newer peers: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class WorkflowStart(Frozen):
    """What a workflow is started with, by anybody who may start one, and what its next run begins with."""

    CARRIED: ClassVar[frozenset[str]] = frozenset()
    """The fields that only an earlier run fills: where they can't be read, this version is the wrong one."""


Record = TypeVar("Record", bound=BaseModel)


def replaced(record: Record, /, **changes: object) -> Record:
    """Returns a copy of a record with some fields changed, held to the model like any other input.

    Unlike ``model_copy(update=…)`` it accepts no misspelt name and no value of another type.

    Raises:
        ValidationError: The model has no such field, or a value doesn't fit it.
    """
    return type(record).model_validate({**dict(record), **changes})
