"""What a person sees in the demo: two devices side by side, or plain lines without a terminal."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from waystation.client.transcript import Message
from waystation.demo.devices import Device
from waystation.models.events import Event, EventType, Role
from waystation.plain_text import clean_line, clean_lines
from waystation.rich_console import CleanConsole

COLOURS = {Role.USER: "cyan", Role.AGENT: "green", Role.OPERATOR: "magenta", Role.SYSTEM: "white"}
SUB_AGENT_COLOUR = "yellow"
MAX_PANE_LINES = 14
MIN_PANE_LINES = 6
MIN_PANE_COLUMNS = 10
OTHER_LINES = 8
"""Terminal lines that the chapter's heading and news need."""
BORDER_COLUMNS = 4
PLAIN_PROGRESS_CHARACTERS = 100
"""Without a terminal, progress is printed each time an answer has grown by this much."""


class Screen:
    """Prints chapters, news, devices and checks; counts failed checks."""

    def __init__(self, console: CleanConsole) -> None:
        self._console = console
        self._checks: list[tuple[bool, str]] = []
        self._told = 0
        self.passed = self.failed = 0

    # Words

    def opening(self) -> None:
        """Prints what is about to happen."""
        self._console.print(
            Text.assemble(
                ("Waystation", "bold"),
                ": durable sessions, and agents that pay. Starting everything on this machine …",
            )
        )

    def begin_chapter(self, number: int, of: int, title: str, about: str) -> None:
        """Prints a heading, and what to look for."""
        self._told = 0
        self._console.print()
        self._console.print(Rule(Text(f"{number} of {of}  {title}", style="bold"), align="left"))
        self._console.print(Text(about, style="dim"))

    def say(self, news: str) -> None:
        """Prints something that has just happened."""
        self._console.print(Text.assemble(("▸ ", "bold blue"), clean_line(news)))

    def address(self, words: str, url: str) -> None:
        """Prints a URL on its own line, unbroken, so that it can be copied."""
        self.say(words)
        self._console.print(Text(f"  {url}"), soft_wrap=True)

    def check(self, holds: bool, claim: str, details: Sequence[str] = ()) -> None:
        """Records a claim and whether it holds; printed when the chapter ends."""
        self._checks.append((holds, clean_line(claim)))
        self._checks += [(holds, f"  {detail}") for detail in details]
        self.passed += holds
        self.failed += not holds

    def end_chapter(self) -> None:
        """Prints the chapter's checks."""
        for holds, claim in self._checks:
            mark = ("✓ ", "bold green") if holds else ("✗ ", "bold red")
            self._console.print(Text.assemble(mark, claim))
        self._checks.clear()

    def closing(self, seconds: float, kept: Path | None) -> None:
        """Prints the result, and what to try next."""
        self.end_chapter()
        self._console.print()
        if kept:
            self._console.print(Text(f"{self.failed} of the claims did not hold.", style="bold red"))
            self._console.print(f"The processes' logs are in {kept / 'logs'}.")
            return
        self._console.print(
            Text.assemble(
                (f"All {self.passed} claims held", "bold green"),
                f", in {seconds:.0f} s. Try it yourself: ",
                ("make dev", "bold"),
                " runs all of this until you stop it.",
            )
        )

    # Devices

    @contextmanager
    def live(
        self, devices: Sequence[Device], connected: Callable[[Device], bool]
    ) -> Iterator[Callable[[], None]]:
        """Shows devices side by side; yields the function that redraws them."""
        if not self._console.is_terminal:
            yield lambda: self._tell(devices)
            for line in devices[0].page:
                if isinstance(line, Message) and _worth_a_line(line):
                    self._console.print(Text(f"  {_name(line)}: {_shown(line, devices[0]).plain}"))
            return
        with Live(console=self._console, auto_refresh=False) as live:
            yield lambda: live.update(self._side_by_side(devices, connected), refresh=True)

    def _tell(self, devices: Sequence[Device]) -> None:
        lengths = [
            sum(
                len(line.text)
                for line in device.page
                if isinstance(line, Message) and line.actor.role == Role.AGENT
            )
            for device in devices
        ]
        if max(lengths) - self._told >= PLAIN_PROGRESS_CHARACTERS:
            self._told = max(lengths)
            told = ", ".join(
                f"{device.name} {length}" for device, length in zip(devices, lengths, strict=True)
            )
            self._console.print(f"  characters of the answer: {told}")

    def _side_by_side(self, devices: Sequence[Device], connected: Callable[[Device], bool]) -> Table:
        most = max(MIN_PANE_LINES, min(MAX_PANE_LINES, self._console.height - OTHER_LINES))
        width = max(self._console.width // len(devices) - BORDER_COLUMNS, MIN_PANE_COLUMNS)
        contents = [self._content(device, width)[-most:] for device in devices]
        height = max(MIN_PANE_LINES, *map(len, contents))
        grid = Table.grid(expand=True)
        for _ in devices:
            grid.add_column(ratio=1)
        grid.add_row(
            *(
                _pane(device, connected(device), content + [Text()] * (height - len(content)))
                for device, content in zip(devices, contents, strict=True)
            )
        )
        return grid

    def _content(self, device: Device, width: int) -> list[Text]:
        lines = [_line(line, device) for line in device.page if _worth_a_line(line)]
        return list(Text("\n").join(lines).wrap(self._console, width)) if lines else []


def _pane(device: Device, connected: bool, lines: list[Text]) -> Panel:
    state = f"event {device.session.transcript.cursor}" if connected else "no connection"
    return Panel(
        Group(*lines),
        title=Text(device.name),
        subtitle=Text(state, style="dim" if connected else "bold red"),
        title_align="left",
        subtitle_align="right",
        border_style="blue" if connected else "red",
    )


_NEWS: dict[str, Callable[[Event], str]] = {
    EventType.TURN_QUEUED: lambda event: "waits its turn",
    EventType.TURN_STOPPED: lambda event: f"■ stopped, event {event.seq}",
    EventType.TURN_FAILED: lambda event: f"failed: {event.data.get('detail')}",
    EventType.TURN_RETRIED: lambda event: f"↻ attempt {event.data.get('attempt')}: {event.data.get('code')}",
    EventType.STOP_REQUESTED: lambda event: f"■ {_who(event)} presses stop",
    EventType.STEER_RECEIVED: lambda event: f"↪ {_who(event)}: {event.data.get('text')}",
    EventType.STEER_CONSUMED: lambda event: f"↪ taken by {_who(event)}",
    EventType.TAKEOVER_STARTED: lambda event: f"☎ {_who(event)} takes over",
    EventType.TAKEOVER_RELEASED: lambda event: f"☎ {_who(event)} hands back",
    EventType.SESSION_CLOSED: lambda event: f"{_who(event)} has closed the session",
    EventType.AGENT_SPAWNED: lambda event: f"⑂ {_who(event)} starts a {event.data.get('agent')}",
}


def _who(event: Event) -> str:
    return event.actor.name or event.actor.id


def _name(message: Message) -> str:
    return clean_line(message.actor.name or message.actor.id)


def _worth_a_line(line: Message | Event) -> bool:
    return line.kind != "steer" if isinstance(line, Message) else line.type in _NEWS


def _line(line: Message | Event, device: Device) -> Text:
    if isinstance(line, Event):
        return Text(clean_line(_NEWS[line.type](line)), style="dim italic")
    return Text.assemble((f"{_name(line)}  ", f"bold {_colour(line)}"), _shown(line, device))


def _colour(message: Message) -> str:
    if message.turn_id and "." in message.turn_id:
        return SUB_AGENT_COLOUR
    return COLOURS.get(message.actor.role, "white")


def _shown(message: Message, device: Device) -> Text:
    if message.status == "superseded":
        return Text(clean_lines(device.superseded.get(message.id, "")) + " (superseded)", style="dim strike")
    cursor = "▌" if message.status == "streaming" else ""
    return Text(clean_lines(message.text) + cursor)
