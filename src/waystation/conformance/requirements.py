"""What docs/ingest.md requires of both sides, by number. A test holds this list to the table there."""

from enum import StrEnum
from typing import Final, NamedTuple


class Level(StrEnum):
    """How much a requirement requires, in the words of RFC 2119."""

    MUST = "MUST"
    MUST_NOT = "MUST NOT"
    SHOULD = "SHOULD"
    SHOULD_NOT = "SHOULD NOT"

    @property
    def is_absolute(self) -> bool:
        """Whether an implementation that breaks it fails; breaking the others is only shown."""
        return self in (Level.MUST, Level.MUST_NOT)


class Requirement(NamedTuple):
    """One line of the specification."""

    id: str
    level: Level
    text: str


def _listed(*lines: tuple[str, str, str]) -> dict[str, Requirement]:
    return {number: Requirement(number, Level(level), text) for number, level, text in lines}


AGENT_SIDE: Final = _listed(
    ("A-01", "MUST", "connects to `/ingest` with `Authorization: Bearer <key>`"),
    ("A-02", "SHOULD", "uses one connection for all turns of a process"),
    ("A-03", "MUST", "sends one frame per text message: JSON, 4 MiB at most, with no fields but this page's"),
    ("A-04", "MUST", "connects again after a loss, and after a refused handshake, whatever its status"),
    ("A-05", "MUST", "pauses before connecting again, longer after each failure"),
    ("A-06", "MUST", "ignores frames and fields that it doesn't know, and writers that it doesn't have"),
    ("A-10", "MUST", "opens a writer with the input's session, turn, attempt, agent and `after`"),
    ("A-11", "MUST NOT", "writes or spawns before `opened` has come on this connection"),
    ("A-12", "MUST", "gives writers that are open at the same time different ids"),
    ("A-13", "MUST", "opens an attempt's writer under the same id on every connection"),
    ("A-14", "MUST", "gives another attempt of the turn another id"),
    ("A-15", "MUST", "after a `problem` with `retry`, opens the writer again, not without a pause"),
    ("A-16", "MUST", "ends the attempt after a `problem` for its writer without `retry` or `request`"),
    ("A-17", "MUST", "closes the writer when the attempt has ended"),
    ("A-20", "MUST", "numbers the items of a writer 1, 2, 3… without a gap"),
    ("A-21", "MUST NOT", "gives another item a number that was used"),
    ("A-22", "MUST", "writes items of types that agents may write, with what these need"),
    ("A-23", "MUST", "counts offsets in code points; a message's deltas follow one another without a gap"),
    ("A-24", "MUST", "gives each message an id that no other in the session has, whatever its attempt"),
    ("A-25", "SHOULD", "completes its messages before the turn ends as completed"),
    ("A-26", "SHOULD", "writes text as it is made"),
    ("A-27", "MUST", "reports the end of each tool call, once, with the same `call_id` and `name`"),
    ("A-30", "MUST", "sends everything that isn't settled again after a reconnect, in order"),
    ("A-31", "SHOULD NOT", "sends again what was acknowledged"),
    ("A-32", "MUST NOT", "sends again what was refused"),
    ("A-33", "MUST", "ends the attempt also if something was refused"),
    ("A-34", "MUST NOT", "completes the activity before everything it wrote is settled"),
    ("A-35", "SHOULD", "sets `flush` on the last write that it waits for"),
    ("A-36", "MUST", "waits while 4 MiB of a writer are not settled, and goes on once they are"),
    ("A-40", "MUST", "on `stop` ends within 2 s and returns `stopped`, having made durable what it wrote"),
    ("A-41", "MUST NOT", "writes anything new after a `stop` but the end of what is open"),
    ("A-42", "MUST", "applies a frame to the turn of its `writer` alone"),
    ("A-43", "MUST", "on `fenced` writes nothing more with the writer, and ends the attempt"),
    ("A-44", "MUST", "takes up a steer at most once, though its frame may come again"),
    ("A-50", "MUST", "names its own turn and attempt in `spawn`"),
    ("A-51", "SHOULD", "lets everything it wrote be settled before it spawns"),
    ("A-52", "MUST", "sends an unanswered `spawn` again after a reconnect, with the same `key`"),
    ("A-53", "MUST", "waits for a sub-agent's `finished`, and takes its result"),
    ("T-01", "MUST", "takes activities `run_turn` from the task queue `waystation-agent-<name>`"),
    ("T-02", "MUST", "ignores fields of the input that it doesn't know"),
    ("T-03", "MUST", "returns `{\"outcome\": \"completed\", \"result\": …}` as JSON (`json/plain`)"),
    ("T-04", "MUST", "heartbeats within the activity's heartbeat timeout, whatever the turn does"),
    ("T-05", "MUST", "ends when Temporal cancels the activity, without a `stop` too"),
    ("T-06", "MUST", "fails the activity if the turn fails, with a message, and a type of its own"),
    ("T-07", "MUST", "fails it with the type `RetryTurn` to have the turn tried again"),
    ("T-08", "SHOULD", "on SIGTERM fails what runs with the type `WorkerShutdown`, and exits within 15 s"),
    ("T-09", "MUST", "decrypts its input and encrypts its result, where there are encryption keys"),
    ("T-10", "SHOULD", "makes durable what it wrote before it fails the activity"),
    ("T-11", "SHOULD", "runs several turns at the same time"),
)  # fmt: skip
"""What an implementation of agents must do: A on the socket, T towards Temporal."""
