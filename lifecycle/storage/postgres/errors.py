"""Errors of a PostgreSQL server as errors of the library, with advice."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lifecycle.errors import StorageError, StorageFull, StorageRefused, StorageUnavailable, StorageUnusable
from lifecycle.storage.postgres.session import ConnectionLost, ServerError, Session

if TYPE_CHECKING:
    import psycopg

__all__ = ["CONFLICT_CODES", "OutcomeUnknown", "connect_error", "session_error", "translated"]

CONFLICT_CODES: Final = ("40001", "40P01")  # serialization failure, deadlock
"""SQLSTATEs of a transaction that another transaction was in conflict with."""
_CONFIGURATION_MESSAGE: Final = re.compile(
    "authentication failed|no password supplied|does not exist|pg_hba.conf|not permitted to log in"
    "|permission denied for database|certificate|SSL|invalid (port|sslmode|value|integer)",
    re.IGNORECASE,
)
_ADVICE: Final[Sequence[tuple[tuple[str, ...], type[StorageError], str]]] = (
    (("53100",), StorageFull, "nothing was changed: make room on the server and try again"),
    (("08P01", "22", "23", "54"), StorageRefused, "nothing was changed, the server does not take this write"),
    (
        ("08", "25", "40", "53", "55", "57", "58"),
        StorageUnavailable,
        "nothing was changed, it can be tried again",
    ),
    (("28", "3D000"), StorageUnusable, "look at user, password and database in the URL"),
    (("XX001", "XX002"), StorageUnusable, "the server's files are damaged: restore a backup"),
    (("42501",), StorageUnusable, "grant its user what is missing, or run `lifecycle migrate` as the schema's owner"),
    (("3F000", "42P01", "42703", "42883"), StorageUnusable, "the queue's tables are not as they were made"),
)
"""Beginnings of SQLSTATEs, the error to raise, and what to do."""
_TOO_LARGE: Final = "invalid memory alloc request size"


class OutcomeUnknown(StorageUnavailable):
    """The connection was lost during a commit: whether the commit happened is unknown."""


def session_error(error: "psycopg.Error", session: Session) -> ServerError | ConnectionLost:
    """Return an error of psycopg as the error that `Session.run` raises."""
    message = " ".join(str(error).split())
    return ConnectionLost(message) if session.connection.closed else ServerError(error.sqlstate or "", message)


def connect_error(message: str) -> StorageError:
    """Return the error of a failed connection attempt, by libpq's message: there is no code.

    With a message in another language than English the error says that the call can be tried again.
    """
    message = " ".join(message.split())
    if _CONFIGURATION_MESSAGE.search(message):
        return StorageUnusable(
            f"PostgreSQL does not accept the connection: {message}; look at user, password and database in the URL"
        )
    return StorageUnavailable(f"PostgreSQL cannot be reached, it can be tried again: {message}")


def translated(error: ServerError | ConnectionLost, *, unknown: bool = False) -> StorageError:
    """Return the error that the storage raises. `unknown`: the error came during a commit."""
    if isinstance(error, ConnectionLost) or error.sqlstate[:3] == "57P":
        if unknown:
            return OutcomeUnknown(
                f"the connection to PostgreSQL was lost ({error}) as a write was on its way: look whether it was made"
                " before you repeat it"
            )
        return StorageUnavailable(f"the connection to PostgreSQL was lost ({error}); nothing was changed")
    if _TOO_LARGE in str(error):  # an "internal error" by its code
        return StorageRefused(f"PostgreSQL: {error}; nothing was changed, a value is too large")
    for codes, kind, advice in _ADVICE:
        if error.sqlstate.startswith(codes):
            return kind(f"PostgreSQL: {error}; {advice}")
    return StorageError(f"PostgreSQL: {error}")
