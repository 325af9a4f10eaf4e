"""The SQLite adapter: one file, no server, any number of processes on one machine.

Writes go through one connection for each process, since SQLite takes one writer at a time anyway; reads through
another, so that they never queue behind a write that waits for another process. Other processes are noticed by SQLite's
`data_version` (see `lifecycle.storage.watch`).
"""

import os
import sqlite3
import threading
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, cast

import attrs
import msgspec

from lifecycle.errors import (
    ConfigurationError,
    DuplicateTask,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StorageUnusable,
)
from lifecycle.policies import (
    WAITING,
    Move,
    Revocation,
    admit,
    claimed,
    enqueued,
    recover,
    stopped,
    visibility,
)
from lifecycle.storage import sqlite_schema
from lifecycle.storage.base import RIPEN, Actor, Channel, Claim, Claimant, Lock, Outlook, Settlement, Target
from lifecycle.storage.watch import Watch
from lifecycle.table import INTERRUPT, REVOKE
from lifecycle.task import NO_DELAY, Record, RetryPolicy, Task, policy_fields, read_history

__all__ = ["SYNCHRONOUS", "SQLiteStorage"]

SYNCHRONOUS: Final = ("off", "normal", "full", "extra")
"""What a commit waits for. `normal` (the default) loses no task when a process or the consumer dies; a power cut may
take the last commits with it, and leaves the file sound. `full` waits for the disk at each commit."""

_COLUMNS: Final = (
    "id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt, interruptions, worker, version,"
    " lease, seq"
)
_TASK: Final = f"select {_COLUMNS} from task"  # noqa: S608 -- constants only, here and below
_INSERT: Final = (
    "insert into task(queue, id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt,"
    " interruptions, worker, version, lease, rank, due, history) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
# The one statement that changes a state. The guard is in it: a row that has moved on is not found.
_MOVE: Final = (
    "update task set state=?, eta=?, retries=?, attempt=?, interruptions=?, worker=?, version=version+?, lease=?, rank=?,"
    " due=?, ended=?, result=ifnull(?, result), history=history||?"
    " where seq=? and id=? and version=? and state=? and worker=?"
)
# All that a claim has to know, in one look: the foremost task, what is revoked of it and of its function, and when the
# next scheduled task becomes due.
_FOREMOST: Final = (
    "select t." + _COLUMNS.replace(", ", ", t.") + ", o.once, o.until, f.once, f.until,"
    " (select d.due from task d where d.queue=t.queue and d.due is not null order by d.due limit 1)"
    " from task t"
    " left join revocation o on o.queue=t.queue and o.function=0 and o.key=t.id"
    " left join revocation f on f.queue=t.queue and f.function=1 and f.key=t.name"
    " where t.queue=? and t.rank is not null order by t.rank desc, t.seq limit 1"
)
_RIPEN: Final = (
    "update task set rank=priority, due=null where seq in"
    " (select seq from task where queue=? and due<=? order by due, seq limit ?)"
)
_NEXT_DUE: Final = (
    "select exists(select 1 from task where queue=?1 and rank is not null),"
    " (select due from task where queue=?1 and due is not null order by due limit 1)"
)

_live: "weakref.WeakSet[SQLiteStorage]" = weakref.WeakSet()


class SQLiteStorage:
    """One queue in one SQLite file; the file is opened, and made if it is not there, at the first call."""

    def __init__(
        self, path: str, queue: str = "default", *, synchronous: str = "normal", timeout: float = 60.0
    ) -> None:
        """`timeout`: seconds to wait for other processes' writes before `StorageUnavailable` is raised."""
        if synchronous not in SYNCHRONOUS:
            raise ConfigurationError(f"synchronous={synchronous!r}: there are {', '.join(SYNCHRONOUS)}")
        self._path, self._queue, self._synchronous, self._timeout = path, queue, synchronous, timeout
        self._closed = False
        self._forget()
        _live.add(self)

    def _forget(self) -> None:
        """Start anew, without touching what there was: a connection must not be used, or closed, across a fork."""
        self._mutex = threading.RLock()
        self._reading = threading.Lock()
        self._opening = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._queue_id = 0
        # What the transaction that holds the mutex has changed, for whoever waits.
        self._work = self._outcome = False
        self._watch = Watch(self._connect_watch)

    # Connections -------------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StorageError(f"the queue on {self._path} was closed")
        try:
            db = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            db.execute(f"pragma synchronous = {self._synchronous}")
        except sqlite3.Error as error:
            raise _translated(error, self._path) from error
        return db

    def _connect_watch(self) -> sqlite3.Connection:
        self._write()
        return self._connect()

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < (3, 37):
            raise StorageUnusable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
        path = Path(self._path)
        if path.is_dir():
            raise StorageUnusable(f"{path} is a folder: name a file in it")
        if not path.parent.is_dir():
            raise StorageUnusable(f"there is no folder {path.parent}: make it first, or name another file")
        db = self._connect()
        try:
            new = sqlite_schema.is_new(db, self._path)
            # Only now that the file is known to be ours, or nobody's, is anything about it changed.
            db.execute("pragma journal_mode = wal")
            db.execute("begin immediate")
            if new and sqlite_schema.is_new(db, self._path):  # nobody was faster
                sqlite_schema.create(db)
            db.execute("insert into queue(name) values (?) on conflict do nothing", (self._queue,))
            (self._queue_id,) = db.execute("select id from queue where name = ?", (self._queue,)).fetchone()
            db.execute("commit")
        except sqlite3.Error as error:
            db.close()
            raise _translated(error, self._path) from error
        except StorageError:
            db.close()
            raise
        self._reader = self._connect()
        self._writer = db

    def _write(self) -> sqlite3.Connection:
        if self._writer is None:
            with self._opening:
                if self._writer is None:
                    self._open()
        return cast(sqlite3.Connection, self._writer)

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[object, ...]]:
        self._write()
        with self._reading:
            try:
                return cast(sqlite3.Connection, self._reader).execute(sql, parameters).fetchall()
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    # Moves -------------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> None:
        """See `Storage.enqueue`."""
        with _Transaction(self) as db:
            moves = [self._insert(db, task, now, *actor) for task in tasks]
        for task, (seq, move) in zip(tasks, moves, strict=True):
            task.seq = seq
            move.apply(task)

    def exchange(self, done: Sequence[Settlement], claimant: Claimant | None) -> tuple[list[bool], list[Claim]]:
        """See `Storage.exchange`."""
        if not done and not self._anything(cast(Claimant, claimant)):
            return [], []  # an idle worker reads, and writes nothing
        with _Transaction(self) as db:
            took = [self._settle(db, *settlement) for settlement in done]
            claims = self._claim(db, claimant) if claimant is not None else []
        for settlement, taken in zip(done, took, strict=True):
            if taken:
                settlement.move.apply(settlement.task)
        return took, claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """See `Storage.release`."""
        with _Transaction(self) as db:
            return [self._release(db, task, now) for task in tasks]

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        marks = ",".join("?" * len(workers))
        with _Transaction(self) as db:
            parameters = (until, self._queue_id, *workers)
            db.execute(f"update lock set until=? where queue=? and worker in ({marks})", parameters)  # noqa: S608
            return db.execute(
                f"update task set lease=? where queue=? and worker in ({marks}) and lease is not null",  # noqa: S608
                parameters,
            ).rowcount

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """See `Storage.recover`."""
        lapsed = " where queue=? and lease<=? order by lease, seq limit ?"
        if not self._read("select 1 from task" + lapsed, (self._queue_id, now, 1)):
            return []
        claims = []
        with _Transaction(self) as db:
            for row in db.execute(_TASK + lapsed, (self._queue_id, now, limit)).fetchall():
                task = _task(row)
                if task.state in WAITING:
                    self._release(db, task, now)
                else:
                    move = recover(task, now, worker=actor.worker, hold=actor.hold, max_interruptions=max_interruptions)
                    self._move(db, task, move)
                    move.apply(task)
                    claims.append(Claim(task, move))
        return claims

    def _release(self, db: sqlite3.Connection, task: Task, now: float) -> bool:
        if task.state not in WAITING:
            return False
        freed = db.execute(
            "update task set lease=null where seq=? and id=? and version=? and state=? and worker=? and lease is not null",
            (task.seq, task.id, task.version, task.state, task.worker),
        ).rowcount
        if freed:
            self._rank(db, task, *visibility(task, self._own(db, task.id), now))
        return bool(freed)

    def _insert(
        self, db: sqlite3.Connection, task: Task, now: float, worker: str, hold: float | None
    ) -> tuple[int, Move]:
        move = enqueued(task, now, worker, hold)
        state = move.state.name
        rank, due = (task.priority, None) if move.lease is None else (None, None)
        policy = None if task.retry is NO_DELAY else msgspec.json.encode(policy_fields(task.retry)).decode()
        try:
            cursor = db.execute(
                _INSERT,
                (self._queue_id, task.id, task.name, task.payload, state, task.eta, task.expires, task.priority,
                 task.retries, policy, task.timeout, 0, 0, worker, 1, move.lease, rank, due, move.history),
            )  # fmt: skip
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise DuplicateTask(task.id) from None
            raise
        self._work = True
        return cast(int, cursor.lastrowid), move

    def _settle(self, db: sqlite3.Connection, task: Task, move: Move) -> bool:
        if not self._move(db, task, move):
            return False
        for follow_up in move.follow_ups:
            if not db.execute("select 1 from task where queue=? and id=?", (self._queue_id, follow_up.id)).fetchone():
                seq, birth = self._insert(db, follow_up, move.at, move.worker, move.hold)
                follow_up.seq = seq
                birth.apply(follow_up)
        return True

    def _claim(self, db: sqlite3.Connection, claimant: Claimant) -> list[Claim]:
        worker, now, lease, hold, limit = claimant
        claims: list[Claim] = []
        ripened = False
        while len(claims) < limit:
            row = db.execute(_FOREMOST, (self._queue_id,)).fetchone()
            next_due = row[-1] if row is not None else self._next_due(db)
            if next_due is not None and next_due <= now and not ripened:
                db.execute(_RIPEN, (self._queue_id, now, RIPEN))
                ripened = True
                continue
            if row is None:
                break
            task = _task(row)
            own_once, own_until, function_once, function_until = row[16:20]
            own = None if own_once is None else Revocation(own_until, bool(own_once))
            of_function = None if function_once is None else Revocation(function_until, bool(function_once))
            trigger = admit(task, own, of_function, now)
            if trigger is None:  # the clock stepped back since it became ready: it waits for its ETA again
                self._rank(db, task, *visibility(task, own, now))
                continue
            if trigger == REVOKE and function_once and not stopped(task, own, now):
                self._forget_revocation(db, Target(function=True, key=task.name))
            move = claimed(task, trigger, worker, now, lease, hold=hold)
            self._move(db, task, move)
            move.apply(task)
            claims.append(Claim(task, move))
        return claims

    def _move(self, db: sqlite3.Connection, task: Task, move: Move) -> bool:
        """Commit a move, if the task is still as the caller knows it: the only place where a stored state changes."""
        state = move.state.name
        rank = due = None
        if move.lease is None and state in WAITING:
            after = attrs.evolve(task, state=state, eta=move.eta)
            rank, due = visibility(after, self._own(db, task.id), move.at)
            self._work = True
        ended = move.ended
        moved = db.execute(
            _MOVE,
            (state, move.eta, move.retries, move.attempt, move.interruptions, move.worker, len(move.states), move.lease,
             rank, due, ended, move.result, move.history, task.seq, task.id, task.version, task.state, task.worker),
        ).rowcount  # fmt: skip
        if not moved:
            return False
        if move.path[-1] == REVOKE:
            self._forget_revocation(db, Target(function=False, key=task.id))
        elif move.path[0] == INTERRUPT:
            db.execute("delete from lock where queue=? and task=?", (self._queue_id, task.id))
        self._outcome = self._outcome or ended is not None or move.result is not None
        return True

    # Readiness ---------------------------------------------------------------------------------------------------------

    def _anything(self, claimant: Claimant) -> bool:
        due = self.next_due(held=False)
        return due is not None and due <= claimant.now

    def _rank(self, db: sqlite3.Connection, task: Task, rank: int | None, due: float | None) -> None:
        db.execute("update task set rank=?, due=? where seq=?", (rank, due, task.seq))
        self._work = True

    def _own(self, db: sqlite3.Connection, task_id: str) -> Revocation | None:
        return _revocation(db.execute(_REVOCATION, (self._queue_id, 0, task_id)).fetchone())

    def _next_due(self, db: sqlite3.Connection) -> float | None:
        row = db.execute(_NEXT_DUE, (self._queue_id,)).fetchone()
        return cast("float | None", row[1])

    # Revocations and locks ---------------------------------------------------------------------------------------------

    def revoke(self, target: Target, revocation: Revocation, now: float) -> None:
        """See `Storage.revoke`."""
        with _Transaction(self) as db:
            db.execute(
                "insert or replace into revocation(queue, function, key, until, once) values (?,?,?,?,?)",
                (self._queue_id, target.function, target.key, revocation.until, revocation.once),
            )
            self._look_again(db, target, now)

    def restore(self, target: Target, now: float) -> bool:
        """See `Storage.restore`."""
        with _Transaction(self) as db:
            if not self._forget_revocation(db, target):
                return False
            self._look_again(db, target, now)
            return True

    def revocation(self, target: Target) -> Revocation | None:
        """See `Storage.revocation`."""
        rows = self._read(_REVOCATION, (self._queue_id, target.function, target.key))
        return _revocation(rows[0] if rows else None)

    def _forget_revocation(self, db: sqlite3.Connection, target: Target) -> bool:
        return bool(db.execute(_FORGET, (self._queue_id, target.function, target.key)).rowcount)

    def _look_again(self, db: sqlite3.Connection, target: Target, now: float) -> None:
        if not target.function:
            row = db.execute(
                _TASK + " where queue=? and id=? and lease is null", (self._queue_id, target.key)
            ).fetchone()
            if row is not None and (task := _task(row)).state in WAITING:
                self._rank(db, task, *visibility(task, self._own(db, task.id), now))

    def lock(self, lock: Lock, now: float) -> bool:
        """See `Storage.lock`."""
        with _Transaction(self) as db:
            return bool(
                db.execute(
                    "insert into lock(queue, name, owner, until, worker, task) values (?,?,?,?,?,?)"
                    " on conflict do update set owner=excluded.owner, until=excluded.until, worker=excluded.worker,"
                    " task=excluded.task where until<=?",
                    (self._queue_id, *lock, now),
                ).rowcount
            )

    def unlock(self, name: str, owner: str) -> bool:
        """See `Storage.unlock`."""
        with _Transaction(self) as db:
            sql = "delete from lock where queue=? and name=? and owner=?"
            return bool(db.execute(sql, (self._queue_id, name, owner)).rowcount)

    def locks(self, now: float) -> list[Lock]:
        """See `Storage.locks`."""
        sql = "select name, owner, until, worker, task from lock where queue=? and until>? order by name"
        return [Lock(*cast("tuple[str, str, float, str, str]", row)) for row in self._read(sql, (self._queue_id, now))]

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """See `Storage.flush_locks`."""
        with _Transaction(self) as db:
            if names is None:
                return db.execute("delete from lock where queue=?", (self._queue_id,)).rowcount
            sql = "delete from lock where queue=? and name=?"
            return sum(db.execute(sql, (self._queue_id, name)).rowcount for name in set(names))

    # Look-ups ----------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """See `Storage.get`."""
        rows = self._read(_TASK + " where queue=? and id=?", (self._queue_id, task_id))
        return _task(rows[0]) if rows else None

    def history(self, task_id: str) -> list[Record] | None:
        """See `Storage.history`."""
        rows = self._read("select history from task where queue=? and id=?", (self._queue_id, task_id))
        return read_history(cast(str, rows[0][0])) if rows else None

    def outlook(self, task_id: str) -> Outlook | None:
        """See `Storage.outlook`."""
        rows = self._read("select state, result from task where queue=? and id=?", (self._queue_id, task_id))
        return Outlook(*cast("tuple[str, bytes | None]", rows[0])) if rows else None

    def counts(self) -> dict[str, int]:
        """See `Storage.counts`."""
        rows = self._read("select state, count(*) from task where queue=? group by state", (self._queue_id,))
        return dict(cast("list[tuple[str, int]]", rows))

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """See `Storage.tasks`."""
        sql, parameters = _TASK + " where queue=?", [self._queue_id]
        if before is not None:
            sql += " and seq<?"
            parameters.append(before)
        if states is not None:
            sql += f" and state in ({','.join('?' * len(states))})"
            parameters += states  # type: ignore[arg-type]  # SQLite takes both
        return [_task(row) for row in self._read(sql + " order by seq desc limit ?", (*parameters, limit))]

    def next_due(self, *, held: bool = True) -> float | None:
        """See `Storage.next_due`."""
        ((ready, due),) = self._read(_NEXT_DUE, (self._queue_id,))
        if ready:
            return float("-inf")
        moments = [due]
        if held:
            marks = ",".join("?" * len(WAITING))
            sql = f"select min(lease) from task where queue=? and lease is not null and state in ({marks})"  # noqa: S608
            moments.append(self._read(sql, (self._queue_id, *WAITING))[0][0])
        return min((cast(float, moment) for moment in moments if moment is not None), default=None)

    # Keeping house -----------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """See `Storage.prune`."""
        old = " from task where queue=? and ended<? order by ended, seq limit ?"
        if not self._read("select 1" + old, (self._queue_id, before, 1)):
            return 0
        with _Transaction(self) as db:
            rows = db.execute("select seq, id" + old, (self._queue_id, before, limit)).fetchall()
            db.executemany("delete from task where seq=?", [(seq,) for seq, _ in rows])
            db.executemany(_FORGET, [(self._queue_id, 0, task_id) for _, task_id in rows])
            return len(rows)

    def flush(self) -> None:
        """See `Storage.flush`."""
        with _Transaction(self) as db:
            for table in ("task", "revocation", "lock"):
                db.execute(f"delete from {table} where queue=?", (self._queue_id,))  # noqa: S608
            self._work = self._outcome = True

    def stamp(self, channel: Channel) -> int:
        """See `Storage.stamp`."""
        return self._watch.stamp(channel)

    def wait(self, channel: Channel, stamp: int, timeout: float) -> bool:
        """See `Storage.wait`."""
        return self._watch.wait(channel, stamp, timeout)

    def wake(self) -> None:
        """See `Storage.wake`."""
        self._watch.notify(*Channel)

    def close(self) -> None:
        """See `Storage.close`."""
        self._closed = True
        self._watch.close()
        with self._opening, self._mutex, self._reading:
            for db in (self._reader, self._writer):
                if db is not None:
                    db.close()
            self._reader = self._writer = None


class _Transaction:
    """A write, whole or not at all, and the news of it afterwards. A class: a generator would cost the hot path 1 µs."""

    __slots__ = ("_db", "_storage")

    def __init__(self, storage: SQLiteStorage) -> None:
        self._storage = storage

    def __enter__(self) -> sqlite3.Connection:
        storage = self._storage
        storage._mutex.acquire()
        try:
            self._db = storage._write()
            # Takes the write lock at once: a transaction that read first could be refused it later.
            self._db.execute("begin immediate")
        except sqlite3.Error as error:
            storage._mutex.release()
            raise _translated(error, storage._path) from error
        except BaseException:
            storage._mutex.release()
            raise
        storage._work = storage._outcome = False
        return self._db

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        storage, db = self._storage, self._db
        try:
            if error is None:
                try:
                    db.execute("commit")
                except sqlite3.Error as failure:
                    error = failure
            if error is not None:
                if db.in_transaction:  # SQLite may have rolled back by itself, when the disk is full, say
                    db.execute("rollback")
                if isinstance(error, sqlite3.Error):
                    raise _translated(error, storage._path) from error
                return
            work, outcome = storage._work, storage._outcome
        finally:
            storage._mutex.release()
        if work:
            storage._watch.notify(Channel.WORK)
        if outcome:
            storage._watch.notify(Channel.OUTCOME)


_REVOCATION: Final = "select once, until from revocation where queue=? and function=? and key=?"
_FORGET: Final = "delete from revocation where queue=? and function=? and key=?"

_UNUSABLE: Final = (
    sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
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


def _revocation(row: tuple[object, ...] | None) -> Revocation | None:
    return None if row is None else Revocation(cast("float | None", row[1]), bool(row[0]))


def _task(row: tuple[object, ...]) -> Task:
    """The task in a row that begins with `_COLUMNS`."""
    (id_, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt, interruptions, worker, version,
     lease, seq) = row[:16]  # fmt: skip
    retry = NO_DELAY if policy is None else msgspec.json.decode(cast(str, policy), type=RetryPolicy)
    return Task(  # type: ignore[call-arg]
        id_, name, payload, state, eta, expires, priority, retries, retry, timeout, attempt, interruptions, worker, version,
        lease, seq,
    )  # type: ignore[arg-type]  # fmt: skip


def _after_fork() -> None:
    for storage in list(_live):
        storage._forget()


os.register_at_fork(after_in_child=_after_fork)
