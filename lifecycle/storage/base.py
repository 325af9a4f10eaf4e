"""The storage protocol: what every adapter must do, and what it may rely on.

An adapter makes moves durable, or refuses them; it has no rules of its own. What may happen is decided by the pure
functions of `lifecycle.core.policies`, with the adapter's rows as their arguments, inside the adapter's transaction. Each
operation is atomic: it happens whole, or not at all, whatever dies meanwhile. One adapter object serves one queue of a
store, any number of threads at once, and any number of other processes may use the same store.

**Holding.** A row is *held* while it has a lease. A running task is held by its worker. A waiting task may be held too,
for as long as it takes to announce how it came there: until `release`, or the lease's end, no claim looks at it, and so
no later signal can overtake those.

**Fencing.** Every committed transition adds one to the row's version. `exchange` and `release` take the task as their
caller knows it, and do nothing unless the row's fence (`Task.fence`: id, seq, version, state and worker) is the same.

**Before and after.** A store changes no object of its caller, but gives new tasks their `seq`. A claim carries the task
as it was before its move; `Move.apply` and `Move.enter` bring a task to what stands in its row after the move.

**Calling off.** What somebody wishes of a running task is noted in its row (`Task.canceling`), for its worker to see.
It is no transition: the version stays, and so the worker's own outcome is accepted whatever was wished. A move that
brings the task to rest clears the note in the same write; any other keeps it, whatever its caller's copy of the task
says, so that a task that was interrupted or is retried is still to be called off.
"""

from collections.abc import Collection, Sequence
from copy import copy
from enum import StrEnum
from typing import NamedTuple, Protocol

from lifecycle.clock import Clock
from lifecycle.core.policies import Move, Revocation
from lifecycle.core.task import Record, Task

__all__ = [
    "Actor",
    "Channel",
    "Claim",
    "ClaimRequest",
    "Lock",
    "RevocationTarget",
    "Settlement",
    "Storage",
    "TaskStatus",
]


class Channel(StrEnum):
    """What one can wait for."""

    WORK = "work"
    """There may be something to claim, or the moment when there will be has changed."""
    OUTCOME = "outcome"
    """An attempt has ended."""


class Actor(NamedTuple):
    """Who makes a transition."""

    worker: str
    hold_until: float | None = None
    """Until when to hold what is left waiting, to announce it first (UTC seconds); ``None``: do not."""


class Claim(NamedTuple):
    """What a claim (or a recovery) did to one task."""

    task: Task
    """The task before the move."""
    move: Move

    def after(self) -> Task:
        """Return a copy of the task after the move."""
        task = copy(self.task)
        self.move.apply(task)
        return task


class ClaimRequest(NamedTuple):
    """Who wants work."""

    worker: str
    now: float
    """UTC seconds."""
    lease: float
    """Seconds that a started task is held for."""
    hold_scheduled: bool = False
    """Hold a task that was scheduled, too, until it is released."""
    limit: int = 1
    """How many tasks to take at the most."""
    batchable: Collection[str] | None = None
    """The functions whose tasks may be started together; ``None``: those of all."""


class Settlement(NamedTuple):
    """What a worker has to say about a task that it holds."""

    task: Task
    """The task before the move, as the worker knows it: its fence is compared with the store's."""
    move: Move


class RevocationTarget(NamedTuple):
    """What a revocation is about: one task by its id, or all tasks of a function by its name."""

    function: bool
    key: str


class Lock(NamedTuple):
    """A lock as it is asked for."""

    name: str
    owner: str
    """Only whoever knows it can unlock."""
    until: float
    """UTC seconds; then it is free, whether or not it was given back."""
    worker: str | None = None
    """Whose heartbeat (`extend`) keeps it; ``None``: nobody's, `until` is its end."""
    task: str | None = None
    """The id of the task in whose attempt it was taken: freed when that attempt is interrupted."""


class TaskStatus(NamedTuple):
    """What a result handle sees of a task."""

    state: str
    result: bytes | None
    """Of the last attempt that left one."""


class Storage(Protocol):
    """A store of tasks. All moments are UTC seconds, as told by the caller; an adapter reads no clock."""

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Write new tasks, all or none, in this order; return the first move of each, and set its `seq`.

        Raises `DuplicateTask` if an id is taken, `StorageFull`, `StorageUnavailable`; then nothing was written.
        """
        ...

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Settle what is done and claim what is next, in one transaction: a busy worker's only call.

        An operator's retry of a task at rest is a settlement like any other.

        For each settlement: whether it took. It does not if the task is gone, or has moved since the caller read it;
        then it changes nothing, and the others are not affected. Moves and follow-ups are committed with their history.

        Claims: of the waiting tasks that nobody holds, those whose time has come (`visibility`) are looked at by rank,
        then age; `admit` says what happens to each; at the most `limit` of them move. The claim ends with the start of
        a task whose function is not in `batchable`, or before it, if another was started. At most `PROMOTE_LIMIT` scheduled tasks
        become due in one call, the earliest first. A one-time revocation that stopped a task is spent with it.
        """
        ...

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Stop holding waiting tasks. For each: whether it was still held; else it is somebody else's by now."""
        ...

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong all that these workers hold, tasks and locks; versions are not touched. Returns how many tasks."""
        ...

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """Deal with leases that lapsed: `policies.recover` for what ran, `release` for what waited.

        Returns the moves made (a released task makes none), at most `limit` in a call. Frees the locks that were taken
        in the attempts (as any move that `frees_locks` does).
        """
        ...

    def cancel(self, task_id: str) -> bool:
        """Note that a task is to be called off (`Task.canceling`), if it is executing now; else False.

        False: nothing was written. True also if that was noted before. It changes nothing else: see *Calling off*.
        """
        ...

    def canceling(self, workers: Collection[str]) -> list[str]:
        """The ids of the tasks that these workers run and that are to be called off, in any order.

        A consumer asks this twice a second: it costs next to nothing while there are none.
        """
        ...

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Remember that `target` shall not run. A task that waits is dealt with by the next claim."""
        ...

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Forget that `target` shall not run. False if it was not revoked, or is already `revoked` for good."""
        ...

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """What was said about `target`, if anything and if it is not spent."""
        ...

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock; False if somebody else has it at `now`."""
        ...

    def unlock(self, name: str, owner: str) -> bool:
        """Give a lock back; False if it was not the owner's any more."""
        ...

    def locks(self, now: float) -> list[Lock]:
        """The locks that are taken at `now`, by name."""
        ...

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks, whoever has them; all if no names are given. Returns how many were there."""
        ...

    def get(self, task_id: str) -> Task | None:
        """A copy of the task as it is now."""
        ...

    def history(self, task_id: str) -> list[Record] | None:
        """The states it entered, oldest first; ``None`` if there is no such task."""
        ...

    def status(self, task_id: str) -> TaskStatus | None:
        """State and result, read together; ``None`` if there is no such task. Destroys nothing."""
        ...

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state; states without any are left out."""
        ...

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """Tasks, the newest first, at most `limit`; `before`: only those with a smaller `seq` (the next page)."""
        ...

    def next_due(self) -> float | None:
        """The moment from which a claim may find something: ``-inf`` if it may now, ``None`` if nothing waits.

        Counts tasks that are held as due when their hold ends.
        """
        ...

    def prune(self, before: float, limit: int = 1000) -> int:
        """Delete up to `limit` tasks that came to rest before that moment, oldest first. Returns how many."""
        ...

    def flush(self) -> None:
        """Empty this queue: tasks, revocations and locks."""
        ...

    def generation(self, channel: Channel) -> int:
        """How far the store has come; for `wait`."""
        ...

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block until something happened since `generation` was taken, in any process, or `timeout` seconds are over.

        True if something happened. It may return early; look again.
        """
        ...

    def wake(self) -> None:
        """Make all that wait in this process look again."""
        ...

    def clock(self) -> Clock | None:
        """The clock that all who share the store go by; ``None``: this host's, since no other host sees it."""
        ...

    def close(self) -> None:
        """Let go of connections and threads. What was committed stays; any later call raises `StorageError`."""
        ...


PROMOTE_LIMIT = 1000
"""How many scheduled tasks one claim makes ready at the most: a crowd that is due at once stalls no worker."""
