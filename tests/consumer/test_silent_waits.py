"""Waits that would go unnoticed: each has one warning that names the function, and says how to end the wait."""

import logging

import pytest
from support.consumers import AsyncBlocker, logged, on_sqlite, running
from support.processes import until

from lifecycle import ResultTimeout, TaskCanceled, TaskTimeout

KINDS = ["thread", "asyncio"]
WAITS = "a task waits for a task that no worker has started"
BLOCKS = "cannot interrupt a function, which blocks a worker"


@pytest.fixture
def at_once(monkeypatch):
    """Warnings come without a delay."""
    monkeypatch.setattr("lifecycle.result.UNSTARTED_SECONDS", 0.0)
    monkeypatch.setattr("lifecycle.consumer.workers.loop.OVERDUE_SECONDS", 0.0)


@on_sqlite
@pytest.mark.parametrize("kind", KINDS)
def test_task_that_waits_for_a_task_which_no_worker_starts_is_logged_once(live, caplog, at_once, kind):
    """A task that waits for a task while all workers are busy is logged, once for its function."""
    queue = live()

    @queue.task()
    def inner():
        return 1

    @queue.task()
    def outer():
        result = inner()
        with pytest.raises(ResultTimeout):
            result.get(timeout=0.1)
        return result.id

    with running(queue, 1, worker_type=kind):
        results = [outer(), outer()]
        inner_ids = [result.get(True) for result in results]
    (record,) = logged(caplog, logging.WARNING, WAITS)
    text = record.getMessage()
    assert f"function={outer.name} task={results[0].id} awaited={inner_ids[0]};" in text


def test_caller_that_is_no_task_and_task_that_is_served_are_not_logged(queue, add, caplog, at_once):
    """A caller outside of tasks, and a task whose awaited task runs or waits for its ETA, are not logged."""
    later = add.schedule((1,), delay=50)

    @queue.task()
    def outer():
        with pytest.raises(ResultTimeout):
            later.get(timeout=0.02)

    queue.run_next()
    outer()
    queue.run_next()
    with pytest.raises(ResultTimeout):
        add(1).get(timeout=0.02)
    assert not logged(caplog, logging.WARNING, WAITS)


@on_sqlite
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("why", ["timeout", "cancel"])
def test_function_that_cannot_be_interrupted_is_logged_once(live, caplog, at_once, kind, why):
    """A function that goes on after its timeout, or its cancellation, is logged, once for each attempt."""
    queue, blocker = live(), AsyncBlocker()

    def wait():
        try:
            blocker.start()
            until(lambda: blocker.is_released)
        except (TaskTimeout, TaskCanceled):
            until(lambda: blocker.is_released)

    stubborn = queue.task(name="stubborn", timeout=0.05 if why == "timeout" else None)(wait)
    calm = queue.task(name="calm", timeout=3600)(blocker.run)
    with running(queue, 2, worker_type=kind) as consumer:
        results = [stubborn(), calm()]
        blocker.wait_until_started(2)
        if why == "cancel":
            queue.cancel(results[0].id)
        until(lambda: logged(caplog, logging.WARNING, BLOCKS), "the warning")
        for worker in consumer._workers * 2:
            worker.check()
        blocker.is_released = True
        assert results[1].get(True) is None
        until(lambda: results[0].state == "complete")
    (record,) = logged(caplog, logging.WARNING, BLOCKS)
    assert f"function=stubborn task={results[0].id}" in record.getMessage()
    assert "worker_type=process" in record.getMessage()


@on_sqlite
def test_function_that_ends_at_its_timeout_is_not_logged(live, caplog):
    """A function that its timeout interrupts is not logged as one that cannot be interrupted."""
    queue, blocker = live(), AsyncBlocker()
    with running(queue, 1, worker_type="asyncio"):
        result = queue.task(name="ends", timeout=0.05)(blocker.run)()
        until(lambda: result.state == "timeout")
    assert not logged(caplog, logging.WARNING, BLOCKS)
    assert TaskTimeout.__name__ in caplog.text
