"""The heartbeat of a process: a thread that extends the leases of all its workers, in one call of the store."""

import logging
import os
import threading
from collections.abc import Callable, Collection

from lifecycle.errors import StorageError

__all__ = ["Heartbeat"]

log = logging.getLogger("lifecycle.heartbeat")


class Heartbeat:
    """Extends the leases of workers at an interval. The thread starts with the first worker, and ends with `close`."""

    def __init__(self, beat: Callable[[Collection[str]], object], interval_seconds: float) -> None:
        """`beat`: called at each interval with the names of the workers, if there are any."""
        self._beat, self._interval_seconds = beat, interval_seconds
        self._reset()

    def _reset(self) -> None:
        self._counts: dict[str, int] = {}
        """Name of a worker → the number of its `keep` calls without a `drop` call."""
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def keep(self, worker: str) -> None:
        """Extend the leases of a worker from now on, until as many `drop` calls have followed.

        The worker's present lease must last longer than the interval.
        """
        if self._pid != os.getpid():  # after a fork: the other workers are the parent's, and so is the thread
            self._reset()
        with self._mutex:
            self._counts[worker] = self._counts.get(worker, 0) + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lifecycle-heartbeat", daemon=True)
                self._thread.start()

    def drop(self, worker: str) -> None:
        """Undo one `keep`."""
        with self._mutex:
            count = self._counts.get(worker, 0) - 1
            if count > 0:
                self._counts[worker] = count
            else:
                self._counts.pop(worker, None)

    def close(self) -> None:
        """Tell the thread to end, without waiting for the end."""
        self._closed.set()

    def _run(self) -> None:
        # A worker added during the wait can wait for the next beat: its lease is three times as long.
        while not self._closed.wait(self._interval_seconds):
            with self._mutex:
                workers = list(self._counts)
            if workers:
                try:
                    self._beat(workers)
                except StorageError as error:
                    log.warning("heartbeat failed: retry_seconds=%g error=%s", self._interval_seconds, error)
