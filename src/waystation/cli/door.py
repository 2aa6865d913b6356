"""The one door of every command: what stops it is one sentence and an exit code, never a traceback."""

import errno
import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from waystation.dev.local import EXIT_FAILED, EXIT_MISCONFIGURED
from waystation.errors import NotNowError, StartError, WaystationError
from waystation.terminal import complain


class Door(TyperGroup):
    """The root of all commands. None catches by itself what ends here.

    Errors that nobody expected pass with their traceback: they are to be reported.
    """

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except WaystationError as error:
            raise fail(str(error), _exit_code(error)) from error
        except OSError as error:
            # Of a path that a person has chosen. A pipe that was closed is typer's own business.
            if error.filename is None or error.errno == errno.EPIPE:
                raise
            raise fail(f"{error.strerror}: {error.filename}", EXIT_MISCONFIGURED) from error


def fail(message: str, code: int = EXIT_FAILED) -> typer.Exit:
    """Says what is wrong, and returns what ends the command."""
    complain(message)
    return typer.Exit(code)


def leave(code: int | str | None) -> NoReturn:
    """Ends the process without Python's finalization.

    A thread of Temporal's client may still be delivering its last result, and doing so while Python finalizes
    aborts the process (seen in 3 of 100 runs against a closed port).
    """
    if isinstance(code, str):
        complain(code)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads it any more
            code = code or EXIT_FAILED
    os._exit(code if isinstance(code, int) else EXIT_FAILED if code else 0)


def _exit_code(error: WaystationError) -> int:
    same_again = isinstance(error, StartError) and not isinstance(error, NotNowError)
    return EXIT_MISCONFIGURED if same_again else EXIT_FAILED
