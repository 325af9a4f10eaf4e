"""Declaring tasks: their names, their options, and the order that these give them."""

import inspect
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from textwrap import dedent

import pytest
from conftest import KINDS, NOW, drain
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError


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
@given(st.sampled_from(KINDS), options, options)
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
@given(st.sampled_from(KINDS), st.lists(st.integers(-3, 3), min_size=2, max_size=12))
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
