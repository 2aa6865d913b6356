"""What can't be meant is refused in one sentence that names it, before anything is called."""

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from tests.cli.commands import run
from waystation.cli.main import app
from waystation.client import Client
from waystation.errors import InvalidRequest, StartError

MANDATE = "mandate create --owner ada --agent a --cap 1 --seller {seller} --payment-method pm_1 --days {days}"
ODD = {
    "dev --port 99999": "'--port'",
    "dev --temporal-port 0": "'--temporal-port'",
    MANDATE.format(seller="*", days=999_999_999): "--days",
    MANDATE.format(seller="*", days=0): "--days",
    MANDATE.format(seller="https://Shop.example/path", days=1): "an origin is http:// or https://",
    MANDATE.format(seller="x", days=1): "an origin is http:// or https://",
    "sign new-key --id a:b": "'a:b' can't name a key",
    "sign new-key --id ''": "'' can't name a key",
    "sign grant m -": "the terms: Invalid JSON",
}


@pytest.mark.parametrize("command", ODD)
def test_an_odd_argument_is_named(command: str) -> None:
    done = CliRunner().invoke(app, command, input="{")
    assert done.exit_code != 0
    assert isinstance(done.exception, SystemExit)
    assert ODD[command] in " ".join(done.output.replace("│", " ").split())


def test_an_argument_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = run("session", "send", "s", "a\udcff", cwd=tmp_path)
    assert done.returncode != 0
    assert "is not text in UTF-8" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["é", "a b", "a\n", "a\r\nX: y", "\ud800"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(StartError, match="copy it again") as refused:
        Client("http://127.0.0.1:1", key)
    assert key not in str(refused.value)


def test_an_id_that_is_no_text_is_no_id() -> None:
    with pytest.raises(InvalidRequest, match="is no id"):
        Client("http://127.0.0.1:1", "k").attach("\ud800")


async def test_half_a_character_in_what_is_sent_is_mended() -> None:
    sent: list[object] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(422, json={"code": "invalid"})

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    session = Client("http://127.0.0.1:1", "k", http=http).attach("s")
    with pytest.raises(InvalidRequest):
        await session.send("a\ud800", message_id="m", data={"b\udfff": ["\ud83d\ude00"]})
    assert sent == [
        {"text": "a\ufffd", "on_busy": "queue", "message_id": "m", "data": {"b\ufffd": ["\U0001f600"]}}
    ]
