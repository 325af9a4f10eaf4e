"""Bad input: refused where it is given, by name and with a way out; the queue goes on, and nothing is lost."""

import functools
import logging
import re
import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from conftest import KINDS, Heard, drain, failure, states
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import patient

from lifecycle import (
    SIGNALS,
    ConfigurationError,
    LifecycleError,
    MsgpackSerializer,
    PickleSerializer,
    RateLimitExceeded,
    RetryTask,
    Task,
    TaskException,
    TaskQueue,
    UnknownSignal,
    Unserializable,
)
from lifecycle.testing import VirtualClock

NOW = 1_000_000_000.0


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b=0, *more, **named):
        return a

    return add


@pytest.fixture(autouse=True)
def still_works(request):
    """After each bad input: the queue runs what it is given, and what it was given before."""
    if "queue" not in request.fixturenames:
        yield
        return
    queue = request.getfixturevalue("queue")
    before = queue.task(name="before")(lambda: "before")()
    yield
    assert before.state in ("queued", "complete")
    after = queue.task(name="after")(lambda: "after")()
    queue.engine.clock.advance(10**6)
    drain(queue)
    assert (before.get(), after.get()) == ("before", "after")


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
    "retry_backoff": [-1, NAN, INF, "2", True, None],
    "retry_max_delay": [*NO_DURATIONS, None],
    "retry_jitter": [-0.1, 1.1, NAN, "0.5", None],
    "priority": [1.0, 2.5, "high", 2**31, -(2**31) - 1, True, NAN, Decimal(1)],
    "timeout": NO_DURATIONS,
    "expires": [NAN, INF, "tomorrow", True, [5]],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in OPTIONS for value in OPTIONS[option]])
def test_options_of_a_function(queue, option, value):
    """An option that cannot be is refused where the function is declared: the error names it, and what it was."""
    with pytest.raises(ConfigurationError) as caught:
        queue.task(name="bad", **{option: value})(lambda: None)
    assert option in str(caught.value) or "no time" in str(caught.value)
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


# URLs --------------------------------------------------------------------------------------------------------------

BAD_URLS = {
    "": None,  # the default
    "app.db": "no scheme.*memory://, sqlite://",
    "/var/lib/app.db": "no scheme",
    "mysql://localhost/app": "unknown scheme mysql://: there are memory://, sqlite://",
    "SQLITE:///app.db?": None,
    "sqlite://": "three slashes and a file",
    "sqlite:///": "three slashes and a file",
    "sqlite://app.db": "three slashes",
    "sqlite://app.db/": "three slashes",
    "sqlite:app.db": None,
    "sqlite:///:memory:": "use memory://",
    "sqlite:///app.db?synchronous=never": "synchronous.* off, normal, full, extra",
    "sqlite:///app.db?timeout=soon": "timeout.*seconds",
    "sqlite:///app.db?timeout=-1": "timeout.*seconds",
    "sqlite:///app.db?timeout=nan": "timeout.*seconds",
    "sqlite:///app.db?timeout=inf": "timeout.*seconds",
    "sqlite:///app.db?journal=off": "no option journal.*there are synchronous and timeout",
    "sqlite:///app.db?synchronous": "URL",
    "memory:///path": "memory:// takes neither",
    "memory://host": "memory:// takes neither",
    "memory://?synchronous=full": "memory:// takes neither",
    "http://[::1": "URL",
}


@pytest.mark.parametrize("url", [url for url, words in BAD_URLS.items() if words])
def test_bad_urls(url, tmp_path, monkeypatch):
    """A URL that cannot be a store's is refused before anything is made: the error says what is wrong, and what there is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]):
        TaskQueue(url)
    monkeypatch.setenv("LIFECYCLE_URL", url)
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]):
        TaskQueue()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder/app.db", "sqlite:///{}", "sqlite:///{}/text"])
def test_files_that_are_no_queue(tmp_path, url):
    """What is no queue's file is not touched: the error says what it is, at the first use."""
    (tmp_path / "text").write_text("not a database, whatever its name" * 100)
    queue = TaskQueue(url.format(tmp_path))
    for _ in range(2):
        with pytest.raises(LifecycleError, match=r"folder|another program|cannot be used"):
            queue.task(name="add")(lambda: None)()
    assert (tmp_path / "text").read_text().startswith("not a database")
    queue.close()


SECRET = "hunter2"
SECRET_URLS = [
    "postgresql://user:hunter2@host/app", "redis://:hunter2@host:6379/0", "mysql://user:hunter2@host/app",
    "sqlite://user:hunter2@host/app.db", "memory://user:hunter2@", "postgresql://user:hunter2@[::1/app",
    "postgresql://user:hunter2@ho\u2100st/app", "postgresql://user:hunter2@host/app?hunter2",
    "sqlite:///app.db?password=hunter2", "sqlite:///app.db?hunter2", "sqlite:///app.db?timeout=hunter2",
    "sqlite:///app.db?synchronous=hunter2", "user:hunter2@host", "//user:hunter2@host/app", "hunter2",
    "postgresql://user:hunter2@host:port/app", "postgres ql://user:hunter2@host/app",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRET_URLS)
def test_passwords_are_not_shown(url, caplog, monkeypatch):
    """No error, repr or log shows a URL, which may hold a password."""
    caplog.set_level(logging.DEBUG)
    shown = []
    try:
        queue = TaskQueue(url)
        shown += [repr(queue), repr(queue.storage), repr(queue.engine)]
    except ConfigurationError as error:
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert shown
    assert SECRET not in " ".join(shown)
    assert SECRET not in caplog.text


@patient
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", "sqlite://", "memory:", "x://a:b@"]),
)
@example("[", "x://")
def test_any_url(text, scheme):
    """Whatever is given for a URL is a store's, or a `ConfigurationError`."""
    try:
        TaskQueue(scheme + text or "memory://")
    except ConfigurationError as error:
        assert str(error)


# What workers find -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retries", [0, 1])
def test_a_function_that_is_gone(make, clock, retries):
    """A task whose function the worker does not know ends `error`, named, listed, and can be retried once it is back."""
    producer = make()
    url = producer.storage
    heard = Heard(producer)
    gone = producer.task(name="gone", retries=retries)(lambda a: a)
    producer.task(name="stays")(lambda: None)
    result = gone(5)
    function = producer.engine.functions.pop("gone")
    drain(producer)
    assert url is producer.storage
    again = " retrying enqueued executing error" * retries
    assert heard.story(result) == f"enqueued executing error{again}"
    error = failure(result)["error"]
    assert "UnknownTask" in error
    assert "'gone'" in error
    assert "stays" in error
    assert [task.id for task in producer.tasks("error")] == [result.id]
    producer.engine.functions["gone"] = function
    producer.retry(result.id)
    drain(producer)
    assert result.get() == 5


def test_nobody_knows_any_function(queue):
    """A worker that knows no function at all says so."""
    queue.engine.functions.clear()
    result = queue.enqueue(Task("some id", "gone"))
    queue.run_next(), queue.run_next()
    assert "there are: none" in failure(result)["error"]
    queue.task(name="before")(lambda: "before")
    queue.retry(queue.tasks("error")[-1].id)


def corrupt(queue, task_id, payload):
    """Overwrite the stored arguments of a task."""
    if hasattr(queue.storage, "_rows"):
        queue.storage._rows[task_id].task.payload = payload
    else:
        with sqlite3.connect(queue.storage._file.path) as db:
            db.execute("update task set payload=? where id=?", (payload, task_id))
        db.close()


def valid(payload):
    """Does it say what to call a function with, after all?"""
    try:
        call = MsgpackSerializer().loads(payload)
    except LifecycleError:
        return False
    match call:
        case (tuple() | list(), dict() as named):
            return all(isinstance(name, str) for name in named)
    return False


@patient
@given(st.sampled_from(KINDS), st.binary(max_size=30))
@example("memory", b"\x05")
@example("memory", MsgpackSerializer().dumps((1, 2, 3)))
@example("memory", MsgpackSerializer().dumps(("ab", {})))
@example("memory", MsgpackSerializer().dumps(((), {5: 6})))
@example("sqlite", MsgpackSerializer().dumps(((), [])))
def test_damaged_arguments(new, kind, payload):
    """A task whose stored arguments cannot be read ends `error` with `Undecodable`, and keeps nobody else from running."""
    if valid(payload):
        return
    with new(kind) as queue:
        heard, ran = Heard(queue), []
        note = queue.task(name="note")(lambda *args, **kwargs: ran.append(args))
        damaged, good = note(1), note(2)
        corrupt(queue, damaged.id, payload)
        drain(queue)
        assert heard.story(damaged) == "enqueued executing error"
        assert failure(damaged)["error"].startswith("Undecodable")
        assert ran == [(2,)]
        assert good.state == "complete"
        with pytest.raises(LifecycleError):
            queue.get(damaged.id).args


def test_another_serializer(tmp_path):
    """Arguments that another serializer wrote, or another secret signed, end `error`, and run where they can be read."""
    url = f"sqlite:///{tmp_path}/app.db"
    serializers = [
        MsgpackSerializer(), PickleSerializer("a secret of sixteen bytes"), PickleSerializer("another one, as long as that"),
    ]  # fmt: skip
    queues = [TaskQueue(url, serializer=serializer, clock=VirtualClock()) for serializer in serializers]
    adds = [queue.task(name="add")(lambda a, b: a + b) for queue in queues]
    for writer, add in zip(queues, adds, strict=True):
        for reader in queues:
            if reader is writer:
                continue
            result = add(1, 2)
            reader.run_next()
            assert states(result) == "queued executing error"
            assert "Undecodable" in failure(result)["error"]
            with pytest.raises(LifecycleError):
                reader.get(result.id).args
            writer.retry(result.id)
            writer.run_next()
            assert result.get() == 3
            with pytest.raises(LifecycleError):
                reader.result(result.id)
            assert reader.handle(result.id).state == "complete"
    for queue in queues:
        queue.close()


def test_handlers_of_unreadable_tasks(queue, heard, caplog):
    """A handler that looks at arguments which cannot be read is logged as any other that raises."""
    note = queue.task(name="note")(lambda a: a)
    queue.signal("error")(lambda signal, task, exc: task.args)
    result = note(1)
    corrupt(queue, result.id, b"\xc1")
    drain(queue)
    assert heard.story(result) == "enqueued executing error"
    assert "Undecodable" in caplog.text


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
