"""The connections of a process to a SQLite file: opened late, one for writes, one for reads, safe across a fork.

All writes of a process go through one connection, since SQLite allows one writer at a time. Reads go through a second
connection, so that a read never waits for a write that waits for another process. A third connection watches for
changes of other processes (see `lifecycle.storage.sqlite.watcher`).
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar, cast
from urllib.parse import quote

from lifecycle.clock import monotonic, pause
from lifecycle.errors import ConfigurationError, StorageError, StorageUnusable
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite import schema
from lifecycle.storage.sqlite.errors import translated
from lifecycle.storage.sqlite.watcher import ChangeWatcher

__all__ = ["SYNCHRONOUS", "Database", "Transaction"]

T = TypeVar("T")
SYNCHRONOUS: Final = ("off", "normal", "full", "extra")
"""Values of SQLite's ``pragma synchronous``. With `normal` (the default) no commit is lost when a process dies; a power
failure can lose the last commits, and leaves the file intact. With `full` each commit waits for the disk."""
LOCK_RETRY_SECONDS: Final = 0.005
"""Time between two attempts to switch a new file to WAL."""

_open_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()


class _Connection(sqlite3.Connection):
    """A connection that closes when a queue is dropped: Python 3.13 warns of one that is freed while open."""

    def __del__(self) -> None:
        with suppress(sqlite3.ProgrammingError):  # the connection was never opened
            self.close()


class Database:
    """One queue in a file. The first use opens the file, and creates a missing file."""

    def __init__(self, path: str, queue: str, synchronous: str, timeout: float, *, read_only: bool = False) -> None:
        """`timeout`: seconds to wait for writes of other processes before `StorageUnavailable` is raised.

        `read_only`: open the file for reading only, and create and migrate nothing.
        """
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(f"synchronous: must be one of {', '.join(SYNCHRONOUS)}")
        self.path, self._queue, self._synchronous, self._timeout = path, queue, synchronous, timeout
        self.read_only = read_only
        self._is_frozen = False
        self.location = f"sqlite:///{quote(path)}"
        self._closed = False
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self.watcher = ChangeWatcher(self._connect_watcher)
        self._start()
        _open_databases.add(self)

    def close_before_fork(self) -> None:
        """Close all connections and take all locks, until the fork is done: a child must inherit neither.

        A child with an inherited connection believes that it holds SQLite's file locks. The parent's next `close` would
        then delete the log that the child writes to.
        """
        self.watcher.suspend()  # first: the thread may be waiting for the other locks
        for lock in (self.mutex, self._opening, self._reading):
            lock.acquire()
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = None

    def resume_after_fork(self) -> None:
        """Release the locks in the parent; the next use opens the file again."""
        for lock in (self._reading, self._opening, self.mutex):
            lock.release()
        self.watcher.resume()

    def reset_after_fork(self) -> None:
        """Start again in the child: the parent's threads, and the locks they hold, are not there."""
        self.watcher.reset_after_fork()
        self._start()

    def _start(self) -> None:
        self.mutex = threading.RLock()
        self._reading = threading.Lock()
        self._opening = threading.Lock()
        self._writer = self._reader = None
        self._queue_id = 0
        self.work_changed = self.outcome_changed = False
        """Whether the transaction that holds the mutex has changed a channel."""

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StorageError(f"the queue on {self.path} was closed")
        try:
            db = sqlite3.connect(
                self._url_to_read() if self.read_only else self.path, timeout=self._timeout, isolation_level=None,
                check_same_thread=False, cached_statements=64, uri=self.read_only,
                factory=_Connection,
            )  # fmt: skip
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        with self._or_closed(db):
            db.execute(f"pragma synchronous = {self._synchronous}")
        return db

    @contextmanager
    def _or_closed(self, db: sqlite3.Connection) -> Iterator[None]:
        """Close the connection if the block raises, even `KeyboardInterrupt`."""
        try:
            yield
        except BaseException as error:
            db.close()
            if isinstance(error, sqlite3.Error):
                raise translated(error, self.path) from error
            raise

    def _connect_watcher(self) -> sqlite3.Connection:
        self.writer()
        return self._connect()

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < (3, 37):
            raise StorageUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is required")
        path = Path(self.path)
        try:
            folder, parent = path.is_dir(), path.parent.is_dir()
        except OSError as error:
            raise StorageUnusable(f"{path} cannot be used as a queue: {error.strerror}") from None
        if folder:
            raise StorageUnusable(f"{path} is a folder: name a file in it")
        if not parent:
            raise StorageUnusable(f"there is no folder {path.parent}: create the folder, or name another file")
        db = self._connect()
        if self.read_only:
            self._open_to_read(db)
            return
        with self._or_closed(db):
            db.execute("begin")  # one snapshot for all reads: another process may be creating the file
            there = schema.version(db, self.path)
            db.execute("commit")
            # Nothing is changed before the file is known to be empty or a queue's.
            self._to_wal(db)
            db.execute("begin immediate")
            if there < schema.VERSION:
                there = schema.version(db, self.path)  # another process may have been faster
                if there < schema.VERSION:
                    schema.migrate(db, there)
            db.execute("insert into queue(name) values (?) on conflict do nothing", (self._queue,))
            (self._queue_id,) = db.execute("select id from queue where name = ?", (self._queue,)).fetchone()
            db.execute("commit")
            self._reader = self._connect()
        self._writer = db

    def _open_to_read(self, db: sqlite3.Connection) -> None:
        """Use this connection for all. A queue that is not in the file has no tasks."""
        with self._or_closed(db):
            there = schema.version(db, self.path)
            if there < schema.VERSION:
                fault = "has tables of an older release" if there else "is empty"
                raise StorageUnusable(
                    f"{self.path} {fault}, and is opened for reading only: let a consumer open it first"
                )
            found = db.execute("select id from queue where name = ?", (self._queue,)).fetchone()
        self._queue_id = found[0] if found is not None else 0  # ids begin with 1
        self._reader = self._writer = db

    def _url_to_read(self) -> str:
        """Return the URL with which SQLite opens the file for reading only.

        SQLite reads a file in WAL mode only with two files beside it. If they are not there, no process uses the file
        at this moment. A reader must not create them: they would be the reader's own, and no consumer could write them.
        So the file alone is read, as if nobody could change it, and is opened again for the next read.
        """
        path = Path(self.path).absolute()
        self._is_frozen = not any(beside.exists() for beside in _files_beside(path))
        return f"file:{quote(str(path))}?mode=ro{'&immutable=1' * self._is_frozen}"

    def can_write(self) -> bool:
        """Return whether this user may change the file, and create the files that SQLite needs beside it."""
        path = Path(self.path)
        return all(os.access(one if one.exists() else path.parent, os.W_OK) for one in (path, *_files_beside(path)))

    @property
    def queue_id(self) -> int:
        """The number of the queue in the file. The first use opens the file."""
        if self._writer is None:
            self.writer()
        return self._queue_id

    def _to_wal(self, db: sqlite3.Connection) -> None:
        """Switch the file to WAL, repeatedly while the file is locked: SQLite ignores its own timeout here."""
        deadline = monotonic() + self._timeout
        while True:
            try:
                db.execute("pragma journal_mode = wal")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                    raise
                pause(LOCK_RETRY_SECONDS)
            else:
                return

    def writer(self) -> sqlite3.Connection:
        """Return the connection for writes. The caller holds the mutex."""
        if self._writer is None:
            with self._opening:
                if self._writer is None:
                    self._open()
        return cast(sqlite3.Connection, self._writer)

    def read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        """Return the rows of a query, as last committed."""
        return self._read_with(lambda reader: reader.execute(sql, parameters).fetchall())

    def read_together(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return what a function returns that makes several queries, of the same moment."""

        def at_one_moment(reader: sqlite3.Connection) -> T:
            reader.execute("begin")
            try:
                return work(reader)
            finally:
                reader.execute("commit")

        return self._read_with(at_one_moment)

    def _read_with(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while True:
            self.writer()
            with self._reading:
                if self._reader is None:  # closed by a fork in another thread
                    continue
                try:
                    return work(self._reader)
                except sqlite3.Error as error:
                    raise translated(error, self.path) from error
                finally:
                    if self._is_frozen:
                        self._reader.close()
                        self._reader = self._writer = None

    def close(self) -> None:
        """Close the connections and end all waits; later calls raise `StorageError`."""
        self._closed = True
        self.watcher.close()
        with self.mutex, self._opening, self._reading:  # in the same order as everywhere
            for db in (self._reader, self._writer):
                if db is not None:
                    db.close()
            self._reader = self._writer = None


def _files_beside(path: Path) -> list[Path]:
    """Return the paths of the log and of its index, which SQLite keeps beside a file while the file is used."""
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm")]


class Transaction:
    """A transaction that writes; after the commit the changed channels are counted.

    A class, since a generator-based context manager would cost 1 µs more.
    """

    __slots__ = ("_database", "_db")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        self._db: sqlite3.Connection | None = None
        database.mutex.acquire()
        try:
            self._db = database.writer()
            # Takes the write lock at once: a transaction that reads first could fail to get the lock later.
            self._db.execute("begin immediate")
        except BaseException as error:  # KeyboardInterrupt can come anywhere
            if self._db is not None and self._db.in_transaction:
                self._db.execute("rollback")
            database.mutex.release()
            if isinstance(error, sqlite3.Error):
                raise translated(error, database.path) from error
            raise
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


_suspended: list[Database] = []


def _before_fork() -> None:
    for database in list(_open_databases):
        database.close_before_fork()
        _suspended.append(database)


def _after_fork(in_child: bool) -> None:
    while _suspended:
        database = _suspended.pop()
        if in_child:
            database.reset_after_fork()
        else:
            database.resume_after_fork()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
