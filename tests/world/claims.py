"""The example of somebody's own Temporal code, as a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.world.process import Process, python


class ClaimsProcess(Process):
    """``python claims.py``: a worker with their workflow and its activities."""

    def __init__(self, folder: Path, *claims: str, env: dict[str, str]) -> None:
        super().__init__(*python("examples.claims", *claims), log=folder / "claims.log", env=env)


@contextmanager
def running_claims(folder: Path, *claims: str, env: dict[str, str]) -> Iterator[ClaimsProcess]:
    """Starts one that begins these claims, and kills it."""
    with ClaimsProcess(folder, *claims, env=env) as process:
        yield process
