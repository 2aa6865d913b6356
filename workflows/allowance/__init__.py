"""Many small payments to one seller within one reservation."""

from workflows.allowance.workflow import Allowance, AllowanceRun

__all__ = [
    "Allowance",
    "AllowanceRun",
]
