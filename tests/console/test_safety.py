"""Nothing that anybody says becomes markup, and the page runs its own code only."""

import asyncio
import random
import re

import httpx
import pytest
from playwright.async_api import expect

from tests.console.people import Console, until
from tests.console.test_streaming import ready
from tests.support import ROOT, examples
from tests.world.money_stack import MoneyStack
from waystation.models.events import MAX_MESSAGE_CHARACTERS

HOSTILE = """<script>window.broken = 1</script><img src=x onerror="window.broken = 2">
<svg onload="window.broken = 3"></svg> [click](javascript:window.broken=4)
[data](data:text/html,<script>alert(1)</script>)
[file](file:///etc/passwd) <javascript:window.broken=5> [quote](https://example.org/"onmouseover="window.broken=6)
`<b>code</b>` **<i>bold</i>** [<u>good</u>](https://example.org/a_b?c=(d)) https://example.org/path.

```html
<script>window.broken = 7</script>
```

| <b>head</b> | x |
|---|---|
| <img src=x onerror="window.broken = 8"> | y |

- <style>* { display: none !important }</style>
- [deep](https://example.org/safe)
- [https://example.org/shown](https://example.org/meant)

> <iframe src="javascript:window.broken=9"></iframe>
"""
SOURCES = [path for path in sorted((ROOT / "console").rglob("*.js")) if "vendor" not in path.parts]
MARKUP_SINKS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
    r"|\beval\(|new Function|srcdoc|\.setAttribute\(\s*[\"']on|dangerously"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_makes_markup_of_text(path: object) -> None:
    assert MARKUP_SINKS.findall(path.read_text()) == []  # type: ignore[attr-defined]


def test_the_pattern_finds_sinks() -> None:
    assert MARKUP_SINKS.search("element.innerHTML = text")


def test_the_page_holds_no_inline_code_or_style() -> None:
    page = (ROOT / "console" / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?://", page)


def test_what_is_vendored_keeps_its_licence() -> None:
    vendored = {path.stem for path in (ROOT / "console" / "vendor").glob("*.js")}
    assert vendored == {path.stem for path in (ROOT / "console" / "vendor").glob("*.LICENSE")} != set()


# Parts of which a text may consist entirely. Each was or could be slow: every one of them makes a scan that
# looks for an end find none, or find it far away.
REPEATED = (
    "\\(", "\\(a\\)", "\\[\n", "$$\n", "$$a$$\n", "\\[a\n- b\n",
    "`", "``a ", "`a ``b ", "`" * 13_500 + "\n\n",
    "*a ", "**a ", "~~a ", "*a _b ", "***a", "a**b", "*a**b***", "~~*a_**", "*a*", "**`a`", "_ ", "\\", "\\*",
    "[", "[a]", "[a](http://x(", "[a](http://x(y)", "[a](http://)", "](http://x", "http://.", "http://x*",
    ">", "> ", "> - a\n", "- a\n", "  - a\n", "* * ", "1. a\n",
    "|", "|-", "a|b\n-|-\n", "|a\n", "# ", " #", "# a\n", "---\n", "- -", "```\n", "~~~", "\n", "a\n",
    " ", "\t", "\u2028 ", " x\u2028", "é*", "\U0001f600_",
)  # fmt: skip
FRAMES = (("", ""), ("- ", "x"), ("# a", " b\u2028x"), ("```", "`"), ("> ", ""), ("a|b\n|", "-x"))
"""What comes before and after the repeated part."""
SHORT_CHARACTERS = MAX_MESSAGE_CHARACTERS // 8
LONG_CHARACTERS = MAX_MESSAGE_CHARACTERS // 2
MAX_GROWTH = 10
"""For a text four times as long. In proportion to the text it is 4, to its square 16."""
NOISE_MILLISECONDS = 20
MAX_MEASURED = 5
"""A busy machine may disturb a measurement; it doesn't disturb five of them in the same way."""
MAX_ELEMENTS = 31_000
RENDERED = """
async ([before, part, after, lengths]) => {
  const { render } = await import('/console/markdown.js');
  return lengths.map(length => {
    const text = before + part.repeat(Math.max(1, length / part.length)) + after;
    const element = document.createElement('div');
    const begin = performance.now();
    render(element, text);
    const milliseconds = performance.now() - begin;
    return { milliseconds, elements: element.querySelectorAll('*').length };
  });
}
"""


@pytest.mark.thorough
@pytest.mark.parametrize("parts", [REPEATED[::5], pytest.param(REPEATED, marks=pytest.mark.slow)])
async def test_the_time_to_draw_a_text_grows_with_its_length_alone(
    console: Console, parts: tuple[str, ...]
) -> None:
    """Everybody who looks at a session renders what one of them wrote."""
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    for part in parts:
        for before, after in FRAMES:
            for _ in range(MAX_MEASURED):
                async with asyncio.timeout(60):
                    lengths = [SHORT_CHARACTERS, LONG_CHARACTERS]
                    short, long = await page.evaluate(RENDERED, [before, part, after, lengths])
                growth = long["milliseconds"] / max(short["milliseconds"], NOISE_MILLISECONDS)
                if growth < MAX_GROWTH:
                    break
            assert growth < MAX_GROWTH, (before, part, after)
            assert long["elements"] < MAX_ELEMENTS, (before, part, after)


SHOWN = """
async ([text, growing, broken]) => {
  const { render } = await import('/console/markdown.js');
  const create = document.createElement;
  if (broken) document.createElement = function (tag) {
    if (tag === broken) throw new Error('broken');
    return create.call(document, tag);
  };
  const element = create.call(document, 'div');
  try {
    for (const length of growing) render(element, text.slice(0, length));
    render(element, text);
  } finally {
    document.createElement = create;
  }
  return [...element.children].map(one => [one.className || one.tagName.toLowerCase(), one.textContent]);
}
"""


@pytest.mark.thorough
async def test_a_block_that_can_not_be_drawn_shows_its_source(console: Console) -> None:
    page = await console.page("/sessions")
    source = "| a |\n|---|\n| *b* |"
    shown = await page.evaluate(SHOWN, [f"One.\n\n{source}\n\n*Two*.", [], "table"])
    assert shown == [["p", "One."], ["as-written", source], ["p", "Two."]]


@pytest.mark.thorough
async def test_what_is_more_than_a_page_can_hold_is_shown_as_it_is_written(console: Console) -> None:
    page = await console.page("/sessions")
    much = "*a* " * 10_001
    shown = await page.evaluate(SHOWN, [f"{much}\n\n*b*", [], None])
    assert shown == [["as-written", much], ["p", "b"]]
    headings = ["# *a*"] * 10_000
    tail = ["*b*", "> c"]
    text = "\n\n".join(headings + tail)
    shown = await page.evaluate(SHOWN, [text, [60_000, len(text) - 5], None])
    assert shown[:-1] == [["h3", "a"]] * 10_000
    assert shown[-1] == ["as-written", "\n\n".join(tail)]


MARKS = {
    "***x*** y": "<strong><em>x</em></strong> y",
    "*a **b** c*": "<em>a <strong>b</strong> c</em>",
    "**a *b* c** ~~d~~ _e_": "<strong>a <em>b</em> c</strong> <del>d</del> <em>e</em>",
    "*a _b* c_ **d": "<em>a _b</em> c_ **d",
    "snake_case_word __init__ 2 * 3 * 4": "snake_case_word __init__ 2 * 3 * 4",
    "`a ``b` ``d ` e`` c`": "<code>a ``b</code> <code>d ` e</code> c`",
    "\\*a\\* *b\\* c*": "*a* <em>b* c</em>",
    "**bold**: text** a ** b": "<strong>bold</strong>: text** a ** b",
    "*a\nb*": "<em>a\nb</em>",
}


async def test_marks_within_a_line(console: Console) -> None:
    page = await console.page("/sessions")
    script = """
    async (texts) => {
      const { render } = await import('/console/markdown.js');
      return texts.map(text => {
        const element = document.createElement('div');
        render(element, text);
        return element.firstChild.innerHTML;
      });
    }
    """
    assert await page.evaluate(script, list(MARKS)) == list(MARKS.values())


@pytest.mark.thorough
async def test_lists_nested_too_deep_lose_no_words(console: Console) -> None:
    page = await console.page("/sessions")
    text = "\n".join("  " * depth + f"- word{depth}" for depth in range(20))
    [[_, shown]] = await page.evaluate(SHOWN, [text, [], None])
    assert all(f"word{depth}" in shown for depth in range(20))


PIECES = (
    "*", "**", "***", "_", "__", "~~", "`", "``", "\\", "\\*", "[", "]", "(", ")",
    "](http://x/", "](javascript:x", "http://x/", "https://y/?a=(b)", "<b>", "<img src=x onerror=x>", "&lt;",
    "#", "# ", "- ", "1. ", "> ", "|", "|-|-|", "```", "~~~", "---", "  ", "    ", "\n", "\n", "\n\n",
    "\\(", "\\)", "\\[", "\\]", "$$",
    "\t", "\r", "\u2028", "\u202e", "\u200d", "\U0001f600", "\x00", "é",
)  # fmt: skip
DROPPED = "\r\x00\u2028\u202e\u200d"
"""Left out before anything is drawn."""
FENCE = re.compile(
    rf"^(?:[ \t>{DROPPED}]|- |1\. )*(?:(?:`[{DROPPED}]*){{3,}}|(?:~[{DROPPED}]*){{3,}}).*$", re.MULTILINE
)
"""What stands beside a fence is the name of a language, and not shown."""
DRAWN = """
async (texts) => {
  const { render } = await import('/console/markdown.js');
  const drawn = (element) => element.innerHTML;
  return texts.map(text => {
    const [whole, grown] = [document.createElement('div'), document.createElement('div')];
    render(whole, text);
    for (let length = 1; length < text.length; length += 7) render(grown, text.slice(0, length));
    render(grown, text);
    const elements = [...whole.querySelectorAll('*')];
    return {
      tags: elements.map(one => one.tagName.toLowerCase()),
      links: elements.filter(one => one.tagName === 'A').map(one => one.getAttribute('href')),
      attributes: elements.flatMap(one => one.getAttributeNames()),
      text: whole.textContent,
      same: drawn(whole) === drawn(grown),
    };
  });
}
"""
TAGS = {
    "p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "table", "thead", "tbody",
    "tr", "th", "td", "hr", "br", "strong", "em", "del", "a", "div", "span", "button",
}  # fmt: skip


async def test_of_whatever_text_no_word_is_lost_and_nothing_becomes_markup(console: Console) -> None:
    """Also of a text that grows while it is drawn, as an answer does."""
    page = await console.page("/sessions")
    seed = random.SystemRandom().randrange(10**9)
    chance = random.Random(seed)
    texts = []
    for number in range(examples(300)):
        pieces = [
            chance.choice(PIECES) if chance.random() < 0.7 else f"w{at}" for at in range(chance.randrange(40))
        ]
        texts.append("".join(pieces) + f" e{number}")
    for text, drawn in zip(texts, await page.evaluate(DRAWN, texts), strict=True):
        told = (seed, text)
        assert set(drawn["tags"]) <= TAGS, told
        assert all(link.startswith(("http://", "https://")) for link in drawn["links"]), told
        assert not [one for one in drawn["attributes"] if one.startswith("on") or one == "style"], told
        assert drawn["same"], told
        words = re.findall(r"[we]\d+", FENCE.sub("", text))
        shown = drawn["text"] + " ".join(drawn["links"])
        assert not [word for word in words if word not in shown], told


async def test_hostile_text_stays_text(console: Console) -> None:
    session = await console.session(title='<img src=x onerror="window.broken = 10">')
    page = await console.page(f"/sessions/{session.id}")
    await ready(page)
    items = [
        {"n": 1, "type": "message.completed", "message_id": "evil", "data": {"text": HOSTILE}},
        {
            "n": 2,
            "type": "message.completed",
            "message_id": "thought",
            "data": {"text": HOSTILE, "kind": "reasoning"},
        },
        {
            "n": 3,
            "type": "tool.called",
            "data": {"call_id": "c", "name": HOSTILE[:100], "arguments": {"a": HOSTILE}},
        },
        {"n": 4, "type": "tool.returned", "data": {"call_id": "c", "name": "x", "error": HOSTILE}},
        {"n": 5, "type": "data.evil", "data": {"text": HOSTILE}},
    ]
    body = {"writer": "evil", "items": items}
    assert (await console.stack.call("agent", "POST", f"/sessions/{session.id}/events", body)).is_success
    await session.send(HOSTILE, data={"tokens": 3, "rate": 0})
    evil = page.locator('[data-key="message:evil"] .text')
    await expect(evil).to_contain_text("<script>window.broken = 1</script>")
    await expect(page.locator(".from-user .text")).to_have_text(HOSTILE)
    await page.get_by_text("Reasoning", exact=True).click()
    await until(page, "() => document.querySelectorAll('.notice, .data, .tool').length >= 2")
    assert await page.evaluate("window.broken") is None
    assert await page.locator(".log :is(script, img, svg, iframe, style, i, u, b b, object)").count() == 0
    links = await evil.locator("a").evaluate_all("links => links.map(a => [a.href, a.rel, a.textContent])")
    safe = "noopener noreferrer nofollow"
    assert links == [
        ["https://example.org/%22onmouseover=%22window.broken=6", safe, "quote"],
        ["https://example.org/a_b?c=(d)", safe, "<u>good</u>"],
        ["https://example.org/path", safe, "https://example.org/path"],
        ["https://example.org/safe", safe, "deep"],
        ["https://example.org/meant", safe, "https://example.org/shown"],
    ]
    attributes = "links => links.flatMap(a => a.getAttributeNames()).filter(name => name.startsWith('on'))"
    assert await evil.locator("a").evaluate_all(attributes) == []


@pytest.mark.parametrize(
    "path", ["/", "/console/main.js", "/console/console.css", "/console/views/session.js"]
)
async def test_the_policy_is_strict(town: MoneyStack, path: str) -> None:
    async with httpx.AsyncClient(base_url=town.url) as http:
        answer = await http.get(path)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["trusted-types"] == "push-worker", "for the service worker's address alone"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_the_page_is_alone_and_uses_no_device(town: MoneyStack) -> None:
    async with httpx.AsyncClient(base_url=town.url) as http:
        answer = await http.get("/")
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["permissions-policy"] == "camera=(), geolocation=(), microphone=()"


async def test_inline_code_would_not_run(console: Console) -> None:
    page = await console.page("/sessions")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    tried = await page.evaluate(
        """() => {
          const script = document.createElement('script');
          try { script.text = 'window.ran = 1'; } catch (error) { return error.name; }
          document.head.append(script);
          return window.ran ?? 'refused';
        }"""
    )
    assert tried in ("TypeError", "refused")
    console.faults.clear()  # the browser's own report of it


async def test_files_beside_the_console_are_not_served(town: MoneyStack) -> None:
    async with httpx.AsyncClient(base_url=town.url) as http:
        for path in ("/console/../api/main.py", "/console/%2e%2e/worker.py", "/console/none.js", "/console/"):
            assert (await http.get(path)).status_code == 404, path


@pytest.mark.parametrize(
    "path", ["/sessions/..%2Fmandates", "/purchases/x%2F..%2F..%2Fme", "/sessions/%E0%A4%A"]
)
async def test_an_address_leads_to_no_other_route(console: Console, path: str) -> None:
    """Ids become parts of the paths that buttons call."""
    page = await console.page("/approvals")
    await expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    await page.evaluate("(path) => { location.hash = `#${path}`; }", path)
    await expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")


@pytest.mark.thorough
async def test_signing_out_leaves_no_tab_that_would_sign_in_again(console: Console) -> None:
    context = await console.context()
    pages = [await console.page("/sessions", context=context) for _ in range(2)]
    for page in pages:
        await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await pages[0].get_by_role("button", name="Sign out").click()
    for page in pages:
        await expect(page.get_by_label("Token")).to_be_visible()
        await page.reload()
        await expect(page.get_by_label("Token")).to_be_visible()
        assert await page.evaluate("sessionStorage.length") == 0


async def test_a_token_leaves_the_address_and_is_kept_for_the_tab_only(console: Console) -> None:
    session = await console.session()
    token = await console.token("client", session.id, "Ada")
    page = await console.page(f"/sessions/{session.id}", token)
    await ready(page)
    assert token not in page.url
    assert token not in await page.evaluate("JSON.stringify([history.state, localStorage, document.cookie])")
    # Another tab of the same browser is signed in by this one; another browser is not.
    other = await page.context.new_page()
    await other.goto(f"{console.stack.url}/#/sessions/{session.id}")
    await ready(other)
    # Also by a tab that is too busy to answer at once.
    await other.close()
    await page.evaluate("""() => {
        const post = BroadcastChannel.prototype.postMessage;
        BroadcastChannel.prototype.postMessage = function (data) {
            if (Array.isArray(data)) window.answer = () => post.call(this, data);
            else post.call(this, data);
        };
    }""")
    late = await page.context.new_page()
    await late.goto(f"{console.stack.url}/#/sessions/{session.id}")
    await expect(late.get_by_label("Token")).to_be_visible()
    await page.evaluate("answer()")
    await ready(late)
    stranger = await (await console.context()).new_page()
    await stranger.goto(f"{console.stack.url}/#/sessions/{session.id}")
    await expect(stranger.get_by_label("Token")).to_be_visible()
    await stranger.get_by_label("Token").fill("wrong")
    await stranger.get_by_role("button", name="Sign in").click()
    await expect(stranger.get_by_role("alert")).to_contain_text("unknown or has expired")
    await stranger.get_by_label("Token").fill(token)
    await stranger.keyboard.press("Enter")
    await ready(stranger)
    await stranger.get_by_role("button", name="Sign out").click()
    assert await stranger.evaluate("sessionStorage.length") == 0


SHOWS = re.compile(
    r"\.textContent\s*=[^=]|\.innerText|\.nodeValue|createTextNode|document\.title|insertAdjacentText"
    r"|\.(append|prepend|before|after|replaceWith|replaceChildren)\(\s*(?!\))[`\"']\$?\{?\w"
)


@pytest.mark.parametrize("path", [one for one in SOURCES if one.name != "dom.js"], ids=lambda path: path.name)
def test_every_text_goes_through_what_cleans_it(path: object) -> None:
    assert SHOWS.findall(path.read_text()) == []  # type: ignore[attr-defined]


UNSEEN = (
    *"\x00\x07\x1b\x7f\x85\x9b\u00ad\u061c\u200b\u200d\u200e\u200f",
    *"\u202a\u202b\u202d\u202e\u2060\u2066\u2067\u2069\ufeff",
)
RIGHT_TO_LEFT = "\u05d0\u05d1\u05d2"
CLEANED = """
async (texts) => {
  const { clean, h, isolate, nameOf, setText } = await import('/console/dom.js');
  return texts.map(text => {
    const element = h('p', { title: text }, text, [text], nameOf({ name: text }));
    const other = h('p');
    setText(other, text);
    return [element.textContent, element.title, other.textContent, clean(isolate(text))];
  });
}
"""


async def test_no_text_hides_or_reorders_what_is_around_it(console: Console) -> None:
    page = await console.page("/sessions")
    texts = [f"1{one}2" for one in UNSEEN] + [
        f"{RIGHT_TO_LEFT}\u202e 99\u2069",
        "👩\u200d👧",
        "a\u2068b\u2069",
    ]
    shown = await page.evaluate(CLEANED, texts)
    assert shown[: len(UNSEEN)] == [["12" * 3, "12", "12", "12"]] * len(UNSEEN)
    mixed, family, isolated = shown[len(UNSEEN) :]
    plain = f"{RIGHT_TO_LEFT} 99"
    assert mixed == [f"{plain}{plain}\u2068{plain}\u2069", plain, plain, f"\u2068{plain}\u2069"]
    assert family == ["👩\u200d👧" * 3, *["👩\u200d👧"] * 3]
    assert isolated[1:] == ["a\u2068b\u2069", "a\u2068b\u2069", "ab"]
