"""The workflows of mandates and purchases, for a worker to register."""

from typing import Final

from workflows.mandate import Mandate
from workflows.purchase import Purchase
from workflows.purchase.order_events import OrderEvents

PURCHASE_WORKFLOWS: Final = (Mandate, Purchase, OrderEvents)
