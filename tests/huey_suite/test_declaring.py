"""Functions, signals and hooks with Huey's names."""

import asyncio
import functools
import time
from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import ConfigurationError, UnknownSignal
from lifecycle.huey import MemoryHuey, PeriodicTask, Task, TaskWrapper, crontab
from lifecycle.huey.exceptions import CancelExecution, HueyException, TaskException, TaskLockedException
from lifecycle.huey.signals import SIGNAL_COMPLETE, SIGNAL_ERROR, SIGNAL_EXECUTING


@pytest.fixture
def huey():
    """Yield a queue in memory."""
    queue = MemoryHuey()
    yield queue
    queue.close()


def step(huey):
    """Run the next task, and return the value of its function."""
    return huey.execute(huey.dequeue())


def test_options_of_a_call_stand_among_its_arguments(huey):
    """A call and `s` take the options of a task; ``None`` means the function's own."""

    @huey.task(retries=2, retry_delay=3)
    def add(a, b=0):
        return a + b

    task = add.s(1, b=2, priority=5, retries=1, retry_delay=4, retry_backoff=2, timeout=6, id="my", expires=7)
    assert (task.priority, task.retries, task.retry_delay, task.retry_backoff) == (5, 1, 4, 2)
    assert (task.timeout, task.id, task.expires, task.data) == (6, "my", 7, ((1,), {"b": 2}))
    plain = add.s(1, priority=None, retries=None, eta=None)
    assert (plain.priority, plain.retries, plain.retry_delay, plain.eta, plain.timeout) == (0, 2, 3, None, None)
    assert (add.retries, add.retry_delay, add.call_local(1, 2)) == (2, 3, 3)
    later = add(1, delay=timedelta(minutes=1))
    assert huey.execute(later.task) is None
    assert huey.scheduled() == [later.task]


def test_an_argument_of_the_function_is_no_option(huey):
    """A parameter of the function that has the name of an option gets the value: Huey takes it away from the function."""

    @huey.task()
    def move(id, priority=1):
        return id, priority

    result = move(id="chair", priority=9)
    assert step(huey) == ("chair", 9)
    assert result.task.priority == 0
    assert result.id != "chair"


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda add: add(1, retries=-1), "retries=-1"),
        (lambda add: add(1, priority="high"), "priority='high'"),
        (lambda add: add(1, delay="soon"), "delay='soon'"),
        (lambda add: add(1, eta=datetime.now(UTC), delay=1), "not both"),
        (lambda add: add(1, id=7), "id=7"),
        (lambda add: add.schedule((1,)), "needs eta= or delay="),
        (lambda add: add.schedule(3, delay=1), "second time"),
        (lambda add: add.map("12"), "it='12'"),
        (lambda add: add.huey.enqueue(add), "is no task"),
        (lambda add: add.huey.revoke_all("add"), "task_class='add'"),
        (lambda add: add.huey.task(retries="2"), "retries='2'"),
        (lambda add: add.huey.task(name=3)(len), "name=3"),
        (lambda add: add.huey.task()(functools.partial(len)), "has no name"),
        (lambda add: add.huey.task()(add.func), "declared already"),
        (lambda add: add.huey.task(context=True, name="b")(lambda a: a), "a parameter named task"),
        (lambda add: add.huey.periodic_task("* * * * *"), "must be a rule"),
        (lambda add: add.huey.pre_execute("hook")(lambda: None), "must take"),
        (lambda add: add.huey.post_execute()(lambda task: None), "must take"),
        (lambda add: add.huey.signal("error")(lambda signal, task: None), "must take"),
        (lambda add: add.huey.signal()(asyncio.sleep), "write def, not async def"),
        (lambda add: add.huey.signal()(add), "must be a plain function"),
        (lambda add: add.huey.lock_task("a")(add), "below"),
        (lambda add: Task().eta.year, "NoneType"),
        (lambda add: Task().execute(), "no function is declared"),
        (lambda add: setattr(Task(), "eta", datetime.now(UTC)), "no function's task"),
        (lambda add: setattr(add.s(1), "eta", 5), "eta=5"),
        (lambda add: setattr(add.s(1), "retry_delay", -5), "retry_delay=-5"),
        (lambda add: add.huey.create_consumer(periodic=False), "periodic=False"),
        (lambda add: add.huey.create_consumer(graceful_signal="HUP"), "graceful_signal='HUP'"),
        (lambda add: setattr(add.huey, "immediate", True) or add.huey.create_consumer(), "immediate=True"),
        (lambda add: add.huey.create_consumer(worker=2), "did you mean workers="),
        (lambda add: add.huey.create_consumer(worker_type="fiber"), "worker_type='fiber'"),
    ],
)
def test_bad_input_is_refused_where_it_is_written(huey, call, error):
    """A call that cannot be meant raises an error that names the option and its rule; nothing is enqueued."""
    add = huey.task()(lambda a: a)
    with pytest.raises((ConfigurationError, AttributeError), match=error):
        call(add)
    assert len(huey) == 0


def test_wrong_arguments_raise_at_the_call(huey):
    """Arguments that do not fit the function raise `TypeError` at the call, where Huey's task fails in the worker."""
    add = huey.task()(lambda a: a)
    with pytest.raises(TypeError, match="missing a required argument"):
        add()
    with pytest.raises(UnknownSignal):
        huey.signal("completed")


def test_attributes_of_the_decorator_are_those_of_the_tasks(huey):
    """Further options of the decorator are attributes of each task, in handlers and in the function, too."""
    seen = []

    @huey.task(context=True, owner="ann", url=None)
    def work(n, task=None, *, more=1):
        seen.append((task.owner, task.url, task.name, task.attempt, task.id))
        return n + more

    huey.signal(SIGNAL_EXECUTING)(lambda signal, task: seen.append((task.owner, type(task))))
    result = work(1, more=2)
    assert step(huey) == 3
    assert seen == [("ann", Task), ("ann", None, "work", 1, result.id)]
    with pytest.raises(AttributeError):
        work.s(1).color


@pytest.fixture
def far_west(monkeypatch):
    """Let local time be that of California."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_west")
def test_times_are_naive_in_the_zone_of_the_queue():
    """Datetimes that programs get are UTC, or local time with ``utc=False``; those that they give may be aware."""
    at = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    for utc, shown in ((True, at.replace(tzinfo=None)), (False, at.astimezone().replace(tzinfo=None))):
        huey = MemoryHuey(utc=utc)
        task = huey.task()(abs_of).s(1, eta=at, expires=at + timedelta(1))
        assert (task.eta, task.expires) == (shown, shown + timedelta(1))
        assert huey.ready_to_run(task, shown)
        assert not huey.ready_to_run(task, shown - timedelta(microseconds=1))
        task.eta = shown + timedelta(hours=1)
        assert task.inner.eta == at.timestamp() + 3600
        huey.periodic_task(crontab(minute="4", hour="3"), name="p")(abs_or_none)
        assert [one.name for one in huey.read_periodic(datetime(2030, 1, 2, 3, 4))] == ["p"]
        huey.queue.enqueue_periodic(at)
        hours = {datetime.fromtimestamp(status.next_at, UTC).hour for status in huey.queue.periodic_tasks()}
        assert hours <= ({3} if utc else {10, 11})  # in summer and in winter
        huey.close()


def abs_of(number):
    return abs(number)


def test_periodic_functions_have_rules_of_naive_datetimes(huey):
    """A rule made by `crontab`, or a function of a naive datetime, says when; the consumer and `read_periodic` ask it."""
    asked = []

    def mondays(moment):
        asked.append(moment.tzinfo)
        return moment.weekday() == 0

    huey.periodic_task(mondays, name="weekly")(lambda: 1)
    huey.periodic_task(crontab.hourly())(abs_or_none)
    tasks = huey.read_periodic(datetime(2024, 1, 1, 5, 0))
    assert [(task.name, type(task)) for task in tasks] == [("weekly", PeriodicTask), ("abs_or_none", PeriodicTask)]
    assert tasks[0].validate_datetime(datetime(2024, 1, 1))
    assert [task.name for task in huey.read_periodic(datetime(2024, 1, 1, 5, 1))] == ["weekly"]
    assert huey.queue.next_tick_at() == float("inf")
    assert huey.queue.enqueue_periodic() == []
    assert huey.queue.next_tick_at() < float("inf")
    assert set(asked) == {None}
    assert crontab.daily(day_of_week="1")(datetime(2024, 1, 1))


def abs_or_none(number=None):
    return number


def test_handlers_get_tasks_with_hueys_names(huey):
    """Handlers and hooks get a `Task`, in the order of registration; a handler can be disconnected, a hook removed."""
    seen = []

    @huey.signal(SIGNAL_COMPLETE, SIGNAL_ERROR)
    def handler(signal, task, exc=None):
        seen.append((signal, task.name, type(exc).__name__))

    @huey.pre_execute()
    def check(task):
        seen.append(("pre", task.name))
        if task.args == (None,):
            raise CancelExecution

    @huey.post_execute(name="report")
    def note(task, value, exc):
        seen.append(("post", task.name, value))

    huey.task(name="double")(lambda n: n * 2)
    work = huey.task()(abs_of)
    work(-3)
    assert step(huey) == 3
    assert seen == [("pre", "abs_of"), ("post", "abs_of", 3), ("complete", "abs_of", "NoneType")]
    seen.clear()
    canceled = work(None)
    assert step(huey) is None
    assert seen == [("pre", "abs_of")]
    with pytest.raises(TaskException, match="CancelExecution"):
        canceled.get()
    huey.disconnect_signal(handler, SIGNAL_COMPLETE)
    assert huey.unregister_pre_execute(check)
    assert huey.unregister_post_execute("report")
    assert not huey.unregister_pre_execute("check")
    work("a")
    assert step(huey) is None
    assert seen[1:] == [("error", "abs_of", "TypeError")]


def test_hooks_of_workers_are_those_of_the_queue(huey):
    """Hooks of workers are called in the workers of a consumer, and can be removed."""
    called = []
    huey.on_startup()(lambda: called.append("up"))
    huey.on_shutdown(name="down")(lambda: called.append("down"))
    never = huey.on_startup()(lambda: called.append("never"))
    assert huey.unregister_on_startup(never)
    consumer = huey.create_consumer(workers=1, flush_locks=True, shutdown_timeout=1, initial_delay=1)
    consumer.start()
    assert huey.task()(abs_of)(-1).get(blocking=True, timeout=30) == 1
    consumer.stop(graceful=True)
    assert called == ["up", "down"]
    assert huey.unregister_on_shutdown("down")


def test_a_consumer_may_free_locks_at_its_start(huey):
    """`flush_locks` frees all locks when the consumer starts."""
    huey.lock_task("a", ttl=600).acquire()
    consumer = huey.create_consumer(extra_locks="b")
    consumer.start()
    consumer.stop()
    assert not huey.is_locked("a")


def test_locks_raise_and_are_released_by_any_object(huey):
    """`acquire` raises if the lock is taken; an object that has not acquired the lock frees it for any holder."""
    lock = huey.lock_task("a")
    assert lock.acquire()
    with pytest.raises(TaskLockedException, match="unable to acquire lock a"):
        huey.lock_task("a").acquire()
    with pytest.raises(HueyException), huey.lock_task("a"):
        raise AssertionError
    assert huey.lock_task("a").locked()
    assert huey.lock_task("a").release()
    huey.lock_task("a").acquire()
    assert not lock.release()
    assert huey.is_locked("a")


def test_immediate_mode_leaves_the_store_alone():
    """Immediate mode runs a task at the call, in a store of its own; ``immediate_use_memory=False`` uses the queue's."""
    huey = MemoryHuey()
    work = huey.task()(abs_of)
    waiting = work(-1)
    huey.immediate = True
    assert (work(-2).get(), waiting.get(), len(huey)) == (2, None, 0)
    huey.put("key", 1)
    huey.immediate = False
    assert (len(huey), huey.get("key"), huey.immediate) == (1, None, False)
    huey.close()
    huey = MemoryHuey(immediate_use_memory=False)
    waiting = huey.task()(abs_of)(-1)
    huey.immediate = True
    assert huey.task(name="b")(abs_of)(-2).get() == 2
    assert waiting.get() == 1
    huey.close()


def test_a_queue_without_results_returns_no_handles():
    """With ``results=False`` a call, `enqueue` and `map` return ``None``; the tasks run all the same."""
    huey = MemoryHuey(results=False)
    work = huey.task()(abs_of)
    assert (work(-1), huey.enqueue(work.s(-2)), work.map([-3]), work.schedule(delay=-1, args=(-4,))) == (None,) * 4
    assert [step(huey) for _ in range(4)] == [1, 2, 3, 4]
    huey.close()


def test_a_function_can_be_a_task_of_two_queues():
    """A decorated function may be declared on another queue, too: each call goes to the queue of its wrapper."""
    first, second = MemoryHuey("a"), MemoryHuey("b")
    one = first.task()(abs_of)
    two = second.task(retries=1)(one)
    assert isinstance(two, TaskWrapper)
    two(-1)
    assert (len(first), len(second), two.retries, one.retries) == (0, 1, 1, 0)
    assert "task function" in repr(two)
    first.close()
    second.close()


def test_revoking_by_all_names(huey):
    """A function, a task, its handle and its id can be revoked and restored; a moment can be asked about."""
    work = huey.task()(abs_of)
    first, second = work(-1), work(-2)
    work.revoke(revoke_until=timedelta(hours=1))
    now = datetime.now(UTC)
    assert (work.is_revoked(), work.is_revoked(now), work.is_revoked(now + timedelta(hours=2))) == (True, True, False)
    assert huey.is_revoked(work.task_class)
    assert huey.restore_all(work)
    huey.revoke_all(work, revoke_once=True)
    assert huey.is_revoked(first)
    assert step(huey) is None
    assert not huey.restore_all(work)
    huey.revoke(second.task)
    assert huey.restore(second.task)
    huey.revoke_by_id(second.id)
    assert huey.restore_by_id(second.id)
    assert step(huey) == 2
