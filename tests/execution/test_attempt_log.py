"""Log lines of tasks: one for each attempt that ends, with the traceback of a failure, on the logger `lifecycle.task`."""

import logging
import traceback

import pytest
from conftest import drain
from support import strategies as some
from support.task_endings import ENDINGS, ending

from lifecycle import CancelExecution, RateLimitExceeded, RetryTask, TaskInterrupted, TaskLockedException, TaskTimeout

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
LEVELS = {
    "complete": (INFO, INFO),
    "error": (WARNING, ERROR),
    "timeout": (WARNING, ERROR),
    "locked": (INFO, WARNING),
    "rate-limited": (INFO, WARNING),
    "canceled": (INFO, INFO),
    "interrupted": (INFO, WARNING),
    "retrying": (INFO, INFO),
}
"""Outcome → the level of its line if another attempt follows, and if none does."""


@pytest.fixture(autouse=True)
def lines(caplog):
    """Records of all levels."""
    caplog.set_level(logging.DEBUG, "lifecycle")
    return caplog


def lines_of(caplog, result):
    """Return the records of one task; remove all."""
    found = [record for record in caplog.records if record.name == "lifecycle.task"]
    caplog.clear()
    return [record for record in found if record.args["task"] == result.id]


def test_completed_task_logs_one_line(queue, add, caplog):
    """A task that completes logs one line of level INFO: function, id, duration and worker."""
    result = add(1)
    queue.run_next()
    (record,) = lines_of(caplog, result)
    worker = result.task.worker
    assert record.levelno == INFO
    assert record.getMessage().startswith(f"task complete: function={add.name} task={result.id} seconds=0.0")
    assert record.getMessage().endswith(f" worker={worker}")
    assert record.exc_info is None
    assert {"state": "complete", "function": add.name, "attempt": 1, "worker": worker}.items() <= record.args.items()


def test_each_failed_attempt_logs_its_traceback(queue, clock, caplog):
    """A failed attempt logs a warning that says when the next one comes, and the last one logs an error: with traceback."""

    @queue.task(retries=2, retry_delay=10, context=True)
    def fails(task=None):
        if task.attempt == 1:
            raise ValueError("uh-oh")
        raise RetryTask("patience") if task.attempt == 2 else KeyError("gone")

    result, lines = fails(), []
    for _ in range(4):
        drain(queue)
        lines += lines_of(caplog, result)
        clock.advance(10)
    begins = [
        "task error (attempt 1 of 3, again in 10 s): ",
        "task retrying (attempt 2 of 3, again in 10 s): ",
        "task error (attempt 3 of 4, again in 10 s): ",
        "task error (attempt 4 of 4): ",
    ]
    assert [
        (record.levelno, record.getMessage()[: len(begin)]) for record, begin in zip(lines, begins, strict=True)
    ] == [(level, begin) for level, begin in zip((WARNING, INFO, WARNING, ERROR), begins, strict=True)]
    assert lines[1].getMessage().endswith("reason=RetryTask('patience')")
    assert [record.exc_info and type(record.exc_info[1]) for record in lines] == [ValueError, None, KeyError, KeyError]
    shown = logging.Formatter().format(lines[0]).splitlines()
    assert shown[1] == "Traceback (most recent call last):"
    assert 'raise ValueError("uh-oh")' in "".join(shown)
    assert "runner.py" not in "".join(shown)
    assert "runner.py" not in "".join(traceback.format_exception(*lines[0].exc_info))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("how", LEVELS)
def test_level_of_a_line_says_whether_somebody_must_look(make, caplog, how, last):
    """Failures are warnings, or errors if no attempt follows; whatever ends as it was asked to is an information."""
    queue = make(max_interruptions=0 if last else 5)
    raised = {
        "error": ValueError("no"), "timeout": TaskTimeout("no"), "locked": TaskLockedException("no"),
        "rate-limited": RateLimitExceeded("no", 5, retry=not last), "canceled": CancelExecution("no"),
        "interrupted": TaskInterrupted("no"), "retrying": RetryTask("no"),
    }  # fmt: skip

    @queue.task(retries=0 if last else 1)
    def ends():
        if how in raised:
            raise raised[how]

    result = ends()
    queue.run_next()
    (record,) = lines_of(caplog, result)
    assert record.levelno == LEVELS[how][last]
    assert record.args["state"] == how
    is_failure = how in ("error", "timeout")
    assert (record.exc_info is not None) is is_failure
    assert ("no" in record.getMessage().partition("reason=")[2]) is (how != "complete" and not is_failure)
    again = how == "retrying" or (not last and how != "complete")
    assert ("again" in record.getMessage()) is again


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_task_that_ends_without_an_attempt_logs_one_line(queue, clock, caplog, add, end):
    """A task that is revoked or expires logs one line when a worker finds that."""
    result = add.schedule((1,), expires=5, retries=3)
    if end == "revoked":
        result.revoke()
    else:
        clock.advance(5)
    queue.run_next()
    (record,) = lines_of(caplog, result)
    assert record.getMessage().startswith(f"task {end}: function={add.name} task={result.id} worker=")
    assert record.levelno == INFO


@pytest.mark.parametrize("how", ENDINGS)
def test_line_is_written_when_the_outcome_is_stored(queue, caplog, how):
    """The line of an outcome is logged before its handlers are called, and not at all if the store refuses the outcome."""
    seen = []
    queue.signal()(lambda signal, task, exc=None: seen.append((signal, len(caplog.records))))
    ending(queue, how)()
    queue.run_next()
    assert [count for signal, count in seen if signal in ("enqueued", "executing")][:2] == [0, 0]
    assert seen[2][1] == 1

    @queue.task(name="late")
    def late():
        queue.engine.clock.advance(10**6)
        queue.engine.recover()

    result = late()
    caplog.clear()
    queue.run_next()
    records = [record for record in lines_of(caplog, result) if record.args["state"] == "complete"]
    assert [record.args["attempt"] for record in records] in ([], [2])


def test_line_of_a_broken_error_can_be_written_anywhere(queue, caplog, tmp_path):
    """Whatever a function raises, its line has a limited length and can be written to a file."""
    errors = [*some.BROKEN_ERRORS, ValueError("x" * 10**6), ValueError("\ud800"), CancelExecution("y" * 10**6)]

    @queue.task()
    def fails(number):
        raise errors[number]

    for number in range(len(errors)):
        result = fails(number)
        queue.run_next()
        (record,) = lines_of(caplog, result)
        text = logging.Formatter().format(record)
        assert len(text.encode()) < 30_000
        assert type(errors[number]).__name__ in text


def test_filter_that_raises_ends_no_worker(queue, add):
    """A filter of the program's logging that raises has no effect on a task."""

    def broken(record):
        raise RuntimeError

    logger = logging.getLogger("lifecycle.task")
    logger.addFilter(broken)
    try:
        result = add(1)
        queue.run_next()
    finally:
        logger.removeFilter(broken)
    assert result.get() == 1


def test_level_that_is_off_costs_nothing(queue, add, caplog, monkeypatch):
    """Without the level INFO a task that completes makes no line, and failures still do."""
    caplog.set_level(logging.WARNING, "lifecycle")
    monkeypatch.setattr("lifecycle.execution.worker.log_end", None)
    result = add(1)
    queue.run_next()
    monkeypatch.undo()
    assert result.get() == 1
    caplog.set_level(logging.WARNING, "lifecycle")
    failed = add("1", 2)
    queue.run_next()
    assert [record.levelno for record in lines_of(caplog, failed)] == [ERROR]
