"""What runs in a worker's process: a shift in its main thread, and a thread that heeds its consumer."""

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from types import FrameType
from typing import Final, cast

import attrs

from lifecycle.consumer.os_signals import Handler, take
from lifecycle.consumer.process_memory import used
from lifecycle.consumer.workers.base import WorkerContext, WorkerOptions
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.consumer.workers.shared_status import READY, RETIRED, SharedStatus
from lifecycle.errors import ConfigurationError, StorageError
from lifecycle.execution.interruption import InterruptBackend
from lifecycle.queue import TaskQueue

__all__ = ["CANCEL", "DRAIN", "HASTE", "SIGNALS", "Source", "find", "work"]

log = logging.getLogger("lifecycle.consumer")

CANCEL: Final = "cancel"
"""Tell the body of a task that it was called off."""
DRAIN: Final = "drain"
HASTE: Final = "haste"
"""Interrupt what runs, put it back, and end."""
_MAIN: Final = ("__main__", "__mp_main__")
"""The names of the main module, here and in processes that were spawned."""
TICK: Final = 0.25
"""Seconds between two signs of life."""
SIGNALS: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""What reaches a whole group of processes: blocked as one starts, until it can handle them."""
_AS_EVER: Final[dict[int, Handler]] = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {
    signal.SIGINT: signal.default_int_handler
}
LOUD: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


@attrs.frozen
class Source:
    """Where a process that knows nothing yet finds the queue."""

    module: str
    name: str
    level: int | None
    """Of the log that its consumer writes; ``None``: it writes none."""

    def queue(self) -> TaskQueue:
        """Import it."""
        found: object = importlib.import_module(self.module)
        found = getattr(found, self.name, None)
        if not isinstance(found, TaskQueue):
            raise ConfigurationError(
                f"{self.module}:{self.name} is no queue in a worker's process: make it as the module is imported"
            )
        return found


def find(queue: TaskQueue) -> Source:
    """Where other processes can import `queue` from. Raises `ConfigurationError`."""
    root = logging.getLogger()
    # The main module last: what it has under its guard for being run is not there for others.
    for name, module in sorted(sys.modules.items(), key=lambda entry: entry[0] in _MAIN):
        for attribute, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is queue:
                return Source(name, attribute, root.level if root.handlers else None)
    raise ConfigurationError(
        f"worker processes cannot find the queue {queue.name!r}: they import it anew, so it has to be a global of a"
        " module; or start them with start_method='fork'"
    )


class _Signals(InterruptBackend):
    """Exceptions for a body in the main thread, which a signal gets out of `time.sleep`, a lock or a socket, too."""

    def __init__(self) -> None:
        self._pending: type[BaseException] | None = None
        self.terminated = False
        signal.set_wakeup_fd(-1)  # its consumer's, if it was forked
        signal.signal(signal.SIGURG, self._strike)
        # Those of a terminal, or of a whole service, reach the consumer, too: it says what is to be done. Handlers
        # rather than SIG_IGN, which programs that tasks start would inherit.
        take(SIGNALS, self._hear, _AS_EVER)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.terminated = self.terminated or number == signal.SIGTERM  # no more: a handler may not touch a lock

    def here(self) -> object:
        self._pending = None
        return threading.get_ident()

    def throw(self, there: object, error: type[BaseException]) -> None:
        self._pending = error
        signal.pthread_kill(cast(int, there), signal.SIGURG)

    def _strike(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        error, self._pending = self._pending, None
        if error is not None:
            raise error


def work(
    source: Source | TaskQueue, terms: WorkerOptions, name: str, slate: SharedStatus, requests: Connection
) -> None:
    """Be a worker until told otherwise."""
    reach = _Signals()
    if isinstance(source, Source):
        if source.level is not None:
            logging.basicConfig(level=source.level, format=LOUD)
        queue = source.queue()
    else:
        queue = source
    post = WorkerContext(queue, terms)

    def spent() -> bool:
        if slate.sent_home or reach.terminated:  # whether or not the ear has heard of it
            post.stopping.set()
            return False
        # Not before it has run anything: a limit that is too low would have processes come and go for nothing.
        ran = shift.worker.ran
        return ran > 0 and (
            (terms.max_tasks is not None and ran >= terms.max_tasks)
            or (terms.max_memory is not None and used() >= terms.max_memory)
        )

    shift = WorkerLoop(post, name, reach, spent, lambda: slate.stage(READY))
    shift.worker.attempts.note = slate.note
    ear = _Ear(post, shift, slate, requests, reach)
    ear.listen()
    shift.run()
    ear.over.set()
    if shift.retired:
        slate.stage(RETIRED)


def _consumer() -> int | None:
    """The process that has started this one, and may be gone."""
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.pid


class _Ear:
    """Heeds the consumer, and its end; gives signs of life."""

    def __init__(
        self, post: WorkerContext, shift: WorkerLoop, slate: SharedStatus, requests: Connection, signals: _Signals
    ) -> None:
        self._post, self._shift, self._slate, self._requests, self._signals = post, shift, slate, requests, signals
        self.over = threading.Event()
        """The shift is."""

    def listen(self) -> None:
        """In a thread of its own, from now on."""
        threading.Thread(target=self._listen, name="lifecycle-ear", daemon=True).start()

    def _listen(self) -> None:
        while True:
            self._slate.beat()
            try:
                if self._requests.poll(TICK):
                    self._heed(*self._requests.recv())
            except (EOFError, OSError):
                self._orphaned()
                return
            if os.getppid() != _consumer():  # a process that was forked after this one may keep the pipe open
                self._orphaned()
                return
            if self._signals.terminated:
                self._haste()
            try:
                self._shift.relieve()
            except StorageError as error:
                log.warning("%s could not be relieved of what it has not begun: %s", self._shift.worker.name, error)

    def _heed(self, request: str, task_id: str) -> None:
        if request == CANCEL:
            self._shift.worker.cancel(task_id)
            return
        self._post.stopping.set()
        self._post.engine.storage.wake()
        if request == HASTE:
            self._haste()

    def _haste(self) -> None:
        post = self._post
        if post.urgent.is_set():
            return  # told already: what cleans up is not interrupted in that
        post.stopping.set()
        post.urgent.set()
        post.engine.storage.wake()
        self._shift.worker.interrupt()

    def _orphaned(self) -> None:
        """The consumer is gone: nobody keeps what this holds."""
        log.error("worker %s has lost its consumer, and ends", self._shift.worker.name)
        self._haste()
        self.over.wait(self._post.terms.grace)
        try:
            self._shift.worker.put_back()
        except StorageError as error:
            log.warning("what %s runs is put back when its lease ends: %s", self._shift.worker.name, error)
        finally:
            os._exit(1)
