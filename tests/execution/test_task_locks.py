"""Locks that tasks hold: released however the attempt ends; a task that does not get its lock ends `locked`."""

import asyncio
import threading

import pytest
from conftest import LEASE, Heard, another_thread, drain, spin, states

from lifecycle import CancelExecution, RetryTask, TaskInterrupted, TaskLockedException, TaskQueue, TaskTimeout
from lifecycle.execution.worker import Worker


def owners(queue):
    """Return a dict: lock name → id of the task that holds the lock."""
    return {lock.name: lock.task for lock in queue.storage.locks(queue.engine.clock.now())}


USES = ["decorator", "context manager", "async decorator", "async context manager"]


def locking(queue, use, act, **options):
    """Return a task function that needs the lock."""
    lock = queue.lock_task("lock")

    def plain():
        with lock:
            act()

    async def asynchronous():
        with lock:
            await asyncio.sleep(0)
            act()

    async def awaited():
        await asyncio.sleep(0)
        act()

    function = {"decorator": lock(lambda: act()), "async decorator": lock(awaited)}.get(use)
    function = function or (asynchronous if "async" in use else plain)
    return queue.task(name="needs", **options)(function)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("retries", [0, 1])
def test_task_whose_lock_is_taken_ends_locked_and_is_retried(queue, heard, clock, use, retries):
    """A task whose lock is taken ends its attempt `locked`; with retries it runs once the lock is free."""
    ran = []
    needs = locking(queue, use, lambda: ran.append(1), retries=retries, retry_delay=10)
    with queue.lock_task("lock"):
        result = needs()
        drain(queue)
        assert queue.is_locked("lock")
    assert ran == []
    error = queue.errors([result.id])[result.id]
    assert (error.state, "'lock' is held already" in str(error)) == ("locked", True)
    clock.advance(10)
    drain(queue)
    more = " retrying scheduled executing complete" if retries else ""
    assert heard.story(result) == f"enqueued executing locked{more}"
    assert ran == [1] * retries
    assert not queue.is_locked("lock")


def test_second_of_two_tasks_under_one_lock_ends_locked(queue, heard):
    """The second of two tasks that run under one lock at the same time ends `locked`."""
    holds, release = threading.Event(), threading.Event()

    @queue.task()
    @queue.lock_task("lock")
    def slow():
        holds.set()
        spin(release)

    first, second = slow(), slow()
    with another_thread(Worker(queue.engine, "one").run_next):
        assert holds.wait(30)
        assert owners(queue) == {"lock": first.id}
        Worker(queue.engine, "two").run_next()
        assert (first.state, second.state) == ("executing", "locked")
        release.set()
    assert first.state == "complete"
    assert not queue.is_locked("lock")


ENDINGS = [None, ValueError, CancelExecution, RetryTask, TaskTimeout, TaskInterrupted, TaskLockedException, SystemExit]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_lock_is_free_after_the_attempt_ends(queue, use, ending):
    """A lock that an attempt held is free after the attempt, however the attempt ends."""
    held = []

    def function():
        held.append(queue.is_locked("lock"))
        if ending is not None and len(held) == 1:
            raise ending

    result = locking(queue, use, function)()
    queue.run_next()
    assert held == [True]
    assert not queue.is_locked("lock")
    drain(queue)
    assert result.state in ("complete", "error", "canceled", "timeout", "locked")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ttl", [None, 100])
@pytest.mark.parametrize("ending", [None, ValueError, TaskInterrupted])
def test_lock_that_was_not_released_is_free_after_the_attempt(queue, is_async, ttl, ending):
    """A lock that an attempt acquired and did not release is free after the attempt."""
    queue.task(name="before")(plain_async)()
    drain(queue)

    def function():
        assert queue.lock_task("lock", ttl).acquire()
        assert queue.is_locked("lock")
        if ending is not None:
            raise ending

    async def awaited():
        function()

    queue.task(name="takes")(awaited if is_async else function)()
    queue.run_next()
    assert not queue.is_locked("lock")


async def plain_async():
    """Nothing: a task of it makes the event loop used."""


@pytest.mark.parametrize("is_async", [False, True])
def test_lock_names_its_task_and_worker(queue, is_async):
    """A lock that is acquired in a task names that task and its worker."""
    seen = []

    def function():
        with queue.lock_task("lock"):
            (lock,) = queue.storage.locks(queue.engine.clock.now())
            seen.append((lock.task, lock.worker))

    async def awaited():
        await asyncio.sleep(0)
        function()

    takes = queue.task(name="takes")(awaited if is_async else function)
    results = [takes(), takes(), takes()]
    drain(queue)
    assert seen == [(result.id, queue.get(result.id).worker) for result in results]


@pytest.mark.parametrize("is_async", [False, True])
def test_lock_of_requeued_task_is_free(queue, is_async):
    """The locks of a task that is requeued for a stuck worker are free; a late release of them changes nothing."""
    worker, seen = Worker(queue.engine, "stuck"), []

    def function(task):
        if task.attempt > 1:
            return
        with queue.lock_task("lock"):
            worker.requeue_running()
            seen.append(queue.is_locked("lock"))
            other = queue.lock_task("lock")
            assert other.acquire()
        seen.append(queue.is_locked("lock"))
        assert other.release()

    async def awaited(task=None):
        function(task)

    def plain(task=None):
        function(task)

    takes = queue.task(name="takes", context=True)(awaited if is_async else plain)
    queue.task(name="before")(plain_async)()
    worker.run_next()
    result = takes()
    worker.run_next()
    assert seen == [False, True]
    drain(queue)
    assert states(result) == "queued executing interrupted queued executing complete"
    worker.runner.close()


def test_lock_of_frozen_worker_is_free_after_its_lease(queue, clock):
    """The lock of a frozen worker is free once the lease has lapsed and the task is recovered, not before."""
    seen = []

    @queue.task(context=True)
    def freezes(task=None):
        if task.attempt > 1:
            return
        with queue.lock_task("lock"):
            for seconds in (LEASE - 0.1, 0.1):
                clock.advance(seconds)
                queue.run_next()
                seen.append(queue.is_locked("lock"))
            assert queue.lock_task("lock", ttl=99).acquire()
        seen.append(queue.is_locked("lock"))

    result = freezes()
    queue.run_next()
    assert seen == [True, False, True]
    assert states(result) == "queued executing interrupted queued executing complete"


def test_locks_are_shared_by_queues_of_one_name(tmp_path):
    """Queues that share a store and a name share locks."""
    url = f"sqlite:///{tmp_path}/app.db"
    one, other, apart = TaskQueue(url), TaskQueue(url), TaskQueue(url, name="apart")
    heard = Heard(other)
    with one.lock_task("lock"):
        assert other.is_locked("lock")
        assert other.lock_task("lock").acquire() is False
        assert not apart.is_locked("lock")
        result = locking(other, "decorator", lambda: None)()
        other.run_next()
        assert heard.story(result) == "enqueued executing locked"
    with other.lock_task("lock"):
        assert one.lock_task("lock").acquire() is False
    for queue in (one, other, apart):
        queue.close()
