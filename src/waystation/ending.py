"""A process that is told to end does so in time, also when what it waits for never answers."""

import logging
import os
import threading

logger = logging.getLogger(__name__)


def end_within(seconds: float) -> None:
    """Ends this process after so long, if it is still there then; to be called when it is told to end.

    A Temporal that doesn't answer holds up its workers for half a minute and more, and whoever stops a
    process kills it in the end. What is left undone is what a crash would leave.
    """
    timer = threading.Timer(seconds, _end)
    timer.daemon = True
    timer.start()


def _end() -> None:
    logger.warning("Not everything has ended in time; does Temporal answer? This process ends without it.")
    logging.shutdown()
    os._exit(0)
