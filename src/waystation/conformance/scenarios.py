"""A scenario is a course of events in which some requirements are decided."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from waystation.conformance.report import Report, Unmet


class Table(Protocol):
    """Where scenarios take place."""

    @property
    def report(self) -> Report:
        """What was found so far."""
        ...

    async def clear(self) -> None:
        """Ends what a scenario has left behind, and looks at it."""
        ...


Place = TypeVar("Place", bound=Table)


@dataclass(frozen=True)
class Scenario(Generic[Place]):
    """One scenario."""

    name: str
    decides: frozenset[str]
    run: Callable[[Place], Awaitable[None]]


def scenario(*numbers: str) -> Callable[[Callable[[Place], Awaitable[None]]], Scenario[Place]]:
    """Makes a scenario of a function, with the requirements that it decides."""

    def make(run: Callable[[Place], Awaitable[None]]) -> Scenario[Place]:
        name = getattr(run, "__name__", "").strip("_").replace("_", " ")
        return Scenario(name, frozenset(numbers), run)

    return make


def scenarios_of(*modules: ModuleType) -> tuple[Scenario[Any], ...]:
    """Returns the scenarios of some modules, in their order."""
    return tuple(one for module in modules for one in vars(module).values() if isinstance(one, Scenario))


async def run_scenarios(
    place: Place, scenarios: Iterable[Scenario[Place]], tell: Callable[[str], None]
) -> None:
    """Runs every scenario that decides something wanted."""
    for one in scenarios:
        if not one.decides & place.report.numbers:
            continue
        tell(one.name)
        try:
            await one.run(place)
        except Unmet as unmet:
            tell(f"  can't go on: {unmet}")
        finally:
            await place.clear()
