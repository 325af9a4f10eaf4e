"""Several programs on one SQLite file: producers and consumers at once, and the creation of the file."""

import json
import subprocess
import sys
import time
from collections import Counter
from statistics import median

import pytest
from support.processes import (
    LONG,
    PATIENCE,
    PROGRAMS,
    consumer_group,
    environment,
    settled,
    states,
    stop_process,
    until,
)
from support.profiles import examples

from lifecycle import TaskQueue

PROMPT_SECONDS = 0.4
"""Less than half of the time after which a worker (tenfold: a caller) looks without a wake-up."""


@pytest.fixture
def group(tmp_path):
    """Yield consumers of `programs/tally.py`."""
    with consumer_group(tmp_path, "tally", lease=LONG) as group:
        yield group


@pytest.fixture
def program(tmp_path):
    """Yield a function that starts programs which talk with the test; they are ended in the end."""
    started = []

    def start(name, *args, **options):
        stderr = (tmp_path / f"{name}-{len(started)}.err").open("wb+")
        process = subprocess.Popen(
            [sys.executable, PROGRAMS / f"{name}.py", *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            **({"env": environment()} | options),
        )
        started.append((process, stderr))
        return process

    yield start
    errors = []
    for process, stderr in started:
        process.kill()
        process.communicate()
        stderr.seek(0)
        errors.append(stderr.read().decode())
        stderr.close()
    assert "".join(errors) == ""


def test_two_producers_and_two_consumers_share_a_file(group, program):
    """Two producers and two consumers share a file: no error, each task runs once, each result reaches its producer."""
    producers = [program("tally", first, 500, env=group.environment()) for first in (0, 500)]
    for _ in range(2):
        group.start_consumer("-w", "2", "-q")
    for producer in producers:
        group.events.wait_for(pid=producer.pid, note="ready")
    for producer in producers:
        producer.stdin.write(b"go\n")
        producer.stdin.flush()
    for producer in producers:
        assert group.events.wait_for(pid=producer.pid, note="done")["right"]
        assert producer.wait(PATIENCE) == 0
    for consumer in group.consumers:
        assert stop_process(consumer) == 0
    assert group.logs() == ""
    assert Counter((group.folder / "tally").read_text().split()) == Counter(map(str, range(1000)))
    assert Counter(task.state for task in group.queue.tasks(limit=2000)) == {"complete": 1000}
    results = [group.queue.handle(task.id) for task in group.queue.tasks(limit=2000)]
    assert {states(result) for result in results} == {"queued executing complete"}


def test_commits_of_other_programs_wake_workers_and_callers(group):
    """A task enqueued by another program wakes a worker, and a result of another program wakes a caller."""
    group.start_consumer("-w", "2")
    now = group.tasks.now
    first = now()
    assert first.get(timeout=PATIENCE)
    started, came = [], []
    for _ in range(9):
        called = time.time()
        result = now()
        ran = result.get(timeout=PATIENCE)
        started.append(ran - called)
        came.append(time.time() - result.history()[-1].at)
    assert median(started) < PROMPT_SECONDS
    assert median(came) < PROMPT_SECONDS


def test_caller_may_wait_before_there_is_a_consumer(group, program):
    """A caller that waits while there is no consumer gets its result once a consumer has run the task."""
    producer = program("tally", 0, 1, env=group.environment())
    group.events.wait_for(pid=producer.pid, note="ready")
    producer.stdin.write(b"go\n")
    producer.stdin.flush()
    until(lambda: group.queue.counts()["queued"], "the task")
    group.start_consumer()
    assert group.events.wait_for(pid=producer.pid, note="done")["right"]
    assert producer.wait(PATIENCE) == 0


def test_consumer_creates_a_missing_file(group):
    """A consumer creates a missing file, and runs tasks that are enqueued later."""
    assert not group.file.exists()
    group.start_consumer()
    assert group.file.exists()
    assert settled(group.queue, group.tasks.count(7)) == ["complete"]


def test_programs_may_create_the_file_at_the_same_moment(tmp_path, program):
    """Programs that create the file at the same moment all succeed, and no write is lost."""
    programs = [program("race") for _ in range(4)]
    for one in programs:
        assert one.stdout.readline() == b"ready\n"
    for number in range(examples(40)):
        url = f"sqlite:///{tmp_path}/{number}.db"
        line = json.dumps([time.time() + 0.02, url]).encode() + b"\n"
        for one in programs:
            one.stdin.write(line)
            one.stdin.flush()
        ids = {one.stdout.readline().decode().strip() for one in programs}
        queue = TaskQueue(url)
        assert {task.id for task in queue.tasks()} == ids
        assert len(ids) == len(programs)
        queue.close()


def test_queues_of_one_file_do_not_see_each_other(group):
    """Queues of different names share a file without seeing each other's tasks."""
    other = TaskQueue(group.url, name="other")
    unseen = other.task(name="tally.count")(lambda number: number)(1)
    group.start_consumer()
    seen = group.tasks.count(2)
    assert settled(group.queue, seen) == ["complete"]
    assert states(unseen) == "queued"
    assert [task.id for task in group.queue.tasks()] == [seen.id]
    assert [task.id for task in other.tasks()] == [unseen.id]
    other.close()
