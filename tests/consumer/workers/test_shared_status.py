"""What a worker's process tells of itself: written by one process, read by another, at any moment."""

import multiprocessing

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.clock import monotonic
from lifecycle.consumer.workers.shared_status import READY, RECYCLED, SharedStatus
from lifecycle.core.task import Task

context = multiprocessing.get_context("spawn")

timeouts = st.none() | st.floats(0, 1e9)


def a_task(task_id, attempt=1, timeout=None):
    task = Task(task_id, "add", timeout=timeout)
    task.attempt = attempt
    return task


@given(st.text(min_size=1, max_size=400).filter(lambda text: text.isprintable()), st.integers(1, 2**31), timeouts)
def test_a_body(task_id, attempt, timeout):
    """The slate has the id, the attempt and the deadline of the body that runs; of an id beyond 255 bytes it is silent."""
    slate = SharedStatus(context)
    before = monotonic()
    slate.set_task(a_task(task_id, attempt, timeout))
    seen, after = slate.read(), monotonic()
    assert seen.task_id == (task_id if len(task_id.encode()) <= 255 else None)
    assert seen.attempt == attempt
    assert before <= seen.since <= after
    if timeout is None:
        assert seen.deadline == float("inf")
    else:
        assert before + timeout <= seen.deadline <= after + timeout


@given(st.lists(st.booleans(), max_size=20))
def test_counts(turns):
    """It counts the bodies that are over, and has none of them any more; each sign of life carries the count."""
    slate, ran = SharedStatus(context), 0
    for begins in turns:
        slate.set_task(a_task("one") if begins else None)
        ran += not begins
        assert (slate.read().task_id is None) is not begins
    slate.beat()
    assert slate.read().attempts == ran


def test_a_shorter_id():
    """Nothing is left of an id that was longer."""
    slate = SharedStatus(context)
    slate.set_task(a_task("a-long-one"))
    slate.set_task(a_task("b"))
    assert slate.read().task_id == "b"
    slate.set_task(a_task("x" * 256))
    assert slate.read().task_id is None


def test_stages():
    """A worker that has not begun is neither ready nor retired; a beat changes nothing in that, but the time."""
    slate = SharedStatus(context)
    assert (slate.read().ready, slate.read().recycled, slate.read().beat) == (False, False, 0.0)
    slate.beat()
    assert (slate.read().ready, slate.read().recycled) == (False, False)
    for stage, retired in (READY, False), (RECYCLED, True):
        before = monotonic()
        slate.set_stage(stage)
        slate.beat()
        seen = slate.read()
        assert (seen.ready, seen.recycled) == (True, retired)
        assert before <= seen.beat <= monotonic()
