"""What the Redis adapter keeps to: the spec, and where the world is less kind."""

import itertools
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from copy import copy

import attrs
import msgspec
import pytest
from hypothesis import settings
from redis.crc import key_slot
from support.processes import until
from support.profiles import examples
from support.redis_server import SERVER, a_prefix, a_server, clear_away, connected, keys, opened, overwrite, told_redis
from support.stores import PRODUCER, settlement, start

from lifecycle import LIFECYCLE, ConfigurationError, Kind, TaskQueue
from lifecycle.clock import SystemClock
from lifecycle.core.policies import Revocation
from lifecycle.core.table import FAIL
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, StorageFull, StorageUnavailable, StorageUnusable
from lifecycle.storage import open_storage
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget, Settlement
from lifecycle.storage.redis import scripts as redis_script
from lifecycle.storage.redis.connection import RedisConnection
from lifecycle.storage.redis.rows import new_task_argument
from lifecycle.testing.storage_spec.reference_storage import fields
from lifecycle.testing.storage_spec.spec import StorageSpec
from lifecycle.testing.storage_spec.strategies import FUNCTIONS, IDS

pytestmark = pytest.mark.usefixtures("redis_url")

# The spec --------------------------------------------------------------------------------------------------------


class RedisSpec(StorageSpec):
    """The Redis adapter; on the same server is another queue, with the same ids, that nothing must happen to."""

    @classmethod
    def open_storage(cls):
        cls.prefix = a_prefix()
        return opened(cls.prefix)

    @classmethod
    def reopen(cls, storage):
        return opened(cls.prefix)

    def teardown(self):
        super().teardown()
        clear_away(self.prefix)


def contents(prefix):
    """All that is there, but for the answers that are remembered."""
    with connected(SERVER) as db:
        return {key: db.dump(key) for key in keys(db, prefix) if not key.endswith(b":answers")}


@pytest.fixture(scope="class")
def neighbour():
    """Makes the other queue, and looks in the end whether it is as it was."""
    name = a_prefix()
    other = opened(name)
    other.enqueue([Task(one, "add", eta=None if one in "ace" else 900.0) for one in IDS], 1.0, PRODUCER)
    ended, *_ = start(other, "w1", limit=7)
    other.exchange([settlement(ended, FAIL, retry=False)], None)
    for key, function in itertools.product(IDS[:2] + FUNCTIONS, (True, False)):
        other.revoke(RevocationTarget(function, key), Revocation(once=True), 1.0)
    other.lock(Lock("L", "x", 9.0, "w1", "a"), 1.0)
    other.close()
    before = contents(name)
    assert len(before) > len(IDS)
    yield
    assert contents(name) == before


@pytest.mark.untraced
@pytest.mark.usefixtures("neighbour")
class TestRedis(RedisSpec.TestCase):
    """The spec, on Redis."""


TestRedis.settings = settings(TestRedis.settings, max_examples=examples(20))


@pytest.fixture
def storage(redis_url):
    """An empty store."""
    with closing(opened(a_prefix())) as store:
        yield store


# The URL -----------------------------------------------------------------------------------------------------------

BAD_URLS = {
    "redis://host/app": "the path of a redis URL is the number of a database",
    "redis://host/-1": "the path of a redis URL is the number of a database",
    "redis://host:port/0": "the port in a redis URL is none",
    "redis://host:99999/0": "the port in a redis URL is none",
    "redis://host/0?pool=9": "no option pool in a redis URL: there are prefix, timeout and patience",
    "redis://host/0?ssl_ca_certs=a.pem": "no option ssl_ca_certs in a redis URL.* with rediss:// ssl_ca_certs",
    "redis://host/0?timeout=0": "timeout in a redis URL: it takes seconds, more than 0",
    "redis://host/0?timeout=nan": "timeout in a redis URL: it takes seconds",
    "redis://host/0?patience=-1": "patience in a redis URL: it takes seconds, 0 or more",
    "redis://host/0?patience=hunter2": "patience in a redis URL: it takes seconds, 0 or more",
    "redis://host/0?prefix=": "prefix in a redis URL: it takes letters",
    "redis://host/0?prefix=a:b": "prefix in a redis URL: it takes letters",
    "rediss://host/0?ssl_check_hostname=maybe": "ssl_check_hostname in a redis URL: it takes yes or no",
    "rediss://host/0?ssl_cert_reqs=hunter2": "ssl_cert_reqs in a redis URL: it takes none, optional or required",
    "redis://:hunter2@host/0#1": "there is a #",
    "redis://:hunter2@[::1/0": "no URL of a store",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls(url):
    """A URL that cannot be right is refused when the queue is declared, in words that say what is, without its parts."""
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]) as caught:
        TaskQueue(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_what_a_url_says():
    """User, password, host, port, database and options are taken as they are meant; what is left out has a default."""
    place = open_storage("rediss://me:p%40ss@h:7/3?timeout=2&patience=0&prefix=shop&ssl_check_hostname=no", "q")._server
    expected = {
        "host": "h", "port": 7, "db": 3, "username": "me", "password": "p@ss", "socket_timeout": 2.0,
        "ssl_check_hostname": False,
    }  # fmt: skip
    assert expected.items() <= place.settings.parameters.items()
    assert (place.settings.tls, place.settings.patience, place.prefix) == (True, 0.0, "{shop:q}")
    plain = open_storage("redis://", "q")._server
    expected = {"host": "127.0.0.1", "port": 6379, "db": 0, "username": None, "password": None}
    assert expected.items() <= plain.settings.parameters.items()
    assert (plain.settings.tls, plain.prefix) == (False, "{lifecycle:q}")
    assert "p@ss" not in repr(place.settings)


def test_no_driver(monkeypatch):
    """Without the driver the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"needs redis-py 5 .*pip install 'task-lifecycle\[redis\]'"):
        TaskQueue("redis://host/0")


def test_names_of_queues(redis_url):
    """Queues are apart, whatever they are called, each in one slot of a cluster, the keys of its tasks included."""
    prefix, names = a_prefix(), ("a", "A", "a\0", "a}", "a}:task:{b", "a%7D", "{", "x" * 2000)
    for name in names:
        with closing(opened(prefix, name)) as storage:
            assert storage.counts() == {}
            storage.enqueue([Task(task_id, "add", eta=900.0) for task_id in ("a", "}{")], 1.0, PRODUCER)
            start(storage, limit=2)
            storage.enqueue([Task("b", "add")], 1.0, PRODUCER)
            storage.lock(Lock("L", "x", 9.0), 1.0)
            assert storage.counts() == {"queued": 1, "scheduled": 2}
    with connected(SERVER) as db:
        slots = {
            name: {key_slot(key) for key in keys(db, prefix) if key.startswith(name_of(prefix, name))} for name in names
        }
    assert {len(mine) for mine in slots.values()} == {1}


def name_of(prefix, queue):
    return redis_script.key_prefix(prefix, queue).encode()


# The server --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A server of our own, which can be told anything; `limited` may do what docs/redis.md asks for, and no more."""
    folder = tmp_path_factory.mktemp("redis")
    rights = "~{test-* &{test-* -@all +@read +@write +@scripting +@pubsub +@connection +info +time"
    users = [("limited", rights), ("blind", rights.replace(" +info", ""))]
    options = [part for name, may in users for part in ("--user", name, "on", ">secret", *may.split())]
    with a_server(folder, *options) as server:
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
    with closing(open_storage(told_redis(url=private.url), "q")) as storage:
        yield storage


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_server_that_evicts(theirs, told_to, policy):
    """A server that throws keys away when its memory is full is refused, with the reason."""
    told_to("maxmemory-policy", policy)
    for use in (theirs.counts, lambda: theirs.enqueue([Task("a", "add")], 1.0, PRODUCER)):
        with pytest.raises(StorageUnusable, match=f"maxmemory-policy is {policy}: .* deletes tasks; set it to"):
            use()
    told_to("maxmemory-policy", "noeviction")
    assert theirs.counts() == {}


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl"])
def test_a_server_that_keeps_what_has_no_end(private, theirs, told_to, policy):
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
def test_a_server_that_does_not_say(private, caplog, user):
    """A server that does not tell its policy is taken, and a warning says once what to see to."""
    url = private.url.replace("//", f"//{user}:secret@")
    with closing(open_storage(told_redis(url=url), "q")) as storage:
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


def test_an_old_server(redis_url, monkeypatch):
    """A server that lacks what scripts need is refused, with its version."""
    say = RedisConnection.call
    old = b"# Server\r\nredis_version:6.0.16\r\n"
    monkeypatch.setattr(RedisConnection, "call", lambda wire, *words: old if words[0] == "INFO" else say(wire, *words))
    with closing(opened(a_prefix())) as storage, pytest.raises(StorageUnusable, match=r"6\.0\.16 is too old: 6\.2"):
        storage.counts()


def test_not_let_in(private, caplog):
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
        with closing(open_storage(told_redis(url=url), "q")) as storage:
            for use in (storage.counts, lambda: storage.enqueue([Task("a", "add")], 1.0, PRODUCER)):
                with pytest.raises(kind, match=words) as caught:
                    use()
                assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(storage)


def test_no_memory_left(theirs, told_to):
    """Without memory nothing new is taken, and nothing changes, in the store or in an object; what ends is stored."""
    theirs.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    [running] = start(theirs)
    new, follow_up = Task("c", "add"), Task("d", "add")
    before = [fields(task) for task in theirs.tasks()]
    told_to("maxmemory", "1")
    for write in (
        lambda: theirs.enqueue([new], 2.0, PRODUCER),
        lambda: theirs.exchange((), ClaimRequest("w", 7.0, 10.0)),
        lambda: theirs.extend(["w"], 99.0),
        lambda: theirs.revoke(RevocationTarget(function=False, key="b"), Revocation(), 1.0),
    ):
        with pytest.raises(StorageFull, match="nothing was changed: give the server more memory"):
            write()
        assert [fields(task) for task in theirs.tasks()] == before
        assert (new.version, new.seq) == (0, None)
    assert theirs.exchange([settlement(running, result=b"1", follow_ups=(follow_up,))], None) == ([True], [])
    told_to("maxmemory", "0")
    theirs.enqueue([new], 2.0, PRODUCER)
    assert theirs.counts() == {"queued": 3, "complete": 1}
    assert theirs.revocation(RevocationTarget(function=False, key="b")) is None


def test_a_cluster(tmp_path):
    """In a cluster a queue is found on the node that has its slot, whichever node the URL names."""
    with ExitStack() as stack:
        here, there = (
            stack.enter_context(a_server(tmp_path / name, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000"))
            for name in ("here", "there")
        )
        with connected(here.url) as one, connected(there.url) as other:
            one.execute_command("CLUSTER ADDSLOTSRANGE 0 8191")
            other.execute_command("CLUSTER ADDSLOTSRANGE 8192 16383")
            one.execute_command(f"CLUSTER MEET 127.0.0.1 {there.port}")
            until(lambda: {db.execute_command("CLUSTER INFO")["cluster_state"] for db in (one, other)} == {"ok"})
            for name in "abcd":
                for url in (here.url, there.url):
                    with closing(open_storage(told_redis("shop", url=url), name)) as storage:
                        storage.enqueue([Task(url, "add")], 1.0, PRODUCER)
                        storage.exchange([settlement(task) for task in start(storage)], None)
                        there_now = storage.counts()
                assert there_now == {"complete": 2}
            assert min(one.dbsize(), other.dbsize()) > 0, "each has queues of its own"


# What somebody may do by hand --------------------------------------------------------------------------------------

STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]


@pytest.mark.parametrize("source", STORED)
def test_steps_that_the_table_does_not_have(storage, source):
    """A script takes no task where the table has no way, whatever it is told to do; nothing of that call happens."""
    storage.enqueue([Task("a", "add"), Task("b", "add"), Task("d", "add")], 1.0, PRODUCER)
    known, other = start(storage, limit=2)
    at = msgspec.msgpack.decode(stored(storage, "a", "at"))
    overwrite(storage, "a", "at", msgspec.msgpack.encode([source, *at[1:]]))
    known.state = source
    for state in LIFECYCLE.states:
        if state in LIFECYCLE.steps[source]:
            continue
        move = attrs.evolve(settlement(storage_copy(known, "executing")).move, states=(state,))
        with pytest.raises(StorageError, match=f"ILLEGAL from {source} to {state}; nothing was changed"):
            storage.exchange([settlement(other), Settlement(known, move)], ClaimRequest("w", 9.0, 9.0))
        with pytest.raises(StorageError, match=f"ILLEGAL no task is born {state}"):
            if state in LIFECYCLE.steps[None]:
                raise StorageError(f"ILLEGAL no task is born {state}")
            storage._server.write("enqueue", [new_task_argument(Task("c", "add"), attrs.evolve(move, result=None))])
    assert [storage.get(task_id).version for task_id in "bd"] == [2, 1]
    assert storage.get("c") is None


def storage_copy(known, state):
    """A copy in another state."""
    other = copy(known)
    other.state = state
    return other


def stored(storage, task_id, field):
    with connected(SERVER) as db:
        return db.hget(f"{storage._server.prefix}:task:{task_id}", field)


DAMAGE = {
    "gone": (None, None),
    "no state": ("at", b"\x90"),
    "nonsense": ("at", b"nonsense"),
    "a state that there is not": ("at", msgspec.msgpack.encode(["nowhere", 1, "w", 1, 0, 0, 0, False, False, False])),
    "no call": ("call", b""),
    "another call": ("call", b"\x91\x01"),
}


@pytest.mark.parametrize("due", [None, 2.0], ids=["ready", "scheduled"])
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_tasks(storage, caplog, case, due):
    """A task that somebody has damaged stops nobody: it is set aside, that is said, and the others are run."""
    storage.enqueue([Task(task_id, "add", eta=due) for task_id in "abc"], 1.0, PRODUCER)
    if due:
        storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=3))
    field, data = DAMAGE[case]
    if field:
        overwrite(storage, "b", field, data)
        with pytest.raises(StorageError, match="task b: the stored row is damaged"):
            storage.get("b")
    else:
        with connected(SERVER) as db:
            db.delete(f"{storage._server.prefix}:task:b")
        assert storage.get("b") is None
    tasks = start(storage, limit=2)
    assert [task.id for task in tasks] == ["a", "c"]
    assert "quarantined a damaged task: id=b" in caplog.text
    assert {task.id for task in storage.tasks()} == {"a", "c"}
    assert storage.exchange([settlement(task) for task in tasks], None)[0] == [True, True]
    assert storage.next_due() is None
    assert storage.recover(99.0, PRODUCER) == []
    storage.flush()
    with connected(SERVER) as db:
        assert {key.rpartition(b":")[2] for key in keys(db, storage._server.settings.prefix)} == {b"seq", b"answers"}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_while_it_runs(storage, case):
    """A running task of which nobody knows where it stands is settled by nobody; what cannot be read is not recovered."""
    storage.enqueue([Task(task_id, "add") for task_id in "ab"], 1.0, PRODUCER)
    tasks = start(storage, limit=2)
    field, data = DAMAGE[case]
    with connected(SERVER) as db:
        key = f"{storage._server.prefix}:task:b"
        db.hset(key, field, data) if field else db.delete(key)
    stands = field == "call"
    assert storage.extend(["w"], 50.0) == 1 + stands
    assert storage.exchange([settlement(tasks[1], FAIL, retry=True)], None)[0] == [False]
    assert [claim.task.id for claim in storage.recover(99.0, PRODUCER)] == ["a"]
    assert storage.recover(99.0, PRODUCER) == []
    storage.flush()
    with connected(SERVER) as db:
        assert {key.rpartition(b":")[2] for key in keys(db, storage._server.settings.prefix)} == {b"seq", b"answers"}


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\\", "\r\n", '"', "{a}", "%d", "'", "\n\t", "\U0001f40c", "", "|", ":"]
)
def test_texts(storage, text):
    """Any text can be a name, an owner, a worker or a key: it comes back as it went in, and is found."""
    storage.lock(Lock(text, text, 9.0, text, text), 1.0)
    assert storage.locks(1.0) == [Lock(text, text, 9.0, text, text)]
    assert storage.unlock(text, text)
    for function in (True, False):
        storage.revoke(RevocationTarget(function, text), Revocation(5.0), 1.0)
        assert storage.revocation(RevocationTarget(function, text)) == Revocation(5.0)
        assert storage.restore(RevocationTarget(function, text), 1.0)
    storage.enqueue([Task(text, text, text.encode())], 1.0, Actor(text))
    [task] = start(storage, text)
    assert (task.id, task.name, task.worker, task.payload) == (text, text, text, text.encode())
    assert storage.extend([text], 50.0) == 1
    assert storage.exchange([settlement(task, FAIL, result=text.encode())], None) == ([True], [])
    assert storage.status(text).result == text.encode()
    assert [record.worker for record in storage.history(text)] == [text] * 3


def test_pages(storage):
    """More tasks than are read in one call come in the same order, each once, of the states that are asked for."""
    storage.enqueue([Task(str(n), "add") for n in range(1200)], 1.0, PRODUCER)
    start(storage, limit=100)
    assert [int(task.id) for task in storage.tasks(limit=5000)] == [*range(1199, -1, -1)]
    assert [int(task.id) for task in storage.tasks(limit=1001)] == [*range(1199, 198, -1)]
    assert [int(task.id) for task in storage.tasks(["executing"], limit=5000)] == [*range(99, -1, -1)]
    assert storage.tasks([], limit=5000) == []
