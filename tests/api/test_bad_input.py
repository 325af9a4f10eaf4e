"""Bad input: refused where it is given, by name and with a way out; the queue goes on, and nothing is lost."""

import functools
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from conftest import drain, failure

from lifecycle import (
    SIGNALS,
    ConfigurationError,
    PickleSerializer,
    RateLimitExceeded,
    RetryTask,
    TaskException,
    UnknownSignal,
    Unserializable,
)

pytestmark = pytest.mark.usefixtures("still_works")


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b=0, *more, **named):
        return a

    return add


# Arguments ---------------------------------------------------------------------------------------------------------


class Odd:
    """Something that is nobody's to store."""


PLACES = {
    "argument 'a' of": ((Odd(),), {}),
    "argument 'b'['when'][1] of": ((1, {"when": [2, Odd()]}), {}),
    "argument 'b'[0] of": ((1,), {"b": [Odd()]}),
    "argument 3[0] of": ((1, 2, 3, (Odd(),)), {}),
    "argument 'named' of": ((1,), {"named": Odd()}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["call", "s", "schedule", "map"])
def test_unserializable_arguments(queue, heard, add, place, way):
    """An argument that cannot be stored is refused at the call: the error names task, argument and place; no task is made."""
    args, kwargs = PLACES[place]
    count = sum(queue.counts().values())
    with pytest.raises(Unserializable, match=re.escape(f"{place} {add.name}")) as caught:
        if way == "map" and not kwargs:
            add.map([(1,), args])
        elif way == "s":
            queue.enqueue(add.s(*args, **kwargs))
        elif way == "schedule":
            add.schedule(args, kwargs, delay=5)
        else:
            add(*args, **kwargs)
    assert "Odd" in str(caught.value)
    assert "pass " in str(caught.value)
    assert heard == []
    assert sum(queue.counts().values()) == count


@pytest.mark.parametrize("kwargs", [False, True])
def test_what_cannot_be_pickled(make, kwargs):
    """A serializer that cannot tell the place leaves the task and the argument named all the same."""
    queue = make(serializer=PickleSerializer("a secret of sixteen bytes"))

    @queue.task()
    def add(a, b): ...

    with pytest.raises(Unserializable, match=rf"argument 'b' of {re.escape(add.name)}"):
        add(1, b=lambda: 0) if kwargs else add(1, lambda: 0)


def test_unserializable_arguments_in_a_task(queue, heard):
    """A task that calls another with what cannot be stored fails with that error, not with one about its result."""
    inner = queue.task(name="inner")(lambda what: None)
    outer = queue.task(name="outer")(lambda: inner(Odd()))
    result = outer()
    drain(queue)
    assert heard.story(result) == "enqueued executing error"
    error = failure(result)["error"]
    assert "argument 'what' of inner" in error
    assert "result of" not in error


def test_context_is_not_an_argument(queue):
    """The task that a function is passed is none of its arguments: errors count as the caller does."""

    @queue.task(context=True)
    def look(a, b, task=None): ...

    with pytest.raises(Unserializable, match="argument 'b' of"):
        look(1, Odd())


# Options -----------------------------------------------------------------------------------------------------------


NAN, INF = float("nan"), float("inf")
NO_DURATIONS = [-1, -0.5, NAN, INF, -INF, "5", True, timedelta(seconds=-1), [5]]
OPTIONS = {
    "retries": [-1, True, False, 1.0, 2.5, "3", None],
    "retry_delay": [*NO_DURATIONS, None],
    "retry_backoff": [-1, NAN, INF, "2", True, None, timedelta(seconds=2)],
    "retry_max_delay": [*NO_DURATIONS, None],
    "retry_jitter": [-0.1, 1.1, NAN, "0.5", None, timedelta(0)],
    "priority": [1.0, 2.5, "high", 2**31, -(2**31) - 1, True, NAN, Decimal(1)],
    "timeout": NO_DURATIONS,
    "expires": [NAN, INF, "tomorrow", True, [5]],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in OPTIONS for value in OPTIONS[option]])
def test_options_of_a_function(queue, option, value):
    """An option that cannot be is refused where the function is declared: the error names it, and what it was."""
    with pytest.raises(ConfigurationError) as caught:
        queue.task(name="bad", **{option: value})(lambda: None)
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)
    assert queue.task(name="bad")(lambda: None)().state == "queued"


CALLS = {
    "retries": [-1, True, 1.0, "3"],
    "retry_delay": NO_DURATIONS,
    "retry_backoff": [-1, NAN, INF, "2", True],
    "priority": [1.0, "high", 2**31, True],
    "timeout": NO_DURATIONS,
    "expires": [NAN, INF, "tomorrow", True],
    "delay": [NAN, INF, -INF, "5", True, -1, timedelta(seconds=-1)],
    "eta": [5.0, "tomorrow"],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in CALLS for value in CALLS[option]])
def test_options_of_a_call(queue, heard, add, option, value):
    """So is one of a single call; then nothing is enqueued."""
    count = sum(queue.counts().values())
    with pytest.raises(ConfigurationError) as caught:
        add.schedule((1,), **{option: value})
    assert repr(value) in str(caught.value)
    assert heard == []
    assert sum(queue.counts().values()) == count


FIELDS = {
    "retries": [-1, True, 1.0, "3", None],
    "priority": [1.0, "high", 2**31, True, None],
    "timeout": [-1, NAN, INF, "5", True],
    "expires": [NAN, INF, "tomorrow", True],
    "eta": [NAN, INF, "tomorrow", True],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in FIELDS for value in FIELDS[field]])
def test_fields_of_a_task(queue, heard, add, field, value):
    """So is a field of a task that was changed before it is enqueued; put right, the task can be enqueued."""
    task = add.s(1)
    good = getattr(task, field)
    setattr(task, field, value)
    with pytest.raises(ConfigurationError, match=field):
        queue.enqueue_many([add.s(2), task])
    assert heard == []
    assert task.state is None
    setattr(task, field, good)
    assert queue.enqueue(task).state == "queued"


class Picky(int):
    """A whole number that somebody has subclassed, and that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        Picky.compared += 1
        assert Picky.compared < 1000, "it is compared with every number there is"
        return int(self) == other

    __hash__ = int.__hash__


def test_numbers_of_another_type(queue, add):
    """Whole numbers of a type of their own, an `IntEnum`'s, say, are whole numbers."""
    number = Picky(5)
    for result in (
        add.schedule((1,), priority=number, retries=number),
        queue.task(name="high", priority=number, retries=number)(lambda: 1)(),
    ):
        assert (queue.get(result.id).priority, queue.get(result.id).retries) == (5, 5)
        assert queue.run_next().id == result.id


def test_an_eta_and_a_delay(queue, heard, add):
    """An ETA and a delay contradict each other."""
    with pytest.raises(ConfigurationError, match="eta or delay, not both"):
        add.schedule((1,), eta=datetime.now(UTC), delay=5)
    assert heard == []


def test_without_parentheses(queue):
    """A decorator that is used without its parentheses says so; so do signals."""

    def chore(): ...

    with pytest.raises(ConfigurationError, match=r"@queue.task\(\)"):
        queue.task(chore)
    with pytest.raises(ConfigurationError, match="no signal"):
        queue.signal(chore)
    with pytest.raises(ConfigurationError, match="decorates a function"):
        queue.task()("chore")


def test_a_callable_without_a_name(queue):
    """What has no name of its own needs one as a task: the error says so; given one, it works."""
    nameless = functools.partial(max, 1)
    with pytest.raises(ConfigurationError, match="name="):
        queue.task()(nameless)
    result = queue.task(name="largest")(nameless)(3)
    queue.task(name="largest")(nameless)
    drain(queue)
    assert result.get() == 3


def test_a_task_is_enqueued_once(queue, heard, add):
    """A task that was enqueued, or comes from the store, is not enqueued again: the error says what to do instead."""
    task = add.s(1)
    result = queue.enqueue(task)
    for again in (task, queue.get(result.id)):
        with pytest.raises(ConfigurationError, match=f"{task.id}.*enqueued before.*(new one|retry)"):
            queue.enqueue_many([add.s(2), again])
    assert heard.story(result) == "enqueued"
    assert len(heard) == 1
    drain(queue)
    with pytest.raises(ConfigurationError, match="enqueued before"):
        queue.enqueue(queue.get(result.id))
    assert result.get() == 1


@pytest.mark.parametrize("what", ["handle", "function", "name", None])
def test_what_is_no_task(queue, heard, add, what):
    """What is no task is not enqueued: the error says what was given, and what makes a task."""
    thing = {"handle": queue.handle("some id"), "function": add, "name": add.name, None: None}[what]
    with pytest.raises((TypeError, ConfigurationError), match=r"\.s\("):
        queue.enqueue(thing)
    assert heard == []


def test_reading_results_in_vain(queue, add):
    """A timeout that is no time is refused, and the task is not touched."""
    result = add(1)
    for bad in ("soon", [5]):
        with pytest.raises((TypeError, ValueError)):
            result.get(timeout=bad)
    drain(queue)
    assert result.get() == 1
    with pytest.raises(TaskException):
        failed = queue.task(name="fails")(lambda: 1 / 0)()
        drain(queue)
        failed.get()


# What a task says of itself ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", ["soon", NAN, INF, -5, True, [5]])
@pytest.mark.parametrize("kind_of", ["retry", "limit"])
def test_bad_delays_of_a_retry(queue, heard, delay, kind_of):
    """A task that asks for a retry after no time at all, or at a moment that is none, has made an error: it ends so."""

    @queue.task()
    def again():
        raise RetryTask(delay=delay) if kind_of == "retry" else RateLimitExceeded("api", delay)

    result = again()
    queue.run_next()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert repr(delay) in failure(result)["error"]


@pytest.mark.parametrize("eta", ["tomorrow", 5.0, NAN])
def test_bad_etas_of_a_retry(queue, heard, eta):
    """The same goes for the ETA."""

    @queue.task()
    def again():
        raise RetryTask(eta=eta)

    result = again()
    queue.run_next()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert repr(eta) in failure(result)["error"]


class Wild(RetryTask):
    """Whose attributes are nobody's."""

    def __init__(self):
        super().__init__()
        self.delay = object()


def test_wild_exceptions(queue):
    """Whatever a task raises, its worker goes on."""
    result = queue.task(name="wild")(lambda: (_ for _ in ()).throw(Wild()))()
    queue.run_next()
    queue.run_next()
    assert result.state == "error"


# Signals, states ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["completed", "SIGNAL_ERROR", "", "Error", "rate_limited", None, 7])
def test_misspelt_signals(queue, bad):
    """A signal that does not exist is refused where it is named, with those that do; nothing is registered."""
    heard = []

    def handler(signal, task, exc=None):
        heard.append(signal)

    with pytest.raises(UnknownSignal, match=re.escape(repr(bad))) as caught:
        queue.signal("complete", bad)
    assert all(signal in str(caught.value) for signal in SIGNALS)
    with pytest.raises(UnknownSignal):
        queue.disconnect_signal(handler, bad)
    queue.run_next()
    assert heard == []
