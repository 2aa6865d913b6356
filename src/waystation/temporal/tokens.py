"""Typed names of what workflows and activities take: a name with the types of its argument and its result.

A sender gives a token to a function of ``calls``, and a type checker holds it to the argument; the result is
parsed as the token's type. The tokens themselves are in ``messages``.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class WorkflowName(Generic[Argument, Result]):
    """A workflow that is started by its name."""

    name: str
    argument: type[Argument]
    result: type[Result]


@dataclass(frozen=True, slots=True)
class SignalName(Generic[Argument]):
    """A signal."""

    name: str
    argument: type[Argument]


@dataclass(frozen=True, slots=True)
class UpdateName(Generic[Argument, Result]):
    """An update; its argument is ``NoneType`` where it takes none."""

    name: str
    argument: type[Argument]
    result: type[Result]


@dataclass(frozen=True, slots=True)
class QueryName(Generic[Argument, Result]):
    """A query; its argument is ``NoneType`` where it takes none."""

    name: str
    argument: type[Argument]
    result: type[Result]


@dataclass(frozen=True, slots=True)
class ActivityName(Generic[Argument, Result]):
    """An activity that is called by its name."""

    name: str
    argument: type[Argument]
    result: type[Result]
