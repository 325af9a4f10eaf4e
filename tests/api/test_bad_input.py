"""Bad input: refused with an error that names the input and a way out; the queue goes on, and nothing is lost."""

import functools
import re
from datetime import UTC, datetime, timedelta, timezone
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
from lifecycle.core.task import RetryPolicy

pytestmark = pytest.mark.usefixtures("still_works")


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b=0, *more, **named):
        return a

    return add


# Arguments -----------------------------------------------------------------------------------------------------------


class NotSerializable:
    """Object that no serializer stores."""


PLACES = {
    "argument 'a' of": ((NotSerializable(),), {}),
    "argument 'b'['when'][1] of": ((1, {"when": [2, NotSerializable()]}), {}),
    "argument 'b'[0] of": ((1,), {"b": [NotSerializable()]}),
    "argument 3[0] of": ((1, 2, 3, (NotSerializable(),)), {}),
    "argument 'named' of": ((1,), {"named": NotSerializable()}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["call", "s", "schedule", "map"])
def test_unserializable_argument_is_refused_at_the_call(queue, heard, add, place, way):
    """An argument that cannot be stored is refused at the call, with task, argument and place in the error."""
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
    assert "NotSerializable" in str(caught.value)
    assert "pass " in str(caught.value)
    assert heard == []
    assert sum(queue.counts().values()) == count


@pytest.mark.parametrize("kwargs", [False, True])
def test_unpicklable_argument_is_named(make, kwargs):
    """A serializer that cannot give the place still leads to an error that names the task and the argument."""
    queue = make(serializer=PickleSerializer("a secret of sixteen bytes"))

    @queue.task()
    def add(a, b): ...

    with pytest.raises(Unserializable, match=rf"argument 'b' of {re.escape(add.name)}"):
        add(1, b=lambda: 0) if kwargs else add(1, lambda: 0)


def test_unserializable_argument_of_a_nested_call_is_the_error_of_the_outer_task(queue, heard):
    """A task that calls another one with an argument that cannot be stored fails with that error."""
    inner = queue.task(name="inner")(lambda what: None)
    outer = queue.task(name="outer")(lambda: inner(NotSerializable()))
    result = outer()
    drain(queue)
    assert heard.story(result) == "enqueued executing error"
    error = failure(result)["error"]
    assert "argument 'what' of inner" in error
    assert "result of" not in error


def test_context_is_not_counted_among_the_arguments(queue):
    """The task that a function with context gets is none of its arguments: errors count as the caller does."""

    @queue.task(context=True)
    def look(a, b, task=None): ...

    with pytest.raises(Unserializable, match="argument 'b' of"):
        look(1, NotSerializable())


# Options -------------------------------------------------------------------------------------------------------------


NAN, INF = float("nan"), float("inf")
NOT_DURATIONS = [-1, -0.5, NAN, INF, -INF, "5", True, timedelta(seconds=-1), [5]]
OPTIONS = {
    "retries": [-1, True, False, 1.0, 2.5, "3", None, 2**31],
    "retry_delay": [*NOT_DURATIONS, None],
    "retry_backoff": [-1, 0.5, NAN, INF, "2", True, None, timedelta(seconds=2)],
    "retry_max_delay": [*NOT_DURATIONS, None],
    "retry_jitter": [-0.1, 1.1, NAN, "0.5", None, timedelta(0)],
    "priority": [1.0, 2.5, "high", 2**31, -(2**31) - 1, True, NAN, Decimal(1)],
    "timeout": NOT_DURATIONS,
    "expires": [NAN, INF, "tomorrow", True, [5], 0, -1],
    "context": [1, "yes", None],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in OPTIONS for value in OPTIONS[option]])
def test_bad_option_of_a_function_is_refused_at_its_declaration(queue, option, value):
    """A bad option of a function is refused at the declaration: the error names the option and its value."""
    with pytest.raises(ConfigurationError) as caught:
        queue.task(name="bad", **{option: value})(lambda task=None: None)
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)
    assert queue.task(name="bad")(lambda: None)().state == "queued"


CALLS = {
    "retries": [-1, True, 1.0, "3", 2**31, 2**70],
    "retry_delay": NOT_DURATIONS,
    "retry_backoff": [-1, 0.5, NAN, INF, "2", True],
    "priority": [1.0, "high", 2**31, True],
    "timeout": NOT_DURATIONS,
    "expires": [NAN, INF, "tomorrow", True],
    "delay": [NAN, INF, -INF, "5", True, 1e12],
    "eta": [5.0, "tomorrow", datetime(9999, 12, 31, 12, tzinfo=timezone(-timedelta(hours=23, minutes=59)))],
    "id": [42, b"raw", "", "a\0", "\ud800"],
    "kwargs": [[("a", 1)], "ab", 5],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in CALLS for value in CALLS[option]])
def test_bad_option_of_a_call_is_refused_and_nothing_is_enqueued(queue, heard, add, option, value):
    """A bad option of a call is refused, and nothing is enqueued."""
    count = sum(queue.counts().values())
    with pytest.raises(ConfigurationError) as caught:
        add.schedule((1,), **{option: value})
    assert repr(value) in str(caught.value)
    assert heard == []
    assert sum(queue.counts().values()) == count


FIELDS = {
    "id": [42, b"raw", "", "a\0", None],
    "name": [42, "", "\ud800"],
    "retries": [-1, True, 1.0, "3", None, 2**31],
    "retry": [
        5,
        None,
        RetryPolicy(delay=-1),
        RetryPolicy(backoff=0.5),
        RetryPolicy(jitter=2),
        RetryPolicy(max_delay=INF),
    ],
    "attempt": [1, None, 0.0],
    "version": [5, "1"],
    "worker": ["me"],
    "lease": [5.0],
    "interruptions": [1],
    "canceling": [True, 0],
    "priority": [1.0, "high", 2**31, True, None],
    "timeout": [-1, NAN, INF, "5", True],
    "expires": [NAN, INF, "tomorrow", True],
    "eta": [NAN, INF, "tomorrow", True],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in FIELDS for value in FIELDS[field]])
def test_bad_field_of_a_task_is_refused_until_it_is_corrected(queue, heard, add, field, value):
    """A bad field of a task is refused at its enqueuing; after the correction of the field the task can be enqueued."""
    task = add.s(1)
    good = getattr(task, field)
    setattr(task, field, value)
    with pytest.raises(ConfigurationError, match=field) as caught:
        queue.enqueue_many([add.s(2), task])
    assert "must" in str(caught.value) or "only the queue" in str(caught.value)
    assert heard == []
    assert task.state is None
    setattr(task, field, good)
    assert queue.enqueue(task).state == "queued"


class CountingInt(int):
    """Subclass of int that counts how often it is compared."""

    compared = 0

    def __eq__(self, other):
        CountingInt.compared += 1
        assert CountingInt.compared < 1000, "it is compared with every number there is"
        return int(self) == other

    __hash__ = int.__hash__


def test_int_subclass_is_a_whole_number(queue, add):
    """A whole number of a subclass of int, of an `IntEnum` for example, is a whole number."""
    number = CountingInt(5)
    for result in (
        add.schedule((1,), priority=number, retries=number),
        queue.task(name="high", priority=number, retries=number)(lambda: 1)(),
    ):
        assert (queue.get(result.id).priority, queue.get(result.id).retries) == (5, 5)
        assert queue.run_next().id == result.id


def test_eta_and_delay_together_are_refused(queue, heard, add):
    """An ETA and a delay together are refused."""
    with pytest.raises(ConfigurationError, match="eta or delay, not both"):
        add.schedule((1,), eta=datetime.now(UTC), delay=5)
    assert heard == []


def test_callable_without_a_name_needs_the_name_option(queue):
    """A callable without a name of its own is refused as a task, unless `name=` is given."""
    nameless = functools.partial(max, 1)
    with pytest.raises(ConfigurationError, match="name="):
        queue.task()(nameless)
    result = queue.task(name="largest")(nameless)(3)
    queue.task(name="largest")(nameless)
    drain(queue)
    assert result.get() == 3


def test_enqueued_task_cannot_be_enqueued_again(queue, heard, add):
    """A task that was enqueued, or comes from the store, cannot be enqueued again: the error gives the alternatives."""
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
def test_value_that_is_no_task_cannot_be_enqueued(queue, heard, add, what):
    """A value that is no task cannot be enqueued: the error shows the value and how to make a task."""
    thing = {"handle": queue.handle("some id"), "function": add, "name": add.name, None: None}[what]
    with pytest.raises((TypeError, ConfigurationError), match=r"\.s\("):
        queue.enqueue(thing)
    assert heard == []


def test_bad_timeout_of_a_result_is_refused(queue, add):
    """A timeout that is no duration is refused, and the task stays as it is."""
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


# Exceptions of a task ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", ["soon", NAN, INF, True, [5], 1e12])
@pytest.mark.parametrize("kind_of", ["retry", "limit"])
def test_bad_delay_of_a_requested_retry_ends_the_task_as_error(queue, heard, delay, kind_of):
    """A task that asks for a retry with a bad delay ends `error`."""

    @queue.task()
    def again():
        raise RetryTask(delay=delay) if kind_of == "retry" else RateLimitExceeded("api", delay)

    result = again()
    queue.run_next()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert repr(delay) in failure(result)["error"]


@pytest.mark.parametrize("delay", [-0.001, -5, timedelta(days=-1), 0])
@pytest.mark.parametrize("kind_of", ["retry", "limit"])
def test_delay_below_zero_of_a_requested_retry_means_at_once(queue, heard, delay, kind_of):
    """A task that asks for a retry after a delay below zero, as a computed delay can be, is retried at once."""

    @queue.task(context=True)
    def again(task):
        if task.attempt == 1:
            raise RetryTask(delay=delay) if kind_of == "retry" else RateLimitExceeded("api", delay)

    result = again()
    drain(queue)
    outcome = "" if kind_of == "retry" else "rate-limited "
    assert heard.story(result) == f"enqueued executing {outcome}retrying enqueued executing complete"


@pytest.mark.parametrize("eta", ["tomorrow", 5.0, NAN])
def test_bad_eta_of_a_requested_retry_ends_the_task_as_error(queue, heard, eta):
    """A task that asks for a retry with a bad ETA ends `error`."""

    @queue.task()
    def again():
        raise RetryTask(eta=eta)

    result = again()
    queue.run_next()
    queue.run_next()
    assert heard.story(result) == "enqueued executing error"
    assert repr(eta) in failure(result)["error"]


class RetryWithBadDelay(RetryTask):
    """`RetryTask` whose delay is no duration."""

    def __init__(self):
        super().__init__()
        self.delay = object()


def test_exception_with_bad_attributes_does_not_stop_the_worker(queue):
    """A worker goes on after any exception of a task."""
    result = queue.task(name="wild")(lambda: (_ for _ in ()).throw(RetryWithBadDelay()))()
    queue.run_next()
    queue.run_next()
    assert result.state == "error"


# Signals, states -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["completed", "SIGNAL_ERROR", "", "Error", "rate_limited", None, 7])
def test_misspelled_signal_is_refused_with_a_list_of_signals(queue, bad):
    """A name that is no signal is refused, with a list of the signals; nothing is registered."""
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
