"""A PostgreSQL server for the tests: where it is, and a database of their own on it."""

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
"""Commits that do not wait for the disk: nothing here is about power cuts."""
_numbers = itertools.count()


@functools.cache
def why_not():
    """Why there is no server, if there is none."""
    try:
        psycopg.connect(SERVER, connect_timeout=5).close()
    except psycopg.Error as error:
        return f"no PostgreSQL at $LIFECYCLE_TEST_POSTGRES: {error}"
    return None


def required():
    """Skip what needs the server if it is not there; on CI it has to be there."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def a_database():
    """A database of one's own: its URL."""
    required()
    name = f"lifecycle_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(SERVER, autocommit=True) as db:
        db.execute(f"create database {name} template template0 encoding 'UTF8'")
        try:
            yield urlsplit(SERVER)._replace(path=f"/{name}").geturl()
        finally:
            db.execute(f"drop database {name} with (force)")


def told(url, **options):
    """The URL, with options."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode({"options": ASYNCHRONOUS, "connect_timeout": "5"} | options)).geturl()


def a_name():
    """Of a queue, or a schema, that nobody has used."""
    return f"q{next(_numbers)}"


def opened(url, queue="default", **options):
    """A store in the database."""
    return open_storage(told(url, **options), queue)


@contextmanager
def connected(url, **options):
    """A connection to the database, for SQL that is typed by hand."""
    with psycopg.connect(url, autocommit=True, **options) as db:
        yield db


def overwrite(storage, task_id, column, data):
    """Change a task's row by hand."""
    table = quoted(storage._server.schema) + ".task"
    storage._server.write((Statement(b"", f"update {table} set {column} = $2 where id = $1".encode()), (task_id, data)))
