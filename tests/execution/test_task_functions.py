"""`run_next`, the context of a function, context tasks, and `async` functions."""

import asyncio
from datetime import UTC, datetime

import attrs
import pytest
from conftest import NOW, drain, failure, states

from lifecycle import CancelExecution, ConfigurationError, RetryTask


def test_run_next_returns_the_task_in_its_new_state(queue, clock, add):
    """`run_next` returns the task in its new state, whatever the state, or None if no task was due."""
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
def test_run_next_takes_the_given_moment_as_now(queue, add, moment):
    """`run_next` takes a given moment as now, and records it in the history."""
    result = add.schedule((1, 2), delay=50)
    assert queue.run_next(NOW + 49) is None
    assert queue.run_next(moment).id == result.id
    assert [(record.state, record.at - NOW) for record in result.history()] == [
        ("queued", 0), ("scheduled", 49), ("executing", 50), ("complete", 50),
    ]  # fmt: skip


def test_function_with_context_gets_its_task(queue, ran):
    """A function with `context=True` gets its task, which callers cannot pass."""

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


def test_context_can_be_the_first_parameter(queue):
    """The task can be any parameter of the function: a call with the other arguments works, or is refused at once."""

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


def test_context_without_a_parameter_is_refused(queue):
    """A function with `context=True` and no parameter for the task is refused before it runs in a worker."""

    def without_task(a): ...

    with pytest.raises((ConfigurationError, TypeError), match="task"):
        queue.task(context=True)(without_task)(1)


class Shared:
    """Context manager that is entered for each run."""

    def __init__(self, log):
        self.log = log

    def __enter__(self):
        self.log.append("enter")
        return "the thing"

    def __exit__(self, kind, error, trace):
        self.log.append("exit" if kind is None else f"exit on {kind.__name__}")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("as_argument", [False, True])
def test_context_task_runs_within_its_object(queue, ran, is_async, as_argument):
    """A context task enters its object for each run, and gets the entered value if asked."""

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


def test_async_functions_run_as_plain_ones(queue, ran):
    """`async` functions are awaited, one attempt after the other, and end as plain functions do."""

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


def test_closed_queue_leaves_no_event_loop_open(make):
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
def test_exception_without_a_meaning_of_its_own_is_an_error(queue, heard, ending):
    """An exception without a meaning of its own is an error of the task, not of the worker."""

    @queue.task()
    def fails():
        raise ending("whatever")

    result = fails()
    assert queue.run_next().state == "error"
    assert heard.story(result) == "enqueued executing error"
    assert failure(result)["error"].startswith(ending.__name__)
