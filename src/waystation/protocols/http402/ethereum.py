"""The one door to eth_account, whose dependency py_ecc raises Python's recursion limit to 100,000 on import.

With that limit, deeply nested input from outside overflows the C stack and ends the process instead of
raising ``RecursionError``. Nothing here needs it, so it is put back.
"""

import sys

_recursion_limit = sys.getrecursionlimit()
try:
    from eth_account import Account
    from eth_account.messages import SignableMessage, encode_typed_data
    from eth_account.signers.local import LocalAccount
finally:
    sys.setrecursionlimit(_recursion_limit)

__all__ = ["Account", "LocalAccount", "SignableMessage", "encode_typed_data"]
