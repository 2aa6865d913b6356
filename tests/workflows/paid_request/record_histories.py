"""Records histories for the replay tests: ``python -m tests.workflows.paid_request.record_histories``.

Run it only for a change that is meant to be incompatible with payments and allowances that are under
way (and say in the commit how those are drained). The histories are in clear: they come from the
sandbox, without encryption, with payment tokens and keys that no longer exist.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from temporalio.client import Client

from tests.buyer.bench import AGENT, API, USDC, Bench, has_credential, times, usd
from tests.support import ROOT, anonymous
from tests.world.temporal import running_temporal
from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.payer import Payer
from waystation.models.decisions import Approve
from waystation.models.money import Money
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client
from workflows.paid_request import PaidRequest

FOLDER = Path(__file__).with_name("histories")


async def _by_card(bench: Bench) -> str:
    handle = await bench.start("/v1/reports/plain", usd(60), await bench.mandate(usd(1_000)))
    await handle.result()
    return handle.id


async def _after_a_lost_answer(bench: Bench) -> str:
    bench.network.lose = times(1, has_credential)
    return await _by_card(bench)


async def _in_tokens(bench: Bench) -> str:
    mandate = await bench.mandate(Money(amount=10_000, currency=USDC))
    handle = await bench.start("/v1/quotes/A", Money(amount=1_000, currency=USDC), mandate)
    await handle.result()
    return handle.id


async def _approved(bench: Bench) -> str:
    mandate = await bench.mandate(usd(1_000), approval_threshold=0)
    handle = await bench.start("/v1/reports/asked", usd(60), mandate)
    view = await bench.status(handle, "awaiting_approval")
    await handle.signal(PaidRequest.approve, Approve(digest=view.terms_digest or "", approver="alice"))
    await handle.result()
    return handle.id


async def _refused(bench: Bench) -> str:
    handle = await bench.start("/v1/reports/dear", usd(10), await bench.mandate(usd(1_000)))
    await handle.result()
    return handle.id


async def _allowance(bench: Bench, **more: object) -> str:
    payer = Payer(
        bench.temporal,
        mandate_id=await bench.mandate(usd(1_000)),
        agent=AGENT,
        task_queue=bench.task_queue,
        transport=bench.network,
        **more,  # type: ignore[arg-type]
    )
    async with payer.allowance(API, budget=usd(200), max_price=usd(50)) as allowance:
        for number in range(3):
            await payer.fetch(f"{API}/v1/reports/r{number}", max_price=usd(50))
    await payer.settled(allowance)
    return allowance


async def _held_allowance(bench: Bench) -> str:
    journal = AllowanceJournal(bench.payloads.parent / "journal", None)
    allowance = await _allowance(bench, credentials=bench.credentials, journal=journal)
    await journal.close()
    return allowance


SCENES: dict[str, Callable[[Bench], Awaitable[str]]] = {
    "payment-by_card": _by_card,
    "payment-after_a_lost_answer": _after_a_lost_answer,
    "payment-in_tokens": _in_tokens,
    "payment-approved": _approved,
    "payment-refused": _refused,
    "allowance-paid_by_the_workflow": _allowance,
    "allowance-held": _held_allowance,
}


async def record(folder: Path, client: Client) -> None:
    """Writes the history of every scene."""
    FOLDER.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        async with Bench(folder / name, client).working() as bench:
            workflow_id = await scene(bench)
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        (FOLDER / f"{name}.json").write_text(anonymous(history.to_json()) + "\n")
        sys.stdout.write(f"{name}\n")


async def main() -> None:
    """Starts a Temporal server, records, stops it."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_temporal(Path(folder)) as server:
            client = await open_client(server.address, data_converter=CLEAR_DATA_CONVERTER)
            await record(Path(folder), client)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    asyncio.run(main())
