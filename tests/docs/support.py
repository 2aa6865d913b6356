"""Reading the documentation as a test does."""

import re
from pathlib import Path

from tests.support import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text()


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    """Fenced code of a language, without the fence's indentation."""
    return [
        "".join(line[len(indent) :] if line.strip() else line for line in code.splitlines(keepends=True))
        for indent, kind, code in _FENCE.findall(text)
        if kind == language
    ]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    lines = (line.strip() for line in text.splitlines())
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in lines
        if line.startswith("|")
    ]


def first_codes(text: str) -> set[str]:
    """Everything in code style in the first cell of a table row."""
    return {code for cells in rows(text) for code in re.findall(r"`([^`]+)`", cells[0])}
