"""``lifecycle demo``: every scenario of the lifecycle, run by real consumers, each signal compared with the table.

A scenario is a function that makes it happen, and the signals that the table of scenarios promises. The demo runs the
scenario, prints each signal as it arrives from the consumers' handlers, and compares. It uses the public API only.
"""

import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, Self

import attrs
import msgspec
from rich.console import Console
from rich.markup import escape

from lifecycle.analysis.checker import IllegalSequence, check
from lifecycle.clock import monotonic
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.diagrams.palette import terminal_colour
from lifecycle.errors import LifecycleError, TaskException
from lifecycle.execution.signals import (
    SIGNAL_CANCELED,
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_INTERRUPTED,
    SIGNAL_LOCKED,
    SIGNAL_RETRYING,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    SIGNAL_TIMEOUT,
)
from lifecycle.queue import TaskQueue
from lifecycle.result import Result

__all__ = ["SCENARIOS", "DemoEnvironment", "DemoSettings", "Scenario", "SignalEvent", "run_demo"]

TASKS_MODULE: Final = "lifecycle.consumer.demo.tasks"
SIGNAL_TIMEOUT_SECONDS: Final = 30.0
"""How long to wait for a signal, beyond the delays that are part of a scenario."""
QUIET_SECONDS: Final = 0.3
"""For so long after the last promised signal no other signal may come."""

_ENVIRONMENT_VARIABLE: Final = "LIFECYCLE_DEMO"


class DemoSettings(msgspec.Struct, frozen=True):
    """The settings of the module of the demo's tasks, passed to each process in its environment."""

    url: str
    lease: float
    """Seconds."""
    delay: float
    """Seconds."""
    pipe: int | None = None
    """The file descriptor that a consumer writes its signals to; ``None`` in the demo's own process."""

    @classmethod
    def read(cls) -> Self:
        """Return the settings in this process's environment."""
        return msgspec.json.decode(os.environ[_ENVIRONMENT_VARIABLE], type=cls)

    def environment(self) -> dict[str, str]:
        """Return the environment variable for a process with these settings."""
        return {_ENVIRONMENT_VARIABLE: msgspec.json.encode(self).decode()}


class SignalEvent(msgspec.Struct, frozen=True):
    """A signal that a consumer's handler received."""

    id: str
    signal: str
    at: float
    """UTC seconds."""


class DemoEnvironment:
    """An empty queue, the consumers that run its tasks, and the signals of their handlers."""

    def __init__(self, folder: Path, *, delay: float, lease: float, on_signal: Callable[[SignalEvent], object]) -> None:
        """`delay`, `lease`: seconds; `on_signal`: called with each signal as it arrives, in a thread."""
        reader, self._writer = os.pipe()
        path = str(folder.absolute() / "demo.db").lstrip("/")
        self._settings = DemoSettings(f"sqlite:////{path}", lease, delay, self._writer)
        os.environ |= msgspec.structs.replace(self._settings, pipe=None).environment()
        sys.modules.pop(TASKS_MODULE, None)  # imported with other settings
        self.tasks: ModuleType = importlib.import_module(TASKS_MODULE)
        self.queue: TaskQueue = self.tasks.queue
        self.queue.flush()  # an earlier demo in the same folder
        self.delay, self.lease = delay, lease
        self.consumers: list[subprocess.Popen[bytes]] = []
        self.faults: list[str] = []
        """The faults of the current scenario."""
        self._on_signal = on_signal
        self._events: list[SignalEvent] = []
        self._arrived = threading.Condition()
        self._listener = threading.Thread(target=self._listen, args=(reader,), name="demo-listener", daemon=True)
        self._listener.start()

    def start_consumer(self) -> subprocess.Popen[bytes]:
        """Start a consumer with two workers as a process of its own."""
        consumer = subprocess.Popen(  # noqa: S603 -- this very program
            # -P: without the current folder, whose modules are the user's.
            [sys.executable, "-P", "-m", "lifecycle", "run", f"{TASKS_MODULE}:queue", "-w", "2", "-q"],
            env=os.environ | self._settings.environment(),
            pass_fds=[self._writer],
            stderr=subprocess.DEVNULL,
        )
        self.consumers.append(consumer)
        threading.Thread(target=self._notify_of_exit, args=(consumer,), name="demo-consumer-exit", daemon=True).start()
        return consumer

    def _notify_of_exit(self, consumer: "subprocess.Popen[bytes]") -> None:
        """Wake threads in `wait_for` once a consumer has ended."""
        consumer.wait()
        with self._arrived:
            self._arrived.notify_all()

    def stop_consumers(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to all consumers, and wait for their end."""
        for consumer in self.consumers:
            consumer.send_signal(number)
            consumer.wait()
        self.consumers.clear()

    def expect(self, condition: bool, text: str) -> None:
        """Add a fault unless the condition, described by `text`, is true."""
        fault = f"not so: {text}"
        if not condition and fault not in self.faults:
            self.faults.append(fault)

    def signals(self, task_id: str) -> tuple[str, ...]:
        """Return the signals of a task that have arrived so far."""
        return tuple(event.signal for event in self._events if event.id == task_id)

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

    @property
    def _consumer_is_alive(self) -> bool:
        return any(consumer.poll() is None for consumer in self.consumers)

    def close(self) -> None:
        """Stop the consumers and close the queue."""
        self.stop_consumers()
        os.close(self._writer)
        self._listener.join()
        self.queue.close()

    def _listen(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line, type=SignalEvent)
                with self._arrived:
                    self._events.append(event)
                    self._on_signal(event)
                    self._arrived.notify_all()


@attrs.frozen
class Scenario:
    """A scenario of the lifecycle, and the signals that it must send."""

    title: str
    promised: tuple[str, ...]
    """The consumers' signals, in order; the producer's `enqueued` is left out."""
    run: Callable[[DemoEnvironment], Result[object]]
    """Makes the scenario happen; returns the result of its task."""


# The scenarios -------------------------------------------------------------------------------------------------------


def _add(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.add(1, 2)
    if environment.wait_for(result.id, len(_RUNS)):
        environment.expect(result.get() == 3, "add(1, 2) is 3")  # noqa: PLR2004
    return result


def _scheduled(environment: DemoEnvironment) -> Result[object]:
    return environment.tasks.add.schedule((2, 3), delay=environment.delay)  # type: ignore[no-any-return]


def _retried_after_delay(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.flaky_task()
    if environment.wait_for(result.id, len(_FAILS)):
        try:
            result.get()
        except TaskException:
            result.reset()
            value = result.get(blocking=True, timeout=SIGNAL_TIMEOUT_SECONDS + environment.delay)
            environment.expect(value == "OK", "the second attempt returns OK")
        else:
            over = LIFECYCLE.state(result.state).kind is Kind.FINAL  # a busy machine: the retry has run already
            environment.expect(over, "reading the result raises after the first failure")
    return result


def _revoked(environment: DemoEnvironment) -> Result[object]:
    environment.tasks.add.revoke()
    result: Result[object] = environment.tasks.add(1, 2)
    environment.wait_for(result.id, 1)
    environment.tasks.add.restore()
    return result


def _revoked_later(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.add.schedule((2, 3), delay=3600)
    environment.wait_for(result.id, 1)
    result.revoke()
    return result


def _locked(environment: DemoEnvironment) -> Result[object]:
    with environment.queue.lock_task("demo-lock"):
        result: Result[object] = environment.tasks.locked_task()
        environment.wait_for(result.id, 2)
    return result


def _expired(environment: DemoEnvironment) -> Result[object]:
    return environment.tasks.add.schedule((1, 2), expires=0)  # type: ignore[no-any-return]


def _consumer_killed(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(60.0)
    environment.wait_for(result.id, 1)
    environment.stop_consumers(signal.SIGKILL)
    environment.start_consumer()
    return result


def _consumer_terminated(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(60.0)
    environment.wait_for(result.id, 1)
    environment.stop_consumers(signal.SIGTERM)
    environment.start_consumer()
    return result


def _consumer_frozen(environment: DemoEnvironment) -> Result[object]:
    result: Result[object] = environment.tasks.slow_task(environment.lease)
    environment.wait_for(result.id, 1)
    (frozen,) = environment.consumers
    frozen.send_signal(signal.SIGSTOP)
    environment.start_consumer()
    environment.wait_for(result.id, 5, SIGNAL_TIMEOUT_SECONDS + environment.lease)
    frozen.send_signal(signal.SIGCONT)  # its task finishes now, and the outcome is refused
    return result


def _call(name: str) -> Callable[[DemoEnvironment], Result[object]]:
    return lambda environment: getattr(environment.tasks, name)()


_RUNS: Final = (SIGNAL_EXECUTING, SIGNAL_COMPLETE)
_FAILS: Final = (SIGNAL_EXECUTING, SIGNAL_ERROR, SIGNAL_RETRYING)
_REQUEUED: Final = (SIGNAL_EXECUTING, SIGNAL_INTERRUPTED, SIGNAL_ENQUEUED)

SCENARIOS: Final = (
    Scenario("add(1, 2)", _RUNS, _add),
    Scenario("add.schedule((2, 3), delay=…)", (SIGNAL_SCHEDULED, *_RUNS), _scheduled),
    Scenario("fails once, is retried after a delay", (*_FAILS, SIGNAL_SCHEDULED, *_RUNS), _retried_after_delay),
    Scenario("fails once, is retried at once", (*_FAILS, SIGNAL_ENQUEUED, *_RUNS), _call("retried_at_once")),
    Scenario("raises RetryTask", (SIGNAL_EXECUTING, SIGNAL_RETRYING, SIGNAL_ENQUEUED, *_RUNS), _call("raises_retry")),
    Scenario("add.revoke(), then add(1, 2)", (SIGNAL_REVOKED,), _revoked),
    Scenario("revoked while it waits for its ETA", (SIGNAL_SCHEDULED, SIGNAL_REVOKED), _revoked_later),
    Scenario("a pre-execute hook raises CancelExecution", (SIGNAL_EXECUTING, SIGNAL_CANCELED), _call("canceled_task")),
    Scenario("the lock is taken", (SIGNAL_EXECUTING, SIGNAL_LOCKED), _locked),
    Scenario("runs longer than its timeout", (SIGNAL_EXECUTING, SIGNAL_TIMEOUT), _call("endless_task")),
    Scenario("past its expiry", (SIGNAL_EXPIRED,), _expired),
    Scenario("its consumer is killed (kill -9)", (*_REQUEUED, *_RUNS), _consumer_killed),
    Scenario("its consumer is stopped (SIGTERM)", (*_REQUEUED, *_RUNS), _consumer_terminated),
    Scenario("its consumer freezes past the lease, and wakes up", (*_REQUEUED, *_RUNS), _consumer_frozen),
)


# Running the scenarios -----------------------------------------------------------------------------------------------


@attrs.frozen
class ScenarioResult:
    """The result of a scenario, as it is printed with ``--json``."""

    title: str
    promised: tuple[str, ...]
    came: tuple[str, ...]
    seconds: float
    fault: str | None
    """The faults, on one line; ``None`` if there are none."""


def _run_scenario(environment: DemoEnvironment, scenario: Scenario) -> ScenarioResult:
    """Run one scenario and compare its signals with the promised ones, the table and the stored history."""
    environment.faults.clear()
    started = monotonic()
    came: tuple[str, ...] = ()
    try:
        result = scenario.run(environment)
        environment.wait_for(result.id, len(scenario.promised), SIGNAL_TIMEOUT_SECONDS + environment.delay)
        environment.wait_for(result.id, len(scenario.promised) + 1, QUIET_SECONDS)  # no other may come
        came = environment.signals(result.id)
        if came != scenario.promised:
            environment.faults.append(f"promised: {', '.join(scenario.promised)}")
        try:
            check(came, from_start=False)
        except IllegalSequence as error:
            environment.faults.append(str(error))
        history = tuple(LIFECYCLE.state(record.state).signal for record in result.history())
        environment.expect(history == (LIFECYCLE.initial.signal, *came), f"the stored history is {', '.join(history)}")
    except LifecycleError as error:
        environment.faults.append(str(error))
    fault = "; ".join(environment.faults) or None
    return ScenarioResult(scenario.title, scenario.promised, came, monotonic() - started, fault)


class _Printer:
    """Prints the signals while they arrive."""

    def __init__(self, console: Console) -> None:
        self._console, self._started_at = console, monotonic()

    def begin(self, scenario: Scenario) -> None:
        """Print the title of a scenario."""
        self._started_at = monotonic()
        self._console.print(f"[bold]{escape(scenario.title)}[/]")

    def on_signal(self, event: SignalEvent) -> None:
        """Print a signal, with the seconds since the start of the scenario."""
        style = terminal_colour(LIFECYCLE.by_signal(event.signal).name)
        seconds = monotonic() - self._started_at
        self._console.print(f"  [dim]{seconds:6.2f} s  {event.id[-6:]}[/]  [{style}]{event.signal}[/]", highlight=False)

    def end(self, result: ScenarioResult) -> None:
        """Print whether the scenario went as promised."""
        if result.fault is None:
            self._console.print("  [green]✓ as promised[/]\n")
        else:
            self._console.print(f"  [bold red]✗ {escape(result.fault)}[/]\n", highlight=False)


def run_demo(console: Console, *, real: bool = False, folder: Path | None = None, as_json: bool = False) -> bool:
    """Run all scenarios, print their signals, and return whether all went as promised.

    `real`: with the delays of the documentation; `folder`: keep the queue's file there; `as_json`: print the
    results as JSON.
    """
    delay, lease = (10.0, 10.0) if real else (0.5, 1.5)
    out = Console(quiet=True) if as_json else console
    results = []
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-demo-")))
        printer = _Printer(out)
        environment = DemoEnvironment(place, delay=delay, lease=lease, on_signal=printer.on_signal)
        stack.callback(environment.close)
        out.print(
            f"A queue in [bold]{place / 'demo.db'}[/], a consumer of two workers in a process of its own.\n",
            soft_wrap=True,
        )
        environment.start_consumer()
        for scenario in SCENARIOS:
            printer.begin(scenario)
            results.append(_run_scenario(environment, scenario))
            printer.end(results[-1])
    all_as_promised = all(result.fault is None for result in results)
    if as_json:
        sys.stdout.write(msgspec.json.encode([attrs.asdict(result) for result in results]).decode() + "\n")
    elif all_as_promised:
        count = sum(len(result.came) for result in results)
        out.print(f"[bold green]✓[/] {len(results)} scenarios, {count} signals: all in the order of the table.")
    else:
        out.print(f"[bold red]✗[/] {sum(one.fault is not None for one in results)} of {len(results)} went wrong.")
    return all_as_promised
