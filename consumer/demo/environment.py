"""The environment of the demo's scenarios: an empty queue, its consumers as processes, and their reports."""

import contextlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol, Self

import msgspec

from lifecycle.clock import SystemClock
from lifecycle.core.task import Task
from lifecycle.queue import TaskQueue

__all__ = [
    "TASKS_MODULE", "DemoEnvironment", "DemoSettings", "Event", "Observer", "RefusalEvent", "RefusalHandler",
    "SignalEvent", "StartEvent",
]  # fmt: skip

TASKS_MODULE: Final = "lifecycle.consumer.demo.tasks"
SIGNAL_TIMEOUT_SECONDS: Final = 30.0
"""How long to wait for a signal, beyond the delays that are part of a scenario."""

_ENVIRONMENT_VARIABLE: Final = "LIFECYCLE_DEMO"


class DemoSettings(msgspec.Struct, frozen=True):
    """The settings of the module of the demo's tasks, passed to each process in its environment."""

    url: str
    lease: float
    """Seconds."""
    delay: float
    """Seconds."""
    pipe: int | None = None
    """The file descriptor that a consumer writes its events to; ``None`` in the demo's own process."""
    end_pipe: int | None = None
    """The file descriptor whose end tells a consumer that the demo has ended, in whatever way."""

    @classmethod
    def read(cls) -> Self:
        """Return the settings in this process's environment."""
        return msgspec.json.decode(os.environ[_ENVIRONMENT_VARIABLE], type=cls)

    def environment(self) -> dict[str, str]:
        """Return the environment variable for a process with these settings."""
        return {_ENVIRONMENT_VARIABLE: msgspec.json.encode(self).decode()}


class StartEvent(msgspec.Struct, frozen=True, tag="worker starts"):
    """A worker of a consumer has started."""

    consumer: int
    """The consumer's pid."""


class SignalEvent(msgspec.Struct, frozen=True, tag="signal"):
    """A signal that a consumer's handler received."""

    id: str
    signal: str
    at: float
    """UTC seconds."""
    consumer: int
    """The pid of the consumer that sent the signal."""
    worker: str | None
    """The number of the consumer's worker; ``None`` if no worker of this consumer holds the task."""
    attempt: int
    note: str = ""
    """The error of the attempt, the time until the task is due, or the number of retries left; may be empty."""


class RefusalEvent(msgspec.Struct, frozen=True, tag="refusal"):
    """An outcome that the store refused, as its consumer logs it."""

    id: str
    at: float
    """UTC seconds."""
    consumer: int
    """The consumer's pid."""
    attempt: int
    text: str
    """The end of the log line."""


class RefusalHandler(logging.Handler):
    """Passes on the warnings of workers about tasks: the store has refused an outcome."""

    def __init__(self, on_refusal: Callable[[Task, str], object]) -> None:
        """`on_refusal`: called with the task, and with the text after the task's name."""
        super().__init__(logging.WARNING)
        self._on_refusal = on_refusal

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a warning of ``lifecycle.worker`` about a task."""
        task = record.args[0] if isinstance(record.args, tuple) and record.args else None
        if record.name == "lifecycle.worker" and isinstance(task, Task):
            self._on_refusal(task, record.getMessage().removeprefix(f"{task}: "))


Event = StartEvent | SignalEvent | RefusalEvent


class Observer(Protocol):
    """The object that is notified of everything that happens in an environment."""

    def on_signal(self, event: SignalEvent) -> None:
        """Note a signal; called in a thread."""
        ...

    def on_refusal(self, event: RefusalEvent) -> None:
        """Note a refused outcome; called in a thread."""
        ...

    def on_action(self, consumer: int, action: signal.Signals | None, at: float) -> None:
        """Note a signal that is sent to a consumer's process; ``None``: the consumer is started. `at`: UTC seconds."""
        ...


class DemoEnvironment:
    """An empty queue, the consumers that run its tasks, and the signals of their handlers."""

    def __init__(self, folder: Path, *, delay: float, lease: float, observer: Observer) -> None:
        """`delay`, `lease`: seconds."""
        reader, self._writer = os.pipe()
        path = str(folder.absolute() / "demo.db").lstrip("/")
        self._end_reader, self._end_writer = os.pipe()
        self._settings = DemoSettings(f"sqlite:////{path}", lease, delay, self._writer, self._end_reader)
        os.environ |= msgspec.structs.replace(self._settings, pipe=None, end_pipe=None).environment()
        sys.modules.pop(TASKS_MODULE, None)  # imported with other settings
        self.tasks: ModuleType = importlib.import_module(TASKS_MODULE)
        self.queue: TaskQueue = self.tasks.queue
        self.queue.flush()  # an earlier demo in the same folder
        self.delay, self.lease = delay, lease
        self.consumers: list[subprocess.Popen[bytes]] = []
        self.faults: list[str] = []
        """The faults of the current scenario."""
        self.now = SystemClock().now
        self.began_at = self.now()
        """UTC seconds at which the current scenario began."""
        self._observer = observer
        self._events: list[Event] = []
        self._arrived = threading.Condition()
        self._listener = threading.Thread(target=self._listen, args=(reader,), name="demo-listener", daemon=True)
        self._listener.start()

    # Consumers ----------------------------------------------------------------------------------------------------

    def start_consumer(self) -> subprocess.Popen[bytes]:
        """Start a consumer with two workers as a process of its own."""
        consumer = subprocess.Popen(  # noqa: S603 -- this very program
            # -P: without the current folder, whose modules are the user's.
            [sys.executable, "-P", "-m", "lifecycle", "run", f"{TASKS_MODULE}:queue", "-w", "2", "-q"],
            env=os.environ | self._settings.environment(),
            pass_fds=[self._writer, self._end_reader],
            stderr=subprocess.DEVNULL,
        )
        self._observer.on_action(consumer.pid, None, self.now())
        self.consumers.append(consumer)
        threading.Thread(target=self._notify_of_exit, args=(consumer,), name="demo-consumer-exit", daemon=True).start()
        return consumer

    def wait_until_started(self, consumer: "subprocess.Popen[bytes]") -> bool:
        """Wait until a worker of the consumer has started; return False if the consumer ends instead."""
        started = StartEvent(consumer.pid)
        with self._arrived:
            self._arrived.wait_for(
                lambda: started in self._events or consumer.poll() is not None, SIGNAL_TIMEOUT_SECONDS
            )
            return started in self._events

    def send_signal(self, consumer: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
        """Send a signal to the process of a consumer, as an operator does."""
        self._observer.on_action(consumer.pid, number, self.now())
        consumer.send_signal(number)

    def stop_consumers(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to all consumers, and wait for their end."""
        for consumer in self.consumers:
            self.send_signal(consumer, number)
            consumer.wait()
        self.consumers.clear()

    def _notify_of_exit(self, consumer: "subprocess.Popen[bytes]") -> None:
        """Wake threads in `wait_for` once a consumer has ended."""
        consumer.wait()
        with self._arrived:
            self._arrived.notify_all()

    @property
    def _consumer_is_alive(self) -> bool:
        return any(consumer.poll() is None for consumer in self.consumers)

    # Events -------------------------------------------------------------------------------------------------------

    def expect(self, condition: bool, text: str) -> None:
        """Add a fault unless the condition, described by `text`, is true."""
        fault = f"not so: {text}"
        if not condition and fault not in self.faults:
            self.faults.append(fault)

    def events(self, task_id: str) -> list[SignalEvent]:
        """Return the events of a task's signals that have arrived so far."""
        return [event for event in self._events if isinstance(event, SignalEvent) and event.id == task_id]

    def signals(self, task_id: str) -> tuple[str, ...]:
        """Return the signals of a task that have arrived so far."""
        return tuple(event.signal for event in self.events(task_id))

    def refusals(self, task_id: str) -> list[RefusalEvent]:
        """Return the refused outcomes of a task."""
        return [event for event in self._events if isinstance(event, RefusalEvent) and event.id == task_id]

    def wait_for(self, task_id: str, count: int, timeout: float = SIGNAL_TIMEOUT_SECONDS) -> bool:
        """Wait until `count` signals of a task have arrived; return False if they do not within `timeout` seconds.

        If no consumer is alive, add a fault and do not wait.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.signals(task_id)) >= count or not self._consumer_is_alive, timeout)
            if not self._consumer_is_alive:
                codes = ", ".join(str(consumer.returncode) for consumer in self.consumers)
                self.expect(False, f"a consumer is alive: exit code {codes}")
            return len(self.signals(task_id)) >= count

    def wait_for_refusal(self, task_id: str) -> bool:
        """Wait until the store has refused an outcome of a task; return False if none is refused."""
        with self._arrived:
            return self._arrived.wait_for(lambda: bool(self.refusals(task_id)), SIGNAL_TIMEOUT_SECONDS)

    def _listen(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line, type=Event)
                with self._arrived:
                    self._events.append(event)
                    if isinstance(event, SignalEvent):
                        self._observer.on_signal(event)
                    elif isinstance(event, RefusalEvent):
                        self._observer.on_refusal(event)
                    self._arrived.notify_all()

    def close(self) -> None:
        """Stop the consumers and close the queue."""
        for consumer in self.consumers:
            with contextlib.suppress(OSError):
                consumer.terminate()
                consumer.send_signal(signal.SIGCONT)  # a fault in a scenario may leave a consumer frozen
        for consumer in self.consumers:
            consumer.wait()
        for descriptor in (self._end_writer, self._end_reader, self._writer):
            os.close(descriptor)
        self._listener.join()
        self.queue.close()
