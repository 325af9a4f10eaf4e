"""Saving the changes in a log that was removed while connections had it open."""

import sqlite3
from typing import Final

from lifecycle.clock import pause
from lifecycle.errors import StorageUnavailable
from lifecycle.storage.sqlite.errors import is_busy
from lifecycle.storage.sqlite.file_identity import CHECK_INTERVAL_SECONDS, FileChange, FileIdentity

__all__ = ["save_log"]

HOLD_SECONDS: Final = 8 * CHECK_INTERVAL_SECONDS
"""How long nobody may write before the saving. A busy machine may stop a thread between its look and its write."""
SAVE_TIMEOUT_SECONDS: Final = 8.0
"""How long readers and writers of other processes may delay the saving, before it is given up for this time."""


def save_log(db: sqlite3.Connection, files: FileIdentity) -> FileChange | None:
    """Write all changes in a removed log into the file; return the change of the files.

    `db`: the connection for writes. Raises `StorageUnavailable` if other processes delay the saving.

    The connections still have the log. All processes must leave it before one of them makes a new log: two logs of
    one file damage the file. Each process looks at the files after it has got the right to write, and before it
    reads, if its last look is `CHECK_INTERVAL_SECONDS` ago. So this process keeps the right to write for longer.
    """
    try:
        db.execute(f"pragma busy_timeout = {SAVE_TIMEOUT_SECONDS * 1000:.0f}")
        db.execute("begin immediate")
        if files.change() is FileChange.LOG_REMOVED:  # still
            pause(HOLD_SECONDS)
        change = files.change()
        db.execute("rollback")
        if change is not FileChange.LOG_REMOVED:
            return change
        ((busy, _, _),) = db.execute("pragma wal_checkpoint(truncate)").fetchall()
    except sqlite3.Error as error:
        if not is_busy(error):
            return FileChange.LOG_REPLACED  # a process with another log has changed the file: nothing can be saved
        busy = True
    finally:
        if db.in_transaction:
            db.execute("rollback")
        db.execute("pragma busy_timeout = 0")
    if busy:
        raise StorageUnavailable(
            f"{files.named}: its log was removed while in use, and cannot be saved while another program reads or"
            " writes; nothing was changed: end that program, or try again"
        )
    return change
