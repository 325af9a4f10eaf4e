"""A SQLite file that is removed or replaced while a queue has it open."""

import logging
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.changed_files import ENDINGS, READS_AND_WRITES, ids, ids_in, look_is_due, on_each_use, remove, reported
from support.processes import PATIENCE, until
from support.stores import PRODUCER

from lifecycle import StorageUnavailable, StorageUnusable, Task, TaskQueue
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite import database, file_identity, transaction


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


def other_file(path, *ids, queue="default", others=0):
    """Make a file with a queue of these tasks, not in use; return its path."""
    other = path.with_name("other.db")
    for number in range(others):
        with closing(SQLiteStorage(str(other), f"queue {number}")) as storage:
            storage.enqueue([Task(f"{number} {other}", "add")], 1.0, PRODUCER)
    with closing(SQLiteStorage(str(other), queue)) as storage:
        storage.enqueue([Task(task_id, "add") for task_id in ids], 1.0, PRODUCER)
    return other


@contextmanager
def closed_for_a_fork(storage):
    """Close the connections during the block, as a fork does."""
    storage._database.close_before_fork()
    try:
        yield
    finally:
        storage._database.resume()


# The file ----------------------------------------------------------------------------------------------------------


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


def test_file_removed_during_a_fork_is_told_as_lost(storage, path, caplog):
    """A file that is removed between a fork and the next use is told as lost: not only open files are compared."""
    with closed_for_a_fork(storage):
        path.unlink()
    assert ids(storage) == set()
    assert len(reported(caplog, "lost all tasks")) == len(caplog.records) == 1


def test_file_replaced_during_a_fork_is_told(storage, path, caplog):
    """A file that is replaced between a fork and the next use is told as left, once."""
    other = other_file(path, "x")
    with closed_for_a_fork(storage):
        other.rename(path)
    assert ids(storage) == {"x"}
    assert len(reported(caplog, "left a file")) == len(caplog.records) == 1


def test_file_removed_during_its_opening_is_told_as_lost(path, caplog, monkeypatch):
    """A file that is removed between two connections of one opening is told as lost by the next one."""
    other_file(path, "x").rename(path)
    with closing(SQLiteStorage(str(path))) as storage:
        connect = storage._database._connect

        def removing(*, creates=False):
            if not creates:
                path.unlink()
            return connect(creates=creates)

        monkeypatch.setattr(storage._database, "_connect", removing)
        with pytest.raises(StorageUnavailable, match="was removed or replaced while in use: try again"):
            storage.counts()
        assert not path.exists()
        monkeypatch.undo()
        assert ids(storage) == set()
    assert len(reported(caplog, "lost all tasks")) == 1


def test_new_file_has_nothing_of_the_removed_one(storage, path):
    """A file that is created while another program still has the removed one open shares no log and no index."""
    was = {ending: file_identity.inode(f"{path}{ending}") for ending in ENDINGS}
    path.unlink()
    with closing(SQLiteStorage(str(path))) as later:
        later.enqueue([Task("later", "add")], 2.0, PRODUCER)
        assert None not in was.values()
        assert all(file_identity.inode(f"{path}{ending}") not in (None, was[ending]) for ending in ENDINGS)
        look_is_due(storage)
        assert ids(storage) == ids(later) == {"later"}


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


def test_other_programs_file_is_refused_until_a_queue_is_back(storage, path, caplog):
    """A file of another program in place of the queue's is refused, unchanged; a queue's file is used again later.

    The log tells that the queue's own file was left, and not that the refused one was.
    """
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
    assert len(reported(caplog, "left a file")) == len(caplog.records) == 1


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


def test_no_connection_is_opened_to_another_file(storage, path):
    """A connection that would be opened to another file than the others is not: it would use the wrong log."""
    other_file(path, "x").rename(path)
    with pytest.raises(StorageUnavailable, match="replaced while in use"):
        storage._database._connect_watcher()
    assert ids(storage) == ids_in(path) == {"x"}


def test_end_of_a_queue_tells_of_a_removed_file(storage, path, caplog):
    """A queue that is closed before it has looked at its removed file says that its last writes are lost."""
    remove(path, "")
    storage.enqueue([Task("c", "add")], 2.0, PRODUCER)
    storage.close()
    assert len(reported(caplog, "lost all tasks")) == 1


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
