"""The command line: its output for people and for programs, and its errors."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.command_line import TASKS, is_one_line, process
from support.processes import PATIENCE, environment, states

from lifecycle import LIFECYCLE, Record, StorageUnavailable, Task, TaskQueue
from lifecycle.consumer.cli.options import SUMMARIES

# Reading -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["target", "url", "environment"])
def where(request, folder, monkeypatch):
    """The ways to name a queue."""
    url = f"sqlite:///{folder}/tasks.db"
    if request.param == "environment":
        monkeypatch.setenv("LIFECYCLE_URL", url)
        return []
    return ["tasks:queue"] if request.param == "target" else ["--url", url]


def test_list_show_history_and_stats_print_json(command_line, queue, where):
    """`list`, `show`, `history` and `stats` print JSON for programs, whichever way the queue is named."""
    code, out, err = command_line("list", *where, "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert [(task["id"], task["state"]) for task in listed] == [
        (queue.in_state[state].id, state) for state in ("queued", "revoked", "scheduled", "error", "complete")
    ]
    result = queue.in_state["error"]
    code, out, err = command_line("show", result.id, *where, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown.pop("history") == [
        {"state": one.state, "at": one.at, "worker": one.worker, "attempt": one.attempt} for one in result.history()
    ]
    assert "ZeroDivisionError" in shown.pop("traceback")
    assert (shown.pop("args"), shown.pop("kwargs"), shown.pop("result")) == ([], {}, None)
    assert shown == listed[3]
    assert shown["error"] == "ZeroDivisionError('division by zero')"
    assert (shown["name"], shown["attempt"], shown["retries"], shown["eta"]) == ("tasks.always_fails", 1, 0, None)
    code, out, err = command_line("history", result.id, *where, "--json")
    assert (code, err) == (0, "")
    assert [one["state"] for one in json.loads(out)] == ["queued", "executing", "error"]
    code, out, err = command_line("stats", *where, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == queue.counts()
    assert sum(json.loads(out).values()) == 5


def test_history_says_how_many_records_it_leaves_out(command_line, queue, monkeypatch):
    """The line after the gap of a long history says how many records lack, in the table and as JSON."""
    records = [Record("queued", 1.0, "w", 0), Record("queued", 2.0, "w", 1234, left_out=5000)]
    monkeypatch.setattr("lifecycle.queue.TaskQueue.history", lambda *_: records)
    result = queue.in_state["complete"]
    code, out, _ = command_line("history", result.id, "tasks")
    assert code == 0
    assert "(5,000 left out) queued" in out
    code, out, _ = command_line("history", result.id, "tasks", "--json")
    assert [one.get("left_out") for one in json.loads(out)] == [None, 5000]


def test_list_show_history_and_stats_print_tables(command_line, queue):
    """Without `--json` they print tables. Ids and names are never cut or folded, however narrow the output is."""
    code, out, err = command_line("list", "tasks")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 6
    for state, result in queue.in_state.items():
        (line,) = [line for line in lines if result.id in line]
        assert {state, result.task.name} <= set(line.split())
    result = queue.in_state["complete"]
    for command in ("show", "history"):
        code, out, err = command_line(command, result.id, "tasks")
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()[-3:]] == ["queued", "executing", "complete"]
        assert result.task.worker in out
    code, out, err = command_line("stats", "tasks")
    assert (code, err) == (0, "")
    counts = dict(line.split() for line in out.splitlines()[1:])
    assert counts == {state: str(count) for state, count in queue.counts().items()}


def test_list_filters_by_state_and_limits_the_number(command_line, queue):
    """`list` takes states, and the greatest number of tasks."""
    code, out, _ = command_line("list", "tasks", "--json", "-s", "error", "--state", "queued")
    assert code == 0
    assert {task["state"] for task in json.loads(out)} == {"error", "queued"}
    code, out, _ = command_line("list", "tasks", "--json", "-n", "2")
    assert [task["state"] for task in json.loads(out)] == ["queued", "revoked"]
    code, _, err = command_line("list", "tasks", "-s", "finished")
    assert code == 2
    assert is_one_line(err, "finished", *LIFECYCLE.states)


def test_name_option_selects_a_queue_of_the_store(command_line, folder):
    """With `--url`, `--name` selects the queue of that name in the store."""
    url = f"sqlite:///{folder}/both.db"
    both = [TaskQueue(url, name=name) for name in ("default", "other")]
    results = [queue.task(name="add")(lambda: 1)() for queue in both]
    for queue, result, options in zip(both, results, ([], ["--name", "other"]), strict=True):
        code, out, _ = command_line("list", "--url", url, "--json", *options)
        assert code == 0
        assert [task["id"] for task in json.loads(out)] == [result.id]
        queue.close()


def test_names_that_look_like_markup_are_printed_unchanged(command_line, folder):
    """Ids and names are printed unchanged, also if they look like markup of the library that prints them."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    queue.task(name="[bold]add[/bold]")(lambda: 1).schedule(id="order[7]")
    queue.task(name="[/]")(lambda: 1).schedule(id="[/]")
    queue.close()
    code, out, _ = command_line("list", "tasks")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["[/]", "[/]"], ["order[7]", "[bold]add[/bold]"]]
    for command in ("show", "revoke"):
        code, out, err = command_line(command, "[/]", "tasks")
        assert (code, err) == (0, "")
        assert "[/]" in out
    code, _, err = command_line("show", "[/red]", "tasks")
    assert code == 2
    assert is_one_line(err, "[/red]")


# Changing --------------------------------------------------------------------------------------------------------------


def test_retry_enqueues_a_resting_task_again(command_line, queue, where):
    """`retry` enqueues a task that rests in an outcome."""
    result = queue.in_state["error"]
    code, out, err = command_line("retry", result.id, *where)
    assert (code, err) == (0, "")
    assert result.id in out
    assert states(result) == "queued executing error retrying queued"


@pytest.mark.parametrize("state", ["complete", "revoked", "queued", "scheduled"])
def test_retry_is_refused_in_states_that_do_not_allow_it(command_line, queue, state):
    """`retry` of any other task is refused with exit code 1; the error names the state and the triggers that it allows."""
    result = queue.in_state[state]
    before = result.history()
    code, out, err = command_line("retry", result.id, "tasks")
    assert (code, out) == (1, "")
    assert is_one_line(err, f"task {result.id} is {state}: cannot retry", *LIFECYCLE.allowed(state))
    assert ("(final)" in err) == (not LIFECYCLE.allowed(state))
    assert result.history() == before


def test_revoked_task_does_not_run(command_line, queue, where):
    """A task that was revoked does not run: the next free worker moves it to `revoked`."""
    result = queue.in_state["scheduled"]
    code, out, err = command_line("revoke", result.id, *where)
    assert (code, err) == (0, "")
    assert result.id in out
    queue.run_next()
    assert states(result) == "queued scheduled revoked"


def test_cancel_revokes_a_waiting_task_and_refuses_a_resting_one(command_line, queue, where):
    """`cancel` revokes a waiting task; a resting task is refused with exit code 1."""
    result = queue.in_state["scheduled"]
    code, out, err = command_line("cancel", result.id, *where)
    assert (code, err) == (0, "")
    assert f"task {result.id} is to be canceled" in out
    queue.run_next()
    assert states(result) == "queued scheduled revoked"
    code, out, err = command_line("cancel", result.id, *where)
    assert (code, out) == (1, "")
    assert is_one_line(err, f"task {result.id} is revoked: cannot cancel (final)")


@pytest.mark.parametrize("command", ["show", "history", "retry", "cancel", "revoke"])
def test_unknown_id_is_bad_usage(command_line, queue, where, command):
    """An unknown id is bad usage: one line, exit code 2, and nothing is stored for this id."""
    code, out, err = command_line(command, "4711", *where)
    assert (code, out) == (2, "")
    assert is_one_line(err, "no task 4711")
    assert not queue.is_revoked("4711")


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "stats"])
def test_commands_that_read_do_not_create_a_file(command_line, folder, command):
    """Commands that read a queue do not create a file: a missing file is bad usage."""
    for more in (["--url", f"sqlite:///{folder}/none.db"], ["--url", "sqlite:///none.db?synchronous=full"], []):
        code, out, err = command_line(command, *more)
        assert (code, out) == (2, "")
        assert is_one_line(err, "no file", "none.db" if more else "lifecycle.db")
    assert sorted(path.name for path in folder.iterdir()) == ["tasks.py"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["list", "tasks:queue", "--url", "sqlite:///tasks.db"], ["not both"]),
        (["list", "--url", "mysql://localhost"], ["mysql://", "sqlite://"]),
        (["list", "--url", "tasks.db"], ["scheme", "sqlite:///"]),
        (["list", "-n", "0"], ["-n", "1"]),
        (["lists"], ["No such command 'lists'", "'list'"]),
        (["show"], ["ID"]),
        (["stats", "--jsn"], ["--jsn"]),
        (["demo", "--folder", "not/there"], ["no folder", "not/there"]),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(command_line, queue, arguments, parts):
    """Bad usage of any command is one line and exit code 2."""
    code, out, err = command_line(*arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts), err


def test_ctrl_c_ends_a_command_without_traceback(command_line, queue, monkeypatch):
    """Ctrl-C ends a command with one line and exit code 130."""

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(queue.storage), "counts", interrupted)
    code, out, err = command_line("stats", "tasks")
    assert (code, out) == (130, "")
    assert is_one_line(err, "interrupted")


def test_unavailable_store_is_one_line(command_line, queue, monkeypatch):
    """The error of a store is one line, too."""

    def fail(self):
        raise StorageUnavailable("tasks.db is kept locked")

    monkeypatch.setattr(type(queue.storage), "counts", fail)
    code, out, err = command_line("stats", "tasks")
    assert (code, out) == (2, "")
    assert is_one_line(err, "tasks.db is kept locked")


def test_closed_output_pipe_prints_no_error(folder, queue):
    """If the reader of the output ends (`lifecycle list | head`), no error is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle", "list", "tasks"],
        cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""


# Help ----------------------------------------------------------------------------------------------------------------


WITHOUT_QUEUE = ("demo", "verify", "check", "completion", "call")
JSON = ("demo", "list", "show", "history", "stats", "verify", "check", "call", "workers", "cron")


@pytest.mark.parametrize("command", SUMMARIES)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_each_command(command_line, command, flag):
    """The help of a command begins with its summary and lists its arguments and options, in lines of 80 columns."""
    code, out, err = command_line(command, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: lifecycle {command} ")
    assert SUMMARIES[command] in " ".join(out.split())
    assert ("--help" in out, "MODULE:QUEUE" in out) == (True, command not in WITHOUT_QUEUE)
    assert ("--url" in out) == (command != "run" and command not in WITHOUT_QUEUE)
    assert ("--json" in out) == (command in JSON)
    assert max(map(len, out.splitlines())) < 80


def test_overall_help_lists_all_commands(command_line):
    """With `--help`, and without a command, all commands are listed; without a command the exit code is 2."""
    for arguments, code in ((["--help"], 0), ([], 2)):
        ended, out, err = command_line(*arguments)
        assert (ended, err) == (code, "")
        assert [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines() if line[2] != " "] == [
            *SUMMARIES
        ]


NOT_IMPORTED = {
    "--help": ["rich", "attrs", "msgspec", "transitions", "lifecycle.api", "lifecycle.core", "lifecycle.storage"],
    "list": ["lifecycle.consumer.demo", "lifecycle.consumer.consumer", "lifecycle.analysis", "lifecycle.diagrams"],
    "verify": ["lifecycle.consumer.demo", "lifecycle.consumer.consumer", "lifecycle.storage", "lifecycle.execution"],
}
"""The modules and packages that a command must not import: they would delay its start."""


@pytest.mark.parametrize("command", NOT_IMPORTED)
def test_command_imports_only_needed_modules(folder, queue, command):
    """The list of commands, `list` and `verify` import no demo, no other store's adapter, and nothing of other commands."""
    program = f"import sys; sys.argv[1:] = [{command!r}]; from lifecycle.consumer.cli.main import main\n"
    program += "try:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    variables = environment() | {"LIFECYCLE_URL": f"sqlite:///{folder}/tasks.db"}
    ended = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    imported = ended.stderr.split()
    assert "lifecycle.consumer.cli.main" in imported
    never = [*NOT_IMPORTED[command], "lifecycle.storage.postgres.storage", "lifecycle.storage.redis.storage", "asyncio"]
    assert [name for name in imported if any(f"{name}.".startswith(f"{one}.") for one in never)] == []


def test_python_m_lifecycle_is_the_command_line(folder, queue):
    """`python -m lifecycle` is the command line, too, and finds the modules of the current folder."""
    code, out, err = process("stats", "tasks:queue", "--json", cwd=folder)
    assert (code, err) == (0, "")
    assert json.loads(out) == queue.counts()


# run -----------------------------------------------------------------------------------------------------------------


def test_run_works_until_stopped_and_logs(folder, queue):
    """`run` runs the tasks of a queue until it is stopped, and logs its start and its end."""
    consumer = subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "run", "tasks", "-w", "2"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert queue.in_state["queued"].get(timeout=PATIENCE) == 11
    consumer.send_signal(signal.SIGTERM)
    out, err = consumer.communicate(timeout=PATIENCE)
    assert (consumer.returncode, out) == (0, "")
    for part in ("2 workers", "'default'", "tasks.add, tasks.always_fails", "stopping", "has stopped"):
        assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flag", "levels", "others"),
    [("-q", set(), False), ("-v", {"INFO", "DEBUG"}, False), ("--log-level=debug", {"INFO", "DEBUG"}, True)],
)
def test_run_log_level_follows_its_options(folder, flag, levels, others):
    """With `-q` only warnings and errors are logged, with `-v` all lines of the library, and of others by their level."""
    (folder / "talkative.py").write_text(
        TASKS.format(url="sqlite:///talk.db")
        + "import logging\nlogging.getLogger('lifecycle.own').debug('unseen')\n"
        + "queue.on_startup()(lambda: logging.debug('of others'))\n"
        + "queue.on_startup()(lambda: logging.getLogger('lifecycle.own').debug('up'))\n"
    )
    with (folder / "log").open("w") as log:
        consumer = subprocess.Popen(
            [sys.executable, "-m", "lifecycle", "run", "talkative", flag], cwd=folder, env=environment(), stderr=log
        )
    queue = TaskQueue(f"sqlite:///{folder}/talk.db")
    assert queue.task(name="talkative.add")(lambda a, b: 0)(1, 2).get(timeout=PATIENCE) == 3
    consumer.send_signal(signal.SIGTERM)
    assert consumer.wait(PATIENCE) == 0
    queue.close()
    text = (folder / "log").read_text()
    assert {level for level in ("DEBUG", "INFO", "WARNING", "ERROR") if f" {level} " in text} == levels
    assert time.strftime("%Y") in text or not levels
    assert ("of others" in text) is others
    assert (" lifecycle.task: task complete: function=talkative.add task=" in text) is ("INFO" in levels)


def test_stats_name_functions_that_the_program_lacks(command_line, queue):
    """`stats` of a program says how many tasks wait for functions that the program does not have; of a URL it cannot."""
    queue.enqueue_many([Task("one", "shop.\x1bnew"), Task("two", "shop.\x1bnew")])
    code, out, err = command_line("stats", "tasks")
    assert (code, err) == (0, "")
    assert "2 tasks wait for a consumer that knows shop.\\x1bnew, which this program does not" in out
    assert "wait for" not in command_line("stats", "tasks", "--json")[1]
    assert "wait for" not in command_line("stats", "--url", f"sqlite:///{queue.storage._database.path}")[1]
