"""``lifecycle show`` and ``history``: the call, the outcome, the error and the times of a task."""

import json
import re
from contextlib import closing

import pytest

from lifecycle import MsgpackSerializer, PickleSerializer, RetryTask, TaskQueue
from lifecycle.testing import VirtualClock

START = 1_790_000_000.0


@pytest.fixture
def timed(folder):
    """A queue on a virtual clock; tasks of `tasks.work` take the seconds that they are given, or fail after them."""
    clock = VirtualClock(START)
    with closing(TaskQueue(f"sqlite:///{folder}/tasks.db", clock=clock)) as queue:

        @queue.task(name="tasks.work", retries=2, retry_delay=60)
        def work(*seconds):
            attempt = queue.get("work").attempt
            clock.advance(seconds[attempt - 1])
            if attempt < len(seconds):
                raise ValueError(f"attempt {attempt}")
            return {"seconds": seconds[-1]}

        queue.work, queue.time = work, clock
        yield queue


def fields(out):
    """Return the fields that `show` prints, before the first empty line."""
    return dict(re.split(r"  +", line, maxsplit=1) for line in out.split("\n\n")[0].splitlines())


def test_show_prints_call_result_and_durations(command_line, timed):
    """Of a complete task `show` prints the call, the result, and how long the last attempt took."""
    timed.work.schedule((90.0,), id="work")
    timed.run_next()
    code, out, err = command_line("show", "work", "tasks")
    assert (code, err) == (0, "")
    shown = fields(out)
    assert shown["call"] == "tasks.work(90.0)"
    assert shown["result"] == "{'seconds': 90.0}"
    assert shown["took"] == "1m (attempt 1)"
    assert "error" not in shown
    as_json = json.loads(command_line("show", "work", "tasks", "--json")[1])
    assert (as_json["args"], as_json["kwargs"], as_json["result"]) == ([90.0], {}, {"seconds": 90.0})
    assert (as_json["error"], as_json["traceback"], as_json["enqueued_at"]) == (None, None, START)


def test_show_prints_the_last_error_of_a_task_that_waits_for_its_retry(command_line, timed):
    """Of a task that waits for its retry `show` prints the last error, with its traceback, and when it is due."""
    timed.work.schedule((5.0, 7.0), id="work")
    timed.run_next()
    shown = fields(command_line("show", "work", "tasks")[1])
    assert shown["state"] == "scheduled"
    assert shown["error"] == "ValueError('attempt 1')"
    assert shown["attempts"] == "1, 1 retry left"
    assert shown["took"] == "5s (attempt 1)"
    assert "due" in shown
    assert 'raise ValueError(f"attempt {attempt}")' in command_line("show", "work", "tasks")[1]


def test_show_of_a_running_task_has_both_attempts(command_line, timed):
    """Of a running task `show` prints how long the attempt runs, and how long the last ended attempt took."""
    outputs = []
    timed.pre_execute()(lambda task: task.attempt > 1 and outputs.append(command_line("show", "work", "tasks")[1]))
    timed.work.schedule((5.0, 7.0), id="work")
    timed.run_next()
    timed.time.advance(60)
    timed.run_next()
    shown = fields(outputs[0])
    assert shown["state"] == "executing"
    assert shown["took"] == "5s (attempt 1)"
    assert re.fullmatch(r".+ \(attempt 2\)", shown["runs for"])


def test_history_prints_durations_in_local_time(command_line, timed):
    """`history` prints the local time of each state, and the time since the state before."""
    timed.work.schedule((90.0,), id="work")
    timed.time.advance(7200)
    timed.run_next()
    code, out, err = command_line("history", "work", "tasks")
    assert (code, err) == (0, "")
    head, *lines = (re.split(r"  +", line) for line in out.splitlines())
    assert head == ["state", "at", "after", "attempt", "by"]
    assert [(line[0], line[2]) for line in lines] == [("queued", "-"), ("executing", "2h"), ("complete", "1m")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", line[1]) for line in lines)


def test_history_has_no_duration_across_a_gap(command_line, timed):
    """Where a long history leaves out records, no duration is shown, since the record before is not known."""
    attempts = 0

    @timed.task(name="tasks.poll")
    def poll():
        nonlocal attempts
        attempts += 1
        if attempts < 60:
            raise RetryTask(delay=10)

    poll.schedule(id="poll")
    while timed.run_next() or timed.get("poll").state != "complete":
        timed.time.advance(10)
    lines = [re.split(r"  +", line) for line in command_line("history", "poll", "tasks")[1].splitlines()]
    (gap,) = [line for line in lines if "left out" in line[0]]
    assert gap[2] == "-"
    assert [line[2] for line in lines[1:]].count("-") == 2


@pytest.mark.parametrize("serializer", [MsgpackSerializer(), PickleSerializer(b"a secret of 32 bytes for the test")])
def test_values_of_another_serializer_are_no_error(command_line, folder, serializer):
    """Arguments and results that the queue's store alone cannot decode are a remark; all else is shown."""
    url = f"sqlite:///{folder}/other.db"
    with closing(TaskQueue(url, serializer=serializer)) as queue:
        queue.task(name="tasks.add")(lambda a, b: a + b).schedule((1, 2), id="sum")
        queue.run_next()
    code, out, err = command_line("show", "sum", "--url", url)
    assert (code, err) == (0, "")
    shown = fields(out)
    readable = isinstance(serializer, MsgpackSerializer)
    assert (shown["call"] == "tasks.add(1, 2)") == readable
    assert (shown["result"] == "3") == readable
    as_json = json.loads(command_line("show", "sum", "--url", url, "--json")[1])
    assert (as_json["args"], as_json["result"]) == (([1, 2], 3) if readable else (None, None))


def test_long_values_are_shortened(command_line, timed):
    """Very long arguments and results are shortened, with the number of characters that are left out."""
    timed.task(name="tasks.long")(lambda text: text).schedule(("x" * 100_000,), id="long")
    timed.run_next()
    shown = fields(command_line("show", "long", "tasks")[1])
    for name in "call", "result":
        assert len(shown[name]) < 3000
        assert re.search(r"… and \d\d,\d{3} characters", shown[name])
