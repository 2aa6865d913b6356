"""A live transcript in the terminal; plain lines if the output is not one."""

import asyncio
import json
import time
from contextlib import suppress

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from waystation.client import Session
from waystation.client.transcript import Message
from waystation.models.base import JsonObject
from waystation.models.events import Event, EventType, Role
from waystation.models.questions import QuestionKind
from waystation.plain_text import clean_line, clean_lines, indented_lines
from waystation.rich_console import CleanConsole

_STYLES = {Role.USER: "cyan", Role.AGENT: "green", Role.OPERATOR: "magenta", Role.SYSTEM: "dim"}
_QUIET = frozenset(
    {
        EventType.MESSAGE_STARTED,
        EventType.MESSAGE_DELTA,
        EventType.MESSAGE_COMPLETED,
        EventType.MESSAGE_SUPERSEDED,
    }
)
REFRESH_SECONDS = 1 / 15
SAY_LOST_AFTER_SECONDS = 0.5
BORDER_COLUMNS = 4
BORDER_LINES = 2
MIN_LINES = 3


async def tail(session: Session, console: CleanConsole | None = None) -> None:
    """Prints what was said so far, then follows until the session is closed or the caller is cancelled."""
    console = console or CleanConsole()
    await session.load()
    if not console.is_terminal:
        view = _View(session, console)
        view.begin()
        async for event in session.events():
            view.take(event)
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        view = _View(session, console, live)
        refreshing = asyncio.create_task(view.keep_fresh(live))
        try:
            view.begin()
            async for event in session.events():
                view.take(event)
        finally:
            refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await refreshing
            # Unfinished messages vanish with the live display: print them as they are now.
            live.update(Group())
            view.leave()
    console.print(Text("The session is closed.", style="dim"))


class _View:
    """Finished messages, printed once, and unfinished ones below them."""

    def __init__(self, session: Session, console: CleanConsole, live: Live | None = None) -> None:
        self._session, self._console, self._live = session, console, live
        self._printed: set[str] = set()
        self._seen: dict[str, str] = {}
        self._changed = True
        self._last_connected = time.monotonic()
        self._lost = False

    def begin(self) -> None:
        """Prints what somebody who was there from the beginning has seen, in the same order."""
        transcript = self._session.transcript
        messages = [message for message in transcript if message.status != "streaming"]
        told: list[tuple[int, Event | Message]] = [(event.seq, event) for event in transcript.events]
        told += [(message.order or 0, message) for message in messages]
        for _, one in sorted(told, key=lambda entry: entry[0]):
            if isinstance(one, Event):
                self._tell(one)
            else:
                self._printed.add(one.id)
                self._finish(one, "")
        self.settle()

    def take(self, event: object) -> None:
        """Shows an event that the session has just received."""
        if isinstance(event, Event) and event.type not in _QUIET:
            self._tell(event)
        self.settle()

    def _tell(self, event: Event) -> None:
        self._print(self._line(event), soft_wrap=not self._console.is_terminal)

    def settle(self) -> None:
        """Prints finished messages, which scroll up; unfinished ones stay at the bottom and grow."""
        for message in self._session.transcript:
            if message.status == "streaming":
                self._seen[message.id] = message.text
            elif message.id not in self._printed:
                self._printed.add(message.id)
                self._finish(message, self._seen.pop(message.id, ""))
        self._changed = True

    def leave(self) -> None:
        """Prints unfinished messages."""
        for message in self._streaming():
            self._console.print(_panel(message, message.text + " …"))

    async def keep_fresh(self, live: Live) -> None:
        """Redraws unfinished messages, no more often than a person can see."""
        while True:
            if self._session.connected:
                self._last_connected = time.monotonic()
            lost = time.monotonic() - self._last_connected > SAY_LOST_AFTER_SECONDS
            if self._changed or lost != self._lost:
                self._changed, self._lost = False, lost
                live.update(self._growing(), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)

    def _finish(self, message: Message, seen: str) -> None:
        if message.status == "superseded":
            if seen:
                self._print_message(message, seen, note="superseded", style="dim strike")
        else:
            note = "withdrawn" if message.status == "withdrawn" else ""
            self._print_message(message, message.text, note=note)

    def _print_message(self, message: Message, text: str, *, note: str = "", style: str = "") -> None:
        if self._console.is_terminal:
            self._print(_panel(message, text, note=note, style=style))
        else:
            title = _title(message, note)
            self._print(Text(f"{title}: {indented_lines(text)}"), soft_wrap=True)

    def _print(self, renderable: RenderableType, *, soft_wrap: bool = False) -> None:
        # Printing redraws the live display below the printed text, so a message that has just finished must
        # no longer be in it.
        if self._live is not None:
            self._live.update(self._growing(), refresh=True)
        self._console.print(renderable, soft_wrap=soft_wrap)

    def _streaming(self) -> list[Message]:
        return [message for message in self._session.transcript if message.status == "streaming"]

    def _growing(self) -> RenderableType:
        streaming = self._streaming()
        lines = max(MIN_LINES, self._console.height // max(len(streaming), 1) - BORDER_LINES - 1)
        parts: list[RenderableType] = [_panel(message, self._end(message, lines)) for message in streaming]
        if self._lost:
            parts.append(Text("No connection; retrying …", style="bold red"))
        return Group(*parts)

    def _end(self, message: Message, lines: int) -> str:
        """Returns as much of the end as fits in the terminal: that is where the news is."""
        width = max(self._console.width - BORDER_COLUMNS, 1)
        text = clean_lines(message.text[-lines * width :])
        wrapped = Text(text).wrap(self._console, width)
        return "\n".join(line.plain for line in list(wrapped)[-lines:])

    def _line(self, event: Event) -> Text:
        short = self._console.is_terminal
        return Text(
            clean_line(f"{event.seq:>6}  {event.type}  {_words(event)}"),
            style="bold yellow" if event.type == EventType.INPUT_REQUESTED else "dim",
            overflow="ellipsis" if short else None,
            no_wrap=short,
        )


def _words(event: Event) -> str:
    """Says an event in one line: what is asked and answered in words, anything else by its data."""
    data: JsonObject = {key: value for key, value in event.data.items() if value is not None}
    question = data.get("question_id")
    match event.type:
        case EventType.INPUT_REQUESTED:
            return f"{question}: {data.get('prompt')}{_what_answers(data)}"
        case EventType.INPUT_ANSWERED:
            by = event.actor.name or event.actor.id
            return f"{question}: {json.dumps(data.get('value'), ensure_ascii=False)}, by {by}"
        case EventType.INPUT_EXPIRED:
            return f"{question}: nobody has answered in time"
        case EventType.INPUT_WITHDRAWN:
            return f"{question}: {data.get('reason', 'the agent no longer wants to know')}"
        case EventType.TURN_WAITING:
            awaited = data.get("waiting_for")
            return "for " + ", ".join(map(str, awaited if isinstance(awaited, list) else ()))
        case EventType.TURN_RESUMED:
            return f"attempt {data.get('attempt')}"
    return ", ".join(f"{key}={value}" for key, value in data.items())


def _what_answers(asked: JsonObject) -> str:
    choices = asked.get("choices")
    if isinstance(choices, list):
        return f" [{' | '.join(str(one.get('value')) for one in choices if isinstance(one, dict))}]"
    if asked.get("kind") == QuestionKind.APPROVAL:
        arguments = json.dumps(asked.get("arguments"), ensure_ascii=False, sort_keys=True)
        return f" {asked.get('tool')} {arguments}"
    return ""


def _panel(message: Message, text: str, *, note: str = "", style: str = "") -> Panel:
    return Panel(
        Text(clean_lines(text), style=style),
        title=Text(_title(message, note)),
        title_align="left",
        border_style=_STYLES.get(message.actor.role, "white"),
    )


def _title(message: Message, note: str) -> str:
    finish = str(message.data.get("finish") or "")
    kind = f" ({message.kind})" if message.kind != "message" else ""
    return clean_line(
        ", ".join(filter(None, ((message.actor.name or message.actor.id) + kind, finish, note)))
    )
