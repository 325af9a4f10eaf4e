"""Consumers whose SQLite file is removed or replaced, or whose log is removed, while they run tasks."""

import pytest
from support.processes import LONG, consumer_group, settled, states, stop_process, wait_for_log

from lifecycle import TaskQueue

on_each_kind = pytest.mark.parametrize("kind", ["thread", "process"])


@pytest.fixture
def group(tmp_path):
    """Yield consumers of `programs/chores.py`."""
    with consumer_group(tmp_path, lease=LONG) as group:
        yield group


@pytest.fixture
def running(group):
    """Return a function that starts a consumer of a kind; the consumer runs a task that waits for its release."""

    def start(kind):
        consumer = group.start_consumer("-w", "2", "-k", kind, setting={"looks": True})
        group.events.wait_for(count=2, consumer=consumer.pid, note="up")
        result = group.tasks.linger()
        group.events.wait_for(id=result.id, note="begun")
        return consumer, result

    return start


def look_is_due(queue):
    """Let the time between two looks at the file be over, in this process."""
    queue.storage._database.check_at = 0.0


@on_each_kind
def test_consumer_goes_on_with_a_new_file_after_a_removal(group, running, kind):
    """A consumer whose file is removed says so, runs tasks from a new file, and tells of each lost outcome."""
    consumer, result = running(kind)
    group.file.unlink()
    wait_for_log(consumer, f"path={group.file}")
    look_is_due(group.queue)
    assert settled(group.queue, group.tasks.add(1, 2)) == ["complete"]
    group.release_tasks()
    wait_for_log(consumer, f"task=task {result.id}")
    assert stop_process(consumer) == 0
    log = group.logs()
    assert "lost all tasks: the file was removed while in use" in log
    assert "lost an outcome" in log
    assert log.count("ERROR") <= 5  # one from each process, and the outcome
    assert group.queue.storage.get(result.id) is None


@on_each_kind
def test_consumer_runs_the_tasks_of_the_file_that_replaces_its_own(group, running, kind):
    """A consumer whose file is replaced by another queue's file says so, and runs the tasks of the other file."""
    other = TaskQueue(f"sqlite:///{group.folder}/other.db")
    waiting = other.task(name="chores.add")(lambda a, b: a + b)(3, 4)
    other.close()
    consumer, result = running(kind)
    (group.folder / "other.db").rename(group.file)
    look_is_due(group.queue)
    assert settled(group.queue, group.queue.handle(waiting.id)) == ["complete"]
    group.release_tasks()
    wait_for_log(consumer, f"task=task {result.id}")
    assert stop_process(consumer) == 0
    assert "left a file: another one has replaced it while it was in use" in group.logs()


@on_each_kind
def test_consumer_loses_nothing_with_its_log(group, running, kind):
    """A consumer whose log is removed saves the log, and says so: no task and no outcome is lost."""
    consumer, result = running(kind)
    group.file.with_name(f"{group.file.name}-wal").unlink()
    wait_for_log(consumer, "the log or its index was")
    look_is_due(group.queue)
    later = group.tasks.add(1, 2)
    group.release_tasks()
    assert settled(group.queue, later, result) == ["complete"] * 2
    assert states(result) == "queued executing complete"
    assert stop_process(consumer) == 0
    assert "lost" not in group.logs().replace("nothing is lost", "").replace("may be lost", "")
