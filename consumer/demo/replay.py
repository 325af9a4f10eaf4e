"""The replay: the demo's scenarios on a virtual clock, recorded, and the same every time.

Each consumer is a real queue with a real worker, on a shared store. Functions, heartbeats and recovery run one at a
time, in a fixed order. The clock advances only if no process can run.
"""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Final, cast

from lifecycle.consumer.demo.environment import (
    SIGNAL_TIMEOUT_SECONDS,
    DemoEnvironment,
    Observer,
    RefusalEvent,
    RefusalHandler,
    SignalEvent,
)
from lifecycle.consumer.demo.replay_processes import (
    DELAY_SECONDS,
    FOREVER,
    LEASE_SECONDS,
    OPERATOR,
    ReplayConsumer,
    ReplayProcess,
)
from lifecycle.consumer.demo.scenarios import SCENARIOS, Scenario
from lifecycle.consumer.demo.storage_tracer import HANDLERS, STORE, StepLog
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.diagrams.sequence import Arrow, Participant, Sequence
from lifecycle.errors import LifecycleError
from lifecycle.execution.signals import SIGNAL_ENQUEUED
from lifecycle.result import Result
from lifecycle.storage import MemoryStorage, Storage
from lifecycle.virtual_clock import VirtualClock

__all__ = ["PERIODIC_TICK", "STORAGE_PROTOCOL", "Replay", "record_scenario"]

PRODUCER: Final = "producer"
START_TIME: Final = 1_000_000_000.0
"""UTC seconds at which the virtual clock begins."""


class Replay:
    """A `DemoEnvironment` on a virtual clock, with the attributes and methods that scenarios use."""

    def __init__(
        self,
        open_store: Callable[[], Storage] | None = None,
        *,
        full: bool = False,
        observer: Observer | None = None,
        delay: float = DELAY_SECONDS,
        lease: float = LEASE_SECONDS,
        first_pid: int = 4711,
    ) -> None:
        """Make an empty queue and one consumer.

        :param open_store: called by each process; default: one `MemoryStorage` for all.
        :param full: record reads, too.
        :param delay: seconds.
        :param lease: seconds.
        :param first_pid: the pid of the first consumer; the others have the next ones.
        """
        memory = MemoryStorage()
        self._open = open_store or (lambda: memory)
        self.clock = VirtualClock(START_TIME)
        self.step_log = StepLog(self.clock.now, with_reads=full)
        self.delay, self.lease = delay, lease
        self.now, self.began_at = self.clock.now, self.clock.now()
        self._observer, self._first_pid = observer, first_pid
        self.faults: list[str] = []
        self.consumers: list[ReplayConsumer] = []
        self._all_consumers: list[ReplayConsumer] = []
        self._events: list[SignalEvent] = []
        self._refusals: list[RefusalEvent] = []
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
        count = len(self._all_consumers)
        consumer = ReplayConsumer(self, f"consumer{count + 1}", self._first_pid + count)
        if self._all_consumers:
            if self._observer is not None:
                self._observer.on_action(consumer.pid, None, self.now())
            self.step_log.add_call(OPERATOR, consumer.name, "starts", Arrow.SEND)
        self._all_consumers.append(consumer)
        self.consumers.append(consumer)
        return consumer

    def stop_consumers(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all consumers with a signal."""
        for consumer in self.consumers:
            self.send_signal(consumer, number)
        self.consumers.clear()

    def send_signal(self, consumer: ReplayConsumer, number: signal.Signals) -> None:
        """Send a signal to a consumer."""
        if self._observer is not None:
            self._observer.on_action(consumer.pid, number, self.now())
        consumer.send_signal(number)

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

    def wait_for_refusal(self, task_id: str) -> bool:
        """Run until the store has refused an outcome of a task; return False if none is refused."""
        while not any(event.id == task_id for event in self._refusals):
            if not self.step(FOREVER):
                return False
        return True

    def events(self, task_id: str) -> list[SignalEvent]:
        """Return the signals of a task that handlers received, with their circumstances."""
        return [event for event in self._events if event.id == task_id]

    def signals(self, task_id: str) -> tuple[str, ...]:
        """Return the signals of a task that handlers received."""
        return tuple(event.signal for event in self.events(task_id))

    # For consumers ------------------------------------------------------------------------------------------------

    def record_signal(self, event: SignalEvent) -> None:
        """Record a call of a handler."""
        self._events.append(event)
        if self._observer is not None:
            self._observer.on_signal(event)

    def record_refusal(self, task: Task, text: str) -> None:
        """Record the warning of a worker whose outcome the store has refused."""
        consumer = next(one for one in self._all_consumers if one.worker.name == task.worker)
        event = RefusalEvent(task.id, self.now(), consumer.pid, task.attempt, text)
        self._refusals.append(event)
        if self._observer is not None:
            self._observer.on_refusal(event)

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

    @contextlib.contextmanager
    def log(self) -> Iterator[None]:
        """Drop log lines, because scenarios fail on purpose; record the warnings of refused outcomes."""
        logger = logging.getLogger("lifecycle")
        before, logger.propagate = logger.propagate, False
        handler = RefusalHandler(self.record_refusal)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = before

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
        with replay.log():
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


def _storage_protocol(replay: DemoEnvironment) -> Result[object]:
    """Use the whole storage protocol for one task: hold, release, extend, recover, settle, read."""
    add_signal = cast("Replay", replay).step_log.add_signal
    replay.queue.signal()(lambda signal, task, exc=None: add_signal(PRODUCER, signal))  # noqa: ARG005
    result: Result[object] = replay.tasks.slow_task(2 * DELAY_SECONDS)
    replay.wait_for(result.id, 2, LEASE_SECONDS / 3)  # until the first heartbeat
    replay.stop_consumers(signal.SIGKILL)
    replay.start_consumer()
    replay.expect(result.get(blocking=True) == "from attempt 2", "the second attempt returns")
    return result


STORAGE_PROTOCOL: Final = Scenario(
    "The storage protocol, as used for one task", SCENARIOS[-1].promised, _storage_protocol
)
"""A scenario for the picture of the storage protocol; the demo does not run it."""


def _periodic_tick(replay: DemoEnvironment) -> Result[object]:
    """Let two consumers declare a periodic task, and look at its next tick one after the other."""
    consumers = cast("Replay", replay).consumers
    replay.start_consumer()
    for consumer in consumers:
        consumer.queue.periodic(every=TICK_SECONDS, name="poll")(lambda: "polled")
        consumer.queue.enqueue_periodic()
    cast("Replay", replay).clock.advance(TICK_SECONDS)
    made = [result for consumer in consumers for result in consumer.queue.enqueue_periodic()]
    replay.expect(len(made) == 1, "two consumers make one task of a tick")
    return Result(replay.queue.engine, made[0].id)


TICK_SECONDS: Final = 60.0
PERIODIC_TICK: Final = Scenario("A tick of a periodic task", (SIGNAL_ENQUEUED, *SCENARIOS[0].promised), _periodic_tick)
"""A scenario for a picture; the demo does not run it."""
