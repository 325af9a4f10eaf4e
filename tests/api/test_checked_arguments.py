"""Arguments of the public calls: each call refuses what no store can keep, before anything is stored."""

import math
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from pathlib import Path

import pytest
from conftest import NOW, drain
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, TaskQueue, UnknownTask

BAD_IDS = [42, b"raw", "", None, "a\0", "\ud800", "x" * 501, ["a"]]
BY_ID = {
    "get": lambda queue, name: queue.get(name),
    "history": lambda queue, name: queue.history(name),
    "handle": lambda queue, name: queue.handle(name),
    "result": lambda queue, name: queue.result(name),
    "retry": lambda queue, name: queue.retry(name),
    "cancel": lambda queue, name: queue.cancel(name),
    "revoke_by_id": lambda queue, name: queue.revoke_by_id(name),
    "restore_by_id": lambda queue, name: queue.restore_by_id(name),
    "lock_task": lambda queue, name: queue.lock_task(name),
    "is_locked": lambda queue, name: queue.is_locked(name),
    "flush_locks": lambda queue, name: queue.flush_locks("a lock", name),
    "pre_execute": lambda queue, name: queue.pre_execute(name if isinstance(name, str) else ""),
    "task": lambda queue, name: queue.task(name="" if name is None else name),
}


@pytest.mark.parametrize("call", BY_ID)
def test_call_with_a_bad_id_or_name_is_refused(queue, call):
    """A call with an id or a name that no store can keep is refused, with the value in the error."""
    for bad in BAD_IDS:
        with pytest.raises(ConfigurationError, match=r"(id|name)=.*: must"):
            BY_ID[call](queue, bad)


@pytest.mark.parametrize("text", ["a b", "a:b", "é" * 500, "-", "'; drop table task; --", "\\0\\", "{x}:\n\t\x1b[0m"])
def test_any_other_text_is_an_id_and_a_name(make, text):
    """Any other text is the id of a task, and the name of a queue, a function and a lock; all calls find it."""
    queue = make(name=text)
    add = queue.task(name=text)(lambda: 1)
    result = add.schedule(id=text)
    assert (result.id, queue.get(text).name, queue.history(text)[0].state) == (text, text, "queued")
    with queue.lock_task(text):
        assert queue.is_locked(text)
        assert queue.flush_locks(text) == [text]
    queue.revoke_by_id(text)
    assert queue.is_revoked(text)
    assert queue.restore_by_id(text)
    drain(queue)
    assert queue.result(text) == 1
    with pytest.raises(UnknownTask):
        make(name="another").get(text)


class Level(IntEnum):
    HIGH = 7


class Name(StrEnum):
    ADD = "add"


def test_members_of_an_enum_are_stored_as_their_values(queue):
    """A member of an `IntEnum` or `StrEnum` is stored as its value."""
    add = queue.task(name=Name.ADD, priority=Level.HIGH, retries=Level.HIGH)(lambda: 1)
    for result in (add(), add.schedule(id=Name.ADD, priority=Level.HIGH, retries=Level.HIGH)):
        task = queue.get(result.id)
        assert (task.name, task.priority, task.retries) == ("add", 7, 7)
        assert {type(value) for value in (task.id, task.name, task.priority)} == {str, int}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", 5), ("name", ""), ("immediate", 1), ("immediate", "no"), ("serializer", object()), ("clock", 5.0),
        ("lease", 0), ("lease", True), ("retention", -1), ("retention", "day"), ("max_interruptions", 2.0),
        ("intermediate_errors", None),
    ],
)  # fmt: skip
def test_bad_option_of_a_queue_is_refused(option, value):
    """A bad option of a queue is refused where the queue is made."""
    with pytest.raises(ConfigurationError, match=f"{option}=.*: must"):
        TaskQueue("memory://", **{option: value})


@pytest.mark.parametrize("url", [b"sqlite:///app.db", 5, ["memory://"], object()])
def test_url_of_another_type_is_refused(url):
    """A URL that is no text is refused, and not shown: it may contain a password."""
    with pytest.raises(ConfigurationError, match=r"url: must be a str or a Path, .* not "):
        TaskQueue(url)


def test_path_is_a_sqlite_file(tmp_path, monkeypatch):
    """A `Path` is the path of a SQLite file, whatever characters it has."""
    monkeypatch.chdir(tmp_path)
    queue = TaskQueue(Path("app #1?.db"))
    queue.task(name="add")(lambda: 1)()
    queue.close()
    assert (tmp_path / "app #1?.db").exists()
    with pytest.raises(ConfigurationError, match=r"file=.*: must"):
        TaskQueue(Path("a\0"))


def test_timeout_of_zero_is_none(queue):
    """A timeout of 0 means no timeout, also for one call of a function that has one."""
    free = queue.task(timeout=timedelta(0), name="free")(lambda: 1)
    limited = queue.task(timeout=5, name="limited")(lambda: 1)
    task = limited.s()
    task.timeout = 0
    timeouts = [each.task.timeout for each in (free(), limited(), limited.schedule(timeout=0), queue.enqueue(task))]
    assert timeouts == [None, 5, None, None]


@pytest.mark.parametrize("delay", [-0.001, -1e300, timedelta(days=-1)])
def test_delay_below_zero_is_due_at_once(queue, add, delay):
    """A delay below zero means at once, as an ETA in the past does."""
    for call in (
        lambda: add.schedule((1,), delay=delay),
        lambda: add.schedule((1,), delay=99).reschedule(delay=delay),
    ):
        result = call()
        assert result.task.eta == NOW
        drain(queue)
        assert result.state == "complete"


@pytest.fixture
def send(queue):
    """Task function that returns its arguments."""
    return queue.task(name="send")(lambda *args, **kwargs: (args, kwargs))


@pytest.mark.parametrize("args", [3, 2024.5, timedelta(3), datetime(2001, 1, 1, tzinfo=UTC)])
@pytest.mark.parametrize("time", [{"delay": 60}, {"eta": datetime(2020, 1, 1, tzinfo=UTC)}], ids=["delay", "eta"])
def test_two_times_are_refused(queue, send, args, time):
    """A time as the first argument of `schedule` and another time are refused: the error has the call with a tuple."""
    with pytest.raises(ConfigurationError, match=r"send: args=.*: is a second time: write schedule\(\(.*,\), …\)"):
        send.schedule(args, **time)
    assert sum(queue.counts().values()) == 0


@pytest.mark.parametrize(
    "args", ["to", b"to", {"to": "ann"}, {1, 2}, range(3), iter([1]), object()], ids=lambda value: type(value).__name__
)
def test_arguments_that_are_no_tuple_and_no_list_are_refused(queue, send, args):
    """Arguments of `schedule` that are neither a tuple nor a list are refused."""
    with pytest.raises(ConfigurationError, match=r"send: args=.*: must be a tuple or a list"):
        send.schedule(args)
    assert sum(queue.counts().values()) == 0


def test_time_as_the_only_argument_is_the_delay_or_the_eta(queue, send):
    """A time as the first argument of `schedule`, without another time, is the delay or the ETA."""
    at = datetime.fromtimestamp(NOW + 60, UTC)
    results = [
        send.schedule(60),
        send.schedule(timedelta(minutes=1)),
        send.schedule(at),
        send.schedule([2024], delay=60),
    ]
    assert [(result.task.eta, result.task.args) for result in results] == [(NOW + 60, ())] * 3 + [(NOW + 60, (2024,))]


def test_keyword_arguments_may_have_any_name(queue, send):
    """A keyword argument may be called `self`, `args` or `function`, in each way to make a call."""
    names = {name: name for name in ("self", "args", "kwargs", "function", "task", "engine", "id")}
    results = [send(**names), queue.enqueue(send.s(**names)), send.schedule(kwargs=names)]
    drain(queue)
    assert [result.get() for result in results] == [((), names)] * 3
    assert send.call_local(**names) == ((), names)


@pytest.mark.parametrize("calls", ["ab", b"ab", {"a": 1}, 5, None])
def test_map_refuses_values_that_are_no_calls(queue, send, calls):
    """`map` refuses texts, mappings, and values that cannot be iterated."""
    with pytest.raises(ConfigurationError, match=r"send: calls=.*: must be an iterable of calls"):
        send.map(calls)
    with pytest.raises(ConfigurationError, match=r"is no task|must be an iterable of tasks"):
        queue.enqueue_many(calls)


def test_number_for_blocking_is_refused(queue, add):
    """`get(5)` is refused, since 5 is the longest wait only by its name; a bad timeout is refused."""
    result = add(1)
    for read in (result.get, result, lambda five: queue.result(result.id, five)):
        with pytest.raises(ConfigurationError, match=r"blocking=5: must be True or False: .* get\(timeout=…\)"):
            read(5)
    for bad in ("soon", [5], math.nan, math.inf, True):
        with pytest.raises(ConfigurationError, match=r"get\(timeout\)="):
            result.get(timeout=bad)


def test_true_for_the_end_of_a_revocation_is_refused(queue, add):
    """`revoke(True)` is refused, since True is `revoke_once` only by its name; nothing is revoked."""
    result = add(1)
    for revoke in (
        add.revoke,
        result.revoke,
        lambda true: queue.revoke(result, true),
        lambda true: queue.revoke_all(add, true),
    ):
        with pytest.raises(ConfigurationError, match=r"revoke_until=True: .* revoke_once=True"):
            revoke(True)
        with pytest.raises(ConfigurationError, match=r"revoke_once=1: must be True or False"):
            add.revoke(None, 1)
    assert not result.is_revoked()
    drain(queue)
    assert result.get() == 1


def test_value_that_is_no_task_cannot_be_revoked(queue, add):
    """A function, an id or another value where a task is expected is refused, with the right call in the error."""
    for call in (queue.revoke, queue.restore, queue.is_revoked):
        for bad in (add, "id", 5, None):
            if call == queue.is_revoked and bad in (add, "id"):
                continue
            with pytest.raises(
                ConfigurationError, match=r"task=.*: must be a task or its handle: revoke_by_id .* revoke_all"
            ):
                call(bad)
    for call in (queue.revoke_all, queue.restore_all):
        for bad in (add(1), "add", lambda: 1):
            with pytest.raises(ConfigurationError, match=r"function=.*: must be a function with the decorator"):
                call(bad)


def test_bad_page_is_refused(queue, add):
    """A limit that is no whole number, a page before a task that was not enqueued, and an unknown state are refused."""
    for limit in (-1, 1.0, "9", True, 2**64, None):
        with pytest.raises(ConfigurationError, match=r"limit="):
            queue.tasks(limit=limit)
    for before in (add.s(1), 5, "id"):
        with pytest.raises(ConfigurationError, match=r"before="):
            queue.tasks(before=before)
    for state in ("done", 5, ["queued", None], b"queued"):
        with pytest.raises(ConfigurationError):
            queue.tasks(state)
    assert queue.tasks(limit=0) == []


@pytest.mark.parametrize("now", ["now", math.nan, math.inf, 1e300, True, timedelta(1)])
def test_bad_time_of_a_run_is_refused(queue, now):
    """A time that is no moment is refused by `run_next`."""
    with pytest.raises(ConfigurationError, match=r"now="):
        queue.run_next(now)


def test_lock_that_holds_for_no_time_is_refused(queue):
    """A lock with a time to live of 0 or less is refused: it would never hold."""
    for ttl in (0, -1, math.nan, "9"):
        with pytest.raises(ConfigurationError, match=r"ttl="):
            queue.lock_task("lock", ttl=ttl)


@patient
@given(st.floats() | st.integers() | st.text() | st.binary() | st.none() | st.booleans())
def test_any_value_is_refused_or_an_option(value):
    """Any value of any option is accepted, or refused with an error of the library."""
    for option in ("retries", "retry_delay", "retry_backoff", "priority", "expires", "timeout", "name", "retry_jitter"):
        queue = TaskQueue("memory://")
        try:
            queue.task(**{option: value})(lambda: 1)()
        except ConfigurationError as error:
            assert option in str(error)
