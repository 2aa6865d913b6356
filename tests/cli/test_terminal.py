"""What a command prints without meaning to: errors that nobody catches, and logs without a handler."""

import subprocess
import sys

HOSTILE = r"no\x1b[2J\nTotal  1.00 usd\u202e sk_test_0123456789"
SCRIPT = f"""
import logging
import typer
from waystation.terminal import prepare_terminal

app = typer.Typer()

@app.callback()
def every_command() -> None:
    prepare_terminal()

@app.command()
def fails() -> None:
    logging.getLogger("anything").warning("the seller says %s", "{HOSTILE}")
    raise ValueError("{HOSTILE}")

app(["fails"])
"""


def test_uncaught_errors_and_stray_logs_are_cleaned() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("Total") == 2
    assert "ValueError" in done.stderr
    assert "sk_test" not in done.stderr
    assert not {"\x1b", "\u202e"} & set(done.stderr)
    assert [line for line in done.stderr.splitlines() if line.startswith("Total")] == []
