"""A command that can't start says so in a sentence, without a traceback and without secrets."""

import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import typer

from tests.support import ROOT, START_SECONDS, eventually, free_port
from tests.world.agent import running_agent
from tests.world.api import running_api
from tests.world.forks import run_to_end
from tests.world.temporal import TemporalServer
from waystation.cli.door import Door
from waystation.cli.main import app
from waystation.dev.local import EXIT_FAILED, EXIT_MISCONFIGURED

SECRET = "sk_live_never_to_be_seen"
KEYS = json.dumps([{"id": "s", "role": "service", "sha256": "0" * 64}])
API = {
    "WAYSTATION_API_KEYS": KEYS,
    "WAYSTATION_TOKEN_SECRETS": '["a secret of thirty-two bytes or more"]',
}
AGENT = ("agent", "tests.agent.unruly:agent")
TAIL = ("session", "tail", "s")
CLIENT = {"WAYSTATION_API_KEY": SECRET}
NOBODY = "127.0.0.1:1"


@dataclass
class Place:
    """Where a command is run, and what is there."""

    folder: Path
    temporal: str
    taken: int
    """A port that something listens on."""

    def filled(self, text: str) -> str:
        """Returns the text with what only the test knows."""
        while "{free}" in text:
            text = text.replace("{free}", str(free_port()), 1)
        known = {"{folder}": self.folder, "{temporal}": self.temporal, "{taken}": self.taken}
        for name, value in known.items():
            text = text.replace(name, str(value))
        return text


@dataclass(frozen=True)
class Case:
    """A misconfiguration: what is run, with what, and what is said."""

    command: tuple[str, ...]
    environment: dict[str, str]
    sentence: str
    code: int = EXIT_MISCONFIGURED
    prepare: Callable[[Path], object] | None = field(default=None, compare=False)


def file(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def folder_with(name: str, text: str) -> Callable[[Path], object]:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)

    return make


FILE = file("a-file", "no folder")
HERE = {"TEMPORAL_ADDRESS": "{temporal}"}
CASES = {
    # Who may call
    "no keys": Case(("api",), {}, "WAYSTATION_API_KEYS is empty"),
    "no token secret": Case(("api",), {"WAYSTATION_API_KEYS": KEYS}, "_TOKEN_SECRETS needs a secret"),
    "a short token secret": Case(
        ("api",),
        {**API, "WAYSTATION_TOKEN_SECRETS": '["short"]'},
        "_TOKEN_SECRETS needs a secret of 32",
    ),
    "keys that are no JSON": Case(("api",), {"WAYSTATION_API_KEYS": SECRET}, "_API_KEYS is no JSON"),
    "a key of an unknown role": Case(
        ("api",),
        {**API, "WAYSTATION_API_KEYS": json.dumps([{"id": "s", "role": SECRET, "sha256": "0" * 64}])},
        "WAYSTATION_API_KEYS, at 0.role: Input should be 'client'",
    ),
    # Values
    "a port that is no number": Case(("api",), {"WAYSTATION_PORT": SECRET}, "WAYSTATION_PORT: Input should"),
    "a port beyond all": Case(("api",), {**API, "WAYSTATION_PORT": "99999"}, "WAYSTATION_PORT: Input should"),
    "a duration that is none": Case(
        ("api",),
        {**API, "WAYSTATION_HEARTBEAT_SECONDS": "soon"},
        "_HEARTBEAT_SECONDS: Input should",
    ),
    "an endless duration": Case(
        ("api",), {**API, "WAYSTATION_HEARTBEAT_SECONDS": "inf"}, "_HEARTBEAT_SECONDS: Input should"
    ),
    "a limit that doesn't exist": Case(
        ("api",),
        {**API, "WAYSTATION_LIMITS__MAX_ATEMPTS": "3"},
        "_LIMITS__MAX_ATEMPTS: Extra inputs",
    ),
    "a small threshold": Case(
        ("worker",), {"WAYSTATION_STORAGE_THRESHOLD_BYTES": "1"}, "WAYSTATION_STORAGE_THRESHOLD_BYTES"
    ),
    "an address that is none": Case(AGENT, {**CLIENT, "WAYSTATION_URL": "api"}, "WAYSTATION_URL: Value"),
    "a client's address that is none": Case(TAIL, {**CLIENT, "WAYSTATION_URL": "api"}, "see WAYSTATION_URL"),
    "a key that no header takes": Case(TAIL, {"WAYSTATION_API_KEY": f"{SECRET} "}, "see WAYSTATION_API_KEY"),
    "a network that is none": Case(
        ("worker",), {"WAYSTATION_ALLOWED_NETWORKS": '["everywhere"]'}, "WAYSTATION_ALLOWED_NETWORKS, at 0:"
    ),
    "Redis over HTTP": Case(
        ("api",), {**API, "WAYSTATION_REDIS_URL": f"http://:{SECRET}@r"}, "WAYSTATION_REDIS_URL: Value error"
    ),
    "empty variables, which count as not set": Case(
        ("worker",), {"WAYSTATION_REDIS_URL": "", "WAYSTATION_PORT": ""}, "can't be reached at", EXIT_FAILED
    ),
    "an empty secret": Case(
        ("api",), {**API, "WAYSTATION_TOKEN_SECRETS": ""}, "_TOKEN_SECRETS needs a secret"
    ),
    # Keys and files
    "an encryption key without an id": Case(
        ("worker",), {"WAYSTATION_ENCRYPTION_KEYS": f'["{SECRET}"]'}, "an encryption key is written"
    ),
    "an encryption key that is too short": Case(
        ("agent", "waystation.agents.demo:agent"),
        {**CLIENT, "WAYSTATION_ENCRYPTION_KEYS": '["k1:c2hvcnQ="]'},
        "encryption key 'k1' has 5 bytes",
    ),
    "a decision key that is none": Case(
        ("api",), {**API, "WAYSTATION_DECISION_KEYS": f'["{SECRET}"]'}, "is written <id>:<base64 of 32 bytes>"
    ),
    "a token key that is too short": Case(
        ("worker",), {**HERE, "WAYSTATION_TOKEN_KEYS": '["k1:c2hvcnQ="]'}, "'k1' has 5 bytes"
    ),
    "a keystore that isn't there": Case(
        ("worker",),
        {**HERE, "WAYSTATION_WALLET_KEYSTORE": "{folder}/none", "WAYSTATION_WALLET_PASSPHRASE": SECRET},
        "see WAYSTATION_WALLET_KEYSTORE",
    ),
    "a keystore that is none": Case(
        ("worker",),
        {**HERE, "WAYSTATION_WALLET_KEYSTORE": "{folder}/a-file", "WAYSTATION_WALLET_PASSPHRASE": SECRET},
        "is not a keystore, or the passphrase is wrong",
        prepare=FILE,
    ),
    "a wallet's key that is none": Case(
        ("worker",), {**HERE, "WAYSTATION_WALLET_PRIVATE_KEY": SECRET}, "private key isn't 32 bytes of hex"
    ),
    "a payload folder that can't be made": Case(
        ("worker",), {"WAYSTATION_STORAGE_DIR": "{folder}/a-file/p"}, "WAYSTATION_STORAGE_DIR: ", prepare=FILE
    ),
    "no payload folder to prune": Case(("storage", "prune"), {}, "there is no payload folder"),
    # Temporal
    "Temporal away, for a worker": Case(
        ("worker",), {}, f"Temporal can't be reached at {NOBODY}", EXIT_FAILED
    ),
    "Temporal away, for an agent": Case(AGENT, CLIENT, f"Temporal can't be reached at {NOBODY}", EXIT_FAILED),
    "Temporal at a host without an address": Case(
        ("worker",), {"TEMPORAL_ADDRESS": "nowhere.invalid:7233"}, "can't be reached at nowhere", EXIT_FAILED
    ),
    "Temporal at no address": Case(
        ("worker",), {"TEMPORAL_ADDRESS": "no address"}, "Temporal's settings (TEMPORAL_…"
    ),
    "an unknown namespace, for a worker": Case(
        ("worker",), {**HERE, "TEMPORAL_NAMESPACE": "nowhere"}, "has no namespace 'nowhere'"
    ),
    "an unknown namespace, for an agent": Case(
        AGENT, {**HERE, **CLIENT, "TEMPORAL_NAMESPACE": "nowhere"}, "has no namespace 'nowhere'"
    ),
    "an unknown namespace, for the API": Case(
        ("api",),
        {**HERE, **API, "WAYSTATION_PORT": "{free}", "TEMPORAL_NAMESPACE": "nowhere"},
        "no namespace",
    ),
    "a certificate that isn't there": Case(
        ("worker",),
        {"TEMPORAL_TLS_CLIENT_CERT_PATH": "/no/cert", "TEMPORAL_TLS_CLIENT_KEY_PATH": "/no/key"},
        "Temporal's settings (TEMPORAL_…",
    ),
    "a certificate that is none": Case(
        ("worker",),
        {
            **HERE,
            "TEMPORAL_TLS_CLIENT_CERT_PATH": "{folder}/a-file",
            "TEMPORAL_TLS_CLIENT_KEY_PATH": "{folder}/a-file",
        },
        "no TLS connection to Temporal",
        prepare=FILE,
    ),
    "TLS to a server without": Case(
        ("worker",), {**HERE, "TEMPORAL_TLS": "true"}, "no TLS connection to Temporal"
    ),
    "a broken profile": Case(
        ("worker",),
        {"TEMPORAL_CONFIG_FILE": "{folder}/p.toml"},
        "Temporal's settings (TEMPORAL_…",
        prepare=file("p.toml", f"[profile.default]\napi_key = {SECRET} x\n"),
    ),
    "an unknown profile": Case(
        ("api",),
        {**API, "TEMPORAL_CONFIG_FILE": "{folder}/p.toml", "TEMPORAL_PROFILE": "nope"},
        "Profile 'nope' not found",
        prepare=file("p.toml", "[profile.default]\n"),
    ),
    # Where it listens
    "a port in use": Case(("api",), {**API, "WAYSTATION_PORT": "{taken}"}, "the port is in use", EXIT_FAILED),
    "a host without an address": Case(
        ("api",), {**API, "WAYSTATION_HOST": "nowhere.invalid"}, "the host's name has no address"
    ),
    "another machine's address": Case(
        ("api",), {**API, "WAYSTATION_HOST": "192.0.2.1"}, "can't listen on 192."
    ),
    # Agents
    "an agent without a key": Case(AGENT, {}, "WAYSTATION_API_KEY is not set"),
    "an agent that isn't there": Case(("agent", "nowhere:agent"), {}, "can't load the agent 'nowhere:agent'"),
    "what is no agent": Case(("agent", "waystation.agents.demo:WORDS"), {}, "is not a waystation.Agent"),
    "an agent with an odd name": Case(
        ("agent", "odd:agent"),
        CLIENT,
        "'an odd name' can't name an agent",
        prepare=file("odd.py", "from waystation.agent import Agent\n\nagent = Agent('an odd name')\n"),
    ),
    # The API, from a client
    "an API whose host has no address": Case(
        TAIL, {**CLIENT, "WAYSTATION_URL": "http://nowhere.invalid"}, "can't be reached", EXIT_FAILED
    ),
    "an API that is away": Case(
        TAIL, {**CLIENT, "WAYSTATION_URL": f"http://{NOBODY}"}, "can't be reached", EXIT_FAILED
    ),
    "no key and no dev": Case(TAIL, {}, "there is no 'waystation dev'"),
    "no dev to grant with": Case(("mandate", "show", "m"), {}, "there is no 'waystation dev'"),
    "no key to sign with": Case(("sign", "retry", "p", "--by", "a"), {}, "there is no key to sign with"),
    # Everything on one machine
    "a state folder that can't be made": Case(
        ("dev", "--state", "{folder}/a-file/s"), {}, "--state: ", prepare=FILE
    ),
    "a state folder's broken keys": Case(
        ("dev", "--state", "s"),
        {},
        "secrets.json can't be read as JSON",
        prepare=folder_with("s/secrets.json", "{"),
    ),
    "a port of dev's in use": Case(
        ("dev", "--port", "{taken}"), {}, "port {taken} is in use; choose another with --port."
    ),
    "a port of the sandbox in use": Case(
        ("dev", "--port", "{free}", "--temporal-port", "{free}", "--sandbox-port", "{taken}"),
        {},
        "port {taken} is in use; choose another with --sandbox-port.",
    ),
    "a port that is wanted twice": Case(
        ("dev", "--port", "28471", "--temporal-port", "{free}", "--sandbox-port", "28470"),
        {},
        "port 28471 is wanted twice, by --port and --sandbox-port",
    ),
    "a port that doesn't exist": Case(("dev", "--sandbox-port", "65535"), {}, "--sandbox-port"),
}


@pytest.fixture
def place(tmp_path: Path, temporal_server: TemporalServer) -> Iterator[Place]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield Place(tmp_path, temporal_server.address, listening.getsockname()[1])


def run(place: Place, *command: str, **environment: str) -> tuple[int, str]:
    """Runs a command to its end, with no other setting than these."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("WAYSTATION_", "TEMPORAL_"))
    }
    given = {"TEMPORAL_ADDRESS": NOBODY, "PYTHONPATH": str(ROOT), **environment}
    return run_to_end(
        "waystation",
        *command,
        log=place.folder / "said",
        env={**clean, **given},
        cwd=place.folder,
        within=START_SECONDS,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_misconfiguration_is_one_sentence(case: Case, place: Place) -> None:
    if case.prepare:
        case.prepare(place.folder)
    command = [place.filled(word) for word in case.command]
    environment = {name: place.filled(value) for name, value in case.environment.items()}
    code, said = run(place, *command, **environment)
    assert place.filled(case.sentence) in said
    assert code == case.code, said
    assert "Traceback" not in said
    assert SECRET not in said


def serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


def test_every_command_goes_through_the_door() -> None:
    """Whatever is added to it, its errors end there."""
    assert type(typer.main.get_command(app)) is Door


async def test_the_api_goes_on_without_redis(place: Place) -> None:
    env = {**API, "TEMPORAL_ADDRESS": place.temporal, "WAYSTATION_REDIS_URL": f"redis://:{SECRET}@{NOBODY}"}
    with running_api(place.folder, env=env) as api:
        await api.says("The live bus is lost (ConnectionError)")
        await eventually(lambda: serves(api.url), what="it serves")
        assert api.terminate() == 0
    assert "check WAYSTATION_REDIS_URL" in api.output
    assert "Traceback" not in api.output
    assert SECRET not in api.output


async def test_an_agent_waits_for_an_api_whose_host_has_no_address(place: Place) -> None:
    env = {**CLIENT, "TEMPORAL_ADDRESS": place.temporal, "WAYSTATION_URL": "http://nowhere.invalid"}
    with running_agent(place.folder, "waystation.agents.demo:agent", env=env) as agent:
        await agent.says("Can't write to ws://nowhere.invalid/ingest: the API can't be reached")
        assert agent.terminate() == 0
    assert "Traceback" not in agent.output


def test_a_misspelt_variable_is_pointed_out(place: Place) -> None:
    _, said = run(place, "worker", WAYSTATION_REDIS_ULR="redis://x")
    assert "WAYSTATION_REDIS_ULR is no setting; did you mean WAYSTATION_REDIS_URL?" in said


def test_no_variable_that_is_documented_is_called_unknown() -> None:
    from tests.docs.test_complete import documented_settings
    from waystation.settings import unknown_variables

    assert unknown_variables(dict.fromkeys(documented_settings(), "")) == {}
