"""What a turn shows of its tool calls and steps: each call, and its end whatever happens."""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from pydantic import JsonValue

from waystation.agent.brief import brief
from waystation.agent.retelling import HeldCall, Retelling, TurnDiverged
from waystation.agent.told import Told
from waystation.agent.writer import Writer
from waystation.errors import WaystationError, WriteRefused
from waystation.models.events import EventType, Visibility
from waystation.models.refusals import MAX_OPEN_TOOLS, REASONS, RefusalCode

STEP_KIND: Final = "step"
"""The ``kind`` of a ``tool.called`` that is a step of the agent's own code, and no tool of a model's."""


@dataclass
class ToolCalls:
    """The calls of one attempt of a turn that are shown."""

    writer: Writer
    end_message: Callable[[], Awaitable[None]]
    """Completes the message that is open: what was said before a call stands before it."""
    retelling: Retelling
    open: int = field(default=0, init=False)

    async def tell(
        self,
        call_id: str,
        name: str,
        arguments: JsonValue,
        kind: str | None,
        visibility: Visibility | None = None,
    ) -> "OpenCall":
        """Shows a tool call, unless an earlier attempt has shown it.

        One that has ended there is held back until it ends here: if it ends alike, nothing is shown. One
        whose end is missing gets it.

        Raises:
            ValueError: It can't be shown.
            WriteRefused: 200 calls of this turn are open already, or something written earlier was refused.
            TurnDiverged: It wasn't shown before, where it must have been.
        """
        more: dict[str, JsonValue] = {"arguments": arguments, **({"kind": kind} if kind else {})}
        await self.end_message()
        self.check_room()
        held = self.retelling.call(name, arguments, kind)
        if held is None:
            return await self.begin(call_id, name, visibility=visibility, **more)
        if (left_open := held.open_one()) is not None:
            return self.opened(left_open.id, name)
        call = self.opened(call_id, name)
        call.held, call.more, call.visibility = held, more, visibility
        return call

    async def begin(
        self, call_id: str, name: str, *, visibility: Visibility | None = None, **more: JsonValue
    ) -> "OpenCall":
        """Shows a call.

        Raises:
            ValueError: It can't be shown.
            WriteRefused: 200 calls of this turn are open already, or something written earlier was refused.
        """
        await self.end_message()
        self.check_room()
        data: dict[str, JsonValue] = {"call_id": call_id, "name": name, **more}
        await self.writer.write(EventType.TOOL_CALLED, data, visibility=visibility)
        return self.opened(call_id, name)

    def check_room(self) -> None:
        """Raises ``WriteRefused`` if 200 calls are open."""
        if self.open >= MAX_OPEN_TOOLS:
            # The session would say the same, but only after its author has gone on for a while.
            raise WriteRefused(409, RefusalCode.TOO_MANY_TOOLS, REASONS[RefusalCode.TOO_MANY_TOOLS])

    def opened(self, call_id: str, name: str) -> "OpenCall":
        """Returns a call that the session shows already."""
        self.open += 1
        return OpenCall(self, {"call_id": call_id, "name": name})


@dataclass
class OpenCall:
    """A call that is shown, and whose end isn't."""

    calls: ToolCalls
    shown: dict[str, JsonValue]
    held: HeldCall | None = None
    """What may be the same call of an earlier attempt: then this one isn't shown yet."""
    more: dict[str, JsonValue] = field(default_factory=dict)
    visibility: Visibility | None = None
    """Of a call that isn't shown yet. What comes of a call is seen by whoever sees the call."""

    async def end(self, **result: JsonValue) -> None:
        """Shows that it has returned.

        Raises:
            TurnDiverged: It has returned something else than before, where that must not be.
        """
        if self.held is not None:
            told = self.held.ends(result.get("result"))
            self.held = None
            if told and told.ended:
                return
            if told:
                self.shown["call_id"] = told.id
            else:
                await self.calls.writer.write(
                    EventType.TOOL_CALLED,
                    {**self.shown, **self.more},
                    closes=True,
                    visibility=self.visibility,
                )
        await self.calls.writer.write(EventType.TOOL_RETURNED, {**self.shown, **result}, closes=True)

    def fail(self, error: BaseException) -> None:
        """Shows how it failed: by a timeout or a stop as well, or since its result can't be written."""
        with contextlib.suppress(WaystationError):
            if self.held is not None:
                try:
                    told = self.held.ends(error=brief(error))
                except TurnDiverged:
                    return  # the turn fails by it, at the end of its code at the latest
                self.held = None
                if told and told.ended:
                    return
                if told:
                    self.shown["call_id"] = told.id
                else:
                    self.calls.writer.put(
                        EventType.TOOL_CALLED, {**self.shown, **self.more}, visibility=self.visibility
                    )
            self.calls.writer.put(EventType.TOOL_RETURNED, {**self.shown, "error": brief(error)})

    def close(self) -> None:
        """Counts it as ended."""
        self.calls.open -= 1


@dataclass
class ShownStep:
    """A step that is shown as a call of the kind ``step``, without its result."""

    calls: ToolCalls
    call_id: str
    title: str
    told: Told
    _open: OpenCall | None = field(default=None, init=False)

    async def begun(self) -> None:
        """Shows that it runs."""
        self._open = await self.calls.begin(self.call_id, self.title, kind=STEP_KIND)

    async def ended(self, error: BaseException | None = None) -> None:
        """Shows how it has ended; nothing, if not even its begin could be shown."""
        if self._open is None:
            return
        try:
            if error is None:
                await self._open.end()
            else:
                self._open.fail(error)
        finally:
            self._open.close()

    async def remembered(self) -> None:
        """Shows nothing, unless its end was cut off, or nothing of it had come through: it is done.

        It ends the open message all the same, as it did when it ran: what is said after it is another one.
        """
        await self.calls.end_message()
        told = self.told.calls.pop(self.call_id, None)
        if told and told.ended and told.error is None:
            return
        if told and not told.ended:
            self._open = self.calls.opened(self.call_id, self.title)
        else:
            await self.begun()
        await self.ended()
