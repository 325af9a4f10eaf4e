"""The locks of a queue in a SQLite file."""

from collections.abc import Collection
from typing import cast

from lifecycle.storage.base import Lock
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.transaction import Transaction

__all__ = ["Locks"]


class Locks:
    """The methods of `Storage` for locks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock."""
        with Transaction(self._database) as db:
            return bool(
                db.execute(
                    "insert into lock(queue, name, owner, until, worker, task) values (?,?,?,?,?,?)"
                    " on conflict do update set owner=excluded.owner, until=excluded.until, worker=excluded.worker,"
                    " task=excluded.task where until<=?",
                    (self._database.queue_id, *lock, now),
                ).rowcount
            )

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock."""
        with Transaction(self._database) as db:
            sql = "delete from lock where queue=? and name=? and owner=?"
            return bool(db.execute(sql, (self._database.queue_id, name, owner)).rowcount)

    def locks(self, now: float) -> list[Lock]:
        """Return the taken locks."""
        sql = "select name, owner, until, worker, task from lock where queue=? and until>? order by name"
        return [
            Lock(*cast("tuple[str, str, float, str, str]", row))
            for row in self._database.read(sql, (self._database.queue_id, now))
        ]

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks, whatever their owner."""
        with Transaction(self._database) as db:
            if names is None:
                return db.execute("delete from lock where queue=?", (self._database.queue_id,)).rowcount
            sql = "delete from lock where queue=? and name=?"
            return sum(db.execute(sql, (self._database.queue_id, name)).rowcount for name in set(names))
