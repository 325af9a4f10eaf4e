"""Regular jobs of a consumer: help stuck workers, deliver cancellations, recover, prune, make ticks."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from lifecycle.consumer.contact import StoreContact
from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle
from lifecycle.errors import StorageError
from lifecycle.queue import TaskQueue

__all__ = ["PRUNE_LIMIT", "Maintenance"]

log = logging.getLogger("lifecycle.consumer")

PRUNE_LIMIT: Final = 500
"""How many tasks are pruned at a time."""


class Maintenance:
    """The jobs that one run of a consumer repeats, each in a thread of its own, until `stop`."""

    def __init__(self, queue: TaskQueue, context: WorkerContext, workers: Sequence[WorkerHandle]) -> None:
        """`workers`: the consumer's list, which changes while the consumer runs."""
        self._queue, self._engine, self._context, self._workers = queue, queue.engine, context, workers
        self._contact = StoreContact(self._engine.lease)
        self._stopping = threading.Event()
        self.dead: list[WorkerHandle] = []
        """Workers that have died, and whose tasks the next `recover` requeues."""

    def start(self, interval_seconds: float) -> None:
        """Repeat the jobs from now on, each `interval_seconds` after its last end."""
        for job in self._check_stuck, self._deliver_cancellations, self._maintain, self._make_ticks:
            # In threads of their own, since they call handlers: a slow one must not delay other jobs, or a stop.
            arguments = job, interval_seconds
            threading.Thread(target=self._repeat, args=arguments, name="lifecycle-maintenance", daemon=True).start()

    def stop(self) -> None:
        """Begin no further job; return at once, also while a job runs."""
        self._stopping.set()

    def recover(self) -> None:
        """Requeue the tasks of dead workers, of processes that have ended, and of leases that have lapsed."""
        engine, dead = self._engine, list(self.dead)
        for worker in dead:
            worker.expire_leases()
        now = engine.clock.now()  # before the next call: if it hangs, own leases lapse, and are not recovered
        engine.heartbeat.catch_up()
        if not self._contact.answered((engine.clock.now(), engine.monotonic())):
            return
        engine.expire_ended_workers(now)
        engine.recover(now)
        for worker in dead:
            with suppress(ValueError):  # done by another thread meanwhile
                self.dead.remove(worker)

    def _repeat(self, job: Callable[[], float | None], interval_seconds: float) -> None:
        """Do a job again and again; `job`: returns after how many seconds at the latest the job is due again."""
        context = self._context
        while not self._stopping.is_set():
            pause_seconds = interval_seconds
            try:
                due_in = job()
            except StorageError as error:
                context.store_down(job, error)
            except BaseException:  # of a handler: it may end its worker, but not the maintenance
                log.exception("consumer %s: a handler raised; the consumer goes on", self._engine.process_name())
            else:
                context.store_up(job)
                pause_seconds = interval_seconds if due_in is None else min(due_in, interval_seconds)
            self._stopping.wait(pause_seconds)

    def _check_stuck(self) -> None:
        """Help workers that are stuck, so that no task waits for them."""
        for worker in list(self._workers):
            worker.check()

    def _deliver_cancellations(self) -> None:
        """Tell workers which of their tasks were canceled. Workers whose task has just begun are not asked about."""
        busy = [worker for worker in self._workers if worker.busy]
        if busy:
            for task_id in self._engine.storage.canceling([worker.name for worker in busy]):
                for worker in busy:
                    worker.cancel(task_id)

    def _make_ticks(self) -> float:
        """Enqueue the tasks of periodic tasks that are due; return the seconds until the next tick."""
        self._queue.enqueue_periodic()
        return max(0.0, self._queue.next_tick_at() - self._engine.clock.now())

    def _maintain(self) -> None:
        """Recover lapsed leases, and prune tasks at rest."""
        self.recover()
        if self._queue.retention is not None:
            self._engine.prune(self._queue.retention, PRUNE_LIMIT)
