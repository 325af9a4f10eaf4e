"""Workers that are processes: as their consumer sees them."""

import atexit
import logging
import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing import resource_tracker
from typing import Final

from lifecycle.clock import monotonic
from lifecycle.consumer.workers import process_main as child
from lifecycle.consumer.workers.base import WorkerContext
from lifecycle.consumer.workers.loop import STUCK
from lifecycle.consumer.workers.shared_status import SharedStatus, StatusSnapshot
from lifecycle.core.table import EXECUTING
from lifecycle.errors import TaskCanceled, TaskTimeout, UnknownTask
from lifecycle.execution.runner import ended
from lifecycle.execution.worker import Worker

__all__ = ["ProcessHandle"]

log = logging.getLogger("lifecycle.consumer")

RELUCTANT: Final = 1.0
"""Seconds after its timeout that a body has to notice it, before its process is killed."""
BURIED: Final = 5.0
"""Seconds after which a process that was killed is taken for dead."""


class ProcessHandle:
    """A process and its worker. Its consumer keeps what it holds, and settles what it cannot settle any more."""

    def __init__(self, post: WorkerContext, name: str) -> None:
        self.name, self._post = name, post
        method = post.terms.start_method
        context = multiprocessing.get_context(method)
        self._slate = SharedStatus(context)
        self._requests, self._ask = context.Pipe(duplex=False)
        source = post.queue if method == "fork" else child.find(post.queue)
        # No daemon, since those may have no processes of their own.
        self._process = context.Process(  # type: ignore[attr-defined]  # of every context but the base of all
            target=child.work,
            args=(source, post.terms, name, self._slate, self._requests),
            name=f"lifecycle-{name.rpartition('/')[2]}",
        )
        self._proxy = Worker(post.engine, name)
        self._kept = False
        self._called_off: tuple[str, int] | None = None
        self._verdict: tuple[StatusSnapshot, type[TaskTimeout | TaskCanceled]] | None = None
        """What is still to be said of a task whose process was killed for it."""
        self._patience = 0.0

    def start(self) -> None:
        """See `WorkerHandle.start`."""
        if self._post.terms.start_method == "spawn":
            resource_tracker.ensure_running()  # else it would come with the first, and unblock signals
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, child.SIGNALS)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._requests.close()
        self._keep(True)
        atexit.register(self.dismiss)  # before multiprocessing waits for it, in vain

    def is_alive(self) -> bool:
        """See `WorkerHandle.is_alive`. One that was killed for its task is, until that is settled: nobody shall put it back."""
        alive: bool = self._process.is_alive()
        return alive or self._verdict is not None

    @property
    def ready(self) -> bool:
        """See `WorkerHandle.ready`."""
        return self._slate.read().ready

    @property
    def retired(self) -> bool:
        """See `WorkerHandle.retired`."""
        return self._slate.read().retired

    @property
    def ran(self) -> int:
        """See `WorkerHandle.ran`."""
        return self._slate.read().ran

    @property
    def busy(self) -> bool:
        """See `WorkerHandle.busy`."""
        seen = self._slate.read()
        return seen.task_id is not None and monotonic() - seen.since > STUCK

    def cancel(self, task_id: str) -> None:
        """See `WorkerHandle.cancel`."""
        seen = self._slate.read()
        if seen.task_id == task_id:
            if self._called_off != (task_id, seen.attempt):
                self._called_off, self._patience = (task_id, seen.attempt), monotonic() + RELUCTANT
            self._request(child.CANCEL, task_id)

    def drain(self) -> None:
        """See `WorkerHandle.drain`."""
        self._slate.send_home()
        self._request(child.DRAIN)  # should it be idle

    def interrupt(self) -> None:
        """See `WorkerHandle.interrupt`."""
        self._request(child.HASTE)

    def put_back(self) -> None:
        """See `WorkerHandle.put_back`: it is killed."""
        self._kill()
        self.bury()
        self._post.engine.recover()

    def look(self) -> None:
        """See `WorkerHandle.look`."""
        if self._verdict is not None:  # the store was away
            self._pronounce(*self._verdict)
            return
        seen, now = self._slate.read(), monotonic()
        # One that is frozen, or keeps the interpreter's lock in C, is as good as gone once its lease has lapsed.
        self._keep(now - seen.beat < self._post.engine.lease or not seen.ready)
        if seen.task_id is not None and self._process.is_alive():
            if now > seen.deadline + RELUCTANT:
                self._end(seen, TaskTimeout)
            elif self._called_off == (seen.task_id, seen.attempt) and now > self._patience:
                self._end(seen, TaskCanceled)

    def bury(self) -> None:
        """See `WorkerHandle.bury`."""
        self._verdict = None
        self._keep(False)
        self._post.engine.abandon(self.name)

    def dismiss(self) -> None:
        """See `WorkerHandle.dismiss`."""
        atexit.unregister(self.dismiss)
        self._keep(False)
        if self._process.is_alive():
            self._request(child.HASTE)
            self._process.join(self._post.terms.grace)
            self._kill()
        self._ask.close()

    def _keep(self, kept: bool) -> None:
        if kept is not self._kept:
            self._kept = kept
            heart = self._post.engine.heartbeat
            (heart.keep if kept else heart.drop)(self.name)

    def _request(self, request: str, task_id: str = "") -> None:
        with suppress(OSError):  # it has ended
            self._ask.send((request, task_id))

    def _kill(self) -> None:
        if self._process.is_alive():
            self._process.kill()
            self._process.join(BURIED)

    def _end(self, seen: StatusSnapshot, error: type[TaskTimeout | TaskCanceled]) -> None:
        """Kill it, since its body takes no notice of what was thrown at it; and say so, on its behalf."""
        if not self._stopped_at(seen):
            return
        log.error("worker %s is killed: task %s has taken no notice of its %s", self.name, seen.task_id, error.__name__)
        self._verdict = seen, error
        self._kill()
        self._pronounce(seen, error)

    def _stopped_at(self, seen: StatusSnapshot) -> bool:
        """Stop it, and look again: it may have gone on to another task just now. False, and it goes on, then."""
        with suppress(OSError):  # it has ended, or was killed by somebody else
            pid = self._process.pid
            os.kill(pid, signal.SIGSTOP)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            now = self._slate.read()
            if (now.task_id, now.attempt) == (seen.task_id, seen.attempt):
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def _pronounce(self, seen: StatusSnapshot, error: type[TaskTimeout | TaskCanceled]) -> None:
        with suppress(UnknownTask):
            task = self._post.engine.get(seen.task_id or "")
            if (task.state, task.worker, task.attempt) == (EXECUTING.name, self.name, seen.attempt):
                self._proxy.conclude(task, *ended(task, error("its process was killed, since it took no notice")))
        self._verdict = None
