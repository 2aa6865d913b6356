"""Cursors that come from elsewhere than the process that is asked."""

from temporalio.client import Client as TemporalClient

from tests.support import eventually
from tests.world.stack import Stack
from waystation.client import Client


async def test_a_cursor_ahead_of_what_this_process_has_read_is_followed_up(
    stack: Stack, client: Client, temporal: TemporalClient
) -> None:
    session = await client.start("nobody-runs-this")
    url = f"{stack.url}/sessions/{session.id}/events"
    async with client.http.stream("GET", url, headers=client.headers) as watching:
        # Now this process has a reader for the session; what it isn't told of it doesn't know yet.
        assert watching.status_code == 200
        await temporal.get_workflow_handle(session.id).signal("steer", {"text": "past the API"})

        async def recorded() -> int:
            tip = (await session.replay()).tip
            return tip if tip > 1 else 0

        tip = await eventually(recorded, what="the signal is recorded")
        headers = {**client.headers, "Last-Event-ID": str(tip)}
        async with client.http.stream("GET", url, headers=headers) as resumed:
            assert resumed.status_code == 200, await resumed.aread()

    for cursor in ("x", "1_0", " 3", "-1", "1.0", "\u00b2", "9" * 30, "9999"):
        for what in ("events", "replay"):
            answer = await client.http.get(
                f"{stack.url}/sessions/{session.id}/{what}", params={"after": cursor}, headers=client.headers
            )
            assert (answer.status_code, answer.json()["code"]) == (422, "wrong-cursor"), (what, cursor)

    refused = await client.http.get(url, headers={**client.headers, "Last-Event-ID": "9999"})
    assert refused.status_code == 422
    assert refused.json()["code"] == "wrong-cursor"
