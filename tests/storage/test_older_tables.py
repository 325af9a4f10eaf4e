"""Stores that a release with fewer states has made take the states and steps of the present table."""

from contextlib import closing

from support.postgres import open_store, unused_name
from support.stores import PRODUCER

from lifecycle.core.policies import Outcome, settle
from lifecycle.core.step import Step
from lifecycle.core.table import COMPLETE, COMPLETED, FAIL, LIFECYCLE, PENDING, SKIP, SKIPPED, START, Lifecycle
from lifecycle.core.task import Task
from lifecycle.storage import SQLiteStorage
from lifecycle.storage.base import ClaimRequest, Settlement
from lifecycle.storage.postgres import schema as postgres_schema
from lifecycle.storage.sqlite import schema as sqlite_schema

NEW = {PENDING.name, SKIPPED.name}
OLDER = Lifecycle(
    [state for state in LIFECYCLE.states if state.name not in NEW],
    [row for row in LIFECYCLE.transitions if not {row.source and row.source.name, row.target.name} & NEW],
)
"""The table of a release that knew no workflows."""
VERSION_WITHOUT_STEPS = 5
"""The last version of both schemas before workflows."""


def claimed(storage, now):
    """Claim all that can be claimed; return the moves by the ids of the tasks, and the tasks that run."""
    _, claims = storage.exchange((), ClaimRequest("w", now, 10.0, limit=9))
    return {claim.task.id: claim.move.path for claim in claims}, {claim.task.id: claim.after() for claim in claims}


def run_workflow(storage):
    """Run a pipeline of which the second of three steps fails."""
    first, second, third = (Task(one, "add") for one in "abc")
    first.step, second.step, third.step = Step(dependents=("b",)), Step("a", 1, ("c",)), Step("b", 1)
    storage.enqueue([first, second, third], 1.0, PRODUCER)
    for task_id, trigger in ("a", COMPLETE), ("b", FAIL):
        moves, running = claimed(storage, 2.0)
        assert moves[task_id][-1] == START
        move = settle(running[task_id], Outcome(trigger, b"1"), 3.0, worker="w")
        assert storage.exchange([Settlement(running[task_id], move)], None)[0] == [True]
    assert claimed(storage, 4.0)[0] == {"c": (SKIP,)}
    assert storage.get("a").state == COMPLETED


def test_older_file_takes_the_states_of_this_release(tmp_path, monkeypatch):
    """A SQLite file that a release without workflows has made runs a workflow."""
    path = str(tmp_path / "older.db")
    with monkeypatch.context() as then, closing(SQLiteStorage(path)) as older:
        steps = [(source or "", target.name) for source, targets in OLDER.steps.items() for target in targets]
        then.setattr(sqlite_schema, "LIFECYCLE", OLDER)
        then.setattr(sqlite_schema, "_STEPS", steps)
        then.setattr(sqlite_schema, "_MIGRATIONS", sqlite_schema._MIGRATIONS[:VERSION_WITHOUT_STEPS])
        then.setattr(sqlite_schema, "VERSION", VERSION_WITHOUT_STEPS)
        assert older.counts() == {}
    with closing(SQLiteStorage(path)) as storage:
        run_workflow(storage)


def test_older_schema_takes_the_states_of_this_release(postgres, monkeypatch):
    """A PostgreSQL schema that a release without workflows has made runs a workflow."""
    name = unused_name()
    with monkeypatch.context() as then, closing(open_store(postgres, schema=name)) as older:
        then.setattr(postgres_schema, "LIFECYCLE", OLDER)
        first = postgres_schema._FIRST.replace("CLAIMABLE", postgres_schema._CLAIMABLE)
        made = [postgres_schema._filled(first, postgres_schema._OLDEST_COLUMNS)]
        then.setattr(postgres_schema, "MIGRATIONS", [*made, *postgres_schema.MIGRATIONS[1:VERSION_WITHOUT_STEPS]])
        assert older.status("a") is None
    with closing(open_store(postgres, schema=name)) as storage:
        run_workflow(storage)
