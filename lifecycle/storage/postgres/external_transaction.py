"""Taking part in a transaction that is somebody else's: the application's own, on its own connection."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from lifecycle.errors import ConfigurationError
from lifecycle.storage.postgres.server import Transaction, driver, translated
from lifecycle.storage.postgres.session import ConnectionLost, ServerError, Session, Statement

if TYPE_CHECKING:
    import psycopg

__all__ = ["ELSEWHERE", "begun", "joined"]

ELSEWHERE: Final = (
    "connection=…: its database does not have this queue: connect it to the database that the queue's URL names"
)
_IDLE, _ACTIVE, _IN_ERROR = 0, 1, 3  # PQTRANS_…
_NO_SUCH_SCHEMA: Final = ("3F000", "42P01")
_BEGIN: Final = Statement(b"", b"savepoint lifecycle")
_END: Final = Statement(b"", b"release savepoint lifecycle")
_UNDO: Final = Statement(b"", b"rollback to savepoint lifecycle")


@contextmanager
def joined(connection: object) -> Iterator[Transaction]:
    """A part of the transaction that `connection` is in; undone if an exception leaves the block, and only the part.

    A connection that is in none, and not in autocommit mode, begins one, as with any statement. Raises
    `ConfigurationError` for what is no `psycopg.Connection`, or cannot be joined.
    """
    db = _usable(connection)
    if db.pgconn.transaction_status == _IDLE:
        if db.autocommit:
            raise ConfigurationError(
                "connection=…: it is in no transaction: begin one (with queue.transaction(connection): …)"
            )
        db.execute("select 1")  # begins one, as the connection's owner has it
    session = Session(db, prepares=False)
    with db.lock:
        session.run((_BEGIN, ()))
        try:
            yield Transaction(session, begun=True)
            session.run((_END, ()))
        except ServerError as error:
            session.run((_UNDO, ()), (_END, ()))
            if error.sqlstate in _NO_SUCH_SCHEMA:
                raise ConfigurationError(ELSEWHERE) from error
            raise translated(error) from error
        except ConnectionLost as error:
            raise translated(error) from error
        except BaseException:
            if not session.pg.pipeline_status:
                session.run((_UNDO, ()), (_END, ()))
            raise


def begun(connection: object) -> "AbstractContextManager[object]":
    """A transaction on a connection that is in none. Raises `ConfigurationError`."""
    db = _usable(connection)
    if db.pgconn.transaction_status != _IDLE:
        raise ConfigurationError(
            "its connection is in a transaction already: only the outermost can tell when tasks are there for others"
        )
    return db.transaction()


def _usable(connection: object) -> "psycopg.Connection[Any]":
    """The same, if anything can be done with it."""
    if not isinstance(connection, driver().Connection):
        kind = type(connection).__name__
        raise ConfigurationError(f"connection={kind}: it takes the psycopg.Connection that your transaction is on")
    db = cast("psycopg.Connection[Any]", connection)
    status = db.pgconn.transaction_status
    faults = {
        "it is closed": db.closed,
        "its transaction has failed: roll it back first": status == _IN_ERROR,
        "it is in the midst of something (a query, or a pipeline)": status == _ACTIVE or db.pgconn.pipeline_status,
    }
    for fault, there in faults.items():
        if there:
            raise ConfigurationError(f"connection=…: {fault}")
    return db
