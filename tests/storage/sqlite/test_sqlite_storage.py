"""The SQLite adapter under stress: forks, edits by hand, a full disk, interrupted calls."""

import itertools
import os
import shutil
import sqlite3
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import attrs
import pytest
from support.forks import Fork, ignore_fork_warning
from support.stores import PRODUCER, opening, rows, settlement, start

from lifecycle.core.policies import Revocation
from lifecycle.core.table import FAIL, LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, StorageFull, StorageRefused, StorageUnavailable, StorageUnusable
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget
from lifecycle.storage.sqlite import schema
from lifecycle.storage.sqlite.transaction import Transaction
from lifecycle.testing.storage_spec.reference_storage import fields


@pytest.fixture
def path(tmp_path):
    """Return the path of a file that does not exist yet."""
    return str(tmp_path / "q.db")


@pytest.fixture
def opened(path):
    """Return a function that opens stores on that file."""
    with opening(path) as opens:
        yield opens


@pytest.fixture
def storage(opened):
    """Return a store on that file."""
    return opened()


# Forks -----------------------------------------------------------------------------------------------------------


@ignore_fork_warning
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("first", ["parent", "child"])
def test_parent_and_child_use_one_store_after_a_fork(opened, watched, first):
    """After a fork parent and child use the same store, and neither loses a write when the other one ends."""
    storage = opened()
    storage.enqueue([Task("before", "add")], 1.0, PRODUCER)
    if watched:
        storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.01)

    def write(name):
        storage.enqueue([Task(name, "add")], 1.0, PRODUCER)

    child = Fork(
        lambda: write("child"), storage.close if first == "child" else lambda: write("child, later"), storage.close
    )
    write("parent")
    assert child.step()
    if first == "child":
        assert child.step()
        assert child.step()
        assert child.wait()
        write("parent, later")
        storage.close()
    else:
        storage.close()
        assert child.step()
        assert sorted(task.id for task in opened().tasks()) == ["before", "child", "child, later", "parent"]
        assert child.step()
        assert child.wait()
    there = {"before", "child", "parent", f"{'parent' if first == 'child' else 'child'}, later"}
    assert {task.id for task in opened().tasks()} == there


@ignore_fork_warning
def test_fork_during_writes_and_waits_leaves_both_stores_usable(storage):
    """After a fork while other threads write and wait, the store works in parent and child."""
    stop = threading.Event()
    storage.counts()

    def write(name):
        for n in itertools.count():
            storage.enqueue([Task(f"{name}-{n}", "add")], 1.0, PRODUCER)
            storage.counts()
            if stop.is_set():
                break
        return n + 1

    def wait():
        while not stop.is_set():
            storage.wait(Channel.OUTCOME, storage.generation(Channel.OUTCOME), 0.01)

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(write, name) for name in "ab"]
        waiting = pool.submit(wait)
        for n in range(10):
            child = Fork(lambda n=n: storage.enqueue([Task(f"child-{n}", "add")], 1.0, PRODUCER))
            assert child.step()
            assert child.wait()
        stop.set()
        waiting.result()
        written = sum(thread.result() for thread in threads)
    assert storage.counts() == {"queued": written + 10}


# Refusals of the file --------------------------------------------------------------------------------------------

STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]
ANY = [*(state.name for state in LIFECYCLE.states), "nonsense"]


def test_illegal_transition_by_hand_is_refused(storage, path):
    """SQL typed by hand cannot make a transition that the table does not have, or insert a task in another state than a new one's."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    steps = {source: {state.name for state in targets} for source, targets in LIFECYCLE.steps.items()}
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        guards = db.execute("select name, sql from sqlite_master where type = 'trigger'").fetchall()
        insert = "insert into task select null, queue, id || '2', name, payload, ?, " + ", ".join(
            column for _, column, *_ in db.execute("pragma table_info(task)").fetchall()[6:]
        )

        def refused(sql, state):
            db.execute("savepoint attempt")
            try:
                db.execute(sql, (state,))
            except sqlite3.IntegrityError as error:
                return "illegal transition" in str(error)
            finally:
                db.execute("rollback to attempt")
            return False

        assert {state for state in ANY if not refused(insert + " from task", state)} == steps[None]
        for source in STORED:
            for name, _ in guards:
                db.execute(f"drop trigger {name}")
            db.execute("update task set state = ?", (source,))
            for _, sql in guards:
                db.execute(sql)
            assert {state for state in ANY if not refused("update task set state = ?", state)} == steps[source], source


@pytest.mark.parametrize("eta", [None, 900.0])
def test_claims_ignore_a_task_brought_to_rest_by_hand(storage, path, eta):
    """Claims ignore a task that was brought to rest by hand, whether it was due or not."""
    storage.enqueue([Task("a", "add", eta=eta)], 1.0, PRODUCER)
    storage.exchange((), ClaimRequest("w", 2.0, 10.0) if eta else None)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("update task set state = 'revoked'")
    assert storage.next_due() is None
    assert storage.exchange((), ClaimRequest("w", 1000.0, 10.0)) == ([], [])


def make_newer_schema(path):
    with closing(SQLiteStorage(str(path))) as storage:
        storage.counts()
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("pragma user_version").fetchone()
        db.execute(f"pragma user_version = {version + 1}")


def make_foreign_tables(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table task(id)")


def make_foreign_application_id(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma application_id = 1")


FOREIGN = {
    "a newer release's": (
        make_newer_schema,
        f"schema version {schema.VERSION + 1}, this release knows {schema.VERSION}",
    ),
    "another program's": (make_foreign_tables, r"another program's database \(tables task\)"),
    "another application's": (make_foreign_application_id, r"another program's database \(application id 0x1\)"),
    "text": (lambda path: path.write_text("No database. " * 100), "not a database"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "in no folder": (lambda path: path.parent.rmdir(), "there is no folder"),
    "in a file": (lambda path: path.parent.rmdir() or path.parent.touch(), "there is no folder"),
}
USES = (lambda store: store.counts(), lambda store: store.enqueue([Task("a", "add")], 1.0, PRODUCER))


@pytest.mark.parametrize(("make", "message"), FOREIGN.values(), ids=FOREIGN)
def test_file_of_another_program_is_refused_unchanged(tmp_path, make, message):
    """A file that holds no queues is refused at the first use, and not changed; the message says what the file is."""
    path = tmp_path / "queues" / "q.db"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else path.exists()
    for use in USES:
        with closing(SQLiteStorage(str(path))) as storage, pytest.raises(StorageUnusable, match=message):
            use(storage)
    assert (path.read_bytes() if path.is_file() else path.exists()) == before


def test_older_schema_is_migrated_at_the_first_use(path, monkeypatch):
    """A file of any older version is migrated at the first use, completely or not at all, and keeps its tasks."""
    migrations = schema._MIGRATIONS
    for there in range(1, schema.VERSION):
        older = path + str(there)
        with monkeypatch.context() as then, closing(SQLiteStorage(older)) as storage:
            then.setattr(schema, "_MIGRATIONS", migrations[:there])
            then.setattr(schema, "VERSION", there)
            assert storage.locks(1.0) == []
        with closing(sqlite3.connect(older)) as db:  # as the release of that version wrote it
            db.executemany(
                "insert into task(queue, id, name, payload, state, priority, retries, attempt, interruptions, worker,"
                " version, rank, history) values (1, ?, 'add', x'', 'queued', 0, 0, 0, 0, 'p', 1, 0, ?)",
                [("a", "queued\t1.5\t0\tp\n"), ("b", "queued\t1700000000.25\t0\tp\n")],
            )
            db.commit()
        with monkeypatch.context() as then, closing(SQLiteStorage(older)) as storage:
            then.setattr(schema, "_MIGRATIONS", (*migrations[:there], "create table new(x); select nonsense;"))
            with pytest.raises(StorageError, match="nonsense"):
                storage.counts()
        with closing(sqlite3.connect(older)) as db:
            assert db.execute("pragma user_version").fetchone() == (there,)
            assert db.execute("select count(*) from sqlite_master where name = 'new'").fetchone() == (0,)
        with closing(SQLiteStorage(older)) as one, closing(SQLiteStorage(older)) as other:
            assert one.counts() == other.counts() == {"queued": 2}
            assert [task.enqueued_at for task in one.tasks()] == ([1700000000.25, 1.5] if there < 3 else [None, None])
            start(other, "w")
            assert one.cancel("a")
            assert other.canceling(["w"]) == ["a"]
        with closing(SQLiteStorage(path)) as new, closing(sqlite3.connect(path)) as made:
            assert new.counts() == {}
            look = "select type, name, sql from sqlite_master order by name"
            with closing(sqlite3.connect(older)) as db:
                assert db.execute(look).fetchall() == made.execute(look).fetchall()
                assert db.execute("pragma user_version").fetchone() == (schema.VERSION,)


CLOSED = {
    "a file": lambda path: path.touch() or path.chmod(0o444),
    "a folder": lambda path: path.parent.chmod(0o555),
    "a folder's content": lambda path: path.parent.chmod(0),
}


@pytest.mark.parametrize("close", CLOSED.values(), ids=CLOSED)
def test_inaccessible_file_is_named_in_the_error(close):
    """Without permission to write or to look, the first use raises an error that names the file."""
    root = Path(tempfile.mkdtemp())  # other users have no access to the folders of pytest
    try:
        path = root / "queues" / "q.db"
        path.parent.mkdir()
        root.chmod(0o755)
        close(path)
        with unprivileged():
            for use in USES:
                with closing(SQLiteStorage(str(path))) as storage, pytest.raises(StorageUnusable, match=r"q\.db"):
                    use(storage)
    finally:
        path.parent.chmod(0o755)
        shutil.rmtree(root)


@contextmanager
def unprivileged():
    """Run as an unprivileged user if the user is root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# Failures ------------------------------------------------------------------------------------------------------


def test_value_that_is_too_large_is_refused_and_nothing_is_changed(storage, path):
    """A value that is larger than SQLite takes is refused, in any write, and nothing is changed; smaller ones go on."""
    storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    a, b = start(storage, limit=2)
    before, large = rows(path), b"x" * 100_000
    storage._database.writer().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, len(large) - 1)
    for write in (
        lambda: storage.enqueue([Task("c", "add"), Task("d", "add", large)], 7.0, PRODUCER),
        lambda: storage.exchange([settlement(a, result=b"1"), settlement(b, result=large)], None),
        lambda: storage.exchange([settlement(b, result=large)], ClaimRequest("w", 7.0, 9.0)),
    ):
        with pytest.raises(StorageRefused, match=r"q\.db does not take this write: .*too big; nothing was changed"):
            write()
        assert rows(path) == before
    assert storage.exchange([settlement(b, result=large[1000:])], None)[0] == [True]


def test_full_disk_changes_nothing_and_the_write_can_be_repeated(storage, path):
    """A write that does not fit on the disk changes nothing; the error says so, and with space the write succeeds."""
    storage.enqueue([Task("a", "add", retries=1), Task("b", "add")], 1.0, PRODUCER)
    a, b = start(storage, limit=2)
    writer = storage._database.writer()
    (pages,) = writer.execute("pragma page_count").fetchone()
    new = [Task("c", "add"), Task("d", "add", b"x" * 100_000)]
    follow_up = Task("e", "add")
    done = [settlement(a, FAIL), settlement(b, result=b"x" * 100_000, follow_ups=(follow_up,))]

    def enqueue():
        storage.enqueue(new, 7.0, PRODUCER)

    def objects():
        return [fields(task) for task in (*new, a, b, follow_up)]

    before, known = rows(path), objects()
    for write in (
        enqueue,
        lambda: storage.exchange(done, None),
        lambda: storage.exchange(done, ClaimRequest("w", 7.0, 9.0)),
    ):
        writer.execute(f"pragma max_page_count = {pages}")
        with pytest.raises(StorageFull, match=r"q\.db: no space left .*nothing was changed"):
            write()
        assert rows(path) == before
        assert objects() == known
        writer.execute("pragma max_page_count = 1000000")
    enqueue()
    took, claims = storage.exchange(done, ClaimRequest("w", 7.0, 9.0, limit=9))
    assert took == [True, True]
    assert sorted(claim.task.id for claim in claims) == ["a", "c", "d", "e"]
    assert storage.status("b") == ("complete", b"x" * 100_000)
    assert [storage.get(task.id).version for task in (*new, a, b, follow_up)] == [2, 2, 6, 3, 2]


def test_file_locked_by_another_program_is_unavailable(opened, path):
    """While another program locks the file for too long, writes change nothing and can be repeated."""
    storage = opened(timeout=0.01)
    task = Task("a", "add")
    storage.counts()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(StorageUnavailable, match="locked by another program; nothing was changed"):
            storage.enqueue([task], 1.0, PRODUCER)
        assert storage.counts() == {}  # reads work
        assert task.version == 0
        other.execute("rollback")
    storage.enqueue([task], 1.0, PRODUCER)
    assert storage.counts() == {"queued": 1}


def all_writes(storage, first, second, new, follow_up):
    """Yield all writes, with names; each changes something, in this order."""
    a, b = RevocationTarget(function=False, key="a"), RevocationTarget(function=False, key="b")
    held = Actor("producer", 90.0)
    yield "enqueue", lambda: [move.apply(task) for task, move in zip(new, storage.enqueue(new, 7.0, held), strict=True)]
    done = [settlement(first, result=b"1", follow_ups=(follow_up,)), settlement(second, FAIL, result=b"2")]
    yield "exchange", lambda: storage.exchange(done, ClaimRequest("w", 7.0, 9.0, limit=2))
    yield "extend", lambda: storage.extend(["w", "producer"], 80.0)
    yield "cancel", lambda: storage.cancel(follow_up.id)
    yield "release", lambda: storage.release(new, 7.0)
    yield "revoke", lambda: storage.revoke(b, Revocation(), 7.0)
    yield "restore", lambda: storage.restore(b, 7.0)
    yield "lock", lambda: storage.lock(Lock("M", "x", 90.0, "w"), 7.0)
    yield "unlock", lambda: storage.unlock("L", "x")
    yield "recover", lambda: storage.recover(85.0, PRODUCER)
    yield "flush_locks", storage.flush_locks
    yield "revoke a", lambda: storage.revoke(a, Revocation(), 7.0)
    yield "prune", lambda: storage.prune(50.0)
    yield "flush", storage.flush


class InterruptedConnection:
    """A connection that fails before or after its n-th statement; never in a rollback, nor after a commit."""

    def __init__(self, db, statement, error, after):
        self._db, self._left, self._error, self._after = db, statement, error, after

    def __getattr__(self, name):
        return getattr(self._db, name)

    def execute(self, sql, *parameters):
        return self._run(self._db.execute, sql, *parameters)

    def executemany(self, sql, *parameters):
        return self._run(self._db.executemany, sql, *parameters)

    def _run(self, run, sql, *parameters):
        if sql == "rollback":
            return run(sql)
        self._left -= 1
        cut = self._left == 0
        if cut and not self._after:
            raise self._error
        result = run(sql, *parameters)
        if cut and sql != "commit":
            raise self._error
        return result


INTERRUPTIONS = [
    (sqlite3.OperationalError("disk I/O error"), False),
    (KeyboardInterrupt(), False),
    (KeyboardInterrupt(), True),
]


@pytest.mark.parametrize(("error", "after"), INTERRUPTIONS, ids=["by an error", "by Ctrl-C", "by Ctrl-C, later"])
def test_write_interrupted_at_any_statement_changes_nothing(storage, path, error, after):
    """A write interrupted at any statement changes neither the file nor an object, and can be repeated."""
    storage.enqueue([Task("a", "add"), Task("b", "add", retries=1)], 1.0, PRODUCER)
    storage.lock(Lock("L", "x", 90.0), 1.0)
    first, second = start(storage, limit=2)
    new, follow_up = [Task("c", "add"), Task("d", "add")], Task("e", "add")
    objects = (first, second, *new, follow_up)
    db = storage._database.writer()
    for name, write in all_writes(storage, first, second, new, follow_up):
        before, known = rows(path), [attrs.astuple(task) for task in objects]
        for statement in range(1, 100):
            storage._database._writer = InterruptedConnection(db, statement, error, after)
            try:
                write()
            except (StorageError, KeyboardInterrupt):
                assert rows(path) == before, name
                assert [attrs.astuple(task) for task in objects] == known, name
                assert not db.in_transaction
            else:
                break
            finally:
                storage._database._writer = db
        assert 2 < statement < 99, name
        assert rows(path) != before, name


def test_enqueue_within_an_open_transaction_is_refused(storage):
    """An enqueue that a signal handler makes within another write of its thread is refused, not joined to that write."""
    with suppress(StorageError), Transaction(storage._database), pytest.raises(StorageError):
        storage.enqueue([Task("b", "add")], 1.0, PRODUCER)
    assert storage.get("b") is None
