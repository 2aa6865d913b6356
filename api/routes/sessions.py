"""Routes of sessions: start, list, look, talk, control, people."""

import asyncio
import uuid
from datetime import datetime
from typing import Annotated, TypeVar
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from temporalio.workflow import UpdateMethodMultiParam

from api.auth import Action, Principal, answers_as, check_session_id, speaker
from api.cursors import read_cursor
from api.dependencies import ApiParts, Caller, Parts, SessionPath
from api.door import MAX_TEXT_BODY_BYTES, DoorRoute, takes_body_of
from api.errors import PROBLEM_RESPONSES, Conflict, Forbidden, Invalid, Problem
from api.gateways.search import Filters, Place, read_place, write_place, wrong_cursor
from api.live.bus import tell_news
from waystation.client.transcript import Transcript
from waystation.models.events import Actor, Role
from waystation.models.listing import ListedStatus
from waystation.models.requests import (
    MAX_LISTED_SESSIONS,
    AssignRequest,
    ControlAnswer,
    JoinRequest,
    ListedSession,
    MessageRequest,
    NoteRequest,
    People,
    ReleaseRequest,
    SessionFilters,
    SessionList,
    Started,
    StartRequest,
    SteerRequest,
    StopRequest,
    SuggestRequest,
    TakeOverRequest,
    TranscriptView,
    WithdrawRequest,
    WorkflowPlace,
)
from waystation.models.sessions import (
    MAX_REASON_CHARACTERS,
    MAX_REPLAY_EVENTS,
    AddNote,
    Assign,
    Close,
    Membership,
    Recorded,
    Release,
    ReplayPage,
    Sent,
    Snapshot,
    StartSession,
    SuggestReply,
    TakeOver,
    Withdrawn,
)
from waystation.models.visibility import page_for_people, row_for_people, snapshot_for_people
from waystation.temporal.messages import SESSION_CLOSE
from workflows.session import AgentSession

Argument = TypeVar("Argument")

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)


@router.post("/sessions", status_code=201, tags=["sessions"], summary="Start a session")
@takes_body_of(MAX_TEXT_BODY_BYTES)
async def start(body: StartRequest, caller: Caller, parts: Parts, response: Response) -> Started:
    """Starts a session, or answers 200 with the one that already has this id (idempotent).

    An id stands for a session with one agent. Title and metadata are what it was started with: whoever comes
    back to it need not know them.
    """
    caller.require(Action.START)
    if body.approval_rules and caller.role not in ("service", "operator"):
        raise Forbidden("Only services and operators may give 'approval_rules'; leave them out.")
    session_id = check_session_id(body.session_id or f"s-{uuid.uuid4().hex}")
    created = await parts.gateway.start(
        session_id,
        StartSession(
            agent=body.agent,
            title=body.title,
            metadata=body.metadata,
            started_by=caller.actor,
            limits=parts.settings.session_limits,
            approval_rules=body.approval_rules,
        ),
    )
    if not created and (await parts.gateway.snapshot(session_id)).agent != body.agent:
        raise Conflict(f"'{session_id}' is a session with another agent; choose another id.", code="id-taken")
    sent = None
    if body.message:
        # Even if the session already existed: an earlier attempt may have got no further than that.
        sent = await _send_first(session_id, body.message, caller, parts)
    response.status_code = 201 if created else 200
    session = await shown_snapshot(parts, caller, session_id)
    return Started(session_id=session_id, created=created, session=session, sent=sent)


async def _send_first(session_id: str, text: str, caller: Principal, parts: ApiParts) -> Sent | None:
    """Sends the first message under an id of its own, so that it is sent only once."""
    request = MessageRequest(text=text, message_id=f"{session_id}-first")
    try:
        return await send_message(session_id, request, caller, parts)
    except Conflict as conflict:
        if conflict.code in ("message-id-taken", "session-closed"):
            return None
        raise


@router.get("/sessions", tags=["sessions"], summary="List sessions")
async def list_sessions(
    caller: Caller,
    parts: Parts,
    filters: Annotated[SessionFilters, Query()],
) -> SessionList:
    """Returns sessions, those in which something happened last first; a session token lists only its own."""
    own = caller.sessions is not None
    caller.require(Action.READ if own else Action.LIST)
    wanted = _wanted(filters, caller)
    if own and not wanted.needs_attributes and not wanted.statuses:
        return await _list_own(caller, parts, wanted, filters)
    found = await parts.gateway.search.find(wanted, filters.limit, filters.cursor)
    listed = [_shown_row(caller, row) for row in found.sessions]
    if filters.live:
        listed = list(await asyncio.gather(*(_with_snapshot(parts, caller, entry) for entry in listed)))
    return SessionList(sessions=tuple(listed), next_cursor=found.next_cursor, count=found.count)


def _wanted(filters: SessionFilters, caller: Principal) -> Filters:
    if filters.mine and caller.role == "service":
        raise Invalid("A service answers for its users; leave 'mine' out, and name one with 'waiting_for'.")
    if (filters.assignee or filters.unassigned) and not caller.is_staff:
        raise Forbidden("Who looks after a session is for staff; leave 'assignee' and 'unassigned' out.")
    asked = (filters.waiting_for, caller.subject if filters.mine else None)
    return Filters(
        statuses=tuple(dict.fromkeys(filters.status)),
        agent=filters.agent,
        person=filters.person,
        assignees=(filters.assignee,) if filters.assignee else (),
        unassigned=filters.unassigned,
        asked_roles=(answers_as(caller, caller.actor),) if filters.mine else (),
        asked_ids=tuple(one for one in asked if one),
        text=filters.q,
        only_open=filters.only_open,
        session_ids=None if caller.sessions is None else tuple(sorted(caller.sessions)),
    )


async def _list_own(
    caller: Principal, parts: ApiParts, wanted: Filters, filters: SessionFilters
) -> SessionList:
    """Asks each of them: a list of Temporal's may be a moment behind."""
    before = read_place(filters.cursor)
    if before.token is not None:
        raise wrong_cursor()
    try:
        rows = (await parts.gateway.search.find(wanted, MAX_LISTED_SESSIONS, None)).sessions
    except Problem:  # then they are listed with what they say themselves
        rows = []
    listed = {one.session_id: _shown_row(caller, one) for one in rows}

    async def look(session_id: str) -> ListedSession | None:
        try:
            snapshot = await shown_snapshot(parts, caller, session_id)
        except Problem as problem:
            if problem.status == 404:
                return None
            raise
        is_open = snapshot.status != "closed"
        entry = listed.get(session_id) or ListedSession(
            session_id=session_id,
            agent=snapshot.agent,
            title=snapshot.title,
            open=is_open,
            started=snapshot.created,
        )
        status = entry.status if is_open else ListedStatus.CLOSED
        return entry.model_copy(update={"open": is_open, "status": status, "snapshot": snapshot})

    found = await asyncio.gather(*(look(session_id) for session_id in caller.sessions or ()))
    known = [entry for entry in found if entry and (entry.open or not wanted.only_open)]
    known.sort(key=_place_of, reverse=True)
    rest = known if before.last_activity is None else [one for one in known if _place_of(one) < before[:2]]
    page = rest[: filters.limit]
    following = write_place(Place(*_place_of(page[-1]))) if len(rest) > len(page) else None
    return SessionList(sessions=tuple(page), next_cursor=following, count=len(known))


def _place_of(entry: ListedSession) -> tuple[datetime, str]:
    return entry.last_activity or entry.started, entry.session_id


def _shown_row(caller: Principal, row: ListedSession) -> ListedSession:
    return row if caller.is_staff else row_for_people(row)


async def shown_snapshot(parts: ApiParts, caller: Principal, session_id: str) -> Snapshot:
    """Returns what a session is doing, as the caller may see it."""
    snapshot = await parts.gateway.snapshot(session_id)
    return snapshot if caller.is_staff else snapshot_for_people(snapshot)


async def shown_page(
    parts: ApiParts, caller: Principal, session_id: str, after: int, limit: int
) -> ReplayPage:
    """Returns one page of the log, as the caller may see it."""
    page = await parts.gateway.replay(session_id, after, limit)
    return page if caller.is_staff else page_for_people(page)


async def _with_snapshot(parts: ApiParts, caller: Principal, entry: ListedSession) -> ListedSession:
    if not entry.open:
        return entry
    try:
        snapshot = await shown_snapshot(parts, caller, entry.session_id)
    except Problem:
        # It ended after it was listed; the list is still true as of its time.
        return entry
    return entry.model_copy(update={"snapshot": snapshot})


@router.get("/sessions/{session_id}", tags=["sessions"], summary="Look at a session")
async def snapshot(session_id: SessionPath, caller: Caller, parts: Parts) -> Snapshot:
    """Returns what the session is doing now."""
    caller.require(Action.READ, session_id)
    return await shown_snapshot(parts, caller, session_id)


@router.get("/sessions/{session_id}/workflow", tags=["sessions"], summary="Find a session in Temporal")
async def workflow_of(session_id: SessionPath, caller: Caller, parts: Parts) -> WorkflowPlace:
    """Returns the id of the session's workflow, and where Temporal's web page shows it; for staff."""
    caller.require(Action.READ, session_id)
    if not caller.is_staff:
        raise Forbidden("Where a session runs is for staff: operators, agents and services.")
    await parts.gateway.snapshot(session_id)
    namespace = parts.gateway.client.namespace
    web = parts.settings.temporal_web_url
    return WorkflowPlace(
        workflow_id=session_id,
        namespace=namespace,
        workflows_url=f"{web.rstrip('/')}/namespaces/{quote(namespace, safe='')}/workflows" if web else None,
    )


@router.delete("/sessions/{session_id}", status_code=202, tags=["sessions"], summary="Close a session")
async def close(
    session_id: SessionPath,
    caller: Caller,
    parts: Parts,
    reason: Annotated[str | None, Query(max_length=MAX_REASON_CHARACTERS)] = None,
) -> Snapshot:
    """Stops what runs and closes the session; what was said stays readable."""
    caller.require(Action.CLOSE, session_id)
    await parts.gateway.signal(session_id, SESSION_CLOSE, Close(actor=caller.actor, reason=reason))
    tell_news(parts.bus, session_id, settles=True)
    return await shown_snapshot(parts, caller, session_id)


@router.get(
    "/sessions/{session_id}/replay",
    tags=["events"],
    summary="Read events by page",
    response_model_exclude_none=True,
)
async def replay(
    session_id: SessionPath,
    caller: Caller,
    parts: Parts,
    after: Annotated[str, Query(description="The cursor: events after this seq.")] = "0",
    limit: Annotated[int, Query(ge=1, le=MAX_REPLAY_EVENTS)] = MAX_REPLAY_EVENTS,
) -> ReplayPage:
    """Returns one page of durable events, bounded in bytes too: follow ``next_after`` while ``more``."""
    caller.require(Action.READ, session_id)
    cursor = read_cursor(after)
    page = await shown_page(parts, caller, session_id, cursor, limit)
    if cursor > page.tip:
        raise Invalid(
            f"The cursor {cursor} is beyond the newest event, {page.tip}.", code="wrong-cursor", tip=page.tip
        )
    return page


@router.get(
    "/sessions/{session_id}/transcript",
    tags=["events"],
    summary="Read the whole transcript",
    response_model_exclude_none=True,
)
async def transcript(session_id: SessionPath, caller: Caller, parts: Parts) -> TranscriptView:
    """Returns everything so far, and the cursor at which ``events`` continues: the cheapest way to resume.

    Each message is whole; what else was recorded is in ``events``. Both have their place, ``seq``.
    """
    caller.require(Action.READ, session_id)
    state, after = Transcript(), 0
    while True:
        page = await shown_page(parts, caller, session_id, after, MAX_REPLAY_EVENTS)
        for event in page.events:
            state.apply(event)
        after = page.next_after
        if not page.more:
            break
    return state.view(session_id, closed=page.closed)


@router.post("/sessions/{session_id}/messages", status_code=202, tags=["control"], summary="Send a message")
@takes_body_of(MAX_TEXT_BODY_BYTES)
async def send_message(session_id: SessionPath, body: MessageRequest, caller: Caller, parts: Parts) -> Sent:
    """Sends a message; ``on_busy`` says what happens to it while a turn is running."""
    return await parts.control.send(session_id, body, caller)


@router.post("/sessions/{session_id}/withdraw", tags=["control"], summary="Withdraw a message")
async def withdraw(session_id: SessionPath, body: WithdrawRequest, caller: Caller, parts: Parts) -> Withdrawn:
    """Takes back a message that waits for its turn: no agent answers it, or finds it in its conversation."""
    return await parts.control.withdraw(session_id, body, caller)


@router.post("/sessions/{session_id}/stop", tags=["control"], summary="Stop the agent")
async def stop(session_id: SessionPath, body: StopRequest, caller: Caller, parts: Parts) -> ControlAnswer:
    """Stops a turn, and returns the outcome and the seq at which it is recorded."""
    return await parts.control.stop(session_id, body, caller)


@router.post("/sessions/{session_id}/steer", tags=["control"], summary="Steer the agent")
@takes_body_of(MAX_TEXT_BODY_BYTES)
async def steer(session_id: SessionPath, body: SteerRequest, caller: Caller, parts: Parts) -> ControlAnswer:
    """Offers a message to the running turn, and returns whether it was consumed or queued."""
    return await parts.control.steer(session_id, body, caller)


@router.post("/sessions/{session_id}/takeover", tags=["people"], summary="Take over from the agent")
async def take_over(session_id: SessionPath, body: TakeOverRequest, caller: Caller, parts: Parts) -> Recorded:
    """Pauses the agent; the operator speaks with ``messages`` until the release."""
    caller.require(Action.TAKE_OVER, session_id)
    wanted = TakeOver(operator=caller.actor, reason=body.reason, instead_of=body.instead_of)
    return await _record(parts, session_id, AgentSession.take_over, wanted)


@router.post("/sessions/{session_id}/release", tags=["people"], summary="Give back to the agent")
async def release(session_id: SessionPath, body: ReleaseRequest, caller: Caller, parts: Parts) -> Recorded:
    """Lets the agent continue with what was said. A service may release whoever has taken over.

    With ``note`` and ``answer`` the agent begins a turn at once, and the note is its text.
    """
    caller.require(Action.TAKE_OVER, session_id)
    operator = caller.actor
    if caller.role == "service":
        operator = (await parts.gateway.snapshot(session_id)).taken_over_by or operator
    return await _record(
        parts,
        session_id,
        AgentSession.release,
        Release(operator=operator, reason=body.reason, note=body.note, answer=body.answer),
    )


@router.post("/sessions/{session_id}/notes", tags=["people"], summary="Write a note for staff")
async def add_note(session_id: SessionPath, body: NoteRequest, caller: Caller, parts: Parts) -> Recorded:
    """Records a note that operators, agents and services see, and nobody else."""
    caller.require(Action.NOTE, session_id)
    note = AddNote(author=speaker(caller, body.actor), text=body.text, note_id=body.note_id)
    return await _record(parts, session_id, AgentSession.add_note, note)


@router.put("/sessions/{session_id}/assignee", tags=["people"], summary="Assign an operator")
async def assign(session_id: SessionPath, body: AssignRequest, caller: Caller, parts: Parts) -> Recorded:
    """Records who looks after the session; staff alone see it."""
    caller.require(Action.NOTE, session_id)
    assignment = Assign(by=speaker(caller, body.actor), operator=body.operator)
    return await _record(parts, session_id, AgentSession.assign, assignment)


@router.post(
    "/sessions/{session_id}/suggestions", status_code=202, tags=["people"], summary="Ask for a suggestion"
)
async def suggest(session_id: SessionPath, body: SuggestRequest, caller: Caller, parts: Parts) -> Recorded:
    """Asks the agent for a draft, for the operator who has taken over; it arrives as an event for staff."""
    caller.require(Action.NOTE, session_id)
    wanted = SuggestReply(operator=speaker(caller, body.actor), text=body.text)
    return await _record(parts, session_id, AgentSession.suggest_reply, wanted)


@router.get("/sessions/{session_id}/participants", tags=["people"], summary="Who is here")
async def participants(session_id: SessionPath, caller: Caller, parts: Parts) -> People:
    """Returns who takes part in the session, and who is connected now."""
    caller.require(Action.READ, session_id)
    async with parts.feeds.use(session_id) as feed:
        view = await parts.gateway.snapshot(session_id)
        return People(
            participants=view.participants,
            present=feed.presence.people(),
            taken_over_by=view.taken_over_by,
        )


@router.post("/sessions/{session_id}/participants", tags=["people"], summary="Join")
async def join(session_id: SessionPath, body: JoinRequest, caller: Caller, parts: Parts) -> Recorded:
    """Joins the session; joining twice is harmless."""
    caller.require(Action.JOIN, session_id)
    membership = Membership(participant=speaker(caller, body.actor))
    return await _record(parts, session_id, AgentSession.join, membership)


@router.delete("/sessions/{session_id}/participants/{participant_id:path}", tags=["people"], summary="Leave")
async def leave(session_id: SessionPath, participant_id: str, caller: Caller, parts: Parts) -> Recorded:
    """Leaves the session; only the role ``service`` may make others leave."""
    caller.require(Action.JOIN, session_id)
    if participant_id != caller.subject and caller.role != "service":
        raise Forbidden("You can only leave for yourself.")
    participant = caller.actor
    if participant_id != caller.subject:
        people = (await parts.gateway.snapshot(session_id)).participants
        participant = next((one for one in people if one.id == participant_id), None) or Actor(
            id=participant_id, role=Role.USER
        )
    return await _record(parts, session_id, AgentSession.leave, Membership(participant=participant))


async def _record(
    parts: ApiParts,
    session_id: str,
    update: UpdateMethodMultiParam[[AgentSession, Argument], Recorded],
    argument: Argument,
) -> Recorded:
    recorded = await parts.gateway.update(session_id, update, argument)
    tell_news(parts.bus, session_id)
    return recorded


@router.post("/sessions/{session_id}/news", status_code=204, tags=["workers"], summary="Announce news")
async def news(session_id: SessionPath, caller: Caller, parts: Parts) -> None:
    """Takes a worker's hint that the session has events of its own making."""
    caller.require(Action.WRITE, session_id)
    tell_news(parts.bus, session_id)
