"""Errors of SQLite as errors of the library, with advice."""

import sqlite3
from collections.abc import Sequence
from typing import Final

from lifecycle.errors import StorageError, StorageFull, StorageRefused, StorageUnavailable, StorageUnusable

__all__ = ["is_busy", "translated"]

_KINDS: Final[Sequence[tuple[frozenset[int], type[StorageError], str]]] = (
    (
        frozenset({sqlite3.SQLITE_FULL}),
        StorageFull,
        "{path}: no space left on the disk ({error}); nothing was changed: free space, then try again",
    ),
    (
        frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}),
        StorageUnavailable,
        "{path} is locked by another program; nothing was changed: try again",
    ),
    (
        frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT}),
        StorageUnavailable,
        "{path} cannot be read or written now ({error}); nothing was changed: try again",
    ),
    (
        frozenset({
            sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_FORMAT,
            sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA,
        }),
        StorageUnusable,
        "{path} cannot be used as a queue: {error}",
    ),
    (
        frozenset({
            sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE,
        }),
        StorageRefused,
        "{path} does not take this write: {error}; nothing was changed",
    ),
)  # fmt: skip
"""Primary result codes, the error to raise, and its text. SQLITE_ERROR: the tables are not as they were made."""


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether an error says that another process writes at this moment."""
    return _primary_code(error) == sqlite3.SQLITE_BUSY


def _primary_code(error: Exception) -> int:
    """Return the code of SQLite without its details; 0: the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def translated(error: sqlite3.Error | OverflowError, path: str) -> StorageError:
    """Return a `StorageError` for an error of SQLite: the file, the reason and the remedy.

    Python raises `OverflowError` for a value that is larger than any that SQLite takes.
    """
    code = _primary_code(error)
    if isinstance(error, OverflowError):
        code = sqlite3.SQLITE_TOOBIG
    for codes, kind, text in _KINDS:
        if code in codes:
            return kind(text.format(path=path, error=error))
    return StorageError(f"{path}: {error}")
