"""``lifecycle purge``: old tasks at rest are deleted, and no others."""

import sys
import time
from contextlib import closing

import click
import pytest
from support.command_line import is_one_line

from lifecycle import TaskQueue
from lifecycle.core.table import LIFECYCLE, Kind

DAY = 86_400


@pytest.fixture
def ages(folder):
    """The ids of tasks that came to rest 1, 10 and 100 days ago, by days; as many tasks wait since then."""
    ids, now = {}, time.time()
    for days in 1, 10, 100:
        clock = type("Clock", (), {"now": lambda _, at=now - days * DAY: at, "on_step": lambda *_: None})()
        with closing(TaskQueue(f"sqlite:///{folder}/tasks.db", clock=clock, retention=None)) as queue:
            add = queue.task(name="tasks.add")(lambda: 0)
            fails = queue.task(name="tasks.fails")(lambda: 1 / 0)
            ids[days] = [add().id, fails().id]
            while queue.run_next():
                pass
            add.schedule(delay=1000 * DAY, id=f"waits {days}")
    return ids


def remaining(folder):
    """Return the ids of all tasks."""
    with closing(TaskQueue(f"sqlite:///{folder}/tasks.db")) as queue:
        return {task.id for task in queue.tasks(limit=1000)}


@pytest.mark.parametrize(("duration", "days"), [("1h", [1, 10, 100]), ("2d", [10, 100]), ("5w", [100]), ("200d", [])])
def test_tasks_at_rest_for_longer_are_deleted(command_line, folder, ages, duration, days):
    """Tasks that came to rest before that time are deleted, in all resting states; waiting tasks stay."""
    before = remaining(folder)
    gone = {task_id for one in days for task_id in ages[one]}
    code, out, err = command_line("purge", "tasks", "--older-than", duration, "--yes")
    assert (code, out, err) == (0, f"{len(gone)} tasks deleted\n", "")
    assert remaining(folder) == before - gone


def test_all_steps_are_taken(command_line, folder, ages, monkeypatch):
    """However many tasks there are, all are deleted, in small steps."""
    monkeypatch.setattr("lifecycle.execution.engine.PURGE_LIMIT", 1)
    assert command_line("purge", "tasks", "--older-than", "1h", "-y") == (0, "6 tasks deleted\n", "")


def test_dry_run_says_how_many_and_deletes_none(command_line, folder, ages):
    """`--dry-run` says how many tasks there are at most, and deletes none."""
    before = remaining(folder)
    code, out, err = command_line("purge", "tasks", "--older-than", "2d", "--dry-run")
    assert (code, err) == (0, "")
    assert "at most 4 tasks" in out
    assert remaining(folder) == before


def test_without_yes_it_asks(command_line, folder, ages, monkeypatch):
    """Without `--yes` the command asks on a terminal, and is refused elsewhere; without a yes nothing is deleted."""
    before = remaining(folder)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = command_line("purge", "tasks", "--older-than", "2d")
    assert (code, out) == (2, "")
    assert is_one_line(err, "at most 4 tasks", "--yes")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    answers = iter([False, True])
    monkeypatch.setattr(click, "confirm", lambda *_, **__: next(answers))
    assert command_line("purge", "tasks", "--older-than", "2d")[0] == 1
    assert remaining(folder) == before
    assert command_line("purge", "tasks", "--older-than", "2d")[:2] == (0, "4 tasks deleted\n")


@pytest.mark.parametrize("duration", ["", "7", "-1d", "2026-01-01", "ever"])
def test_wrong_durations_delete_nothing(command_line, folder, ages, duration):
    """A text that is no duration is one line and exit code 2, and nothing is deleted."""
    before = remaining(folder)
    code, out, err = command_line("purge", "tasks", "--older-than", duration, "--yes")
    assert (code, out) == (2, "")
    assert is_one_line(err, "--older-than", "7d")
    assert remaining(folder) == before


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (["--state", "error"], {(1, 1), (10, 1), (100, 1)}),
        (["--state", "error", "--older-than", "2d"], {(10, 1), (100, 1)}),
        (["-s", "error", "-s", "complete", "-s", "error", "--older-than", "5w"], {(100, 0), (100, 1)}),
        (["--state", "timeout"], set()),
    ],
)
def test_tasks_in_given_states_are_deleted(command_line, folder, ages, options, gone):
    """`--state` deletes only tasks at rest in these states; with `--older-than` only those at rest for so long."""
    before = remaining(folder)
    code, out, err = command_line("purge", "tasks", *options, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith(f"at most {len(gone)} tasks are at rest in the state {options[1]}")
    assert remaining(folder) == before
    deleted = f"{len(gone)} task{'s' * (len(gone) != 1)} deleted\n"
    assert command_line("purge", "tasks", *options, "--yes") == (0, deleted, "")
    assert remaining(folder) == before - {ages[days][place] for days, place in gone}


@pytest.mark.parametrize("state", ["queued", "executing", "retrying", "done", ""])
def test_states_in_which_no_task_is_at_rest_are_refused(command_line, folder, ages, state):
    """A state in which no task is at rest is refused with the list of resting states, and nothing is deleted."""
    before = remaining(folder)
    code, out, err = command_line("purge", "tasks", "--state", "error", "--state", state, "--yes")
    assert (code, out) == (2, "")
    assert is_one_line(err, repr(state), *LIFECYCLE.of_kind(Kind.FINAL, Kind.OUTCOME))
    assert remaining(folder) == before


def test_purge_needs_a_filter(command_line, folder, ages):
    """Without `--older-than` and `--state` nothing is deleted, and the error names both."""
    before = remaining(folder)
    code, out, err = command_line("purge", "tasks", "--yes")
    assert (code, out) == (2, "")
    assert is_one_line(err, "--older-than", "--state")
    assert remaining(folder) == before
