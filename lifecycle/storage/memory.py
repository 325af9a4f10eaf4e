"""The memory adapter: all rules of a store, without durability. For tests, immediate mode and a single process.

Callers get copies of tasks, as from a database: a change of a returned object changes nothing in the store.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from functools import partial
from heapq import heappop, heappush
from operator import attrgetter
from typing import Any, Final, cast

import attrs

from lifecycle.core.policies import (
    MAX_INTERRUPTIONS,
    WAITING,
    Move,
    Revocation,
    enqueued,
    recover,
    visibility,
)
from lifecycle.core.step import reports
from lifecycle.core.table import EXECUTING, REVOKE, REVOKED
from lifecycle.core.task import HISTORY_STEP, Record, Task, cut_history, read_history
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import (
    NO_LIMITS,
    PROMOTE_LIMIT,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    Lock,
    PeriodicState,
    RevocationTarget,
    Settlement,
    TaskStatus,
    Tick,
)
from lifecycle.storage.claims import ClaimDecisions, is_skipped
from lifecycle.storage.memory_periodic import MemoryPeriodic
from lifecycle.storage.memory_rows import MemoryRows, Row
from lifecycle.storage.notifications import ChangeCounter, ClosedMutex

__all__ = ["MemoryStorage"]

_NOW: Final = float("-inf")
_FIELDS: Final = [field.name for field in attrs.fields(Task)]
_values_to_store: Final = attrgetter(*_FIELDS[: _FIELDS.index("canceling")])
"""The values of a new task's row. The fields behind them are set later, or belong to the caller's object."""


class MemoryStorage:
    """Tasks in the memory of this process; they are gone when the process ends."""

    def __init__(self) -> None:
        self._mutex: Any = threading.RLock()
        self._changes = ChangeCounter(self._mutex)
        self.generation, self.wait, self.wake = self._changes.generation, self._changes.wait, self._changes.wake
        self._seq, self.location = 0, "memory://"
        self._empty()

    def _empty(self) -> None:
        self._rows = MemoryRows(partial(self._changes.count, Channel.WORK))
        self._held: dict[str, Row] = {}
        """The rows that have a lease, by id."""
        self._revocations: dict[RevocationTarget, Revocation] = {}
        self._locks: dict[str, Lock] = {}
        self._periodic = MemoryPeriodic()

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Write new tasks."""
        worker, hold_until = actor
        with self._mutex:
            moves: dict[str, Move] = {}
            for task in tasks:  # any of them may raise: before the first write
                if task.id in self._rows or task.id in moves:
                    raise DuplicateTask(task.id)
                moves[task.id] = enqueued(task, now, worker, hold_until)
            for task in tasks:
                self._insert(task, moves[task.id])
            return list(moves.values())

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make ticks of a periodic task."""
        with self._mutex:
            if not self._periodic.may_step(tick):
                return None
            moves = self.enqueue(tasks, now, actor)
            self._periodic.step(tick, tasks[-1].id if tasks else None)
            return moves

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Commit outcomes and claim tasks in one transaction."""
        with self._mutex:
            accepted = [self._settle(task, move) for task, move in done] if done else []
            return accepted, self._claim(request) if request is not None else []

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Stop holding waiting tasks."""
        with self._mutex:
            return [self._release(task, now) for task in tasks]

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong the leases and locks of workers."""
        with self._mutex:
            held = [row.task for row in self._held.values() if row.task.worker in workers]
            for task in held:
                task.lease = until
            for name, lock in self._locks.items():
                if lock.worker in workers:
                    self._locks[name] = lock._replace(until=until)
            return len(held)

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
        decide = partial(recover, worker=actor.worker, hold_until=actor.hold_until)
        claims: list[Claim] = []
        with self._mutex:
            if not self._held:
                return claims
            lapsed = [row for row in self._held.values() if cast(float, row.task.lease) <= now]
            lapsed.sort(key=lambda row: (row.task.lease, row.task.seq))
            for row in lapsed[:limit]:
                if row.task.state in WAITING:
                    self._unhold(row, now)
                else:
                    allowed = of_functions.get(row.task.name, max_interruptions)
                    claims.append(self._commit_claim(row, decide(row.task, now, max_interruptions=allowed)))
            return claims

    def cancel(self, task_id: str) -> bool:
        """Request cancellation of a running task."""
        with self._mutex:
            row = self._rows.get(task_id)
            if row is None or row.task.state != EXECUTING:
                return False
            row.task.canceling = True
            return True

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of running tasks whose cancellation was requested."""
        with self._mutex:
            held = [row.task for row in self._held.values() if row.task.canceling and row.task.worker in workers]
            return [task.id for task in held if task.state == EXECUTING]

    def _release(self, task: Task, now: float) -> bool:
        row = self._rows.get(task.id)
        if row is None or row.task.lease is None or row.task.state not in WAITING or row.task.fence != task.fence:
            return False
        self._unhold(row, now)
        return True

    def _insert(self, task: Task, move: Move) -> None:
        self._seq = task.seq = self._seq + 1
        row = self._rows[task.id] = Row(Task(*_values_to_store(task)))
        if task.step is not None:
            row.task.step = task.step
            if task.step.awaits:
                self._rows.awaits[task.id] = task.step.awaits
        self._commit(row, move)

    def _settle(self, task: Task, move: Move) -> bool:
        row = self._rows.get(task.id)
        if row is None or row.task.fence != task.fence:
            return False
        self._commit(row, move)
        for follow_up in move.follow_ups:
            if follow_up.id not in self._rows:
                self._insert(follow_up, enqueued(follow_up, move.at, move.worker, move.hold_until))
        return True

    def _claim(self, request: ClaimRequest) -> list[Claim]:
        if self._rows.later:
            self._promote(request.now)
        claims: list[Claim] = []
        if not self._rows.ready:
            return claims
        decisions, skip_names, skipped = ClaimDecisions(request), request.skip_names, []
        while len(claims) < request.limit and not decisions.over and (row := self._rows.first_ready()) is not None:
            if skip_names and is_skipped(row.task, row.rank, skip_names, request.now):
                skipped.append(heappop(self._rows.ready))
                continue
            own = of_function = None
            if self._revocations:  # seldom: saves two look-ups for each task
                own = self._own_revocation(row.task)
                of_function = self._revocations.get(RevocationTarget(function=True, key=row.task.name))
            decision = decisions.decide(row.task, own, of_function)
            if isinstance(decision, Move):
                claims.append(self._commit_claim(row, decision))
                if decisions.spends:
                    del self._revocations[RevocationTarget(function=True, key=row.task.name)]
            elif decision is not None:
                self._rows.set_rank(row, *decision)
        for entry in skipped:
            heappush(self._rows.ready, entry)
        return claims

    def _promote(self, now: float) -> None:
        """Give due tasks a rank, the earliest first."""
        for _ in range(PROMOTE_LIMIT):
            if (row := self._rows.first_scheduled()) is None or cast(float, row.due) > now:
                break
            self._rows.set_rank(row, row.task.priority, None)

    def _commit_claim(self, row: Row, move: Move) -> Claim:
        """Commit a move that the store has decided on; return it with a copy of the task before the move."""
        before = row.task.__copy__()
        self._commit(row, move)
        return Claim(before, move)

    def _commit(self, row: Row, move: Move) -> None:
        """Commit a move. No other method changes a stored state."""
        task, before = row.task, row.task.state
        move.apply(task)
        self._rows.enter_state(row, before)
        row.moves.append(move)
        if len(move.path) > 1 or move.version > HISTORY_STEP:  # many attempts: write now, and drop the moves
            history = row.history
            if move.cuts_history:
                row.history = cut_history(history)
        row.ended = move.ended
        if move.result is not None:
            row.result = move.result
        if move.path[-1] == REVOKE:
            self._revocations.pop(RevocationTarget(function=False, key=task.id), None)
        elif move.frees_locks:
            self._locks = {name: lock for name, lock in self._locks.items() if lock.task != task.id}
        if task.lease is None:
            self._unhold(row, move.at)
        else:
            self._held[task.id] = row
            row.rank = row.due = None
        if move.result is not None or move.ended is not None:
            self._changes.count(Channel.OUTCOME)
        if task.step is not None:
            self._report(task, move)

    def _report(self, task: Task, move: Move) -> None:
        """Report the end of a task to the tasks that wait for it."""
        for report in reports(task.id, task.step, move.state, move.ended):
            dependent = self._rows.hear(report)
            if dependent is not None and dependent.task.lease is None:
                self._unhold(dependent, move.at)

    # Readiness -----------------------------------------------------------------------------------------------------

    def _unhold(self, row: Row, now: float) -> None:
        """End the hold of a row; if the task waits, rank the row for claims."""
        task = row.task
        task.lease = None
        self._held.pop(task.id, None)
        if task.state in WAITING:
            self._rows.set_rank(row, *visibility(task, self._own_revocation(task) if self._revocations else None, now))
        else:
            row.rank = row.due = None

    def _own_revocation(self, task: Task) -> Revocation | None:
        """Return the revocation of the task itself, if any."""
        return self._revocations.get(RevocationTarget(function=False, key=task.id))

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Store a revocation."""
        with self._mutex:
            self._revocations[target] = revocation
            self._rank_again(target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Delete a revocation."""
        with self._mutex:
            if self._revocations.pop(target, None) is None:
                return False
            self._rank_again(target, now)
            row = None if target.function else self._rows.get(target.key)
            return row is None or row.task.state != REVOKED  # a final state stays

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return a stored revocation."""
        with self._mutex:
            return self._revocations.get(target)

    def _rank_again(self, target: RevocationTarget, now: float) -> None:
        row = None if target.function else self._rows.get(target.key)
        if row is not None and row.task.state in WAITING and row.task.lease is None:
            self._unhold(row, now)

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock."""
        with self._mutex:
            held = self._locks.get(lock.name)
            if held is not None and held.until > now:
                return False
            self._locks[lock.name] = lock
            return True

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock."""
        with self._mutex:
            held = self._locks.get(name)
            if held is None or held.owner != owner:
                return False
            del self._locks[name]
            return True

    def locks(self, now: float) -> list[Lock]:
        """Return the taken locks."""
        with self._mutex:
            return sorted(lock for lock in self._locks.values() if lock.until > now)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks, whatever their owner."""
        with self._mutex:
            before, names = len(self._locks), self._locks.keys() if names is None else names
            self._locks = {name: lock for name, lock in self._locks.items() if name not in names}
            return before - len(self._locks)

    def periodic_states(self) -> list[PeriodicState]:
        """Return the states of periodic tasks."""
        with self._mutex:
            return sorted(self._periodic.states.values())

    def pause_periodic(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task."""
        with self._mutex:
            return self._periodic.pause(name, paused=paused, now=now)

    # Look-ups ------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """Return a copy of a task."""
        with self._mutex:
            row = self._rows.get(task_id)
            return copy(row.task) if row is not None else None

    def history(self, task_id: str) -> list[Record] | None:
        """Return a task's history."""
        with self._mutex:
            row = self._rows.get(task_id)
            return read_history(row.history) if row is not None else None

    def status(self, task_id: str) -> TaskStatus | None:
        """Return a task's state and result."""
        with self._mutex:
            row = self._rows.get(task_id)
            return TaskStatus(cast(str, row.task.state), row.result) if row is not None else None

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return state and result of many tasks."""
        with self._mutex:
            return {task_id: status for task_id in task_ids if (status := self.status(task_id)) is not None}

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        with self._mutex:
            return self._rows.counts()

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
        with self._mutex:
            return self._rows.page(states, limit, before, name, since)

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return ids that begin or end with a text."""
        with self._mutex:
            return self._rows.find_ids(text, limit)

    def next_due(self, skip_names: frozenset[str] = frozenset()) -> float | None:
        """Return the time of the next claimable task."""
        with self._mutex:
            if not skip_names and self._rows.first_ready() is not None:
                return _NOW
            scheduled = self._rows.first_scheduled()
            moments = [cast(float, row.task.lease) for row in self._held.values() if row.task.state in WAITING]
            ranked = [row for row in self._rows.values() if row.rank is not None] if skip_names else []
            if any(not is_skipped(row.task, row.rank, skip_names, _NOW) for row in ranked):
                return _NOW
            moments += [row.task.expires for row in ranked if row.task.attempt == 0 and row.task.expires is not None]
            if scheduled is not None:
                moments.append(cast(float, scheduled.due))
            return min(moments, default=None)

    # Maintenance ---------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete old tasks that are at rest."""
        with self._mutex:
            old = self._rows.ended_before(before, limit, states)
            for task_id in old:
                del self._rows[task_id]
                self._revocations.pop(RevocationTarget(function=False, key=task_id), None)
            return len(old)

    def flush(self) -> None:
        """Delete everything of this queue."""
        with self._mutex:
            self._empty()
            self.wake()

    def clock(self) -> None:
        """Return ``None``: only this host uses the store."""

    def close(self) -> None:
        """End all waits, and refuse later calls."""
        self._changes.close()
        self._mutex = ClosedMutex()
