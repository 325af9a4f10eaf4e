"""`drain`, `perform` and `testing_mode` run tasks in the test's own thread, without pytest."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from math import inf

import pytest
from conftest import PATIENCE, Heard, states
from support.small_app import functions, refusal

from lifecycle import (
    CancelExecution,
    ConfigurationError,
    LifecycleError,
    RetryTask,
    StorageError,
    TaskQueue,
    TaskTimeout,
    UnknownTask,
    Unserializable,
)
from lifecycle.storage import MemoryStorage
from lifecycle.testing import VirtualClock
from lifecycle.testing.assertions import assert_enqueued
from lifecycle.testing.inline import drain, perform, testing_mode


@pytest.fixture
def app(queue):
    """Return a program of two functions."""
    return functions(queue)


# Draining ----------------------------------------------------------------------------------------------------------


def test_drain_runs_due_tasks_in_order(queue, app, clock):
    """All due tasks run in order, with the tasks that they enqueue, and are returned; the clock stands still."""

    @queue.task(name="chain")
    def chain(n):
        return chain(n - 1).id if n else None

    @queue.task(name="fail")
    def fail():
        raise OSError

    later = app.add.schedule((1,), delay=60)
    first, failed = chain(2), fail()
    before = clock.now()
    ran = drain(queue)
    assert [(task.name, task.state) for task in ran] == [
        ("chain", "complete"),
        ("fail", "error"),
        ("chain", "complete"),
        ("chain", "complete"),
    ]
    assert (ran[0].id, ran[1].id, ran[2].id) == (first.id, failed.id, first.get())
    assert later.state == "scheduled"
    assert clock.now() == before
    assert drain(queue) == []


def test_drain_until_advances_the_clock_to_each_due_time(queue, app, clock):
    """With `until` the clock advances to each due time, and at the end to `until`."""
    seen = []

    @queue.task(retries=3, retry_delay=10, retry_backoff=2, name="flaky")
    def flaky():
        seen.append(clock.now() - start)
        raise OSError

    start = clock.now()
    result = flaky()
    just, after = app.add.schedule((1,), delay=30), app.add.schedule((2,), delay=30.5)
    ran = drain(queue, until=30)
    assert seen == [0, 10, 30]
    assert {task.id for task in ran} == {result.id, just.id}
    assert after.state == "scheduled"
    assert clock.now() == start + 30
    drain(queue, until=datetime.fromtimestamp(start + 31, UTC))
    assert after.get() == 2
    assert clock.now() == start + 31
    drain(queue, until=timedelta(seconds=1))
    assert clock.now() == start + 32
    drain(queue, until=inf)
    assert seen == [0, 10, 30, 70]
    assert clock.now() == start + 70
    assert drain(queue, until=start) == []
    assert drain(queue, until=datetime.fromtimestamp(start, UTC)) == []
    assert clock.now() == start + 70 + start  # it does not go back


def test_drain_raises_at_its_limit(queue, clock):
    """Tasks that enqueue one another, or are retried for ever, raise at the limit."""

    @queue.task(name="again")
    def again():
        again()

    @queue.task(retries=2**31 - 1, retry_delay=1, name="retried")
    def retried():
        raise OSError

    again()
    assert refusal(drain, queue, limit=7).startswith("drain: 7 tasks have run, and more are due")
    assert queue.counts()["complete"] == 8
    queue.flush()
    again.revoke()
    result = retried()
    assert f"The last was retried, attempt 21 of task {result.id}" in refusal(drain, queue, until=inf, limit=20)
    queue.flush()
    result = [retried() for _ in range(3)]
    assert len(drain(queue, limit=3)) == 3


def test_drain_until_needs_a_virtual_clock():
    """`until` raises on a queue with the host's clock; without `until` its due tasks run."""
    queue = TaskQueue("memory://")
    app = functions(queue)
    app.add(1)
    with pytest.raises(ConfigurationError, match=r"drain\(until=…\) needs a queue with a VirtualClock"):
        drain(queue, until=1)
    app.add(1)
    assert [task.name for task in drain(queue)] == ["add"]
    queue.close()


def test_drain_leaves_held_tasks(queue, app, clock):
    """A task that another process holds is left alone until its hold has ended."""
    queue.signal("enqueued")(lambda signal, task: None)
    engine = queue.engine
    release, engine.release = engine.release, lambda tasks: None
    held = app.add(1)
    engine.release = release
    assert drain(queue) == []
    assert [task.id for task in drain(queue, until=engine.lease)] == [held.id]


# Performing --------------------------------------------------------------------------------------------------------


def test_perform_runs_a_function_like_a_first_attempt(queue):
    """`perform` serializes, awaits, calls hooks, gives the function its task and its locks, and stores nothing."""
    seen = []
    queue.pre_execute()(lambda task: seen.append((task.name, task.args)))

    @queue.task(name="body", context=True, retries=2)
    async def body(numbers, *, task):
        with queue.lock_task("L"):
            return numbers, task.state, task.attempt, task.retries, queue.is_locked("L")

    assert perform(body, (1, [2])) == ((1, [2]), "executing", 1, 2, True)
    assert seen == [("body", ((1, [2]),))]
    assert not queue.is_locked("L")
    assert sum(queue.counts().values()) == 0


def test_perform_raises_the_exceptions_of_the_function(queue):
    """`perform` raises the function's exception itself, and errors of arguments and results."""
    raised = {"os": OSError(2, "no such"), "retry": RetryTask(delay=3), "cancel": CancelExecution()}

    @queue.task(name="body")
    def body(how):
        raise raised[how]

    @queue.task(name="spin", timeout=0.05)
    def spin():
        while True:
            pass

    for how, error in raised.items():
        with pytest.raises(type(error)) as caught:
            perform(body, how)
        assert caught.value is error
    with pytest.raises(TaskTimeout):
        perform(spin)
    with pytest.raises(Unserializable, match="the result of object"):
        perform(queue.task(name="object")(object))
    with pytest.raises(Unserializable, match="argument 'how' of body"):
        perform(body, object())
    with pytest.raises(TypeError, match="missing a required argument: 'how'"):
        perform(body)


# A store of the test's own -----------------------------------------------------------------------------------------


def test_testing_mode_gives_an_empty_store_in_memory(app, queue, clock):
    """In the block the queue is empty and in memory, with the same functions and handlers; after it, all is as before."""
    heard = Heard(queue)
    kept = app.add(1)
    store = queue.storage
    later = VirtualClock(clock.now() + 1000)
    with testing_mode(queue, later) as same:
        assert same is queue
        assert isinstance(queue.storage, MemoryStorage)
        assert queue.tasks() == []
        inner = app.add(2)
        assert inner.task.eta is None
        drain(queue)
        assert inner.history()[0].at == later.now()
        assert inner.get() == 2
        temporary = queue.storage
    assert queue.storage is store
    assert heard.of(inner) == ["enqueued", "executing", "complete"]
    assert [task.id for task in queue.tasks()] == [kept.id]
    drain(queue)
    assert kept.history()[0].at == clock.now()
    with pytest.raises(StorageError, match="closed"):
        temporary.counts()


def test_testing_mode_restores_the_queue_after_an_exception(app, queue):
    """After an exception in the block the queue is as before, also with nested blocks."""
    store, clock = queue.storage, queue.engine.clock
    with pytest.raises(OSError, match="it went wrong"), testing_mode(queue, VirtualClock()):
        outer = queue.storage, queue.engine.clock
        with pytest.raises(KeyError), testing_mode(queue):
            assert queue.engine.clock is outer[1]
            raise KeyError
        assert (queue.storage, queue.engine.clock) == outer
        raise OSError("it went wrong")
    assert (queue.storage, queue.engine.clock) == (store, clock)


def test_testing_mode_applies_to_threads_and_coroutines(app, queue):
    """Other threads and coroutines use the same store; a thread that waits on the store at the end is woken with an error."""

    async def enqueue():
        await asyncio.gather(*(asyncio.to_thread(app.add, n) for n in range(3)))
        app.add(3)
        drain(queue)

    errors = []

    def wait(begun):
        try:
            begun.set()
            app.add.schedule((9,), delay=1000).get(blocking=True)
        except LifecycleError as error:
            errors.append(type(error))

    with testing_mode(queue, VirtualClock()):
        asyncio.run(enqueue())
        assert sorted(task.args[0] for task in queue.tasks("complete")) == [0, 1, 2, 3]
        thread = threading.Thread(target=wait, args=(begun := threading.Event(),))
        thread.start()
        begun.wait()
        assert_enqueued(app.add, 9, timeout=PATIENCE)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert errors in ([StorageError], [UnknownTask])
    assert queue.tasks() == []


def test_testing_mode_keeps_immediate_mode(clock):
    """A queue in immediate mode is immediate in the block, too."""
    queue = TaskQueue(immediate=True, clock=clock)
    app = functions(queue)
    with testing_mode(queue):
        assert states(app.add(1)) == "queued executing complete"
    assert queue.tasks() == []
    queue.close()
