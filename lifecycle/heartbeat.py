"""Heartbeats: one thread that prolongs, in one call, all that this process's workers hold."""

import logging
import threading
from collections.abc import Callable, Collection

from lifecycle.errors import StorageError

__all__ = ["Heart"]

log = logging.getLogger("lifecycle.heartbeat")


class Heart:
    """Beats while somebody holds something, and rests otherwise."""

    def __init__(self, beat: Callable[[Collection[str]], object], interval: float) -> None:
        """`beat`: called with the workers' names every `interval` seconds."""
        self._beat, self._interval = beat, interval
        self._workers: dict[str, int] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def keep(self, worker: str) -> None:
        """Prolong what `worker` holds from now on. Counts: as many `drop` calls end it."""
        with self._changed:
            self._workers[worker] = self._workers.get(worker, 0) + 1
            if self._thread is None or not self._thread.is_alive():  # a fork leaves the thread behind
                self._thread = threading.Thread(target=self._run, name="lifecycle-heartbeat", daemon=True)
                self._thread.start()
            elif len(self._workers) == 1:
                self._changed.notify()

    def drop(self, worker: str) -> None:
        """Undo one `keep`."""
        with self._changed:
            left = self._workers.get(worker, 0) - 1
            if left > 0:
                self._workers[worker] = left
            else:
                self._workers.pop(worker, None)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._workers:
                    self._changed.wait()
                # A first beat right away would buy nothing: what is held was just taken.
                self._changed.wait(self._interval)
                workers = list(self._workers)
            if workers:
                try:
                    self._beat(workers)
                except StorageError as error:
                    log.warning("heartbeat failed, the next one tries again in %g s: %s", self._interval, error)
