"""Redis servers that a queue accepts or refuses, and what it does without memory and in a cluster."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from support.consumers import Blocker, running
from support.processes import LEASE, settled, states, until
from support.redis_server import connected, keys, open_store, private_server, redis_store_url, unused_prefix
from support.stores import PRODUCER, settlement, start

from lifecycle import TaskQueue
from lifecycle.clock import SystemClock
from lifecycle.core.policies import Revocation
from lifecycle.core.task import Task
from lifecycle.errors import StorageFull, StorageRefused, StorageUnavailable, StorageUnusable
from lifecycle.storage import open_storage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget
from lifecycle.storage.redis.connection import RedisConnection
from lifecycle.testing.storage_spec.reference_storage import fields

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A server of our own, which can be told anything; `limited` may do what docs/stores/redis.md asks for, and no more."""
    folder = tmp_path_factory.mktemp("redis")
    rights = "~{test-* &{test-* -@all +@read +@write +@scripting +@pubsub +@connection +info +time"
    users = [("limited", rights), ("blind", rights.replace(" +info", ""))]
    options = [part for name, may in users for part in ("--user", name, "on", ">secret", *may.split())]
    with private_server(folder, *options) as server:
        yield server


@pytest.fixture
def told_to(private):
    """Sets what the server is configured to do; afterwards it is as before."""
    with connected(private.url) as db:
        before = db.config_get("maxmemory*")
        yield lambda name, value: db.config_set(name, value)
        for name in ("maxmemory", "maxmemory-policy"):
            db.config_set(name, before[name])


@pytest.fixture
def theirs(private):
    """An empty store there."""
    with closing(open_storage(redis_store_url(url=private.url), "q")) as storage:
        yield storage


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_evicting_server_is_refused(theirs, told_to, policy):
    """A server that throws keys away when its memory is full is refused, with the reason."""
    told_to("maxmemory-policy", policy)
    for use in (theirs.counts, lambda: theirs.enqueue([Task("a", "add")], 1.0, PRODUCER)):
        with pytest.raises(StorageUnusable, match=f"maxmemory-policy is {policy}: .* deletes tasks; set it to"):
            use()
    told_to("maxmemory-policy", "noeviction")
    assert theirs.counts() == {}


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_volatile_policies_are_accepted_since_no_key_expires(private, theirs, told_to, policy):
    """A server that throws away only what has an end is taken: no key of a queue has one."""
    told_to("maxmemory-policy", policy)
    theirs.enqueue([Task(task_id, "add", eta=eta) for task_id, eta in (("a", None), ("b", 9.0))], 1.0, PRODUCER)
    theirs.lock(Lock("L", "x", 9.0, "w"), 1.0)
    theirs.revoke(RevocationTarget(function=True, key="mul"), Revocation(5.0), 1.0)
    theirs.exchange([settlement(task) for task in start(theirs, limit=2)], None)
    with connected(private.url) as db:
        names = keys(db, theirs._server.settings.prefix)
        assert len(names) > 8
        assert {db.ttl(name) for name in names} == {-1}


@pytest.mark.parametrize("user", ["limited", "blind"])
def test_server_that_hides_its_policy_is_accepted_with_a_warning(private, caplog, user):
    """A server that does not tell its policy is taken, and a warning says once what to see to."""
    url = private.url.replace("//", f"//{user}:secret@")
    with closing(open_storage(redis_store_url(url=url), "q")) as storage:
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
        [task] = start(storage)
        storage.exchange([settlement(task)], None)
        storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.01)
        assert abs(storage.clock().now() - SystemClock.now()) < 60
        storage.recover(99.0, PRODUCER)
        storage.flush()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: storage.counts(), range(40)))
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert "make sure that it is noeviction" in warnings[0]
    assert "secret" not in warnings[0]


def test_old_server_is_refused(redis_url, monkeypatch):
    """A server that lacks what scripts need is refused, with its version."""
    say = RedisConnection.call
    old = b"# Server\r\nredis_version:6.0.16\r\n"
    monkeypatch.setattr(RedisConnection, "call", lambda wire, *words: old if words[0] == "INFO" else say(wire, *words))
    with (
        closing(open_store(unused_prefix())) as storage,
        pytest.raises(StorageUnusable, match=r"6\.0\.16 is too old: 6\.2"),
    ):
        storage.counts()


def test_failed_connection_is_explained_without_the_password(private, caplog):
    """Where the server does not let us in the error says why, and never what the password is."""
    cases = {
        "limited:hunter2@": (StorageUnusable, "look at user and password"),
        "": (StorageUnavailable, "cannot be reached, it can be tried again"),
        "no.such.host.invalid": (StorageUnavailable, "cannot be reached"),
        "a..b": (StorageUnusable, "the host in the queue's URL is not a valid host name"),
    }
    for who, (kind, words) in cases.items():
        url = (
            private.url.replace("//", f"//{who}") if who.endswith("@") else f"redis://:hunter2@{who or '127.0.0.1'}:1/0"
        )
        with closing(open_storage(redis_store_url(url=url), "q")) as storage:
            for use in (storage.counts, lambda: storage.enqueue([Task("a", "add")], 1.0, PRODUCER)):
                with pytest.raises(kind, match=words) as caught:
                    use()
                assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(storage)


def test_call_that_the_server_does_not_take_is_refused(theirs, private):
    """A call that is longer than the server's `proto-max-bulk-len` is refused at once, and later calls go on."""
    with connected(private.url) as db:
        before = db.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
        db.config_set("proto-max-bulk-len", 2**20)
        large = b"x" * 2**20
        try:
            theirs.enqueue([Task("a", "add")], 1.0, PRODUCER)
            [running] = start(theirs)
            for write in (
                lambda: theirs.enqueue([Task("b", "add"), Task("c", "add", large)], 2.0, PRODUCER),
                lambda: theirs.exchange([settlement(running, result=large)], ClaimRequest("w", 7.0, 10.0)),
            ):
                with pytest.raises(StorageRefused, match=r"the server takes 1,048,576 \(proto-max-bulk-len\)"):
                    write()
            assert theirs.counts() == {"executing": 1}
            assert theirs.exchange([settlement(running, result=large[50_000:])], None)[0] == [True]
        finally:
            db.config_set("proto-max-bulk-len", before)


def test_full_server_refuses_new_tasks_and_stores_outcomes(theirs, told_to):
    """Without memory nothing new is stored, and nothing changes, in the store or in an object; outcomes are stored."""
    theirs.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    [running] = start(theirs)
    new, follow_up = Task("c", "add"), Task("d", "add")
    before = [fields(task) for task in theirs.tasks()]
    told_to("maxmemory", "1")
    for write in (
        lambda: theirs.enqueue([new], 2.0, PRODUCER),
        lambda: theirs.exchange((), ClaimRequest("w", 7.0, 10.0)),
        lambda: theirs.lock(Lock("l", "owner", 99.0), 7.0),
        lambda: theirs.revoke(RevocationTarget(function=False, key="b"), Revocation(), 1.0),
    ):
        with pytest.raises(StorageFull, match=r"Redis is full \(maxmemory\), nothing was changed: give"):
            write()
        assert [fields(task) for task in theirs.tasks()] == before
        assert (new.version, new.seq) == (0, None)
    assert theirs.exchange([settlement(running, result=b"1", follow_ups=(follow_up,))], None) == ([True], [])
    told_to("maxmemory", "0")
    theirs.enqueue([new], 2.0, PRODUCER)
    assert theirs.counts() == {"queued": 3, "complete": 1}
    assert theirs.revocation(RevocationTarget(function=False, key="b")) is None


def test_full_server_keeps_leases_and_frees_what_it_can(theirs, told_to):
    """Without memory leases are kept, and everything that frees memory or gives something back works."""
    names, of_task = "abcdef", RevocationTarget(function=False, key="b")
    theirs.enqueue([Task(name, "add") for name in names], 1.0, PRODUCER)
    theirs.enqueue([Task("held", "add")], 1.0, Actor("handler", 50.0))
    theirs.revoke(of_task, Revocation(), 1.0)
    tasks = {task.id: task for task in start(theirs, limit=5)}
    a, c, d = tasks["a"], tasks["c"], tasks["d"]
    for name in "lm":
        theirs.lock(Lock(name, "owner", 99.0, "w"), 7.0)
    told_to("maxmemory", "1")
    assert theirs.extend(["w", "unknown"], 90.0) == len(tasks)
    assert {theirs.get(task.id).lease for task in tasks.values()} == {90.0}
    assert theirs.release([theirs.get("held")], 7.0) == [True]
    assert theirs.release([theirs.get("held")], 7.0) == [False]
    assert theirs.cancel("a")
    assert theirs.exchange([settlement(c, result=b"1")], None)[0] == [True]
    assert theirs.exchange([settlement(c, result=b"1")], None)[0] == [False], "an outcome that comes too late"
    assert len(theirs.recover(91.0, Actor("r"))) == len(tasks) - 1
    assert theirs.recover(91.0, Actor("r")) == []
    assert theirs.exchange([settlement(d, result=b"1")], None)[0] == [False]
    assert [theirs.unlock("l", owner) for owner in ("other", "owner")] == [False, True]
    assert theirs.flush_locks() == 1
    assert theirs.restore(of_task, 92.0) is False, "it was revoked"
    assert theirs.prune(1000.0) > 0
    assert theirs.get(a.id) is None
    theirs.flush()
    assert theirs.counts() == {}


def test_consumer_on_a_full_server_keeps_its_tasks(private, told_to, caplog):
    """On a full server a running task stays with its worker and its result is stored; workers and callers say why."""
    queue, blocker = TaskQueue(redis_store_url(url=private.url), lease=LEASE), Blocker()
    wait = queue.task()(blocker.run)
    with closing(queue), running(queue, 2):
        result = wait()
        blocker.wait_until_started(1)
        told_to("maxmemory", "1")
        with pytest.raises(StorageFull, match="Redis is full"):
            wait()
        begun = result.task.lease
        until(lambda: result.task.lease > begun + LEASE, "a lease that was kept for longer than a lease")
        until(lambda: "the store cannot be used" in caplog.text, "the log line")
        blocker.release()
        assert settled(queue, result) == ["complete"]
        told_to("maxmemory", "0")
        assert settled(queue, wait()) == ["complete"]
        assert states(result) == "queued executing complete"
    assert "Redis is full" in caplog.text
    assert caplog.text.count("the store cannot be used") == 1


def test_queue_is_found_in_a_cluster(tmp_path):
    """In a cluster a queue is found on the node that has its slot, whichever node the URL names."""
    with ExitStack() as stack:
        here, there = (
            stack.enter_context(
                private_server(tmp_path / name, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000")
            )
            for name in ("here", "there")
        )
        with connected(here.url) as one, connected(there.url) as other:
            one.execute_command("CLUSTER ADDSLOTSRANGE 0 8191")
            other.execute_command("CLUSTER ADDSLOTSRANGE 8192 16383")
            one.execute_command(f"CLUSTER MEET 127.0.0.1 {there.port}")
            until(lambda: {db.execute_command("CLUSTER INFO")["cluster_state"] for db in (one, other)} == {"ok"})
            for name in "abcd":
                for url in (here.url, there.url):
                    with closing(open_storage(redis_store_url("shop", url=url), name)) as storage:
                        storage.enqueue([Task(url, "add")], 1.0, PRODUCER)
                        storage.exchange([settlement(task) for task in start(storage)], None)
                        there_now = storage.counts()
                assert there_now == {"complete": 2}
            assert min(one.dbsize(), other.dbsize()) > 0, "each has queues of its own"
