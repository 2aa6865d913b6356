"""The only way to a terminal: everything that commands print goes through here, cleaned for it.

Text for ``rich`` goes through ``waystation.rich_console``, which does the same.
"""

import io
import sys
import traceback
from types import TracebackType

import typer
from pydantic import BaseModel

from waystation.plain_text import ascii_json, clean_line, escaped_json, indented_lines
from waystation.redaction import install_redaction, redact


def prepare_terminal() -> None:
    """Prepares for text of any kind; to be called once, when a command begins.

    What the encoding of standard output and error lacks is written as "?" instead of failing. Log records and
    the tracebacks of errors that nobody catches are cleaned, too.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    install_redaction()
    sys.excepthook = _print_uncaught


def _print_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    complain(redact("".join(traceback.format_exception(kind, error, where)).rstrip()))


def say(line: str = "") -> None:
    """Prints one line; line ends within it become spaces."""
    typer.echo(clean_line(line))


def complain(message: str) -> None:
    """Prints an error. Its further lines are indented."""
    typer.echo(f"waystation: {indented_lines(message)}", err=True)


def say_model(model: BaseModel, *, indent: int | None = 2) -> None:
    """Prints a model as JSON, without what is ``None``."""
    say_json(model.model_dump_json(indent=indent, exclude_none=True))


def say_json(document: str) -> None:
    r"""Prints the same JSON document, with what a terminal must not get written as ``\uXXXX``."""
    document = escaped_json(document)
    try:
        document.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        document = ascii_json(document)
    typer.echo(document)


def confirm(question: str) -> None:
    """Asks, and ends the command unless the answer is yes."""
    typer.confirm(clean_line(question), abort=True)
