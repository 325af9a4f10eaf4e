"""Waiting for a SQLite file to change, in this process or another, without keeping a core busy."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Final

from lifecycle.clock import pause
from lifecycle.errors import StorageError
from lifecycle.owned_thread import OwnedThread
from lifecycle.storage.base import Channel
from lifecycle.storage.notifications import ChangeCounter

__all__ = ["POLL_INTERVAL_SECONDS", "ChangeWatcher"]

POLL_INTERVAL_SECONDS: Final = 0.004
"""Time between two reads of `data_version` while a thread waits: half of it is the mean delay of a wake-up."""
RETRY_INTERVAL_SECONDS: Final = 0.5
"""Time between two reads while the file cannot be read."""


class ChangeWatcher(ChangeCounter):
    """Counts the changes of a queue in a SQLite file.

    The adapter reports changes of this process (`notify`). Changes of other processes show in SQLite's
    ``pragma data_version``. A thread reads the pragma every `POLL_INTERVAL_SECONDS`, only while a thread waits.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection], look: Callable[[], object]) -> None:
        """`connect`: opens a connection of the thread's own; `look`: called before each read, without a lock."""
        super().__init__()
        self._connect, self._look = connect, look
        self._start()

    def _start(self) -> None:
        self._thread: OwnedThread | None = None
        self._stop = threading.Event()
        self._polling = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._seen: int | None = None
        """The number of the last read; ``None``: of no connection, or of none that could be read."""

    def reset_after_fork(self) -> None:
        """Start again in the child of a fork: the thread is the parent's."""
        super().reset_after_fork()
        self._start()

    def suspend(self) -> None:
        """Close the connection, and open none before `resume`."""
        self._polling.acquire()
        if self._db is not None:
            self._db.close()
            self._db = None

    def resume(self) -> None:
        """Allow a connection again."""
        self._polling.release()

    def _begin_wait(self, channel: Channel) -> None:
        del channel  # one poll serves all channels
        if self._thread is None:
            self._thread = OwnedThread(self, ChangeWatcher._poll, "lifecycle-watch")
        elif self._waiting_count == 1:
            self._thread.wake()

    def close(self) -> None:
        """End all waits and the thread."""
        super().close()
        self._stop.set()
        if self._thread is not None:
            self._thread.wake()
            self._thread.join()
        with self._polling:
            if self._db is not None:
                self._db.close()

    def _poll(self) -> float | None:
        """Read the number, again and again, while a thread waits; return the pause after that."""
        while self._waiting_count and not self._closed:
            pause(POLL_INTERVAL_SECONDS)
            with suppress(StorageError):  # the threads that wait must find out for themselves
                self._look()
            with self._polling:
                if self._closed:
                    return None
                if self._db is None:
                    self._seen = None  # the number of one connection says nothing to another
                try:
                    self._db = self._db or self._connect()
                    (version,) = self._db.execute("pragma data_version").fetchone()
                except (sqlite3.Error, StorageError):
                    # The threads that wait must find out for themselves. The next read tries again.
                    if self._db is not None:
                        self._db.close()
                    self._db, version = None, None
            if version is None:
                self._stop.wait(RETRY_INTERVAL_SECONDS)
            if version != self._seen or version is None:
                self._seen = version
                self.wake()
        return None if self._closed else inf
