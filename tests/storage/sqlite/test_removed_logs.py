"""The log of a SQLite file, or the index of the log, that is removed or replaced while a queue has it open."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.changed_files import ENDINGS, READS_AND_WRITES, ids, ids_in, look_is_due, on_each_use, remove, reported
from support.processes import PATIENCE, environment
from support.stores import PRODUCER

from lifecycle import StorageUnavailable, Task
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import Channel
from lifecycle.storage.sqlite import removed_log, transaction


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


class Watched:
    """A connection for writes that calls a function after each statement, or before it."""

    def __init__(self, db, *, before=lambda sql: None, after=lambda sql: None):
        self._db, self._before, self._after = db, before, after

    def __getattr__(self, name):
        return getattr(self._db, name)

    def execute(self, sql, *parameters):
        self._before(sql)
        result = self._db.execute(sql, *parameters)
        self._after(sql)
        return result


def test_write_looks_again_once_it_has_waited_for_its_turn(storage, path):
    """A write whose log is removed while the write waits for another process's write goes into the new log."""

    def after(sql):
        if sql == "begin immediate" and path.with_name("q.db-wal").exists():
            remove(path, "-wal")
            look_is_due(storage)

    storage._database._writer = Watched(storage._database.writer(), after=after)
    storage.cancel("a")
    storage._database.check_at = float("inf")
    storage.enqueue([Task("c", "add")], 1.0, PRODUCER)
    assert ids_in(path) == {"a", "b", "c"}


def test_single_enqueue_waits_in_a_transaction(path):
    """A single enqueue that must wait for another process does so in a transaction, and looks when its turn comes."""
    with (
        closing(SQLiteStorage(str(path), timeout=1.0)) as storage,
        closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
    ):
        storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
        other.execute("begin immediate")
        statements = []

        def before(sql):
            if statements.append(sql) or statements.count("begin immediate") == 2:
                other.close()
                remove(path, "-wal")
                look_is_due(storage)
                statements.clear()

        db = storage._database.writer()
        assert db.execute("pragma busy_timeout").fetchone() == (0,)  # the single statement did not wait
        storage._database._writer = Watched(db, before=before)
        storage.enqueue([Task("b", "add")], 1.0, PRODUCER)
        assert ids_in(path) == ids(storage) == {"a", "b"}


def test_no_process_writes_while_others_may_not_have_looked(storage, path, monkeypatch):
    """A removed log is saved after a time between two looks, in which no process can write."""
    tried = []
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        other.execute("select * from task").fetchall()

        def pause(seconds):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("begin immediate")
            tried.append((seconds, size))

        monkeypatch.setattr(removed_log, "pause", pause)
        size = path.stat().st_size
        remove(path, "-wal")
        look_is_due(storage)
        assert ids(storage) == {"a", "b"}
        assert tried == [(removed_log.HOLD_SECONDS, size)]
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


def test_program_that_opens_the_file_meanwhile_loses_nothing(storage, path):
    """A program that opens the file without its log gets an error, and leaves an empty log; no task is lost."""
    remove(path, "-wal")
    with closing(sqlite3.connect(path)) as newcomer:
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            newcomer.execute("select * from task")
        assert path.with_name("q.db-wal").stat().st_size == 0
        look_is_due(storage)
        assert ids(storage) == {"a", "b"}
        storage.enqueue([Task("c", "add")], 1.0, PRODUCER)
        assert len(newcomer.execute("select * from task").fetchall()) == 3
    assert ids_in(path) == {"a", "b", "c"}


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
