"""Asyncio workers: async functions by the thousand in one event loop, plain ones in threads beside it."""

import asyncio
import logging
import threading
import time
from contextlib import suppress

import pytest
from conftest import spin
from support.consumers import (
    PROMPT_SECONDS,
    REQUEUED_STATES,
    AsyncBlocker,
    Blocker,
    begin_stop,
    join,
    logged,
    on_sqlite,
    running,
)
from support.processes import PATIENCE, settled, states, until

from lifecycle import CancelExecution, TaskCanceled, TaskInterrupted
from lifecycle.execution.async_runner import _Coroutine

DONE = "queued executing complete"


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


def asyncio_consumer(queue, slots=4, **options):
    """Run a consumer with one event loop."""
    return running(queue, slots, worker_type="asyncio", **options)


async def forever():
    """Await for ever: only an interruption ends it."""
    while True:
        await asyncio.sleep(0.002)


# Concurrency ---------------------------------------------------------------------------------------------------------


@on_sqlite
def test_thousand_async_functions_wait_in_one_loop(queue):
    """A thousand async functions wait in one loop at once, while a plain function runs in a thread beside it."""
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
    with asyncio_consumer(queue, 1001):
        results = list(wait.map(range(1000)))
        other = beside()
        assert settled(queue, *results) == ["complete"] * 1000
        assert other.get(timeout=PATIENCE) not in names
    assert len(names) == 1
    assert [result.get() for result in results] == list(range(1000))


def test_as_many_functions_run_at_once_as_there_are_slots(queue):
    """The number of functions that run at once is the number of slots, async and plain ones together."""
    async_blocker, barrier = AsyncBlocker(), threading.Barrier(3)

    @queue.task()
    def plain(meets):
        async_blocker.start()
        if meets:
            barrier.wait(PATIENCE)
        async_blocker.end()

    @queue.task()
    async def other(meets):
        async_blocker.start()
        if meets:
            await asyncio.to_thread(barrier.wait, PATIENCE)
        async_blocker.end()

    first = [plain(True), other(True), other(True)]
    rest = [function(False) for _ in range(20) for function in (plain, other)]
    with asyncio_consumer(queue, 3):
        assert settled(queue, *first, *rest) == ["complete"] * 43
    assert async_blocker.most_running == 3


def test_task_can_run_again_as_soon_as_its_outcome_is_stored(queue):
    """A task can run again at the very moment when its outcome is stored."""

    @queue.task(retries=30, context=True)
    async def hasty(task=None):
        if task.retries:
            raise ValueError
        return task.attempt

    with asyncio_consumer(queue, 8):
        results = [hasty() for _ in range(8)]
        assert settled(queue, *results) == ["complete"] * 8
    assert [result.get() for result in results] == [31] * 8


@pytest.mark.parametrize("slots", [1, 4])
def test_outcome_is_stored_at_once(queue, slots):
    """An outcome is stored at once, whether the worker waits for tasks or for a free slot."""

    @queue.task()
    async def add(a, b):
        await asyncio.sleep(0.01)
        return a + b

    with asyncio_consumer(queue, slots):
        began = time.monotonic()
        for number in range(6):
            assert add(number, 1).get(timeout=PATIENCE) == number + 1
        assert time.monotonic() - began < 6 * PROMPT_SECONDS


# Timeouts and cancellations ------------------------------------------------------------------------------------------


def test_timeout_interrupts_async_and_plain_functions(queue):
    """A timeout interrupts an async function where it awaits, and a plain one in Python code; each cleans up."""
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

    with asyncio_consumer(queue):
        results = wait(), plain()
        assert settled(queue, *results) == ["timeout"] * 2
    assert sorted(left) == ["async", "plain"]
    assert [states(result) for result in results] == ["queued executing timeout"] * 2


@pytest.mark.parametrize(("swallows", "history"), [(False, "queued executing canceled"), (True, DONE)])
def test_canceled_async_function_is_cancelled_once(queue, monkeypatch, swallows, history):
    """A canceled async function is cancelled once where it awaits; if it goes on, its task is complete."""
    async_blocker, canceled, asked = AsyncBlocker(), [], []
    canceling = queue.storage.canceling
    monkeypatch.setattr(queue.engine.storage, "canceling", lambda workers: (asked.append(1), canceling(workers))[1])

    @queue.task()
    async def wait():
        try:
            await async_blocker.run()
        except asyncio.CancelledError:
            canceled.append(1)
            if not swallows:
                raise
            await async_blocker.run()
        return "OK"

    with asyncio_consumer(queue):
        result = wait()
        async_blocker.wait_until_started(1)
        queue.cancel(result.id)
        until(lambda: canceled, "the cancellation")
        if swallows:
            count = len(asked)
            until(lambda: len(asked) >= count + 2, "the next look")
        async_blocker.is_released = True
        settled(queue, result)
    assert states(result) == history
    assert canceled == [1]


def test_task_canceled_before_its_function_begins_does_not_begin(queue):
    """A task that is canceled while the loop is blocked does not begin."""
    computing, release, ran = threading.Event(), threading.Event(), []

    @queue.task()
    async def compute():
        computing.set()
        assert release.wait(PATIENCE)

    @queue.task()
    async def late():
        ran.append(1)

    with asyncio_consumer(queue) as consumer:
        first = compute()
        assert computing.wait(PATIENCE)
        result = late()
        until(lambda: result.state == "executing", "its start")
        queue.cancel(result.id)
        (handle,) = consumer._workers
        until(lambda: result.id in handle.worker._canceled, "the cancellation")
        release.set()
        assert settled(queue, first, result) == ["complete", "canceled"]
    assert ran == []


def test_task_interrupted_before_its_function_begins_does_not_begin(queue):
    """A task that has not begun when the consumer stops, since the loop is blocked, does not begin."""
    computing, release, ran = threading.Event(), threading.Event(), []

    @queue.task()
    async def compute():
        computing.set()
        assert release.wait(PATIENCE)

    @queue.task()
    async def late():
        ran.append(1)

    with asyncio_consumer(queue, grace=PATIENCE) as consumer:
        first = compute()
        assert computing.wait(PATIENCE)
        result = late()
        (handle,) = consumer._workers
        until(lambda: result.id in handle.worker.runner._coroutines, "its start")
        stop = begin_stop(consumer, graceful=False)
        until(lambda: handle.worker.runner._interrupted, "the interruption")
        release.set()
        join(stop)
    assert ran == []
    assert states(result) == REQUEUED_STATES
    assert states(first) in (DONE, REQUEUED_STATES)


def test_async_function_can_cancel_itself(queue):
    """An async function that raises `CancelExecution` or `TaskCanceled` ends `canceled`."""

    @queue.task()
    async def give_up():
        raise CancelExecution("enough")

    @queue.task()
    async def give_in():
        raise TaskCanceled

    with asyncio_consumer(queue):
        assert settled(queue, give_up(), give_in()) == ["canceled"] * 2


# The end of a consumer -----------------------------------------------------------------------------------------------


def test_graceful_stop_finishes_running_tasks(queue):
    """A graceful stop lets running tasks finish, and claims no more."""
    async_blocker, blocker = AsyncBlocker(), Blocker()
    functions = [queue.task(name="stay")(async_blocker.run), queue.task(name="pass")(blocker.run)]
    with asyncio_consumer(queue, 4) as consumer:
        results = [function(1) for function in functions]
        async_blocker.wait_until_started(1)
        blocker.wait_until_started(1)
        stop = begin_stop(consumer)
        late = functions[0](2)
        async_blocker.is_released = True
        blocker.release()
        join(stop)
        assert [states(result) for result in results] == [DONE] * 2
    assert states(late) == "queued"


def test_interrupting_stop_requeues_running_tasks(queue):
    """Any other stop interrupts running tasks, async and plain: they are requeued, and run on the next consumer."""
    async_blocker, blocker = AsyncBlocker(), Blocker()
    functions = [queue.task(name="stay")(async_blocker.run), queue.task(name="pass")(blocker.run)]
    with asyncio_consumer(queue, 4, grace=PATIENCE) as consumer:
        results = [function(1) for function in functions]
        async_blocker.wait_until_started(1)
        blocker.wait_until_started(1)
        consumer.stop(graceful=False)
        assert (async_blocker.ended, blocker.ended) == ([1], [1])
        assert [states(result) for result in results] == [REQUEUED_STATES] * 2
    async_blocker.is_released = True
    blocker.release()
    with asyncio_consumer(queue):
        assert settled(queue, *results) == ["complete"] * 2


def test_interruption_after_the_end_of_the_loop_is_ignored(queue):
    """An interruption after the end of the event loop is ignored."""
    begun = []

    @queue.task()
    async def waits():
        begun.append(1)
        await forever()

    with asyncio_consumer(queue, grace=PATIENCE) as consumer:
        result = waits()
        until(lambda: begun, "the function")
        (handle,) = consumer._workers
        runner = handle.worker.runner
        consumer.stop(graceful=False)
        until(runner._loop.is_closed, "the end of the loop")
    runner._coroutines[result.id] = _Coroutine()
    handle.interrupt()
    assert not runner.cancel(result.id)


def test_task_that_cannot_be_interrupted_is_requeued_after_the_grace(queue, caplog):
    """A task that does not end is requeued after the grace, async or plain; its late outcome is refused."""
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
                release.wait(0.005)  # briefly: a tracer blocks all threads while an exception waits for one

    queue.signal()(lambda signal, task, exc=None: sent.append((task.id, signal)))
    with asyncio_consumer(queue, grace=0.1) as consumer:
        results = stubborn(), obstinate()
        until(lambda: len(begun) == 2, "the functions")
        (handle,) = consumer._workers
        consumer.stop(graceful=False)
        assert [states(result) for result in results] == [REQUEUED_STATES] * 2
        release.set()
        join(handle._thread)
    assert [states(result) for result in results] == [REQUEUED_STATES] * 2
    for result in results:
        sent_signals = [signal for task_id, signal in sent if task_id == result.id]
        assert sent_signals == ["enqueued", "executing", "interrupted", "enqueued"]
    assert len(logged(caplog, logging.WARNING, "too late")) == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_task_can_stop_its_own_consumer(queue, is_async):
    """A task can stop its own consumer: `stop` returns at once there."""
    with asyncio_consumer(queue) as consumer:

        async def stop_async():
            consumer.stop()

        function = queue.task(name="stop")(stop_async if is_async else consumer.stop)
        result = function()
        (handle,) = consumer._workers
        assert settled(queue, result) == ["complete"]
        join(handle._thread)
    assert states(function()) == "queued"
