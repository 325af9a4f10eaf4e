"""Immediate mode: a call has run when it returns."""

import asyncio
import threading
from unittest import mock

import pytest
from conftest import Heard, failure

from lifecycle import SIGNAL_COMPLETE, SIGNAL_ENQUEUED, SIGNAL_EXECUTING, ConfigurationError, TaskQueue
from lifecycle.testing import VirtualClock


@pytest.fixture
def immediate():
    """Queue in immediate mode."""
    queue = TaskQueue(immediate=True, clock=VirtualClock())
    yield queue
    queue.close()


def test_call_has_run_when_it_returns(immediate):
    """In immediate mode a call has run when it returns, with all signals of a call, in the caller's thread."""
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


def test_failure_is_retried_at_once_and_raised_by_the_result_only(immediate, ran):
    """In immediate mode a failure is retried at once, and raised only where the result is read."""
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


def test_scheduled_task_runs_with_the_first_call_after_its_eta(immediate, ran):
    """In immediate mode a scheduled task runs with the first call after its ETA."""

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


def test_task_can_call_tasks_and_wait_for_them(immediate):
    """In immediate mode a task can call tasks and wait for their results; they run inside it."""
    heard = Heard(immediate)

    @immediate.task(context=True)
    def factorial(n, task=None):
        assert task.state == "executing"
        return n * factorial(n - 1).get(blocking=True) if n > 1 else 1

    result = factorial(5)
    assert result.get() == 120
    ids = list(dict.fromkeys(task_id for _, task_id in heard))
    assert ids[0] == result.id
    assert [entry[1] for entry in heard if entry[0] == "complete"] == ids[::-1]
    for task_id in ids:
        assert heard.story(immediate.handle(task_id)) == "enqueued executing complete"


@pytest.mark.parametrize("outer", ["a task", "an event loop"])
def test_async_function_runs_inside_an_event_loop(immediate, outer):
    """In immediate mode an `async` function runs where it is called, also from another one or from any event loop."""

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


def test_handlers_can_enqueue_in_immediate_mode(immediate):
    """In immediate mode handlers can enqueue tasks; the signals of each task stay in order."""
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


def test_immediate_mode_is_switched_at_run_time(queue, ran):
    """The mode can be switched at any time: on, an enqueue runs what is due; off, tasks wait again."""

    @queue.task()
    def note(what):
        ran.append(what)

    assert queue.immediate is False
    waiting, later = note("waiting"), note.schedule(("later",), delay=10)
    queue.immediate = True
    assert queue.immediate is True
    assert (waiting.state, ran) == ("queued", [])
    note("now")
    assert ran == ["waiting", "now"]
    queue.immediate = False
    queue.engine.clock.advance(10)
    left = note("left")
    assert (left.state, later.state, ran) == ("queued", "scheduled", ["waiting", "now"])
    queue.immediate = True
    queue.immediate = True
    queue.retry(queue.task(name="fails")(lambda: 1 / 0)().id)
    assert ran[2:] == ["later", "left"] or ran[2:] == ["left", "later"]


@pytest.mark.parametrize("first", [False, True])
def test_immediate_mode_is_patched_in_a_test(make, first, monkeypatch):
    """Tests may patch the mode, with `mock` and with pytest; in the end the queue has the mode of before."""
    queue = make(immediate=first)
    with mock.patch.object(queue, "immediate", not first):
        assert queue.immediate is not first
    assert queue.immediate is first
    with monkeypatch.context() as patch:
        patch.setattr(queue, "immediate", not first)
        assert queue.immediate is not first
    assert queue.immediate is first


@pytest.mark.parametrize("wrong", [1, 0, None, "yes", "false"])
def test_immediate_mode_is_true_or_false(queue, wrong):
    """A value that is neither True nor False is refused as the mode, at once and later."""
    with pytest.raises(ConfigurationError, match="immediate="):
        queue.immediate = wrong
    assert queue.immediate is False
    with pytest.raises(ConfigurationError, match="immediate="):
        TaskQueue("memory://", immediate=wrong)


def test_immediate_mode_is_in_memory_unless_a_url_is_given(tmp_path):
    """Immediate mode uses memory unless a URL is given; results in a store are visible to other queues."""
    url = f"sqlite:///{tmp_path}/app.db"
    immediate, other = TaskQueue(url, immediate=True), TaskQueue(url)

    @immediate.task()
    def add(a, b):
        return a + b

    assert other.result(add(1, 2).id) == 3
    immediate.close()
    other.close()
    assert "memory:" in repr(TaskQueue(immediate=True))
