"""Python programs started as forks of a process that has imported everything already.

A server spends two or three seconds of processor time on imports, and the tests start hundreds. The forked
process is one of its own in every other respect: it has its own environment, output and signals, and can be
killed. Benchmarks start programs from scratch, for they measure memory.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import warnings
from pathlib import Path

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.world.imported"])


class Fork:
    """``python -m module arguments`` with the interface of ``subprocess.Popen``."""

    def __init__(
        self,
        module: str,
        *arguments: str,
        log: Path,
        errors: Path | None = None,
        env: dict[str, str],
        cwd: Path,
    ) -> None:
        # A daemon is killed when the tests end; it may have no children of multiprocessing's, but any others.
        given = (module, arguments, log, errors or log, env, cwd)
        self._process = _FORKING.Process(target=_run, args=given, daemon=True)
        self._process.start()
        assert self._process.pid is not None, "it has started"
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()


def run_to_end(
    module: str,
    *arguments: str,
    log: Path,
    errors: Path | None = None,
    env: dict[str, str],
    cwd: Path,
    within: float,
) -> tuple[int, str]:
    """Returns the exit code of a fork and what it printed; kills it and fails if it doesn't end."""
    fork = Fork(module, *arguments, log=log, errors=errors, env=env, cwd=cwd)
    try:
        return fork.wait(within), log.read_text()
    finally:
        fork.send_signal(signal.SIGKILL)


def _run(
    module: str, arguments: tuple[str, ...], log: Path, errors: Path, env: dict[str, str], cwd: Path
) -> None:
    """Does in the forked process what ``python -m`` does in a new one."""
    for written, path in ((1, log), (2, errors)):
        output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(output, written)
        os.close(output)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for action in filter(None, env.get("PYTHONWARNINGS", "").split(",")):
        warnings.simplefilter(action)  # type: ignore[arg-type]
    sys.argv = [module, *arguments]
    if not hasattr(sys.modules.get(module), "__path__"):  # of a package, its __main__ is run
        sys.modules.pop(module, None)  # else it would be there twice, about which Python warns
    runpy.run_module(module, run_name="__main__", alter_sys=True)
