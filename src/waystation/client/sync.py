"""The client without ``async``, for scripts and for notebook cells run as scripts.

    >>> with SyncClient() as client:  # doctest: +SKIP
    ...     session = client.start("assistant", message="Hello!")
    ...     for event in session.events():
    ...         print(event.type)

Every call runs the asynchronous client on an event loop of its own, so it can't be used where a loop is
already running; use ``Client`` there.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from pydantic import JsonValue

from waystation.client.client import Client, ListFilters, Session
from waystation.client.transcript import Transcript
from waystation.models.approvals import ApprovalKind, ApprovalList
from waystation.models.events import Event, LiveDelta
from waystation.models.questions import Answered, QuestionView
from waystation.models.requests import ControlAnswer, People, SessionList
from waystation.models.sessions import OnBusy, Recorded, ReplayPage, Sent, Snapshot, Withdrawn

T = TypeVar("T")


class SyncClient:
    """A blocking ``Client``.

    >>> client = SyncClient("http://127.0.0.1:8470", api_key)  # doctest: +SKIP
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._runner = asyncio.Runner()
        self._client = self.run(_make(url, api_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; sessions continue without them.

        >>> client.close()  # doctest: +SKIP
        """
        self.run(self._client.close())
        self._runner.close()

    def run(self, work: Coroutine[object, None, T]) -> T:
        """Runs a coroutine of the asynchronous client on this client's loop.

        >>> client.run(session.session.people())  # doctest: +SKIP
        """
        return self._runner.run(work)

    def start(self, agent: str, **options: Any) -> "SyncSession":
        """Starts a session, or attaches to the one that already has this ``session_id``.

        Takes the options of ``start``.

        >>> session = client.start("assistant", session_id="order-17")  # doctest: +SKIP
        """
        return SyncSession(self, self.run(self._client.start(agent, **options)))

    def attach(self, session_id: str) -> "SyncSession":
        """Returns a session by its id. Does not call the API yet.

        >>> session = client.attach("order-17")  # doctest: +SKIP
        """
        return SyncSession(self, self._client.attach(session_id))

    def list(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        only_open: bool = False,
        **filters: Unpack[ListFilters],
    ) -> SessionList:
        """Returns sessions, those in which something happened last first, one page at a time.

        >>> client.list(only_open=True).sessions  # doctest: +SKIP
        """
        return self.run(self._client.list(limit=limit, cursor=cursor, only_open=only_open, **filters))

    def approvals(
        self, *, session_id: str | None = None, kinds: Sequence[ApprovalKind] = (), limit: int = 50
    ) -> ApprovalList:
        """Returns what waits for a person's approval, newest first.

        >>> client.approvals().count  # doctest: +SKIP
        """
        return self.run(self._client.approvals(session_id=session_id, kinds=kinds, limit=limit))


class SyncSession:
    """A blocking ``Session``; ``session`` is the asynchronous one.

    >>> session = client.attach("order-17")  # doctest: +SKIP
    """

    def __init__(self, client: SyncClient, session: Session) -> None:
        self._client, self.session = client, session
        self.id = session.id

    @property
    def transcript(self) -> Transcript:
        """What has been read so far."""
        return self.session.transcript

    def send(
        self,
        text: str,
        *,
        on_busy: OnBusy | str = OnBusy.QUEUE,
        message_id: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
    ) -> Sent:
        """Sends a message to the agent.

        >>> session.send("And in metric units?", on_busy="interrupt")  # doctest: +SKIP
        """
        return self._client.run(self.session.send(text, on_busy=on_busy, message_id=message_id, data=data))

    def withdraw(self, message_id: str) -> Withdrawn:
        """Takes back a message that waits for its turn; no agent answers it then.

        >>> session.withdraw(sent.message_id)  # doctest: +SKIP
        """
        return self._client.run(self.session.withdraw(message_id))

    def stop(self, *, turn_id: str | None = None, reason: str | None = None) -> ControlAnswer:
        """Stops the agent; the answer says what came of it.

        >>> session.stop().outcome  # doctest: +SKIP
        'stopped'
        """
        return self._client.run(self.session.stop(turn_id=turn_id, reason=reason))

    def steer(self, text: str) -> ControlAnswer:
        """Offers a message to the running turn.

        >>> session.steer("Shorter, please.").outcome  # doctest: +SKIP
        'consumed'
        """
        return self._client.run(self.session.steer(text))

    def question(self, question_id: str) -> QuestionView:
        """Returns all that an agent has asked, and what has become of it.

        >>> session.question("t1:size").asked["prompt"]  # doctest: +SKIP
        """
        return self._client.run(self.session.question(question_id))

    def answer(self, question_id: str, value: JsonValue, *, digest: str | None = None) -> Answered:
        """Answers a question; the first valid answer counts.

        >>> session.answer("t1:size", "large")  # doctest: +SKIP
        """
        return self._client.run(self.session.answer(question_id, value, digest=digest))

    def take_over(self, *, reason: str | None = None) -> Recorded:
        """Pauses the agent; ``send`` then speaks in its place. For operators.

        >>> session.take_over()  # doctest: +SKIP
        """
        return self._client.run(self.session.take_over(reason=reason))

    def release(self) -> Recorded:
        """Hands the session back to the agent.

        >>> session.release()  # doctest: +SKIP
        """
        return self._client.run(self.session.release())

    def people(self) -> People:
        """Returns who takes part, and who is connected now.

        >>> session.people().present  # doctest: +SKIP
        """
        return self._client.run(self.session.people())

    def snapshot(self) -> Snapshot:
        """Returns what the session is doing now.

        >>> session.snapshot().status  # doctest: +SKIP
        """
        return self._client.run(self.session.snapshot())

    def replay(self, *, after: int = 0, limit: int = 1_000) -> ReplayPage:
        """Returns one page of durable events.

        >>> session.replay(after=120).events  # doctest: +SKIP
        """
        return self._client.run(self.session.replay(after=after, limit=limit))

    def load(self) -> Transcript:
        """Fetches the whole transcript in one request.

        >>> for message in session.load():  # doctest: +SKIP
        ...     print(message.text)
        """
        return self._client.run(self.session.load())

    def events(self, *, after: int | None = None) -> Iterator[Event | LiveDelta]:
        """Yields events as they come, and resumes by itself; ends when the session is closed.

        >>> for event in session.events():  # doctest: +SKIP
        ...     print(event.type)
        """
        stream = self.session.events(after=after)
        try:
            while True:
                try:
                    yield self._client.run(anext(stream))
                except StopAsyncIteration:
                    return
        finally:
            self._client.run(stream.aclose())

    def close(self) -> Snapshot:
        """Ends the session for everyone; it stays readable.

        >>> session.close()  # doctest: +SKIP
        """
        return self._client.run(self.session.close())


async def _make(url: str | None, api_key: str | None) -> Client:
    """Makes the client on the loop that will use it."""
    return Client(url, api_key)
