"""A console of ``rich`` through which no foreign text can command the terminal."""

from collections.abc import Iterable
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from waystation.plain_text import clean_lines


class CleanConsole(Console):
    """A console that cleans every text it prints, however deep it is in panels and tables.

    Square brackets and colons have no meaning in text. Where a text's width matters, or it must be one line,
    clean it before it is laid out.
    """

    def __init__(
        self,
        *,
        file: IO[str] | None = None,
        force_terminal: bool | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        super().__init__(
            file=file,
            force_terminal=force_terminal,
            width=width,
            height=height,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders as ``Console`` does. Segments that are commands come from ``rich`` alone."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean_lines(segment.text))
