"""Signal handlers: what they can do, what they cannot change, and their failures."""

import itertools
import logging
import sys

import pytest
from conftest import Heard, drain, failure, states
from support.task_endings import ENDINGS, ending_function

from lifecycle import SIGNAL_COMPLETE, SIGNAL_ENQUEUED, SIGNAL_ERROR, SIGNAL_EXECUTING, SIGNAL_SCHEDULED, SIGNALS, Task


@pytest.mark.parametrize("signal", SIGNALS)
def test_handler_that_raises_is_logged_and_changes_nothing(make, clock, caplog, signal):
    """A handler that raises on any signal is logged, and changes nothing for other handlers or for the task."""
    queue = make(max_interruptions=1)
    before, calm = Heard(queue), make(name="calm", max_interruptions=1)
    twins = Heard(calm)

    @queue.signal(signal)
    def broken(signal, task, exc=None):
        raise RuntimeError("handler")

    after = Heard(queue)
    for each in (queue, calm):
        for how in ENDINGS:
            each.task(name=how, context=True, retries=1, retry_delay=5)(ending_function(how))()
        each.tasks()[-1]
        each.handle(each.task(name="revoked")(lambda: None).schedule(delay=3).id).revoke()
        each.task(name="expired")(lambda: None).schedule(delay=6, expires=3)
        first = each.task(name="first")(lambda: None)
        each.enqueue(first.s() | first.s() | first.s())[1].revoke()
    for _ in range(12):
        for each in (queue, calm):
            drain(each)
        clock.advance(5)

    def stories(heard):
        order = list(dict.fromkeys(task_id for _, task_id in heard))
        return [[name for name, task_id in heard if task_id == one] for one in order]

    assert stories(before) == stories(after) == stories(twins)
    assert signal in {name for name, *_ in after}
    assert caplog.text.count("RuntimeError: handler") == sum(name == signal for name, *_ in after)


@pytest.mark.parametrize("signal", [SIGNAL_ENQUEUED, SIGNAL_EXECUTING, SIGNAL_ERROR, SIGNAL_SCHEDULED])
def test_handler_cannot_change_a_task(queue, heard, signal):
    """A handler gets a copy of the task: changes of the copy have no effect."""

    @queue.signal(signal)
    def careless(signal, task, exc=None):
        task.retries, task.state, task.version, task.eta, task.id = 9, "complete", 77, 0.0, "another"
        task.worker, task.attempt, task.lease = "nobody", 50, None

    @queue.task(retries=1, retry_delay=5)
    def fails():
        raise ValueError

    result = fails()
    for _ in range(3):
        queue.run_next()
        queue.engine.clock.advance(5)
    assert states(result) == "queued executing error retrying scheduled executing error"
    assert heard.of(result) == ["enqueued", "executing", "error", "retrying", "scheduled", "executing", "error"]


def test_handlers_hooks_and_function_of_an_attempt_share_values(queue, heard, clock):
    """`task.local` is one dict for the handlers, the hooks and the function of an attempt, and empty for the next one."""
    seen = []

    def note(*args, **kwargs):
        task = next(arg for arg in (*args, kwargs.get("task")) if isinstance(arg, Task))
        seen.append((task.state, list(task.local)))
        task.local[len(task.local)] = object()  # any value: none is stored

    queue.signal(note)
    queue.pre_execute(note)
    queue.post_execute(note)

    @queue.task(retries=1, retry_delay=5, context=True)
    def fails(task=None):
        note(task)
        raise ValueError

    task = fails.s()
    task.local["from"] = "the caller"
    result = queue.enqueue(task)
    for _ in range(3):
        queue.run_next()
        clock.advance(5)
    attempt = [("executing", list(range(count))) for count in range(4)]
    assert seen == [
        ("queued", ["from"]),
        *attempt, ("error", [0, 1, 2, 3]), ("retrying", [0, 1, 2, 3, 4]), ("scheduled", [0, 1, 2, 3, 4, 5]),
        *attempt, ("error", [0, 1, 2, 3]),
    ]  # fmt: skip
    assert queue.get(result.id).local == {}
    assert result.task.local == {}


@pytest.mark.parametrize("where", ["handler", "pre", "post"])
def test_attribute_of_ones_own_on_a_task_has_a_hint(queue, add, caplog, where):
    """A handler or hook that sets an attribute of its own on a task fails, and the log names `task.local`."""

    def careless(*args):
        task = next(arg for arg in args if isinstance(arg, Task))
        task.started = 5

    {"handler": queue.signal(SIGNAL_COMPLETE), "pre": queue.pre_execute(), "post": queue.post_execute()}[where](
        careless
    )
    add(1)
    assert queue.run_next().state == "complete"
    assert caplog.text.count("no attribute 'started'") == 1
    assert caplog.text.count("task.local is a dict for values of your own") == 1


def test_attribute_of_ones_own_in_a_function_has_a_hint(queue):
    """A function that sets an attribute of its own on its task fails, and its traceback names `task.local`."""

    @queue.task(context=True)
    def careless(task=None):
        task.started = 5

    result = careless()
    queue.run_next()
    assert "task.local is a dict" in failure(result)["traceback"]


@pytest.mark.parametrize("where", ["function", "hook"])
def test_function_and_hooks_cannot_change_a_task(queue, heard, where):
    """A function and a hook get a copy of the task, too: changes of the copy have no effect."""

    def careless(task=None):
        task.retries, task.state, task.version, task.attempt = 9, "complete", 77, 50

    @queue.task(retries=1, context=True)
    def fails(task=None):
        if where == "function":
            careless(task)
        raise ValueError

    if where == "hook":
        queue.pre_execute("careless")(careless)
        queue.post_execute("careless")(lambda task, value, exc: careless(task))
    result = fails()
    drain(queue)
    assert heard.story(result) == "enqueued executing error retrying enqueued executing error"


def test_handler_can_use_the_queue(queue, heard, add):
    """A handler can call tasks, revoke, read results, and even run the next task."""
    ran = []

    @queue.task()
    def note(what):
        ran.append(what)

    @queue.signal(SIGNAL_COMPLETE)
    def follow(signal, task):
        if task.name == add.name:
            note("revoked").revoke()
            note(queue.result(task.id))
            queue.run_next(), queue.run_next()

    result = add(1, 2)
    queue.run_next()
    assert ran == [3]
    assert heard.story(result) == "enqueued executing complete"
    assert queue.counts()["revoked"] == 1


def test_handlers_see_the_fields_of_their_step(queue, clock):
    """A handler sees the task as it was at that step: in `error` the retries of the attempt, in `retrying` the rest."""
    steps = []
    fail = queue.task(name="fail", retries=2, retry_delay=10)(lambda: 1 / 0)

    @queue.signal()
    def note(signal, task, exc=None):
        steps.append((signal, task.state, task.version, task.attempt, task.retries, task.eta))

    fail()
    drain(queue)
    now = clock.now()
    assert steps == [
        ("enqueued", "queued", 1, 0, 2, None),
        ("executing", "executing", 2, 1, 2, None),
        ("error", "error", 3, 1, 2, None),
        ("retrying", "retrying", 4, 1, 1, None),
        ("scheduled", "scheduled", 5, 1, 1, now + 10),
    ]


def test_handlers_see_the_interruptions_of_their_step(queue, clock):
    """In `interrupted` the interruption is counted, and an operator's retry forgives it in `retrying`."""
    steps = []
    queue.engine.max_interruptions = 0
    fail = queue.task(name="stop", retries=0)(lambda: (_ for _ in ()).throw(KeyboardInterrupt))

    @queue.signal()
    def note(signal, task, exc=None):
        steps.append((signal, task.interruptions, task.worker == queue.engine.process_name()))

    result = fail()
    with pytest.raises(KeyboardInterrupt):
        queue.run_next()
    queue.retry(result.id)
    assert steps == [
        ("enqueued", 0, True),
        ("executing", 0, False),
        ("interrupted", 1, False),
        ("retrying", 0, True),
        ("enqueued", 0, True),
    ]


def test_handlers_find_the_exception_that_ended_the_attempt(queue):
    """In handlers of an outcome the exception is the one being handled, as it was raised; in no other handler is one."""
    seen, logged = [], logging.Formatter()

    @queue.signal()
    def handler(signal, task, exc=None):
        kind, error, frames = sys.exc_info()
        assert (kind, frames) == (None if error is None else type(error), getattr(error, "__traceback__", None))
        seen.append((signal, error, logged.formatException(sys.exc_info())))

    chained = LookupError("first")

    @queue.task(retries=1)
    def fails():
        try:
            raise chained
        except LookupError:
            raise ValueError("second")  # noqa: B904 -- the context is the test's subject

    try:
        raise RuntimeError("of the caller")
    except RuntimeError as outer:
        fails()
        queue.run_next()
        assert sys.exc_info()[1] is outer
        caught = [error for _, error, _ in seen]
        assert [str(error) for error in caught] == [*["of the caller"] * 2, "second", *["of the caller"] * 2]
    assert [signal for signal, *_ in seen] == ["enqueued", "executing", "error", "retrying", "enqueued"]
    error, text = seen[2][1:]
    assert error.__context__ is chained
    assert "first" in text
    assert "signals.py" not in text
    assert "runner.py" not in text


@pytest.mark.parametrize("how", ENDINGS)
def test_every_outcome_has_its_exception(queue, how):
    """Handlers of each outcome find its exception: `error` has it as an argument, too."""
    seen = {}

    @queue.signal()
    def handler(signal, task, exc=None):
        seen[signal] = sys.exc_info()[1]
        assert exc is (sys.exc_info()[1] if signal == SIGNAL_ERROR else None)

    @queue.task(context=True)
    def ends(task=None):
        if ENDINGS[how] is not None:
            raise ENDINGS[how]

    ends()
    queue.run_next()
    with_error = {signal for signal, error in seen.items() if error is not None}
    assert with_error == (set() if how == "complete" else {how})
    assert how == "complete" or seen[how] is ENDINGS[how]


def test_slow_handler_is_logged_once(queue, add, monkeypatch, caplog):
    """A handler that takes longer than a second is logged, once, by its name: its worker waits for it."""
    ticks = itertools.count(step=0.6)
    monkeypatch.setattr("lifecycle.execution.signals.monotonic", lambda: next(ticks))

    @queue.signal(SIGNAL_COMPLETE)
    def slow(signal, task):
        next(ticks)

    @queue.signal(SIGNAL_COMPLETE)
    def quick(signal, task):
        pass

    add(1), add(2)
    drain(queue)
    (record,) = [record for record in caplog.records if record.name == "lifecycle.signals"]
    assert record.levelno == logging.WARNING
    assert "signal=complete seconds=1.2" in record.getMessage()
    assert "<locals>.slow" in record.getMessage()
