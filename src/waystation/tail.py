"""A live transcript in the terminal."""

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from waystation.client import Session
from waystation.models.events import Event, EventType, Role
from waystation.transcript import Message

_STYLES = {Role.USER: "cyan", Role.AGENT: "green", Role.OPERATOR: "magenta", Role.SYSTEM: "dim"}
_QUIET = frozenset({EventType.MESSAGE_STARTED, EventType.MESSAGE_DELTA, EventType.MESSAGE_COMPLETED})
MAX_REFRESHES_PER_SECOND = 15


async def tail(session: Session, console: Console | None = None) -> None:
    """Prints what was said, then follows until the session is closed."""
    console = console or Console()
    printed: set[str] = set()
    await session.load()
    with Live(console=console, refresh_per_second=MAX_REFRESHES_PER_SECOND, transient=True) as live:
        _show(session, console, live, printed)
        async for event in session.events():
            if isinstance(event, Event) and event.type not in _QUIET:
                console.print(_line(event))
            _show(session, console, live, printed)
    console.print(Text("The session is closed.", style="dim"))


def _show(session: Session, console: Console, live: Live, printed: set[str]) -> None:
    """Finished messages scroll up; those being written stay at the bottom and grow."""
    streaming: list[Message] = []
    for message in session.transcript:
        if message.status == "streaming":
            streaming.append(message)
        elif message.id not in printed:
            printed.add(message.id)
            if message.status == "completed":
                console.print(_panel(message))
    live.update(Group(*(_panel(message) for message in streaming)))


def _panel(message: Message) -> Panel:
    title = message.actor.name or message.actor.id
    if message.kind != "message":
        title += f" ({message.kind})"
    if finish := message.data.get("finish"):
        title += f", {finish}"
    style = _STYLES.get(message.actor.role, "white")
    return Panel(Text(message.text), title=Text(title), title_align="left", border_style=style)


def _line(event: Event) -> Text:
    details = {key: value for key, value in event.data.items() if value is not None}
    shown = ", ".join(f"{key}={value}" for key, value in details.items())
    return Text(f"{event.seq:>6}  {event.type}  {shown}", style="dim", overflow="ellipsis", no_wrap=True)
