"""Look-ups of single tasks, and of ids, in a SQLite file."""

from collections.abc import Collection
from typing import cast

import msgspec

from lifecycle.core.task import Record, Task, read_history
from lifecycle.storage.base import TaskStatus
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.statements import TASK, task_from

__all__ = ["Lookups"]


class Lookups:
    """The methods of `Storage` that read tasks by their ids."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, task_id: str) -> Task | None:
        """Return a copy of a task."""
        rows = self._database.read(TASK + " where queue=? and id=?", (self._database.queue_id, task_id))
        return task_from(rows[0]) if rows else None

    def history(self, task_id: str) -> list[Record] | None:
        """Return a task's history."""
        rows = self._database.read(
            "select history from task where queue=? and id=?", (self._database.queue_id, task_id)
        )
        return read_history(cast(str, rows[0][0])) if rows else None

    def status(self, task_id: str) -> TaskStatus | None:
        """Return a task's state and result."""
        rows = self._database.read(
            "select state, result from task where queue=? and id=?", (self._database.queue_id, task_id)
        )
        return TaskStatus(*cast("tuple[str, bytes | None]", rows[0])) if rows else None

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return state and result of many tasks."""
        sql = "select id, state, result from task where queue=? and id in (select value from json_each(?))"
        rows = self._database.read(sql, (self._database.queue_id, msgspec.json.encode(list(task_ids)).decode()))
        found = cast("list[tuple[str, str, bytes | None]]", rows)
        return {task_id: TaskStatus(state, result) for task_id, state, result in found}

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return ids that begin or end with a text."""
        # The index of ids has all that is asked for.
        size = len(text)
        sql = "select id from task where queue=? and (substr(id,1,?)=? or substr(id,-?)=?) order by seq desc limit ?"
        rows = self._database.read(sql, (self._database.queue_id, size, text, size, text, limit))
        return [cast(str, task_id) for (task_id,) in rows]
