"""Workers that are threads of the consumer's process."""

import threading

from lifecycle.consumer.workers.base import WorkerContext
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.execution.interruption import THREADS, InterruptBackend

__all__ = ["ThreadHandle"]


class ThreadHandle:
    """A thread and its worker."""

    def __init__(self, post: WorkerContext, name: str, reach: InterruptBackend = THREADS) -> None:
        self.name = name
        self._shift, self._engine = WorkerLoop(post, name, reach), post.engine
        # A daemon: a task that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{name.rpartition('/')[2]}", daemon=True)

    def start(self) -> None:
        """See `WorkerHandle.start`."""
        self._thread.start()

    def is_alive(self) -> bool:
        """See `WorkerHandle.is_alive`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self._engine.heartbeat.keep(self.name)
        try:
            self._shift.run()
        finally:
            self._engine.heartbeat.drop(self.name)

    @property
    def ready(self) -> bool:
        """See `WorkerHandle.ready`."""
        return self._shift.ready

    @property
    def retired(self) -> bool:
        """See `WorkerHandle.retired`."""
        return self._shift.retired

    @property
    def ran(self) -> int:
        """See `WorkerHandle.ran`."""
        return self._shift.worker.ran

    @property
    def busy(self) -> bool:
        """See `WorkerHandle.busy`."""
        return self._shift.busy

    def cancel(self, task_id: str) -> None:
        """See `WorkerHandle.cancel`."""
        self._shift.worker.cancel(task_id)

    def drain(self) -> None:
        """See `WorkerHandle.drain`. Its post says all."""

    def interrupt(self) -> None:
        """See `WorkerHandle.interrupt`."""
        self._shift.worker.interrupt()

    def put_back(self) -> None:
        """See `WorkerHandle.put_back`."""
        self._shift.worker.put_back()

    def look(self) -> None:
        """See `WorkerHandle.look`."""
        self._shift.relieve()

    def dismiss(self) -> None:
        """See `WorkerHandle.dismiss`. A thread that is stuck in a task cannot be ended."""

    def bury(self) -> None:
        """See `WorkerHandle.bury`."""
        self._engine.abandon(self.name)
