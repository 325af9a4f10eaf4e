"""`lifecycle demo`: it runs every scenario, compares each signal with the table, and reports faults."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections import Counter

import psutil
import pytest
from support.processes import PATIENCE, PROGRAMS, environment, is_path, signals

from lifecycle import SIGNALS, TaskQueue
from lifecycle.consumer.demo.demo import next_steps

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


RETRY = "promised: executing, error, retrying, enqueued, executing, complete"
SWAPPED = ("retried at once", [RETRY, "signal 3 is 'error' after 'retrying'; legal: enqueued, scheduled"])
BREAKS = {
    "repeat": (
        "add(1, 2)",
        ["promised: executing, complete", "signal 3 is 'complete' after 'complete'; nothing may follow, that is final"],
    ),
    "miscount": ("add(1, 2)", ["not so: add(1, 2) is 3"]),
    "forget": ("its timeout", ["the stored history is enqueued, executing"]),
}
"""The broken rule (see `programs/broken`), the title of its scenario, and the faults that the demo reports."""


def demo(*arguments, **more):
    """Start a demo in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "demo", *map(str, arguments)],
        env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def broken(name, only, *arguments, **more):
    """Run a demo of some scenarios with `programs/broken/sitecustomize.py`; return exit code, stdout and stderr."""
    path = os.pathsep.join([str(PROGRAMS / "broken"), environment()["PYTHONPATH"]])
    return ended(demo(*arguments, PYTHONPATH=path, BREAK=name, ONLY=only, **more))


def ended(run):
    """Wait for the end of a demo; return exit code, stdout and stderr."""
    try:
        out, err = run.communicate(timeout=3 * PATIENCE)
    finally:
        run.kill()
    return run.returncode, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder for a demo's file."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def runs(folder):
    """Exit code, stdout and stderr of demos. The whole ones take longest; the others run meanwhile."""
    started = {"for people": demo(), "for programs": demo("--json", "--folder", folder)}
    ends = {name: broken(name, title, "--json") for name, (title, _) in BREAKS.items()}
    ends["swap, for people"] = broken("swap", SWAPPED[0])
    ends["colours"] = broken("", "add(1, 2)", FORCE_COLOR="1", TERM="xterm")
    ends["no colours"] = broken("", "add(1, 2)", FORCE_COLOR="1", TERM="xterm", NO_COLOR="1")
    ends["drop"] = broken("drop", "RetryTask", "--json", SIGNAL_TIMEOUT_SECONDS="5")
    return ends | {name: ended(run) for name, run in started.items()}


def test_demo_prints_the_signals_of_each_scenario(runs):
    """The demo prints the signals of each scenario between its promise and its proof, and a table; exit code 0."""
    code, out, err = runs["for people"]
    assert (code, err) == (0, ""), [line for line in out.splitlines() if "✗" in line or "not so" in line]
    head, *parts, table, end, steps = out.strip().split("\n\n")
    assert re.search(r"Consumer \d+ has started in \d+\.\d\d s", head)
    blocks = [part.splitlines() for part in parts]
    shown = {
        title: [found[1] for line in lines if (found := re.match(r" +\d+\.\d\d s  (\w[\w-]*) +(?:attempt|consumer)", line))]
        for title, *lines in blocks
    }  # fmt: skip
    for title, promised in LAW.items():
        assert [lines for name, lines in shown.items() if title in name] == [promised.split()] or title == "add(1, 2)"
    assert shown[" 1  add(1, 2)"] == LAW["add(1, 2)"].split()
    assert all(re.match(" +proof +✓ .", block[-1]) for block in blocks)
    count = sum(len(lines) for lines in shown.values())
    assert end == f"✓ {len(blocks)} promises kept, {count} signals in the order of the table."
    assert table.count("✓") == len(blocks)
    assert steps.startswith("Next:")


def test_demo_shows_who_was_killed_and_whose_outcome_was_refused(runs):
    """The demo shows the pid that is killed, and the frozen consumer's late outcome that the store refuses."""
    _, out, _ = runs["for people"]
    killed, terminated, frozen = (part.split("\n\n")[0] for part in re.split(r"\n1[234]  its consumer ", out)[1:])
    first, second = re.search(r"☠ kill -9 (\d+)\n.*→ consumer (\d+) starts", killed).groups()
    assert re.search(rf"attempt 1  consumer {first}, .*\n(?s:.*)attempt 2  consumer {second}, ", killed)
    assert f"→ kill -TERM {second}" in terminated
    refused = re.search(r"kill -STOP (\d+)(?s:.*)kill -CONT \1 (?s:.*)✗ refused +attempt 1  consumer \1\s", frozen)
    assert refused, frozen
    assert "too late" in frozen.partition("✗ refused")[2]


def test_demo_is_plain_text_without_a_terminal(runs):
    """Without a terminal, or with ``NO_COLOR``, the demo prints no escape sequences; else it prints colours."""
    assert "\x1b" not in runs["for people"][1]
    assert "\x1b" not in runs["no colours"][1]
    assert "\x1b[32m" in runs["colours"][1]


def test_demo_json_is_the_result_of_each_scenario(runs):
    """`--json` prints all scenarios of the specification, each with exactly its signals, and no fault."""
    code, out, err = runs["for programs"]
    assert (code, err) == (0, "")
    verdicts = json.loads(out)
    assert all(verdict["came"] == verdict["promised"] and verdict["fault"] is None for verdict in verdicts)
    came = {verdict["title"]: " ".join(verdict["came"]) for verdict in verdicts}
    assert len(came) == len(verdicts)
    for title, promised in LAW.items():
        assert promised in [signals for name, signals in came.items() if title in name]
    assert came["add(1, 2)"] == LAW["add(1, 2)"]
    shown = {signal for verdict in verdicts for signal in verdict["came"]}
    assert set(SIGNALS) - shown <= {"rate-limited", "pending", "skipped"}  # the last two: workflows have their own page


def test_folder_keeps_the_file_with_the_same_signals(runs, folder):
    """`--folder` keeps the queue's file: its histories are paths through the table, and match the printed signals."""
    assert [path.name for path in folder.iterdir() if path.name.endswith(".db")] == ["demo.db"]
    queue = TaskQueue(f"sqlite:///{folder}/demo.db")
    results = [queue.handle(task.id) for task in queue.tasks()]
    assert all(is_path([record.state for record in result.history()]) for result in results)
    recorded = Counter(" ".join(verdict["came"]) for verdict in json.loads(runs["for programs"][1]))
    assert Counter(signals(result) for result in results) == recorded
    queue.close()


def test_demo_can_run_again_in_its_folder(runs, folder, tmp_path):
    """The demo can run again in the same folder, also after `add` was revoked there."""
    folder = shutil.copytree(folder, tmp_path / "again")  # what other tests read there stays as it was
    queue = TaskQueue(f"sqlite:///{folder}/demo.db")
    add = queue.task(name="demo.add")(lambda a, b: a + b)
    add.revoke()
    queue.close()
    code, out, err = broken("", "add", "--json", "--folder", folder)
    assert (code, err) == (0, ""), out


@pytest.mark.parametrize("line", ["kill -STOP", "kill -CONT"])
def test_terminated_demo_ends_its_consumers(line):
    """A demo that is terminated at any time ends its consumers, also a frozen one, and exits as a terminated program."""
    run = demo(ONLY="freezes", PYTHONPATH=os.pathsep.join([str(PROGRAMS / "broken"), environment()["PYTHONPATH"]]))
    next(shown for shown in run.stdout if line in shown)
    consumers = psutil.Process(run.pid).children()
    run.terminate()
    _, err = ended(run)[1:]
    assert (run.returncode, err) == (128 + signal.SIGTERM, "")
    assert consumers
    _, alive = psutil.wait_procs(consumers, timeout=PATIENCE)
    assert not alive


def test_killed_demo_ends_its_consumers():
    """The consumers of a demo that is killed end by themselves."""
    run = demo(ONLY="RetryTask", PYTHONPATH=os.pathsep.join([str(PROGRAMS / "broken"), environment()["PYTHONPATH"]]))
    next(shown for shown in run.stdout if "executing" in shown)
    consumers = psutil.Process(run.pid).children()
    run.kill()
    ended(run)
    _, alive = psutil.wait_procs(consumers, timeout=PATIENCE)
    assert consumers
    assert not alive


def test_next_steps_name_the_program_as_it_was_called(runs, folder):
    """The commands at the end begin with the words that started the demo, and name the file that it has kept."""
    assert f"{sys.executable} -m lifecycle demo --folder ." in runs["for people"][1]
    (look, _), *_ = next_steps(folder / "a b", "lifecycle")
    assert shlex.split(look) == ["lifecycle", "list", "--url", f"sqlite:///{folder}/a b/demo.db"]


# Faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BREAKS)
def test_broken_rule_is_a_fault_and_exit_code_1(runs, name):
    """If a rule is broken, the demo names the promised and the illegal signals; exit code 1."""
    title, parts = BREAKS[name]
    code, out, err = runs[name]
    assert (code, err) == (1, "")
    verdict = next(verdict for verdict in json.loads(out) if title in verdict["title"])
    for part in parts:
        assert part in verdict["fault"]


def test_missing_signal_is_a_fault(runs):
    """A signal that does not come is a fault."""
    code, out, err = runs["drop"]
    assert (code, err) == (1, "")
    (verdict,) = json.loads(out)
    assert verdict["came"] == verdict["promised"][:-1]
    assert "promised: executing, retrying, enqueued, executing, complete" in verdict["fault"]


def test_fault_is_printed_for_people(runs):
    """For people, a fault is printed after its scenario, and counted at the end."""
    code, out, err = runs["swap, for people"]
    assert (code, err) == (1, "")
    text = " ".join(out.split())
    assert all(part in text for part in SWAPPED[1])
    assert text.endswith("✗ 1 of 1 promises broken.")
    assert "✓" not in text


def test_demo_whose_consumers_do_not_start_ends_with_a_fault():
    """A demo whose consumers do not start reports their exit code, and does not wait for each signal."""
    code, out, err = broken("stillborn", "")
    assert code == 1
    assert "consumer" in out + err
    assert "exit code 3" in out + err
    assert "Traceback" not in err
