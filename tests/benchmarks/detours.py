"""The way of one call through the code: files, calls, and moves between files. ``python tests/benchmarks/detours.py``.

A `sys.setprofile` hook counts, for one warm call on each store, the Python functions of the library that run: how many
files they stand in, how many calls there are, and how often a call leads into another file. Fewer is shorter to read.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import lifecycle
from lifecycle import TaskQueue
from lifecycle.execution.worker import Worker

PACKAGE = Path(lifecycle.__file__).parent.resolve()
FOLDERS = (str(PACKAGE), str(PACKAGE.parent / "consumer"))
POSTGRES = os.environ.get("LIFECYCLE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("LIFECYCLE_TEST_REDIS", "redis://127.0.0.1:6379/0")
WARM_CALLS = 5


class Way:
    """Counts the library's functions that run while it is the profiler of this thread."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.calls = self.moves = 0
        self._last = ""

    def __call__(self, frame, event: str, argument: object) -> None:
        """Note a call."""
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(FOLDERS) or frame.f_code.co_name.startswith("<"):
            return
        self.calls += 1
        self.moves += file != self._last
        self._last = file
        self.files[file] = None


def way_of(call: Callable[[], object]) -> Way:
    """Return the way of one call."""
    way = Way()
    sys.setprofile(way)
    try:
        call()
    finally:
        sys.setprofile(None)
    return way


def measured(url: str) -> tuple[Way, Way]:
    """Return the ways of one enqueue and of one execution, both warm."""
    queue = TaskQueue(url, name=f"detours-{os.getpid()}")

    @queue.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    worker = Worker(queue.engine, "worker")
    for _ in range(WARM_CALLS):
        add(1, 2)
        worker.work(lambda: True)
    enqueued = way_of(lambda: add(1, 2))
    executed = way_of(lambda: worker.work(lambda: True))
    queue.flush()
    queue.close()
    return enqueued, executed


def main() -> None:
    """Print a line for each store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", action="store_true", help="list the files, in the order of their first call")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = {"memory": "memory://", "SQLite": f"sqlite:///{folder}/q.db", "Redis": REDIS, "PostgreSQL": POSTGRES}
        print(f"{'':12}{'enqueue: files/calls/moves':>30}{'execution: files/calls/moves':>32}")
        for name, url in stores.items():
            ways = measured(url)
            shown = [f"{len(way.files)}/{way.calls}/{way.moves}" for way in ways]
            print(f"{name:12}{shown[0]:>30}{shown[1]:>32}")
            if options.files:
                for way in ways:
                    print("   ", " ".join(str(Path(file).relative_to(PACKAGE.parent)) for file in way.files))


if __name__ == "__main__":
    main()
