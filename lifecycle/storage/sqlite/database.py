"""The connections of a process to a SQLite file: opened late, one for writes, one for reads, safe across a fork.

All writes of a process go through one connection, since SQLite allows one writer at a time. Reads go through a second
connection, so that a read never waits for a write that waits for another process. A third connection watches for
changes of other processes (see `lifecycle.storage.sqlite.watcher`).

If the file is removed or replaced while it is open, all connections of the process are closed, and the next use opens
the file that is there, or creates one: see `lifecycle.storage.sqlite.file_identity`.
"""

import logging
import os
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final, TypeVar, cast
from urllib.parse import quote

from lifecycle.clock import monotonic, pause
from lifecycle.errors import ConfigurationError, StorageError, StorageUnavailable, StorageUnusable
from lifecycle.escaping import printable
from lifecycle.storage.sqlite import schema
from lifecycle.storage.sqlite.errors import is_busy, translated
from lifecycle.storage.sqlite.file_identity import (
    CHECK_INTERVAL_SECONDS,
    ENDINGS,
    FileChange,
    FileIdentity,
    create_if_missing,
)
from lifecycle.storage.sqlite.removed_log import save_log
from lifecycle.storage.sqlite.watcher import ChangeWatcher

__all__ = ["SYNCHRONOUS", "Database"]

log = logging.getLogger("lifecycle.storage")

T = TypeVar("T")
SYNCHRONOUS: Final = ("off", "normal", "full", "extra")
"""Values of SQLite's ``pragma synchronous``. With `normal` (the default) no commit is lost when a process dies; a power
failure can lose the last commits, and leaves the file intact. With `full` each commit waits for the disk."""
LOCK_RETRY_SECONDS: Final = 0.005
"""Time between two attempts to switch a new file to WAL."""
_REPORTS: Final = {
    FileChange.REMOVED: "lost all tasks: the file was removed while in use, and the next use makes a new one; outcomes"
    " of running tasks, and writes of the last %g s, are lost, too path=%s",
    FileChange.REPLACED: "left a file: another one has replaced it while it was in use; outcomes of tasks that are not"
    " in the other file, and writes of the last %g s, are lost path=%s",
    FileChange.LOG_REMOVED: "saved the log of a file: the log or its index was removed while in use; nothing is lost,"
    " unless another program has opened the file in the last %g s path=%s",
    FileChange.LOG_REPLACED: "left the log of a file: the log or its index was replaced while in use; unless another"
    " process says that it saved the log, writes of the last %g s may be lost, and the file may be damaged: check it"
    " with pragma integrity_check path=%s",
}
"""Log line for each change, with the time between two looks and the path."""

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
        self._files: FileIdentity | None = None
        """The files that the connections have open."""
        self._files_left: FileIdentity | None = None
        """The files of before a fork, or of an opening that has failed, until the path is open again."""
        self.check_at = inf
        """When to look at the files again (`monotonic`)."""
        self.watcher = ChangeWatcher(self._connect_watcher, self._look)
        self._start()
        _open_databases.add(self)

    def close_before_fork(self) -> None:
        """Close all connections and take all locks, until the fork is done: a child must inherit neither.

        A child with an inherited connection believes that it holds SQLite's file locks. The parent's next `close` would
        then delete the log that the child writes to.
        """
        self._suspend()
        self._files_left = self._files or self._files_left
        self._disconnect()

    def resume(self) -> None:
        """Release the locks; the next use opens the file again."""
        for lock in (self._reading, self._opening, self.mutex):
            lock.release()
        self.watcher.resume()

    def _suspend(self) -> None:
        """Take all locks, and close the connection of the watcher."""
        self.watcher.suspend()  # first: the thread may be waiting for the other locks
        for lock in (self.mutex, self._opening, self._reading):
            lock.acquire()

    def _disconnect(self) -> None:
        for db in (self._reader, self._writer):
            if db is not None:
                db.close()
        self._reader = self._writer = self._files = None
        self.check_at = inf

    def reset_after_fork(self) -> None:
        """Start again in the child: the parent's threads, and the locks they hold, are not there."""
        self.watcher.reset_after_fork()
        self._start()

    def _start(self) -> None:
        self.mutex = threading.RLock()
        self._reading = threading.Lock()
        self._opening = threading.Lock()
        self._writer = self._reader = None
        self._files = None
        self.check_at = inf
        self._queue_id = 0
        self.work_changed = self.outcome_changed = False
        """Whether the transaction that holds the mutex has changed a channel."""

    def _connect(self, *, creates: bool = False) -> sqlite3.Connection:
        """Return a new connection; `creates`: SQLite may create the file. `StorageUnavailable`: no file."""
        if self._closed:
            raise StorageError(f"the queue on {self.path} was closed")
        try:
            db = sqlite3.connect(
                self._url_to_read() if self.read_only else self._url_to_write(creates),
                timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=64, uri=True,
                factory=_Connection,
            )  # fmt: skip
        except sqlite3.Error as error:
            if not creates and not self.read_only and not Path(self.path).exists():
                raise self._unavailable() from error
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
        if self.has_changed():  # a connection to another file would take the log of this one for its own
            self.check_at = 0.0
            raise self._unavailable()
        return self._connect()

    def _unavailable(self) -> StorageUnavailable:
        return StorageUnavailable(f"{self.path} was removed or replaced while in use: try again")

    def _open(self) -> None:
        """Open the file, and note its identity."""
        left = self._files_left
        if left is not None and left.change() is FileChange.REPLACED:
            self._report(FileChange.REPLACED)
            self._files_left = None
        for _ in range(3):  # the file could be replaced just now, or be copied to be written, as container images are
            before = FileIdentity.of(self.path)
            is_new = not self._closed and not self.read_only and create_if_missing(self.path)
            if is_new and (self._files_left or before.file) is not None:
                self._report(FileChange.REMOVED)
                self._files_left = None
            self._open_file()
            self._files = files = FileIdentity.of(self.path)
            if before.file in (None, files.file):
                break
            self._disconnect()
        self._files_left = None
        self.check_at = monotonic() + CHECK_INTERVAL_SECONDS

    def _open_file(self) -> None:
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
        if self.read_only:
            self._open_to_read(self._connect())
            return
        db = self._connect(creates=True)
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
            self._files_left = self._files_left or FileIdentity.of(self.path)  # a queue's file from here on
            self._reader = self._connect()
            db.execute("pragma busy_timeout = 0")  # see `begin`
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

    def _url_to_write(self, creates: bool) -> str:
        return f"file://{quote(str(Path(self.path).absolute()))}?mode=rw{'c' * creates}"

    def _url_to_read(self) -> str:
        """Return the URL with which SQLite opens the file for reading only.

        SQLite reads a file in WAL mode only with two files beside it. If they are not there, no process uses the file
        at this moment. A reader must not create them: they would be the reader's own, and no consumer could write them.
        So the file alone is read, as if nobody could change it, and is opened again for the next read.
        """
        path = Path(os.path.realpath(self.path))
        self._is_frozen = not any(beside.exists() for beside in _files_beside(path))
        return f"file://{quote(str(path))}?mode=ro{'&immutable=1' * self._is_frozen}"

    def can_write(self) -> bool:
        """Return whether this user may change the file, and create the files that SQLite needs beside it."""
        path = Path(os.path.realpath(self.path))
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
                if not is_busy(error) or monotonic() >= deadline:
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

    def begin(self, db: sqlite3.Connection) -> None:
        """Begin a transaction that writes; wait for the write of another process. The caller holds the mutex.

        The connection for writes waits nowhere else. A write outside a transaction must not wait: when its turn comes,
        the files may have changed, and the write could not look again.
        """
        try:
            db.execute("begin immediate")
        except sqlite3.OperationalError as error:
            if not is_busy(error) or self.read_only:
                raise
            try:
                db.execute(f"pragma busy_timeout = {self._timeout * 1000:.0f}")
                db.execute("begin immediate")
            finally:
                db.execute("pragma busy_timeout = 0")

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
                if monotonic() < self.check_at or not self.has_changed():
                    if self._reader is None:  # closed in another thread, by a fork or since the file has changed
                        continue
                    try:
                        return work(self._reader)
                    except sqlite3.Error as error:
                        self.check_at = 0.0
                        raise translated(error, self.path) from error
                    finally:
                        if self._is_frozen:
                            self._disconnect()
            self.leave_changed()

    def close(self) -> None:
        """Close the connections and end all waits; later calls raise `StorageError`."""
        self._closed = True
        self.watcher.close()
        with self.mutex, self._opening, self._reading:  # in the same order as everywhere
            change = None if self._files is None else self._files.change()
            self._disconnect()
        if change in (FileChange.REMOVED, FileChange.REPLACED):  # the last writes may have gone into the old file
            self._report(change)

    def has_changed(self) -> bool:
        """Return whether the open files are not those of the path any more; note that this was looked at now."""
        self.check_at = monotonic() + CHECK_INTERVAL_SECONDS
        return self._files is not None and self._files.change() is not None

    def leave_changed(self) -> bool:
        """Close all connections of this process, and log that, if the open files are not those of the path any more.

        Returns whether they are closed: the next use opens the file that is there. The caller holds no lock. Raises
        `StorageUnavailable` if the log was removed, and other processes do not let its changes be saved now.
        """
        files = self._files
        if files is None or not self.has_changed():
            return False
        with _all_together:
            mine = [one for one in _open_databases if one._files is not None and one._files.file == files.file]
            for one in mine:
                one._suspend()
            try:
                self._leave(files, mine)
            finally:
                for one in mine:
                    one.resume()
        for one in mine:
            one.watcher.wake()
        return self._files is not files

    def _look(self) -> None:
        if monotonic() >= self.check_at:
            self.leave_changed()

    def _leave(self, files: FileIdentity, mine: "list[Database]") -> None:
        """Close the connections of these databases, unless the files have come back. All locks are held."""
        writers = [one._writer for one in mine if one._writer is not None and not one.read_only]
        if self._files is not files or any(db.in_transaction for db in writers):
            return  # a fork was faster; or a handler of an operating system's signal is inside a transaction
        change = files.change()
        if change is FileChange.LOG_REMOVED and writers:
            change = save_log(writers[0], files)
        elif change in (FileChange.REMOVED, FileChange.REPLACED) and writers:
            with suppress(sqlite3.Error):  # so that the old file is whole, if it was only renamed
                writers[0].execute("pragma wal_checkpoint(passive)")
            files.discard_log()
        if change is None:
            return
        if change is FileChange.LOG_REPLACED and sys.version_info >= (3, 12):
            for db in writers:  # else the last `close` would write parts of one log and of the other into the file
                db.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        for one in mine:
            one._disconnect()
        self._report(change)

    def _report(self, change: FileChange) -> None:
        if self.read_only:
            log.warning("left a file that was read: %s while in use path=%s", change, printable(self.path))
        else:
            log.error(_REPORTS[change], CHECK_INTERVAL_SECONDS, printable(self.path))


def _files_beside(path: Path) -> list[Path]:
    """Return the paths of the log and of its index, which SQLite keeps beside a file while the file is used."""
    return [path.with_name(path.name + ending) for ending in ENDINGS]


_suspended: list[Database] = []
_all_together = threading.Lock()
"""Held while the connections of several databases are closed together: by a fork, or since a file has changed."""


def _before_fork() -> None:
    _all_together.acquire()
    for database in list(_open_databases):
        database.close_before_fork()
        _suspended.append(database)


def _after_fork(in_child: bool) -> None:
    while _suspended:
        database = _suspended.pop()
        if in_child:
            database.reset_after_fork()
        else:
            database.resume()
    _all_together.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
