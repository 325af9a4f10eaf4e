"""The SQLite adapter: one file, no server, any number of processes on one machine."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final, cast

from lifecycle.clock import monotonic
from lifecycle.core.policies import MAX_INTERRUPTIONS, WAITING, Move, Revocation, enqueued, recover, visibility
from lifecycle.core.step import reports, step_text
from lifecycle.core.table import EXECUTING, REVOKE, REVOKED
from lifecycle.core.task import Task, cut_history
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import (
    NO_LIMITS,
    PROMOTE_LIMIT,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    RevocationTarget,
    Settlement,
    Tick,
)
from lifecycle.storage.claims import ClaimDecisions, visibility_after
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.errors import is_busy, translated
from lifecycle.storage.sqlite.locks import Locks
from lifecycle.storage.sqlite.lookups import Lookups
from lifecycle.storage.sqlite.periodic import Periodic
from lifecycle.storage.sqlite.statements import (
    COLUMN_COUNT,
    DELETE_REVOCATION,
    HAS_FENCE,
    INSERT,
    INSERT_ALONE,
    MOVE,
    NEXT_DUE,
    PROMOTE,
    REVOCATION,
    TASK,
    first_ready,
    marks,
    next_not_skipped,
    policy_text,
    revocation_from,
    task_from,
)
from lifecycle.storage.sqlite.summary import Summary
from lifecycle.storage.sqlite.transaction import Transaction
from lifecycle.storage.sqlite.workflows import count_reports, hear

__all__ = ["SQLiteStorage"]

_OWN: Final = COLUMN_COUNT
_OF_FUNCTION: Final = COLUMN_COUNT + 2
"""Where a claim's row has the revocation of its task, and that of its function."""


class SQLiteStorage:
    """One queue in a SQLite file. The first call opens the file, and creates a missing file."""

    def __init__(
        self,
        path: str,
        queue: str = "default",
        *,
        synchronous: str = "normal",
        timeout: float = 60.0,
        read_only: bool = False,
    ) -> None:
        """`synchronous`: see `lifecycle.storage.sqlite.database.SYNCHRONOUS`.

        `timeout`: seconds to wait for writes of other processes before `StorageUnavailable` is raised.

        `read_only`: open the file for reading only: it must be there, and calls that write raise `StorageUnusable`.
        """
        self._database = Database(path, queue, synchronous, timeout, read_only=read_only)
        self.location = self._database.location
        self._summary, locks = Summary(self._database), Locks(self._database)
        self.lock, self.unlock, self.locks, self.flush_locks = locks.lock, locks.unlock, locks.locks, locks.flush_locks
        self._periodic = Periodic(self._database)
        self.periodic_states, self.pause_periodic = self._periodic.states, self._periodic.pause
        lookups = Lookups(self._database)
        self.get, self.history, self.find_ids = lookups.get, lookups.history, lookups.find_ids
        self.status, self.statuses = lookups.status, lookups.statuses
        watcher = self._database.watcher
        self.generation, self.wait, self.wake = watcher.generation, watcher.wait, watcher.wake

    def read_only_if_needed(self) -> None:
        """Open the file for reading only if this user may do no more. Call this before any other method."""
        self._database.read_only = self._database.read_only or not self._database.can_write()

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Write new tasks."""
        alone = len(tasks) == 1 and actor.hold_until is None and tasks[0].step is None
        if alone and (move := self._insert_alone(tasks[0], now, actor.worker)):
            return [move]
        with Transaction(self._database) as db:
            inserted = [self._insert(db, task, now, *actor) for task in tasks]
        return _numbered(tasks, inserted)

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make ticks of a periodic task."""
        with Transaction(self._database) as db:
            if not self._periodic.step(db, tick, tasks[-1].id if tasks else None):
                return None
            inserted = [self._insert(db, task, now, *actor) for task in tasks]
        return _numbered(tasks, inserted)

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Commit outcomes and claim tasks in one transaction."""
        if not done and (request is None or not self._has_work(request)):
            return [], []  # an idle worker only reads
        inserted: list[tuple[Task, int]] = []
        with Transaction(self._database) as db:
            accepted = [self._settle(db, task, move, inserted) for task, move in done] if done else []
            claims = self._claim(db, request) if request is not None else []
        for task, seq in inserted:
            task.seq = seq
        return accepted, claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Stop holding waiting tasks."""
        with Transaction(self._database) as db:
            return [self._release(db, task, now) for task in tasks]

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong the leases and locks of workers."""
        with Transaction(self._database) as db:
            parameters = (until, self._database.queue_id, *workers)
            db.execute(f"update lock set until=? where queue=? and worker in ({marks(workers)})", parameters)
            return db.execute(
                f"update task set lease=? where queue=? and worker in ({marks(workers)}) and lease is not null",
                parameters,
            ).rowcount

    def recover(
        self,
        now: float,
        actor: Actor,
        *,
        max_interruptions: int = MAX_INTERRUPTIONS,
        of_functions: Mapping[str, int] = NO_LIMITS,
        limit: int = 100,
    ) -> list[Claim]:
        """Recover running tasks and release waiting tasks whose leases have ended."""
        lapsed = " where queue=? and lease<=? order by lease, seq limit ?"
        if not self._database.read("select 1 from task" + lapsed, (self._database.queue_id, now, 1)):
            return []
        claims = []
        with Transaction(self._database) as db:
            for row in db.execute(TASK + lapsed, (self._database.queue_id, now, limit)).fetchall():
                task = task_from(row)
                if task.state in WAITING:
                    self._release(db, task, now)
                else:
                    move = recover(
                        task,
                        now,
                        worker=actor.worker,
                        hold_until=actor.hold_until,
                        max_interruptions=of_functions.get(task.name, max_interruptions),
                    )
                    self._commit(db, task, move)
                    claims.append(Claim(task, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """Request cancellation of a running task."""
        with Transaction(self._database) as db:
            sql = "update task set canceling=1 where queue=? and id=? and state=?"
            return bool(db.execute(sql, (self._database.queue_id, task_id, EXECUTING.name)).rowcount)

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of running tasks whose cancellation was requested."""
        sql = "select id, worker from task where queue=? and canceling and state=?"
        rows = self._database.read(sql, (self._database.queue_id, EXECUTING.name))
        return [cast(str, task_id) for task_id, worker in rows if worker in workers]

    def _release(self, db: sqlite3.Connection, task: Task, now: float) -> bool:
        if task.state not in WAITING:
            return False
        freed = db.execute(
            f"update task set lease=null where queue=? and {HAS_FENCE} and lease is not null",
            (self._database.queue_id, *task.fence),
        ).rowcount
        if freed:
            # By the stored row: the caller may have changed its copy.
            stored = task_from(db.execute(TASK + " where seq=?", (task.seq,)).fetchone())
            self._become_visible(db, stored, now)
        return bool(freed)

    def _insert(
        self, db: sqlite3.Connection, task: Task, now: float, worker: str, hold_until: float | None
    ) -> tuple[int, Move]:
        move = enqueued(task, now, worker, hold_until)
        own = self._own_revocation(db, task.id) if move.lease is None else None
        try:
            cursor = db.execute(INSERT, self._new_row(task, move, own))
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise DuplicateTask(task.id) from None
            raise
        self._database.work_changed = True
        if task.step is not None:
            count_reports(db, self._database.queue_id, task)
        return cast(int, cursor.lastrowid), move

    def _insert_alone(self, task: Task, now: float, worker: str) -> Move | None:
        """Insert a task by one statement; return ``None`` if this takes a transaction.

        That is so if the statement would have to wait for another process, or if it is time to look at the files.
        """
        database, move = self._database, enqueued(task, now, worker)
        with database.mutex:
            db = database.writer()
            # In a transaction: a handler of the operating system's signals has interrupted it.
            if db.in_transaction or monotonic() >= database.check_at:
                return None
            try:
                cursor = db.execute(INSERT_ALONE, (*self._new_row(task, move, None), database.queue_id, task.id))
            except (sqlite3.Error, OverflowError) as error:
                if isinstance(error, sqlite3.Error) and is_busy(error):
                    return None
                raise translated(error, database.path) from error
        if cursor.rowcount == 0:
            return None
        task.seq = cursor.lastrowid
        database.watcher.notify(Channel.WORK)
        return move

    def _new_row(self, task: Task, move: Move, own: Revocation | None) -> tuple[object, ...]:
        rank, due = visibility_after(task, move, own)
        return (
            self._database.queue_id, task.id, task.name, task.payload, move.states[-1].name, task.eta, task.expires,
            task.priority, task.retries, policy_text(task.retry), task.timeout, 0, 0, move.worker, 1, move.lease, rank,
            due, move.history, move.at, None if task.step is None else step_text(task.step),
        )  # fmt: skip

    def _settle(self, db: sqlite3.Connection, task: Task, move: Move, inserted: list[tuple[Task, int]]) -> bool:
        if not self._commit(db, task, move):
            return False
        for follow_up in move.follow_ups:
            taken = "select 1 from task where queue=? and id=?"
            if db.execute(taken, (self._database.queue_id, follow_up.id)).fetchone() is None:
                seq, _ = self._insert(db, follow_up, move.at, move.worker, move.hold_until)
                inserted.append((follow_up, seq))
        return True

    def _claim(self, db: sqlite3.Connection, request: ClaimRequest) -> list[Claim]:
        claims: list[Claim] = []
        decisions = ClaimDecisions(request)
        promoted, more = False, True
        sql = first_ready(request.skip_names)
        skipping = (*request.skip_names, request.now) if request.skip_names else ()
        while more and len(claims) < request.limit and not decisions.over:
            wanted = request.limit - len(claims)
            rows = db.execute(sql, (self._database.queue_id, *skipping, wanted)).fetchall()
            next_due = rows[0][-1] if rows else self._next_due(db)
            if next_due is not None and next_due <= request.now and not promoted:
                db.execute(PROMOTE, (self._database.queue_id, request.now, PROMOTE_LIMIT))
                promoted = True
                continue
            more = len(rows) == wanted
            for row in rows:
                task = task_from(row)
                own = None if row[_OWN] is None else revocation_from(row[_OWN:])
                of_function = (
                    revocation_from(row[_OF_FUNCTION : _OF_FUNCTION + 2]) if row[_OF_FUNCTION] is not None else None
                )
                decision = decisions.decide(task, own, of_function)
                if isinstance(decision, Move):
                    self._commit(db, task, decision)
                    claims.append(Claim(task, decision))
                    if decisions.spends:
                        self._delete_revocation(db, RevocationTarget(function=True, key=task.name))
                    if decisions.spends or decisions.reports:
                        more = True  # the other rows were read before
                        break
                elif decision is not None:
                    self._set_rank(db, task, *decision)
                if decisions.over:
                    break
        return claims

    def _commit(self, db: sqlite3.Connection, task: Task, move: Move) -> bool:
        """Commit a move, if the stored fence is the task's; return whether it was. No other method changes a state."""
        state = move.states[-1].name
        rank = due = None
        if move.lease is None and state in WAITING:
            # By the stored row: the caller may have changed its copy.
            stored = db.execute(TASK + " where seq=?", (task.seq,)).fetchone()
            if stored is None:
                return False
            rank, due = visibility_after(task_from(stored), move, self._own_revocation(db, task.id))
            self._database.work_changed = True
        ended = move.ended
        moved = db.execute(
            MOVE,
            (state, move.eta, move.retries, move.attempt, move.interruptions, move.worker, len(move.states), move.lease,
             rank, due, ended, ended, move.result, move.history, self._database.queue_id, *task.fence),
        ).rowcount  # fmt: skip
        if not moved:
            return False
        if move.cuts_history:
            ((history,),) = db.execute("select history from task where seq=?", (task.seq,)).fetchall()
            db.execute("update task set history=? where seq=?", (cut_history(history), task.seq))
        if move.path[-1] == REVOKE:
            self._delete_revocation(db, RevocationTarget(function=False, key=task.id))
        elif move.frees_locks:
            db.execute("delete from lock where queue=? and task=?", (self._database.queue_id, task.id))
        self._database.outcome_changed = self._database.outcome_changed or ended is not None or move.result is not None
        if task.step is not None and (told := reports(task.id, task.step, move.state, ended)):
            hear(db, self._database.queue_id, told, partial(self._become_visible, db))
        return True

    # Readiness -----------------------------------------------------------------------------------------------------

    def _has_work(self, request: ClaimRequest) -> bool:
        due = self.next_due(request.skip_names, held=False)
        return due is not None and due <= request.now

    def _become_visible(self, db: sqlite3.Connection, task: Task, now: float) -> None:
        self._set_rank(db, task, *visibility(task, self._own_revocation(db, task.id), now))

    def _set_rank(self, db: sqlite3.Connection, task: Task, rank: int | None, due: float | None) -> None:
        db.execute("update task set rank=?, due=? where seq=?", (rank, due, task.seq))
        self._database.work_changed = True

    def _own_revocation(self, db: sqlite3.Connection, task_id: str) -> Revocation | None:
        return revocation_from(db.execute(REVOCATION, (self._database.queue_id, 0, task_id)).fetchone())

    def _next_due(self, db: sqlite3.Connection) -> float | None:
        row = db.execute(NEXT_DUE, (self._database.queue_id,) * 2).fetchone()
        return cast("float | None", row[1])

    # Revocations ------------------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Store a revocation."""
        with Transaction(self._database) as db:
            db.execute(
                "insert or replace into revocation(queue, function, key, until, once) values (?,?,?,?,?)",
                (self._database.queue_id, target.function, target.key, revocation.until, revocation.once),
            )
            self._rank_again(db, target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Delete a revocation."""
        with Transaction(self._database) as db:
            if not self._delete_revocation(db, target):
                return False
            self._rank_again(db, target, now)
            if target.function:
                return True
            gone = "select 1 from task where queue=? and id=? and state=?"  # a final state stays
            return db.execute(gone, (self._database.queue_id, target.key, REVOKED.name)).fetchone() is None

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return a stored revocation."""
        rows = self._database.read(REVOCATION, (self._database.queue_id, target.function, target.key))
        return revocation_from(rows[0] if rows else None)

    def _delete_revocation(self, db: sqlite3.Connection, target: RevocationTarget) -> bool:
        return bool(db.execute(DELETE_REVOCATION, (self._database.queue_id, target.function, target.key)).rowcount)

    def _rank_again(self, db: sqlite3.Connection, target: RevocationTarget, now: float) -> None:
        if not target.function:
            row = db.execute(
                TASK + " where queue=? and id=? and lease is null", (self._database.queue_id, target.key)
            ).fetchone()
            if row is not None and (task := task_from(row)).state in WAITING:
                self._become_visible(db, task, now)

    # Look-ups ------------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return self._summary.counts()

    def tasks(
        self,
        states: Collection[str] | None = None,
        limit: int = 100,
        before: int | None = None,
        *,
        name: str | None = None,
        since: float | None = None,
    ) -> list[Task]:
        """Return tasks, the newest first."""
        return self._summary.tasks(states, limit, before, name, since)

    def next_due(self, skip_names: frozenset[str] = frozenset(), *, held: bool = True) -> float | None:
        """Return the time of the next claimable task."""
        ((ready, due),) = self._database.read(NEXT_DUE, (self._database.queue_id,) * 2)
        expiry = None
        if ready and skip_names:
            sql = next_not_skipped(skip_names)
            ((ready, expiry),) = self._database.read(sql, (*skip_names, self._database.queue_id))
        if ready:
            return float("-inf")
        moments = [due, expiry]
        if held:
            sql = f"select min(lease) from task where queue=? and lease is not null and state in ({marks(WAITING)})"
            moments.append(self._database.read(sql, (self._database.queue_id, *WAITING))[0][0])
        return min((cast(float, moment) for moment in moments if moment is not None), default=None)

    # Maintenance ---------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete old tasks that are at rest."""
        self._summary.make()  # regularly, so that look-ups find little to do
        among = "" if states is None else f" and state in ({marks(states)})"
        old = f" from task where queue=? and ended<?{among} order by ended, seq limit ?"
        values = self._database.queue_id, before, *(states or ())
        if not self._database.read("select 1" + old, (*values, 1)):
            return 0
        with Transaction(self._database) as db:
            rows = db.execute("select seq, id" + old, (*values, limit)).fetchall()
            db.executemany("delete from task where seq=?", [(seq,) for seq, _ in rows])
            db.executemany(DELETE_REVOCATION, [(self._database.queue_id, 0, task_id) for _, task_id in rows])
            return len(rows)

    def flush(self) -> None:
        """Delete everything of this queue."""
        with Transaction(self._database) as db:
            for table in ("task", "revocation", "lock", "periodic", "awaits"):
                db.execute(f"delete from {table} where queue=?", (self._database.queue_id,))
            self._database.work_changed = self._database.outcome_changed = True

    def clock(self) -> None:
        """Return ``None``: only this host uses the file."""

    def close(self) -> None:
        """Close the connections, end all waits, and refuse later calls."""
        self._database.close()


def _numbered(tasks: Sequence[Task], inserted: Sequence[tuple[int, Move]]) -> list[Move]:
    """Set the numbers of new tasks, once their transaction is committed; return their moves."""
    for task, (seq, _) in zip(tasks, inserted, strict=True):
        task.seq = seq
    return [move for _, move in inserted]
