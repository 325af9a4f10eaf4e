"""The result handle: what became of a task, read without destroying it."""

from datetime import datetime, timedelta
from typing import Generic, TypeVar, cast

import attrs

from lifecycle.clock import monotonic
from lifecycle.core.policies import AT_REST, Revocation
from lifecycle.core.table import COMPLETED, LIFECYCLE, Kind
from lifecycle.core.task import Record, Task, new_id
from lifecycle.errors import ConfigurationError, ResultTimeout, TaskException, UnknownTask
from lifecycle.execution.engine import Engine
from lifecycle.execution.interruption import shielded
from lifecycle.execution.stored_result import error_metadata, unpack, unpack_error
from lifecycle.moments import due_at, duration, moment, seconds
from lifecycle.storage.base import Channel, RevocationTarget

__all__ = ["Result"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

LOOK_AGAIN = 5.0
"""Seconds after which a waiting caller looks anyway, should the store's news have been lost."""

_FINAL = frozenset(state.name for state in LIFECYCLE.of_kind(Kind.FINAL))


class Result(Generic[R]):
    """A handle on one task, by its id. Cheap to make; any process that shares the store can have one."""

    def __init__(self, engine: Engine, task_id: str) -> None:
        """`task_id`: need not exist yet."""
        self._engine = engine
        self.id = task_id
        self._shown = 0  # the attempt whose outcome this handle has given out
        self._forget = 0  # outcomes up to this attempt are not given out any more

    def get(self, blocking: bool = False, timeout: float | timedelta | None = None) -> R | None:
        """What the function returned; ``None`` if it has not ended yet and `blocking` is false.

        `blocking` waits for the outcome, at most `timeout` seconds; a `timeout` implies it.

        Raises `TaskException` if the task did not complete (also if a retry is still to come, unless the queue has
        ``intermediate_errors=False``), `ResultTimeout`, `Undecodable` if the stored value cannot be read, and
        `UnknownTask` if there is no such task (any more).
        """
        engine = self._engine
        deadline = None if timeout is None else monotonic() + seconds(timeout)
        while True:
            generation = engine.storage.generation(Channel.OUTCOME)
            found, value = self._look()
            if found:
                return value
            if not blocking and deadline is None:
                return None
            left = LOOK_AGAIN if deadline is None else deadline - monotonic()
            if left <= 0:
                raise ResultTimeout(f"task {self.id} has no outcome yet: it is {self.state}")
            engine.storage.wait(Channel.OUTCOME, generation, min(left, LOOK_AGAIN))

    def __call__(self, blocking: bool = False, timeout: float | timedelta | None = None) -> R | None:
        """The same as `get`."""
        return self.get(blocking, timeout)

    def _look(self) -> tuple[bool, R | None]:
        """Is there an outcome that this handle may give out, and its value; raises what `get` does."""
        engine = self._engine
        status = engine.storage.status(self.id)
        if status is None:
            raise UnknownTask(f"no task {self.id} in the store: was it pruned?")
        state, stored = status
        left = None if stored is None else unpack(stored)
        if (
            left is not None
            and left.attempt > self._forget
            and (left.ok or state in AT_REST or engine.intermediate_errors)
        ):
            self._shown = left.attempt
            if left.ok:
                return True, cast(R, engine.serializer.loads(left.body))
            raise TaskException(unpack_error(left.body))
        if state in AT_REST and state != COMPLETED and (left is None or left.attempt <= self._forget):
            # It came to rest without leaving an outcome: revoked, expired, or interrupted once too often.
            task = engine.get(self.id)
            if state in _FINAL or task.attempt > self._forget:
                self._shown = task.attempt
                raise TaskException(error_metadata(task, state, f"the task was not completed: it is {state}"))
        return False, None

    def reset(self) -> None:
        """Forget the outcome that this handle has given out: it waits for the next one, and shows that one no more."""
        self._forget = self._shown

    @property
    def state(self) -> str:
        """The state the task is in now; raises `UnknownTask`."""
        status = self._engine.storage.status(self.id)
        if status is None:
            raise UnknownTask(f"no task {self.id} in the store: was it pruned?")
        return status.state

    @property
    def task(self) -> Task:
        """A copy of the task as it is now; raises `UnknownTask`."""
        return self._engine.get(self.id)

    def history(self) -> list[Record]:
        """The states that the task entered, oldest first; raises `UnknownTask`."""
        history = self._engine.storage.history(self.id)
        if history is None:
            raise UnknownTask(f"no task {self.id} in the store: was it pruned?")
        return history

    def cancel(self) -> None:
        """Call the task off, whether it waits or runs: see `TaskQueue.cancel`."""
        self._engine.cancel(self.id)

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Do not run the task (again): see `TaskQueue.revoke`."""
        until = due_at(revoke_until, self._engine.clock.now(), "revoke_until")
        self._engine.revoke(RevocationTarget(function=False, key=self.id), Revocation(until, revoke_once))

    def restore(self) -> bool:
        """Take back a revocation; False if there was none, or if the task is `revoked` already, which is final."""
        return self._engine.restore(RevocationTarget(function=False, key=self.id))

    def is_revoked(self) -> bool:
        """Is a revocation of the task waiting for it?"""
        return self._engine.is_revoked(RevocationTarget(function=False, key=self.id))

    @shielded
    def reschedule(
        self, eta: datetime | None = None, delay: float | timedelta | None = None, priority: int | None = None
    ) -> "Result[R]":
        """Revoke the task and enqueue a copy of it for another time, with an id of its own; that one's handle.

        With neither `eta` nor `delay` the copy is due at once. What runs already runs on.
        """
        if eta is not None and delay is not None:
            raise ConfigurationError("give eta or delay, not both")
        engine = self._engine
        old, now = engine.get(self.id), engine.clock.now()
        copy = attrs.evolve(
            old, id=new_id(now), state=None, attempt=0, interruptions=0, worker=None, version=0, lease=None, seq=None,
            canceling=False,
            eta=moment(eta, "eta") if eta is not None else None if delay is None else now + duration(delay, "delay"),
            priority=old.priority if priority is None else priority,
            call=old.call,
        )  # fmt: skip
        engine.enqueue([copy])  # first: if that fails, the old one is still there
        self.revoke()
        return Result(engine, copy.id)

    def __repr__(self) -> str:
        return f"<Result of task {self.id}>"
