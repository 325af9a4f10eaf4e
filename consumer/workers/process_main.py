"""The main function of a worker's process: a worker's loop, and a thread that obeys the consumer."""

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from types import FrameType, ModuleType
from typing import Final, cast

import attrs

from lifecycle.consumer.import_errors import users_traceback
from lifecycle.consumer.log_output import LogOptions, buffer_lines
from lifecycle.consumer.os_signals import Handler, set_handler
from lifecycle.consumer.workers.base import WorkerContext, WorkerOptions
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.consumer.workers.shared_status import READY, RECYCLED, SharedStatus
from lifecycle.errors import ConfigurationError, StorageError
from lifecycle.execution.interruption import InterruptBackend
from lifecycle.execution.process_name import name_with_process
from lifecycle.execution.runner import TaskRunner
from lifecycle.queue import TaskQueue
from lifecycle.wrapping import unwrapped

__all__ = ["CANCEL", "DRAIN", "MAIN_MODULES", "SIGNALS", "STOP_NOW", "QueueSource", "find_queue", "work"]

log = logging.getLogger("lifecycle.consumer")

CANCEL: Final = "cancel"
"""Cancel a task."""
DRAIN: Final = "drain"
STOP_NOW: Final = "stop now"
"""Interrupt running tasks, requeue them, and end."""
MAIN_MODULES: Final = ("__main__", "__mp_main__")
"""The names of the main module, here and in processes that were spawned."""
BEAT_INTERVAL_SECONDS: Final = 0.25
"""The time between two signs of life."""
SIGNALS: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals that reach a whole group of processes: blocked as a process starts, until it can handle them."""
_DEFAULT_HANDLERS: Final[dict[int, Handler]] = dict.fromkeys(SIGNALS, signal.SIG_DFL) | {
    signal.SIGINT: signal.default_int_handler
}


@attrs.frozen
class QueueSource:
    """The global variable that holds the queue, for processes that import it anew."""

    module: str
    name: str
    log_level: int | None
    """The level of the log in the consumer's process; ``None``: the process writes none."""

    def load(self) -> TaskQueue:
        """Import the queue."""
        found: object = importlib.import_module(self.module)
        found = unwrapped(getattr(found, self.name, None))
        if not isinstance(found, TaskQueue):
            raise ConfigurationError(
                f"{self.module}:{self.name} is no queue in a worker's process: make it as the module is imported"
            )
        return found


def find_queue(queue: TaskQueue) -> QueueSource:
    """Return where other processes can import `queue` from. Raises `ConfigurationError`."""
    root = logging.getLogger()
    # The main module last: what stands under its `if __name__ == "__main__"` is not there for other processes.
    for name, module in sorted(sys.modules.items(), key=lambda entry: entry[0] in MAIN_MODULES):
        for attribute, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if unwrapped(value) is queue and (source := _imported_as(name, module)) is not None:
                return QueueSource(source, attribute, root.level if root.handlers else None)
    raise ConfigurationError(
        f"worker processes cannot find the queue {queue.name!r}: they import it anew, so it has to be a global of a"
        " module with a file; or start them with start_method='fork'"
    )


def _imported_as(name: str, module: ModuleType) -> str | None:
    """Return the name by which a process that was spawned can import a module; ``None``: it cannot.

    `multiprocessing` imports the main module there, unless it has no file (``python -c``), or is the ``__main__.py`` of
    a package (``python -m package``), which can be imported by its full name, or of a folder.
    """
    if name not in MAIN_MODULES:
        return name
    spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
    if spec is None:
        return name if file else None
    if spec.name.rpartition(".")[2] != "__main__":
        return name
    return spec.name if "." in spec.name else None


class _SignalBackend(InterruptBackend):
    """Interrupts the main thread by a signal: it ends `time.sleep`, and waits for a lock or a socket, too."""

    def __init__(self) -> None:
        self._pending: type[BaseException] | None = None
        signal.set_wakeup_fd(-1)  # the consumer's, if this process was forked
        signal.signal(signal.SIGURG, self._raise)
        # Signals of a terminal, or of a whole service, reach the consumer, too: it decides. Handlers rather than
        # SIG_IGN, which programs that tasks start would inherit. In C: a storm of signals does not nest them.
        self._not_received = dict.fromkeys(map(int, SIGNALS), True)
        set_handler(SIGNALS, self._not_received.pop, _DEFAULT_HANDLERS)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    @property
    def terminated(self) -> bool:
        """True once a SIGTERM has come."""
        return signal.SIGTERM not in self._not_received

    def here(self) -> object:
        self._pending = None
        return threading.get_ident()

    def throw(self, place: object, error: type[BaseException]) -> None:
        self._pending = error
        signal.pthread_kill(cast(int, place), signal.SIGURG)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        error, self._pending = self._pending, None
        if error is not None:
            raise error


def _load(source: QueueSource, options: WorkerOptions, name: str) -> TaskQueue:
    """Import the queue, and configure the log as in the consumer's process; log a failure, and end the process."""
    buffer_lines()
    log_options = options.log_options
    if log_options is None and source.log_level is not None:
        log_options = LogOptions(source.log_level)
    if log_options is not None:
        log_options.before_import()
    try:
        return source.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- whatever the user's module raises
        text = "".join(users_traceback(error)).rstrip()
    finally:
        if log_options is not None:
            log_options.after_import()
    log.error("worker %s cannot import %s\n%s", name, source.module, text)
    raise SystemExit(1)


def work(
    source: QueueSource | TaskQueue, options: WorkerOptions, name: str, status: SharedStatus, requests: Connection
) -> None:
    """Run a worker until the consumer stops it, or is gone."""
    backend = _SignalBackend()
    queue = _load(source, options, name) if isinstance(source, QueueSource) else source
    queue.engine.running.clear()  # of the consumer, if this process was forked
    context, name = WorkerContext(queue, options), name_with_process(name, os.getpid())

    def is_spent() -> bool:
        if status.stop_requested or backend.terminated:  # whether or not the other thread has read the request
            context.stopping.set()
            return False
        return options.is_spent(loop.attempts)

    runner = TaskRunner(queue.engine, backend)
    runner.on_change = status.set_task
    loop = WorkerLoop(context, name, runner, is_spent, lambda: status.set_stage(READY))
    thread = _RequestThread(context, loop, status, requests, backend)
    thread.start()
    loop.run()
    thread.loop_ended.set()
    if loop.recycled:
        status.set_stage(RECYCLED)


def _consumer_pid() -> int | None:
    """Return the process that has started this one, and may be gone."""
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.pid


class _RequestThread:
    """Obeys the consumer's requests, notices its end, and gives signs of life."""

    def __init__(
        self,
        context: WorkerContext,
        loop: WorkerLoop,
        status: SharedStatus,
        requests: Connection,
        backend: _SignalBackend,
    ) -> None:
        self._context, self._loop, self._status, self._requests, self._backend = (
            context,
            loop,
            status,
            requests,
            backend,
        )
        self.loop_ended = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="lifecycle-requests", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._status.beat()
            try:
                if self._requests.poll(BEAT_INTERVAL_SECONDS):
                    self._obey(*self._requests.recv())
            except (EOFError, OSError):
                self._end_without_consumer()
                return
            if os.getppid() != _consumer_pid():  # a process that was forked after this one may keep the pipe open
                self._end_without_consumer()
                return
            if self._backend.terminated:
                self._stop_now()
            try:
                self._loop.check()
            except StorageError as error:
                log.warning("worker %s could not hand back its claims: %s", self._loop.name, error)

    def _obey(self, request: str, task_id: str) -> None:
        if request == CANCEL:
            self._loop.cancel(task_id)
            return
        self._context.stopping.set()
        self._context.engine.storage.wake()
        if request == STOP_NOW:
            self._stop_now()

    def _stop_now(self) -> None:
        context = self._context
        if context.stop_now.is_set():
            return  # requested before: a function that cleans up is not interrupted again
        context.stopping.set()
        context.stop_now.set()
        context.engine.storage.wake()
        self._loop.interrupt()

    def _end_without_consumer(self) -> None:
        """End this process: no consumer keeps its leases any more."""
        log.error("worker %s has lost its consumer, and ends", self._loop.name)
        self._stop_now()
        self.loop_ended.wait(self._context.options.grace_seconds)
        try:
            self._loop.requeue_running()
        except StorageError as error:
            log.warning("the tasks of worker %s are recovered when their lease lapses: %s", self._loop.name, error)
        finally:
            os._exit(1)
