"""Servers are started, and histories replayed, by ``tests/world`` alone: each is done in one place.

Those of ``http.server`` that a test answers by hand are no servers of this kind.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.support import breaches, called, tree
from tests.support import ROOT

WORLD = ROOT / "tests" / "world"
STARTERS = {"Popen", "start_time_skipping", "start_local", "ThreadedMotoServer", "start_server", "Replayer"}
UVICORN = {"Server", "run"}
COMMANDS = {"redis-server", "start-dev", "temporal-test-server"}
EXCEPTIONS = {
    "benchmarks/peers/durable_streams.py": "another product, which nothing but the benchmark compares with",
    "benchmarks/peers/plain_sse.py": "a server of the benchmark's own",
    "benchmarks/peers/plain_sse_server.py": "the same server, which is that process",
    "benchmarks/peers/workflow_streams.py": "another product's worker",
    "benchmarks/recording.py": "asks Redis for its version",
    "tests/torture/proxy.py": "a wire of the torture's own, to which everything happens",
}


def processes() -> set[str]:
    """The names of the world's classes that are a process."""
    classes = [
        node for path in WORLD.glob("*.py") for node in tree(path).body if isinstance(node, ast.ClassDef)
    ]
    found = {"Process"}
    while more := {one.name for one in classes if {ast.unparse(base) for base in one.bases} & found} - found:
        found |= more
    return found


PROCESSES = processes()
WATCHED = STARTERS | PROCESSES | UVICORN


def started(path: Path) -> Iterator[str]:
    """What a file does that starts a server."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = called(node)
            if name in WATCHED:
                whole = ast.unparse(node.func)  # which takes its time
                if name in STARTERS | PROCESSES or whole.startswith("uvicorn."):
                    yield f"{node.lineno}: {whole}"
        elif isinstance(node, ast.Constant) and node.value in COMMANDS:
            yield f"{node.lineno}: {node.value}"


def files() -> list[Path]:
    """Every file of tests and benchmarks that is not the world, nor this one."""
    found = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if WORLD not in path.parents and path != Path(__file__)]


def test_servers_are_started_in_the_world_alone() -> None:
    found = breaches(started, files())
    assert found.keys() == EXCEPTIONS.keys(), found


def test_the_starts_are_recognized() -> None:
    assert {"TemporalServer", "ApiProcess", "WorkerProcess", "AgentProcess", "Shop"} <= PROCESSES
    everything = {line.partition(": ")[2] for path in WORLD.glob("*.py") for line in started(path)}
    assert {
        "TemporalServer", "redis-server", "start-dev", "uvicorn.Server", "uvicorn.run", "Processor",
        "subprocess.Popen", "WorkflowEnvironment.start_time_skipping", "ThreadedMotoServer", "ApiProcess",
    } <= everything  # fmt: skip
