"""`assert_enqueued` and `refute_enqueued` find tasks by function and arguments, on any store."""

from datetime import UTC, datetime, timedelta
from unittest.mock import ANY

import pytest
from conftest import PATIENCE, another_thread
from hypothesis import given
from hypothesis import strategies as st
from support.small_app import functions, refusal
from support.values import values

from lifecycle import (
    ConfigurationError,
    MsgpackSerializer,
    TaskQueue,
)
from lifecycle.storage import MemoryStorage
from lifecycle.testing.assertions import SHOWN_TASK_LIMIT, assert_enqueued, refute_enqueued


@pytest.fixture
def app(queue):
    """Return a program of two functions."""
    return functions(queue)


# What was enqueued -------------------------------------------------------------------------------------------------


@pytest.mark.untraced
@given(values(), st.lists(values(), max_size=2))
def test_task_is_found_by_its_arguments(argument, others):
    """A task is found by its own arguments, whatever they are, and not by other tasks' arguments."""
    queue = TaskQueue("memory://")
    app = functions(queue)
    result = app.add(argument)
    for other in others:
        app.other(other)
    assert assert_enqueued(app.add, argument).id == result.id
    refute_enqueued(app.add, argument, 2)
    refute_enqueued(app.add, [argument])
    queue.close()


def test_form_of_the_call_does_not_matter(app):
    """Arguments are compared by parameter, whether they are given by position, by name or by default."""
    result = app.add(1, b=2)
    for args, kwargs in ((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2}), ((1, 2), {"c": None}), ((ANY, 2), {}):
        assert assert_enqueued(app.add, *args, **kwargs).id == result.id
    for args, kwargs in ((1, 1), {}), ((1, 2, 3), {}), ((2, 1), {}), ((1, 2), {"c": 0}), ((ANY, 3), {}):
        refute_enqueued(app.add, *args, **kwargs)


def test_arguments_that_are_not_given_may_be_any(app, queue):
    """Only given arguments are compared, also of ``*rest`` and ``**more``; a default has to be given to be compared."""
    result = app.add(1, 2, 3, 4, c="x")
    for args, kwargs in ((), {}), ((1,), {}), ((), {"c": "x"}), ((), {"b": 2}), ((1, 2, 3), {}), ((1, 2, 3, 4), {}):
        assert assert_enqueued(app.add, *args, **kwargs).id == result.id
    for args, kwargs in ((2,), {}), ((), {"c": None}), ((), {"b": 1}), ((1, 2, 4), {}), ((1, 2, 3, 4, 5), {}):
        refute_enqueued(app.add, *args, **kwargs)
    mail = queue.task(name="mail")(lambda to, **headers: None)
    sent = mail("ann", cc="bob", reply="eve")
    assert assert_enqueued(mail, cc="bob").id == sent.id
    assert assert_enqueued(mail, to="ann", reply="eve").id == sent.id
    refute_enqueued(mail, cc="eve")
    refute_enqueued(mail, bcc="bob")


def test_call_without_arguments_means_any_arguments(app):
    """No argument, and three dots as the only argument, mean any arguments."""
    refute_enqueued(app.other)
    refute_enqueued(app.other, ...)
    result = app.other(3)
    assert assert_enqueued(app.other).id == assert_enqueued(app.other, ...).id == result.id
    for args in (), (...,):
        assert "no task other(...) was expected" in refusal(refute_enqueued, app.other, *args)


# When it is due ----------------------------------------------------------------------------------------------------


def test_task_is_found_by_the_time_until_it_is_due(app, queue, clock):
    """`scheduled_in` is the time from the call to the due time, in seconds or as a timedelta, whatever the time is now."""
    soon, later = app.add.schedule((1,), delay=60), app.add.schedule((1,), delay=timedelta(hours=1))
    clock.advance(7)
    now = app.add(1)
    for delay, result in (60, soon), (timedelta(minutes=1), soon), (3600.0, later), (0, now):
        assert assert_enqueued(app.add, 1, scheduled_in=delay).id == result.id
    refute_enqueued(app.add, 1, scheduled_in=59.99)
    queue.run_next()
    refute_enqueued(app.add, scheduled_in=0)  # it has run
    while queue.run_next():
        pass
    assert assert_enqueued(app.add, scheduled_in=60).state == "scheduled"


def test_time_of_a_retry_counts_from_the_end_of_the_attempt(queue, clock):
    """For a retry `scheduled_in` is the delay of the retry."""

    @queue.task(retries=1, retry_delay=90, name="fail")
    def fail():
        raise OSError

    result = fail.schedule(delay=5)
    clock.advance(20)
    queue.run_next()
    clock.advance(1)
    assert assert_enqueued(fail, scheduled_in=90).id == result.id
    refute_enqueued(fail, scheduled_in=5)


def test_time_until_due_is_in_messages(app, clock):
    """A message has the time that was asked for, and the time of each task."""
    app.add.schedule((1,), delay=0.25)
    text = refusal(assert_enqueued, app.add, 1, scheduled_in=timedelta(seconds=2))
    assert "no task add(1) with scheduled_in=2 was enqueued; tasks of that function:" in text
    assert "add(1): queued, scheduled_in=0.25, not before 20" in text


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan"), timedelta(days=-1)])
def test_time_until_due_must_be_a_duration(app, value):
    """A `scheduled_in` that is no duration raises `ConfigurationError`."""
    for call in assert_enqueued, refute_enqueued:
        with pytest.raises(ConfigurationError, match=r"scheduled_in=.*: must be seconds or a timedelta, 0 or more"):
            call(app.add, scheduled_in=value)


@pytest.mark.parametrize("kind", ["memory"])
def test_real_clock_has_a_second_of_slack(make):
    """On a real clock, times that differ by less than a second are the same: the call itself takes time."""
    app = functions(TaskQueue("memory://"))
    app.add.schedule((1,), delay=3600)
    assert_enqueued(app.add, scheduled_in=3600.5)
    refute_enqueued(app.add, scheduled_in=3590)


# Where it is looked for --------------------------------------------------------------------------------------------


def test_task_is_found_in_any_state(app, queue, clock):
    """A task is found while it waits, is scheduled, and when it has run; of several alike the newest is returned."""
    first = app.add.schedule((1,), delay=5)
    assert assert_enqueued(app.add, 1).state == "queued"
    queue.run_next()
    assert assert_enqueued(app.add, 1).state == "scheduled"
    clock.advance(5)
    queue.run_next()
    assert assert_enqueued(app.add, 1).state == "complete"
    assert assert_enqueued(app.add, 1).id == first.id
    assert assert_enqueued(app.add, 1).args == (1,)
    newest = [app.add(1) for _ in range(3)][-1]
    assert assert_enqueued(app.add, 1).id == newest.id


def test_task_is_found_beyond_the_first_page(app, monkeypatch):
    """A task is found however many tasks were enqueued after it."""
    monkeypatch.setattr("lifecycle.testing.assertions.PAGE_SIZE", 2)
    result = app.add(1)
    for n in range(5):
        app.other(n)
        assert assert_enqueued(app.add, 1).id == result.id
        refute_enqueued(app.add, 2)


def test_assertion_waits_for_a_task_of_another_thread(app):
    """The assertion waits for a task of another thread, and returns as soon as there is one."""
    with another_thread(lambda: app.add(1)):
        task = assert_enqueued(app.add, 1, timeout=PATIENCE)
    assert task.name == "add"
    with another_thread(lambda: app.add(2)):
        assert "add(2): queued" in refusal(refute_enqueued, app.add, 2, timeout=PATIENCE)


def test_timeout_is_in_the_message(app):
    """After its timeout the message says what was missing, and how long the assertion waited."""
    app.add(1)
    refute_enqueued(app.add, 2, timeout=0.01)
    assert "no task add(2) was enqueued within 0.01 s; tasks of" in refusal(assert_enqueued, app.add, 2, timeout=0.01)


def test_other_queue_is_searched_only_if_given(app, make):
    """The function's own queue is searched, or the queue that is given."""
    app.add(1)
    other = make(name="elsewhere")
    refute_enqueued(app.add, 1, queue=other)
    result = functions(other).add(2)
    assert assert_enqueued(app.add, 2, queue=other).id == result.id
    refute_enqueued(app.add, 2)


def test_message_lists_the_tasks_of_the_function(app, queue, clock):
    """A failed assertion lists the tasks of that function, newest first, or else the number of other tasks."""
    assert refusal(assert_enqueued, app.add, 1, c="x") == (
        "no task add(1, c='x') was enqueued, and no other of that function; the queue is empty"
    )
    app.other()
    assert refusal(assert_enqueued, app.add, 1).endswith(
        "no other of that function; the queue has 1 of other functions"
    )
    one = app.add(1, b=2)
    assert refusal(assert_enqueued, app.add, 2).splitlines() == [
        "no task add(2) was enqueued; tasks of that function:",
        f"  add(1, b=2): queued, task {one.id}",
    ]
    queue.run_next()
    queue.run_next()
    clock.set(datetime(2099, 12, 31, 23, tzinfo=UTC))
    two = app.add.schedule(("x",), eta=datetime(2100, 1, 1, tzinfo=UTC))
    assert refusal(assert_enqueued, app.add, 2).splitlines() == [
        "no task add(2) was enqueued; tasks of that function:",
        f"  add('x'): queued, scheduled_in=3600, not before 2100-01-01T00:00:00+00:00, task {two.id}",
        f"  add(1, b=2): complete, task {one.id}",
    ]
    app.add.map(range(SHOWN_TASK_LIMIT))
    assert refusal(assert_enqueued, app.add, "y").splitlines()[-1] == "  and 2 older ones"
    assert refusal(refute_enqueued, app.add, 1, 2) == (
        f"no task add(1, 2) was expected, but one was enqueued:\n  add(1, b=2): complete, task {one.id}"
    )


@pytest.mark.parametrize("kind", ["memory"])
def test_unreadable_task_matches_nothing(app, queue):
    """A task whose arguments cannot be read, or do not fit the function any more, matches nothing."""
    task = app.add.s(1)
    app.add(2)
    stranger = queue.task(name="stranger")(lambda n, m: n).s(1, 2)
    stranger.name = "other"
    queue.enqueue(stranger)
    refute_enqueued(app.other, 1)
    queue.enqueue(task)
    queue.storage._rows[task.id].task.payload = b"\xc1" if isinstance(queue.storage, MemoryStorage) else b""
    if isinstance(queue.storage, MemoryStorage):
        refute_enqueued(app.add, 1)
        assert "add(arguments that cannot be read): queued" in refusal(assert_enqueued, app.add, 1)


def test_wrong_arguments_and_plain_functions_raise(app, queue):
    """Arguments that do not fit the function raise `TypeError`; a plain function raises `ConfigurationError`."""
    one = queue.task(name="one")(lambda a: a)
    for call in assert_enqueued, refute_enqueued:
        with pytest.raises(TypeError, match=r"^one\(\): too many positional arguments$"):
            call(one, 1, 2)
        with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'd'$"):
            call(app.add, d=1)
        with pytest.raises(
            TypeError, match=r"argument 'delay'; for the time until the task is due write scheduled_in=$"
        ):
            call(app.add, delay=1)
        with pytest.raises(
            ConfigurationError, match=r"is no task function: pass a function decorated with @queue\.task\(\)"
        ):
            call(len, [])


def test_task_is_found_by_arguments_as_the_serializer_returns_them():
    """Arguments that a serializer changes are found as they were passed, and as the worker gets them."""

    class Lists(MsgpackSerializer):
        def loads(self, data):
            args, kwargs = super().loads(data)
            return tuple(list(arg) if isinstance(arg, tuple) else arg for arg in args), kwargs

    queue = TaskQueue("memory://", serializer=Lists())
    app = functions(queue)
    app.add((1, 2))
    assert_enqueued(app.add, (1, 2))
    assert_enqueued(app.add, [1, 2])
    queue.close()
