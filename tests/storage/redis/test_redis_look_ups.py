"""Sets by state and function: counts and pages are right, whatever has moved, and look at few tasks."""

from collections import Counter
from contextlib import closing

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.profiles import examples
from support.redis_server import SERVER, connected, open_store, overwrite, unused_prefix
from support.stores import PRODUCER, settlement, start

from lifecycle.core import policies
from lifecycle.core.policies import Revocation
from lifecycle.core.table import COMPLETE, FAIL
from lifecycle.core.task import Task
from lifecycle.storage.base import RevocationTarget, Settlement
from lifecycle.storage.redis import scripts

pytestmark = pytest.mark.untraced

COUNT = 3000
FUNCTIONS = ("add", "mul", "")
STATES = ("queued", "executing", "complete", "error", "revoked")


@pytest.fixture
def store():
    """Return an empty store."""
    with closing(open_store(unused_prefix())) as storage:
        yield storage


@pytest.fixture(scope="module")
def filled():
    """Return a store with thousands of tasks, some of which have ended."""
    with closing(open_store(unused_prefix())) as storage:
        fill(storage)
        for number in range(20):
            claimed = start(storage, "w", limit=100)
            outcomes = [settlement(task, FAIL if number == 7 else COMPLETE, retry=False) for task in claimed]
            storage.exchange(outcomes, None)
        yield storage


def fill(storage, count=COUNT):
    """Enqueue tasks of several functions; a few are of a rare one."""
    for begin in range(0, count, 100):
        names = ["rare" if n == 77 and begin % 700 == 0 else FUNCTIONS[n % 97 % 3] for n in range(100)]
        tasks = [Task(f"t{begin + n:06}", name, priority=-begin) for n, name in enumerate(names)]
        storage.enqueue(tasks, float(begin), PRODUCER)


def everything(storage):
    """Return all tasks, the newest first, as their hashes say."""
    with connected(SERVER) as db:
        ids = [key.rpartition(b":")[2].decode() for key in db.scan_iter(f"{storage._server.prefix}:task:*", count=5000)]
    return sorted(map(storage.get, ids), key=lambda task: -task.seq)


def keys(storage, part):
    """Return the keys that begin with a text, without the prefix of the queue."""
    prefix = storage._server.prefix.encode()
    with connected(SERVER) as db:
        return sorted(
            key.removeprefix(prefix).decode() for key in db.scan_iter(f"{prefix.decode()}{part}*", count=5000)
        )


def act(storage, action, number):
    """Move, delete or add tasks."""
    rested = storage.tasks(["error", "complete"], limit=1, before=number)
    waiting = storage.tasks(["queued"], limit=1, before=number)
    if action == "retry" and rested and rested[0].state == "error":
        storage.exchange([Settlement(rested[0], policies.retry(rested[0], 5.0, worker="operator"))], None)
    elif action == "run":
        storage.exchange([settlement(task) for task in start(storage, "w", limit=3)], None)
    elif action == "start":
        start(storage, "w", limit=2)
    elif action == "set aside":
        start(storage, "w", limit=2, skip_names=frozenset(["add"]))
    elif action == "revoke" and waiting:
        storage.revoke(RevocationTarget(function=False, key=waiting[0].id), Revocation(), 5.0)
        start(storage, "w")
    elif action == "recover":
        storage.recover(10.0**6, PRODUCER)
    elif action == "prune":
        storage.prune(10.0**6, limit=30)
    elif action == "enqueue":
        new = next(f"new{n}" for n in range(10**6) if storage.get(f"new{n}") is None)
        storage.enqueue([Task(new, "add")], 7.0, PRODUCER)


ACTIONS = "retry", "run", "start", "set aside", "revoke", "recover", "prune", "enqueue"


@settings(max_examples=examples(15), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, COUNT)), max_size=4),
    st.none() | st.lists(st.sampled_from(STATES), max_size=3),
    st.none() | st.sampled_from((*FUNCTIONS, "rare", "unknown")),
    st.none() | st.sampled_from([0.0, 700.0, 2500.0, 9999.0]),
    st.integers(0, 700),
    st.none() | st.integers(COUNT // 2, COUNT),
)
@example([("start", 0)], None, None, None, 700, None)
@example([], None, "rare", 700.0, 700, 2000)
@example([], ["complete", "error"], None, 700.0, 700, 2000)
def test_counts_and_pages_are_those_of_all_tasks(filled, actions, states, name, since, limit, before):
    """After any moves counts and pages are what a look at all tasks says."""
    for action in actions:
        act(filled, *action)
    tasks = everything(filled)
    assert filled.counts() == dict(Counter(task.state for task in tasks))
    wanted = [
        task.id
        for task in tasks
        if (states is None or task.state in states)
        and (name is None or task.name == name)
        and (since is None or task.enqueued_at >= since)
        and (before is None or task.seq < before)
    ]
    assert [task.id for task in filled.tasks(states, limit, before, name=name, since=since)] == wanted[:limit]


def test_functions_without_tasks_are_forgotten(store):
    """A function whose last task was deleted costs later look-ups nothing; one that runs is kept."""
    store.enqueue([Task("a", "add"), Task("b", "mul"), Task("c", "late", priority=-1)], 1.0, PRODUCER)
    tasks = start(store, "w", limit=2)
    store.exchange([settlement(tasks[0])], None)
    names = f"{store._server.prefix}:index", "inf", "inf"
    with connected(SERVER) as db:
        assert set(db.zrangebyscore(*names)) == {b"=add", b"=mul", b"=late"}
        assert store.prune(99.0) == 1
        assert set(db.zrangebyscore(*names)) == {b"=mul", b"=late"}
        store.exchange([settlement(tasks[1])], None)
        assert store.counts() == {"complete": 1, "queued": 1}
        assert store.prune(99.0) == 1
        assert set(db.zrangebyscore(*names)) == {b"=late"}


def test_ages_of_blocks_without_tasks_are_forgotten(store):
    """The times of old blocks are deleted with their last tasks."""
    fill(store)
    ages = f"{store._server.prefix}:index", 0, "(inf"
    with connected(SERVER) as db:
        blocks = db.zrangebyscore(*ages, withscores=True)
        assert blocks == [(b"%d" % n, min(2900.0, (256 * n + 254) // 100 * 100.0)) for n in range(12)]
        while tasks := start(store, "w", limit=1000):
            store.exchange([settlement(task) for task in tasks[: len(tasks) - 1]], None)
        store.prune(99.0, limit=2500)
        assert len(db.zrangebyscore(*ages)) == 9  # the last task of each claim still runs
        store.exchange([settlement(task) for task in store.tasks(["executing"])], None)
        store.prune(99.0, limit=2500)
        assert db.zrangebyscore(*ages) == [b"11"]


def test_tasks_of_an_older_layout_are_sorted_in():
    """Tasks in one set for each state, as they were stored before, are in counts and pages from the first call on."""
    prefix = unused_prefix()
    with closing(open_store(prefix)) as first, connected(SERVER) as db:
        fill(first)
        for task in start(first, "w", limit=5):
            first.exchange([settlement(task)], None)
        counts, everyone = first.counts(), [task.id for task in first.tasks(limit=COUNT)]
        rare = [task.id for task in first.tasks(name="rare", since=700.0)]
        overwrite(first, "t001000", "call", b"\xc1")
        for key in keys(first, ":state:"):
            new = f"{first._server.prefix}{key}"
            old = new.rpartition(":")[0]
            db.zunionstore(old, [old, new])
            db.unlink(new)
        db.unlink(f"{first._server.prefix}:index")
        db.zunionstore(f"{first._server.prefix}:ended", [f"{first._server.prefix}:ended:complete"])
        db.unlink(f"{first._server.prefix}:ended:complete")
    with closing(open_store(prefix)) as store:
        assert store.counts() == counts
        assert [task.id for task in store.tasks(limit=COUNT)] == [one for one in everyone if one != "t001000"]
        assert [task.id for task in store.tasks(name="rare", since=700.0)] == rare
        assert [key for key in keys(store, ":state:") if key.count(":") == 2] == []
        assert store.prune(99.0, 2) == 2
        assert keys(store, ":ended") == [":ended:complete"]
        store.flush()
        assert keys(store, ":state:") == keys(store, ":index") == []


def test_task_that_an_older_release_has_moved_is_not_pruned(store):
    """A task whose entry stays among the tasks at rest, since an older release has retried it, is not deleted."""
    store.enqueue([Task("a", "add", retries=1)], 1.0, PRODUCER)
    (task,) = start(store, "w")
    store.exchange([settlement(task, FAIL, retry=False)], None)
    (ended,) = keys(store, ":ended")
    with connected(SERVER) as db:
        entries = db.zrange(f"{store._server.prefix}{ended}", 0, -1, withscores=True)
        act(store, "retry", 2)
        db.zadd(f"{store._server.prefix}{ended}", dict(entries))
    assert store.prune(99.0) == 0
    assert store.counts() == {"queued": 1}
    assert keys(store, ":ended") == []


def test_pages_by_time_go_by_the_latest_enqueueing(store):
    """A clock may go back: tasks that were enqueued before others, at a later time, are found by that time."""
    store.enqueue([Task("a", "add")], 9.0, PRODUCER)
    store.enqueue([Task("b", "add")], 3.0, PRODUCER)
    assert [task.id for task in store.tasks(since=5.0)] == ["a"]


@pytest.mark.parametrize("older", [False, True], ids=["", "in an older layout"])
def test_damaged_task_is_counted_and_deleted(store, older):
    """A task whose function cannot be read any more is counted, wherever it goes, and deleted with its traces."""
    store.enqueue([Task("a", "add"), Task("b", "mul")], 1.0, PRODUCER)
    (task,) = start(store, "w")
    overwrite(store, "a", "call", b"\xc1")
    if older:  # the second copy of the name is not there
        (at,) = store._server.fields("a", b"at")
        overwrite(store, "a", "at", msgspec.msgpack.encode(msgspec.msgpack.decode(at)[:10]))
    store.exchange([settlement(task)], None)
    assert store.counts() == {"complete": 1, "queued": 1}
    assert store.prune(99.0) == 1
    assert store.counts() == {"queued": 1}
    assert keys(store, ":state:") == [":state:queued:mul"]


def test_rare_tasks_are_found_without_a_look_at_others(store, monkeypatch):
    """A page by function, state or time is one call that reads little more than the tasks of the page."""
    fill(store)
    calls = []
    read = store._server.read
    monkeypatch.setattr(store._server, "read", lambda name, *rest: calls.append(name) or read(name, *rest))
    assert len(store.tasks(name="rare")) == 5
    assert len(store.tasks(since=2900.0)) == 100
    assert store.tasks(name="unknown") == []
    assert calls == ["tasks"] * 3


def test_script_names_the_states_of_the_table():
    """The scripts of the look-ups know every state of the table in which a task can be stored."""
    for name in ("counts", "tasks", "state_sets"):
        assert "$" not in scripts.script(name).text
