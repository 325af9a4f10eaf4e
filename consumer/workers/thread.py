"""Workers that are threads of the consumer's process."""

import threading

from lifecycle.consumer.workers.base import Post
from lifecycle.consumer.workers.loop import Shift
from lifecycle.execution.interruption import THREADS, Reach

__all__ = ["ThreadHand"]


class ThreadHand:
    """A thread and its worker."""

    def __init__(self, post: Post, name: str, reach: Reach = THREADS) -> None:
        self.name = name
        self._shift, self._engine = Shift(post, name, reach), post.engine
        # A daemon: a task that cannot be interrupted must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{name.rpartition('/')[2]}", daemon=True)

    def start(self) -> None:
        """See `Hand.start`."""
        self._thread.start()

    def is_alive(self) -> bool:
        """See `Hand.is_alive`."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self._engine.heart.keep(self.name)
        try:
            self._shift.run()
        finally:
            self._engine.heart.drop(self.name)

    @property
    def ready(self) -> bool:
        """See `Hand.ready`."""
        return self._shift.ready

    @property
    def retired(self) -> bool:
        """See `Hand.retired`."""
        return self._shift.retired

    @property
    def ran(self) -> int:
        """See `Hand.ran`."""
        return self._shift.worker.ran

    @property
    def busy(self) -> bool:
        """See `Hand.busy`."""
        return self._shift.busy

    def cancel(self, task_id: str) -> None:
        """See `Hand.cancel`."""
        self._shift.worker.cancel(task_id)

    def drain(self) -> None:
        """See `Hand.drain`. Its post says all."""

    def interrupt(self) -> None:
        """See `Hand.interrupt`."""
        self._shift.worker.interrupt()

    def put_back(self) -> None:
        """See `Hand.put_back`."""
        self._shift.worker.put_back()

    def look(self) -> None:
        """See `Hand.look`."""
        self._shift.relieve()

    def dismiss(self) -> None:
        """See `Hand.dismiss`. A thread that is stuck in a task cannot be ended."""

    def bury(self) -> None:
        """See `Hand.bury`."""
        self._engine.abandon(self.name)
