"""The heartbeat of a process: a thread that extends the leases of all its workers, in one call of the store."""

import logging
import os
import threading
from collections.abc import Callable, Collection
from typing import Final

from lifecycle.errors import StorageError
from lifecycle.owned_thread import OwnedThread

__all__ = ["Heartbeat"]

_RETRIES_PER_INTERVAL: Final = 4
"""Number of beats in an interval while the store cannot be used: leases are prolonged soon after an outage."""

log = logging.getLogger("lifecycle.heartbeat")


class Heartbeat:
    """Extends the leases of workers at an interval. The thread starts with the first worker, and ends with `close`."""

    def __init__(
        self,
        beat: Callable[[Collection[str]], object],
        interval_seconds: float,
        read_clocks: Callable[[], tuple[float, ...]],
    ) -> None:
        """`beat`: called at each interval with the names of the workers, if there are any.

        `read_clocks`: returns the seconds of all clocks that may show that a beat is late.
        """
        self._beat, self._interval_seconds, self._read_clocks = beat, interval_seconds, read_clocks
        self._reset()

    def _reset(self) -> None:
        self._counts: dict[str, int] = {}
        """Name of a worker → the number of its `keep` calls without a `drop` call."""
        self._mutex = threading.Lock()
        self._closed = False
        self._thread: OwnedThread | None = None
        self._pause_seconds = self._interval_seconds
        self._beaten_at: tuple[float, ...] = ()
        """The clocks before the last beat that succeeded, or as the first worker came; empty before."""
        self._pid = os.getpid()

    def keep(self, worker: str) -> None:
        """Extend the leases of a worker from now on, until as many `drop` calls have followed.

        The worker's present lease must last longer than the interval.
        """
        if self._pid != os.getpid():  # after a fork: the other workers are the parent's, and so is the thread
            self._reset()
        with self._mutex:
            self._counts[worker] = self._counts.get(worker, 0) + 1
            self._beaten_at = self._beaten_at or self._read_clocks()
            if self._thread is None:
                self._thread = OwnedThread(
                    self, Heartbeat._run, "lifecycle-heartbeat", first_pause_seconds=self._interval_seconds
                )

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
        self._closed = True
        if self._thread is not None:
            self._thread.wake()

    def catch_up(self) -> None:
        """Beat now if the last beat is late, because the store, this process or the host did not run meanwhile.

        The leases of all workers hold after this call. Raises `StorageError`: then they may have lapsed.
        """
        late_seconds = 2 * self._interval_seconds
        if any(now - then > late_seconds for now, then in zip(self._read_clocks(), self._beaten_at, strict=False)):
            self._beat_all()

    def _beat_all(self) -> None:
        with self._mutex:
            workers = list(self._counts)
        if workers:
            before = self._read_clocks()  # a call that hangs prolongs leases from the moment of its beginning
            self._beat(workers)
            self._beaten_at = before

    def _run(self) -> float | None:
        """Beat once; return the pause until the next beat, or ``None`` after the end."""
        # A worker added during the pause can wait for the next beat: its lease is three times as long.
        if self._closed:
            return None
        seconds = self._pause_seconds
        try:
            self._beat_all()
        except StorageError as error:
            if seconds == self._interval_seconds:
                log.warning("heartbeat failed: retry_seconds=%g error=%s", seconds / _RETRIES_PER_INTERVAL, error)
            seconds = self._interval_seconds / _RETRIES_PER_INTERVAL
        else:
            seconds = self._interval_seconds
        self._pause_seconds = seconds
        return seconds
