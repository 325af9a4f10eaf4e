"""A transaction that writes to a SQLite file."""

import sqlite3
from types import TracebackType
from typing import cast

from lifecycle.clock import monotonic
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.errors import translated

__all__ = ["Transaction"]


class Transaction:
    """A transaction that writes; after the commit the changed channels are counted.

    A class, since a generator-based context manager would cost 1 µs more.
    """

    __slots__ = ("_database", "_db")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        while True:
            self._db: sqlite3.Connection | None = None
            database.mutex.acquire()
            try:
                self._db = database.writer()
                # Takes the write lock at once: a transaction that reads first could fail to get the lock later.
                database.begin(self._db)
                # Only now, with the lock: see `lifecycle.storage.sqlite.removed_log`.
                if monotonic() < database.check_at or not database.has_changed():
                    break
                self._db.execute("rollback")
            except BaseException as error:  # KeyboardInterrupt can come anywhere
                if self._db is not None and self._db.in_transaction:
                    self._db.execute("rollback")
                database.mutex.release()
                if not isinstance(error, sqlite3.Error):
                    raise
                if not database.leave_changed():
                    raise translated(error, database.path) from error
            else:
                database.mutex.release()
                database.leave_changed()
        database.work_changed = database.outcome_changed = False
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        database, db = self._database, cast(sqlite3.Connection, self._db)
        try:
            failure = error
            if failure is None:
                try:
                    db.execute("commit")
                except BaseException as fault:  # noqa: BLE001 -- as above
                    failure = fault
            if failure is not None:
                if db.in_transaction:  # SQLite may have rolled back on its own, for example with a full disk
                    db.execute("rollback")
                if isinstance(failure, sqlite3.Error | OverflowError):
                    raise translated(failure, database.path) from failure
                if error is None:
                    raise failure
                return
            work_changed, outcome_changed = database.work_changed, database.outcome_changed
        finally:
            database.mutex.release()
        if work_changed:
            database.watcher.notify(Channel.WORK)
        if outcome_changed:
            database.watcher.notify(Channel.OUTCOME)
