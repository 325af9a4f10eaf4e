"""The result handle: reading values, waiting, and acting on the task."""

import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from conftest import KINDS, NOW, PATIENCE, SOON, Heard, another_thread, drain, failure, states
from hypothesis import given
from hypothesis import strategies as st
from support.damaged_rows import overwrite
from support.strategies import patient
from support.values import exact, values

from lifecycle import ConfigurationError, ResultTimeout, StorageFull, TaskException, TaskQueue, Undecodable, UnknownTask

# Reading -------------------------------------------------------------------------------------------------------------


@pytest.mark.untraced
@patient
@given(st.sampled_from(KINDS), values())
def test_result_equals_the_returned_value(new, kind, value):
    """A result equals the returned value exactly, at every read, and for every handle of the task's id."""
    with new(kind) as queue:

        @queue.task()
        def give(what):
            return what

        result = give(value)
        assert result.get() is None
        queue.run_next()
        for read in (result.get, result, lambda: queue.result(result.id), queue.handle(result.id).get):
            assert exact(read()) == exact(value)


def test_read_without_waiting_returns_none_before_the_end(queue, clock, add):
    """A read that does not wait returns None until the task has ended, in any state before."""

    @queue.task()
    def look():
        assert result.state == "executing"
        return ["seen", result.get(), result()]

    result = look.schedule(delay=5)
    assert result.get() is None
    assert result(blocking=False) is None
    queue.run_next()
    assert (result.state, result.get()) == ("scheduled", None)
    clock.advance(5)
    queue.run_next()
    assert result.get() == ["seen", None, None]


@pytest.mark.parametrize("timeout", [0, SOON, timedelta(seconds=SOON)], ids=str)
@pytest.mark.parametrize("blocking", [True, False])
def test_read_with_timeout_raises_and_names_the_state(queue, add, timeout, blocking):
    """A read whose timeout passes raises `ResultTimeout` with the task's state; the task stays as it is."""
    result = add(1, 2)
    started = time.monotonic()
    with pytest.raises(ResultTimeout, match=f"{result.id} has no outcome after .* s: its state is queued"):
        result.get(blocking, timeout)
    assert time.monotonic() - started >= (0 if timeout == 0 else SOON)
    with pytest.raises(TimeoutError):
        result(timeout=timeout)
    with pytest.raises(ResultTimeout):
        queue.result(result.id, timeout=timeout)
    queue.run_next()
    assert result.get(blocking, timeout) == 3
    assert states(result) == "queued executing complete"


@pytest.mark.parametrize(
    "read",
    [
        lambda result: result.get(blocking=True), lambda result: result(True),
        lambda result: result.get(timeout=PATIENCE), lambda result: result(timeout=timedelta(seconds=PATIENCE)),
    ],
)  # fmt: skip
def test_waiting_reader_is_woken_by_the_outcome(queue, add, readers, read):
    """A waiting reader is woken by the outcome, not by the states before, and gets the value."""
    result, other, got = add.schedule((1, 2), priority=-1), add(5, 5), []
    with another_thread(lambda: got.append(read(result))):
        readers.expect()
        assert queue.run_next().id == other.id
        assert got == []
        queue.run_next()
    assert got == [3]


def test_many_readers_can_wait_for_one_result(queue, add, readers):
    """Any number of readers can wait for one result."""
    result, got = add(1, 2), []
    handles = [result, queue.handle(result.id), queue.handle(result.id)]
    threads = [another_thread(lambda one=one: got.append(one.get(blocking=True))) for one in handles]
    for thread in threads:
        thread.__enter__()
        readers.expect()
    queue.run_next()
    for thread in threads:
        thread.__exit__(None, None, None)
    assert got == [3, 3, 3]


def test_waiting_reader_is_woken_by_an_outcome_of_another_connection(tmp_path, clock):
    """A waiting reader is woken by an outcome that was stored through another connection."""
    url = f"sqlite:///{tmp_path}/app.db"
    with closing(TaskQueue(url, clock=clock)) as producer, closing(TaskQueue(url, clock=clock)) as worker:
        add, _ = (queue.task(name="add")(lambda a, b: a + b) for queue in (producer, worker))
        result, got, started = add(1, 2), [], threading.Event()

        def wait():
            started.set()
            got.append(result.get(blocking=True))

        with another_thread(wait):
            assert started.wait(PATIENCE)
            assert worker.run_next().id == result.id
        assert got == [3]


def test_result_none_ends_the_wait(queue):
    """A function that returns None has a result: a waiting reader gets None at once."""
    result = queue.task(name="nothing")(lambda: None)()
    with pytest.raises(ResultTimeout):
        result.get(timeout=SOON)
    queue.run_next()
    assert result.get(blocking=True) is None
    assert result.get(timeout=0) is None


# Acting --------------------------------------------------------------------------------------------------------------


def test_handle_shows_state_history_and_task_as_they_are_now(queue, add):
    """A handle shows the task's state, its history, and the task, as they are now."""
    result = add(1, 2)
    assert (result.state, states(result), result.task.attempt) == ("queued", "queued", 0)
    queue.run_next()
    assert (result.state, states(result), result.task.attempt) == ("complete", "queued executing complete", 1)


def test_revoked_task_can_be_restored_until_a_worker_revoked_it(queue, add):
    """A task is revoked through its handle, and can be restored until a worker has moved it to `revoked`."""
    one, other = add(1, 2), add(1, 2)
    assert one.is_revoked() is False
    assert one.restore() is False
    one.revoke()
    other.revoke()
    assert one.is_revoked() is True
    assert one.restore() is True
    drain(queue)
    assert (one.get(), other.state) == (3, "revoked")
    assert other.restore() is False
    assert other.state == "revoked"


def test_reschedule_revokes_the_task_and_enqueues_a_copy(queue, heard, clock, add):
    """`reschedule` revokes a waiting task and enqueues a copy for another time, with an id of its own."""
    result = add.schedule((1, 2), delay=100, priority=1, retries=4, retry_delay=7, expires=1000, timeout=9)
    queue.run_next()
    later = result.reschedule(delay=timedelta(seconds=50))
    assert later.id != result.id
    drain(queue)
    assert heard.story(result) == "enqueued scheduled revoked"
    assert heard.story(later) == "enqueued scheduled"
    old, copy = queue.get(result.id), queue.get(later.id)
    assert (copy.name, copy.args, copy.retries, copy.retry_delay) == (old.name, (1, 2), 4, 7)
    assert (copy.eta, copy.priority, copy.expires, copy.timeout) == (NOW + 50, 1, NOW + 50 + 1000, 9)
    clock.advance(50)
    drain(queue)
    assert later.get() == 3
    eta = datetime.fromtimestamp(NOW + 500, UTC)
    assert queue.get(add(1, 2).reschedule(eta=eta).id).eta == NOW + 500
    at_once = add.schedule((5, 5), delay=99).reschedule(priority=-3)
    assert (queue.get(at_once.id).eta, queue.get(at_once.id).priority) == (None, -3)
    drain(queue)
    assert at_once.get() == 10


def test_rescheduled_copy_of_a_task_that_ran_starts_anew(queue, add):
    """A copy of a task that ran or failed is a task of its own: its attempts count from one."""
    result = add(1, "2")
    queue.run_next()
    again = result.reschedule()
    queue.run_next()
    assert states(again) == "queued executing error"
    assert queue.get(again.id).attempt == 1
    assert result.state == "error"


def test_rescheduled_copy_has_the_retries_of_its_function(queue):
    """A copy of a task whose retries are used up has all retries of its function again, and never fewer than it had."""

    @queue.task(retries=2)
    def fails():
        raise ValueError

    result = fails()
    drain(queue)
    assert (result.task.retries, result.reschedule(delay=5).task.retries) == (0, 2)
    assert fails.schedule(retries=7, delay=5).reschedule(delay=9).task.retries == 7


@pytest.mark.parametrize("flaw", ["both", "priority", "nan", "eta", "expiry", "store"])
def test_task_that_could_not_be_rescheduled_waits_as_before(queue, add, monkeypatch, flaw):
    """A task that could not be rescheduled waits as before."""
    result = add.schedule((1, 2), expires=datetime.fromtimestamp(NOW + 400, UTC))

    def full(*args):
        raise StorageFull("no space left")

    if flaw == "store":
        monkeypatch.setattr(queue.storage, "enqueue", full)
    options = {
        "both": {"eta": datetime.now(UTC), "delay": 5},
        "priority": {"priority": 2**40},
        "nan": {"delay": float("nan")},
        "eta": {"eta": NOW + 500},
        "expiry": {"delay": 500},
        "store": {"delay": 5},
    }[flaw]
    with pytest.raises((ConfigurationError, StorageFull)):
        result.reschedule(**options)
    assert [task.state for task in drain(queue)] == ["complete"]
    assert result.get() == 3


# Unreadable results --------------------------------------------------------------------------------------------------


def test_unserializable_result_is_an_error_of_the_task(queue, heard):
    """A function whose result cannot be stored fails, and is not retried: the error names the function and the place."""

    @queue.task(retries=1)
    def gives():
        return {"list": [1, object()]}

    result = gives()
    drain(queue)
    assert heard.story(result) == "enqueued executing error"
    error = failure(result)["error"]
    assert "Unserializable" in error
    assert f"the result of {gives.name}['list'][1]" in error


class ErrorWithoutRepr(Exception):
    def __repr__(self):
        raise ValueError("not even this")


def test_error_with_a_broken_repr_is_stored(queue):
    """An exception whose repr raises, is endless, or is no valid text is stored all the same."""
    errors = [ErrorWithoutRepr(), ValueError("x" * 10**6), ValueError("\ud800")]

    @queue.task()
    def fails(n):
        raise errors[n]

    errors_read = []
    for n in range(3):
        result = fails(n)
        queue.run_next()
        errors_read.append(failure(result)["error"])
    assert "ErrorWithoutRepr" in errors_read[0]
    assert errors_read[1].startswith("ValueError('xxx")
    assert len(errors_read[1]) < 10**5
    assert errors_read[2] == "ValueError('\\ud800')"


def test_long_traceback_keeps_its_end(queue):
    """A long traceback is cut at its start: the end has the cause."""

    @queue.task()
    def fails():
        raise ValueError("y" * 50_000) from RuntimeError("x" * 50_000)

    result = fails()
    queue.run_next()
    traceback = failure(result)["traceback"]
    assert len(traceback) < 50_000
    assert traceback.endswith("y\n")


def test_damaged_result_raises_undecodable(queue, add):
    """A stored result that cannot be read raises `Undecodable` each time; the rest of the task can be read."""
    result = add(1, 2)
    queue.run_next()
    damage(queue, result.id, b"\xc1\xc1")
    for _ in range(2):
        with pytest.raises(Undecodable):
            result.get()
    assert (result.state, states(result)) == ("complete", "queued executing complete")


def damage(queue, task_id, data):
    """Overwrite a stored result."""
    if hasattr(queue.storage, "_rows"):
        queue.storage._rows[task_id].result = data
    elif hasattr(queue.storage, "_server"):
        overwrite(queue.storage, task_id, "result", data)
    else:
        with queue.storage._database.mutex:
            queue.storage._database.writer().execute("update task set result=? where id=?", (data, task_id))


@patient
@given(st.sampled_from(KINDS), st.binary())
def test_reading_random_bytes_as_result_raises_no_other_error(new, kind, data):
    """Reading random bytes as a result gives a value or a `LifecycleError`, never another error."""
    with new(kind) as queue:
        result = queue.task(name="one")(lambda: 1)()
        queue.run_next()
        damage(queue, result.id, data)
        try:
            result.get()
        except (Undecodable, TaskException):
            pass


def test_pruned_task_is_unknown(queue, clock, add):
    """A pruned task is unknown to every read, waiting or not."""
    old, new = add(1, 2), add(3, 4)
    queue.run_next()
    clock.advance(10)
    queue.run_next()
    assert queue.storage.prune(clock.now()) == 1
    for read in (old.get, old.history, lambda: old.state, lambda: old.task, old.reschedule):
        with pytest.raises(UnknownTask, match=f"{old.id}.*pruned"):
            read()
    with pytest.raises(UnknownTask):
        old.get(blocking=True)
    assert new.get() == 7


def test_reader_of_a_flushed_task_is_woken(queue, add, readers):
    """A reader that waits for a task which is flushed gets `UnknownTask`."""
    result, woken = add(1, 2), []

    def wait():
        with pytest.raises(UnknownTask):
            result.get(blocking=True)
        woken.append(True)

    with another_thread(wait):
        readers.expect()
        queue.flush()
    assert woken == [True]


def test_result_is_kept_until_it_is_pruned(make, clock):
    """A result is kept until it is pruned, however often it is read, and whatever later tasks do."""
    queue = make()
    heard = Heard(queue)

    @queue.task()
    def add(a, b):
        return a + b

    results = [add(n, n) for n in range(20)]
    drain(queue)
    clock.advance(10**6)
    for _ in range(3):
        assert [result.get() for result in results] == [2 * n for n in range(20)]
    assert all(heard.story(result) == "enqueued executing complete" for result in results)
