"""The PostgreSQL adapter on lost connections, with many threads, and after forks."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest.mock import Mock

import pytest
from psycopg import sql
from support.forks import check_forks_beside_threads, check_writes_after_fork, ignore_fork_warning
from support.postgres import SERVER, connected, postgres_store_url, unused_name
from support.stores import PATIENCE, PRODUCER, await_task, completed, disturbed, elsewhere, produce, settlement, start

from lifecycle.core.policies import Revocation
from lifecycle.core.table import FAIL, REVOKE, START
from lifecycle.core.task import Task
from lifecycle.errors import StorageUnavailable
from lifecycle.storage import open_storage
from lifecycle.storage.base import Channel, ClaimRequest, RevocationTarget
from lifecycle.storage.postgres.listener import channel_name
from lifecycle.storage.postgres.session import ConnectionLost, ServerError, Session


@pytest.fixture
def schema():
    """Name of a schema that is not in use."""
    return unused_name()


@pytest.fixture
def where(postgres, schema):
    """The URL of an empty store."""
    return postgres_store_url(postgres, schema=schema)


@pytest.fixture
def storage(where):
    """That store."""
    with closing(open_storage(where, "default")) as store:
        yield store


@pytest.fixture
def db(postgres, schema, storage):
    """A connection for SQL that is typed by hand, in the store's schema."""
    storage.counts()
    with connected(postgres, options=f"-c search_path={schema}") as db:
        yield db


# Cut connections ---------------------------------------------------------------------------------------------------


class Cut:
    """Loses the connection at a store's next commit: before it is sent, or after it has happened."""

    def __init__(self, monkeypatch, *, after, error=None):
        self.on, self._after, self._run = False, after, Session.run
        self._error = error or ConnectionLost("the cable was cut")
        cut = self

        def run(session, *commands):
            return cut.run(session, *commands)

        monkeypatch.setattr(Session, "run", run)

    def run(self, session, *commands):
        ends = any(
            statement.sql in (b"commit",) or statement.name.startswith(b"insert_one") for statement, _ in commands
        )
        if not self.on or not ends:
            return self._run(session, *commands)
        self.on = False
        if self._after:
            self._run(session, *commands)
        session.close()
        await_end(session.pid)
        raise self._error


def await_end(pid):
    """Return when the server has undone the transaction of a lost connection."""
    with connected(SERVER) as db:
        db.execute("select pg_terminate_backend(%s, %s)", (pid, int(PATIENCE * 1000)))


cuts = pytest.mark.parametrize("after", [False, True], ids=["before it is sent", "after it has happened"])


@cuts
def test_exchange_with_a_lost_commit_can_be_repeated(storage, monkeypatch, after):
    """An exchange whose commit may or may not have happened can be asked for again: nothing is lost, or done twice."""
    storage.enqueue([Task(task_id, "add", retries=1) for task_id in "abcdef"], 1.0, PRODUCER)
    cut = Cut(monkeypatch, after=after)
    a, b = start(storage, limit=2)
    done = [completed(a), settlement(b, FAIL)]
    claimant = ClaimRequest("w", 7.0, 10.0, limit=2)
    cut.on = True
    with pytest.raises(StorageUnavailable, match=r"lost.*look whether it was made"):
        storage.exchange(done, claimant)
    assert (a.version, b.version) == (2, 2), "objects are as they were"
    took, claims = storage.exchange(done, claimant)
    assert took == [True, True]
    assert [(claim.task.id, claim.move.path) for claim in claims] == [("b", (START,)), ("c", (START,))]
    assert (a.version, b.version) == (2, 2), "objects are as they were"
    assert [storage.get(task.id).version for task in (a, b)] == [3, 6]
    for claim in claims:
        claim.move.apply(claim.task)
    took, claims = storage.exchange([completed(claim.task) for claim in claims], claimant._replace(limit=9))
    assert took == [True, True]
    assert [claim.task.id for claim in claims] == ["d", "e", "f"]
    assert {task.id: task.attempt for task in storage.tasks()} == dict.fromkeys("acdef", 1) | {"b": 2}


def test_server_that_shuts_down_during_a_commit_leaves_the_outcome_unknown(storage, monkeypatch):
    """A server that ends the connection, and says so, when the commit was on its way, has left it unknown, too."""
    storage.enqueue([Task(task_id, "add") for task_id in "ab"], 1.0, PRODUCER)
    cut = Cut(monkeypatch, after=True, error=ServerError("57P01", "terminating connection"))
    [a] = start(storage)
    done, claimant = [completed(a)], ClaimRequest("w", 7.0, 10.0)
    cut.on = True
    with pytest.raises(StorageUnavailable, match="look whether it was made"):
        storage.exchange(done, claimant)
    took, claims = storage.exchange(done, claimant)
    assert (took, [claim.task.id for claim in claims]) == ([True], ["b"])


@pytest.mark.parametrize("again", ["as it is looked up", "behind that"])
def test_exchange_stays_in_doubt_if_the_second_call_fails(storage, monkeypatch, again):
    """An exchange in doubt is still so if the call that looks it up fails as well, wherever that does."""
    storage.enqueue([Task(task_id, "add", retries=1) for task_id in "abcd"], 1.0, PRODUCER)
    cut = Cut(monkeypatch, after=True)
    a, b = start(storage, limit=2)
    done, claimant = [completed(a)], ClaimRequest("w", 7.0, 10.0)
    cut.on = True
    with pytest.raises(StorageUnavailable):
        storage.exchange(done, claimant)
    done.append(completed(b))
    with monkeypatch.context() as patch, pytest.raises(StorageUnavailable):
        cut.on = again == "as it is looked up"
        if not cut.on:
            patch.setattr(storage, "_exchange", Mock(side_effect=StorageUnavailable("gone")))
        storage.exchange(done, claimant)
    took, claims = storage.exchange(done, claimant)
    assert (took, [claim.task.id for claim in claims]) == ([True, True], ["c"])
    assert [storage.get(task.id).version for task in (a, b, claims[0].task)] == [3, 3, 2]
    assert not storage._in_doubt


@cuts
def test_lost_claim_is_returned_to_its_worker(storage, monkeypatch, after):
    """What a worker claimed and did not hear of is its own at its next call, though others have moved some of it."""
    storage.enqueue([Task(task_id, "add") for task_id in "abc"], 1.0, PRODUCER)
    cut = Cut(monkeypatch, after=after)
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
    cut = Cut(monkeypatch, after=True)
    cut.on = True
    with pytest.raises(StorageUnavailable):
        start(storage, "w")
    storage.recover(99.0, PRODUCER)
    [mine] = start(storage, "another", now=99.0)
    assert start(storage, "w", now=99.0) == []
    assert storage.exchange([completed(mine)], None)[0] == [True]


def test_enqueue_with_a_lost_commit_says_that_the_outcome_is_unknown(storage, monkeypatch):
    """An enqueue that may have happened says so; the same id tells, as it is taken or not."""
    cut = Cut(monkeypatch, after=True)
    cut.on = True
    with pytest.raises(StorageUnavailable, match="look whether it was made"):
        storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert storage.get("a") is not None


def test_terminated_connections_lose_and_repeat_no_task(storage, db):
    """While an administrator ends connections, again and again, no task is lost, and none is run or accepted twice."""
    end = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and application_name = 'lifecycle'"
    )
    disturbed(storage, lambda: db.execute(end).fetchone()[0], times=30)


def test_idle_connection_that_was_terminated_is_replaced(storage, db):
    """A connection that the server has ended while nobody used it is replaced without anybody's notice."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    for use in (
        storage.counts,
        lambda: storage.enqueue([Task("b", "add")], 1.0, PRODUCER),
        lambda: storage.get("a"),
        lambda: storage.exchange((), ClaimRequest("w", 2.0, 9.0)),
    ):
        pids = [session.pid for session in list(storage._server.pool.sessions)]
        db.execute("select pg_terminate_backend(pid, 5000) from unnest(%s::int[]) pid", [pids])
        use()


def test_terminated_listener_is_replaced(storage, where, db):
    """Whoever waits hears of others' news also after the connection that listens was ended."""
    storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.05)
    for task_id in "a", "b":
        with ThreadPoolExecutor(1) as pool:
            seen = pool.submit(await_task, storage, task_id)
            pids = [session.pid for session in list(storage._server.pool.sessions)]
            db.execute("select pg_terminate_backend(pid, 5000) from unnest(%s::int[]) pid", [pids])
            with elsewhere(produce, where, task_id) as process:
                assert seen.result(PATIENCE)
        assert process.returncode == 0


def test_notifications_are_sent_only_to_registered_listeners(storage, where, db):
    """A commit sends a notification if another process waits for such, or has a moment ago, and to a channel's own only."""
    names = {channel: channel_name(storage._server.schema, storage._server.queue_id, channel) for channel in Channel}
    for name in names.values():
        db.execute(sql.SQL("listen {}").format(sql.Identifier(name)))

    def notified_channels(task_id):
        storage.enqueue([Task(task_id, "add")], 1.0, PRODUCER)
        storage.exchange([completed(task) for task in start(storage)], None)
        return {heard.channel for heard in db.notifies(timeout=0.1)}

    storage.wait(Channel.WORK, storage.generation(Channel.WORK), 0.05)  # it need not be told what it does itself
    assert notified_channels("a") == set()
    with closing(open_storage(where, "default")) as other:
        generation = other.generation(Channel.OUTCOME)
        assert other.wait(Channel.OUTCOME, generation, PATIENCE), "it looks again once it is known to listen"
        assert notified_channels("b") == {names[Channel.OUTCOME]}
    assert notified_channels("c") == set()


# All at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_threads_wait_for_a_free_connection(where, size):
    """More threads than connections wait for one another."""
    with closing(open_storage(f"{where}&pool_size={size}", "default")) as storage:
        with ThreadPoolExecutor(6) as pool:
            for n in pool.map(lambda n: storage.enqueue([Task(str(n), "add")], 1.0, PRODUCER) and n, range(60)):
                assert storage.get(str(n)) is not None
        assert len(storage._server.pool.sessions) <= size


def test_claim_passes_over_a_locked_task(storage, db):
    """A task that another worker is claiming at this moment is passed over, and not waited for."""
    storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    with ThreadPoolExecutor(1) as pool, db.transaction():
        db.execute("select from task where id = 'a' for update")
        mine = pool.submit(start, storage, limit=2).result(PATIENCE / 4)
    assert [task.id for task in mine] == ["b"]


@pytest.mark.parametrize("spent", [True, False], ids=["spent", "not spent after all"])
def test_claim_waits_for_a_worker_that_spends_the_same_revocation(storage, db, spent):
    """A worker that meets a one-time revocation while another spends it waits, and goes by what became of that."""
    storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    storage.revoke(RevocationTarget(function=True, key="add"), Revocation(once=True), 1.0)
    db.execute("begin")
    db.execute("delete from revocation")  # as the other worker does, and has not committed yet
    with ThreadPoolExecutor(1) as pool:
        exchange = pool.submit(storage.exchange, (), ClaimRequest("w", 2.0, 10.0, limit=2))
        with pytest.raises(TimeoutError):
            exchange.result(0.2)
        db.execute("commit" if spent else "rollback")
        _, claims = exchange.result(PATIENCE)
    paths = [(claim.task.id, *claim.move.path) for claim in claims]
    assert paths == [("a", START if spent else REVOKE), ("b", START)]


def test_one_time_revocation_stops_one_task_of_many_claims(storage):
    """However many workers claim at once, a one-time revocation stops one task."""
    for n in range(30):
        storage.enqueue([Task(f"{n} {m}", "add") for m in range(8)], 1.0, PRODUCER)
        storage.revoke(RevocationTarget(function=True, key="add"), Revocation(once=True), 1.0)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda m: storage.exchange((), ClaimRequest(f"w{m}", 2.0, 10.0, limit=2)), range(4)))
        assert storage.counts()["revoked"] == n + 1
        while storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=9))[1]:
            pass


def test_revocation_during_a_settlement_is_not_missed(storage, db):
    """A task that is revoked as its worker puts it off until later is revoked promptly, not when it is due."""
    for n in range(40):
        task = Task(f"t{n}", "add", retries=1)
        storage.enqueue([task], 1.0, PRODUCER)
        [running] = start(storage)
        target = RevocationTarget(function=False, key=task.id)
        with ThreadPoolExecutor(2) as pool:
            settled = pool.submit(storage.exchange, [settlement(running, FAIL, delay=500.0)], None)
            pool.submit(storage.revoke, target, Revocation(), 6.0).result(PATIENCE)
            assert settled.result(PATIENCE)[0] == [True]
        _, claims = storage.exchange((), ClaimRequest("w", 7.0, 10.0))
        assert [claim.move.path for claim in claims] == [(REVOKE,)]


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


@ignore_fork_warning
def test_child_does_not_keep_the_locks_of_a_dead_parent(storage, postgres, schema):
    """What a process had locked as it died is not kept locked by a child of its that lives on."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    queue = storage._server.queue_id
    gate, open_gate = os.pipe()

    def hold_and_die(transaction):
        (locked,) = transaction.run((storage._statements.lock_row, (queue, "a")))
        if not os.fork():
            os.close(open_gate)
            os.read(gate, 1)  # lives until the test is over
        os._exit(len(locked.rows) - 1)

    if not (parent := os.fork()):
        try:
            storage._server.transact(hold_and_die)
        finally:
            os._exit(1)
    assert os.waitpid(parent, 0)[1] == 0
    try:
        with connected(postgres, options=f"-c search_path={schema} -c lock_timeout=10s") as db:
            assert db.execute("select id from task for update").fetchall() == [("a",)]
    finally:
        os.close(open_gate)
        os.close(gate)
