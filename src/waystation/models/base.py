"""The base of every contract model: immutable, and closed to unknown fields."""

from pydantic import BaseModel, ConfigDict, JsonValue

JsonObject = dict[str, JsonValue]
"""A JSON object as Python values."""


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields.

    Bad input must be told what is wrong with it, not be half understood.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class FrozenOpen(BaseModel):
    """An immutable model for what we *read* from newer peers: unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")
