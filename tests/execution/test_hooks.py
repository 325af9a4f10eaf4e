"""Hooks around attempts: their order, their arguments, and their failures."""

import pytest
from conftest import drain, states
from support.task_endings import ENDINGS

from lifecycle import CancelExecution


def test_hooks_run_around_each_attempt_in_order(queue, ran):
    """Hooks run in order of registration: before each attempt with the task, after it with value or exception."""

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


def test_hook_is_unregistered_by_itself_or_by_name(queue, ran, add):
    """A hook is unregistered by itself or by its name."""

    @queue.pre_execute()
    def first(task):
        ran.append("first")

    queue.pre_execute("second")(lambda task: ran.append("second"))
    after = queue.post_execute("after")(lambda task, value, exc: ran.append("after"))
    add(1)
    queue.run_next()
    assert ran == ["first", "second", "after"]
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


def test_run_next_calls_no_startup_or_shutdown_hook(queue, ran, add):
    """Hooks of startup and shutdown belong to a consumer's workers: `run_next` calls none."""
    start = queue.on_startup()(lambda: ran.append("start"))
    queue.on_shutdown("stop")(lambda: ran.append("stop"))
    add(1)
    drain(queue)
    assert ran == []
    assert queue.unregister_on_startup(start) is True
    assert queue.unregister_on_shutdown("stop") is True
    assert queue.unregister_on_shutdown("stop") is False


def test_hook_that_raises_is_logged_and_changes_nothing(queue, heard, caplog, ran, add):
    """A hook that raises is logged by its name, and changes nothing for the task or for other hooks."""
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
def test_cancel_execution_retries_as_its_retry_argument_says(queue, again, where, retries, ran):
    """`CancelExecution` retries always or never; without `retry`, a task's is retried if it may be, a hook's never."""

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
    retried = (retries > 0 and where == "task") if again is None else again
    more = " retrying queued executing complete" if retried else ""
    assert states(result) == f"queued executing canceled{more}"
    assert ran == [1] * retried
    assert queue.get(result.id).retries == max(retries - retried, 0)


@pytest.mark.parametrize("how", ["error", "timeout", "locked", "rate-limited", "canceled"])
def test_hooks_and_handlers_see_the_retries_that_the_attempt_had(queue, clock, how):
    """Hooks and the outcome's handlers see the attempt's own retries and no ETA; later handlers see those of the retry."""
    seen = []
    queue.pre_execute("before")(lambda task: seen.append(("before", task.attempt, task.retries, task.eta)))
    queue.post_execute("after")(lambda task, value, exc: seen.append(("after", task.attempt, task.retries, task.eta)))
    queue.signal()(lambda signal, task, exc=None: seen.append((signal, task.attempt, task.retries, task.eta)))

    @queue.task(retries=1, retry_delay=10)
    def ends():
        raise ENDINGS[how]

    result = ends()
    drain(queue)
    due = queue.get(result.id).eta
    clock.advance(10)
    drain(queue)
    attempts = [
        [(name, attempt, retries, None) for name in ("executing", "before", "after", how)]
        for attempt, retries in ((1, 1), (2, 0))
    ]
    retry = [("retrying", 1, 0, None), ("scheduled", 1, 0, due)]
    assert seen == [("enqueued", 0, 1, None), *attempts[0], *retry, *attempts[1]]
    assert due > 0
