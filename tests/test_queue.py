"""The queue as its users hold it: declaring tasks, calling them, running them, looking at them."""

import asyncio
import inspect
import logging
import os
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent

import attrs
import pytest
from conftest import KINDS, Heard, drain, failure, states
from hypothesis import given
from hypothesis import strategies as st
from strategies import LAW, patient

import lifecycle
from lifecycle import (
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    CancelExecution,
    ConfigurationError,
    DuplicateTask,
    IllegalTransition,
    RetryTask,
    StorageError,
    StorageFull,
    TaskException,
    TaskInterrupted,
    TaskQueue,
    UnknownTask,
    Unserializable,
)
from lifecycle.clock import SystemClock
from lifecycle.testing import VirtualClock

NOW = 1_000_000_000.0
"""Where the virtual clock begins."""
kinds = st.sampled_from(KINDS)


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b=0):
        return a + b

    return add


@pytest.fixture
def ran():
    return []


# Declaring ---------------------------------------------------------------------------------------------------------


def test_a_task_function_is_its_function(queue):
    """A decorated function has the name, the docstring and the signature of the plain one, and its own repr."""

    @queue.task()
    def plain(a: int, *, b: str = "x") -> int:
        """Adds nothing."""

    assert (plain.__name__, plain.__doc__) == ("plain", "Adds nothing.")
    assert str(inspect.signature(plain)) == "(a: int, *, b: str = 'x') -> int"
    assert repr(plain) == f"<task function {plain.name}>"


def test_names(queue):
    """A function's tasks carry its module's name and its own, or the name that it is given."""

    @queue.task()
    def nameless(): ...

    @queue.task(name="billing.charge")
    def named(): ...

    assert nameless.name == f"{__name__}.test_names.<locals>.nameless"
    assert named.name == "billing.charge"
    assert queue.get(named().id).name == "billing.charge"


@pytest.mark.parametrize("how", ["file", "module", "code"])
def test_names_in_main(how, tmp_path):
    """A module that runs as a program has the name that a consumer will import it by."""
    code = dedent("""
        from lifecycle import TaskQueue
        queue = TaskQueue("memory://")
        @queue.task()
        def add(a, b): ...
        print(add.name)
    """)
    (tmp_path / "chores.py").write_text(code)
    command = {"file": [str(tmp_path / "chores.py")], "module": ["-m", "chores"], "code": ["-c", code]}[how]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("__main__.add" if how == "code" else "chores.add")


def test_two_functions_of_one_name(queue):
    """Two functions cannot have one name; the error names both. The same function may be declared again."""

    def declare():
        @queue.task(name="mail")
        def mail(): ...

        return mail

    first = declare()
    assert declare().name == first.name

    def other(): ...

    with pytest.raises(ConfigurationError, match=r"'mail'.*declare.<locals>.mail.*<locals>.other.*name="):
        queue.task(name="mail")(other)
    result = first()
    assert queue.run_next().id == result.id


def test_a_function_declared_again_is_the_one_that_runs(queue):
    """Of a function that is declared twice, as when its module is reloaded, the last one runs."""

    def declare(value):
        @queue.task()
        def version():
            return value

        return version

    old, _ = declare(1), declare(2)
    result = old()
    queue.run_next()
    assert result.get() == 2


options = st.fixed_dictionaries(
    {},
    optional={
        "retries": st.integers(0, 9),
        "retry_delay": st.integers(0, 60) | st.integers(0, 60).map(lambda n: timedelta(seconds=n)),
        "retry_backoff": st.sampled_from([0, 1, 1.5, 2]),
        "priority": st.integers(-(2**31), 2**31 - 1),
        "expires": st.integers(1, 99)
        | st.integers(1, 99).map(lambda n: timedelta(seconds=n))
        | st.integers(1, 99).map(lambda n: datetime.fromtimestamp(NOW + n, UTC)),
        "timeout": st.integers(1, 99) | st.integers(1, 99).map(lambda n: timedelta(seconds=n)),
    },
)


def as_stored(given):
    """What a task says of the options that it was given."""

    def seconds(value):
        return value.total_seconds() if isinstance(value, timedelta) else value

    expires = given.get("expires")
    return {
        "retries": given.get("retries", 0),
        "retry_delay": seconds(given.get("retry_delay", 0)),
        "priority": given.get("priority", 0),
        "expires": expires
        if expires is None
        else (expires.timestamp() if isinstance(expires, datetime) else NOW + seconds(expires)),
        "timeout": seconds(given.get("timeout")),
    }


def told(task):
    return {name: getattr(task, name) for name in ("retries", "retry_delay", "priority", "expires", "timeout")}


@patient
@given(kinds, options, options)
def test_options(new, kind, declared, called):
    """A task has its function's options, and its call's where that has any; durations count from the call."""
    with new(kind) as queue:

        @queue.task(**declared)
        def add(a, b):
            return a + b

        for result, given_ in [
            (add(1, 2), declared),
            (queue.enqueue(add.s(1, b=2)), declared),
            (add.map([(1, 2)])[0], declared),
            (add.schedule((1,), {"b": 2}), declared),
            (add.schedule([1, 2], **called), declared | called),
        ]:
            task = queue.get(result.id)
            assert told(task) == as_stored(given_)
            assert task.retry.backoff == given_.get("retry_backoff", 0)
            assert (task.state, task.attempt, task.eta) == ("queued", 0, None)
            assert (task.args, task.kwargs) in [((1, 2), {}), ((1,), {"b": 2})]


@patient
@given(kinds, st.lists(st.integers(-3, 3), min_size=2, max_size=12))
def test_order(new, kind, priorities):
    """Tasks run by priority, the higher first, and by age within one."""
    with new(kind) as queue:

        @queue.task()
        def add(n): ...

        ids = [add.schedule((n,), priority=priority).id for n, priority in enumerate(priorities)]
        by_rank = sorted(range(len(ids)), key=lambda n: (-priorities[n], n))
        assert [task.id for task in drain(queue)] == [ids[n] for n in by_rank]


def test_a_scheduled_task_has_its_priority_when_due(queue, clock, add):
    """A task that has waited for its ETA is then ranked as any other."""
    ids = [
        add.schedule((1,), delay=10, priority=1).id, add.schedule((1,), delay=5, priority=0).id,
        add.schedule((1,), delay=5, priority=2).id,
    ]  # fmt: skip
    assert queue.run_next() is None
    clock.advance(10)
    ids.append(add.schedule((1,), priority=1).id)
    assert [task.id for task in drain(queue)] == [ids[n] for n in (2, 0, 3, 1)]


# Calling -----------------------------------------------------------------------------------------------------------


def test_a_task_is_yours_until_it_is_enqueued(queue, heard, add):
    """`s` makes a task that is nowhere yet; what is changed in it before it is enqueued counts."""
    task = add.s(1, b=2)
    assert (task.state, task.args, task.kwargs, len(heard)) == (None, (1,), {"b": 2}, 0)
    with pytest.raises(UnknownTask, match=task.id):
        queue.get(task.id)
    task.priority, task.retries = 7, 3
    result = queue.enqueue(task)
    assert (result.id, task.state) == (task.id, "queued")
    stored = queue.get(task.id)
    assert (stored.priority, stored.retries, stored.args, stored.kwargs) == (7, 3, (1,), {"b": 2})
    queue.run_next()
    assert result.get() == 3


ETAS = {
    "aware": datetime.fromtimestamp(NOW + 100, UTC),
    "naive": datetime.fromtimestamp(NOW + 100),  # noqa: DTZ006 -- local time, on purpose
    "another zone": datetime.fromtimestamp(NOW + 100, UTC).astimezone(datetime.now().astimezone().tzinfo),
}


@pytest.mark.parametrize(
    "when",
    [*({"eta": eta} for eta in ETAS.values()), {"delay": 100}, {"delay": 100.0}, {"delay": timedelta(seconds=100)}],
    ids=str,
)
def test_etas(queue, clock, add, when):
    """A task runs at its ETA, given as an aware or a local datetime, or as a delay, in seconds or as a timedelta."""
    result = add.schedule((1, 2), **when)
    assert queue.get(result.id).eta == NOW + 100
    assert queue.run_next() is None
    clock.advance(99.5)
    assert queue.run_next() is None
    clock.advance(0.5)
    assert queue.run_next().id == result.id
    assert queue.get(result.id).eta is None


@pytest.mark.parametrize("when", [100, 100.0, timedelta(seconds=100), *ETAS.values()], ids=str)
def test_a_time_in_the_first_place(queue, when):
    """A call that has no arguments may be scheduled by its time alone, as users of Huey do it."""
    result = queue.task(name="nothing")(lambda: None).schedule(when)
    assert queue.get(result.id).eta == NOW + 100
    assert queue.get(result.id).args == ()


@pytest.mark.parametrize("field", ["eta", "expires"])
@pytest.mark.parametrize("moment", [*ETAS.values(), NOW + 100], ids=str)
def test_moments_of_a_task(queue, add, field, moment):
    """Who changes a task before it is enqueued may set its moments as datetimes, too."""
    task = add.s(1)
    setattr(task, field, moment)
    assert getattr(queue.get(queue.enqueue(task).id), field) == NOW + 100


def test_an_eta_that_has_passed(queue, add):
    """A task whose ETA has passed is due at once, and never `scheduled`."""
    result = add.schedule((1, 2), eta=datetime.fromtimestamp(NOW - 1, UTC))
    queue.run_next()
    assert states(result) == "queued executing complete"


def test_map(queue, heard, add):
    """`map` enqueues a call for each item, in order: a tuple is its arguments, anything else its only one."""
    results = add.map(iter([(1, 2), 3, (4,), "56"]))
    assert [signal for signal, *_ in heard] == ["enqueued"] * 4
    assert [queue.get(result.id).args for result in results] == [(1, 2), (3,), (4,), ("56",)]
    assert add.map([]) == []


@patient
@given(kinds, st.integers(0, 4), st.sampled_from(["duplicate", "argument", "priority"]))
def test_all_or_none(new, kind, place, flaw):
    """Of tasks enqueued together all are, in their order, or none is, and then nothing is announced."""
    with new(kind) as queue:
        heard = Heard(queue)

        @queue.task()
        def add(a, b): ...

        tasks = [add.s(n, n) for n in range(5)]
        if flaw == "duplicate":
            tasks[place].id = add(0, 0).id
        elif flaw == "argument":
            tasks[place] = add.s(1, object())
        else:
            tasks[place].priority = 2**31
        count = len(heard)
        with pytest.raises((DuplicateTask, Unserializable, ConfigurationError)):
            queue.enqueue_many(tasks)
        assert len(heard) == count
        assert sum(queue.counts().values()) == count
        good = [task for n, task in enumerate(tasks) if n != place]
        assert all(task.state is None for task in good)
        results = queue.enqueue_many(iter(good))
        assert [result.id for result in results] == [task.id for task in good]
        assert [entry[1:] for entry in heard[count:]] == [(task.id, "queued") for task in good]
        assert [task.id for task in drain(queue)][count:] == [task.id for task in good]


def test_duplicate_ids(queue, heard, add):
    """An id is used once: a second task of that id is refused by name, and the first one is not touched."""
    result = add.schedule((1, 2), id="order-7")
    assert result.id == "order-7"
    with pytest.raises(DuplicateTask, match="order-7") as caught:
        add.schedule((3, 4), id="order-7")
    assert caught.value.task_id == "order-7"
    one, other = add.s(5), add.s(6)
    other.id = one.id
    with pytest.raises(DuplicateTask, match=one.id):
        queue.enqueue_many([one, other])
    assert heard.story(result) == "enqueued"
    assert [task.id for task in drain(queue)] == ["order-7"]
    assert result.get() == 3
    with pytest.raises(DuplicateTask):
        add.schedule((3, 4), id="order-7")


def test_ids_are_new_each_time(queue, add):
    """Each call has an id of its own, 32 hexadecimal digits."""
    ids = [add(1).id for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(task_id) == 32 and int(task_id, 16) for task_id in ids)


def test_call_local(queue, heard):
    """`call_local` calls the plain function here and now: no task, no signal, and what it raises is raised."""

    @queue.task(retries=3)
    def divide(a, b):
        return a / b

    @queue.task()
    async def halve(a):
        return a / 2

    assert divide.call_local(6, b=3) == 2
    assert asyncio.run(halve.call_local(6)) == 3
    with pytest.raises(ZeroDivisionError):
        divide.call_local(1, 0)
    assert heard == []
    assert not any(queue.counts().values())


SIGNATURES = {
    "two": (lambda a, b: None, [((), {}), ((1,), {}), ((1, 2, 3), {}), ((1,), {"c": 2}), ((1, 2), {"a": 1})]),
    "default": (lambda a, b=0: None, [((), {}), ((1, 2, 3), {}), ((1,), {"a": 1})]),
    "keyword": (lambda a, *, b: None, [((1,), {}), ((1, 2), {}), ((), {"b": 1})]),
    "any": (lambda *a, **b: None, []),
    "positional": (lambda a, /: None, [((), {"a": 1}), ((), {})]),
}
FITTING = {
    "two": [((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2})],
    "default": [((1,), {}), ((1, 2), {}), ((), {"a": 1})],
    "keyword": [((1,), {"b": 2})],
    "any": [((), {}), ((1, 2, 3), {"x": 1})],
    "positional": [((1,), {})],
}


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("way", ["call", "s", "schedule"])
def test_signatures(queue, heard, signature, way):
    """Arguments that do not fit are a TypeError where they are given, and no task; those that fit run."""
    function, bad = SIGNATURES[signature]
    task = queue.task(name="task")(function)

    def call(args, kwargs):
        if way == "s":
            return queue.enqueue(task.s(*args, **kwargs))
        return task(*args, **kwargs) if way == "call" else task.schedule(args, kwargs)

    for args, kwargs in bad:
        with pytest.raises(TypeError, match=r"^task\(\): "):
            call(args, kwargs)
    assert heard == []
    for args, kwargs in FITTING[signature]:
        call(args, kwargs)
        assert queue.run_next().state == "complete"


# What runs ---------------------------------------------------------------------------------------------------------


def test_run_next_says_what_it_did(queue, clock, add):
    """`run_next` returns the task in the state it came to, whatever that is, or None if none was due."""
    assert queue.run_next() is None

    @queue.task(retries=1, retry_delay=5)
    def fails():
        raise ValueError

    assert (add(1).id, "complete") == attrs.astuple(queue.run_next())[0:4:3]
    fails()
    assert queue.run_next().state == "scheduled"
    assert queue.run_next() is None
    clock.advance(5)
    assert queue.run_next().state == "error"
    add(1).revoke()
    assert queue.run_next().state == "revoked"
    add.schedule((1,), expires=1)
    clock.advance(1)
    assert queue.run_next().state == "expired"
    later = [add.schedule((1,), delay=10), add.schedule((1,), delay=20)]
    now = add(1)
    assert queue.run_next().id == now.id
    assert [result.state for result in later] == ["scheduled", "scheduled"]
    assert queue.run_next() is None


@pytest.mark.parametrize("moment", [NOW + 50, datetime.fromtimestamp(NOW + 50, UTC)], ids=["seconds", "datetime"])
def test_run_next_at_another_moment(queue, add, moment):
    """`run_next` goes by the moment that it is told, if it is told one, and writes that down."""
    result = add.schedule((1, 2), delay=50)
    assert queue.run_next(NOW + 49) is None
    assert queue.run_next(moment).id == result.id
    assert [(record.state, record.at - NOW) for record in result.history()] == [
        ("queued", 0), ("scheduled", 49), ("executing", 50), ("complete", 50),
    ]  # fmt: skip


def test_context(queue, ran):
    """A function that asks for its context gets its task, which it does not share with the caller's arguments."""

    @queue.task(context=True, retries=2)
    def look(a, task=None):
        ran.append((a, task.id, task.state, task.attempt, task.retries, task.args, task.kwargs, task.name))
        raise RetryTask if task.attempt == 1 else ValueError

    @queue.task(context=True)
    def keyword(a, *, task):
        return a, task.id

    @queue.task(context=True)
    def any_keyword(**kwargs):
        return kwargs["task"].id

    result = look(1)
    drain(queue)
    assert ran == [
        (1, result.id, "executing", attempt, retries, (1,), {}, look.name)
        for attempt, retries in [(1, 2), (2, 2), (3, 1), (4, 0)]
    ]
    for function, args in ((keyword, (5,)), (any_keyword, ())):
        result = function(*args)
        queue.run_next()
        assert result.get() == ((5, result.id) if args else result.id)
    with pytest.raises(TypeError, match="task"):
        look(1, task="mine")


def test_context_comes_first(queue):
    """The task may be any parameter of the function: a call that fits the others works, or is refused at once."""

    @queue.task(context=True)
    def first(task, a):
        return task.id, a

    result = first(a=5)
    queue.run_next()
    assert result.get() == (result.id, 5)
    try:
        result = first(5)
    except TypeError:
        return
    queue.run_next()
    assert result.get() == (result.id, 5)


def test_context_without_a_parameter(queue):
    """A function that asks for its context and has no parameter for it is refused, before it runs in some worker."""

    def deaf(a): ...

    with pytest.raises((ConfigurationError, TypeError), match="task"):
        queue.task(context=True)(deaf)(1)


class Shared:
    """Something that is entered for each run."""

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self.log.append("enter")
        return "the thing"

    def __exit__(self, kind, error, trace):
        self.log.append("exit" if kind is None else f"exit on {kind.__name__}")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("as_argument", [False, True])
def test_context_tasks(queue, ran, is_async, as_argument):
    """A context task runs within its object, each time anew, and may be passed what that gives."""

    def plain(*args):
        ran.append(args)
        return args[-1] / 2

    def with_thing(thing, number):
        return plain(thing, number)

    async def async_plain(number):
        await asyncio.sleep(0)
        return plain(number)

    async def async_with_thing(thing, number):
        await asyncio.sleep(0)
        return plain(thing, number)

    function = ((plain, with_thing), (async_plain, async_with_thing))[is_async][as_argument]
    task = queue.context_task(Shared(ran), as_argument=as_argument, name="within", retries=1)(function)
    result, failed = task(6), task("six")
    drain(queue)
    args = ("the thing",) if as_argument else ()
    assert ran[:3] == ["enter", (*args, 6), "exit"]
    assert ran[3:] == ["enter", (*args, "six"), "exit on TypeError"] * 2
    assert result.get() == 3
    assert failed.state == "error"
    if as_argument:
        with pytest.raises(TypeError):
            task("the thing", 6)


def test_async_functions(queue, ran):
    """Functions may be `async`: they are awaited, one attempt after the other, and end as plain ones do."""

    @queue.task(context=True, retries=1)
    async def slow(a, task=None):
        await asyncio.sleep(0)
        ran.append(task.attempt)
        if task.attempt == 1:
            raise ValueError
        await asyncio.sleep(0.001)
        return a

    @queue.task()
    async def canceled():
        raise CancelExecution

    @queue.task()
    async def cut_off():
        raise asyncio.CancelledError

    results = [slow(5), canceled(), cut_off()]
    drain(queue)
    assert ran == [1, 2]
    assert states(results[0]) == "queued executing error retrying queued executing complete"
    assert results[0].get() == 5
    assert [result.state for result in results[1:]] == ["canceled", "error"]


def test_nothing_is_left_of_async_functions(make):
    """A queue that has run `async` functions leaves no event loop open when it is closed."""
    queue = make()

    @queue.task()
    async def loop():
        return asyncio.get_running_loop()

    loops = []
    queue.post_execute("keep")(lambda task, value, exc: loops.append(value))
    loop()
    queue.run_next()
    queue.close()
    assert [one.is_closed() for one in loops] == [True]


@pytest.mark.parametrize("ending", [SystemExit, GeneratorExit, StopIteration, MemoryError, RecursionError])
def test_any_exception_is_an_error(queue, heard, ending):
    """Whatever a task raises that has no meaning of its own is an error of the task, not of the worker."""

    @queue.task()
    def fails():
        raise ending("whatever")

    result = fails()
    assert queue.run_next().state == "error"
    assert heard.story(result) == "enqueued executing error"
    assert failure(result)["error"].startswith(ending.__name__)


# Retries -----------------------------------------------------------------------------------------------------------


@patient
@given(
    kinds,
    st.integers(0, 4),
    st.integers(0, 20),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([5, 30, 1000]),
)
def test_waits(new, kind, retries, delay, backoff, longest):
    """Retries wait the delay, each later one `backoff` times longer, none longer than the longest; then it rests."""
    with new(kind) as queue:
        clock = queue.engine.clock

        @queue.task(retries=retries, retry_delay=delay, retry_backoff=backoff, retry_max_delay=longest)
        def fails():
            raise ValueError

        result = fails()
        waits = []
        while queue.run_next().state != "error":
            task = queue.get(result.id)
            waits.append((task.eta or clock.now()) - clock.now())
            assert task.state == ("scheduled" if waits[-1] else "queued")
            clock.advance(waits[-1])
        assert waits == [min(delay * max(backoff, 1) ** n, longest) for n in range(retries)]
        assert queue.get(result.id).attempt == retries + 1
        assert drain(queue) == []


def test_jitter(queue, clock):
    """A retry's wait is up to its jitter's share longer, at random, and never shorter."""

    @queue.task(retries=1, retry_delay=100, retry_jitter=0.5)
    def fails():
        raise ValueError

    waits = set()
    for _ in range(30):
        result = fails()
        queue.run_next()
        waits.add(queue.get(result.id).eta - clock.now())
    assert all(100 <= wait <= 150 for wait in waits)
    assert len(waits) > 20
    assert max(waits) - min(waits) > 10


def test_asking_for_a_retry(queue, clock):
    """`RetryTask` retries at its ETA, after its delay, or as the policy says, whatever retries are left, at no cost."""
    wishes = iter([
        RetryTask(delay=7), RetryTask("later", delay=timedelta(seconds=8)),
        RetryTask(eta=datetime.fromtimestamp(NOW + 30, UTC)), RetryTask(), RetryTask(delay=0),
    ])  # fmt: skip

    @queue.task(retry_delay=3)
    def again():
        for wish in wishes:
            raise wish
        return "done"

    result = again()
    for eta in (NOW + 7, NOW + 15, NOW + 30, NOW + 33):
        assert queue.run_next().state == "scheduled"
        assert queue.get(result.id).eta == eta
        clock.set(eta)
    assert [task.state for task in drain(queue)] == ["queued", "complete"]
    assert states(result).count("retrying") == 5
    assert "error" not in states(result)


# Expiry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expires", [60, timedelta(minutes=1), datetime.fromtimestamp(NOW + 60, UTC)], ids=str)
@pytest.mark.parametrize("way", ["declared", "called"])
def test_expiry(queue, clock, way, expires):
    """A task that is not started before its expiry is not started at all: so many seconds from the call, or a moment."""

    @queue.task(expires=expires if way == "declared" else None)
    def add(a): ...

    options = {} if way == "declared" else {"expires": expires}
    in_time, too_late = add.schedule((1,), **options), add.schedule((2,), **options)
    clock.advance(59.5)
    assert queue.run_next().id == in_time.id
    clock.advance(0.5)
    assert queue.run_next().state == "expired"
    assert (in_time.state, too_late.state) == ("complete", "expired")
    if not isinstance(expires, datetime):
        late = add.schedule((3,), **options)
        clock.advance(59.5)
        assert queue.run_next().state == "complete"
        assert late.state == "complete"


def test_an_expiry_before_the_eta(queue, clock, add):
    """A scheduled task that expires before its ETA is dealt with at its expiry."""
    result = add.schedule((1,), delay=100, expires=50)
    assert queue.run_next() is None
    clock.advance(50)
    assert queue.run_next().state == "expired"
    assert states(result) == "queued scheduled expired"


def test_a_retry_can_expire(queue, clock):
    """A task whose expiry comes while it waits for a retry is expired; its last error can be read."""

    @queue.task(retries=1, retry_delay=10, expires=5)
    def fails():
        raise ValueError("first")

    result = fails()
    queue.run_next()
    clock.advance(5)
    assert queue.run_next().state == "expired"
    assert states(result) == "queued executing error retrying scheduled expired"


# Interruptions -----------------------------------------------------------------------------------------------------


def test_too_many_interruptions(make):
    """A task that was interrupted too often rests, and nobody runs it, until an operator retries it, from zero."""
    queue = make(max_interruptions=2)
    heard = Heard(queue)
    harmless = False

    @queue.task(retries=5)
    def poison():
        if not harmless:
            raise TaskInterrupted

    result = poison()
    assert [task.state for task in drain(queue)] == ["queued", "queued", "interrupted"]
    assert heard.story(result) == "enqueued" + " executing interrupted enqueued" * 2 + " executing interrupted"
    assert queue.get(result.id).interruptions == 3
    assert queue.get(result.id).retries == 5
    assert queue.retry(result.id).id == result.id
    assert heard.of(result)[-2:] == ["retrying", "enqueued"]
    assert queue.get(result.id).interruptions == 0
    assert queue.run_next().state == "queued"
    harmless = True
    assert queue.run_next().state == "complete"


# Immediate mode ----------------------------------------------------------------------------------------------------


@pytest.fixture
def immediate():
    """A queue that runs tasks in its caller."""
    queue = TaskQueue(immediate=True, clock=VirtualClock())
    yield queue
    queue.close()


def test_immediate(immediate):
    """In immediate mode a call has run when it returns, with the signals of any other, in the caller's thread."""
    heard, threads = Heard(immediate), []

    @immediate.task()
    def add(a, b):
        threads.append(threading.get_ident())
        return a + b

    result = add(1, 2)
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 3
    assert threads == [threading.get_ident()]
    assert [one.get() for one in add.map([(1, 1), (2, 2)])] == [2, 4]
    assert immediate.enqueue(add.s(3, 3)).get() == 6


def test_immediate_failures(immediate, ran):
    """In immediate mode a failure is retried at once, and raised only to who asks for the result."""
    heard = Heard(immediate)

    @immediate.task(retries=2)
    def fails():
        ran.append(1)
        raise ValueError("no")

    result = fails()
    assert heard.story(result) == "enqueued" + " executing error retrying enqueued" * 2 + " executing error"
    assert failure(result)["error"] == "ValueError('no')"
    result = immediate.retry(result.id)
    assert len(ran) == 4
    assert result.state == "error"


def test_immediate_later(immediate, ran):
    """In immediate mode what is scheduled runs with the first call after its ETA."""

    @immediate.task(retries=1, retry_delay=10)
    def note(what):
        ran.append(what)
        if ran == ["first"]:
            raise ValueError

    first, later = note("first"), note.schedule(("later",), delay=20)
    assert (first.state, later.state) == ("scheduled", "scheduled")
    immediate.engine.clock.advance(15)
    note("now")
    assert ran == ["first", "first", "now"]
    immediate.engine.clock.advance(5)
    assert immediate.run_next().id == later.id
    assert ran[3:] == ["later"]


def test_immediate_nested(immediate):
    """In immediate mode a task may call tasks, and wait for them; they run within it."""
    heard = Heard(immediate)

    @immediate.task(context=True)
    def factorial(n, task=None):
        assert task.state == "executing"
        return n * factorial(n - 1).get(blocking=True) if n > 1 else 1

    result = factorial(5)
    assert result.get() == 120
    ids = list(dict.fromkeys(task_id for _, task_id, _ in heard))
    assert ids[0] == result.id
    assert [entry[1] for entry in heard if entry[0] == "complete"] == ids[::-1]
    for task_id in ids:
        assert heard.story(immediate.handle(task_id)) == "enqueued executing complete"


@pytest.mark.parametrize("outer", ["a task", "an event loop"])
def test_immediate_async_nested(immediate, outer):
    """In immediate mode an `async` function runs where it is called, also from one, or from any event loop."""

    @immediate.task()
    async def inner(a):
        await asyncio.sleep(0)
        return 2 * a

    @immediate.task()
    async def calls():
        await asyncio.sleep(0)
        return inner(4).get()

    async def program():
        return inner(4).get()

    assert (calls().get() if outer == "a task" else asyncio.run(program())) == 8


def test_immediate_handlers_enqueue(immediate):
    """In immediate mode handlers may enqueue; each task's signals stay in their order."""
    heard = Heard(immediate)

    @immediate.task()
    def follow(n):
        return n

    @immediate.signal(SIGNAL_ENQUEUED, SIGNAL_EXECUTING, SIGNAL_COMPLETE)
    def more(signal, task):
        if task.args[0]:
            follow(task.args[0] - 1)

    follow(2)
    tasks = immediate.tasks()
    assert len(tasks) == 1 + 3 + 9
    for task in tasks:
        assert heard.story(immediate.handle(task.id)) == "enqueued executing complete"


def test_immediate_on_a_store(tmp_path):
    """Immediate mode is in memory unless a URL says otherwise; what it leaves there, others see."""
    url = f"sqlite:///{tmp_path}/app.db"
    immediate, other = TaskQueue(url, immediate=True), TaskQueue(url)

    @immediate.task()
    def add(a, b):
        return a + b

    assert other.result(add(1, 2).id) == 3
    immediate.close()
    other.close()
    assert "Memory" in repr(TaskQueue(immediate=True))


# Hooks -------------------------------------------------------------------------------------------------------------


def test_hooks(queue, ran):
    """Hooks run around each attempt, in order of registration: before with the task, after with how it ended."""

    @queue.pre_execute()
    def before(task):
        ran.append(("before", task.id, task.state))

    @queue.post_execute()
    def after(task, value, exc):
        ran.append(("after", task.id, value, exc))

    @queue.pre_execute("second")
    def _(task):
        ran.append("second")

    error = ValueError()

    @queue.task(retries=1, context=True)
    def flaky(task=None):
        ran.append("run")
        if task.attempt == 1:
            raise error
        return 5

    result = flaky()
    drain(queue)
    attempt = [("before", result.id, "executing"), "second", "run"]
    assert ran == [*attempt, ("after", result.id, None, error), *attempt, ("after", result.id, 5, None)]


def test_unregistering(queue, ran, add):
    """A hook is unregistered by itself, or by its name; a hook of the same name takes its place."""

    @queue.pre_execute()
    def first(task):
        ran.append("first")

    queue.pre_execute("second")(lambda task: ran.append("second"))
    queue.pre_execute("second")(lambda task: ran.append("replaced"))
    after = queue.post_execute("after")(lambda task, value, exc: ran.append("after"))
    add(1)
    queue.run_next()
    assert ran == ["first", "replaced", "after"]
    assert queue.unregister_pre_execute("second") is True
    assert queue.unregister_pre_execute("second") is False
    assert queue.unregister_post_execute(first) is False
    assert queue.unregister_post_execute(after) is True
    add(1)
    queue.run_next()
    assert ran[3:] == ["first"]
    assert queue.unregister_pre_execute(first) is True
    add(1)
    queue.run_next()
    assert ran[4:] == []


def test_startup_is_the_consumers(queue, ran, add):
    """Hooks of startup and shutdown belong to a consumer's workers: `run_next` calls none."""
    start = queue.on_startup()(lambda: ran.append("start"))
    queue.on_shutdown("stop")(lambda: ran.append("stop"))
    add(1)
    drain(queue)
    assert ran == []
    assert queue.unregister_on_startup(start) is True
    assert queue.unregister_on_shutdown("stop") is True
    assert queue.unregister_on_shutdown("stop") is False


def test_hooks_that_raise(queue, heard, caplog, ran, add):
    """A hook that raises is logged by its name, and changes nothing for the task, or for other hooks."""
    queue.pre_execute("broken before")(lambda task: 1 / 0)
    queue.post_execute("broken after")(lambda task, value, exc: 1 / 0)
    queue.pre_execute("good")(lambda task: ran.append("before"))
    queue.post_execute("fine")(lambda task, value, exc: ran.append("after"))
    result = add(1, 2)
    queue.run_next()
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 3
    assert ran == ["before", "after"]
    assert "broken before" in caplog.text
    assert "broken after" in caplog.text
    assert caplog.text.count("ZeroDivisionError") == 2


@pytest.mark.parametrize("again", [None, True, False])
@pytest.mark.parametrize("where", ["hook", "task"])
@pytest.mark.parametrize("retries", [0, 1])
def test_canceling(queue, again, where, retries, ran):
    """`CancelExecution` retries as it says: always, never, or, if it does not say, as long as retries are left."""

    def cancel(task):
        if task.attempt == 1:
            raise CancelExecution("no", retry=again)

    if where == "hook":
        queue.pre_execute("cancel")(cancel)

    @queue.task(retries=retries, context=True)
    def canceled(task=None):
        if where == "task":
            cancel(task)
        ran.append(1)

    result = canceled()
    drain(queue)
    retried = retries > 0 if again is None else again
    more = " retrying queued executing complete" if retried else ""
    assert states(result) == f"queued executing canceled{more}"
    assert ran == [1] * retried
    assert queue.get(result.id).retries == max(retries - retried, 0)


# Looking and acting ------------------------------------------------------------------------------------------------


def test_counts(queue, clock, add):
    """`counts` has every state that tasks can rest in, in the table's order, with how many there are."""
    assert list(queue.counts()) == [state for state in LAW if state != "retrying"]
    assert set(queue.counts().values()) == {0}
    add(1, 2), add(1, "2"), add.schedule((1,), delay=9), add.schedule((1,), expires=1), add(5).revoke()
    drain(queue)
    clock.advance(2)
    add(1)
    found = {state: count for state, count in queue.counts().items() if count}
    assert found == {"queued": 1, "scheduled": 1, "complete": 2, "error": 1, "revoked": 1}


def test_tasks(queue, add):
    """`tasks` lists the newest first, in a state, in several or in any, page by page."""
    ids = [add(n, 1).id for n in range(7)]
    failed = add(1, "1").id
    for _ in range(2):
        queue.run_next()
    add.schedule((1,), priority=9)
    while queue.run_next() and queue.get(failed).state != "error":
        pass
    waiting = add(9).id
    everything = [waiting, queue.tasks(limit=2)[1].id, failed, *ids[::-1]]
    assert [task.id for task in queue.tasks()] == everything
    assert [task.id for task in queue.tasks("error")] == [failed]
    assert [task.id for task in queue.tasks(["error", "queued"])] == [waiting, failed]
    assert queue.tasks([]) == []
    assert queue.tasks("expired") == []
    pages, last = [], None
    while page := queue.tasks(limit=3, before=last):
        assert len(page) <= 3
        pages += [task.id for task in page]
        last = page[-1]
    assert pages == everything
    assert queue.tasks("queued")[0].args == (9,)
    with pytest.raises(ConfigurationError, match=r"no state 'broken': there are queued, "):
        queue.tasks("broken")


def test_get_and_history(queue, clock, add):
    """`get` gives a copy of the task as it is now, `history` a record a transition: state, time, worker, attempt."""
    result = add(1, 2)
    task = queue.get(result.id)
    assert (task.id, task.name, task.args, task.state, task.attempt) == (result.id, add.name, (1, 2), "queued", 0)
    task.priority, task.state = 99, "complete"
    assert (queue.get(result.id).priority, queue.get(result.id).state) == (0, "queued")
    assert result.task.id == result.id
    clock.advance(5)
    queue.run_next()
    history = queue.history(result.id)
    assert [(record.state, record.at - NOW, record.attempt) for record in history] == [
        ("queued", 0, 0), ("executing", 5, 1), ("complete", 5, 1),
    ]  # fmt: skip
    assert history[0].worker != history[1].worker
    assert history[1].worker == history[2].worker == queue.get(result.id).worker
    assert history == result.history()
    assert task.state == "complete"
    for look in (queue.get, queue.history, queue.result, queue.retry):
        with pytest.raises(UnknownTask, match="nobody"):
            look("nobody")


def test_flush(queue, heard, add):
    """`flush` empties the queue: tasks, results, revocations and locks; ids can be used again; it goes on working."""
    results = [add.schedule((1,), id="a"), add.schedule((2,), id="b", delay=5)]
    queue.run_next()
    queue.revoke_by_id("c")
    add.revoke()
    queue.lock_task("lock").acquire()
    queue.flush()
    assert not any(queue.counts().values())
    assert queue.tasks() == []
    assert not add.is_revoked()
    assert not queue.is_revoked("c")
    assert not queue.is_locked("lock")
    assert queue.run_next() is None
    with pytest.raises(UnknownTask):
        results[0].get()
    again = add.schedule((3,), id="a")
    assert queue.run_next().id == "a"
    assert again.get() == 3


def test_flushed_while_it_runs(queue, heard):
    """The outcome of a task that was flushed while it ran is dropped, even if a namesake was enqueued since."""

    @queue.task(context=True)
    def flushed(n, task=None):
        if n == 1:
            queue.flush()
            flushed.schedule((2,), id=task.id)
        return n

    result = flushed.schedule((1,), id="a")
    queue.run_next()
    assert [record.state for record in result.history()] == ["queued"]
    assert result.get() is None
    queue.run_next()
    assert result.get() == 2


@pytest.mark.parametrize("state", [state for state in LAW if state not in ("retrying",)])
def test_an_operators_retry(make, clock, state):
    """An operator's retry runs what rests in an outcome once more, at once; anything else it refuses, and says why."""
    queue = make(max_interruptions=0)
    ends = {
        "error": ValueError, "timeout": "TaskTimeout", "locked": "TaskLockedException", "canceled": CancelExecution,
        "rate-limited": "RateLimitExceeded", "interrupted": TaskInterrupted,
    }  # fmt: skip

    @queue.task(context=True, retry_delay=50)
    def ends_so(task=None):
        if state == "executing":
            with pytest.raises(IllegalTransition, match="executing: cannot retry"):
                queue.retry(task.id)
        if task.attempt > 1 or state not in ends:
            return
        ending = getattr(lifecycle, ends[state]) if isinstance(ends[state], str) else ends[state]
        raise ending("key", 0, False) if state == "rate-limited" else ending

    result = ends_so.schedule(delay=5 if state == "scheduled" else None, expires=1 if state == "expired" else None)
    clock.advance(1)
    if state == "revoked":
        result.revoke()
    if state != "queued":
        queue.run_next()
    before = states(result)
    if state in ends:
        assert queue.retry(result.id).id == result.id
        assert states(result) == f"{before} retrying queued"
        assert queue.run_next().state == "complete"
    else:
        with pytest.raises(IllegalTransition) as caught:
            queue.retry(result.id)
        now = "complete" if state == "executing" else state
        assert (caught.value.state, caught.value.trigger) == (now, "retry")
        assert "retry" not in caught.value.allowed
        assert states(result) == before


def test_two_operators(queue, heard, monkeypatch):
    """Of two operators who retry a task at once one does, and the other is told where it is now; it is announced once."""
    exchange = queue.storage.exchange

    def after_another(done, claimant):
        monkeypatch.undo()
        queue.retry(result.id)
        return exchange(done, claimant)

    result = queue.task(name="fails")(lambda: 1 / 0)()
    queue.run_next()
    monkeypatch.setattr(queue.storage, "exchange", after_another)
    with pytest.raises(IllegalTransition, match="queued: cannot retry"):
        queue.retry(result.id)
    assert heard.story(result) == "enqueued executing error retrying enqueued"


def test_names_separate_queues(tmp_path):
    """Queues of different names share a file and nothing else."""
    url = f"sqlite:///{tmp_path}/app.db"
    one, other, same = (TaskQueue(url, name=name) for name in ("one", "other", "one"))
    result = one.task(name="add")(lambda a: a)(1)
    assert other.run_next() is None
    assert same.get(result.id).state == "queued"
    with pytest.raises(UnknownTask):
        other.get(result.id)
    other.revoke_by_id(result.id)
    with one.lock_task("lock"):
        assert not other.is_locked("lock")
        assert same.is_locked("lock")
    other.flush()
    assert one.counts()["queued"] == 1
    for queue in (one, other, same):
        queue.close()


def test_where_the_store_is(monkeypatch, tmp_path):
    """Without a URL the store is $LIFECYCLE_URL, or else lifecycle.db; nothing is made before its first use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    queue = TaskQueue()
    assert os.listdir(tmp_path) == []
    queue.counts()
    assert "lifecycle.db" in os.listdir(tmp_path)
    queue.close()
    monkeypatch.setenv("LIFECYCLE_URL", "sqlite:///other.db")
    queue = TaskQueue()
    assert queue.run_next() is None
    assert "other.db" in os.listdir(tmp_path)
    queue.close()
    monkeypatch.setenv("LIFECYCLE_URL", "")
    assert "SQLite" in repr(TaskQueue())
    monkeypatch.setenv("LIFECYCLE_URL", "memory://")
    assert repr(TaskQueue(name="jobs")) == "<TaskQueue 'jobs' on MemoryStorage>"


def test_a_closed_queue(tmp_path):
    """What was enqueued outlives the queue that was closed, and is run by the next one."""
    url = f"sqlite:///{tmp_path}/app.db"
    queue = TaskQueue(url)
    result = queue.task(name="add")(lambda a, b: a + b)(1, 2)
    queue.close()
    with closing(TaskQueue(url)) as again:
        again.task(name="add")(lambda a, b: a + b)
        assert again.run_next().id == result.id
        assert again.result(result.id) == 3
    with pytest.raises(StorageError, match="was closed"):
        queue.counts()


FIRST_LOOKS = {
    "counts": lambda queue, _: queue.counts()["complete"] == 1,
    "get": lambda queue, task_id: queue.get(task_id).state == "complete",
    "history": lambda queue, task_id: len(queue.history(task_id)) == 3,
    "result": lambda queue, task_id: queue.result(task_id) == 3,
    "state": lambda queue, task_id: queue.handle(task_id).state == "complete",
    "tasks": lambda queue, _: len(queue.tasks()) == 2,
    "locks": lambda queue, _: queue.is_locked("lock"),
    "revocations": lambda queue, _: queue.is_revoked("other"),
    "run_next": lambda queue, _: queue.run_next().state == "error",
    "prune": lambda queue, _: queue.storage.prune(float("inf")) == 1,
    "next_due": lambda queue, _: queue.storage.next_due() is not None,
}


@pytest.mark.parametrize("look", FIRST_LOOKS)
def test_the_first_look(tmp_path, look):
    """Whatever a program asks first of a store that others have filled, it is told what is there."""
    url = f"sqlite:///{tmp_path}/app.db"
    queue = TaskQueue(url)
    add = queue.task(name="add")(lambda a, b: a + b)
    result = add(1, 2)
    queue.run_next()
    add(1, 2)
    queue.revoke_by_id("other")
    with queue.lock_task("lock"), closing(TaskQueue(url)) as other:
        assert FIRST_LOOKS[look](other, result.id)
    queue.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name"),
        *(({"lease": lease}, "lease") for lease in (0, -1, float("nan"), float("inf"), "30", None, True)),
        *(({"retention": retention}, "retention") for retention in (-1, float("nan"), "1 day", True)),
        *(({"max_interruptions": number}, "max_interruptions") for number in (-1, "ten", 1.5, None, True)),
    ],
)
def test_options_of_a_queue(options, words):
    """An option of a queue that cannot be is refused by its name, before there is a queue."""
    with pytest.raises(ConfigurationError, match=words):
        TaskQueue("memory://", **options)


def test_good_options_of_a_queue():
    """Durations are seconds or timedeltas; tasks at rest are kept for a day, or for good."""
    assert TaskQueue("memory://").retention == 86_400
    assert TaskQueue("memory://", retention=timedelta(hours=1), lease=timedelta(seconds=5)).retention == 3600
    assert TaskQueue("memory://", retention=None).retention is None


def test_a_lease_is_kept(tmp_path):
    """While `run_next` runs a task that takes longer than its lease, the lease is prolonged, and nobody takes it over."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db", lease=0.3)
    heard = Heard(queue)
    seen = []

    @queue.task(context=True)
    def slow(task=None):
        first = queue.get(task.id).lease
        while queue.get(task.id).lease == first:  # until the first heartbeat
            pass
        seen.append(queue.engine.recover())

    assert isinstance(queue.engine.clock, SystemClock)
    result = slow()
    assert queue.run_next().state == "complete"
    assert seen == [0]
    assert heard.story(result) == "enqueued executing complete"
    queue.close()


def test_nothing_is_left_of_a_queue():
    """A queue that was closed leaves no thread behind, whatever it was used for."""
    before = set(threading.enumerate())
    for _ in range(5):
        queue = TaskQueue(immediate=True, lease=0.03)
        queue.task(name="nothing")(lambda: None)()
        with queue.lock_task("lock"):
            pass
        queue.close()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(1)
    assert not any(thread.is_alive() for thread in left)


def test_a_full_store(queue, add, monkeypatch):
    """What could not be stored was not enqueued; the task is as it was, and can be enqueued when there is room."""
    task = add.s(1, 2)

    def full(*args):
        raise StorageFull("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(queue.storage, "enqueue", full)
        with pytest.raises(StorageFull):
            queue.enqueue(task)
    assert (task.state, task.seq, task.version) == (None, None, 0)
    result = queue.enqueue(task)
    queue.run_next()
    assert result.get() == 3


def test_repr(queue, add):
    """A queue, a handle and a task say what they are, and nothing of their arguments."""
    result = add("secret")
    assert repr(queue).startswith("<TaskQueue 'default' on ")
    assert repr(result) == f"<Result of task {result.id}>"
    assert str(queue.get(result.id)) == f"task {result.id} ({add.name})"
    assert "secret" not in repr(queue.get(result.id)) + repr(queue.tasks()) + repr(add.s("secret"))
    with pytest.raises(TaskException):
        queue.run_next(), result.get()


def test_errors_are_told(queue, ran, add):
    """Handlers of `error` are given the exception itself, of each attempt that failed."""

    @queue.signal(SIGNAL_ERROR)
    def note(signal, task, exc):
        ran.append((signal, task.attempt, type(exc)))

    result = add.schedule((1, "2"), retries=1)
    drain(queue)
    assert ran == [("error", 1, TypeError), ("error", 2, TypeError)]
    assert result.state == "error"


def test_logging_is_quiet(queue, add, caplog):
    """A task that goes its way leaves nothing in the log."""
    with caplog.at_level(logging.INFO):
        add(1, 2), add.schedule((1,), delay=5)
        drain(queue)
    assert caplog.text == ""


# Types -------------------------------------------------------------------------------------------------------------


def test_typing_api(tmp_path):
    """Functions, handles, handlers and locks have the types that users expect: mypy, as strict as can be, has no objection."""
    source = Path(__file__).with_name("typing_api.py")
    root = Path(lifecycle.__file__).parents[1]
    env = dict(os.environ)
    if root.name != "site-packages":  # mypy finds what is installed, and would complain to be told
        env["MYPYPATH"] = str(root)
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--enable-error-code=ignore-without-code"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(source)], capture_output=True, text=True, check=False, env=env,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr


def test_types_are_looked_at():
    """The file that is checked has typed uses, and errors that a checker must find, or it would prove nothing."""
    text = Path(__file__).with_name("typing_api.py").read_text()
    assert text.count("assert_type(") > 40
    assert text.count("# type: ignore[") > 10
    compile(text, "typing_api.py", "exec")
