"""Timeouts and interruptions: an attempt ends once, and no exception is raised after its end or in the library."""

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from conftest import PATIENCE, Heard, another_thread, drain, failure, spin
from support.profiles import IS_THOROUGH, examples

from lifecycle import SIGNAL_ENQUEUED, ResultTimeout, TaskTimeout
from lifecycle.execution import interruption
from lifecycle.execution.worker import Worker

LEASE = 30.0


@pytest.mark.parametrize("retries", [0, 1])
def test_function_that_exceeds_its_timeout_ends_timeout(queue, heard, retries):
    """A function that runs longer than its timeout is interrupted and ends `timeout`, and the error says how long it might have run."""
    cleaned = []

    @queue.task(timeout=0.02, retries=retries, context=True)
    def slow(task=None):
        try:
            if task.attempt == 1:
                spin(threading.Event())
        finally:
            cleaned.append(task.attempt)
        return "in time"

    result = slow()
    drain(queue)
    again = " retrying enqueued executing complete" * retries
    assert heard.story(result) == f"enqueued executing timeout{again}"
    assert cleaned == [1, 2][: retries + 1]
    if not retries:
        metadata = failure(result)
        assert (metadata["state"], metadata["error"]) == (
            "timeout",
            "TaskTimeout('the attempt ran longer than 0.02 s')",
        )
        assert "in slow" in metadata["traceback"]


@pytest.mark.parametrize("awaits", ["an event", "in steps", "another coroutine", "nothing"])
def test_async_function_is_interrupted_where_it_awaits(queue, heard, awaits):
    """An `async` function is interrupted where it awaits; its `finally` runs, and no part of it runs on."""
    late, cleaned = [], []

    async def rescue():
        await asyncio.sleep(PATIENCE)
        late.append(1)

    async def patient():
        event = asyncio.Event()
        if awaits == "an event":
            asyncio.get_running_loop().call_later(PATIENCE, event.set)
            await event.wait()
        elif awaits == "another coroutine":
            await asyncio.gather(rescue(), rescue())
        elif awaits == "in steps":
            for _ in range(int(PATIENCE / 0.001)):
                await asyncio.sleep(0.001)
        else:
            spin(threading.Event())
        late.append(1)

    @queue.task(timeout=0.02)
    async def slow():
        try:
            await patient()
        finally:
            await asyncio.sleep(0)
            cleaned.append(1)

    @queue.task()
    async def later():
        await asyncio.sleep(0.01)
        return len(asyncio.all_tasks())

    started = time.monotonic()
    result, other = slow(), later()
    queue.run_next()
    assert time.monotonic() - started < PATIENCE / 2
    assert heard.story(result) == "enqueued executing timeout"
    assert cleaned == [1]
    queue.run_next()
    assert other.get() == 1
    assert late == []


@pytest.mark.parametrize("is_async", [False, True])
def test_function_that_catches_its_timeout_and_returns_is_complete(queue, heard, is_async):
    """A task whose function catches its timeout and returns is complete."""

    @queue.task(timeout=0.02)
    def stubborn():
        try:
            spin(threading.Event())
        except TaskTimeout:
            return "whatever"

    @queue.task(timeout=0.02)
    async def stubborn_async():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "whatever"

    result = (stubborn_async if is_async else stubborn)()
    queue.run_next()
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == "whatever"


def test_function_that_ends_in_time_is_not_interrupted(queue, heard, add):
    """A function that ends in time is not interrupted, nor is its worker afterwards."""

    @queue.task(timeout=0.05)
    def quick(n):
        return n

    @queue.task()
    def slow():
        spin_until(time.monotonic() + 0.15)
        return "done"

    results = [quick(1), slow(), quick(2)]
    drain(queue)
    assert [result.get() for result in results] == [1, "done", 2]
    spin_until(time.monotonic() + 0.06)
    for result in results:
        assert heard.story(result) == "enqueued executing complete"


def spin_until(moment):
    while time.monotonic() < moment:
        pass


def test_nested_task_does_not_change_the_outer_timeout(queue):
    """A task that runs another one in its own thread keeps its own timeout."""

    @queue.task(timeout=60)
    def inner():
        return "inner"

    @queue.task(timeout=0.05)
    def outer():
        inner()
        queue.run_next()
        spin(threading.Event())

    result = outer()
    queue.run_next()
    assert result.state == "timeout"


@pytest.mark.untraced
@pytest.mark.parametrize("is_async", [False, True])
def test_no_timeout_is_raised_after_the_function_ended(new, is_async):
    """A function that ends about at its timeout ends once, in one way, and no timeout is raised later."""
    with new("memory") as queue:
        heard = Heard(queue)

        def function(seconds):
            spin_until(time.monotonic() + seconds)
            return "done"

        async def function_async(seconds):
            moment = time.monotonic() + seconds
            while time.monotonic() < moment:
                await asyncio.sleep(0)
            return "done"

        @queue.signal()
        def busy(signal, task, exc=None):  # a timeout that comes too late would be raised here
            spin_until(time.monotonic() + 0.0002)

        task = queue.task(timeout=0.002)(function_async if is_async else function)
        results, found = [], Counter()
        for spread in 1, 4, 16, 64, 256:  # on a busy machine timeouts come late
            some = [task(max(0.002 + (n % 50 - 25) * 0.00001 * spread, 0)) for n in range(examples(300))]
            drain(queue)
            results += some
            found += Counter(heard.story(result) for result in some)
            if len(found) > 1:
                break
        assert set(found) <= {"enqueued executing complete", "enqueued executing timeout"}
        assert len(found) == 2, "the test does not come close enough"
        for result in results:
            if result.state == "complete":
                assert result.get() == "done"
            else:
                assert failure(result)["error"].startswith("TaskTimeout(")
        last = task(0)
        drain(queue)
        assert last.get() == "done"


@pytest.mark.untraced
@pytest.mark.parametrize("timeout", [0.00001, 0.0001, 0.0005])
@pytest.mark.parametrize("is_async", [False, True])
def test_timeout_at_the_beginning_of_a_function_ends_the_attempt(new, is_async, timeout, caplog):
    """A timeout so short that it is raised as the function begins ends the attempt `timeout`."""
    caplog.set_level(logging.ERROR)
    with new("memory") as queue:
        heard = Heard(queue)

        async def function_async():
            await asyncio.sleep(1)

        def function():
            spin_until(time.monotonic() + 1)

        results = queue.task(timeout=timeout)(function_async if is_async else function).map([()] * examples(60))
        drain(queue)
        assert {heard.story(result) for result in results} == {"enqueued executing timeout"}
        other = queue.task(name="other")(plain_async)()
        drain(queue)
        assert other.get() == 1
    assert {record.name for record in caplog.records} == {"lifecycle.task"}


async def plain_async():
    await asyncio.sleep(0)
    return len(asyncio.all_tasks())


def test_timeouts_of_ended_functions_are_not_kept(queue):
    """A timeout is not kept after its function has ended."""
    quick = queue.task(timeout=3600)(lambda: None)
    quick()
    drain(queue)
    before = len(interruption._timer._due)
    quick.map([()] * 200)
    drain(queue)
    assert len(interruption._timer._due) < before + 20


def test_stopped_worker_interrupts_async_function(queue, heard):
    """A stopped worker interrupts an `async` function where it awaits, too."""
    worker, runs = Worker(queue.engine, "stopped"), threading.Event()

    @queue.task(context=True)
    async def slow(task=None):
        if task.attempt == 1:
            runs.set()
            await asyncio.sleep(PATIENCE)
        return "done"

    result = slow()
    with another_thread(worker.run_next):
        assert runs.wait(PATIENCE)
        worker.interrupt()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    worker.runner.close()
    queue.run_next()
    assert result.get() == "done"


# In the library ------------------------------------------------------------------------------------------------------


def test_signal_handler_is_not_interrupted_by_a_timeout(queue, heard):
    """A handler that runs because a function enqueues a task is not interrupted: the timeout is raised afterwards."""
    inner, noted = queue.task(name="inner")(lambda: None), []

    @queue.signal(SIGNAL_ENQUEUED)
    def slow(signal, task):
        if task.name == "inner":
            spin_until(time.monotonic() + 0.1)
            noted.append(task.id)

    @queue.task(timeout=0.02)
    def function():
        inner()
        noted.append("after it")

    result = function()
    queue.run_next()
    assert result.state == "timeout"
    (task,) = queue.tasks("queued")
    assert noted == [task.id]
    assert heard.of(task) == ["enqueued"]


@pytest.mark.parametrize("blocks", ["a result", "a result that comes", "nothing"])
def test_timeout_ends_a_wait_for_a_result(queue, blocks):
    """A timeout while the function waits for another task's result ends the wait at once."""
    function = queue.task(name="other")(lambda: 7)
    other, never, seen = function(), function.schedule(delay=10**6), []

    @queue.task(timeout=0.05, priority=1)
    def waits():
        try:
            if blocks == "nothing":
                spin(threading.Event())
            if blocks == "a result that comes":
                queue.run_next()
                seen.append(other.get(blocking=True))
            never.get(blocking=True)
        finally:
            seen.append(queue.counts()["executing"])  # the library can be used to clean up

    result, started = waits(), time.monotonic()
    queue.run_next()
    assert result.state == "timeout"
    assert time.monotonic() - started < PATIENCE / 2
    assert seen[-1] == 1


@pytest.mark.untraced
@pytest.mark.parametrize("call", ["enqueue", "look", "lock", "result"])
def test_timeout_in_a_library_call_leaves_the_queue_usable(queue, call):
    """A timeout while the function uses the queue leaves the queue usable, in this thread and in others."""
    queue.task(name="other")(lambda: None)
    target = queue.task(name="target")(lambda a, b: None)
    known = target.schedule((1, 2), delay=10**6)

    def enqueue():
        target.schedule((1, 2), delay=10**6)

    def look():
        queue.get(known.id), queue.counts(), queue.tasks(limit=2)

    def lock():
        with queue.lock_task("lock"):
            pass

    def result():
        try:
            known.get(timeout=0.0001)
        except ResultTimeout:
            pass

    action = {"enqueue": enqueue, "look": look, "lock": lock, "result": result}[call]

    @queue.task(timeout=0.002, priority=9)
    def busy():
        while True:
            action()

    def elsewhere():
        other = queue.storage
        assert other.get(known.id).state == "queued"
        other.extend(["nobody"], 0.0)

    for _ in range(examples(100)):
        attempt = busy()
        queue.run_next()
        assert attempt.state == "timeout"
        with another_thread(elsewhere):
            pass
        assert not queue.is_locked("lock")
    seen = 0
    for task in queue.tasks(limit=10**6):
        seen += 1
        assert task.state in ("queued", "timeout")
        if task.name == "target":
            assert task.args == (1, 2)
    assert seen == sum(queue.counts().values())


EVERY = 1 if IS_THOROUGH else 4  # steps through the library: one of so many gets a timeout

ACTIONS = {
    "enqueue": lambda queue, target: target.schedule((1, 2), delay=10**6),
    "enqueue many": lambda queue, target: queue.enqueue_many([target.s(1, 2), target.s(3, 4)]),
    "lock": lambda queue, target: use(queue.lock_task("lock")),
    "revoke": lambda queue, target: target.revoke(revoke_until=5),
    "retry": lambda queue, target: queue.retry(queue.tasks("error")[-1].id),
    "look": lambda queue, target: (queue.counts(), queue.tasks(limit=2), queue.handle("known").get()),
}


def use(lock):
    with lock:
        pass


class TimeoutAtStep:
    """Tracer that throws a timeout into the function at its n-th step through the library: a call or a line."""

    def __init__(self, interrupter, pool):
        self.interrupter, self.pool, self.left = interrupter, pool, 0

    def __call__(self, frame, event, arg):
        if "lifecycle" not in frame.f_code.co_filename:
            return None
        self.left -= 1
        if self.left == 0:
            # From a thread of its own, as timeouts come; it may have to wait until the library lets it through.
            wait([self.pool.submit(self.interrupter.throw, TaskTimeout)], 0.002)
        return self


@pytest.mark.untraced
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # within a weakref
@pytest.mark.parametrize("action", ACTIONS)
def test_timeout_at_any_step_of_the_library_leaves_whole_writes(queue, action):
    """A timeout at any step of a library call leaves the call done or not done, and other threads go on."""
    target = queue.task(name="target")(lambda a, b: None)
    target.schedule((1, 2), delay=10**6, id="known")
    fails = queue.task(name="fails")(lambda: 1 / 0)
    before = sys.gettrace()

    @queue.task(priority=9)
    def timed_out():
        sys.settrace(tracer)
        try:
            ACTIONS[action](queue, target)
        finally:
            sys.settrace(before)

    def elsewhere():
        for task in queue.tasks(limit=10**6):
            history = [record.state for record in queue.history(task.id)]
            assert task.state == history[-1], f"half a write: {task.state} after {history}"
            assert queue.get(task.id).version == len(history)
        queue.storage.extend(["nobody"], 0.0)
        assert not queue.is_locked("lock")

    with ThreadPoolExecutor(2) as pool:
        started = threading.Barrier(3)
        for _ in range(2):
            pool.submit(started.wait)
        started.wait()  # else a timeout might be raised while the test itself starts a thread
        worker = Worker(queue.engine, "timed_out")
        tracer = TimeoutAtStep(worker.runner.interrupter, pool)
        for step in range(1, 10**4, EVERY):
            if action == "retry":
                fails(), queue.run_next()
            attempt = timed_out()
            tracer.left = step
            worker.run_next()
            assert attempt.state in ("timeout", "complete"), f"step {step}: {failure(attempt)}"
            pool.submit(elsewhere).result(PATIENCE)
            queue.engine.clock.advance(LEASE)
            queue.engine.recover()
            queue.flush()
            target.schedule((1, 2), delay=10**6, id="known")
            if tracer.left > 0:
                break
    assert step > 20
