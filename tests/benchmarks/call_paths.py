"""Counts the files, the calls, and the moves between files that one enqueue and one execution take, on each store.

    python tests/benchmarks/call_paths.py [--files]

A `sys.setprofile` hook counts the Python functions of the library that run during one warm call. A move is a call of a
function in another file than the call before. The fewer, the shorter the code to read.
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
WARM_UP_CALL_COUNT = 5


class CallPath:
    """A profiler that counts the library's functions that run."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.calls = self.moves = 0
        self._last = ""

    def __call__(self, frame, event: str, argument: object) -> None:
        """Count a call."""
        file = frame.f_code.co_filename
        if event != "call" or not file.startswith(FOLDERS) or frame.f_code.co_name.startswith("<"):
            return
        self.calls += 1
        self.moves += file != self._last
        self._last = file
        self.files[file] = None


def trace(call: Callable[[], object]) -> CallPath:
    """Return the path of one call."""
    path = CallPath()
    sys.setprofile(path)
    try:
        call()
    finally:
        sys.setprofile(None)
    return path


def trace_store(url: str) -> tuple[CallPath, CallPath]:
    """Return the paths of one enqueue and of one execution on a store, both warm."""
    queue = TaskQueue(url, name=f"call-paths-{os.getpid()}")

    @queue.task(name="add")
    def add(a: int, b: int) -> int:
        return a + b

    worker = Worker(queue.engine, "worker")
    for _ in range(WARM_UP_CALL_COUNT):
        add(1, 2)
        worker.work(lambda: True)
    enqueue_path = trace(lambda: add(1, 2))
    execution_path = trace(lambda: worker.work(lambda: True))
    queue.flush()
    queue.close()
    return enqueue_path, execution_path


def main() -> None:
    """Print a line for each store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="list the files, in the order of their first call")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = {"memory": "memory://", "SQLite": f"sqlite:///{folder}/q.db", "Redis": REDIS, "PostgreSQL": POSTGRES}
        print(f"{'':12}{'enqueue: files/calls/moves':>30}{'execution: files/calls/moves':>32}")
        for name, url in stores.items():
            paths = trace_store(url)
            counts = [f"{len(path.files)}/{path.calls}/{path.moves}" for path in paths]
            print(f"{name:12}{counts[0]:>30}{counts[1]:>32}")
            if options.files:
                for path in paths:
                    print("   ", " ".join(str(Path(file).relative_to(PACKAGE.parent)) for file in path.files))


if __name__ == "__main__":
    main()
