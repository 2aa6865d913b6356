"""The specification and the kit that tests it have the same requirements."""

import re

import pytest

from tests.docs.support import page, rows
from waystation.conformance import agents, apis
from waystation.conformance.requirements import AGENT_SIDE, API_SIDE, Requirement


def documented() -> list[Requirement]:
    return [
        Requirement(cells[0].strip("`"), cells[1], cells[2])  # type: ignore[arg-type]
        for cells in rows(page("ingest.md"))
        if re.fullmatch(r"`[A-Z]-\d\d`", cells[0])
    ]


def test_the_specification_lists_what_the_kit_tests() -> None:
    assert documented() == [*AGENT_SIDE.values(), *API_SIDE.values()]


@pytest.mark.parametrize("number", [*AGENT_SIDE, *API_SIDE])
def test_every_requirement_is_decided_somewhere(number: str) -> None:
    assert any(number in one.decides for one in (*agents.SCENARIOS, *apis.SCENARIOS))
