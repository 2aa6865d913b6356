"""A message that no worker can decrypt costs itself, and nothing else."""

import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Sequence

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError
from temporalio.worker import Worker

from tests.support import eventually
from tests.workflows.test_odd_messages import SUBJECTS, check_alive, later, messages_to, send
from tests.world.temporal import TemporalServer
from waystation.models.events import Actor, Role
from waystation.models.sessions import SendMessage, SessionLimits, TurnInput, TurnResult
from waystation.temporal.connect import open_client
from waystation.temporal.encryption import encrypting_data_converter, encryption_codec, generate_key
from waystation.temporal.messages import RUN_TURN
from waystation.temporal.names import agent_task_queue
from waystation.temporal.payload_converter import PayloadDecryptionError
from waystation.temporal.tokens import SignalName
from worker import build_worker
from workflows.session import AgentSession, SessionInput

KEY, THEIR_KEY = f"ours:{generate_key()}", f"theirs:{generate_key()}"
OURS = encryption_codec([KEY])


class Torn(PayloadCodec):
    """Encrypts with our key, and breaks what comes out."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        sealed = await OURS.encode(payloads)
        return [Payload(metadata=payload.metadata, data=payload.data[:-1]) for payload in sealed]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await OURS.decode(payloads)


STRANGERS: dict[str, PayloadCodec] = {
    "another key": encryption_codec([THEIR_KEY]),
    "another key of the same name": encryption_codec([f"ours:{generate_key()}"]),
    "torn": Torn(),
}


async def connect(server: TemporalServer, codec: PayloadCodec) -> Client:
    return await open_client(server.address, data_converter=encrypting_data_converter(codec))


@pytest.fixture(scope="module")
async def ours(temporal_server: TemporalServer) -> Client:
    return await connect(temporal_server, OURS)


@pytest.fixture(scope="module")
async def queue(ours: Client) -> AsyncIterator[str]:
    async def nobody(_: str) -> None:
        return None

    name = f"unreadable-{uuid.uuid4()}"
    async with build_worker(ours, nobody, task_queue=name, money=[later]):
        yield name


@pytest.mark.parametrize("kind", SUBJECTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("stranger", STRANGERS)
async def test_a_workflow_goes_on_after_what_cant_be_decrypted(
    kind: type,
    stranger: str,
    ours: Client,
    queue: str,
    temporal_server: TemporalServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs = await connect(temporal_server, STRANGERS[stranger])
    subject, name = SUBJECTS[kind], workflow._Definition.must_from_class(kind).name or ""
    start = subject.start() if callable(subject.start) else subject.start
    handle = await ours.start_workflow(name, start, id=f"odd-{uuid.uuid4()}", task_queue=queue)
    strange = theirs.get_workflow_handle(handle.id)
    with caplog.at_level(logging.ERROR):
        for token in messages_to(subject):
            with contextlib.suppress(PayloadDecryptionError):  # a stranger can't read the refusal
                await send(strange, token, ["unreadable"])
        await check_alive(handle, subject, [])
    said = [record for record in caplog.records if handle.id in record.getMessage()]
    dropped = [record for record in said if "dropping the signal" in record.getMessage()]
    signaled = any(isinstance(token, SignalName) for token in messages_to(subject))
    goes_on = (await handle.describe()).status == WorkflowExecutionStatus.RUNNING
    assert dropped or not (signaled and goes_on)
    assert all("a payload " in (record.exc_text or "") for record in dropped)
    with contextlib.suppress(RPCError):
        await handle.terminate()


async def test_an_agent_with_another_key_fails_its_turn_and_no_more(
    ours: Client, queue: str, temporal_server: TemporalServer
) -> None:
    class OneWay(PayloadCodec):
        """Reads what we write, and answers what we can't read."""

        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return await STRANGERS["another key"].encode(payloads)

        async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return await OURS.decode(payloads)

    @activity.defn(name=RUN_TURN.name)
    async def run_turn(turn: TurnInput) -> TurnResult:
        return TurnResult(outcome="completed")

    theirs = await connect(temporal_server, encryption_codec([THEIR_KEY, KEY]))
    agent = f"bot-{uuid.uuid4().hex[:8]}"
    async with Worker(theirs, task_queue=agent_task_queue(agent), activities=[run_turn]):
        handle = await ours.start_workflow(
            AgentSession.run,
            SessionInput(agent=agent, limits=SessionLimits()),
            id=f"s-{uuid.uuid4()}",
            task_queue=queue,
        )
        ada = Actor(id="ada", role=Role.USER)
        await handle.execute_update(AgentSession.send, SendMessage(text="hi", actor=ada))

        async def failed() -> object:
            page = await handle.query(AgentSession.replay)
            return next((event for event in page.events if event.type == "turn.failed"), None)

        event = await eventually(failed)
        assert event.data["code"] == "agent_error"
        assert "encrypted with key 'theirs'" in event.data["detail"]
    await handle.terminate()
