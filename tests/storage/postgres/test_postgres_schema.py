"""The PostgreSQL schema: made at first use, brought from version to version, refused where it is not ours."""

from contextlib import closing

import psycopg
import pytest
from psycopg import sql
from support.command_line import process
from support.postgres import SERVER, connected, open_store, postgres_store_url, unused_name
from support.stores import PRODUCER, elsewhere, start

from lifecycle.core.task import Task
from lifecycle.errors import StorageUnusable
from lifecycle.storage import open_storage
from lifecycle.storage.base import Actor
from lifecycle.storage.postgres import schema as postgres_schema

LATER = "alter table SCHEMA.task add column note text; create index task_note on SCHEMA.task(note);"
KNOWN = len(postgres_schema.MIGRATIONS)


@pytest.fixture
def schema():
    """Name of a schema that is not in use."""
    return unused_name()


def versions(url, schema):
    """The migrations that were made."""
    with connected(url) as db:
        return [version for (version,) in db.execute(f"select version from {schema}.migration order by version")]


def test_schema_is_created_at_the_first_call(postgres, schema):
    """Nothing is made when a store is opened, and all that is needed when it is first used."""
    with closing(open_store(postgres, schema=schema)) as store, connected(postgres) as db:
        look = "select count(*) from pg_namespace where nspname = %s"
        assert db.execute(look, [schema]).fetchone() == (0,)
        assert store.counts() == {}
        assert db.execute(look, [schema]).fetchone() == (1,)
    assert versions(postgres, schema) == [*range(1, KNOWN + 1)]


def use(where, name):
    storage = open_storage(where, "default")
    storage.enqueue([Task(f"{name} {n}", "add") for n in range(3)], 1.0, Actor("elsewhere"))
    storage.close()


def test_processes_create_one_schema_together(postgres, schema):
    """Processes that all find no schema make one, together, and lose nothing of what they write into it."""
    where = postgres_store_url(postgres, schema=schema)
    processes = [elsewhere(use, where, name) for name in "abcd"]
    for one in processes:
        assert one.wait(60) == 0
        one.stdout.close()
    assert versions(postgres, schema) == [*range(1, KNOWN + 1)]
    with closing(open_store(postgres, schema=schema)) as store:
        assert store.counts() == {"queued": 12}


def test_later_release_migrates_the_schema(postgres, schema, monkeypatch):
    """A later release brings an older schema up to date, with what is in it; whoever comes next finds it done."""
    with closing(open_store(postgres, schema=schema)) as store:
        store.enqueue([Task("a", "add")], 1.0, PRODUCER)
        monkeypatch.setattr(postgres_schema, "MIGRATIONS", [*postgres_schema.MIGRATIONS, LATER])
        for _ in range(2):
            with closing(open_store(postgres, schema=schema)) as later:
                assert later.get("a") is not None
                later.enqueue([Task(f"later {id(later)}", "add")], 1.0, PRODUCER)
        assert store.get("a") is not None  # the older release goes on, if the change lets it
    assert versions(postgres, schema) == [*range(1, KNOWN + 2)]


def test_first_version_is_migrated_to_the_latest(postgres, schema, monkeypatch):
    """What a release of the first version has written goes on in the latest; what that release itself calls is left."""
    with monkeypatch.context() as then, closing(open_store(postgres, schema=schema)) as first:
        then.setattr(postgres_schema, "MIGRATIONS", postgres_schema.MIGRATIONS[:1])
        assert first.status("a") is None
    with connected(postgres) as db, db.cursor() as cursor:
        cursor.executemany(
            f"insert into {schema}.task(queue, id, name, payload, state, priority, retries, attempt, interruptions,"
            " worker, version, rank, history) values (1, %s, 'add', '', 'queued', 0, 0, 0, 0, 'p', 1, 0, %s)",
            [("a", "queued\t1.5\t0\tp\n"), ("b", "queued\t1700000000.25\t0\tp\n")],
        )
    assert versions(postgres, schema) == [1]
    with closing(open_store(postgres, schema=schema)) as store:
        assert [task.enqueued_at for task in store.tasks()] == [1700000000.25, 1.5]
        assert [task.id for task in start(store, "w")] == ["a"]
        assert store.cancel("a")
        assert store.canceling(["w"]) == ["a"]
    with connected(postgres) as db:
        (row,) = db.execute(f"select * from {schema}.foremost(1, 5.0, 9, 9)")
        assert (row[0], len(row)) == ("b", 20)
    assert versions(postgres, schema) == [*range(1, KNOWN + 1)]


def test_failed_migration_leaves_the_schema_as_it_was(postgres, schema, monkeypatch):
    """A migration happens whole or not at all: after one that failed the schema is as it was."""
    with closing(open_store(postgres, schema=schema)) as store:
        store.counts()
    monkeypatch.setattr(
        postgres_schema, "MIGRATIONS", [*postgres_schema.MIGRATIONS, LATER + "alter table SCHEMA.nonsense add x int;"]
    )
    with closing(open_store(postgres, schema=schema)) as later, pytest.raises(StorageUnusable, match="nonsense"):
        later.counts()
    assert versions(postgres, schema) == [*range(1, KNOWN + 1)]
    with connected(postgres) as db:
        assert db.execute(
            "select count(*) from pg_indexes where schemaname = %s and indexname = 'task_note'", [schema]
        ).fetchone() == (0,)


def test_migrate_no_leaves_the_schema_to_the_command(postgres, schema, monkeypatch):
    """With migrate=no nothing is made or changed, the error names the command; the command does it, once."""
    where = postgres_store_url(postgres, schema=schema, migrate="no")
    with closing(open_storage(where, "q")) as store:
        for _ in range(2):
            with pytest.raises(StorageUnusable, match=f"schema {schema} is not there.*migrate=no.*lifecycle migrate"):
                store.counts()
        assert process("migrate", "--url", where) == (0, f"the tables were made, in version {KNOWN}\n", "")
        assert store.counts() == {}
        assert process("migrate", "--url", where) == (0, f"the tables have version {KNOWN}\n", "")
    monkeypatch.setattr(postgres_schema, "MIGRATIONS", [*postgres_schema.MIGRATIONS, LATER])
    with closing(open_storage(where, "q")) as store:
        with pytest.raises(
            StorageUnusable, match=f"has version {KNOWN}, this release needs {KNOWN + 1}.*lifecycle migrate"
        ):
            store.counts()
        assert store.migrate() == (KNOWN, KNOWN + 1)
        assert store.counts() == {}


def test_newer_schema_is_refused(postgres, schema):
    """A schema that a newer release has made is refused, by a first use and by a migration, and not touched."""
    with closing(open_store(postgres, schema=schema)) as store:
        store.counts()
    with connected(postgres) as db:
        db.execute(f"insert into {schema}.migration(version) values ({KNOWN + 1})")
    for use_it in (lambda store: store.counts(), lambda store: store.migrate()):
        refused = pytest.raises(StorageUnusable, match=f"has version {KNOWN + 1}, this release knows {KNOWN}: use the")
        with closing(open_store(postgres, schema=schema)) as store, refused:
            use_it(store)
    assert versions(postgres, schema) == [*range(1, KNOWN + 2)]


def test_schema_of_another_program_is_refused(postgres, schema):
    """A schema in which another program has its tables is refused; an empty one, made by an administrator, is used."""
    with connected(postgres) as db:
        db.execute(f"create schema {schema}")
        db.execute(f"create table {schema}.task(id int)")
        refused = pytest.raises(StorageUnusable, match=f"{schema} is another program's: .*schema=…")
        with closing(open_store(postgres, schema=schema)) as store, refused:
            store.counts()
        assert db.execute("select count(*) from pg_tables where schemaname = %s", [schema]).fetchone() == (1,)
        db.execute(f"drop table {schema}.task")
    with closing(open_store(postgres, schema=schema)) as store:
        assert store.counts() == {}


@pytest.mark.parametrize("schema", ["My Queue", 'a"b', "größe", "s" * 63, "'; drop schema public; --"])
def test_schema_may_have_any_name(postgres, schema):
    """A schema may have any name that PostgreSQL takes."""
    with closing(open_store(postgres, schema=schema)) as store, closing(open_store(postgres, schema=schema)) as other:
        store.enqueue([Task("a", "add")], 1.0, PRODUCER)
        assert other.get("a") is not None
    with connected(postgres) as db:
        db.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))


def test_database_with_another_encoding_is_refused(postgres):
    """A database that cannot hold every text is refused, before anything is made in it."""
    name = f"lifecycle_test_{unused_name()}_latin"
    with psycopg.connect(SERVER, autocommit=True) as db:
        db.execute(f"create database {name} template template0 encoding 'LATIN1' locale 'C'")
        try:
            where = postgres.replace(postgres.rpartition("/")[2], name)
            with closing(open_store(where)) as store, pytest.raises(StorageUnusable, match="in LATIN1: make one"):
                store.counts()
        finally:
            db.execute(f"drop database {name} with (force)")


def test_user_without_rights_learns_what_is_missing(postgres, schema):
    """A user without rights is told what is missing; with rights on the tables alone it can work, but not migrate."""
    user = f"lifecycle_test_{unused_name()}"
    with connected(postgres) as db:
        db.execute(f"create role {user} login")
        try:
            where = postgres_store_url(postgres.replace("//postgres@", f"//{user}@"), schema=schema)
            with closing(open_storage(where, "q")) as store, pytest.raises(StorageUnusable, match="permission denied"):
                store.counts()
            with closing(open_store(postgres, schema=schema)) as owner:
                owner.counts()
            db.execute(f"grant usage on schema {schema} to {user}")
            db.execute(f"grant select, insert, update, delete on all tables in schema {schema} to {user}")
            with closing(open_storage(where, "q")) as store:
                store.enqueue([Task("a", "add")], 1.0, PRODUCER)
                assert store.counts() == {"queued": 1}
        finally:
            db.execute(f"drop owned by {user}")
            db.execute(f"drop role {user}")
