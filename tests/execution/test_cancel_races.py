"""Cancellation of tasks that move meanwhile, that lose their worker, or that run in a consumer or another process."""

import asyncio
import threading
from contextlib import closing
from time import monotonic

import pytest
from conftest import PATIENCE, Killed, at_work, drain, failure, spin, states
from support.command_line import process
from support.consumers import Blocker, begin_stop, join, on_sqlite, running
from support.processes import NOISE, settled

from lifecycle import Consumer, IllegalTransition, TaskCanceled
from lifecycle.consumer.workers.base import WorkerContext
from lifecycle.consumer.workers.loop import STUCK_SECONDS
from lifecycle.consumer.workers.thread import ThreadWorker
from lifecycle.execution.runner import TaskRunner
from lifecycle.storage.base import RevocationTarget

CANCELED_STORY = "enqueued executing canceled"


# Tasks of a dead or stopping worker ----------------------------------------------------------------------------------


def test_canceled_task_of_dead_worker_is_not_run_again(queue, heard, worker, clock):
    """A canceled task whose worker died ends `canceled` when it is recovered; it is not run again."""
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
    """Signal handler that kills the worker that calls it."""

    times = 0

    def __call__(self, signal, task, exc=None):
        self.times += 1
        raise Killed


@pytest.mark.parametrize("canceled", [False, True])
def test_canceled_task_of_stopping_worker_ends_canceled(queue, heard, worker, runs, canceled):
    """A canceled task whose worker stops ends `canceled`, in this attempt or at the start of the next one."""
    calls = []

    @queue.task()
    def function():
        calls.append(1)
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            cleaning.set()
            spin(threading.Event())

    cleaning = threading.Event()
    result = function()
    with at_work(worker, runs):
        result.cancel()
        if canceled:
            worker.cancel(result.id)
            assert cleaning.wait(PATIENCE)
        worker.interrupt()
    drain(queue)
    assert heard.story(result) == (CANCELED_STORY if canceled else f"enqueued executing interrupted {CANCELED_STORY}")
    assert calls == [1]
    assert result.task.interruptions == 0


def test_requeued_task_of_stuck_worker_is_canceled(queue, heard, worker, runs):
    """A canceled task that is requeued for a stuck worker ends `canceled`; the outcome of that worker is refused."""
    hangs = threading.Event()

    @queue.task()
    def function():
        runs.set()
        while not hangs.is_set():
            try:
                spin(hangs)
            except TaskCanceled:
                canceled.set()
        return "too late"

    canceled = threading.Event()
    result = function()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
        assert canceled.wait(PATIENCE)
        worker.requeue_running()
        hangs.set()
    assert heard.story(result) == CANCELED_STORY
    assert drain(queue) == []


def before_call(storage, call, first, monkeypatch):
    """Call `first` once, just before this call of a store."""
    original = getattr(storage, call)

    def late(*arguments):
        monkeypatch.setattr(storage, call, original)
        first()
        return original(*arguments)

    monkeypatch.setattr(storage, call, late)


# Tasks that move meanwhile -------------------------------------------------------------------------------------------


def test_task_started_just_before_its_cancellation_ends_canceled(queue, heard, worker, runs, monkeypatch):
    """A task that is started just before it is canceled is canceled while it runs, and can be retried later."""

    @queue.task(context=True)
    def function(task=None):
        if task.attempt == 1:
            runs.set()
            spin(threading.Event())

    result, threads = function(), []

    def start():
        threads.append(threading.Thread(target=worker.run_next, daemon=True))
        threads[0].start()
        assert runs.wait(PATIENCE)

    before_call(queue.storage, "revoke", start, monkeypatch)
    queue.cancel(result.id)
    assert result.task.canceling
    assert queue.storage.revocation(RevocationTarget(function=False, key=result.id)) is None
    worker.cancel(result.id)
    threads[0].join(PATIENCE)
    assert heard.story(result) == CANCELED_STORY
    queue.retry(result.id)
    drain(queue)
    assert result.state == "complete"


@pytest.mark.parametrize("call", ["revoke", "cancel"])
@pytest.mark.parametrize(("error", "state"), [(None, "complete"), (ValueError, "error")])
def test_task_that_ended_just_before_it_is_canceled_stays_ended(queue, worker, runs, monkeypatch, call, error, state):
    """A task that ends just before it is canceled keeps its state: the cancellation raises and stores nothing."""
    go_on = threading.Event()

    @queue.task()
    def function():
        runs.set()
        spin(go_on)
        if error is not None:
            raise error

    result = function()
    thread = threading.Thread(target=worker.run_next, daemon=True)

    def end():
        go_on.set()
        if call == "revoke":
            thread.start()
        thread.join(PATIENCE)

    if call == "cancel":
        thread.start()
        assert runs.wait(PATIENCE)
    before_call(queue.storage, call, end, monkeypatch)
    with pytest.raises(IllegalTransition, match=f"is {state}: cannot cancel"):
        queue.cancel(result.id)
    assert result.state == state
    assert queue.storage.revocation(RevocationTarget(function=False, key=result.id)) is None
    assert not result.task.canceling


def test_task_requeued_just_before_it_is_canceled_is_revoked(queue, worker, runs, monkeypatch):
    """A task that is requeued just before it is canceled is revoked as it waits."""
    function = queue.task()(lambda: runs.set() or spin(threading.Event()))
    result = function()
    thread = threading.Thread(target=worker.run_next, daemon=True)
    thread.start()
    assert runs.wait(PATIENCE)

    def requeue():
        worker.interrupt()
        thread.join(PATIENCE)

    before_call(queue.storage, "cancel", requeue, monkeypatch)
    queue.cancel(result.id)
    drain(queue)
    assert states(result) == "queued executing interrupted queued revoked"


def test_rescheduled_copy_of_canceled_task_runs(queue, worker, runs):
    """A copy of a task, made by `reschedule`, is not canceled with the task."""

    @queue.task()
    def function():
        runs.set()
        spin(over)

    over = threading.Event()
    result = function()
    with at_work(worker, runs):
        result.cancel()
        other = result.reschedule()
        over.set()
    assert result.state == "complete"
    assert not other.task.canceling
    with closing(worker.runner):
        drain(queue)
    assert other.state == "complete"


# Consumers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [False, True])
def test_consumer_cancels_running_task_within_a_second(live, is_async):
    """A consumer cancels a running task within a second, and no other task; the next task gets the worker."""
    queue = live()
    blocker = Blocker()

    async def function_async(who):
        blocker.started.append(who)
        await asyncio.sleep(PATIENCE)

    passes = queue.task(name="passes", retries=1)(blocker.run)
    cancel_requested = queue.task(retries=1)(function_async if is_async else blocker.run)("canceled")
    with running(queue, 2):
        other, later = passes("other"), passes("later")
        blocker.wait_until_started(2)
        cancel_requested.cancel()
        moment = monotonic()
        assert settled(queue, cancel_requested) == ["canceled"]
        assert monotonic() - moment < 1 + NOISE
        assert failure(cancel_requested)["error"] == "TaskCanceled()"
        blocker.wait_until_started(3)
        blocker.release()
        assert settled(queue, other, later) == ["complete"] * 2
    assert states(cancel_requested) == "queued executing canceled"


@on_sqlite
def test_command_cancels_task_of_another_process(live, tmp_path):
    """`lifecycle cancel` cancels a task that runs in another process, and prints so."""
    queue, blocker = live(), Blocker()
    result = queue.task()(blocker.run)()
    with running(queue):
        blocker.wait_until_started(1)
        code, out, err = process("cancel", result.id, "--url", f"sqlite:///{tmp_path}/0.db")
        assert (code, err) == (0, "")
        assert settled(queue, result) == ["canceled"]
    assert f"task {result.id} is to be canceled" in out


def test_draining_consumer_cancels_running_task(live):
    """A consumer that drains still cancels a running task."""
    queue, blocker = live(), Blocker()
    result = queue.task()(blocker.run)()
    with running(queue) as consumer:
        blocker.wait_until_started(1)
        stop = begin_stop(consumer)
        result.cancel()
        join(stop)
    assert states(result) == "queued executing canceled"


def test_task_canceled_just_before_its_consumer_stops_is_not_called_again(live):
    """A task that is canceled just before its consumer stops is requeued; the next consumer does not call it."""
    queue, blocker = live(), Blocker()
    result = queue.task()(blocker.run)()
    with running(queue) as consumer:
        blocker.wait_until_started(1)
        consumer._interval_seconds = PATIENCE  # it does not look for cancellations before it stops
        result.cancel()
        consumer.stop(graceful=False)
    path = states(result)
    with running(queue):
        assert settled(queue, result) == ["canceled"]
    if path != "queued executing canceled":  # it looked for cancellations just then
        assert states(result) == "queued executing interrupted queued executing canceled"
    assert len(blocker.started) == 1


def test_consumer_asks_only_for_cancellations_of_slow_tasks(queue, monkeypatch):
    """A consumer asks the store for cancellations of slow tasks only, not for idle workers or quick tasks."""
    consumer = Consumer(queue)
    context = WorkerContext(queue, consumer._options)
    handles = [ThreadWorker(context, f"w{n}", TaskRunner(queue.engine)) for n in range(3)]
    consumer._workers.extend(handles)
    idle, quick, slow = [handle.worker for handle in handles]
    asked = []
    monkeypatch.setattr(queue.storage, "canceling", lambda workers: asked.append(list(workers)) or [])
    now = queue.engine.monotonic()
    task = queue.task()(lambda: None).s()
    quick._running[task.id] = slow._running[task.id] = now + PATIENCE, task
    consumer._maintenance._deliver_cancellations()
    assert asked == []
    slow._running[task.id] = now - STUCK_SECONDS - 0.01, task
    consumer._maintenance._deliver_cancellations()
    assert asked == [["w2"]]
    assert idle.is_idle
