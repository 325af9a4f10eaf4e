"""An SQLite file as a queue uses it: opened late, written through one connection, safe to keep across a fork.

Writes go through one connection for each process, since SQLite takes one writer at a time anyway; reads through
another, so that they never queue behind a write that waits for another process. Other processes are noticed by SQLite's
`data_version` (see `lifecycle.storage.sqlite.watcher`).
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from lifecycle.clock import monotonic, pause
from lifecycle.errors import ConfigurationError, StorageError, StorageFull, StorageUnavailable, StorageUnusable
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite import schema
from lifecycle.storage.sqlite.watcher import Watch

__all__ = ["SYNCHRONOUS", "SQLiteFile", "Transaction"]

SYNCHRONOUS: Final = ("off", "normal", "full", "extra")
"""What a commit waits for. `normal` (the default) loses no task when a process or the consumer dies; a power cut may
take the last commits with it, and leaves the file sound. `full` waits for the disk at each commit."""

_live: "weakref.WeakSet[SQLiteFile]" = weakref.WeakSet()


class SQLiteFile:
    """One file, and one queue in it; opened, and made if it is not there, at the first use."""

    def __init__(self, path: str, queue: str, synchronous: str, timeout: float) -> None:
        """`timeout`: seconds to wait for other processes' writes before `StorageUnavailable` is raised."""
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(f"synchronous takes one of {', '.join(SYNCHRONOUS)}")
        self.path, self._queue, self._synchronous, self._timeout = path, queue, synchronous, timeout
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self.watch: Watch
        self.forget()
        _live.add(self)

    def part(self) -> None:
        """Let go of all connections, and of the locks only after the fork: a child must not inherit either.

        A child that has a connection open as its parent forked takes SQLite's file locks for held that it does not
        hold; the parent's next `close` would then delete the log that the child writes to.
        """
        self.watch.part()  # first: its thread may be waiting for the others
        for lock in (self.mutex, self._opening, self._reading):
            lock.acquire()
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = None

    def go_on(self) -> None:
        """In the parent, after the fork."""
        for lock in (self._reading, self._opening, self.mutex):
            lock.release()
        self.watch.go_on()

    def forget(self) -> None:
        """Start anew, as a child after a fork: threads and whoever held the locks are not there."""
        self.mutex = threading.RLock()
        self._reading = threading.Lock()
        self._opening = threading.Lock()
        self._writer = self._reader = None
        self._queue_id = 0
        self.watch = Watch(self._connect_watch)
        self.work = self.outcome = False
        """What the transaction that holds the mutex has changed, for whoever waits."""

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StorageError(f"the queue on {self.path} was closed")
        try:
            db = sqlite3.connect(
                self.path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=64
            )
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error
        with self._or_closed(db):
            db.execute(f"pragma synchronous = {self._synchronous}")
        return db

    @contextmanager
    def _or_closed(self, db: sqlite3.Connection) -> Iterator[None]:
        """A connection that does not come into use is closed, be it that Ctrl-C has come."""
        try:
            yield
        except BaseException as error:
            db.close()
            if isinstance(error, sqlite3.Error):
                raise _translated(error, self.path) from error
            raise

    def _connect_watch(self) -> sqlite3.Connection:
        self.writer()
        return self._connect()

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < (3, 37):
            raise StorageUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
        path = Path(self.path)
        try:
            folder, parent = path.is_dir(), path.parent.is_dir()
        except OSError as error:
            raise StorageUnusable(f"{path} cannot be used as a queue: {error.strerror}") from None
        if folder:
            raise StorageUnusable(f"{path} is a folder: name a file in it")
        if not parent:
            raise StorageUnusable(f"there is no folder {path.parent}: make it first, or name another file")
        db = self._connect()
        with self._or_closed(db):
            db.execute("begin")  # one view for all that is looked at: another process may be making the file
            there = schema.version(db, self.path)
            db.execute("commit")
            # Only now that the file is known to be ours, or nobody's, is anything about it changed.
            self._to_wal(db)
            db.execute("begin immediate")
            if there < schema.VERSION:
                there = schema.version(db, self.path)  # somebody may have been faster
                if there < schema.VERSION:
                    schema.migrate(db, there)
            db.execute("insert into queue(name) values (?) on conflict do nothing", (self._queue,))
            (self._queue_id,) = db.execute("select id from queue where name = ?", (self._queue,)).fetchone()
            db.execute("commit")
            self._reader = self._connect()
        self._writer = db

    @property
    def queue_id(self) -> int:
        """The queue's number in the file, which is opened to know it."""
        if self._writer is None:
            self.writer()
        return self._queue_id

    def _to_wal(self, db: sqlite3.Connection) -> None:
        """Switch the file to WAL. SQLite does not wait for its lock here, whatever the timeout."""
        deadline = monotonic() + self._timeout
        while True:
            try:
                db.execute("pragma journal_mode = wal")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                    raise
                pause(0.005)
            else:
                return

    def writer(self) -> sqlite3.Connection:
        """The connection that writes; only for whoever holds the mutex."""
        if self._writer is None:
            with self._opening:
                if self._writer is None:
                    self._open()
        return cast(sqlite3.Connection, self._writer)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """The rows of a query, as they were last committed."""
        while True:
            self.writer()
            with self._reading:
                if self._reader is None:  # a fork in another thread was faster (see `part`)
                    continue
                try:
                    return self._reader.execute(sql, parameters).fetchall()
                except sqlite3.Error as error:
                    raise _translated(error, self.path) from error

    def close(self) -> None:
        """Close the connections; the file is not opened again."""
        self._closed = True
        self.watch.close()
        with self.mutex, self._opening, self._reading:  # in the order in which others take them
            for db in (self._reader, self._writer):
                if db is not None:
                    db.close()
            self._reader = self._writer = None


class Transaction:
    """A write, whole or not at all, and the news of it afterwards. A generator in its place would cost 1 µs."""

    __slots__ = ("_db", "_file")

    def __init__(self, file: SQLiteFile) -> None:
        self._file = file

    def __enter__(self) -> sqlite3.Connection:
        file = self._file
        self._db: sqlite3.Connection | None = None
        file.mutex.acquire()
        try:
            self._db = file.writer()
            # Takes the write lock at once: a transaction that read first could be refused it later.
            self._db.execute("begin immediate")
        except BaseException as error:  # Ctrl-C can come anywhere
            if self._db is not None and self._db.in_transaction:
                self._db.execute("rollback")
            file.mutex.release()
            if isinstance(error, sqlite3.Error):
                raise _translated(error, file.path) from error
            raise
        file.work = file.outcome = False
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file, db = self._file, cast(sqlite3.Connection, self._db)
        try:
            failure = error
            if failure is None:
                try:
                    db.execute("commit")
                except BaseException as fault:  # noqa: BLE001 -- as above
                    failure = fault
            if failure is not None:
                if db.in_transaction:  # SQLite may have rolled back by itself, when the disk is full, say
                    db.execute("rollback")
                if isinstance(failure, sqlite3.Error):
                    raise _translated(failure, file.path) from failure
                if error is None:
                    raise failure
                return
            work, outcome = file.work, file.outcome
        finally:
            file.mutex.release()
        if work:
            file.watch.notify(Channel.WORK)
        if outcome:
            file.watch.notify(Channel.OUTCOME)


_UNUSABLE: Final = (
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)  # fmt: skip


def _translated(error: sqlite3.Error, path: str) -> StorageError:
    """The same in our words: what is wrong with which file, and what to do."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code, without its details
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"{path}: no space left for the write ({error}); nothing was changed: make room and try again"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageUnavailable(
            f"{path} is kept locked by another program; nothing was changed, it can be tried again"
        )
    if code in _UNUSABLE:
        return StorageUnusable(f"{path} cannot be used as a queue: {error}")
    return StorageError(f"{path}: {error}")


_parting: list[SQLiteFile] = []


def _before_fork() -> None:
    for file in list(_live):
        file.part()
        _parting.append(file)


def _after_fork(in_child: bool) -> None:
    while _parting:
        file = _parting.pop()
        if in_child:
            file.forget()
        else:
            file.go_on()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
