"""Many attempts at once: `async` bodies in one event loop, plain ones in threads beside it."""

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
from lifecycle.errors import TaskInterrupted, TaskTimeout
from lifecycle.execution.engine import Engine
from lifecycle.execution.runner import TaskRunner, completed, current_task, ended, free, prepared, told

__all__ = ["AsyncRunner"]

log = logging.getLogger("lifecycle.worker")

Back = Callable[[Task, Outcome, BaseException | None], object]


class _Body:
    """A coroutine that runs for a task."""

    def __init__(self) -> None:
        self.runs: asyncio.Task[None] | None = None
        self.thrown: type[BaseException] | None = None

    def throw(self, error: type[BaseException]) -> None:
        """Cancel it, or, if it has not begun, have it not begin. In the loop's thread."""
        self.thrown = error
        if self.runs is not None:
            self.runs.cancel()


class AsyncRunner:
    """Bodies at work. They are interrupted as `asyncio` cancels: where they await, and not if they swallow it.

    A coroutine that computes holds up all others: nothing here can stop it.
    """

    def __init__(self, engine: Engine, back: Back, enter: Callable[[], object] = lambda: None) -> None:
        """`back`: called in any thread with each outcome; `enter`: first of all in each thread that runs bodies."""
        self._engine, self._back, self._enter = engine, back, enter
        self._loop = asyncio.new_event_loop()
        self._bodies: dict[str, _Body] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._plain: Final[queue.SimpleQueue[Task | None]] = queue.SimpleQueue()
        self._attempts: dict[str, TaskRunner] = {}
        self._threads = self._spare = 0
        self._counting = threading.Lock()
        self._interrupted = self._closing = False

    def start(self) -> None:
        """Start the loop, in a thread of its own."""
        threading.Thread(target=self._run, name="lifecycle-loop", daemon=True).start()

    def begin(self, task: Task) -> None:
        """Have a body run; returns at once."""
        function = self._engine.functions.get(task.name)
        if function is None or function.is_async:
            self._bodies[task.id] = body = _Body()
            self._loop.call_soon_threadsafe(self._spawn, task, body)
            return
        with self._counting:
            new = self._spare == 0
            if new:
                self._threads += 1
            else:
                self._spare -= 1
        if new:
            # Daemons: a body that cannot be interrupted must not keep the process from ending.
            threading.Thread(target=self._run_plain, name="lifecycle-plain", daemon=True).start()
        self._plain.put(task)

    def throw(self, error: type[BaseException], task_id: str) -> bool:
        """Interrupt the body of one task; False if it does not run (yet)."""
        if (body := self._bodies.get(task_id)) is not None:
            return self._tell(body, error)
        attempts = self._attempts.get(task_id)
        if attempts is None:
            return False
        run = attempts.guard.run
        # Only now is it sure whose run that is: should another task begin meanwhile, that is left alone.
        return self._attempts.get(task_id) is attempts and attempts.guard.throw(error, run)

    def interrupt(self) -> None:
        """Interrupt all bodies that run, and any that is to start."""
        self._interrupted = True
        for body in list(self._bodies.values()):
            self._tell(body, TaskInterrupted)
        for attempts in list(self._attempts.values()):
            attempts.guard.interrupt(TaskInterrupted)

    def _tell(self, body: _Body, error: type[BaseException]) -> bool:
        try:
            self._loop.call_soon_threadsafe(body.throw, error)
        except RuntimeError:  # the loop has been closed, and nobody runs there any more
            return False
        return True

    def call(self, hook: Callable[[], object]) -> None:
        """Call a hook in the loop, and wait for it; what it opens there, bodies find there."""
        over: Future[None] = Future()

        async def called() -> None:
            try:
                value = hook()
                if inspect.isawaitable(value):
                    await value
            except BaseException as error:  # noqa: BLE001 -- raised in the caller's thread
                over.set_exception(error)
            else:
                over.set_result(None)

        self._loop.call_soon_threadsafe(lambda: self._keep(self._loop.create_task(called())))
        over.result()

    def close(self) -> None:
        """End the loop and the idle threads."""
        self._closing = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        with self._counting:
            threads = self._threads
        for _ in range(threads):
            self._plain.put(None)

    # In the loop's thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._enter()
        asyncio.set_event_loop(self._loop)
        try:
            while not self._closing:
                try:
                    self._loop.run_forever()
                except BaseException:  # of what a body has left running: SystemExit, which asyncio does not keep
                    log.exception("something in the loop of the workers raised; it goes on")
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    def _spawn(self, task: Task, body: _Body) -> None:
        self._keep(self._loop.create_task(self._attempt(task, body)))

    def _keep(self, runs: asyncio.Task[None]) -> None:
        self._background.add(runs)  # a loop refers to its tasks weakly
        runs.add_done_callback(self._background.discard)

    async def _attempt(self, task: Task, body: _Body) -> None:
        engine, alarm = self._engine, None
        value: object = None
        error: BaseException | None = None
        current_task.set(task)
        try:
            try:
                if self._interrupted:
                    body.thrown = TaskInterrupted
                if body.thrown is not None:
                    raise body.thrown
                function, args, kwargs = prepared(engine, task)
                if task.timeout is not None:
                    alarm = self._loop.call_later(task.timeout, body.throw, TaskTimeout)
                awaited = cast("Awaitable[object]", function.call(*args, **kwargs))
                body.runs = asyncio.current_task()
                value = await awaited
                outcome = completed(engine, task, value)
            finally:
                if alarm is not None:
                    alarm.cancel()
                if task.id in engine.taken:
                    free(engine, task)
        except asyncio.CancelledError as failure:
            outcome, error = ended(task, failure if body.thrown is None else body.thrown())
        except BaseException as failure:  # noqa: BLE001 -- whatever a task raises is its outcome, not ours
            outcome, error = ended(task, failure)
        self._bodies.pop(task.id, None)
        try:
            told(engine, task, value, error)
        except BaseException as late:  # noqa: BLE001 -- a hook that exits must not take the loop with it
            outcome, error = ended(task, late)
        self._back(task, outcome, error)

    # In threads beside it --------------------------------------------------------------------------------------------

    def _run_plain(self) -> None:
        self._enter()
        attempts = TaskRunner(self._engine)
        while (task := self._plain.get()) is not None:
            self._attempts[task.id] = attempts
            if self._interrupted:
                attempts.guard.interrupt(TaskInterrupted)
            outcome, error = attempts.run(task)
            self._attempts.pop(task.id, None)
            with self._counting:
                self._spare += 1
            self._back(task, outcome, error)
        attempts.close()
