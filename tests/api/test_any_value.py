"""Any value at all, passed to any public call: refused before anything is stored, or accepted, the same on each store."""

import math
import re
from contextlib import ExitStack
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from conftest import NOW
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.profiles import examples

from lifecycle import Consumer, IllegalTransition, LifecycleError, RateLimitExceeded, RetryTask, TaskQueue
from lifecycle.core.task import RetryPolicy, Task
from lifecycle.function import TaskFunction
from lifecycle.result import Result


class Odd:
    """Object of a type that no call expects."""


class Text(str):
    """Subclass of str with another text."""

    __slots__ = ()

    def __str__(self):
        return "another"


class Whole(int):
    """Subclass of int with another repr."""

    def __repr__(self):
        return "whole"


ODD = [
    Odd(), Odd, len, lambda: 0, Path("a"), Text("text"), Whole(7), Whole(2**40), Decimal(1), 1j, [1], (1, 2), (1,), {}, {"a": 1},
    {"self": 1}, {1: 2}, {1, 2}, frozenset(), range(2), b"raw", bytearray(b"raw"), memoryview(b"raw"), Ellipsis,
    NotImplemented, int, "known", "add", "queued", "a\0", "\ud800", "x" * 500, "x" * 501, "\\0", "'", "{", "é" * 500, "a\nb",
    0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63) - 1, 10**400, -(10**400), 10**5000,
    0.5, -0.0, 1e-320, 1e11, 1.1e11, 253402300799.0, 253402300800.0, -62135596801.0, 1e300, math.nan, math.inf, -math.inf,
    True, False, None, timedelta.max, timedelta.min, datetime.max, datetime.min, datetime(2001, 9, 9, tzinfo=UTC),  # noqa: DTZ901
    time(1), RetryPolicy(delay=math.nan), RetryPolicy(delay="1"), RetryPolicy(2.0, 3.0), Task("mine", "add"),
    Task("mine", "unknown"), Task(b"raw", "add"), [Task("mine", "add"), Task("mine", "add")],
]  # fmt: skip
anything = (
    st.sampled_from(ODD)
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.timedeltas()
    | st.lists(st.integers() | st.text(), max_size=3)
)

FIELDS = (
    "id", "name", "state", "eta", "expires", "priority", "retries", "retry", "timeout", "attempt", "interruptions",
    "worker", "version", "lease", "canceling", "enqueued_at", "payload", "seq",
)  # fmt: skip
CALL_OPTIONS = (
    "args", "kwargs", "eta", "delay", "priority", "retries", "retry_delay", "retry_backoff", "expires", "timeout", "id",
)  # fmt: skip
TASK_OPTIONS = (
    "retries", "retry_delay", "retry_backoff", "priority", "expires", "timeout", "context", "name", "retry_max_delay",
    "retry_jitter", "max_interruptions",
)  # fmt: skip
ON_STORE = {
    **{f"schedule({name})": lambda q, f, v, name=name: f.schedule(**{name: v}) for name in CALL_OPTIONS},
    **{f"schedule(delay, {n})": lambda q, f, v, n=n: f.schedule(**{"delay": 9} | {n: v}) for n in ("args", "expires")},
    **{f"task.{name}": lambda q, f, v, name=name: enqueue_changed(q, f, name, v) for name in FIELDS},
    **{f"task({n})": lambda q, f, v, n=n: q.task(**({"name": "g"} | {n: v}))(body)() for n in TASK_OPTIONS},
    "call": lambda q, f, v: f(v),
    "enqueue": lambda q, f, v: q.enqueue(v),
    "enqueue_many": lambda q, f, v: q.enqueue_many(v),
    "enqueue_many of a task and a value": lambda q, f, v: q.enqueue_many([f.s(), v]),
    "map": lambda q, f, v: f.map(v),
    "map of a list": lambda q, f, v: f.map([1, v]),
    "revoke": lambda q, f, v: q.revoke(v),
    "revoke_by_id": lambda q, f, v: q.revoke_by_id(v),
    "revoke_by_id(revoke_until)": lambda q, f, v: q.revoke_by_id("known", v),
    "revoke_by_id(revoke_once)": lambda q, f, v: q.revoke_by_id("known", None, v),
    "revoke_all": lambda q, f, v: q.revoke_all(v),
    "function.revoke": lambda q, f, v: f.revoke(v),
    "function.revoke(revoke_once)": lambda q, f, v: f.revoke(revoke_once=v),
    "restore": lambda q, f, v: q.restore(v),
    "restore_by_id": lambda q, f, v: q.restore_by_id(v),
    "restore_all": lambda q, f, v: q.restore_all(v),
    "is_revoked": lambda q, f, v: q.is_revoked(v),
    "cancel": lambda q, f, v: q.cancel(v),
    "retry": lambda q, f, v: q.retry(v),
    "get": lambda q, f, v: q.get(v),
    "history": lambda q, f, v: q.history(v),
    "result": lambda q, f, v: q.result(v),
    "result(blocking)": lambda q, f, v: q.result("done", v),
    "result(timeout)": lambda q, f, v: q.handle("done").get(timeout=v),
    "reschedule(eta)": lambda q, f, v: q.handle("known").reschedule(eta=v),
    "reschedule(delay)": lambda q, f, v: q.handle("known").reschedule(delay=v),
    "reschedule(priority)": lambda q, f, v: q.handle("known").reschedule(priority=v),
    "errors": lambda q, f, v: q.errors(v),
    "tasks(state)": lambda q, f, v: q.tasks(v),
    "tasks(limit)": lambda q, f, v: q.tasks(limit=v),
    "tasks(before)": lambda q, f, v: q.tasks(before=v),
    "tasks(name)": lambda q, f, v: q.tasks(name=v),
    "tasks(since)": lambda q, f, v: q.tasks(since=v),
    "unknown_functions": lambda q, f, v: q.unknown_functions(v),
    "lock_task": lambda q, f, v: q.lock_task(v).acquire(),
    "lock_task(ttl)": lambda q, f, v: q.lock_task("a lock", v).acquire(),
    "is_locked": lambda q, f, v: q.is_locked(v),
    "flush_locks": lambda q, f, v: q.flush_locks(v),
    "run_next": lambda q, f, v: q.run_next(v),
    "RetryTask(delay)": lambda q, f, v: run(q, lambda: RetryTask(delay=v)),
    "RetryTask(eta)": lambda q, f, v: run(q, lambda: RetryTask(eta=v)),
    "RateLimitExceeded(delay)": lambda q, f, v: run(q, lambda: RateLimitExceeded("key", v)),
    "immediate": lambda q, f, v: setattr(q, "immediate", v),
}
"""Calls with a value that read or write a store."""
QUEUE_OPTIONS = (
    "name", "immediate", "serializer", "lease", "retention", "clock", "max_interruptions", "intermediate_errors", "max_bytes",
)  # fmt: skip
CONSUMER_OPTIONS = (
    "workers", "worker_type", "grace", "start_method", "max_tasks", "max_memory", "ready_file", "health", "restart_from",
)  # fmt: skip
WITHOUT_STORE = {
    "url": TaskQueue,
    **{f"TaskQueue({n})": lambda v, n=n: TaskQueue("memory://", **{n: v}) for n in QUEUE_OPTIONS},
    **{f"Consumer({n})": lambda v, n=n: Consumer(TaskQueue("memory://"), **{n: v}) for n in CONSUMER_OPTIONS},
    "Consumer": Consumer,
    "signal": lambda v: TaskQueue("memory://").signal(v),
    **{
        f"{kind}": lambda v, kind=kind: getattr(TaskQueue("memory://"), kind)(v)
        for kind in ("pre_execute", "post_execute", "on_startup", "on_shutdown")
    },
}
"""Calls with a value that reach no store."""


def body(task=None, *args, **kwargs):
    """Do nothing: a task function for any arguments."""


def enqueue_changed(queue, function, name, value):
    """Enqueue a task one field of which was changed."""
    task = function.s()
    setattr(task, name, value)
    return queue.enqueue(task)


def run(queue, error):
    """Run a task that raises an exception; return its state."""

    def fails():
        raise error()

    result = queue.task(name="fails", retries=1)(fails)()
    queue.revoke_by_id("known")
    queue.run_next()
    queue.run_next()
    return result.state


def shown(value):
    """Return a result of a call without what differs between two queues: random ids."""
    if isinstance(value, Result):
        return "handle"
    if isinstance(value, Task):
        return value.name, value.state
    if isinstance(value, list):
        return [shown(one) for one in value]
    if isinstance(value, dict):
        return sorted(map(repr, value))
    return None if isinstance(value, TaskFunction) or callable(value) else getattr(value, "state", repr(value))


def stored(queue):
    """Return all that a queue stores and that a caller can see."""
    tasks = [
        (
            task.id if len(task.id) != 32 else "", task.name, task.state, task.eta, task.expires, task.priority, task.retries,
            task.retry, task.timeout, task.attempt, repr(task.call), queue.is_revoked(task),
        )
        for task in queue.tasks(limit=99)
    ]  # fmt: skip
    return tasks, sorted(lock.name for lock in queue.storage.locks(NOW))


def outcome(queue, call, value):
    """Make a call on a queue with some tasks; return what it returned or raised, and what is stored before and after."""
    function = queue.task(name="add")(body)
    function.schedule(id="done")
    queue.run_next()
    function.schedule(id="known")
    before = stored(queue)
    try:
        answer = "returned", shown(call(queue, function, value))
    except (LifecycleError, IllegalTransition, TypeError) as error:
        answer = "raised", type(error).__name__, re.sub(r"[0-9a-f]{32}", "id", str(error))
        assert str(error)
        if "task" not in str(error) or "could" not in str(error):
            assert stored(queue) == before, "the call was refused, but has changed something"
    after = stored(queue)
    queue.run_next()
    return answer, after, stored(queue)


@pytest.mark.parametrize("kind", ["sqlite", "redis", "postgres"])
def test_any_value_means_the_same_on_each_store(kind, new):
    """Any value of any argument is refused with an error of the library, or means what it means in memory."""

    @settings(max_examples=examples(400), deadline=None)
    @given(st.sampled_from(sorted(ON_STORE)), anything)
    @example("schedule(id)", 42)
    @example("schedule(id)", b"raw")
    @example("schedule(retries)", 2**70)
    @example("schedule(eta)", 10**400)
    @example("lock_task", 42)
    @example("RetryTask(delay)", -0.1)
    @example("tasks(limit)", 2**53)
    @example("retry", "known")
    @example("enqueue_many", [Task("mine", "add"), Task("mine", "add")])
    def same(name, value):
        with ExitStack() as queues:
            memory, other = (queues.enter_context(new(one)) for one in ("memory", kind))
            expected = outcome(memory, ON_STORE[name], value_of(value))
            assert outcome(other, ON_STORE[name], value_of(value)) == expected

    same()


def value_of(value):
    """Return a value that a call may change, new for each call: a task is changed as it is enqueued."""
    if isinstance(value, Task):
        return Task(value.id, value.name)
    return [value_of(one) for one in value] if isinstance(value, list) else value


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(sorted(WITHOUT_STORE)), anything)
@example("url", None)
@example("TaskQueue(name)", 5)
def test_any_value_of_an_option_is_refused_or_accepted(name, value):
    """Any value of an option of a queue or consumer is accepted, or refused with an error of the library."""
    try:
        WITHOUT_STORE[name](value)
    except LifecycleError as error:
        assert str(error)
