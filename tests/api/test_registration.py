"""Registration of functions, handlers and hooks: what could not work is refused there, with the way out in the error."""

import asyncio
import functools
import importlib
import inspect
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from textwrap import dedent
from unittest.mock import AsyncMock, Mock

import pytest
from conftest import drain
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import (
    SIGNAL_COMPLETE,
    SIGNAL_ERROR,
    SIGNALS,
    CancelExecution,
    ConfigurationError,
    LifecycleError,
    TaskQueue,
    UnknownOption,
)

HOOKS = {"pre_execute": "task", "post_execute": "task, value, exc", "on_startup": "", "on_shutdown": ""}
"""Kinds of hooks, and the parameters of each."""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module of a text, and imports or reloads it; the module finds `queue` there."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a stale one could be taken: both versions are of one second

    def write(name, text, **names):
        (tmp_path / f"{name}.py").write_text(dedent(text))
        importlib.invalidate_caches()
        sys.modules["given"] = type(sys)("given")
        vars(sys.modules["given"]).update(names)
        if name in sys.modules:
            return importlib.reload(sys.modules[name])
        return importlib.import_module(name)

    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name == "given" or (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


def of_text(parameters, body="pass", keyword="def"):
    """Return a function with these parameters."""
    namespace = {}
    exec(f"{keyword} function({parameters}):\n    {body}", namespace)  # noqa: S102
    return namespace["function"]


# Names ---------------------------------------------------------------------------------------------------------------


def unnamed_wrapper(function):
    """Decorate without `functools.wraps`."""

    def wrapper(*args):
        return function(*args)

    return wrapper


def closure(factor):
    return lambda x: factor * x


@pytest.mark.parametrize(
    "pair",
    [
        (lambda x: 2 * x, lambda x: 3 * x),
        (closure(2), closure(3)),
        (unnamed_wrapper(lambda x: 2 * x), unnamed_wrapper(lambda x: 3 * x)),
        (of_text("x", "return 2 * x"), of_text("x", "return 3 * x")),
        (functools.partial(max, 1), functools.partial(max, 2)),
    ],
    ids=["lambdas", "closures", "wrappers", "functions", "partials"],
)
@pytest.mark.parametrize("name", [None, "mail"])
def test_second_function_of_one_name_is_refused(queue, pair, name):
    """A second function of one name is refused, and the error names both; a call of the first one still runs it."""
    first, second = pair
    if name is None:
        name = None if hasattr(first, "__qualname__") and first.__module__ == __name__ else "mail"
    first = queue.task(name=name)(first)
    with pytest.raises(ConfigurationError, match=r"used by two functions, .* and .*task\(name=…\)"):
        queue.task(name=name)(second)
    result = first(5)
    queue.run_next()
    assert result.get() == pair[0](5)


def test_function_defined_twice_in_a_module_is_refused(queue, module):
    """A function that a module defines twice is refused at the second definition, and the error has both lines."""
    text = """
        from given import queue
        @queue.task()
        def add(a): return 1
        @queue.task()
        def add(a): return 2
    """
    with pytest.raises(ConfigurationError, match=r"twice\.add \(.*line 3\) and twice\.add \(.*line 5\)"):
        module("twice", text, queue=queue)


def test_reloaded_function_replaces_the_earlier_one(queue, module):
    """After a reload of its module, changed or not, and after a new import, the new definition of a function runs."""
    text = """
        import functools
        from given import queue

        def wrapped(function):
            @functools.wraps(function)
            def wrapper(*args): return function(*args)
            return wrapper

        add = queue.task()(lambda a: (VERSION, a))
        @queue.task()
        @wrapped
        def of_wrapper(a): return (VERSION, a)
        @queue.task(name="named")
        def any_name(a): return (VERSION, a)
        def make():
            @queue.task()
            def local(a): return (VERSION, a)
            return local
        local = make()
    """
    names = ("add", "of_wrapper", "any_name", "local")
    old = module("reloaded", f"VERSION = 1{dedent(text)}", queue=queue)
    first = [vars(old)[name] for name in names]
    for version in (1, 2, 3):
        if version == 3:
            del sys.modules["reloaded"]
        new = module("reloaded", "\n" * version + f"VERSION = {version}{dedent(text)}", queue=queue)
        results = [function(5) for function in (*first, *(vars(new)[name] for name in names))]
        drain(queue)
        assert [result.get() for result in results] == [(version, 5)] * 8
    with pytest.raises(ConfigurationError, match="two functions"):
        new.make()


def test_one_function_can_be_declared_again(queue):
    """The same function can be declared twice, with other options too, unless only one of them gets the task."""

    def plain(task=None):
        return task is not None

    first, second = queue.task()(plain), queue.task(retries=5)(plain)
    assert (queue.get(first().id).retries, queue.get(second().id).retries) == (0, 5)
    with pytest.raises(ConfigurationError, match="context=True"):
        queue.task(context=True)(plain)


def test_functions_of_one_name_in_two_files_are_refused(queue, module, tmp_path):
    """Two files that are imported under one name, one after the other, cannot share a function's name."""
    text = "from given import queue\n@queue.task()\ndef add(): ..."
    module("tasks_of_two", text, queue=queue)
    del sys.modules["tasks_of_two"]
    (tmp_path / "tasks_of_two.py").unlink()
    (tmp_path / "tasks_of_two").mkdir()
    (tmp_path / "tasks_of_two" / "__init__.py").write_text(text)
    importlib.invalidate_caches()
    try:
        with pytest.raises(ConfigurationError, match=r"tasks_of_two\.py.*__init__\.py"):
            importlib.import_module("tasks_of_two")
    finally:
        sys.modules.pop("tasks_of_two", None)


def test_module_that_is_also_the_program_can_be_imported(tmp_path):
    """A program whose module is imported once more, under its own name, declares the same functions twice."""
    (tmp_path / "shared.py").write_text("from lifecycle import TaskQueue\nqueue = TaskQueue('memory://')\n")
    (tmp_path / "chores.py").write_text("from shared import queue\n@queue.task()\ndef add(): ...\nimport chores\n")
    done = subprocess.run([sys.executable, "chores.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_function_can_be_defined_again_at_a_prompt(queue, monkeypatch):
    """At a prompt or in a notebook a function can be defined again; two lambdas cannot be told apart."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)

    def at_prompt(text):
        namespace = {"__name__": "__main__", "queue": queue}
        exec(compile(text, f"<cell {id(namespace)}>", "exec"), namespace)  # noqa: S102
        return namespace["add"]

    first = at_prompt("@queue.task\ndef add(): return 1")
    second = at_prompt("@queue.task\ndef add(): return 2")
    results = [first(), second()]
    drain(queue)
    assert [result.get() for result in results] == [2, 2]
    at_prompt("add = queue.task(name='one')(lambda: 1)")
    with pytest.raises(ConfigurationError, match="two functions"):
        at_prompt("add = queue.task(name='one')(lambda: 2)")


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


@pytest.mark.parametrize(
    "decorate",
    [
        lambda queue, function: queue.task()(queue.lock_task("lock")(function)),
        lambda queue, function: queue.task()(functools.lru_cache(function)),
        lambda queue, function: queue.context_task(nullcontext())(function),
        lambda queue, function: queue.context_task(nullcontext(), as_argument=True)(lambda c, a, *, b=1: None),
    ],
    ids=["lock", "cache", "context", "context as argument"],
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


@patient
@given(parameters, st.lists(st.sampled_from(SIGNALS), max_size=3), st.sampled_from([None, *HOOKS]))
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

        def send(self, name):
            self.sent.append(name)

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


# Decorators without parentheses, and options -------------------------------------------------------------------------


def test_decorators_work_without_parentheses(queue, ran):
    """Each decorator without options works with and without parentheses."""

    @queue.task
    def add(a, b):
        return a + b

    @queue.signal
    def heard(signal, task, exc=None):
        ran.append(signal)

    @queue.pre_execute
    def before(task):
        ran.append("before")

    @queue.post_execute
    def after(task, value, exc):
        ran.append("after")

    start = queue.on_startup(lambda: ran.append("start"))
    stop = queue.on_shutdown(lambda: ran.append("stop"))
    result = add(1, 2)
    queue.run_next()
    assert result.get() == 3
    assert ran == ["enqueued", "executing", "before", "after", "complete"]
    assert [hook.call for hook in (*queue.engine.hooks.on_startup, *queue.engine.hooks.on_shutdown)] == [start, stop]


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda queue, add: queue.task(max_retries=3), "did you mean retries="),
        (lambda queue, add: queue.task(retry=3), "did you mean retries="),
        (lambda queue, add: queue.task(retry_dely=3), "did you mean retry_delay="),
        (lambda queue, add: queue.task(time_limit=3), "did you mean timeout="),
        (lambda queue, add: queue.task(nonsense=3), "there are context, expires"),
        (lambda queue, add: queue.context_task(nullcontext(), max_retries=3), "did you mean retries="),
        (lambda queue, add: add.schedule((1,), countdown=3), "did you mean delay="),
        (lambda queue, add: add.schedule((1,), retry=3), "did you mean retries="),
        (lambda queue, add: add.schedule((1,), task_id="x"), "did you mean id="),
    ],
)
def test_unknown_option_is_refused_with_a_hint(queue, add, call, hint):
    """An unknown option is refused with the option that is meant, the names of other task queues included."""
    with pytest.raises(UnknownOption, match=hint) as caught:
        call(queue, add)
    assert isinstance(caught.value, ConfigurationError)
    assert isinstance(caught.value, TypeError)


def test_name_in_place_of_the_retries_is_refused_with_a_hint(queue):
    """A text as the first option of a task is refused: the first option is `retries`, and a name has its own."""
    with pytest.raises(ConfigurationError, match=r"task\(name=…\)"):
        queue.task("mail")


@pytest.mark.parametrize("method", ["delay", "apply_async", "send", "enqueue", "kiq", "si", "starmap"])
def test_method_of_another_task_queue_has_a_hint(queue, method):
    """A method of another task queue is an `AttributeError` with the way to do the same here."""

    @queue.task()
    def mail(to): ...

    with pytest.raises(AttributeError, match=rf"no attribute '{method}': .*mail.*\(…\)|: mail\.\w+\("):
        getattr(mail, method)
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'$"):
        _ = mail.nonsense
    assert not hasattr(mail, method)


def test_option_in_a_call_has_a_hint(queue):
    """An option among the arguments of a call is refused with the form that takes options."""

    @queue.task()
    def mail(to): ...

    with pytest.raises(TypeError, match=r"'countdown'; for options of one call write mail\.schedule\(.*delay=…\)"):
        mail("ann", countdown=5)
    with pytest.raises(TypeError, match=r"'whom'$"):
        mail("ann", whom=5)


def test_lock_without_a_name_is_refused(queue):
    """`@queue.lock_task` without its parentheses is refused, with the form that is meant."""
    with pytest.raises(ConfigurationError, match=r"@queue\.lock_task\("):
        queue.lock_task(of_text(""))


# Hooks and handlers of one name --------------------------------------------------------------------------------------


def test_hooks_of_one_name_do_not_replace_one_another(queue, ran, add, module):
    """Hooks of one name in two modules, or made by one function, are all called; a name names one of them only."""
    for name in ("billing", "shipping"):
        module(name, "from given import queue, ran\n@queue.pre_execute\ndef check(task): ran.append(__name__)",
               queue=queue, ran=ran)  # fmt: skip

    def declare(text):
        @queue.pre_execute()
        def local(task):
            ran.append(text)

        return local

    one, two = declare("one"), declare("two")
    add(1)
    queue.run_next()
    assert ran == ["billing", "shipping", "one", "two"]
    for name in ("check", "local"):
        with pytest.raises(ConfigurationError, match=rf"{name}.* and .*{name}.*give the function"):
            queue.unregister_pre_execute(name)
    assert queue.unregister_pre_execute("shipping.check") is True
    assert queue.unregister_pre_execute("check") is True
    assert queue.unregister_pre_execute(one) is True
    assert queue.unregister_pre_execute("local") is True
    assert queue.unregister_pre_execute(two) is False
    assert queue.engine.hooks.pre_execute == ()


@pytest.mark.parametrize("hook_kind", HOOKS)
def test_second_hook_of_a_given_name_is_refused(queue, hook_kind):
    """A name that is given to two hooks is refused, and is free again once the first hook is unregistered."""
    first, second = of_text(HOOKS[hook_kind]), of_text(HOOKS[hook_kind])
    register, unregister = getattr(queue, hook_kind), getattr(queue, f"unregister_{hook_kind}")
    register("check")(first)
    with pytest.raises(ConfigurationError, match=f"'check'.*unregister_{hook_kind}"):
        register("check")(second)
    assert register("check")(first) is first
    assert [hook.call for hook in getattr(queue.engine.hooks, hook_kind)] == [first]
    assert unregister("check") is True
    assert register("check")(second) is second


def test_exact_name_of_a_hook_is_not_the_end_of_another(queue):
    """The name of one hook names that hook, also if another hook's name ends so."""
    short, long = of_text("task"), of_text("task")
    queue.pre_execute("check")(short), queue.pre_execute("billing.check")(long)
    assert queue.unregister_pre_execute("check") is True
    assert [hook.call for hook in queue.engine.hooks.pre_execute] == [long]
    assert queue.unregister_pre_execute("heck") is False


def test_bound_method_is_one_hook_and_one_handler(queue, ran, add):
    """A bound method that is registered twice is called once, and can be unregistered."""

    class Watch:
        def see(self, *args):
            ran.append(args)

    watch = Watch()
    for _ in range(2):
        queue.pre_execute()(watch.see)
        queue.signal(SIGNAL_COMPLETE)(watch.see)
    add(1)
    queue.run_next()
    assert [len(args) for args in ran] == [1, 2]
    assert queue.unregister_pre_execute(watch.see) is True
    queue.disconnect_signal(watch.see)
    assert queue.engine.signals.connected == {}


def test_reloaded_handlers_and_hooks_replace_the_earlier_ones(queue, ran, add, module):
    """After a reload of their module, handlers and hooks are called once, in their old places."""
    text = """
        from given import queue, ran
        queue.signal("complete")(lambda signal, task: ran.append((VERSION, 1)))
        queue.signal("complete")(lambda signal, task: ran.append((VERSION, 2)))
        @queue.signal("executing")
        @queue.signal("complete")
        def both(signal, task): ran.append((VERSION, signal))
        queue.pre_execute(lambda task: ran.append((VERSION, 3)))
        queue.pre_execute(lambda task: ran.append((VERSION, 4)))
        @queue.post_execute("after")
        def after(task, value, exc): ran.append((VERSION, 5))
    """
    for version in (1, 2):
        module("watching", f"VERSION = {version}{dedent(text)}", queue=queue, ran=ran)
        if version == 1:
            queue.signal(SIGNAL_COMPLETE)(lambda signal, task: ran.append("last"))
        ran.clear()
        add(1)
        queue.run_next()
        assert ran == [
            (version, "executing"), (version, 3), (version, 4), (version, 5), (version, 1), (version, 2),
            (version, "complete"), "last",
        ]  # fmt: skip


def test_mocks_are_handlers_and_hooks(queue, add):
    """A mock is accepted as a handler and a hook: it takes any arguments."""
    handler, hook = Mock(), Mock(side_effect=CancelExecution)
    queue.signal(handler)
    queue.pre_execute(hook)
    add(1)
    assert queue.run_next().state == "canceled"
    assert (handler.call_count, hook.call_count) == (3, 1)
