"""``lifecycle demo``: every scenario of the lifecycle, run by real consumers, each signal held against the table.

A scenario says what it does and which signals the law promises for it. The demo runs it, prints each signal as it
arrives from the consumers' handlers, and compares. It is a program of the kind that users write: nothing in it knows
how the queue works inside.
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
from lifecycle.diagrams.palette import TERMINAL
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

__all__ = ["SCENARIOS", "Event", "Scenario", "Setting", "Stage", "run_demo"]

TASKS: Final = "lifecycle.consumer.demo.tasks"
PATIENCE: Final = 30.0
"""Seconds to wait for a signal, beyond the delays that are part of a scenario."""
QUIET: Final = 0.3
"""Seconds after the last promised signal in which no other may come."""

_VARIABLE: Final = "LIFECYCLE_DEMO"


class Setting(msgspec.Struct, frozen=True):
    """What the demo tells the module of its tasks, in its own process and in the consumers'."""

    url: str
    lease: float
    """Seconds."""
    delay: float
    """Seconds."""
    pipe: int | None = None
    """Where a consumer reports its signals."""

    @classmethod
    def read(cls) -> Self:
        """The setting that this process was given."""
        return msgspec.json.decode(os.environ[_VARIABLE], type=cls)

    def environment(self) -> dict[str, str]:
        """The environment of a process that shall have it."""
        return {_VARIABLE: msgspec.json.encode(self).decode()}


class Event(msgspec.Struct, frozen=True):
    """A signal, as a consumer's handler reports it."""

    id: str
    signal: str
    at: float
    """UTC seconds."""


class Stage:
    """A fresh queue, consumers that come and go, and what their handlers report."""

    def __init__(self, folder: Path, *, delay: float, lease: float, heard: Callable[[Event], object]) -> None:
        """`delay`, `lease`: seconds; `heard`: called with each signal as it arrives."""
        reader, self._writer = os.pipe()
        path = str(folder.absolute() / "demo.db").lstrip("/")
        self._setting = Setting(f"sqlite:////{path}", lease, delay, self._writer)
        os.environ |= msgspec.structs.replace(self._setting, pipe=None).environment()
        sys.modules.pop(TASKS, None)  # another stage's
        self.tasks: ModuleType = importlib.import_module(TASKS)
        self.queue: TaskQueue = self.tasks.queue
        self.queue.flush()  # whatever an earlier demo has left in the folder
        self.delay, self.lease = delay, lease
        self.consumers: list[subprocess.Popen[bytes]] = []
        self.faults: list[str] = []
        """What was not as it should be, in the scenario that runs."""
        self._heard = heard
        self._events: list[Event] = []
        self._arrived = threading.Condition()
        self._listener = threading.Thread(target=self._listen, args=(reader,), name="demo-listener", daemon=True)
        self._listener.start()

    def hire(self) -> subprocess.Popen[bytes]:
        """Start a consumer as a process of its own, with two workers."""
        consumer = subprocess.Popen(  # noqa: S603 -- this very program
            # -P: without the current folder, whose modules are the user's.
            [sys.executable, "-P", "-m", "lifecycle", "run", f"{TASKS}:queue", "-w", "2", "-q"],
            env=os.environ | self._setting.environment(),
            pass_fds=[self._writer],
            stderr=subprocess.DEVNULL,
        )
        self.consumers.append(consumer)
        threading.Thread(target=self._mourn, args=(consumer,), name="demo-undertaker", daemon=True).start()
        return consumer

    def _mourn(self, consumer: "subprocess.Popen[bytes]") -> None:
        """Tell those who wait for signals that a consumer has ended."""
        consumer.wait()
        with self._arrived:
            self._arrived.notify_all()

    def dismiss(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all consumers with a signal, and wait for their end."""
        for consumer in self.consumers:
            consumer.send_signal(how)
            consumer.wait()
        self.consumers.clear()

    def expect(self, kept: bool, what: str) -> None:
        """Note a fault unless `kept`."""
        fault = f"not so: {what}"
        if not kept and fault not in self.faults:
            self.faults.append(fault)

    def signals(self, task_id: str) -> tuple[str, ...]:
        """What has been reported of a task so far."""
        return tuple(event.signal for event in self._events if event.id == task_id)

    def wait_for(self, task_id: str, count: int, patience: float = PATIENCE) -> bool:
        """Wait until so many signals of a task have come; False if they do not in `patience` seconds.

        Nor do they if nobody is there to send them: that is a fault.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: len(self.signals(task_id)) >= count or not self._staffed, patience)
            if not self._staffed:
                codes = ", ".join(str(consumer.returncode) for consumer in self.consumers)
                self.expect(False, f"a consumer is alive: exit code {codes}")
            return len(self.signals(task_id)) >= count

    @property
    def _staffed(self) -> bool:
        return any(consumer.poll() is None for consumer in self.consumers)

    def close(self) -> None:
        """Send the consumers home."""
        self.dismiss()
        os.close(self._writer)
        self._listener.join()
        self.queue.close()

    def _listen(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                event = msgspec.json.decode(line, type=Event)
                with self._arrived:
                    self._events.append(event)
                    self._heard(event)
                    self._arrived.notify_all()


@attrs.frozen
class Scenario:
    """What happens, and what the law promises of it."""

    title: str
    promised: tuple[str, ...]
    """The consumers' signals, in order; the producer's `enqueued` is left out."""
    act: Callable[[Stage], Result[object]]
    """Makes it happen; returns the handle of the task that it is about."""


# The acts ------------------------------------------------------------------------------------------------------------


def _simple(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.add(1, 2)
    if stage.wait_for(result.id, len(_RUNS)):
        stage.expect(result.get() == 3, "add(1, 2) is 3")  # noqa: PLR2004
    return result


def _later(stage: Stage) -> Result[object]:
    return stage.tasks.add.schedule((2, 3), delay=stage.delay)  # type: ignore[no-any-return]


def _flaky(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.flaky_task()
    if stage.wait_for(result.id, len(_FAILS)):
        try:
            result.get()
        except TaskException:
            result.reset()
            value = result.get(blocking=True, timeout=PATIENCE + stage.delay)
            stage.expect(value == "OK", "the second attempt returns OK")
        else:
            over = LIFECYCLE.state(result.state).kind is Kind.FINAL  # on a machine so busy that this came too late
            stage.expect(over, "the caller is told of the first failure")
    return result


def _revoked(stage: Stage) -> Result[object]:
    stage.tasks.add.revoke()
    result: Result[object] = stage.tasks.add(1, 2)
    stage.wait_for(result.id, 1)
    stage.tasks.add.restore()
    return result


def _revoked_later(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.add.schedule((2, 3), delay=3600)
    stage.wait_for(result.id, 1)
    result.revoke()
    return result


def _locked(stage: Stage) -> Result[object]:
    with stage.queue.lock_task("demo-lock"):
        result: Result[object] = stage.tasks.locked_task()
        stage.wait_for(result.id, 2)
    return result


def _expired(stage: Stage) -> Result[object]:
    return stage.tasks.add.schedule((1, 2), expires=0)  # type: ignore[no-any-return]


def _killed(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.slow_task(60.0)
    stage.wait_for(result.id, 1)
    stage.dismiss(signal.SIGKILL)
    stage.hire()
    return result


def _terminated(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.slow_task(60.0)
    stage.wait_for(result.id, 1)
    stage.dismiss(signal.SIGTERM)
    stage.hire()
    return result


def _frozen(stage: Stage) -> Result[object]:
    result: Result[object] = stage.tasks.slow_task(stage.lease)
    stage.wait_for(result.id, 1)
    (frozen,) = stage.consumers
    frozen.send_signal(signal.SIGSTOP)
    stage.hire()
    stage.wait_for(result.id, 5, PATIENCE + stage.lease)
    frozen.send_signal(signal.SIGCONT)  # its task finishes now, and nobody hears of it
    return result


def _call(name: str) -> Callable[[Stage], Result[object]]:
    return lambda stage: getattr(stage.tasks, name)()


_RUNS: Final = (SIGNAL_EXECUTING, SIGNAL_COMPLETE)
_FAILS: Final = (SIGNAL_EXECUTING, SIGNAL_ERROR, SIGNAL_RETRYING)
_PUT_BACK: Final = (SIGNAL_EXECUTING, SIGNAL_INTERRUPTED, SIGNAL_ENQUEUED)

SCENARIOS: Final = (
    Scenario("add(1, 2)", _RUNS, _simple),
    Scenario("add.schedule((2, 3), delay=…)", (SIGNAL_SCHEDULED, *_RUNS), _later),
    Scenario("fails once, is retried after a delay", (*_FAILS, SIGNAL_SCHEDULED, *_RUNS), _flaky),
    Scenario("fails once, is retried at once", (*_FAILS, SIGNAL_ENQUEUED, *_RUNS), _call("hasty_task")),
    Scenario("raises RetryTask", (SIGNAL_EXECUTING, SIGNAL_RETRYING, SIGNAL_ENQUEUED, *_RUNS), _call("polite_task")),
    Scenario("add.revoke(), then add(1, 2)", (SIGNAL_REVOKED,), _revoked),
    Scenario("revoked while it waits for its ETA", (SIGNAL_SCHEDULED, SIGNAL_REVOKED), _revoked_later),
    Scenario("a pre-execute hook raises CancelExecution", (SIGNAL_EXECUTING, SIGNAL_CANCELED), _call("unwanted")),
    Scenario("the lock is taken", (SIGNAL_EXECUTING, SIGNAL_LOCKED), _locked),
    Scenario("runs longer than its timeout", (SIGNAL_EXECUTING, SIGNAL_TIMEOUT), _call("endless_task")),
    Scenario("past its expiry", (SIGNAL_EXPIRED,), _expired),
    Scenario("its consumer is killed (kill -9)", (*_PUT_BACK, *_RUNS), _killed),
    Scenario("its consumer is told to stop (SIGTERM)", (*_PUT_BACK, *_RUNS), _terminated),
    Scenario("its consumer freezes past the lease, and wakes up", (*_PUT_BACK, *_RUNS), _frozen),
)


# Running them --------------------------------------------------------------------------------------------------------


@attrs.frozen
class Verdict:
    """How a scenario went."""

    title: str
    promised: tuple[str, ...]
    came: tuple[str, ...]
    seconds: float
    fault: str | None
    """What is wrong; ``None``: nothing."""


def _play(stage: Stage, scenario: Scenario) -> Verdict:
    """Run one scenario and judge it."""
    stage.faults.clear()
    started = monotonic()
    came: tuple[str, ...] = ()
    try:
        result = scenario.act(stage)
        stage.wait_for(result.id, len(scenario.promised), PATIENCE + stage.delay)
        stage.wait_for(result.id, len(scenario.promised) + 1, QUIET)  # no other may come
        came = stage.signals(result.id)
        if came != scenario.promised:
            stage.faults.append(f"promised: {', '.join(scenario.promised)}")
        try:
            check(came, from_start=False)
        except IllegalSequence as error:
            stage.faults.append(str(error))
        history = tuple(LIFECYCLE.state(record.state).signal for record in result.history())
        stage.expect(history == (LIFECYCLE.initial.signal, *came), f"the stored history is {', '.join(history)}")
    except LifecycleError as error:
        stage.faults.append(str(error))
    fault = "; ".join(stage.faults) or None
    return Verdict(scenario.title, scenario.promised, came, monotonic() - started, fault)


class _Teller:
    """Prints what happens, while it does."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, monotonic()

    def begin(self, scenario: Scenario) -> None:
        """A scenario starts."""
        self._began = monotonic()
        self._console.print(f"[bold]{escape(scenario.title)}[/]")

    def heard(self, event: Event) -> None:
        """A signal has arrived."""
        style = TERMINAL[next(state.kind for state in LIFECYCLE.states if state.signal == event.signal)]
        seconds = monotonic() - self._began
        self._console.print(f"  [dim]{seconds:6.2f} s  {event.id[-6:]}[/]  [{style}]{event.signal}[/]", highlight=False)

    def end(self, verdict: Verdict) -> None:
        """A scenario is over."""
        if verdict.fault is None:
            self._console.print("  [green]✓ as promised[/]\n")
        else:
            self._console.print(f"  [bold red]✗ {escape(verdict.fault)}[/]\n", highlight=False)


def run_demo(console: Console, *, real: bool = False, folder: Path | None = None, as_json: bool = False) -> bool:
    """Run all scenarios, print what happens, and return whether all was as promised.

    `real`: with the delays of the documentation; `folder`: keep the queue's file there; `as_json`: print the verdicts.
    """
    delay, lease = (10.0, 10.0) if real else (0.5, 1.5)
    say = Console(quiet=True) if as_json else console
    verdicts = []
    with contextlib.ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-demo-")))
        teller = _Teller(say)
        stage = Stage(where, delay=delay, lease=lease, heard=teller.heard)
        stack.callback(stage.close)
        say.print(
            f"A queue in [bold]{where / 'demo.db'}[/], a consumer of two workers in a process of its own.\n",
            soft_wrap=True,
        )
        stage.hire()
        for scenario in SCENARIOS:
            teller.begin(scenario)
            verdicts.append(_play(stage, scenario))
            teller.end(verdicts[-1])
    right = all(verdict.fault is None for verdict in verdicts)
    if as_json:
        sys.stdout.write(msgspec.json.encode([attrs.asdict(verdict) for verdict in verdicts]).decode() + "\n")
    elif right:
        count = sum(len(verdict.came) for verdict in verdicts)
        say.print(
            f"[bold green]✓[/] {len(verdicts)} scenarios, {count} signals: each in its place, as the table has it."
        )
    else:
        say.print(f"[bold red]✗[/] {sum(v.fault is not None for v in verdicts)} of {len(verdicts)} went wrong.")
    return right
