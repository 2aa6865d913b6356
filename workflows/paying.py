"""The workflows of paid requests, for a worker to register."""

from typing import Final

from workflows.allowance import Allowance
from workflows.paid_request import PaidRequest

PAID_REQUEST_WORKFLOWS: Final = (PaidRequest, Allowance)
