"""One worker's day: it runs what there is, waits for more, and goes home when it is told to."""

import logging
from collections.abc import Callable
from typing import Final

from lifecycle.consumer.workers.base import AWAY, WorkerContext, call_all
from lifecycle.errors import StorageError
from lifecycle.execution.interruption import THREADS, InterruptBackend
from lifecycle.execution.worker import Worker
from lifecycle.storage.base import Channel

__all__ = ["SOON", "WorkerLoop"]

log = logging.getLogger("lifecycle.consumer")

IDLE: Final = 1.0
"""Seconds after which an idle worker looks anyway, should the host's clock have been set."""
SOON: Final = 0.01
"""The least that it waits: what was due a moment ago may be held, or another worker's by now."""
STUCK: Final = 0.25
"""Seconds after which a worker that took several tasks at once is relieved of those that it has not begun, and after
which one is asked about the task that it runs: has that been called off?"""


class WorkerLoop:
    """Of a worker that runs one task at a time, in the thread that calls `run`."""

    def __init__(
        self,
        post: WorkerContext,
        name: str,
        reach: InterruptBackend = THREADS,
        spent: Callable[[], bool] | None = None,
        begun: Callable[[], object] = lambda: None,
    ) -> None:
        """`spent`: asked between two tasks whether it shall go home for good; `begun`: told when it gets to work."""
        self.worker = Worker(post.engine, name, self._wait_for_store, reach)
        self.ready = False
        """Has it begun to work?"""
        self.retired = False
        """Has it gone home because it was spent?"""
        self._post, self._spent, self._begun = post, spent, begun

    def run(self) -> None:
        """Work until told to stop; a failure of the worker itself is logged, and ends it."""
        hooks, worker = self._post.engine.hooks, self.worker
        try:
            self._post.enter()
            call_all(hooks.on_startup, "on_startup", worker.attempts.call)
            self.ready = True
            self._begun()
            while self._go_on():
                self._turn()
        except BaseException:
            log.exception("worker %s", worker.name)
        finally:
            call_all(hooks.on_shutdown, "on_shutdown", worker.attempts.call)
            worker.attempts.close()

    @property
    def busy(self) -> bool:
        """See `WorkerHandle.busy`."""
        worker = self.worker
        return worker.running is not None and worker.engine.tick() - worker.since > STUCK

    def relieve(self) -> None:
        """If it took several quick tasks, and is stuck in one of them, it must not keep the others waiting."""
        worker = self.worker
        if worker.burdened and worker.engine.tick() - worker.since > STUCK:
            worker.relieve()

    def _turn(self) -> None:
        """Run what there is, then wait for more."""
        post, storage = self._post, self._post.engine.storage
        # Taken before looking for work: what comes between the look and the wait ends the wait at once.
        generation = storage.generation(Channel.WORK)
        try:
            self.worker.work(self._go_on)
            post.found(self)
            # One idle worker watches the store. When it goes to look, the next one takes over, and so on: a single task
            # wakes one worker, not all.
            with post.baton:
                if self._go_on():
                    due = storage.next_due()
                    left = IDLE if due is None else due - post.engine.clock.now()
                    storage.wait(Channel.WORK, generation, min(max(left, SOON), IDLE))
        except StorageError as error:
            post.missing(self, error)
            post.stopping.wait(AWAY)

    def _go_on(self) -> bool:
        if self._spent is not None and self._spent():
            self.retired = True
            return False
        return not self._post.stopping.is_set()

    def _wait_for_store(self, error: StorageError) -> bool:
        """An outcome could not be stored: keep it, and try again until told to stop at once."""
        self._post.missing(self, error)
        self._post.urgent.wait(AWAY)
        return not self._post.urgent.is_set()
