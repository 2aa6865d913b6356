"""What happens in the demo. To add a chapter, write a function and name it in ``CHAPTERS``."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import cycle, islice

from waystation.agents.demo import WORDS
from waystation.demo import money
from waystation.demo.devices import Witness
from waystation.demo.stage import DemoFailed, Stage, turn_of
from waystation.models.events import EventType

SILENCE_SECONDS = 1.0
"""How long to listen for text that must not come."""
PROMISE = "Hello Ada, Grace here, a person. Your parcel leaves today."


@dataclass(frozen=True)
class Chapter:
    """One thing that sessions can do, shown and checked."""

    title: str
    about: str
    play: Callable[[Stage], Awaitable[None]]


def spoken(words: int) -> str:
    """Returns what the deterministic agent says, word for word, in an answer of so many words."""
    return "".join(word + " " for word in islice(cycle(WORDS), words))


async def resume(stage: Stage) -> None:
    """One of two clients loses its connection and resumes."""
    turn = await stage.ask("What is a durable session?", tokens=len(WORDS), rate=11)
    await stage.until(lambda: len(stage.phone.answer(turn)) > 60, "the answer appears on the phone")
    before = stage.wire.connections
    stage.wire.cut()
    had = len(stage.phone.answer(turn))
    stage.screen.say(f"The phone's connection is reset at {had} characters; no new one gets through.")
    await stage.until(lambda: len(stage.laptop.answer(turn)) > had + 80, "the laptop keeps receiving")
    missed = len(stage.laptop.answer(turn)) - len(stage.phone.answer(turn))
    await stage.wire.mend()
    stage.screen.say(f"The network is back. The phone missed {missed} characters and resumes by itself.")
    await stage.ended(turn)
    stage.screen.check(missed > 0 and stage.wire.connections > before, "the phone was cut off, and came back")
    stage.screen.check(
        stage.phone.answer(turn) == spoken(len(WORDS)) == stage.laptop.answer(turn),
        "both show the answer word for word as the agent wrote it",
    )
    await stage.check_same()


async def steer(stage: Stage) -> None:
    """The running turn takes a steer."""
    turn = await stage.ask("Tell me more.", tokens=40, rate=16)
    await stage.until(lambda: len(stage.laptop.answer(turn)) > 60, "the answer begins")
    answer = await stage.laptop.session.steer("and mention the weather")
    stage.screen.say(f"The API answers: {answer.outcome}, recorded as event {answer.seq}.")
    await stage.ended(turn)
    stage.screen.check(
        answer.outcome == "consumed" and answer.turn_id == turn, "the steer was consumed by the running turn"
    )
    stage.screen.check(
        "[steered: and mention the weather]" in stage.phone.answer(turn),
        "the same answer continues with it: no new turn, nothing interrupted",
    )


async def stop(stage: Stage) -> None:
    """A stop returns its outcome, and no text follows."""
    async with Witness(stage.client, stage.laptop.session) as witness:
        turn = await stage.ask("Count the stars, please.", tokens=1_000, rate=40)
        await stage.until(lambda: len(stage.phone.answer(turn)) > 200, "the answer is streaming")
        answer = await stage.phone.session.stop(reason="that is enough")
        stage.screen.say(
            f"The API answers the phone's stop: {answer.outcome}, recorded as event {answer.seq}."
        )
        await stage.ended(turn)
        await stage.until(
            lambda: witness.after(lambda block: block.get("seq") == answer.seq) is not None,
            "the witness sees the stop's event",
        )
        # Without the stop, the agent would write forty words in this time.
        await asyncio.sleep(SILENCE_SECONDS)
        later = witness.after(lambda block: block.get("seq") == answer.seq) or []
    stage.screen.check(
        answer.outcome == "stopped" and answer.seq is not None, "outcome: stopped, with its seq"
    )
    stage.screen.check(
        not any(block["type"] == EventType.MESSAGE_DELTA for block in later),
        "not one character on the wire after the stop's event, in a second of listening",
    )
    stage.screen.check(
        stage.terminal_events(turn) == [EventType.TURN_STOPPED], "the turn ended exactly once, as stopped"
    )


async def sub_agents(stage: Stage) -> None:
    """Sub-agents write to the same session directly."""
    turn = await stage.ask("Look into two questions for me.", tokens=12, rate=12, spawn=2)
    await stage.ended(turn)
    for device in stage.devices:
        answers = [device.answer(f"{turn}.{number}") for number in (1, 2)]
        stage.screen.check(
            all(answers) and len(set(answers)) == 2,
            f"{device.name} shows the researchers' own messages next to the agent's",
        )
    stage.screen.check(
        stage.laptop.count(EventType.AGENT_SPAWNED) == 2 == stage.laptop.count(EventType.AGENT_FINISHED),
        "two started, two finished, and their results reached the agent that asked",
    )
    stage.screen.check(
        "My researchers report" in stage.laptop.answer(turn), "which continues with what they found"
    )


async def takeover(stage: Stage) -> None:
    """A person takes the agent's place and hands it back."""
    turn = await stage.ask("Where is my parcel?", tokens=len(WORDS), rate=16)
    await stage.until(lambda: len(stage.laptop.answer(turn)) > 60, "the agent begins to answer")
    taken = await stage.operator.take_over(reason="a person should answer this")
    await stage.ended(turn)
    stage.screen.say("Grace has taken over: the agent's turn is stopped, and new ones wait.")
    said = await stage.operator.send(PROMISE)
    queued = await stage.laptop.session.send(
        "Thanks! Agent, what did she say?", data={"quote": "operator", "tokens": 12, "rate": 16}
    )
    await stage.until(
        lambda: any(event.seq >= queued.seq for event in stage.phone.events), "the phone sees the question"
    )
    await asyncio.sleep(SILENCE_SECONDS)
    released = await stage.operator.release()
    stage.screen.say("Grace hands back; the agent continues from what was said.")
    next_turn = turn_of(queued)
    await stage.ended(next_turn)
    between = [
        event
        for event in stage.laptop.events
        if taken.seq < event.seq < released.seq and event.type == EventType.MESSAGE_STARTED
    ]
    stage.screen.check(
        said.status == "recorded" and said.turn_id is None,
        "Grace speaks in the agent's place: no turn answers her",
    )
    stage.screen.check(
        queued.status == "queued" and not between, "while she has the session, the agent's turns wait"
    )
    stage.screen.check(
        PROMISE in stage.phone.answer(next_turn), "afterwards the agent knows what she promised"
    )


async def crash(stage: Stage) -> None:
    """The agent's process is killed mid-answer; the turn is retried."""
    turn = await stage.ask("And what if your process dies?", tokens=len(WORDS), rate=18)
    await stage.until(lambda: len(stage.laptop.answer(turn)) > 100, "the answer runs")
    pid = stage.dev.pid("agents")
    if pid is None:
        raise DemoFailed("The agents' process isn't running.")
    os.kill(pid, signal.SIGKILL)
    stage.screen.say(f"kill -9 {pid}: the agent's process is gone. Temporal misses its heartbeat …")
    await stage.until(lambda: stage.phone.count(EventType.TURN_RETRIED, turn), "the turn is retried")
    stage.screen.say("… and has another process retry the turn; the unfinished text is superseded.")
    await stage.ended(turn)
    await stage.until(lambda: stage.dev.pid("agents") not in (None, pid), "another process runs")
    stage.screen.check(
        all(len(device.superseded) == 1 for device in stage.devices),
        "what the first attempt left unfinished is marked as superseded on both screens",
    )
    stage.screen.check(
        all(device.answer(turn) == spoken(len(WORDS)) for device in stage.devices),
        "the second attempt's answer is complete",
    )
    stage.screen.check(
        stage.terminal_events(turn) == [EventType.TURN_COMPLETED], "the turn ended exactly once, as completed"
    )
    await stage.check_same()


async def question(stage: Stage) -> None:
    """The agent asks, its process is killed while it waits, a person answers, and it goes on."""
    turn = await stage.ask("Please tidy up.", delete="old-notes.txt", tokens=8, rate=16)
    await stage.until(
        lambda: all(device.count(EventType.TURN_WAITING, turn) for device in stage.devices), "the turn waits"
    )
    asked = next(event for event in stage.phone.events if event.type == EventType.INPUT_REQUESTED)
    stage.screen.say(f"The agent asks: {asked.data['prompt']} It waits, and no process holds its turn.")
    pid = stage.dev.pid("agents")
    if pid is None:
        raise DemoFailed("The agents' process isn't running.")
    os.kill(pid, signal.SIGKILL)
    answered = await stage.phone.session.answer(
        str(asked.data["question_id"]), {"decision": "approve"}, digest=str(asked.data["digest"])
    )
    stage.screen.say(f"kill -9 {pid}. Meanwhile Ada approves on her phone, recorded as event {answered.seq}.")
    await stage.ended(turn)
    called = [event.seq for event in stage.laptop.events if event.type == EventType.TOOL_CALLED]
    stage.screen.check(
        all(device.count(EventType.INPUT_REQUESTED, turn) == 1 for device in stage.devices),
        "it asked once, on both screens, and went on in another process",
    )
    stage.screen.check(
        [seq > answered.seq for seq in called] == [True], "the tool ran once, and after the approval"
    )
    stage.screen.check(
        stage.terminal_events(turn) == [EventType.TURN_COMPLETED]
        and not stage.laptop.count(EventType.TURN_RETRIED, turn),
        "the turn ended exactly once, as completed; nothing had failed",
    )
    await stage.check_same()


async def close(stage: Stage) -> None:
    """The session is closed; clients read to its end and are told not to reconnect."""
    await stage.operator.close()
    await stage.until(lambda: all(device.ended for device in stage.devices), "both streams end")
    stage.screen.check(
        all(device.events[-1].type == EventType.SESSION_CLOSED for device in stage.devices),
        "both streams ended with session.closed and were not reopened",
    )
    page = await stage.laptop.session.replay()
    stage.screen.check(page.closed and bool(page.events), "what was said stays readable")
    await stage.check_same()


CHAPTERS = (
    Chapter(
        "Two screens, one network failure",
        "An agent streams to Ada's laptop and phone. The phone's TCP connection is cut mid-answer.",
        resume,
    ),
    Chapter("Steer", "Ada adds a request while the agent is answering.", steer),
    Chapter("Stop", "A stop is a separate message, not a closed connection.", stop),
    Chapter(
        "Several agents", "The agent starts two researchers; they write to the session directly.", sub_agents
    ),
    Chapter("A person takes over", "Grace, an operator, answers in the agent's place.", takeover),
    Chapter("kill -9", "The agent's process is killed mid-answer.", crash),
    Chapter("A question", "The agent asks before it deletes, and is killed while it waits.", question),
    Chapter(
        "A purchase",
        "An agent finds a book, a person approves the cart; then the seller asks for too much.",
        money.purchase,
    ),
    Chapter(
        "Paid requests",
        "An API returns 402. The agent pays within its mandate: by card token, on chain, and only once.",
        money.paid_requests,
    ),
    Chapter("The end", "The session is closed for everyone.", close),
)
