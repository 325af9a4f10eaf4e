"""Waiting for workflows: `get` and `as_completed`."""

import pytest
from conftest import PATIENCE, SOON, another_thread, drain

from lifecycle import ResultGroup, ResultTimeout, UnknownTask, group


@pytest.fixture
def add(queue):
    return queue.task(name="add")(lambda a, b: a + b)


def test_waiting_for_a_workflow(live):
    """`get` waits for all values, in any thread; the time is for all of them together."""
    queue = live()
    add = queue.task(name="add")(lambda a, b: a + b)
    results = queue.enqueue(add.s(1, 2) | add.s(3))
    with pytest.raises(ResultTimeout):
        results.get(timeout=SOON)
    with another_thread(lambda: drain(queue)):
        assert results.get(timeout=PATIENCE) == [3, 6]
    assert results.get(True) == [3, 6]


def test_as_completed_yields_in_order_of_completion(live):
    """`as_completed` yields each result as it comes to rest, a failed one too, and a nested group when all of it has."""
    queue = live()
    seen = []

    @queue.task(name="work")
    def work(name):
        if name == "fails":
            raise ValueError
        return name

    low, high = work.s("low"), work.s("high")
    high.priority = 5
    results = queue.enqueue(group([low, group([work.s("a"), work.s("b")]), high, work.s("fails"), group([])]))
    with another_thread(lambda: seen.extend(results.as_completed(timeout=PATIENCE))):
        drain(queue)
    assert len(seen) == len(results)
    assert {id(result) for result in seen} == {id(result) for result in results}
    results = queue.enqueue(group([work.s("a"), group([work.s("b"), work.s("fails")]), work.s("c")]))
    completed = results.as_completed(timeout=PATIENCE)
    for expected in results:
        for _ in range(2 if isinstance(expected, ResultGroup) else 1):
            queue.run_next()
        assert next(completed) is expected
    assert list(completed) == []


def test_as_completed_waits_for_all_of_a_nested_group(queue, add):
    """A group in a group is yielded when its last member has come to rest, and not before."""
    results = queue.enqueue(group([group([add.s(1, 2), add.s(3, 4)]), add.s(5, 6)]))
    assert queue.run_next() is not None
    with pytest.raises(ResultTimeout):
        next(results.as_completed(timeout=0))
    drain(queue)
    assert list(results.as_completed(timeout=0)) == list(results)


def test_as_completed_times_out(queue, add):
    """`as_completed` raises `ResultTimeout` when its time is over, after it has yielded what is there."""
    results = queue.enqueue(add.s(1, 2) | add.s(3))
    queue.run_next()
    iterator = results.as_completed(timeout=0)
    assert next(iterator) is results[0]
    with pytest.raises(ResultTimeout, match="1 tasks of the workflow"):
        next(iterator)


def test_as_completed_of_deleted_tasks(queue, clock, add):
    """`as_completed` of a task that is not in the store any more raises `UnknownTask`."""
    results = queue.enqueue(group([add.s(1, 2)]))
    drain(queue)
    clock.advance(10)
    queue.storage.prune(clock.now())
    with pytest.raises(UnknownTask):
        list(results.as_completed())
    assert results.progress == (1, 1)
    results.cancel()
