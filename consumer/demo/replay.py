"""The demo's scenarios once more, on a clock that stands still: every time the same, and recorded.

Each consumer is a real queue with a real worker, on a store that they share. Their bodies, heartbeats and housekeeping
take turns instead of running at once: one thread at a time, in a fixed order. Time passes only when nobody has anything
to do, and then at once.
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Final, cast

from lifecycle.consumer.demo.demo import PATIENCE, SCENARIOS, Scenario, Stage
from lifecycle.consumer.demo.replay_processes import DELAY, FOREVER, LEASE, OPERATOR, Consumer, Process
from lifecycle.consumer.demo.storage_tracer import HANDLERS, STORE, StepLog
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.diagrams.sequence import Arrow, Participant, Sequence
from lifecycle.errors import LifecycleError
from lifecycle.result import Result
from lifecycle.storage import MemoryStorage, Storage
from lifecycle.virtual_clock import VirtualClock

__all__ = ["PROTOCOL", "Rehearsal", "rehearse"]

PRODUCER: Final = "producer"
NOON: Final = 1_000_000_000.0


class Rehearsal:
    """What the acts of the demo see of a `Stage`, on a virtual clock."""

    def __init__(self, open_store: Callable[[], Storage] | None = None, *, full: bool = False) -> None:
        """`open_store`: called by each process; default: one memory for all. `full`: record look-ups, too."""
        memory = MemoryStorage()
        self._open = open_store or (lambda: memory)
        self.clock = VirtualClock(NOON)
        self.score = StepLog(self.clock.now, full=full)
        self.delay, self.lease = DELAY, LEASE
        self.faults: list[str] = []
        self.consumers: list[Consumer] = []
        self._all: list[Consumer] = []
        self._heard: list[tuple[str, str]] = []
        self._producer = Process(self, PRODUCER)
        self.tasks, self.queue = self._producer.tasks, self._producer.queue
        self._store = self.open()
        self.hire()

    def open(self) -> Storage:
        """The store, as another process opens it."""
        return self._open()

    # What acts call ------------------------------------------------------------------------------------------------

    def hire(self) -> Consumer:
        """Another consumer."""
        consumer = Consumer(self, f"consumer{len(self._all) + 1}")
        if self._all:
            self.score.say(OPERATOR, consumer.name, "starts", Arrow.SEND)
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

    def _turn(self, consumer: Consumer, now: float) -> bool:
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
