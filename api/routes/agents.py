"""Routes about agents: which there are, and whether any process runs them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Action
from api.dependencies import ApiParts, Caller, Parts, SessionPath
from api.door import DoorRoute
from api.errors import PROBLEM_RESPONSES, Forbidden
from api.gateways.search import Filters
from waystation.models.events import Identifier
from waystation.models.requests import AgentList, AgentView
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
    """Returns agents, and how many processes run each: those asked for, or those that are known.

    Known are the agents of processes that are connected to this API, of its keys, and of the newest sessions.
    """
    if not caller.may & {Action.START, Action.LIST}:
        raise Forbidden(f"The role '{caller.role}' may not list agents.")
    names = dict.fromkeys(name or await _known(parts))
    views = await asyncio.gather(*(parts.gateway.agent(one) for one in list(names)[:MAX_AGENTS]))
    return AgentList(agents=tuple(views))


@router.get("/sessions/{session_id}/agent", tags=["agents"], summary="Look at a session's agent")
async def agent_of(session_id: SessionPath, caller: Caller, parts: Parts) -> AgentView:
    """Returns how many processes run the agent that answers here, for whoever may read the session."""
    caller.require(Action.READ, session_id)
    return await parts.gateway.agent((await parts.gateway.snapshot(session_id)).agent)


async def _known(parts: ApiParts) -> list[str]:
    keys = [key for key in parts.settings.api_keys if key.role == "agent"]
    named = [one for key in keys for one in (*key.agents, key.id) if one != ANY_AGENT]
    found = await parts.gateway.search.find(Filters(), RECENT_SESSIONS, None)
    recent = [session.agent for session in found.sessions if session.agent]
    views = await asyncio.gather(*(parts.gateway.agent(one) for one in dict.fromkeys(named)))
    # A key's id need not be an agent's name: it is one where a process runs it, or a session asks for it.
    keyed = [view.name for view in views if view.processes or view.last_seen]
    return [*parts.connected_agents.names, *recent, *keyed]
