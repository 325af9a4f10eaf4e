"""Summaries of blocks: counts and pages are right and quick, whatever has moved since the summaries were made."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.profiles import examples
from support.stores import PRODUCER, settlement, start

from lifecycle.core import policies
from lifecycle.core.table import COMPLETE, FAIL
from lifecycle.core.task import Task
from lifecycle.storage.base import Settlement
from lifecycle.storage.sqlite.storage import SQLiteStorage

COUNT = 3000
FUNCTIONS = ("add", "mul", "")
STATES = ("queued", "executing", "complete", "error", "revoked")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return a store with thousands of tasks, some of which have ended."""
    storage = SQLiteStorage(str(tmp_path_factory.mktemp("summary") / "q.db"), synchronous="off")
    neighbour = SQLiteStorage(storage._database.path, "other")
    for begin in range(0, COUNT, 100):
        for other in neighbour, storage:  # the numbers of two queues alternate
            tasks = [Task(f"t{begin + n:06}", FUNCTIONS[n % 97 % 3], priority=-begin) for n in range(100)]
            other.enqueue(tasks, float(begin), PRODUCER)
    for number in range(20):
        claimed = start(storage, "w", limit=100)
        storage.exchange([settlement(task, FAIL if number == 7 else COMPLETE, retry=False) for task in claimed], None)
    with closing(storage), closing(neighbour):
        yield storage


def everything(storage):
    """Return all rows, the newest first, without the summaries."""
    with closing(sqlite3.connect(storage._database.path)) as db:
        sql = "select id, state, name, enqueued, seq from task where queue=? order by seq desc"
        return db.execute(sql, (storage._database.queue_id,)).fetchall()


def summary_count(storage):
    """Return the number of blocks that have a summary."""
    return storage._database.read(
        "select count(*) from summary where state='' and queue=?", (storage._database.queue_id,)
    )[0][0]


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
    elif action == "prune":
        storage.prune(10.0**6, limit=30)
    elif action == "enqueue":
        known = {row[0] for row in everything(storage)}
        new = next(f"new{n}" for n in range(10**6) if f"new{n}" not in known)
        storage.enqueue([Task(new, "add")], 7.0, PRODUCER)


@settings(max_examples=examples(20), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["retry", "run", "start", "prune", "enqueue"]), st.integers(0, 2 * COUNT)), max_size=4
    ),
    st.none() | st.lists(st.sampled_from(STATES), max_size=3),
    st.none() | st.sampled_from((*FUNCTIONS, "unknown")),
    st.none() | st.sampled_from([0.0, 700.0, 2500.0, 9999.0]),
    st.integers(0, 700),
    st.none() | st.integers(COUNT // 2, 2 * COUNT),
)
@example([], ["queued", "complete"], None, None, 700, 3 * COUNT // 2 + 7)
@example([], None, "add", 700.0, 700, 3 * COUNT // 2 + 7)
def test_counts_and_pages_are_those_of_all_rows(filled, actions, states, name, since, limit, before):
    """With summaries of old blocks, after any moves in them, counts and pages are what a look at all rows says."""
    filled._summary.make()
    for action in actions:
        act(filled, *action)
    rows = everything(filled)
    counts = {state: sum(row[1] == state for row in rows) for state in STATES}
    assert filled.counts() == {state: number for state, number in counts.items() if number}
    wanted = [
        row[0]
        for row in rows
        if (states is None or row[1] in states)
        and (name is None or row[2] == name)
        and (since is None or row[3] >= since)
        and (before is None or row[4] < before)
    ]
    found = filled.tasks(states, limit, before, name=name, since=since)
    assert [task.id for task in found] == wanted[:limit]


def test_look_ups_make_summaries_once(filled, monkeypatch):
    """The first look-up makes the summaries of all blocks but the newest; the next one reads only what has moved."""
    monkeypatch.setattr("lifecycle.storage.sqlite.summary._WORTHWHILE", 0)
    filled.counts()
    made = summary_count(filled)
    assert made > 10
    read = []
    with closing(sqlite3.connect(filled._database.path)) as db:
        (highest,) = db.execute("select max(seq) from task").fetchone()
    filled._database._reader.set_trace_callback(read.append)
    filled.counts()
    filled._database._reader.set_trace_callback(None)
    scans = [sql for sql in read if "from task where" in sql]
    assert len(scans) == 1
    assert f">= {highest >> 8} << 8" in scans[0]
    assert summary_count(filled) == made
