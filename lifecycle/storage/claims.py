"""The claim algorithm for adapters that decide in Python: rows in, decisions out. No I/O, no clock."""

from lifecycle.core.policies import (
    REVOKED_RANK,
    WAITING,
    Move,
    Revocation,
    admit,
    claimed,
    revoked_when_due,
    visibility,
)
from lifecycle.core.table import EXPIRE, QUEUED, REVOKE, SKIP, START
from lifecycle.core.task import Task
from lifecycle.storage.base import ClaimRequest

__all__ = ["ClaimDecisions", "Visibility", "is_skipped", "visibility_after"]

Visibility = tuple[int | None, float | None]
"""Rank and due time of a task: see `lifecycle.core.policies.visibility`."""


def visibility_after(task: Task, move: Move, own: Revocation | None) -> Visibility:
    """Return the rank and the due time of a task after a move; neither if the task is held or waits no more.

    `task`: the task before the move, as stored; for a new task, the task to be stored. `own`: the revocation of the
    task itself, if any. A task can be revoked before it exists.
    """
    if move.lease is not None or move.state.name not in WAITING:
        return None, None
    if own is None and move.states[-1] == QUEUED:  # as `visibility` of the copy below says: spares most tasks the copy
        return task.priority, None
    after = task.__copy__()  # as `copy(task)`, without the search for this method
    move.apply(after)
    return visibility(after, own, move.at)


def is_skipped(task: Task, rank: int | None, skip_names: frozenset[str], now: float) -> bool:
    """Return whether a claim with these `skip_names` passes over a task with this rank.

    Not if the task has expired before its first attempt, is revoked itself, or is a step to skip: such a task ends
    without its function, on any worker. The expiry of a later attempt is not in a column of its own
    (`policies.expiry`): that task waits for a worker that knows the function.
    """
    has_expired = task.attempt == 0 and task.expires is not None and task.expires <= now
    return task.name in skip_names and rank != REVOKED_RANK and not has_expired


class ClaimDecisions:
    """The decisions of one claim, in the order in which the store presents waiting tasks: by rank, then age.

    The adapter presents tasks until it has `ClaimRequest.limit` moves, until `over` is true, or until it has no more
    tasks with a rank. The adapter writes each decision before it presents the next task; it may read several tasks
    ahead, as long as neither `spends` nor `reports` is true. It presents no task that `is_skipped`.
    """

    def __init__(self, request: ClaimRequest) -> None:
        self.worker, self.now, self._lease, self._hold_scheduled, self.limit, self._batchable, self._skip = request
        self.over = False
        """True if the claim ends, even if there is room for more tasks."""
        self.spends = False
        """True if the last decision uses up the one-time revocation of the task's function."""
        self.reports = False
        """True if the last decision ends a task that others wait for: these may come before tasks that were read."""
        self._started, self._told = False, set[str]()

    def decide(self, task: Task, own: Revocation | None, of_function: Revocation | None) -> Move | Visibility | None:
        """Return the decision about a waiting task that no worker holds.

        A `Move`: commit the move. A pair of rank and due time: store the pair; the task is not due yet, since the clock
        was set back after the task had become due, or the revocation of a task to skip has ended. ``None``: leave the
        task alone, the claim is over.

        `own` and `of_function`: the revocations of the task and of its function, if any.
        """
        trigger = admit(task, own, of_function, self.now)
        self.spends = self.reports = False
        if trigger is None or (self._skip and task.name in self._skip and not self._ends(trigger, task, own)):
            rank, due = visibility(task, own, self.now)
            return (task.priority, None) if due is not None and due <= self.now else (rank, due)
        if trigger == START:
            alone = self._batchable is not None and task.name not in self._batchable
            if alone and self._started:
                self.over = True
                return None
            self._started, self.over = True, alone
        elif trigger == REVOKE and of_function is not None and of_function.once:
            self.spends = not revoked_when_due(task, own, self.now)
        move = claimed(task, trigger, self.worker, self.now, self._lease, hold_scheduled=self._hold_scheduled)
        if task.step is not None and move.ended is not None:  # without success: the first such end decides
            self.reports = not self._told.issuperset(task.step.dependents)
            self._told.update(task.step.dependents)
        return move

    def _ends(self, trigger: str, task: Task, own: Revocation | None) -> bool:
        """Return whether a task ends here even if its function is to be skipped."""
        return trigger in (EXPIRE, SKIP) or (trigger == REVOKE and revoked_when_due(task, own, self.now))
