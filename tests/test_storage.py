"""What a store keeps to, whatever is asked of it; and what a SQLite file keeps to when the world is less kind."""

import inspect
import itertools
import math
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle import policies
from lifecycle.errors import DuplicateTask, StorageError, StorageFull, StorageUnavailable, StorageUnusable
from lifecycle.policies import Outcome, Revocation
from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.storage.base import Actor, Channel, Claimant, Lock, Settlement, Target
from lifecycle.table import COMPLETE, EXECUTING, FAIL, LIFECYCLE, Kind
from lifecycle.task import RetryPolicy, Task
from lifecycle.testing.model import FIELDS, fields
from lifecycle.testing.steps import FUNCTIONS, IDS
from lifecycle.testing.storage_spec import StorageSpec

PATIENCE = 60.0
"""Seconds after which what is awaited is taken for lost, on a machine that is busy."""
PRODUCER = Actor("producer")


# The spec --------------------------------------------------------------------------------------------------------


class MemorySpec(StorageSpec):
    """The memory adapter."""

    @classmethod
    def open_storage(cls):
        return MemoryStorage()


class SQLiteSpec(StorageSpec):
    """The SQLite adapter; in the same file is another queue, with the same ids, that nothing must happen to."""

    @classmethod
    def open_storage(cls):
        cls.path = Path(tempfile.mkdtemp()) / "q.db"
        with closing(SQLiteStorage(str(cls.path), "other", synchronous="off")) as other:
            other.enqueue([Task(task_id, "add", retries=1, eta=2.0) for task_id in IDS], 1.0, PRODUCER)
            ended, *_ = start(other, limit=5)
            other.exchange([settlement(ended, FAIL, retry=False)], None)
            for key, function in itertools.product(IDS[:2] + FUNCTIONS, (True, False)):
                other.revoke(Target(function, key), Revocation(once=True), 1.0)
            other.lock(Lock("L", "x", 9.0, "w1", "a"), 1.0)
        return SQLiteStorage(str(cls.path), "mine", synchronous="off")

    @classmethod
    def reopen(cls, storage):
        return SQLiteStorage(str(cls.path), "mine", synchronous="off")

    def __init__(self):
        super().__init__()
        self.neighbour = rows(self.path, "other")

    def teardown(self):
        super().teardown()
        neighbour = rows(self.path, "other")
        shutil.rmtree(self.path.parent)
        assert neighbour == self.neighbour


TestMemory = MemorySpec.TestCase
TestSQLite = SQLiteSpec.TestCase


# Aids ------------------------------------------------------------------------------------------------------------


def rows(path, queue=None):
    """All that is in a file, or of a queue in it."""
    which = "" if queue is None else f" where queue = (select id from queue where name = '{queue}')"
    with closing(sqlite3.connect(path)) as db:
        return [db.execute(f"select * from {table}{which}").fetchall() for table in ("task", "revocation", "lock")]


def start(storage, worker="w", now=5.0, **options):
    """Claim, and announce what was started."""
    _, claims = storage.exchange((), Claimant(worker, now, 10.0, **options))
    for task, move in claims:
        task.state = move.state.name
    return [task for task, _ in claims if task.state == EXECUTING]


def settlement(task, trigger=COMPLETE, now=6.0, result=None, follow_ups=(), **options):
    """What the worker that runs it says of its end."""
    outcome = Outcome(trigger, result, **options)
    return Settlement(task, policies.settle(task, outcome, now, worker=task.worker, follow_ups=follow_ups))


@pytest.fixture
def path(tmp_path):
    """Of a file that is not there yet."""
    return str(tmp_path / "q.db")


@pytest.fixture
def opened(path):
    """Opens stores on that file, and closes them."""
    stores = []

    def opens(queue="default", **options):
        stores.append(SQLiteStorage(path, queue, **({"synchronous": "off"} | options)))
        return stores[-1]

    yield opens
    for store in stores:
        store.close()


@pytest.fixture
def storage(opened):
    """A store on that file."""
    return opened()


@pytest.fixture(params=["memory", "sqlite"])
def any_storage(request, opened):
    """A store of each kind."""
    if request.param == "sqlite":
        yield opened()
    else:
        with closing(MemoryStorage()) as storage:
            yield storage


HEADER = """
import os, sys
from lifecycle import policies
from lifecycle.policies import Outcome
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import Actor, Channel, Claimant, Settlement
from lifecycle.table import COMPLETE
from lifecycle.task import Task
"""


def elsewhere(function, *arguments):
    """Call a function of this file in another process."""
    code = f"{HEADER}\n{inspect.getsource(function)}\n{function.__name__}(*{arguments!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)


# All stores ------------------------------------------------------------------------------------------------------

numbers = st.floats(allow_nan=False)
stored_tasks = st.builds(
    Task,
    id=st.text(min_size=1),
    name=st.text(),
    payload=st.binary(),
    eta=st.none() | numbers,
    expires=st.none() | numbers,
    priority=st.integers(-(2**31), 2**31 - 1),
    retries=st.integers(0, 2**31),
    retry=st.builds(RetryPolicy, delay=numbers, backoff=numbers, max_delay=numbers, jitter=numbers),
    timeout=st.none() | numbers,
)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_comes_back(tmp_path_factory, kind):
    """A task's ids, texts, bytes and numbers come back from the store as they went in, whatever is in them."""
    path = tmp_path_factory.mktemp("store") / "q.db"
    storage = MemoryStorage() if kind == "memory" else SQLiteStorage(str(path), synchronous="off")

    @settings(deadline=None)
    @given(stored_tasks)
    def check(task):
        storage.flush()
        storage.enqueue([task], 1.0, PRODUCER)
        expected = copy(task)
        expected.state = LIFECYCLE.initial.name
        assert dict(zip(FIELDS, fields(storage.get(task.id)), strict=True)) == dict(
            zip(FIELDS, fields(expected), strict=True)
        )

    with closing(storage):
        check()


def test_only_copies_leave(any_storage):
    """What a store hands out, and what it was given, can be changed; what is stored does not change with it."""
    task = Task("a", "add", retries=1)
    any_storage.enqueue([task], 1.0, PRODUCER)
    [claimed] = start(any_storage)
    seen = fields(any_storage.get("a"))
    for known in (task, claimed, any_storage.get("a"), *any_storage.tasks()):
        known.priority, known.retries, known.state, known.version, known.worker = 9, 9, "complete", 9, "me"
    any_storage.history("a").clear()
    any_storage.counts().clear()
    assert fields(any_storage.get("a")) == seen
    assert len(any_storage.history("a")) == any_storage.counts()["executing"] + 1 == 2


def test_a_wait_without_news(any_storage):
    """A wait for what does not come ends after its timeout, and says so."""
    any_storage.counts()
    assert not all(any_storage.wait(channel, any_storage.stamp(channel), 0.05) for channel in list(Channel) * 10)


def test_a_wait_for_what_has_come(any_storage):
    """A wait for what came between the stamp and the wait ends at once."""
    stamp = any_storage.stamp(Channel.WORK)
    any_storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert any_storage.wait(Channel.WORK, stamp, PATIENCE)


def test_closing_ends_waits(any_storage):
    """Who waits as the store is closed waits no longer: told that something happened, or that it was closed."""
    stamp = any_storage.stamp(Channel.OUTCOME)
    begun = threading.Event()

    def wait():
        begun.set()
        try:
            return any_storage.wait(Channel.OUTCOME, stamp, PATIENCE)
        except StorageError:
            return True

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait()
        any_storage.close()
        assert waiting.result(PATIENCE)


def test_closing_before_use(path):
    """A store that was never used can be closed, and leaves no file."""
    SQLiteStorage(path).close()
    assert not Path(path).exists()


def test_closing_in_the_middle(any_storage):
    """Threads that are busy in a store as it is closed get its result, or `StorageError`, and nothing else."""
    ready = threading.Barrier(5)

    def hammer(number):
        ready.wait()
        for n in itertools.count():
            try:
                any_storage.enqueue([Task(f"{number}-{n}", "add")], 1.0, PRODUCER)
                any_storage.counts()
                any_storage.get("0-0")
                any_storage.next_due()
            except StorageError:
                return

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(hammer, number) for number in range(4)]
        ready.wait()
        any_storage.close()
        for thread in threads:
            thread.result(PATIENCE)


# One file, several stores ----------------------------------------------------------------------------------------


def test_the_first_look(opened):
    """What is in the file is seen by the first look of a store that was just opened, whatever that look is."""
    writer = opened()
    target = Target(function=True, key="add")
    writer.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    writer.exchange([settlement(task, FAIL) for task in start(writer)], None)
    writer.enqueue([Task("c", "add", priority=9)], 1.0, PRODUCER)
    start(writer, now=1.0)
    writer.lock(Lock("L", "x", 9.0), 1.0)
    for look in (
        lambda store: store.get("a") and store.history("a") and store.outlook("a"),
        lambda store: store.history("a"),
        lambda store: store.outlook("a"),
        lambda store: store.counts(),
        lambda store: store.tasks(),
        lambda store: store.next_due(),
        lambda store: store.locks(1.0),
        lambda store: store.exchange((), Claimant("w", 5.0, 10.0))[1],
        lambda store: store.recover(99.0, PRODUCER),
        lambda store: store.prune(99.0),
        lambda store: store.revoke(target, Revocation(), 1.0) or store.revocation(target),
        lambda store: store.revocation(target),
    ):
        assert look(opened()), inspect.getsource(look)


def test_two_stores_are_one(opened):
    """A task that was enqueued here is claimed there, recovered here, and its first outcome refused there."""
    here, there = opened(), opened()
    here.enqueue([Task("a", "add")], 1.0, PRODUCER)
    [late] = start(there, "there")
    [(_, move)] = here.recover(99.0, Actor("here"))
    assert move.path == ("interrupt", "recover")
    [again] = start(here, "here", now=99.0)
    assert there.exchange([settlement(late, FAIL)], None) == ([False], [])
    assert here.exchange([settlement(again, result=b"1")], None) == ([True], [])
    assert there.outlook("a") == ("complete", b"1")
    with pytest.raises(DuplicateTask):
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)


def test_another_queues_task(opened):
    """In a queue a task of another queue of the same file is not there: nothing can be settled or let go by its copy."""
    mine, other = opened("mine"), opened("other")
    mine.enqueue([Task("a", "add")], 1.0, PRODUCER)
    held = Task("h", "add")
    mine.enqueue([held], 1.0, Actor("producer", 9.0))
    held.state = "queued"
    [task] = start(mine)
    assert other.exchange([settlement(task)], None) == ([False], [])
    assert other.release([held], 1.0) == [False]
    assert mine.release([held], 1.0) == [True]
    assert mine.exchange([settlement(task)], None) == ([True], [])


def test_waking_another_connection(opened):
    """Who waits is woken by what another store on the same file commits."""
    here, there = opened(), opened()
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(await_task, here, "a")
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)
        assert seen.result(PATIENCE)


def test_waking_another_process(storage, path):
    """Who waits is woken by what another process commits; and woken again, after a pause in which nobody waited."""
    for task_id in "a", "b":
        with elsewhere(produce, path, task_id) as process:
            assert await_task(storage, task_id)
        assert process.returncode == 0
        storage.exchange([settlement(task) for task in start(storage)], None)


def await_task(storage, task_id):
    """Wait until there is such a task; False if a wait was not ended by its coming."""
    while True:
        stamp = storage.stamp(Channel.WORK)
        if storage.get(task_id) is not None:
            return True
        if not storage.wait(Channel.WORK, stamp, PATIENCE):
            return False


def produce(path, *task_ids):
    storage = SQLiteStorage(path, synchronous="off")
    storage.enqueue([Task(task_id, "add") for task_id in task_ids], 1.0, Actor("elsewhere"))
    storage.close()


# All at once -----------------------------------------------------------------------------------------------------


def take_part(storage, name, number, total):
    """Enqueue so many tasks, and run tasks until all are done; how many."""
    done, ran = [], 0
    for n in range(number):
        storage.enqueue([Task(f"{name}-{n}", "add")], 1.0, Actor(name))
    while True:
        stamp = storage.stamp(Channel.OUTCOME)
        took, claims = storage.exchange(done, Claimant(name, 2.0, 1000.0, limit=2))
        assert all(took)
        done = []
        for task, move in claims:
            task.state = move.state.name
            done.append(Settlement(task, policies.settle(task, Outcome(COMPLETE, b"1"), 3.0, worker=name)))
        ran += len(done)
        if not done:
            if storage.counts().get("complete") == total:
                return ran
            storage.wait(Channel.OUTCOME, stamp, 0.5)


def process_takes_part(path, name, number, total):
    storage = SQLiteStorage(path, synchronous="off")
    ran = take_part(storage, name, number, total)
    storage.close()
    sys.stdout.write(str(ran))


def test_all_at_once(storage, path):
    """Four threads and two processes that enqueue and run at the same time run each task exactly once, without error."""
    number, total = 200, 1200
    code = f"{HEADER}\n{inspect.getsource(take_part)}\n{inspect.getsource(process_takes_part)}\n"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"{code}process_takes_part({path!r}, 'process {n}', {number}, {total})"],
            stdout=subprocess.PIPE,
        )
        for n in range(2)
    ]
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(take_part, storage, f"thread {n}", number, total) for n in range(4)]
        ran = [thread.result() for thread in threads]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
        ran.append(int(output))
    assert sum(ran) == total
    tasks = storage.tasks(limit=2 * total)
    assert len(tasks) == total
    for task in tasks:
        assert [record.state for record in storage.history(task.id)] == ["queued", "executing", "complete"]
        assert task.attempt == 1


def produce_for_ever(path):
    storage = SQLiteStorage(path)
    for n in range(100_000):
        storage.enqueue([Task(f"{n}", "add"), Task(f"{n}'", "add")], 1.0, Actor("p"))
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()


def test_kill(opened, path):
    """What was enqueued before its producer was killed, even as it went on writing, is there, whole, in a sound file."""
    with elsewhere(produce_for_ever, path) as producer:
        told = [producer.stdout.readline().decode().strip() for _ in range(100)]
        producer.kill()
    assert "" not in told
    there = {task.id for task in opened().tasks(limit=1_000_000)}
    assert there >= set(told)
    assert {task_id + "'" for task_id in there if "'" not in task_id} == {one for one in there if "'" in one}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]


# Forks -----------------------------------------------------------------------------------------------------------

# Newer Pythons warn of a fork beside threads, which is what is tried here.
forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Fork:
    """A child process that does one thing after the other, as it is told."""

    def __init__(self, *steps):
        self._told, tell = os.pipe()
        answer, self._answer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                for step in steps:
                    os.read(self._told, 1)
                    step()
                    os.write(self._answer, b".")
                code = 0
            finally:
                os._exit(code)
        os.close(self._told)
        os.close(self._answer)
        self._tell, self._heard = tell, answer

    def step(self):
        """Let it do the next thing, and wait for that."""
        os.write(self._tell, b".")
        readable, _, _ = select.select([self._heard], [], [], PATIENCE)
        assert readable, "the child hangs"
        return os.read(self._heard, 1) == b"."

    def over(self):
        """Wait for its end; whether it ended well."""
        os.close(self._tell)
        os.close(self._heard)
        return os.waitpid(self.pid, 0)[1] == 0


@forking
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("first", ["parent", "child"])
def test_fork(opened, watched, first):
    """After a fork parent and child go on with the same store, and none loses what it wrote when the other is gone."""
    storage = opened()
    storage.enqueue([Task("before", "add")], 1.0, PRODUCER)
    if watched:
        storage.wait(Channel.WORK, storage.stamp(Channel.WORK), 0.01)

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
        assert child.over()
        write("parent, later")
        storage.close()
    else:
        storage.close()
        assert child.step()
        assert sorted(task.id for task in opened().tasks()) == ["before", "child", "child, later", "parent"]
        assert child.step()
        assert child.over()
    there = {"before", "child", "parent", f"{'parent' if first == 'child' else 'child'}, later"}
    assert {task.id for task in opened().tasks()} == there


@forking
def test_fork_at_any_moment(storage):
    """A fork while other threads write and wait leaves the child a store that works, and the parent one that goes on."""
    stop = threading.Event()
    storage.counts()

    def write(name):
        for n in itertools.count():
            storage.enqueue([Task(f"{name}-{n}", "add")], 1.0, PRODUCER)
            storage.counts()
            if stop.is_set():
                return n + 1

    def wait():
        while not stop.is_set():
            storage.wait(Channel.OUTCOME, storage.stamp(Channel.OUTCOME), 0.01)

    with ThreadPoolExecutor(3) as pool:
        threads = [pool.submit(write, name) for name in "ab"]
        waiting = pool.submit(wait)
        for n in range(10):
            child = Fork(lambda n=n: storage.enqueue([Task(f"child-{n}", "add")], 1.0, PRODUCER))
            assert child.step()
            assert child.over()
        stop.set()
        waiting.result()
        written = sum(thread.result() for thread in threads)
    assert storage.counts() == {"queued": written + 10}


# What the file refuses -------------------------------------------------------------------------------------------

STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]
ANY = [*(state.name for state in LIFECYCLE.states), "nonsense"]


def test_hand_typed_sql(storage, path):
    """SQL that is typed by hand takes no task where the table has no way, and makes none in another state than new."""
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
                assert "illegal transition" in str(error)
                return True
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


def of_the_future(path):
    with closing(SQLiteStorage(str(path))) as storage:
        storage.counts()
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("pragma user_version").fetchone()
        db.execute(f"pragma user_version = {version + 1}")


def of_another_program(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("create table task(id)")


def of_another_application(path):
    with closing(sqlite3.connect(path)) as db:
        db.execute("pragma application_id = 1")


FOREIGN = {
    "a newer release's": (of_the_future, "schema version 2, this release knows 1"),
    "another program's": (of_another_program, r"another program's database \(tables task\)"),
    "another application's": (of_another_application, r"another program's database \(application id 0x1\)"),
    "text": (lambda path: path.write_text("No database. " * 100), "not a database"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "in no folder": (lambda path: path.parent.rmdir(), "there is no folder"),
    "in a file": (lambda path: path.parent.rmdir() or path.parent.touch(), "there is no folder"),
}
USES = (lambda store: store.counts(), lambda store: store.enqueue([Task("a", "add")], 1.0, PRODUCER))


@pytest.mark.parametrize(("make", "message"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_files(tmp_path, make, message):
    """What is no queue of ours is refused at the first use, with a message that says what it is, and is not changed."""
    path = tmp_path / "queues" / "q.db"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes() if path.is_file() else path.exists()
    for use in USES:
        with closing(SQLiteStorage(str(path))) as storage, pytest.raises(StorageUnusable, match=message):
            use(storage)
    assert (path.read_bytes() if path.is_file() else path.exists()) == before


CLOSED = {
    "a file": lambda path: path.touch() or path.chmod(0o444),
    "a folder": lambda path: path.parent.chmod(0o555),
    "a folder's content": lambda path: path.parent.chmod(0),
}


@pytest.mark.parametrize("close", CLOSED.values(), ids=CLOSED)
def test_no_permission(close):
    """Where one may not write, or not even look, the first use says that the file cannot be used, and names it."""
    root = Path(tempfile.mkdtemp())  # those that pytest makes are closed to others, who are needed here
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
    """As somebody else, if one is root, who may do anything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# What goes wrong -------------------------------------------------------------------------------------------------


def test_no_room(storage, path):
    """Where there is no room for a write, nothing of it is written, the error says so, and with room it can be made."""
    storage.enqueue([Task("a", "add", retries=1), Task("b", "add")], 1.0, PRODUCER)
    a, b = start(storage, limit=2)
    writer = storage._file.writer()
    (pages,) = writer.execute("pragma page_count").fetchone()
    new = [Task("c", "add"), Task("d", "add", b"x" * 100_000)]
    follow_up = Task("e", "add")
    done = [settlement(a, FAIL), settlement(b, result=b"x" * 100_000, follow_ups=(follow_up,))]

    def enqueue():
        storage.enqueue(new, 7.0, PRODUCER)

    def objects():
        return [fields(task) for task in (*new, a, b, follow_up)]

    before, known = rows(path), objects()
    for write in enqueue, lambda: storage.exchange(done, None), lambda: storage.exchange(done, Claimant("w", 7.0, 9.0)):
        writer.execute(f"pragma max_page_count = {pages}")
        with pytest.raises(StorageFull, match=r"q\.db: no space left .*nothing was changed"):
            write()
        assert rows(path) == before
        assert objects() == known
        writer.execute("pragma max_page_count = 1000000")
    enqueue()
    took, claims = storage.exchange(done, Claimant("w", 7.0, 9.0, limit=9))
    assert took == [True, True]
    assert sorted(claim.task.id for claim in claims) == ["a", "c", "d", "e"]
    assert storage.outlook("b") == ("complete", b"x" * 100_000)
    assert [task.version for task in (*new, a, b, follow_up)] == [1, 1, 5, 3, 1]


def test_another_program_keeps_it_locked(opened, path):
    """Where another program locks the file for longer than the timeout, nothing is written, and it can be tried again."""
    storage = opened(timeout=0.01)
    task = Task("a", "add")
    storage.counts()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(StorageUnavailable, match="locked by another program; nothing was changed"):
            storage.enqueue([task], 1.0, PRODUCER)
        assert storage.counts() == {}  # but it can be read
        assert task.version == 0
        other.execute("rollback")
    storage.enqueue([task], 1.0, PRODUCER)
    assert storage.counts() == {"queued": 1}


def everything(storage, first, second, new, follow_up):
    """All writes, each of which changes something, in this order; by name."""
    a, b = Target(function=False, key="a"), Target(function=False, key="b")
    held = Actor("producer", 90.0)
    yield "enqueue", lambda: storage.enqueue(new, 7.0, held)
    done = [settlement(first, result=b"1", follow_ups=(follow_up,)), settlement(second, FAIL, result=b"2")]
    yield "exchange", lambda: storage.exchange(done, Claimant("w", 7.0, 9.0, limit=2))
    yield "extend", lambda: storage.extend(["w", "producer"], 80.0)
    for task in new:
        task.state = "queued"
    yield "release", lambda: storage.release(new, 7.0)
    yield "revoke", lambda: storage.revoke(b, Revocation(), 7.0)
    yield "restore", lambda: storage.restore(b, 7.0)
    yield "lock", lambda: storage.lock(Lock("M", "x", 90.0, "w", "b"), 7.0)
    yield "unlock", lambda: storage.unlock("L", "x")
    yield "recover", lambda: storage.recover(85.0, PRODUCER)
    yield "flush_locks", storage.flush_locks
    yield "revoke a", lambda: storage.revoke(a, Revocation(), 7.0)
    yield "prune", lambda: storage.prune(50.0)
    yield "flush", storage.flush


def test_cut_off_anywhere(storage, path):
    """A write that fails at whatever point changes nothing, in the file or in an object, and can be made again."""
    storage.enqueue([Task("a", "add"), Task("b", "add", retries=1)], 1.0, PRODUCER)
    storage.lock(Lock("L", "x", 90.0), 1.0)
    first, second = start(storage, limit=2)
    new, follow_up = [Task("c", "add"), Task("d", "add")], Task("e", "add")
    objects = (first, second, *new, follow_up)
    writer = storage._file.writer()
    for name, write in everything(storage, first, second, new, follow_up):
        before, known, cuts = rows(path), [attrs.astuple(task) for task in objects], 0
        for steps in itertools.count():
            left = iter([0] * steps + [1])
            writer.set_progress_handler(lambda left=left: next(left, 0), 20)  # it cuts off once, and then no more
            try:
                write()
            except StorageError:
                assert rows(path) == before, name
                assert [attrs.astuple(task) for task in objects] == known, name
                cuts += 1
            else:
                break
            finally:
                writer.set_progress_handler(None, 0)
        assert cuts, name
        assert rows(path) != before, name
