"""What a session's agents have used, all in all and in each turn that runs. Pure."""

from pydantic import BaseModel, Field, JsonValue

from waystation.models.usage import Usage, UsageReported


class UsageState(BaseModel):
    """What a session carries of it across continue-as-new."""

    session: Usage | None = None
    turns: dict[str, Usage] = Field(default_factory=dict)


class UsageSums:
    """Adds up reports; a turn's sum is taken out when it ends."""

    def __init__(self, state: UsageState) -> None:
        self.state = state

    def add(self, turn_id: str | None, data: dict[str, JsonValue]) -> None:
        """Adds a report that was found valid."""
        report = UsageReported.model_validate(data)
        self.state.session = (self.state.session or Usage()) + report
        if turn_id is not None:
            self.state.turns[turn_id] = self.state.turns.get(turn_id, Usage()) + report

    def end(self, turn_id: str) -> JsonValue:
        """Returns what a turn has used, without what is 0, and forgets it; ``None``: it reported nothing."""
        used = self.state.turns.pop(turn_id, None)
        return used.model_dump(mode="json", exclude_defaults=True) if used else None
