"""Notes to a session: in order, in batches that it takes, bounded, and over once it is closed."""

import asyncio
import uuid

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

with workflow.unsafe.imports_passed_through():
    from activities.contract import PurchaseNote, Told
    from workflows.outbox import MAX_EVENTS_IN_NOTE, MAX_EVENTS_WAITING, Outbox


class Session:
    """A session as a note's receiver: takes notes, refuses for the moment, or is closed."""

    def __init__(self, *answers: Told | Exception) -> None:
        self.notes: list[PurchaseNote] = []
        self._answers = list(answers)

    @activity.defn(name="announce_purchase")
    async def announce_purchase(self, call: PurchaseNote) -> Told:
        self.notes.append(call)
        answer = self._answers.pop(0) if self._answers else "told"
        if isinstance(answer, Exception):
            raise answer
        return answer

    def heard(self) -> list[object]:
        return [event["data"] for note in self.notes for event in note.note.events]


@workflow.defn
class Talker:
    """Puts as many events into its outbox as it is asked to, in steps."""

    @workflow.init
    def __init__(self, steps: list[int]) -> None:
        self.closed = 0
        self.outbox = Outbox("s", on_closed=self._session_closed)

    def _session_closed(self) -> None:
        self.closed += 1

    @workflow.run
    async def run(self, steps: list[int]) -> int:
        telling = self.outbox.start()
        said = 0
        for step in steps:
            self.outbox.put(
                [{"type": "payment.updated", "data": {"n": said + number}} for number in range(step)]
            )
            said += step
            await workflow.wait_condition(lambda: self.outbox.empty)
        telling.cancel()
        return self.closed


async def talk(temporal: Client, session: Session, *steps: int) -> int:
    queue = f"outbox-{uuid.uuid4().hex[:8]}"
    async with Worker(
        temporal,
        task_queue=queue,
        workflows=[Talker],
        activities=[session.announce_purchase],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        running = temporal.execute_workflow(Talker.run, list(steps), id=queue, task_queue=queue)
        return await asyncio.wait_for(running, 60)


async def test_events_arrive_in_order_in_notes_that_a_session_takes(temporal: Client) -> None:
    session = Session()
    assert await talk(temporal, session, 1, 250) == 0
    assert [len(note.note.events) for note in session.notes] == [1, 100, 100, 50]
    assert all(len(note.note.events) <= MAX_EVENTS_IN_NOTE for note in session.notes)
    assert session.heard() == [{"n": 0}, *({"n": number} for number in range(1, 251))]
    assert len({note.note.key for note in session.notes}) == 4


async def test_a_note_that_is_not_taken_at_first_is_sent_again_under_its_key(temporal: Client) -> None:
    session = Session(ApplicationError("away"))
    await talk(temporal, session, 2)
    first, second = session.notes
    assert first == second


async def test_the_oldest_go_where_too_many_wait(temporal: Client) -> None:
    session = Session()
    await talk(temporal, session, MAX_EVENTS_WAITING + 7)
    assert session.heard()[0] == {"n": 7}
    assert len(session.heard()) == MAX_EVENTS_WAITING


async def test_a_closed_session_is_told_nothing_more(temporal: Client) -> None:
    session = Session("closed")
    assert await talk(temporal, session, 1, 5, 5) == 1
    assert len(session.notes) == 1
