"""The client: start, watch and control sessions from anywhere.

    >>> async def main() -> None:
    ...     async with Client("http://127.0.0.1:8470", api_key) as client:
    ...         session = await client.start("assistant")
    ...         await session.send("Hello!")
    ...         async for event in session.events():
    ...             print(event.type)

A lost connection is made again and continues where it was; ``events`` ends when the session is closed and has
been read to its end.
"""

import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self, TypedDict, TypeVar, Unpack

import httpx
from httpx_sse import EventSource, ServerSentEvent
from pydantic import BaseModel, Field, JsonValue, ValidationError

from waystation.api_key import check_api_key
from waystation.backoff import Backoff
from waystation.client.paths import path
from waystation.client.transcript import Transcript
from waystation.errors import (
    ApiError,
    ConnectionLost,
    StartError,
    not_from_waystation,
    raise_for_problem,
    seconds_before_retry,
)
from waystation.models.approvals import ApprovalKind, ApprovalList
from waystation.models.base import FrozenOpen, JsonObject
from waystation.models.events import Actor, Event, EventType, LiveDelta
from waystation.models.questions import Answered, ApprovalRule, QuestionView
from waystation.models.requests import (
    ControlAnswer,
    People,
    SessionList,
    Started,
    TranscriptView,
)
from waystation.models.sessions import OnBusy, Recorded, ReplayPage, Sent, Snapshot, Withdrawn
from waystation.models.urls import check_url
from waystation.surrogates import mend
from waystation.whole_numbers import whole_number

DEFAULT_URL = "http://127.0.0.1:8470"
REQUEST_TIMEOUT_SECONDS = 75.0
"""Longer than the longest wait that a request may ask for."""
STREAM_SILENCE_SECONDS = 45.0
"""The server sends a sign of life every 15 s; after three missed ones the connection counts as lost."""
MIN_RECONNECT_PAUSE_SECONDS = 0.1
MAX_RECONNECT_PAUSE_SECONDS = 5.0

Answer = TypeVar("Answer", bound=BaseModel)


def _checked(url: str) -> str:
    try:
        return check_url(url)
    except ValueError as error:
        raise StartError(f"the API's address can't be used: {error}; see WAYSTATION_URL.") from None


class ListFilters(TypedDict, total=False):
    """Which sessions are listed; everything that is given must fit (docs/http-api.md)."""

    status: Sequence[str]
    agent: str
    person: str
    """The id of somebody who has written, taken part, or is asked."""
    mine: bool
    """Whether it waits for an answer of the caller's."""
    assignee: str
    """The id of the operator who looks after it; for staff."""
    unassigned: bool
    """Whether nobody looks after it; for staff."""
    waiting_for: str
    text: str
    """Words of titles and names, or their beginnings."""


class Client:
    """A connection to Waystation's API.

    ``url`` and ``api_key`` (or a session token) default to ``WAYSTATION_URL`` and
    ``WAYSTATION_API_KEY``. Give ``http`` to bring your own ``httpx.AsyncClient``. Raises ``StartError``
    for a URL that isn't one, and for a key that no header takes.

    >>> async with Client() as client:  # doctest: +SKIP
    ...     print(await client.list())
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, http: httpx.AsyncClient | None = None
    ) -> None:
        self.url = _checked(url or os.environ.get("WAYSTATION_URL") or DEFAULT_URL).rstrip("/")
        self._key = check_api_key(api_key or os.environ.get("WAYSTATION_API_KEY") or "")
        self._http = http or httpx.AsyncClient(
            timeout=REQUEST_TIMEOUT_SECONDS, limits=httpx.Limits(max_connections=None)
        )
        self._owns_http = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; sessions continue without them."""
        if self._owns_http:
            await self._http.aclose()

    async def start(
        self,
        agent: str,
        *,
        session_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, str] | None = None,
        message: str | None = None,
        approval_rules: Sequence[ApprovalRule] = (),
    ) -> "Session":
        """Starts a session, or attaches to the one that already has this ``session_id``.

        ``approval_rules`` decide before people do when the agent wants a tool approved; the first that fits.

        >>> session = await client.start("assistant", session_id="order-17")  # doctest: +SKIP
        """
        body = {
            "agent": agent,
            "session_id": session_id,
            "title": title,
            "metadata": dict(metadata or {}),
            "message": message,
            "approval_rules": [rule.model_dump(mode="json") for rule in approval_rules],
        }
        started = await self.request("POST", "/sessions", Started, body)
        return Session(self, started.session_id)

    def attach(self, session_id: str) -> "Session":
        """Returns a session by its id, from any device. Does not call the API yet.

        >>> session = client.attach("order-17")  # doctest: +SKIP
        """
        return Session(self, session_id)

    async def list(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        only_open: bool = False,
        **filters: Unpack[ListFilters],
    ) -> SessionList:
        """Returns sessions, those in which something happened last first, one page at a time.

        >>> page = await client.list(status=["waiting"], text="refund")  # doctest: +SKIP
        """
        texts = {
            "cursor": cursor,
            "agent": filters.get("agent"),
            "person": filters.get("person"),
            "assignee": filters.get("assignee"),
            "waiting_for": filters.get("waiting_for"),
            "q": filters.get("text"),
        }
        query: dict[str, str | Sequence[str]] = {
            "limit": str(limit),
            "only_open": str(only_open).lower(),
            "mine": str(filters.get("mine", False)).lower(),
            "unassigned": str(filters.get("unassigned", False)).lower(),
            "status": list(filters.get("status", ())),
            **{name: text for name, text in texts.items() if text},
        }
        return await self.request("GET", "/sessions", SessionList, query=query)

    async def approvals(
        self,
        *,
        session_id: str | None = None,
        kinds: Sequence[ApprovalKind] = (),
        mine: bool = False,
        limit: int = 50,
    ) -> ApprovalList:
        """Returns what waits for a person's approval (tools, carts, paid requests), newest first.

        With ``ApprovalKind.QUESTION`` among ``kinds`` also what agents ask beside; with ``mine`` only what
        the caller may decide.

        >>> for one in (await client.approvals()).approvals:  # doctest: +SKIP
        ...     print(one.kind, one.id, one.may_decide)
        """
        query: dict[str, str | list[str]] = {"limit": str(limit), "kind": [str(kind) for kind in kinds]}
        if mine:
            query["mine"] = "true"
        if session_id is not None:
            query["session_id"] = session_id
        return await self.request("GET", "/approvals", ApprovalList, query=query)

    async def request(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        body: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Answer:
        """Makes one call to the HTTP API. Half a surrogate pair in ``body`` becomes U+FFFD, as in an agent's.

        Raises:
            ApiError: The API refused, or something else than Waystation has answered.
            ConnectionLost: There was no answer.
        """
        try:
            response = await self._http.request(
                method,
                self.url + path,
                content=None if body is None else _json(body),
                params=query,
                headers=self.headers
                if body is None
                else {**self.headers, "Content-Type": "application/json"},
            )
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise ConnectionLost(f"{self.url} can't be reached ({type(error).__name__})") from error
        raise_for_problem(response)
        try:
            return answer.model_validate_json(response.content, extra="ignore")  # the API may be newer
        except ValidationError:
            raise not_from_waystation(response.status_code, response.content) from None

    @property
    def headers(self) -> dict[str, str]:
        """The headers that authenticate this client."""
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client underneath."""
        return self._http


class Session:
    """One session, wherever it runs. Keeps a transcript of what it has read.

    >>> session = client.attach("order-17")  # doctest: +SKIP
    """

    def __init__(self, client: Client, session_id: str) -> None:
        self.id = session_id
        self.transcript = Transcript()
        self._client = client
        self._path = path("sessions", session_id)
        self._streams = 0

    @property
    def connected(self) -> bool:
        """Whether ``events`` has a connection at the moment."""
        return self._streams > 0

    @property
    def client(self) -> Client:
        """The connection that this session uses."""
        return self._client

    # Talking

    async def send(
        self,
        text: str,
        *,
        on_busy: OnBusy | str = OnBusy.QUEUE,
        message_id: str | None = None,
        data: Mapping[str, JsonValue] | None = None,
        actor: Actor | None = None,
    ) -> Sent:
        """Sends a message to the agent.

        >>> sent = await session.send("And in metric units?", on_busy="interrupt")  # doctest: +SKIP
        """
        body = {
            "text": text,
            "on_busy": OnBusy(on_busy).value,
            "message_id": message_id,
            "data": dict(data or {}),
            "actor": _dumped(actor),
        }
        return await self._client.request("POST", f"{self._path}/messages", Sent, body)

    async def withdraw(self, message_id: str) -> Withdrawn:
        """Takes back a message that waits for its turn; no agent answers it then.

        Raises:
            ConflictError: It doesn't wait (any more).

        >>> await session.withdraw(sent.message_id)  # doctest: +SKIP
        """
        body = {"message_id": message_id}
        return await self._client.request("POST", f"{self._path}/withdraw", Withdrawn, body)

    async def stop(
        self, *, turn_id: str | None = None, reason: str | None = None, wait_seconds: float = 10.0
    ) -> ControlAnswer:
        """Stops the agent; the answer says whether it was stopped, and where that is recorded.

        >>> (await session.stop()).outcome  # doctest: +SKIP
        'stopped'
        """
        body = {"turn_id": turn_id, "reason": reason, "wait_seconds": wait_seconds}
        return await self._client.request("POST", f"{self._path}/stop", ControlAnswer, body)

    async def steer(self, text: str, *, wait_seconds: float = 10.0) -> ControlAnswer:
        """Offers a message to the running turn: consumed there, or queued as the next message.

        >>> (await session.steer("Shorter, please.")).outcome  # doctest: +SKIP
        'consumed'
        """
        body = {"text": text, "wait_seconds": wait_seconds}
        return await self._client.request("POST", f"{self._path}/steer", ControlAnswer, body)

    async def question(self, question_id: str) -> QuestionView:
        """Returns all that an agent has asked, and what has become of it.

        >>> (await session.question("t1:size")).asked["prompt"]  # doctest: +SKIP
        """
        return await self._client.request("GET", self._path + path("questions", question_id), QuestionView)

    async def answer(self, question_id: str, value: JsonValue, *, digest: str | None = None) -> Answered:
        """Answers a question. The first valid answer counts; repeating it is harmless.

        On an approval, ``value`` is ``{"decision": "approve"}`` or ``{"decision": "reject", "reason": "…"}``,
        and whoever approves gives the question's ``digest``: it says what they have seen.

        Raises:
            ConflictError: It is settled already, or has changed.
            ApiError: The value doesn't fit (422), or somebody else must answer (403).

        >>> await session.answer("t1:size", "large")  # doctest: +SKIP
        """
        where = self._path + path("questions", question_id, "answer")
        return await self._client.request("POST", where, Answered, {"value": value, "digest": digest})

    async def close(self) -> Snapshot:
        """Ends the session for everyone; it stays readable.

        >>> await session.close()  # doctest: +SKIP
        """
        return await self._client.request("DELETE", self._path, Snapshot)

    # People

    async def join(self) -> Recorded:
        """Joins the session.

        >>> await session.join()  # doctest: +SKIP
        """
        return await self._client.request("POST", f"{self._path}/participants", Recorded, {})

    async def people(self) -> People:
        """Returns who takes part, and who is connected now.

        >>> (await session.people()).present  # doctest: +SKIP
        """
        return await self._client.request("GET", f"{self._path}/participants", People)

    async def take_over(self, *, reason: str | None = None, instead_of: str | None = None) -> Recorded:
        """Pauses the agent; ``send`` then speaks in its place. For operators. The reason is for staff.

        ``instead_of`` is the id of the operator who has taken over, where this one takes their place.

        >>> await session.take_over(reason="refund")  # doctest: +SKIP
        """
        body = {"reason": reason, **({"instead_of": instead_of} if instead_of else {})}
        return await self._client.request("POST", f"{self._path}/takeover", Recorded, body)

    async def release(self, *, note: str | None = None, answer: bool = False) -> Recorded:
        """Hands the session back to the agent.

        ``note`` is for staff and the agent, not for people; with ``answer`` the agent begins a turn at once,
        and the note is its text.

        >>> await session.release(note="Refunded. Ask for the address.", answer=True)  # doctest: +SKIP
        """
        body = {"reason": None, **({"note": note} if note else {}), **({"answer": True} if answer else {})}
        return await self._client.request("POST", f"{self._path}/release", Recorded, body)

    async def add_note(
        self, text: str, *, note_id: str | None = None, actor: Actor | None = None
    ) -> Recorded:
        """Writes a note that operators, agents and services see, and nobody else. For operators.

        The same ``note_id`` again is the same note. A service says by ``actor`` whose note it is.

        >>> await session.add_note("She has called about it, too.")  # doctest: +SKIP
        """
        body = {"text": text, "note_id": note_id, "actor": _dumped(actor)}
        return await self._client.request("POST", f"{self._path}/notes", Recorded, body)

    async def assign(self, operator: Actor | None, *, actor: Actor | None = None) -> Recorded:
        """Says which operator looks after the session, or with ``None`` that nobody does. For operators.

        >>> await session.assign(Actor(id="olga", role="operator"))  # doctest: +SKIP
        """
        body = {"operator": _dumped(operator), "actor": _dumped(actor)}
        return await self._client.request("PUT", f"{self._path}/assignee", Recorded, body)

    async def suggest_reply(self, text: str | None = None, *, actor: Actor | None = None) -> Recorded:
        """Asks the agent for a reply, for the operator who has taken over; ``text`` is what it should say.

        What comes of it is an event for staff: ``suggestion.made``, or ``suggestion.failed``.

        >>> await session.suggest_reply("Say that we refund it.")  # doctest: +SKIP
        """
        body = {"text": text, "actor": _dumped(actor)}
        return await self._client.request("POST", f"{self._path}/suggestions", Recorded, body)

    # Reading

    async def snapshot(self) -> Snapshot:
        """Returns what the session is doing now.

        >>> (await session.snapshot()).status  # doctest: +SKIP
        """
        return await self._client.request("GET", self._path, Snapshot)

    async def replay(self, *, after: int = 0, limit: int = 1_000) -> ReplayPage:
        """Returns one page of durable events.

        >>> page = await session.replay(after=120)  # doctest: +SKIP
        """
        query = {"after": str(after), "limit": str(limit)}
        return await self._client.request("GET", f"{self._path}/replay", ReplayPage, query=query)

    async def load(self) -> Transcript:
        """Fetches the whole transcript in one request; ``events`` then continues after it.

        >>> for message in await session.load():  # doctest: +SKIP
        ...     print(message.actor.role, message.text)
        """
        view = await self._client.request("GET", f"{self._path}/transcript", TranscriptView)
        self.transcript.load(view)
        return self.transcript

    async def events(self, *, after: int | None = None) -> AsyncGenerator[Event | LiveDelta]:
        """Yields events as they come, and resumes by itself whenever the connection is lost.

        Durable events arrive once each and in order. Live deltas arrive ahead of them, each if it has text
        that has not come yet. Starts after ``after``, by default after what the transcript holds. Ends when
        the session is closed. Several may run at the same time: each gets everything, and the transcript
        keeps what any of them has read.

        Raises:
            ApiError: The API refuses for good, or something else than Waystation answers.

        >>> async for event in session.events():  # doctest: +SKIP
        ...     for message in session.transcript.messages[-1:]:
        ...         print(message.text)
        """
        reader = _Reader(self.transcript, self.transcript.cursor if after is None else after)
        backoff = Backoff(MIN_RECONNECT_PAUSE_SECONDS, MAX_RECONNECT_PAUSE_SECONDS)
        while True:
            asked_for = 0.0
            try:
                async with aclosing(self._stream(reader)) as stream:
                    async for event in stream:
                        backoff.reset()
                        yield event
            except _EndOfSession:
                return
            except ApiError as error:
                asked_for = seconds_before_retry(error)
            except (httpx.TransportError, httpx.DecodingError, httpx.StreamError):
                pass
            await backoff.wait(at_least_seconds=asked_for)

    async def _stream(self, reader: "_Reader") -> AsyncGenerator[Event | LiveDelta]:
        headers = {
            **self._client.headers,
            "Accept": "text/event-stream",
            "Last-Event-ID": str(reader.cursor),
        }
        timeout = httpx.Timeout(REQUEST_TIMEOUT_SECONDS, read=STREAM_SILENCE_SECONDS)
        url = f"{self._client.url}{self._path}/events"
        async with self._client.http.stream("GET", url, headers=headers, timeout=timeout) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _EndOfSession
            if not response.is_success:
                await response.aread()
                raise_for_problem(response)
            self._streams += 1
            try:
                async for block in EventSource(response).aiter_sse():
                    try:
                        event = reader.take(block)
                    except _UnreadableBlock:
                        raise not_from_waystation(response.status_code, block.data.encode()) from None
                    if event is not None:
                        yield event
            finally:
                self._streams -= 1

    # Writing, for agents without Temporal

    async def write(
        self,
        writer: str,
        items: "list[Mapping[str, object]]",
        *,
        turn_id: str | None = None,
        attempt: int = 0,
    ) -> int:
        """Writes events as an agent; returns the number of the last item, once all are recorded.

        ``writer`` and each item's ``n`` make it idempotent: after a failure, write the same again.

        Raises:
            ConflictError: The session has refused some of them (``events-refused``); the others are recorded.

        >>> await session.write("cron-1", [{"n": 1, "type": "data.progress",
        ...     "data": {"percent": 40}}])  # doctest: +SKIP
        1
        """
        body = {
            "writer": writer,
            "items": [dict(item) for item in items],
            "turn_id": turn_id,
            "attempt": attempt,
        }
        accepted = await self._client.request("POST", f"{self._path}/events", _Accepted, body)
        return accepted.n


def _json(body: Mapping[str, object]) -> bytes:
    given = {key: value for key, value in body.items() if value is not None}
    return mend(json.dumps(given, ensure_ascii=False, allow_nan=False, separators=(",", ":"))).encode()


class _Accepted(BaseModel):
    n: int


class _EndOfSession(Exception):
    """The session is closed and has been read to its end."""


class _UnreadableBlock(Exception):
    """A block of the stream that no API of ours sends."""


class _WholeText(FrozenOpen):
    text: str


class _PlacedText(_WholeText):
    offset: int = Field(ge=0, strict=True)


_TEXT_OF: Final[Mapping[str, type[_WholeText]]] = {
    EventType.MESSAGE_DELTA: _PlacedText,
    EventType.MESSAGE_COMPLETED: _WholeText,
}
"""What a transcript needs of an event's data."""


def _read(data: str) -> Event | LiveDelta | None:
    """Returns what a block of the stream says, or None if it says what only a newer client knows.

    Raises:
        _UnreadableBlock: No API of ours says it.
    """
    # httpx-sse repeats the last id on blocks that carry none, so the event itself has to tell.
    kind = Event if data.startswith('{"seq":') else LiveDelta
    if kind is LiveDelta and not data.startswith('{"type":"message.delta"'):
        return None
    try:
        event = kind.model_validate_json(data)
        if needed := _TEXT_OF.get(event.type):
            needed.model_validate(event.data)
    except ValidationError:
        raise _UnreadableBlock from None
    return event


class _Reader:
    """One reader of a session's events: where it stands, whatever other readers of the session have had."""

    def __init__(self, transcript: Transcript, cursor: int) -> None:
        self._transcript, self.cursor = transcript, cursor
        self._lengths: dict[str, int] = {}
        """How many characters of each message have come live, as far as they have come."""

    def take(self, block: ServerSentEvent) -> Event | LiveDelta | None:
        """Returns what is new to this reader in a block of the stream, and adds it to the transcript.

        Raises:
            _UnreadableBlock: No API of ours sends it. Nothing of it was taken.
        """
        if not block.data:
            if block.id:
                seq = whole_number(block.id)
                if seq is None:
                    raise _UnreadableBlock
                self.cursor = max(self.cursor, seq)
                self._transcript.advance(self.cursor)
            return None
        event = _read(block.data)
        if isinstance(event, LiveDelta):
            return event if self._is_news(event) else None
        if event is None:
            return None
        self._transcript.apply(event)
        if event.seq <= self.cursor:
            return None
        self.cursor = event.seq
        if event.message_id and event.type in (EventType.MESSAGE_COMPLETED, EventType.MESSAGE_SUPERSEDED):
            self._lengths.pop(event.message_id, None)
        return event

    def _is_news(self, delta: LiveDelta) -> bool:
        fresh = self._transcript.place(delta)
        end = int(delta.data["offset"]) + len(str(delta.data["text"]))
        known = self._lengths.get(delta.message_id, 0)
        if not fresh and not self._transcript.is_open(delta):
            return False
        self._lengths[delta.message_id] = max(end, known)
        return fresh or end > known


def _dumped(actor: Actor | None) -> JsonObject | None:
    return actor.model_dump(mode="json") if actor else None
