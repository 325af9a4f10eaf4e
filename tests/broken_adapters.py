"""Adapters as somebody might write them, each with one bug in it; its docstring says which."""

from copy import copy

from lifecycle.policies import URGENT, WAITING
from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.table import EXECUTING, INTERRUPT


class StaleSettles(MemoryStorage):
    """The version is not compared: whoever comes back with an old copy settles the task."""

    def _settle(self, task, move):
        row, known = self._rows.get(task.id), copy(task)
        if row is not None:
            known.version = row.task.version
        if not super()._settle(known, move):
            return False
        move.apply(task)
        return True


class AnybodySettles(MemoryStorage):
    """The worker is not compared: an outcome is taken from whoever says that he holds the task."""

    def _settle(self, task, move):
        row, known = self._rows.get(task.id), copy(task)
        if row is not None:
            known.worker = row.task.worker
        if not super()._settle(known, move):
            return False
        move.apply(task)
        return True


class TwiceSettled(MemoryStorage):
    """A second outcome of a task that is at rest already is reported as taken."""

    def _settle(self, task, move):
        row = self._rows.get(task.id)
        return super()._settle(task, move) or (row is not None and row.ended is not None)


class LockKept(MemoryStorage):
    """An interruption does not free the locks of the attempt."""

    def _move(self, row, move):
        taken = dict(self._locks)
        claim = super()._move(row, move)
        if move.path[0] == INTERRUPT:
            self._locks = taken
        return claim


class LineLost(MemoryStorage):
    """Of a path only the state that it ends in is written into the history."""

    def _move(self, row, move):
        before = row.history
        claim = super()._move(row, move)
        row.history = before + move.history.splitlines(keepends=True)[-1]
        return claim


class LeaseForgotten(MemoryStorage):
    """What is recovered is put back, but stays held by the worker that is gone."""

    def recover(self, now, actor, **options):
        leases = {task_id: row.task.lease for task_id, row in self._held.items()}
        claims = super().recover(now, actor, **options)
        for task, _ in claims:
            row = self._rows[task.id]
            if row.task.state in WAITING and row.task.lease is None:
                row.task.lease, self._held[task.id] = leases[task.id], row
                self._rank(row, None, None)
        return claims


class ReleasedEarly(MemoryStorage):
    """What is let go is due at once, whatever its ETA."""

    def _release(self, task, now):
        released = super()._release(task, now)
        if released:
            row = self._rows[task.id]
            self._rank(row, row.task.priority if row.rank is None else row.rank, None)
        return released


class LowestFirst(MemoryStorage):
    """The lowest priority goes first."""

    def _rank(self, row, rank, due):
        super()._rank(row, rank if rank in (None, URGENT) else -rank, due)


class ExpiredRuns(MemoryStorage):
    """A claim does not look at the expiry."""

    def _claim(self, claimant):
        expiries = {task_id: row.task.expires for task_id, row in self._rows.items()}
        for row in self._rows.values():
            row.task.expires = None
        claims = super()._claim(claimant)
        for task in (*(row.task for row in self._rows.values()), *(task for task, _ in claims)):
            task.expires = expiries[task.id]
        return claims


class Overwritten(MemoryStorage):
    """A task whose id is taken takes the other's place."""

    def enqueue(self, tasks, now, actor):
        with self._mutex:
            for task in tasks:
                self._rows.pop(task.id, None)
                self._held.pop(task.id, None)
            super().enqueue(tasks, now, actor)


class WaitingPruned(MemoryStorage):
    """What has waited for long is deleted with what has ended."""

    def prune(self, before, limit=1000):
        gone = super().prune(before, limit)
        for task_id, row in list(self._rows.items()):
            if row.task.state in WAITING and self.history(task_id)[-1].at < before:
                del self._rows[task_id]
                self._held.pop(task_id, None)
                gone += 1
        return gone


class BeatCounted(MemoryStorage):
    """A heartbeat counts as a transition."""

    def extend(self, workers, until):
        held = super().extend(workers, until)
        for row in self._held.values():
            if row.task.worker in workers:
                row.task.version += 1
        return held


class ReadOnce(MemoryStorage):
    """A result is gone once it was read."""

    def outlook(self, task_id):
        outlook = super().outlook(task_id)
        if outlook is not None:
            self._rows[task_id].result = None
        return outlook


class ClaimedFirst(MemoryStorage):
    """An exchange claims before it settles."""

    def exchange(self, done, claimant):
        with self._mutex:
            _, claims = super().exchange((), claimant)
            took, _ = super().exchange(done, None)
            return took, claims


class Restored(MemoryStorage):
    """A revocation outlives the task that it stopped."""

    def _move(self, row, move):
        said = dict(self._revocations)
        claim = super()._move(row, move)
        self._revocations = said
        return claim


class Remembered(SQLiteStorage):
    """A connection looks a task up once, and answers from memory until it writes something itself."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._known = {}

    def get(self, task_id):
        if task_id not in self._known:
            self._known[task_id] = super().get(task_id)
        return copy(self._known[task_id])

    def __getattribute__(self, name):
        if name in ("enqueue", "exchange", "release", "extend", "recover", "prune", "flush"):
            self._known.clear()
        return super().__getattribute__(name)


class Reread(SQLiteStorage):
    """What is settled is looked up again, and that is what the outcome is compared with."""

    def _move(self, db, task, move):
        row = db.execute("select version, state, worker from task where seq=?", (task.seq,)).fetchone()
        known = copy(task)
        if row is not None and row[1] == EXECUTING:
            known.version, known.state, known.worker = row
        return super()._move(db, known, move)


class HalfDone(SQLiteStorage):
    """Settlement and claim are two transactions, and who claims nothing is not told what was settled."""

    def exchange(self, done, claimant):
        took, _ = super().exchange(done, None)
        if claimant is None:
            return took, []
        _, claims = super().exchange((), claimant)
        return took if claims else [False] * len(took), claims



BROKEN = (
    StaleSettles, AnybodySettles, TwiceSettled, LockKept, LineLost, LeaseForgotten, ReleasedEarly, LowestFirst,
    ExpiredRuns, Overwritten, WaitingPruned, BeatCounted, ReadOnce, ClaimedFirst, Restored, Remembered, Reread, HalfDone,
)  # fmt: skip
"""All of them."""
