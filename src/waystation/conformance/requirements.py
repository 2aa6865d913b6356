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
    ("A-01", "MUST", "connect to `/ingest` with `Authorization: Bearer <key>`"),
    ("A-02", "SHOULD", "use one connection for all turns of a process"),
    ("A-03", "MUST", "send one frame per text message: JSON, 4 MiB at most, with this page's fields alone"),
    ("A-04", "MUST", "connect again after a loss, and after a refused handshake, whatever its status"),
    ("A-05", "MUST", "pause before connecting again, longer after each failure"),
    ("A-06", "MUST", "ignore frames and fields that it doesn't know, and writers that it doesn't have"),
    ("A-10", "MUST", "open a writer with the input's session, turn, attempt, agent and `after`"),
    ("A-11", "MUST NOT", "write or spawn before `opened` has come on this connection"),
    ("A-12", "MUST", "give writers that are open at the same time different ids"),
    ("A-13", "MUST", "open an attempt's writer under the same id on every connection"),
    ("A-14", "MUST", "give another attempt of the turn another id"),
    ("A-15", "MUST", "open the writer again after a `problem` with `retry`, not without a pause"),
    ("A-16", "MUST", "end the attempt after a `problem` for its writer without `retry` or `request`"),
    ("A-17", "MUST", "close the writer when the attempt has ended"),
    ("A-20", "MUST", "number the items of a writer 1, 2, 3… without a gap"),
    ("A-21", "MUST NOT", "give another item a number that was used"),
    ("A-22", "MUST", "write items of types that agents may write, with what these need"),
    ("A-23", "MUST", "count offsets in code points, and let a message's deltas follow one another"),
    ("A-24", "MUST", "give each message an id that no other in the session has, of any attempt"),
    ("A-25", "SHOULD", "complete its messages before the turn ends as completed"),
    ("A-26", "SHOULD", "write text as it is made"),
    ("A-27", "MUST", "report the end of each tool call, once, with the same `call_id` and `name`"),
    ("A-30", "MUST", "send everything that isn't settled again after a reconnect, in order"),
    ("A-31", "SHOULD NOT", "send again what was acknowledged"),
    ("A-32", "MUST NOT", "send again what was refused"),
    ("A-33", "MUST", "end the attempt also if something was refused"),
    ("A-34", "MUST NOT", "complete the activity before everything it wrote is settled"),
    ("A-35", "SHOULD", "set `flush` on the last write, for which it waits"),
    ("A-36", "MUST", "wait while 4 MiB of a writer are not settled, and go on once they are"),
    ("A-40", "MUST", "end within 2 s of a `stop`, with all it wrote settled, and return `stopped`"),
    ("A-41", "MUST NOT", "write anything new after a `stop` but the end of what is open"),
    ("A-42", "MUST", "apply a frame to the turn of its `writer` alone"),
    ("A-43", "MUST", "write nothing more with a writer after `fenced`, and end the attempt"),
    ("A-44", "MUST", "take up a steer at most once, though its frame may come again"),
    ("A-50", "MUST", "name its own turn and attempt in `spawn`"),
    ("A-51", "SHOULD", "let everything it wrote be settled before it spawns"),
    ("A-52", "MUST", "send an unanswered `spawn` again after a reconnect, with the same `key`"),
    ("A-53", "MUST", "wait for a sub-agent's `finished`, and take its result"),
    ("A-60", "MUST", "ask again under the same id what an earlier attempt has asked"),
    ("A-61", "MUST", "take the answer of its own question from `answered`, though it may come again"),
    ("A-62", "MUST NOT", "return `waiting` without `park_after_seconds`, nor earlier than that"),
    ("A-63", "MUST", "return what it waits for as `waiting_for`, with all it wrote settled"),
    ("A-64", "SHOULD", "return `waiting` when it has done nothing but wait for `park_after_seconds`"),
    ("T-01", "MUST", "take activities `run_turn` from the task queue `waystation-agent-<name>`"),
    ("T-02", "MUST", "ignore fields of the input that it doesn't know"),
    ("T-03", "MUST", "return `outcome` and `result` as a JSON object (`json/plain`)"),
    ("T-04", "MUST", "heartbeat within the activity's heartbeat timeout, whatever the turn does"),
    ("T-05", "MUST", "end when Temporal cancels the activity, without a `stop` too"),
    ("T-06", "MUST", "fail the activity if the turn fails, with a message, and a type of its own"),
    ("T-07", "MUST", "fail it with the type `RetryTurn` to have the turn tried again"),
    ("T-08", "SHOULD", "fail what runs with the type `WorkerShutdown` on SIGTERM, and exit within 15 s"),
    ("T-09", "MUST", "decrypt its input and encrypt its result, where there are encryption keys"),
    ("T-10", "SHOULD", "let what it wrote be settled before it fails the activity, for up to a second"),
    ("T-11", "SHOULD", "run several turns at the same time"),
)  # fmt: skip
"""What an agent's process must do: A on the socket, T towards Temporal."""

API_SIDE: Final = _listed(
    ("S-01", "MUST", "refuse the connection of those who may not write as agents"),
    ("S-02", "MUST", "send text messages, each a JSON list of frames, each with an `op` of this page"),
    ("S-03", "MUST", "answer `open` with `opened`"),
    ("S-04", "MUST", "answer what is no frame with the problem `bad-frame`, and go on"),
    ("S-05", "MUST", "answer a frame of more than 4 MiB with the problem `frame-too-large`, and go on"),
    ("S-06", "MUST", "close the connection with 1003 after a binary message"),
    ("S-07", "MUST", "answer a `write` without `open` with the problem `writer-not-open`"),
    ("S-08", "MUST", "answer `open` for an unknown session with the problem `unknown-session`"),
    ("S-09", "MUST", "answer `open` of an actor who is no agent with the problem `bad-actor`"),
    ("S-10", "MUST NOT", "acknowledge what the session's replay doesn't have"),
    ("S-11", "MUST", "settle within 10 s what was written with `flush`"),
    ("S-12", "MUST NOT", "record twice what comes twice, on the same connection or another"),
    ("S-13", "MUST", "settle again what comes again"),
    ("S-14", "MUST", "name what it refuses in `refused`, with `code` and `detail`"),
    ("S-15", "MUST", "record the neighbours of what it refuses"),
    ("S-16", "MUST NOT", "acknowledge up to an item that it refused"),
    ("S-17", "MUST", "take text by its offset: what the message has already counts once"),
    ("S-20", "MUST", "refuse a type that agents can't write: `bad-type`"),
    ("S-21", "MUST", "refuse a delta with more than offset and text: `bad-delta`"),
    ("S-22", "MUST", "refuse an item without what its type needs: `bad-item`"),
    ("S-23", "MUST", "refuse NaN: `invalid`"),
    ("S-24", "MUST", "refuse half a surrogate pair, and take its neighbours: `invalid`"),
    ("S-25", "MUST", "refuse data beyond 65,536 bytes: `data-too-large`"),
    ("S-26", "MUST", "refuse a message beyond 262,144 characters: `message-too-long`"),
    ("S-27", "MUST", "refuse text beyond the end of what there is: `gap`"),
    ("S-28", "MUST", "refuse the end of a tool call that isn't open: `unknown-call`"),
    ("S-29", "MUST", "refuse the end of a message that hasn't begun: `unknown-message`"),
    ("S-30", "MUST", "refuse to start a message that exists: `message-id-taken`"),
    ("S-31", "MUST", "refuse text of a message that is complete: `message-over`"),
    ("S-32", "MUST", "refuse the 201st open message: `too-many-messages`"),
    ("S-33", "MUST", "refuse the 201st open tool call: `too-many-tools`"),
    ("S-34", "MUST", "refuse a steer that doesn't wait: `unknown-steer`"),
    ("S-35", "MUST", "refuse everything of a writer after 1,000 runs of refusals: `too-many-refusals`"),
    ("S-36", "MUST", "refuse what an attempt writes that doesn't run: `turn-over`, then `fenced`"),
    ("S-37", "MUST", "refuse what is new after a stop: `turn-stopped`"),
    ("S-38", "MUST", "refuse what is written to a closed session: `session-closed`, then `fenced`"),
    ("S-39", "MUST", "refuse another tool call under the id of an open one: `call-id-taken`"),
    ("S-40", "MUST", "tell a stop to the writers of its turn, with `turn_id` and `reason`"),
    ("S-41", "MUST", "record text of an open message that comes after the stop"),
    ("S-42", "MUST", "tell `fenced` when the turn has ended"),
    ("S-43", "MUST", "tell a steer with `steer_id`, `text` and `actor`, and record that it is consumed"),
    ("S-44", "MUST", "tell stops and steers since `after` when the writer is opened again"),
    ("S-45", "MUST", "answer `spawn` with `spawned`, and the same `key` with the same turn"),
    ("S-46", "MUST", "tell `finished` when a sub-agent has ended"),
    ("S-47", "MUST", "answer a `spawn` that it refuses with a problem that names its `request`"),
    ("S-50", "MUST", "answer posted events once all are recorded, and the same again once more"),
    ("S-51", "MUST", "answer posted events of which some were refused with 409, naming these"),
    ("S-60", "MUST NOT", "show text before what was written before it"),
    ("S-61", "SHOULD", "show text before it is recorded"),
    ("S-70", "MUST", "refuse a question with a schema that can't be applied: `bad-question`"),
    ("S-71", "MUST", "refuse another question under the id of one: `question-id-taken`"),
    ("S-72", "MUST", "refuse a turn's 201st question: `too-many-questions`"),
    ("S-73", "MUST", "refuse to withdraw what wasn't asked: `unknown-question`"),
    ("S-74", "MUST", "tell `answered` with `question_id`, `outcome`, `value` and `actor`"),
    ("S-75", "MUST", "tell it again when the writer is opened again"),
    ("S-76", "MUST NOT", "record a question twice that is asked twice"),
)  # fmt: skip
"""What the API must do."""
