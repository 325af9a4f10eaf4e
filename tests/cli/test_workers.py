"""``lifecycle workers`` and ``lifecycle stats --watch``: a look at a queue at work."""

import json
import re
from contextlib import closing

import pytest

from lifecycle import TaskQueue


@pytest.fixture
def at_work(folder, command_line):
    """Run commands while a worker runs a task; return their output."""

    def run(*commands, lease=30.0):
        outputs = []
        with closing(TaskQueue(f"sqlite:///{folder}/tasks.db", lease=lease)) as queue:

            @queue.task(name="tasks.send")
            def send(number, to):
                outputs.extend(command_line(*command) for command in commands)

            send.schedule((1,), {"to": "Ann"}, id="order-1")
            assert queue.run_next().state == "complete"
        return outputs

    return run


def test_workers_shows_running_tasks(at_work, command_line):
    """`workers` shows each running task with its worker, its call, how long it runs, and the rest of its lease."""
    shown, as_json = at_work(["workers", "tasks"], ["workers", "tasks", "--json"])
    code, out, err = shown
    assert (code, err) == (0, "")
    head, line = out.splitlines()
    assert head.split() == ["worker", "lease", "runs", "for", "attempt", "id", "call"]
    assert re.fullmatch(r"\S+/caller-\d+ +\d+s left +\d+m?s +1 +order-1 +tasks\.send\(1, to='Ann'\)", line)
    (job,) = json.loads(as_json[1])
    assert (job["id"], job["name"], job["alive"], job["attempt"]) == ("order-1", "tasks.send", True, 1)
    assert command_line("workers", "tasks")[1].splitlines()[1:] == []
    assert json.loads(command_line("workers", "tasks", "--json")[1]) == []


def test_workers_shows_lapsed_leases(folder, command_line):
    """A worker whose lease has lapsed is shown as such."""
    long_ago = type("Clock", (), {"now": lambda _: 1e9, "on_step": lambda *_: None})()
    with closing(TaskQueue(f"sqlite:///{folder}/tasks.db", clock=long_ago)) as queue:
        outputs = []
        queue.task(name="tasks.send")(lambda: outputs.append(command_line("workers", "tasks")))()
        queue.run_next()
    ((code, out, err),) = outputs
    assert (code, err) == (0, "")
    assert re.search(r"lapsed \d+y ago", out)


def test_stats_watch_counts_until_it_is_interrupted(command_line, queue, monkeypatch):
    """`stats --watch` counts again and again, shows the changes, and ends with exit code 0 on Ctrl-C."""
    retries = iter([queue.in_state["error"].id])

    def pause(seconds):
        assert seconds == 1
        if (task_id := next(retries, None)) is None:
            raise KeyboardInterrupt
        queue.retry(task_id)

    monkeypatch.setattr("lifecycle.consumer.cli.inspect.pause", pause)
    code, out, err = command_line("stats", "tasks", "--watch")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines.count(["state", "tasks", "change"]) == 2
    assert {("error", "1", "-"), ("error", "0", "-1"), ("queued", "2", "+1")} <= {*map(tuple, lines)}


def test_stats_watch_prints_a_line_of_json_each_time(command_line, queue, monkeypatch):
    """With `--json`, `stats --watch` prints one line of JSON for each count."""
    rest = iter([None, None])

    def pause(_):
        if next(rest, 0) is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr("lifecycle.consumer.cli.inspect.pause", pause)
    code, out, err = command_line("stats", "tasks", "--watch", "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line) for line in out.splitlines()] == [queue.counts()] * 3


def test_stats_watch_clears_a_terminal_only(command_line, queue, monkeypatch, terminal):
    """On a terminal, `stats --watch` writes each count over the last one."""

    def pause(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lifecycle.consumer.cli.inspect.pause", pause)
    assert "\x1b[2J" not in command_line("stats", "tasks", "--watch")[1]
    terminal(80)
    assert command_line("stats", "tasks", "--watch")[1].startswith("\x1b[H\x1b[2J")
