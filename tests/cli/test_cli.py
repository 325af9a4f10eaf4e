"""The command line: what it says, to people and to programs, and how it takes mistakes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.command_line import TASKS, is_one_line, process
from support.processes import PATIENCE, environment, states

from lifecycle import LIFECYCLE, StorageUnavailable, TaskQueue
from lifecycle.consumer.cli import main as commands
from lifecycle.consumer.cli.main import main


@pytest.fixture
def cli(folder, monkeypatch, capsys):
    """Gives a command in this process: its exit code, and what it wrote to stdout and stderr."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    queues, queue_of = [], commands._queue
    monkeypatch.setattr(commands, "_queue", lambda *given: queues.append(queue_of(*given)) or queues[-1])

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lifecycle", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    yield run
    for queue in queues:
        queue.close()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def queue(folder):
    """The queue of `tasks.py`, with a task in each of five states; they are in `queue.in_state`."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    add = queue.task(name="tasks.add")(lambda a, b: a + b)
    hopeless = queue.task(name="tasks.hopeless")(lambda: 1 / 0)
    queue.in_state = {"complete": add(1, 2), "error": hopeless(), "scheduled": add.schedule((1, 2), delay=3600)}
    while queue.run_next():
        pass
    doomed = add(3, 4)
    doomed.revoke()
    queue.run_next()
    queue.in_state |= {"revoked": doomed, "queued": add(5, 6)}
    assert all(result.state == state for state, result in queue.in_state.items())
    yield queue
    queue.close()


# Looking -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["target", "url", "environment"])
def where(request, folder, monkeypatch):
    """The ways to say which queue is meant."""
    url = f"sqlite:///{folder}/tasks.db"
    if request.param == "environment":
        monkeypatch.setenv("LIFECYCLE_URL", url)
        return []
    return ["tasks:queue"] if request.param == "target" else ["--url", url]


def test_look_ups(cli, queue, where):
    """`list`, `show`, `history` and `stats` print JSON for programs, whichever way the queue is named."""
    code, out, err = cli("list", *where, "--json")
    assert (code, err) == (0, "")
    listed = json.loads(out)
    assert [(task["id"], task["state"]) for task in listed] == [
        (queue.in_state[state].id, state) for state in ("queued", "revoked", "scheduled", "error", "complete")
    ]
    result = queue.in_state["error"]
    code, out, err = cli("show", result.id, *where, "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown.pop("history") == [
        {"state": one.state, "at": one.at, "worker": one.worker, "attempt": one.attempt} for one in result.history()
    ]
    assert shown == listed[3]
    assert (shown["name"], shown["attempt"], shown["retries"], shown["eta"]) == ("tasks.hopeless", 1, 0, None)
    code, out, err = cli("history", result.id, *where, "--json")
    assert (code, err) == (0, "")
    assert [one["state"] for one in json.loads(out)] == ["queued", "executing", "error"]
    code, out, err = cli("stats", *where, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == queue.counts()
    assert sum(json.loads(out).values()) == 5


def test_look_ups_for_people(cli, queue):
    """The same, as tables: nothing that identifies a task is cut or folded, however narrow the output."""
    code, out, err = cli("list", "tasks")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 6
    for state, result in queue.in_state.items():
        (line,) = [line for line in lines if result.id in line]
        assert {state, result.task.name} <= set(line.split())
    result = queue.in_state["complete"]
    for command in ("show", "history"):
        code, out, err = cli(command, result.id, "tasks")
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in out.splitlines()[-3:]] == ["queued", "executing", "complete"]
        assert result.task.worker in out
    code, out, err = cli("stats", "tasks")
    assert (code, err) == (0, "")
    counts = dict(line.split() for line in out.splitlines()[1:])
    assert counts == {state: str(count) for state, count in queue.counts().items()}


def test_list_some(cli, queue):
    """`list` may be told which states, and how many tasks at the most."""
    code, out, _ = cli("list", "tasks", "--json", "-s", "error", "--state", "queued")
    assert code == 0
    assert {task["state"] for task in json.loads(out)} == {"error", "queued"}
    code, out, _ = cli("list", "tasks", "--json", "-n", "2")
    assert [task["state"] for task in json.loads(out)] == ["queued", "revoked"]
    code, _, err = cli("list", "tasks", "-s", "finished")
    assert code == 2
    assert is_one_line(err, "finished", *LIFECYCLE.states)


def test_another_name(cli, folder):
    """With `--url`, `--name` says which queue of the store is meant."""
    url = f"sqlite:///{folder}/both.db"
    both = [TaskQueue(url, name=name) for name in ("default", "other")]
    results = [queue.task(name="add")(lambda: 1)() for queue in both]
    for queue, result, options in zip(both, results, ([], ["--name", "other"]), strict=True):
        code, out, _ = cli("list", "--url", url, "--json", *options)
        assert code == 0
        assert [task["id"] for task in json.loads(out)] == [result.id]
        queue.close()


def test_odd_names(cli, folder):
    """Ids and names are printed as they are, whatever they look like to the library that prints them."""
    queue = TaskQueue(f"sqlite:///{folder}/tasks.db")
    queue.task(name="[bold]add[/bold]")(lambda: 1).schedule(id="order[7]")
    queue.task(name="[/]")(lambda: 1).schedule(id="[/]")
    queue.close()
    code, out, _ = cli("list", "tasks")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["[/]", "[/]"], ["order[7]", "[bold]add[/bold]"]]
    for command in ("show", "revoke"):
        code, out, err = cli(command, "[/]", "tasks")
        assert (code, err) == (0, "")
        assert "[/]" in out
    code, _, err = cli("show", "[/red]", "tasks")
    assert code == 2
    assert is_one_line(err, "[/red]")


# Acting --------------------------------------------------------------------------------------------------------------


def test_retry(cli, queue, where):
    """`retry` runs once more what rests in an outcome."""
    result = queue.in_state["error"]
    code, out, err = cli("retry", result.id, *where)
    assert (code, err) == (0, "")
    assert result.id in out
    assert states(result) == "queued executing error retrying queued"


@pytest.mark.parametrize("state", ["complete", "revoked", "queued", "scheduled"])
def test_retry_what_cannot_be(cli, queue, state):
    """`retry` of anything else is refused with exit code 1: what is so, and what could be done instead."""
    result = queue.in_state[state]
    before = result.history()
    code, out, err = cli("retry", result.id, "tasks")
    assert (code, out) == (1, "")
    assert is_one_line(err, f"task {result.id} is {state}: cannot retry", *LIFECYCLE.allowed(state))
    assert ("(final)" in err) == (not LIFECYCLE.allowed(state))
    assert result.history() == before


def test_revoke(cli, queue, where):
    """`revoke` keeps a task from running; the next free worker says so."""
    result = queue.in_state["scheduled"]
    code, out, err = cli("revoke", result.id, *where)
    assert (code, err) == (0, "")
    assert result.id in out
    queue.run_next()
    assert states(result) == "queued scheduled revoked"


def test_cancel(cli, queue, where):
    """`cancel` revokes a task that waits, and refuses one that rests with exit code 1."""
    result = queue.in_state["scheduled"]
    code, out, err = cli("cancel", result.id, *where)
    assert (code, err) == (0, "")
    assert f"task {result.id} is called off" in out
    queue.run_next()
    assert states(result) == "queued scheduled revoked"
    code, out, err = cli("cancel", result.id, *where)
    assert (code, out) == (1, "")
    assert is_one_line(err, f"task {result.id} is revoked: cannot cancel (final)")


@pytest.mark.parametrize("command", ["show", "history", "retry", "cancel", "revoke"])
def test_unknown_ids(cli, queue, where, command):
    """An id that is not there is a mistake: one line, exit code 2, and nothing is remembered of it."""
    code, out, err = cli(command, "4711", *where)
    assert (code, out) == (2, "")
    assert is_one_line(err, "no task 4711")
    assert not queue.is_revoked("4711")


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["list", "stats"])
def test_no_file(cli, folder, command):
    """To look at a queue is no reason to make one: a file that is not there is a mistake."""
    for more in (["--url", f"sqlite:///{folder}/none.db"], ["--url", "sqlite:///none.db?synchronous=full"], []):
        code, out, err = cli(command, *more)
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
        (["lists"], ["lists"]),
        (["show"], ["ID"]),
        (["stats", "--jsn"], ["--jsn"]),
        (["demo", "--folder", "not/there"], ["no folder", "not/there"]),
    ],
)
def test_bad_usage(cli, queue, arguments, parts):
    """Bad usage of any command takes one line, and exit code 2."""
    code, out, err = cli(*arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts), err


def test_interrupted(capsys):
    """Ctrl-C ends a command without a traceback."""

    def command(**options):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 130
    assert is_one_line(capsys.readouterr().err, "interrupted")


def test_a_store_that_is_away(cli, queue, monkeypatch):
    """A store that fails is told in one line, too."""

    def fail(self):
        raise StorageUnavailable("tasks.db is kept locked")

    monkeypatch.setattr(type(queue.storage), "counts", fail)
    code, out, err = cli("stats", "tasks")
    assert (code, out) == (2, "")
    assert is_one_line(err, "tasks.db is kept locked")


def test_a_reader_that_leaves(folder, queue):
    """Whoever reads the output may stop doing so (`lifecycle list | head`): that is no error to speak of."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle", "list", "tasks"],
        cwd=folder, env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert done.stderr == ""


# Help ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "demo", "list", "show", "history", "stats", "retry", "revoke"])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(cli, command, flag):
    """Each command says what it does and what it takes."""
    code, out, err = cli(command, flag)
    assert (code, err) == (0, "")
    assert f"lifecycle {command}" in out
    assert "--help" in out
    assert (command in ("run", "demo")) != ("--url" in out)
    assert ("--json" in out) == (command in ("demo", "list", "show", "history", "stats"))


def test_overall_help(cli):
    """Without a command, and with `--help`, all of them are listed."""
    for arguments in (["--help"], []):
        _, out, err = cli(*arguments)
        for command in ("run", "demo", "list", "show", "history", "stats", "retry", "revoke"):
            assert f" {command} " in out + err


def test_as_a_module(folder, queue):
    """`python -m consumer` is the command line, too, and sees the modules of the current folder."""
    code, out, err = process("stats", "tasks:queue", "--json", cwd=folder)
    assert (code, err) == (0, "")
    assert json.loads(out) == queue.counts()


# run -----------------------------------------------------------------------------------------------------------------


def test_run(folder, queue):
    """`run` runs the tasks of a queue until it is stopped, and logs its beginning and its end."""
    consumer = subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "run", "tasks", "-w", "2"],
        cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert queue.in_state["queued"].get(timeout=PATIENCE) == 11
    consumer.send_signal(signal.SIGTERM)
    out, err = consumer.communicate(timeout=PATIENCE)
    assert (consumer.returncode, out) == (0, "")
    for part in ("2 workers", "'default'", "tasks.add, tasks.hopeless", "stopping", "has stopped"):
        assert part in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("flag", "levels"), [("-q", set()), ("-v", {"INFO", "DEBUG"})])
def test_run_as_loud_as_wanted(folder, flag, levels):
    """`-q` leaves out news, `-v` nothing at all."""
    (folder / "talkative.py").write_text(
        TASKS.format(url="sqlite:///talk.db") + "import logging\nqueue.on_startup()(lambda: logging.debug('up'))\n"
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
