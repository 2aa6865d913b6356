"""``waystation demo``: sessions, purchases and paid requests on real parts, in about a minute.

chapters.py has what happens, stage.py the parts it runs on, devices.py who watches, wire.py the network
between them, screen.py what a person sees.
"""

import logging
import shutil
import tempfile
import time
from pathlib import Path

from waystation.demo.chapters import CHAPTERS
from waystation.demo.screen import Screen
from waystation.demo.stage import DemoFailed, Stage
from waystation.errors import WaystationError
from waystation.rich_console import CleanConsole


async def run_demo(server_folder: Path) -> int:
    """Plays all chapters; returns 0 only if every check of every chapter passed."""
    begin = time.monotonic()
    screen = Screen(CleanConsole())
    folder = Path(tempfile.mkdtemp(prefix="waystation-demo-"))
    _log_to(folder / "demo.log")
    screen.opening()
    try:
        async with Stage(folder, server_folder, screen) as stage:
            screen.say(f"Everything is running, after {time.monotonic() - begin:.0f} s.")
            screen.address("Watch it in a browser while it runs:", stage.console_url)
            for number, chapter in enumerate(CHAPTERS, 1):
                screen.begin_chapter(number, len(CHAPTERS), chapter.title, chapter.about)
                async with stage.showing():
                    await chapter.play(stage)
                stage.end_chapter()
    except (DemoFailed, WaystationError) as error:
        screen.check(False, str(error))
    failed = screen.failed
    screen.closing(time.monotonic() - begin, folder if failed else None)
    if not failed:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


def _log_to(path: Path) -> None:
    """Sends what the parts log about being killed to a file instead of the screen."""
    logger = logging.getLogger("waystation")
    logger.addHandler(logging.FileHandler(path))
    logger.propagate = False
