"""A busy worker, which settles tasks and starts others in one go: no signal is lost to it, late, or told twice."""

import time
from collections import Counter

import pytest

from lifecycle import SIGNAL_COMPLETE
from lifecycle.consumer.workers.base import WorkerContext, WorkerOptions
from lifecycle.consumer.workers.loop import WorkerLoop
from lifecycle.execution.runner import TaskRunner
from lifecycle.execution.worker import Worker


def go_on(times):
    """True so many times."""
    left = iter(range(times))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize("count", [1, 5, 200])
def test_a_busy_worker(queue, heard, count):
    """A worker that works through a queue announces as one that takes a task at a time: in order, and what is stored."""
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


def test_a_busy_worker_is_stopped(queue, heard):
    """A worker that is told to stop begins nothing more; what it has claimed besides is put back, or done, but not lost."""
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


def test_a_busy_worker_is_stuck(queue, heard):
    """Of a worker that is stuck, and all it has claimed: what it has done is settled, all else put back, and run again."""
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


def test_a_busy_worker_is_not_stuck(queue, heard, add):
    """However long its last task took: a worker that has just claimed the next one is not relieved of it."""
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


def test_a_busy_worker_that_may_not_go_on(queue, add):
    """A worker claims nothing once it may not go on."""
    results = add.map([(1, 1)] * 3)
    worker = Worker(queue.engine, "busy")
    worker.work(go_on(0))
    assert queue.counts()["queued"] == 3
    worker.work(go_on(2))
    assert [result.state for result in results] == ["complete", "complete", "queued"]


def test_slow_handlers(queue, add):
    """A worker whose handlers are slow claims its next task when they are done: an idle one can have it meanwhile."""
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
