"""Workers that are threads of the consumer's process."""

import threading

from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.execution.interruption import THREADS, InterruptBackend
from lifecycle.execution.runner import Runner, TaskRunner
from lifecycle.queue import TaskQueue

__all__ = ["ThreadType", "ThreadWorker"]


class ThreadWorker(WorkerLoop):
    """A worker's loop in a thread of its own."""

    def __init__(self, context: WorkerContext, name: str, runner: Runner) -> None:
        super().__init__(context, name, runner)
        # A daemon: a task that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{name.rpartition('/')[2]}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Return False once the thread has ended."""
        return self._thread.is_alive()

    @property
    def end(self) -> str:
        """How the worker has ended: its failure stands in the log."""
        return "its thread has ended"

    def _run(self) -> None:
        heartbeat = self.worker.engine.heartbeat
        heartbeat.keep(self.name)
        try:
            self.run()
        finally:
            heartbeat.drop(self.name)

    def drain(self) -> None:
        """Do nothing: `WorkerContext.stopping` is enough."""

    def terminate(self) -> None:
        """Do nothing: a thread that is stuck in a task cannot be ended."""

    def leave_parent(self) -> None:
        """Do nothing: a child has no threads of its parent."""

    def expire_leases(self) -> None:
        """Have the leases of a dead worker lapse now. Raises `StorageError`."""
        self.worker.engine.expire_leases(self.name)


class ThreadType:
    """Threads run any function, as it is."""

    restarts_consumer = True
    backend: InterruptBackend = THREADS

    def check(self, queue: TaskQueue, options: WorkerOptions) -> None:
        """Accept any queue."""

    def worker_count(self, options: WorkerOptions) -> int:
        """Return the number of threads."""
        return options.workers

    def new_worker(self, context: WorkerContext, name: str) -> WorkerHandle:
        """Return a thread that is not started yet."""
        return ThreadWorker(context, name, TaskRunner(context.engine, self.backend))
