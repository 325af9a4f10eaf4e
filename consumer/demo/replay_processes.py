"""The processes of a replay: a producer, and consumers whose threads run one at a time."""

import importlib.util
import os
import signal
from collections.abc import Callable
from types import ModuleType
from typing import Final, Protocol, cast

import attrs

from lifecycle.consumer.demo.environment import TASKS_MODULE, DemoSettings, SignalEvent
from lifecycle.consumer.demo.storage_tracer import StepLog, StorageTracer
from lifecycle.core.task import Task
from lifecycle.diagrams.sequence import Arrow
from lifecycle.errors import LifecycleError
from lifecycle.execution.interruption import Interrupter
from lifecycle.execution.registry import Function
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker
from lifecycle.queue import TaskQueue
from lifecycle.storage import Storage
from lifecycle.storage.base import Channel
from lifecycle.testing.simulation.stepping import ManualHeartbeat, ProcessTerminated, SimulatedProcess
from lifecycle.virtual_clock import VirtualClock

__all__ = ["DELAY_SECONDS", "FOREVER", "LEASE_SECONDS", "OPERATOR", "ReplayConsumer", "ReplayProcess", "ReplayWorld"]

DELAY_SECONDS: Final = 10.0
"""The delay of the documentation."""
LEASE_SECONDS: Final = 30.0
OPERATOR: Final = "operator"
FOREVER: Final = float("inf")


class ReplayWorld(Protocol):
    """The part of `Replay` that its processes use."""

    clock: VirtualClock
    step_log: StepLog
    faults: list[str]
    delay: float
    """Seconds."""
    lease: float
    """Seconds."""

    def open(self) -> Storage:
        """Open the store, as another process does."""
        ...

    def step(self, until: float) -> bool:
        """Let one other process run, or time pass; return False if nothing is left to do."""
        ...

    def record_signal(self, event: SignalEvent) -> None:
        """Record a call of a handler."""
        ...


class _ReplayInterrupter(Interrupter):
    """Interrupts a function on the virtual clock: the exception is raised in `ReplayConsumer.sleep`."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.pending: tuple[float, type[BaseException]] | None = None
        """The time of the next exception, and the exception."""

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """Raise `error` in the function after `timeout` seconds."""
        super().arm(None, error, cancel)
        self.pending = None if timeout is None else (self._clock.now() + timeout, error)

    def throw(self, error: type[BaseException], run: int | None = None, *, force: bool = False) -> bool:
        """Raise `error` in the function at once."""
        del run, force
        self.pending = self._clock.now(), error
        return True


class ReplayProcess:
    """A process that has imported the tasks: the producer, or a consumer."""

    def __init__(self, replay: ReplayWorld, name: str) -> None:
        self.name, self._replay = name, replay
        self.tasks = _import_tasks(replay.lease, replay.delay)
        self.queue: TaskQueue = self.tasks.queue
        self.engine = engine = self.queue.engine
        self.tracer = StorageTracer(replay.open(), replay.step_log, name, self._wait)
        self.heartbeat = ManualHeartbeat(engine.prolong_leases)
        engine.replace_environment(
            attrs.evolve(
                engine.environment,
                storage=cast("Storage", self.tracer),
                clock=replay.clock,
                monotonic=replay.clock.now,
                process_name=lambda: name,
                lease_keeper=self.heartbeat,
            )
        )
        self.next_heartbeat = replay.clock.now() + engine.lease / 3

    def _wait(self, over: Callable[[], bool]) -> None:
        """Let other processes run until the wait is `over`."""
        while not over():
            if not self._replay.step(FOREVER):
                raise LifecycleError("the replay waits, and no process can run")


class ReplayConsumer(ReplayProcess):
    """A consumer with one worker, in a simulated process."""

    def __init__(self, replay: ReplayWorld, name: str, pid: int) -> None:
        """`pid`: its number in the demo's lines."""
        super().__init__(replay, name)
        self.pid = pid
        self.tasks.monotonic, self.tasks.sleep = replay.clock.now, self.sleep  # type: ignore[attr-defined]
        runner = TaskRunner(self.engine)
        runner.interrupter = self._interrupter = _ReplayInterrupter(replay.clock)
        self.worker = Worker(self.engine, f"{name}/1", runner=runner)
        self.queue.signal()(self._record_signal)
        for function, entry in self.engine.functions.items():
            self.engine.functions[function] = attrs.evolve(entry, call=self._traced(entry))
        self.heartbeat.keep(self.worker.name)
        self.sleeps_until: float | None = None
        """The time at which the running function ends its sleep; ``None`` if no function runs."""
        self.process = SimulatedProcess(name, self._run_worker, replay.faults.append)

    # In its own thread --------------------------------------------------------------------------------------------

    def _run_worker(self, process: SimulatedProcess) -> None:
        store = self.engine.storage
        while not process.stopping:  # the loop of a consumer's worker
            generation = store.generation(Channel.WORK)
            self.worker.work(lambda: not process.stopping)
            if not process.stopping:
                store.next_due()
                store.wait(Channel.WORK, generation, FOREVER)

    def _wait(self, over: Callable[[], bool]) -> None:
        del over  # the next step comes when it is
        self.process.pause()

    def sleep(self, seconds: float) -> None:
        """Sleep on the virtual clock: the `sleep` of the demo's tasks."""
        pending = self._interrupter.pending
        now = self._replay.clock.now()
        self.sleeps_until = min(now + seconds, pending[0] if pending is not None else FOREVER)
        self.process.pause()
        self.sleeps_until = None
        pending = self._interrupter.pending
        if pending is not None and pending[0] <= self._replay.clock.now():
            self._interrupter.pending = None
            raise pending[1]

    def _record_signal(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        self._replay.record_signal(self.tasks.signal_event(signal, task, exc, self.pid, self._replay.clock.now()))
        self._replay.step_log.add_signal(self.name, signal)

    def _traced(self, function: Function) -> Callable[..., object]:
        short_name = function.name.rpartition(".")[2]

        def traced(*args: object, **kwargs: object) -> object:
            step_log = self._replay.step_log
            step_log.add_note(self.name, f"{short_name} begins")
            step_count = len(step_log.steps)

            def add_end(text: str) -> None:
                if len(step_log.steps) == step_count:
                    step_log.steps.pop()
                step_log.add_note(self.name, f"{short_name} {text}")

            try:
                value = function.call(*args, **kwargs)
            except ProcessTerminated:
                raise
            except BaseException as error:
                add_end(f"raises {type(error).__name__}")
                raise
            add_end(f"returns {value!r}")
            return value

        return traced

    # In other threads ---------------------------------------------------------------------------------------------

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, as an operator does."""
        step_log = self._replay.step_log
        if number == signal.SIGKILL:
            step_log.add_call(OPERATOR, self.name, "kill -9", Arrow.KILL)
            self.process.crashed = True
        elif number == signal.SIGTERM:
            step_log.add_call(OPERATOR, self.name, "SIGTERM", Arrow.SEND)
            self.process.stopping = True
            self.worker.interrupt()
            self.process.step()
        elif number == signal.SIGSTOP:
            step_log.add_call(OPERATOR, self.name, "SIGSTOP", Arrow.SEND)
            self.process.frozen = True
        elif number == signal.SIGCONT:
            step_log.add_call(OPERATOR, self.name, "SIGCONT", Arrow.SEND)
            self.process.frozen = False

    def close(self) -> None:
        """End the thread, without another call of the store."""
        self.tracer.fail_all_calls(ProcessTerminated)
        self.process.terminate()
        self.worker.runner.close()


def _import_tasks(lease: float, delay: float) -> ModuleType:
    """Import the demo's tasks once more, as another process does."""
    settings = DemoSettings("memory://", lease, delay)
    before = dict(os.environ)
    spec = importlib.util.find_spec(TASKS_MODULE)
    if spec is None or spec.loader is None:
        raise LifecycleError(f"there is no module {TASKS_MODULE}")
    module = importlib.util.module_from_spec(spec)
    os.environ |= settings.environment()
    try:
        spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module
