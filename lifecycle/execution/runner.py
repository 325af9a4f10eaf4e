"""Runners run attempts, and know nothing of claims and stores. Here: the runner in its worker's own thread."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from lifecycle.core.policies import Outcome
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, TaskCanceled, TaskInterrupted, TaskTimeout
from lifecycle.execution.attempt import completed, end_attempt, outcome_of_error, prepare
from lifecycle.execution.engine import Engine
from lifecycle.execution.forks import OneProcess, end_forked_child, this_process
from lifecycle.execution.interruption import THREADS, InterruptBackend, Interrupter

if TYPE_CHECKING:
    import asyncio

__all__ = ["Ended", "Runner", "TaskRunner"]

Ended = Callable[[Task, Outcome, BaseException | None], object]
"""Called, in any thread, with a task, the outcome of its attempt, and the exception that its function raised."""

_Returned = tuple[object, BaseException | None]
"""The value that a coroutine has returned, and the exception that it has raised."""


class Runner(Protocol):
    """Runs attempts of a worker's tasks."""

    @property
    def slots(self) -> int | None:
        """How many attempts run at once, at the most; ``None``: one, in the thread that calls `begin`."""
        ...

    def start(self) -> None:
        """Start the runner's threads, if it has any."""
        ...

    def begin(self, task: Task, ended: Ended) -> None:
        """Run a task's attempt, and call `ended` when it is over. Raises nothing."""
        ...

    def cancel(self, task_id: str) -> bool:
        """Raise `TaskCanceled` in the function of a task; return False if it does not run (yet)."""
        ...

    def interrupt(self) -> None:
        """Raise `TaskInterrupted` in every function that runs, and in any that is to start."""
        ...

    def call_hook(self, hook: Callable[[], object]) -> None:
        """Call a hook of the worker where its `async` functions run, so that they can use connections that it opens."""
        ...

    def close(self) -> None:
        """Let go of threads and event loops."""
        ...


class TaskRunner:
    """Runs one attempt at a time, in the thread that calls `begin`; an `async` function in an event loop of its own."""

    slots: Final = None

    def __init__(self, engine: Engine, backend: InterruptBackend = THREADS) -> None:
        """`backend`: how functions are interrupted."""
        self._engine, self._backend = engine, backend
        self.interrupter = Interrupter(self._wake, backend)
        self.on_change: Callable[[Task | None], None] | None = None
        """Called as an attempt begins, with its task, and with ``None`` when it is over."""
        self._task: Task | None = None
        self._call_elsewhere: Callable[[Callable[[], object]], object] | None = None
        self._loop: asyncio.Runner | None = None

    def start(self) -> None:
        """Do nothing: there is no thread to start."""

    def begin(self, task: Task, ended: Ended) -> None:
        """Run a task's attempt; `ended` is called before this returns."""
        engine, context, pid = self._engine, copy_context(), this_process.pid
        value: object = None
        error: BaseException | None = None
        self._task = task
        try:
            try:
                if self.on_change is not None:
                    self.on_change(task)
                is_coroutine, value = context.run(self._call, task)
                if is_coroutine:
                    value = self._run_coroutine(context, value)
                if this_process.pid != pid:
                    end_forked_child(pid)
                outcome, error = completed(engine, task, value)
            except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
                end_forked_child(pid, failure)
                self.interrupter.disarm()  # the exception may have come from outside, while it was being disarmed
                outcome, error = outcome_of_error(task, failure)
            finally:
                self._task = None
                if self.on_change is not None:
                    self.on_change(None)
            if engine.hooks.post_execute or engine.held_locks:  # spares most attempts a call
                context.run(end_attempt, engine, task, value, error)
        except BaseException as late:  # noqa: BLE001 -- raised from outside, while another exception was dealt with
            self.interrupter.disarm()
            outcome, error = outcome_of_error(task, late)
        try:
            ended(task, outcome, error)
        finally:
            del error  # its traceback may refer to this frame: the cycle would keep all that the function has held

    def run(self, task: Task) -> tuple[Outcome, BaseException | None]:
        """Run a task's attempt; return its outcome, and the exception that its function raised. Raises nothing."""
        ends: list[tuple[Outcome, BaseException | None]] = []
        self.begin(task, lambda _, outcome, error: ends.append((outcome, error)))
        return ends.pop()

    def _call(self, task: Task) -> tuple[bool, object]:
        """Call the function of a task, in the task's context; return whether a coroutine is left to run, and the value.

        One call in the context for all steps: to enter a context costs as much as two calls.
        """
        function, args, kwargs = prepare(self._engine, task)
        if function.is_async:
            return True, function.call(*args, **kwargs)
        self.interrupter.arm(task.timeout, TaskTimeout)
        try:
            return False, function.call(*args, **kwargs)
        finally:
            self.interrupter.disarm()

    def cancel(self, task_id: str) -> bool:
        """Raise `TaskCanceled` in the function of this task; return False if it does not run (yet)."""
        run = self.interrupter.run  # first: should another task begin meanwhile, that one is left alone
        task = self._task
        return task is not None and task.id == task_id and self.interrupter.cancel(TaskCanceled, run)

    def interrupt(self) -> None:
        """Raise `TaskInterrupted` in the function that runs, and in any that is to start."""
        self.interrupter.interrupt(TaskInterrupted)

    def _wake(self) -> None:
        with suppress(StorageError):  # closed: nobody waits
            self._engine.storage.wake()

    # Async functions -------------------------------------------------------------------------------------------------

    def call_hook(self, hook: Callable[[], object]) -> None:
        """Call a hook of the worker; if it is `async`, in the event loop of the `async` functions."""
        with OneProcess():
            value = hook()
        if inspect.iscoroutine(value):
            self._where_loops_run(lambda: self._event_loop().run(value))

    def close(self) -> None:
        """Close the event loop of `async` functions."""
        if self._loop is not None:
            self._where_loops_run(self._close)

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    __del__ = close

    def _where_loops_run(self, function: Callable[[], object]) -> object:
        if self._call_elsewhere is None:
            self._call_elsewhere = self._backend.loop_caller()
        return self._call_elsewhere(function)

    def _event_loop(self) -> "asyncio.Runner":
        if self._loop is None:
            import asyncio

            self._loop = asyncio.Runner()  # kept: a loop for each task would cost more than the task
        return self._loop

    def _run_coroutine(self, context: Context, coroutine: object) -> object:
        # In a list, which is emptied here: as the value of an asyncio task, the exception would be in a cycle with the
        # frames of the loop.
        ends: list[_Returned] = []
        awaited = self._await(cast(Task, self._task), cast("Awaitable[object]", coroutine), ends)
        self._where_loops_run(partial(self._run_loop, awaited, context))
        value, error = ends.pop()
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # else its traceback refers to this frame, and this frame to the error

    def _run_loop(self, awaited: Coroutine[object, object, None], context: Context) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        try:
            asyncio.get_running_loop()
        except RuntimeError:  # as nearly always: there is none
            try:
                self._event_loop().run(awaited, context=context)
            except BaseException:  # raised in the loop itself, which is better not used again
                self._close()
                raise
            return

        # The caller runs in a loop, which has to wait: another thread has to have ours.
        def run() -> None:
            with asyncio.Runner() as runner:
                runner.run(awaited, context=context)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(run).result()

    async def _await(self, task: Task, coroutine: Awaitable[object], ends: list[_Returned]) -> None:
        """Append the value and the exception of a coroutine. Not raised here: a loop keeps SystemExit."""
        import asyncio

        running, loop, interrupter = asyncio.current_task(), asyncio.get_running_loop(), self.interrupter
        pid = this_process.pid  # a child ends here: in a thread beside greenlets it has no caller to return to

        def cancel() -> None:
            if running is not None and not interrupter.forced:  # else it is on its way out already
                running.cancel()

        try:
            interrupter.arm(task.timeout, TaskTimeout, lambda: loop.call_soon_threadsafe(cancel))
            value = await coroutine
        except asyncio.CancelledError as error:
            ends.append((None, error if interrupter.thrown is None else interrupter.thrown()))
        except BaseException as error:  # noqa: BLE001 -- raised again outside the loop
            end_forked_child(pid, error)
            ends.append((None, error))
        else:
            end_forked_child(pid)
            ends.append((value, None))
        finally:
            interrupter.disarm()
            if inspect.iscoroutine(coroutine):
                coroutine.close()  # if it never began
