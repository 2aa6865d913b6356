"""What an earlier attempt of a turn has told, and this one tells again: it isn't shown twice. Pure.

A turn that is tried again runs from its top. What it writes is matched with what stands in the log, each
thing with one of its kind that is equal and not yet matched; only what differs is written.

After a park it must come back to where it waited: until then, anything that wasn't told before shows that
its code takes another way, and the turn fails rather than doubles what it did.
"""

import json
from collections.abc import Collection
from typing import Final

from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, to_json

from waystation.agent.told import Told, ToldCall, ToldMessage
from waystation.errors import WaystationError
from waystation.surrogates import mend_json

MAX_QUOTED_CHARACTERS: Final = 120
MAX_NAMED: Final = 3
_HINT: Final = "What differs from run to run (a model's answer, the time) belongs into turn.step."


class TurnDiverged(WaystationError):
    """A turn that goes on after waiting has not come back to where it waited: its code took another way."""


class HeldMessage:
    """A message that has begun as one that was told: held back as long as it may be the same."""

    def __init__(self, retelling: "Retelling", data: dict[str, JsonValue]) -> None:
        self.text = ""
        self._retelling, self._data = retelling, data

    def add(self, text: str) -> bool:
        """Takes more text; returns whether it is still held. If not, ``text`` has what came before.

        Raises:
            TurnDiverged: It differs where nothing may.
        """
        if any(told.text.startswith(self.text + text) for told in self._retelling.alike(self._data)):
            self.text += text
            return True
        self._retelling.differs(f"a message that goes on with {_quoted(text)}")
        return False

    def complete(self, **more: JsonValue) -> bool:
        """Returns whether the whole message was told before; then nothing of it is written.

        Raises:
            TurnDiverged: It wasn't, where that must not be.
        """
        for told in self._retelling.alike(self._data):
            if (told.text, told.data) == (self.text, {**self._data, **more}):
                self._retelling.forget(told)
                return True
        self._retelling.differs(f"a message that ends with {_quoted(self.text[-MAX_QUOTED_CHARACTERS:])}")
        return False


class HeldCall:
    """A tool call that has begun as one that was told: held back until it ends, for it may end alike."""

    def __init__(self, retelling: "Retelling", name: str, arguments: JsonValue, kind: str | None) -> None:
        self._retelling, self._name = retelling, name
        self._identity = _identity(name, arguments, kind)

    def alike(self) -> list[ToldCall]:
        """Returns the calls that this one may be."""
        return self._retelling.calls_like(self._identity)

    def open_one(self) -> ToldCall | None:
        """Returns the one whose end is missing, if there is no other that this one may be."""
        alike = self.alike()
        if not alike or any(told.ended for told in alike):
            return None
        self._retelling.forget_call(alike[0])
        return alike[0]

    def ends(self, result: JsonValue = None, error: str | None = None) -> ToldCall | None:
        """Returns the call that has ended alike, else one whose end is missing; ``None`` if this one is new.

        Raises:
            TurnDiverged: It is, where that must not be.
        """
        end = (canonical(result), error)
        alike = self.alike()
        same = [told for told in alike if told.ended and (canonical(told.result), told.error) == end]
        for told in same or [told for told in alike if not told.ended]:
            self._retelling.forget_call(told)
            return told
        self._retelling.differs(
            f"another result of {self._name!r}" if error is None else f"a failure of {self._name!r}"
        )
        return None


class Retelling:
    """What is left of what earlier attempts have told."""

    def __init__(self, told: Told, waited_for: Collection[str] = ()) -> None:
        """``waited_for``: what the attempt before was parked for; empty if it wasn't."""
        self._messages: list[ToldMessage] | None = list(told.messages)
        self._calls = list(told.calls.values())
        self._events = [(name, canonical(data)) for name, data in told.events]
        self._asked, self._spawned = told.asked, told.spawned
        self._waited_for = frozenset(waited_for)
        self.diverged: TurnDiverged | None = None
        """Why the turn fails, whatever its code does with the exception."""

    @property
    def _is_strict(self) -> bool:
        return bool(self._waited_for)

    # Messages

    def message(self, data: dict[str, JsonValue]) -> HeldMessage | None:
        """Returns a new message to be held back; ``None`` if nothing like it was told.

        Raises:
            TurnDiverged: Nothing like it was told, where something must have been.
        """
        if self._messages is None:
            return None
        if not self.alike(data):
            kind = data.get("kind")
            self.differs("a message" if kind is None else f"a message of kind {kind!r}")
            return None
        return HeldMessage(self, data)

    def alike(self, data: dict[str, JsonValue]) -> list[ToldMessage]:
        """Returns the messages with this data that are left, also those that were cut off."""
        return [told for told in self._messages or () if _begun_with(told) == data]

    def forget(self, told: ToldMessage) -> None:
        """Counts a message as told again."""
        if self._messages is not None:
            self._messages.remove(told)

    def leave_messages(self) -> None:
        """Compares no messages any more: the turn's code does it."""
        self._messages = None

    # Calls of tools, events, questions and sub-agents

    def call(self, name: str, arguments: JsonValue, kind: str | None) -> "HeldCall | None":
        """Returns a new call to be held back; ``None`` if none with this name and these arguments was told.

        Raises:
            TurnDiverged: None was, where one must have been.
        """
        call = HeldCall(self, name, arguments, kind)
        if call.alike():
            return call
        self.differs(f"a call of {name!r} with {_quoted(canonical(arguments))}")
        return None

    def calls_like(self, identity: str) -> list[ToldCall]:
        """Returns the calls with this name, these arguments and this kind that are left, in order."""
        return [told for told in self._calls if _identity(told.name, told.arguments, told.kind) == identity]

    def forget_call(self, told: ToldCall) -> None:
        """Counts a call as told again."""
        self._calls.remove(told)

    def event(self, name: str, data: dict[str, JsonValue]) -> bool:
        """Returns whether an event of the agent's own was told before.

        Raises:
            TurnDiverged: It wasn't, where that must not be.
        """
        event = (name, canonical(data))
        if event in self._events:
            self._events.remove(event)
            return True
        self.differs(f"the event {name!r} with {_quoted(event[1])}")
        return False

    def asks(self, question_id: str, prompt: str) -> None:
        """Takes a question for one of those that the turn waited for, or that it had asked before.

        Raises:
            TurnDiverged: It is another one, where none may be.
        """
        self.reached(question_id)
        if question_id not in self._asked:
            self.differs(f"the question {_quoted(prompt)}, and no key says that it is the same as before")

    def spawns(self, key: str) -> None:
        """Takes a sub-agent for one that was spawned before.

        Raises:
            TurnDiverged: It wasn't, where that must not be.
        """
        if key not in self._spawned:
            self.differs(f"a sub-agent with the key {_quoted(key)}")

    # Going on after a park

    def reached(self, wait_id: str) -> None:
        """Ends the strictness if this is what the turn waited for."""
        if wait_id in self._waited_for:
            self._waited_for = frozenset()

    def returns(self) -> None:
        """The turn's function has returned.

        Raises:
            TurnDiverged: It has not come back to where the turn waited, or has taken another way before.
        """
        if self.diverged:
            raise self.diverged
        self.differs("its end")

    def differs(self, now: str) -> None:
        """Says that ``now`` was not told before: it is simply new, unless the turn goes on after a park.

        Raises:
            TurnDiverged: It does, and hasn't come back to where it waited.
        """
        if not self._is_strict:
            return
        named = sorted(self._waited_for)
        beyond = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
        waited_for = ", ".join(named[:MAX_NAMED]) + beyond
        diverged = TurnDiverged(
            f"The turn waited for {waited_for}, and on its way back there now comes {now}; "
            f"{self._expected()}. {_HINT}"
        )
        self.diverged = self.diverged or diverged
        raise diverged

    def _expected(self) -> str:
        left = [f"a message that begins with {_quoted(told.text)}" for told in self._messages or ()]
        left += [f"a call of {told.name!r}" for told in self._calls]
        left += [f"the event {name!r}" for name, _ in self._events]
        return (
            f"what was told before and not yet again: {'; '.join(left[:MAX_NAMED])}"
            if left
            else ("all that was told before has come already")
        )


def _begun_with(told: ToldMessage) -> dict[str, JsonValue]:
    return {key: value for key, value in told.data.items() if key != "finish"}


def _identity(name: str, arguments: JsonValue, kind: str | None) -> str:
    return canonical([name, arguments, kind])


def canonical(value: object) -> str:
    """Returns a text that is the same for the same JSON; of what is no JSON, one that no JSON has."""
    try:
        written = json.loads(to_json(mend_json(value), inf_nan_mode="null"))  # type: ignore[arg-type]
    except (PydanticSerializationError, ValueError):
        return f"no JSON: {id(value)}"
    return json.dumps(written, sort_keys=True)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= MAX_QUOTED_CHARACTERS else text[:MAX_QUOTED_CHARACTERS] + "…")
