"""A consumer's own life: a table, checked as any other, that consumers really go through."""

import threading
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import PATIENCE, until

from lifecycle import ConfigurationError, Consumer, IllegalTransition, StorageUnavailable, TaskQueue
from lifecycle.consumer.states import CONSUMER_LIFECYCLE, RUNNING, STARTING, STOPPED, ConsumerState
from lifecycle.consumer.stop_requests import StopRequests

ROWS = {(row.trigger, row.source and row.source.name, row.target.name) for row in CONSUMER_LIFECYCLE.transitions}


@pytest.fixture
def queue():
    """A queue in memory."""
    with closing(TaskQueue("memory://", lease=600)) as queue:
        yield queue


@pytest.fixture
def lived(monkeypatch):
    """What consumers in this process go through: the steps, in order."""
    steps = []
    born, go = ConsumerState.__init__, ConsumerState.go

    def begin(self):
        born(self)
        steps.append((CONSUMER_LIFECYCLE.allowed(None)[0], None, self.state))

    def told(self, trigger):
        before = self.state
        go(self, trigger)
        steps.append((trigger, before, self.state))

    monkeypatch.setattr(ConsumerState, "__init__", begin)
    monkeypatch.setattr(ConsumerState, "go", told)
    return steps


class Stuck:
    """A task that does not end, nor can be interrupted, until it is let go."""

    def __init__(self, queue):
        self.here, self.free = threading.Event(), threading.Event()
        queue.task(name="stuck")(self.body)()

    def body(self):
        self.here.set()
        while not self.free.is_set():
            with suppress(BaseException):
                self.free.wait(0.005)


def begin(queue, **options):
    """A consumer that runs."""
    consumer = Consumer(queue, **options)
    consumer.start()
    return consumer


def ask(consumer, lived, **options):
    """Ask it to stop, in another thread, and wait until it has taken a step for that."""
    before = len(lived)
    thread = threading.Thread(target=consumer.stop, kwargs=options, daemon=True)
    thread.start()
    until(lambda: len(lived) > before, "a step")
    return thread


def over(consumer, *threads):
    """Wait for its end."""
    until(lambda: consumer.state == STOPPED, "its end")
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def ways(steps):
    """The states of a life."""
    return [after for _, _, after in steps]


# Each way --------------------------------------------------------------------------------------------------------------


def drained(queue, lived, monkeypatch):
    """Asked once, it finishes what runs."""
    consumer = begin(queue)
    consumer.stop()
    assert ways(lived) == ["starting", "running", "draining", "stopped"]


def interrupted(queue, lived, monkeypatch):
    """Asked less kindly, it puts back what runs."""
    consumer = begin(queue)
    consumer.stop(graceful=False)
    assert ways(lived) == ["starting", "running", "interrupting", "stopped"]


def asked_again(queue, lived, monkeypatch):
    """Asked again, it hurries; and again, more so."""
    stuck, consumer = Stuck(queue), begin(queue, grace=600)
    assert stuck.here.wait(PATIENCE)
    threads = [ask(consumer, lived), ask(consumer, lived), ask(consumer, lived)]
    over(consumer, *threads)
    stuck.free.set()
    assert ways(lived) == ["starting", "running", "draining", "forcing", "forcing", "stopped"]


def hurried(queue, lived, monkeypatch):
    """Interrupting may take its grace, but not if it is asked again."""
    stuck, consumer = Stuck(queue), begin(queue, grace=600)
    assert stuck.here.wait(PATIENCE)
    over(consumer, ask(consumer, lived, graceful=False), ask(consumer, lived))
    stuck.free.set()
    assert ways(lived) == ["starting", "running", "interrupting", "forcing", "stopped"]


def no_store(queue, lived, monkeypatch):
    """Without a store it ends before it runs, and says why."""

    def away():
        raise StorageUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(queue.engine.storage, "next_due", away)
        with pytest.raises(StorageUnavailable):
            Consumer(queue).start()
    assert ways(lived) == ["starting", "stopped"]


def left_alone(queue, lived, monkeypatch):
    """If who looks after the workers fails, that is its end, and no worker goes on."""
    consumer = Consumer(queue)

    def fail(bell, timeout):
        raise OSError("gone")

    monkeypatch.setattr(StopRequests, "wait", fail)
    with pytest.raises(OSError, match="gone"):
        consumer.run()
    assert ways(lived) == ["starting", "running", "stopped"]
    until(
        lambda: not any(thread.name.startswith("lifecycle-1") for thread in threading.enumerate()), "its workers' end"
    )


WAYS = [drained, interrupted, asked_again, hurried, no_store, left_alone]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_ways(way, queue, lived, monkeypatch):
    """However a consumer comes to its end, it goes there by the table."""
    way(queue, lived, monkeypatch)
    assert set(lived) <= ROWS


def test_every_row_is_gone(lived, monkeypatch):
    """There is no row that no consumer ever goes, and none that is not in the table is gone."""
    gone = set()
    for way in WAYS:
        with closing(TaskQueue("memory://", lease=600)) as queue:
            way(queue, lived, monkeypatch)
        gone |= set(lived)
        lived.clear()
    assert gone == ROWS


# Particular moments ------------------------------------------------------------------------------------------------------


def test_a_stop_while_it_starts(queue, lived, monkeypatch):
    """Who asks it to stop while it still waits for its store is heard once it runs, and told when it is over."""
    consumer, asked, look = Consumer(queue), threading.Event(), queue.engine.storage.next_due
    threads = []

    def slow():
        if not asked.is_set():
            assert consumer.state == STARTING
            threads.append(threading.Thread(target=consumer.stop, daemon=True))
            ring = consumer._requests.request
            monkeypatch.setattr(consumer._requests, "request", lambda request: (ring(request), asked.set()))
            threads[0].start()
            assert asked.wait(PATIENCE)
        return look()

    monkeypatch.setattr(queue.engine.storage, "next_due", slow)
    consumer.start()
    over(consumer, *threads)
    assert ways(lived) == ["starting", "running", "draining", "stopped"]


def test_a_stop_from_a_startup_hook(queue, lived):
    """A hook that runs as its workers start may send it home."""
    consumer = Consumer(queue)
    queue.on_startup()(consumer.stop)
    consumer.run()
    assert ways(lived) == ["starting", "running", "draining", "stopped"]


def test_a_stop_of_what_does_not_run(queue, lived):
    """A consumer that was never started, or is stopped, is left alone; stopping it twice is no mistake."""
    consumer = Consumer(queue)
    assert consumer.state is None
    consumer.stop()
    assert consumer.state is None
    consumer.start()
    assert consumer.state == RUNNING
    consumer.stop()
    consumer.stop()
    assert consumer.state == STOPPED
    assert len(lived) == 4


def test_each_run_is_a_life(queue, lived):
    """One that was stopped, or could not start, can be started again; one that runs cannot."""
    consumer = begin(queue)
    with pytest.raises(ConfigurationError, match="runs already"):
        consumer.start()
    consumer.stop()
    consumer.start()
    consumer.stop(graceful=False)
    assert ways(lived) == [
        "starting",
        "running",
        "draining",
        "stopped",
        "starting",
        "running",
        "interrupting",
        "stopped",
    ]


def test_started_at_once_by_many(queue, lived):
    """Of several threads that start it at the same moment one succeeds."""
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
    assert ways(lived) == ["starting", "running", "draining", "stopped"]


def test_no_thread_to_be_had(queue, lived, monkeypatch):
    """If its workers cannot be started, it ends, and can be started later."""
    consumer = Consumer(queue)
    with monkeypatch.context() as patch:
        patch.setattr(consumer, "_start_worker", lambda: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError):
            consumer.start()
    assert ways(lived) == ["starting", "stopped"]
    consumer.start()
    consumer.stop()


@given(triggers=st.lists(st.sampled_from(CONSUMER_LIFECYCLE.triggers), max_size=8))
def test_only_by_the_table(triggers):
    """A step that the table does not have is refused, and changes nothing."""
    life, at = ConsumerState(), CONSUMER_LIFECYCLE.initial.name
    for trigger in triggers:
        allowed = trigger in CONSUMER_LIFECYCLE.allowed(at)
        if allowed:
            life.go(trigger)
            at = CONSUMER_LIFECYCLE.next(at, trigger).name
        else:
            with pytest.raises(IllegalTransition):
                life.go(trigger)
        assert life.state == at
