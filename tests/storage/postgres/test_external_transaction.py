"""Tasks within a transaction of the application's own: there when it commits, and never if it does not."""

import asyncio
import threading
from contextlib import closing

import psycopg
import pytest
from conftest import Heard, drain
from psycopg.rows import dict_row
from support.postgres import SERVER, postgres_store_url, unused_name

from lifecycle import SIGNAL_ENQUEUED, ConfigurationError, DuplicateTask, TaskQueue
from lifecycle.storage.base import Channel
from lifecycle.testing import VirtualClock

PATIENCE = 30.0


@pytest.fixture
def schema():
    """Of a name that nobody has used."""
    return unused_name()


@pytest.fixture
def queue(postgres, schema):
    """An empty queue, on a virtual clock."""
    with closing(TaskQueue(postgres_store_url(postgres, schema=schema), clock=VirtualClock())) as queue:
        yield queue


@pytest.fixture
def add(queue):
    """A task function."""
    return queue.task(name="add")(lambda a, b=0: a + b)


@pytest.fixture
def heard(queue):
    """What the queue announces."""
    return Heard(queue)


@pytest.fixture
def db(postgres, schema):
    """The application's connection, with a table of its own."""
    with psycopg.connect(postgres) as db:
        db.execute(f"create table if not exists orders_{schema}(id int)")
        db.commit()
        yield db
        db.rollback()


@pytest.fixture
def order(db, schema):
    """Makes an order."""
    return lambda number: db.execute(f"insert into orders_{schema} values (%s)", [number])


@pytest.fixture
def orders(postgres, schema):
    """The orders that others can see."""

    def look():
        with psycopg.connect(postgres) as other:
            return [number for (number,) in other.execute(f"select id from orders_{schema} order by id")]

    return look


@pytest.mark.parametrize("autocommit", [False, True])
def test_task_and_row_are_committed_together(queue, add, heard, db, order, orders, autocommit):
    """A task and a row of the application are there together, once the block ends; then, not before, it is announced."""
    db.autocommit = autocommit
    with queue.transaction(db):
        order(1)
        result = queue.enqueue(add.s(1, 2), db)
        more = queue.enqueue_many([add.s(3), add.s(4)], db)
        assert (orders(), queue.counts()["queued"], heard, queue.run_next()) == ([], 0, [], None)
    assert orders() == [1]
    assert heard == [(SIGNAL_ENQUEUED, one.id) for one in (result, *more)]
    assert {state for _, state in heard.states} == {"queued"}
    assert [task.id for task in drain(queue)] == [one.id for one in (result, *more)]
    assert (result.get(), more[0].get()) == (3, 3)


class Refused(Exception):
    """Somebody changes their mind."""


@pytest.mark.parametrize("error", [Refused, psycopg.Rollback, KeyboardInterrupt])
def test_task_and_row_are_rolled_back_together(queue, add, heard, db, order, orders, error):
    """What is rolled back was never there: no task, no signal, and the id is free."""
    task = add.s(1)
    try:
        with queue.transaction(db):
            order(1)
            queue.enqueue(task, db)
            raise error
    except (Refused, KeyboardInterrupt):
        pass
    assert (orders(), heard, queue.tasks()) == ([], [], [])
    with queue.transaction(db):
        again = add.s(1)
        again.id = task.id
        queue.enqueue(again, db)
    assert heard.of(again) == [SIGNAL_ENQUEUED]


def test_enqueued_handler_finds_the_task_committed(queue, add, db):
    """A handler of `enqueued` finds the task in the store, and no claim goes before it."""
    seen = []

    @queue.signal(SIGNAL_ENQUEUED)
    def look(signal, task):
        seen.append((queue.get(task.id).state, queue.run_next()))

    with queue.transaction(db):
        queue.enqueue(add.s(1), db)
    assert seen == [("queued", None)]
    assert queue.run_next() is not None


def test_task_in_a_transaction_without_the_block_is_not_announced(queue, add, heard, db, order, orders):
    """Without the block the task is part of the transaction all the same; nobody knows when to announce it, so nobody does."""
    order(1)
    result = queue.enqueue(add.s(1, 2), db)
    assert queue.run_next() is None
    db.commit()
    assert (orders(), heard) == ([1], [])
    queue.run_next()
    assert (result.get(), [signal for signal, *_ in heard]) == (3, ["executing", "complete"])
    queue.enqueue(add.s(1), db)
    db.rollback()
    assert queue.run_next() is None


def test_commit_wakes_waiting_workers(queue, add, db):
    """Whoever waits for work is woken by the commit, whoever makes it."""
    queue.counts()
    storage, woken = queue.storage, threading.Event()
    storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.2)  # now it listens

    def wait():
        while not queue.counts()["queued"]:
            storage.wait(Channel.WORK, storage.generation(Channel.WORK), PATIENCE)
        woken.set()

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    queue.enqueue(add.s(1), db)
    assert not woken.wait(0.05)
    db.commit()
    assert woken.wait(PATIENCE)
    waiter.join(PATIENCE)


def test_taken_id_is_refused_and_the_transaction_goes_on(queue, add, db, order, orders):
    """An id that is taken is refused, and the transaction goes on as if nothing had been tried."""
    there = add(1)
    with queue.transaction(db):
        order(1)
        for tasks in ([add.s(1), add.s(2)], [add.s(1)]):
            tasks[-1].id = there.id
            with pytest.raises(DuplicateTask, match=there.id):
                queue.enqueue_many(tasks, db)
        twice = add.s(5)
        with pytest.raises(DuplicateTask):
            queue.enqueue_many([twice, twice], db)
        order(2)
        queue.enqueue(add.s(3), db)
    assert orders() == [1, 2]
    assert queue.counts()["queued"] == 2


def test_task_revoked_in_advance_is_revoked_after_the_commit(queue, add, heard, db):
    """A task that was revoked before it was there is stopped, by whatever way it came."""
    task = add.s(1)
    queue.revoke_by_id(task.id)
    with queue.transaction(db):
        queue.enqueue(task, db)
    drain(queue)
    assert heard.of(task) == [SIGNAL_ENQUEUED, "revoked"]


def test_settings_of_the_connection_stay(queue, add, postgres, schema):
    """Its row factory, its settings and its prepared statements are its owner's."""
    with psycopg.connect(postgres, row_factory=dict_row, prepare_threshold=0, options="-c search_path=public") as db:
        with queue.transaction(db):
            assert db.execute("select 1 as one").fetchone() == {"one": 1}
            for n in range(3):
                queue.enqueue(add.s(n), db)
                assert db.execute("select 1 as one").fetchone() == {"one": 1}
        assert db.execute("show search_path").fetchone() == {"search_path": "public"}
    assert queue.counts()["queued"] == 3


def closed(url):
    db = psycopg.connect(url)
    db.close()
    return db


def failed(url):
    db = psycopg.connect(url)
    with pytest.raises(psycopg.Error):
        db.execute("nonsense")
    return db


def piped(url):
    db = psycopg.connect(url)
    db.pgconn.enter_pipeline_mode()
    return db


BAD = {
    "no connection": (lambda url: "db", r"connection=str: it takes the psycopg\.Connection"),
    "an asynchronous one": (
        lambda url: asyncio.run(psycopg.AsyncConnection.connect(url)),
        "connection=AsyncConnection: it takes",
    ),
    "a cursor": (lambda url: psycopg.connect(url).cursor(), "connection=Cursor: it takes"),
    "closed": (closed, "it is closed"),
    "failed": (failed, "its transaction has failed: roll it back"),
    "in a pipeline": (piped, "in the midst of something"),
    "in no transaction": (lambda url: psycopg.connect(url, autocommit=True), "in no transaction: begin one"),
    "another database": (lambda url: psycopg.connect(SERVER), "database does not have this queue"),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("case", BAD)
def test_unusable_connection_is_refused_with_the_reason(queue, add, postgres, case):
    """What is no connection, or none that can be joined, is refused, in words that say what is wrong with it."""
    make, words = BAD[case]
    db = make(postgres)
    with pytest.raises(ConfigurationError, match=words):
        queue.enqueue(add.s(1), db)
    assert queue.counts()["queued"] == 0
    if isinstance(db, psycopg.Connection):
        db.close()


def test_block_within_a_transaction_is_refused(queue, db, order):
    """The block is the outermost transaction, or it could not know when the tasks are there for others."""
    order(1)
    with pytest.raises(ConfigurationError, match="in a transaction already"), queue.transaction(db):
        pass
    db.rollback()
    refused = pytest.raises(ConfigurationError, match="in a transaction already")
    with queue.transaction(db), refused, queue.transaction(db):
        pass


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{}/app.db"])
def test_stores_without_external_transactions_refuse_them(tmp_path, db, url):
    """Other stores cannot take part in a transaction of somebody else's, and say so."""
    with closing(TaskQueue(url.format(tmp_path))) as queue:
        add = queue.task(name="add")(lambda a: a)
        with pytest.raises(ConfigurationError, match="only a queue on PostgreSQL can take part"):
            queue.enqueue(add.s(1), db)
        with pytest.raises(ConfigurationError, match="only a queue on PostgreSQL"), queue.transaction(db):
            pass
        assert queue.counts()["queued"] == 0


def test_immediate_queue_runs_the_task_after_the_commit(postgres, schema, db):
    """In immediate mode what was enqueued runs in the caller once it is committed."""
    with closing(TaskQueue(postgres_store_url(postgres, schema=schema), immediate=True)) as queue:
        add = queue.task(name="add")(lambda a, b: a + b)
        with queue.transaction(db):
            result = queue.enqueue(add.s(1, 2), db)
            assert queue.counts()["queued"] == 0
        assert result.get() == 3
