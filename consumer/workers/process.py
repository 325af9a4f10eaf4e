"""Workers that are processes: as their consumer sees them."""

import atexit
import logging
import multiprocessing
import os
import signal
from contextlib import suppress
from copy import copy
from multiprocessing import resource_tracker
from typing import Final

from lifecycle.clock import monotonic
from lifecycle.consumer.workers import process_main
from lifecycle.consumer.workers.base import WorkerContext, WorkerHandle, WorkerOptions
from lifecycle.consumer.workers.loop import STUCK_SECONDS
from lifecycle.consumer.workers.shared_status import SharedStatus, StatusSnapshot
from lifecycle.core.policies import Outcome
from lifecycle.core.table import EXECUTING, INTERRUPT, LIFECYCLE
from lifecycle.errors import ConfigurationError, TaskCanceled, TaskInterrupted, TaskTimeout, UnknownTask
from lifecycle.escaping import printable
from lifecycle.execution.attempt import outcome_of_error
from lifecycle.execution.process_name import name_with_process
from lifecycle.execution.stored_result import pack_error
from lifecycle.execution.worker import Worker
from lifecycle.queue import TaskQueue
from lifecycle.storage import MemoryStorage

__all__ = ["ProcessType", "ProcessWorker"]

log = logging.getLogger("lifecycle.consumer")

KILL_GRACE_SECONDS: Final = 1.0
"""How long a function has to notice its timeout or its cancellation, before its process is killed."""
DEATH_SECONDS: Final = 5.0
"""How long a process that was killed is waited for."""
_SIGNAL_NAMES: Final = {number.value: number.name for number in signal.Signals}


class ProcessType:
    """Processes run any function; one that computes has a core of its own, and can be killed."""

    restarts_consumer = False

    def check(self, queue: TaskQueue, options: WorkerOptions) -> None:
        """Raise `ConfigurationError` if other processes cannot see the queue, or cannot import it."""
        if isinstance(queue.storage, MemoryStorage):
            raise ConfigurationError("worker processes cannot see a queue in memory: take sqlite:///…, or threads")
        if options.start_method != "fork":
            process_main.find_queue(queue)

    def worker_count(self, options: WorkerOptions) -> int:
        """Return the number of processes."""
        return options.workers

    def new_worker(self, context: WorkerContext, name: str) -> WorkerHandle:
        """Return a process that is not started yet."""
        return ProcessWorker(context, name)


class ProcessWorker:
    """A process and its worker. The consumer keeps the worker's leases, and settles what the worker cannot settle."""

    def __init__(self, context: WorkerContext, name: str) -> None:
        self.name, self._context = name, context
        method = context.options.start_method
        processes = multiprocessing.get_context(method)
        self._status = SharedStatus(processes)
        self._requests, self._outbox = processes.Pipe(duplex=False)
        source = context.queue if method == "fork" else process_main.find_queue(context.queue)
        # No daemon, since those may have no processes of their own.
        self._process = processes.Process(  # type: ignore[attr-defined]  # of every context but the base of all
            target=process_main.work,
            args=(source, context.options, name, self._status, self._requests),
            name=f"lifecycle-{name.rpartition('/')[2]}",
        )
        self._proxy = Worker(context.engine, name)
        self._keeps_leases = False
        self._canceled: tuple[str, int] | None = None
        """Id and attempt of the task that was canceled last."""
        self._verdict: tuple[StatusSnapshot, type[TaskTimeout | TaskCanceled]] | None = None
        """The outcome, still to be settled, of a task whose process was killed for it."""
        self._kill_at = 0.0
        self._checked_at = self._awake_since = monotonic()
        self._killed = False
        """True if the consumer itself has killed the process."""

    def start(self) -> None:
        """Start the process."""
        if self._context.options.start_method == "spawn":
            resource_tracker.ensure_running()  # else the first process would start it, and it unblocks signals
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, process_main.SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._requests.close()
        self.name = self._proxy.name = name_with_process(self.name, self._process.pid)
        self._keep_leases(True)
        atexit.register(self.terminate)  # before multiprocessing waits for the process, in vain

    def is_alive(self) -> bool:
        """Return False once the process has ended, and the task that it was killed for is settled."""
        alive: bool = self._process.is_alive()
        return alive or self._verdict is not None

    @property
    def ready(self) -> bool:
        """True once the worker has begun to work."""
        return self._status.read().ready

    @property
    def recycled(self) -> bool:
        """True if the worker has ended by itself, since it had run enough tasks."""
        return self._status.read().recycled

    @property
    def end(self) -> str:
        """How the process has ended: its exit code, or the signal."""
        code: int | None = self._process.exitcode
        if code is None:
            return "its process does not answer"
        if code >= 0:
            return f"its process ended with exit code {code}"
        guess = ": out of memory?" if code == -signal.SIGKILL and not self._killed else ""
        return f"its process was killed by {_SIGNAL_NAMES.get(-code, f'signal {-code}')}{guess}"

    @property
    def attempts(self) -> int:
        """How many attempts it has made."""
        return self._status.read().attempts

    @property
    def busy(self) -> bool:
        """True while one task has been running for some time."""
        seen = self._status.read()
        return seen.task_id is not None and monotonic() - seen.since > STUCK_SECONDS

    def cancel(self, task_id: str) -> None:
        """Cancel a task, if the process runs it; kill the process if the function does not notice."""
        seen = self._status.read()
        if seen.task_id == task_id:
            if self._canceled != (task_id, seen.attempt):
                self._canceled, self._kill_at = (task_id, seen.attempt), monotonic() + KILL_GRACE_SECONDS
            self._request(process_main.CANCEL, task_id)

    def drain(self) -> None:
        """Finish running tasks and claim no more."""
        self._status.request_stop()
        self._request(process_main.DRAIN)  # wakes an idle worker

    def interrupt(self) -> None:
        """Interrupt running tasks."""
        self._request(process_main.STOP_NOW)

    def requeue_running(self) -> None:
        """Kill the process and recover its tasks."""
        self._kill()
        self.expire_leases()
        self._context.engine.recover()

    def check(self) -> None:
        """Keep the leases of a process that shows signs of life; kill it if its function ignores its end."""
        if self._verdict is not None:  # the store could not be used
            self._settle(*self._verdict)
            return
        seen, now = self._status.read(), monotonic()
        lease = self._context.engine.lease
        if now - self._checked_at > lease / 2:  # this process was frozen or in an outage itself: wait for a new sign
            self._awake_since = now
        self._checked_at = now
        # A process that is frozen, or keeps the interpreter's lock in C, is given up once its lease has lapsed.
        self._keep_leases(now - max(seen.beat, self._awake_since) < lease or not seen.ready)
        if seen.task_id is not None and self._process.is_alive():
            if now > seen.deadline + KILL_GRACE_SECONDS:
                self._kill_for(seen, TaskTimeout)
            elif self._canceled == (seen.task_id, seen.attempt) and now > self._kill_at:
                self._kill_for(seen, TaskCanceled)

    def expire_leases(self) -> None:
        """Have the leases of a dead process lapse now. Raises `StorageError`."""
        self._verdict = None
        self._keep_leases(False)
        self._requeue_tasks()
        self._context.engine.expire_leases(self.name)

    def terminate(self) -> None:
        """Stop the process, and kill it if it does not stop within the grace period."""
        atexit.unregister(self.terminate)
        self._keep_leases(False)
        if self._process.is_alive():
            self._request(process_main.STOP_NOW)
            self._process.join(self._context.options.grace_seconds)
            self._kill()
        self._outbox.close()

    def leave_parent(self) -> None:
        """Let go of the process in a forked child of its consumer's process: it is no child of that child."""
        atexit.unregister(self.terminate)
        # Else the child's end would wait for it, and fail with a traceback.
        multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        self._outbox.close()

    def _keep_leases(self, keep: bool) -> None:
        if keep is not self._keeps_leases:
            self._keeps_leases = keep
            heartbeat = self._context.engine.heartbeat
            (heartbeat.keep if keep else heartbeat.drop)(self.name)

    def _request(self, request: str, task_id: str = "") -> None:
        with suppress(OSError):  # the process has ended
            self._outbox.send((request, task_id))

    def _kill(self) -> None:
        if self._process.is_alive():
            self._killed = True
            self._process.kill()
            self._process.join(DEATH_SECONDS)

    def _kill_for(self, seen: StatusSnapshot, error: type[TaskTimeout | TaskCanceled]) -> None:
        """Kill the process, since its function ignores the exception that was raised in it; settle the task."""
        if not self._stopped_at(seen):
            return
        task_id = printable(seen.task_id or "")
        log.error("worker %s is killed: task %s has ignored its %s", self.name, task_id, error.__name__)
        self._verdict = seen, error
        self._kill()
        self._settle(seen, error)

    def _stopped_at(self, seen: StatusSnapshot) -> bool:
        """Suspend the process, and look again; if it has gone on to another task, resume it and return False."""
        with suppress(OSError):  # it has ended, or was killed by another process
            pid = self._process.pid
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            now = self._status.read()
            if (now.task_id, now.attempt) == (seen.task_id, seen.attempt):
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def _requeue_tasks(self) -> None:
        """Requeue the tasks of a process that has ended. Only the task whose function ran may be the cause."""
        seen, engine = self._status.read(), self._context.engine
        if seen.task_id is None and not self._killed:  # all of them may be: recovery counts them
            return
        for task in engine.running_tasks(self.name):
            if self._killed or (task.id, task.attempt) != (seen.task_id, seen.attempt):
                self._proxy.settle_for(task, Outcome(INTERRUPT, free=True))
                continue
            before, cause = copy(task), TaskInterrupted(self.end)
            result = pack_error(task, LIFECYCLE.next(task.state, INTERRUPT), cause)
            move = self._proxy.settle_for(task, Outcome(INTERRUPT, result))
            log.error("%s was interrupted: %s; %s", before, self.end, engine.after_interruption(before, move))

    def _settle(self, seen: StatusSnapshot, error: type[TaskTimeout | TaskCanceled]) -> None:
        with suppress(UnknownTask):
            task = self._context.engine.get(seen.task_id or "")
            if (task.state, task.worker, task.attempt) == (EXECUTING.name, self.name, seen.attempt):
                reason = error("its process was killed, since it took no notice")
                self._proxy.settle_for(task, *outcome_of_error(task, reason))
        self._verdict = None
