"""The states of a consumer: real consumers follow the table, and use each of its rows."""

import threading
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import PATIENCE, until

from lifecycle import ConfigurationError, Consumer, IllegalTransition, StorageUnusable, TaskQueue
from lifecycle.consumer.states import CONSUMER_LIFECYCLE, RUNNING, STARTING, STOPPED, ConsumerState
from lifecycle.consumer.stop_requests import StopRequests

ROWS = {(row.trigger, row.source and row.source.name, row.target.name) for row in CONSUMER_LIFECYCLE.transitions}


@pytest.fixture
def queue():
    """A queue in memory."""
    with closing(TaskQueue("memory://", lease=600)) as queue:
        yield queue


@pytest.fixture
def steps_taken(monkeypatch):
    """The steps of consumers in this process, in order: trigger, state before, state after."""
    steps = []
    init, go = ConsumerState.__init__, ConsumerState.go

    def begin(self):
        init(self)
        steps.append((CONSUMER_LIFECYCLE.allowed(None)[0], None, self.state))

    def noted(self, trigger):
        before = self.state
        go(self, trigger)
        steps.append((trigger, before, self.state))

    monkeypatch.setattr(ConsumerState, "__init__", begin)
    monkeypatch.setattr(ConsumerState, "go", noted)
    return steps


class StuckTask:
    """A task that neither ends nor can be interrupted until it is released."""

    def __init__(self, queue):
        self.started, self.released = threading.Event(), threading.Event()
        queue.task(name="stuck")(self.run)()

    def run(self):
        self.started.set()
        while not self.released.is_set():
            with suppress(BaseException):
                self.released.wait(0.005)


def begin(queue, **options):
    """Start a consumer."""
    consumer = Consumer(queue, **options)
    consumer.start()
    return consumer


def request_stop(consumer, steps_taken, **options):
    """Call `stop` in another thread, and wait until the consumer has changed its state."""
    before = len(steps_taken)
    thread = threading.Thread(target=consumer.stop, kwargs=options, daemon=True)
    thread.start()
    until(lambda: len(steps_taken) > before, "a step")
    return thread


def wait_until_stopped(consumer, *threads):
    """Wait until the consumer has stopped."""
    until(lambda: consumer.state == STOPPED, "its end")
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def entered(steps):
    """Return the entered states."""
    return [after for _, _, after in steps]


# Each run ------------------------------------------------------------------------------------------------------------


def stopped_gracefully(queue, steps_taken, monkeypatch):
    """A graceful stop drains."""
    consumer = begin(queue)
    consumer.stop()
    assert entered(steps_taken) == ["starting", "running", "draining", "stopped"]


def interrupted(queue, steps_taken, monkeypatch):
    """A stop that is not graceful interrupts."""
    consumer = begin(queue)
    consumer.stop(graceful=False)
    assert entered(steps_taken) == ["starting", "running", "interrupting", "stopped"]


def stopped_three_times(queue, steps_taken, monkeypatch):
    """A second and a third stop force the end."""
    stuck, consumer = StuckTask(queue), begin(queue, grace=600)
    assert stuck.started.wait(PATIENCE)
    threads = [
        request_stop(consumer, steps_taken),
        request_stop(consumer, steps_taken),
        request_stop(consumer, steps_taken),
    ]
    wait_until_stopped(consumer, *threads)
    stuck.released.set()
    assert entered(steps_taken) == ["starting", "running", "draining", "forcing", "forcing", "stopped"]


def interrupted_then_forced(queue, steps_taken, monkeypatch):
    """A second stop ends the grace of an interruption."""
    stuck, consumer = StuckTask(queue), begin(queue, grace=600)
    assert stuck.started.wait(PATIENCE)
    wait_until_stopped(
        consumer, request_stop(consumer, steps_taken, graceful=False), request_stop(consumer, steps_taken)
    )
    stuck.released.set()
    assert entered(steps_taken) == ["starting", "running", "interrupting", "forcing", "stopped"]


def without_store(queue, steps_taken, monkeypatch):
    """With a URL of no store the consumer stops before it runs, and `start` raises."""

    def away():
        raise StorageUnusable("no")

    with monkeypatch.context() as patch:
        patch.setattr(queue.engine.storage, "next_due", away)
        with pytest.raises(StorageUnusable):
            Consumer(queue).start()
    assert entered(steps_taken) == ["starting", "stopped"]


def with_failing_supervision(queue, steps_taken, monkeypatch):
    """If the supervision fails, the consumer stops, and all workers end."""
    consumer = Consumer(queue)

    def fail(requests, timeout):
        raise OSError("gone")

    monkeypatch.setattr(StopRequests, "wait", fail)
    with pytest.raises(OSError, match="gone"):
        consumer.run()
    assert entered(steps_taken) == ["starting", "running", "stopped"]
    until(
        lambda: not any(thread.name.startswith("lifecycle-1") for thread in threading.enumerate()), "its workers' end"
    )


RUNS = [
    stopped_gracefully,
    interrupted,
    stopped_three_times,
    interrupted_then_forced,
    without_store,
    with_failing_supervision,
]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.__name__)
def test_each_run_follows_the_table(run, queue, steps_taken, monkeypatch):
    """However a consumer ends, it follows the table."""
    run(queue, steps_taken, monkeypatch)
    assert set(steps_taken) <= ROWS


def test_every_row_is_used_by_a_run(steps_taken, monkeypatch):
    """Each row of the table is used by a run, and no run takes a step that is not in the table."""
    used = set()
    for run in RUNS:
        with closing(TaskQueue("memory://", lease=600)) as queue:
            run(queue, steps_taken, monkeypatch)
        used |= set(steps_taken)
        steps_taken.clear()
    assert used == ROWS


# Particular moments --------------------------------------------------------------------------------------------------


def test_stop_during_the_start_takes_effect_once_running(queue, steps_taken, monkeypatch):
    """A stop while the consumer waits for its store takes effect once it runs; `stop` returns after the end."""
    consumer, asked, look = Consumer(queue), threading.Event(), queue.engine.storage.next_due
    threads = []

    def slow():
        if not asked.is_set():
            assert consumer.state == STARTING
            threads.append(threading.Thread(target=consumer.stop, daemon=True))
            send = consumer._requests.request
            monkeypatch.setattr(consumer._requests, "request", lambda request: (send(request), asked.set()))
            threads[0].start()
            assert asked.wait(PATIENCE)
        return look()

    monkeypatch.setattr(queue.engine.storage, "next_due", slow)
    consumer.start()
    wait_until_stopped(consumer, *threads)
    assert entered(steps_taken) == ["starting", "running", "draining", "stopped"]


def test_startup_hook_can_stop_the_consumer(queue, steps_taken):
    """A startup hook can stop the consumer."""
    consumer = Consumer(queue)
    queue.on_startup()(consumer.stop)
    consumer.run()
    assert entered(steps_taken) == ["starting", "running", "draining", "stopped"]


def test_stop_without_a_run_changes_nothing(queue, steps_taken):
    """Stopping a consumer that was never started, or is stopped already, changes nothing."""
    consumer = Consumer(queue)
    assert consumer.state is None
    consumer.stop()
    assert consumer.state is None
    consumer.start()
    assert consumer.state == RUNNING
    consumer.stop()
    consumer.stop()
    assert consumer.state == STOPPED
    assert len(steps_taken) == 4


def test_stopped_consumer_can_be_started_again(queue, steps_taken):
    """A stopped consumer can be started again; a running consumer cannot."""
    consumer = begin(queue)
    with pytest.raises(ConfigurationError, match="runs already"):
        consumer.start()
    consumer.stop()
    consumer.start()
    consumer.stop(graceful=False)
    assert entered(steps_taken) == [
        "starting",
        "running",
        "draining",
        "stopped",
        "starting",
        "running",
        "interrupting",
        "stopped",
    ]


def test_one_of_many_concurrent_starts_succeeds(queue, steps_taken):
    """If several threads start a consumer at once, one succeeds, and the others raise."""
    consumer, failed = Consumer(queue), []

    def start():
        try:
            consumer.start()
        except ConfigurationError as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(failed) == 7
    consumer.stop()
    assert entered(steps_taken) == ["starting", "running", "draining", "stopped"]


def test_failed_start_of_workers_stops_the_consumer(queue, steps_taken, monkeypatch):
    """If the workers cannot be started, the consumer stops, and can be started later."""
    consumer = Consumer(queue)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_start_worker", lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            consumer.start()
    assert entered(steps_taken) == ["starting", "stopped"]
    consumer.start()
    consumer.stop()


@given(triggers=st.lists(st.sampled_from(CONSUMER_LIFECYCLE.triggers), max_size=8))
def test_triggers_outside_the_table_are_refused(triggers):
    """A trigger that the table does not allow is refused, and changes nothing."""
    consumer, at = ConsumerState(), CONSUMER_LIFECYCLE.initial.name
    for trigger in triggers:
        allowed = trigger in CONSUMER_LIFECYCLE.allowed(at)
        if allowed:
            consumer.go(trigger)
            at = CONSUMER_LIFECYCLE.next(at, trigger).name
        else:
            with pytest.raises(IllegalTransition):
                consumer.go(trigger)
        assert consumer.state == at
