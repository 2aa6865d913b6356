"""People who answer what agents ask: at once, late, twice, both ways, with what doesn't fit, or by a stop."""

import asyncio
import time
from typing import Any, Final

from tests.torture.actors.base import Acting
from tests.torture.actors.deciders import NO_DIGEST

STAYS_SECONDS: Final = 120.0
"""How long somebody goes on answering after the last fault, if the session isn't closed before."""
MANNERS: Final = (
    ("once", 50), ("not now", 20), ("twice", 8), ("both", 10), ("misfit", 8), ("stale", 6), ("stop", 6),
)  # fmt: skip
WRONG: Final[dict[str, Any]] = {
    "string": 7, "integer": "seven", "choice": "none of these", "form": {"size": "x"},
    "approval": {"decision": "perhaps"},
}  # fmt: skip


class Answerer(Acting):
    """Looks again and again at what is asked, and answers as people do, until the session is closed."""

    stays = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._count = 0
        self._dealt_with: list[str] = []

    async def run(self) -> None:
        if not await self.arrive():
            return
        key = await self.token(self.actor.settings["role"])
        calm_at: float | None = None
        while calm_at is None or time.monotonic() < calm_at + STAYS_SECONDS:
            if calm_at is None and self.calm.is_set():
                calm_at = time.monotonic()
            look = await self.ask("look", "GET", self.of_session(), key=key)
            if look.ok and look.body["status"] == "closed":
                return
            for question in look.body["questions"] if look.ok else ():
                await self._deal_with(question["question_id"], key)
            if self._dealt_with and self.chance.random() < 0.1:
                await self._answer_late(self.chance.choice(self._dealt_with), key)
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))

    async def _deal_with(self, question: str, key: str) -> None:
        (manner,) = self.chance.choices([name for name, _ in MANNERS], [weight for _, weight in MANNERS])
        if manner == "not now" and not self.calm.is_set():
            return
        where = self.of_session("questions", question)
        view = await self.ask("question", "GET", where, key=key, id=question)
        if not view.ok or view.body.get("outcome"):
            return
        asked = view.body["asked"]
        self._dealt_with.append(question)
        if manner == "stop":
            self._count += 1
            id_ = f"{self.name}-{self._count}"
            body = {"request_id": id_, "reason": f"stop {id_}", "wait_seconds": self.chance.choice([0, 5])}
            await self.insist("stop", "POST", self.of_session("stop"), body, key=key, id=id_)
        elif manner == "misfit":
            await self._answer(question, WRONG[_type_of(asked)], key, asked["digest"])
        elif manner == "stale":
            await self._answer(question, self._value(asked), key, NO_DIGEST)
        elif manner == "both":
            values = [self._value(asked) for _ in range(2)]
            await asyncio.gather(*(self._answer(question, value, key, asked["digest"]) for value in values))
        else:
            value = self._value(asked)
            for _ in range(2 if manner == "twice" else 1):
                await self._answer(question, value, key, asked["digest"])

    async def _answer_late(self, question: str, key: str) -> None:
        """Answers something that is settled by now, most of the time."""
        view = await self.ask("question", "GET", self.of_session("questions", question), key=key, id=question)
        if view.ok:
            asked = view.body["asked"]
            await self._answer(question, self._value(asked), key, asked["digest"])

    async def _answer(self, question: str, value: Any, key: str, digest: str) -> None:
        body: dict[str, Any] = {"value": value}
        if isinstance(value, dict) or self.chance.random() < 0.5:  # who approves must, others may
            body["digest"] = digest
        where = self.of_session("questions", question, "answer")
        await self.insist("answer", "POST", where, body, key=key, id=question)

    def _value(self, asked: dict[str, Any]) -> Any:
        """Returns an answer that fits, another each time."""
        self._count += 1
        match _type_of(asked):
            case "approval" if self.chance.random() < 0.3:
                return {"decision": "reject", "reason": f"{self.name}-{self._count}"}
            case "approval" if asked.get("editable") and self.chance.random() < 0.5:
                return {"decision": "approve", "arguments": {**asked["arguments"], "edited": self._count}}
            case "approval":
                return {"decision": "approve"}
            case "choice":
                return self.chance.choice(asked["choices"])["value"]
            case "form":
                return {"size": self._count, "colour": self.name}
            case "integer":
                return self.chance.randrange(10_000)
            case _:
                return f"{self.name}-{self._count}"


def _type_of(asked: dict[str, Any]) -> str:
    kind = str(asked["kind"])
    return str(asked["schema"]["type"]) if kind == "question" else kind
