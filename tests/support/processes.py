"""Consumers of the tests as processes: they run the tasks of `programs/` and send events to the tests."""

import importlib.util
import json
import os
import re
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
"""Seconds that a test waits for an event before it fails, on a busy machine too."""
NOISE = 10.0
"""Seconds that a busy machine may add to a time limit of the law."""
LEASE = 1.6
"""Seconds: lease of queues whose consumers are killed."""
LONG = 60.0
"""Seconds: lease of queues whose consumers live on."""
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
"""Expiry of a task that must not run. (A claim may use a moment just before the enqueuing.)"""
DELAY = 0.4
"""Seconds: the delay of scenarios, in place of the law's ten."""


def until(condition, what="what the test waits for"):
    """Wait until `condition()` is true, and return its value. Polls: use it only where no event can be awaited."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.002)
    return value


def settled(queue, *results, patience=PATIENCE):
    """Wait until these tasks are at rest; return their states."""
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
    """Return the states of a task's history, as a text."""
    return " ".join(record.state for record in result.history())


def signals(result):
    """Return the signals of a task's history without the producer's first one, as a text."""
    return " ".join(LIFECYCLE.state(record.state).signal for record in result.history()[1:])


def is_path(names):
    """Return whether these states are a path of the table from its beginning."""
    return names[0] == LIFECYCLE.initial and all(end in LIFECYCLE.targets(start) for start, end in pairwise(names))


def environment(**more):
    """Return the environment of a process that can import the programs, and all that this process can import."""
    path = os.pathsep.join(filter(None, [str(PROGRAMS), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path} | more


class EventPipe:
    """Named pipe on which any number of processes send events, each a line of JSON."""

    def __init__(self, path):
        self.path = str(path)
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY)
        os.set_blocking(reader, True)
        self.all = []
        self._marks = 0
        self._arrival = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(reader,), daemon=True)
        self._thread.start()

    def _read(self, reader):
        with os.fdopen(reader, "rb") as lines:
            for line in lines:
                with self._arrival:
                    self.all.append(json.loads(line))
                    self._arrival.notify_all()

    def _matching(self, values):
        return [event for event in list(self.all) if values.items() <= event.items()]

    def wait_for(self, count=1, **values):
        """Wait until `count` events with these values have come; return the last of them."""
        with self._arrival:
            came = self._arrival.wait_for(lambda: len(self._matching(values)) >= count, PATIENCE)
        assert came, f"no event with {values}; last events: {self.all[-20:]}"
        return self._matching(values)[count - 1]

    def received(self, **values):
        """Return all events until now that have these values."""
        if self.writer is not None:  # events sent before this mark have been read when the mark is read
            self._marks += 1
            os.write(self.writer, json.dumps({"mark": self._marks}).encode() + b"\n")
            self.wait_for(mark=self._marks)
        return self._matching(values)

    def signals(self, result, **values):
        """Return the signals among the events of a task, as a text."""
        return " ".join(event["signal"] for event in self.received(id=result.id, **values) if "signal" in event)

    def close(self):
        """Read the last events. All processes that send must have ended."""
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), "a process still has the pipe open"


class ConsumerGroup:
    """Queue with the tasks of a program, and the consumer processes of the queue."""

    def __init__(self, folder, program="chores", *, name="work.db", url=None, **options):
        """`url`: of the store, by default an SQLite file; `options`: of the queue."""
        self.folder, self.program, self.file = folder, program, folder / name
        self.url = url or f"sqlite:///{self.file}"
        self.events = EventPipe(folder / f"{name}.events")
        self._setting = {"url": self.url, "queue": options, "folder": str(folder), "delay": DELAY}
        self._logs = []
        self.consumers = []
        self.tasks = self._load()
        self.queue = self.tasks.queue

    def _load(self):
        """Import the program's module as a producer does; each group has a module of its own."""
        spec = importlib.util.spec_from_file_location(self.program, PROGRAMS / f"{self.program}.py")
        module = importlib.util.module_from_spec(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PROGRAM", json.dumps(self._setting | {"events": None}))
            spec.loader.exec_module(module)
        return module

    def environment(self, **setting):
        """Return the environment of a process that imports the program and sends events."""
        return environment(PROGRAM=json.dumps(self._setting | {"events": self.events.path} | setting))

    def start_consumer(self, *options, wait=True, setting=None, **more):
        """Start a consumer with options of the command line; unless `wait` is false, wait for its first worker.

        `setting`: of its program, besides that of the group.
        """
        log = self.folder / f"consumer-{len(self._logs)}.log"
        self._logs.append(log)
        with log.open("wb") as stderr:
            consumer = subprocess.Popen(
                [sys.executable, "-m", "lifecycle", "run", f"{self.program}:queue", *options],
                env=self.environment(**(setting or {})),
                cwd=self.folder,
                stdout=stderr,
                stderr=stderr,
                **more,
            )
        consumer.log = log
        self.consumers.append(consumer)
        if wait:
            self.events.wait_for(consumer=consumer.pid, note="up")
        return consumer

    def consumer_with_pid(self, pid):
        """Return the consumer with this process id."""
        return next(consumer for consumer in self.consumers if consumer.pid == pid)

    def logs(self):
        """Return the logs of all consumers."""
        return "".join(log.read_text() for log in self._logs)

    def release_tasks(self):
        """Let the tasks end that wait for their release."""
        (self.folder / "release").touch()

    def close(self):
        """Kill all consumers, and close the queue."""
        self.release_tasks()
        for consumer in self.consumers:
            consumer.kill()
            consumer.wait()
        self.events.close()
        self.queue.close()


@contextmanager
def consumer_group(folder, program="chores", **options):
    """Open a group of consumers, and close it in the end; fail if a consumer has logged a traceback of its own."""
    group = ConsumerGroup(folder, program, **options)
    try:
        yield group
    finally:
        group.close()
    assert "Traceback" not in without_task_lines(group.logs())


def without_task_lines(log):
    """Return a consumer's log without the lines about tasks, and without their tracebacks."""
    records = re.split(r"^(?=\d{4}-\d\d-\d\d \d\d:)", log, flags=re.MULTILINE)
    return "".join(record for record in records if " lifecycle.task: " not in record.partition("\n")[0])


def stop_process(consumer, number=signal.SIGINT):
    """Send a signal to a consumer and wait for its end; return its exit code."""
    consumer.send_signal(number)
    return consumer.wait(PATIENCE)


def wait_for_log(consumer, text, count=1):
    """Wait until a consumer has logged a text `count` times."""
    until(lambda: consumer.log.read_text().count(text) >= count, f"{text!r} in the log of consumer {consumer.pid}")


def freeze(consumer, file):
    """Stop a process with SIGSTOP at a moment when it does not hold a lock of the SQLite file."""
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
def consumer_process(folder, module, *options, limit=None):
    """Run a consumer of the queue in a module that a test has written into the folder; kill it in the end.

    `limit`: of the descriptors that the process may have.
    """
    limited = [] if limit is None else ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"]
    log = folder / "consumer.log"
    with log.open("ab") as stderr:
        consumer = subprocess.Popen(
            [*limited, sys.executable, "-m", "lifecycle", "run", f"{module}:queue", *options],
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
