"""Waiting for a store to change, in this process or another, without keeping a core busy."""

import sqlite3
import threading
from collections.abc import Callable
from typing import Final

from lifecycle.clock import pause
from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel

__all__ = ["POLL", "Watch"]

POLL: Final = 0.004
"""Seconds between two looks at `data_version` while somebody waits: half of it is the mean delay of a wake-up."""
AWAY: Final = 0.5
"""The same, while the store cannot be read."""


class Watch:
    """Counts the changes of a store, and wakes those who wait for the next.

    Changes of this process are told to it (`notify`). Those of others are seen in SQLite's ``pragma data_version``,
    which a thread reads every `POLL` seconds, as long as somebody waits, and only then.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """`connect`: makes the thread's own connection."""
        self._connect = connect
        self._changed = threading.Condition()
        self._waiting = 0
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._generations = dict.fromkeys(Channel, 0)
        self._looking = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def part(self) -> None:
        """Let go of the connection, until `go_on`."""
        self._looking.acquire()
        if self._db is not None:
            self._db.close()
            self._db = None

    def go_on(self) -> None:
        """See `part`."""
        self._looking.release()

    def generation(self, channel: Channel) -> int:
        """How many changes there were."""
        return self._generations[channel]

    def notify(self, *channels: Channel) -> None:
        """Something changed."""
        with self._changed:
            for channel in channels:
                self._generations[channel] += 1
            if self._waiting:
                self._changed.notify_all()

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block until there is a change after `generation`, at most `timeout` seconds; whether there was one."""
        with self._changed:
            if self._closed.is_set():
                raise StorageError("the queue was closed")
            self._waiting += 1
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="lifecycle-watch", daemon=True)
                self._thread.start()
            try:
                return self._changed.wait_for(lambda: self._generations[channel] != generation, timeout)
            finally:
                self._waiting -= 1
                if not self._waiting and not self._closed.is_set():
                    self._wanted.clear()

    def close(self) -> None:
        """End the thread, and every wait."""
        self._closed.set()
        self._wanted.set()
        self.notify(*Channel)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _look(self) -> None:
        seen: int | None = None
        while self._wanted.wait() and not self._closed.is_set():
            pause(POLL)
            with self._looking:
                if self._db is None:
                    seen = None  # its numbers mean nothing to another connection
                try:
                    self._db = self._db or self._connect()
                    (version,) = self._db.execute("pragma data_version").fetchone()
                except (sqlite3.Error, StorageError):
                    # The store is away. Those who wait shall find out for themselves, and the next look tries again.
                    if self._db is not None:
                        self._db.close()
                    self._db, version = None, None
            if version is None:
                self._closed.wait(AWAY)
            if version != seen or version is None:
                seen = version
                self.notify(*Channel)
        if self._db is not None:
            self._db.close()
