"""The examples of docs/http-api.md are run as they stand, against a real API."""

import asyncio
import re
import shutil
import uuid

import pytest

from tests.docs.support import blocks
from tests.docs.test_complete import sections
from tests.stack import KEYS, Stack
from tests.support import environment
from waystation.client import Client

EXAMPLES = {route: blocks(text, "sh") for route, text in sections().items() if blocks(text, "sh")}
STREAMS = {"GET /sessions/{session_id}/events"}
SKIPPED = {"WS /sessions/{session_id}/socket": "an interactive client"}
STREAM_SECONDS = 2
PREAMBLE = r"""
set -eu
curl() { command curl --fail-with-body "$@"; }
api() { curl -s -H "Authorization: Bearer $WAYSTATION_API_KEY" -H "Content-Type: application/json" "$@"; }
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
)


async def prepare(client: Client, stack: Stack, route: str) -> tuple[str, dict[str, str]]:
    """A session in the state that the example is for, and the variables that it uses."""
    session_id = f"order-{uuid.uuid4().hex}"
    if route != "POST /sessions":
        await client.start("demo", session_id=session_id)
    operator = stack.client("operator")
    if route.endswith("/release"):
        await operator.attach(session_id).take_over()
    await operator.close()
    answer = await client.http.post(
        f"{client.url}/tokens",
        json={"role": "client", "sessions": [session_id], "subject": "ada"},
        headers=client.headers,
    )
    return session_id, environment(
        WAYSTATION_URL=client.url,
        WAYSTATION_API_KEY=KEYS["service"],
        OPERATOR_TOKEN=KEYS["operator"],
        AGENT_KEY=KEYS["agent"],
        SESSION_TOKEN=answer.json()["token"],
        PATH="/usr/local/bin:/usr/bin:/bin",
    )


@pytest.mark.parametrize("route", [route for route in EXAMPLES if route not in SKIPPED])
async def test_the_example_works(route: str, client: Client, stack: Stack, tmp_path: object) -> None:
    for example in EXAMPLES[route]:
        session_id, env = await prepare(client, stack, route)
        script = PREAMBLE + example.replace("order-17", session_id)
        if route in STREAMS:
            script = script.replace("curl -N", f"curl -sN --max-time {STREAM_SECONDS}")
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", script, env=env, cwd=str(tmp_path),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
        if route in STREAMS:
            assert re.search(r"^id: 1$", output, re.MULTILINE), output
        else:
            assert process.returncode == 0, output
