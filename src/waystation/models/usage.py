"""What models and tools have cost, as agents report it: counts, and money in millionths."""

from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints

from waystation.models.base import Frozen

MAX_COUNT: Final = 10**12
"""The most that one report may say of anything."""
MAX_CURRENCIES: Final = 8

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class _Sums(Frozen):
    requests: int = Field(default=0, ge=0)
    """Requests to models."""
    input_tokens: int = Field(default=0, ge=0)
    cached_input_tokens: int = Field(default=0, ge=0)
    """Those of ``input_tokens`` that were read from the provider's cache."""
    output_tokens: int = Field(default=0, ge=0)
    cost_micros: Mapping[Currency, int] = Field(default_factory=dict)
    """By currency, in millionths of its main unit: ``{"USD": 1500}`` is 0.15 cents."""


class Usage(_Sums):
    """What a turn or a session has used.

    >>> (Usage(requests=1, cost_micros={"USD": 5}) + Usage(requests=2, cost_micros={"USD": 7})).cost_micros
    {'USD': 12}
    """

    def __add__(self, other: _Sums) -> Self:
        """Returns the sum; of more than eight currencies, the first eight."""
        cost = dict(self.cost_micros)
        for currency, micros in other.cost_micros.items():
            if currency in cost or len(cost) < MAX_CURRENCIES:
                cost[currency] = cost.get(currency, 0) + micros
        return type(self)(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_micros=cost,
        )


class UsageReported(_Sums):
    """The data of ``usage.reported``: what was used since the writer's last report."""

    requests: Count = 0
    input_tokens: Count = 0
    cached_input_tokens: Count = 0
    output_tokens: Count = 0
    cost_micros: Annotated[Mapping[Currency, Count], Field(max_length=MAX_CURRENCIES)] = Field(
        default_factory=dict
    )
    model: Annotated[str, StringConstraints(max_length=200)] | None = None
