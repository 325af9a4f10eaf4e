"""The memory adapter: the same rules without durability. For tests, for immediate mode, and for a single process.

It hands out copies, as a database does: nobody can change a stored task by changing an object.
"""

import threading
from collections.abc import Collection, Sequence
from copy import copy
from heapq import heappop, heappush
from typing import Any, cast

import attrs

from lifecycle.core.policies import (
    WAITING,
    Move,
    Revocation,
    enqueued,
    recover,
    visibility,
)
from lifecycle.core.table import EXECUTING, REVOKE, REVOKED
from lifecycle.core.task import Record, Task, read_history
from lifecycle.errors import DuplicateTask, StorageError
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

__all__ = ["MemoryStorage"]


@attrs.define(eq=False)
class _Row:
    """A stored task: its fields as last committed, and what only the store knows."""

    task: Task
    rank: int | None = None
    due: float | None = None
    ended: float | None = None
    result: bytes | None = None
    history: str = ""


class MemoryStorage:
    """Tasks in this process's memory; gone with it."""

    def __init__(self) -> None:
        self._mutex: Any = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._generations = dict.fromkeys(Channel, 0)
        self._waiting = 0
        """How many threads wait for news."""
        self._seq = 0
        self._empty()

    def _empty(self) -> None:
        self._rows: dict[str, _Row] = {}
        # Entries of both heaps stay behind when a row moves on: one counts only while the row agrees with it.
        self._ready: list[tuple[int, int, str]] = []
        self._later: list[tuple[float, int, str]] = []
        self._held: dict[str, _Row] = {}
        self._revocations: dict[RevocationTarget, Revocation] = {}
        self._locks: dict[str, Lock] = {}

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """See `Storage.enqueue`."""
        with self._mutex:
            new: set[str] = set()
            for task in tasks:
                if task.id in self._rows or task.id in new:
                    raise DuplicateTask(task.id)
                new.add(task.id)
            moves = [enqueued(task, now, *actor) for task in tasks]  # all, before the first is written
            for task, move in zip(tasks, moves, strict=True):
                self._insert(task, move)
            return moves

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """See `Storage.exchange`."""
        with self._mutex:
            took = [self._settle(*settlement) for settlement in done]
            return took, self._claim(request) if request is not None else []

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """See `Storage.release`."""
        with self._mutex:
            return [self._release(task, now) for task in tasks]

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        with self._mutex:
            held = [row.task for row in self._held.values() if row.task.worker in workers]
            for task in held:
                task.lease = until
            for name, lock in self._locks.items():
                if lock.worker in workers:
                    self._locks[name] = lock._replace(until=until)
            return len(held)

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """See `Storage.recover`."""
        with self._mutex:
            lapsed = sorted(
                (row for row in self._held.values() if cast(float, row.task.lease) <= now),
                key=lambda row: (row.task.lease, row.task.seq),
            )
            claims = []
            for row in lapsed[:limit]:
                if row.task.state in WAITING:
                    self._let_go(row, now)
                else:
                    move = recover(
                        row.task,
                        now,
                        worker=actor.worker,
                        hold_until=actor.hold_until,
                        max_interruptions=max_interruptions,
                    )
                    claims.append(self._claimed(row, move))
            return claims

    def cancel(self, task_id: str) -> bool:
        """See `Storage.cancel`."""
        with self._mutex:
            row = self._rows.get(task_id)
            if row is None or row.task.state != EXECUTING:
                return False
            row.task.canceling = True
            return True

    def canceling(self, workers: Collection[str]) -> list[str]:
        """See `Storage.canceling`."""
        with self._mutex:
            held = [row.task for row in self._held.values() if row.task.canceling and row.task.worker in workers]
            return [task.id for task in held if task.state == EXECUTING]

    def _release(self, task: Task, now: float) -> bool:
        row = self._rows.get(task.id)
        if row is None or row.task.lease is None or row.task.state not in WAITING or row.task.fence != task.fence:
            return False
        self._let_go(row, now)
        return True

    def _insert(self, task: Task, move: Move) -> None:
        self._seq += 1
        task.seq = self._seq
        stored = copy(task)
        stored.loads = stored.cancel_requested = stored._call = None
        stored.canceling = False
        row = self._rows[task.id] = _Row(stored)
        self._move(row, move)

    def _settle(self, task: Task, move: Move) -> bool:
        row = self._rows.get(task.id)
        if row is None or row.task.fence != task.fence:
            return False
        self._move(row, move)
        for follow_up in move.follow_ups:
            if follow_up.id not in self._rows:
                self._insert(follow_up, enqueued(follow_up, move.at, move.worker, move.hold_until))
        return True

    def _claim(self, request: ClaimRequest) -> list[Claim]:
        for _ in range(PROMOTE_LIMIT):
            if (row := self._earliest()) is None or cast(float, row.due) > request.now:
                break
            self._rank(row, row.task.priority, None)
        claims: list[Claim] = []
        decisions = ClaimDecisions(request)
        while len(claims) < request.limit and not decisions.over and (row := self._foremost()) is not None:
            own = of_function = None
            if self._revocations:  # most often nothing is revoked at all
                own = self._own(row.task)
                of_function = self._revocations.get(RevocationTarget(function=True, key=row.task.name))
            decision = decisions.decide(row.task, own, of_function)
            if isinstance(decision, Move):
                claims.append(self._claimed(row, decision))
                if decisions.spends:
                    del self._revocations[RevocationTarget(function=True, key=row.task.name)]
            elif decision is not None:
                self._rank(row, *decision)
        return claims

    def _claimed(self, row: _Row, move: Move) -> Claim:
        """Commit a move that the caller has not asked for, and hand it out."""
        before = copy(row.task)
        self._move(row, move)
        return Claim(before, move)

    def _move(self, row: _Row, move: Move) -> None:
        """Commit a move: the only place where a stored state changes."""
        task = row.task
        move.apply(task)
        row.history += move.history
        row.ended = move.ended
        if move.result is not None:
            row.result = move.result
        if move.path[-1] == REVOKE:
            self._revocations.pop(RevocationTarget(function=False, key=task.id), None)
        elif move.frees_locks:
            self._locks = {name: lock for name, lock in self._locks.items() if lock.task != task.id}
        if task.lease is None:
            self._let_go(row, move.at)
        else:
            self._held[task.id] = row
            self._rank(row, None, None)
        if move.result is not None or move.ended is not None:
            self._notify(Channel.OUTCOME)

    # Readiness -----------------------------------------------------------------------------------------------------

    def _let_go(self, row: _Row, now: float) -> None:
        """Nobody holds the row any more: put it where claims find it, if it waits."""
        row.task.lease = None
        self._held.pop(row.task.id, None)
        self._rank(row, *visibility(row.task, self._own(row.task), now))

    def _own(self, task: Task) -> Revocation | None:
        """What is revoked of the task itself. Most often nothing is revoked at all: that is quickly found out."""
        return self._revocations.get(RevocationTarget(function=False, key=task.id)) if self._revocations else None

    def _rank(self, row: _Row, rank: int | None, due: float | None) -> None:
        row.rank, row.due = rank, due
        seq = cast(int, row.task.seq)
        if rank is not None:
            heappush(self._ready, (-rank, seq, row.task.id))
        elif due is not None:
            heappush(self._later, (due, seq, row.task.id))
        else:
            return
        self._notify(Channel.WORK)

    def _foremost(self) -> _Row | None:
        """The row that a claim has to look at first."""
        while self._ready:
            rank, seq, task_id = self._ready[0]
            row = self._rows.get(task_id)
            if row is not None and row.rank == -rank and row.task.seq == seq:
                return row
            heappop(self._ready)
        return None

    def _earliest(self) -> _Row | None:
        """The row that becomes ready first."""
        while self._later:
            due, seq, task_id = self._later[0]
            row = self._rows.get(task_id)
            if row is not None and row.due == due and row.task.seq == seq:
                return row
            heappop(self._later)
        return None

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """See `Storage.revoke`."""
        with self._mutex:
            self._revocations[target] = revocation
            self._look_again(target, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """See `Storage.restore`."""
        with self._mutex:
            if self._revocations.pop(target, None) is None:
                return False
            self._look_again(target, now)
            row = None if target.function else self._rows.get(target.key)
            return row is None or row.task.state != REVOKED  # that cannot be taken back

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """See `Storage.revocation`."""
        with self._mutex:
            return self._revocations.get(target)

    def _look_again(self, target: RevocationTarget, now: float) -> None:
        row = None if target.function else self._rows.get(target.key)
        if row is not None and row.task.state in WAITING and row.task.lease is None:
            self._let_go(row, now)

    def lock(self, lock: Lock, now: float) -> bool:
        """See `Storage.lock`."""
        with self._mutex:
            held = self._locks.get(lock.name)
            if held is not None and held.until > now:
                return False
            self._locks[lock.name] = lock
            return True

    def unlock(self, name: str, owner: str) -> bool:
        """See `Storage.unlock`."""
        with self._mutex:
            held = self._locks.get(name)
            if held is None or held.owner != owner:
                return False
            del self._locks[name]
            return True

    def locks(self, now: float) -> list[Lock]:
        """See `Storage.locks`."""
        with self._mutex:
            return sorted(lock for lock in self._locks.values() if lock.until > now)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """See `Storage.flush_locks`."""
        with self._mutex:
            gone = [name for name in self._locks if names is None or name in names]
            for name in gone:
                del self._locks[name]
            return len(gone)

    # Look-ups ------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """See `Storage.get`."""
        with self._mutex:
            row = self._rows.get(task_id)
            return copy(row.task) if row is not None else None

    def history(self, task_id: str) -> list[Record] | None:
        """See `Storage.history`."""
        with self._mutex:
            row = self._rows.get(task_id)
        return read_history(row.history) if row is not None else None

    def status(self, task_id: str) -> TaskStatus | None:
        """See `Storage.status`."""
        with self._mutex:
            row = self._rows.get(task_id)
            return TaskStatus(cast(str, row.task.state), row.result) if row is not None else None

    def counts(self) -> dict[str, int]:
        """See `Storage.counts`."""
        with self._mutex:
            counts: dict[str, int] = {}
            for row in self._rows.values():
                state = cast(str, row.task.state)
                counts[state] = counts.get(state, 0) + 1
            return counts

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """See `Storage.tasks`."""
        with self._mutex:
            found: list[Task] = []
            for row in reversed(self._rows.values()):  # the order of insertion is that of seq
                if len(found) == limit:
                    break
                if (states is None or row.task.state in states) and (
                    before is None or cast(int, row.task.seq) < before
                ):
                    found.append(copy(row.task))
            return found

    def next_due(self) -> float | None:
        """See `Storage.next_due`."""
        with self._mutex:
            if self._foremost() is not None:
                return float("-inf")
            earliest = self._earliest()
            moments = [cast(float, row.task.lease) for row in self._held.values() if row.task.state in WAITING]
            if earliest is not None:
                moments.append(cast(float, earliest.due))
            return min(moments, default=None)

    # Keeping house -------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """See `Storage.prune`."""
        with self._mutex:
            ended = sorted(
                (row.ended, row.task.seq, row.task.id) for row in self._rows.values() if row.ended is not None
            )
            gone = [task_id for moment, _, task_id in ended if moment < before][:limit]
            for task_id in gone:
                del self._rows[task_id]
                self._revocations.pop(RevocationTarget(function=False, key=task_id), None)
            return len(gone)

    def flush(self) -> None:
        """See `Storage.flush`."""
        with self._mutex:
            self._empty()
            for channel in Channel:
                self._notify(channel)

    def generation(self, channel: Channel) -> int:
        """See `Storage.generation`."""
        return self._generations[channel]

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """See `Storage.wait`."""
        with self._changed:
            self._waiting += 1
            try:
                return self._changed.wait_for(lambda: self._generations[channel] != generation, timeout)
            finally:
                self._waiting -= 1

    def wake(self) -> None:
        """See `Storage.wake`."""
        with self._mutex:
            for channel in Channel:
                self._notify(channel)

    def clock(self) -> None:
        """See `Storage.clock`."""

    def close(self) -> None:
        """See `Storage.close`. There is nothing to let go of but those who wait."""
        if not isinstance(self._mutex, _Shut):
            self.wake()
            self._mutex = self._changed = cast(Any, _Shut())

    def _notify(self, channel: Channel) -> None:
        self._generations[channel] += 1
        if self._waiting:  # a worker that is at work need not be told
            self._changed.notify_all()


class _Shut:
    """In the place of a closed store's mutex, that every call takes first."""

    def __enter__(self) -> None:
        raise StorageError("the queue was closed")

    def __exit__(self, *args: object) -> None: ...
