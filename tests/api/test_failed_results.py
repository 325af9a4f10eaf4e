"""Results of failed tasks: their exceptions, failures before a retry, and `reset`."""

import copy
import pickle
import traceback
from datetime import UTC, datetime

import pytest
from conftest import NOW, SOON, Readers, another_thread, drain, failure

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
from lifecycle.storage.base import TaskStatus


@pytest.fixture
def flaky(queue):
    """Task function that fails at its first two attempts."""

    @queue.task(retries=2, context=True)
    def flaky(task=None):
        if task.attempt < 3:
            raise ValueError(f"attempt {task.attempt}")
        return "done"

    return flaky


# Failures ------------------------------------------------------------------------------------------------------------


ENDINGS = {
    "error": lambda: ValueError("seven"),
    "timeout": lambda: TaskTimeout(),
    "locked": lambda: TaskLockedException("taken"),
    "canceled": lambda: CancelExecution("no"),
    "rate-limited": lambda: RateLimitExceeded("api", 5, retry=False),
}


@pytest.mark.parametrize("state", ENDINGS)
def test_result_of_failed_task_raises_with_its_metadata(queue, state):
    """Reading a failed task raises `TaskException` with state, error, traceback, attempt and retries left."""

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
        assert set(metadata) == {"error", "error_type", "traceback", "task_id", "state", "attempt", "retries"}
        assert metadata["error"] == repr(ENDINGS[state]())
        assert "raise ENDINGS[state]()" in metadata["traceback"]
        assert (metadata["task_id"], metadata["state"]) == (result.id, state)
        assert (metadata["attempt"], metadata["retries"]) == (2, 0)
    with pytest.raises(TaskException, match=type(ENDINGS[state]()).__name__):
        queue.result(result.id, blocking=True)


@pytest.mark.parametrize("state", ["revoked", "expired", "interrupted"])
def test_result_of_task_that_never_ran_raises(make, clock, state):
    """Reading a task that rests without an outcome raises `TaskException`, with the task's state as the reason."""
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
def test_reader_of_a_task_that_never_runs_is_woken(make, clock, monkeypatch, state):
    """A reader that waits for a task which comes to rest without running gets the exception."""
    queue = make(max_interruptions=0)

    @queue.task()
    def interrupted():
        raise TaskInterrupted

    result, states = interrupted.schedule(expires=5), []
    readers = Readers(queue, monkeypatch)
    with another_thread(lambda: states.append(failure(result, blocking=True)["state"])):
        readers.expect()
        if state == "expired":
            clock.advance(5)
        elif state == "revoked":
            result.revoke()
        queue.run_next()
    assert states == [state]


def test_waiting_reader_gets_the_error_of_each_attempt(queue, flaky, readers):
    """A failure is raised to a waiting reader, even before a retry; a later reader gets the latest failure."""
    result, failures = flaky(), []
    with another_thread(lambda: failures.append(failure(result, blocking=True))):
        readers.expect()
        queue.run_next()
    assert (failures[0]["error"], failures[0]["attempt"], failures[0]["retries"]) == ("ValueError('attempt 1')", 1, 2)
    assert failure(result)["attempt"] == 1
    queue.run_next()
    assert failure(result)["attempt"] == 2
    queue.run_next()
    assert result.get() == "done"


def test_intermediate_errors_false_raises_only_the_last_error(make, monkeypatch):
    """With `intermediate_errors=False` only the last error is raised, none before a retry."""
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


@pytest.mark.parametrize("state", ["locked", "rate-limited"])
def test_postponed_task_has_not_failed(queue, clock, readers, state):
    """A reader waits on while a task that was locked or rate-limited is to be retried; after the last retry it raises."""
    got = []

    @queue.task(retries=1, retry_delay=5, context=True)
    def postponed(task=None):
        if task.attempt == 1:
            raise ENDINGS[state]()
        return "done"

    @queue.task(retries=1)
    def never():
        raise ENDINGS[state]()

    result = postponed()
    with another_thread(lambda: got.append(result.get(blocking=True))):
        readers.expect()
        queue.run_next()
        readers.expect()
        assert result.get() is None
        clock.advance(5)
        queue.run_next()
    assert got == ["done"]
    last = never()
    queue.run_next()
    assert last.get() is None
    assert queue.errors([last.id])[last.id].state == state
    clock.advance(5)
    queue.run_next()
    assert (failure(last)["state"], failure(last)["attempt"]) == (state, 2)
    last.reset()
    assert last.get() is None
    queue.retry(last.id)
    assert last.get() is None


def test_postponed_task_that_is_revoked_raises(queue):
    """A task that was locked and is revoked before its retry raises for its reader."""

    @queue.task(retries=1, retry_delay=5)
    def locked():
        raise TaskLockedException

    result = locked()
    queue.run_next()
    result.revoke()
    queue.run_next()
    assert result.state == "revoked"
    assert failure(result, blocking=True)["state"] == "locked"


def test_requested_retry_leaves_no_outcome(queue):
    """`RetryTask` leaves no outcome: a reader that does not wait gets None until there is one."""

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


def test_exception_of_a_result_shows_type_and_traceback_of_the_task(queue):
    """`TaskException` has state, type, traceback and attempt of the failure, and a traceback of it shows the task's."""

    class CardRefused(ValueError):
        pass

    @queue.task()
    def charge():
        raise CardRefused("expired")

    result = charge()
    queue.run_next()
    with pytest.raises(TaskException) as caught:
        result.get()
    for error in caught.value, pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value):  # noqa: S301
        assert (error.state, error.attempt) == ("error", 1)
        assert error.error_type.startswith(f"{__name__}.")
        assert error.error_type.endswith(".CardRefused")
        assert 'raise CardRefused("expired")' in error.traceback
        shown = "".join(traceback.format_exception(error))
        assert shown.count('raise CardRefused("expired")') == 1
        assert "runner.py" not in shown, "the frames of the library are of no use to the reader"
    with pytest.raises(TaskException) as caught:
        queue.handle(revoked_id(queue, charge)).get()
    assert (caught.value.error_type, caught.value.traceback, caught.value.attempt) == ("", "", 0)
    assert not hasattr(caught.value, "__notes__")


def revoked_id(queue, function):
    result = function()
    result.revoke()
    queue.run_next()
    return result.id


def test_exception_made_of_any_metadata_has_its_attributes():
    """`TaskException` can be made of a part of the metadata, as an earlier release has stored them, or of odd values."""
    for metadata in ({}, {"error": "x"}, {"attempt": "2", "state": None, "traceback": 5}):
        error = TaskException(metadata)
        assert error.metadata == metadata
        assert isinstance(error.attempt, int)
        assert {type(text) for text in (error.state, error.error_type, error.traceback)} == {str}


def test_errors_are_looked_up_by_id(queue, add, flaky):
    """`errors` returns the last error of each task, also before its retry, and leaves all other tasks out."""
    fine, waits, fails = add(1), add.schedule(delay=50, args=(1,)), flaky()
    drained = queue.run_next(), queue.run_next()
    assert all(drained)
    wanted = [fine.id, waits.id, fails.id, "unknown", fails.id]
    found = queue.errors(wanted)
    assert [*found] == [fails.id]
    assert (found[fails.id].attempt, found[fails.id].error_type) == (1, "ValueError")
    queue.run_next()
    assert queue.errors(iter(wanted))[fails.id].attempt == 2
    queue.run_next()
    assert queue.errors(wanted) == {}


def test_damaged_outcome_is_an_error_of_its_task(queue, add, monkeypatch):
    """`errors` describes an outcome whose bytes are damaged as an error, and still returns the others."""
    result = add(1)
    queue.run_next()
    monkeypatch.setattr(queue.storage, "statuses", lambda _: {result.id: TaskStatus("complete", b"\xc1")})
    (error,) = queue.errors([result.id]).values()
    assert "damaged" in str(error)
    assert (error.error_type, error.state) == ("lifecycle.errors.Undecodable", "complete")


# Reset ---------------------------------------------------------------------------------------------------------------


def test_reset_makes_the_handle_wait_for_the_next_outcome(queue, flaky, readers):
    """After `reset` a handle waits for the next attempt's outcome, and never shows an earlier one again."""
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


def test_reset_forgets_only_outcomes_that_the_handle_has_shown(queue, flaky):
    """`reset` forgets only an outcome that this handle has shown; other handles keep theirs."""
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


def test_after_reset_the_handle_waits_for_an_operators_retry(queue):
    """After `reset` of a failed task its handle waits for an operator's retry."""
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


def test_value_is_not_shown_again_after_reset(queue, add):
    """A value is not shown again after `reset`; a new handle still shows it."""
    result = add(1, 2)
    queue.run_next()
    assert result.get() == 3
    result.reset()
    assert result.get() is None
    with pytest.raises(ResultTimeout):
        result.get(timeout=SOON)
    assert queue.result(result.id) == 3


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_after_reset_the_handle_raises_if_no_attempt_follows(queue, clock, flaky, end):
    """A reader that waits for the next attempt gets the exception if the task is revoked or expires before it."""
    expires = datetime.fromtimestamp(NOW + 5, UTC) if end == "expired" else None
    result = flaky.schedule(retry_delay=10, expires=expires)
    queue.run_next()
    assert failure(result)["state"] == "error"
    result.reset()
    if end == "revoked":
        result.revoke()
    clock.advance(5)
    queue.run_next()
    assert failure(result, blocking=True)["state"] == end
