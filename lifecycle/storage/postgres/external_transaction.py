"""Taking part in a transaction of the application, on the application's own connection."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from lifecycle.errors import ConfigurationError
from lifecycle.storage.postgres.errors import translated
from lifecycle.storage.postgres.session import ConnectionLost, ServerError, Session, Statement, driver
from lifecycle.storage.postgres.transaction import Transaction

if TYPE_CHECKING:
    import psycopg

__all__ = ["OTHER_DATABASE", "begun", "joined"]

OTHER_DATABASE: Final = (
    "connection=…: its database does not have this queue: connect it to the database that the queue's URL names"
)
_IDLE, _ACTIVE, _IN_ERROR = 0, 1, 3  # PQTRANS_…
_NO_SUCH_SCHEMA: Final = ("3F000", "42P01")
_SAVEPOINT: Final = Statement(b"", b"savepoint lifecycle")
_RELEASE: Final = Statement(b"", b"release savepoint lifecycle")
_ROLL_BACK: Final = Statement(b"", b"rollback to savepoint lifecycle")


@contextmanager
def joined(connection: object) -> Iterator[Transaction]:
    """Open a savepoint in the transaction of `connection`; an exception in the block rolls back to the savepoint.

    A connection that is in no transaction, and not in autocommit mode, begins one, as with any statement. Raises
    `ConfigurationError` if `connection` is no `psycopg.Connection`, or cannot be used now.
    """
    db = _usable(connection)
    if db.pgconn.transaction_status == _IDLE:
        if db.autocommit:
            raise ConfigurationError(
                "connection=…: it is in no transaction: begin one (with queue.transaction(connection): …)"
            )
        db.execute("select 1")  # begins a transaction, with the settings of the connection's owner
    session = Session(db, prepares=False)
    with db.lock:
        session.run((_SAVEPOINT, ()))
        try:
            yield Transaction(session, begun=True)
            session.run((_RELEASE, ()))
        except ServerError as error:
            session.run((_ROLL_BACK, ()), (_RELEASE, ()))
            if error.sqlstate in _NO_SUCH_SCHEMA:
                raise ConfigurationError(OTHER_DATABASE) from error
            raise translated(error) from error
        except ConnectionLost as error:
            raise translated(error) from error
        except BaseException:
            if not session.pg.pipeline_status:
                session.run((_ROLL_BACK, ()), (_RELEASE, ()))
            raise


def begun(connection: object) -> "AbstractContextManager[object]":
    """Begin a transaction on a connection that is in none. Raises `ConfigurationError`."""
    db = _usable(connection)
    if db.pgconn.transaction_status != _IDLE:
        raise ConfigurationError(
            "its connection is in a transaction already: only the outermost can tell when tasks are there for others"
        )
    return db.transaction()


def _usable(connection: object) -> "psycopg.Connection[Any]":
    """Return the connection. Raises `ConfigurationError` if it cannot be used now."""
    if not isinstance(connection, driver().Connection):
        kind = type(connection).__name__
        raise ConfigurationError(f"connection={kind}: it takes the psycopg.Connection that your transaction is on")
    db = cast("psycopg.Connection[Any]", connection)
    status = db.pgconn.transaction_status
    reasons = {
        "it is closed": db.closed,
        "its transaction has failed: roll it back first": status == _IN_ERROR,
        "it is in the midst of something (a query, or a pipeline)": status == _ACTIVE or db.pgconn.pipeline_status,
        "its client_encoding must be UTF8": not db.closed and db.pgconn.parameter_status(b"client_encoding") != b"UTF8",
    }
    for reason, applies in reasons.items():
        if applies:
            raise ConfigurationError(f"connection=…: {reason}")
    return db
