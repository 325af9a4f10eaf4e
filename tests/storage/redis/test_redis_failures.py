"""The Redis adapter on lost connections, restarted servers and forks."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import settings
from support.forks import check_forks_beside_threads, check_writes_after_fork, ignore_fork_warning
from support.profiles import examples
from support.redis_server import (
    SERVER,
    connected,
    delete_test_keys,
    open_store,
    private_server,
    redis_store_url,
    unused_prefix,
)
from support.stores import PATIENCE, PRODUCER, await_task, completed, disturbed, elsewhere, produce, settlement, start

from lifecycle.core.table import FAIL, START
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, StorageUnavailable
from lifecycle.storage import open_storage
from lifecycle.storage.base import Channel, ClaimRequest
from lifecycle.storage.redis.connection import CommandRefused, ConnectionLost, RedisConnection
from lifecycle.testing.storage_spec.spec import StorageSpec

pytestmark = pytest.mark.usefixtures("redis_url")


@pytest.fixture
def where():
    """URL of an empty store that does not wait for a lost connection."""
    return redis_store_url(patience=0)


@pytest.fixture
def storage(where):
    """That store. The server knows the scripts, and has looked for tasks of an older release."""
    with closing(open_storage(where, "default")) as store:
        store.exchange((), ClaimRequest("w", 0.0, 1.0))
        yield store


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A private server."""
    with private_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def theirs(private):
    """An empty store on the private server, which waits for lost connections."""
    with closing(open_storage(redis_store_url(url=private.url), "default")) as store:
        yield store


# Cut connections ---------------------------------------------------------------------------------------------------


class Cuts:
    """Loses the connection at calls of a script: before they are sent, or after they have happened."""

    def __init__(self, monkeypatch, *, after, every=1):
        self.on, self.lost, self._after, self._every = False, 0, after, every
        self._calls = 0
        send, answer, cuts = RedisConnection.send, RedisConnection.receive, self

        def cut(wire, command):
            wire.doomed = cuts.next(command)
            if wire.doomed == "before":
                cuts.lose(wire)
            send(wire, command)

        def hear(wire):
            said = answer(wire)
            if getattr(wire, "doomed", None):
                wire.doomed = None
                cuts.lose(wire)
            return said

        monkeypatch.setattr(RedisConnection, "send", cut)
        monkeypatch.setattr(RedisConnection, "receive", hear)

    def next(self, command):
        """Return whether to lose the connection before or after this call; ``None``: do not."""
        if not self.on or b"EVAL" not in command[:20]:
            return None
        self._calls += 1
        if self._calls % self._every:
            return None
        self.on = self._every > 1
        return self._after if isinstance(self._after, str) else ("before", "after")[self._after]

    def lose(self, wire):
        """Lose the connection."""
        self.lost += 1
        wire.close()
        error = ConnectionLost("the cable was cut")
        error.sent = True
        raise error


cuts = pytest.mark.parametrize("after", [False, True], ids=["before it is sent", "after it has happened"])


class LossySpec(StorageSpec):
    """The Redis adapter on connections that are lost all the time."""

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


@pytest.mark.untraced
@pytest.mark.parametrize("after", ["before", "after"])
def test_spec_holds_on_lost_connections(monkeypatch, after):
    """The whole spec holds, ranks, limits and holds included, though every third call or answer is lost."""
    lossy = Cuts(monkeypatch, after=after, every=3)
    lossy.on = True
    case = LossySpec.TestCase
    case.settings = settings(case.settings, max_examples=examples(4))
    case("test_adapter_and_model_agree").debug()
    assert lossy.lost > 100


@cuts
def test_exchange_with_a_lost_answer_can_be_repeated(storage, monkeypatch, after):
    """An exchange that may or may not have happened can be asked for again: nothing is lost, or done twice."""
    storage.enqueue([Task(task_id, "add", retries=1) for task_id in "abcdef"], 1.0, PRODUCER)
    cut = Cuts(monkeypatch, after=after)
    a, b = start(storage, limit=2)
    follow_up = Task("z", "add", priority=-1)
    done = [settlement(a, result=b"1", follow_ups=(follow_up,)), settlement(b, FAIL)]
    claimant = ClaimRequest("w", 7.0, 10.0, limit=2)
    cut.on = True
    with pytest.raises(StorageUnavailable, match=r"lost.*look whether it was made"):
        storage.exchange(done, claimant)
    assert (a.version, b.version, follow_up.seq) == (2, 2, None), "objects are as they were"
    took, claims = storage.exchange(done, claimant)
    assert took == [True, True]
    assert [(claim.task.id, claim.move.path) for claim in claims] == [("b", (START,)), ("c", (START,))]
    assert (a.version, b.version) == (2, 2), "objects are as they were"
    assert [storage.get(task.id).version for task in (a, b, follow_up)] == [3, 6, 1]
    assert follow_up.seq is not None
    for claim in claims:
        claim.move.apply(claim.task)
    took, claims = storage.exchange([completed(claim.task) for claim in claims], claimant._replace(limit=9))
    assert took == [True, True]
    assert [claim.task.id for claim in claims] == ["d", "e", "f", "z"]
    assert {task.id: task.attempt for task in storage.tasks()} == dict.fromkeys("acdefz", 1) | {"b": 2}
    assert not storage._in_doubt


@cuts
def test_exchange_with_a_lost_answer_can_be_repeated_in_parts(storage, monkeypatch, after):
    """What was settled and what was claimed in one lost call can be asked for one after the other."""
    storage.enqueue([Task(task_id, "add") for task_id in "abc"], 1.0, PRODUCER)
    cut = Cuts(monkeypatch, after=after)
    a, b = start(storage, limit=2)
    done = [completed(a), completed(b)]
    cut.on = True
    with pytest.raises(StorageUnavailable):
        storage.exchange(done, ClaimRequest("w", 7.0, 10.0))
    assert storage.exchange(done[:1], None)[0] == [True]
    assert [task.id for task in start(storage, "w", now=8.0)] == ["c"]
    assert storage.exchange(done[1:], None)[0] == [True]
    assert storage.exchange(done, None)[0] == [False, False], "they are settled"
    assert storage.counts() == {"complete": 2, "executing": 1}
    assert not storage._in_doubt


@cuts
def test_lost_claim_is_returned_to_its_worker(storage, monkeypatch, after):
    """What a worker claimed and did not hear of is its own at its next call, though others have moved some of it."""
    storage.enqueue([Task(task_id, "add") for task_id in "abc"], 1.0, PRODUCER)
    cut = Cuts(monkeypatch, after=after)
    claimant = ClaimRequest("w", 5.0, 10.0, limit=2)
    cut.on = True
    with pytest.raises(StorageUnavailable):
        storage.exchange((), claimant)
    assert storage.extend(["w"], 50.0) == (2 if after else 0)
    other = start(storage, "another")
    assert [task.id for task in other] == ["c" if after else "a"]
    _, claims = storage.exchange((), claimant)
    assert [claim.task.id for claim in claims] == (["a", "b"] if after else ["b", "c"])
    assert {claim.move.lease for claim in claims} == {50.0 if after else 15.0}
    for task, move in claims:
        move.apply(task)
    assert storage.exchange([completed(task) for task, _ in claims], None)[0] == [True, True]


def test_lost_claim_that_was_recovered_is_not_returned(storage, monkeypatch):
    """What was recovered meanwhile is not the worker's any more that never heard of it."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    cut = Cuts(monkeypatch, after=True)
    cut.on = True
    with pytest.raises(StorageUnavailable):
        start(storage, "w")
    storage.recover(99.0, PRODUCER)
    [mine] = start(storage, "another", now=99.0)
    assert start(storage, "w", now=99.0) == []
    assert storage.exchange([completed(mine)], None)[0] == [True]


def test_enqueue_with_a_lost_answer_says_that_the_outcome_is_unknown(storage, monkeypatch):
    """An enqueue that may have happened says so; the same id tells, as it is taken or not."""
    cut = Cuts(monkeypatch, after=True)
    cut.on = True
    with pytest.raises(StorageUnavailable, match="look whether it was made"):
        storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert storage.get("a") is not None


def test_call_that_was_given_up_changes_nothing_later(storage, monkeypatch):
    """A call that is still on its way when its worker asks what became of it comes too late, and changes nothing."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    cut, send, held_up = Cuts(monkeypatch, after=False), RedisConnection.send, []
    monkeypatch.setattr(RedisConnection, "send", lambda wire, command: held_up.append(command) or send(wire, command))
    cut.on = True
    with pytest.raises(StorageUnavailable):
        start(storage, "w")
    late = held_up[-1]
    (doubt,) = storage._in_doubt._unresolved
    assert storage._server.resolve(doubt.connection) is None, "it has not happened"
    wire = storage._server.connected()
    wire.send(late)
    with pytest.raises(CommandRefused) as refused:
        wire.receive()
    assert refused.value.code == "LATE"
    wire.close()
    assert storage.get("a").attempt == 0


def test_answers_are_kept_for_a_day(storage):
    """The answers that a process left behind that was gone for a day are forgotten; those of others are kept."""
    storage.counts()
    answers = f"{storage._server.prefix}:answers"
    with connected(SERVER) as db:
        now = db.time()[0]
        db.hset(answers, mapping={f"{now - 90_000}-a": "x" * 17, f"{now - 80_000}-b": "x" * 17, "nonsense": "x"})
        storage.recover(1.0, PRODUCER)
        left = {name.decode() for name in db.hkeys(answers)}
    (line,) = storage._server._free
    assert left == {f"{now - 80_000}-b", line.name}


# The server is restarted, cut off, told to forget ------------------------------------------------------------------


def test_killed_server_loses_and_repeats_no_task(private, theirs):
    """While the server is killed and restarted, again and again, no task is lost, and none is run or accepted twice."""
    disturbed(theirs, private.restart, times=5, total=1500)


def test_killed_connections_lose_and_repeat_no_task(private, theirs):
    """While an administrator ends connections, again and again, no task is lost, and none is run or accepted twice."""
    with connected(private.url) as db:
        disturbed(theirs, lambda: db.execute_command("CLIENT KILL TYPE normal SKIPME yes"), times=30)


def test_flushed_scripts_are_loaded_again(private, theirs):
    """A server that is told to forget its scripts learns them anew, before anybody hears of it."""
    with connected(private.url) as db:
        disturbed(theirs, db.script_flush, times=30)
        theirs.counts()
        db.script_flush()
        assert theirs.counts() == {"complete": 600}


def test_killed_listener_is_replaced(private, theirs):
    """Whoever waits hears of others' news also after the connection that listens was ended."""
    theirs.wait(Channel.WORK, theirs.generation(Channel.WORK), 0.05)
    where = redis_store_url(theirs._server.settings.prefix, url=private.url)
    with connected(private.url) as db:
        for task_id in "a", "b":
            with ThreadPoolExecutor(1) as pool:
                seen = pool.submit(await_task, theirs, task_id)
                db.execute_command("CLIENT KILL TYPE pubsub")
                with elsewhere(produce, where, task_id) as process:
                    assert seen.result(PATIENCE)
            assert process.returncode == 0


def test_process_subscribes_only_while_it_waits(storage, where):
    """Only who waits, or has a moment ago, is told of others' news, of the channel it waits for; its own it knows."""

    def listeners(channel):
        with connected(SERVER) as db:
            return dict(db.pubsub_numsub(f"{storage._server.prefix}:{channel.value}")).popitem()[1]

    storage.counts()
    assert [listeners(channel) for channel in Channel] == [0, 0]
    with ThreadPoolExecutor(1) as pool:
        generation = storage.generation(Channel.OUTCOME)
        assert pool.submit(storage.wait, Channel.OUTCOME, generation, PATIENCE).result(PATIENCE), (
            "it looks again at once"
        )
    assert [listeners(Channel.WORK), listeners(Channel.OUTCOME)] == [0, 1]
    with closing(open_storage(where, "default")) as other:
        generation = storage.generation(Channel.OUTCOME)
        other.enqueue([Task("a", "add")], 1.0, PRODUCER)
        other.exchange([completed(task) for task in start(other)], None)
        storage.wait(Channel.OUTCOME, generation, PATIENCE)
        assert storage.generation(Channel.OUTCOME) != generation, (
            "a wait ends after some seconds anyway: it has to be told"
        )


def test_call_to_a_lost_server_ends_after_the_patience(tmp_path):
    """A call to a server that is gone is given up when patience is over, and works once there is one again."""
    with (
        private_server(tmp_path) as server,
        closing(open_storage(redis_store_url(url=server.url, patience=0.2), "q")) as storage,
    ):
        storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
        server.kill()
        for use in (storage.counts, lambda: storage.exchange((), ClaimRequest("w", 1.0, 9.0)), storage.next_due):
            with pytest.raises(StorageUnavailable, match=r"cannot be reached|was lost"):
                use()
        server.start()
        assert [task.id for task in start(storage)] == ["a"]


def test_close_ends_a_call_that_waits_for_the_server(tmp_path):
    """Who waits for a server to come back waits no longer once the store is closed."""
    with (
        private_server(tmp_path) as server,
        closing(open_storage(redis_store_url(url=server.url, patience=PATIENCE), "q")) as it,
    ):
        it.counts()
        server.kill()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(it.counts)
            it.close()
            with pytest.raises(StorageError, match="closed"):
                waiting.result(PATIENCE / 2)


def test_call_waits_for_a_server_that_is_a_replica(private, theirs):
    """A server that takes no writes, as in the midst of a failover, is waited for; who has no patience is told."""
    theirs.enqueue([Task("a", "add")], 1.0, PRODUCER)
    hasty = redis_store_url(theirs._server.settings.prefix, url=private.url, patience=0)
    with connected(private.url) as db, closing(open_storage(hasty, "default")) as other, ThreadPoolExecutor(1) as pool:
        db.replicaof("127.0.0.1", "1")
        with pytest.raises(StorageUnavailable, match=r"READONLY .*nothing was changed, it can be tried again"):
            start(other)
        waiting = pool.submit(start, theirs)
        with pytest.raises(TimeoutError):
            waiting.result(0.1)
        db.replicaof("NO", "ONE")
        assert [task.id for task in waiting.result(PATIENCE)] == ["a"]


def test_old_connection_gets_a_new_name(storage, monkeypatch):
    """A connection that is kept for long gets a new name now and then: its answers are not taken for those of one that is gone."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    (line,) = storage._server._free
    before = line.name
    monkeypatch.setattr("lifecycle.storage.redis.server.CONNECTION_NAME_SECONDS", -1.0)
    assert [task.id for task in start(storage)] == ["a"]
    assert line.name not in ("", before)


# Forks -------------------------------------------------------------------------------------------------------------


@ignore_fork_warning
@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("first", ["parent", "child"])
def test_parent_and_child_go_on_after_a_fork(storage, where, watched, first):
    """After a fork parent and child go on with the same store, each on connections of its own, also once one is gone."""
    check_writes_after_fork(storage, where, watched, first)


@ignore_fork_warning
def test_fork_beside_busy_threads(storage):
    """A fork while other threads write and wait leaves child and parent a store that works."""
    check_forks_beside_threads(storage)
