"""``lifecycle list``: its columns on terminals and in pipes, its filters, and its pages."""

import json
import re
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import is_one_line

from lifecycle import LIFECYCLE, StorageUnavailable, TaskQueue
from lifecycle.consumer.cli.columns import PAGE_LIMIT
from lifecycle.consumer.cli.selection import read_duration
from lifecycle.diagrams.palette import terminal_colour

ANSI = re.compile(r"\x1b\[[0-9;]*m")
COLOURS = {"red": "31", "green": "32", "cyan": "36", "grey": "90"}


@pytest.fixture
def various(queue):
    """The queue with more tasks: one with a long name, one that waits for its retry, and one with a wide id."""
    long = queue.task(name="reports.monthly.a_function_with_a_very_long_name_that_no_terminal_has_room_for")(
        lambda: 1 / 0
    )
    flaky = queue.task(name="tasks.flaky", retries=2, retry_delay=600)(lambda: next(iter(())))
    long()
    flaky()
    while queue.run_next():
        pass
    queue.task(name="tasks.größe")(lambda: 0).schedule(id="größe-漢字-😀")
    return queue


# Columns ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 20, 40, 60, 80, 120, 200])
def test_list_fits_the_terminal(command_line, various, terminal, columns):
    """On a terminal no line is longer than the terminal is wide, and each task can be told by its id."""
    terminal(columns)
    code, out, err = command_line("list", "tasks")
    assert (code, err) == (0, "")
    head, *lines = ANSI.sub("", out).splitlines()
    tasks = various.tasks()
    assert head.split()[0] == "id"
    assert len(lines) == len(tasks)
    for task, line in zip(tasks, lines, strict=True):
        assert task.id.endswith(line.split()[0])
        assert columns < 20 or len(line) <= columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (30, "id state"),
        (40, "id state error"),
        (60, "id task state error"),
        (80, "id task state age error"),
        (200, "id task state attempt age due error"),
    ],
)
def test_narrow_terminals_lack_the_least_important_columns(command_line, various, terminal, columns, expected):
    """On a narrow terminal the columns that matter least are left out; id and state stay to the last."""
    terminal(columns)
    assert {*expected.split()} <= {*ANSI.sub("", command_line("list", "tasks")[1]).splitlines()[0].split()}


def test_columns_without_text_are_left_out_on_a_terminal(command_line, queue, terminal):
    """A column that is empty for all listed tasks is left out on a terminal."""
    terminal(80)
    out = ANSI.sub("", command_line("list", "tasks", "-s", "complete")[1])
    assert out.splitlines()[0].split() == ["id", "task", "state", "attempt", "age"]


def test_piped_lines_are_complete(command_line, various):
    """In a pipe all columns are there, ids, names and errors are whole, and an empty cell is a dash."""
    head, *lines = command_line("list", "tasks")[1].splitlines()
    assert head.split() == ["id", "task", "state", "attempt", "age", "due", "error"]
    for task, line in zip(various.tasks(), lines, strict=True):
        assert line.split()[:3] == [task.id, task.name, task.state]
        error = various.errors([task.id]).get(task.id)
        assert line.endswith(str(error) if error else " -")


def test_full_ids_are_printed_on_request(command_line, queue, terminal):
    """With `--full-ids` whole ids are printed on a terminal, too."""
    terminal(80)
    assert queue.in_state["error"].id in command_line("list", "tasks", "--full-ids")[1]


@pytest.mark.parametrize(
    ("state", "colour"),
    [("complete", "green"), ("error", "red"), ("revoked", "grey"), ("scheduled", "cyan"), ("queued", "cyan")],
)
def test_states_have_colours_by_good_and_bad(command_line, queue, terminal, state, colour):
    """On a terminal, success is green, failure red, an end without an attempt grey."""
    terminal(80)
    assert f"\x1b[{COLOURS[colour]}m{state}" in command_line("list", "tasks", "-s", state)[1]


def test_each_state_has_a_colour_by_its_place_in_the_table():
    """Red is for failures of the function, green for the end of a successful attempt, grey for ends without one."""
    colours = {state.name: terminal_colour(state.name) for state in LIFECYCLE.states}
    named = {colour: [name for name, its in colours.items() if its == colour] for colour in colours.values()}
    assert named["green"] == ["complete"]
    assert named["red"] == ["error", "timeout"]
    assert named["bright_black"] == ["revoked", "expired", "skipped"]


@pytest.mark.parametrize("variable", ["NO_COLOR"])
def test_no_color_variable_is_respected(command_line, queue, terminal, monkeypatch, variable):
    """With ``NO_COLOR`` in the environment nothing is coloured."""
    terminal(80)
    monkeypatch.setenv(variable, "1")
    out = command_line("list", "tasks")[1]
    assert not any(f"\x1b[{code}m" in out for code in COLOURS.values())


# Filters ---------------------------------------------------------------------------------------------------------------


def listed(command_line, *arguments):
    """Return the ids that `list` prints with these arguments."""
    code, out, err = command_line("list", "tasks", "--json", *arguments)
    assert (code, err) == (0, "")
    return [task["id"] for task in json.loads(out)]


def test_filters_select_tasks(command_line, various):
    """Each filter lists the tasks that it describes, and several filters together those that pass all."""
    tasks = various.tasks()

    def ids(condition):
        return [task.id for task in tasks if condition(task)]

    assert listed(command_line, "--task", "tasks.flaky") == ids(lambda task: task.name == "tasks.flaky")
    assert listed(command_line, "--text", "StopIteration") == ids(lambda task: task.name == "tasks.flaky")
    assert listed(command_line, "--text", "add(1, 2)") == ids(lambda task: task.args == (1, 2))
    assert listed(command_line, "--text", "größe") == ["größe-漢字-😀"]
    assert listed(command_line, "--worker", "caller-") == ids(lambda task: "caller-" in task.worker)
    assert listed(command_line, "--worker", "caller-", "-s", "error", "--task", "tasks.always_fails") == ids(
        lambda task: task.name == "tasks.always_fails"
    )
    assert listed(command_line, "--task", "nothing") == []
    assert listed(command_line, "--worker", "caller-", "-n", "1") == ids(lambda task: "caller-" in task.worker)[:1]


@pytest.fixture
def aged(folder):
    """The ids of tasks that were enqueued 10 s, 10 min, 10 h and 10 days ago."""
    now = time.time()
    ids = []
    for seconds in 10, 600, 36_000, 864_000:
        clock = type("Clock", (), {"now": lambda _, at=now - seconds: at, "on_step": lambda *_: None})()
        queue = TaskQueue(f"sqlite:///{folder}/tasks.db", clock=clock)
        ids.append(queue.task(name="tasks.add")(lambda: 0).schedule(id=f"{seconds} seconds").id)
        queue.close()
    return ids


def test_since_filters_by_the_time_of_enqueueing(command_line, aged):
    """`--since` takes a duration before now, or a date with or without a time, in local time or with a zone."""
    for text, count in {"1m": 1, "1h": 2, "0.5d": 3, "2w": 4, "90s": 1, "1970-01-01": 4}.items():
        assert {*listed(command_line, "--since", text)} == {*aged[:count]}
    moment = datetime.now(UTC) - timedelta(hours=1)
    for zone in None, UTC:
        assert {*listed(command_line, "--since", moment.astimezone(zone).isoformat())} == {*aged[:2]}
    local = moment.astimezone().replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
    assert {*listed(command_line, "--since", local)} == {*aged[:2]}


def test_ended_since_filters_by_the_time_of_coming_to_rest(command_line, folder, aged):
    """`--ended-since` selects tasks that came to rest since then, however long ago they were enqueued."""
    with closing(TaskQueue(f"sqlite:///{folder}/tasks.db")) as queue:
        fails = queue.task(name="tasks.add")(lambda: 1 / 0)
        while queue.run_next():
            pass
        fails.schedule(id="waits", delay=9)
    assert {*listed(command_line, "--since", "1h")} == {"waits", *aged[:2]}
    for text in "1h", "2w", "1970-01-01":
        assert {*listed(command_line, "--ended-since", text)} == {*aged}
    assert len(listed(command_line, "--ended-since", "1h", "-n", "3")) == 3
    assert {*listed(command_line, "--ended-since", "1h", "--since", "1h")} == {*aged[:2]}
    assert listed(command_line, "--ended-since", "1h", "-s", "complete") == []
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert listed(command_line, "--ended-since", later) == []


def test_age_is_shown(command_line, aged):
    """`list` shows the time since each task was enqueued, in its largest unit."""
    ages = {line.split("  ")[0]: line for line in command_line("list", "tasks")[1].splitlines()[1:]}
    for task_id, age in zip(aged, [r"1\ds", "10m", "10h", "10d"], strict=True):
        assert re.search(rf"\b{age}\b", ages[task_id])


@given(st.sampled_from("smhdw"), st.integers(0, 10**6), st.sampled_from(["", " "]))
def test_durations_are_a_number_and_a_unit(unit, number, space):
    """A duration is a number of seconds, minutes, hours, days or weeks."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}[unit]
    assert read_duration(f"{number}{space}{unit}") == number * seconds


@pytest.mark.parametrize("text", ["", "h", "1", "-1h", "1y", "1h30m", "yesterday", "2026-13-01", "nan", "99999-01-01"])
def test_wrong_times_are_bad_usage(command_line, queue, text):
    """A time that is neither a duration nor a date is one line that shows both, and exit code 2."""
    code, out, err = command_line("list", "tasks", "--since", text)
    assert (code, out) == (2, "")
    assert is_one_line(err, "--since", "2h", "2026-")


# Pages -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(folder):
    """A queue with more tasks than a page has, enqueued in order."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    add = queue.task(name="tasks.add")(lambda number: number)
    queue.enqueue_many([add.s(number) for number in range(2 * PAGE_LIMIT + 10)])
    yield queue
    queue.close()


@pytest.mark.parametrize("limit", [1, PAGE_LIMIT, PAGE_LIMIT + 1, 3 * PAGE_LIMIT])
def test_list_prints_all_pages(command_line, many, limit):
    """`list` prints the newest tasks over all pages, each once, in order, up to the limit."""
    expected = [task.id for task in many.tasks(limit=limit)]
    assert listed(command_line, "-n", limit) == expected
    assert [line.split()[0] for line in command_line("list", "tasks", "-n", limit)[1].splitlines()[1:]] == expected


def test_filters_find_tasks_on_any_page(command_line, many):
    """A filter finds tasks behind pages without any, and the limit counts only the tasks that pass."""
    oldest = [task.id for task in many.tasks(limit=10**6) if task.args[0] in (3, 5)]
    assert len(oldest) == 2
    assert listed(command_line, "--text", "tasks.add(3)") == oldest[1:]
    assert listed(command_line, "--text", "tasks.add(5)", "-n", "1") == oldest[:1]


def test_list_prints_each_page_before_it_reads_the_next(command_line, many, monkeypatch):
    """A page is printed before the next is read, so that `head` gets its lines, and ends the command, at once."""
    calls = []
    tasks = type(many.storage).tasks

    def once(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) > 1:
            raise StorageUnavailable("the second page")
        return tasks(self, *arguments, **options)

    monkeypatch.setattr(type(many.storage), "tasks", once)
    code, out, err = command_line("list", "tasks", "-n", "10000")
    assert (code, is_one_line(err, "the second page")) == (2, True)
    assert len(out.splitlines()) == PAGE_LIMIT + 1
