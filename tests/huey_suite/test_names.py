"""The modules and the objects have Huey's names."""

import importlib
import inspect
import threading

import huey as theirs
import pytest

from lifecycle import ConfigurationError, TaskTimeout, Undecodable
from lifecycle.huey import SKIPPED, MemoryHuey, Task, constants
from lifecycle.huey.serializer import Serializer, SignedSerializer

MODULES = ("", ".api", ".constants", ".exceptions", ".serializer", ".signals")
ELSEWHERE = {
    "Consumer": "in lifecycle.huey.consumer",
    "RETRYING_EXCEPTIONS": "in lifecycle.huey.exceptions",
    "EmptyData": "in the place of a missing value in Huey's storage",
    **dict.fromkeys(
        ("BaseStorage", "Storage", "Registry", "Message", "Signal", "ChordConfig", "is_compressed", "constant_time_compare"),
        "machinery",
    ),
}  # fmt: skip
"""Names of Huey's that are not public, and why they are not here."""


@pytest.fixture
def huey():
    """Yield a queue in memory."""
    queue = MemoryHuey()
    yield queue
    queue.close()


def is_for_programs(package, name, value):
    """Return whether a name in a module of Huey's is that of a constant, or of a class that the module defines."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    return name.isupper() or (
        inspect.isclass(value) and value.__module__.startswith(package if package != "huey" else "huey.")
    )


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_public_names_of_hueys(module):
    """Each class, function and constant that a module of Huey's defines for programs is in the module here."""
    package = importlib.import_module(f"huey{module}")
    ours = importlib.import_module(f"lifecycle.huey{module}")
    defined = {name for name, value in vars(package).items() if is_for_programs(package.__name__, name, value)}
    wanted = {name for name in defined - ELSEWHERE.keys() if not name.endswith("Storage")}
    assert sorted(wanted - set(dir(ours))) == []
    assert [name for name in ours.__all__ if not hasattr(ours, name)] == []


def test_tasks_have_hueys_attributes(huey):
    """A task has the attributes and methods of Huey's tasks, some of which can be set until it is enqueued."""
    work = huey.task(retries=1, context=True)(lambda n, task=None: (n, task.id))
    task, other = work.s(1), work.s(1, id="other")
    task.retries, task.priority, task.timeout, task.retry_delay, task.retry_backoff = 3, 4, 5.0, 6, 2
    assert (task.retries, task.priority, task.timeout, task.retry_delay, task.retry_backoff) == (3, 4, 5.0, 6, 2)
    task.expires = 7
    assert (task.expires, task.expires_resolved) == (7, None)
    task.expires = task.priority = task.eta = None
    assert (task.expires, task.priority, task.eta, task.args, task.kwargs) == (None, 0, None, (1,), {})
    assert task.execute() == (1, task.id)
    assert task != other
    assert task != task.id
    assert {task, other} == {other, task}
    assert repr(other).endswith(".<lambda>: other")
    assert Task(id="x", args=(1,)).data == ((1,), {})
    assert {name for name in vars(theirs.api.Task(id="x")) if not name.startswith("_")} <= {
        *dir(task), "chord_config", "revoke_id"
    }  # fmt: skip


def test_a_function_can_ask_for_the_time_that_is_left(huey):
    """`time_remaining`, `is_timed_out` and `check_timeout` tell a running function about its timeout."""
    seen = []

    @huey.task(timeout=60, context=True)
    def ask(task=None):
        seen.append((50 < task.time_remaining <= 60, task.is_timed_out, task.check_timeout()))
        task._deadline = 0.0
        seen.append((task.time_remaining, task.is_timed_out))
        with pytest.raises(TaskTimeout, match="longer than 60 s"):
            task.check_timeout()

    huey.execute(ask.s())
    assert seen == [(True, False, None), (0.0, True)]
    assert (ask.s().time_remaining, ask.s().is_timed_out) == (float("inf"), False)


def test_delays_grow_as_hueys_do(huey):
    """`retry_delay` is the delay before the next retry: with a backoff it grows with each attempt."""
    work = huey.task(retries=3, retry_delay=2, retry_backoff=3)(lambda: 1 / 0)
    task = work.s()
    assert task.retry_delay == 2
    delays = []
    huey.pre_execute()(lambda seen: delays.append(seen.retry_delay))
    now = huey.queue.engine.clock.now()
    for hours in range(3):
        huey.execute(task, huey.to_datetime(now + 3600 * hours))
        delays.append(task.retry_delay)
    assert delays == [2, 6, 6, 18, 18, 54]


def test_a_context_task_runs_inside_a_context_manager(huey):
    """`context_task` runs each call inside ``with``, and may pass the value to the function."""
    lock = threading.Lock()
    held = huey.context_task(lock, retries=2)(lambda n: (n, lock.locked()))
    given = huey.context_task(lock, as_argument=True, name="given")(lambda value, n: (value, n))
    assert (huey.execute(held.s(1)), held.retries, lock.locked()) == ((1, True), 2, False)
    assert huey.execute(given.s(2)) == (True, 2)
    with pytest.raises(ConfigurationError, match="as_argument=1"):
        huey.context_task(lock, as_argument=1)


def test_serializers_have_hueys_names():
    """`Serializer` writes typed values, `SignedSerializer` any value, which needs the secret to be read."""
    plain, signed = Serializer(compression=True, use_zlib=True), SignedSerializer("a secret of 16 bytes", salt="s")
    for value in (None, (1, [2]), {"a": b"b"}):
        assert plain.deserialize(plain.serialize(value)) == value
        assert signed.deserialize(signed.serialize(value)) == value
    with pytest.raises(Undecodable):
        SignedSerializer(b"another of 16 bytes").deserialize(signed.serialize(1))
    huey = MemoryHuey(serializer=signed)
    assert huey.execute(huey.task()(lambda value: value).s(ValueError("x"))).args == ("x",)
    huey.close()


def test_small_names(huey):
    """Constants, representations and the other names have Huey's values."""
    assert constants.WORKER_TYPES == theirs.constants.WORKER_TYPES
    assert repr(SKIPPED) == "SKIPPED"
    work = huey.task()(lambda: 1)
    result = work()
    assert repr(result) == f"<Result: task {result.id}>"
    assert repr(huey) == "<MemoryHuey 'huey' on memory://>"
    group = work.map([()])
    assert [one.id for one in group] == [task.id for task in huey.queue.tasks()][:1]
    huey.queue.engine.storage.flush()
    assert huey.pending_count() == 0
