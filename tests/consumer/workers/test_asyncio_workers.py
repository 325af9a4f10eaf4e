"""Workers that are loops: async bodies by the thousand, plain ones in threads beside them, and who brings and takes."""

import asyncio
import logging
import threading
import time
from contextlib import suppress

import pytest
from conftest import spin
from support.consumers import PROMPT, PUT_BACK, Gate, Hall, ended, logged, on_sqlite, running, stopping
from support.processes import PATIENCE, settled, states, until

from lifecycle import CancelExecution, TaskCanceled, TaskInterrupted
from lifecycle.execution.async_runner import _Coroutine

DONE = "queued executing complete"


@pytest.fixture
def make(live):
    """On the real clock."""
    return live


def at_work(queue, slots=4, **options):
    """A consumer with one loop."""
    return running(queue, slots, worker_type="asyncio", **options)


async def forever():
    """Waits, and takes no notice of being cancelled: see its caller."""
    while True:
        await asyncio.sleep(0.002)


# How many -----------------------------------------------------------------------------------------------------------


@on_sqlite
def test_a_thousand(queue):
    """A thousand async bodies wait in one loop at once, while a plain function runs in a thread beside it."""
    together, names = asyncio.Event(), set()
    inside = []

    @queue.task()
    async def wait(number):
        inside.append(number)
        names.add(threading.current_thread().name)
        if len(inside) == 1000:
            together.set()
        await together.wait()
        return number

    beside = queue.task()(lambda: threading.current_thread().name)
    with at_work(queue, 1001):
        results = list(wait.map(range(1000)))
        other = beside()
        assert settled(queue, *results) == ["complete"] * 1000
        assert other.get(timeout=PATIENCE) not in names
    assert len(names) == 1
    assert [result.get() for result in results] == list(range(1000))


def test_slots(queue):
    """No more bodies run at once than there were to be workers, async and plain ones together, and no fewer either."""
    hall, barrier = Hall(), threading.Barrier(3)

    @queue.task()
    def plain(meets):
        hall.enter()
        if meets:
            barrier.wait(PATIENCE)
        hall.leave()

    @queue.task()
    async def other(meets):
        hall.enter()
        if meets:
            await asyncio.to_thread(barrier.wait, PATIENCE)
        hall.leave()

    first = [plain(True), other(True), other(True)]
    rest = [function(False) for _ in range(20) for function in (plain, other)]
    with at_work(queue, 3):
        assert settled(queue, *first, *rest) == ["complete"] * 43
    assert hall.most == 3


def test_retried_at_once(queue):
    """A body that is over may run again in the very moment in which its outcome is stored."""

    @queue.task(retries=30, context=True)
    async def hasty(task=None):
        if task.retries:
            raise ValueError
        return task.attempt

    with at_work(queue, 8):
        results = [hasty() for _ in range(8)]
        assert settled(queue, *results) == ["complete"] * 8
    assert [result.get() for result in results] == [31] * 8


@pytest.mark.parametrize("slots", [1, 4])
def test_prompt(queue, slots):
    """An outcome is stored as soon as it comes in, whether the loop's worker waits for work or for room."""

    @queue.task()
    async def add(a, b):
        await asyncio.sleep(0.01)
        return a + b

    with at_work(queue, slots):
        began = time.monotonic()
        for number in range(6):
            assert add(number, 1).get(timeout=PATIENCE) == number + 1
        assert time.monotonic() - began < 6 * PROMPT


# What is stopped -----------------------------------------------------------------------------------------------------


def test_timeouts(queue):
    """A timeout interrupts what awaits, and a plain function in Python; each cleans up, and its error says so."""
    left = []

    @queue.task(timeout=0.05)
    async def wait():
        try:
            await forever()
        finally:
            left.append("async")

    @queue.task(timeout=0.05)
    def plain():
        try:
            spin(threading.Event())
        finally:
            left.append("plain")

    with at_work(queue):
        results = wait(), plain()
        assert settled(queue, *results) == ["timeout"] * 2
    assert sorted(left) == ["async", "plain"]
    assert [states(result) for result in results] == ["queued executing timeout"] * 2


@pytest.mark.parametrize(("swallows", "history"), [(False, "queued executing canceled"), (True, DONE)])
def test_called_off(queue, monkeypatch, swallows, history):
    """What is called off is cancelled where it awaits, once; if it goes on all the same, it completes."""
    hall, told, asked = Hall(), [], []
    canceling = queue.storage.canceling
    monkeypatch.setattr(queue.engine.storage, "canceling", lambda workers: (asked.append(1), canceling(workers))[1])

    @queue.task()
    async def wait():
        try:
            await hall.stay()
        except asyncio.CancelledError:
            told.append(1)
            if not swallows:
                raise
            await hall.stay()
        return "OK"

    with at_work(queue):
        result = wait()
        hall.until(1)
        queue.cancel(result.id)
        until(lambda: told, "the cancellation")
        if swallows:
            count = len(asked)
            until(lambda: len(asked) >= count + 2, "the next look")
        hall.opened = True
        settled(queue, result)
    assert states(result) == history
    assert told == [1]


def test_called_off_before_it_begins(queue):
    """What is called off while the loop is held up does not begin."""
    computing, release, ran = threading.Event(), threading.Event(), []

    @queue.task()
    async def compute():
        computing.set()
        assert release.wait(PATIENCE)

    @queue.task()
    async def late():
        ran.append(1)

    with at_work(queue) as consumer:
        first = compute()
        assert computing.wait(PATIENCE)
        result = late()
        until(lambda: result.state == "executing", "its start")
        queue.cancel(result.id)
        (hand,) = consumer._workers
        until(lambda: result.id in hand.worker._canceled, "the call")
        release.set()
        assert settled(queue, first, result) == ["complete", "canceled"]
    assert ran == []


def test_interrupted_before_it_begins(queue):
    """What has not begun when the consumer has to stop, since the loop is held up, does not begin."""
    computing, release, ran = threading.Event(), threading.Event(), []

    @queue.task()
    async def compute():
        computing.set()
        assert release.wait(PATIENCE)

    @queue.task()
    async def late():
        ran.append(1)

    with at_work(queue, grace=PATIENCE) as consumer:
        first = compute()
        assert computing.wait(PATIENCE)
        result = late()
        (hand,) = consumer._workers
        until(lambda: result.id in hand.worker.runner._coroutines, "its start")
        stop = stopping(consumer, graceful=False)
        until(lambda: hand.worker.runner._interrupted, "the interruption")
        release.set()
        ended(stop)
    assert ran == []
    assert states(result) == PUT_BACK
    assert states(first) in (DONE, PUT_BACK)


def test_calls_itself_off(queue):
    """What a body raises counts: it may call itself off."""

    @queue.task()
    async def give_up():
        raise CancelExecution("enough")

    @queue.task()
    async def give_in():
        raise TaskCanceled

    with at_work(queue):
        assert settled(queue, give_up(), give_in()) == ["canceled"] * 2


# The end of a consumer -----------------------------------------------------------------------------------------------


def test_drained(queue):
    """A graceful stop lets what runs come to its end, and claims nothing more."""
    hall, gate = Hall(), Gate()
    bodies = [queue.task(name="stay")(hall.stay), queue.task(name="pass")(gate.pass_through)]
    with at_work(queue, 4) as consumer:
        results = [body(1) for body in bodies]
        hall.until(1)
        gate.until(1)
        stop = stopping(consumer)
        late = bodies[0](2)
        hall.opened = True
        gate.open()
        ended(stop)
        assert [states(result) for result in results] == [DONE] * 2
    assert states(late) == "queued"


def test_interrupted(queue):
    """Any other stop interrupts what runs, async and plain: it cleans up, is put back, and the next consumer runs it."""
    hall, gate = Hall(), Gate()
    bodies = [queue.task(name="stay")(hall.stay), queue.task(name="pass")(gate.pass_through)]
    with at_work(queue, 4, grace=PATIENCE) as consumer:
        results = [body(1) for body in bodies]
        hall.until(1)
        gate.until(1)
        consumer.stop(graceful=False)
        assert (hall.left, gate.left) == ([1], [1])
        assert [states(result) for result in results] == [PUT_BACK] * 2
    hall.opened = True
    gate.open()
    with at_work(queue):
        assert settled(queue, *results) == ["complete"] * 2


def test_told_too_late(queue):
    """A body that is still to be told something when its loop has ended is left alone: that ends no consumer."""
    begun = []

    @queue.task()
    async def waits():
        begun.append(1)
        await forever()

    with at_work(queue, grace=PATIENCE) as consumer:
        result = waits()
        until(lambda: begun, "the body")
        (hand,) = consumer._workers
        runner = hand.worker.runner
        consumer.stop(graceful=False)
        until(runner._loop.is_closed, "the end of the loop")
    runner._coroutines[result.id] = _Coroutine()
    hand.interrupt()
    assert not runner.cancel(result.id)


def test_put_back_on_its_behalf(queue, caplog):
    """What does not end is put back after the grace, async and plain; its late outcome is refused, and it says nothing."""
    release, begun, sent = threading.Event(), [], []

    @queue.task()
    async def stubborn():
        begun.append(1)
        while not release.is_set():
            try:
                await asyncio.sleep(0.002)
            except asyncio.CancelledError:
                pass

    @queue.task()
    def obstinate():
        begun.append(2)
        while not release.is_set():
            with suppress(TaskInterrupted):
                release.wait(0.005)  # not for long: a tracer holds all threads up while an exception waits for one

    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with at_work(queue, grace=0.1) as consumer:
        results = stubborn(), obstinate()
        until(lambda: len(begun) == 2, "the bodies")
        (hand,) = consumer._workers
        consumer.stop(graceful=False)
        assert [states(result) for result in results] == [PUT_BACK] * 2
        release.set()
        ended(hand._thread)
    assert [states(result) for result in results] == [PUT_BACK] * 2
    for result in results:
        heard = [signal for task_id, signal in sent if task_id == result.id]
        assert heard == ["enqueued", "executing", "interrupted", "enqueued"]
    assert len(logged(caplog, logging.WARNING, "too late")) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_stopped_by_a_task(queue, is_async):
    """A body may stop its own consumer: that asks, and does not wait for itself."""
    with at_work(queue) as consumer:

        async def stop_async():
            consumer.stop()

        body = queue.task(name="stop")(stop_async if is_async else consumer.stop)
        result = body()
        (hand,) = consumer._workers
        assert settled(queue, result) == ["complete"]
        ended(hand._thread)
    assert states(body()) == "queued"
