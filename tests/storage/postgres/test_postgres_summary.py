"""Summaries of blocks: counts and pages are right and quick, whatever has moved since the summaries were made."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.postgres import connected, open_store, postgres_store_url, unused_name
from support.profiles import examples
from support.stores import PATIENCE, PRODUCER, settlement, start

from lifecycle.core import policies
from lifecycle.core.policies import Revocation
from lifecycle.core.table import COMPLETE, FAIL, START
from lifecycle.core.task import Task
from lifecycle.storage import open_storage
from lifecycle.storage.base import RevocationTarget, Settlement
from lifecycle.storage.postgres import schema as schema_module
from lifecycle.storage.postgres import summary

COUNT = 4000
FUNCTIONS = ("add", "mul", "")
STATES = ("queued", "executing", "complete", "error", "revoked")


@pytest.fixture(autouse=True)
def eager():
    """Have readers make each summary that is missing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "_WORTHWHILE", 1)
        yield


@pytest.fixture
def store(postgres):
    """Return a store in a schema of its own, with tasks in four blocks."""
    with closing(open_store(postgres, schema=unused_name())) as storage:
        fill(storage)
        yield storage


@pytest.fixture(scope="module")
def filled(postgres):
    """Return a store with thousands of tasks, some of which have ended, beside those of another queue."""
    schema = unused_name()
    with closing(open_store(postgres, schema=schema)) as storage:
        with closing(open_store(postgres, "other", schema=schema)) as neighbour:
            for begin in range(0, COUNT, 100):
                for one in neighbour, storage:  # the numbers of two queues alternate
                    fill(one, begin, 100)
        for number in range(20):
            claimed = start(storage, "w", limit=100)
            outcomes = [settlement(task, FAIL if number == 7 else COMPLETE, retry=False) for task in claimed]
            storage.exchange(outcomes, None)
        yield storage


def fill(storage, first=0, count=COUNT):
    """Enqueue tasks of several functions; a few are of a rare one."""
    for begin in range(first, first + count, 100):
        names = ["rare" if n == 77 and begin % 700 == 0 else FUNCTIONS[n % 97 % 3] for n in range(100)]
        tasks = [Task(f"t{begin + n:06}", name, priority=-begin) for n, name in enumerate(names)]
        storage.enqueue(tasks, float(begin), PRODUCER)


def select(storage, sql):
    """Return rows of a query that is typed by hand."""
    with psycopg.connect(**storage._server.pool.parameters, autocommit=True) as db:
        return db.execute(sql.replace("SCHEMA", storage._server.schema)).fetchall()


def everything(storage):
    """Return all rows, the newest first, without the summaries."""
    return select(
        storage,
        "select id, state, name, enqueued, seq from SCHEMA.task"
        f" where queue = {storage._server.queue_id} order by seq desc",
    )


def made_blocks(storage):
    """Return the blocks that have a summary."""
    return [block for (block,) in select(storage, "select block from SCHEMA.summary where made order by block")]


def assert_counts_are_right(storage):
    """Compare the counts with all rows."""
    assert storage.counts() == dict(Counter(row[1] for row in everything(storage)))


def act(storage, action, number):
    """Move or delete one old task, or several, so that summaries of old blocks are wrong from then on."""
    rested = storage.tasks(["error", "complete"], limit=1, before=number)
    if action == "retry" and rested and rested[0].state == "error":
        move = policies.retry(rested[0], 5.0, worker="operator")
        storage.exchange([Settlement(rested[0], move)], None)
    elif action == "run":
        for task in start(storage, "w", limit=3):
            storage.exchange([settlement(task, COMPLETE)], None)
    elif action == "start":
        start(storage, "w", limit=2)
    elif action == "start some":
        start(storage, "w", limit=2, skip_names=frozenset(["add"]))
    elif action == "start by a settlement" and (waiting := storage.tasks(["queued"], limit=1, before=number)):
        move = policies.claimed(waiting[0], START, "w", 5.0, 10.0)
        storage.exchange([Settlement(waiting[0], move)], None)
    elif action == "revoke" and (waiting := storage.tasks(["queued"], limit=1, before=number)):
        storage.revoke(RevocationTarget(function=False, key=waiting[0].id), Revocation(), 5.0)
        start(storage, "w")
    elif action == "prune":
        storage.prune(10.0**6, limit=30)
    elif action == "enqueue":
        known = {row[0] for row in everything(storage)}
        new = next(f"new{n}" for n in range(10**6) if f"new{n}" not in known)
        storage.enqueue([Task(new, "add")], 7.0, PRODUCER)


ACTIONS = "retry", "run", "start", "start some", "start by a settlement", "revoke", "prune", "enqueue"


@settings(max_examples=examples(25), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 2 * COUNT)), max_size=4),
    st.none() | st.lists(st.sampled_from(STATES), max_size=3),
    st.none() | st.sampled_from((*FUNCTIONS, "rare", "unknown")),
    st.none() | st.sampled_from([0.0, 700.0, 2500.0, 9999.0]),
    st.integers(0, 700),
    st.none() | st.integers(COUNT // 2, 2 * COUNT),
)
@example([], ["queued", "complete"], None, None, 700, 3 * COUNT // 2 + 7)
@example([], None, "rare", 700.0, 700, 3 * COUNT // 2 + 7)
@example([], None, "rare", None, 9, 2978)
def test_counts_and_pages_are_those_of_all_rows(filled, actions, states, name, since, limit, before):
    """With summaries of old blocks, after any moves in them, counts and pages are what a look at all rows says."""
    filled._summary.make()
    for action in actions:
        act(filled, *action)
    rows = everything(filled)
    wanted = [
        row[0]
        for row in rows
        if (states is None or row[1] in states)
        and (name is None or row[2] == name)
        and (since is None or row[3] >= since)
        and (before is None or row[4] < before)
    ]
    read_only, filled._summary._can_write = filled._summary._can_write, False  # with the summaries that are left
    try:
        assert_counts_are_right(filled)
        found = filled.tasks(states, limit, before, name=name, since=since)
    finally:
        filled._summary._can_write = read_only
    assert [task.id for task in found] == wanted[:limit]


@pytest.mark.parametrize("action", [one for one in ACTIONS if one != "enqueue"])
def test_summary_is_gone_once_a_task_of_its_block_moves(store, action):
    """The block of a task that starts, moves or is deleted has no summary from then on; other blocks keep theirs."""
    for task in start(store, "w", limit=30):
        store.exchange([settlement(task, FAIL if action == "retry" else COMPLETE, retry=False)], None)
    assert store._summary.make()
    assert made_blocks(store) == [0, 1, 2]
    act(store, action, 900)
    assert made_blocks(store) == [1, 2]
    assert_counts_are_right(store)


def test_look_ups_make_summaries_once(store):
    """The first look-up makes the summaries of all blocks but the newest; later ones read only what has moved."""
    store.counts()
    assert made_blocks(store) == [0, 1, 2]
    store._summary._make = None  # is not called any more
    assert store.counts() == {"queued": COUNT}
    assert len(store.tasks(name="rare")) == COUNT // 700 + 1


def test_block_with_a_held_task_has_no_summary(store):
    """While a task runs its block gets no summary: the moves of a running task need not look for one."""
    (running,) = start(store, "w")
    assert store.counts() == {"queued": COUNT - 1, "executing": 1}
    assert made_blocks(store) == [1, 2]
    store.exchange([settlement(running)], None)
    assert store.counts() == {"queued": COUNT - 1, "complete": 1}
    assert made_blocks(store) == [0, 1, 2]


def test_no_summary_is_made_while_older_transactions_write(store):
    """A transaction that began to write before may move tasks of any block: until its end summaries are not made."""
    with psycopg.connect(**store._server.pool.parameters) as other:
        other.execute(f"update {store._server.schema}.task set state = 'revoked', rank = null, ended = 1 where seq = 5")
        assert not store._summary.make()
        assert store.counts() == {"queued": COUNT}
        assert made_blocks(store) == []
        other.commit()
    assert store.counts() == {"queued": COUNT - 1, "revoked": 1}
    assert made_blocks(store) == [0, 1, 2]


def test_task_that_is_inserted_late_is_counted(store):
    """A new task whose transaction began before the summaries were made is in the counts once it commits."""
    with psycopg.connect(**store._server.pool.parameters) as other:
        other.execute(
            f"insert into {store._server.schema}.task(queue, id, name, payload, state, priority, retries, attempt,"
            f" interruptions, worker, version, rank, history) values ({store._server.queue_id}, 'late', 'add', '',"
            " 'queued', 0, 0, 0, 0, 'p', 1, 0, '')"
        )
        fill(store, COUNT, 2000)  # its block is not the newest any more
        assert not store._summary.make()
        other.commit()
    assert store.counts() == {"queued": COUNT + 2001}
    assert made_blocks(store) == [0, 1, 2, 3, 4]
    assert [task.id for task in store.tasks(["queued"], before=COUNT + 2, limit=1)] == ["late"]


@pytest.mark.parametrize("moment", ["begun", "looked"])
def test_task_that_moves_while_summaries_are_made_is_counted(store, monkeypatch, moment):
    """A task that moves after a summary was begun, or after the last look for writers, prevents that summary."""
    write, writers = store._server.write, store._summary._writers

    def move():
        monkeypatch.undo()
        for task in start(store, "w", limit=3):
            store.exchange([settlement(task)], None)

    def begin(*commands):
        results = write(*commands)
        move()
        return results

    def look():
        found = writers()
        move()
        return found

    if moment == "begun":
        monkeypatch.setattr(store._server, "write", begin)
    else:
        monkeypatch.setattr(store._summary, "_writers", look)
    store._summary._make()
    assert made_blocks(store) == [1, 2]
    assert_counts_are_right(store)


def test_block_with_a_task_that_starts_meanwhile_gets_no_summary(store, monkeypatch):
    """A start that was not committed as a summary was begun, and is before the tasks are counted, prevents it."""
    write, schema = store._server.write, store._server.schema
    monkeypatch.setattr(store._server, "write", lambda *commands: begin(*commands))
    with psycopg.connect(**store._server.pool.parameters) as other:
        other.execute(f"select from {schema}.claimed_next({store._server.queue_id}, 5, 0, 1)")
        other.execute(f"update {schema}.task set state = 'executing', rank = null, lease = 99 where seq = 1")

        def begin(*commands):
            results = write(*commands)
            monkeypatch.undo()
            other.commit()
            return results

        store._summary._make()
    assert made_blocks(store) == [1, 2]
    store.exchange([settlement(store.tasks(["executing"])[0])], None)
    assert_counts_are_right(store)


def test_another_reader_may_begin_the_same_summaries(store, monkeypatch):
    """Of two readers that begin the same summary the last one makes it: only this one has looked for writers since."""
    first = store._summary
    writers = first._writers

    def look():
        found = writers()
        monkeypatch.undo()
        (begun,) = store._server.write((first._begin, (10,)))  # as another reader that goes on later
        assert len(begun.rows) == 3
        return found

    monkeypatch.setattr(first, "_writers", look)
    first._make()
    assert made_blocks(store) == []
    assert store.counts() == {"queued": COUNT}
    assert made_blocks(store) == [0, 1, 2]


@pytest.mark.untraced
def test_workers_and_readers_at_once_see_right_counts(postgres):
    """While workers run tasks, and readers make summaries, each count adds up to all tasks, and the last one is right."""
    url = postgres_store_url(postgres, schema=unused_name())
    over = threading.Event()
    with closing(open_storage(url, "default")) as storage:
        fill(storage)

        def work(name):
            while claimed := start(storage, name, limit=16):
                storage.exchange(
                    [settlement(task, FAIL if task.seq % 9 == 0 else COMPLETE, retry=False) for task in claimed], None
                )

        def look():
            while not over.is_set():
                assert sum(storage.counts().values()) == COUNT
                assert len(storage.tasks(name="rare", limit=COUNT)) == COUNT // 700 + 1

        with ThreadPoolExecutor(4) as pool:
            try:
                readers = [pool.submit(look) for _ in range(2)]
                for worker in [pool.submit(work, f"w{n}") for n in range(2)]:
                    worker.result(PATIENCE)
            finally:
                over.set()
            for reader in readers:
                reader.result(PATIENCE)
        assert_counts_are_right(storage)
        storage._summary.make()
        assert_counts_are_right(storage)


def test_user_who_may_only_read_looks_without_summaries(postgres):
    """A user who may not write gets right answers from the rows."""
    user, schema = f"lifecycle_test_{unused_name()}", unused_name()
    with closing(open_store(postgres, schema=schema)) as owner, connected(postgres) as db:
        fill(owner)
        db.execute(f"create role {user} login")
        try:
            db.execute(f"grant usage on schema {schema} to {user}")
            db.execute(f"grant select on all tables in schema {schema} to {user}")
            url = postgres_store_url(postgres.replace("//postgres@", f"//{user}@"), schema=schema)
            with closing(open_storage(url, "default")) as reader:
                for _ in range(2):
                    assert reader.counts() == {"queued": COUNT}
                    assert len(reader.tasks(name="rare")) == COUNT // 700 + 1
        finally:
            db.execute(f"drop owned by {user}")
            db.execute(f"drop role {user}")


def test_truncated_table_has_no_tasks(store):
    """After `truncate`, typed by hand, no task is counted."""
    store.counts()
    with psycopg.connect(**store._server.pool.parameters, autocommit=True) as db:
        db.execute(f"truncate {store._server.schema}.task")
    assert store.counts() == {}


def test_migration_gives_the_users_of_the_tables_the_new_ones(postgres, monkeypatch):
    """Who could use the table of tasks before the migration may use the tables of the summaries after it."""
    user, schema = f"lifecycle_test_{unused_name()}", unused_name()
    with monkeypatch.context() as then, closing(open_store(postgres, schema=schema)) as first:
        then.setattr(schema_module, "MIGRATIONS", schema_module.MIGRATIONS[:3])
        assert first.status("a") is None
    with connected(postgres) as db:
        db.execute(f"create role {user} login")
        try:
            db.execute(f"grant usage on schema {schema} to {user}")
            db.execute(f"grant select, insert, update, delete on all tables in schema {schema} to {user}")
            with closing(open_store(postgres, schema=schema)) as owner:
                owner.migrate()
                fill(owner)
            url = postgres_store_url(postgres.replace("//postgres@", f"//{user}@"), schema=schema)
            with closing(open_storage(url, "default")) as storage:
                assert storage.counts() == {"queued": COUNT}
                assert made_blocks(storage) == [0, 1, 2]
                assert start(storage)
            can_tick = db.execute(
                "select has_table_privilege(%s, %s, 'update')", [user, f"{schema}.periodic"]
            ).fetchone()
            assert can_tick == (True,)
        finally:
            db.execute(f"drop owned by {user}")
            db.execute(f"drop role {user}")
