"""A process that pays from an allowance by itself, for tests that kill it.

Makes the payments ``call-0`` to ``call-N`` in order, however often it is started, and ends with 0.
"""

import argparse
import asyncio
from pathlib import Path

from pydantic import SecretStr

from waystation.buyer.allowance.journal import AllowanceJournal
from waystation.buyer.credentials import Credentials
from waystation.buyer.networks import read_networks
from waystation.buyer.payer import Payer
from waystation.buyer.wallet import Wallet
from waystation.models.money import Money
from waystation.models.payments import Rail
from waystation.settings import WalletSettings
from waystation.stripe_http import open_stripe
from waystation.temporal.connect import CLEAR_DATA_CONVERTER, open_client


async def run(options: argparse.Namespace) -> None:
    client = await open_client(options.temporal, data_converter=CLEAR_DATA_CONVERTER)
    processor, _ = open_stripe("sk_test_agent", api_base=options.processor)
    settings = WalletSettings(private_key=SecretStr(options.key), rpc_url=options.rpc)
    journal = AllowanceJournal(options.journal, None)
    payer = Payer(
        client,
        mandate_id=options.mandate,
        agent=options.agent,
        task_queue=options.queue,
        rails=(Rail(options.rail),),
        allowed_networks=read_networks(["127.0.0.0/8"]),
        credentials=Credentials(processor=processor, wallet=Wallet.from_settings(settings)),
        journal=journal,
    )
    price = Money(amount=options.price, currency=options.currency)
    budget = Money(amount=options.price * options.payments, currency=options.currency)
    async with payer.allowance(
        options.seller, budget=budget, max_price=price, allowance_id=options.allowance
    ):
        for number in range(options.payments):
            url = f"{options.seller}{options.path}{options.allowance}-{number}"
            paid = await payer.fetch(url, max_price=price, payment_id=f"call-{number}")
            paid.response.raise_for_status()
    await payer.close()
    await journal.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in (
        "temporal", "processor", "queue", "key", "rpc", "mandate", "agent",
        "seller", "path", "allowance", "currency", "rail",
    ):  # fmt: skip
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--price", type=int, required=True)
    parser.add_argument("--payments", type=int, required=True)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
