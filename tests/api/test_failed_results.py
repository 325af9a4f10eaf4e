"""Reading what failed: errors are raised, those on the way only to who waits, and forgotten when they are reset."""

import pytest
from conftest import SOON, Readers, another_thread, drain, failure

from lifecycle import (
    CancelExecution,
    RateLimitExceeded,
    ResultTimeout,
    RetryTask,
    TaskException,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
)


@pytest.fixture
def flaky(queue):
    """Fails at its first two attempts."""

    @queue.task(retries=2, context=True)
    def flaky(task=None):
        if task.attempt < 3:
            raise ValueError(f"attempt {task.attempt}")
        return "done"

    return flaky


# Failures ----------------------------------------------------------------------------------------------------------


ENDINGS = {
    "error": lambda: ValueError("seven"),
    "timeout": lambda: TaskTimeout(),
    "locked": lambda: TaskLockedException("taken"),
    "canceled": lambda: CancelExecution("no"),
    "rate-limited": lambda: RateLimitExceeded("api", 5, retry=False),
}


@pytest.mark.parametrize("state", ENDINGS)
def test_failures(queue, state):
    """A task that did not complete raises `TaskException`, which says how it ended, why, where, and what is left."""

    @queue.task(retries=1, context=True)
    def ends(task=None):
        raise ENDINGS[state]()

    result = ends()
    drain(queue)
    if state == "rate-limited":
        queue.engine.clock.advance(5)
        drain(queue)
    for _ in range(2):
        metadata = failure(result)
        assert set(metadata) == {"error", "traceback", "task_id", "state", "attempt", "retries"}
        assert metadata["error"] == repr(ENDINGS[state]())
        assert "raise ENDINGS[state]()" in metadata["traceback"]
        assert (metadata["task_id"], metadata["state"]) == (result.id, state)
        assert (metadata["attempt"], metadata["retries"]) == (2, 0)
    with pytest.raises(TaskException, match=type(ENDINGS[state]()).__name__):
        queue.result(result.id, blocking=True)


@pytest.mark.parametrize("state", ["revoked", "expired", "interrupted"])
def test_ends_without_an_outcome(make, clock, state):
    """A task that rests without having left anything raises `TaskException`, too, and says what happened instead."""
    queue = make(max_interruptions=0)

    @queue.task(retries=3)
    def interrupted():
        raise TaskInterrupted

    result = interrupted.schedule(expires=5)
    if state == "expired":
        clock.advance(5)
    elif state == "revoked":
        result.revoke()
    assert result.get() is None
    queue.run_next()
    metadata = failure(result, blocking=True)
    assert (metadata["task_id"], metadata["state"]) == (result.id, state)
    assert (metadata["attempt"], metadata["retries"]) == (int(state == "interrupted"), 3)
    assert state in metadata["error"]
    assert metadata["traceback"] == ""


@pytest.mark.parametrize("state", ["revoked", "expired", "interrupted"])
def test_who_waits_for_what_never_runs(make, clock, monkeypatch, state):
    """Who waits for a task that then comes to rest without running is told so, and does not wait for ever."""
    queue = make(max_interruptions=0)

    @queue.task()
    def interrupted():
        raise TaskInterrupted

    result, told = interrupted.schedule(expires=5), []
    readers = Readers(queue, monkeypatch)
    with another_thread(lambda: told.append(failure(result, blocking=True)["state"])):
        readers.expect()
        if state == "expired":
            clock.advance(5)
        elif state == "revoked":
            result.revoke()
        queue.run_next()
    assert told == [state]


def test_intermediate_errors(queue, flaky, readers):
    """A failure raises to who waits, even if a retry is to come; who asks again later is told of the latest."""
    result, told = flaky(), []
    with another_thread(lambda: told.append(failure(result, blocking=True))):
        readers.expect()
        queue.run_next()
    assert (told[0]["error"], told[0]["attempt"], told[0]["retries"]) == ("ValueError('attempt 1')", 1, 2)
    assert failure(result)["attempt"] == 1
    queue.run_next()
    assert failure(result)["attempt"] == 2
    queue.run_next()
    assert result.get() == "done"


def test_no_intermediate_errors(make, monkeypatch):
    """With `intermediate_errors=False` failures that are retried are kept from who asks: only the last one raises."""
    queue = make(intermediate_errors=False)
    readers, got = Readers(queue, monkeypatch), []

    @queue.task(retries=1)
    def fails():
        raise ValueError

    @queue.task(retries=1, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError
        return "done"

    last, result = fails(), flaky()
    queue.run_next()
    assert last.get() is None
    with pytest.raises(ResultTimeout):
        last.get(timeout=SOON)
    queue.run_next()
    assert failure(last)["attempt"] == 2
    with another_thread(lambda: got.append(result.get(blocking=True))):
        readers.expect()
        queue.run_next()
        readers.expect()
        queue.run_next()
    assert got == ["done"]


def test_a_retry_that_a_task_asks_for_is_no_failure(queue):
    """`RetryTask` leaves no outcome: who does not wait gets None, until there is one."""

    @queue.task(context=True)
    def again(task=None):
        if task.attempt == 1:
            raise RetryTask
        return "done"

    result = again()
    queue.run_next()
    assert result.get() is None
    queue.run_next()
    assert result.get() == "done"


# Reset -------------------------------------------------------------------------------------------------------------


def test_reset(queue, flaky, readers):
    """After `reset` the handle waits for the next attempt's outcome, and never shows again what it has shown."""
    result, got = flaky(), []
    queue.run_next()
    assert failure(result)["attempt"] == 1
    result.reset()
    assert result.get() is None
    with pytest.raises(ResultTimeout):
        result.get(timeout=SOON)
    with another_thread(lambda: got.append(failure(result, blocking=True)["attempt"])):
        readers.expect()
        queue.run_next()
    assert got == [2]
    result.reset()
    with another_thread(lambda: got.append(result.get(blocking=True))):
        readers.expect()
        queue.run_next()
    assert got == [2, "done"]
    assert result.get() == "done"


def test_a_handle_forgets_only_what_it_has_shown(queue, flaky):
    """`reset` before anything was read forgets nothing, and other handles forget nothing either."""
    result = flaky()
    other = queue.handle(result.id)
    queue.run_next()
    result.reset()
    assert failure(result)["attempt"] == 1
    queue.run_next()
    result.reset()  # the first failure was shown, the second was not
    assert failure(result)["attempt"] == 2
    result.reset()
    assert result.get() is None
    assert failure(other)["attempt"] == 2


def test_reset_and_an_operator(queue):
    """What rests is forgotten by `reset` like any other outcome: the handle waits for an operator's retry."""
    works = False

    @queue.task()
    def fails():
        if not works:
            raise ValueError
        return "done"

    result = fails()
    queue.run_next()
    assert failure(result)["state"] == "error"
    result.reset()
    assert result.get() is None
    queue.retry(result.id)
    assert result.get() is None
    works = True
    queue.run_next()
    assert result.get() == "done"


def test_reset_and_a_value(queue, add):
    """A value that was read and forgotten is not shown any more either; who asks anew has it."""
    result = add(1, 2)
    queue.run_next()
    assert result.get() == 3
    result.reset()
    assert result.get() is None
    with pytest.raises(ResultTimeout):
        result.get(timeout=SOON)
    assert queue.result(result.id) == 3


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_reset_and_an_end(queue, clock, flaky, end):
    """Who waits for the next attempt after a failure learns that there will be none."""
    result = flaky.schedule(retry_delay=10, expires=5 if end == "expired" else None)
    queue.run_next()
    assert failure(result)["state"] == "error"
    result.reset()
    if end == "revoked":
        result.revoke()
    clock.advance(5)
    queue.run_next()
    assert failure(result, blocking=True)["state"] == end
