"""``retry``, ``cancel`` and ``revoke`` of all tasks that filters select."""

import re
import sys

import click
import pytest
from support.command_line import is_one_line

from lifecycle import LIFECYCLE, Kind
from lifecycle.execution.engine import Engine

VERBS = {"retry": [Kind.OUTCOME], "cancel": [Kind.WAITING, Kind.RUNNING], "revoke": [Kind.WAITING, Kind.RUNNING]}
EFFECT = {"retry": "queued", "cancel": "revoked", "revoke": "revoked"}


@pytest.fixture
def failed(queue):
    """The queue with ten more failed tasks, of two functions, and ten that wait."""
    fails = [queue.task(name=f"shop.{name}")(lambda number: 1 / 0) for name in ("send", "bill")]
    for function in fails:
        for number in range(5):
            function(number)
    while queue.run_next():
        pass
    later = queue.task(name="shop.later")(lambda: 0)
    for _ in range(10):
        later.schedule(delay=3600)
    return queue


def states(queue, condition=lambda _: True):
    """Return the states of all tasks by id."""
    return {task.id: task.state for task in queue.tasks(limit=1000) if condition(task)}


def run_all(queue):
    """Let a worker look at each task that is due; leave tasks that would run."""
    while task := queue.run_next():
        assert task.state == "revoked"


@pytest.mark.parametrize("verb", VERBS)
def test_filters_select_tasks_in_the_states_of_the_verb(command_line, failed, verb):
    """With filters a verb acts on all tasks that pass, in the states that allow it, and on no other task."""
    before = states(failed)
    possible = [state.name for state in LIFECYCLE.states if state.kind in VERBS[verb]]
    chosen = {task_id for task_id, state in before.items() if state in possible}
    code, out, err = command_line(verb, "tasks", "--since", "1d", "--yes")
    assert (code, err) == (0, "")
    assert out.startswith(f"{len(chosen)} tasks ")
    if verb != "retry":
        run_all(failed)
    assert states(failed) == {
        task_id: EFFECT[verb] if task_id in chosen else state for task_id, state in before.items()
    }


def test_several_filters_select_tasks_that_pass_all(command_line, failed):
    """Only tasks that pass all filters are retried."""
    before = states(failed)
    chosen = {task.id for task in failed.tasks(limit=1000) if task.name == "shop.send" and task.args[0] == 3}
    code, out, err = command_line(
        "retry", "tasks:queue", "-s", "error", "--since", "1h", "--task", "shop.send", "--text", "(3)", "-y"
    )
    assert (code, out, err) == (0, "1 task is queued again\n", "")
    assert states(failed) == {task: "queued" if task in chosen else state for task, state in before.items()}


@pytest.mark.parametrize("verb", VERBS)
def test_dry_run_lists_the_tasks_and_changes_none(command_line, failed, verb):
    """`--dry-run` lists the tasks, says on the standard error stream how many there are, and changes nothing."""
    before = states(failed)
    possible = [state.name for state in LIFECYCLE.states if state.kind in VERBS[verb]]
    chosen = {task_id for task_id, state in before.items() if state in possible}
    code, out, err = command_line(verb, "tasks", "--since", "1d", "--dry-run")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:]} == chosen
    assert f"{len(chosen)} tasks" in err
    assert states(failed) == before
    run_all(failed)
    assert failed.counts()["revoked"] == [*before.values()].count("revoked")


def test_without_a_terminal_yes_is_required(command_line, failed, monkeypatch):
    """Without a terminal to ask on, `--yes` is required: one line says how many tasks there are, and nothing changes."""
    before = states(failed)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = command_line("retry", "tasks", "--state", "error")
    assert (code, out) == (2, "")
    assert is_one_line(err, "11 tasks", "5 shop.send in error", "5 shop.bill in error", "--dry-run", "--yes")
    assert states(failed) == before


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_the_command_asks(command_line, failed, monkeypatch, answer):
    """On a terminal the command asks, with the number of tasks by function and state; without a yes nothing changes."""
    before = states(failed)
    questions = []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "confirm", lambda text, **_: questions.append(text) or answer)
    code, out, err = command_line("retry", "tasks", "--task", "shop.send")
    (question,) = questions
    assert "5 tasks (5 shop.send in error)" in question
    assert code == (0 if answer else 1)
    assert ("5 tasks are queued again" in out) == answer
    assert is_one_line(err, "nothing was changed") or answer
    assert (states(failed) == before) != answer


def test_tasks_that_another_process_was_faster_with_are_counted(command_line, failed, monkeypatch):
    """Tasks that changed between the look and the act are left alone, and counted."""
    ids = [task.id for task in failed.tasks(limit=100, name="shop.send")]
    retry = Engine.retry

    def slow(self, task_id):
        if task_id == ids[0]:
            for other in ids[:2]:
                retry(failed.engine, other)
        retry(self, task_id)

    monkeypatch.setattr(Engine, "retry", slow)
    code, out, err = command_line("retry", "tasks", "--task", "shop.send", "--yes")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"3 tasks are queued again, 2 had changed meanwhile\n", out)


def test_progress_is_shown_on_a_terminal(command_line, failed, monkeypatch):
    """On a terminal the standard error stream shows how many tasks are done."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = command_line("retry", "tasks", "--task", "shop.send", "--yes")
    assert (code, out) == (0, "5 tasks are queued again\n")
    assert "100%" in err


def test_an_interrupted_command_says_what_it_has_done(command_line, failed, monkeypatch):
    """Ctrl-C ends the command between two tasks; the number of tasks that were changed is printed."""
    retry, ids = Engine.retry, []

    def interrupted(self, task_id):
        if len(ids) == 2:
            raise KeyboardInterrupt
        ids.append(task_id)
        retry(self, task_id)

    monkeypatch.setattr(Engine, "retry", interrupted)
    code, out, err = command_line("retry", "tasks", "--task", "shop.send", "--yes")
    assert (code, out) == (130, "2 tasks are queued again\n")
    assert is_one_line(err, "interrupted")
    assert [failed.get(task_id).state for task_id in ids] == ["queued", "queued"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ([], 2, ["ID", "--since"]),
        (["4711", "tasks", "--since", "1h"], 2, ["4711", "filters", "not both"]),
        (["tasks", "--state", "complete", "--yes"], 2, ["complete", "there are"]),
        (["tasks", "--state", "finished", "--yes"], 2, ["finished", "complete"]),
        (["tasks", "--task", "nothing", "--yes"], 1, ["no task"]),
        (["4711", "tasks", "--dry-run"], 2, ["--dry-run", "filters"]),
        (["tasks", "--since", "1h", "--task", "", "--yes"], 2, ["--task", "empty"]),
        (["tasks", "--since", "1h", "--text", "", "--yes"], 2, ["--text", "empty"]),
        (["tasks", "--since", "1h", "--worker", "", "--yes"], 2, ["--worker", "empty"]),
    ],
)
def test_wrong_selections_are_one_line(command_line, failed, monkeypatch, verb, arguments, code, parts):
    """A selection that cannot be right is one line, and changes nothing."""
    monkeypatch.setenv("LIFECYCLE_URL", "sqlite:///tasks.db")
    before = states(failed)
    ended, out, err = command_line(verb, *arguments)
    assert (ended, out) == (code, "")
    assert is_one_line(err, *parts)
    assert states(failed) == before
