"""The law's scenarios, row by row, with their exact signals."""

import threading

import pytest
from conftest import LEASE, Killed, another_thread, drain, failure, spin

from lifecycle import SIGNAL_EXECUTING, CancelExecution
from lifecycle.execution.worker import Worker


def test_call_is_executed_and_complete(queue, heard, add):
    """A call is enqueued, executing, and complete."""
    result = add(1, 2)
    assert heard.story(result) == "enqueued"
    task = queue.run_next()
    assert (task.id, task.state) == (result.id, "complete")
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 3


def test_scheduled_call_is_executed_at_its_eta(queue, heard, clock, add):
    """A call with a delay is scheduled by the first worker that claims it, and executed at its ETA, not before."""
    result = add.schedule((2, 3), delay=10)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued scheduled"
    clock.advance(9.999)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued scheduled"
    clock.advance(0.001)
    assert queue.run_next().id == result.id
    assert heard.story(result) == "enqueued scheduled executing complete"
    _, scheduled, executing, _ = result.history()
    assert executing.at - scheduled.at == pytest.approx(10)


def test_failed_task_is_retried_after_its_delay(queue, heard, clock):
    """A failure with retries left and a delay is an error, retried, scheduled, and executed after the delay."""

    @queue.task(retries=2, retry_delay=10, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError("not yet")
        return "done"

    result = flaky()
    assert queue.run_next().state == "scheduled"
    assert heard.story(result) == "enqueued executing error retrying scheduled"
    assert queue.get(result.id).retries == 1
    clock.advance(9.999)
    assert queue.run_next() is None
    clock.advance(0.001)
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing error retrying scheduled executing complete"
    assert [record.attempt for record in result.history()] == [0, 1, 1, 1, 1, 2, 2]
    assert result.get() == "done"


def test_task_of_revoked_function_is_revoked(queue, heard):
    """A task of a revoked function is revoked, and has no other signal."""
    ran = []

    @queue.task()
    def add(a, b):
        ran.append((a, b))

    add.revoke()
    result = add(1, 2)
    assert queue.run_next().state == "revoked"
    assert heard.story(result) == "enqueued revoked"
    assert ran == []


def test_failed_task_is_retried_at_once_without_a_delay(queue, heard):
    """A failure with retries left and no delay is an error, retried, enqueued, and executed."""

    @queue.task(retries=1, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError("not yet")

    result = flaky()
    assert [task.state for task in drain(queue)] == ["queued", "complete"]
    assert heard.story(result) == "enqueued executing error retrying enqueued executing complete"


def test_hook_that_raises_cancel_execution_cancels_the_task(queue, heard, add):
    """A pre-execute hook that raises `CancelExecution` cancels the task: its function does not run."""

    @queue.pre_execute()
    def refuse(task):
        raise CancelExecution("not today")

    result = add(1, "not a number")
    assert queue.run_next().state == "canceled"
    assert heard.story(result) == "enqueued executing canceled"
    assert failure(result)["error"] == "CancelExecution('not today')"


def test_task_whose_lock_is_taken_ends_locked(queue, heard):
    """A task whose lock is taken ends `locked`."""

    @queue.task()
    @queue.lock_task("one at a time")
    def alone(): ...

    with queue.lock_task("one at a time"):
        result = alone()
        assert queue.run_next().state == "locked"
    assert heard.story(result) == "enqueued executing locked"


@pytest.mark.parametrize("delay", [None, 5, 100])
def test_task_past_its_expiry_ends_expired(queue, heard, clock, add, delay):
    """A task that was not started before its expiry ends `expired`, with an ETA or without."""
    result = add.schedule((1, 2), delay=delay, expires=60)
    clock.advance((delay or 0) + 60)
    assert queue.run_next().state == "expired"
    assert heard.story(result) == "enqueued expired"


def test_task_of_killed_worker_is_executed_again_after_its_lease(queue, heard, clock, add):
    """A task of a killed worker is interrupted, enqueued and executed again once its lease has lapsed, not before."""
    doomed = True

    @queue.signal(SIGNAL_EXECUTING)
    def kill(signal, task):
        if doomed:
            raise Killed

    result = add(1, 2)
    with pytest.raises(Killed):
        queue.run_next()
    doomed = False
    clock.advance(LEASE - 0.001)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued executing"
    clock.advance(0.001)
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert [record.attempt for record in result.history()] == [0, 1, 1, 1, 2, 2]


def test_stopped_worker_interrupts_and_requeues_its_task(queue, heard):
    """A stopped worker interrupts its running task and requeues it at once; another worker runs it."""
    runs, release = threading.Event(), threading.Event()

    @queue.task(retries=0)
    def slow():
        runs.set()
        spin(release)

    stopped = Worker(queue.engine, "stopped")
    result = slow()
    with another_thread(stopped.run_next):
        assert runs.wait(30)
        stopped.interrupt()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    release.set()
    assert Worker(queue.engine, "next").run_next().state == "complete"
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert {record.worker for record in result.history()[-2:]} == {"next"}


def test_stopped_worker_requeues_claimed_task_without_running_it(queue, heard, add):
    """A stopped worker requeues a claimed task without running it, and calls no hook."""
    worker, hooked = Worker(queue.engine, "stopped"), []
    queue.pre_execute("note")(hooked.append)
    queue.post_execute("note")(lambda task, value, exc: hooked.append(task))
    worker.interrupt()
    result = add("never", "tried")
    assert worker.run_next().state == "queued"
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert hooked == []


def test_worker_stopped_by_a_hook_does_not_call_the_function(queue, heard):
    """A worker that is stopped after a task's start and before its function does not call the function."""
    ran = []
    worker = Worker(queue.engine, "stopped")
    queue.pre_execute("stop")(lambda task: worker.interrupt())

    @queue.task()
    def late():
        ran.append(1)

    result = late()
    worker.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert ran == []


def test_task_of_stuck_worker_is_requeued_and_its_late_outcome_refused(queue, heard):
    """A task that cannot be interrupted is requeued all the same; its late outcome is refused."""
    worker = Worker(queue.engine, "stuck")

    @queue.task(context=True)
    def stubborn(task=None):
        if task.attempt == 1:
            worker.requeue_running()
            assert queue.run_next().state == "complete"
            return "too late"
        return "in time"

    result = stubborn()
    worker.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert result.get() == "in time"


@pytest.mark.parametrize("late", ["returns", "raises"])
def test_outcome_of_frozen_and_replaced_worker_is_refused_and_logged(queue, heard, clock, caplog, late):
    """A worker that was frozen past its lease and replaced sends no more signals; its outcome is refused and logged."""

    @queue.task(context=True, retries=1)
    def frozen(task=None):
        if task.attempt == 1:
            clock.advance(LEASE)
            assert queue.run_next().state == "complete"
            if late == "raises":
                raise ValueError("too late")
            return "too late"
        return "in time"

    result = frozen()
    queue.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert result.get() == "in time"
    assert drain(queue) == []
    assert f"{result.id}" in caplog.text
    assert "too late" in caplog.text


def test_frozen_worker_that_was_not_replaced_settles_its_task(queue, heard, clock):
    """A worker that was frozen past its lease, but not replaced, settles its task."""

    @queue.task()
    def frozen():
        clock.advance(10 * LEASE)

    result = frozen()
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing complete"


def test_ctrl_c_in_run_next_requeues_the_task(queue, heard):
    """Ctrl-C while `run_next` runs a task interrupts and requeues the task, and is raised to the caller."""

    @queue.task(context=True)
    def patient(task=None):
        if task.attempt == 1:
            raise KeyboardInterrupt

    result = patient()
    with pytest.raises(KeyboardInterrupt):
        queue.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert queue.run_next().state == "complete"
