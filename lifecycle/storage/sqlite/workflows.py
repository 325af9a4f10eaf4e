"""Reports to tasks that wait for others, in a SQLite file. The caller has a transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, cast

from lifecycle.core.step import Report, Step, decided, verdict_text
from lifecycle.core.table import PENDING
from lifecycle.core.task import Task
from lifecycle.storage.sqlite.statements import TASK, task_from

__all__ = ["count_reports", "hear"]

_AWAITS: Final = "select number from awaits where queue=? and id=?"
_EXPECT: Final = "insert or replace into awaits(queue, id, number) values (?,?,?)"
_COUNT: Final = "update awaits set number=number-1 where queue=? and id=?"
_DECIDED: Final = "delete from awaits where queue=? and id=?"


def count_reports(db: sqlite3.Connection, queue: int, task: Task) -> None:
    """Store how many ends a new task waits for, if it does."""
    if task.step is not None and task.step.awaits:
        db.execute(_EXPECT, (queue, task.id, task.step.awaits))


def hear(
    db: sqlite3.Connection, queue: int, reports: Sequence[Report], become_visible: Callable[[Task, float], None]
) -> None:
    """Count reports, and store the verdicts that they lead to.

    `become_visible`: called with each task that has a verdict now and is not held, and the moment.
    """
    for report in reports:
        waiting = queue, report.dependent
        missing = db.execute(_AWAITS, waiting).fetchone()
        if missing is None:  # decided before
            continue
        if report.completed and missing[0] > 1:
            db.execute(_COUNT, waiting)
            continue
        db.execute(_DECIDED, waiting)
        row = db.execute(TASK + " where queue=? and id=? and state=?", (*waiting, PENDING.name)).fetchone()
        if row is None:
            continue
        task = task_from(row)
        task.step = decided(cast(Step, task.step), report)
        if task.step.verdict is not None:
            db.execute("update task set verdict=? where seq=?", (verdict_text(task.step.verdict), task.seq))
        if task.lease is None:
            become_visible(task, report.at)
