"""Runs many attempts at once: `async` functions in one event loop, plain functions in threads beside the loop."""

import asyncio
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Final, cast

from lifecycle.core.policies import Outcome
from lifecycle.core.task import Task
from lifecycle.errors import TaskCanceled, TaskInterrupted, TaskTimeout
from lifecycle.execution.attempt import completed, end_attempt, outcome_of_error, prepare
from lifecycle.execution.engine import Engine
from lifecycle.execution.forks import OneProcess, end_forked_child, this_process
from lifecycle.execution.registry import Function
from lifecycle.execution.runner import Ended, TaskRunner

__all__ = ["AsyncRunner"]

log = logging.getLogger("lifecycle.worker")


class _Coroutine:
    """A task's coroutine in the loop, from its begin on."""

    def __init__(self) -> None:
        self.running: asyncio.Task[None] | None = None
        self.thrown: type[BaseException] | None = None

    def check(self) -> None:
        """Raise the exception that was thrown, if one was."""
        if self.thrown is not None:
            raise self.thrown from None

    def throw(self, error: type[BaseException]) -> None:
        """Cancel the coroutine; if it has not begun, prevent it. In the loop's thread."""
        self.thrown = error
        if self.running is not None:
            self.running.cancel()


class AsyncRunner:
    """Interrupts `async` functions as `asyncio` cancels: where they await, and not if they swallow the cancellation.

    A coroutine that computes blocks all others: nothing here can stop it.
    """

    def __init__(self, engine: Engine, slots: int, enter_thread: Callable[[], object] = lambda: None) -> None:
        """`slots`: how many attempts run at once, at the most; `enter_thread`: called first in each of its threads."""
        self.slots: int | None = slots
        self._engine, self._enter_thread = engine, enter_thread
        self._loop = asyncio.new_event_loop()
        self._coroutines: dict[str, _Coroutine] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._plain: Final[queue.SimpleQueue[tuple[Task, Ended] | None]] = queue.SimpleQueue()
        self._runners: dict[str, TaskRunner] = {}
        self._thread_count = self._spare_count = 0
        self._counting = threading.Lock()
        self._interrupted = self._closing = False

    def start(self) -> None:
        """Start the loop, in a thread of its own."""
        threading.Thread(target=self._run_loop, name="lifecycle-loop", daemon=True).start()

    def begin(self, task: Task, ended: Ended) -> None:
        """Start a task's attempt, and return at once; `ended` is called in another thread."""
        function = self._engine.functions.get(task.name)
        if function is None or function.is_async:
            self._coroutines[task.id] = coroutine = _Coroutine()
            self._loop.call_soon_threadsafe(self._create, self._attempt(task, coroutine, ended))
            return
        with self._counting:
            new = self._spare_count == 0
            if new:
                self._thread_count += 1
            else:
                self._spare_count -= 1
        if new:
            # A daemon: a function that cannot be interrupted must not keep the process from ending.
            threading.Thread(target=self._run_plain, name="lifecycle-plain", daemon=True).start()
        self._plain.put((task, ended))

    def cancel(self, task_id: str) -> bool:
        """Raise `TaskCanceled` in the function of a task; return False if it does not run (yet)."""
        if (coroutine := self._coroutines.get(task_id)) is not None:
            return self._throw(coroutine, TaskCanceled)
        runner = self._runners.get(task_id)
        return runner is not None and runner.cancel(task_id)

    def interrupt(self) -> None:
        """Raise `TaskInterrupted` in every function that runs, and in any that is to start."""
        self._interrupted = True
        for coroutine in list(self._coroutines.values()):
            self._throw(coroutine, TaskInterrupted)
        for runner in list(self._runners.values()):
            runner.interrupt()

    def _throw(self, coroutine: _Coroutine, error: type[BaseException]) -> bool:
        try:
            self._loop.call_soon_threadsafe(coroutine.throw, error)
        except RuntimeError:  # the loop has been closed, and nothing runs there any more
            return False
        return True

    def call_hook(self, hook: Callable[[], object]) -> None:
        """Call a hook of the worker in the loop, and wait for it: `async` functions can use what it opens there."""
        over: Future[None] = Future()

        async def called() -> None:
            try:
                with OneProcess():
                    value = hook()
                    if inspect.isawaitable(value):
                        await value
            except BaseException as error:  # noqa: BLE001 -- raised in the caller's thread
                over.set_exception(error)
            else:
                over.set_result(None)

        self._loop.call_soon_threadsafe(lambda: self._create(called()))
        over.result()

    def close(self) -> None:
        """End the loop and the idle threads."""
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        with self._counting:
            count = self._thread_count
        for _ in range(count):
            self._plain.put(None)

    # In the loop's thread --------------------------------------------------------------------------------------------

    def _run_loop(self) -> None:
        self._enter_thread()
        asyncio.set_event_loop(self._loop)
        try:
            while not self._closing:
                try:
                    self._loop.run_forever()
                except BaseException:  # from what a function has left running: SystemExit, which asyncio does not keep
                    log.exception("an exception left the event loop of the workers; the loop goes on")
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _create(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        running = self._loop.create_task(coroutine)
        self._background.add(running)  # a loop refers to its tasks weakly
        running.add_done_callback(self._background.discard)

    async def _attempt(self, task: Task, coroutine: _Coroutine, ended: Ended) -> None:
        engine, pid = self._engine, this_process.pid
        value: object = None
        error: BaseException | None = None
        if self._interrupted:
            coroutine.thrown = TaskInterrupted
        try:
            try:
                coroutine.check()
                value = await self._call(coroutine, task, *prepare(engine, task))
                end_forked_child(pid)
                outcome, error = completed(engine, task, value)
            except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
                end_forked_child(pid, failure)
                outcome, error = outcome_of_error(task, failure)
            self._coroutines.pop(task.id, None)
            end_attempt(engine, task, value, error)
        except BaseException as late:  # noqa: BLE001 -- a hook that exits must not take the loop with it
            outcome, error = outcome_of_error(task, late)
        try:
            ended(task, outcome, error)
        finally:
            del error  # its traceback may refer to this frame

    async def _call(
        self,
        coroutine: _Coroutine,
        task: Task,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        timer = None if task.timeout is None else self._loop.call_later(task.timeout, coroutine.throw, TaskTimeout)
        try:
            awaited = cast("Awaitable[object]", function.call(*args, **kwargs))
            coroutine.running = asyncio.current_task()
            return await awaited
        except asyncio.CancelledError:
            coroutine.check()
            raise
        finally:
            coroutine.running = None
            if timer is not None:
                timer.cancel()

    # In threads beside it --------------------------------------------------------------------------------------------

    def _run_plain(self) -> None:
        self._enter_thread()
        runner = TaskRunner(self._engine)
        while (entry := self._plain.get()) is not None:
            self._run_one(runner, *entry)
            del entry  # while the thread waits, nothing of a task stays in memory
        runner.close()

    def _run_one(self, runner: TaskRunner, task: Task, ended: Ended) -> None:
        self._runners[task.id] = runner
        if self._interrupted:
            runner.interrupt()

        def end(task: Task, outcome: Outcome, error: BaseException | None) -> None:
            self._runners.pop(task.id, None)
            with self._counting:
                self._spare_count += 1
            ended(task, outcome, error)

        runner.begin(task, end)
