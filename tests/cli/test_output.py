"""The output of commands: on any stream, in any locale, for any moment, and for users who may only read the store."""

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import is_one_line, process
from support.processes import PATIENCE, environment

from lifecycle import StorageUnusable, TaskQueue
from lifecycle.consumer.cli.output import local_time, short_duration, shown

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
"""Numbers of Linux: see `prctl(2)` and `capabilities(7)`."""
FIRST, LAST = datetime(1971, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001 -- Hypothesis adds the zone
ASCII = {"PYTHONIOENCODING": "ascii"}
POSIX = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def in_shell(command, folder, **variables):
    """Run a command line in a shell, where ``lifecycle`` is the program; return exit code, stdout and stderr."""
    done = subprocess.run(
        ["sh", "-c", command.replace("lifecycle", f"{sys.executable} -m lifecycle")],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# Streams ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "show", "stats", "history"])
def test_closed_stdout_is_no_error(folder, queue, command):
    """A command whose standard output is closed does its work, without a traceback."""
    target = queue.in_state["error"].id if command in ("show", "history") else ""
    assert in_shell(f"lifecycle {command} {target} tasks >&-", folder) == (0, "", "")


def test_closed_streams_of_a_command_that_writes_are_not_the_store(folder, queue):
    """With all standard streams closed, a command changes its task, and writes no text into the file of the queue."""
    result = queue.in_state["error"]
    code, out, err = in_shell(f"lifecycle retry {result.id} tasks <&- >&- 2>&-", folder)
    assert (code, out, err) == (0, "", "")
    assert result.state == "queued"


def test_run_works_without_stdout(folder, queue):
    """A consumer whose standard output is closed runs tasks and stops like any other, also if a task prints."""
    (folder / "talkative.py").write_text(
        (folder / "tasks.py").read_text() + "@queue.task()\ndef talk():\n    print('hello')\n    return 5\n"
    )
    command = f"exec {sys.executable} -m lifecycle run talkative -q >&-"
    consumer = subprocess.Popen(["sh", "-c", command], cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    assert queue.task(name="talkative.talk")(lambda: 0)().get(timeout=PATIENCE) == 5
    consumer.send_signal(signal.SIGTERM)
    _, err = consumer.communicate(timeout=PATIENCE)
    assert consumer.returncode == 0
    assert "Traceback" not in err


def test_closed_streams_lead_to_nowhere(folder):
    """Closed standard streams are opened on the null device, for child processes as well: no file gets their numbers."""
    program = """
import os, subprocess, sys
from lifecycle.consumer.cli.streams import prepare_streams
prepare_streams()
report = open("report", "w")
null = os.stat(os.devnull)
child = "import os, sys; sys.exit(any(not os.path.samestat(os.fstat(n), os.stat(os.devnull)) for n in range(3)))"
print("to nowhere", flush=True)
report.write(f"{report.fileno() > 2} {subprocess.run([sys.executable, '-c', child]).returncode}")
"""
    (folder / "program.py").write_text(program)
    assert in_shell(f"{sys.executable} program.py <&- >&- 2>&-", folder)[0] == 0
    assert (folder / "report").read_text() == "True 0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("command", ["list tasks", "list tasks --json", "stats tasks", "--help", "list --help"])
def test_output_that_cannot_be_written_is_one_line(folder, queue, command):
    """If the disk of the output is full, the command ends with one line and exit code 2."""
    code, out, err = in_shell(f"lifecycle {command} > /dev/full", folder)
    assert (code, out) == (2, "")
    assert is_one_line(err, "output", "No space left")


# Texts -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [ASCII, POSIX])
@pytest.mark.parametrize("command", ["list", "show größe-€-😀", "history größe-€-😀"])
def test_ascii_locale_shows_any_text(folder, queue, variables, command):
    """In a locale without a character of a text, the character is written as an escape; JSON is the same as elsewhere."""
    queue.task(name="tasks.größe")(lambda what: what).schedule(("ä€😀",), id="größe-€-😀")
    code, out, err = process(*command.split(), "tasks", cwd=folder, env=environment(**variables))
    assert (code, err) == (0, "")
    assert out.isascii()
    everywhere = process(*command.split(), "tasks", "--json", cwd=folder)[1]
    code, out, err = process(*command.split(), "tasks", "--json", cwd=folder, env=environment(**variables))
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(everywhere)


@pytest.mark.parametrize("variables", [ASCII, POSIX])
@pytest.mark.parametrize("command", ["verify", "diagram"])
def test_ascii_locale_shows_our_own_texts(folder, variables, command):
    """Reports and pictures are printed in any locale, too."""
    code, out, err = process(*command.split(), cwd=folder, env=environment(**variables))
    assert (code, err) == (0, "")
    assert out.isascii()


@pytest.mark.parametrize("variables", [{}, ASCII, POSIX])
@pytest.mark.parametrize("text", ["n\u00f6", os.fsdecode(b"\xff")])
def test_ids_in_any_bytes_are_at_most_one_line(folder, queue, variables, text):
    """An id with any bytes, in any locale, is an unknown task, or no text: one line and exit code 2."""
    code, out, err = process("show", text, "tasks", cwd=folder, env=environment(**variables))
    assert (code, out) == (2, "")
    assert is_one_line(err, "no t")


@given(st.text())
def test_shown_text_commands_no_terminal(text):
    """A text as it is printed has no control character and no line end."""
    assert all(category(one) not in ("Cc", "Cs", "Zl", "Zp") for one in shown(text))


# Moments ---------------------------------------------------------------------------------------------------------------


@given(st.floats() | st.floats(-1e13, 1e13))
def test_each_moment_and_duration_has_a_text(seconds):
    """Each number of seconds has a text, as a moment and as a duration, without a space in a duration."""
    assert local_time(seconds)
    assert " " not in short_duration(seconds)


@given(st.datetimes(FIRST, LAST, timezones=st.just(UTC)))
def test_moments_of_the_calendar_are_dates(moment):
    """A moment that has a date is shown as that date, in local time."""
    shown = datetime.fromisoformat(local_time(moment.timestamp()))
    assert abs((shown - moment).total_seconds()) < 0.0011  # whole milliseconds, of a float


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "250ms"),
        (1, "1s"),
        (59.9, "59s"),
        (60, "1m"),
        (7200, "2h"),
        (86_400 * 3, "3d"),
        (1e10, "316y"),
    ],
)
def test_durations_are_short(seconds, text):
    """A duration is shown in its largest unit."""
    assert short_duration(seconds) == text


@pytest.mark.parametrize("command", ["list", "show far", "history far", "list --json", "show far --json"])
def test_tasks_due_after_the_calendar_are_shown(command_line, folder, queue, command):
    """A task that is due in a year for which Python has no date, by an edit of the store, is shown like any other."""
    queue.task(name="tasks.add_later")(lambda: 0).schedule(delay=3600, id="far")
    with closing(sqlite3.connect(folder / "tasks.db", isolation_level=None)) as db:
        db.execute("update task set eta = 1e12 where id = 'far'")
    code, out, err = command_line(*command.split(), "tasks")
    assert (code, err) == (0, "")
    assert "queued" in out


@pytest.mark.parametrize("limit", [2**31, 2**63, 10**30])
def test_list_takes_any_limit(command_line, queue, limit):
    """`list` takes any number of tasks, however large."""
    code, out, err = command_line("list", "tasks", "-n", limit)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 6


# Read permission only --------------------------------------------------------------------------------------------------


def without_privileges():
    """Let the next program obey the permissions of files, also if the user is root."""
    if os.geteuid() == 0:
        for capability in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
            assert ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


@pytest.fixture
def as_reader(folder):
    """Run a command as a user who may read the files of the folder, and write neither them nor the folder."""

    def run(*arguments):
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        return process(*arguments, cwd=folder, preexec_fn=without_privileges)

    yield run
    folder.chmod(0o755)


@pytest.mark.parametrize("in_use", [True, False])
@pytest.mark.parametrize("target", ["tasks", "--url=sqlite:///tasks.db"])
def test_reading_commands_need_read_permission_only(folder, as_reader, in_use, target):
    """`list`, `show`, `stats` and `history` work for a user who may only read, while the file is in use or not."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    result = queue.task(name="tasks.add")(lambda a, b: a + b)(1, 2)
    queue.run_next()
    if not in_use:
        queue.close()
    for command, expected in {
        ("list", target): result.id,
        ("show", result.id, target): "tasks.add(1, 2)",
        ("stats", target): "complete      1",
        ("history", result.id, target): "executing",
    }.items():
        code, out, err = as_reader(*command)
        assert (code, err) == (0, "")
        assert expected in out
    code, out, err = as_reader("revoke", result.id, target)
    assert (code, out) == (2, "")
    assert is_one_line(err, "tasks.db")
    queue.close()


def test_read_only_queue_sees_the_changes_of_others(folder, queue):
    """A queue that is opened for reading only sees all changes of other processes, and creates no file."""
    queue.close()
    before = sorted(path.name for path in folder.iterdir())
    reader = TaskQueue(f"sqlite:///{folder}/tasks.db?mode=ro")
    count = sum(reader.counts().values())
    assert sorted(path.name for path in folder.iterdir()) == before
    for number in range(1, 4):
        writer = TaskQueue(f"sqlite:///{folder}/tasks.db")
        writer.task(name="tasks.add")(lambda: 0)()
        assert sum(reader.counts().values()) == count + number
        if number < 3:
            writer.close()
            assert sum(reader.counts().values()) == count + number
    writer.close()
    reader.close()


def test_read_only_url_changes_nothing(folder, queue):
    """A queue with ``mode=ro`` in its URL reads what there is, and refuses to write; a missing file stays missing."""
    reader = TaskQueue(f"sqlite:///{folder}/tasks.db?mode=ro")
    assert reader.counts() == queue.counts()
    with pytest.raises(StorageUnusable, match="readonly"):
        reader.task(name="tasks.add")(lambda a, b: 0)(1, 2)
    reader.close()
    other = TaskQueue(f"sqlite:///{folder}/tasks.db?mode=ro", name="other")
    assert (other.tasks(), sum(other.counts().values())) == ([], 0)
    other.close()
    missing = TaskQueue(f"sqlite:///{folder}/missing.db?mode=ro")
    with pytest.raises(StorageUnusable, match=r"missing\.db"):
        missing.counts()
    assert not (folder / "missing.db").exists()
    (folder / "empty.db").touch()
    empty = TaskQueue(f"sqlite:///{folder}/empty.db?mode=ro")
    with pytest.raises(StorageUnusable, match=r"empty\.db is empty"):
        empty.counts()


# The program -----------------------------------------------------------------------------------------------------------


def test_version_option_prints_the_installed_version(command_line, folder):
    """`--version` prints the version of the installed package."""
    assert command_line("--version") == (0, f"lifecycle {version('task-lifecycle')}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(command_line, folder, shell):
    """`completion` prints the script of a shell, which asks the program for completions."""
    code, out, err = command_line("completion", shell)
    assert (code, err) == (0, "")
    assert f"_LIFECYCLE_COMPLETE={shell}_complete" in out
    code, out, err = command_line("completion", "tcsh")
    assert (code, out) == (2, "")
    assert is_one_line(err, "tcsh", shell)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("lifecycle his", ["history"]),
        ("lifecycle re", ["retry", "revoke"]),
        ("lifecycle --ver", ["--version"]),
        ("lifecycle list --st", ["--state"]),
        ("lifecycle retry --state er", ["error"]),
        ("lifecycle list tasks -s re", ["revoked", "retrying"]),
        ("lifecycle completion f", ["fish"]),
        ("lifecycle lists --st", []),
    ],
)
def test_shells_complete_commands_and_options(command_line, monkeypatch, words, offered):
    """The Tab key completes commands and options; nothing is printed for a command that does not exist."""
    monkeypatch.setenv("_LIFECYCLE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    code, out, err = command_line()
    assert (code, err) == (0 if offered else 1, "")
    assert [line.partition(",")[2] for line in out.splitlines()] == offered
