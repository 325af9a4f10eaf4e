"""Faults, tried for real, a little of each. ``python tests/faults`` does the same with thousands of tasks and more kills."""

import math
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from faults import ticks
from faults.audit import END, Audit
from faults.consumer_processes import process_environment
from faults.figures import PAGE, page_with, text
from faults.places import STORES, Missing, place
from faults.proxy import MANNERS, Proxy
from faults.scenarios import KINDS, SCENARIOS, Report, planned, run_trial
from faults.storm import storm
from faults.trial import Options, open_trial, read
from support.processes import PATIENCE
from support.profiles import thorough

from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, Tick

OPTIONS = Options(tasks=40, kills=1, seed=7, consumers=2, workers=2, interruptions=1)

LEFT_OUT = {("poison", "postgres"), ("clocks", "redis"), ("logs", "sqlite")}
"""What takes its time, and is decided as on another store; and removed logs, which a process that is stopped for longer
than the others wait can lose. The program tries them."""


def trials():
    """Each scenario on each store, with another kind of worker on each; a storm is one for all of them.

    The default profile tries each scenario on one of its stores.
    """
    for row, (name, scenario) in enumerate(SCENARIOS.items()):
        stores = [store for store in STORES if store in scenario.stores and (name, store) not in LEFT_OUT]
        for column, store in enumerate(stores):
            kinds = KINDS if scenario.run is storm else (KINDS[(row + column) % len(KINDS)],)
            marks = () if column == row % len(stores) else thorough
            for one in planned(name, store, attrs.evolve(OPTIONS, kinds=kinds)):
                yield pytest.param(name, store, one, id=f"{name} on {store}, {' '.join(one.kinds)}", marks=marks)


def required(name, store, options):
    """The report of a trial; skips it if something that it needs is not here, which on CI has to be."""
    try:
        return run_trial(name, store, options)
    except Missing as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))


@pytest.mark.parametrize(("name", "store", "options"), [*trials()])
def test_each_scenario_loses_no_task(name, store, options):
    """Whatever happens to consumers and stores, each task is accounted for, finished once, and each duplicate explained."""
    report = required(name, store, options)
    assert report.audit.faults == [], f"seed {options.seed}; the consumers' logs are in {report.logs}"
    assert report.audit.tasks >= options.tasks or name in ("freeze", "silence", "full")
    assert not report.disturbances.startswith("0 ")


def test_planted_loss_and_duplicate_are_found(tmp_path):
    """After a real run, a task that was deleted from the store is found, and so is an execution added to the journal."""
    with place("sqlite", tmp_path) as where, open_trial(where, tmp_path, OPTIONS, lease=1.5) as trial:
        storm(trial)
        assert trial.audit().faults == []
        first, *_, last = [line for line in read(trial.journal) if line.what == END]
        with trial.journal.open("a") as journal:
            journal.write("\t".join(map(str, last)) + "\n")
        victim = first.task
        with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
            assert db.execute("delete from task where id = ?", [victim]).rowcount == 1
        audit = trial.audit()
    assert audit.count("lost") == 1
    assert audit.count("unexplained") == 2


@pytest.mark.parametrize("planted", ["a loss", "a duplicate"])
def test_planted_loss_and_duplicate_of_a_tick_are_found(tmp_path, planted):
    """A tick whose task was deleted from the store is found, and so is a tick with a second task."""
    with place("sqlite", tmp_path) as where, open_trial(where, tmp_path, OPTIONS, lease=1.5) as trial:
        begun = ticks.begin(trial)
        name = next(iter(trial.work.RULES))
        for one in trial.work.RULES:
            made = [Task(f"{one}-{number}", one) for number in range(3)]
            now = math.floor(begun) + 3.5
            trial.queue.storage.tick(Tick(one, begun, now), made, now, Actor("planted", None))
        ticks.compare(trial, begun)
        assert trial.problems == []
        if planted == "a loss":
            with closing(sqlite3.connect(tmp_path / "queue.db", isolation_level=None)) as db:
                assert db.execute("delete from task where id = ?", [f"{name}-1"]).rowcount == 1
        else:
            trial.queue.storage.enqueue([Task("again", name)], begun + 2.0, Actor("planted", None))
        ticks.compare(trial, begun)
    (problem,) = trial.problems
    assert problem.startswith(f"{name} has 3 ticks and {2 if planted == 'a loss' else 4} tasks")


# What the scenarios are made with ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 60.0])
def test_shifted_clock_changes_the_time_and_nothing_else(tmp_path, shift):
    """A process on a host whose clock is wrong sees another time from its start, and the same monotonic clock."""
    (tmp_path / "ask.py").write_text(
        "from lifecycle.clock import SystemClock, monotonic\nprint(SystemClock.now(), monotonic())"
    )
    asked = subprocess.run(
        [sys.executable, "ask.py"],
        cwd=tmp_path,
        env=process_environment({}, shift),
        capture_output=True,
        text=True,
        check=True,
    )
    now, tick = map(float, asked.stdout.split())
    assert -PATIENCE < now - shift - time.time() < 1
    assert -PATIENCE < tick - time.monotonic() < 1


class Echo:
    """A server that answers what it is asked, and knows what that was."""

    def __init__(self):
        self.heard = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.came = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line):
        with line:
            while request := line.recv(100):
                with self.came:
                    self.heard.append(request)
                    self.came.notify_all()
                line.sendall(request)

    def has_heard(self, request):
        with self.came:
            return self.came.wait_for(lambda: request in self.heard, PATIENCE)

    def close(self):
        self._listener.close()


@pytest.mark.parametrize("manner", MANNERS)
def test_proxy_cuts_the_connection_as_told(manner):
    """The proxy passes on everything until it is told to cut; then the answer is lost, and the request too if so told."""
    with closing(Echo()) as server, closing(Proxy("127.0.0.1", server.port)) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            proxy.cut_next(manner, commit=True)
            client.sendall(b"no change")
            assert client.recv(100) == b"no change"
            client.sendall(b"commit")
            try:
                assert client.recv(100) == b""
            except ConnectionResetError:
                pass
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as client:
            client.sendall(b"again")
            assert client.recv(100) == b"again"
        if manner == MANNERS[0]:
            assert b"commit" not in server.heard
        else:
            assert server.has_heard(b"commit")
        assert proxy.made == {f"cut {manner}": 1}


def test_figures_replace_those_of_the_last_run():
    """New figures replace those of the last run, between their markers, and the rest of the page stays."""
    page = "before\n\n<!-- measured: faults -->\n\nold\n\n<!-- end of what was measured -->\n\nafter\n"
    assert page_with(page, r"new \1") == page.replace("old", r"new \1")
    report = Report("storm", "sqlite", ("thread",), "3 kills", 2.4, Audit(tasks=1000, executions=1200), {"died": 2})
    head, rule, row, _, seed = text([report], 7).splitlines()
    assert row == "| storm | sqlite | thread | 1,000 | 3 kills (2 died) | 2 | 1,200 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |"
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "7" in seed
    assert "<!-- measured: faults -->\n\n" in PAGE.read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [(["earthquake"], "there is no scenario earthquake"), (["--store", "oracle"], "there is no store oracle")],
)
def test_unknown_scenario_or_store_is_refused(words, says):
    """An unknown scenario or store is a mistake of the command line; the error names it."""
    program = Path(__file__).parents[1] / "faults"
    done = subprocess.run([sys.executable, program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, says in done.stderr) == (2, True)
