"""Memory of attempts: all that a function held is freed when its attempt is over, without the garbage collector."""

import asyncio
import gc
import logging
import threading
import weakref

import pytest
from conftest import PATIENCE, another_thread, at_work, drain, failure, spin

from lifecycle import CancelExecution, RateLimitExceeded, RetryTask, TaskInterrupted, TaskLockedException, TaskTimeout

ENDS = {
    "returns": lambda: None,
    "fails": lambda: ValueError("no"),
    "times out": lambda: TaskTimeout("no"),
    "is locked": lambda: TaskLockedException("no"),
    "is canceled": lambda: CancelExecution("no"),
    "is limited": lambda: RateLimitExceeded("no", 5, retry=False),
    "is interrupted": lambda: TaskInterrupted("no"),
    "asks for a retry": lambda: RetryTask("no"),
    "asks in vain": lambda: RetryTask(delay="soon"),
    "exits": lambda: SystemExit(1),
}


class Ballast:
    """Object that functions hold."""


def write_nowhere(record):
    """Format a log record, and drop the record: pytest would keep it."""
    logging.Formatter().format(record)
    return False


@pytest.fixture
def afloat():
    """The objects that are in memory; the garbage collector is off."""
    loggers = [logging.getLogger(f"lifecycle.{name}") for name in ("task", "worker", "signals")]
    for logger in loggers:
        logger.addFilter(write_nowhere)
    gc.collect()
    gc.disable()
    yield weakref.WeakSet()
    gc.enable()
    for logger in loggers:
        logger.removeFilter(write_nowhere)


def end(afloat, how):
    """Hold an object, and end as `how` says, in the middle of the handling of another exception."""
    ballast = Ballast()
    afloat.add(ballast)
    try:
        raise LookupError("first")
    except LookupError:
        if (error := ENDS[how]()) is not None:
            try:
                raise error
            finally:
                del error


@pytest.mark.untraced
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("how", ENDS)
def test_attempt_frees_its_memory_however_it_ends(queue, afloat, how, is_async):
    """An attempt frees its memory at once however it ends, with hooks and handlers that see the exception."""
    queue.signal()(lambda signal, task, exc=None: None)
    queue.post_execute("fine")(lambda task, value, exc: None)
    queue.post_execute("broken")(lambda task, value, exc: 1 / 0)

    @queue.task(name="plain")
    def plain():
        end(afloat, how)

    @queue.task(name="async")
    async def awaits():
        await asyncio.sleep(0)
        end(afloat, how)

    (awaits if is_async else plain)()
    queue.run_next()
    assert len(afloat) == 0


@pytest.mark.untraced
def test_interrupted_caller_frees_the_memory_of_the_attempt(queue, afloat):
    """A KeyboardInterrupt that goes on to the caller keeps the attempt's memory only as long as it is handled."""

    @queue.task()
    def interrupted():
        ballast = Ballast()
        afloat.add(ballast)
        raise KeyboardInterrupt

    interrupted()
    try:
        queue.run_next()
    except KeyboardInterrupt:
        assert len(afloat) == 1
    assert len(afloat) == 0


@pytest.mark.untraced
def test_interruption_from_outside_frees_the_memory(queue, worker, afloat, runs):
    """A function that is interrupted from outside frees its memory, too."""

    @queue.task()
    def waits():
        ballast = Ballast()
        afloat.add(ballast)
        runs.set()
        spin(threading.Event())

    result = waits()
    with at_work(worker, runs):
        worker.cancel(result.id)
    assert result.state == "canceled"
    assert len(afloat) == 0


@pytest.mark.untraced
def test_arguments_and_values_are_freed(queue, afloat):
    """Arguments and value of a task are freed with its attempt; a reader's exception keeps none of them."""

    @queue.task()
    def passes(values):
        afloat.add(Ballast())
        return values

    passes([1])
    failed = queue.task(name="fails")(lambda: end(afloat, "fails"))()
    drain(queue)
    assert failure(failed)["state"] == "error"
    assert len(afloat) == 0


@pytest.mark.untraced
def test_waiting_reader_frees_its_exceptions(make, afloat):
    """In immediate mode a task that reads a failed task fails itself, and both free their memory."""
    queue = make(immediate=True)

    @queue.task()
    def inner():
        end(afloat, "fails")

    @queue.task()
    def outer():
        ballast = Ballast()
        afloat.add(ballast)
        inner().get()

    with another_thread(outer, PATIENCE):
        pass
    assert len(afloat) == 0
