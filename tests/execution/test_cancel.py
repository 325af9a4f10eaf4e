"""Calling a task off: what waits is revoked, what runs is told, once, and ends `canceled`; what rests stays so."""

import asyncio
import threading

import pytest
from conftest import PATIENCE, another_thread, at_work, drain, failure, spin

from lifecycle import LIFECYCLE, IllegalTransition, RetryTask, TaskCanceled, UnknownTask, check_canceled
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker

OFF = "enqueued executing canceled"
AT_REST = {"complete": None, "error": ValueError("no"), "canceled": TaskCanceled("of itself"), "revoked": None}


# What runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("by", ["its id", "its handle"])
def test_what_runs(queue, heard, worker, runs, is_async, retries, by):
    """A running task is told once, however often it is called off; it cleans up, ends `canceled`, and is not retried."""
    seen, done = [], threading.Event()

    def body():
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            seen.append("told")
            spin(done)
            seen.append("cleaned up")
            raise

    async def body_async():
        try:
            runs.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            seen.append("told")
            done.wait(PATIENCE)
            raise

    result = queue.task(retries=retries)(body_async if is_async else body)()
    with at_work(worker, runs):
        version = result.task.version
        for _ in range(2):
            assert (queue.cancel(result.id) if by == "its id" else result.cancel()) is None
        assert (result.task.canceling, result.task.version, result.state) == (True, version, "executing")
        assert queue.storage.canceling(["w"]) == [result.id]
        assert worker.cancel(result.id)
        while not seen:
            assert worker.cancel(result.id)
        assert worker.cancel(result.id)
        done.set()
    assert heard.story(result) == OFF
    assert seen == ["told", "cleaned up"][: 2 - is_async]  # a coroutine that takes its time is struck
    metadata = failure(result)
    assert (metadata["state"], metadata["error"], metadata["retries"]) == ("canceled", "TaskCanceled()", retries)
    assert not result.task.canceling
    assert drain(queue) == []


def test_retried_afterwards(queue, heard, worker, runs):
    """An operator may have a task that was called off run once more: nothing of the wish is left."""

    @queue.task(context=True)
    def body(task=None):
        if task.attempt == 1:
            runs.set()
            spin(threading.Event())
        task.check_canceled()
        return "done"

    result = body()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    queue.retry(result.id)
    drain(queue)
    assert result.get() == "done"
    assert heard.story(result) == f"{OFF} retrying enqueued executing complete"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_that_swallows(queue, heard, worker, runs, is_async):
    """A body that catches what it is told, and returns, is complete: it had its say."""

    def body():
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            return "all the same"

    async def body_async():
        try:
            runs.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "all the same"

    result = queue.task()(body_async if is_async else body)()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert heard.story(result) == "enqueued executing complete"
    assert (result.get(), result.task.canceling) == ("all the same", False)


@pytest.mark.parametrize("error", [ValueError(), RetryTask()])
def test_a_body_that_fails_instead(queue, heard, worker, runs, error):
    """One that fails or wants a retry when it is told is not called again: its next attempt is canceled at once."""
    calls = []

    @queue.task(retries=3)
    def body():
        calls.append(1)
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            raise error from None

    result = body()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert (result.state, result.task.canceling) == ("queued", True)
    drain(queue)
    between = "" if isinstance(error, RetryTask) else " error"
    assert heard.story(result) == f"enqueued executing{between} retrying enqueued executing canceled"
    assert calls == [1]
    assert failure(result)["state"] == "canceled"


def test_a_coroutine_that_computes(queue, worker, runs):
    """A coroutine that does not await for a while is struck as any body is, and its timeout stays what it was."""
    seen = []

    @queue.task(timeout=2.0)
    async def stubborn():
        runs.set()
        try:
            spin(threading.Event())
        except TaskCanceled:
            seen.append("struck")
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            seen.append("cancelled")

    result = stubborn()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert seen == ["struck", "cancelled"]
    assert result.state == "timeout"


def test_in_the_library(queue, heard, readers, worker, runs):
    """A body that waits in the library is woken, and told when it has left that; what it did there is done."""
    other = queue.task(name="other")(lambda: None)

    @queue.task(priority=1)
    def waits():
        runs.set()
        try:
            other().get(blocking=True)
        finally:
            other()

    result = waits()
    with at_work(worker, runs):
        readers.expect()
        result.cancel()
        worker.cancel(result.id)
    assert heard.story(result) == OFF
    assert queue.counts()["queued"] == 2


def test_locks(queue, worker, runs):
    """Locks that the task had taken are free."""

    @queue.task()
    @queue.lock_task("lock")
    def body():
        queue.lock_task("another").acquire()
        runs.set()
        spin(threading.Event())

    result = body()
    with at_work(worker, runs):
        assert queue.is_locked("lock")
        assert queue.is_locked("another")
        result.cancel()
        worker.cancel(result.id)
    assert result.state == "canceled"
    assert queue.flush_locks() == []


def test_only_that_one(queue, heard, runs):
    """The task that a worker runs next is left alone, even if it begins while its predecessor is being called off."""
    ends, begins, late = threading.Event(), threading.Event(), threading.Event()

    class Overtaken(TaskRunner):
        """Goes on to its next task while another thread looks at the running one."""

        now = None

        @property
        def _task(self):
            known = self.now
            if late.is_set():
                late.clear()
                ends.set()
                assert begins.wait(PATIENCE)
            return known

        @_task.setter
        def _task(self, task):
            self.now = task

    worker = Worker(queue.engine, "w", runner=Overtaken(queue.engine))

    @queue.task()
    def first():
        runs.set()
        spin(ends)

    @queue.task()
    def second():
        begins.set()
        spin(over)

    over = threading.Event()
    results = [first(), second()]
    with another_thread(lambda: [worker.run_next(), worker.run_next()]):
        assert runs.wait(PATIENCE)
        assert not worker.cancel(results[1].id)
        queue.cancel(results[0].id)
        late.set()
        assert not worker.cancel(results[0].id)
        assert not worker.cancel(results[0].id)
        over.set()
    assert [heard.story(result) for result in results] == ["enqueued executing complete"] * 2


# A task that asks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [False, True])
def test_a_body_that_asks(queue, heard, worker, runs, context):
    """A body can ask, where it can stop, whether it was called off; it learns so even if it did not heed what it was told."""
    swallowed = threading.Event()

    def work(check):
        check()  # not yet
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            swallowed.set()
        check()

    @queue.task(context=True, name="with")
    def with_context(task=None):
        kept.append(task)
        work(task.check_canceled)

    kept = []
    without = queue.task(name="without")(lambda: work(check_canceled))
    result = with_context() if context else without()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert swallowed.is_set()
    assert heard.story(result) == OFF
    for task in kept:
        assert task.check_canceled() is None, "that attempt is over"


def test_asked_elsewhere(queue, add):
    """Outside of a task that runs there is nothing to ask about, and so nothing is raised."""
    task = add.s(1)
    assert check_canceled() is task.check_canceled() is add(1).task.check_canceled() is None


# What does not run -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, 1000])
def test_what_waits(queue, heard, ran, delay):
    """A waiting task is revoked by the next worker that is free, also before its ETA."""
    body = queue.task()(lambda: ran.append(1))
    result = body() if delay is None else body.schedule(delay=delay)
    drain(queue) if delay else None
    queue.cancel(result.id)
    queue.run_next()
    assert heard.of(result)[-1] == result.state == "revoked"
    assert ran == []
    with pytest.raises(IllegalTransition, match="is revoked: cannot cancel"):
        queue.cancel(result.id)


@pytest.mark.parametrize("state", AT_REST)
def test_what_rests(queue, state):
    """What rests cannot be called off: the error says where it is, and what can be done instead; nothing is noted."""

    @queue.task()
    def body():
        if AT_REST[state] is not None:
            raise AT_REST[state]

    result = body()
    if state == "revoked":
        result.revoke()
    drain(queue)
    before = (result.history(), queue.is_revoked(result))
    with pytest.raises(IllegalTransition, match=f"task {result.id} is {state}: cannot cancel") as caught:
        queue.cancel(result.id)
    error = caught.value
    assert (error.state, error.trigger, error.allowed) == (state, "cancel", LIFECYCLE.allowed(state))
    assert (result.history(), queue.is_revoked(result)) == before


def test_what_is_not_there(queue):
    """An id that no task has is said to be so."""
    with pytest.raises(UnknownTask, match="no task 4711"):
        queue.cancel("4711")
    assert not queue.is_revoked("4711")
