"""The law's scenarios, row by row, signals exactly."""

import threading

import pytest
from conftest import LEASE, Killed, another_thread, drain, failure, spin

from lifecycle import SIGNAL_EXECUTING, CancelExecution
from lifecycle.execution.worker import Worker


def test_a_call(queue, heard, add):
    """A call is enqueued, executed, and complete."""
    result = add(1, 2)
    assert heard.story(result) == "enqueued"
    task = queue.run_next()
    assert (task.id, task.state) == (result.id, "complete")
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 3


def test_a_scheduled_call(queue, heard, clock, add):
    """A call for later is scheduled by the first worker that meets it, and executed at its ETA, not before."""
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


def test_a_flaky_task(queue, heard, clock):
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


def test_a_revoked_function(queue, heard):
    """A task of a revoked function is revoked, and nothing else happens to it."""
    ran = []

    @queue.task()
    def add(a, b):
        ran.append((a, b))

    add.revoke()
    result = add(1, 2)
    assert queue.run_next().state == "revoked"
    assert heard.story(result) == "enqueued revoked"
    assert ran == []


def test_a_retry_without_a_delay(queue, heard):
    """A failure with retries left and no delay is an error, retried, enqueued, and executed."""

    @queue.task(retries=1, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError("not yet")

    result = flaky()
    assert [task.state for task in drain(queue)] == ["queued", "complete"]
    assert heard.story(result) == "enqueued executing error retrying enqueued executing complete"


def test_a_hook_cancels(queue, heard, add):
    """A pre-execute hook that raises `CancelExecution` cancels the task: its function does not run."""

    @queue.pre_execute()
    def refuse(task):
        raise CancelExecution("not today")

    result = add(1, "not a number")
    assert queue.run_next().state == "canceled"
    assert heard.story(result) == "enqueued executing canceled"
    assert failure(result)["error"] == "CancelExecution('not today')"


def test_the_lock_is_taken(queue, heard):
    """A task whose lock is taken ends `locked`."""

    @queue.task()
    @queue.lock_task("one at a time")
    def alone(): ...

    with queue.lock_task("one at a time"):
        result = alone()
        assert queue.run_next().state == "locked"
    assert heard.story(result) == "enqueued executing locked"


@pytest.mark.parametrize("delay", [None, 5, 100])
def test_past_its_expiry(queue, heard, clock, add, delay):
    """A task that nobody started before its expiry is expired, whether or not it had an ETA."""
    result = add.schedule((1, 2), delay=delay, expires=60)
    clock.advance(60)
    assert queue.run_next().state == "expired"
    assert heard.story(result) == "enqueued expired"


def test_a_killed_worker(queue, heard, clock, add):
    """What a killed worker ran is interrupted, enqueued and executed again once its lease has lapsed, not before."""
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


def test_a_stopped_worker(queue, heard):
    """A worker that is told to stop interrupts what it runs and puts it back, at once; another runs it."""
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


def test_a_worker_told_to_stop_before_it_begins(queue, heard, add):
    """What a stopped worker has claimed is not begun, but put back: no hook hears of it."""
    worker, hooked = Worker(queue.engine, "stopped"), []
    queue.pre_execute("note")(hooked.append)
    queue.post_execute("note")(lambda task, value, exc: hooked.append(task))
    worker.interrupt()
    result = add("never", "tried")
    assert worker.run_next().state == "queued"
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert hooked == []


def test_a_worker_told_to_stop_while_hooks_run(queue, heard):
    """A worker that is told to stop after it has started a task and before its body does not begin the body."""
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


def test_what_a_stuck_worker_runs_is_put_back(queue, heard):
    """A task that cannot be interrupted is put back without its consent; what it says later is refused, in silence."""
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
def test_a_frozen_worker(queue, heard, clock, caplog, late):
    """A worker that was frozen past its lease says nothing more of its task: the outcome is refused, and logged."""

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


def test_frozen_but_not_replaced(queue, heard, clock):
    """A worker that was frozen past its lease, but not replaced, settles its task as if nothing had happened."""

    @queue.task()
    def frozen():
        clock.advance(10 * LEASE)

    result = frozen()
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing complete"


def test_a_user_presses_ctrl_c(queue, heard):
    """Ctrl-C while `run_next` runs a task interrupts it and puts it back, and still reaches the caller."""

    @queue.task(context=True)
    def patient(task=None):
        if task.attempt == 1:
            raise KeyboardInterrupt

    result = patient()
    with pytest.raises(KeyboardInterrupt):
        queue.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert queue.run_next().state == "complete"
