"""Real processes for the tests: consumers that run the tasks of `programs/`, what they tell, and how they end."""

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from lifecycle import LIFECYCLE, Kind
from lifecycle.storage.base import Channel

PROGRAMS = Path(__file__).parents[1] / "programs"
PATIENCE = 30.0
"""Seconds that anything may take on a machine that is busy."""
NOISE = 10.0
"""Seconds that such a machine may add to what the law bounds."""
LEASE = 1.6
"""Seconds; of the queues whose consumers die."""
LONG = 60.0
"""Seconds; of the queues whose consumers do not."""
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
"""When a task expired that shall not run: who claims it may have looked at the clock before it was enqueued."""
DELAY = 0.4
"""Seconds; where the law's scenarios say ten."""


def until(condition, what="what the test waits for"):
    """Wait until `condition()` is true, and return what it gave; for what cannot be awaited in a better way."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} does not come"
        time.sleep(0.002)
    return value


def settled(queue, *results, patience=PATIENCE):
    """Wait until these tasks are at rest; the states that they rest in."""
    deadline = time.monotonic() + patience
    while True:
        generation = queue.storage.generation(Channel.OUTCOME)
        states = [result.state for result in results]
        moving = [state for state in states if LIFECYCLE.state(state).kind not in (Kind.OUTCOME, Kind.FINAL)]
        if not moving:
            return states
        left = deadline - time.monotonic()
        assert left > 0, f"{len(moving)} of {len(states)} tasks do not come to rest; they are {set(moving)}"
        queue.storage.wait(Channel.OUTCOME, generation, min(left, 1.0))


def states(result):
    """The states in a task's history, in one line."""
    return " ".join(record.state for record in result.history())


def signals(result):
    """The signals of the states in a task's history, in one line, the producer's left out."""
    return " ".join(LIFECYCLE.state(record.state).signal for record in result.history()[1:])


def is_path(names):
    """Are these states, one after the other, a way through the table from its beginning?"""
    return names[0] == LIFECYCLE.initial and all(end in LIFECYCLE.targets(start) for start, end in pairwise(names))


def environment(**more):
    """The environment of a process that is to find the programs, and what this process finds."""
    path = os.pathsep.join(filter(None, [str(PROGRAMS), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more


class Wire:
    """A pipe with a name, on which any number of processes tell, a line of JSON each, what happens in them."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY)
        os.set_blocking(reader, True)
        self.told = []
        self._marks = 0
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader):
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                with self._came:
                    self.told.append(json.loads(line))
                    self._came.notify_all()

    def _matching(self, what):
        return [one for one in list(self.told) if what.items() <= one.items()]

    def wait_for(self, count=1, **what):
        """Wait until so many things were told that have these values; the last of them."""
        with self._came:
            came = self._came.wait_for(lambda: len(self._matching(what)) >= count, PATIENCE)
        assert came, f"nobody tells {what}; told was {self.told[-20:]}"
        return self._matching(what)[count - 1]

    def heard(self, **what):
        """All that was told until now and has these values."""
        if self.writer is not None:  # what was told before this mark has been read when it comes
            self._marks += 1
            os.write(self.writer, json.dumps({"mark": self._marks}).encode() + b"\n")
            self.wait_for(mark=self._marks)
        return self._matching(what)

    def signals(self, result, **what):
        """The signals of a task that were told, in one line."""
        return " ".join(one["signal"] for one in self.heard(id=result.id, **what) if "signal" in one)

    def hang_up(self):
        """Read what is still to come; all processes that tell have ended."""
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "somebody is still on the line"


class Works:
    """A queue with the tasks of a program, and consumers of it that come and go."""

    def __init__(self, folder, program="chores", *, name="work.db", url=None, **options):
        """`url`: of its store; else it is in a file. `options`: of the queue."""
        self.folder, self.program, self.file = folder, program, folder / name
        self.url = url or f"sqlite:///{self.file}"
        self.wire = Wire(folder / f"{name}.wire")
        self._setting = {"url": self.url, "queue": options, "folder": str(folder), "delay": DELAY}
        self._logs = []
        self.consumers = []
        self.tasks = self._load()
        self.queue = self.tasks.queue

    def _load(self):
        """The program's module, as a producer imports it: anew for each works."""
        spec = importlib.util.spec_from_file_location(self.program, PROGRAMS / f"{self.program}.py")
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROGRAM", json.dumps(self._setting | {"wire": None}))
            spec.loader.exec_module(module)
        return module

    def environment(self):
        """Of a process that imports the program and tells what it does."""
        return environment(PROGRAM=json.dumps(self._setting | {"wire": self.wire.path}))

    def hire(self, *options, wait=True, **more):
        """Start a consumer with these options of the command line, and wait until its first worker is up."""
        log = self.folder / f"consumer-{len(self._logs)}.log"
        self._logs.append(log)
        with log.open("wb") as stderr:
            consumer = subprocess.Popen(
                [sys.executable, "-m", "lifecycle", "run", f"{self.program}:queue", *options],
                env=self.environment(),
                cwd=self.folder,
                stdout=stderr,
                stderr=stderr,
                **more,
            )
        consumer.log = log
        self.consumers.append(consumer)
        if wait:
            self.wire.wait_for(consumer=consumer.pid, note="up")
        return consumer

    def by(self, pid):
        """The consumer that is this process."""
        return next(consumer for consumer in self.consumers if consumer.pid == pid)

    def logs(self):
        """All that the consumers have logged."""
        return "".join(log.read_text() for log in self._logs)

    def open_gate(self):
        """Let those tasks end that wait for it."""
        (self.folder / "gate").touch()

    def close(self):
        """Send everybody home."""
        self.open_gate()
        for consumer in self.consumers:
            consumer.kill()
            consumer.wait()
        self.wire.hang_up()
        self.queue.close()


@contextmanager
def opened(folder, program="chores", **options):
    """Works for a test, closed after it; nothing that its consumers log is a traceback."""
    works = Works(folder, program, **options)
    try:
        yield works
    finally:
        works.close()
    assert "Traceback" not in works.logs()


def end(consumer, how=signal.SIGINT):
    """Tell a consumer to end and wait until it has; its exit code."""
    consumer.send_signal(how)
    return consumer.wait(PATIENCE)


def said(consumer, text, count=1):
    """Wait until a consumer has logged a text so often."""
    until(lambda: consumer.log.read_text().count(text) >= count, f"{text!r} in the log of consumer {consumer.pid}")


def freeze(consumer, file):
    """Stop a process, at a moment when it does not keep the file locked: nobody else could write to it then."""
    process = psutil.Process(consumer.pid)
    while True:
        consumer.send_signal(signal.SIGSTOP)
        until(lambda: process.status() == psutil.STATUS_STOPPED, "the stop")
        db = sqlite3.connect(file, timeout=0.1, isolation_level=None)
        try:
            db.execute("begin immediate")
            db.execute("rollback")
        except sqlite3.OperationalError:
            consumer.send_signal(signal.SIGCONT)
        else:
            return
        finally:
            db.close()


@contextmanager
def consuming(folder, module, *options):
    """A consumer, as a process, of the queue in a module that a test has written into that folder."""
    log = folder / "consumer.log"
    with log.open("ab") as stderr:
        consumer = subprocess.Popen(
            [sys.executable, "-m", "lifecycle", "run", f"{module}:queue", *options],
            cwd=folder,
            env=environment(PYTHONDONTWRITEBYTECODE="1"),
            stdout=stderr,
            stderr=stderr,
        )
    consumer.log = log
    try:
        yield consumer
    finally:
        consumer.kill()
        consumer.wait()
