"""SQLite files that are removed or replaced while queues have them open."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.stores import PRODUCER

from lifecycle import Task

ENDINGS = ("-wal", "-shm")

READS_AND_WRITES = {
    "read": lambda storage: storage.get("a"),
    "reads": lambda storage: storage.counts(),
    "write": lambda storage: storage.enqueue([Task("new", "add")], 2.0, PRODUCER),
}
on_each_use = pytest.mark.parametrize("use", READS_AND_WRITES.values(), ids=READS_AND_WRITES)


def look_is_due(storage):
    """Let the time between two looks be over."""
    storage._database.check_at = 0.0


def ids(storage):
    """Return the ids of the tasks in a store."""
    return {task.id for task in storage.tasks()}


def ids_in(path):
    """Return the ids of the tasks as another program reads them, from a sound file."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        return {task_id for (task_id,) in db.execute("select id from task")}


def reported(caplog, text):
    """Return the log lines of this beginning that name the file."""
    return [line for line in caplog.messages if line.startswith(text) and "q.db" in line]


def remove(path, *endings):
    """Remove a file (the ending is empty) or the files beside it."""
    for ending in endings:
        Path(f"{path}{ending}").unlink()
