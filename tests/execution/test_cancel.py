"""Cancellation: a waiting task is revoked, a running one gets `TaskCanceled` once, a resting one stays as it is."""

import asyncio
import threading

import pytest
from conftest import PATIENCE, another_thread, at_work, drain, failure, spin

from lifecycle import LIFECYCLE, IllegalTransition, RetryTask, TaskCanceled, UnknownTask, check_canceled
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker

CANCELED_STORY = "enqueued executing canceled"
AT_REST = {"complete": None, "error": ValueError("no"), "canceled": TaskCanceled("of itself"), "revoked": None}


# Running tasks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("by", ["its id", "its handle"])
def test_running_task_is_canceled_once_and_not_retried(queue, heard, worker, runs, is_async, retries, by):
    """A running task gets `TaskCanceled` once, however often it is canceled; it ends `canceled`, not retried."""
    seen, done = [], threading.Event()

    def function():
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            seen.append("canceled")
            spin(done)
            seen.append("cleaned up")
            raise

    async def function_async():
        try:
            runs.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            seen.append("canceled")
            done.wait(PATIENCE)
            raise

    result = queue.task(retries=retries)(function_async if is_async else function)()
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
    assert heard.story(result) == CANCELED_STORY
    assert seen == ["canceled", "cleaned up"][: 2 - is_async]  # a slow coroutine is interrupted
    metadata = failure(result)
    assert (metadata["state"], metadata["error"], metadata["retries"]) == ("canceled", "TaskCanceled()", retries)
    assert not result.task.canceling
    assert drain(queue) == []


def test_operator_can_retry_canceled_task(queue, heard, worker, runs):
    """An operator's retry runs a canceled task once more: its request for cancellation is forgotten."""

    @queue.task(context=True)
    def function(task=None):
        if task.attempt == 1:
            runs.set()
            spin(threading.Event())
        task.check_canceled()
        return "done"

    result = function()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    queue.retry(result.id)
    drain(queue)
    assert result.get() == "done"
    assert heard.story(result) == f"{CANCELED_STORY} retrying enqueued executing complete"


@pytest.mark.parametrize("is_async", [False, True])
def test_function_that_catches_cancellation_and_returns_is_complete(queue, heard, worker, runs, is_async):
    """A task whose function catches `TaskCanceled` and returns is complete."""

    def function():
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            return "all the same"

    async def function_async():
        try:
            runs.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "all the same"

    result = queue.task()(function_async if is_async else function)()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert heard.story(result) == "enqueued executing complete"
    assert (result.get(), result.task.canceling) == ("all the same", False)


@pytest.mark.parametrize("error", [ValueError(), RetryTask()])
def test_function_that_fails_when_canceled_is_not_called_again(queue, heard, worker, runs, error):
    """A function that fails or asks for a retry when it is canceled is not called again: the task ends `canceled`."""
    calls = []

    @queue.task(retries=3)
    def function():
        calls.append(1)
        try:
            runs.set()
            spin(threading.Event())
        except TaskCanceled:
            raise error from None

    result = function()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert (result.state, result.task.canceling) == ("queued", True)
    drain(queue)
    between = "" if isinstance(error, RetryTask) else " error"
    assert heard.story(result) == f"enqueued executing{between} retrying enqueued executing canceled"
    assert calls == [1]
    assert failure(result)["state"] == "canceled"


def test_computing_coroutine_is_canceled_and_keeps_its_timeout(queue, worker, runs):
    """A coroutine that does not await gets `TaskCanceled` as a plain function does, and its timeout stays."""
    seen = []

    @queue.task(timeout=2.0)
    async def stubborn():
        runs.set()
        try:
            spin(threading.Event())
        except TaskCanceled:
            seen.append("canceled")
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            seen.append("cancelled")

    result = stubborn()
    with at_work(worker, runs):
        result.cancel()
        worker.cancel(result.id)
    assert seen == ["canceled", "cancelled"]
    assert result.state == "timeout"


def test_cancellation_waits_until_a_library_call_is_left(queue, heard, readers, worker, runs):
    """A function that waits in the library is woken, and gets `TaskCanceled` after the call; its calls stay done."""
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
    assert heard.story(result) == CANCELED_STORY
    assert queue.counts()["queued"] == 2


def test_canceled_task_frees_its_locks(queue, worker, runs):
    """A canceled task leaves no lock taken."""

    @queue.task()
    @queue.lock_task("lock")
    def function():
        queue.lock_task("another").acquire()
        runs.set()
        spin(threading.Event())

    result = function()
    with at_work(worker, runs):
        assert queue.is_locked("lock")
        assert queue.is_locked("another")
        result.cancel()
        worker.cancel(result.id)
    assert result.state == "canceled"
    assert queue.flush_locks() == []


def test_cancellation_does_not_reach_the_next_task_of_the_worker(queue, heard, runs):
    """The next task of a worker is not canceled, even if it begins while the task before it is being canceled."""
    ends, begins, late = threading.Event(), threading.Event(), threading.Event()

    class Overtaken(TaskRunner):
        """Runner that begins its next task while another thread looks at the running one."""

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


# Functions that check for cancellation -------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [False, True])
def test_check_canceled_raises_in_canceled_attempt(queue, heard, worker, runs, context):
    """`check_canceled` raises in an attempt that was canceled, even if the function caught `TaskCanceled` before."""
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
    assert heard.story(result) == CANCELED_STORY
    for task in kept:
        assert task.check_canceled() is None, "that attempt is over"


def test_check_canceled_outside_of_a_running_task_does_nothing(queue, add):
    """`check_canceled` raises nothing where no task runs."""
    task = add.s(1)
    assert check_canceled() is task.check_canceled() is add(1).task.check_canceled() is None


# Tasks that do not run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [None, 1000])
def test_waiting_task_is_revoked_by_the_next_idle_worker(queue, heard, ran, delay):
    """A canceled task that waits is revoked by the next idle worker, also before its ETA."""
    function = queue.task()(lambda: ran.append(1))
    result = function() if delay is None else function.schedule(delay=delay)
    drain(queue) if delay else None
    queue.cancel(result.id)
    queue.run_next()
    assert heard.of(result)[-1] == result.state == "revoked"
    assert ran == []
    with pytest.raises(IllegalTransition, match="is revoked: cannot cancel"):
        queue.cancel(result.id)


@pytest.mark.parametrize("state", AT_REST)
def test_resting_task_cannot_be_canceled(queue, state):
    """A task at rest cannot be canceled: the error gives its state and the allowed triggers, and nothing is stored."""

    @queue.task()
    def function():
        if AT_REST[state] is not None:
            raise AT_REST[state]

    result = function()
    if state == "revoked":
        result.revoke()
    drain(queue)
    before = (result.history(), queue.is_revoked(result))
    with pytest.raises(IllegalTransition, match=f"task {result.id} is {state}: cannot cancel") as caught:
        queue.cancel(result.id)
    error = caught.value
    assert (error.state, error.trigger, error.allowed) == (state, "cancel", LIFECYCLE.allowed(state))
    assert (result.history(), queue.is_revoked(result)) == before


def test_unknown_task_cannot_be_canceled(queue):
    """Canceling an unknown id raises `UnknownTask`."""
    with pytest.raises(UnknownTask, match="no task 4711"):
        queue.cancel("4711")
    assert not queue.is_revoked("4711")
