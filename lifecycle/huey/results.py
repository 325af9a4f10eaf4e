"""Result handles with Huey's names: they keep the outcome that they have read, until `reset`."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from lifecycle import result as core
from lifecycle.core.policies import AT_REST
from lifecycle.core.table import EXPIRED, REVOKED
from lifecycle.errors import ResultTimeout, TaskException, UnknownTask
from lifecycle.huey.base import HueyBase
from lifecycle.huey.tasks import Task, view
from lifecycle.huey.utils import Error
from lifecycle.storage.base import Channel

__all__ = ["ChordResult", "Result", "ResultGroup"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

_NO_RESULT = (REVOKED.name, EXPIRED.name)
"""States in which a task has not run: Huey keeps no result then."""


class Result(Generic[R]):
    """The handle of one task."""

    def __init__(self, huey: HueyBase, task: Task) -> None:
        """`task`: of any state; only its id counts."""
        self.huey, self.task = huey, task
        self._handle = core.Result[R](huey.queue.engine, task.id)
        self._outcome: R | TaskException | None = None

    @property
    def id(self) -> str:
        """The task's id."""
        return self.task.id

    def get(
        self,
        blocking: bool = False,
        timeout: float | timedelta | None = None,
        backoff: float = 1.15,
        max_delay: float = 1.0,
        revoke_on_timeout: bool = False,
        preserve: bool = False,
    ) -> R | None:
        """Return the value of the function, or ``None`` if there is no outcome, or the task is revoked or expired.

        Raises `TaskException` if the task did not complete, and `ResultTimeout`. Reading removes nothing: any handle,
        in any process, reads the outcome again.

        :param blocking: wait for the outcome. Then a task that is revoked or expired raises `TaskException`, since
            no outcome can come.
        :param timeout: the longest wait, in seconds.
        :param backoff: this option and `max_delay` have no effect: the store wakes a caller that waits.
        :param revoke_on_timeout: revoke the task if there is no outcome in time.
        :param preserve: no effect: the outcome always stays.
        """
        del backoff, max_delay, preserve
        if self._outcome is None:
            self._outcome = self._read(blocking, timeout, revoke_on_timeout)
        if isinstance(self._outcome, TaskException):
            raise self._outcome
        return self._outcome

    __call__ = get

    def _read(
        self, blocking: bool, timeout: float | timedelta | None, revoke_on_timeout: bool
    ) -> R | TaskException | None:
        try:
            return self._handle.get(blocking, timeout if blocking else None)
        except TaskException as error:
            return None if error.state in _NO_RESULT and not blocking else error
        except UnknownTask as error:
            if not blocking:
                return None
            raise ResultTimeout(str(error)) from None
        except ResultTimeout:
            if revoke_on_timeout:
                self.revoke()
            raise

    def get_raw_result(
        self,
        blocking: bool = False,
        timeout: float | timedelta | None = None,
        backoff: float = 1.15,
        max_delay: float = 1.0,
        revoke_on_timeout: bool = False,
        preserve: bool = False,
    ) -> R | Error | None:
        """Return the same as `get`, but an `Error` in place of a `TaskException`."""
        try:
            return self.get(blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve)
        except TaskException as error:
            return Error(error.metadata)

    def is_ready(self) -> bool:
        """Return whether `get` would return or raise an outcome, or the task is at rest without one."""
        try:
            return self.get() is not None or self._handle.state in AT_REST
        except TaskException:
            return True
        except UnknownTask:
            return False

    def reset(self) -> None:
        """Forget the outcome that was read: `get` returns the outcome of a later attempt."""
        self._outcome = None
        self._handle.reset()

    def is_revoked(self) -> bool:
        """Return whether the task is revoked, or would be revoked at its turn."""
        return self._handle.is_revoked()

    def revoke(self, revoke_once: bool = True) -> None:
        """Revoke the task. A waiting task is `revoked` at once, and that is final, also with `revoke_once`."""
        self._handle.revoke(revoke_once=revoke_once)

    def restore(self) -> bool:
        """Take the revocation back; return False if there is none, or if it has stopped the task."""
        return self._handle.restore()

    def reschedule(
        self,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        expires: datetime | timedelta | float | None = None,
        priority: int | None = None,
        preserve_pipeline: bool = True,
    ) -> "Result[R]":
        """Revoke the task, enqueue a copy for another time, and return the copy's handle."""
        del preserve_pipeline
        copy = self._handle.reschedule(eta, delay, priority, expires=expires)
        return Result(self.huey, view(self.huey, copy.task))

    def __repr__(self) -> str:
        return f"<Result: task {self.id}>"


class ResultGroup(Generic[R]):
    """The handles of several tasks."""

    def __init__(self, results: Sequence[Result[R]]) -> None:
        """`results`: in the order of the values."""
        self._results = list(results)

    def get(
        self,
        blocking: bool = False,
        timeout: float | timedelta | None = None,
        backoff: float = 1.15,
        max_delay: float = 1.0,
        revoke_on_timeout: bool = False,
        preserve: bool = False,
    ) -> list[R | None]:
        """Return the values in order: `Result.get` of each."""
        return [
            result.get(blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve) for result in self._results
        ]

    __call__ = get

    def as_completed(self, backoff: float = 1.15, max_delay: float = 1.0) -> Iterator[R | None]:
        """Yield the value of each task as the task ends; raises `TaskException` for one that did not complete."""
        del backoff, max_delay
        waiting = list(self._results)
        while waiting:
            storage = waiting[0].huey.queue.engine.storage
            generation = storage.generation(Channel.OUTCOME)
            ready = [result for result in waiting if result.is_ready()]
            for result in ready:
                waiting.remove(result)
                yield result.get()
            if not ready:
                storage.wait(Channel.OUTCOME, generation, core.POLL_INTERVAL_SECONDS)

    def __getitem__(self, place: int) -> R | None:
        """Return the value at a place, and wait for it."""
        return self._results[place].get(True)

    def __iter__(self) -> Iterator[Result[R]]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)


class ChordResult(Generic[R]):
    """The handle of a chord."""

    def __init__(
        self,
        results: Sequence[Result[object]],
        callback_result: Result[R],
        pipeline: ResultGroup[object] | None = None,
    ) -> None:
        """`results`: of the members, of each the last step; `pipeline`: of the callback and the steps after it."""
        self.results = ResultGroup(results)
        self.callback, self.pipeline_results = callback_result, pipeline

    def get(
        self,
        blocking: bool = False,
        timeout: float | timedelta | None = None,
        backoff: float = 1.15,
        max_delay: float = 1.0,
        revoke_on_timeout: bool = False,
        preserve: bool = False,
    ) -> R | None:
        """Return the value of the callback: see `Result.get`."""
        return self.callback.get(blocking, timeout, backoff, max_delay, revoke_on_timeout, preserve)

    __call__ = get

    def reset(self) -> None:
        """Forget the outcome that was read."""
        self.callback.reset()
