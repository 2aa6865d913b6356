"""Lists of mandates, purchases, payments and allowances, as far as Temporal's lists know them yet."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from api.auth import Principal
from api.errors import Invalid, Problem, Unavailable
from api.gateways.calls import Calls, memo_of
from api.gateways.index import SearchIndex, is_one_of, quoted, waits_for_approvers
from api.gateways.visible import NotFound
from waystation.models.listing import ListedStatus
from waystation.models.mandates import MandateView
from waystation.temporal.names import SESSION_WORKFLOW, WAITS_FOR, WAITS_FOR_APPROVAL
from waystation.temporal.search_attributes import AGENT, SESSION, STATUS

T = TypeVar("T")

MAX_LISTED = 100
LIST_TIMEOUT = timedelta(seconds=20)
"""The limit over all pages that are read to find that many."""

logger = logging.getLogger(__name__)


def narrowed(workflow: str, wanted: Mapping[str, str]) -> str:
    """Returns what leaves out most of what the memo is going to; what was started without stays in."""
    clauses = []
    if WAITS_FOR in wanted and workflow == SESSION_WORKFLOW:
        waits = f"{STATUS.name} IN ('{ListedStatus.WAITING}', '{ListedStatus.PAUSED}')"
        clauses.append(f"({waits} OR {STATUS.name} IS NULL)")
    elif WAITS_FOR in wanted:
        clauses.append(f"({waits_for_approvers()} OR {AGENT.name} IS NULL)")
    if "session_id" in wanted:
        clauses.append(f"({is_one_of(SESSION, [wanted['session_id']])} OR {SESSION.name} IS NULL)")
    return "".join(f" AND {clause}" for clause in clauses)


class Lists:
    """Finds ids by what the workflows' memos say."""

    def __init__(self, calls: Calls, index: SearchIndex | None = None) -> None:
        self._calls, self._index = calls, index

    @staticmethod
    async def readable(looks: Iterable[Awaitable[T]]) -> list[T]:
        """What can be read of a list: one workflow that can't be must not take the others along.

        Raises:
            Unavailable: Not one of them answers.
        """
        answers = await asyncio.gather(*looks, return_exceptions=True)
        failures = [one for one in answers if isinstance(one, BaseException)]
        for failure in failures:
            if not isinstance(failure, Problem):
                raise failure
            logger.warning("a list leaves out what can't be read: %s", failure)
        found = [one for one in answers if not isinstance(one, BaseException)]
        if failures and not found and all(isinstance(one, Unavailable) for one in failures):
            raise failures[0]  # nobody answers: that is no empty list
        return found

    async def listed_for(
        self,
        caller: Principal,
        workflow: str,
        limit: int,
        session_id: str | None,
        *,
        waiting: bool = False,
    ) -> list[str]:
        """Returns ids, newest first, of what belongs to a session, or to those of the caller's token.

        With ``waiting``, only of what waits for an approver, as far as Temporal's lists know yet.
        """
        further = {WAITS_FOR: WAITS_FOR_APPROVAL} if waiting else {}
        if caller.sessions is None:
            wanted = [{"session_id": session_id}] if session_id else [{}]
        elif session_id is not None and session_id not in caller.sessions:
            raise NotFound(f"There is no session '{session_id}', or this token may not see it.")
        else:
            one_by_one = [session_id] if session_id else sorted(caller.sessions)
            wanted = [{"session_id": one} for one in one_by_one]
        ids = [one for filters in wanted for one in await self.listed(workflow, limit, filters | further)]
        return ids[:limit]

    async def of_mandate(
        self,
        mandate: MandateView,
        workflow: str,
        look: Callable[[str], Awaitable[T]],
        keep: Callable[[T], bool],
        limit: int,
        before: str | None,
    ) -> list[T]:
        """Returns what has held or spent money of a mandate and is of that kind, newest first.

        The mandate itself says which, as far as it remembers; ``before`` is the last id of the page before.

        Raises:
            Invalid: ``before`` is none of them.
        """
        ids = list(dict.fromkeys(one.holder for one in reversed(mandate.reservations) if one.holder))
        if before is not None:
            if before not in ids:
                raise Invalid("'before' is nothing that this mandate has paid for.", code="wrong-cursor")
            ids = ids[ids.index(before) + 1 :]
        found: list[T] = []
        for start in range(0, len(ids), MAX_LISTED):
            some = ids[start : start + MAX_LISTED]
            of_kind = await self._of_kind(some, workflow)
            views = await self.readable(look(one) for one in some if one in of_kind)
            found += [view for view in views if keep(view)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _of_kind(self, ids: Sequence[str], workflow: str) -> set[str]:
        query = f"WorkflowType='{workflow}' AND WorkflowId IN ({', '.join(map(quoted, ids))})"

        async def call() -> set[str]:
            found = self._calls.client.list_workflows(query, rpc_timeout=self._calls.timeout)
            return {execution.id async for execution in found}

        return await self._calls.guarded("", call, within=LIST_TIMEOUT, looks=True)

    async def listed(self, workflow: str, limit: int, wanted: dict[str, str]) -> list[str]:
        """Returns ids, newest first, of workflows whose memo holds all of ``wanted``."""
        status = "ExecutionStatus='Running'" if WAITS_FOR in wanted else "ExecutionStatus!='ContinuedAsNew'"

        async def call() -> list[str]:
            query = f"WorkflowType='{workflow}' AND {status}"
            if self._index and await self._index.is_there():
                query += narrowed(workflow, wanted)
            found: list[str] = []
            async for execution in self._calls.client.list_workflows(query, rpc_timeout=self._calls.timeout):
                memo = await memo_of(execution) if wanted else {}
                if all(memo.get(name) == value for name, value in wanted.items()):
                    found.append(execution.id)
                if len(found) == limit:
                    break
            return found

        return await self._calls.guarded("", call, within=LIST_TIMEOUT, looks=True)
