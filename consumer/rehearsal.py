"""The demo's scenarios once more, on a clock that stands still: every time the same, and recorded.

Each consumer is a real queue with a real worker, on a store that they share. Their bodies, heartbeats and housekeeping
take turns instead of running at once: one thread at a time, in a fixed order. Time passes only when nobody has anything
to do, and then at once.
"""

import contextlib
import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Final, cast

import attrs

from consumer.demo import PATIENCE, SCENARIOS, TASKS, Scenario, Setting, Stage
from consumer.recorder import HANDLERS, STORE, Recorder, Score
from lifecycle import LIFECYCLE, Kind, LifecycleError, Result, Task, TaskQueue
from lifecycle.diagrams.sequence import Arrow, Participant, Sequence
from lifecycle.engine import Function
from lifecycle.guard import Guard
from lifecycle.heartbeat import Heart
from lifecycle.storage import MemoryStorage, Storage
from lifecycle.storage.base import Channel
from lifecycle.testing import VirtualClock
from lifecycle.worker import Worker

__all__ = ["DELAY", "LEASE", "PROTOCOL", "Rehearsal", "rehearse"]

DELAY: Final = 10.0
"""Seconds, as in the documentation."""
LEASE: Final = 30.0
PRODUCER: Final = "producer"
OPERATOR: Final = "operator"
NOON: Final = 1_000_000_000.0
FOREVER: Final = float("inf")


class _Dead(BaseException):
    """Thrown in the thread of a consumer that was killed, when it comes back: it may do nothing any more."""


class _Pulse(Heart):
    """A heart without a thread: it beats when it is told to."""

    def keep(self, worker: str) -> None:
        """See `Heart`."""
        self._workers[worker] = self._workers.get(worker, 0) + 1

    def beat(self) -> None:
        """Prolong what is held."""
        if self._workers:
            self._beat(list(self._workers))

    @property
    def interval(self) -> float:
        """Seconds from one beat to the next."""
        return self._interval


class _Guard(Guard):
    """Of a body on the virtual clock: what is thrown strikes when the body has slept, or at once if it sleeps now."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.strike: tuple[float, type[BaseException]] | None = None
        """When, and what."""

    def arm(
        self, timeout: float | None, error: type[BaseException], cancel: Callable[[], object] | None = None
    ) -> None:
        """See `Guard`."""
        super().arm(None, error, cancel)
        self.strike = None if timeout is None else (self._clock.now() + timeout, error)

    def throw(self, error: type[BaseException], run: int | None = None, *, hard: bool = False) -> bool:
        """See `Guard`."""
        del run, hard
        self.strike = self._clock.now(), error
        return True


class _Steady(Worker):
    """A worker whose ways do not depend on how fast this machine is."""

    def _exchange(self, go_on: Callable[[], bool], now: float | None) -> None:
        self._handlers_took = 0.0
        super()._exchange(go_on, now)


class _Process:
    """A program that has imported the tasks: the producer, or a consumer."""

    def __init__(self, stage: "Rehearsal", name: str) -> None:
        self.name, self._stage = name, stage
        self.tasks = _imported()
        self.queue: TaskQueue = self.tasks.queue
        self.engine = engine = self.queue.engine
        engine.clock = stage.clock
        self.recorder = Recorder(stage.open(), stage.score, name, self._wait)
        engine.bare = engine.storage = cast("Storage", self.recorder)
        engine.heart = self.pulse = _Pulse(engine._beat, engine.lease / 3)
        self.next_beat = stage.clock.now() + self.pulse.interval

    def _wait(self, over: Callable[[], bool]) -> None:
        """Instead of waiting, let the others go on, until it is `over`."""
        while not over():
            if not self._stage.step(FOREVER):
                raise LifecycleError("nothing happens any more")


class _Consumer(_Process):
    """A consumer, with one worker. Its thread runs only while somebody waits in `go`."""

    def __init__(self, stage: "Rehearsal", name: str) -> None:
        super().__init__(stage, name)
        self.tasks.monotonic, self.tasks.sleep = stage.clock.now, self.sleep  # type: ignore[attr-defined]
        self.worker = _Steady(self.engine, f"{name}/1")
        self.worker.attempts.guard = self._guard = _Guard(stage.clock)
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
            store = self.engine.bare
            while not self.stopping:  # as a consumer's worker does
                stamp = store.stamp(Channel.WORK)
                self.worker.work(lambda: not self.stopping)
                if not self.stopping:
                    store.next_due()
                    store.wait(Channel.WORK, stamp, FOREVER)
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
            score.say(OPERATOR, self.name, "SIGTERM", Arrow.TELL)
            self.stopping = True
            self.worker.interrupt()
            self.go()
        elif number == signal.SIGSTOP:
            score.say(OPERATOR, self.name, "SIGSTOP", Arrow.TELL)
            self.frozen = True
        elif number == signal.SIGCONT:
            score.say(OPERATOR, self.name, "SIGCONT", Arrow.TELL)
            self.frozen = False

    def close(self) -> None:
        """End its thread; it may not touch the store any more."""
        if self._thread.is_alive():
            self.killed = True
            self.recorder.die(_Dead)
            self.go()
        self.worker.attempts.close()


class Rehearsal:
    """What the acts of the demo see of a `Stage`, on a virtual clock."""

    def __init__(self, open_store: Callable[[], Storage] | None = None, *, full: bool = False) -> None:
        """`open_store`: called by each process; default: one memory for all. `full`: record look-ups, too."""
        memory = MemoryStorage()
        self.open = open_store or (lambda: memory)
        self.clock = VirtualClock(NOON)
        self.score = Score(self.clock.now, full=full)
        self.delay, self.lease = DELAY, LEASE
        self.faults: list[str] = []
        self.consumers: list[_Consumer] = []
        self._all: list[_Consumer] = []
        self._heard: list[tuple[str, str]] = []
        self._producer = _Process(self, PRODUCER)
        self.tasks, self.queue = self._producer.tasks, self._producer.queue
        self._store = self.open()
        self.hire()

    # What acts call ------------------------------------------------------------------------------------------------

    def hire(self) -> _Consumer:
        """Another consumer."""
        consumer = _Consumer(self, f"consumer{len(self._all) + 1}")
        if self._all:
            self.score.say(OPERATOR, consumer.name, "starts", Arrow.TELL)
        self._all.append(consumer)
        self.consumers.append(consumer)
        return consumer

    def dismiss(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End all consumers with a signal."""
        for consumer in self.consumers:
            consumer.send_signal(how)
        self.consumers.clear()

    def expect(self, kept: bool, what: str) -> None:
        """Note a fault unless `kept`."""
        if not kept:
            self.faults.append(f"not so: {what}")

    def wait_for(self, task_id: str, count: int, patience: float = PATIENCE) -> bool:
        """Let the world go on until so many signals of a task have come, or so many of its seconds are over."""
        until = self.clock.now() + patience
        while len(self.signals(task_id)) < count:
            if not self.step(until):
                return False
        return True

    def signals(self, task_id: str) -> tuple[str, ...]:
        """What handlers heard of a task."""
        return tuple(signal for one, signal in self._heard if one == task_id)

    def hear(self, task_id: str, signal: str) -> None:
        """A handler was called."""
        self._heard.append((task_id, signal))

    # The world -----------------------------------------------------------------------------------------------------

    def step(self, until: float) -> bool:
        """Let one of those who have something to do now do it; else let time pass, but not beyond `until`.

        False if there is nothing to wait for.
        """
        now = self.clock.now()
        for consumer in self._all:
            if consumer.alive and self._turn(consumer, now):
                return True
        moments = [moment for moment in self._moments() if moment > now]
        moment = min(moments, default=FOREVER)
        if moment > until or moment == FOREVER:
            if until != FOREVER:
                self.clock.set(until)
            return False
        self.clock.set(moment)
        return True

    def _turn(self, consumer: _Consumer, now: float) -> bool:
        """Has it done anything?"""
        if consumer.next_beat <= now:
            consumer.next_beat = now + consumer.pulse.interval
            consumer.pulse.beat()
            return True
        if consumer.wakes is not None:
            if consumer.wakes > now:
                return False
            consumer.go()
            return True
        if any(lease <= now for lease in self._leases()) and consumer.engine.recover():
            return True
        due = self._store.next_due()
        if due is None or due > now:
            return False
        before = len(self.score.steps)
        consumer.go()
        return len(self.score.steps) > before

    def _leases(self) -> list[float]:
        """When what runs is up for recovery."""
        running = self._store.tasks([state.name for state in LIFECYCLE.of_kind(Kind.RUNNING)])
        return [task.lease for task in running if task.lease is not None]

    def _moments(self) -> Iterator[float]:
        """When something may happen."""
        for consumer in self._all:
            if consumer.alive and consumer.wakes is not None:
                yield consumer.wakes
                yield consumer.next_beat
        yield from self._leases()
        due = self._store.next_due()
        if due is not None:
            yield due

    def settle_down(self) -> None:
        """Let the world go on until nothing happens any more."""
        while self.step(FOREVER):
            pass

    def close(self) -> None:
        """End what still runs."""
        for consumer in self._all:
            consumer.close()

    def sequence(self, title: str, about: str) -> Sequence:
        """What was recorded."""
        first, *later = (consumer.name for consumer in self._all)
        said = {
            name for step in self.score.steps for name in (getattr(step, "source", ""), getattr(step, "target", ""))
        }
        everybody = [
            Participant(OPERATOR, OPERATOR, person=True),
            Participant(PRODUCER, PRODUCER),
            Participant(STORE, STORE),
            Participant(first, "consumer 1" if later else "consumer"),
            Participant(HANDLERS, HANDLERS),
            *(Participant(name, f"consumer {number}", late=True) for number, name in enumerate(later, 2)),
        ]
        there = [one for one in everybody if one.name in said]
        return Sequence(title, about, tuple(there), tuple(self.score.steps))


def rehearse(scenario: Scenario, open_store: Callable[[], Storage] | None = None, *, full: bool = False) -> Sequence:
    """Play a scenario, and return what was recorded. The same each time, whatever the store.

    Raises `LifecycleError` if the signals were not those that it promises.
    """
    stage = Rehearsal(open_store, full=full)
    try:
        with _quiet():
            result: Result[object] = scenario.act(cast("Stage", stage))  # of which acts use what this one has
            stage.wait_for(result.id, len(scenario.promised), FOREVER)
            stage.settle_down()
        came = stage.signals(result.id)
        if came != scenario.promised or stage.faults:
            raise LifecycleError(f"{scenario.title}: {', '.join([*came, *stage.faults])}")
        return stage.sequence(scenario.title, f"Signals: {', '.join(came)}.")
    finally:
        stage.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What goes wrong on purpose is no news."""
    logger = logging.getLogger("lifecycle")
    before, logger.propagate = logger.propagate, False
    silence = logging.NullHandler()
    logger.addHandler(silence)
    try:
        yield
    finally:
        logger.removeHandler(silence)
        logger.propagate = before


def _through(stage: Stage) -> Result[object]:
    """Everything that a task's way asks of its store: held, released, kept alive, recovered, settled, read."""
    announce = cast("Rehearsal", stage).score.announce
    stage.queue.signal()(lambda signal, task: announce(PRODUCER, signal))  # noqa: ARG005
    result: Result[object] = stage.tasks.slow_task(2 * DELAY)
    stage.wait_for(result.id, 2, LEASE / 3)  # until the heart has beaten
    stage.dismiss(signal.SIGKILL)
    stage.hire()
    stage.expect(result.get(blocking=True) == "done", "the second attempt returns")
    return result


PROTOCOL: Final = Scenario("The storage protocol, as one task's life uses it", SCENARIOS[-1].promised, _through)
"""For a picture of who calls what, and when; not one of the demo's."""


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
