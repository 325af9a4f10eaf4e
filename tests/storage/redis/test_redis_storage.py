"""The Redis adapter: the spec, illegal transitions, damaged tasks, any texts."""

import itertools
from contextlib import closing
from copy import copy

import attrs
import msgspec
import pytest
from hypothesis import settings
from redis.crc import key_slot
from support.profiles import examples
from support.redis_server import SERVER, connected, delete_test_keys, keys, open_store, overwrite, unused_prefix
from support.stores import PRODUCER, settlement, start

from lifecycle import LIFECYCLE, Kind
from lifecycle.core.policies import Revocation
from lifecycle.core.step import Step
from lifecycle.core.table import FAIL
from lifecycle.core.task import Task
from lifecycle.errors import StorageError
from lifecycle.storage.base import Actor, ClaimRequest, Lock, RevocationTarget, Settlement
from lifecycle.storage.redis import scripts as redis_script
from lifecycle.storage.redis.rows import new_task_argument
from lifecycle.testing.storage_spec.spec import StorageSpec
from lifecycle.testing.storage_spec.strategies import FUNCTIONS, IDS

pytestmark = pytest.mark.usefixtures("redis_url")

# The spec --------------------------------------------------------------------------------------------------------


class RedisSpec(StorageSpec):
    """The Redis adapter; another queue on the same server has the same ids, and must stay as it is."""

    @classmethod
    def open_storage(cls):
        cls.prefix = unused_prefix()
        return open_store(cls.prefix)

    @classmethod
    def reopen(cls, storage):
        return open_store(cls.prefix)

    def teardown(self):
        super().teardown()
        delete_test_keys(self.prefix)


def contents(prefix):
    """Return all keys with their values, without the kept answers."""
    with connected(SERVER) as db:
        return {key: db.dump(key) for key in keys(db, prefix) if not key.endswith(b":answers")}


@pytest.fixture(scope="class")
def neighbour():
    """Create the other queue, and compare it in the end."""
    name = unused_prefix()
    other = open_store(name)
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
    with closing(open_store(unused_prefix())) as store:
        yield store


def test_queues_with_any_names_are_separate(redis_url):
    """Queues are apart, whatever they are called, each in one slot of a cluster, the keys of its tasks included."""
    prefix, names = unused_prefix(), ("a", "A", "a\0", "a}", "a}:task:{b", "a%7D", "{", "x" * 2000)
    for name in names:
        with closing(open_store(prefix, name)) as storage:
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


# What somebody may do by hand --------------------------------------------------------------------------------------

STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]


@pytest.mark.parametrize("source", STORED)
def test_scripts_refuse_illegal_transitions(storage, source):
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
    "another step": ("call", msgspec.msgpack.encode(["add", 0, None, None, None, 1.0, ["a"]])),
}


@pytest.mark.parametrize("due", [None, 2.0], ids=["ready", "scheduled"])
@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_task_is_quarantined(storage, caplog, case, due):
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
def test_damaged_running_task_is_neither_settled_nor_recovered(storage, case):
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


@pytest.mark.parametrize("verdict", ["nonsense", "now later a", 1.0])
def test_step_with_a_damaged_verdict_is_quarantined(storage, caplog, verdict):
    """A step whose verdict somebody has damaged stops nobody, whoever reports to it."""
    first, second = Task("a", "add", step=Step(dependents=("b",))), Task("b", "add", step=Step("a", 1))
    storage.enqueue([first, second, Task("c", "add")], 1.0, PRODUCER)
    running = start(storage, limit=2)
    assert storage.exchange([settlement(running[0])], None) == ([True], [])
    overwrite(
        storage, "b", "at", msgspec.msgpack.encode([*msgspec.msgpack.decode(stored(storage, "b", "at"))[:11], verdict])
    )
    if isinstance(verdict, str):
        with pytest.raises(StorageError, match="task b: the stored row is damaged"):
            storage.get("b")
    assert start(storage, limit=2) == []
    assert "quarantined a damaged task: id=b" in caplog.text
    assert storage.exchange([settlement(running[1])], None) == ([True], [])


def test_task_of_its_own_is_stored_without_a_step(storage):
    """A task that is no step of a workflow takes as much room as before there were workflows, and so do its moves."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    start(storage)
    assert len(msgspec.msgpack.decode(stored(storage, "a", "call"))) == 6
    assert len(msgspec.msgpack.decode(stored(storage, "a", "at"))) == 11


@pytest.mark.parametrize("ends", ["all", "one of them, and not well", "none"])
def test_number_of_missing_ends_is_kept_until_the_verdict(storage, ends):
    """What a task waits for is counted in one place, and forgotten with the verdict, or with all tasks."""
    before = [Task(one, "add", step=Step(dependents=("d",))) for one in "abc"]
    storage.enqueue([*before, Task("d", "add", step=Step([*"abc"], 3))], 1.0, PRODUCER)
    running = start(storage, limit=3)
    key = f"{storage._server.prefix}:awaits"
    with connected(SERVER) as db:
        assert db.hgetall(key) == {b"d": b"3"}
        storage.exchange([settlement(running[0])], None)
        assert db.hgetall(key) == {b"d": b"2"}
        if ends == "all":
            storage.exchange([settlement(running[1]), settlement(running[2])], None)
        elif ends == "none":
            storage.flush()
        else:
            storage.exchange([settlement(running[1], FAIL)], None)
            assert not db.exists(key)
            storage.exchange([settlement(running[2])], None)
        assert not db.exists(key)


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\\", "\r\n", '"', "{a}", "%d", "'", "\n\t", "\U0001f40c", "", "|", ":"]
)
def test_any_text_can_be_stored_and_found(storage, text):
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


def test_tasks_of_several_pages_come_once_and_in_order(storage):
    """More tasks than are read in one call come in the same order, each once, of the states that are asked for."""
    storage.enqueue([Task(str(n), "add") for n in range(1200)], 1.0, PRODUCER)
    start(storage, limit=100)
    assert [int(task.id) for task in storage.tasks(limit=5000)] == [*range(1199, -1, -1)]
    assert [int(task.id) for task in storage.tasks(limit=1001)] == [*range(1199, 198, -1)]
    assert [int(task.id) for task in storage.tasks(["executing"], limit=5000)] == [*range(99, -1, -1)]
    assert storage.tasks([], limit=5000) == []
