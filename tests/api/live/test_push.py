"""Whom an API process tells what: rights that have ended, and a deployment without keys."""

from datetime import UTC, datetime

import pytest

from api.auth import Action, Principal
from api.errors import Conflict
from api.gateways.attention import Entry
from api.live.push import PushDesk, person_of, principal_of
from tests.world.keys import VAPID
from waystation.models.attention import Attention, AttentionItem, AttentionKind
from waystation.models.push import PushPerson, PushTarget
from waystation.settings import ApiKey, Settings, hash_api_key

TARGET = PushTarget(
    subscription_id="push_" + "0" * 32, endpoint="https://push.example/1", p256dh="p", auth="a", ends=None
)
NOW = datetime(2026, 5, 1, tzinfo=UTC)
OLGA = Principal(subject="olga", role="operator")
ADA = Principal(subject="ada", role="client", sessions=frozenset({"b", "a"}), expires_at=2_000_000_000)


def item(session_id: str) -> AttentionItem:
    return AttentionItem(
        kind=AttentionKind.FAILURE, id=session_id, session_id=session_id, line="It has failed", since=NOW
    )


class Board:
    """What waits, for whoever may see it."""

    def __init__(self, *items: AttentionItem) -> None:
        self.entries = [Entry(one) for one in items]

    def told(self, caller: Principal) -> Attention:
        items = tuple(one.item for one in self.entries if one.waits_for(caller))
        return Attention(count=len(items), counts={}, items=items)


def desk(board: Board, *keys: ApiKey, public_key: str | None = VAPID.public_key) -> PushDesk:
    settings = Settings(api_keys=keys, vapid_public_key=public_key)
    return PushDesk(board, None, settings)  # type: ignore[arg-type]


def test_a_person_is_who_they_are_with_their_rights() -> None:
    ada = person_of(ADA)
    assert (ada.sessions, ada.by_key) == (("a", "b"), False)
    back = principal_of(ada, ())
    assert back is not None
    assert back.may == ADA.may
    assert back.sessions == ADA.sessions
    others = [
        ADA.model_copy(update={"role": "approver"}),
        ADA.model_copy(update={"sessions": frozenset({"a"})}),
        ADA.model_copy(update={"sessions": None}),
        ADA.model_copy(update={"subject": "eve"}),
        ADA.model_copy(update={"expires_at": None}),
    ]
    ids = {person_of(one).workflow_id for one in (ADA, *others)}
    assert len(ids) == len(others) + 1, "no two see the same"
    later = ADA.model_copy(update={"expires_at": 2_000_000_001, "name": "Ada"})
    assert person_of(later) == ada, "a later token renews"


def test_rights_end_with_the_key() -> None:
    key = ApiKey(id="olga", role="operator", sha256=hash_api_key("k"))
    other = ApiKey(id="olga", role="approver", sha256=hash_api_key("l"))
    assert Action.TAKE_OVER in OLGA.may
    assert len(desk(Board(item("s")), key)._waiting_for(person_of(OLGA))) == 1
    assert desk(Board(item("s")), other)._waiting_for(person_of(OLGA)) == ()
    assert desk(Board(item("s")))._waiting_for(person_of(OLGA)) == ()


async def test_without_a_key_nothing_is_pushed() -> None:
    off = desk(Board(), public_key=None)
    off.start()
    with pytest.raises(Conflict, match="WAYSTATION_VAPID_PUBLIC_KEY") as refused:
        await off.subscribe(OLGA, TARGET)
    assert refused.value.code == "push-off"
    await off.stop()


async def test_there_is_an_end_to_how_many_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.push.MAX_PUSH_PEOPLE", 1)
    full = desk(Board())
    full._people[PushPerson(subject="bob", role="client", sessions=("s",), by_key=False)] = 0.0
    with pytest.raises(Conflict, match="have subscriptions already") as refused:
        await full.subscribe(OLGA, TARGET)
    assert refused.value.code == "too-many-subscriptions"
