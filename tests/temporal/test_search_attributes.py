"""Search attributes: what is in them, and how a namespace gets them."""

import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.client import Client

from tests.support import ROOT, eventually
from tests.world.temporal import running_temporal
from waystation.models.events import MAX_NAME_CHARACTERS
from waystation.temporal import search_attributes as attributes
from waystation.temporal.encryption import generate_key
from waystation.temporal.search_attributes import how_to_register, keys_of
from waystation.temporal.terms import Terms, words_of

[CLEAR] = keys_of(())


def test_a_word_is_found_by_each_of_its_beginnings_and_by_nothing_else() -> None:
    terms = Terms(CLEAR)
    found = terms.of_session("Refund for Zoë’s order", [("ada", "Ada Lovelace")])
    for word in ("re", "refund", "zo", "zoe", "order", "ada", "lovelace"):
        assert terms.word(word) in found, word
    for word in ("r", "fund", "refunds", "lovelaces"):
        assert terms.word(word) not in found, word
    assert terms.person("ada") in found
    assert terms.person("lovelace") not in found


def test_a_long_word_is_found_by_its_first_characters() -> None:
    terms = Terms(CLEAR)
    assert terms.word("rindfleischetikettierung") in terms.of_session("Rindfleischetikettierungsgesetz", [])


def test_keys_make_other_digests_and_are_not_shown() -> None:
    [key, clear] = keys_of([f"2026:{generate_key()}"])
    assert clear == CLEAR
    assert Terms(key).word("refund") != Terms(clear).word("refund")
    assert key not in repr(Terms(key))


NAMES = st.text(max_size=MAX_NAME_CHARACTERS)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@/|+-]{0,127}", fullmatch=True)


@given(NAMES, st.lists(st.tuples(IDS, st.none() | NAMES), max_size=70))
def test_whatever_people_are_called_it_fits(title: str, people: list[tuple[str, str | None]]) -> None:
    found = Terms(CLEAR).of_session(title, people)
    assert len(json.dumps(found)) <= attributes.MAX_VALUE_BYTES
    assert len(set(found)) == len(found)
    assert all(one.isascii() and len(one) == 8 for one in found)


@given(NAMES)
def test_words_are_the_same_however_they_are_written(text: str) -> None:
    assert words_of(text) == words_of(" ".join(words_of(text)))


def test_the_documented_command_is_the_one_that_is_logged() -> None:
    page = " ".join((ROOT / "docs" / "operations.md").read_text(encoding="utf-8").replace("\\\n", "").split())
    assert how_to_register("waystation").splitlines()[0] in page


async def test_a_worker_registers_them_once_and_says_how_where_it_may_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_temporal(tmp_path, search_attributes=False) as server:
        client = await Client.connect(server.address)
        assert not await attributes.are_registered(client)
        await attributes.register(client)

        async def are_there() -> bool:
            return await attributes.are_registered(client)

        await eventually(are_there, what="they are registered")
        await attributes.register(client)  # again: nothing to do
        elsewhere = await Client.connect(server.address, namespace="nowhere")
        with caplog.at_level(logging.WARNING):
            await attributes.register(elsewhere)
    assert "temporal operator search-attribute create --namespace nowhere" in caplog.text
