"""A page of one's own follows a session with the function of docs/browsers.md, whatever cuts it off."""

from playwright.async_api import Route

from tests.console.people import Console, until
from tests.docs.support import blocks, page
from waystation.client import Session

FOLLOW = next(code for code in blocks(page("browsers.md"), "js") if "async function follow" in code)
PAGE = f"<!doctype html><title>My page</title><script>{FOLLOW}</script>"
BEGIN = """
(session) => {
  Object.assign(window, { events: [], renewals: 0, result: null });
  const onEvent = (event) => {
    window.events.push(event);
    if (window.events.length === 1) throw new Error("an error of the page's own");
  };
  let kept = null;
  const token = async (renew) => {
    window.renewals += renew;
    if (renew || !kept) kept = await window.mint();
    return kept;
  };
  follow(session, { token, onEvent }).then((problem) => { window.result = { problem }; });
}
"""
TOKEN_SECONDS = 3


async def test_a_page_follows_through_everything_that_cuts_it_off(console: Console) -> None:
    session = await console.session()
    requests: list[str] = []

    async def mint() -> str:
        body = {"role": "client", "sessions": [session.id], "subject": "ada", "ttl_seconds": TOKEN_SECONDS}
        return str((await console.stack.call("service", "POST", "/tokens", body)).json()["token"])

    async def meddle(route: Route) -> None:
        requests.append(route.request.url)
        if len(requests) == 1:
            await route.fulfill(status=502, content_type="text/html", body="<h1>Bad Gateway</h1>")
        elif len(requests) == 2:
            await route.abort("connectionreset")
        else:
            await route.continue_()

    view = await (await console.context()).new_page()
    await view.route("**/my-page", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    await view.route("**/events?*", meddle)
    await view.expose_function("mint", mint)
    await view.goto(f"{console.stack.url}/my-page")
    await view.evaluate(BEGIN, f"{console.stack.url}/sessions/{session.id}")

    ended = "(turns) => window.events.filter((e) => e.type === 'turn.completed').length === turns"
    await session.send("tokens=5 rate=0")
    await until(view, ended, 1)
    (api,) = console.stack.apis.values()
    api.kill()
    api.start()
    await console.stack.ready()
    await session.send("tokens=5 rate=0")
    await until(view, ended, 2)
    await until(view, "() => window.renewals > 0")
    await session.send("tokens=5 rate=0")
    await until(view, ended, 3)
    await session.close()
    await until(view, "() => window.result")

    assert await view.evaluate("window.result.problem") is None
    seqs = await view.evaluate("window.events.map((event) => event.seq).filter((seq) => seq)")
    assert seqs == sorted(set(seqs)), "each durable event arrives once, in order"
    assert seqs[-1] == (await session.snapshot()).tip
    assert len(requests) > 4, "it came back after the 502, the reset, the restart and the token's end"


async def test_a_page_is_told_what_is_refused_for_good(console: Console) -> None:
    session = await console.session()
    view = await (await console.context()).new_page()
    await view.route("**/my-page", lambda route: route.fulfill(content_type="text/html", body=PAGE))
    token = await console.token("client", session.id, "Ada")
    await view.expose_function("mint", lambda: token)
    await view.goto(f"{console.stack.url}/my-page")
    other: Session = await console.session()
    await view.evaluate(BEGIN, f"{console.stack.url}/sessions/{other.id}")
    await until(view, "() => window.result")
    assert await view.evaluate("window.result.problem.code") == "unknown-session"
