"""The durable path under load and trouble: nothing that was taken over is forgotten."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from api.errors import Problem
from api.live.batcher import MAX_BATCH_BYTES, Batcher
from api.live.receipts import Handed, Settled
from tests.support import eventually
from waystation.models.events import MAX_WRITES_PER_PUBLISH, Actor, Item, Publish, Role, Write


class Temporal:
    """Takes batches while it is up."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.batches: list[Publish] = []
        self.troubles: Iterator[Exception] = iter(())

    async def publish(self, session_id: str, publish: Publish) -> None:
        await self.up.wait()
        if trouble := next(self.troubles, None):
            raise trouble
        # As it travels: what the workflow would not understand, it would drop.
        self.batches.append(Publish.model_validate_json(publish.model_dump_json()))


class Agents:
    """What some writers write, and what of it Temporal takes."""

    def __init__(self, gateway: Any) -> None:
        self._batcher = Batcher("s", gateway, 0.01, self._taken)
        self._numbers: dict[str, Iterator[int]] = {}
        self.written: dict[str, int] = {}
        self.taken: dict[str, int] = {}
        self.lost: list[Problem] = []

    async def write(self, writer: str, *texts: str) -> None:
        numbers = self._numbers.setdefault(writer, count(1))
        items = [
            Item(
                n=next(numbers),
                type="message.completed",
                message_id=f"{writer}-{text[:9]}",
                data={"text": text},
            )
            for text in texts
        ]
        self.written[writer] = items[-1].n
        actor = Actor(id="bot", role=Role.AGENT)
        await self._batcher.add(Write(writer=writer, actor=actor, items=tuple(items)), self)

    def _taken(self, handed: Sequence[Handed], quiet: bool) -> None:
        for each in handed:
            assert each.first == self.taken.get(each.writer, 0) + 1, "nothing is left out"
            self.taken[each.writer] = each.last

    def settle(self, settled: Settled) -> None:
        raise NotImplementedError

    def lose(self, problem: Problem) -> None:
        self.lost.append(problem)

    async def settled(self) -> None:
        await eventually(lambda: self.taken == self.written or self.lost, what="everything is settled")


@pytest.fixture
def temporal() -> Temporal:
    return Temporal()


@pytest.fixture
def agents(temporal: Temporal) -> Agents:
    gateway: Any = temporal
    return Agents(gateway)


async def test_writers_that_take_turns_while_temporal_is_away(temporal: Temporal, agents: Agents) -> None:
    """Each change of writer is a write of its own, and a signal carries only so many."""
    for number in range(MAX_WRITES_PER_PUBLISH + 200):
        await agents.write("ab"[number % 2], str(number))
    temporal.up.set()
    await agents.settled()
    assert agents.lost == []
    texts = [item.data["text"] for b in temporal.batches for write in b.writes for item in write.items]
    assert sorted(texts, key=lambda text: int(str(text))) == [
        str(n) for n in range(MAX_WRITES_PER_PUBLISH + 200)
    ]


async def test_one_large_frame_leaves_in_batches_of_the_size_that_temporal_takes(
    temporal: Temporal, agents: Agents
) -> None:
    temporal.up.set()
    await agents.write("a", *(f"{number:09}" + "x" * 50_000 for number in range(60)))
    await agents.settled()
    sizes = [len(batch.model_dump_json()) for batch in temporal.batches]
    assert max(sizes) < MAX_BATCH_BYTES * 1.2


async def test_trouble_of_an_unknown_kind_is_tried_again_and_told_at_last(
    temporal: Temporal, agents: Agents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """External storage, say, raises errors of its own."""
    monkeypatch.setattr("api.live.batcher.RETRY_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("api.live.batcher.MAX_RETRY_PAUSE_SECONDS", 0.01)
    temporal.up.set()
    temporal.troubles = iter([OSError("no space left on device")])
    await agents.write("a", "one")
    await agents.settled()
    assert (agents.taken, agents.lost) == ({"a": 1}, [])
    temporal.troubles = iter(OSError("no space left on device") for _ in range(100))
    await agents.write("a", "two")
    await agents.settled()
    assert [problem.status for problem in agents.lost] == [500]
