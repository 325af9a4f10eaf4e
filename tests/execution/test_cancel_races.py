"""Calling off what moves meanwhile, whose worker stops or is gone, and what runs in a consumer or another process."""

import asyncio
import threading
from contextlib import closing
from time import monotonic

import pytest
from conftest import PATIENCE, Killed, at_work, drain, failure, spin, states
from support.command_line import process
from support.consumers import Gate, on_sqlite, running, stopping
from support.consumers import ended as join
from support.processes import NOISE, settled

from lifecycle import Consumer, IllegalTransition, TaskCanceled
from lifecycle.consumer.workers.base import WorkerContext
from lifecycle.consumer.workers.loop import STUCK_SECONDS
from lifecycle.consumer.workers.thread import ThreadWorker
from lifecycle.execution.runner import TaskRunner
from lifecycle.storage.base import RevocationTarget

OFF = "enqueued executing canceled"


# Whose worker is gone, or stops ------------------------------------------------------------------------------------


def test_whose_worker_is_gone(queue, heard, worker, clock):
    """A task that is called off, and whose worker is gone, is canceled by whoever recovers it, not run again."""
    queue.signal("executing")(die_once := Dying())
    result = queue.task(retries=1)(lambda: None)()
    with pytest.raises(Killed):
        worker.run_next()
    assert die_once.times == 1
    result.cancel()
    clock.advance(31)
    drain(queue)
    assert states(result) == "queued executing canceled"
    assert failure(result) == failure(result) | {
        "state": "canceled",
        "error": "the task was not completed: it is canceled",
    }
    assert (result.task.interruptions, result.task.canceling) == (0, False)


class Dying:
    """Ends the worker that announces to it."""

    times = 0

    def __call__(self, signal, task, exc=None):
        self.times += 1
        raise Killed


@pytest.mark.parametrize("told", [False, True])
def test_whose_worker_stops(queue, heard, worker, runs, told):
    """A worker that is stopped before it told the body puts the task back, whose next attempt is canceled; after: it is."""
    calls = []

    @queue.task()
    def body():
        calls.append(1)
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            cleaning.set()
            spin(threading.Event())

    cleaning = threading.Event()
    result = body()
    with at_work(worker, runs):
        result.cancel()
        if told:
            worker.cancel(result.id)
            assert cleaning.wait(PATIENCE)
        worker.interrupt()
    drain(queue)
    assert heard.story(result) == (OFF if told else f"enqueued executing interrupted {OFF}")
    assert calls == [1]
    assert result.task.interruptions == (not told)


def test_what_does_not_let_itself_be_stopped(queue, heard, worker, runs):
    """What is put back on behalf of a worker that hangs is canceled then; the worker's own outcome is refused."""
    hangs = threading.Event()

    @queue.task()
    def body():
        runs.set()
        while not hangs.is_set():
            try:
                spin(hangs)
            except TaskCanceled:
                told.set()
        return "too late"

    told = threading.Event()
    result = body()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
        assert told.wait(PATIENCE)
        worker.requeue_running()
        hangs.set()
    assert heard.story(result) == OFF
    assert drain(queue) == []


def instead(storage, call, first, monkeypatch):
    """Just before this call of a store, once, something else happens."""
    original = getattr(storage, call)

    def late(*arguments):
        monkeypatch.setattr(storage, call, original)
        first()
        return original(*arguments)

    monkeypatch.setattr(storage, call, late)


# What moves meanwhile ----------------------------------------------------------------------------------------------


def test_started_meanwhile(queue, heard, worker, runs, monkeypatch):
    """A task that is started just before it is revoked is called off as it runs, and may be retried later on."""

    @queue.task(context=True)
    def body(task=None):
        if task.attempt == 1:
            runs.set()
            spin(threading.Event())

    result, threads = body(), []

    def start():
        threads.append(threading.Thread(target=worker.run_next, daemon=True))
        threads[0].start()
        assert runs.wait(PATIENCE)

    instead(queue.storage, "revoke", start, monkeypatch)
    queue.cancel(result.id)
    assert result.task.canceling
    assert queue.storage.revocation(RevocationTarget(function=False, key=result.id)) is None
    worker.cancel(result.id)
    threads[0].join(PATIENCE)
    assert heard.story(result) == OFF
    queue.retry(result.id)
    drain(queue)
    assert result.state == "complete"


@pytest.mark.parametrize("call", ["revoke", "cancel"])
@pytest.mark.parametrize(("error", "state"), [(None, "complete"), (ValueError, "error")])
def test_ended_meanwhile(queue, worker, runs, monkeypatch, call, error, state):
    """A task that ends just before it is called off stays what it is, which is said, and nothing is left behind."""
    go_on = threading.Event()

    @queue.task()
    def body():
        runs.set()
        spin(go_on)
        if error is not None:
            raise error

    result = body()
    thread = threading.Thread(target=worker.run_next, daemon=True)

    def end():
        go_on.set()
        if call == "revoke":
            thread.start()
        thread.join(PATIENCE)

    if call == "cancel":
        thread.start()
        assert runs.wait(PATIENCE)
    instead(queue.storage, call, end, monkeypatch)
    with pytest.raises(IllegalTransition, match=f"is {state}: cannot cancel"):
        queue.cancel(result.id)
    assert result.state == state
    assert queue.storage.revocation(RevocationTarget(function=False, key=result.id)) is None
    assert not result.task.canceling


def test_put_back_meanwhile(queue, worker, runs, monkeypatch):
    """A task that is put back just before it is called off is revoked as it waits."""
    body = queue.task()(lambda: runs.set() or spin(threading.Event()))
    result = body()
    thread = threading.Thread(target=worker.run_next, daemon=True)
    thread.start()
    assert runs.wait(PATIENCE)

    def put_back():
        worker.interrupt()
        thread.join(PATIENCE)

    instead(queue.storage, "cancel", put_back, monkeypatch)
    queue.cancel(result.id)
    drain(queue)
    assert states(result) == "queued executing interrupted queued revoked"


def test_a_copy(queue, worker, runs):
    """What is rescheduled while it is called off is a task of its own, that nobody has called off."""

    @queue.task()
    def body():
        runs.set()
        spin(over)

    over = threading.Event()
    result = body()
    with at_work(worker, runs):
        result.cancel()
        other = result.reschedule()
        over.set()
    assert result.state == "complete"
    assert not other.task.canceling
    with closing(worker.runner):
        drain(queue)
    assert other.state == "complete"


# Consumers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_in_a_consumer(live, is_async):
    """A consumer tells the task that runs within a second, and no other; what waits for the worker runs next."""
    queue = live()
    gate = Gate()

    async def body_async(who):
        gate.waiting.append(who)
        await asyncio.sleep(PATIENCE)

    passes = queue.task(name="passes", retries=1)(gate.pass_through)
    cancel_requested = queue.task(retries=1)(body_async if is_async else gate.pass_through)("called off")
    with running(queue, 2):
        other, later = passes("other"), passes("later")
        gate.until(2)
        cancel_requested.cancel()
        moment = monotonic()
        assert settled(queue, cancel_requested) == ["canceled"]
        assert monotonic() - moment < 1 + NOISE
        assert failure(cancel_requested)["error"] == "TaskCanceled()"
        gate.until(3)
        gate.open()
        assert settled(queue, other, later) == ["complete"] * 2
    assert states(cancel_requested) == "queued executing canceled"


@on_sqlite
def test_from_another_process(live, tmp_path):
    """Whoever has the store can call off what runs in another process; the command says so."""
    queue, gate = live(), Gate()
    result = queue.task()(gate.pass_through)()
    with running(queue):
        gate.until(1)
        code, out, err = process("cancel", result.id, "--url", f"sqlite:///{tmp_path}/0.db")
        assert (code, err) == (0, "")
        assert settled(queue, result) == ["canceled"]
    assert "is requested" in out


def test_while_a_consumer_drains(live):
    """A consumer that only finishes what runs still tells it that it was called off."""
    queue, gate = live(), Gate()
    result = queue.task()(gate.pass_through)()
    with running(queue) as consumer:
        gate.until(1)
        stop = stopping(consumer)
        result.cancel()
        join(stop)
    assert states(result) == "queued executing canceled"


def test_as_a_consumer_is_told_to_stop(live):
    """What is called off just before its consumer is told to stop is put back, and the next one does not call it."""
    queue, gate = live(), Gate()
    result = queue.task()(gate.pass_through)()
    with running(queue) as consumer:
        gate.until(1)
        consumer._interval_seconds = PATIENCE  # it does not come to look before it stops
        result.cancel()
        consumer.stop(graceful=False)
    told = states(result)
    with running(queue):
        assert settled(queue, result) == ["canceled"]
    if told != "queued executing canceled":  # it looked just then
        assert states(result) == "queued executing interrupted queued executing canceled"
    assert len(gate.waiting) == 1


def test_what_a_consumer_asks(queue, monkeypatch):
    """A consumer asks only about workers that have run one task for a while: if they are idle or quick it asks nothing."""
    consumer = Consumer(queue)
    context = WorkerContext(queue, consumer._options)
    hands = [ThreadWorker(context, f"w{n}", TaskRunner(queue.engine)) for n in range(3)]
    consumer._workers.extend(hands)
    idle, quick, slow = [hand.worker for hand in hands]
    asked = []
    monkeypatch.setattr(queue.storage, "canceling", lambda workers: asked.append(list(workers)) or [])
    now = queue.engine.monotonic()
    task = queue.task()(lambda: None).s()
    quick._running[task.id] = slow._running[task.id] = now + PATIENCE, task
    consumer._deliver_cancellations()
    assert asked == []
    slow._running[task.id] = now - STUCK_SECONDS - 0.01, task
    consumer._deliver_cancellations()
    assert asked == [["w2"]]
    assert idle.is_idle
