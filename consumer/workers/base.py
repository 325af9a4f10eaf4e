"""What a consumer and its workers share, whatever kind they are of."""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs

from lifecycle.errors import StorageError
from lifecycle.queue import TaskQueue

__all__ = ["AWAY", "WorkerContext", "WorkerHandle", "WorkerOptions", "call_all"]

log = logging.getLogger("lifecycle.consumer")

AWAY = 0.2
"""Seconds between two attempts to reach a store that cannot be used."""


@attrs.frozen
class WorkerOptions:
    """On which a consumer's workers work; see `Consumer`."""

    grace: float
    """Seconds that an interrupted task has."""
    workers: int
    start_method: str
    max_tasks: int | None = None
    max_memory: int | None = None
    """Bytes."""


class WorkerContext:
    """Where the workers of one run stand: the queue, and whether they shall go on."""

    def __init__(self, queue: TaskQueue, terms: WorkerOptions) -> None:
        self.queue, self.engine, self.terms = queue, queue.engine, terms
        self.baton = threading.Lock()
        """Whoever has it watches the store, on behalf of all that are idle."""
        self.stopping = threading.Event()
        self.urgent = threading.Event()
        """Stopping, and there is no time to wait for a store that is away."""
        self._telling = threading.Lock()
        self._away: set[object] = set()
        self._inside = threading.local()

    def enter(self) -> None:
        """The caller's thread is a worker's: see `inside`."""
        self._inside.here = True

    @property
    def inside(self) -> bool:
        """Is the caller's thread one in which the workers run bodies?"""
        return hasattr(self._inside, "here")

    @property
    def away(self) -> bool:
        """Is there somebody whom the store has failed, and who has not reached it again?"""
        return bool(self._away)

    def missing(self, who: object, error: StorageError) -> None:
        """Somebody cannot use the store; that is said once, not by each of them."""
        with self._telling:
            if not self._away:
                log.error("the store cannot be used, its tasks wait and this consumer tries again: %s", error)
            self._away.add(who)

    def found(self, who: object) -> None:
        """Somebody has used the store."""
        if self._away:  # spares the lock
            with self._telling:
                if who in self._away:
                    self._away.discard(who)
                    if not self._away:
                        log.info("the store can be used again")


class WorkerHandle(Protocol):
    """One worker, as whoever looks after it sees it: a thread, a process, a loop."""

    name: str
    """As it stands in leases and histories."""

    def start(self) -> None:
        """Begin to work."""
        ...

    def is_alive(self) -> bool:
        """Has it not gone home, or died?"""
        ...

    @property
    def ready(self) -> bool:
        """Did it ever get to work?"""
        ...

    @property
    def retired(self) -> bool:
        """Did it go home by itself, as it was told to do after so many tasks?"""
        ...

    @property
    def ran(self) -> int:
        """How many attempts it has made."""
        ...

    @property
    def busy(self) -> bool:
        """Has it been running one task for some time?"""
        ...

    def cancel(self, task_id: str) -> None:
        """This task was called off: tell its body, if it is one that it runs. Said over and over."""
        ...

    def drain(self) -> None:
        """Finish what runs, and claim nothing more: `WorkerContext.stopping` is set."""
        ...

    def interrupt(self) -> None:
        """Interrupt what runs, besides."""
        ...

    def put_back(self) -> None:
        """Put back what it runs, without its consent. Raises `StorageError`."""
        ...

    def look(self) -> None:
        """See to it that nothing waits for it in vain; called every now and then. Raises `StorageError`."""
        ...

    def dismiss(self) -> None:
        """Nobody looks after it any more: let go of what is left of it."""
        ...

    def bury(self) -> None:
        """It has died: have what it held recovered soon. Raises `StorageError`."""
        ...


def call_all(
    hooks: Mapping[str, Callable[[], object]], kind: str, call: Callable[[Callable[[], object]], object]
) -> None:
    """Call a worker's hooks; one that raises is logged."""
    for name, hook in hooks.items():
        try:
            call(hook)
        except Exception:
            log.exception("%s hook %s raised; the worker goes on", kind, name)
