"""The claim algorithm, once for every adapter that decides in Python: rows in, decisions out. Pure."""

from lifecycle.core.policies import Move, Revocation, admit, claimed, revoked_when_due, visibility
from lifecycle.core.table import REVOKE, START
from lifecycle.core.task import Task
from lifecycle.storage.base import ClaimRequest

__all__ = ["ClaimDecisions", "Visibility"]

Visibility = tuple[int | None, float | None]
"""Rank and due time of a waiting task: see `lifecycle.core.policies.visibility`."""


class ClaimDecisions:
    """The decisions of one claim, in the order in which the store shows waiting tasks: by rank, then age.

    The adapter shows tasks until it has `ClaimRequest.limit` moves, until `over` is true, or until it has no more
    tasks with a rank. What a decision says, the adapter writes before it shows the next task.
    """

    def __init__(self, request: ClaimRequest) -> None:
        self.worker, self.now, self._lease, self._hold_scheduled, self.limit, self._batchable = request
        self.over = False
        """True once the claim ends, although there may be room for more tasks."""
        self.spends = False
        """True if the last decision uses up the one-time revocation of the task's function."""
        self._started = False

    def decide(self, task: Task, own: Revocation | None, of_function: Revocation | None) -> Move | Visibility | None:
        """Return what becomes of a waiting task that nobody holds.

        A `Move`: commit it. A pair of rank and due time: the task waits on, since the clock was set back after the
        task had become due; store the pair. ``None``: leave the task alone, the claim is over.

        `own`, `of_function`: the revocations of the task and of its function, if any.
        """
        trigger = admit(task, own, of_function, self.now)
        self.spends = False
        if trigger is None:
            return visibility(task, own, self.now)
        if trigger == START:
            alone = self._batchable is not None and task.name not in self._batchable
            if alone and self._started:
                self.over = True
                return None
            self._started, self.over = True, alone
        elif trigger == REVOKE and of_function is not None and of_function.once:
            self.spends = not revoked_when_due(task, own, self.now)
        return claimed(task, trigger, self.worker, self.now, self._lease, hold_scheduled=self._hold_scheduled)
