"""What a session learns of purchases comes from outside: whatever it is, the session goes on."""

from hypothesis import given
from hypothesis import strategies as st

from waystation.models.sessions import Note, NoteEvent
from workflows.session.purchases import Purchases, PurchasesState

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["p", "t1", "completed", "paying"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
DATA = st.fixed_dictionaries({}, optional={"purchase_id": JSON, "turn_id": JSON, "status": JSON})


# How long the making of inputs takes says only how busy the machine is.
@given(st.lists(DATA, max_size=6), st.booleans())
def test_whatever_is_reported_is_taken_or_passed_over(
    reports: list[dict[str, object]], closing: bool
) -> None:
    purchases = Purchases(PurchasesState())
    purchases.turn_stopped("t1")
    for number, data in enumerate(reports):
        event = NoteEvent.model_validate({"type": "purchase.updated", "data": data})
        purchases.follow(Note(key=f"n{number}", events=(event,)), closing=closing)
    assert all(isinstance(one, str) for one in purchases.state.under_way)
    assert PurchasesState.model_validate_json(purchases.state.model_dump_json()) == purchases.state


def test_a_status_that_is_no_text_ends_nothing() -> None:
    purchases = Purchases(PurchasesState())
    for status in ("paying", {}, ["completed"], None, 7):
        event = NoteEvent.model_validate(
            {"type": "purchase.updated", "data": {"purchase_id": "p", "status": status}}
        )
        purchases.follow(Note(key="n", events=(event,)), closing=False)
    assert "p" in purchases.state.under_way
