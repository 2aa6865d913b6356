"""``waystation session questions``, ``… answer`` and ``waystation approvals`` beside a ``waystation dev``."""

import json
from typing import Any

from tests.cli.commands import DevProcess, run
from tests.support import eventually


async def asked(dev: DevProcess, text: str) -> str:
    """Starts a session whose agent asks, and returns its id once it has."""
    session_id = dev.session("start", "asker", "-m", text).strip()
    await eventually(lambda: dev.count(session_id, "input.requested"), what="the agent asks")
    return session_id


async def result(dev: DevProcess, session_id: str) -> Any:
    await eventually(lambda: dev.count(session_id, "turn.completed"), what="the turn completes")
    return dev.events(session_id)[-1]["data"]["result"]


async def test_a_question_is_shown_and_answered(dev: DevProcess) -> None:
    session_id = await asked(dev, "choice")
    shown = dev.session("questions", session_id)
    assert [line.strip() for line in shown.splitlines()[:4]] == [
        "t1:which  choice, asked by asker", "Which?", "- wool", "- linen",
    ]  # fmt: skip
    assert json.loads(dev.session("questions", session_id, "--json"))["asked"]["prompt"] == "Which?"
    wrong = run("session", "answer", session_id, "t1:which", "silk", cwd=dev.folder)
    assert (wrong.returncode, "choose one of 'wool', 'linen'" in wrong.stderr) == (1, True)
    dev.session("answer", session_id, "t1:which", "linen")
    assert await result(dev, session_id) == "linen"
    assert dev.session("questions", session_id) == "No question is open.\n"
    late = run("session", "answer", session_id, "t1:which", "wool", cwd=dev.folder)
    assert (late.returncode, "has answered already" in late.stderr) == (1, True)
    told = dev.session("replay", session_id)
    assert '"input.answered"' in told


async def test_a_number_is_read_as_json(dev: DevProcess) -> None:
    session_id = await asked(dev, "number")
    for wrong in (("three",), ("--json", "{"), (), ("3", "--json", "3"), ("--approve",)):
        refused = run("session", "answer", session_id, "t1:many", *wrong, cwd=dev.folder)
        assert refused.returncode == 2, (wrong, refused.stderr)
    dev.session("answer", session_id, "t1:many", "3")
    assert await result(dev, session_id) == 3


async def test_an_approval_is_shown_before_it_is_given(dev: DevProcess) -> None:
    session_id = await asked(dev, "approval")

    def waiting() -> str:
        return run("approvals", "--session", session_id, cwd=dev.folder).stdout

    await eventually(lambda: "1 waits for approval." in waiting())
    assert 'delete {"path": "notes.txt"}' in waiting()
    assert f"waystation session answer {session_id} t1:ok --approve" in waiting()
    [one] = json.loads(run("approvals", "--session", session_id, "--json", cwd=dev.folder).stdout)[
        "approvals"
    ]
    assert (one["kind"], one["may_decide"]) == ("tool", True)
    unsaid = run("session", "answer", session_id, "t1:ok", "--approve", cwd=dev.folder)
    assert unsaid.returncode == 1, "nobody has confirmed it"
    assert f"Digest {one['digest']}" in unsaid.stdout
    assert "Tool: delete" in unsaid.stdout
    as_json = '{"decision": "approve", "arguments": {"path": "old.txt"}}'
    dev.session("answer", session_id, "t1:ok", "--json", as_json, "--digest", one["digest"])
    assert await result(dev, session_id) == {"path": "old.txt"}
    [answered] = [event for event in dev.events(session_id) if event["type"] == "input.answered"]
    assert (answered["actor"]["id"], answered["data"]["digest"]) == ("dev-approver", one["digest"])
    await eventually(lambda: "0 wait for approval." in waiting())


async def test_a_rejection_has_its_reason(dev: DevProcess) -> None:
    session_id = await asked(dev, "approval")
    dev.session("answer", session_id, "t1:ok", "--reject", "not mine")
    await eventually(lambda: dev.count(session_id, "turn.failed"), what="the agent is told")
    assert "not mine" in dev.events(session_id)[-1]["data"]["detail"]
