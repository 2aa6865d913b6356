"""Runs a command that must not outlive its parent: ``python -m waystation._child COMMAND …``.

The parent holds the other end of standard input. When the parent is gone, however it went
(kill -9 too), that pipe closes and the command is ended.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

KILL_AFTER_SECONDS = 5.0


def main() -> int:
    """Runs the command and answers its exit code."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603

    def stop(*_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        threading.Timer(KILL_AFTER_SECONDS, child.kill).start()

    def watch_parent() -> None:
        while os.read(0, 1_024):
            pass
        # Whoever killed the parent that way meant all of it.
        with contextlib.suppress(ProcessLookupError):
            child.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    threading.Thread(target=watch_parent, daemon=True).start()
    code = child.wait()
    sys.stdout.flush()
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
