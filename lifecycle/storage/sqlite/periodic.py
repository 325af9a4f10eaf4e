"""The states of periodic tasks in a SQLite file."""

import sqlite3
from typing import cast

from lifecycle.storage.base import PeriodicState, Tick
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.transaction import Transaction

__all__ = ["Periodic"]


class Periodic:
    """The states of one queue's periodic tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def step(self, db: sqlite3.Connection, tick: Tick, task: str | None) -> bool:
        """Store a tick within a transaction; return False if another one was made. `task`: the id of its last task."""
        queue = self._database.queue_id
        if tick.before is None:
            sql = "insert into periodic(queue, name, ticked, task) values (?,?,?,?) on conflict do nothing"
            return bool(db.execute(sql, (queue, tick.name, tick.until, task)).rowcount)
        sql = (
            "update periodic set ticked=?, task=coalesce(?, task) where queue=? and name=? and ticked=? and not paused"
        )
        return bool(db.execute(sql, (tick.until, task, queue, tick.name, tick.before)).rowcount)

    def states(self) -> list[PeriodicState]:
        """Return all states, by name."""
        sql = "select name, ticked, paused, task from periodic where queue=? order by name"
        rows = cast("list[tuple[str, float, int, str | None]]", self._database.read(sql, (self._database.queue_id,)))
        return [PeriodicState(name, ticked, bool(paused), task) for name, ticked, paused, task in rows]

    def pause(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task; return whether that changed anything."""
        sql = "update periodic set ticked=?, paused=? where queue=? and name=? and paused<>?"
        if paused:
            sql = (
                "insert into periodic(ticked, paused, queue, name) values (?,?,?,?) on conflict do update"
                " set ticked=excluded.ticked, paused=excluded.paused where paused<>?"
            )
        with Transaction(self._database) as db:
            return bool(db.execute(sql, (now, paused, self._database.queue_id, name, paused)).rowcount)
