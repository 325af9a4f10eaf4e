"""The queue: its name, its store and its options, its end, its logs and its types."""

import os
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from conftest import Heard, drain

import lifecycle
from lifecycle import SIGNAL_ERROR, ConfigurationError, StorageError, StorageFull, TaskException, TaskQueue, UnknownTask
from lifecycle.clock import SystemClock
from lifecycle.virtual_clock import VirtualClock

# The queue -----------------------------------------------------------------------------------------------------------


def test_queues_of_different_names_share_only_the_file(tmp_path):
    """Queues of different names share a file and nothing else."""
    url = f"sqlite:///{tmp_path}/app.db"
    one, other, same = (TaskQueue(url, name=name) for name in ("one", "other", "one"))
    result = one.task(name="add")(lambda a: a)(1)
    assert other.run_next() is None
    assert same.get(result.id).state == "queued"
    with pytest.raises(UnknownTask):
        other.get(result.id)
    other.revoke_by_id(result.id)
    with one.lock_task("lock"):
        assert not other.is_locked("lock")
        assert same.is_locked("lock")
    other.flush()
    assert one.counts()["queued"] == 1
    for queue in (one, other, same):
        queue.close()


def test_store_is_given_by_the_url_or_the_environment(monkeypatch, tmp_path):
    """Without a URL the store is $LIFECYCLE_URL, or else lifecycle.db; no file is made before its first use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFECYCLE_URL", raising=False)
    queue = TaskQueue()
    assert os.listdir(tmp_path) == []
    queue.counts()
    assert "lifecycle.db" in os.listdir(tmp_path)
    queue.close()
    monkeypatch.setenv("LIFECYCLE_URL", "sqlite:///other.db")
    queue = TaskQueue()
    assert queue.run_next() is None
    assert "other.db" in os.listdir(tmp_path)
    queue.close()
    monkeypatch.setenv("LIFECYCLE_URL", "")
    assert "sqlite:" in repr(TaskQueue())
    monkeypatch.setenv("LIFECYCLE_URL", "memory://")
    assert repr(TaskQueue(name="jobs")) == "<TaskQueue 'jobs' on memory://>"


def test_task_outlives_the_closed_queue(tmp_path):
    """A task outlives the queue object that was closed, and is run by the next one."""
    url = f"sqlite:///{tmp_path}/app.db"
    queue = TaskQueue(url)
    result = queue.task(name="add")(lambda a, b: a + b)(1, 2)
    queue.close()
    with closing(TaskQueue(url)) as again:
        again.task(name="add")(lambda a, b: a + b)
        assert again.run_next().id == result.id
        assert again.result(result.id) == 3
    with pytest.raises(StorageError, match="was closed"):
        queue.counts()


FIRST_LOOKS = {
    "counts": lambda queue, _: queue.counts()["complete"] == 1,
    "get": lambda queue, task_id: queue.get(task_id).state == "complete",
    "history": lambda queue, task_id: len(queue.history(task_id)) == 3,
    "result": lambda queue, task_id: queue.result(task_id) == 3,
    "state": lambda queue, task_id: queue.handle(task_id).state == "complete",
    "tasks": lambda queue, _: len(queue.tasks()) == 2,
    "locks": lambda queue, _: queue.is_locked("lock"),
    "revocations": lambda queue, _: queue.is_revoked("other"),
    "run_next": lambda queue, _: queue.run_next() is None and queue.unknown_functions() == {"add": 1},
    "unknown_functions": lambda queue, _: queue.unknown_functions() == {"add": 1},
    "prune": lambda queue, _: queue.storage.prune(float("inf")) == 1,
    "next_due": lambda queue, _: queue.storage.next_due() is not None,
}


@pytest.mark.parametrize("look", FIRST_LOOKS)
def test_first_read_of_a_filled_store_sees_its_content(tmp_path, look):
    """The first read of a store that another queue has filled sees the content, whichever read is the first."""
    url = f"sqlite:///{tmp_path}/app.db"
    queue = TaskQueue(url)
    add = queue.task(name="add")(lambda a, b: a + b)
    result = add(1, 2)
    queue.run_next()
    add(1, 2)
    queue.revoke_by_id("other")
    with queue.lock_task("lock"), closing(TaskQueue(url)) as other:
        assert FIRST_LOOKS[look](other, result.id)
    queue.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": ""}, "name"),
        *(({"lease": lease}, "lease") for lease in (0, -1, float("nan"), float("inf"), "30", None, True)),
        *(({"retention": retention}, "retention") for retention in (-1, float("nan"), "1 day", True)),
        *(({"max_interruptions": number}, "max_interruptions") for number in (-1, "ten", 1.5, None, True)),
    ],
)
def test_bad_option_of_a_queue_is_refused_by_name(options, words):
    """A bad option of a queue is refused by its name, before a queue is made."""
    with pytest.raises(ConfigurationError, match=words):
        TaskQueue("memory://", **options)


def test_durations_of_a_queue_are_seconds_or_timedeltas():
    """Durations are seconds or timedeltas; tasks at rest are kept for a day by default, with None for ever."""
    assert TaskQueue("memory://").retention == 86_400
    assert TaskQueue("memory://", retention=timedelta(hours=1), lease=timedelta(seconds=5)).retention == 3600
    assert TaskQueue("memory://", retention=None).retention is None


def test_purge_deletes_old_tasks_in_given_states():
    """`purge` deletes tasks at rest for longer than a time, in any states or in some, and returns their number."""
    clock = VirtualClock()
    queue = TaskQueue("memory://", clock=clock)
    add, fails = queue.task(name="add")(lambda: 0), queue.task(name="fails")(lambda: 1 / 0)
    for _ in range(3):
        add(), fails()
        while queue.run_next():
            pass
        clock.advance(60)
    add()
    assert queue.purge(timedelta(minutes=5)) == 0
    assert queue.purge(90, "error") == 2
    assert queue.purge(150, ["error", "complete"]) == 1
    assert {state: count for state, count in queue.counts().items() if count} == {
        "queued": 1,
        "complete": 2,
        "error": 1,
    }
    assert queue.purge(0) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((-1,), "older_than"),
        (("7d",), "older_than"),
        ((0, 5), "states"),
        ((0, [5]), "states"),
        *(
            ((0, [state]), f"{state}.*complete, revoked, expired, skipped, error")
            for state in ("queued", "executing", "gone")
        ),
    ],
)
def test_purge_refuses_other_states_and_times(arguments, words):
    """`purge` refuses what is no duration, and a state in which no task is at rest, and deletes nothing."""
    queue = TaskQueue("memory://")
    queue.task(name="add")(lambda: 0)()
    queue.run_next()
    with pytest.raises(ConfigurationError, match=words):
        queue.purge(*arguments)
    assert queue.counts()["complete"] == 1


def test_lease_is_extended_while_run_next_runs_a_task(tmp_path):
    """The lease of a task that runs longer than its lease is extended, and no other worker recovers the task."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.db", lease=0.3)
    heard = Heard(queue)
    seen = []

    @queue.task(context=True)
    def slow(task=None):
        first = queue.get(task.id).lease
        while queue.get(task.id).lease == first:  # until the first heartbeat
            pass
        seen.append(queue.engine.recover())

    assert isinstance(queue.engine.clock, SystemClock)
    result = slow()
    assert queue.run_next().state == "complete"
    assert seen == [0]
    assert heard.story(result) == "enqueued executing complete"
    queue.close()


def test_closed_queue_leaves_no_thread():
    """A closed queue leaves no thread behind, whatever it was used for."""
    before = set(threading.enumerate())
    for _ in range(5):
        queue = TaskQueue(immediate=True, lease=0.03)
        queue.task(name="nothing")(lambda: None)()
        with queue.lock_task("lock"):
            pass
        queue.close()
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(1)
    assert not any(thread.is_alive() for thread in left)


def test_task_that_could_not_be_stored_can_be_enqueued_later(queue, add, monkeypatch):
    """A task that could not be stored is unchanged, and can be enqueued once the store has room."""
    task = add.s(1, 2)

    def full(*args):
        raise StorageFull("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(queue.storage, "enqueue", full)
        with pytest.raises(StorageFull):
            queue.enqueue(task)
    assert (task.state, task.seq, task.version) == (None, None, 0)
    result = queue.enqueue(task)
    queue.run_next()
    assert result.get() == 3


def test_repr_shows_ids_and_no_arguments(queue, add):
    """The texts of a queue, a handle and a task name them, and show no arguments."""
    result = add("secret")
    assert repr(queue).startswith("<TaskQueue 'default' on ")
    assert repr(result) == f"<Result of task {result.id}>"
    assert str(queue.get(result.id)) == f"task {result.id} ({add.name})"
    assert "secret" not in repr(queue.get(result.id)) + repr(queue.tasks()) + repr(add.s("secret"))
    with pytest.raises(TaskException):
        queue.run_next(), result.get()


def test_error_handler_gets_the_exception_of_each_failed_attempt(queue, ran, add):
    """Handlers of `error` get the exception of each failed attempt."""

    @queue.signal(SIGNAL_ERROR)
    def note(signal, task, exc):
        ran.append((signal, task.attempt, type(exc)))

    result = add.schedule((1, "2"), retries=1)
    drain(queue)
    assert ran == [("error", 1, TypeError), ("error", 2, TypeError)]
    assert result.state == "error"


# Types ---------------------------------------------------------------------------------------------------------------


def test_typed_uses_of_the_api_pass_mypy_strict(tmp_path):
    """Functions, handles, handlers and locks have the types that users expect: mypy in strict mode finds no error."""
    source = Path(__file__).with_name("typing_api.py")
    root = Path(lifecycle.__file__).parents[1]
    env = dict(os.environ)
    if root.name != "site-packages":  # mypy finds installed packages by itself, and refuses to get their path
        env["MYPYPATH"] = str(root)
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--enable-error-code=ignore-without-code"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(source)], capture_output=True, text=True, check=False, env=env,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr


def test_file_of_typed_uses_has_correct_and_wrong_uses():
    """The checked file has typed uses and errors for mypy to find."""
    text = Path(__file__).with_name("typing_api.py").read_text()
    assert text.count("assert_type(") > 40
    assert text.count("# type: ignore[") > 10
    compile(text, "typing_api.py", "exec")
