"""A queue with Huey's names that is driven by hand, on each store."""

from datetime import UTC, datetime, timedelta

import pytest

from lifecycle import IllegalTransition, TaskQueue, UnknownTask
from lifecycle.testing.signal_log import SignalLog


def add(a, b):
    return a + b


def signals(huey, result):
    """Return the signals of a task as a text."""
    return " ".join(record.state for record in huey.queue.history(result.id))


def test_a_task_is_run_by_its_id(huey):
    """`run_task` runs the task of an id, whatever waits before it, with the signals of a worker."""
    queue, log = huey.queue, SignalLog(huey.queue)
    function = queue.task(name="add")(add)
    first, second = function.schedule((1, 2), delay=-1, priority=9), function(3, 4)
    task = queue.run_task(second.id)
    assert (task.state, second.get(), first.state) == ("complete", 7, "queued")
    assert log.of(second) == ["enqueued", "executing", "complete"]
    with pytest.raises(IllegalTransition, match=f"task {second.id} .add. is complete: cannot start"):
        queue.run_task(second.id)
    with pytest.raises(UnknownTask):
        queue.run_task("no-such-task")


def test_a_task_by_its_id_obeys_the_guards_of_a_claim(huey):
    """`run_task` schedules, expires and revokes as a claim does; a one-time revocation is spent."""
    queue = huey.queue
    function = queue.task(name="add")(add)
    later = function.schedule((1, 2), delay=60)
    assert queue.run_task(later.id).state == "scheduled"
    assert queue.run_task(later.id) is None
    due = later.task.eta
    assert queue.run_task(later.id, due).state == "complete"
    old = function.schedule((1, 2), expires=5)
    assert queue.run_task(old.id, old.task.expires).state == "expired"
    function.revoke(revoke_once=True)
    assert queue.run_task(function(1, 2).id).state == "revoked"
    assert not function.is_revoked()
    assert queue.run_task(function(1, 2).id).state == "complete"


def test_a_task_that_is_taken_stays_in_the_store(huey):
    """A task that `dequeue` returned and that is not executed is run by a consumer; nothing is lost."""
    function = huey.task()(add)
    result = function(1, 2)
    assert huey.dequeue() == result.task
    assert (len(huey), huey.pending(), huey.dequeue()) == (0, [], None)
    assert huey.queue.run_next().id == result.id
    assert result.get() == 3
    assert (len(huey), huey.result_count()) == (0, 1)


def test_a_taken_task_can_be_put_back(huey):
    """`enqueue` puts a task that was taken back, into the queue, also one that was read from the schedule."""
    function = huey.task()(add)
    now, later = function(1, 2), function.schedule((3, 4), delay=60)
    huey.enqueue(huey.dequeue())
    assert [task.id for task in huey.pending()] == [now.id, later.id]
    for _ in range(2):
        huey.execute(huey.dequeue())
    (due,) = huey.read_schedule(huey.to_datetime(later.task.inner.eta))
    assert (len(huey), huey.scheduled_count(), huey.read_schedule(datetime(9000, 1, 1, tzinfo=UTC))) == (0, 0, [])
    huey.enqueue(due)
    assert (len(huey), huey.scheduled_count(), huey.scheduled(), huey.pending()) == (1, 0, [], [due])
    assert huey.execute(huey.dequeue(), due.eta) == 7
    assert signals(huey, later) == "queued scheduled executing complete"


def test_looks_at_the_queue(huey):
    """`pending`, `scheduled`, `all_results` and the counts show the tasks of the store, in the order of their start."""
    function = huey.task()(add)
    low, high, failed = function(1, 2), function(1, 2, priority=3), function(1, None)
    later = [function.schedule((1, 2), delay=delay) for delay in (90, 60)]
    for result in later:
        huey.execute(result.task)
    huey.execute(failed.task)
    assert [task.id for task in huey.pending()] == [high.id, low.id]
    assert [task.id for task in huey.pending(1)] == [high.id]
    assert [task.id for task in huey.scheduled()] == [later[1].id, later[0].id]
    assert (huey.pending_count(), huey.scheduled_count(), huey.result_count()) == (2, 2, 1)
    assert huey.execute(low.task) == 3
    found = huey.all_results()
    assert found[low.id] == 3
    assert "TypeError" in found[failed.id].metadata["error"]
    huey.flush()
    assert (len(huey), huey.scheduled_count(), huey.all_results(), bool(huey)) == (0, 0, {}, True)


def test_a_function_can_be_made_unknown(huey):
    """After `unregister` the tasks of a function wait, and are no part of the looks; its name is free again."""
    function = huey.task()(add)
    result = function(1, 2)
    assert function.unregister()
    assert not function.unregister()
    assert huey.pending() == []
    assert huey.queue.run_next() is None
    huey.task()(add)
    assert huey.queue.run_next().id == result.id


def test_ticks_of_a_periodic_function_that_is_unknown_are_not_made(tmp_path):
    """After `unregister` no ticks of a periodic task are made."""
    queue = TaskQueue(tmp_path / "app.db")
    tick = queue.periodic(every=60)(lambda: None)
    assert [status.name for status in queue.periodic_tasks()] == [tick.name]
    assert queue.unregister(tick)
    assert queue.periodic_tasks() == []
    queue.close()


def test_a_rescheduled_task_may_expire(huey):
    """`reschedule(expires=)` gives the copy an expiry of its own; without the option the expiry stays."""
    function = huey.task(expires=50)(add)
    copy = function(1, 2).reschedule(delay=10)
    assert copy.task.expires == 50
    expires = datetime.now(UTC) + timedelta(minutes=5)
    again = copy.reschedule(expires=expires)
    assert again.task.inner.expires == expires.timestamp()
    assert again.reschedule(expires=5).task.expires == 5
