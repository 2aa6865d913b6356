"""What may happen while a question waits: to its turn, its session, and each process."""

import asyncio
import json
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue
from typer.testing import CliRunner

from tests.agent.questions import Asking, asked, events, parked, result, running_asking, types
from tests.support import EXAMPLES_FACTOR, eventually
from tests.world.keys import DECISION_KEY
from tests.world.process import Process
from tests.world.temporal import TEMPORAL, running_temporal
from waystation.cli.main import app
from waystation.cli.sign import KEYS_VARIABLE
from waystation.client import Client, Session
from waystation.errors import ApiError, ConflictError, WaystationError
from waystation.models.events import TERMINAL_TURN_TYPES, Event
from waystation.models.questions import Answered

KILLS = 3
SLOW_KILLS = 9 * EXAMPLES_FACTOR
"""Each of a process chosen at random, at a random moment of asking, waiting, answering and going on."""
AT_ONCE = 3
LATEST_SECONDS = 3.0
"""Parking comes after one second, and going on soon after the answer."""


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asking]:
    folder = tmp_path_factory.mktemp("parked")
    temporal = running_temporal(folder, durable=True)
    # Sessions continue as new often, and agents may die more than three times.
    async with (
        temporal as server,
        running_asking(folder, server, events_per_run=60, max_attempts=20) as asking,
    ):
        yield asking


async def waiting(asking: Asking, text: str = "text") -> tuple[Session, str]:
    """Returns a session that is parked, and the question for which it waits."""
    session = await asking.start(text)
    (question,) = await asked(session)
    await parked(session)
    return session, str(question.data["question_id"])


async def has(session: Session, kind: str, count: int = 1) -> None:
    async def there() -> bool:
        return types(await events(session)).count(kind) >= count

    await eventually(there)


# To its turn


async def test_a_steer_waits_with_the_turn_and_becomes_the_next_message(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    steered = await session.steer("and then this", wait_seconds=0)
    assert steered.outcome == "pending"
    assert (await session.snapshot()).status == "waiting", "a steer is no answer"
    await session.answer(question_id, "Ada")
    await has(session, "turn.completed", 2)
    log = types(await events(session))
    assert log.index("turn.completed") < log.index("steer.expired") < log.index("turn.queued")


async def test_a_message_waits_behind_it(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    assert (await session.send("anything")).status == "queued"
    await session.answer(question_id, "Ada")
    await has(session, "turn.completed", 2)
    log = await events(session)
    assert [e.turn_id for e in log if e.type == "turn.completed"] == ["t1", "t2"]


async def test_an_interrupt_and_a_takeover_withdraw_what_was_asked(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    await session.send("anything", on_busy="interrupt")
    await has(session, "turn.completed")
    session2, question_id2 = await waiting(asking)
    async with asking.stack.client("operator") as operator:
        taken = operator.attach(session2.id)
        await taken.take_over()
        assert (await taken.snapshot()).status == "paused"
        await has(session2, "turn.stopped")
        await taken.release()
    for one, question in ((session, question_id), (session2, question_id2)):
        log = types(await events(one))
        assert log.count("input.withdrawn") == log.count("turn.stopped") == 1
        assert log.index("input.withdrawn") < log.index("turn.stopped")
        with pytest.raises(ConflictError, match="withdrawn"):
            await one.answer(question, "late")


async def test_a_close_withdraws_it_and_ends_the_turns_workflow(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    await session.close()

    async def closed() -> bool:
        return types(await events(session))[-1] == "session.closed"

    await eventually(closed)
    log = types(await events(session))
    assert log.index("input.withdrawn") < log.index("turn.stopped") < log.index("session.closed")
    with pytest.raises(ConflictError):
        await session.answer(question_id, "late")


# To its answer


async def test_two_devices_at_once(asking: Asking) -> None:
    session, question_id = await waiting(asking, "choice")
    async with asking.stack.client() as other:
        given = await asyncio.gather(
            session.answer(question_id, "small"),
            other.attach(session.id).answer(question_id, "large"),
            return_exceptions=True,
        )
    first = [value for value, one in zip(("small", "large"), given, strict=True) if isinstance(one, Answered)]
    (refused,) = [one for one in given if isinstance(one, ConflictError)]
    assert refused.code == "question-settled"
    assert first == [await result(session)]
    response = await asking.client.http.post(
        f"{asking.client.url}/sessions/{session.id}/questions/{question_id}/answer",
        json={"value": "small" if first == ["large"] else "large"},
        headers=asking.client.headers,
    )
    assert response.status_code == 409
    assert response.json()["settled"]["value"] == first[0], "the second is told what counts"


async def test_an_answer_at_the_moment_of_expiry_has_one_outcome(asking: Asking) -> None:
    async def race(jitter_seconds: float) -> str:
        session = await asking.start("expires")
        (question,) = await asked(session)
        deadline = datetime.fromisoformat(str(question.data["deadline"]))
        await asyncio.sleep(max((deadline - datetime.now(UTC)).total_seconds() + jitter_seconds, 0))
        with suppress(ConflictError):
            await session.answer("t1:q", "just in time")
        came = await result(session)
        settled = [e for e in await events(session) if e.type in ("input.answered", "input.expired")]
        assert len(settled) == 1
        assert came == ("just in time" if settled[0].type == "input.answered" else "too slow")
        view = await session.question("t1:q")
        assert view.outcome is not None
        assert f"input.{view.outcome.outcome}" == settled[0].type, "the same for all"
        return settled[0].type

    jitters = [random.uniform(-0.3, 0.1) for _ in range(6)]
    outcomes = await asyncio.gather(*map(race, jitters))
    assert set(outcomes) <= {"input.answered", "input.expired"}


def temporal(asking: Asking, session_id: str, said: str) -> None:
    """Signals an answer by Temporal's own command line."""
    done = subprocess.run(
        [TEMPORAL, "workflow", "signal", "--address", asking.stack.temporal.address, "-w", session_id,
         "--name", "answer", "--input", said],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


async def test_temporals_own_command_line_answers(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    answer = {"question_id": question_id, "value": "Ada", "actor": {"id": "ada", "role": "user"}}
    temporal(asking, session.id, json.dumps(answer | {"actor": {"id": "asking", "role": "agent"}}))
    temporal(asking, session.id, json.dumps({"question_id": question_id}))
    temporal(asking, session.id, json.dumps(answer))
    assert await result(session) == "Ada"
    (event,) = [one for one in await events(session) if one.type == "input.answered"]
    assert event.actor.id == "ada", "what is no answer, or an agent's, does not count"


async def test_and_approves_only_with_a_proof(asking: Asking) -> None:
    session, question_id = await waiting(asking, "approve")
    digest = (await session.question(question_id)).digest
    unsigned: dict[str, Any] = {
        "question_id": question_id,
        "value": {"decision": "approve"},
        "digest": digest,
        "actor": {"id": "grace", "role": "user"},
        "answers_as": "approver",
    }

    def sign(session_id: str, *more: str) -> str:
        command = ["sign", "answer", session_id, question_id, "--by", "grace", "--digest", digest, *more]
        done = CliRunner().invoke(app, command, env={KEYS_VARIABLE: json.dumps([DECISION_KEY])})
        assert done.exit_code == 0, done.output
        return done.output

    temporal(asking, session.id, json.dumps(unsigned))
    temporal(asking, session.id, sign("another-session", "--approve"))
    forged = json.loads(sign(session.id, "--reject", "no")) | {"value": {"decision": "approve"}}
    temporal(asking, session.id, json.dumps(forged))
    assert await asking_is_still_open(session, question_id)
    temporal(asking, session.id, sign(session.id, "--approve", "--arguments", '{"path": "old.txt"}'))
    assert await result(session) == "deleted {'path': 'old.txt'}"
    (event,) = [one for one in await events(session) if one.type == "input.answered"]
    assert (event.actor.id, event.data["digest"]) == ("grace", digest)


async def asking_is_still_open(session: Session, question_id: str) -> bool:
    """Asks after another answer has been refused, which the session takes up after what was signalled."""
    with pytest.raises(ApiError):
        await session.answer(question_id, {"decision": "maybe"})
    return question_id in [one.question_id for one in (await session.snapshot()).questions]


async def test_a_parked_question_goes_on_over_continue_as_new(asking: Asking) -> None:
    session, question_id = await waiting(asking)
    before = (await session.snapshot()).runs

    async def another_run() -> bool:
        await session.steer("and this", wait_seconds=0)
        return (await session.snapshot()).runs > before

    await eventually(another_run)
    assert (await session.snapshot()).status == "waiting"

    async def listed() -> bool:
        found = {one.session_id: one.waits_for for one in (await asking.client.list(limit=100)).sessions}
        return found.get(session.id) == "answer"

    await eventually(listed)
    await session.answer(question_id, "Ada")
    assert await result(session) == "Ada"


# To each process

ANSWERS: dict[str, dict[str, JsonValue]] = {
    "text": {"*": "Ada"},
    "choice": {"t1:which": "large"},
    "two": {"t1:a": 40, "t1:b": 2},
    "in a tool": {"t1:much": 3},
    "approve": {"t1:delete": {"decision": "approve"}},
}
RESULTS: dict[str, JsonValue] = {
    "text": "Ada", "choice": "large", "two": 42, "in a tool": 3, "approve": "deleted {'path': 'notes.txt'}",
}  # fmt: skip


TEND_EVERY_SECONDS = 0.5


class Killer:
    """Kills processes, each for a moment, and one at a time."""

    def __init__(self, asking: Asking) -> None:
        api, worker, agent = asking.stack.processes[:3]
        self._processes: dict[str, Process] = {
            "api": api, "worker": worker, "agent": agent, "temporal": asking.stack.temporal,
        }  # fmt: skip
        self._alone = asyncio.Lock()

    async def kill(self, name: str, after_seconds: float) -> None:
        await asyncio.sleep(after_seconds)
        async with self._alone:
            self._processes[name].kill()
            self._processes[name].start()

    async def tend(self) -> None:
        """Starts again what has ended, as whatever runs them does: they exit where Temporal is away."""
        while True:
            await asyncio.sleep(TEND_EVERY_SECONDS)
            async with self._alone:
                for process in self._processes.values():
                    if process.ended:
                        process.start()


async def persistently(client: Client, session_id: str, text: str, latest: float) -> None:
    """Answers whatever is asked, and again where the answer to that was lost."""
    session, wanted = client.attach(session_id), ANSWERS[text]
    await asyncio.sleep(random.uniform(0, latest))

    async def answered() -> bool:
        """Whether the log has all answers: the reply to one may have been lost."""
        with suppress(WaystationError):
            for one in (await session.snapshot()).questions:
                value = wanted.get(one.question_id, wanted.get("*"))
                await session.answer(one.question_id, value, digest=one.digest)
            return types(await events(session)).count("input.answered") == len(wanted)
        return False

    await eventually(answered, within=120.0, what=f"{session_id} ({text}) is answered")


async def ended(session: Session) -> list[Event]:
    log: list[Event] = []

    async def over() -> bool:
        with suppress(WaystationError):
            log[:] = await events(session)
        return any(event.type in TERMINAL_TURN_TYPES for event in log)

    await eventually(over, within=120.0, what=f"{session.id} ends")
    return log


async def survives(asking: Asking, approver: Client, killer: Killer, seed: int) -> str:
    """One run: a question, and a kill -9 at a moment that the seed chooses."""
    chance = random.Random(seed)
    text, victim = chance.choice(sorted(ANSWERS)), chance.choice(["agent", "worker", "api", "temporal"])
    session = asking.client.attach(f"killed-{seed}")

    async def started() -> bool:
        with suppress(WaystationError):
            await asking.client.start("asking", session_id=session.id, message=text)
            return True
        return False

    await eventually(started, within=60.0)
    client = approver if text == "approve" else asking.client
    await asyncio.gather(
        killer.kill(victim, chance.uniform(0, LATEST_SECONDS)),
        persistently(client, session.id, text, LATEST_SECONDS),
    )
    log = await ended(session)
    said = f"seed {seed}: {victim} killed, {text}: {types(log)}"
    (end,) = [event for event in log if event.type in TERMINAL_TURN_TYPES]
    assert end.type == "turn.completed", f"{said} {end.data}"
    assert end.data["result"] == RESULTS[text], said
    requested = [event.data["question_id"] for event in log if event.type == "input.requested"]
    answered = [event.data["question_id"] for event in log if event.type == "input.answered"]
    assert len(requested) == len(set(requested)) == len(ANSWERS[text]), said
    assert sorted(map(str, answered)) == sorted(map(str, requested)), said
    with suppress(WaystationError):  # another run has killed what would answer
        await session.close()
    return victim


@pytest.mark.thorough
@pytest.mark.timeout(300 * EXAMPLES_FACTOR)
@pytest.mark.parametrize("kills", [KILLS, pytest.param(SLOW_KILLS, marks=pytest.mark.slow)])
async def test_an_answer_survives_kill_9_of_any_process(asking: Asking, kills: int) -> None:
    first = random.randrange(1_000_000)
    killer, killed = Killer(asking), list[str]()
    tending = asyncio.create_task(killer.tend())
    async with asking.stack.client("approver") as approver:
        for begin in range(first, first + kills, AT_ONCE):
            seeds = range(begin, min(begin + AT_ONCE, first + kills))
            killed += await asyncio.gather(*(survives(asking, approver, killer, seed) for seed in seeds))
            await asking.stack.ready()
    tending.cancel()
    assert len(killed) == kills
