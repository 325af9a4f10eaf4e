"""A SQLite file, its log or the log's index that is removed or replaced while a queue has it open."""

import logging
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.processes import PATIENCE, environment, until
from support.stores import PRODUCER

from lifecycle import StorageUnavailable, StorageUnusable, Task, TaskQueue
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite import database, file_identity, removed_log, transaction

ENDINGS = ("-wal", "-shm")


@pytest.fixture
def path(tmp_path):
    """Return the path of a file that does not exist yet."""
    return tmp_path / "q.db"


@pytest.fixture
def storage(path):
    """Yield a store on that file, with two tasks."""
    with closing(SQLiteStorage(str(path))) as storage:
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
        yield storage


def look_is_due(storage):
    """Let the time between two looks be over."""
    storage._database.check_at = 0.0


def ids(storage):
    return {task.id for task in storage.tasks()}


def ids_in(path):
    """Return the ids of the tasks as another program reads them, from a sound file."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        return {task_id for (task_id,) in db.execute("select id from task")}


def reported(caplog, text):
    """Return the log lines of this beginning that name the file."""
    return [line for line in caplog.messages if line.startswith(text) and "q.db" in line]


def remove(path, *endings):
    for ending in endings:
        Path(f"{path}{ending}").unlink()


def other_file(path, *ids, queue="default", others=0):
    """Make a file with a queue of these tasks, not in use; return its path."""
    other = path.with_name("other.db")
    for number in range(others):
        with closing(SQLiteStorage(str(other), f"queue {number}")) as storage:
            storage.enqueue([Task(f"{number} {other}", "add")], 1.0, PRODUCER)
    with closing(SQLiteStorage(str(other), queue)) as storage:
        storage.enqueue([Task(task_id, "add") for task_id in ids], 1.0, PRODUCER)
    return other


# The file ----------------------------------------------------------------------------------------------------------

READS_AND_WRITES = {
    "read": lambda storage: storage.get("a"),
    "reads": lambda storage: storage.counts(),
    "write": lambda storage: storage.enqueue([Task("new", "add")], 2.0, PRODUCER),
}
on_each_use = pytest.mark.parametrize("use", READS_AND_WRITES.values(), ids=READS_AND_WRITES)


@on_each_use
@pytest.mark.parametrize("endings", [("",), ("", *ENDINGS)], ids=["the file", "all files"])
def test_removed_file_is_made_again_and_the_loss_is_logged(storage, path, caplog, use, endings):
    """A file removed while in use is made again by the next use, and the loss of all its tasks is logged once."""
    remove(path, *endings)
    look_is_due(storage)
    use(storage)
    storage.enqueue([Task("later", "add")], 2.0, PRODUCER)
    assert ids(storage) == ids_in(path) == {"later"} | ({"new"} if use is READS_AND_WRITES["write"] else set())
    assert len(reported(caplog, "lost all tasks")) == len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.ERROR


@on_each_use
def test_replaced_file_is_opened_with_its_own_queue_number(storage, path, caplog, use):
    """The file that replaces a file in use is used from then on, under its own number of the queue; that is logged."""
    other_file(path, "x", "y", others=3).rename(path)
    look_is_due(storage)
    use(storage)
    storage.enqueue([Task("later", "add")], 2.0, PRODUCER)
    assert ids(storage) == {"x", "y", "later"} | ({"new"} if use is READS_AND_WRITES["write"] else set())
    assert len(ids_in(path)) == 3 + len(ids(storage))
    assert len(reported(caplog, "left a file")) == len(caplog.records) == 1


def test_log_that_came_with_the_other_file_is_kept(storage, path):
    """A file that replaces a file in use together with its own log keeps the log."""
    other = other_file(path, "x")
    with closing(sqlite3.connect(other)) as db:
        db.execute("update task set priority = 7")
        db.commit()
        for ending in ("", *ENDINGS):
            shutil.copy(f"{other}{ending}", f"{path}.copy{ending}")
    for ending in ("", *ENDINGS):
        Path(f"{path}.copy{ending}").rename(f"{path}{ending}")
    look_is_due(storage)
    assert [(task.id, task.priority) for task in storage.tasks()] == [("x", 7)]


def test_renamed_file_is_whole(storage, path):
    """A file renamed while in use has all its tasks under the new name, without the log that stayed behind."""
    kept = path.with_name("kept.db")
    path.rename(kept)
    look_is_due(storage)
    assert ids(storage) == set()
    assert ids_in(kept) == {"a", "b"}


def test_other_programs_file_is_refused_until_a_queue_is_back(storage, path):
    """A file of another program in place of the queue's is refused, unchanged; a queue's file is used again later."""
    path.rename(path.with_name("kept.db"))
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table orders(id)")
    content = path.read_bytes()
    look_is_due(storage)
    for _ in range(2):
        with pytest.raises(StorageUnusable, match="another program's database"):
            storage.counts()
    assert path.read_bytes() == content
    path.with_name("kept.db").rename(path)
    assert ids(storage) == {"a", "b"}


def test_link_to_another_file_is_followed(tmp_path, path):
    """A symbolic link that leads to another file now is a replaced file; the log is looked for beside the real file."""
    path.symlink_to(tmp_path / "first.db")
    with closing(SQLiteStorage(str(path))) as storage:
        storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
        remove(tmp_path / "first.db", "-wal")
        look_is_due(storage)
        assert ids(storage) == {"a"}
        path.unlink()
        path.symlink_to(tmp_path / "second.db")
        look_is_due(storage)
        assert ids(storage) == set()
        assert (tmp_path / "second.db").exists()


def test_reader_follows_without_making_files(storage, path, caplog):
    """A queue that is opened for reading only reads the file that is there now, and makes and removes none."""
    with closing(SQLiteStorage(str(path), read_only=True)) as reader:
        assert ids(reader) == {"a", "b"}
        other_file(path, "x").rename(path)
        remove(path, *ENDINGS)
        files = sorted(path.parent.iterdir())
        look_is_due(reader)
        assert ids(reader) == {"x"}
        assert sorted(path.parent.iterdir()) == files
        assert reported(caplog, "left a file that was read")
        remove(path, "")
        with pytest.raises(StorageUnusable, match=r"q\.db"):
            ids(reader)


def test_lost_outcome_of_a_running_task_is_logged(path, caplog):
    """The outcome of a task whose file is removed while the task runs is told as lost, with task and outcome."""
    with closing(TaskQueue(f"sqlite:///{path}")) as queue:

        @queue.task(name="vanish")
        def vanish():
            remove(path, "")
            look_is_due(queue.storage)

        result = vanish()
        assert queue.run_next() is not None
        (line,) = [line for line in caplog.messages if line.startswith("lost an outcome")]
        assert result.id in line
        assert "outcome=complete" in line
        assert len(reported(caplog, "lost all tasks")) == 1


def test_waiting_thread_sees_the_new_file(storage, path, caplog):
    """A thread that waits for work wakes up when the file is replaced, without any other call."""
    other_file(path, "x").rename(path)

    def woken():
        return storage.wait(Channel.WORK, storage.generation(Channel.WORK), PATIENCE) and reported(
            caplog, "left a file"
        )

    until(woken, "the look of a thread that waits")
    assert ids(storage) == {"x"}


def test_end_of_a_queue_tells_of_a_removed_file(storage, path, caplog):
    """A queue that is closed before it has looked at its removed file says that its last writes are lost."""
    remove(path, "")
    storage.enqueue([Task("c", "add")], 2.0, PRODUCER)
    storage.close()
    assert len(reported(caplog, "lost all tasks")) == 1


# The log -----------------------------------------------------------------------------------------------------------

LOST = {"log": ("-wal",), "index": ("-shm",), "both": ENDINGS}
each_loss = pytest.mark.parametrize("endings", LOST.values(), ids=LOST)


@each_loss
@on_each_use
def test_removed_log_is_saved(storage, path, caplog, use, endings):
    """Nothing is lost if the log, or its index, is removed while in use: its changes are in the file, and it is logged."""
    remove(path, *endings)
    look_is_due(storage)
    use(storage)
    expected = {"a", "b"} | ({"new"} if use is READS_AND_WRITES["write"] else set())
    assert ids(storage) == ids_in(path) == expected
    assert len(reported(caplog, "saved the log")) == len(caplog.records) == 1


@each_loss
def test_all_queues_of_a_process_leave_a_removed_log(storage, path, endings):
    """All queues of a process leave a removed log at once: one that stayed would write where nobody reads."""
    with closing(SQLiteStorage(str(path), "second")) as second:
        second.enqueue([Task("c", "add")], 1.0, PRODUCER)
        second.wait(Channel.WORK, second.generation(Channel.WORK), 0.01)  # a third connection
        remove(path, *endings)
        look_is_due(storage)
        assert ids(storage) == {"a", "b"}
        second._database.check_at = float("inf")
        second.enqueue([Task("d", "add")], 1.0, PRODUCER)
        assert ids_in(path) == {"a", "b", "c", "d"}


@each_loss
def test_two_processes_leave_a_removed_log(storage, path, endings):
    """Two processes that have a removed log open go on with one new log, and nothing is lost."""
    program = (
        "import sys\n"
        "from lifecycle import Task\n"
        "from lifecycle.storage import SQLiteStorage\n"
        "from lifecycle.storage.base import Actor\n"
        "storage = SQLiteStorage(sys.argv[1])\n"
        "for line in sys.stdin:\n"
        "    storage._database.check_at = 0.0\n"
        "    storage.enqueue([Task(line.strip(), 'add')], 1.0, Actor('other'))\n"
        "    print(len(storage.tasks()), flush=True)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment(),
    )  # fmt: skip

    def enqueue_elsewhere(task_id):
        other.stdin.write(f"{task_id}\n")
        other.stdin.flush()
        return int(other.stdout.readline())

    assert enqueue_elsewhere("c") == 3
    for number in range(2):
        remove(path, *endings)
        look_is_due(storage)
        storage.enqueue([Task(f"here {number}", "add")], 2.0, PRODUCER)
        assert enqueue_elsewhere(f"there {number}") == len(ids(storage)) == 3 + 2 * (number + 1)
    _, errors = other.communicate(timeout=PATIENCE)
    assert errors.count("left the log") == errors.count("\n") == 2
    assert ids_in(path) == ids(storage)


def test_write_looks_again_once_it_has_waited_for_its_turn(storage, path):
    """A write whose log is removed while the write waits for another process's write goes into the new log."""

    class Waiting:
        def __init__(self, db):
            self._db = db

        def __getattr__(self, name):
            return getattr(self._db, name)

        def execute(self, sql, *parameters):
            result = self._db.execute(sql, *parameters)
            if sql == "begin immediate" and Path(f"{path}-wal").exists():
                remove(path, "-wal")
                look_is_due(storage)
            return result

    storage._database._writer = Waiting(storage._database.writer())
    storage.enqueue([Task("c", "add")], 1.0, PRODUCER)
    storage._database.check_at = float("inf")
    assert ids_in(path) == {"a", "b", "c"}


def test_no_process_writes_while_others_may_not_have_looked(storage, path, monkeypatch):
    """A removed log is saved after a time between two looks, in which no process can write."""
    tried = []
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("select * from task").fetchall()

        def pause(seconds):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("begin immediate")
            tried.append((seconds, Path(path).stat().st_size))

        monkeypatch.setattr(removed_log, "pause", pause)
        size = path.stat().st_size
        remove(path, "-wal")
        look_is_due(storage)
        assert ids(storage) == {"a", "b"}
        assert tried == [(file_identity.CHECK_INTERVAL_SECONDS, size)]
        assert path.stat().st_size > size


def test_log_that_a_reader_holds_is_kept(storage, path, monkeypatch):
    """A removed log that cannot be saved while another program reads is not left: calls raise until the program ends."""
    monkeypatch.setattr(removed_log, "SAVE_TIMEOUT_SECONDS", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select * from task").fetchall()
        storage.enqueue([Task("c", "add")], 1.0, PRODUCER)
        remove(path, "-wal")
        for call in (lambda: storage.enqueue([Task("d", "add")], 1.0, PRODUCER), storage.counts):
            look_is_due(storage)
            with pytest.raises(StorageUnavailable, match="its log was removed while in use"):
                call()
    look_is_due(storage)
    assert ids(storage) == ids_in(path) == {"a", "b", "c"}


def test_program_that_opens_the_file_meanwhile_spoils_nothing(storage, path):
    """A program that opens the file without its log, before a look, may get an error, and no task is lost."""
    remove(path, "-wal")
    with closing(SQLiteStorage(str(path))) as newcomer:
        with suppress(StorageUnavailable):
            newcomer.enqueue([Task("c", "add")], 1.0, PRODUCER)
        look_is_due(storage)
        ids(storage)
        newcomer.enqueue([Task("d", "add")], 1.0, PRODUCER)
        assert ids_in(path) == ids(storage) >= {"a", "b", "d"}


@each_loss
def test_replaced_log_is_left(storage, path, caplog, endings):
    """A log that another process has made anew is used from then on, and the log tells how to check the file."""
    for ending in endings:
        shutil.copy(f"{path}{ending}", f"{path}.copy")
        Path(f"{path}.copy").rename(f"{path}{ending}")
    look_is_due(storage)
    assert ids(storage) == {"a", "b"}
    assert "pragma integrity_check" in reported(caplog, "left the log")[0]


def test_read_inside_a_transaction_leaves_nothing(storage, path, caplog):
    """A call inside a transaction of the same thread, as from a signal's handler, does not close its connection."""
    with transaction.Transaction(storage._database) as db:
        db.execute("update task set priority = 3")
        remove(path, "-wal")
        look_is_due(storage)
        storage._database.read("select * from task")
        assert not caplog.records
    look_is_due(storage)
    assert {task.priority for task in storage.tasks()} == {3}
    assert reported(caplog, "saved the log")


REMOVALS = st.sampled_from([*LOST.values()])
STEPS = st.lists(st.one_of(st.integers(0, 1), REMOVALS, st.sampled_from(["look", "read", "reopen"])), max_size=25)


@given(steps=STEPS)
def test_no_removal_of_a_log_loses_a_task(tmp_path_factory, steps):
    """However often, and whenever, log and index are removed while two queues of a process use them, no task is lost."""
    path = tmp_path_factory.mktemp("removals") / "q.db"
    stores = [SQLiteStorage(str(path), name, synchronous="off") for name in ("first", "second")]
    enqueued = set()
    patch = pytest.MonkeyPatch()
    patch.setattr(removed_log, "pause", lambda seconds: None)  # there is no other process
    for number, step in enumerate(steps):
        if isinstance(step, int):
            stores[step].enqueue([Task(f"{number}", "add")], 1.0, PRODUCER)
            enqueued.add(f"{number}")
        elif step == "look":
            for storage in stores:
                look_is_due(storage)
        elif step == "read":
            assert set().union(*map(ids, stores)) == enqueued
        elif step == "reopen":  # after a look: two logs damage a file
            for storage in stores:
                look_is_due(storage)
                ids(storage)
            stores[0].close()
            stores[0] = SQLiteStorage(str(path), "first", synchronous="off")
        else:
            for storage in stores:
                look_is_due(storage)
                ids(storage)
            remove(path, *step)
    for storage in stores:
        storage.close()
    patch.undo()
    assert ids_in(path) == enqueued if path.exists() else not enqueued


# The price ---------------------------------------------------------------------------------------------------------


def test_files_are_looked_at_once_in_an_interval(storage, monkeypatch):
    """Reads and writes look at the files at most once in an interval, whichever thread makes them."""
    now, looks, real = [100.0], [], file_identity.inode
    for module in (database, transaction):
        monkeypatch.setattr(module, "monotonic", lambda: now[0])
    monkeypatch.setattr(file_identity, "inode", lambda path: (looks.append(path), real(path))[1])
    look_is_due(storage)
    for _ in range(3):
        for _ in range(5):
            storage.get("a")
            storage.cancel("a")
            storage._database._look()
        assert len(looks) == 3
        looks.clear()
        now[0] += file_identity.CHECK_INTERVAL_SECONDS


def test_database_without_a_file_is_not_looked_for(monkeypatch):
    """A path that names no file, as SQLite's own names for memory, is never taken for a removed file."""
    identity = file_identity.FileIdentity.of(":memory:")
    assert identity.change() is None


def test_folder_without_permission_is_no_change(storage, monkeypatch, caplog):
    """Files that nobody can look at now count as unchanged."""

    def refuse(path):
        raise PermissionError(path)

    monkeypatch.setattr(file_identity.os, "stat", refuse)
    look_is_due(storage)
    assert ids(storage) == {"a", "b"}
    assert not caplog.records
