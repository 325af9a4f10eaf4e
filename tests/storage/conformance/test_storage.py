"""What a store keeps to, whatever is asked of it, by however many at once."""

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
    """The SQLite adapter; in the same file is another queue, with the same ids, that nothing must happen to."""

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
"""The stores that several processes can open."""

# All stores ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    """Of a file that is not there yet."""
    return str(tmp_path / "q.db")


def place(kind, request):
    """The URL of an empty store that several can open."""
    if kind == "sqlite":
        return f"sqlite:///{request.getfixturevalue('tmp_path_factory').mktemp('store')}/q.db?synchronous=off"
    if kind == "redis":
        request.getfixturevalue("redis_url")
        return redis_store_url()
    return postgres_store_url(request.getfixturevalue("postgres"), schema=unused_name())


@pytest.fixture(params=SHARED)
def where(request):
    """The URL of a store of each kind that several can open."""
    return place(request.param, request)


@pytest.fixture
def opened(where):
    """Opens stores there."""
    with opening_at(where) as opens:
        yield opens


@pytest.fixture
def storage(opened):
    """A store there."""
    return opened()


@pytest.fixture(params=["memory", *SHARED])
def any_storage(request):
    """A store of each kind."""
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
def test_what_comes_back(request, kind):
    """A task's ids, texts, bytes and numbers come back from the store as they went in, whatever is in them."""
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
    assert not all(any_storage.wait(channel, any_storage.generation(channel), 0.05) for channel in list(Channel) * 10)


def test_a_wait_for_what_has_come(any_storage):
    """A wait for what came between the generation and the wait ends at once."""
    generation = any_storage.generation(Channel.WORK)
    any_storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert any_storage.generation(Channel.WORK) != generation, "nobody of this process has to be told by the store"
    assert any_storage.wait(Channel.WORK, generation, PATIENCE)
    [task] = start(any_storage)
    generation = any_storage.generation(Channel.OUTCOME)
    any_storage.exchange([settlement(task)], None)
    assert any_storage.generation(Channel.OUTCOME) != generation


def test_closing_ends_waits(any_storage):
    """Who waits as the store is closed waits no longer: told that something happened, or that it was closed."""
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


# One place, several stores ---------------------------------------------------------------------------------------


def test_the_first_look(opened):
    """What is in the store is seen by the first look of a store that was just opened, whatever that look is."""
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
    assert there.status("a") == ("complete", b"1")
    with pytest.raises(DuplicateTask):
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)


def test_another_queues_task(opened):
    """A task of another queue in the same place is not there: nobody claims it, a copy settles and lets go of nothing."""
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


def test_waking_another_connection(opened):
    """Who waits is woken by what another store in the same place commits."""
    here, there = opened(), opened()
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(await_task, here, "a")
        there.enqueue([Task("a", "add")], 1.0, PRODUCER)
        assert seen.result(PATIENCE)


def test_waking_another_process(storage, where):
    """Who waits is woken by what another process commits; and woken again, after a pause in which nobody waited."""
    for task_id in "a", "b":
        with elsewhere(produce, where, task_id) as process:
            assert await_task(storage, task_id)
        assert process.returncode == 0
        storage.exchange([settlement(task) for task in start(storage)], None)


# All at once -----------------------------------------------------------------------------------------------------


def take_part(storage, name, number, total):
    """Enqueue so many tasks, and run tasks until all are done; how many."""
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


def test_all_at_once(storage, where):
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


def produce_for_ever(where):
    storage = open_storage(where, "default")
    for n in range(100_000):
        storage.enqueue([Task(f"{n}", "add"), Task(f"{n}'", "add")], 1.0, Actor("p"))
        sys.stdout.write(f"{n}\n")
        sys.stdout.flush()


def test_kill(opened, where):
    """What was enqueued is there, and whole, though its producer was killed as it went on writing."""
    with elsewhere(produce_for_ever, where) as producer:
        task_ids = [producer.stdout.readline().decode().strip() for _ in range(100)]
        producer.kill()
    assert "" not in task_ids
    there = {task.id for task in opened().tasks(limit=1_000_000)}
    assert there >= set(task_ids)
    assert {task_id + "'" for task_id in there if "'" not in task_id} == {one for one in there if "'" in one}
    if where.startswith("sqlite"):
        with closing(sqlite3.connect(urlsplit(where).path[1:])) as db:
            assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
