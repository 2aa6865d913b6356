"""What the agent ``asker`` tells in a session without faults is what the oracle expects of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from tests.torture.evidence import Evidence, Final, FinalSession
from tests.torture.oracle import judge, questions
from tests.torture.oracle.promises import PROMISES
from tests.torture.plan import Plan
from tests.torture.record import Recorder, read_record
from tests.torture.scripts import Step
from tests.world.stack import running_stack
from tests.world.temporal import running_temporal
from waystation.client import Client
from waystation.models.events import TERMINAL_TURN_TYPES
from waystation.models.questions import ApprovalRule

AGENTS = ("tests.torture.agents.wild:agent", "tests.torture.agents.asking:agent")
SCRIPT: list[Step] = [
    ["say", 1, ["Hello. ", "Now: "], 5],
    ["step", 2, 0, True],
    ["ask", 3, "form", True, None],
    ["guarded", 4, "order"],
    ["guarded", 5, "pay"],
    ["both", 6],
    ["survey", 7],
    ["unanswerable", 8, "expires"],
    ["unanswerable", 9, "gives up"],
    ["helper", 10, json.dumps([["ask", 1, "choice", False, None], ["step", 2, 20, False], ["end", "raise"]])],
    ["approve", 11, "delete", True],
    ["ask", 12, "number", False, 1],
    ["slow", 50],
    ["end", "retry"],
]
ANSWERS: dict[str, Any] = {"3: what?": {"size": 3, "colour": "red"}, "1: what?": "green"}
NEVER = ("12: what?", "8: anybody?", "9: anybody?")
PARK_AFTER_SECONDS = 1


async def test_every_kind_of_step_is_told_as_its_script_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path / "record.jsonl")
    monkeypatch.setenv("TORTURE_RECORD", str(recorder.path))
    limits = {"park_after_seconds": PARK_AFTER_SECONDS}
    async with (
        running_temporal(tmp_path) as temporal,
        running_stack(tmp_path, temporal, *AGENTS, limits=json.dumps(limits)) as stack,
        stack.client() as service,
        stack.client("operator") as person,
    ):
        rules = [{"tool": "order", "policy": "allow"}, {"tool": "pay", "policy": "deny"}]
        session = await service.start(
            "asker",
            message=json.dumps(SCRIPT),
            approval_rules=[ApprovalRule.model_validate(rule) for rule in rules],
        )
        recorder.note("host", "start", session=session.id, asked={"approval_rules": rules})

        async def over() -> bool:
            await _answer(person, session.id, recorder)
            return any(event.type in TERMINAL_TURN_TYPES for event in (await session.replay()).events)

        await eventually(over, within=60.0)
        log = [event.model_dump(mode="json") for event in (await session.replay()).events]
    recorder.close()
    kept = FinalSession(session.id, log=log, workflow="RUNNING")
    evidence = Evidence(Plan(1, 60.0, "sessions"), list(read_record(recorder.path)), Final(sessions=[kept]))
    about = [name for name, promise in PROMISES.items() if promise.check.__module__ == questions.__name__]
    judgement = judge(evidence, *about)
    assert {name: judged.violations for name, judged in judgement.items() if judged.broken} == {}
    assert [name for name, judged in judgement.items() if not judged.checked] == []
    assert [event["type"] for event in log].count("turn.waiting") > 1


async def _answer(person: Client, session_id: str, recorder: Recorder) -> None:
    """Answers everything that is to be answered, and notes that."""
    session = person.attach(session_id)
    for question in (await session.snapshot()).questions:
        asked = (await session.question(question.question_id)).asked
        if asked["prompt"] in NEVER:
            continue
        approves: Any = {"decision": "approve", "arguments": {"n": 11, "edited": True}}
        value = (
            approves if asked["kind"] == "approval" else ANSWERS.get(str(asked["prompt"]), asked["prompt"])
        )
        answered = await session.answer(question.question_id, value, digest=question.digest)
        recorder.note(
            "test-operator", "answer", session=session_id, id=question.question_id, asked={"value": value},
            status=200, proxied=False, answer={"seq": answered.seq},
        )  # fmt: skip
