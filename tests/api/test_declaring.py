"""Declarations of tasks: their names, their options, and the order in which tasks run."""

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


def test_task_function_has_name_docstring_and_signature_of_its_function(queue):
    """A task function has the name, the docstring and the signature of its function, and a repr of its own."""

    @queue.task()
    def plain(a: int, *, b: str = "x") -> int:
        """Adds nothing."""

    assert (plain.__name__, plain.__doc__) == ("plain", "Adds nothing.")
    assert str(inspect.signature(plain)) == "(a: int, *, b: str = 'x') -> int"
    assert repr(plain) == f"<task function {plain.name}>"


def test_task_is_named_by_module_and_function_or_by_the_name_option(queue):
    """A task is named by its function's module and name, or by the name option."""

    @queue.task()
    def nameless(): ...

    @queue.task(name="billing.charge")
    def named(): ...

    assert (
        nameless.name == f"{__name__}.test_task_is_named_by_module_and_function_or_by_the_name_option.<locals>.nameless"
    )
    assert named.name == "billing.charge"
    assert queue.get(named().id).name == "billing.charge"


@pytest.mark.parametrize("how", ["file", "module", "code"])
def test_function_in_main_module_is_named_by_its_import_name(how, tmp_path):
    """A function of a module that runs as a program is named as a consumer imports it."""
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
    """Return the fields of a stored task for these options."""

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


def stored_options(task):
    return {name: getattr(task, name) for name in ("retries", "retry_delay", "priority", "expires", "timeout")}


@patient
@given(st.sampled_from(KINDS), options, options)
def test_task_has_the_options_of_its_function_and_its_call(new, kind, declared, called):
    """A task has its function's options, replaced by those of its call; durations count from the call."""
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
            assert stored_options(task) == as_stored(given_)
            assert task.retry.backoff == given_.get("retry_backoff", 0)
            assert (task.state, task.attempt, task.eta) == ("queued", 0, None)
            assert (task.args, task.kwargs) in [((1, 2), {}), ((1,), {"b": 2})]


@patient
@given(st.sampled_from(KINDS), st.lists(st.integers(-3, 3), min_size=2, max_size=12))
def test_tasks_run_by_priority_then_by_age(new, kind, priorities):
    """Tasks run by priority, the higher first, and by age within a priority."""
    with new(kind) as queue:

        @queue.task()
        def add(n): ...

        ids = [add.schedule((n,), priority=priority).id for n, priority in enumerate(priorities)]
        by_rank = sorted(range(len(ids)), key=lambda n: (-priorities[n], n))
        assert [task.id for task in drain(queue)] == [ids[n] for n in by_rank]


def test_scheduled_task_is_ranked_by_priority_once_it_is_due(queue, clock, add):
    """A task that has waited for its ETA is ranked as any other one once it is due."""
    ids = [
        add.schedule((1,), delay=10, priority=1).id, add.schedule((1,), delay=5, priority=0).id,
        add.schedule((1,), delay=5, priority=2).id,
    ]  # fmt: skip
    assert queue.run_next() is None
    clock.advance(10)
    ids.append(add.schedule((1,), priority=1).id)
    assert [task.id for task in drain(queue)] == [ids[n] for n in (2, 0, 3, 1)]
