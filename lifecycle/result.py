"""The result handle of a task: reads the outcome, any number of times, and changes the task."""

import logging
from datetime import datetime, timedelta
from typing import Generic, TypeVar, cast

import attrs

from lifecycle.clock import monotonic
from lifecycle.core.policies import AT_REST, Revocation
from lifecycle.core.table import COMPLETED, LIFECYCLE, LOCKED, QUEUED, RATE_LIMITED, Kind
from lifecycle.core.task import Record, Task, new_id
from lifecycle.errors import ConfigurationError, ResultTimeout, TaskException
from lifecycle.escaping import printable
from lifecycle.execution.attempt import current_task
from lifecycle.execution.engine import Engine, unknown_task
from lifecycle.execution.inputs import end_metadata
from lifecycle.execution.interruption import shielded
from lifecycle.execution.stored_result import unpack, unpack_error
from lifecycle.storage.base import Channel, RevocationTarget, TaskStatus
from lifecycle.validation import delay_seconds, due_at, flag, moment, refusal, split_expiry

__all__ = ["Result", "new_revocation"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

POLL_INTERVAL_SECONDS = 5.0
"""Longest wait for a notification of the store before a waiting caller reads the outcome anyway."""

UNSTARTED_SECONDS = 1.0
"""A task that waits so long for another task looks whether a worker has started it."""

log = logging.getLogger("lifecycle")

_POSTPONED = frozenset((LOCKED.name, RATE_LIMITED.name))
"""Ends of attempts that are no failure of the task while another attempt is to come: the function could not run yet."""

_FINAL = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.FINAL))


class Result(Generic[R]):
    """A handle on one task, by its id. Any process that shares the store can make one: `TaskQueue.handle`."""

    def __init__(self, engine: Engine, task_id: str) -> None:
        """`task_id`: the task need not be enqueued yet."""
        self._engine = engine
        self.id = task_id
        self._returned_attempt = 0
        """Number of the attempt whose outcome `get` has returned, or raised, last."""
        self._reset_attempt = 0
        """Number of the attempt up to which `get` ignores outcomes: see `reset`."""

    def get(self, blocking: bool = False, timeout: float | timedelta | None = None) -> R | None:
        """Return the value that the function returned, or ``None`` if there is no outcome yet.

        Raises `TaskException` if the task did not complete (also if a retry follows, unless the attempt was `locked` or
        `rate-limited`, or the queue has ``intermediate_errors=False``), `ResultTimeout`, `Undecodable` if the stored
        value cannot be read, and `UnknownTask` if the task is not in the store, or not any more.

        :param blocking: wait for the outcome.
        :param timeout: the longest wait, in seconds or a timedelta; implies `blocking`.
        """
        engine = self._engine
        flag(blocking, "blocking", hint="give the longest wait by its name, get(timeout=…)")
        longest = None if timeout is None else delay_seconds(timeout, "get(timeout)")
        deadline = None if longest is None else monotonic() + longest
        waits = blocking or longest is not None
        look_at = monotonic() + UNSTARTED_SECONDS if waits and current_task.get() is not None else None
        while True:
            generation = engine.storage.generation(Channel.OUTCOME)
            has_outcome, value = self._read_outcome(waits)
            if has_outcome:
                return value
            if not waits:
                return None
            remaining = POLL_INTERVAL_SECONDS if deadline is None else deadline - monotonic()
            if longest is not None and remaining <= 0:
                raise ResultTimeout(
                    f"task {self.id} has no outcome after {longest:g} s: its state is {self.state}, in "
                    f"{engine.environment.storage.location}; call get() again to wait longer"
                )
            wait_seconds = min(remaining, POLL_INTERVAL_SECONDS)
            if look_at is not None:
                if monotonic() >= look_at:
                    look_at = None
                    self._warn_if_unstarted()
                else:
                    wait_seconds = min(wait_seconds, UNSTARTED_SECONDS)
            if not engine.storage.wait(Channel.OUTCOME, generation, wait_seconds) and deadline is not None:
                deadline = min(deadline, monotonic() + remaining - wait_seconds)  # a frozen clock must not stop us

    def _warn_if_unstarted(self) -> None:
        """Log, once for each function, that a task waits for a task which no worker has started."""
        engine, waiting = self._engine, current_task.get()
        if waiting is not None and waiting.name not in engine.known_to_wait and self.state == QUEUED:
            engine.known_to_wait.add(waiting.name)
            log.warning(
                "a task waits for a task that no worker has started yet: function=%s task=%s awaited=%s; a task that "
                "waits keeps its worker, and if all workers wait, none is left to run the other tasks: start more "
                "workers, or let the awaited task enqueue the work that follows",
                printable(waiting.name), printable(waiting.id), printable(self.id),
            )  # fmt: skip

    def __call__(self, blocking: bool = False, timeout: float | timedelta | None = None) -> R | None:
        """Return the value: the same as `get`."""
        return self.get(blocking, timeout)

    def _read_outcome(self, waits: bool) -> tuple[bool, R | None]:
        """Return whether there is an outcome to return, and its value. Raises the errors of `get`.

        `waits`: the caller waits for an outcome: raises `ResultTimeout` if none can come.
        """
        engine = self._engine
        state, packed = self._status()
        stored = None if packed is None else unpack(packed)
        is_new = stored is not None and stored.attempt > self._reset_attempt
        if stored is not None and is_new and (stored.ok or state in AT_REST or engine.intermediate_errors):
            if stored.ok:
                self._returned_attempt = stored.attempt
                return True, cast(R, engine.serializer.loads(stored.data))
            metadata = unpack_error(stored.data)
            if state not in AT_REST and metadata.get("state") in _POSTPONED:
                return False, None
            self._returned_attempt = stored.attempt
            raise TaskException(metadata)
        if state in AT_REST and state != COMPLETED and not is_new:
            # The task came to rest without a stored outcome: revoked, expired, skipped, or interrupted too often.
            task = engine.get(self.id)
            if state in _FINAL or task.attempt > self._reset_attempt:
                self._returned_attempt = task.attempt
                raise TaskException(end_metadata(engine, task))
        if waits and state == COMPLETED and not is_new:
            raise ResultTimeout(f"task {self.id} is {state}, and that is final: after reset() no outcome can come")
        return False, None

    def _status(self) -> TaskStatus:
        status = self._engine.storage.status(self.id)
        if status is None:
            raise unknown_task(self.id)
        return status

    def reset(self) -> None:
        """Make `get` ignore the outcome that it returned or raised last, and wait for a later attempt's outcome.

        Only for this handle: nothing changes in the store.
        """
        self._reset_attempt = self._returned_attempt

    @property
    def state(self) -> str:
        """The name of the task's state now. Raises `UnknownTask`."""
        return self._status().state

    @property
    def task(self) -> Task:
        """A copy of the task as it is now. Raises `UnknownTask`."""
        return self._engine.get(self.id)

    def history(self) -> list[Record]:
        """Return the states that the task has entered, oldest first. Raises `UnknownTask`."""
        history = self._engine.storage.history(self.id)
        if history is None:
            raise unknown_task(self.id)
        return history

    def cancel(self) -> None:
        """Cancel the task, in a waiting or running state: see `TaskQueue.cancel`."""
        self._engine.cancel(self.id)

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Revoke the task, so that it does not start any more: see `TaskQueue.revoke_by_id`."""
        revocation = new_revocation(self._engine, revoke_until, revoke_once)
        self._engine.revoke(RevocationTarget(function=False, key=self.id), revocation)

    def restore(self) -> bool:
        """Take back a revocation; return False if there is none, or if the task is in the final state `revoked`."""
        return self._engine.restore(RevocationTarget(function=False, key=self.id))

    def is_revoked(self) -> bool:
        """Return whether the task is in the state `revoked`, or would be revoked at its turn.

        A revocation of the task or of its function counts. A task that runs, or rests in an outcome, has a turn if it
        is retried. True also for a revoked id that is not enqueued yet.
        """
        return self._engine.is_revoked(RevocationTarget(function=False, key=self.id))

    @shielded
    def reschedule(
        self,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        priority: int | None = None,
        *,
        expires: datetime | timedelta | float | None = None,
    ) -> "Result[R]":
        """Revoke the task, enqueue a copy with a new id for another time, and return the copy's handle.

        With neither `eta` nor `delay` the copy is due at once. A running attempt of the task goes on. The copy has all
        retries of its function, and an expiry that counts from when the copy is due; an expiry that is a fixed moment
        stays.

        Raises `UnknownTask`, `ConfigurationError` for `eta` together with `delay` and for a step of a workflow, and
        `StorageError`.

        :param eta: the earliest start; a naive datetime means local time.
        :param delay: time from now to the earliest start, in seconds or a timedelta.
        :param priority: default: the task's priority.
        :param expires: a datetime, or the time from the moment when the copy is due; default: the task's expiry.
        """
        engine, now, where = self._engine, self._engine.clock.now(), f"task {self.id}"
        if eta is not None and delay is not None:
            raise ConfigurationError(f"{where}: give eta or delay, not both")
        due = None if eta is None else moment(eta, "eta", where)
        if delay is not None:
            due = now + delay_seconds(delay, "delay", where)
        task = engine.get(self.id)
        if task.step is not None:
            raise ConfigurationError(f"{where}: a step of a workflow has its turn there: enqueue a new workflow")
        at, after = task.expires, task.retry.expires_after
        if expires is not None:
            at, after = split_expiry(expires, "expires", where)
        function = engine.functions.get(task.name)
        copy = attrs.evolve(
            task, id=new_id(now), state=None, attempt=0, interruptions=0, worker=None, version=0, lease=None, seq=None,
            canceling=False, enqueued_at=None, local=None, place=None,
            eta=due,
            expires=at if after is None else None,
            retry=task.retry if after == task.retry.expires_after else attrs.evolve(task.retry, expires_after=after),
            priority=task.priority if priority is None else priority,
            retries=max(task.retries, 0 if function is None else function.retries),
            call=task.call,
        )  # fmt: skip
        engine.enqueue([copy])  # first: if the call fails, the task is not revoked
        self.revoke()
        return Result(engine, copy.id)

    def __repr__(self) -> str:
        return f"<Result of task {printable(self.id)}>"


def new_revocation(engine: Engine, until: datetime | float | timedelta | None, once: bool) -> Revocation:
    """Return a revocation with checked options, those of `TaskQueue.revoke_by_id`."""
    if isinstance(until, bool):
        raise refusal(until, "revoke_until", None, "is no moment: did you mean revoke_once=True?")
    return Revocation(due_at(until, engine.clock.now(), "revoke_until"), flag(once, "revoke_once"))
