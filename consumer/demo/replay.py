"""The replay: the demo's scenarios on a virtual clock, recorded, and the same every time.

Each consumer is a real queue with a real worker, on a shared store. Functions, heartbeats and recovery run one at a
time, in a fixed order. The clock advances only if no process can run.
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Final, cast

from lifecycle.consumer.demo.demo import SCENARIOS, SIGNAL_TIMEOUT_SECONDS, DemoEnvironment, Scenario
from lifecycle.consumer.demo.replay_processes import (
    DELAY_SECONDS,
    FOREVER,
    LEASE_SECONDS,
    OPERATOR,
    ReplayConsumer,
    ReplayProcess,
)
from lifecycle.consumer.demo.storage_tracer import HANDLERS, STORE, StepLog
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.diagrams.sequence import Arrow, Participant, Sequence
from lifecycle.errors import LifecycleError
from lifecycle.result import Result
from lifecycle.storage import MemoryStorage, Storage
from lifecycle.virtual_clock import VirtualClock

__all__ = ["STORAGE_PROTOCOL", "Replay", "record_scenario"]

PRODUCER: Final = "producer"
START_TIME: Final = 1_000_000_000.0
"""UTC seconds at which the virtual clock begins."""


class Replay:
    """A `DemoEnvironment` on a virtual clock, with the attributes and methods that scenarios use."""

    def __init__(self, open_store: Callable[[], Storage] | None = None, *, full: bool = False) -> None:
        """`open_store`: called by each process; default: one `MemoryStorage` for all. `full`: record reads, too."""
        memory = MemoryStorage()
        self._open = open_store or (lambda: memory)
        self.clock = VirtualClock(START_TIME)
        self.step_log = StepLog(self.clock.now, with_reads=full)
        self.delay, self.lease = DELAY_SECONDS, LEASE_SECONDS
        self.faults: list[str] = []
        self.consumers: list[ReplayConsumer] = []
        self._all_consumers: list[ReplayConsumer] = []
        self._signals: list[tuple[str, str]] = []
        self._producer = ReplayProcess(self, PRODUCER)
        self.tasks, self.queue = self._producer.tasks, self._producer.queue
        self._store = self.open()
        self.start_consumer()

    def open(self) -> Storage:
        """Open the store, as another process does."""
        return self._open()

    # For scenarios ------------------------------------------------------------------------------------------------

    def start_consumer(self) -> ReplayConsumer:
        """Start another consumer."""
        consumer = ReplayConsumer(self, f"consumer{len(self._all_consumers) + 1}")
        if self._all_consumers:
            self.step_log.add_call(OPERATOR, consumer.name, "starts", Arrow.SEND)
        self._all_consumers.append(consumer)
        self.consumers.append(consumer)
        return consumer

    def stop_consumers(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all consumers with a signal."""
        for consumer in self.consumers:
            consumer.send_signal(number)
        self.consumers.clear()

    def expect(self, condition: bool, text: str) -> None:
        """Add a fault unless the condition, described by `text`, is true."""
        if not condition:
            self.faults.append(f"not so: {text}")

    def wait_for(self, task_id: str, count: int, timeout: float = SIGNAL_TIMEOUT_SECONDS) -> bool:
        """Run until `count` signals of a task were sent, or until `timeout` virtual seconds have passed."""
        until = self.clock.now() + timeout
        while len(self.signals(task_id)) < count:
            if not self.step(until):
                return False
        return True

    def signals(self, task_id: str) -> tuple[str, ...]:
        """Return the signals of a task that handlers received."""
        return tuple(signal for one, signal in self._signals if one == task_id)

    def record_signal(self, task_id: str, signal: str) -> None:
        """Record a call of a handler."""
        self._signals.append((task_id, signal))

    # Running -------------------------------------------------------------------------------------------------------

    def step(self, until: float) -> bool:
        """Let one process that has something to do run; if there is none, advance the clock, at most to `until`.

        Return False if nothing will ever happen.
        """
        now = self.clock.now()
        for consumer in self._all_consumers:
            if consumer.process.can_run and self._run_one(consumer, now):
                return True
        times = [time for time in self._times() if time > now]
        time = min(times, default=FOREVER)
        if time > until or time == FOREVER:
            if until != FOREVER:
                self.clock.set(until)
            return False
        self.clock.set(time)
        return True

    def _run_one(self, consumer: ReplayConsumer, now: float) -> bool:
        """Let a consumer run if it has something to do; return whether it did something."""
        if consumer.next_heartbeat <= now:
            consumer.next_heartbeat = now + consumer.engine.lease / 3
            consumer.heartbeat.beat()
            return True
        if consumer.sleeps_until is not None:
            if consumer.sleeps_until > now:
                return False
            consumer.process.step()
            return True
        if any(lease <= now for lease in self._leases()) and consumer.engine.recover():
            return True
        due = self._store.next_due()
        if due is None or due > now:
            return False
        before = len(self.step_log.steps)
        consumer.process.step()
        return len(self.step_log.steps) > before

    def _leases(self) -> list[float]:
        """Return the ends of the leases of running tasks."""
        running = self._store.tasks([state.name for state in LIFECYCLE.of_kind(Kind.RUNNING)])
        return [task.lease for task in running if task.lease is not None]

    def _times(self) -> Iterator[float]:
        """Yield the times at which a process may have something to do."""
        for consumer in self._all_consumers:
            if consumer.process.can_run and consumer.sleeps_until is not None:
                yield consumer.sleeps_until
                yield consumer.next_heartbeat
        yield from self._leases()
        due = self._store.next_due()
        if due is not None:
            yield due

    def run_until_idle(self) -> None:
        """Run until no process has anything left to do."""
        while self.step(FOREVER):
            pass

    def close(self) -> None:
        """End all consumers."""
        for consumer in self._all_consumers:
            consumer.close()

    def sequence(self, title: str, about: str) -> Sequence:
        """Return the recorded steps as a sequence diagram."""
        first, *later = (consumer.name for consumer in self._all_consumers)
        active = {
            name for step in self.step_log.steps for name in (getattr(step, "source", ""), getattr(step, "target", ""))
        }
        participants = [
            Participant(OPERATOR, OPERATOR, person=True),
            Participant(PRODUCER, PRODUCER),
            Participant(STORE, STORE),
            Participant(first, "consumer 1" if later else "consumer"),
            Participant(HANDLERS, HANDLERS),
            *(Participant(name, f"consumer {number}", late=True) for number, name in enumerate(later, 2)),
        ]
        shown = [one for one in participants if one.name in active]
        return Sequence(title, about, tuple(shown), tuple(self.step_log.steps))


def record_scenario(
    scenario: Scenario, open_store: Callable[[], Storage] | None = None, *, full: bool = False
) -> Sequence:
    """Replay a scenario and return its sequence diagram: the same each time, on any store.

    Raises `LifecycleError` if the signals are not the promised ones.
    """
    replay = Replay(open_store, full=full)
    try:
        with _without_log():
            result: Result[object] = scenario.run(
                cast("DemoEnvironment", replay)
            )  # scenarios use only what a Replay has, too
            replay.wait_for(result.id, len(scenario.promised), FOREVER)
            replay.run_until_idle()
        came = replay.signals(result.id)
        if came != scenario.promised or replay.faults:
            raise LifecycleError(f"{scenario.title}: {', '.join([*came, *replay.faults])}")
        return replay.sequence(scenario.title, f"Signals: {', '.join(came)}.")
    finally:
        replay.close()


@contextlib.contextmanager
def _without_log() -> Iterator[None]:
    """Drop log lines: the scenarios fail on purpose."""
    logger = logging.getLogger("lifecycle")
    before, logger.propagate = logger.propagate, False
    null_handler = logging.NullHandler()
    logger.addHandler(null_handler)
    try:
        yield
    finally:
        logger.removeHandler(null_handler)
        logger.propagate = before


def _storage_protocol(replay: DemoEnvironment) -> Result[object]:
    """Use the whole storage protocol for one task: hold, release, extend, recover, settle, read."""
    add_signal = cast("Replay", replay).step_log.add_signal
    replay.queue.signal()(lambda signal, task, exc=None: add_signal(PRODUCER, signal))  # noqa: ARG005
    result: Result[object] = replay.tasks.slow_task(2 * DELAY_SECONDS)
    replay.wait_for(result.id, 2, LEASE_SECONDS / 3)  # until the first heartbeat
    replay.stop_consumers(signal.SIGKILL)
    replay.start_consumer()
    replay.expect(result.get(blocking=True) == "done", "the second attempt returns")
    return result


STORAGE_PROTOCOL: Final = Scenario(
    "The storage protocol, as used for one task", SCENARIOS[-1].promised, _storage_protocol
)
"""A scenario for the picture of the storage protocol; the demo does not run it."""
