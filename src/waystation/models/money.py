"""Money as integers of minor units. No floats, anywhere.

An amount belongs to an *asset*: a fiat currency by its ISO 4217 code in lower
case (``usd``, as Stripe and ACP write it), or a token by its CAIP-19-like id
(``eip155:8453/erc20:0x833…``), for which minor units are the token's base units.
"""

from typing import Annotated, Self

from pydantic import Field, StrictInt, StringConstraints

from waystation.models.base import Frozen

MAX_AMOUNT_MINOR_UNITS = 10**15
"""No single amount may be larger; a bigger one is a bug or an attack."""

MinorUnits = Annotated[StrictInt, Field(ge=0, le=MAX_AMOUNT_MINOR_UNITS)]
"""A whole number of minor units (cents for usd), never negative."""

Asset = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z]{3}|[a-z0-9-]{3,8}:[A-Za-z0-9-]{1,32}/[a-z0-9]{3,8}:[A-Za-z0-9]{1,64})$"
    ),
]
"""``usd`` or ``eip155:84532/erc20:0x036C…``."""


class Money(Frozen):
    """An amount of one asset.

    >>> Money(amount=2500, currency="usd") + Money(amount=99, currency="usd")
    Money(amount=2599, currency='usd')
    """

    amount: MinorUnits
    currency: Asset

    def _same(self, other: Self) -> None:
        if self.currency != other.currency:
            raise ValueError(
                f"cannot combine {self.currency} with {other.currency}: amounts are never converted"
            )

    def __add__(self, other: Self) -> Self:
        self._same(other)
        return type(self)(amount=self.amount + other.amount, currency=self.currency)

    def __sub__(self, other: Self) -> Self:
        self._same(other)
        return type(self)(amount=self.amount - other.amount, currency=self.currency)

    def __le__(self, other: Self) -> bool:
        self._same(other)
        return self.amount <= other.amount

    def __lt__(self, other: Self) -> bool:
        self._same(other)
        return self.amount < other.amount
