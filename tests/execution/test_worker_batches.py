"""A worker that settles and claims in one exchange: no signal is lost, late, or sent twice."""

import time
from collections import Counter

import pytest

from lifecycle import SIGNAL_COMPLETE
from lifecycle.consumer.workers.base import WorkerContext, WorkerOptions
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker


def go_on(times):
    """Return a function that returns True `times` times, then False."""
    left = iter(range(times))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize("count", [1, 5, 200])
def test_busy_worker_announces_each_task_in_order(queue, heard, count):
    """A worker that runs many quick tasks announces each in order, and after its commit."""
    ran, faults = [], []

    @queue.task(retries=1, context=True)
    def quick(n, task=None):
        ran.append((n, task.attempt))
        if n % 7 == 3 and task.attempt == 1:
            raise ValueError
        return n

    @queue.signal(SIGNAL_COMPLETE)
    def check(signal, task):
        if queue.result(task.id) != task.args[0]:
            faults.append(task)

    results = quick.map(range(count))
    Worker(queue.engine, "busy").work(lambda: True)
    assert [n for n, attempt in ran if attempt == 1] == list(range(count))
    assert faults == []
    for n, result in enumerate(results):
        flaky = " executing error retrying enqueued" * (n % 7 == 3)
        assert heard.story(result) == f"enqueued{flaky} executing complete"


def test_stopped_busy_worker_requeues_its_claimed_tasks(queue, heard):
    """A busy worker that is stopped starts no more tasks; its claimed tasks are requeued or done, and none is lost."""
    worker = Worker(queue.engine, "busy")
    stop_at, ran = 150, []

    @queue.task()
    def quick(n):
        ran.append(n)
        if len(ran) == stop_at:
            worker.interrupt()
            while True:
                pass
        return n

    results = quick.map(range(300))
    worker.work(lambda: len(ran) < stop_at)
    assert ran == list(range(stop_at))
    found = Counter(result.state for result in results)
    assert found == {"complete": stop_at - 1, "queued": 300 - stop_at + 1}
    stop_at = 0
    Worker(queue.engine, "next").work(lambda: True)
    assert sorted(ran) == sorted([*range(300), 149])
    for result in results:
        again = " executing interrupted enqueued" * ("interrupted" in heard.of(result))
        assert heard.story(result) == f"enqueued{again} executing complete"


def test_stuck_busy_worker_settles_done_tasks_and_requeues_the_others(queue, heard):
    """A stuck worker's done tasks are settled; its other claimed tasks are requeued and run again."""
    worker, at = Worker(queue.engine, "stuck"), []
    queue.engine.monotonic = lambda: 0.0  # on a busy machine, too, its function is quick, so that it claims several

    @queue.task()
    def quick(n):
        if n >= 150 and not at and queue.counts()["executing"] > 1:
            at.append(n)
            worker.requeue_running()
            at.append(queue.counts())
        return n

    results = quick.map(range(300))
    worker.work(lambda: True)
    stuck, counts = at
    assert (counts["complete"], counts["executing"], counts["queued"]) == (stuck, 0, 300 - stuck)
    for n, result in enumerate(results):
        again = " executing interrupted enqueued" * ("interrupted" in heard.of(result))
        assert heard.story(result) == f"enqueued{again} executing complete"
        assert result.get() == n
    assert "interrupted" in heard.of(results[stuck])


def test_worker_that_just_claimed_a_task_is_not_stuck(queue, heard, add):
    """A worker that has just claimed a task keeps it, however long its last task took."""
    context, ticks = WorkerContext(queue, WorkerOptions(30.0, 1, "spawn")), [0.0]
    loop = WorkerLoop(context, "busy", TaskRunner(queue.engine))
    queue.engine.monotonic = lambda: ticks[0]
    looked = []

    @queue.task()
    def slow():
        ticks[0] += 10.0

    @queue.signal(SIGNAL_COMPLETE)
    def look(signal, task):  # as the consumer does all the time, and it comes between claim and start
        looked.append(loop.worker.has_backlog)
        loop.check()

    slow()
    result = add(1, 1)
    loop.worker.work(lambda: True)
    assert looked == [True, False]
    assert heard.story(result) == "enqueued executing complete"


def test_worker_that_may_not_go_on_claims_nothing(queue, add):
    """A worker claims no task once `go_on` returns False."""
    results = add.map([(1, 1)] * 3)
    worker = Worker(queue.engine, "busy")
    worker.work(go_on(0))
    assert queue.counts()["queued"] == 3
    worker.work(go_on(2))
    assert [result.state for result in results] == ["complete", "complete", "queued"]


def test_worker_with_slow_handlers_claims_its_next_task_after_them(queue, add):
    """A worker with slow handlers claims its next task after they return: an idle one can claim it meanwhile."""
    other, seen = Worker(queue.engine, "other"), []

    @queue.signal(SIGNAL_COMPLETE)
    def slow(signal, task):
        if task.worker == "slow":
            time.sleep(0.002)
            seen.append(queue.counts()["executing"])
            if len(seen) == 2:
                other.run_next()

    results = add.map([(1, 1)] * 4)
    Worker(queue.engine, "slow").work(lambda: True)
    assert seen[1:] == [0, 0]
    assert [queue.get(result.id).worker for result in results][2] == "other"
