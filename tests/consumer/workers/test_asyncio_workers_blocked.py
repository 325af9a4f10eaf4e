"""Asyncio workers in trouble: slow handlers, hooks that raise, tasks left in the loop, outages of the store."""

import asyncio
import logging
import threading

import pytest
from support.consumers import REQUEUED_STATES, AsyncBlocker, Outage, begin_stop, join, logged, on_sqlite, plus, running
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import SIGNAL_COMPLETE, SIGNAL_EXECUTING, StorageUnavailable

DONE = "queued executing complete"


@pytest.fixture
def make(live):
    """Make queues on the real clock."""
    return live


def asyncio_consumer(queue, slots=4, **options):
    """Run a consumer with one event loop."""
    return running(queue, slots, worker_type="asyncio", **options)


# Handlers and hooks --------------------------------------------------------------------------------------------------


def test_functions_run_on_during_a_slow_handler(queue):
    """While a handler is slow running functions go on and their outcomes are stored; no other task begins."""
    async_blocker, released, inside = AsyncBlocker(), threading.Event(), []
    stay = queue.task()(async_blocker.run)
    add = queue.task(name="add")(plus)

    @queue.signal(SIGNAL_COMPLETE)
    def slow(signal, task):
        if task.name == "add":
            inside.append(task.id)
            released.wait(PATIENCE)

    with asyncio_consumer(queue):
        running_on = stay("here")
        async_blocker.wait_until_started(1)
        result = add(1, 2)
        until(lambda: inside, "the handler")
        async_blocker.is_released = True
        assert running_on.get(timeout=PATIENCE) == "here"
        late = stay("late")
        assert not released.is_set()
        assert states(late) == "queued"
        released.set()
        assert settled(queue, result, late) == ["complete"] * 2


def test_task_whose_handler_is_slow_is_requeued_at_a_stop(queue):
    """A task whose handlers delay its start is requeued when its consumer stops, and does not begin."""
    released, inside, ran = threading.Event(), [], []
    queue.signal(SIGNAL_EXECUTING)(lambda signal, task: (inside.append(task.id), released.wait(PATIENCE)))

    @queue.task()
    async def function():
        ran.append(1)

    with asyncio_consumer(queue, grace=0.1) as consumer:
        result = function()
        until(lambda: inside, "the handler")
        (handle,) = consumer._workers
        consumer.stop(graceful=False)
        assert states(result) == REQUEUED_STATES
        released.set()
        join(handle._thread)
    assert states(result) == REQUEUED_STATES
    assert ran == []


def test_hooks_run_once_in_the_loop_of_the_functions(queue):
    """Startup and shutdown hooks are called once, in the event loop in which async functions run."""
    loops = {}

    async def note(place):
        loops.setdefault(place, []).append(asyncio.get_running_loop())

    queue.on_startup()(lambda: note("startup"))
    queue.on_shutdown("async")(lambda: note("shutdown"))
    queue.on_shutdown("plain")(lambda: loops.setdefault("plain", []).append(asyncio.get_running_loop()))
    function = queue.task()(note)
    with asyncio_consumer(queue) as consumer:
        assert settled(queue, function("function")) == ["complete"]
        consumer.stop()
    assert {place: len(calls) for place, calls in loops.items()} == {
        "startup": 1, "function": 1, "shutdown": 1, "plain": 1,
    }  # fmt: skip
    assert len({id(loop) for (loop,) in loops.values()}) == 1


def test_exits_in_hooks_or_leftover_tasks_do_not_end_the_loop(queue, caplog):
    """Neither a hook that exits nor a task that a function has left in the loop ends the loop."""

    async def leave():
        raise SystemExit("from a leftover task")

    left = []

    @queue.task()
    async def leaves():
        left.append(asyncio.get_running_loop().create_task(leave()))

    @queue.post_execute()
    def exits(task, value, error):
        if task.name == "hooked":
            raise SystemExit("from a hook")

    async def nothing():
        pass

    hooked, after = queue.task(name="hooked")(nothing), queue.task(name="after")(nothing)
    with asyncio_consumer(queue):
        results = [leaves(), hooked()]
        settled(queue, *results)
        until(lambda: left[0].done(), "the end of the leftover task")
        assert isinstance(left[0].exception(), SystemExit)
        assert settled(queue, *results, after()) == ["complete", "error", "complete"]
    assert logged(caplog, logging.ERROR, "an exception left the event loop of the workers")


# The store -----------------------------------------------------------------------------------------------------------


@on_sqlite
def test_outcomes_are_kept_during_an_outage(make, monkeypatch, caplog):
    """While the store is unavailable functions run on, and their outcomes are stored when it is back: none is lost."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue, async_blocker = make(), AsyncBlocker()
    stay = queue.task()(async_blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "extend", "recover", "next_due")
    with asyncio_consumer(queue, 8) as consumer:
        results = [stay(number) for number in range(5)]
        async_blocker.wait_until_started(5)
        outage.on = True
        async_blocker.is_released = True
        until(lambda: outage.failed["exchange"] >= 5, "the fifth attempt to store the outcomes")
        assert not consumer.health.ready
        assert [states(result) for result in results] == ["queued executing"] * 5
        outage.on = False
        assert settled(queue, *results) == ["complete"] * 5
        assert [result.get() for result in results] == list(range(5))
        until(lambda: consumer.health.ready, "readiness")
    assert [states(result) for result in results] == [DONE] * 5
    assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
    assert len(logged(caplog, logging.INFO, "can be used again")) == 1


@on_sqlite
def test_consumer_can_be_stopped_during_an_outage(make, monkeypatch, caplog):
    """A consumer that is stopped while the store is unavailable ends; its tasks are recovered after their leases."""
    queue, async_blocker = make(lease=LEASE), AsyncBlocker()
    stay = queue.task()(async_blocker.run)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover", "extend")
    with asyncio_consumer(queue, grace=0.1) as consumer:
        result = stay()
        async_blocker.wait_until_started(1)
        (handle,) = consumer._workers
        outage.on = True
        async_blocker.is_released = True
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        join(begin_stop(consumer, graceful=False))
        join(handle._thread)
    outage.on = False
    assert not [record for record in caplog.records if record.exc_info]
    with asyncio_consumer(queue):
        assert settled(queue, result) == ["complete"]
    assert states(result) == f"{REQUEUED_STATES} executing complete"
