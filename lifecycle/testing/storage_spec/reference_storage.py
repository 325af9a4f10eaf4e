"""The storage protocol as plainly as it can be said: a list of rows, gone through from end to end at every call.

`StorageSpec` holds an adapter against this model. It is meant to be read: what `lifecycle.storage.base` promises stands
here as code, with no thought for speed, durability or threads. The pure rules (`lifecycle.core.policies`) are shared with
the adapters, since nobody has rules of their own; all else, who is held, who comes first, what is stale, what is spent,
is said here a second time, independently.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from copy import copy
from operator import attrgetter
from typing import Final

import attrs

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import Move, Revocation, admit, claimed, enqueued, recover, revoked_when_due, visibility
from lifecycle.core.table import CANCEL, ENQUEUE, EXECUTING, INTERRUPT, LIFECYCLE, REVOKE, REVOKED, START, Kind
from lifecycle.core.task import Record, Task
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

__all__ = ["FIELDS", "ReferenceStorage", "Row", "fields", "is_at_rest", "is_waiting"]

FIELDS: Final = (
    "id", "name", "payload", "state", "eta", "expires", "priority", "retries", "retry", "timeout", "attempt",
    "interruptions", "worker", "version", "lease", "canceling",
)  # fmt: skip
"""What a store keeps of a task, and shows; `seq` is any number that grows with each new task."""

fields: Final = attrgetter(*FIELDS)
"""The values of `FIELDS`."""

_NOW: Final = float("-inf")
_NEVER: Final = float("inf")


def is_waiting(task: Task) -> bool:
    """Is it in the store for a worker to claim?"""
    return task.state is not None and LIFECYCLE.state(task.state).kind is Kind.WAITING


def is_at_rest(task: Task) -> bool:
    """Has it come to where it may stay for good?"""
    return task.state is not None and LIFECYCLE.state(task.state).kind in (Kind.OUTCOME, Kind.FINAL)


@attrs.define(eq=False)
class Row:
    """A stored task."""

    task: Task
    """As look-ups show it."""
    history: list[Record] = attrs.field(factory=list)
    result: bytes | None = None
    ended: float | None = None
    """When it came to rest."""
    rank: int | None = None
    """A claim has to look at it, the higher the sooner."""
    due: float | None = None
    """It gets its priority as rank then."""


@attrs.define
class ReferenceStorage:
    """A store. Its methods do what those of `Storage` with the same names promise to do.

    `woken` gathers who has to be woken by what happened; empty it before a call.
    """

    rows: list[Row] = attrs.field(factory=list)
    """Oldest first."""
    revocations: dict[RevocationTarget, Revocation] = attrs.field(factory=dict)
    taken: list[Lock] = attrs.field(factory=list)
    woken: set[Channel] = attrs.field(factory=set)
    births: int = 0
    """How many tasks there ever were: the last one's `seq`."""

    def row(self, task_id: str) -> Row | None:
        """The row of that id."""
        for row in self.rows:
            if row.task.id == task_id:
                return row
        return None

    # Moves -------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """All or none; a task that has a state was born before, and cannot be again."""
        ids = [row.task.id for row in self.rows]
        for task in tasks:
            if task.id in ids:
                raise DuplicateTask(task.id)
            if task.state is not None:
                raise IllegalTransition(task.state, ENQUEUE, LIFECYCLE.allowed(task.state))
            ids.append(task.id)
        return [self._bear(task, now, actor) for task in tasks]

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """First each settlement, in order; then the claims, which may find what those left."""
        took = [self._settle(settlement) for settlement in done]
        return took, [] if request is None else self._claim(request)

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Only who knows the task as it is lets go of it."""
        freed = []
        for task in tasks:
            row = self._fresh(task)
            free = row is not None and is_waiting(row.task) and row.task.lease is not None
            if row is not None and free:
                self._let_go(row, now)
            freed.append(free)
        return freed

    def extend(self, workers: Collection[str], until: float) -> int:
        """Tasks and locks."""
        held = [row.task for row in self.rows if row.task.lease is not None and row.task.worker in workers]
        for task in held:
            task.lease = until
        self.taken = [lock._replace(until=until) if lock.worker in workers else lock for lock in self.taken]
        return len(held)

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """The leases that ended first come first."""
        lapsed = [row for row in self.rows if row.task.lease is not None and row.task.lease <= now]
        lapsed.sort(key=lambda row: (row.task.lease, row.task.seq))
        claims = []
        for row in lapsed[:limit]:
            if is_waiting(row.task):
                self._let_go(row, now)
            else:
                move = recover(
                    row.task, now, worker=actor.worker, hold_until=actor.hold_until, max_interruptions=max_interruptions
                )
                claims.append(self._commit(row, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """Only what runs now."""
        row = self.row(task_id)
        if row is None or row.task.state != EXECUTING.name:
            return False
        row.task.canceling = True
        return True

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Only what these run now."""
        tasks = [row.task for row in self.rows if row.task.state == EXECUTING.name and row.task.worker in workers]
        return [task.id for task in tasks if task.canceling]

    def _bear(self, task: Task, now: float, actor: Actor) -> Move:
        move = enqueued(task, now, actor.worker, actor.hold_until)
        self.births += 1
        task.seq = self.births
        row = Row(attrs.evolve(task, canceling=False))
        self.rows.append(row)
        self._commit(row, move)
        return move

    def _settle(self, settlement: Settlement) -> bool:
        task, move = settlement
        row = self._fresh(task)
        if row is None:
            return False
        self._commit(row, move)
        for follow_up in move.follow_ups:
            if self.row(follow_up.id) is None:
                self._bear(follow_up, move.at, Actor(move.worker, move.hold_until))
        return True

    def _claim(self, request: ClaimRequest) -> list[Claim]:
        worker, now, lease, hold_scheduled, limit, batchable = request
        due = [(row.due, row.task.seq, row) for row in self.rows if row.due is not None and row.due <= now]
        for _, _, row in sorted(due, key=lambda entry: entry[:2])[:PROMOTE_LIMIT]:
            row.rank, row.due = row.task.priority, None
        claims: list[Claim] = []
        started = over = False
        while len(claims) < limit and not over and (ready := self._ready()):
            row = ready[0]
            task = row.task
            own = self.revocations.get(RevocationTarget(function=False, key=task.id))
            of_function = self.revocations.get(RevocationTarget(function=True, key=task.name))
            trigger = admit(task, own, of_function, now)
            if trigger is None:  # it was ready, and the clock stepped back: it is not ready now
                row.rank, row.due = visibility(task, own, now)
                continue
            if trigger == START:
                over = batchable is not None and task.name not in batchable
                if over and started:
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

    def _ready(self) -> list[Row]:
        """What a claim has to look at, in this order: by rank, then age."""
        return sorted(
            (row for row in self.rows if row.rank is not None), key=lambda row: (-(row.rank or 0), row.task.seq)
        )

    def _fresh(self, known: Task) -> Row | None:
        """The row of a task, if nothing has happened to it since it was read; a namesake's is another one."""
        row = self.row(known.id)
        return row if row is not None and row.task.fence == known.fence else None

    def _commit(self, row: Row, move: Move) -> Claim:
        """Move a row."""
        task, before = row.task, copy(row.task)
        for state in move.states:
            task.version += 1
            task.state = state.name
            row.history.append(Record(state.name, move.at, move.worker, move.attempt))
        task.attempt, task.retries, task.interruptions = move.attempt, move.retries, move.interruptions
        task.eta, task.worker, task.lease = move.eta, move.worker, move.lease
        row.ended = move.at if is_at_rest(task) else None
        if move.result is not None:
            row.result = move.result
        if task.state == REVOKED.name:  # what stopped it is spent
            self.revocations.pop(RevocationTarget(function=False, key=task.id), None)
        task.canceling = task.canceling and row.ended is None
        if move.path[0] in (INTERRUPT, CANCEL):
            self.taken = [lock for lock in self.taken if lock.task != task.id]
        if task.lease is None:
            self._let_go(row, move.at)
        else:
            row.rank = row.due = None
        if row.ended is not None or move.result is not None:
            self.woken.add(Channel.OUTCOME)
        return Claim(before, move)

    def _let_go(self, row: Row, now: float) -> None:
        """Nobody holds the row any more; if it waits, claims see it again."""
        row.task.lease = None
        row.rank, row.due = visibility(
            row.task, self.revocations.get(RevocationTarget(function=False, key=row.task.id)), now
        )
        if is_waiting(row.task):
            self.woken.add(Channel.WORK)

    # Revocations and locks ---------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """The last word counts."""
        self.revocations[target] = revocation
        self._look_again(target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """What has come true cannot be taken back."""
        if self.revocations.pop(target, None) is None:
            return False
        self._look_again(target, now)
        row = self.row(target.key)
        return target.function or row is None or row.task.state != REVOKED.name

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """What was said."""
        return self.revocations.get(target)

    def _look_again(self, target: RevocationTarget, now: float) -> None:
        row = None if target.function else self.row(target.key)
        if row is not None and is_waiting(row.task) and row.task.lease is None:
            self._let_go(row, now)

    def lock(self, lock: Lock, now: float) -> bool:
        """One at a time."""
        if any(held.name == lock.name and held.until > now for held in self.taken):
            return False
        self.flush_locks([lock.name])
        self.taken.append(lock)
        return True

    def unlock(self, name: str, owner: str) -> bool:
        """By its owner only."""
        held = [lock for lock in self.taken if (lock.name, lock.owner) == (name, owner)]
        self.taken = [lock for lock in self.taken if lock not in held]
        return bool(held)

    def locks(self, now: float) -> list[Lock]:
        """By name."""
        return sorted(lock for lock in self.taken if lock.until > now)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """By whomever."""
        gone = [lock for lock in self.taken if names is None or lock.name in names]
        self.taken = [lock for lock in self.taken if lock not in gone]
        return len(gone)

    # Look-ups ----------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """As it is now."""
        row = self.row(task_id)
        return None if row is None else row.task

    def history(self, task_id: str) -> list[Record] | None:
        """All of it."""
        row = self.row(task_id)
        return None if row is None else row.history

    def status(self, task_id: str) -> TaskStatus | None:
        """What a result handle sees."""
        row = self.row(task_id)
        return None if row is None else TaskStatus(str(row.task.state), row.result)

    def counts(self) -> dict[str, int]:
        """By state."""
        return dict(Counter(str(row.task.state) for row in self.rows))

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """Newest first."""
        found = [row.task for row in reversed(self.rows)]
        found = [task for task in found if before is None or (task.seq or 0) < before]
        return [task for task in found if states is None or task.state in states][:limit]

    def next_due(self) -> float | None:
        """Now, when something becomes due, or when a hold ends."""
        if self._ready():
            return _NOW
        held = [row.task.lease for row in self.rows if is_waiting(row.task)]
        return min((moment for moment in (*held, *(row.due for row in self.rows)) if moment is not None), default=None)

    # Keeping house -----------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """Who came to rest first goes first, and what was said about it with it."""
        old = [(row.ended, row.task.seq, row) for row in self.rows if row.ended is not None and row.ended < before]
        gone = [row for _, _, row in sorted(old, key=lambda entry: entry[:2])[:limit]]
        self.rows = [row for row in self.rows if row not in gone]
        for row in gone:
            self.revocations.pop(RevocationTarget(function=False, key=row.task.id), None)
        return len(gone)

    def flush(self) -> None:
        """Whoever waits has to know."""
        self.rows, self.taken = [], []
        self.revocations.clear()
        self.woken.update(Channel)
