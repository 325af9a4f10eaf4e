"""`lifecycle demo`: it shows every scenario of the law, holds each signal against it, and can fail."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import takewhile

import pytest
from processes import PATIENCE, PROGRAMS, environment, is_path, signals

from consumer.demo import run_demo
from lifecycle import SIGNALS, TaskQueue

# The law's table of scenarios, typed by hand: a part of the title, and the consumers' signals.
LAW = {
    "add(1, 2)": "executing complete",
    "add.schedule": "scheduled executing complete",
    "retried after a delay": "executing error retrying scheduled executing complete",
    "add.revoke()": "revoked",
    "retried at once": "executing error retrying enqueued executing complete",
    "CancelExecution": "executing canceled",
    "lock is taken": "executing locked",
    "past its expiry": "expired",
    "kill -9": "executing interrupted enqueued executing complete",
    "SIGTERM": "executing interrupted enqueued executing complete",
    "freezes": "executing interrupted enqueued executing complete",
}


def demo(*arguments, **more):
    """Start a demo in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "consumer", "demo", *map(str, arguments)],
        env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a demo keeps its file."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def runs(folder):
    """What a demo for people and one for programs, at once, came to: exit code, stdout and stderr of each."""
    started = [demo(), demo("--json", "--folder", folder)]
    ends = [run.communicate(timeout=10 * PATIENCE) for run in started]
    return [(run.returncode, *end) for run, end in zip(started, ends, strict=True)]


def test_for_people(runs):
    """It shows each signal as it comes, says of each scenario that it went as promised, and ends with exit code 0."""
    code, out, err = runs[0]
    assert (code, err) == (0, "")
    _, *parts, end = out.strip().split("\n\n")
    scenes = [part.splitlines() for part in parts]
    shown = {title: [line.split()[-1] for line in lines] for title, *lines, _ in scenes}
    for title, promised in LAW.items():
        assert [lines for name, lines in shown.items() if title in name] == [promised.split()] or title == "add(1, 2)"
    assert shown["add(1, 2)"] == LAW["add(1, 2)"].split()
    assert {verdict.strip() for *_, verdict in scenes} == {"✓ as promised"}
    count = sum(len(lines) for lines in shown.values())
    assert end.startswith(f"✓ {len(scenes)} scenarios, {count} signals")


def test_for_programs(runs):
    """`--json` prints the verdicts: all scenarios of the law, each with exactly its signals, and no fault."""
    code, out, err = runs[1]
    assert (code, err) == (0, "")
    verdicts = json.loads(out)
    assert all(verdict["came"] == verdict["promised"] and verdict["fault"] is None for verdict in verdicts)
    came = {verdict["title"]: " ".join(verdict["came"]) for verdict in verdicts}
    assert len(came) == len(verdicts)
    for title, promised in LAW.items():
        assert promised in [signals for name, signals in came.items() if title in name]
    assert came["add(1, 2)"] == LAW["add(1, 2)"]
    shown = {signal for verdict in verdicts for signal in verdict["came"]}
    assert set(SIGNALS) - shown <= {"rate-limited"}


def test_its_file(runs, folder):
    """`--folder` keeps the queue's file: the histories there are ways through the table, and those that were told."""
    assert [path.name for path in folder.iterdir() if path.name.endswith(".db")] == ["demo.db"]
    queue = TaskQueue(f"sqlite:///{folder}/demo.db")
    results = [queue.handle(task.id) for task in queue.tasks()]
    assert all(is_path([record.state for record in result.history()]) for result in results)
    told = Counter(" ".join(verdict["came"]) for verdict in json.loads(runs[1][1]))
    assert Counter(signals(result) for result in results) == told
    queue.close()


def test_again_in_its_folder(runs, folder):
    """It can be shown again where it was shown before, whatever that left behind."""
    queue = TaskQueue(f"sqlite:///{folder}/demo.db")
    add = queue.task(name="consumer.demo_tasks.add")(lambda a, b: a + b)
    add.revoke()
    queue.close()
    again = demo("--json", "--folder", folder, PYTHONPATH=broken_path(), ONLY="add", PATIENCE="5")
    out, err = again.communicate(timeout=10 * PATIENCE)
    assert (again.returncode, err) == (0, ""), out


# It can fail ---------------------------------------------------------------------------------------------------------


def broken_path():
    """A path on which the interpreter finds `programs/broken/sitecustomize.py` first."""
    return os.pathsep.join([str(PROGRAMS / "broken"), environment()["PYTHONPATH"]])


BREAKS = {
    "swap": ("retried at once", ["signal 2 is 'retrying' after 'executing'", "signal 3 is 'error' after 'retrying'"]),
    "drop": ("add(1, 2)", ["promised: executing, complete"]),
    "repeat": ("add(1, 2)", ["promised: executing, complete", "signal 3 is 'complete' after 'complete'", "final"]),
    "miscount": ("add(1, 2)", ["not so: add(1, 2) is 3"]),
    "silence": ("add(1, 2)", ["promised: executing, complete", "the stored history is enqueued, executing, complete"]),
}


@pytest.fixture(scope="module")
def failures():
    """What demos of a broken law, for people and for programs, came to."""
    started = {}
    for name, (title, _) in BREAKS.items():
        for flags in ([], ["--json"]):
            more = {"BREAK": name, "ONLY": title, "PATIENCE": "3", "PYTHONPATH": broken_path()}
            started[name, bool(flags)] = demo(*flags, **more)
    ends = {key: run.communicate(timeout=10 * PATIENCE) for key, run in started.items()}
    return {key: (started[key].returncode, *end) for key, end in ends.items()}


@pytest.mark.parametrize("name", BREAKS)
def test_it_can_fail(failures, name):
    """If the law is broken underneath, the demo says what was promised and what came instead; exit code 1."""
    title, parts = BREAKS[name]
    code, out, err = failures[name, False]
    assert (code, err) == (1, "")
    assert "✗" in out
    assert "as promised" not in out.replace("\n", " ")
    text = " ".join(out.split())
    code, out, err = failures[name, True]
    assert (code, err) == (1, "")
    (verdict,) = json.loads(out)
    assert title in verdict["title"]
    legal = "; legal: "
    for part in parts[:1] if name == "swap" else parts:
        assert part in text
        assert part in verdict["fault"]
    if name in ("swap", "repeat"):
        assert legal in verdict["fault"]
    assert ("1 of 1 went wrong") in text


def test_without_consumers(monkeypatch, capsys):
    """A demo whose consumers do not come to life says so, soon, and does not wait for each of their signals."""
    from rich.console import Console

    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert run_demo(Console(), as_json=True) is False
    assert "consumer" in capsys.readouterr().out
    assert takewhile
