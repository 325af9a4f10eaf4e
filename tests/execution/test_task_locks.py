"""Locks that tasks hold: given back however the attempt ends, and missed by those who do not get them."""

import asyncio
import threading

import pytest
from conftest import LEASE, Heard, another_thread, drain, failure, spin, states

from lifecycle import CancelExecution, RetryTask, TaskInterrupted, TaskLockedException, TaskQueue, TaskTimeout
from lifecycle.execution.worker import Worker


def owners(queue):
    """Lock → the task that took it."""
    return {lock.name: lock.task for lock in queue.storage.locks(queue.engine.clock.now())}


USES = ["decorator", "context manager", "async decorator", "async context manager"]


def locking(queue, use, body, **options):
    """A task that needs the lock."""
    lock = queue.lock_task("lock")

    def plain():
        with lock:
            body()

    async def asynchronous():
        with lock:
            await asyncio.sleep(0)
            body()

    async def awaited():
        await asyncio.sleep(0)
        body()

    function = {"decorator": lock(lambda: body()), "async decorator": lock(awaited)}.get(use)
    function = function or (asynchronous if "async" in use else plain)
    return queue.task(name="needs", **options)(function)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("retries", [0, 1])
def test_taken(queue, heard, clock, use, retries):
    """A task whose lock is taken ends its attempt `locked`; with retries it tries again, and runs once it is free."""
    ran = []
    needs = locking(queue, use, lambda: ran.append(1), retries=retries, retry_delay=10)
    with queue.lock_task("lock"):
        result = needs()
        drain(queue)
        assert queue.is_locked("lock")
    assert ran == []
    metadata = failure(result)
    assert (metadata["state"], "'lock' is held already" in metadata["error"]) == ("locked", True)
    clock.advance(10)
    drain(queue)
    more = " retrying scheduled executing complete" if retries else ""
    assert heard.story(result) == f"enqueued executing locked{more}"
    assert ran == [1] * retries
    assert not queue.is_locked("lock")


def test_two_tasks_at_once(queue, heard):
    """Of two workers that run tasks under one lock at the same time, one is told that it is taken."""
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
def test_freed_when_the_attempt_ends(queue, use, ending):
    """However an attempt ends, the lock that it held is free then."""
    held = []

    def body():
        held.append(queue.is_locked("lock"))
        if ending is not None and len(held) == 1:
            raise ending

    result = locking(queue, use, body)()
    queue.run_next()
    assert held == [True]
    assert not queue.is_locked("lock")
    drain(queue)
    assert result.state in ("complete", "error", "canceled", "timeout", "locked")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("ttl", [None, 100])
@pytest.mark.parametrize("ending", [None, ValueError, TaskInterrupted])
def test_freed_though_not_given_back(queue, is_async, ttl, ending):
    """A lock that an attempt took and did not give back is free when the attempt has ended."""
    queue.task(name="before")(plain_async)()
    drain(queue)

    def body():
        assert queue.lock_task("lock", ttl).acquire()
        assert queue.is_locked("lock")
        if ending is not None:
            raise ending

    async def awaited():
        body()

    queue.task(name="takes")(awaited if is_async else body)()
    queue.run_next()
    assert not queue.is_locked("lock")


async def plain_async():
    """So that the event loop is not new any more."""


@pytest.mark.parametrize("is_async", [False, True])
def test_whose_lock_it_is(queue, is_async):
    """A lock that is taken in a task is that task's, and its worker's; each time."""
    seen = []

    def body():
        with queue.lock_task("lock"):
            (lock,) = queue.storage.locks(queue.engine.clock.now())
            seen.append((lock.task, lock.worker))

    async def awaited():
        await asyncio.sleep(0)
        body()

    takes = queue.task(name="takes")(awaited if is_async else body)
    results = [takes(), takes(), takes()]
    drain(queue)
    assert seen == [(result.id, queue.get(result.id).worker) for result in results]


@pytest.mark.parametrize("is_async", [False, True])
def test_freed_when_it_is_put_back(queue, is_async):
    """When a task is put back without its consent its locks are free; giving them back later does no harm."""
    worker, seen = Worker(queue.engine, "stuck"), []

    def body(task):
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
        body(task)

    def plain(task=None):
        body(task)

    takes = queue.task(name="takes", context=True)(awaited if is_async else plain)
    queue.task(name="before")(plain_async)()
    worker.run_next()
    result = takes()
    worker.run_next()
    assert seen == [False, True]
    drain(queue)
    assert states(result) == "queued executing interrupted queued executing complete"
    worker.runner.close()


def test_freed_when_the_lease_lapses(queue, clock):
    """The lock of a worker that froze is free once its lease has lapsed and somebody has noticed, not before."""
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


def test_across_queues(tmp_path):
    """Processes that share a store and a name share its locks."""
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
