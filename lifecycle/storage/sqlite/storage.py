"""The SQLite adapter: one file, no server, any number of processes on one machine."""

import logging
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final, cast

import attrs
import msgspec

from lifecycle.core.policies import (
    REVOKED_RANK,
    WAITING,
    Move,
    Revocation,
    enqueued,
    recover,
    revoked_when_due,
    visibility,
)
from lifecycle.core.table import EXECUTING, REVOKE, REVOKED
from lifecycle.core.task import FENCE, NO_DELAY, Record, RetryPolicy, Task, policy_fields, read_history
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import (
    PROMOTE_LIMIT,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    Lock,
    RevocationTarget,
    Settlement,
    TaskStatus,
)
from lifecycle.storage.claims import ClaimDecisions
from lifecycle.storage.sqlite.database import SQLiteFile, Transaction

__all__ = ["SQLiteStorage"]

log = logging.getLogger("lifecycle.storage")

_COLUMNS: Final = (
    "id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt, interruptions, worker,"
    " version, lease, seq, canceling"
)
_FENCE: Final = " and ".join(f"{name}=?" for name in FENCE)
_TASK: Final = f"select {_COLUMNS} from task"
_INSERT: Final = (
    "insert into task(queue, id, name, payload, state, eta, expires, priority, retries, policy, timeout, attempt,"
    " interruptions, worker, version, lease, rank, due, history) values (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
# The one statement that changes a state. The guard is in it: a row that has moved on is not found. (?11: the end.)
_MOVE: Final = (
    "update task set state=?, eta=?, retries=?, attempt=?, interruptions=?, worker=?, version=version+?, lease=?,"
    " rank=?, due=?, ended=?, canceling=canceling and ?11 is null, result=ifnull(?, result), history=history||?"
    f" where queue=? and {_FENCE}"
)
# All that a claim has to know, in one look: the foremost tasks, what is revoked of them and of their functions, and
# when the next scheduled task becomes due.
_FOREMOST: Final = (
    "select t." + _COLUMNS.replace(", ", ", t.") + ", o.once, o.until, f.once, f.until,"
    " (select d.due from task d where d.queue=t.queue and d.due is not null order by d.due limit 1)"
    " from task t"
    " left join revocation o on o.queue=t.queue and o.function=0 and o.key=t.id"
    " left join revocation f on f.queue=t.queue and f.function=1 and f.key=t.name"
    " where t.queue=? and t.rank is not null order by t.rank desc, t.seq limit ?"
)
_PROMOTE: Final = (
    "update task set rank=priority, due=null where seq in"
    " (select seq from task where queue=? and due<=? order by due, seq limit ?)"
)
_NEXT_DUE: Final = (
    "select exists(select 1 from task where queue=?1 and rank is not null),"
    " (select due from task where queue=?1 and due is not null order by due limit 1)"
)


class SQLiteStorage:
    """One queue in one SQLite file; the file is opened, and made if it is not there, at the first call."""

    def __init__(
        self, path: str, queue: str = "default", *, synchronous: str = "normal", timeout: float = 60.0
    ) -> None:
        """`timeout`: seconds to wait for other processes' writes before `StorageUnavailable` is raised."""
        self._file = SQLiteFile(path, queue, synchronous, timeout)

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """See `Storage.enqueue`."""
        with Transaction(self._file) as db:
            births = [self._insert(db, task, now, *actor) for task in tasks]
        for task, (seq, _) in zip(tasks, births, strict=True):
            task.seq = seq
        return [move for _, move in births]

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """See `Storage.exchange`."""
        if not done and (request is None or not self._anything(request)):
            return [], []  # an idle worker reads, and writes nothing
        births: list[tuple[Task, int]] = []
        with Transaction(self._file) as db:
            took = [self._settle(db, *settlement, births) for settlement in done]
            claims = self._claim(db, request) if request is not None else []
        for task, seq in births:
            task.seq = seq
        return took, claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """See `Storage.release`."""
        with Transaction(self._file) as db:
            return [self._release(db, task, now) for task in tasks]

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        marks = ",".join("?" * len(workers))
        with Transaction(self._file) as db:
            parameters = (until, self._file.queue_id, *workers)
            db.execute(f"update lock set until=? where queue=? and worker in ({marks})", parameters)
            return db.execute(
                f"update task set lease=? where queue=? and worker in ({marks}) and lease is not null",
                parameters,
            ).rowcount

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """See `Storage.recover`."""
        lapsed = " where queue=? and lease<=? order by lease, seq limit ?"
        if not self._file.read("select 1 from task" + lapsed, (self._file.queue_id, now, 1)):
            return []
        claims = []
        with Transaction(self._file) as db:
            for row in db.execute(_TASK + lapsed, (self._file.queue_id, now, limit)).fetchall():
                task = _task(row)
                if task.state in WAITING:
                    self._release(db, task, now)
                else:
                    move = recover(
                        task, now, worker=actor.worker, hold_until=actor.hold_until, max_interruptions=max_interruptions
                    )
                    self._move(db, task, move)
                    claims.append(Claim(task, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """See `Storage.cancel`."""
        with Transaction(self._file) as db:
            sql = "update task set canceling=1 where queue=? and id=? and state=?"
            return bool(db.execute(sql, (self._file.queue_id, task_id, EXECUTING.name)).rowcount)

    def canceling(self, workers: Collection[str]) -> list[str]:
        """See `Storage.canceling`."""
        sql = "select id, worker from task where queue=? and canceling and state=?"
        rows = self._file.read(sql, (self._file.queue_id, EXECUTING.name))
        return [cast(str, task_id) for task_id, worker in rows if worker in workers]

    def _release(self, db: sqlite3.Connection, task: Task, now: float) -> bool:
        if task.state not in WAITING:
            return False
        freed = db.execute(
            f"update task set lease=null where queue=? and {_FENCE} and lease is not null",
            (self._file.queue_id, *task.fence),
        ).rowcount
        if freed:
            # Ranked as it is stored: the caller may have changed its copy.
            stored = _task(db.execute(_TASK + " where seq=?", (task.seq,)).fetchone())
            self._rank(db, stored, *visibility(stored, self._own(db, task.id), now))
        return bool(freed)

    def _insert(
        self, db: sqlite3.Connection, task: Task, now: float, worker: str, hold_until: float | None
    ) -> tuple[int, Move]:
        move = enqueued(task, now, worker, hold_until)
        state = move.state.name
        rank = None
        if move.lease is None:
            own = self._own(db, task.id)  # the id may have been revoked before there was a task
            rank = REVOKED_RANK if revoked_when_due(task, own, now) else task.priority
        policy = None if task.retry is NO_DELAY else msgspec.json.encode(policy_fields(task.retry)).decode()
        try:
            cursor = db.execute(
                _INSERT,
                (self._file.queue_id, task.id, task.name, task.payload, state, task.eta, task.expires, task.priority,
                 task.retries, policy, task.timeout, 0, 0, worker, 1, move.lease, rank, None, move.history),
            )  # fmt: skip
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise DuplicateTask(task.id) from None
            raise
        self._file.work = True
        return cast(int, cursor.lastrowid), move

    def _settle(self, db: sqlite3.Connection, task: Task, move: Move, births: list[tuple[Task, int]]) -> bool:
        if not self._move(db, task, move):
            return False
        for follow_up in move.follow_ups:
            if not db.execute(
                "select 1 from task where queue=? and id=?", (self._file.queue_id, follow_up.id)
            ).fetchone():
                births.append((follow_up, self._insert(db, follow_up, move.at, move.worker, move.hold_until)[0]))
        return True

    def _claim(self, db: sqlite3.Connection, request: ClaimRequest) -> list[Claim]:
        claims: list[Claim] = []
        decisions = ClaimDecisions(request)
        promoted, more = False, True
        while more and len(claims) < request.limit and not decisions.over:
            wanted = request.limit - len(claims)
            rows = db.execute(_FOREMOST, (self._file.queue_id, wanted)).fetchall()
            next_due = rows[0][-1] if rows else self._next_due(db)
            if next_due is not None and next_due <= request.now and not promoted:
                db.execute(_PROMOTE, (self._file.queue_id, request.now, PROMOTE_LIMIT))
                promoted = True
                continue
            more = len(rows) == wanted
            for row in rows:
                task = _task(row)
                decision = decisions.decide(task, _revocation(row[17:19]), _revocation(row[19:21]))
                if isinstance(decision, Move):
                    self._move(db, task, decision)
                    claims.append(Claim(task, decision))
                    if decisions.spends:
                        self._forget_revocation(db, RevocationTarget(function=True, key=task.name))
                        more = True  # the other rows were read before the revocation was spent
                        break
                elif decision is not None:
                    self._rank(db, task, *decision)
                if decisions.over:
                    break
        return claims

    def _move(self, db: sqlite3.Connection, task: Task, move: Move) -> bool:
        """Commit a move, if the task is still as the caller knows it: the only place where a stored state changes."""
        state = move.state.name
        rank = due = None
        if move.lease is None and state in WAITING:
            # Ranked as it is stored: the caller may have changed its copy.
            stored = db.execute(_TASK + " where seq=?", (task.seq,)).fetchone()
            if stored is None:
                return False
            after = attrs.evolve(_task(stored), state=state, eta=move.eta)
            rank, due = visibility(after, self._own(db, task.id), move.at)
            self._file.work = True
        ended = move.ended
        moved = db.execute(
            _MOVE,
            (state, move.eta, move.retries, move.attempt, move.interruptions, move.worker, len(move.states), move.lease,
             rank, due, ended, move.result, move.history, self._file.queue_id, *task.fence),
        ).rowcount  # fmt: skip
        if not moved:
            return False
        if move.path[-1] == REVOKE:
            self._forget_revocation(db, RevocationTarget(function=False, key=task.id))
        elif move.frees_locks:
            db.execute("delete from lock where queue=? and task=?", (self._file.queue_id, task.id))
        self._file.outcome = self._file.outcome or ended is not None or move.result is not None
        return True

    # Readiness -----------------------------------------------------------------------------------------------------

    def _anything(self, request: ClaimRequest) -> bool:
        due = self.next_due(held=False)
        return due is not None and due <= request.now

    def _rank(self, db: sqlite3.Connection, task: Task, rank: int | None, due: float | None) -> None:
        db.execute("update task set rank=?, due=? where seq=?", (rank, due, task.seq))
        self._file.work = True

    def _own(self, db: sqlite3.Connection, task_id: str) -> Revocation | None:
        return _revocation(db.execute(_REVOCATION, (self._file.queue_id, 0, task_id)).fetchone())

    def _next_due(self, db: sqlite3.Connection) -> float | None:
        row = db.execute(_NEXT_DUE, (self._file.queue_id,)).fetchone()
        return cast("float | None", row[1])

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """See `Storage.revoke`."""
        with Transaction(self._file) as db:
            db.execute(
                "insert or replace into revocation(queue, function, key, until, once) values (?,?,?,?,?)",
                (self._file.queue_id, target.function, target.key, revocation.until, revocation.once),
            )
            self._look_again(db, target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """See `Storage.restore`."""
        with Transaction(self._file) as db:
            if not self._forget_revocation(db, target):
                return False
            self._look_again(db, target, now)
            if target.function:
                return True
            gone = "select 1 from task where queue=? and id=? and state=?"  # that cannot be taken back
            return db.execute(gone, (self._file.queue_id, target.key, REVOKED.name)).fetchone() is None

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """See `Storage.revocation`."""
        rows = self._file.read(_REVOCATION, (self._file.queue_id, target.function, target.key))
        return _revocation(rows[0] if rows else None)

    def _forget_revocation(self, db: sqlite3.Connection, target: RevocationTarget) -> bool:
        return bool(db.execute(_FORGET, (self._file.queue_id, target.function, target.key)).rowcount)

    def _look_again(self, db: sqlite3.Connection, target: RevocationTarget, now: float) -> None:
        if not target.function:
            row = db.execute(
                _TASK + " where queue=? and id=? and lease is null", (self._file.queue_id, target.key)
            ).fetchone()
            if row is not None and (task := _task(row)).state in WAITING:
                self._rank(db, task, *visibility(task, self._own(db, task.id), now))

    def lock(self, lock: Lock, now: float) -> bool:
        """See `Storage.lock`."""
        with Transaction(self._file) as db:
            return bool(
                db.execute(
                    "insert into lock(queue, name, owner, until, worker, task) values (?,?,?,?,?,?)"
                    " on conflict do update set owner=excluded.owner, until=excluded.until, worker=excluded.worker,"
                    " task=excluded.task where until<=?",
                    (self._file.queue_id, *lock, now),
                ).rowcount
            )

    def unlock(self, name: str, owner: str) -> bool:
        """See `Storage.unlock`."""
        with Transaction(self._file) as db:
            sql = "delete from lock where queue=? and name=? and owner=?"
            return bool(db.execute(sql, (self._file.queue_id, name, owner)).rowcount)

    def locks(self, now: float) -> list[Lock]:
        """See `Storage.locks`."""
        sql = "select name, owner, until, worker, task from lock where queue=? and until>? order by name"
        return [
            Lock(*cast("tuple[str, str, float, str, str]", row))
            for row in self._file.read(sql, (self._file.queue_id, now))
        ]

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """See `Storage.flush_locks`."""
        with Transaction(self._file) as db:
            if names is None:
                return db.execute("delete from lock where queue=?", (self._file.queue_id,)).rowcount
            sql = "delete from lock where queue=? and name=?"
            return sum(db.execute(sql, (self._file.queue_id, name)).rowcount for name in set(names))

    # Look-ups ------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """See `Storage.get`."""
        rows = self._file.read(_TASK + " where queue=? and id=?", (self._file.queue_id, task_id))
        return _task(rows[0]) if rows else None

    def history(self, task_id: str) -> list[Record] | None:
        """See `Storage.history`."""
        rows = self._file.read("select history from task where queue=? and id=?", (self._file.queue_id, task_id))
        return read_history(cast(str, rows[0][0])) if rows else None

    def status(self, task_id: str) -> TaskStatus | None:
        """See `Storage.status`."""
        rows = self._file.read("select state, result from task where queue=? and id=?", (self._file.queue_id, task_id))
        return TaskStatus(*cast("tuple[str, bytes | None]", rows[0])) if rows else None

    def counts(self) -> dict[str, int]:
        """See `Storage.counts`."""
        rows = self._file.read("select state, count(*) from task where queue=? group by state", (self._file.queue_id,))
        return dict(cast("list[tuple[str, int]]", rows))

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """See `Storage.tasks`."""
        sql, parameters = _TASK + " where queue=?", [self._file.queue_id]
        if before is not None:
            sql += " and seq<?"
            parameters.append(before)
        if states is not None:
            sql += f" and state in ({','.join('?' * len(states))})"
            parameters += states  # type: ignore[arg-type]  # SQLite takes both
        return [_task(row) for row in self._file.read(sql + " order by seq desc limit ?", (*parameters, limit))]

    def next_due(self, *, held: bool = True) -> float | None:
        """See `Storage.next_due`."""
        ((ready, due),) = self._file.read(_NEXT_DUE, (self._file.queue_id,))
        if ready:
            return float("-inf")
        moments = [due]
        if held:
            marks = ",".join("?" * len(WAITING))
            sql = f"select min(lease) from task where queue=? and lease is not null and state in ({marks})"
            moments.append(self._file.read(sql, (self._file.queue_id, *WAITING))[0][0])
        return min((cast(float, moment) for moment in moments if moment is not None), default=None)

    # Keeping house -------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """See `Storage.prune`."""
        old = " from task where queue=? and ended<? order by ended, seq limit ?"
        if not self._file.read("select 1" + old, (self._file.queue_id, before, 1)):
            return 0
        with Transaction(self._file) as db:
            rows = db.execute("select seq, id" + old, (self._file.queue_id, before, limit)).fetchall()
            db.executemany("delete from task where seq=?", [(seq,) for seq, _ in rows])
            db.executemany(_FORGET, [(self._file.queue_id, 0, task_id) for _, task_id in rows])
            return len(rows)

    def flush(self) -> None:
        """See `Storage.flush`."""
        with Transaction(self._file) as db:
            for table in ("task", "revocation", "lock"):
                db.execute(f"delete from {table} where queue=?", (self._file.queue_id,))
            self._file.work = self._file.outcome = True

    def generation(self, channel: Channel) -> int:
        """See `Storage.generation`."""
        return self._file.watch.generation(channel)

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """See `Storage.wait`."""
        return self._file.watch.wait(channel, generation, timeout)

    def wake(self) -> None:
        """See `Storage.wake`."""
        self._file.watch.notify(*Channel)

    def clock(self) -> None:
        """See `Storage.clock`."""

    def close(self) -> None:
        """See `Storage.close`."""
        self._file.close()


_REVOCATION: Final = "select once, until from revocation where queue=? and function=? and key=?"
_FORGET: Final = "delete from revocation where queue=? and function=? and key=?"


def _revocation(row: tuple[Any, ...] | None) -> Revocation | None:
    return None if row is None or row[0] is None else Revocation(row[1], bool(row[0]))


def _task(row: tuple[Any, ...]) -> Task:
    """The task in a row that begins with `_COLUMNS`: they stand in the order of its fields."""
    retry = NO_DELAY if row[8] is None else _policy(row[8])
    return Task(*row[:8], retry, *row[9:16], bool(row[16]))  # type: ignore[call-arg]  # each * is any number


def _policy(text: str) -> RetryPolicy:
    try:
        return msgspec.json.decode(text, type=RetryPolicy)
    except msgspec.MsgspecError as error:  # changed by hand: one such row must not stop the claims of all others
        log.warning("a retry policy in the store cannot be read, its task is retried without a delay: %s", error)
        return NO_DELAY
