"""The storage protocol in its simplest form: a list of rows, searched from end to end by every call.

`StorageSpec` compares an adapter with this model. Read it as the promises of `lifecycle.storage.base` in code, without
speed, durability or threads. The pure rules (`lifecycle.core.policies`) are shared with the adapters. The rest is
written here a second time, independently: leases, order, stale copies, spent revocations.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from operator import attrgetter
from typing import Final

import attrs

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import (
    MAX_INTERRUPTIONS,
    REVOKED_RANK,
    Move,
    Revocation,
    admit,
    claimed,
    enqueued,
    recover,
    revoked_when_due,
    visibility,
)
from lifecycle.core.step import reports
from lifecycle.core.table import (
    CANCEL,
    ENQUEUE,
    EXECUTING,
    EXPIRE,
    INTERRUPT,
    LIFECYCLE,
    REVOKE,
    REVOKED,
    SKIP,
    START,
    Kind,
)
from lifecycle.core.task import HISTORY_HEAD, HISTORY_STEP, HISTORY_TAIL, Record, Task
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import (
    NO_LIMITS,
    PROMOTE_LIMIT,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    Lock,
    RevocationTarget,
    Settlement,
    TaskStatus,
    Tick,
)
from lifecycle.testing.storage_spec.reference_steps import ReferenceSteps

__all__ = ["FIELDS", "ReferenceStorage", "Row", "fields", "is_at_rest", "is_waiting"]

FIELDS: Final = (
    "id", "name", "payload", "state", "eta", "expires", "priority", "retries", "retry", "timeout", "attempt",
    "interruptions", "worker", "version", "lease", "canceling", "enqueued_at", "step",
)  # fmt: skip
"""The fields of a task that every store keeps and returns. `seq` is compared apart: stores may number as they like."""

fields: Final = attrgetter(*FIELDS)
"""The values of `FIELDS`."""

_NOW: Final = float("-inf")
_NEVER: Final = float("inf")


def is_waiting(task: Task) -> bool:
    """Return whether a task waits for a claim."""
    return task.state is not None and LIFECYCLE.state(task.state).kind is Kind.WAITING


def is_at_rest(task: Task) -> bool:
    """Return whether a task is in a resting state."""
    return task.state is not None and LIFECYCLE.state(task.state).kind in (Kind.OUTCOME, Kind.FINAL)


@attrs.define(eq=False)
class Row:
    """A stored task."""

    task: Task
    """The task as reads return it."""
    history: list[Record] = attrs.field(factory=list)
    """All records; reads leave out the middle of a long history."""
    result: bytes | None = None
    rested_at: float | None = None
    """Time at which the task came to rest."""
    rank: int | None = None
    """Claims look at rows with a rank, the highest first."""
    due_at: float | None = None
    """Time from which the row has its priority as rank."""


def _is_skipped(row: Row, skip_names: frozenset[str], now: float) -> bool:
    """Return whether a claim passes over a ready row: of a skipped function, not revoked, not expired unbegun."""
    expires = row.task.expires if row.task.attempt == 0 else None
    return row.task.name in skip_names and row.rank != REVOKED_RANK and (expires is None or expires > now)


@attrs.define
class ReferenceStorage(ReferenceSteps):
    """A store. Its methods keep the promises of the methods of `Storage` that have the same names.

    `woken_channels` collects the channels whose waiters a call has to wake; clear it before a call.
    """

    rows: list[Row] = attrs.field(factory=list)
    """Oldest first."""
    revocations: dict[RevocationTarget, Revocation] = attrs.field(factory=dict)
    held_locks: list[Lock] = attrs.field(factory=list)
    woken_channels: set[Channel] = attrs.field(factory=set)
    last_seq: int = 0
    """The `seq` of the newest task ever."""

    def row(self, task_id: str) -> Row | None:
        """Return the row with this id, or ``None``."""
        for row in self.rows:
            if row.task.id == task_id:
                return row
        return None

    # Moves -------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Insert all tasks or none; refuse a task that has a state, since it was enqueued before."""
        ids = [row.task.id for row in self.rows]
        for task in tasks:
            if task.id in ids:
                raise DuplicateTask(task.id)
            if task.state is not None:
                raise IllegalTransition(task.state, ENQUEUE, LIFECYCLE.allowed(task.state))
            ids.append(task.id)
        return [self._insert(task, now, actor) for task in tasks]

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Insert the tasks of ticks, if the ticks are the next ones."""
        return self.enqueue(tasks, now, actor) if self.step(tick, tasks) else None

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Settle in order, then claim: a claim may find a task that a settlement has made ready."""
        accepted = [self._settle(settlement) for settlement in done]
        return accepted, [] if request is None else self._claim(request)

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """End holds of waiting tasks; a stale copy ends none."""
        released = []
        for task in tasks:
            row = self._current_row(task)
            is_held = row is not None and is_waiting(row.task) and row.task.lease is not None
            if row is not None and is_held:
                self._release(row, now)
            released.append(is_held)
        return released

    def extend(self, workers: Collection[str], until: float) -> int:
        """Extend the leases of tasks and locks."""
        held = [row.task for row in self.rows if row.task.lease is not None and row.task.worker in workers]
        for task in held:
            task.lease = until
        self.held_locks = [lock._replace(until=until) if lock.worker in workers else lock for lock in self.held_locks]
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
        """Recover the leases that ended first; release waiting tasks."""
        lapsed = [row for row in self.rows if row.task.lease is not None and row.task.lease <= now]
        lapsed.sort(key=lambda row: (row.task.lease, row.task.seq))
        claims = []
        for row in lapsed[:limit]:
            if is_waiting(row.task):
                self._release(row, now)
            else:
                move = recover(
                    row.task,
                    now,
                    worker=actor.worker,
                    hold_until=actor.hold_until,
                    max_interruptions=of_functions.get(row.task.name, max_interruptions),
                )
                claims.append(self._commit(row, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """Request the cancellation of a running task."""
        row = self.row(task_id)
        if row is None or row.task.state != EXECUTING.name:
            return False
        row.task.canceling = True
        return True

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of running tasks of these workers, if their cancellation is requested."""
        tasks = [row.task for row in self.rows if row.task.state == EXECUTING.name and row.task.worker in workers]
        return [task.id for task in tasks if task.canceling]

    def _insert(self, task: Task, now: float, actor: Actor) -> Move:
        move = enqueued(task, now, actor.worker, actor.hold_until)
        self.last_seq += 1
        task.seq = self.last_seq
        row = Row(attrs.evolve(task, canceling=False, enqueued_at=now))
        self.rows.append(row)
        self._commit(row, move)
        return move

    def _settle(self, settlement: Settlement) -> bool:
        task, move = settlement
        row = self._current_row(task)
        if row is None:
            return False
        self._commit(row, move)
        for follow_up in move.follow_ups:
            if self.row(follow_up.id) is None:
                self._insert(follow_up, move.at, Actor(move.worker, move.hold_until))
        return True

    def _claim(self, request: ClaimRequest) -> list[Claim]:
        worker, now, lease, hold_scheduled, limit, batchable, skip_names = request
        due = [(row.due_at, row.task.seq, row) for row in self.rows if row.due_at is not None and row.due_at <= now]
        for _, _, row in sorted(due, key=lambda entry: entry[:2])[:PROMOTE_LIMIT]:
            row.rank, row.due_at = row.task.priority, None
        claims: list[Claim] = []
        started = is_last = False
        while len(claims) < limit and not is_last and (ready := self._ready_rows(skip_names, now)):
            row = ready[0]
            task = row.task
            own = self.revocations.get(RevocationTarget(function=False, key=task.id))
            of_function = self.revocations.get(RevocationTarget(function=True, key=task.name))
            trigger = admit(task, own, of_function, now)
            is_ending = trigger in (EXPIRE, SKIP) or (trigger == REVOKE and revoked_when_due(task, own, now))
            # Not due any more, since the clock stepped back; or the revocation of a skipped task has ended.
            if trigger is None or (task.name in skip_names and not is_ending):
                row.rank, row.due_at = visibility(task, own, now)
                if row.due_at is not None and row.due_at <= now:
                    row.rank, row.due_at = task.priority, None
                continue
            if trigger == START:
                is_last = batchable is not None and task.name not in batchable
                if is_last and started:
                    break
                started = True
            if (
                trigger == REVOKE
                and of_function is not None
                and of_function.once
                and not revoked_when_due(task, own, now)
            ):
                del self.revocations[RevocationTarget(function=True, key=task.name)]
            claims.append(self._commit(row, claimed(task, trigger, worker, now, lease, hold_scheduled=hold_scheduled)))
        return claims

    def _ready_rows(self, skip_names: frozenset[str], now: float) -> list[Row]:
        """Return the rows that a claim looks at, in that order: by rank, then age."""
        ready = [row for row in self.rows if row.rank is not None and not _is_skipped(row, skip_names, now)]
        return sorted(ready, key=lambda row: (-(row.rank or 0), row.task.seq))

    def _current_row(self, known: Task) -> Row | None:
        """Return the row of a task if its fence is still the same: another task with that id has another fence."""
        row = self.row(known.id)
        return row if row is not None and row.task.fence == known.fence else None

    def _commit(self, row: Row, move: Move) -> Claim:
        """Apply a move to a row."""
        task, before = row.task, copy(row.task)
        for state in move.states:
            task.version += 1
            task.state = state.name
            is_counted = move.state != EXECUTING or state == EXECUTING  # a start counts the attempt
            row.history.append(Record(state.name, move.at, move.worker, move.attempt - (not is_counted)))
        task.attempt, task.retries, task.interruptions = move.attempt, move.retries, move.interruptions
        task.eta, task.worker, task.lease = move.eta, move.worker, move.lease
        row.rested_at = move.at if is_at_rest(task) else None
        if move.result is not None:
            row.result = move.result
        if task.state == REVOKED.name:  # its own revocation is spent
            self.revocations.pop(RevocationTarget(function=False, key=task.id), None)
        task.canceling = task.canceling and row.rested_at is None
        if move.path[0] in (INTERRUPT, CANCEL):
            self.held_locks = [lock for lock in self.held_locks if lock.task != task.id]
        if task.lease is None:
            self._release(row, move.at)
        else:
            row.rank = row.due_at = None
        if row.rested_at is not None or move.result is not None:
            self.woken_channels.add(Channel.OUTCOME)
        for report in reports(task.id, task.step, move.state, row.rested_at):
            waiting = self.row(report.dependent)
            if waiting is not None and self.hear(waiting.task, report) and waiting.task.lease is None:
                self._release(waiting, move.at)
        return Claim(before, move)

    def _release(self, row: Row, now: float) -> None:
        """End the hold of a row; a claim can find it again if it waits."""
        row.task.lease = None
        row.rank, row.due_at = visibility(
            row.task, self.revocations.get(RevocationTarget(function=False, key=row.task.id)), now
        )
        if is_waiting(row.task):
            self.woken_channels.add(Channel.WORK)

    # Revocations and locks ---------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Set the revocation of a target."""
        self.revocations[target] = revocation
        self._update_visibility(target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Remove a revocation; return False if its task is already revoked."""
        if self.revocations.pop(target, None) is None:
            return False
        self._update_visibility(target, now)
        row = self.row(target.key)
        return target.function or row is None or row.task.state != REVOKED.name

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return the revocation of a target."""
        return self.revocations.get(target)

    def _update_visibility(self, target: RevocationTarget, now: float) -> None:
        row = None if target.function else self.row(target.key)
        if row is not None and is_waiting(row.task) and row.task.lease is None:
            self._release(row, now)

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock if nobody holds it."""
        if any(held.name == lock.name and held.until > now for held in self.held_locks):
            return False
        self.flush_locks([lock.name])
        self.held_locks.append(lock)
        return True

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock of this owner."""
        held = [lock for lock in self.held_locks if (lock.name, lock.owner) == (name, owner)]
        self.held_locks = [lock for lock in self.held_locks if lock not in held]
        return bool(held)

    def locks(self, now: float) -> list[Lock]:
        """Return the held locks, by name."""
        return sorted(lock for lock in self.held_locks if lock.until > now)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks of any owner; return their number."""
        gone = [lock for lock in self.held_locks if names is None or lock.name in names]
        self.held_locks = [lock for lock in self.held_locks if lock not in gone]
        return len(gone)

    # Look-ups ----------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """Return a task."""
        row = self.row(task_id)
        return None if row is None else row.task

    def history(self, task_id: str) -> list[Record] | None:
        """Return the history of a task."""
        row = self.row(task_id)
        if row is None:
            return None
        left_out = len(row.history) // HISTORY_STEP * HISTORY_STEP - HISTORY_TAIL - HISTORY_HEAD
        if left_out <= 0:
            return row.history
        first, *tail = row.history[HISTORY_HEAD + left_out :]
        return [*row.history[:HISTORY_HEAD], attrs.evolve(first, left_out=left_out), *tail]

    def status(self, task_id: str) -> TaskStatus | None:
        """Return state and result of a task."""
        row = self.row(task_id)
        return None if row is None else TaskStatus(str(row.task.state), row.result)

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return state and result of those tasks that exist."""
        found = {task_id: self.status(task_id) for task_id in task_ids}
        return {task_id: status for task_id, status in found.items() if status is not None}

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        return dict(Counter(str(row.task.state) for row in self.rows))

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
        found = [row.task for row in reversed(self.rows)]
        found = [task for task in found if before is None or (task.seq or 0) < before]
        found = [task for task in found if name is None or task.name == name]
        found = [task for task in found if since is None or (task.enqueued_at or 0.0) >= since]
        return [task for task in found if states is None or task.state in states][:limit]

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return the ids that begin or end with a text, the newest first."""
        ids = [row.task.id for row in reversed(self.rows)]
        return [task_id for task_id in ids if task_id.startswith(text) or task_id.endswith(text)][:limit]

    def next_due(self, skip_names: frozenset[str] = frozenset()) -> float | None:
        """Return when a claim may find a task: now, at a due time or an expiry, or at the end of a hold."""
        if self._ready_rows(skip_names, _NOW):
            return _NOW
        held = [row.task.lease for row in self.rows if is_waiting(row.task)]
        expiries = [row.task.expires for row in self.rows if row.rank is not None and row.task.attempt == 0]
        return min(
            (moment for moment in (*held, *expiries, *(row.due_at for row in self.rows)) if moment is not None),
            default=None,
        )

    # Maintenance -------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete the tasks that came to rest first, with their revocations."""
        old = [
            (row.rested_at, row.task.seq, row)
            for row in self.rows
            if row.rested_at is not None and row.rested_at < before and (states is None or row.task.state in states)
        ]
        gone = [row for _, _, row in sorted(old, key=lambda entry: entry[:2])[:limit]]
        self.rows = [row for row in self.rows if row not in gone]
        for row in gone:
            self.revocations.pop(RevocationTarget(function=False, key=row.task.id), None)
        return len(gone)

    def flush(self) -> None:
        """Delete everything, and wake all waiters."""
        self.rows, self.held_locks, self.periodic = [], [], []
        self.revocations.clear()
        self.woken_channels.update(Channel)
