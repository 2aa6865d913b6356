"""The page's transcript is the client's: the same scenarios, with the same outcome, in the browser."""

from typing import Any, ClassVar

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.client.test_transcripts import Screen, Sessions, shown
from tests.console.people import Console
from tests.support import examples

REPLAY = """
async (scenarios) => {
  const { Transcript } = await import('/console/transcript.js');
  return scenarios.map(blocks => {
    const transcript = new Transcript();
    for (const block of blocks) {
      const bar = block.indexOf('|');
      const [number, data] = [block.slice(0, bar), block.slice(bar + 1)];
      if (!data) transcript.advance(Number(number));
      else if (number) transcript.apply(JSON.parse(data));
      else transcript.place(JSON.parse(data));
    }
    return {
      cursor: transcript.cursor,
      messages: transcript.inOrder().map(message => [message.id, message.text, message.status]),
    };
  });
}
"""
BACKWARDS = """
async ([events, cut]) => {
  const { Transcript } = await import('/console/transcript.js');
  const transcript = new Transcript();
  for (const event of events.slice(cut)) transcript.apply(event);
  for (const event of events.slice(0, cut).reverse()) transcript.older(event);
  return transcript.inOrder().map(message => [message.id, message.text, message.status]);
}
"""


class Recorded(Sessions):
    """Writes down every block that a screen received, and what it showed in the end."""

    scenarios: ClassVar[list[tuple[list[str], dict[str, Any]]]] = []
    logs: ClassVar[list[tuple[list[Any], list[Any]]]] = []

    def teardown(self) -> None:
        super().teardown()
        if not hasattr(self, "log"):
            return
        for screen in self.screens:
            assert isinstance(screen, Recorder)
            transcript = screen.transcript
            outcome = {"cursor": transcript.cursor, "messages": [list(one) for one in shown(transcript)]}
            self.scenarios.append((screen.received, outcome))
        whole = [event.model_dump(mode="json", exclude_none=True) for event in self.log.after(0)]
        self.logs.append((whole, [list(one) for one in shown(self.screens[0].transcript)]))


class Recorder(Screen):
    def __init__(self) -> None:
        super().__init__()
        self.received: list[str] = []

    def receive(self, block: str) -> None:
        self.received.append(block)
        super().receive(block)


async def test_any_interleaving_gives_what_the_python_client_shows(
    console: Console, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tests.client.test_transcripts.Screen", Recorder)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Recorded,
        settings=settings(
            max_examples=examples(80),
            stateful_step_count=60,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    page = await console.page("/sessions")
    scenarios = [blocks for blocks, _ in Recorded.scenarios]
    assert sum(map(len, scenarios)) > 500
    outcomes = await page.evaluate(REPLAY, scenarios)
    assert outcomes == [outcome for _, outcome in Recorded.scenarios]
    for events, expected in Recorded.logs:
        for cut in {0, len(events) // 3, len(events) // 2, len(events)}:
            assert await page.evaluate(BACKWARDS, [events, cut]) == expected
