"""Everything that waits for a person's approval is one list, for each caller what they may see."""

from collections.abc import AsyncIterator

import pytest

from tests.agent.questions import Asking, asked, events, parked, result, running_asking
from tests.support import eventually
from tests.world.temporal import running_temporal
from waystation.client import Client
from waystation.errors import ApiError
from waystation.models.approvals import ApprovalKind, ApprovalList
from waystation.models.questions import ApprovalRule


@pytest.fixture(scope="module")
async def asking(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Asking]:
    folder = tmp_path_factory.mktemp("approvals")
    async with running_temporal(folder) as server, running_asking(folder, server) as asking:
        yield asking


async def listed(client: Client, count: int, session_id: str | None = None) -> ApprovalList:
    """Returns the list once it has so many: Temporal's lists are a moment behind."""
    found: list[ApprovalList] = []

    async def there() -> bool:
        found[:] = [await client.approvals(session_id=session_id)]
        return found[0].count == count

    await eventually(there)
    return found[0]


async def test_tools_that_wait_are_listed_with_what_is_decided(asking: Asking) -> None:
    other = await asking.start("text")
    await asked(other)
    first = await asking.start("approve")
    (question,) = await asked(first)
    second = await asking.start("approve")
    await asked(second)
    await parked(first)
    async with asking.stack.client("approver") as approver:
        approvals = await listed(approver, 2)
        assert [one.session_id for one in approvals.approvals] == [second.id, first.id], "newest first"
        one = approvals.approvals[1]
        assert (one.kind, one.id, one.agent, one.may_decide) == ("tool", "t1:delete", "asking", True)
        assert one.digest == question.data["digest"]
        assert one.question is not None
        assert one.question.asked["arguments"] == {"path": "notes.txt"}
        assert one.question.asked["prompt"] == "Allow delete?"
        assert one.question.seq == question.seq
        assert (await approver.approvals(kinds=[ApprovalKind.PURCHASE, ApprovalKind.PAYMENT])).count == 0
        everything = await approver.approvals(kinds=list(ApprovalKind))
        assert [(one.kind, one.session_id, one.may_decide) for one in everything.approvals] == [
            ("tool", second.id, True),
            ("tool", first.id, True),
            ("question", other.id, False),
        ], "a question only where its kind is named; users and operators answer it"
        mine = await approver.approvals(kinds=list(ApprovalKind), mine=True)
        assert ([one.kind for one in mine.approvals], mine.count) == (["tool", "tool"], 2)
        async with asking.stack.client("operator") as operator:
            (asks,) = (await operator.approvals(kinds=[ApprovalKind.QUESTION], mine=True)).approvals
            assert (asks.session_id, asks.agent, asks.may_decide) == (other.id, "asking", True)
            assert asks.question is not None
            assert asks.question.asked["kind"] == "question"
        assert (await listed(approver, 1, first.id)).approvals[0].session_id == first.id
        limited = await approver.approvals(limit=1)
        assert (len(limited.approvals), limited.count, limited.more) == (1, 2, False)
        await approver.attach(first.id).answer("t1:delete", {"decision": "approve"}, digest=one.digest)
        assert await result(first) == "deleted {'path': 'notes.txt'}"
        (answered,) = [event for event in await events(first) if event.type == "input.answered"]
        assert answered.data["digest"] == one.digest, "who decided what they had seen"
        assert (answered.actor.id, answered.actor.role) == ("test-approver", "user")
        await listed(approver, 1)
    await second.stop()
    await listed(asking.client, 0)
    listing = await asking.client.list(limit=100)
    waits = {one.session_id: one.waits_for for one in listing.sessions}
    assert (waits[other.id], waits[first.id], waits[second.id]) == ("answer", None, None)
    await other.close()


async def test_a_caller_sees_their_own_and_whether_they_may_decide(asking: Asking) -> None:
    mine = await asking.start("approve")
    theirs = await asking.start("approve")
    await asked(mine)
    await asked(theirs)
    await listed(asking.client, 2)
    for role, may_decide in {"operator": True, "approver": True, "service": False, "agent": False}.items():
        async with asking.stack.client(role) as client:
            assert {one.may_decide for one in (await client.approvals()).approvals} == {may_decide}, role
    body = {"role": "client", "sessions": [mine.id, "not-started-yet"], "subject": "ada"}
    minted = await asking.client.http.post(
        f"{asking.client.url}/tokens", json=body, headers=asking.client.headers
    )
    async with Client(asking.stack.url, minted.json()["token"]) as ada:
        approvals = await ada.approvals()
        assert [(one.session_id, one.may_decide) for one in approvals.approvals] == [(mine.id, True)]
        with pytest.raises(ApiError) as refused:
            await ada.approvals(session_id=theirs.id)
        assert refused.value.status == 404
    for session in (mine, theirs):
        await session.close()
    await listed(asking.client, 0)


async def test_what_a_rule_decides_never_waits(asking: Asking) -> None:
    rules = [ApprovalRule(tool="*", policy="allow")]
    session = await asking.start("approve", rules)
    assert await result(session) == "deleted {'path': 'notes.txt'}"
    assert (await asking.client.approvals(session_id=session.id)).count == 0
