"""Callables that are refused as tasks, handlers and hooks, since a call could not work or would run nothing."""

import asyncio
import functools
import inspect
from contextlib import contextmanager, nullcontext
from unittest.mock import AsyncMock

import pytest
from conftest import drain
from hypothesis import given
from hypothesis import strategies as st
from support.callables import HOOKS, of_text
from support.strategies import patient

from lifecycle import (
    SIGNAL_COMPLETE,
    SIGNAL_ERROR,
    SIGNALS,
    ConfigurationError,
    LifecycleError,
    TaskQueue,
)

# Parameters ----------------------------------------------------------------------------------------------------------


def test_arguments_are_checked_against_the_function_that_is_called(queue):
    """Arguments are checked against the decorated function's own parameters, not those of a function that it wraps."""

    def with_db(function):
        @functools.wraps(function)
        def wrapper(row, *more):
            return function(row, *more, db="db")

        return wrapper

    @queue.task()
    @with_db
    def store(row, extra=None, *, db):
        return row, extra, db

    results = [store(1), store(1, 2)]
    drain(queue)
    assert [result.get() for result in results] == [(1, None, "db"), (1, 2, "db")]
    for call in (lambda: store(), lambda: store(1, db="mine"), lambda: store(1, extra=2)):
        with pytest.raises(TypeError):
            call()
    assert str(inspect.signature(store)) == "(row, extra=None, *, db)"


def test_decorator_above_a_lock_has_parameters_of_its_own(queue):
    """A decorator above a lock has its own parameters, also if it copies the attributes of the locked function."""

    def with_db(function):
        @functools.wraps(function)
        def wrapper(row, *, more=2):
            return function(row, db=more)

        return wrapper

    @queue.task()
    @with_db
    @queue.lock_task("lock")
    def store(row, *, db):
        return row, db

    results = [store(1), store(1, more=3)]
    drain(queue)
    assert [result.get() for result in results] == [(1, 2), (1, 3)]
    with pytest.raises(TypeError):
        store(1, db=5)


@pytest.mark.parametrize(
    "decorate",
    [
        lambda queue, function: queue.task()(queue.lock_task("lock")(function)),
        lambda queue, function: queue.task()(queue.lock_task("one")(queue.lock_task("two")(function))),
        lambda queue, function: queue.task()(functools.lru_cache(function)),
        lambda queue, function: queue.context_task(nullcontext())(function),
        lambda queue, function: queue.context_task(nullcontext(), as_argument=True)(lambda c, a, *, b=1: None),
    ],
    ids=["lock", "two locks", "cache", "context", "context as argument"],
)
def test_decorators_that_pass_arguments_on_keep_the_parameters(queue, decorate):
    """Below a lock, a cache or a context, the function's parameters are those of the task."""
    task = decorate(queue, of_text("a, *, b=1"))
    task(1), task(1, b=2)
    for call in (lambda: task(), lambda: task(1, 2), lambda: task(1, c=3)):
        with pytest.raises(TypeError):
            call()


parameters = st.lists(st.sampled_from(["signal", "task", "exc", "more"]), unique=True).flatmap(
    lambda names: st.tuples(st.just(names), st.integers(0, len(names)), st.booleans())
)
"""Names of parameters, the number of them without a default, and whether `*args` follows."""
some_signals = st.sampled_from([[], [SIGNAL_ERROR], [SIGNAL_COMPLETE]]) | st.lists(st.sampled_from(SIGNALS), max_size=3)


@pytest.mark.parametrize("signals", [[SIGNAL_ERROR], [SIGNAL_ERROR, SIGNAL_COMPLETE], []])
def test_handler_of_errors_alone_needs_no_default_for_the_exception(queue, signals):
    """A handler that needs three arguments can be connected to `error`, and to no other signal."""
    if signals == [SIGNAL_ERROR]:
        queue.signal(*signals)(lambda signal, task, exc: None)
    else:
        with pytest.raises(ConfigurationError, match="must take"):
            queue.signal(*signals)(lambda signal, task, exc: None)


@patient
@given(parameters, some_signals, st.sampled_from([None, *HOOKS]))
def test_handler_or_hook_is_refused_unless_it_takes_the_arguments(declared, signals, hook):
    """A handler or hook is refused at its registration exactly if one of its calls would raise `TypeError`."""
    names, required, more = declared
    text = ", ".join([*names[:required], *(f"{name}=None" for name in names[required:]), *["*args"] * more])
    function = of_text(text)
    if hook is None:
        calls = [3 if name == SIGNAL_ERROR else 2 for name in (signals or SIGNALS)]
    else:
        calls = [HOOKS[hook].count(",") + 1 if HOOKS[hook] else 0]
    queue = TaskQueue("memory://")
    register = queue.signal(*signals) if hook is None else getattr(queue, hook)()
    if all(required <= count and (more or count <= len(names)) for count in calls):
        assert register(function) is function
    else:
        with pytest.raises(ConfigurationError, match=r"must take \("):
            register(function)
        assert queue.engine.signals.connected == {}
        assert not any(getattr(queue.engine.hooks, kind) for kind in HOOKS)


# Functions that a call does not run ----------------------------------------------------------------------------------


class Asynchronous:
    """Object whose call makes a coroutine."""

    async def __call__(self, *args):
        await asyncio.sleep(0)
        return "awaited"


async def coroutine_function(*args):
    await asyncio.sleep(0)
    return "awaited"


def generator_function(*args):
    yield args


async def async_generator_function(*args):
    yield args


GENERATORS = [
    generator_function,
    async_generator_function,
    functools.partial(generator_function, 1),
    type("Yields", (), {"__call__": generator_function})(),
]
COROUTINES = [coroutine_function, functools.partial(coroutine_function, 1), Asynchronous(), AsyncMock()]


@pytest.mark.parametrize("function", GENERATORS)
def test_generator_function_is_refused(queue, function):
    """A generator function is refused as a task, handler or hook, and below a lock: its call runs nothing."""
    for register in (
        queue.task(name="task"), queue.context_task(nullcontext(), name="task"), queue.signal(), queue.lock_task("lock"),
        *(getattr(queue, kind)() for kind in HOOKS),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match="yield"):
            register(function)


@pytest.mark.parametrize("function", COROUTINES)
def test_async_handler_or_hook_of_tasks_is_refused(queue, function):
    """An `async` handler or hook of tasks is refused, as nothing awaits it; hooks of workers are awaited."""
    for register in (queue.signal(), queue.pre_execute(), queue.post_execute()):
        with pytest.raises(ConfigurationError, match="async"):
            register(function)
    queue.on_startup()(function), queue.on_shutdown()(function)


@pytest.mark.parametrize("function", COROUTINES[:3])
def test_async_callable_is_awaited_as_a_task(queue, function):
    """An `async` function is awaited as a task, and so are a partial of one, and an object with an `async` call."""
    task = queue.task(name="task")(function)
    result, locked = task(), queue.task(name="locked")(queue.lock_task("lock")(function))()
    drain(queue)
    assert (result.get(), locked.get()) == ("awaited", "awaited")


@pytest.mark.parametrize("function", [coroutine_function, generator_function, async_generator_function])
@pytest.mark.parametrize("locked", [False, True])
def test_plain_wrapper_of_a_function_that_did_not_run_is_an_error_once(queue, function, locked, caplog):
    """A plain function that returns a coroutine or a generator fails with a clear error, and is not retried."""

    def wrapper():
        return function()

    result = queue.task(retries=3)(queue.lock_task("lock")(wrapper) if locked else wrapper)()
    assert queue.run_next().state == "error"
    assert queue.run_next() is None
    with pytest.raises(
        LifecycleError, match=r"returned an? (async )?(coroutine|generator), so that its code has not run"
    ):
        result.get()


@pytest.mark.parametrize("function", [coroutine_function, generator_function])
def test_plain_function_that_did_not_run_is_an_error_of_its_lock(queue, function):
    """A locked function that returns a coroutine or a generator raises: its code would run without the lock."""
    locked = queue.lock_task("lock")(lambda: function())
    with pytest.raises(ConfigurationError, match="its code has not run"):
        locked()
    assert queue.is_locked("lock") is False


@pytest.mark.parametrize("function", [coroutine_function, generator_function])
def test_plain_wrapper_of_a_handler_that_did_not_run_is_logged(queue, caplog, add, function):
    """A handler or hook that returns a coroutine or a generator is logged as one that raises."""
    queue.signal(SIGNAL_COMPLETE)(lambda *args: function())
    queue.signal(SIGNAL_ERROR)(lambda *args: function())
    queue.pre_execute()(lambda *args: function())
    queue.post_execute()(lambda *args: function())
    add(1, 2), add("1", 2)
    assert [task.state for task in drain(queue)] == ["complete", "error"]
    assert caplog.text.count("ConfigurationError: returned a") == 6


# Tasks in the wrong place --------------------------------------------------------------------------------------------


def test_task_function_is_refused_as_a_function(queue, make):
    """A task function, of any queue, is no function for a task, a lock, a handler or a hook of tasks."""
    other = make(name="other")
    add = queue.task()(of_text("*args"))
    again = functools.wraps(add)(lambda *args: add(*args))
    for function in (add, again, functools.partial(add, 1)):
        for register in (
            queue.task(name="again"), queue.task(timeout=5, name="again"), other.task(name="again"),
            other.context_task(nullcontext(), name="again"), queue.lock_task("lock"), queue.signal(),
            queue.pre_execute(), queue.post_execute(),
        ):  # fmt: skip
            with pytest.raises(ConfigurationError, match="a task already"):
                register(function)
        with pytest.raises(ConfigurationError, match=r"lock_task\('lock'\).* put @queue\.lock_task below"):
            queue.lock_task("lock")(function)
    with pytest.raises(ConfigurationError, match="a task already"):
        queue.task(add)
    assert queue.on_startup(add) is add  # a worker's start may enqueue a task


def test_method_is_refused_and_static_method_is_not(queue):
    """A method is refused as a task; a static method, whichever decorator comes first, and a bound method are tasks."""
    with pytest.raises(ConfigurationError, match="no method"):

        class Mailer:
            @queue.task()
            def send(self, name): ...

    with pytest.raises(ConfigurationError, match="@staticmethod"):

        class Other:
            @queue.task()
            @classmethod
            def send(cls, name): ...

    class Service:
        def __init__(self):
            self.sent = []

        @queue.task()
        @staticmethod
        def below(name):
            return name

        @staticmethod
        @queue.task()
        def above(name):
            return name

        @queue.task()
        def without(name):  # noqa: N805
            return name

        def send(self, cls):
            self.sent.append(cls)

    service = Service()
    results = [service.below("x"), Service.below("x"), service.above("x"), Service.above("x"), Service.without("x")]
    queue.task()(service.send)("y")
    drain(queue)
    assert [result.get() for result in results] == ["x"] * 5
    assert service.sent == ["y"]


@pytest.mark.parametrize("wrong", ["chore", 5, None, [1]])
def test_object_that_cannot_be_called_is_refused(queue, wrong):
    """An object that is no function is refused by each decorator."""
    for register in (
        queue.task(), queue.context_task(nullcontext()), queue.signal(), queue.lock_task("lock"),
        *(getattr(queue, kind)() for kind in HOOKS),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match="must be a function"):
            register(wrong)


@contextmanager
def entered_once():
    yield 5


def test_context_that_cannot_be_entered_for_each_task_is_refused(queue):
    """The object of a context task must be a context manager that can be entered more than once."""
    for wrong in (entered_once(), entered_once, "db", None, of_text(""), Asynchronous()):
        with pytest.raises(ConfigurationError, match="context manager"):
            queue.context_task(wrong)
    for function in (of_text(""), of_text("*, value")):
        with pytest.raises(ConfigurationError, match="as_argument"):
            queue.context_task(nullcontext(5), as_argument=True)(function)
    result = queue.context_task(nullcontext(5), as_argument=True)(lambda *values: values)(1)
    queue.run_next()
    assert result.get() == (5, 1)
