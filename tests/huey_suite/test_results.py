"""Handles with Huey's names."""

import asyncio

import pytest

from lifecycle import ConfigurationError, ResultTimeout, TaskException
from lifecycle.huey import Error, MemoryHuey, Result, ResultGroup, Task


@pytest.fixture
def huey():
    """Yield a queue in memory."""
    queue = MemoryHuey()
    yield queue
    queue.close()


def run(huey):
    """Run all tasks that are due."""
    while huey.queue.run_next() is not None:
        pass


def test_a_handle_keeps_the_outcome_that_it_has_read(huey):
    """A handle returns, or raises, the same outcome until `reset`; another handle reads the latest."""
    tries = []

    @huey.task(retries=1)
    def flaky():
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("first")
        return "second"

    result = flaky()
    assert (result.get(), result.is_ready()) == (None, False)
    huey.execute(huey.dequeue())
    assert result.is_ready()
    run(huey)
    with pytest.raises(TaskException, match="first"):
        result.get()
    with pytest.raises(TaskException, match="first"):
        result(blocking=True)
    assert isinstance(result.get_raw_result(), Error)
    assert huey.result(result.id, preserve=True) == "second"
    result.reset()
    assert (result(), result.get_raw_result()) == ("second", "second")


def test_a_task_that_does_not_run_has_no_result(huey):
    """`get` returns ``None`` for a task that is revoked or has expired; with `blocking` it raises, and waits no more."""
    work = huey.task()(lambda n: n)
    revoked, expired = work(1), work(2, expires=0.001)
    revoked.revoke()
    huey.execute(revoked.task)
    huey.queue.run_task(expired.id, huey.queue.engine.clock.now() + 5)
    for result in (revoked, expired):
        assert (result.get(), result.is_ready()) == (None, True)
        with pytest.raises(TaskException):
            result.get(blocking=True)
    assert not revoked.restore()


def test_a_queue_may_add_to_the_metadata_of_errors():
    """An override of `build_error_result` adds plain values to the error of each task; other values fail it clearly."""

    class Named(MemoryHuey):
        def build_error_result(self, task, exception):
            found = super().build_error_result(task, exception)
            return found | {"function": task.name, "arguments": task.args if task.args != ("no",) else self}

    huey = Named()
    work = huey.task(context=True)(lambda n, task: 1 / 0)
    work_well = huey.task(name="well")(lambda n: n)
    results = [work(3), work("no"), work_well(4)]
    run(huey)
    with pytest.raises(TaskException, match="ZeroDivisionError") as caught:
        results[0].get()
    assert caught.value.metadata["function"] == "<lambda>"
    assert caught.value.metadata["arguments"] == [3]
    assert caught.value.metadata["task_id"] == results[0].id
    with pytest.raises(TaskException, match="TypeError"):
        results[1].get()
    assert results[2].get() == 4
    with pytest.raises(ConfigurationError, match="must be a plain function"):
        huey.task()(asyncio.sleep)
    huey.close()


def test_a_wait_has_an_end(huey):
    """A wait raises `ResultTimeout` in time, at once for an id that is not there; and may then revoke the task."""
    result = huey.task()(lambda n: n)(1)
    assert result.get(timeout=30) is None
    with pytest.raises(ResultTimeout):
        result.get(blocking=True, timeout=0.001, revoke_on_timeout=True)
    assert result.is_revoked()
    missing = Result(huey, Task(id="missing"))
    assert (missing.get(), missing.is_ready(), huey.result("missing")) == (None, False, None)
    with pytest.raises(ResultTimeout, match="no task missing"):
        missing.get(blocking=True)


def test_a_group_of_handles(huey):
    """`map` returns a group: its values in order, by index, or as the tasks end."""
    group = huey.task()(lambda a, b=0: a + b).map([1, (2, 3)])
    assert isinstance(group, ResultGroup)
    assert (len(group), group()) == (2, [None, None])
    run(huey)
    assert (group.get(), group[1], list(group.as_completed())) == ([1, 5], 5, [1, 5])
    assert [result.id for result in group] == [task.id for task in reversed(huey.queue.tasks())]


def test_handles_are_yielded_as_their_tasks_end(huey):
    """`as_completed` waits for the tasks that have not ended."""
    group = huey.task()(lambda n: n).map([1, 2])
    consumer = huey.create_consumer()
    values = group.as_completed()
    consumer.start()
    assert sorted(values) == [1, 2]
    consumer.stop()
