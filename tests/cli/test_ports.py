"""Ports that servers keep across a restart."""

import socket
from pathlib import Path

import pytest

from waystation.dev import ports
from waystation.dev.ports import free_ports
from waystation.dev.sandbox import PARTS, Sandbox, chosen_ports


def test_free_ports_differ_and_never_go_to_outgoing_connections() -> None:
    found = free_ports(20)
    assert len(set(found)) == 20
    assert max(found) < 32_768


def test_a_port_in_use_is_never_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = taken.getsockname()[1]
        monkeypatch.setattr(ports, "BELOW_OUTGOING", range(used, used + 1))
        with pytest.raises(OSError, match="no 1 free ports"):
            free_ports(1)
    assert free_ports(1) == [used]


def test_the_sandbox_keeps_its_ports_but_for_one_that_is_taken(tmp_path: Path) -> None:
    first = Sandbox(tmp_path, "http://127.0.0.1:1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(first.url("shop").rpartition(":")[2])))
        taken.listen()
        second = Sandbox(tmp_path, "http://127.0.0.1:1")
        assert [first.url(part) == second.url(part) for part in PARTS] == [True, False, True]


def test_ports_that_were_chosen_are_taken_in_a_row_and_kept(tmp_path: Path) -> None:
    first = free_ports(1)[0]
    chosen = Sandbox(tmp_path, "http://127.0.0.1:1", chosen_ports(first))
    wanted = [f"http://127.0.0.1:{first + number}" for number in range(len(PARTS))]
    assert [chosen.url(part) for part in PARTS] == wanted
    later = Sandbox(tmp_path, "http://127.0.0.1:1")
    assert [later.url(part) for part in PARTS] == wanted
