"""Errors of the stores: each code is one kind of error, since workers wait after all kinds but a refusal."""

import sqlite3

import pytest
from redis import ResponseError

from lifecycle import StorageError, StorageFull, StorageRefused, StorageUnavailable, StorageUnusable
from lifecycle.storage.postgres import errors as postgres
from lifecycle.storage.postgres.session import ServerError
from lifecycle.storage.redis import errors as redis
from lifecycle.storage.redis.connection import CommandRefused, RedisConnection
from lifecycle.storage.sqlite import errors as sqlite

SQLITE = {
    StorageFull: "FULL",
    StorageUnavailable: "BUSY LOCKED IOERR NOMEM PROTOCOL INTERRUPT BUSY_SNAPSHOT IOERR_WRITE",
    StorageUnusable: "NOTADB CORRUPT CANTOPEN PERM READONLY AUTH NOLFS FORMAT ERROR SCHEMA READONLY_DBMOVED",
    StorageRefused: "TOOBIG CONSTRAINT MISMATCH RANGE CONSTRAINT_TRIGGER",
    StorageError: "MISUSE NOTFOUND",
}
POSTGRES = {
    StorageFull: "53100",
    StorageUnavailable: "08006 25006 25P03 40001 40P01 53200 53300 55P03 57014 57P01 57P03 58030",
    StorageUnusable: "28P01 3D000 3F000 42501 42703 42883 42P01 XX001 XX002",
    StorageRefused: "08P01 22021 22P05 23514 54000",
    StorageError: "XX000 0A000",
}
REDIS = {
    StorageFull: "OOM MISCONF",
    StorageUnavailable: "LOADING BUSY TRYAGAIN MOVED ASK CLUSTERDOWN MASTERDOWN READONLY NOREPLICAS LATE",
    StorageUnusable: "NOAUTH WRONGPASS DENIED NOPERM WRONGTYPE CROSSSLOT",
    StorageRefused: "ILLEGAL",
    StorageError: "ERR",
}


def each(table):
    return [(kind, code) for kind, codes in table.items() for code in codes.split()]


@pytest.mark.parametrize(("kind", "code"), each(SQLITE))
def test_each_code_of_sqlite_is_one_kind_of_error(kind, code):
    """A result code of SQLite, with or without details, is one kind of error; the message names the file."""
    error = sqlite3.Error("reason")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
    translated = sqlite.translated(error, "/queues/app.db")
    assert type(translated) is kind
    assert "/queues/app.db" in str(translated)


@pytest.mark.parametrize(("kind", "code"), each(POSTGRES))
def test_each_sqlstate_is_one_kind_of_error(kind, code):
    """A SQLSTATE is one kind of error; the message has the server's reason."""
    translated = postgres.translated(ServerError(code, "reason"))
    assert type(translated) is kind
    assert "reason" in str(translated)


@pytest.mark.parametrize(("kind", "code"), each(REDIS))
def test_each_code_of_redis_is_one_kind_of_error(kind, code):
    """An error code of Redis is one kind of error; the message has the server's reason."""
    translated = redis.translated(CommandRefused(code, "reason"))
    assert type(translated) is kind
    assert "reason" in str(translated)


@pytest.mark.parametrize(
    ("translated", "kind"),
    [
        (redis.translated(CommandRefused("ERR", "max number of clients reached")), StorageUnavailable),
        (redis.translated(CommandRefused("ERR", "Protocol error: invalid bulk length")), StorageRefused),
        (postgres.translated(ServerError("XX000", "invalid memory alloc request size 1073741824")), StorageRefused),
        (sqlite.translated(OverflowError("BLOB longer than INT_MAX bytes"), "app.db"), StorageRefused),
    ],
    ids=str,
)
def test_errors_without_a_code_of_their_own_are_known_by_their_text(translated, kind):
    """An error whose code is used for many reasons is known by its text, or by its type in Python."""
    assert type(translated) is kind


def test_full_redis_is_called_full():
    """The error of a server without memory says that Redis is full."""
    assert "Redis is full" in str(redis.translated(CommandRefused("OOM", "command not allowed")))


@pytest.mark.parametrize(
    "message",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR Error running script (call to f_1a): @user_script:51: -OOM command not allowed when used memory > 'maxmemory'.",
        "Error running script (call to f_1a): @user_script:51: @user_script: 51: -OOM command not allowed.",
    ],
)
def test_error_in_a_script_has_the_code_of_its_command(message):
    """An error of a command in a script has that command's code, also with servers older than Redis 7."""
    error = RedisConnection({}, tls=False)._translated(ResponseError(message))
    assert (type(error), error.code) == (CommandRefused, "OOM")
