"""Summaries of blocks of tasks: numbers of tasks and pages of tasks without reading all rows.

A block is 256 tasks of consecutive numbers. The summary of a block has a row for each state in the block, and one for
each state of each function: the number of tasks, and the time of the latest enqueueing. Readers make summaries. A
trigger deletes the summary of a block when a task in it moves or is deleted, so a summary that is there is right. No
summary is made of the newest block, to which tasks are added.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, cast

from lifecycle.core.task import Task
from lifecycle.storage.sqlite.database import Database
from lifecycle.storage.sqlite.statements import TASK, marks, task_from
from lifecycle.storage.sqlite.transaction import Transaction

__all__ = ["Summary"]

_WORTHWHILE: Final = 16
"""Number of blocks without a summary that a reader reads row by row; of more blocks it makes summaries first."""
_STEP: Final = 64
"""Largest number of blocks that are summarized in one transaction: other writers wait meanwhile."""

_RANGE: Final = "select (select min(seq) from task) >> 8, (select max(seq) from task) >> 8"
_NEWEST: Final = "select seq >> 8 from sqlite_sequence where name='task'"
_MARKED: Final = "select block from summary where queue=? and name='' and state=''"
"""The blocks that have a summary. Each summary has a row without a state; it may have no other rows."""
# The plus keeps SQLite from the index of ids: all rows of a block are wanted, in the order of their numbers.
_BLOCKS: Final = "from task where +queue=? and seq >= ? << 8 and seq < (? + 1) << 8"
_MAKE: Final = (
    "insert into summary(queue, name, state, block, count, latest)"
    f" select queue, '=' || name, state, seq >> 8, count(*), max(enqueued) {_BLOCKS} group by seq >> 8, state, name"
)
_ADD_UP: Final = (
    "insert into summary(queue, name, state, block, count, latest)"
    " select queue, '', state, block, sum(count), max(latest) from summary"
    " where queue=? and block between ? and ? group by state, block"
)
_MARK: Final = "insert into summary(queue, name, state, block, count) values (?, '', '', ?, 0)"
_TOTALS: Final = "select state, sum(count) from summary where queue=? and name='' and state <> '' group by state"


class Summary:
    """The summaries of one queue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        self.make()
        queue = self._database.queue_id

        def read(db: sqlite3.Connection) -> dict[str, int]:
            found = Counter(dict(db.execute(_TOTALS, (queue,))))
            for first, last in _runs(self._missing(db)):
                found.update(dict(db.execute(f"select state, count(*) {_BLOCKS} group by state", (queue, first, last))))
            return dict(found)

        return self._database.read_together(read)

    def tasks(
        self, states: Collection[str] | None, limit: int, before: int | None, name: str | None, since: float | None
    ) -> list[Task]:
        """Return tasks, the newest first: see `Storage.tasks`."""
        queue = self._database.queue_id
        wanted, values = "", cast("list[object]", [])
        if states is not None:
            wanted, values = f" and state in ({marks(states)})", [*states]
        if since is not None:
            wanted, values = f"{wanted} and enqueued>=?", [*values, since]
        hits = f"select block from summary where queue=? and name=? {wanted.replace('enqueued>', 'latest>')}"
        hit_values = [queue, "" if name is None else f"={name}", *values]
        if name is not None:
            wanted, values = f"{wanted} and name=?", [*values, name]
        sql = f"{TASK} where +queue=?{wanted} and seq >= ? and seq < ? order by seq desc limit ?"
        end = 2**63 - 1 if before is None else before
        if not wanted:
            return [task_from(row) for row in self._database.read(sql, (queue, 0, end, limit))]
        self.make()

        def read(db: sqlite3.Connection) -> list[Any]:
            found: list[Any] = []
            blocks = {number for (number,) in db.execute(hits, hit_values)}.union(self._missing(db))
            for first, last in _runs(number for number in sorted(blocks, reverse=True) if number << 8 < end):
                until = min(last + 1 << 8, end)
                found += db.execute(sql, (queue, *values, first << 8, until, limit - len(found))).fetchall()
                if len(found) == limit:
                    break
            return found

        return [task_from(row) for row in self._database.read_together(read)]

    def make(self) -> None:
        """Make the summaries that are missing, if they are many and the file may be changed."""
        if self._database.read_only:
            return
        queue = self._database.queue_id
        missing = self._database.read_together(self._missing)
        if len(missing) <= _WORTHWHILE:
            return
        for begin in range(0, len(missing), _STEP):
            with Transaction(self._database) as db:
                ((newest,),) = db.execute(_NEWEST).fetchall()
                there = {number for number in self._missing(db) if number < newest}  # others may have made some
                for first, last in _runs(number for number in missing[begin : begin + _STEP] if number in there):
                    db.execute(_MAKE, (queue, first, last))
                    db.execute(_ADD_UP, (queue, first, last))
                    db.executemany(_MARK, [(queue, number) for number in range(first, last + 1)])

    def _missing(self, db: sqlite3.Connection) -> list[int]:
        """Return the blocks that have no summary, the newest first."""
        ((oldest, newest),) = db.execute(_RANGE).fetchall()
        if newest is None:
            return []
        there = {number for (number,) in db.execute(_MARKED, (self._database.queue_id,))}
        return [number for number in range(newest, oldest - 1, -1) if number not in there]


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of consecutive numbers; `numbers` are descending."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = last = number
        elif number == first - 1:
            first = number
        else:
            yield first, last
            first = last = number
    if first is not None and last is not None:
        yield first, last
