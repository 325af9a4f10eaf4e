"""The PostgreSQL adapter: the spec, what the database refuses, failed writes, any texts."""

import itertools
from contextlib import closing

import psycopg
import pytest
from hypothesis import settings
from support.postgres import connected, open_store, temporary_database, unused_name
from support.profiles import examples
from support.stores import PRODUCER, settlement, start

from lifecycle import LIFECYCLE, Kind
from lifecycle.core.policies import Revocation
from lifecycle.core.table import FAIL
from lifecycle.core.task import Task
from lifecycle.errors import (
    ConfigurationError,
    StorageError,
    StorageFull,
    StorageRefused,
    StorageUnavailable,
    StorageUnusable,
)
from lifecycle.storage.base import Actor, ClaimRequest, Lock, RevocationTarget
from lifecycle.storage.postgres import session
from lifecycle.storage.postgres.external_transaction import begun
from lifecycle.storage.postgres.server import TRANSACTION_ATTEMPT_LIMIT
from lifecycle.testing.storage_spec.spec import StorageSpec
from lifecycle.testing.storage_spec.strategies import FUNCTIONS, IDS

# The spec --------------------------------------------------------------------------------------------------------


class PostgresSpec(StorageSpec):
    """The PostgreSQL adapter; another queue in the same schema has the same ids, and must stay as it is."""

    url = ""

    @classmethod
    def open_storage(cls):
        cls.queue = unused_name()
        return open_store(cls.url, cls.queue)

    @classmethod
    def reopen(cls, storage):
        return open_store(cls.url, cls.queue)


def rows(url, queue):
    """Return all rows of a queue."""
    with connected(url) as db:
        return [
            db.execute(
                f"select * from lifecycle.{table} where queue = (select id from lifecycle.queue where name = %s) order by 1, 2",
                [queue],
            ).fetchall()
            for table in ("task", "revocation", "lock")
        ]


@pytest.fixture(scope="class")
def neighbour(postgres):
    """Create the other queue, and compare it in the end."""
    name = unused_name()
    other = open_store(postgres, name)
    other.enqueue([Task(one, "add", eta=None if one in "ace" else 900.0) for one in IDS], 1.0, PRODUCER)
    ended, *_ = start(other, "w1", limit=7)
    other.exchange([settlement(ended, FAIL, retry=False)], None)
    for key, function in itertools.product(IDS[:2] + FUNCTIONS, (True, False)):
        other.revoke(RevocationTarget(function, key), Revocation(once=True), 1.0)
    other.lock(Lock("L", "x", 9.0, "w1", "a"), 1.0)
    other.close()
    before = rows(postgres, name)
    PostgresSpec.url = postgres
    yield
    assert rows(postgres, name) == before


@pytest.mark.usefixtures("neighbour")
class TestPostgres(PostgresSpec.TestCase):
    """The spec, on PostgreSQL."""


TestPostgres.settings = settings(TestPostgres.settings, max_examples=examples(12))


@pytest.fixture
def schema():
    """Name of a schema that is not in use."""
    return unused_name()


@pytest.fixture
def storage(postgres, schema):
    """An empty store."""
    with closing(open_store(postgres, schema=schema)) as store:
        yield store


@pytest.fixture
def db(postgres, schema, storage):
    """A connection for SQL that is typed by hand, in the store's schema."""
    storage.counts()
    with connected(postgres, options=f"-c search_path={schema}") as db:
        yield db


# What the database refuses -----------------------------------------------------------------------------------------

STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]
ANY = [*(state.name for state in LIFECYCLE.states), "nonsense"]
PLACES = {Kind.WAITING: "rank", Kind.RUNNING: "lease", Kind.OUTCOME: "ended", Kind.FINAL: "ended"}


def refused(db, statement, *parameters):
    """Does the database refuse it? Nothing of it stays."""
    with db.transaction(force_rollback=True):
        try:
            with db.transaction():
                db.execute(statement, parameters)
        except psycopg.errors.CheckViolation as error:
            return str(error)
    return ""


def placed(state):
    """What a row in this state has to say of where it is."""
    kind = LIFECYCLE.state(state).kind if state in STORED else Kind.FINAL
    mine = PLACES[kind]
    return ", ".join(f"{column} = {'1' if column == mine else 'null'}" for column in ("rank", "due", "lease", "ended"))


def test_database_refuses_illegal_transitions_in_any_sql(storage, db):
    """SQL that is typed by hand takes no task where the table has no way, and makes none in another state than new."""
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    steps = {source: {state.name for state in targets} for source, targets in LIFECYCLE.steps.items()}
    for state in ANY:
        columns = "queue, name, payload, priority, retries, attempt, interruptions, worker, version, history"
        column = PLACES[LIFECYCLE.state(state).kind if state in STORED else Kind.FINAL]
        insert = f"insert into task(id, state, {column}, {columns}) select 'b', %s, 1, {columns} from task"
        assert ("illegal transition: no task is born" in refused(db, insert, state)) == (state not in steps[None])
    for source in STORED:
        db.execute("alter table task disable trigger user")
        db.execute(f"update task set state = %s, {placed(source)}", [source])
        db.execute("alter table task enable trigger user")
        for state in ANY:
            words = refused(db, f"update task set state = %s, {placed(state)}", state)
            assert ("illegal transition: from" in words) == (state not in steps[source]), (source, state)


def test_row_is_in_exactly_one_place(storage, db):
    """A row says where its task is: waiting for a claim, held, or at rest; hand-typed SQL cannot make it two, or none."""
    storage.enqueue([Task("a", "add"), Task("b", "add"), Task("c", "add")], 1.0, PRODUCER)
    first, _ = start(storage, limit=2)
    storage.exchange([settlement(first)], None)
    for task_id in "abc":
        for column in ("rank", "due", "lease", "ended"):
            for value in ("null", "5"):
                change = f"update task set {column} = {value} where id = '{task_id}'"
                ((same,),) = db.execute(
                    f"select ({column} is null) = ({value} is null) from task where id = '{task_id}'"
                ).fetchall()
                assert bool(refused(db, change)) == (not same), change
    for change in ("state = 'complete'", "retries = -1", "version = 0", "attempt = -1"):
        assert refused(db, f"update task set {change} where id = 'c'")


def failing(db, code, times=None, when="true"):
    """Have each write to the tasks, or each such, fail with this error, so many times."""
    db.execute("create sequence tries")
    ((schema,),) = db.execute("select current_schema()").fetchall()
    db.execute(
        "create function fail() returns trigger language plpgsql as $$ begin"
        f" if nextval('{schema}.tries') <= {times or 10**9} then"
        f" raise exception using errcode = '{code}', message = 'could not extend file'; end if; return new; end $$"
    )
    db.execute(
        f"create trigger fail before insert or update on task for each row when ({when}) execute function fail()"
    )


def fields(storage):
    return [(task.id, task.state, task.version, task.lease) for task in storage.tasks()]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("53100", StorageFull, "nothing was changed: make room"),
        ("53300", StorageUnavailable, "nothing was changed, it can be tried again"),
        ("57014", StorageUnavailable, "nothing was changed, it can be tried again"),
        ("40P01", StorageUnavailable, "nothing was changed, it can be tried again"),
        ("42501", StorageUnusable, "grant its user what is missing"),
        ("XX000", StorageError, "could not extend file"),
    ],
)
def test_failed_write_changes_nothing_and_can_be_repeated(storage, db, schema, code, kind, words):
    """A write that fails changes nothing, in the store or in an object, says what to do, and can be made again."""
    storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    [running] = start(storage)
    new, follow_up = Task("c", "add"), Task("d", "add")
    done = [settlement(running, result=b"1", follow_ups=(follow_up,))]
    before = fields(storage)
    failing(db, code)
    for write in (
        lambda: storage.enqueue([new], 2.0, PRODUCER),
        lambda: storage.exchange(done, ClaimRequest("w", 7.0, 10.0)),
        lambda: storage.exchange((), ClaimRequest("w", 7.0, 10.0)),
        lambda: storage.extend(["w"], 99.0),
        lambda: storage.recover(99.0, Actor("r")),
    ):
        with pytest.raises(kind, match=words) as caught:
            write()
        assert type(caught.value) is kind
        assert fields(storage) == before
        assert (running.version, new.version, follow_up.version, new.seq) == (2, 0, 0, None)
    db.execute("drop trigger fail on task")
    assert storage.exchange(done, None) == ([True], [])
    storage.enqueue([new], 2.0, PRODUCER)
    assert storage.counts() == {"queued": 3, "complete": 1}


def test_call_that_the_server_does_not_take_is_refused(storage, monkeypatch):
    """A call with more bytes than the server takes in one message is refused, unsent; the connection goes on."""
    monkeypatch.setattr(session, "MESSAGE_LIMIT_BYTES", 200_000)
    large = b"x" * 100_000  # each byte is written as two
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    [running] = start(storage)
    for write in (
        lambda: storage.enqueue([Task("b", "add"), Task("c", "add", large)], 2.0, PRODUCER),
        lambda: storage.exchange([settlement(running, result=large)], ClaimRequest("w", 7.0, 10.0)),
    ):
        with pytest.raises(StorageRefused, match="more than 1 GB of values"):
            write()
    assert storage.counts() == {"executing": 1}
    assert storage.exchange([settlement(running, result=large[1000:])], None)[0] == [True]


def test_failed_claim_takes_back_its_settlements(storage, db):
    """An outcome and the claim that comes with it are one: if the claim fails, nobody has heard of the outcome."""
    storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, PRODUCER)
    [running] = start(storage)
    before = fields(storage)
    failing(db, "XX000", when="new.state = 'executing'")
    with pytest.raises(StorageError, match="could not extend file"):
        storage.exchange([settlement(running)], ClaimRequest("w", 7.0, 10.0))
    assert fields(storage) == before


@pytest.mark.parametrize("code", ["40001", "40P01"])
def test_transaction_in_conflict_is_repeated(storage, db, code):
    """A transaction that another got in the way of is made again, before anybody hears of it."""
    failing(db, code, times=TRANSACTION_ATTEMPT_LIMIT - 1)
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    assert storage.counts() == {"queued": 1}


def test_dropped_tables_are_reported(storage, db, schema):
    """Where somebody has dropped the tables the error says that they are not as they were made."""
    db.execute(f"drop schema {schema} cascade")
    with pytest.raises(StorageUnusable, match="not as they were made"):
        storage.counts()


# Texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\\", "\\0", "\\\0", '"', "{a,b}", "NULL", "'", "\n\t", "\U0001f40c", ""]
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


def test_queues_with_any_names_are_separate(postgres, schema):
    """Queues of one schema are apart, whatever they are called."""
    for name in ("a", "A", "a\0", "a\\0", "x" * 2000):
        with closing(open_store(postgres, name, schema=schema)) as storage:
            assert storage.counts() == {}
            storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
            assert storage.counts() == {"queued": 1}


# Settings of a session -------------------------------------------------------------------------------------------

SETTINGS = {
    "bytea_output": "escape", "extra_float_digits": "-15", "standard_conforming_strings": "off", "array_nulls": "off",
    "default_transaction_read_only": "on", "default_transaction_isolation": "serializable", "datestyle": "German",
    "timezone": "Asia/Kolkata", "intervalstyle": "iso_8601", "search_path": "nowhere", "client_encoding": "LATIN1",
    "transform_null_equals": "on", "default_transaction_deferrable": "on",
}  # fmt: skip
"""Settings that a role or a database may have, other than the server's defaults."""


@pytest.mark.parametrize("way", ["database", "url"])
def test_settings_of_a_role_or_database_change_no_value(way):
    """Whatever settings a role, a database or a URL has, each value comes back as it was stored."""
    with temporary_database() as url:
        options = {}
        if way == "url":
            options["options"] = " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        else:
            with connected(url) as db:
                for name, value in SETTINGS.items():
                    db.execute(f"alter database \"{url.rpartition('/')[2]}\" set {name} = '{value}'")
        payload, eta = bytes(range(256)), 1234567890.123456789
        with closing(open_store(url, "\u20ac", **options)) as store:
            tasks = [Task("\\ \u20ac", "add", payload, eta=eta), Task("b", "add", expires=eta)]
            store.enqueue(tasks, 1.0, PRODUCER)
            (started,) = start(store, now=2e9, limit=1)
            assert store.exchange([settlement(started, result=payload)], None)[0] == [True]
            stored = store.get("\\ \u20ac")
            assert (stored.payload, store.get("b").expires, store.get("b").eta) == (payload, eta, None)
            assert store.status("\\ \u20ac").result == payload


def test_connection_of_the_application_with_another_encoding_is_refused(postgres):
    """A connection of the application that sends no UTF-8 is refused: ids and names would be stored as other texts."""
    with psycopg.connect(postgres, client_encoding="LATIN1") as db, pytest.raises(ConfigurationError, match="UTF8"):
        begun(db)
