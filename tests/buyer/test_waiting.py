"""Waiting for the answer to a paid request, again and again, under one id."""

import asyncio
import json
import uuid

import pytest
from fastapi import FastAPI, Request, Response

from tests.buyer.bench import API, USDC, Bench, eventually, usd
from tests.buyer.evil import ask, x402_required
from tests.buyer.test_paying import payer
from waystation.buyer.payer import Paid, PaymentRefusedError
from waystation.models.decisions import Approve, Decision
from waystation.models.money import Money
from waystation.models.payments import PaidRequestView
from workflows.paid_request import PaidRequest

MORE_THAN_TEMPORAL_LETS_WAIT = 12
EXPIRED = json.dumps({"type": "https://paymentauth.org/problems/payment-expired"})


async def test_however_many_wait_for_an_answer_a_person_can_decide(bench: Bench) -> None:
    mandate = await bench.mandate(usd(1_000), approval_threshold=0)
    agent, payment_id = payer(bench, mandate), f"p-{uuid.uuid4().hex[:8]}"

    async def asked() -> Paid:
        return await agent.fetch(f"{API}/v1/reports/rain", max_price=usd(60), payment_id=payment_id)

    waiting = [asyncio.create_task(asked()) for _ in range(MORE_THAN_TEMPORAL_LETS_WAIT)]
    handle = bench.temporal.get_workflow_handle_for(PaidRequest.run, payment_id)
    await eventually(lambda: len(bench.network.sent_to("paid.test")) == len(waiting), what="all have asked")
    view = await bench.status(handle, "awaiting_approval")
    approval = Approve(digest=view.terms_digest or "", approver="alice")
    await handle.execute_update(PaidRequest.decide, Decision(approve=approval))
    answers = await asyncio.gather(*waiting)
    assert len({answer.response.content for answer in answers}) == 1
    history = await handle.fetch_history()
    accepted = [
        event.workflow_execution_update_accepted_event_attributes.accepted_request.input.name
        for event in history.events
        if event.HasField("workflow_execution_update_accepted_event_attributes")
    ]
    assert accepted.count("answered") == 1
    assert await bench.charges() == [50]


async def test_a_refusal_that_was_not_the_last_word_is_not_given_again(quick_bench: Bench) -> None:
    """Nobody can say what became of the first signature until it ends; then a second one is in order."""
    again, asked, paid = asyncio.Event(), x402_required(seconds=2), 0
    server = FastAPI()

    @server.get("/")
    async def answer(request: Request) -> Response:
        nonlocal paid
        if "payment-signature" not in request.headers:
            return ask(**{"payment-required": asked})
        paid += 1
        if paid == 1:
            return Response(EXPIRED, 402, {"content-type": "application/problem+json"})
        await again.wait()
        return Response("here you are")

    quick_bench.network.add("slow.test", server)
    agent = payer(quick_bench, await quick_bench.mandate(Money(amount=10_000, currency=USDC)))
    payment_id = f"p-{uuid.uuid4().hex[:8]}"

    async def fetched() -> Paid:
        most = Money(amount=2_000, currency=USDC)
        return await agent.fetch("https://slow.test/", max_price=most, payment_id=payment_id)

    with pytest.raises(PaymentRefusedError) as refused:
        await fetched()
    assert (refused.value.rule, refused.value.money_moved) == ("payment_not_answered", "unknown")
    handle = quick_bench.temporal.get_workflow_handle_for(PaidRequest.run, payment_id)

    async def is_paid_anew() -> bool:
        view: PaidRequestView = await handle.query(PaidRequest.status)
        return view.refusal is None and paid == 2

    await eventually(is_paid_anew, what="the second signature is with the server")
    waiting = asyncio.create_task(fetched())
    again.set()
    assert (await waiting).response.text == "here you are"
