"""Checks of traces of other queues: their real workers, recorded with the recipes of the documentation."""

import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.processes import PATIENCE, environment
from support.profiles import thorough
from support.redis_server import SERVER, connected, require_server, unused_prefix

from lifecycle import LIFECYCLE
from lifecycle.testing import IllegalSequence
from lifecycle.testing import check as hold

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"
PAGE = ROOT / "docs" / "background" / "other-queues.md"
PREFIX = f"{unused_prefix()}:"
"""Prefix of the keys of Celery's broker."""


def need(library):
    """Skip if a library is missing; fail in CI."""
    if not os.environ.get("CI") and find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def settings(folder):
    """The environment of their processes: where they work, and where the recipes are."""
    path = os.pathsep.join([str(RECIPES), environment()["PYTHONPATH"]])
    return environment(
        CHORES=str(folder), BROKER=SERVER, BROKER_PREFIX=PREFIX, PYTHONPATH=path, PYTHONWARNINGS="ignore"
    )


@contextmanager
def worker(folder, *command):
    """A worker of theirs, with all the processes that it starts; killed in the end, if it is still there."""
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=settings(folder), cwd=folder, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait(PATIENCE)


def produce(folder, program, part):
    """Run a part of what a producer does; for each life its task's id."""
    done = subprocess.run(
        [sys.executable, "-c", f"import {program}; {program}.main({part!r})"], env=settings(folder), cwd=folder, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + (folder / "worker.log").read_text()
    return json.loads(done.stdout)


def check(folder, *options):
    """Return the faults by task and the exit code of `lifecycle check` for the trace in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "lifecycle", "check", "trace.jsonl", "--json", *options],
        env=settings(folder), cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    *faults, sums = map(json.loads, done.stdout.splitlines())
    assert sums["bad_lines"] == 0, faults
    assert done.returncode == (0 if sums["legal"] else 1), done.stderr
    return {fault["id"]: fault["fault"].partition("; ")[0].partition(": ")[2] for fault in faults}


class Recorded:
    """A trace, and which life is which task's."""

    def __init__(self, folder, ids):
        self.folder, self.ids = folder, ids
        lines = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
        self.lives = {what: [line["signal"] for line in lines if line["id"] == task] for what, task in ids.items()}

    def faults(self, *options):
        """Return the illegal signal of each life."""
        found = check(self.folder, *options)
        lives = {task: what for what, task in self.ids.items()}
        return {lives[task]: fault for task, fault in found.items()}


# Huey --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def huey(tmp_path_factory):
    """A trace of Huey, whose consumer was killed while a task ran, and which has gone on with another one."""
    need("huey")
    folder = tmp_path_factory.mktemp("huey")
    command = ("huey.bin.huey_consumer", "huey_chores.huey", "-w", "2", "-d", "0.05", "-m", "0.05")
    with worker(folder, *command):
        ids = produce(folder, "huey_chores", "during")
    with worker(folder, *command):
        ids |= produce(folder, "huey_chores", "afterwards")
    return Recorded(folder, ids)


def test_huey_lives_are_mostly_legal(huey):
    """Huey's signals have the names of the table's, and most lives are ours."""
    assert huey.lives["completes"] == ["enqueued", "executing", "complete"]
    assert huey.lives["is retried"] == [
        "enqueued", "executing", "error", "retrying", "enqueued", "executing", "complete"
    ]  # fmt: skip
    assert huey.lives["is revoked"] == ["enqueued", "revoked"]
    assert huey.lives["afterwards"] == ["enqueued", "executing", "complete"]


def test_huey_enqueues_a_scheduled_task_again(huey):
    """A scheduled task is enqueued again, with a signal: the only row that our table does not have."""
    assert huey.lives["is scheduled"] == ["enqueued", "scheduled", "enqueued", "executing", "complete"]
    assert huey.faults() == {"is scheduled": "signal 3 is 'enqueued' after 'scheduled'"}
    assert huey.faults("--table", "huey_table") == {}


def test_huey_forgets_tasks_of_a_killed_consumer(huey):
    """A task whose consumer was killed stays `executing` for ever: the next consumer goes on, and never gets to it."""
    assert huey.lives["is killed"] == ["enqueued", "executing"]
    assert huey.faults("--table", "huey_table", "--complete") == {"is killed": "ends after 'executing', not at rest"}


# Celery ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def celery(tmp_path_factory):
    """A trace of Celery, with a pool of processes; its worker was killed, and has a successor."""
    need("celery")
    require_server()
    folder = tmp_path_factory.mktemp("celery")
    (folder / "worker.log").touch()
    command = (
        "celery", "-A", "celery_chores", "worker", "-c", "2", "--without-gossip", "--without-mingle",
        "--without-heartbeat", "-l", "info",
    )  # fmt: skip
    ids = produce(folder, "celery_chores", "before")
    with worker(folder, *command):
        ids |= produce(folder, "celery_chores", "during")
    with worker(folder, *command) as successor:
        ids |= produce(folder, "celery_chores", "afterwards")
        successor.send_signal(signal.SIGTERM)
        successor.wait(PATIENCE)
    yield Recorded(folder, ids)
    with connected(SERVER) as db:
        for key in db.scan_iter(match=f"{PREFIX}*", count=5000):
            db.unlink(key)


MAP = ("--map", str(RECIPES / "celery.toml"))
TABLE = ("--table", "celery_table")


@thorough
def test_celery_lives_are_legal_with_a_map(celery):
    """Celery's signals have names of their own, which a map translates; a plain life is ours."""
    assert celery.lives["completes"] == ["before_task_publish", "task_prerun", "task_success"]
    assert {"completes", "afterwards"}.isdisjoint(celery.faults(*MAP))
    assert "completes" in celery.faults()


@thorough
def test_celery_publishes_a_retry_before_its_signal(celery):
    """A retry is published before its task is said to be retried: the next attempt may run by then."""
    assert celery.lives["is retried"][:4] == [
        "before_task_publish", "task_prerun", "before_task_publish", "task_retry"
    ]  # fmt: skip
    assert celery.faults(*MAP)["is retried"] == "signal 3 is 'enqueued' after 'executing'"


@thorough
def test_celery_task_is_successful_and_revoked(celery):
    """A task that was stopped by a signal that it can handle, and has cleaned up, is successful and revoked."""
    *begun, one, other = celery.lives["is stopped"]
    assert begun == ["before_task_publish", "task_prerun"]
    assert {one, other} == {"task_revoked", "task_success"}
    ends = {"task_revoked": "revoked", "task_success": "complete"}
    assert celery.faults(*MAP, *TABLE)["is stopped"] == f"signal 4 is {ends[other]!r} after {ends[one]!r}"


@thorough
def test_celery_revokes_running_tasks(celery):
    """A task that is terminated is revoked out of its run: a row that our table does not have, and Celery's does."""
    assert celery.lives["is terminated"] == ["before_task_publish", "task_prerun", "task_revoked"]
    assert celery.faults(*MAP)["is terminated"] == "signal 3 is 'revoked' after 'executing'"
    assert celery.faults(*MAP, *TABLE).keys() == {"is retried", "is stopped"}


@thorough
def test_celery_forgets_revocations(celery):
    """A task that was revoked while no worker was there runs all the same; and no signal tells of it: it looks legal."""
    assert celery.lives["is revoked too early"] == ["before_task_publish", "task_prerun", "task_success"]
    assert celery.lives["is revoked while it runs"] == ["before_task_publish", "task_prerun", "task_success"]
    assert {"is revoked too early", "is revoked while it runs"}.isdisjoint(celery.faults(*MAP))


@thorough
def test_celery_forgets_tasks_of_a_killed_worker(celery):
    """A task whose worker was killed stays `executing` for ever, as long as nothing else is asked for."""
    assert celery.lives["is killed"] == ["before_task_publish", "task_prerun"]
    assert celery.faults(*MAP, "--complete")["is killed"] == "ends after 'executing', not at rest"
    assert celery.lives["afterwards"] == ["before_task_publish", "task_prerun", "task_success"]


# The page ----------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_recipes():
    """The page has the text of each recipe, byte for byte, so that what is read is what is tested."""
    page = PAGE.read_text()
    recipes = sorted(RECIPES.iterdir())
    assert len([path for path in recipes if path.suffix in (".py", ".toml")]) == 5
    for path in recipes:
        if path.suffix in (".py", ".toml"):
            assert f"```text\n{path.read_text()}```" in page, f"{PAGE.name} has another {path.name}"


def test_the_page_shows_what_was_found(monkeypatch):
    """The page quotes the checker's real verdicts on the lines that the page shows."""
    monkeypatch.syspath_prepend(RECIPES)
    names = tomllib.loads((RECIPES / "celery.toml").read_text())
    tables = [LIFECYCLE, importlib.import_module("huey_table").TABLE, importlib.import_module("celery_table").TABLE]
    lives = {}
    for line in map(json.loads, re.findall(r"^\{.*\}$", PAGE.read_text(), re.MULTILINE)):
        lives.setdefault(line["id"], []).append(names.get(line["signal"], line["signal"]))
    found = set()
    for (task, life), table in itertools.product(lives.items(), tables):
        try:
            hold([(task, signal) for signal in life], table, from_start=False, complete=True)
        except IllegalSequence as fault:
            found.add(str(fault))
    quoted = re.findall(r"^✗ (?:line \d+|at the end): (task .*?)(?: \(\w+\))?$", PAGE.read_text(), re.MULTILINE)
    assert len(set(quoted)) == 6
    assert set(quoted) - found == set()
