"""Steps that are recorded in memory, for tests of everything else."""

from collections.abc import Mapping

from pydantic import JsonValue

from waystation.agent.steps import Steps
from waystation.agent.waits import Waits


class RecordsInMemory:
    """What the workflow of a turn keeps; the bounds are small so that tests reach them."""

    max_result_bytes = 1_000
    max_bytes = 5_000

    def __init__(self) -> None:
        self.recorded: dict[str, JsonValue] = {}

    async def read(self) -> dict[str, JsonValue]:
        return dict(self.recorded)

    async def record(self, key: str, result: JsonValue) -> JsonValue:
        return self.recorded.setdefault(key, result)


def waits() -> Waits:
    """Of a turn that is never parked."""
    return Waits(None, lambda waiting_for: None)


def steps(
    records: RecordsInMemory | None = None,
    *,
    attempt: int = 1,
    remembered: Mapping[str, JsonValue] | None = None,
) -> Steps:
    return Steps("s", "t1", attempt, waits(), records or RecordsInMemory(), remembered or {})
