"""Shows whether a consumer grows: memory, threads, descriptors and files, while tasks end in every way at full speed.

    python tests/benchmarks/growth.py [--minutes 10] [--workers 2] [--retention 20] [URL]

One process enqueues tasks that complete, fail, are retried, ask for retries for ever, and raise with large objects in
their frames; a consumer of the same process runs the tasks, and deletes them after the retention. The figures are
sampled. The first third warms up; then the highest figure of the last third is compared with that of the second. The
program prints a line for each figure, and ends with exit code 1 if one is not flat. Default URL: a new SQLite file.
"""

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lifecycle import Consumer, RetryTask, TaskQueue
from lifecycle.consumer.process_memory import resident_bytes

BACKLOG = 500
"""Number of waiting tasks that the producer keeps up."""
TOLERANCES = {"memory, MiB": 0.05, "threads": 0.0, "descriptors": 0.0, "files, MiB": 0.10}
"""Largest growth from the second third to the last that counts as flat."""


def declared(queue: TaskQueue) -> list[Callable[[], object]]:
    """Declare the tasks; return functions that enqueue one each."""

    @queue.task()
    def completes(data: str) -> int:
        return len(data)

    @queue.task()
    def fails() -> None:
        held = bytearray(2**20)
        raise ValueError(len(held))

    @queue.task(retries=3)
    def fails_and_is_retried() -> None:
        held = bytearray(2**18)
        raise OSError(len(held))

    @queue.task()
    def polls() -> None:
        raise RetryTask(delay=0.05)

    for _ in range(3):
        polls()
    return [lambda: completes("x" * 200), lambda: completes("y"), fails, fails_and_is_retried]


def produce(queue: TaskQueue, calls: list[Callable[[], object]], stop: threading.Event) -> None:
    """Keep up a backlog until the end."""
    number = 0
    while not stop.is_set():
        if queue.counts()["queued"] > BACKLOG:
            stop.wait(0.02)
            continue
        for _ in range(BACKLOG // 5):
            calls[number % len(calls)]()
            number += 1


def sample(folder: Path) -> dict[str, float]:
    """Return the figures of this moment."""
    return {
        "memory, MiB": resident_bytes() / 2**20,
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "files, MiB": sum(path.stat().st_size for path in folder.iterdir()) / 2**20,
    }


def main() -> int:
    """Run for some minutes; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--retention", type=float, default=20.0)
    options = parser.parse_args()
    logging.getLogger("lifecycle").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queue = TaskQueue(options.url or f"sqlite:///{folder}/q.db", name="growth", retention=options.retention)
        calls, stop = declared(queue), threading.Event()
        producer = threading.Thread(target=produce, args=(queue, calls, stop))
        consumer = Consumer(queue, options.workers)
        consumer.start()
        producer.start()
        samples = []
        end = time.monotonic() + options.minutes * 60
        while (rest := end - time.monotonic()) > 0:
            stop.wait(min(rest, options.minutes / 3))
            samples.append(sample(folder))
        stop.set()
        producer.join()
        consumer.stop()
        ran = queue.tasks(limit=1)[0].seq
        queue.close()
    third = len(samples) // 3
    print(f"{ran:,} tasks in {options.minutes:g} minutes, {len(samples)} samples")
    flat = True
    for figure, tolerance in TOLERANCES.items():
        first, last = (max(one[figure] for one in part) for part in (samples[third : 2 * third], samples[2 * third :]))
        is_flat = last <= first * (1 + tolerance)
        flat = flat and is_flat
        print(f"{figure:12} {samples[0][figure]:8.1f} → {first:8.1f} → {last:8.1f}  {'flat' if is_flat else 'GROWS'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
