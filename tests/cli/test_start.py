"""A process that can't start says so in a sentence, without a traceback and without secrets."""

import os
import subprocess

import pytest

from tests.support import ROOT, START_SECONDS
from tests.world.forks import completed

SECRET = "sk_live_never_to_be_seen"
KEYS = '[{"id": "s", "role": "service", "sha256": "' + "0" * 64 + '"}]'
SECRETS = '["a secret of thirty-two bytes or more"]'
MISCONFIGURED = [
    ("api", {}, "WAYSTATION_API_KEYS is empty"),
    ("api", {"WAYSTATION_API_KEYS": KEYS}, "WAYSTATION_TOKEN_SECRETS needs a secret"),
    ("api", {"WAYSTATION_API_KEYS": SECRET}, "api_keys"),
    ("api", {"WAYSTATION_PORT": SECRET}, "WAYSTATION_PORT"),
    ("worker", {"WAYSTATION_STORAGE_THRESHOLD_BYTES": "1"}, "WAYSTATION_STORAGE_THRESHOLD_BYTES"),
    ("worker", {"WAYSTATION_ENCRYPTION_KEYS": f'["{SECRET}"]'}, "an encryption key is written"),
    ("worker", {}, "Temporal can't be reached at 127.0.0.1:1"),
    ("agent", {}, "WAYSTATION_API_KEY is not set"),
    ("agent", {"WAYSTATION_API_KEY": SECRET}, "Temporal can't be reached at 127.0.0.1:1"),
]


def run(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with no other setting than these."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WAYSTATION_")}
    arguments = ["tests.agent.unruly:agent"] if command == "agent" else []
    env = {**clean, "TEMPORAL_ADDRESS": "127.0.0.1:1", **environment}
    return completed("waystation", command, *arguments, env=env, cwd=ROOT, within=START_SECONDS)


@pytest.mark.parametrize(("command", "environment", "sentence"), MISCONFIGURED)
def test_misconfiguration_is_one_sentence(command: str, environment: dict[str, str], sentence: str) -> None:
    done = run(command, environment)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert sentence in said
    assert "Traceback" not in said
    assert SECRET not in said


def test_a_misspelt_variable_is_pointed_out() -> None:
    done = run("worker", {"WAYSTATION_REDIS_ULR": "redis://x"})
    assert "WAYSTATION_REDIS_ULR is no setting; did you mean WAYSTATION_REDIS_URL?" in done.stderr


def test_no_variable_that_is_documented_is_called_unknown() -> None:
    from tests.docs.test_complete import documented_settings
    from waystation.settings import unknown_variables

    assert unknown_variables(dict.fromkeys(documented_settings(), "")) == {}
