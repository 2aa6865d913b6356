"""Ports on this machine for servers that are started, killed and restarted on the same port."""

import random
import socket
from contextlib import ExitStack
from typing import Final

BELOW_OUTGOING: Final = range(15_000, 30_000)
"""Ports below the ranges that systems use for outgoing connections (Linux: from 32768, macOS and Windows:
from 49152). A port in those ranges can be taken by a connection while its server is down, even by the client
that tries to reach the server, and then the server can't restart."""

ATTEMPTS: Final = 1_000


def free_ports(count: int) -> list[int]:
    """Returns ``count`` different ports of 127.0.0.1 on which nothing is listening.

    Raises:
        OSError: almost every port is in use.
    """
    with ExitStack() as probes:
        ports: list[int] = []
        for _ in range(ATTEMPTS):
            port = random.choice(BELOW_OUTGOING)  # noqa: S311
            probe = probes.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
            if len(ports) == count:
                return ports
    raise OSError(f"no {count} free ports found between {BELOW_OUTGOING.start} and {BELOW_OUTGOING.stop}")
