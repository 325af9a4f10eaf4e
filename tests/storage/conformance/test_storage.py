"""Storage conformance: `StorageSpec` on memory and SQLite, and tests that every kind of store must pass."""

import inspect
import itertools
import math
import shutil
import sqlite3
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.postgres import postgres_store_url, unused_name
from support.profiles import examples
from support.redis_server import redis_store_url
from support.stores import PATIENCE, PRODUCER, await_task, elsewhere, opening_at, produce, rows, settlement, start

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import COMPLETE, FAIL
from lifecycle.core.task import RetryPolicy, Task
from lifecycle.errors import DuplicateTask, StorageError
from lifecycle.storage import MemoryStorage, SQLiteStorage, open_storage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget, Settlement
from lifecycle.testing.storage_spec.reference_storage import FIELDS, fields
from lifecycle.testing.storage_spec.spec import StorageSpec
from lifecycle.testing.storage_spec.strategies import FUNCTIONS, IDS

# The spec --------------------------------------------------------------------------------------------------------


class MemorySpec(StorageSpec):
    """The memory adapter."""

    @classmethod
    def open_storage(cls):
        return MemoryStorage()


class SQLiteSpec(StorageSpec):
    """The SQLite adapter, beside another queue with the same ids in the same file, which must not change."""

    @classmethod
    def open_storage(cls):
        cls.path = Path(tempfile.mkdtemp()) / "q.db"
        with closing(SQLiteStorage(str(cls.path), "other", synchronous="off")) as other:
            other.enqueue(
                [Task(task_id, "add", eta=None if task_id in "ace" else 900.0) for task_id in IDS], 1.0, PRODUCER
            )
            ended, *_ = start(other, "w1", limit=7)
            other.exchange([settlement(ended, FAIL, retry=False)], None)
            for key, function in itertools.product(IDS[:2] + FUNCTIONS, (True, False)):
                other.revoke(RevocationTarget(function, key), Revocation(once=True), 1.0)
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
TestSQLite = pytest.mark.untraced(SQLiteSpec.TestCase)
TestMemory.settings = TestSQLite.settings = settings(
    TestMemory.settings, max_examples=examples(50)
)  # in each of three stages


SHARED = ("sqlite", "postgres", "redis")
"""Kinds of stores that several processes can open."""

# All stores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """Return the path of a file that does not exist yet."""
    return str(tmp_path / "q.db")


def place(kind, request):
    """Return the URL of an empty store."""
    if kind == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path_factory').mktemp('store')}/q.db?synchronous=off"
    if kind == "redis":
        request.getfixturevalue("redis_url")
        return redis_store_url()
    return postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())


@pytest.fixture(params=SHARED)
def where(request):
    """Return the URL of an empty store, for each kind in `SHARED`."""
    return place(request.param, request)


@pytest.fixture
def opened(where):
    """Return a function that opens stores at that URL."""
    with opening_at(where) as opens:
        yield opens


@pytest.fixture
def storage(opened):
    """Return a store at that URL."""
    return opened()


@pytest.fixture(params=["memory", *SHARED])
def any_storage(request):
    """Return a store of each kind."""
    with closing(
        MemoryStorage() if request.param == "memory" else open_storage(place(request.param, request), "q")
    ) as it:
        yield it


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
    retry=st.builds(RetryPolicy, **dict.fromkeys(["delay", "backoff", "max_delay", "jitter"], st.floats(0, 1e300))),
    timeout=st.none() | numbers,
)


@pytest.mark.parametrize("kind", ["memory", *SHARED])
def test_stored_task_comes_back_unchanged(request, kind):
    """Each field of a task comes back from the store unchanged, whatever text, bytes or number it has."""
    storage = MemoryStorage() if kind == "memory" else open_storage(place(kind, request), "q")

    @settings(deadline=None)
    @example(Task("a\0\u2028'", "", bytes(range(256)), eta=math.inf, retry=RetryPolicy(1.0, 2.0, 3.0, 0.1)))
    @given(stored_tasks)
    def check(task):
        storage.flush()
        [move] = storage.enqueue([task], 1.0, PRODUCER)
        expected = copy(task)
        move.apply(expected)
        assert dict(zip(FIELDS, fields(storage.get(task.id)), strict=True)) == dict(
            zip(FIELDS, fields(expected), strict=True)
        )

    with closing(storage):
        check()


def test_changed_copy_changes_nothing_in_the_store(any_storage):
    """A change of a task that a store was given, or has returned, does not change the stored task."""
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


def test_wait_without_a_change_ends_after_its_timeout(any_storage):
    """A wait without a change ends after its timeout, and returns False."""
    any_storage.counts()
    assert not all(any_storage.wait(channel, any_storage.generation(channel), 0.05) for channel in list(Channel) * 10)


def test_wait_for_an_earlier_change_ends_at_once(any_storage):
    """A wait for a change between the generation and the wait ends at once."""
    generation = any_storage.generation(Channel.WORK)
    any_storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert any_storage.generation(Channel.WORK) != generation, "a change of this process is counted at once"
    assert any_storage.wait(Channel.WORK, generation, PATIENCE)
    [task] = start(any_storage)
    generation = any_storage.generation(Channel.OUTCOME)
    any_storage.exchange([settlement(task)], None)
    assert any_storage.generation(Channel.OUTCOME) != generation


def test_close_ends_waits(any_storage):
    """Closing a store ends a wait in another thread: the wait returns True or raises `StorageError`."""
    generation = any_storage.generation(Channel.OUTCOME)
    begun = threading.Event()

    def wait():
        begun.set()
        try:
            return any_storage.wait(Channel.OUTCOME, generation, PATIENCE)
        except StorageError:
            return True

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        begun.wait()
        any_storage.close()
        assert waiting.result(PATIENCE)


def test_unused_store_can_be_closed_and_leaves_no_file(path):
    """A store that was never used can be closed, and creates no file."""
    SQLiteStorage(path).close()
    assert not Path(path).exists()


def test_close_during_calls_raises_only_storage_errors(any_storage):
    """A call during the close of the store in another thread returns its result or raises `StorageError`."""
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


# Several stores at one place ------------------------------------------------------------------------------------


def test_first_call_of_a_new_store_sees_what_is_stored(opened):
    """The first call of a store that was just opened sees what is stored, whichever call it is."""
    writer = opened()
    target = RevocationTarget(function=True, key="add")
    writer.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    writer.exchange([settlement(task, FAIL) for task in start(writer)], None)
    writer.enqueue([Task("c", "add", priority=9)], 1.0, PRODUCER)
    start(writer, now=1.0)
    writer.lock(Lock("L", "x", 9.0), 1.0)
    for look in (
        lambda store: store.get("a") and store.history("a") and store.status("a"),
        lambda store: store.history("a"),
        lambda store: store.status("a"),
        lambda store: store.counts(),
        lambda store: store.tasks(),
        lambda store: store.next_due(),
        lambda store: store.locks(1.0),
        lambda store: store.exchange((), ClaimRequest("w", 5.0, 10.0))[1],
        lambda store: store.recover(99.0, PRODUCER),
        lambda store: store.prune(99.0),
        lambda store: store.revoke(target, Revocation(), 1.0) or store.revocation(target),
        lambda store: store.revocation(target),
    ):
        assert look(opened()), inspect.getsource(look)


def test_two_stores_at_one_place_share_tasks(opened):
    """A task enqueued in one store is claimed in another; once recovered, its first outcome is refused."""
    here, there = opened(), opened()
    here.enqueue([Task("a", "add")], 1.0, PRODUCER)
    [late] = start(there, "there")
    [(_, move)] = here.recover(99.0, Actor("here"))
    assert move.path == ("interrupt", "recover")
    [again] = start(here, "here", now=99.0)
    assert there.exchange([settlement(late, FAIL)], None) == ([False], [])
    assert here.exchange([settlement(again, result=b"1")], None) == ([True], [])
    assert there.status("a") == ("complete", b"1")
    with pytest.raises(DuplicateTask):
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)


def test_task_of_another_queue_is_invisible(opened):
    """A task of another queue at the same place is not claimed, settled or released."""
    mine, other = opened("mine"), opened("other")
    mine.enqueue([Task("a", "add")], 1.0, PRODUCER)
    held = Task("h", "add")
    [move] = mine.enqueue([held], 1.0, Actor("producer", 9.0))
    move.apply(held)
    assert start(other) == []
    [task] = start(mine)
    assert other.exchange([settlement(task)], None) == ([False], [])
    assert other.release([held], 1.0) == [False]
    assert mine.release([held], 1.0) == [True]
    assert mine.exchange([settlement(task)], None) == ([True], [])


def test_commit_wakes_waits_of_another_store(opened):
    """A commit of another store at the same place ends a wait."""
    here, there = opened(), opened()
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(await_task, here, "a")
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)
        assert seen.result(PATIENCE)


def test_commit_wakes_waits_of_another_process(storage, where):
    """A commit of another process ends a wait, and again a later wait after a pause without waits."""
    for task_id in "a", "b":
        with elsewhere(produce, where, task_id) as process:
            assert await_task(storage, task_id)
        assert process.returncode == 0
        storage.exchange([settlement(task) for task in start(storage)], None)


# All at once -----------------------------------------------------------------------------------------------------


def take_part(storage, name, number, total):
    """Enqueue `number` tasks, and run tasks until all are complete. Return how many were run."""
    done, ran = [], 0
    for n in range(number):
        storage.enqueue([Task(f"{name}-{n}", "add")], 1.0, Actor(name))
    while True:
        generation = storage.generation(Channel.OUTCOME)
        took, claims = storage.exchange(done, ClaimRequest(name, 2.0, 1000.0, limit=2))
        assert all(took)
        done = []
        for task, move in claims:
            move.apply(task)
            done.append(Settlement(task, policies.settle(task, Outcome(COMPLETE, b"1"), 3.0, worker=name)))
        ran += len(done)
        if not done:
            if storage.counts().get("complete") == total:
                return ran
            storage.wait(Channel.OUTCOME, generation, 0.5)


def process_takes_part(where, name, number, total):
    storage = open_storage(where, "default")
    ran = take_part(storage, name, number, total)
    storage.close()
    sys.stdout.write(str(ran))


def test_threads_and_processes_run_each_task_once(storage, where):
    """Threads and processes that enqueue and run at the same time run each task exactly once, without an error."""
    number, total = 200, 1200
    processes = [
        elsewhere(process_takes_part, where, f"process {n}", number, total, using=[take_part]) for n in range(2)
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


def produce_without_end(where):
    storage = open_storage(where, "default")
    for n in range(100_000):
        storage.enqueue([Task(f"{n}", "add"), Task(f"{n}'", "add")], 1.0, Actor("p"))
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()


def test_enqueued_tasks_survive_the_kill_of_their_producer(opened, where):
    """Every enqueued task is stored, and whole, after its producer was killed during later writes."""
    with elsewhere(produce_without_end, where) as producer:
        task_ids = [producer.stdout.readline().decode().strip() for _ in range(100)]
        producer.kill()
    assert "" not in task_ids
    there = {task.id for task in opened().tasks(limit=1_000_000)}
    assert there >= set(task_ids)
    assert {task_id + "'" for task_id in there if "'" not in task_id} == {one for one in there if "'" in one}
    if where.startswith("sqlite"):
        with closing(sqlite3.connect(urlsplit(where).path[1:])) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
