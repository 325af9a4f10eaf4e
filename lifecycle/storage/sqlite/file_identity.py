"""Identity of the files that the connections to a SQLite file have open: whether their paths still lead to them.

A program may remove or replace a file while other programs have the file open. These programs go on with the old file,
which has no name any more, and SQLite says nothing.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["CHECK_INTERVAL_SECONDS", "ENDINGS", "FileChange", "FileIdentity", "create_if_missing", "inode"]

CHECK_INTERVAL_SECONDS: Final = 0.05
"""Time between two looks at the files: for so long, writes can go into a file that was removed."""
ENDINGS: Final = ("-wal", "-shm")
"""Endings of the log and of its index, which SQLite keeps beside a file while the file is used."""

Inode = tuple[int, int]
_GONE: Final[Inode] = (-1, -1)


class FileChange(StrEnum):
    """Change of the files of a queue while connections have them open."""

    REMOVED = "removed"
    """No file has the path any more."""
    REPLACED = "replaced"
    """Another file has the path."""
    LOG_REMOVED = "log removed"
    """The file is there, without its log or the index of the log, or with a new log that is empty."""
    LOG_REPLACED = "log replaced"
    """The file is there, and has another log, or another index of the log."""


class FileIdentity(NamedTuple):
    """Device and inode of a file, its log and the log's index, as connections have opened them."""

    path: str
    """Path without symbolic links: SQLite puts the log beside the real file."""
    named: str
    """Path as the user has written it."""
    file: Inode | None
    beside: tuple[Inode | None, ...]
    """Log and index of the log; ``None``: there was none."""

    @classmethod
    def of(cls, path: str) -> "FileIdentity":
        """Return the identity of the files that are there now."""
        real = os.path.realpath(path)
        try:
            return cls(real, path, inode(path), tuple(inode(real + ending) for ending in ENDINGS))
        except OSError:
            return cls(real, path, None, ())

    def change(self) -> FileChange | None:
        """Return the change since then; ``None``: the files are the same, or nobody can look at them."""
        if self.file is None:  # no file, or one that cannot be looked at
            return None
        try:
            if (now := inode(self.named)) != self.file:
                return FileChange.REMOVED if now is None else FileChange.REPLACED
            log, index = (
                None if was is None or was == (now := inode(self.path + ending)) else now or _GONE
                for was, ending in zip(self.beside, ENDINGS, strict=True)
            )
            if log is None and index is None:
                return None
            # A program that has found no log, and could not read, leaves an empty log.
            has_content = log not in (None, _GONE) and os.stat(self.path + ENDINGS[0]).st_size > 0  # noqa: PTH116
        except OSError:
            return None
        is_replaced = has_content or index not in (None, _GONE)
        return FileChange.LOG_REPLACED if is_replaced else FileChange.LOG_REMOVED

    def discard_log(self) -> None:
        """Remove the log and the index of this file if they are still there: they would damage another file.

        One process at a time: a second one must not remove the new log of the first one.
        """
        with suppress(OSError), _alone_in_folder(self.path):
            for was, ending in zip(self.beside, ENDINGS, strict=True):
                if was is not None and inode(self.path + ending) == was:
                    Path(self.path + ending).unlink()


def create_if_missing(path: str) -> bool:
    """Create an empty file if there is none, without the log and the index that a removed file has left.

    Returns whether this call has created the file.

    SQLite would take the old index for the new file's, while other processes still use the index for the removed file.
    A file that cannot be created is left to SQLite, which says why.
    """
    real = os.path.realpath(path)
    with suppress(OSError):
        if inode(real) is not None:
            return False
        with _alone_in_folder(real):
            if inode(real) is None:
                for ending in ENDINGS:
                    Path(real + ending).unlink(missing_ok=True)
                os.close(os.open(real, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644))
                return True
    return False


@contextmanager
def _alone_in_folder(path: str) -> Iterator[None]:
    """Keep the other processes out of the same block for files of the same folder."""
    folder = os.open(Path(path).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def inode(path: str) -> Inode | None:
    """Return the device and the inode of a file; ``None`` if there is none. Raises `OSError` without permission."""
    try:
        status = os.stat(path)  # noqa: PTH116 -- called often; a `Path` takes longer than the look
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
