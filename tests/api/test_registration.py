"""Names of functions, handlers and hooks, the forms of their decorators, and hints for what does not exist."""

import functools
import importlib
import subprocess
import sys
from contextlib import nullcontext
from textwrap import dedent

import pytest
from conftest import drain
from support.callables import of_text

from lifecycle import (
    ConfigurationError,
    Consumer,
    TaskQueue,
    UnknownOption,
)

# Names ---------------------------------------------------------------------------------------------------------------


def unnamed_wrapper(function):
    """Decorate without `functools.wraps`."""

    def wrapper(*args):
        return function(*args)

    return wrapper


def wrapped(function):
    """Decorate with `functools.wraps`."""

    @functools.wraps(function)
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
        from given import queue, wrapped

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
    old = module("reloaded", f"VERSION = 1{dedent(text)}", queue=queue, wrapped=wrapped)
    first = [vars(old)[name] for name in names]
    for version in (1, 2, 3):
        if version == 3:
            del sys.modules["reloaded"]
        new = module("reloaded", "\n" * version + f"VERSION = {version}{dedent(text)}", queue=queue, wrapped=wrapped)
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
        (
            lambda queue, add: queue.lock_task("lock", expires=3),
            "lock_task.. has no option 'expires'; there are name, ttl",
        ),
        (lambda queue, add: TaskQueue("memory://", always_eager=True), "TaskQueue.. has .*did you mean immediate="),
        (
            lambda queue, add: TaskQueue("memory://", store_intermediate_errors=True),
            "did you mean intermediate_errors=",
        ),
        (lambda queue, add: Consumer(queue, worker_count=3), "Consumer.. has .*did you mean workers="),
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
