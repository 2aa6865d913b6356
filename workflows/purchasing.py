"""The workflows of mandates and purchases, for a worker to register."""

from typing import Final

from workflows.mandate import Mandate
from workflows.order_events import OrderEvents
from workflows.purchase import Purchase

PURCHASE_WORKFLOWS: Final = (Mandate, Purchase, OrderEvents)
