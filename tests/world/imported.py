"""What the programs of the world import; see ``tests.world.forks``."""

import gc

import api.main
import tests.seller.paywall.replica_process
import tests.world.allowance_holder
import tests.world.payment_worker
import tests.world.purchase_worker
import waystation.agents.demo
import waystation.agents.shopper
import waystation.cli.main
import waystation.sandbox.facilitator
import waystation.sandbox.paid_api
import waystation.sandbox.processor
import waystation.sandbox.shop
import worker
from tests.world.certificates import read_once

__all__ = ["api", "tests", "waystation", "worker"]

read_once()
gc.collect()
gc.freeze()  # so that collecting garbage in a forked process copies none of it
