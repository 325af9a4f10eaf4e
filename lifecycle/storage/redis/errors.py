"""Errors of a Redis server as errors of the library, with advice."""

from collections.abc import Mapping, Sequence
from typing import Final

from lifecycle.errors import StorageError, StorageFull, StorageRefused, StorageUnavailable, StorageUnusable
from lifecycle.storage.redis.connection import CommandRefused, ConnectionLost, NamedConnection

__all__ = ["TRANSIENT_CODES", "OutcomeUnknown", "translated"]

TRANSIENT_CODES: Final = frozenset(
    {"LOADING", "BUSY", "TRYAGAIN", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS"}
)
"""Error codes of a server that will accept the same command soon."""

_ADVICE: Final[Sequence[tuple[frozenset[str], type[StorageError], str]]] = (
    (
        frozenset({"OOM"}),
        StorageFull,
        "Redis is full (maxmemory), nothing was changed: give the server more memory, or delete data, and try again",
    ),
    (frozenset({"MISCONF"}), StorageFull, "nothing was changed: the server cannot write to its disk"),
    (TRANSIENT_CODES, StorageUnavailable, "nothing was changed, it can be tried again"),
    (frozenset({"NOAUTH", "WRONGPASS", "DENIED"}), StorageUnusable, "look at user and password in the URL"),
    (
        frozenset({"NOPERM"}),
        StorageUnusable,
        "let its user run scripts, publish and subscribe, and use the queue's keys",
    ),
    (frozenset({"WRONGTYPE", "CROSSSLOT"}), StorageUnusable, "another program uses the queue's keys, or damages them"),
    (frozenset({"ILLEGAL"}), StorageRefused, "nothing was changed"),
    (frozenset({"LATE"}), StorageUnavailable, "the call was given up, and nothing was changed by it"),
)


_MESSAGES: Final[Mapping[str, type[StorageError]]] = {
    "max number of clients": StorageUnavailable,
    "Protocol error": StorageRefused,
}
"""Beginnings of messages of errors without a code of their own, and the error to raise."""


class OutcomeUnknown(StorageUnavailable):
    """The connection was lost after a write was sent: whether the write happened is unknown."""

    def __init__(self, message: str, connection: NamedConnection) -> None:
        """`connection`: carried the call; `RedisServer.resolve` asks the server about it."""
        super().__init__(message)
        self.connection = connection


def translated(error: CommandRefused | ConnectionLost) -> StorageError:
    """Return the error that the storage raises."""
    if isinstance(error, ConnectionLost):
        return StorageUnavailable(f"Redis cannot be reached, it can be tried again: {error}")
    for codes, kind, advice in _ADVICE:
        if error.code in codes:
            return kind(f"Redis: {error.code} {error}; {advice}")
    for beginning, kind in _MESSAGES.items():
        if str(error).startswith(beginning):
            return kind(f"Redis: {error}; nothing was changed")
    return StorageError(f"Redis: {error.code} {error}")
