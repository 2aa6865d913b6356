"""The servers that tests run against: real ones, each started in one module here and nowhere else.

A server is started by a context manager, which ends it by its own process id. Where several don't wait for
each other they start side by side: in ``Stack``, ``MoneyStack``, ``PurchaseProcesses``, ``PaymentProcesses``.
"""
