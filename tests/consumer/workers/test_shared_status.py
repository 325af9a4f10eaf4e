"""Shared status of a worker process: written by the process, read by its consumer at any moment."""

import multiprocessing

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.clock import monotonic
from lifecycle.consumer.workers.shared_status import READY, RECYCLED, SharedStatus
from lifecycle.core.task import Task

context = multiprocessing.get_context("spawn")

timeouts = st.none() | st.floats(0, 1e9)


def executing_task(task_id, attempt=1, timeout=None):
    task = Task(task_id, "add", timeout=timeout)
    task.attempt = attempt
    return task


@given(st.text(min_size=1, max_size=400).filter(lambda text: text.isprintable()), st.integers(1, 2**31), timeouts)
def test_status_has_id_attempt_and_deadline_of_the_running_task(task_id, attempt, timeout):
    """The status has id, attempt and deadline of the running task, and no id longer than 255 bytes."""
    status = SharedStatus(context)
    before = monotonic()
    status.set_task(executing_task(task_id, attempt, timeout))
    seen, after = status.read(), monotonic()
    assert seen.task_id == (task_id if len(task_id.encode()) <= 255 else None)
    assert seen.attempt == attempt
    assert before <= seen.since <= after
    if timeout is None:
        assert seen.deadline == float("inf")
    else:
        assert before + timeout <= seen.deadline <= after + timeout


@given(st.lists(st.booleans(), max_size=20))
def test_status_counts_finished_attempts(turns):
    """The status counts finished attempts, and has no task after its attempt; each heartbeat keeps the count."""
    status, ran = SharedStatus(context), 0
    for begins in turns:
        status.set_task(executing_task("one") if begins else None)
        ran += not begins
        assert (status.read().task_id is None) is not begins
    status.beat()
    assert status.read().attempts == ran


def test_shorter_id_replaces_a_longer_one():
    """A shorter id replaces a longer one completely."""
    status = SharedStatus(context)
    status.set_task(executing_task("a-long-one"))
    status.set_task(executing_task("b"))
    assert status.read().task_id == "b"
    status.set_task(executing_task("x" * 256))
    assert status.read().task_id is None


def test_status_is_ready_or_recycled_after_its_stage_is_set():
    """A worker that has not begun is neither ready nor recycled; a heartbeat changes only its time."""
    status = SharedStatus(context)
    assert (status.read().ready, status.read().recycled, status.read().beat) == (False, False, 0.0)
    status.beat()
    assert (status.read().ready, status.read().recycled) == (False, False)
    for stage, recycled in (READY, False), (RECYCLED, True):
        before = monotonic()
        status.set_stage(stage)
        status.beat()
        seen = status.read()
        assert (seen.ready, seen.recycled) == (True, recycled)
        assert before <= seen.beat <= monotonic()
