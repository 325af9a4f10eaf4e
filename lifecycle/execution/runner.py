"""One attempt: call a task's function, and say in the table's terms how that ended."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from lifecycle.core.policies import Outcome
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LIFECYCLE, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT
from lifecycle.core.task import Task
from lifecycle.errors import (
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    StorageError,
    TaskCanceled,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    UnknownTask,
    Unserializable,
)
from lifecycle.execution.engine import Engine, Function
from lifecycle.execution.interruption import THREADS, InterruptBackend, Interrupter
from lifecycle.execution.stored_result import pack_error, pack_value
from lifecycle.moments import duration, moment

if TYPE_CHECKING:
    from asyncio import Runner

__all__ = ["TaskRunner", "check_canceled", "completed", "current_task", "ended", "free", "prepared", "told"]

log = logging.getLogger("lifecycle.worker")

current_task: ContextVar[Task | None] = ContextVar("current_task", default=None)
"""The task that runs in this context; ``None`` outside of one."""


def check_canceled() -> None:
    """Raise `TaskCanceled` if the task that runs here was called off: see `Task.check_canceled`. Elsewhere: nothing."""
    task = current_task.get()
    if task is not None and task.canceling:
        raise TaskCanceled


_ENDINGS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (RetryTask, RETRY),
    (TaskTimeout, TIME_OUT),
    (TaskLockedException, LOCK_OUT),
    (RateLimitExceeded, RATE_LIMIT),
    (CancelExecution, CANCEL),
    (TaskInterrupted, INTERRUPT),
    (KeyboardInterrupt, INTERRUPT),
    (BaseException, FAIL),  # SystemExit included: a task that calls exit() has failed, its worker has not
)
"""What an exception that leaves a task does to it: the first that fits."""


_Awaited = tuple[object, BaseException | None]
"""What a coroutine has returned, and what it has raised."""


class TaskRunner:
    """Makes attempts in the thread of its worker, one at a time."""

    def __init__(self, engine: Engine, reach: InterruptBackend = THREADS) -> None:
        self._engine = engine
        self.guard = Interrupter(self._wake, reach)
        """Throws `TaskTimeout`, `TaskCanceled` and `TaskInterrupted` into the body that runs."""
        self.note: Callable[[Task | None], None] | None = None
        """Called as an attempt begins, with its task, and with ``None`` when it is over."""
        self._reach = reach
        self._apart: Callable[[Callable[[], object]], object] | None = None
        self._loop: Runner | None = None

    def run(self, task: Task) -> tuple[Outcome, BaseException | None]:
        """Call the task's function with all that belongs to it, and return how it ended, and what it raised.

        Raises nothing itself, whatever the function does.
        """
        try:
            return self._run(task)
        except BaseException as late:  # noqa: BLE001 -- thrown a second time, while the first was dealt with
            self.guard.disarm()
            return ended(task, late)

    def _run(self, task: Task) -> tuple[Outcome, BaseException | None]:
        engine, guard = self._engine, self.guard
        value: object = None
        error: BaseException | None = None
        token = current_task.set(task)
        if self.note is not None:
            self.note(task)
        try:
            try:
                function, args, kwargs = prepared(engine, task)
                if function.is_async:
                    value = self._await(task, function.call(*args, **kwargs))
                else:
                    guard.arm(task.timeout, TaskTimeout)
                    try:
                        value = function.call(*args, **kwargs)
                    finally:
                        guard.disarm()
                outcome = completed(engine, task, value)
            finally:
                if task.id in engine.taken:
                    free(engine, task)
        except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
            guard.disarm()  # the exception may have come from the guard itself, while it was being disarmed
            outcome, error = ended(task, failure)
        finally:
            current_task.reset(token)
            if self.note is not None:
                self.note(None)
        told(engine, task, value, error)
        return outcome, error

    def _wake(self) -> None:
        with suppress(StorageError):  # closed: nobody waits
            self._engine.bare.wake()

    def call(self, hook: Callable[[], object]) -> None:
        """Call a hook of the worker's; what it opens in the event loop, if it is `async`, bodies find there."""
        value = hook()
        if inspect.iscoroutine(value):
            self._where_loops_run(lambda: self._runner().run(value))

    def _where_loops_run(self, function: Callable[[], object]) -> object:
        if self._apart is None:
            self._apart = self._reach.apart()
        return self._apart(function)

    def _runner(self) -> "Runner":
        if self._loop is None:
            import asyncio

            self._loop = asyncio.Runner()  # kept: a loop for each task would cost more than the task
        return self._loop

    def close(self) -> None:
        """Let go of the event loop of `async` functions."""
        if self._loop is not None:
            self._where_loops_run(self._close)

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    __del__ = close

    def _await(self, task: Task, coroutine: object) -> object:
        awaited = self._awaited(task, cast("Awaitable[object]", coroutine))
        value, error = cast(_Awaited, self._where_loops_run(partial(self._run_loop, awaited, copy_context())))
        if error is not None:
            raise error
        return value

    def _run_loop(self, awaited: Coroutine[object, object, _Awaited], context: Context) -> _Awaited:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # as nearly always: there is none
            try:
                return self._runner().run(awaited, context=context)
            except BaseException:  # struck in the loop itself, which is better not used again
                self._close()
                raise
        # The caller runs in a loop, which has to wait: another thread has to have ours.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(context.run, asyncio.run, awaited).result()

    async def _awaited(self, task: Task, body: Awaitable[object]) -> _Awaited:
        """What it returns, and what it raises: not raised here, since a loop takes SystemExit for its own."""
        import asyncio

        running, loop, guard = asyncio.current_task(), asyncio.get_running_loop(), self.guard

        def wake() -> None:
            if running is not None and not guard.struck:  # else it is on its way out already
                running.cancel()

        try:
            guard.arm(task.timeout, TaskTimeout, lambda: loop.call_soon_threadsafe(wake))
            return await body, None
        except asyncio.CancelledError as error:
            return None, error if guard.thrown is None else guard.thrown()
        except BaseException as error:  # noqa: BLE001 -- raised again outside the loop
            return None, error
        finally:
            guard.disarm()
            if inspect.iscoroutine(body):
                body.close()  # had it not begun


# What goes before a body and after it, wherever it runs ---------------------------------------------------------------


def prepared(engine: Engine, task: Task) -> tuple[Function, tuple[object, ...], dict[str, object]]:
    """The function of a task and what it is to be called with, once the hooks have had their say.

    Raises `UnknownTask`, `Undecodable`, `TaskCanceled`, and `CancelExecution` if a hook does.
    """
    if task.canceling:  # since an attempt that was interrupted, or is retried
        raise TaskCanceled
    function = engine.functions.get(task.name)
    if function is None:
        known = ", ".join(sorted(engine.functions)) or "none"
        raise UnknownTask(f"no function is registered as {task.name!r}; there are: {known}")
    args, kwargs = task.call
    for name, hook in engine.hooks.pre_execute.items():
        _before(name, hook, copy(task))
    if function.context:
        shown = copy(task)  # what the function does to it, the worker goes by its own
        shown.cancel_requested = partial(getattr, task, "canceling")
        if function.place is not None and function.place <= len(args):
            args = (*args[: function.place], shown, *args[function.place :])
        else:
            kwargs = {**kwargs, "task": shown}
    return function, args, kwargs


def completed(engine: Engine, task: Task, value: object) -> Outcome:
    """The outcome of a body that has returned `value`. Raises `Unserializable`."""
    try:
        body = engine.serializer.dumps(value)
    except Unserializable as failure:
        raise Unserializable(failure.reason, f"the result of {task.name}{failure.path}") from None
    return Outcome(COMPLETE, pack_value(task.attempt, body))


def free(engine: Engine, task: Task) -> None:
    """Give back the locks that the task's function has left behind."""
    for name, owner in engine.taken.pop(task.id, ()):
        try:
            engine.storage.unlock(name, owner)
        except StorageError as error:
            engine.owed.append(partial(engine.bare.unlock, name, owner))
            log.warning("%s has left the lock %r behind; it is given back later: %s", task, name, error)


def told(engine: Engine, task: Task, value: object, error: BaseException | None) -> None:
    """Tell the hooks how the body ended."""
    for name, hook in engine.hooks.post_execute.items():
        try:
            hook(copy(task), value, error)
        except Exception:
            log.exception("post-execute hook %s raised after %s; its outcome stands", name, task)


def ended(task: Task, error: BaseException) -> tuple[Outcome, BaseException]:
    """What an exception that left a task's function means; and what went wrong, if not that, then in it."""
    try:
        return _meant(task, error), error
    except Exception as fault:  # noqa: BLE001 -- it asks for a retry at no time at all, say
        return Outcome(FAIL, pack_error(task, LIFECYCLE.next(task.state, FAIL), fault)), fault


def _before(name: str, hook: Callable[[Task], object], task: Task) -> None:
    try:
        hook(task)
    except CancelExecution:
        raise
    except Exception:
        log.exception("pre-execute hook %s raised before %s; the task runs all the same", name, task)


def _meant(task: Task, error: BaseException) -> Outcome:
    trigger = next(trigger for kind, trigger in _ENDINGS if isinstance(error, kind))
    if trigger == INTERRUPT:
        return Outcome(INTERRUPT)
    if isinstance(error, RetryTask):
        delay = None if error.delay is None else duration(error.delay, "RetryTask(delay)")
        return Outcome(RETRY, delay=delay, eta=None if error.eta is None else moment(error.eta, "RetryTask(eta)"))
    result = pack_error(task, LIFECYCLE.next(task.state, trigger), error)
    if isinstance(error, CancelExecution):
        return Outcome(CANCEL, result, retry=error.retry)
    if isinstance(error, RateLimitExceeded):
        return Outcome(
            RATE_LIMIT,
            result,
            retry=True if error.retry else None,
            free=error.retry,
            delay=duration(error.delay, "RateLimitExceeded(delay)"),
        )
    return Outcome(trigger, result)
