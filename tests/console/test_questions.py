"""Questions of agents are cards: people answer them in forms, in one place and all places at once."""

import re
from typing import Any, Literal

import pytest
from playwright.async_api import Locator, Page, Request, Route, expect
from pydantic import JsonValue

from tests.console.people import Console, until
from tests.console.test_access import press, violations
from tests.console.test_streaming import ready
from tests.support import eventually
from tests.world.stack import KEYS
from waystation.client import Session
from waystation.models.events import Event

EVERYTHING: dict[str, Any] = {
    "title": "Order",
    "type": "object",
    "$defs": {
        "Colour": {"enum": ["red", "green", "blue"]},
        "Address": {
            "title": "Address",
            "type": "object",
            "properties": {
                "street": {"title": "Street", "type": "string"},
                "floor": {
                    "title": "Floor",
                    "anyOf": [{"type": "integer"}, {"type": "null"}],
                    "default": None,
                },
            },
            "required": ["street"],
        },
    },
    "properties": {
        "name": {"title": "Name", "type": "string", "minLength": 3, "maxLength": 20},
        "size": {
            "title": "Size",
            "description": "In centimetres",
            "type": "integer",
            "minimum": 1,
            "maximum": 60,
        },
        "weight": {"title": "Weight", "type": "number", "exclusiveMinimum": 0},
        "gift": {"title": "Gift", "type": "boolean"},
        "colour": {"title": "Colour", "$ref": "#/$defs/Colour"},
        "number": {"title": "Number", "enum": [1, 2, 3, 4, 5, 6, 7, 8], "default": 7},
        "tags": {
            "title": "Tags",
            "type": "array",
            "items": {"type": "string", "minLength": 2},
            "maxItems": 3,
        },
        "extras": {
            "title": "Extras",
            "type": "array",
            "uniqueItems": True,
            "items": {"enum": ["bow", "card"]},
            "default": ["card"],
        },
        "address": {"$ref": "#/$defs/Address"},
        "second": {"title": "Second address", "anyOf": [{"$ref": "#/$defs/Address"}, {"type": "null"}]},
        "note": {"title": "Note", "type": "string", "format": "multi-line", "default": "Hello\nAda"},
        "nickname": {"title": "Nickname", "type": "string"},
        "more": {"title": "More", "type": "object", "additionalProperties": {"type": "integer"}},
    },
    "required": ["name", "size", "weight", "gift", "colour", "tags", "address", "second", "more"],
}


async def pose(console: Console, session: Session, *questions: dict[str, Any]) -> None:
    """Asks outside a turn, as an agent that writes over HTTP."""
    items = [{"n": n, "type": "input.requested", "data": data} for n, data in enumerate(questions, 1)]
    body = {"writer": "clerk", "items": items}
    answer = await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)
    assert answer.status_code == 200, answer.text
    assert all(receipt["status"] == "recorded" for receipt in answer.json().get("receipts", [])), answer.text


async def events(session: Session, kind: str) -> list[Event]:
    return [event for event in (await session.replay()).events if event.type == kind]


async def answered(session: Session) -> JsonValue:
    """The value of the session's one answer."""
    found: list[Event] = []

    async def there() -> bool:
        found[:] = await events(session, "input.answered")
        return bool(found)

    await eventually(there)
    assert len(found) == 1
    return found[0].data["value"]


async def asking(console: Console, what: str) -> Session:
    """A session in which the agent asks, in a turn."""
    return await console.client.start("asking", message=what)


def card_of(page: Page) -> Locator:
    return page.locator(".log .card.question")


async def open_card(console: Console, session: Session, *tokens: str, **options: Any) -> tuple[Page, Locator]:
    given = tokens or await console.people(session.id)
    page = await console.page(f"/sessions/{session.id}", *given, **options)
    await ready(page)
    card = card_of(page)
    await expect(card.locator("header .pill")).to_have_class(re.compile(r"\bask\b"))
    return page, card


def error_of(field: Locator) -> Locator:
    """What a field's own error says: the last of what describes it."""
    return field.locator("xpath=following-sibling::p[contains(@class, 'wrong')]")


async def test_a_form_has_a_field_for_everything(console: Console) -> None:
    session = await console.session()
    order = {"question_id": "order", "kind": "form", "prompt": "Your **order**?", "schema": EVERYTHING}
    await pose(console, session, order)
    page, card = await open_card(console, session)
    await expect(card.locator("strong")).to_have_text("order")
    await expect(page).to_have_title("(1) Your order? · Waystation")
    await card.get_by_role("button", name="Answer").click()
    name, size, weight = (card.get_by_label(label, exact=True) for label in ("Name", "Size", "Weight"))
    await expect(name).to_be_focused()
    await expect(name).to_have_attribute("aria-invalid", "true")
    await expect(error_of(name)).to_have_text("Fill this in.")
    # What is wrong is said while it is typed, and no longer than it is wrong.
    for field, typed, wrong in (
        (name, "Al", "At least 3 characters, not 2."),
        (name, "A" * 21, "At most 20 characters, not 21."),
        (name, "Ada", ""),
        (size, "1.5", "This is no whole number."),
        (size, "61", "At most 60."),
        (size, "0", "At least 1."),
        (size, "42", ""),
        (weight, "heavy", "This is no number; write it like 12.5."),
        (weight, "0", "More than 0."),
        (weight, "1.25", ""),
    ):
        await field.fill(typed)
        await expect(error_of(field)).to_have_text(wrong)
        description = str(await field.get_attribute("aria-describedby")).split()
        assert await error_of(field).get_attribute("id") in description
    await expect(size).to_have_accessible_description(re.compile("In centimetres; 1 to 60"))
    await expect(size).not_to_have_attribute("aria-invalid", "true")
    await card.get_by_role("radiogroup", name="Gift").get_by_label("No", exact=True).check()
    await card.get_by_role("radiogroup", name="Colour").get_by_label("blue").check()
    await expect(card.get_by_label("Number (optional)")).to_have_value("6")  # the seventh option
    tags = card.get_by_role("group", name="Tags")
    await tags.get_by_label("Item 1", exact=True).fill("x")
    await expect(error_of(tags.get_by_label("Item 1", exact=True))).to_have_text(
        "At least 2 characters, not 1."
    )
    await tags.get_by_label("Item 1", exact=True).fill("soft")
    await tags.get_by_role("button", name="Add").click()
    await tags.get_by_label("Item 2", exact=True).fill("warm")
    await tags.get_by_role("button", name="Add").click()
    await expect(tags.get_by_role("button", name="Add")).to_be_disabled()
    await tags.get_by_role("button", name="Remove item 3").click()
    await card.get_by_role("group", name="Extras").get_by_label("bow").check()
    address = card.get_by_role("group", name="Address", exact=True)
    await address.get_by_label("Street").fill("Quay 1")
    second = card.get_by_role("group", name="Second address")
    await expect(second.get_by_label("Street")).to_be_hidden()
    await card.get_by_label("More", exact=True).fill("{")
    await card.get_by_role("button", name="Answer").click()
    await expect(card.get_by_label("More", exact=True)).to_be_focused()
    await expect(error_of(card.get_by_label("More", exact=True))).to_contain_text("This is no JSON")
    assert await events(session, "input.answered") == []
    await card.get_by_label("More", exact=True).fill('{"a": 1}')
    await card.get_by_role("button", name="Answer").click()
    assert await answered(session) == {
        "name": "Ada",
        "size": 42,
        "weight": 1.25,
        "gift": False,
        "colour": "blue",
        "number": 7,
        "tags": ["soft", "warm"],
        "extras": ["bow", "card"],
        "address": {"street": "Quay 1"},
        "second": None,
        "note": "Hello\nAda",
        "more": {"a": 1},
    }
    await expect(card.locator(".outcome")).to_contain_text(re.compile("^You answered at "))
    # It is read as it was asked: by titles, and with the words that were chosen.
    titles = {name: str(part.get("title", "Address")) for name, part in EVERYTHING["properties"].items()}
    del titles["nickname"]
    await expect(card.locator(".outcome > dl > dt")).to_have_text(list(titles.values()))
    read = card.locator(".outcome > dl > dd")
    await expect(read.nth(3)).to_have_text("No")
    await expect(read.nth(6).get_by_role("listitem")).to_have_text(["soft", "warm"])
    await expect(read.nth(8)).to_have_text("StreetQuay 1")
    await expect(read.nth(9)).to_have_text("nothing")
    assert await read.nth(10).inner_text() == "Hello\nAda"
    await expect(card.locator(".outcome")).not_to_contain_text(re.compile('[{}"]'))
    await expect(card.get_by_role("button")).to_have_count(0)
    await expect(page).to_have_title("demo · Waystation")


@pytest.mark.thorough
async def test_what_is_typed_survives_a_reload(console: Console) -> None:
    session = await console.session()
    order = {"question_id": "order", "kind": "form", "prompt": "Your order?", "schema": EVERYTHING}
    tool = {
        "question_id": "q", "kind": "approval", "prompt": "Send it?", "tool": "send", "editable": True,
        "arguments": {"to": "ada"},
    }  # fmt: skip
    await pose(console, session, order, tool)
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    form, approval = card_of(page).nth(0), card_of(page).nth(1)
    await form.get_by_label("Name", exact=True).fill("Ada")
    await form.get_by_label("Size", exact=True).fill("large")
    await form.get_by_role("radiogroup", name="Colour").get_by_label("blue").check()
    await form.get_by_label("Number (optional)").select_option(label="3")
    tags = form.get_by_role("group", name="Tags")
    await tags.get_by_label("Item 1", exact=True).fill("soft")
    await tags.get_by_role("button", name="Add").click()
    await tags.get_by_label("Item 2", exact=True).fill("w")
    second = form.get_by_role("group", name="Second address")
    await second.get_by_label("Fill this in").check()
    await second.get_by_label("Street").fill("Quay 2")
    await form.get_by_label("More", exact=True).fill('{"a": ')
    await approval.get_by_role("button", name="Change the arguments").click()
    await approval.get_by_label("Arguments, as JSON").fill('{"to": "bob"}')
    await approval.get_by_label("Reason for a rejection").fill("no hurry")
    await page.reload()
    await ready(page)
    await expect(form.get_by_label("Name", exact=True)).to_have_value("Ada")
    await expect(form.get_by_label("Size", exact=True)).to_have_value("large")
    await expect(form.get_by_role("radiogroup", name="Colour").get_by_label("blue")).to_be_checked()
    await expect(form.get_by_label("Number (optional)")).to_have_value("2")
    await expect(tags.get_by_label("Item 1", exact=True)).to_have_value("soft")
    await expect(tags.get_by_label("Item 2", exact=True)).to_have_value("w")
    await expect(second.get_by_label("Street")).to_have_value("Quay 2")
    await expect(form.get_by_label("More", exact=True)).to_have_value('{"a": ')
    await expect(approval.get_by_label("Reason for a rejection")).to_have_value("no hurry")
    await approval.get_by_role("button", name="Approve with these arguments").click()
    assert await answered(session) == {"decision": "approve", "arguments": {"to": "bob"}}
    await expect(approval.get_by_role("button")).to_have_count(0)
    drafts = "Object.keys(sessionStorage).filter((key) => key.startsWith('waystation.draft.')).length"
    assert await page.evaluate(drafts) == 1, "what is sent is no draft any more"
    await page.get_by_role("button", name="Sign out").click()
    await until(page, f"() => {drafts} === 0")


async def test_what_the_server_refuses_is_said_at_its_field(console: Console) -> None:
    """A pattern is applied by the server alone: it could keep a browser busy."""
    session = await console.session()
    code = {"title": "Code", "type": "string", "pattern": "^[A-Z]+$|; value.id: no"}
    schema = {"type": "object", "properties": {"id": {"title": "Id", "type": "string"}, "code": code}}
    await pose(console, session, {"question_id": "q", "kind": "form", "prompt": "Which?", "schema": schema})
    page, card = await open_card(console, session)
    field = card.get_by_label("Code (optional)")
    await card.get_by_label("Id (optional)").fill("7")
    await field.fill("abc")
    await page.keyboard.press("Enter")
    await expect(error_of(field)).to_contain_text("does not match")
    await expect(error_of(card.get_by_label("Id (optional)"))).to_be_hidden()
    await expect(field).to_be_focused()
    await expect(card.get_by_role("alert")).to_have_count(0)
    await field.fill("ABC")
    await expect(error_of(field)).to_be_hidden()
    await page.keyboard.press("Enter")
    assert await answered(session) == {"id": "7", "code": "ABC"}


async def test_a_parked_agent_goes_on_and_an_answer_elsewhere_appears_at_once(console: Console) -> None:
    session = await asking(console, "choice")
    one, card = await open_card(console, session)
    other, other_card = await open_card(console, session)
    listing = await console.page("/sessions")
    await expect(listing.locator(f'a[href="#/sessions/{session.id}"] .pill')).to_have_text("waits for you")
    approver = await console.page("/sessions", await console.token("approver", session.id, "Alan"))
    await expect(approver.locator(".rows .pill")).to_have_text("waits for a user or an operator")
    await expect(one).to_have_title("(1) Which? · Waystation")
    await expect(one.locator("#badge")).to_have_text("1 waiting for you")
    await expect(one.locator(".session-head .pill")).to_have_text("waits for an answer")
    await expect(one.locator(".composer")).to_contain_text("Your message waits behind it.")
    await one.locator(".modes").get_by_text("Interrupt").click()
    await expect(one.locator(".composer")).to_contain_text("withdraws the question")
    await expect(one.locator(".log")).to_contain_text("The agent waits, and no process runs meanwhile")
    await expect(one.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    await one.locator(".asks").get_by_role("button", name="Show").click()
    await expect(card).to_be_focused()
    await other_card.get_by_label("small").check()
    await card.get_by_label("large").check()
    await card.get_by_role("button", name="Answer").click()
    for page, shown in ((one, card), (other, other_card)):
        await expect(shown.locator("header .pill")).to_have_text("answered")
        await expect(shown.locator(".outcome .said")).to_have_text("large")
        await expect(page).to_have_title("asking · Waystation")
        await expect(page.locator("#badge")).to_be_hidden()
        await expect(page.locator(".log")).to_contain_text("The agent goes on")
        await expect(page.locator(".asks")).to_be_hidden()
        await expect(page.locator(".session-head .pill")).to_have_text("idle")
    # What the other was about to say isn't gone.
    await expect(other_card).to_contain_text("What you had written was not sent")
    await expect(other_card.get_by_label("What you had written")).to_have_text("small")
    await expect(card).not_to_contain_text("was not sent")
    await one.get_by_role("button", name="Timeline").click()
    for mark in ("asking asks: Which?", "test-client answers", "Turn t1 waits for an answer"):
        await expect(one.get_by_role("link", name=mark)).to_have_count(1)


@pytest.mark.thorough
async def test_a_later_answer_is_told_what_counts(console: Console) -> None:
    session = await console.session()
    await pose(console, session, {"question_id": "q", "prompt": "Your name?"})
    page = await console.page("/sessions")

    async def never(route: Route) -> None:
        """No event arrives here any more, so that only the refusal can tell."""

    await page.route("**/events?*", never)
    await page.evaluate("(id) => { location.hash = `#/sessions/${id}`; }", session.id)
    card = card_of(page)

    async def second(route: Route) -> None:
        await session.answer("q", "Grace")
        await route.continue_()

    await page.route("**/answer", second)
    await card.get_by_label("Your name?").fill("Ada")
    await card.get_by_role("button", name="Answer").click()
    alert = card.get_by_role("alert")
    await expect(alert).to_contain_text("test-service has answered already. What counts is: Grace")
    await expect(card.get_by_label("Your name?")).to_have_value("Ada")
    await page.unroute_all(behavior="ignoreErrors")
    assert await answered(session) == "Grace"


@pytest.mark.thorough
async def test_who_may_not_answer_sees_why(console: Console) -> None:
    session = await asking(console, "operators")
    token = await console.token("client", session.id, "Ada")
    page, card = await open_card(console, session, token)
    await expect(card).to_contain_text("You can't answer this: only operators may.")
    await expect(card.get_by_role("button")).to_have_count(0)
    await expect(card.get_by_role("textbox")).to_have_count(0)
    await expect(page).to_have_title("asking · Waystation")
    await expect(page.locator("#badge")).to_be_hidden()
    await expect(page.locator(".asks")).to_contain_text("waits for somebody else's answer")
    tokens = [await console.token(role, session.id, f"test-{role}") for role in ("client", "operator")]
    staff, theirs = await open_card(console, session, *tokens)
    await expect(staff).to_have_title("(1) Who pays? · Waystation")
    await theirs.get_by_label("Who pays?").fill("me")
    await theirs.get_by_role("button", name="Answer").click()
    await expect(card.locator(".outcome")).to_contain_text("test-operator answered")
    await expect(theirs.locator(".outcome")).to_contain_text("You answered")
    await expect(card.locator(".outcome .said")).to_have_text("me")


@pytest.mark.thorough
async def test_a_person_is_named_by_an_id(console: Console) -> None:
    session = await console.session()
    question = {
        "question_id": "q",
        "prompt": "Sure?",
        "schema": {"type": "boolean"},
        "audience": {"ids": ["ada"]},
    }
    await pose(console, session, question)
    token = await console.token("client", session.id, "Ada")
    _, card = await open_card(console, session, token)
    await expect(card).to_contain_text("Ada may answer.")
    _, others = await open_card(console, session)
    await expect(others).to_contain_text("You can't answer this: only ada may.")
    await card.get_by_label("No", exact=True).check()
    await card.get_by_role("button", name="Answer").click()
    await expect(others.locator(".outcome")).to_contain_text("Ada answered")
    assert await answered(session) is False


async def test_an_approval_binds_what_is_shown(console: Console) -> None:
    session = await asking(console, "approve")
    page, card = await open_card(console, session)
    (asked,) = await events(session, "input.requested")
    await expect(card.locator("h3")).to_have_text("Approval of delete")
    await expect(card.locator("dd")).to_have_text('"notes.txt"')
    await expect(card.locator(".digest")).to_contain_text(str(asked.data["digest"]))
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    await card.get_by_role("button", name="Change the arguments").click()
    field = card.get_by_label("Arguments, as JSON")
    await field.fill('["no"]')
    await card.get_by_role("button", name="Approve with these arguments").click()
    await expect(error_of(field)).to_contain_text("Arguments are an object")
    await field.fill('{"path": "other.txt"}')
    await card.get_by_role("button", name="Approve with these arguments").click()
    value = {"decision": "approve", "arguments": {"path": "other.txt"}}
    assert await answered(session) == value
    assert [request.post_data_json for request in sent] == [{"value": value, "digest": asked.data["digest"]}]
    await expect(card.locator("header .pill")).to_have_text("approved")
    await expect(card.locator(".outcome")).to_contain_text("approved with other arguments")
    await expect(card.locator(".outcome dd")).to_have_text('"other.txt"')
    await expect(page.locator(".log .tool")).to_contain_text("delete")


@pytest.mark.thorough
async def test_arguments_with_a_schema_are_changed_in_a_form(console: Console) -> None:
    session = await console.session()
    schema = {
        "type": "object",
        "properties": {
            "to": {"title": "To", "type": "string"},
            "copies": {"title": "Copies", "type": "integer", "maximum": 9},
        },
        "required": ["to", "copies"],
    }
    question = {
        "question_id": "q", "kind": "approval", "prompt": "Send it?", "tool": "send", "editable": True,
        "schema": schema,
    }  # fmt: skip
    fits = question | {"arguments": {"copies": 2, "to": "ada"}}
    hides = question | {
        "question_id": "r", "tool": "send\u200b", "arguments": {"copies": 2, "to": "ada\u202e"},
    }  # fmt: skip
    huge = question | {"question_id": "s", "arguments": {"copies": 2**53 + 1, "to": "ada"}}
    await pose(console, session, fits, hides, huge)
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    card, other = card_of(page).nth(0), card_of(page).nth(1)
    for each in (card, other):
        await each.get_by_role("button", name="Change the arguments").click()
    await expect(card.get_by_label("To", exact=True)).to_have_value("ada")
    # What a field can't show is not for a field.
    await expect(other.get_by_label("Arguments, as JSON")).to_have_value(re.compile(r'"ada\\u202e"'))
    await expect(other.locator("dl").first).to_contain_text(r'"ada\u202e"')
    await expect(other.locator("h3")).to_have_text(r"Approval of send\u200b")
    assert "\u202e" not in await page.locator("body").inner_text()
    rounded = card_of(page).nth(2)
    await expect(rounded).to_contain_text("too large for a browser to show exactly")
    await expect(rounded.get_by_role("button")).to_have_text(["Reject"])
    await card.get_by_label("Copies").fill("10")
    await expect(error_of(card.get_by_label("Copies"))).to_have_text("At most 9.")
    await card.get_by_label("Copies").fill("3")
    await card.get_by_role("button", name="Approve with these arguments").click()
    assert await answered(session) == {"decision": "approve", "arguments": {"to": "ada", "copies": 3}}
    await expect(card.get_by_role("button", name="Approve with these arguments")).to_be_hidden()


@pytest.mark.thorough
async def test_a_rejection_says_why_and_a_service_does_not_decide(console: Console) -> None:
    session = await asking(console, "approve")
    _, served = await open_card(console, session, KEYS["service"])
    await expect(served).to_contain_text("You can't answer this: only users, operators and approvers may.")
    _, card = await open_card(console, session)
    await card.get_by_label("Reason for a rejection").fill("too early")
    await card.get_by_role("button", name="Reject").click()
    assert await answered(session) == {"decision": "reject", "reason": "too early"}
    await expect(served.locator("header .pill")).to_have_text("rejected")
    await expect(served.locator(".outcome")).to_contain_text("rejected at")
    await expect(served.locator(".outcome")).to_contain_text("too early")
    await expect(card).not_to_contain_text("was not sent")


@pytest.mark.thorough
async def test_the_end_without_an_answer_is_said(console: Console) -> None:
    session = await console.session()
    await pose(console, session, {"question_id": "q", "prompt": "Quick?", "expires_in_seconds": 5})
    page, card = await open_card(console, session)
    await expect(card.locator(".countdown")).to_have_class(re.compile(r"\bsoon\b"))
    await card.get_by_label("Quick?").fill("Just a")
    await expect(card.locator("header .pill")).to_have_text("expired")
    await expect(card.locator(".outcome")).to_contain_text("Nobody answered in time")
    await expect(card.locator(".countdown")).to_have_count(0)
    await expect(card).to_be_focused()
    await expect(card.get_by_label("What you had written")).to_have_text("Just a")
    stopped = await asking(console, "text")
    page, card = await open_card(console, stopped)
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(card.locator("header .pill")).to_have_text("withdrawn")
    await expect(card.locator(".outcome")).to_contain_text("the agent was stopped")


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), pytest.param("dark", 390, marks=pytest.mark.thorough)]
)
async def test_everyone_can_answer(console: Console, scheme: Literal["light", "dark"], width: int) -> None:
    """With a keyboard, a screen reader, a phone."""
    session = await console.session()
    order = {"question_id": "order", "kind": "form", "prompt": "Your order?", "schema": EVERYTHING}
    approval = {
        "question_id": "a", "kind": "approval", "prompt": "Send it?", "tool": "send", "editable": True,
        "arguments": {"text": "Dear Ada,\nhello", "to": {"name": "Ada", "address": "x" * 100}},
    }  # fmt: skip
    await pose(
        console, session, order, approval, {"question_id": "q", "prompt": "Why?", "expires_in_seconds": 900}
    )
    page = await console.page(
        f"/sessions/{session.id}",
        *await console.people(session.id),
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )
    await ready(page)
    order_card, approval_card, why = (card_of(page).nth(number) for number in range(3))
    await expect(page).to_have_title("(3) Why? · Waystation")
    await order_card.get_by_role("button", name="Answer").click()
    await order_card.get_by_role("group", name="Second address").get_by_label("Fill this in").check()
    await approval_card.get_by_role("button", name="Change the arguments").click()
    await press(page, "Timeline")
    assert await violations(page) == [], "open"
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    column = "log => log.scrollWidth - log.clientWidth"
    assert await page.locator(".log").evaluate(column) <= 0
    await why.get_by_label("Why?").focus()
    await page.keyboard.type("Because")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Space")
    await expect(why.locator(".outcome .said")).to_have_text("Because")
    await expect(why).to_be_focused()
    await expect(page.locator("[role=status]", has_text="answered at")).to_have_count(1)
    assert await violations(page) == [], "answered"


ODD: tuple[Any, ...] = (
    {},
    {"type": "object", "properties": {"__proto__": {"type": "string"}, "constructor": {"type": "integer"}}},
    {"type": "object", "properties": {"a": True, "b": {"enum": [None, {"c": 1}]}}},
    {"type": ["string", "integer", "null"]},
    {"$ref": "#/$defs/None"},
    {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "string"}},
    {"oneOf": [{"const": 1, "title": "One"}, {"const": "1"}]},
    {"type": "string", "default": 5, "maxLength": "x"},
    {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"properties": None, "type": "object"},
    {
        "type": "array",
        "items": {"type": "array", "items": {"type": "string"}, "minItems": 10**8},
        "minItems": 10**8,
    },
)
MADE = """
async (schemas) => {
  const { Form } = await import('/console/views/form.js');
  return schemas.map((schema) => {
    const form = new Form(schema, null);
    document.body.append(form.element);
    const read = JSON.stringify(form.peek() ?? null);
    form.refuse([{ at: 'value.a.b', problem: 'is odd' }, { at: 'value', problem: 'is odder' }]);
    const controls = form.element.querySelectorAll('input, select, textarea').length;
    form.element.remove();
    return [controls > 0, read];
  });
}
"""


async def test_every_schema_has_a_form(console: Console) -> None:
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    made = await page.evaluate(MADE, list(ODD))
    assert [controls for controls, _ in made] == [True] * len(ODD)
