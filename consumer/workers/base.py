"""Shared by a consumer and its workers: options, the state of a run, and the worker as its consumer sees it."""

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import attrs

from lifecycle.consumer.log_output import LogOptions
from lifecycle.consumer.process_memory import resident_bytes
from lifecycle.errors import StorageError
from lifecycle.execution.registry import Hook
from lifecycle.queue import TaskQueue
from lifecycle.validation import refusal, whole_number

__all__ = [
    "RETRY_STORE_SECONDS",
    "START_METHODS",
    "WorkerContext",
    "WorkerHandle",
    "WorkerOptions",
    "WorkerType",
    "call_hooks",
]

log = logging.getLogger("lifecycle.consumer")

RETRY_STORE_SECONDS: Final = 0.2
"""How long to wait between two attempts to reach a store that cannot be used."""
WORKER_LIMIT: Final = 100_000
"""Largest number of workers: `asyncio` workers, most of which wait."""
START_METHODS: Final = ("spawn", "fork")
"""Ways to start a worker process."""


@attrs.frozen
class WorkerOptions:
    """A consumer's options for its workers; see `Consumer`."""

    grace_seconds: float
    """How long an interrupted task may take to clean up."""
    workers: int
    start_method: str
    max_tasks: int | None = None
    max_memory_bytes: int | None = None
    log_options: LogOptions | None = None
    """``None``: those of the consumer's process, as far as another process can have them."""

    def __attrs_post_init__(self) -> None:
        """Check the options. Raises `ConfigurationError`."""
        whole_number(self.workers, "workers", at_least=1, at_most=WORKER_LIMIT)
        if self.start_method not in START_METHODS:
            raise refusal(self.start_method, "start_method", None, f"there are {', '.join(START_METHODS)}")
        for name, limit in ("max_tasks", self.max_tasks), ("max_memory", self.max_memory_bytes):
            if limit is not None:
                whole_number(limit, name, at_least=1, at_most=2**62)

    def is_spent(self, attempts: int) -> bool:
        """Return whether a process has run enough tasks, or uses too much memory, and a new one takes its place."""
        # Not before the first attempt: a limit that is too low would start processes again and again for nothing.
        return attempts > 0 and (
            (self.max_tasks is not None and attempts >= self.max_tasks)
            or (self.max_memory_bytes is not None and resident_bytes() >= self.max_memory_bytes)
        )


class WorkerContext:
    """One run of a consumer, as its workers see it: the queue, and whether to go on."""

    def __init__(self, queue: TaskQueue, options: WorkerOptions) -> None:
        self.queue, self.engine, self.options = queue, queue.engine, options
        self.poll_lock = threading.Lock()
        """Its holder waits for the store to change, on behalf of all idle workers."""
        self.stopping = threading.Event()
        self.stop_now = threading.Event()
        """Set while stopping, when there is no time left to wait for a store that cannot be used."""
        self._mutex = threading.Lock()
        self._failed: set[object] = set()
        self._local = threading.local()

    def enter_worker_thread(self) -> None:
        """Mark the caller's thread as a worker's: see `in_worker_thread`."""
        self._local.is_worker = True

    @property
    def in_worker_thread(self) -> bool:
        """True if the caller's thread is one in which workers run functions."""
        return hasattr(self._local, "is_worker")

    @property
    def is_store_down(self) -> bool:
        """True while at least one user's last call of the store failed."""
        return bool(self._failed)

    def store_down(self, user: object, error: StorageError) -> None:
        """Note that a user of the store cannot use it; only the first one is logged."""
        with self._mutex:
            if not self._failed:
                log.error("the store cannot be used, its tasks wait and this consumer tries again: %s", error)
            self._failed.add(user)

    def store_up(self, user: object) -> None:
        """Note that a user of the store has used it."""
        if self._failed:  # spares the lock
            with self._mutex:
                if user in self._failed:
                    self._failed.discard(user)
                    if not self._failed:
                        log.info("the store can be used again")


class WorkerHandle(Protocol):
    """One worker, as its consumer sees it: a thread, a process, an event loop."""

    name: str
    """The name in leases and histories."""

    def start(self) -> None:
        """Start working."""
        ...

    def is_alive(self) -> bool:
        """Return False once the worker has ended, by itself or not."""
        ...

    @property
    def ready(self) -> bool:
        """True once the worker has begun to work."""
        ...

    @property
    def recycled(self) -> bool:
        """True if the worker has ended by itself, since it had run enough tasks."""
        ...

    @property
    def end(self) -> str:
        """How the worker has ended, for the log."""
        ...

    @property
    def attempts(self) -> int:
        """How many attempts it has made."""
        ...

    @property
    def busy(self) -> bool:
        """True while one task has been running for some time."""
        ...

    def cancel(self, task_id: str) -> None:
        """Cancel a task, if the worker runs it. Called again and again."""
        ...

    def drain(self) -> None:
        """Finish running tasks and claim no more: `WorkerContext.stopping` is set."""
        ...

    def interrupt(self) -> None:
        """Interrupt running tasks."""
        ...

    def requeue_running(self) -> None:
        """Requeue running tasks, although the worker does not stop them. Raises `StorageError`."""
        ...

    def check(self) -> None:
        """Help a worker that is stuck, so that no task waits for it; called regularly. Raises `StorageError`."""
        ...

    def terminate(self) -> None:
        """Let go of everything that is left of the worker: its consumer ends."""
        ...

    def leave_parent(self) -> None:
        """Let go of the worker in a forked child of its consumer's process."""
        ...

    def expire_leases(self) -> None:
        """Have the leases of a dead worker lapse now. Raises `StorageError`."""
        ...


class WorkerType(Protocol):
    """One type of workers."""

    restarts_consumer: bool
    """True if the consumer's whole process is started again when its workers have run enough tasks."""

    def check(self, queue: TaskQueue, options: WorkerOptions) -> None:
        """Raise `ConfigurationError` if workers of this type cannot run this queue's tasks."""
        ...

    def worker_count(self, options: WorkerOptions) -> int:
        """Return how many workers to start."""
        ...

    def new_worker(self, context: WorkerContext, name: str) -> WorkerHandle:
        """Return a new worker, not started yet."""
        ...


def call_hooks(hooks: Iterable[Hook], kind: str, call: Callable[[Callable[[], object]], object]) -> None:
    """Call a worker's hooks; a hook that raises is logged."""
    for hook in hooks:
        try:
            call(hook.call)
        except Exception:
            log.exception("%s hook %s raised; the worker goes on", kind, hook.name)
