"""The PostgreSQL server of the tests, and databases on it."""

import functools
import itertools
import os
import uuid
from contextlib import contextmanager
from urllib.parse import urlencode, urlsplit

import psycopg
import pytest

from lifecycle.storage import open_storage
from lifecycle.storage.postgres.schema import quoted
from lifecycle.storage.postgres.session import Statement

SERVER = os.environ.get("LIFECYCLE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
ASYNCHRONOUS = "-c synchronous_commit=off"
"""Commits do not wait for the disk: no test is about power cuts."""
_numbers = itertools.count()


@functools.cache
def unavailable_reason():
    """Return why the server cannot be reached; ``None`` if it can."""
    try:
        psycopg.connect(SERVER, connect_timeout=5).close()
    except psycopg.Error as error:
        return f"no PostgreSQL at $LIFECYCLE_TEST_POSTGRES: {error}"
    return None


def require_server():
    """Skip the test if the server cannot be reached; on CI, fail."""
    if reason := unavailable_reason():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def temporary_database():
    """Create a database, drop it in the end; the URL."""
    require_server()
    name = f"lifecycle_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(SERVER, autocommit=True) as db:
        db.execute(f"create database {name} template template0 encoding 'UTF8'")
        try:
            yield urlsplit(SERVER)._replace(path=f"/{name}").geturl()
        finally:
            db.execute(f"drop database {name} with (force)")


def postgres_store_url(url, **options):
    """Return the URL of a store in a database, with options."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode({"options": ASYNCHRONOUS, "connect_timeout": "5"} | options)).geturl()


def unused_name():
    """Return a name for a queue or a schema that is not in use."""
    return f"q{next(_numbers)}"


def open_store(url, queue="default", **options):
    """Return a store in the database."""
    return open_storage(postgres_store_url(url, **options), queue)


@contextmanager
def connected(url, **options):
    """Connect to the database, for SQL that is typed by hand."""
    with psycopg.connect(url, autocommit=True, **options) as db:
        yield db


def overwrite(storage, task_id, column, data):
    """Change a column of a task's row by hand."""
    table = quoted(storage._server.schema) + ".task"
    storage._server.write((Statement(b"", f"update {table} set {column} = $2 where id = $1".encode()), (task_id, data)))
