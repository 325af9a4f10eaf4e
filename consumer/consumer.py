"""A consumer: the workers that run a queue's tasks, and their supervision."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from lifecycle.clock import monotonic
from lifecycle.consumer.health import Health, ReadyFile, parse_address
from lifecycle.consumer.log_output import LogOptions, buffer_lines, enable_loggers
from lifecycle.consumer.maintenance import Maintenance
from lifecycle.consumer.states import (
    BEGIN,
    DRAIN,
    DRAINING,
    END,
    FORCE,
    FORCING,
    INTERRUPT,
    INTERRUPTING,
    RUNNING,
    STOPPED,
    ConsumerState,
)
from lifecycle.consumer.stop_requests import StopRequests
from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.loop import MIN_WAIT_SECONDS
from lifecycle.consumer.workers.types import WORKER_TYPES, find_worker_type
from lifecycle.errors import ConfigurationError, StorageError, StorageFull, StorageUnavailable
from lifecycle.escaping import printable
from lifecycle.hints import refuses_unknown_options
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage
from lifecycle.validation import duration, instance, text

if TYPE_CHECKING:
    from lifecycle.consumer.health_server import HealthServer
    from lifecycle.consumer.new_code import NewCode

__all__ = ["WORKER_TYPES", "Consumer"]

log = logging.getLogger("lifecycle.consumer")

RESTART: Final = "restart"
"""Drain, and be started again, if the code can be imported."""
RESTART_CHECKED: Final = "restart, checked"
"""Drain, and be started again: the code has been imported."""
REQUESTS: Final = (DRAIN, INTERRUPT, RESTART, RESTART_CHECKED)
"""The requests to stop, by number."""
SIGNALS: Final = {
    signal.SIGINT: REQUESTS.index(DRAIN),
    signal.SIGTERM: REQUESTS.index(INTERRUPT),
    signal.SIGHUP: REQUESTS.index(RESTART),
}
FORCE_GRACE_SECONDS: Final = 0.5
"""The grace period of interrupted tasks, at most, after a second request to stop. A third one leaves none."""
MAX_RESTART_DELAY_SECONDS: Final = 30.0
"""The longest time between two attempts to start a worker that never gets ready."""


class Consumer:
    """Runs the tasks of one queue in workers of its own, until it is stopped."""

    @refuses_unknown_options
    def __init__(
        self,
        queue: TaskQueue,
        workers: int = 1,
        worker_type: str = "thread",
        *,
        grace: float = 2.0,
        start_method: str = "spawn",
        max_tasks: int | None = None,
        max_memory: int | None = None,
        ready_file: str | Path | None = None,
        health: str | None = None,
        restart_from: str | None = None,
        log_options: LogOptions | None = None,
    ) -> None:
        """Raises `ConfigurationError`.

        :param workers: how many tasks run at once.
        :param worker_type: ``"thread"``, ``"process"``, ``"greenlet"`` or ``"asyncio"``.
        :param grace: seconds that interrupted tasks have to clean up before they are requeued anyway.
        :param start_method: of worker processes: ``"spawn"`` or ``"fork"``.
        :param max_tasks: a worker process that has run so many tasks is replaced by a new one; with workers of another
            type the consumer itself drains, once all workers together have, and asks to be started again: see `run`.
        :param max_memory: the same for a process that uses so many bytes.
        :param ready_file: exists, and is touched every half second, while the consumer is ready to run tasks.
        :param health: ``"PORT"`` or ``"HOST:PORT"``: answers ``/ready`` and ``/live`` there over HTTP.
        :param restart_from: ``"MODULE:QUEUE"``: imported in another process before the consumer drains for a new start;
            if the import fails, the consumer logs the traceback and goes on. Default: where the queue is a global
            variable, unless that is the main module.
        :param log_options: of ``lifecycle run``, for worker processes; default: the level of this process's log.
        """
        instance(queue, TaskQueue, "queue", "must be a TaskQueue")
        self._type = find_worker_type(worker_type)
        if ready_file is not None and not isinstance(ready_file, Path):
            text(ready_file, "ready_file", at_most=4096)
        for option, value in ("health", health), ("restart_from", restart_from):
            if value is not None:
                text(value, option)
        self.queue, self._engine = queue, queue.engine
        self._options = WorkerOptions(
            duration(grace, "grace"), workers, start_method, max_tasks, max_memory, log_options
        )
        self._type.check(queue, self._options)
        self._ready_file = None if ready_file is None else Path(ready_file)
        self._address = None if health is None else parse_address(health)
        self._restart_from = restart_from
        self._interval_seconds = min(0.5, self._engine.lease / 4)
        self._engine.clock.on_step(self._wake_workers)
        self._run_state: ConsumerState | None = None
        self._restart = False
        self._mutex = threading.Lock()
        self._reset()
        _consumers.add(self)

    def _reset(self) -> None:
        # The state of one run: a thread that outlives the run, stuck in a task, must not claim tasks in the next.
        self._context = WorkerContext(self.queue, self._options)
        self._health_reports: list[ReadyFile | HealthServer] = []
        self._workers: list[WorkerHandle] = []
        self._maintenance = Maintenance(self.queue, self._context, self._workers)
        self._new_code: NewCode | None = None
        self._supervisor: threading.Thread | None = None
        self._deadline = 0.0
        self._restart_delay_seconds = self._restart_at = 0.0
        self._ended = threading.Event()

    def _leave_parent(self) -> None:
        """Forget the parent's run, in a forked child: stopping the parent's consumer is not the child's business."""
        if self.state not in (None, STOPPED):
            self._requests.leave_parent()
            for report in self._health_reports:
                report.leave_parent()
            for worker in self._workers:
                worker.leave_parent()
        self._mutex, self._run_state = threading.Lock(), None
        self._reset()

    # Start and stop ------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Run until stopped, by `stop` or, in a program's main thread, by a signal.

        ``SIGINT`` finishes running tasks; ``SIGTERM`` interrupts them: they are requeued, and the next consumer runs
        them. A second signal means now. ``SIGHUP`` finishes running tasks, too, and asks for a new start.

        Returns True if the consumer is to be started again, with the code of then: because of a ``SIGHUP``, of
        `max_tasks` or of `max_memory`. The command line does so; any other program does so itself.
        """
        buffer_lines()
        self._open()
        with self._requests.signals(SIGNALS):
            self._begin()
            self._supervise()
        return self._restart

    def start(self) -> None:
        """Run in the background: return at once; `stop` ends the run."""
        self._open()
        self._begin()
        threading.Thread(target=self._supervise, name="lifecycle-consumer", daemon=True).start()

    def stop(self, graceful: bool = True) -> None:
        """Stop, and return when the consumer has stopped.

        `graceful`: finish running tasks; else they are interrupted and requeued. A task that cannot be interrupted runs
        on in its thread; its outcome will be refused. A stopped consumer is left alone; it can be started again. So is
        the consumer of a parent process: a child that was forked has none until `start`.
        """
        ended, context = self._ended, self._context  # read first: once the run is over, they are those of the next
        if self.state not in (None, STOPPED):
            self._requests.request(REQUESTS.index(DRAIN if graceful else INTERRUPT))
            # Supervisor and workers cannot wait for themselves.
            if threading.current_thread() is not self._supervisor and not context.in_worker_thread:
                ended.wait()

    @property
    def state(self) -> str | None:
        """The state of the run, of `lifecycle.consumer.states.CONSUMER_LIFECYCLE`; ``None``: it was never started."""
        return None if self._run_state is None else self._run_state.state

    @property
    def health(self) -> Health:
        """The state, whether the store can be used, and how many workers are alive."""
        return Health(self.state, not self._context.is_store_down, sum(worker.is_alive() for worker in self._workers))

    def _open(self) -> None:
        enable_loggers()
        with self._mutex:
            if self.state not in (None, STOPPED):
                raise ConfigurationError("this consumer runs already")
            self._requests = StopRequests()
            self._run_state = ConsumerState()
            self._restart = False
        try:
            if self._ready_file is not None:
                self._health_reports.append(ReadyFile(self._ready_file))
            if self._address is not None:
                from lifecycle.consumer.health_server import HealthServer

                self._health_reports.append(HealthServer(self._address))
            try:
                self._engine.storage.next_due()  # a wrong URL is better reported before anything runs
            except (StorageUnavailable, StorageFull) as error:
                log.warning("the store cannot be used yet; the consumer starts, and waits for the store: %s", error)
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        ended = self._ended
        self._context.stopping.set()
        self._maintenance.stop()
        with self._mutex:  # no other run begins before this one is over
            self._requests.close()
            for report in self._health_reports:
                report.close()
            self._step(END)  # before `_ended` is replaced: see `stop`
            self._reset()
        ended.set()

    def _step(self, trigger: str) -> None:
        if self._run_state is not None:
            self._run_state.go(trigger)

    def _begin(self) -> None:
        engine, workers = self._engine, self._options.workers
        functions = (
            printable(", ".join(sorted(engine.functions))) or "none: was the module that declares them imported?"
        )
        log.info(
            "consumer %s: %d workers on queue %r in %s; tasks: %s",
            *(engine.process_name(), workers, self.queue.name, printable(self.queue.storage.location), functions),
        )
        if isinstance(self.queue.storage, MemoryStorage):
            log.warning("the queue is in this process's memory: nothing that other processes enqueue will come here")
        try:
            for _ in range(self._type.worker_count(self._options)):
                self._start_worker()
            self._maintenance.start(self._interval_seconds)
        except BaseException:
            self._close()
            raise
        self._step(BEGIN)

    def _start_worker(self) -> None:
        name = f"{self._engine.process_name()}/{next(self._engine.worker_numbers)}"
        worker = self._type.new_worker(self._context, name)
        self._workers.append(worker)
        worker.start()

    # Supervision ---------------------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        """Handle requests, and restart dead workers, until the last worker has ended."""
        self._supervisor = threading.current_thread()
        try:
            while not self._is_over():
                for report in self._health_reports:
                    report.report(self.health)
                timeout = self._interval_seconds if self.state == RUNNING else MIN_WAIT_SECONDS
                self._handle_requests(timeout)
                if self.state in (RUNNING, DRAINING):
                    self._restart_dead_workers()
                attempts = sum(worker.attempts for worker in self._workers)
                if self.state == RUNNING and self._type.restarts_consumer and self._options.is_spent(attempts):
                    self._check_new_code(requested=False)
        finally:
            for worker in self._workers:
                worker.terminate()
            self._close()
            log.info("consumer %s has stopped", self._engine.process_name())

    def _handle_requests(self, timeout: float) -> None:
        """Handle the requests of now; wait for one up to `timeout` seconds."""
        for request in self._requests.wait(timeout):
            if REQUESTS[request] == RESTART:
                self._check_new_code(requested=True)
            else:
                self._handle_request(REQUESTS[request])

    def _check_new_code(self, *, requested: bool) -> None:
        """Ask for a restart once the code has been imported elsewhere; `requested`: by a person or a program."""
        if self.state != RUNNING:
            return  # the consumer is stopping already
        if self._new_code is None:
            from lifecycle.consumer.new_code import NewCode

            restart = partial(self._requests.request, REQUESTS.index(RESTART_CHECKED))
            self._new_code = NewCode(self._restart_from, self.queue, restart)
        self._new_code.check(requested=requested)

    def _handle_request(self, request: str) -> None:
        context, again = self._context, self.state == FORCING
        if request == RESTART_CHECKED and self.state != RUNNING:
            return  # the consumer is stopping already
        self._restart = request == RESTART_CHECKED
        if self.state == RUNNING:
            self._step(DRAIN if self._restart else request)
        else:
            self._step(FORCE)
        if again:  # all has been said; now without any grace
            self._deadline = monotonic()
            return
        context.stopping.set()
        for worker in self._workers:
            worker.drain()
        log.info("consumer %s: %s", self._engine.process_name(), _MESSAGES[self.state or RUNNING])
        self._engine.storage.wake()
        if self.state != DRAINING:
            context.stop_now.set()
            self._maintenance.stop()
            grace = self._options.grace_seconds
            self._deadline = monotonic() + (grace if self.state == INTERRUPTING else min(grace, FORCE_GRACE_SECONDS))
            for worker in self._workers:
                worker.interrupt()

    def _is_over(self) -> bool:
        if self.state == RUNNING:
            return False
        alive = [worker for worker in self._workers if worker.is_alive()]
        if self.state != DRAINING and monotonic() >= self._deadline:
            for worker in alive:
                self._try_to(worker.requeue_running, f"tasks of {worker.name} are requeued when their lease lapses")
        elif alive:
            return False
        self._maintenance.dead.extend(
            worker for worker in self._workers if not worker.is_alive() and not worker.recycled
        )
        self._try_to(self._maintenance.recover, "tasks of dead workers are requeued when their lease lapses")
        return True

    def _try_to(self, act: Callable[[], object], otherwise: str) -> None:
        try:
            act()
        except StorageError as error:
            log.warning("%s: %s", otherwise, error)
        except BaseException:
            log.exception("consumer %s: a handler raised; the consumer goes on", self._engine.process_name())

    def _restart_dead_workers(self) -> None:
        dead = [worker for worker in self._workers if not worker.is_alive()]
        if dead:  # perhaps by a signal to all processes: then no other takes its place
            self._handle_requests(0.0)
            if self.state not in (RUNNING, DRAINING):
                return
        for worker in dead:
            self._workers.remove(worker)
            self._context.store_up(worker)
            worker.terminate()
            # A worker that never gets ready is not started again and again without a pause.
            longer = max(2 * self._restart_delay_seconds, self._interval_seconds)
            self._restart_delay_seconds = 0.0 if worker.ready else min(longer, MAX_RESTART_DELAY_SECONDS)
            self._restart_at = monotonic() + self._restart_delay_seconds
            if not worker.recycled:
                self._maintenance.dead.append(worker)
            if self.state == RUNNING:
                if worker.recycled:
                    log.info("worker %s has run its number of tasks; another takes its place", worker.name)
                elif worker.ready:
                    log.error("worker %s has died; another takes its place: %s", worker.name, worker.end)
                else:
                    text = "worker %s could not begin; another one is started in %g s: %s"
                    log.error(text, worker.name, self._restart_delay_seconds, worker.end)
        missing = len(self._workers) < self._type.worker_count(self._options)
        if self.state == RUNNING and missing and monotonic() >= self._restart_at:
            self._start_worker()

    def _wake_workers(self) -> None:
        self._engine.storage.wake()


_MESSAGES: Final[dict[str, str]] = {
    DRAINING: "stopping; running tasks are finished first (ask again: they are requeued now)",
    INTERRUPTING: "stopping; running tasks are interrupted and requeued",
    FORCING: "stopping now",
}

_consumers: Final[WeakSet[Consumer]] = WeakSet()


def _leave_parents() -> None:
    for consumer in list(_consumers):
        consumer._leave_parent()


os.register_at_fork(after_in_child=_leave_parents)
