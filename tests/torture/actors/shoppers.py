"""Who spends by other ways than a request to the API: sessions with an agent, and workflows of one's own."""

import asyncio
import json
import time
from typing import Any, Final

from temporalio import workflow
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.workflow import ParentClosePolicy

from tests.torture.actors.base import Answer
from tests.torture.actors.spenders import END_SECONDS, Spender, wish
from tests.torture.market import AGENT
from tests.torture.wishes import LIMITS, budget, paid_wish
from waystation.client.paths import path
from waystation.models.base import Frozen
from waystation.models.purchases import BuyStart, PurchaseRequest, PurchaseView
from waystation.temporal.messages import BUY
from waystation.temporal.names import SESSION_TASK_QUEUE

MAX_MESSAGES: Final = 3
RESULT_SECONDS: Final = 10.0
"""How long a workflow's end is waited for at once."""


class Shopper(Spender):
    """Sends an agent shopping in a session: it buys, fetches, and pays from allowances within each other."""

    stays = True

    async def run(self) -> None:
        if not await self.granted():
            return
        key, session = self.world.key("service"), self.name
        body = {"agent": AGENT, "session_id": session}
        if not (await self.insist("start_shopping", "POST", "/sessions", body, key=key, id=session)).ok:
            return
        for number in range(1, MAX_MESSAGES + 1):
            id_ = f"{self.name}.{number}"
            text = json.dumps([self._step(f"{id_}.{step}") for step in range(self.chance.randint(1, 3))])
            sent = {"text": text, "message_id": id_, "on_busy": "queue"}
            await self.insist("shop", "POST", path("sessions", session, "messages"), sent, key=key, id=id_)
            if self.chance.random() < 0.15:
                await self.rest(0.5, 3)
                stop = {"request_id": id_, "reason": "enough", "wait_seconds": 1}
                await self.ask("stop_shopping", "POST", path("sessions", session, "stop"), stop, key=key)
            await self.rest(2, 8)
            if not self.goes_on:
                break
        await self.calm.wait()
        await self._until_idle(key, session)
        await self.insist("close_shopping", "DELETE", path("sessions", session), key=key, id=session)

    async def _until_idle(self, key: str, session: str) -> None:
        deadline, answer = time.monotonic() + END_SECONDS, Answer(None)
        while time.monotonic() < deadline:
            answer = await self.ask("look", "GET", path("sessions", session), key=key)
            if answer.ok and answer.body["status"] in ("idle", "closed"):
                break
            await asyncio.sleep(0.5)
        status = answer.body["status"] if answer.ok else None
        self.note("shopped", id=session, status=status)

    def _step(self, id_: str) -> dict[str, Any]:
        kinds = ["fetch", "allowance", "allowance"] + ["buy"] * (self.currency == "usd")
        kind = self.chance.choice(kinds)
        if kind == "buy":
            request = wish(self.chance, self.world.market, self.mandate)
            return {
                "do": "buy",
                "seller": request["seller"],
                "items": {item["id"]: item["quantity"] for item in request["items"]},
                "mandate": self.mandate,
                "key": id_,
                "approval_timeout_seconds": 8,
            }
        return self._fetch(id_) if kind == "fetch" else self._allowance(id_, depth=2)

    def _fetch(self, id_: str) -> dict[str, Any]:
        subject, request, limit = paid_wish(self.chance, self.paid_api, id_, self.currency)
        return {
            "do": "fetch", "url": request["url"], "max_price": limit, "mandate": self.mandate, "key": id_,
            "subject": subject,
        }  # fmt: skip

    def _allowance(self, id_: str, depth: int) -> dict[str, Any]:
        inner = [self._fetch(f"{id_}.{number}") for number in range(self.chance.randint(1, 4))]
        if depth > 1 and self.chance.random() < 0.3:
            inner.insert(0, self._allowance(f"{id_}.in", depth - 1))
        return {
            "do": "allowance", "seller": self.paid_api, "mandate": self.mandate, "key": id_, "steps": inner,
            "max_price": {"amount": LIMITS[self.currency], "currency": self.currency},
            "budget": budget(self.chance, self.currency),
            "lifetime_seconds": self.chance.choice([15, 40]),
        }  # fmt: skip


class Errand(Frozen):
    """What somebody's own workflow is to do."""

    start: BuyStart


@workflow.defn(name="TortureErrand")
class ErrandWorkflow:
    """Somebody's own workflow, which buys through a child."""

    @workflow.run
    async def run(self, errand: Errand) -> PurchaseView:
        view: PurchaseView = await workflow.execute_child_workflow(
            BUY.name,
            errand.start,
            id=f"{workflow.info().workflow_id}-buy",
            task_queue=SESSION_TASK_QUEUE,
            result_type=PurchaseView,
            parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        )
        return view


class ErrandRunner(Spender):
    """Buys through workflows of its own; cancels some of them, or starts one with an id that is taken."""

    async def run(self) -> None:
        if not await self.granted():
            return
        client = self.world.client
        assert client is not None, "the world has started"
        async with Worker(
            client,
            task_queue=self.name,
            workflows=[ErrandWorkflow],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ):
            ends = []
            for number in range(1, MAX_MESSAGES + 1):
                purchase = f"{self.name}.{max(1, number - (self.chance.random() < 0.1))}"
                request = PurchaseRequest.model_validate(wish(self.chance, self.world.market, self.mandate))
                errand = Errand(start=BuyStart(purchase_id=purchase, request=request))
                try:
                    handle = await client.start_workflow(
                        ErrandWorkflow.run, errand, id=f"{self.name}.errand-{number}", task_queue=self.name
                    )
                except RPCError as error:
                    self.note("errand_failed", id=purchase, error=error.status.name)
                    continue
                ends.append(asyncio.create_task(self._end(handle, purchase)))
                if self.chance.random() < 0.2:
                    await self.rest(0.1, 4)
                    await self._cancel(handle)
                await self.rest(1, 6)
                if not self.goes_on:
                    break
            await asyncio.gather(*ends)

    async def _cancel(self, handle: WorkflowHandle[Any, PurchaseView]) -> None:
        try:
            await handle.cancel()
        except RPCError as error:
            self.note("errand_not_canceled", id=handle.id, error=error.status.name)

    async def _end(self, handle: WorkflowHandle[Any, PurchaseView], purchase: str) -> None:
        """Notes what the child returned, or how it failed; patient for a while after the last fault."""
        deadline = None
        while True:
            if self.calm.is_set() and deadline is None:
                deadline = time.monotonic() + END_SECONDS
            try:
                async with asyncio.timeout(RESULT_SECONDS):
                    view = await handle.result()
            except WorkflowFailureError as failure:
                self.note("errand", id=purchase, workflow=handle.id, failed=_reason(failure))
            except (RPCError, TimeoutError) as error:
                if deadline is None or time.monotonic() < deadline:
                    await asyncio.sleep(0.5)
                    continue
                self.note("errand", id=purchase, workflow=handle.id, unended=type(error).__name__)
            else:
                moved = view.money_moved
                self.note("errand", id=purchase, workflow=handle.id, status=view.status, money_moved=moved)
            return


def _reason(failure: BaseException) -> str:
    """Returns the innermost type of a workflow's failure."""
    while failure.__cause__ is not None:
        failure = failure.__cause__
    return str(getattr(failure, "type", None) or type(failure).__name__)
