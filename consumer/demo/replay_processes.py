"""Who plays in a rehearsal: a producer, and consumers whose threads run one at a time, when they are told to."""

import contextlib
import importlib.util
import os
import signal
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Final, Protocol, cast

import attrs

from lifecycle.consumer.demo.demo import TASKS, Setting
from lifecycle.consumer.demo.storage_tracer import StepLog, StorageTracer
from lifecycle.core.task import Task
from lifecycle.diagrams.sequence import Arrow
from lifecycle.errors import LifecycleError
from lifecycle.execution.heartbeat import Heartbeat
from lifecycle.execution.interruption import Interrupter
from lifecycle.execution.registry import Function
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker
from lifecycle.queue import TaskQueue
from lifecycle.storage import Storage
from lifecycle.storage.base import Channel
from lifecycle.virtual_clock import VirtualClock

__all__ = ["DELAY", "FOREVER", "LEASE", "OPERATOR", "Consumer", "Process", "World"]

DELAY: Final = 10.0
"""Seconds, as in the documentation."""
LEASE: Final = 30.0
OPERATOR: Final = "operator"
FOREVER: Final = float("inf")


class World(Protocol):
    """What they play in."""

    clock: VirtualClock
    score: StepLog

    def open(self) -> Storage:
        """The store, as another process opens it."""
        ...

    def step(self, until: float) -> bool:
        """Let the others go on; False if there is nothing to wait for."""
        ...

    def hear(self, task_id: str, signal: str) -> None:
        """A handler was called."""
        ...


class _Dead(BaseException):
    """Thrown in the thread of a consumer that was killed, when it comes back: it may do nothing any more."""


class _Pulse(Heartbeat):
    """A heart without a thread: it beats when it is told to."""

    def keep(self, worker: str) -> None:
        """See `Heartbeat`."""
        self._workers[worker] = self._workers.get(worker, 0) + 1

    def beat(self) -> None:
        """Prolong what is held."""
        if self._workers:
            self._beat(list(self._workers))

    @property
    def interval(self) -> float:
        """Seconds from one beat to the next."""
        return self._interval


class _Guard(Interrupter):
    """Of a body on the virtual clock: what is thrown strikes when the body has slept, or at once if it sleeps now."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.strike: tuple[float, type[BaseException]] | None = None
        """When, and what."""

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """See `Interrupter`."""
        super().arm(None, error, cancel)
        self.strike = None if timeout is None else (self._clock.now() + timeout, error)

    def throw(self, error: type[BaseException], run: int | None = None, *, force: bool = False) -> bool:
        """See `Interrupter`."""
        del run, force
        self.strike = self._clock.now(), error
        return True


class Process:
    """A program that has imported the tasks: the producer, or a consumer."""

    def __init__(self, stage: World, name: str) -> None:
        self.name, self._stage = name, stage
        self.tasks = _imported()
        self.queue: TaskQueue = self.tasks.queue
        self.engine = engine = self.queue.engine
        self.recorder = StorageTracer(stage.open(), stage.score, name, self._wait)
        self.pulse = _Pulse(engine.prolong_leases, engine.lease / 3)
        engine.replace_environment(
            attrs.evolve(
                engine.environment,
                storage=cast("Storage", self.recorder),
                clock=stage.clock,
                monotonic=stage.clock.now,
                lease_keeper=self.pulse,
            )
        )
        self.next_beat = stage.clock.now() + self.pulse.interval

    def _wait(self, over: Callable[[], bool]) -> None:
        """Instead of waiting, let the others go on, until it is `over`."""
        while not over():
            if not self._stage.step(FOREVER):
                raise LifecycleError("nothing happens any more")


class Consumer(Process):
    """A consumer, with one worker. Its thread runs only while somebody waits in `go`."""

    def __init__(self, stage: World, name: str) -> None:
        super().__init__(stage, name)
        self.tasks.monotonic, self.tasks.sleep = stage.clock.now, self.sleep  # type: ignore[attr-defined]
        runner = TaskRunner(self.engine)
        runner.interrupter = self._guard = _Guard(stage.clock)
        self.worker = Worker(self.engine, f"{name}/1", runner=runner)
        self.queue.signal()(self._hear)
        for function, entry in self.engine.functions.items():
            self.engine.functions[function] = attrs.evolve(entry, call=self._telling(entry))
        self.pulse.keep(self.worker.name)
        self.wakes: float | None = None
        """When its body has slept enough; ``None``: it runs none."""
        self.frozen = self.killed = self.stopping = False
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, name=name, daemon=True)
        self._thread.start()

    # What its thread does ------------------------------------------------------------------------------------------

    def _live(self) -> None:
        with contextlib.suppress(_Dead):
            self._go.acquire()
            store = self.engine.storage
            while not self.stopping:  # as a consumer's worker does
                generation = store.generation(Channel.WORK)
                self.worker.work(lambda: not self.stopping)
                if not self.stopping:
                    store.next_due()
                    store.wait(Channel.WORK, generation, FOREVER)
        self._paused.release()

    def _wait(self, over: Callable[[], bool]) -> None:
        del over  # whoever lets it go on again has looked
        self._pause()

    def _pause(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self.killed:
            raise _Dead

    def sleep(self, seconds: float) -> None:
        """What a body calls to let time pass."""
        strike = self._guard.strike
        now = self._stage.clock.now()
        self.wakes = min(now + seconds, strike[0] if strike is not None else FOREVER)
        self._pause()
        self.wakes = None
        strike = self._guard.strike
        if strike is not None and strike[0] <= self._stage.clock.now():
            self._guard.strike = None
            raise strike[1]

    def _hear(self, signal: str, task: Task, exc: BaseException | None = None) -> None:
        del exc
        self._stage.hear(task.id, signal)
        self._stage.score.announce(self.name, signal)

    def _telling(self, function: Function) -> Callable[..., object]:
        short = function.name.rpartition(".")[2]

        def told(*args: object, **kwargs: object) -> object:
            score = self._stage.score
            score.note(self.name, f"{short} begins")
            begun = len(score.steps)

            def end(how: str) -> None:
                if len(score.steps) == begun:
                    score.steps.pop()
                score.note(self.name, f"{short} {how}")

            try:
                value = function.call(*args, **kwargs)
            except _Dead:
                raise
            except BaseException as error:
                end(f"raises {type(error).__name__}")
                raise
            end(f"returns {value!r}")
            return value

        return told

    # What others do with it ----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Can it do anything?"""
        return self._thread.is_alive() and not self.frozen and not self.killed

    def go(self) -> None:
        """Let it run until it has nothing to do, or its body sleeps."""
        self._go.release()
        self._paused.acquire()
        if self.stopping or self.killed:
            self._thread.join()

    def send_signal(self, number: int) -> None:
        """What an operator does to a process."""
        score = self._stage.score
        if number == signal.SIGKILL:
            score.say(OPERATOR, self.name, "kill -9", Arrow.KILL)
            self.killed = True
        elif number == signal.SIGTERM:
            score.say(OPERATOR, self.name, "SIGTERM", Arrow.SEND)
            self.stopping = True
            self.worker.interrupt()
            self.go()
        elif number == signal.SIGSTOP:
            score.say(OPERATOR, self.name, "SIGSTOP", Arrow.SEND)
            self.frozen = True
        elif number == signal.SIGCONT:
            score.say(OPERATOR, self.name, "SIGCONT", Arrow.SEND)
            self.frozen = False

    def close(self) -> None:
        """End its thread; it may not touch the store any more."""
        if self._thread.is_alive():
            self.killed = True
            self.recorder.die(_Dead)
            self.go()
        self.worker.runner.close()


def _imported() -> ModuleType:
    """The demo's tasks, imported as a process of its own would."""
    setting = Setting("memory://", LEASE, DELAY)
    before = dict(os.environ)
    spec = importlib.util.find_spec(TASKS)
    if spec is None or spec.loader is None:
        raise LifecycleError(f"there is no module {TASKS}")
    module = importlib.util.module_from_spec(spec)
    os.environ |= setting.environment()
    try:
        spec.loader.exec_module(module)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return module
