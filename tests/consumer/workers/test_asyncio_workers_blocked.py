"""What could hold up workers that are loops, or end them: handlers, hooks, what bodies leave behind, the store."""

import asyncio
import logging
import threading

import pytest
from support.consumers import PUT_BACK, Hall, Outage, ended, logged, on_sqlite, plus, running, stopping
from support.processes import LEASE, PATIENCE, settled, states, until

from lifecycle import SIGNAL_COMPLETE, SIGNAL_EXECUTING, StorageUnavailable

DONE = "queued executing complete"


@pytest.fixture
def make(live):
    """On the real clock."""
    return live


def at_work(queue, slots=4, **options):
    """A consumer with one loop."""
    return running(queue, slots, worker_type="asyncio", **options)


# Handlers and hooks ---------------------------------------------------------------------------------------------------


def test_a_slow_handler(queue):
    """While a handler takes its time bodies run on, and what they return is stored; nothing new begins."""
    hall, gate, inside = Hall(), threading.Event(), []
    stay = queue.task()(hall.stay)
    add = queue.task(name="add")(plus)

    @queue.signal(SIGNAL_COMPLETE)
    def slow(signal, task):
        if task.name == "add":
            inside.append(task.id)
            gate.wait(PATIENCE)

    with at_work(queue):
        running_on = stay("here")
        hall.until(1)
        result = add(1, 2)
        until(lambda: inside, "the handler")
        hall.opened = True
        assert running_on.get(timeout=PATIENCE) == "here"
        late = stay("late")
        assert not gate.is_set()
        assert states(late) == "queued"
        gate.set()
        assert settled(queue, result, late) == ["complete"] * 2


def test_a_stop_while_a_handler_runs(queue):
    """A task whose handlers hold up its start is put back when its consumer has to stop, and does not begin."""
    gate, inside, ran = threading.Event(), [], []
    queue.signal(SIGNAL_EXECUTING)(lambda signal, task: (inside.append(task.id), gate.wait(PATIENCE)))

    @queue.task()
    async def body():
        ran.append(1)

    with at_work(queue, grace=0.1) as consumer:
        result = body()
        until(lambda: inside, "the handler")
        (hand,) = consumer._workers
        consumer.stop(graceful=False)
        assert states(result) == PUT_BACK
        gate.set()
        ended(hand._thread)
    assert states(result) == PUT_BACK
    assert ran == []


def test_hooks(queue):
    """A loop's hooks are called once, in the loop that its async bodies run in: what is opened there is found there."""
    loops = {}

    async def note(place):
        loops.setdefault(place, []).append(asyncio.get_running_loop())

    queue.on_startup()(lambda: note("startup"))
    queue.on_shutdown("async")(lambda: note("shutdown"))
    queue.on_shutdown("plain")(lambda: loops.setdefault("plain", []).append(asyncio.get_running_loop()))
    body = queue.task()(note)
    with at_work(queue) as consumer:
        assert settled(queue, body("body")) == ["complete"]
        consumer.stop()
    assert {place: len(calls) for place, calls in loops.items()} == {
        "startup": 1, "body": 1, "shutdown": 1, "plain": 1,
    }  # fmt: skip
    assert len({id(loop) for (loop,) in loops.values()}) == 1


def test_what_must_not_end_the_loop(queue, caplog):
    """Neither a hook that exits nor what a body has left running ends the loop for all others."""

    async def leave():
        raise SystemExit("from what is left")

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
    with at_work(queue):
        results = [leaves(), hooked()]
        settled(queue, *results)
        until(lambda: left[0].done(), "what was left")
        assert isinstance(left[0].exception(), SystemExit)
        assert settled(queue, *results, after()) == ["complete", "error", "complete"]
    assert logged(caplog, logging.ERROR, "an exception left the event loop of the workers")


# The store ------------------------------------------------------------------------------------------------------------


@on_sqlite
def test_the_store_is_away(make, monkeypatch, caplog):
    """While the store is away bodies run on, what they return is kept, and stored when it is back: nothing is lost."""
    caplog.set_level(logging.INFO, "lifecycle.consumer")
    queue, hall = make(), Hall()
    stay = queue.task()(hall.stay)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "extend", "recover", "next_due")
    with at_work(queue, 8) as consumer:
        results = [stay(number) for number in range(5)]
        hall.until(5)
        outage.on = True
        hall.opened = True
        until(lambda: outage.failed["exchange"] >= 5, "the fifth attempt to store the outcomes")
        assert not consumer.health.ready
        assert [states(result) for result in results] == ["queued executing"] * 5
        outage.on = False
        assert settled(queue, *results) == ["complete"] * 5
        assert [result.get() for result in results] == list(range(5))
        until(lambda: consumer.health.ready, "the good news")
    assert [states(result) for result in results] == [DONE] * 5
    assert len(logged(caplog, logging.ERROR, "the store cannot be used")) == 1
    assert len(logged(caplog, logging.INFO, "can be used again")) == 1


@on_sqlite
def test_stopped_while_the_store_is_away(make, monkeypatch, caplog):
    """A consumer that is stopped while the store is away ends all the same; its tasks wait for the end of their leases."""
    queue, hall = make(lease=LEASE), Hall()
    stay = queue.task()(hall.stay)
    outage = Outage(queue.storage, monkeypatch, StorageUnavailable("gone"), "exchange", "recover", "extend")
    with at_work(queue, grace=0.1) as consumer:
        result = stay()
        hall.until(1)
        (hand,) = consumer._workers
        outage.on = True
        hall.opened = True
        until(lambda: outage.failed["exchange"] >= 3, "the third attempt to store the outcome")
        ended(stopping(consumer, graceful=False))
        ended(hand._thread)
    outage.on = False
    assert not [record for record in caplog.records if record.exc_info]
    with at_work(queue):
        assert settled(queue, result) == ["complete"]
    assert states(result) == f"{PUT_BACK} executing complete"
