"""The loop of every worker, whatever its type: run due tasks, wait for more, end when asked to."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from lifecycle.consumer.workers.base import RETRY_STORE_SECONDS, WorkerContext, call_hooks
from lifecycle.errors import StorageError, TaskInterrupted
from lifecycle.escaping import printable
from lifecycle.execution.runner import Runner
from lifecycle.execution.worker import Worker
from lifecycle.storage.base import Channel

__all__ = ["MIN_WAIT_SECONDS", "STUCK_SECONDS", "WorkerLoop"]

log = logging.getLogger("lifecycle.consumer")

MAX_WAIT_SECONDS: Final = 1.0
"""An idle worker looks for tasks after so long anyway, should the host's clock have been set."""
MIN_WAIT_SECONDS: Final = 0.01
"""The shortest wait: a task that was due a moment ago may be held, or another worker's by now."""
OVERDUE_SECONDS: Final = 2.0
"""A function that goes on for so long after its timeout, or its cancellation, is logged."""
FOREVER: Final = float("inf")
STUCK_SECONDS: Final = 0.25
"""After so long within one task, a worker's other claims are handed back, and the store is asked whether the task was
canceled."""


class WorkerLoop:
    """Runs a `Worker` in the thread that calls `run`."""

    def __init__(
        self,
        context: WorkerContext,
        name: str,
        runner: Runner,
        is_spent: Callable[[], bool] | None = None,
        on_ready: Callable[[], object] = lambda: None,
    ) -> None:
        """`is_spent`: asked between two tasks whether to end for good; `on_ready`: called when the work begins."""
        self.name = name
        self.worker = Worker(context.engine, name, self._wait_for_store, runner)
        self._canceled_at: dict[str, float] = {}
        """Id of a running task → when its function was interrupted because it was canceled (monotonic)."""
        self._overdue: dict[str, float] = {}
        """Id of a running task that was logged as overdue → the begin of the attempt."""
        self.ready = self.recycled = False
        """Whether it has begun to work; whether it has ended since it was spent."""
        self._context, self._is_spent, self._on_ready = context, is_spent, on_ready

    def run(self) -> None:
        """Work until the consumer stops the worker; a failure of the worker itself is logged, and ends it."""
        hooks, worker, runner = self._context.engine.hooks, self.worker, self.worker.runner
        try:
            self._context.enter_worker_thread()
            runner.start()
            call_hooks(hooks.on_startup, "on_startup", runner.call_hook)
            self.ready = True
            self._on_ready()
            while self._may_claim() or not worker.is_idle:
                self._turn()
        except StorageError as error:  # and no time to wait: unsettled outcomes are recovered when their lease lapses
            log.warning("worker %s ends without having stored all outcomes: %s", self.name, error)
        except BaseException:
            log.exception("worker %s failed", self.name)
        finally:
            with suppress(TaskInterrupted):  # there is no time left for hooks
                call_hooks(hooks.on_shutdown, "on_shutdown", runner.call_hook)
            with suppress(TaskInterrupted):  # it may have been on its way to a greenlet
                runner.close()

    @property
    def attempts(self) -> int:
        """How many attempts it has made."""
        return self.worker.attempts

    @property
    def busy(self) -> bool:
        """True while one task has been running for some time."""
        now = self.worker.engine.monotonic()
        return any(now - since > STUCK_SECONDS for since, _ in self.worker.running[:1])

    def check(self) -> None:
        """If the worker is stuck in one task, hand back its other claims: they must not wait for it.

        Logs functions that should have ended long ago.
        """
        worker = self.worker
        self._warn_of_overdue()
        if worker.has_backlog and worker.engine.monotonic() - worker.last_begun > STUCK_SECONDS:
            worker.hand_back_claims()

    def cancel(self, task_id: str) -> None:
        """Cancel a task, if the worker runs it."""
        if self.worker.cancel(task_id):
            self._canceled_at.setdefault(task_id, self.worker.engine.monotonic())

    def _warn_of_overdue(self) -> None:
        """Log, once for each attempt, a function that goes on after its timeout or its cancellation."""
        worker, running = self.worker, self.worker.running
        now, ids = worker.engine.monotonic(), {task.id for _, task in running}
        for known in self._canceled_at, self._overdue:
            for task_id in known.keys() - ids:
                del known[task_id]
        for since, task in running:
            ends = FOREVER if task.timeout is None else since + task.timeout
            limit = min(ends, self._canceled_at.get(task.id, FOREVER))
            if now > limit + OVERDUE_SECONDS and self._overdue.get(task.id) != since:
                self._overdue[task.id] = since
                log.warning(
                    "cannot interrupt a function, which blocks a worker: function=%s task=%s timeout=%s canceled=%s "
                    "seconds=%.1f worker=%s; it waits or computes outside of Python, or catches the exception. Worker "
                    "processes (worker_type=process) can be killed",
                    printable(task.name), printable(task.id), task.timeout, task.canceling, now - since, self.name,
                )  # fmt: skip

    def interrupt(self) -> None:
        """Interrupt running tasks."""
        self.worker.interrupt()

    def requeue_running(self) -> None:
        """Requeue running tasks, although the worker does not stop them. Raises `StorageError`."""
        self.worker.requeue_running()

    def _turn(self) -> None:
        """Run due tasks, then wait for more."""
        context, worker, storage = self._context, self.worker, self._context.engine.storage
        try:
            # Read before looking for tasks: a change between the look and the wait ends the wait at once.
            generation = storage.generation(Channel.WORK)
            worker.work(self._may_claim)
            context.store_up(self)
            if not self._may_claim():
                if not worker.is_idle:
                    worker.wait(None, MAX_WAIT_SECONDS)
                return
            # One idle worker waits for the store. When it goes to look, the next one takes over, and so on: a single
            # task wakes one worker, not all.
            with context.poll_lock:
                if self._may_claim():
                    due = storage.next_due(worker.unknown.skip_names)
                    left = MAX_WAIT_SECONDS if due is None else due - context.engine.clock.now()
                    worker.wait(generation, min(max(left, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS))
        except StorageError as error:
            if context.stop_now.is_set():
                raise
            context.store_down(self, error)
            context.stopping.wait(RETRY_STORE_SECONDS)

    def _may_claim(self) -> bool:
        if self._is_spent is not None and self._is_spent():
            self.recycled = True
            return False
        return not self._context.stopping.is_set()

    def _wait_for_store(self, error: StorageError) -> bool:
        """Wait, since an outcome could not be stored; return False once the consumer stops at once."""
        self._context.store_down(self, error)
        self._context.stop_now.wait(RETRY_STORE_SECONDS)
        return not self._context.stop_now.is_set()
