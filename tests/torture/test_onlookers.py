"""A process that measures others knows how late it was itself."""

import threading
import time

from tests.torture.actors.onlookers import TICK_SECONDS, Metronome


class Clock(threading.Event):
    """An event that nobody sets before its third wait, the second of which takes long."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        if self.waits == 3:
            self.set()
        time.sleep((timeout or 0) + (0.2 if self.waits == 2 else 0.0))
        return self.is_set()


def test_late_ticks_add_up_since_a_moment() -> None:
    metronome, began = Metronome(), time.monotonic()
    metronome.tick(Clock())
    assert 0.2 <= metronome.late_seconds(began) < time.monotonic() - began - 3 * TICK_SECONDS + 0.01
    assert metronome.late_seconds(time.monotonic()) == 0
