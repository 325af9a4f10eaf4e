"""`TaskQueue`: the queue object of a program, with which tasks are declared, enqueued, run, looked up and cancelled."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from lifecycle.clock import Clock, RemoteClock, SystemClock
from lifecycle.core.policies import MAX_INTERRUPTIONS, WAITING, resting_states
from lifecycle.core.serializer import MsgpackSerializer, Serializer
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Record, Task
from lifecycle.enqueueing import Enqueueing
from lifecycle.errors import TaskException
from lifecycle.execution import external_transaction
from lifecycle.execution.by_hand import claim_task
from lifecycle.execution.engine import Engine
from lifecycle.execution.environment import Environment
from lifecycle.execution.interruption import shielded
from lifecycle.execution.stored_result import read_error
from lifecycle.execution.ticks import Ticker
from lifecycle.execution.worker import Worker
from lifecycle.function import TaskFunction
from lifecycle.hints import refuses_unknown_options
from lifecycle.locks import RESERVED, TaskLock
from lifecycle.periodic import PeriodicTasks
from lifecycle.result import Result, new_revocation
from lifecycle.storage import open_storage
from lifecycle.storage.base import RevocationTarget, Storage
from lifecycle.validation import duration, flag, instance, positive_duration, refusal, text, utc_seconds, whole_number

__all__ = ["TaskQueue"]

When = datetime | timedelta | float
"""A moment: a datetime, or a timedelta or seconds from now."""

URL_VARIABLE = "LIFECYCLE_URL"
DEFAULT_URL = "sqlite:///lifecycle.db"


class TaskQueue(Enqueueing, PeriodicTasks):
    """A named queue of tasks in a store. Any number of threads and processes may use one store at the same time."""

    @refuses_unknown_options
    def __init__(
        self,
        url: str | os.PathLike[str] | None = None,
        *,
        name: str = "default",
        immediate: bool = False,
        serializer: Serializer | None = None,
        lease: float | timedelta = 30.0,
        retention: float | timedelta | None = 86_400.0,
        clock: Clock | None = None,
        max_interruptions: int = MAX_INTERRUPTIONS,
        max_bytes: int = 64 * 2**20,
        intermediate_errors: bool = True,
    ) -> None:
        """Create a queue object for the store at a URL; the store is opened, and created if new, at its first use.

        Raises `ConfigurationError` for an invalid option. Durations are seconds or a timedelta.

        :param url: ``sqlite:///file.db``, ``memory://``, ``postgresql://…`` or ``redis://…``; default: the
            environment variable ``LIFECYCLE_URL``, else ``sqlite:///lifecycle.db``. A `pathlib.Path` is a SQLite file.
        :param name: separates queues that share a store.
        :param immediate: run due tasks at each enqueue, in the calling thread, with the same states and signals; a
            scheduled task runs at the first enqueue after its ETA. The default store is then ``memory://``. The mode
            can be switched later, by the attribute `immediate`.
        :param serializer: encodes arguments and results; default: `MsgpackSerializer`.
        :param lease: time without a heartbeat after which a worker's tasks count as interrupted and are requeued.
        :param retention: time for which a task at rest is kept, with its result and history; ``None``: forever.
        :param clock: source of the time, for example a `VirtualClock` in tests; default: the store's server, or this
            host for a store without a server.
        :param max_interruptions: a task whose worker dies more often than that is not requeued and rests `interrupted`,
            since the task itself may kill its workers; a function may have a limit of its own: see `task`.
        :param max_bytes: largest size of a task's serialized arguments, and of its serialized result; the default is
            64 MiB, which each store takes. An enqueue with larger arguments raises `StorageRefused`; a task with a
            larger result ends in `error`, and is not retried.
        :param intermediate_errors: `Result.get` raises the error of an attempt also if a retry follows.
        """
        flag(immediate, "immediate")
        if url is None:
            url = "memory://" if immediate else os.environ.get(URL_VARIABLE) or DEFAULT_URL
        self.name = text(name, "name")
        for part, option, methods in ((serializer, "serializer", ("dumps", "loads")), (clock, "clock", ("now",))):
            if part is not None and not all(callable(getattr(part, method, None)) for method in methods):
                raise refusal(part, option, None, f"must have the methods {' and '.join(methods)}")
        self.retention = None if retention is None else duration(retention, "retention")
        storage = open_storage(url, self.name)
        self._engine = Engine(
            Environment(storage, clock or storage.clock() or SystemClock()),
            serializer or MsgpackSerializer(),
            lease=positive_duration(lease, "lease"),
            max_interruptions=whole_number(max_interruptions, "max_interruptions"),
            max_bytes=whole_number(max_bytes, "max_bytes", at_least=1, at_most=2**62),
            intermediate_errors=flag(intermediate_errors, "intermediate_errors"),
            name=self.name,
        )
        self._ticker = Ticker(self._engine)
        self.immediate = self._immediate_at_first = immediate
        self._thread_local = threading.local()

    @property
    def immediate(self) -> bool:
        """True if each enqueue runs the due tasks in the calling thread.

        The attribute can be set at any time, and counts from the next enqueue on. The queue's store stays: tasks that
        others have enqueued there run as well. Raises `ConfigurationError` for a value that is no bool.
        """
        return self._engine.after_enqueue is not None

    @immediate.setter
    def immediate(self, value: bool) -> None:
        self._engine.after_enqueue = self._run_due_tasks if flag(value, "immediate") else None

    @immediate.deleter
    def immediate(self) -> None:
        """Go back to the mode that the queue was made with, as `mock.patch.object` does at its end."""
        self.immediate = self._immediate_at_first

    # Enqueueing and running ----------------------------------------------------------------------------------------

    def transaction(self, connection: object) -> AbstractContextManager[None]:
        """Return a context manager: a transaction on a `psycopg.Connection` in which tasks can be enqueued, too.

        Use: ``with queue.transaction(conn): …; queue.enqueue(task, conn)``. At the end of the block the transaction is
        committed; then the tasks are in the queue and their signals are sent. Raises `ConfigurationError` unless the
        queue is on PostgreSQL.
        """
        return external_transaction.transaction(self._engine, connection)

    @shielded
    def run_next(self, now: datetime | float | None = None) -> Task | None:
        """Claim the next due task and run it in this thread, with all its signals, as a consumer's worker does.

        Returns the task in its new state; also a task that was not run since it is revoked or has expired. Returns
        ``None`` if no task is due: waiting tasks with a later ETA are `scheduled` then. Recovers the tasks of lapsed
        leases first.

        :param now: use this time (a datetime or UTC seconds) instead of the clock's.
        """
        moment = None if now is None else utc_seconds(now, "now")

        def run(worker: Worker) -> Task | None:
            self._engine.recover(moment)
            return worker.run_next(moment)

        return self._in_caller(run)

    @shielded
    def run_task(self, id: str, now: datetime | float | None = None) -> Task | None:  # noqa: A002
        """Claim this task and run it in this thread, with all its signals, whatever tasks wait before it.

        Returns the task in its new state; also a task that was not run since it is revoked or has expired, or
        that is only `scheduled` since its ETA is in the future. Returns ``None`` for a `scheduled` task that is not
        due. Raises `UnknownTask`, and `IllegalTransition` if the task does not wait.

        :param now: use this time (a datetime or UTC seconds) instead of the clock's.
        """
        task_id, moment = text(id, "id"), self._engine.clock.now() if now is None else utc_seconds(now, "now")

        def run(worker: Worker) -> Task | None:
            claim = claim_task(self._engine, worker.name, task_id, moment)
            if claim is None:
                return None
            worker.run_claim(claim, moment)
            return self._engine.get(task_id)

        return self._in_caller(run)

    def _in_caller(self, run: Callable[[Worker], Task | None]) -> Task | None:
        """Call a function with the worker of this thread, and keep the worker's lease meanwhile."""
        worker: Worker | None = getattr(self._thread_local, "worker", None)
        # A new worker after a fork, and for a task that calls run_next itself.
        process_name = self._engine.process_name()
        if worker is None or not worker.is_idle or not worker.name.startswith(process_name):
            worker = Worker(self._engine, f"{process_name}/caller-{next(self._engine.worker_numbers)}")
            self._thread_local.worker = worker
        # No heartbeat with a virtual clock: there a lease ends when the clock says so.
        has_heartbeat = isinstance(self._engine.clock, SystemClock | RemoteClock)
        if has_heartbeat:
            self._engine.heartbeat.keep(worker.name)
        try:
            return run(worker)
        finally:
            worker.runner.close()  # at each call: a caller never says which call is the last
            if has_heartbeat:
                self._engine.heartbeat.drop(worker.name)

    def _run_due_tasks(self) -> None:
        while self.run_next() is not None:
            pass

    # Cancelling and revoking ---------------------------------------------------------------------------------------

    def cancel(self, id: str) -> None:  # noqa: A002
        """Cancel a task, and return without waiting for the effect.

        A waiting task is revoked. In a running task the worker raises `TaskCanceled` within about a second; the task
        then ends `canceled` and is not retried. A task that completes before that stays `complete`.

        Raises `UnknownTask`, or `IllegalTransition` if the task is at rest.
        """
        self._engine.cancel(text(id, "id"))

    def revoke(self, task: Task | Result[object], revoke_until: When | None = None, revoke_once: bool = False) -> None:
        """Revoke a task, given as the task or its handle: see `revoke_by_id`."""
        self.revoke_by_id(_id_of(task), revoke_until, revoke_once)

    def restore(self, task: Task | Result[object]) -> bool:
        """Take back the revocation of a task, given as the task or its handle: see `restore_by_id`."""
        return self.restore_by_id(_id_of(task))

    def revoke_by_id(self, id: str, revoke_until: When | None = None, revoke_once: bool = False) -> None:  # noqa: A002
        """Revoke the task of an id: the task does not start any more. The id need not be enqueued yet.

        A waiting task becomes `revoked` as soon as a worker is free, not only at its ETA. A running attempt goes on,
        but its retry is revoked.

        :param revoke_until: revoke the task only if it would start before this moment.
        :param revoke_once: no effect here, as a task is revoked at most once.
        """
        target = RevocationTarget(function=False, key=text(id, "id"))
        self._engine.revoke(target, new_revocation(self._engine, revoke_until, revoke_once))

    def restore_by_id(self, id: str) -> bool:  # noqa: A002
        """Take back a revocation; return False if there is none, or if the task is in the final state `revoked`."""
        return self._engine.restore(RevocationTarget(function=False, key=text(id, "id")))

    def revoke_all(
        self, function: TaskFunction[..., object], revoke_until: When | None = None, revoke_once: bool = False
    ) -> None:
        """Revoke all tasks of a function, present and future: see `TaskFunction.revoke`."""
        _function(function).revoke(revoke_until, revoke_once)

    def restore_all(self, function: TaskFunction[..., object]) -> bool:
        """Take back the revocation of a function; return False if there is none."""
        return _function(function).restore()

    def is_revoked(self, what: TaskFunction[..., object] | Task | Result[object] | str) -> bool:
        """Return whether a function or a task is revoked now: see `Result.is_revoked`.

        :param what: a function, or a task, its handle or its id.
        """
        if isinstance(what, TaskFunction):
            return what.is_revoked()
        return self.handle(what if isinstance(what, str) else _id_of(what)).is_revoked()

    # Locks ---------------------------------------------------------------------------------------------------------

    @refuses_unknown_options
    def lock_task(self, name: str, ttl: float | timedelta | None = None) -> TaskLock:
        """Return the lock of a name, for use as a decorator below ``@queue.task()`` or as a context manager.

        If the lock is held already, both raise `TaskLockedException`; inside a task this ends the attempt `locked`.

        :param ttl: time after which the lock is free, even if it is still held; default: free when its holder ends.
        """
        if callable(name):
            raise refusal(name, "name", None, 'needs the name of the lock: write @queue.lock_task("name")')
        name = text(name, "name")
        if name.startswith(RESERVED):
            raise refusal(name, "name", None, "must not begin with U+001F: such names are the library's own")
        return TaskLock(self._engine, name, None if ttl is None else positive_duration(ttl, "ttl"))

    def is_locked(self, name: str) -> bool:
        """Return whether a lock is held now, by any holder."""
        return self.lock_task(name).is_locked()

    def flush_locks(self, *names: str) -> list[str]:
        """Free these locks, or all locks if none is named, whatever their holders; return the names of the freed."""
        names = tuple(text(name, "name") for name in names)
        taken = self._engine.storage.locks(self._engine.clock.now())
        held = {lock.name for lock in taken if not lock.name.startswith(RESERVED)}
        freed = sorted(held & set(names)) if names else sorted(held)
        self._engine.storage.flush_locks(freed)
        return freed

    # Results and inspection ----------------------------------------------------------------------------------------

    def result(self, id: str, blocking: bool = False, timeout: float | timedelta | None = None) -> object:  # noqa: A002
        """Return the value of the task of an id: the same as ``queue.handle(id).get(blocking, timeout)``."""
        return self.handle(id).get(blocking, timeout)

    def handle(self, id: str) -> Result[object]:  # noqa: A002
        """Return the handle of the task of an id, without asking the store whether the task exists."""
        return Result(self._engine, text(id, "id"))

    def get(self, id: str) -> Task:  # noqa: A002
        """Return a copy of a task as it is now. Raises `UnknownTask`."""
        return self._engine.get(text(id, "id"))

    def history(self, id: str) -> list[Record]:  # noqa: A002
        """Return the states that a task has entered, oldest first. Raises `UnknownTask`."""
        return self.handle(id).history()

    def errors(self, ids: Iterable[str]) -> dict[str, TaskException]:
        """Return the last error of each of these tasks, by id; a task without one is left out, and so is an unknown id.

        An error stays until a later attempt stores another outcome: also while the task waits for its retry.
        """
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise refusal(ids, "ids", None, "must be an iterable of ids")
        found, unique_ids = {}, list(dict.fromkeys(text(task_id, "id") for task_id in ids))
        for task_id, status in self._engine.storage.statuses(unique_ids).items():
            metadata = read_error(task_id, status.state, status.result)
            if metadata is not None:
                found[task_id] = TaskException(metadata)
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state, 0 included, in the table's order; passing states are left out."""
        counts = self._engine.storage.counts()
        return {state.name: counts.get(state.name, 0) for state in LIFECYCLE.states if state.kind is not Kind.PASSING}

    def tasks(
        self,
        state: str | Collection[str] | None = None,
        limit: int = 100,
        before: Task | None = None,
        *,
        name: str | None = None,
        since: datetime | float | None = None,
    ) -> list[Task]:
        """Return copies of tasks, newest first. Raises `ConfigurationError` for a state that does not exist.

        :param state: the name of a state, or several names; default: tasks in any state.
        :param limit: the largest number of tasks to return.
        :param before: return older tasks than this one: the last task of the page before.
        :param name: return only tasks of the function of this name.
        :param since: return only tasks that were enqueued at this moment (a datetime or UTC seconds) or later.
        """
        states = None if state is None else [LIFECYCLE.state(name).name for name in _names(state, "state")]
        whole_number(limit, "limit", at_most=2**53)
        before_seq = None if before is None else instance(before, Task, "before", "must be a task from the store").seq
        if before is not None and before_seq is None:
            raise refusal(before, "before", None, "must be a task from the store: this one was not enqueued")
        found = self._engine.storage.tasks(
            states,
            limit,
            before_seq,
            name=None if name is None else text(name, "name"),
            since=None if since is None else utc_seconds(since, "since"),
        )
        return [self._engine.attach_serializer(task) for task in found]

    def unknown_functions(self, limit: int = 10_000) -> dict[str, int]:
        """Return the functions that waiting tasks need and this program has not declared: name → number of tasks.

        Such tasks wait until a consumer that knows their function claims them: the consumers of the next version, say.

        :param limit: how many waiting tasks are looked at, the newest first.
        """
        tasks = self._engine.storage.tasks(WAITING, whole_number(limit, "limit", at_most=2**53))
        unknown = Counter(task.name for task in tasks if task.name not in self._engine.functions)
        return dict(sorted(unknown.items()))

    # Administration ------------------------------------------------------------------------------------------------

    def retry(self, id: str) -> Result[object]:  # noqa: A002
        """Retry a task that rests in an outcome, also if no retry is left, and return its handle.

        Raises `UnknownTask`, or `IllegalTransition` if the task does not rest in an outcome.
        """
        handle = self.handle(id)
        self._engine.retry(handle.id)
        return handle

    def purge(self, older_than: float | timedelta, states: str | Collection[str] | None = None) -> int:
        """Delete tasks that have been at rest for longer, with their results and histories; return their number.

        The tasks are deleted a thousand at a time; after an error a part is deleted. Raises `ConfigurationError` for a
        state in which no task is at rest.

        :param older_than: seconds or a timedelta; 0: all tasks at rest.
        :param states: the name of a state, or several names; default: tasks at rest in any state.
        """
        before = self._engine.clock.now() - duration(older_than, "older_than")
        among = None if states is None else resting_states(_names(states, "states"))
        return sum(self._engine.purge(before, among))

    def flush(self) -> None:
        """Delete everything in this queue: tasks in all states, results, histories, revocations and locks.

        Of periodic tasks the declaration stays, and ticks begin anew.
        """
        self._engine.storage.flush()

    def close(self) -> None:
        """Close the store's connections and end the heartbeat. Tasks stay in the store.

        Later calls that need the store raise `StorageError`.
        """
        self._engine.heartbeat.close()
        self._engine.storage.close()

    @property
    def storage(self) -> Storage:
        """The storage adapter, for code that extends the library."""
        return self._engine.environment.storage

    @property
    def engine(self) -> Engine:
        """The engine, on which consumers are built; not part of the public contract."""
        return self._engine

    def __repr__(self) -> str:
        return f"<TaskQueue {self.name!r} on {self.storage.location}>"


def _id_of(task: Task | Result[object]) -> str:
    if isinstance(task, Task | Result):
        return text(task.id, "id")
    raise refusal(task, "task", None, "must be a task or its handle: revoke_by_id takes an id, revoke_all a function")


def _names(states: str | Collection[str], option: str) -> list[str]:
    """Return the names in an option that takes one name of a state, or several."""
    names = [states] if isinstance(states, str) else states
    instance(names, Collection, option, "must be the name of a state, or a collection of names")
    return [text(name, option) for name in names]


def _function(function: TaskFunction[..., object]) -> TaskFunction[..., object]:
    return instance(function, TaskFunction, "function", "must be a function with the decorator task()")
