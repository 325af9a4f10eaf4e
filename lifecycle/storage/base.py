"""The storage protocol: the contract between lifecycle and a storage adapter. Adapter authors read this file.

**Rules and durability.** An adapter commits moves, or refuses them. The adapter makes no decisions of its own: the pure
functions of `lifecycle.core.policies` decide, with the adapter's rows as arguments, inside the adapter's transaction.
`lifecycle.storage.claims` has the claim algorithm for adapters that decide in Python.

**Atomicity.** Each call happens completely or not at all, even if the process or the store dies during the call.

**Sharing.** One adapter object serves one queue of a store. Any number of threads may use the object at once, and any
number of processes may use the same store.

**Time.** All moments are UTC seconds and come from the caller. An adapter reads no clock.

**Holding.** A task is *held* while its row has a lease, that is, an end of the hold (`Task.lease`). A running task is
held by its worker. A waiting task is held while its latest transitions are announced: no claim considers the task until
`release`, or until the lease ends, so that no later signal overtakes an earlier one.

**Fencing.** Each committed transition increases the row's version by 1. `exchange` and `release` take a task as the
caller knows it. They accept the task only if its fence (`Task.fence`: id, seq, version, state and worker) equals the
row's fence, and change nothing otherwise.

**Before and after.** A store changes no object of the caller, except the `seq` of a new task. A claim carries the task
before the move. `Move.apply` gives a task the fields that its row has after the move.

**Cancellation.** A request to cancel a running task is stored in the task's row (`Task.canceling`), for the task's
worker. The request is no transition: the version stays the same, and the store accepts the worker's outcome, whatever
the outcome is. A move to a resting state deletes the request in the same commit. Any other move keeps the request in
the row, even if the caller's copy of the task has none: a task that is requeued or retried is still to be canceled.

**Waiting for others.** A new task whose `Task.step` awaits others is stored `pending`, with the number of ends that it
awaits. The commit of any move that brings a task to rest (of a settlement, a claim or a recovery) also makes the
reports of `lifecycle.core.step.reports` to the tasks that wait. For each report, in the order of the moves: nothing
happens if the waiting task has its verdict. A report of a completed task counts the missing ends down; at the last one,
and at a report of any other end, the store stores the verdict of `lifecycle.core.step.decided` with the waiting task,
if that is still `pending`. A verdict is no transition: the version stays the same. From then on, the waiting task has
the rank of `policies.visibility`, or has it once the hold has ended. Tasks that are claimed later in the same call may
be among them: see `ClaimDecisions.reports`.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

from lifecycle.clock import Clock
from lifecycle.core.policies import MAX_INTERRUPTIONS, Move, Revocation
from lifecycle.core.task import Record, Task

__all__ = [
    "NO_LIMITS",
    "PROMOTE_LIMIT",
    "Actor",
    "Channel",
    "Claim",
    "ClaimRequest",
    "Lock",
    "PeriodicState",
    "RevocationTarget",
    "Settlement",
    "Storage",
    "TaskStatus",
    "Tick",
]

PROMOTE_LIMIT: Final = 1000
"""Largest number of due tasks that one claim gives a rank: many tasks due at once must not stall a worker."""


NO_LIMITS: Final[Mapping[str, int]] = MappingProxyType({})
"""No function has a limit of interruptions of its own."""


class Channel(StrEnum):
    """A kind of change that a caller can wait for."""

    WORK = "work"
    """A claim may find a task, or the time of the next claimable task has changed."""
    OUTCOME = "outcome"
    """An attempt has ended, or a task has come to rest."""


class Actor(NamedTuple):
    """The worker or process that makes a transition."""

    worker: str
    hold_until: float | None = None
    """Tasks that are left waiting are held until this moment (UTC seconds), to be announced; ``None``: not held."""


class Claim(NamedTuple):
    """A move that a claim or a recovery has made."""

    task: Task
    """The task before the move."""
    move: Move

    def after(self) -> Task:
        """Return a copy of the task after the move."""
        task = copy(self.task)
        self.move.apply(task)
        return task


class ClaimRequest(NamedTuple):
    """A worker's request for tasks."""

    worker: str
    now: float
    """UTC seconds."""
    lease: float
    """Length of the lease of a started task, in seconds."""
    hold_scheduled: bool = False
    """True: hold a task that the claim schedules, too, for as long as a started task."""
    limit: int = 1
    """Largest number of moves."""
    batchable: Collection[str] | None = None
    """Functions whose tasks may be started together; ``None``: all functions."""
    skip_names: frozenset[str] = frozenset()
    """Functions that the worker does not know: the claim passes over their tasks. Usually there are none."""


class Settlement(NamedTuple):
    """A move that a caller asks the store to commit: the outcome of an attempt, or an operator's retry."""

    task: Task
    """The task before the move, as the caller knows it: its fence is compared with the row's. Its `step` is that of the
    claim."""
    move: Move


class RevocationTarget(NamedTuple):
    """The target of a revocation: one task, or all tasks of a function."""

    function: bool
    """True if `key` is the name of a function, False if it is the id of a task."""
    key: str


class Lock(NamedTuple):
    """A named lock."""

    name: str
    owner: str
    """Token of the owner: `unlock` needs it."""
    until: float
    """End of the lock (UTC seconds): from then on the lock is free, even if it was not unlocked."""
    worker: str | None = None
    """Worker whose heartbeat (`Storage.extend`) prolongs the lock; ``None``: `until` is final."""
    task: str | None = None
    """Id of the task whose attempt took the lock: freed when that attempt is interrupted or canceled."""


class PeriodicState(NamedTuple):
    """The stored state of a periodic task."""

    name: str
    ticked: float
    """The moment (UTC seconds) up to which ticks have been made."""
    paused: bool
    """True: no ticks are made."""
    task: str | None
    """Id of the task of the latest tick; ``None``: no tick has been made yet."""


class Tick(NamedTuple):
    """A step of a periodic task: all ticks until a moment are made."""

    name: str
    before: float | None
    """The stored `PeriodicState.ticked` as the caller knows it; ``None``: nothing is stored."""
    until: float
    """The new `PeriodicState.ticked`."""


class TaskStatus(NamedTuple):
    """State and result of a task."""

    state: str
    result: bytes | None
    """Result of the last attempt that stored one; ``None``: there is none."""


class Storage(Protocol):
    """A queue in a store.

    Each call raises `StorageUnavailable` if the store cannot be reached, `StorageFull` if there is no room for a write,
    `StorageUnusable` if a person has to correct the store or its URL, `StorageRefused` if the store will never take
    this write, and `StorageError` for any other failure. Unless the error says otherwise, the call has changed nothing.
    After all but `StorageRefused`, a worker repeats the call until the store takes it.
    """

    @property
    def location(self) -> str:
        """The URL of the store without its password and options, for errors and logs."""
        ...

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Write new tasks, all or none, in this order; set the `seq` of each. Return the first move of each.

        Raises `DuplicateTask` if an id is taken.
        """
        ...

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make the ticks of a periodic task, and enqueue their tasks as `enqueue` does, in one transaction.

        Returns ``None``, and changes nothing, if the stored moment is not `tick.before`, since another process has made
        the ticks, or if the periodic task is paused. The last of `tasks` becomes `PeriodicState.task`. There may be
        ticks without a task.
        """
        ...

    def periodic_states(self) -> list[PeriodicState]:
        """Return the stored states of all periodic tasks, by name."""
        ...

    def pause_periodic(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause a periodic task, or resume it; from then on all ticks until `now` count as made.

        Returns False, and changes nothing, if it is paused already, or not paused; without a stored state it is not.
        """
        ...

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Commit settlements, then claim tasks, in one transaction. A busy worker makes no other call.

        Returns, first, for each settlement whether it was accepted. A settlement is refused if the task is gone or its
        fence differs; the other settlements are not affected. An accepted move is committed with its history, its
        result and its follow-ups (a follow-up whose id is taken is left out).

        Returns, second, the claims, at most `limit`; no request, no claims. The claim considers waiting tasks that are
        not held and are due (`policies.visibility`), by rank, then by age; `policies.admit` decides about each. The
        claim ends with the start of a task whose function is not in `batchable`, or before it if another task was
        started. One call gives at most `PROMOTE_LIMIT` due tasks a rank, the earliest first. A one-time revocation ends
        with the first task that it stops. Tasks of `skip_names` are left as they are, unless they have expired or are
        revoked themselves (`claims.is_skipped`); a call that has passed over `PROMOTE_LIMIT` of them may end there, and
        then `next_due` says that there may be more.
        """
        ...

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """End the hold of waiting tasks. Return for each whether the caller still held it; if not, nothing changes."""
        ...

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong the leases of all tasks and locks of these workers; versions stay. Return the number of tasks."""
        ...

    def recover(
        self,
        now: float,
        actor: Actor,
        *,
        max_interruptions: int = MAX_INTERRUPTIONS,
        of_functions: Mapping[str, int] = NO_LIMITS,
        limit: int = 100,
    ) -> list[Claim]:
        """Handle tasks whose leases have ended, at most `limit`: recover running tasks, release waiting tasks.

        `policies.recover` decides about a running task, with the limit in `of_functions` for its function's name, or
        else with `max_interruptions`. Returns the moves; a released task makes no move. Frees the
        locks that the interrupted attempts took (as any move with `frees_locks` does).
        """
        ...

    def cancel(self, task_id: str) -> bool:
        """Store a request to cancel a task, if the task is executing. Return whether it is.

        True also if there was a request before. Nothing else changes: see *Cancellation* above.
        """
        ...

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of the tasks that these workers execute and that are to be canceled, in any order.

        A consumer calls this twice a second: the call must be cheap while there are no requests.
        """
        ...

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Store a revocation. The next claim applies it to a waiting task."""
        ...

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Delete a revocation. Return False if there was none, or if the task is already in the state `revoked`."""
        ...

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return the revocation of `target`; ``None`` if there is none, or if a one-time revocation is spent."""
        ...

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock. Return False if another owner has it at `now`."""
        ...

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock. Return False if the lock is no longer the owner's."""
        ...

    def locks(self, now: float) -> list[Lock]:
        """Return the locks that are taken at `now`, by name."""
        ...

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free these locks, whatever their owner; ``None``: all locks. Return the number of freed locks."""
        ...

    def get(self, task_id: str) -> Task | None:
        """Return a copy of the task as stored; ``None`` if there is no such task."""
        ...

    def history(self, task_id: str) -> list[Record] | None:
        """Return the task's history, oldest first; ``None`` if there is no such task."""
        ...

    def status(self, task_id: str) -> TaskStatus | None:
        """Return state and result, read together; ``None`` if there is no such task. The result stays stored."""
        ...

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return the `status` of many tasks, by id, in one call; an id without a task is left out."""
        ...

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state, without states that have none."""
        ...

    def tasks(
        self,
        states: Collection[str] | None = None,
        limit: int = 100,
        before: int | None = None,
        *,
        name: str | None = None,
        since: float | None = None,
    ) -> list[Task]:
        """Return copies of tasks in these states (``None``: any), the newest first, at most `limit`.

        `before`: only tasks with a smaller `seq`, for the next page. `name`: only tasks of this function. `since`: only
        tasks that were enqueued at this moment (UTC seconds) or later.
        """
        ...

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return the ids of tasks that begin or end with a text, the newest first, at most `limit`.

        May read the ids of all tasks.
        """
        ...

    def next_due(self, skip_names: frozenset[str] = frozenset()) -> float | None:
        """Return the moment from which a claim may find a task: ``-inf`` for now, ``None`` if no task waits.

        ``inf`` if all tasks that wait do so for the ends of others, and none of them expires.
        A waiting task that is held counts as due at the end of its lease. `skip_names`: as in the claim. A task that
        the claim would pass over counts as due when it expires before its first attempt.
        """
        ...

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete up to `limit` tasks that came to rest before this moment, oldest first. Return their number.

        `states`: only tasks that rest in one of these states; ``None``: in any.
        """
        ...

    def flush(self) -> None:
        """Delete all tasks, revocations, locks and states of periodic tasks of this queue."""
        ...

    def generation(self, channel: Channel) -> int:
        """Return a number that grows with each change of the channel: an argument of `wait`."""
        ...

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block until the channel has changed since `generation`, in any process, at most `timeout` seconds.

        Returns whether the channel has changed. A wait may end early, without a change: callers look again.
        """
        ...

    def wake(self) -> None:
        """End all waits in this process."""
        ...

    def clock(self) -> Clock | None:
        """Return the clock of all processes that share the store; ``None``: this host's, as only this host sees it."""
        ...

    def close(self) -> None:
        """Close connections, end threads and waits; committed data stays. Later calls raise `StorageError`.

        `generation`, `wake` and `close` itself may still be called.
        """
        ...
