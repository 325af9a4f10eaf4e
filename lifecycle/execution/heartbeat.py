"""Heartbeats: one thread that prolongs, in one call, all that this process's workers hold."""

import logging
import os
import threading
from collections.abc import Callable, Collection

from lifecycle.errors import StorageError

__all__ = ["Heartbeat"]

log = logging.getLogger("lifecycle.heartbeat")


class Heartbeat:
    """Beats for whoever holds something; its thread starts with the first, and lives until `close`."""

    def __init__(self, beat: Callable[[Collection[str]], object], interval: float) -> None:
        """`beat`: called with the workers' names every `interval` seconds, if there are any."""
        self._beat, self._interval = beat, interval
        self._forget()

    def _forget(self) -> None:
        self._workers: dict[str, int] = {}
        self._mutex = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def keep(self, worker: str) -> None:
        """Prolong what `worker` holds from now on. Counts: as many `drop` calls end it."""
        if self._pid != os.getpid():  # after a fork: those others are the parent's to keep alive
            self._forget()
        with self._mutex:
            self._workers[worker] = self._workers.get(worker, 0) + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lifecycle-heartbeat", daemon=True)
                self._thread.start()

    def drop(self, worker: str) -> None:
        """Undo one `keep`."""
        with self._mutex:
            left = self._workers.get(worker, 0) - 1
            if left > 0:
                self._workers[worker] = left
            else:
                self._workers.pop(worker, None)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        # Whoever comes while it waits has just taken what it holds, for three times as long.
        while not self._closed.wait(self._interval):
            with self._mutex:
                workers = list(self._workers)
            if workers:
                try:
                    self._beat(workers)
                except StorageError as error:
                    log.warning("heartbeat failed, the next one tries again in %g s: %s", self._interval, error)
