"""A small table of values in the store of a queue.

Each value is an entry in the store's table of locks, under a name that no lock has. So one process gets a value that
several read at a time, `put_if_empty` is one step, and an entry may have an end.
"""

import base64
import os
from typing import Final

from lifecycle.errors import StorageRefused
from lifecycle.execution.engine import Engine
from lifecycle.locks import reserved_name
from lifecycle.storage.base import Lock
from lifecycle.validation import MOMENT_LIMIT, text

__all__ = ["MAX_BYTES", "KeyValues"]

MAX_BYTES: Final = 64 * 1024
"""Largest size of a serialized value: the table is read whole."""
_KIND: Final = "value"


class KeyValues:
    """Values by key. All processes that share the store and the queue's name see them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def put(self, key: str, value: object) -> None:
        """Store a value under a key, in place of any other.

        Raises `Unserializable` and `StorageRefused` for a value that cannot be stored.
        """
        entry = self._entry(key, value, None)
        while not self._engine.storage.lock(entry, self._engine.clock.now()):
            self._engine.storage.flush_locks([entry.name])

    def put_if_empty(self, key: str, value: object, ttl: float | None = None) -> bool:
        """Store a value unless the key has one; return whether it was stored. `ttl`: seconds until the value ends."""
        return self._engine.storage.lock(self._entry(key, value, ttl), self._engine.clock.now())

    def get(self, key: str, *, peek: bool) -> tuple[bool, object]:
        """Return whether the key has a value, and the value. Without `peek` the value is removed: one caller gets it.

        Raises `Undecodable` for a value of another serializer.
        """
        name = reserved_name(_KIND, text(key, "key"))
        while True:
            entry = next(
                (lock for lock in self._engine.storage.locks(self._engine.clock.now()) if lock.name == name), None
            )
            if entry is None:
                return False, None
            if peek or self._engine.storage.unlock(name, entry.owner):
                _, _, encoded = entry.owner.partition(":")
                return True, self._engine.serializer.loads(base64.b85decode(encoded))

    def delete(self, key: str) -> bool:
        """Remove the value of a key; return False if there is none."""
        return bool(self._engine.storage.flush_locks([reserved_name(_KIND, text(key, "key"))]))

    def _entry(self, key: str, value: object, ttl: float | None) -> Lock:
        engine, name = self._engine, reserved_name(_KIND, text(key, "key"))
        data = engine.serializer.dumps(value)
        if len(data) > MAX_BYTES:
            raise StorageRefused(
                f"key={key!r}: the value has {len(data):,} bytes when serialized, the table takes {MAX_BYTES:,}: store "
                "the value elsewhere, and put its name"
            )
        # Each entry has an owner of its own: `unlock` removes the entry that was read, and no later one.
        owner = f"{os.urandom(8).hex()}:{base64.b85encode(data).decode()}"
        return Lock(name, owner, MOMENT_LIMIT - 1 if ttl is None else engine.clock.now() + ttl)
