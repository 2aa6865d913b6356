"""An agent asks: over restarts, for as long as it takes, on every device, once."""

from collections.abc import AsyncIterator

import pytest
from pydantic import JsonValue

from tests.agent.questions import Asking, asked, events, parked, result, running_asking, types
from tests.support import eventually
from tests.world.temporal import running_temporal
from waystation.client import Session
from waystation.errors import ApiError, ConflictError
from waystation.models.questions import ApprovalRule


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asking]:
    folder = tmp_path_factory.mktemp("asking")
    # Of its own: two stacks on one server would share the workers' task queue, and not the keys.
    async with running_temporal(folder) as server, running_asking(folder, server) as asking:
        yield asking


async def test_an_answer_comes_back_typed_and_is_recorded(asking: Asking) -> None:
    session = await asking.start("form")
    (question,) = await asked(session)
    assert question.data["kind"] == "form"
    assert question.data["schema"]["properties"]["size"]["maximum"] == 60  # type: ignore[index,call-overload]
    with pytest.raises(ApiError, match=r"value\.size: 99 is greater than") as refused:
        await session.answer("t1:order", {"size": 99})
    assert refused.value.status == 422
    response = await asking.client.http.post(
        f"{asking.client.url}/sessions/{session.id}/questions/t1:order/answer",
        json={"value": {"size": 99, "colour": 5}},
        headers=asking.client.headers,
    )
    wrong = {one["at"]: one["problem"] for one in response.json()["errors"]}
    assert wrong.keys() == {"value.size", "value.colour"}
    assert "greater than the maximum" in wrong["value.size"]
    answered = await session.answer("t1:order", {"size": 42})
    assert await result(session) == {"size": 42, "colour": "blue"}
    log = await events(session)
    (answer,) = [event for event in log if event.type == "input.answered"]
    assert answer.seq == answered.seq
    assert answer.data == {"question_id": "t1:order", "value": {"size": 42}}
    assert answer.actor.id == "test-service"
    assert await session.answer("t1:order", {"size": 42}) == answered, "the same again is the same"
    with pytest.raises(ConflictError, match="has answered already") as second:
        await session.answer("t1:order", {"size": 1})
    assert second.value.code == "question-settled"
    assert (await session.question("t1:order")).outcome.value == {"size": 42}  # type: ignore[union-attr]


async def test_a_turn_that_waits_is_parked_and_goes_on(asking: Asking) -> None:
    session = await asking.start("text")
    (question,) = await asked(session)
    await parked(session)
    snapshot = await session.snapshot()
    assert [turn.status for turn in snapshot.running] == ["waiting"]
    assert [one.question_id for one in snapshot.questions] == [question.data["question_id"]]
    assert asking.attempts(session) == 1
    await session.answer(str(question.data["question_id"]), "Ada")
    assert await result(session) == "Ada"
    assert asking.attempts(session) == 2
    log = await events(session)
    order = types(log)
    assert order.count("input.requested") == 1
    assert order.index("turn.waiting") < order.index("input.answered") < order.index("turn.resumed")
    assert not (await session.snapshot()).questions


async def test_killed_while_it_waits_and_answered_while_no_agent_runs(asking: Asking) -> None:
    session = await asking.start("choice")
    await asked(session)
    await parked(session)
    process = asking.stack.processes[-1]
    process.kill()
    await session.answer("t1:which", "large")
    process.start()
    assert await result(session) == "large"
    assert types(await events(session)).count("turn.retried") == 0, "nothing failed"


async def test_killed_before_it_is_parked(asking: Asking) -> None:
    session = await asking.start("choice")
    await asked(session)
    process = asking.stack.processes[-1]
    process.kill()
    process.start()
    await session.answer("t1:which", "small")
    assert await result(session) == "small"
    assert len([one for one in await events(session) if one.type == "input.requested"]) == 1


async def test_code_that_catches_its_cancellation_holds_nobody_up(asking: Asking) -> None:
    session = await asking.start("stubborn")
    await asked(session)
    await parked(session)
    await session.answer("t1:any", "me")
    assert await result(session) == "me"


async def test_two_questions_at_once_wait_for_both(asking: Asking) -> None:
    session = await asking.start("two")
    await asked(session, 2)
    await parked(session)
    await session.answer("t1:b", 2)
    await parked(session)
    await session.answer("t1:a", 40)
    assert await result(session) == 42


async def test_a_parent_is_parked_while_its_sub_agent_waits(asking: Asking) -> None:
    session = await asking.start("sub-agent")
    await asked(session)
    await parked(session)
    assert {turn.status for turn in (await session.snapshot()).running} == {"waiting"}
    await session.answer("t1.1:which", "large")
    assert await result(session) == "the child says large"
    assert types(await events(session)).count("agent.spawned") == 1


async def test_a_tool_call_around_a_question_stays_open(asking: Asking) -> None:
    session = await asking.start("in a tool")
    await asked(session)
    await parked(session)
    assert "tool.returned" not in types(await events(session))
    await session.answer("t1:much", 3)
    assert await result(session) == 3


async def test_nobody_answers_in_time(asking: Asking) -> None:
    session = await asking.start("expires")
    await asked(session)
    assert await result(session) == "too slow"
    with pytest.raises(ConflictError, match="expired"):
        await session.answer("t1:q", "late")
    loud = await asking.start("expires loudly")
    assert await result(loud) == "nobody came"


async def test_a_stop_withdraws_what_was_asked(asking: Asking) -> None:
    session = await asking.start("text")
    (question,) = await asked(session)
    await parked(session)
    assert (await session.stop()).outcome == "stopped"
    log = await events(session)
    assert [event.type for event in log[-3:]] == ["stop.requested", "input.withdrawn", "turn.stopped"]
    with pytest.raises(ConflictError, match="withdrawn"):
        await session.answer(str(question.data["question_id"]), "Ada")


async def test_a_turn_that_no_longer_wants_to_know_withdraws_its_question(asking: Asking) -> None:
    session = await asking.start("gives up")
    assert await result(session) == "went on"
    assert "input.withdrawn" in types(await events(session))


async def test_only_those_who_are_asked_may_answer(asking: Asking) -> None:
    session = await asking.start("operators")
    await asked(session)
    for role in ("client", "approver", "agent"):
        async with asking.stack.client(role) as other:
            with pytest.raises(ApiError) as refused:
                await other.attach(session.id).answer("t1:who", "me")
            assert refused.value.status == 403, role
    async with asking.stack.client("operator") as operator:
        await operator.attach(session.id).answer("t1:who", "we do")
    assert await result(session) == "we do"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"decision": "approve"}, "deleted {'path': 'notes.txt'}"),
        ({"decision": "approve", "arguments": {"path": "old.txt"}}, "deleted {'path': 'old.txt'}"),
        ({"decision": "reject", "reason": "not mine"}, "rejected: not mine"),
    ],
)
async def test_an_approval_is_bound_to_what_was_shown(
    asking: Asking, value: dict[str, JsonValue], expected: str
) -> None:
    session = await asking.start("approve")
    (question,) = await asked(session)
    digest = str(question.data["digest"])
    async with asking.stack.client("approver") as approver:
        own = approver.attach(session.id)
        if value["decision"] == "approve":
            with pytest.raises(ApiError, match="digest"):
                await own.answer("t1:delete", value)
            with pytest.raises(ApiError, match="another question"):
                await own.answer("t1:delete", value, digest="sha256:" + "0" * 64)
        with pytest.raises(ApiError, match="A service can't decide"):
            await session.answer("t1:delete", value, digest=digest)
        await own.answer("t1:delete", value, digest=digest)
    assert await result(session) == expected
    called = [event for event in await events(session) if event.type == "tool.called"]
    assert len(called) == (0 if value["decision"] == "reject" else 1)


async def test_people_and_questions_are_found_by_whatever_id_they_may_have(asking: Asking) -> None:
    session = await asking.client.start("asking")
    odd = "a/b/answer|c@d+e:1"
    item = {"n": 1, "type": "input.requested", "data": {"question_id": odd, "prompt": "Who?"}}
    async with asking.stack.client("agent") as agent:
        await agent.attach(session.id).write("clerk", [item])
    view = await session.question(odd)
    assert view is not None
    assert view.asked["question_id"] == odd
    await session.answer(odd, "Ada")
    ada = {"actor": {"id": "org/ada", "role": "user"}}
    people = f"{asking.client.url}/sessions/{session.id}/participants"
    joined = await asking.client.http.post(people, json=ada, headers=asking.client.headers)
    left = await asking.client.http.delete(f"{people}/org%2Fada", headers=asking.client.headers)
    assert (joined.status_code, left.status_code) == (200, 200)
    log = await events(session)
    assert [e.data["value"] for e in log if e.type == "input.answered"] == ["Ada"]
    assert [e.actor.id for e in log if e.type == "participant.left"] == ["org/ada"]


async def test_too_many_and_nobody(asking: Asking) -> None:
    session = await asking.start("many")

    async def refused() -> bool:
        return len((await session.snapshot()).questions) == 200

    await eventually(refused)
    await session.stop()
    nobody = await asking.start("nobody")

    async def failed() -> bool:
        return types(await events(nobody))[-1] == "turn.failed"

    await eventually(failed)
    assert "nobody may answer" in str((await events(nobody))[-1].data["detail"])


async def test_each_question_too_many_is_refused_where_it_is_asked(asking: Asking) -> None:
    """A question that was not asked is never answered: whoever waited for it would be parked for ever."""
    assert await result(await asking.start("too many")) == [2, 200]


async def test_rules_of_the_session_decide_first(asking: Asking) -> None:
    async def started(policy: str) -> Session:
        rule = {"tool": "del*", "arguments": {"path": "*.txt"}, "policy": policy}
        rules = [ApprovalRule.model_validate(rule)]
        return await asking.start("approve", rules)

    assert await result(await started("allow")) == "deleted {'path': 'notes.txt'}"
    assert await result(await started("deny")) == "rejected: A rule of this session forbids it."
    session = await started("ask_once")
    (question,) = await asked(session)
    async with asking.stack.client("approver") as approver:
        own = approver.attach(session.id)
        await own.answer("t1:delete", {"decision": "approve"}, digest=str(question.data["digest"]))
    await result(session)
    await session.send("approve")

    async def again() -> bool:
        return types(await events(session)).count("turn.completed") == 2

    await eventually(again)
    decided = [event for event in await events(session) if event.type == "input.answered"]
    assert [event.actor.role for event in decided] == ["user", "system"]
