"""Routes about agents: which there are, and whether anything runs them."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Action
from api.dependencies import ApiParts, Caller, Parts, SessionPath
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden
from api.gateways.search import Filters
from waystation.models.base import replaced
from waystation.models.events import Identifier
from waystation.models.requests import AgentList, AgentView, ListedSession
from waystation.settings import ANY_AGENT

MAX_AGENTS = 50
RECENT_SESSIONS = 100
"""Whose agents are named: the newest ones."""

router = APIRouter(route_class=DoorRoute, responses=PROBLEM_RESPONSES)


@router.get("/agents", tags=["agents"], summary="List agents")
async def agents(
    caller: Caller,
    parts: Parts,
    name: Annotated[
        tuple[Identifier, ...], Query(max_length=MAX_AGENTS, description="Only these; repeat it.")
    ] = (),
) -> AgentList:
    """Returns agents, and how many processes or workflows run each: those asked for, or those that are known.

    Known are the agents of processes that are connected to this API, of its keys, and of the newest sessions.
    """
    if not caller.may & {Action.START, Action.LIST}:
        raise Forbidden(f"The role '{caller.role}' may not list agents.")
    recent = (await parts.gateway.search.find(Filters(), RECENT_SESSIONS, None)).sessions
    names = dict.fromkeys(name or await _known(parts, recent))
    views = await asyncio.gather(*(parts.gateway.agent(one) for one in list(names)[:MAX_AGENTS]))
    starters = parts.connected_agents.starters
    return AgentList(
        agents=tuple(
            replaced(one, workflows=_workflows(one.name, recent), starters=starters(one.name))
            for one in views
        )
    )


@router.get("/sessions/{session_id}/agent", tags=["agents"], summary="Look at a session's agent")
async def agent_of(session_id: SessionPath, caller: Caller, parts: Parts) -> AgentView:
    """Returns how many processes run the agent that answers here, for whoever may read the session.

    Or that a workflow takes its turns.
    """
    caller.require(Action.READ, session_id)
    snapshot = await parts.gateway.snapshot(session_id)
    view = await parts.gateway.agent(snapshot.agent)
    return replaced(
        view,
        workflows=int(await parts.gateway.is_taken_by_a_workflow(session_id)),
        starters=parts.connected_agents.starters(snapshot.agent),
    )


def _workflows(agent: str, recent: Sequence[ListedSession]) -> int:
    return len({one.turns_taken_by for one in recent if one.open and one.agent == agent} - {None})


async def _known(parts: ApiParts, recent: Sequence[ListedSession]) -> list[str]:
    keys = [key for key in parts.settings.api_keys if key.role == "agent"]
    named = [one for key in keys for one in (*key.agents, key.id) if one != ANY_AGENT]
    views = await asyncio.gather(*(parts.gateway.agent(one) for one in dict.fromkeys(named)))
    # A key's id need not be an agent's name: it is one where a process runs it, or a session asks for it.
    asked_for = [session.agent for session in recent if session.agent]
    keyed = [view.name for view in views if view.processes or view.last_seen]
    return [*parts.connected_agents.names, *asked_for, *keyed]
