"""Uses of the API as a type checker sees them: `test_queue.py` runs mypy over this file, which is never run itself."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import assert_type

from hypothesis.strategies import SearchStrategy

import lifecycle.testing
from lifecycle import (
    LIFECYCLE,
    SIGNAL_COMPLETE,
    SIGNAL_ERROR,
    CancelExecution,
    ChordResult,
    Lifecycle,
    MsgpackSerializer,
    Record,
    Result,
    ResultGroup,
    RetryTask,
    Serializer,
    State,
    Task,
    TaskException,
    TaskFunction,
    TaskQueue,
    check_canceled,
    chord,
    group,
)
from lifecycle.analysis.trace import TraceWriter
from lifecycle.testing import (
    IllegalHistory,
    VirtualClock,
    check,
    illegal_histories,
    legal_histories,
    lifecycles,
    streams,
)

queue = TaskQueue("memory://", name="jobs", lease=timedelta(seconds=5), retention=None, clock=VirtualClock())
TaskQueue(immediate=True, serializer=MsgpackSerializer(), intermediate_errors=False, max_interruptions=3)
TaskQueue(lease="5")  # type: ignore[arg-type]

# Functions keep their parameters, and handles know their results -----------------------------------------------------


@queue.task()
def add(a: int, b: int = 0, *, scale: float = 1.0) -> float:
    return (a + b) * scale


@queue.task(
    retries=2, retry_delay=timedelta(seconds=10), retry_backoff=2, priority=5, expires=60, timeout=1.5, name="x"
)
def many_options(name: str) -> list[str]:
    return [name]


@queue.task(expires=datetime(2030, 1, 1, tzinfo=UTC))
async def fetch(url: str) -> bytes:
    return url.encode()


@queue.task()
def nothing() -> None: ...


@queue.task(context=True)
def with_context(n: int, task: Task | None = None) -> str:
    return task.id if task is not None else ""


assert_type(add(1, 2), Result[float])
assert_type(add(1, b=2, scale=0.5).get(), float | None)
assert_type(add(1)(blocking=True), float | None)
assert_type(add(1).get(timeout=timedelta(seconds=1)), float | None)
assert_type(many_options("x").get(blocking=True, timeout=5), list[str] | None)
assert_type(fetch("https://example.org"), Result[bytes])
assert_type(fetch("https://example.org").get(), bytes | None)
assert_type(nothing().get(), None)
assert_type(with_context(5), Result[str])
assert_type(add.s(1, 2), Task)
assert_type(add.schedule((1, 2), {"scale": 2.0}, delay=10), Result[float])
assert_type(add.schedule([1], eta=datetime.now(UTC), priority=3, retries=1, expires=timedelta(hours=1)), Result[float])
assert_type(add.map([(1, 2), 3]), list[Result[float]])

add("1")  # type: ignore[arg-type]
add()  # type: ignore[call-arg]
add(1, c=2)  # type: ignore[call-arg]
add.s("1")  # type: ignore[call-overload]
fetch(5)  # type: ignore[arg-type]
add.schedule((1,), delay="soon")  # type: ignore[arg-type]
queue.task(retries="many")  # type: ignore[call-overload]
queue.task(max_retries=3)  # type: ignore[call-overload]
add.schedule((1,), countdown=5)  # type: ignore[call-arg]
add.delay(1)  # type: ignore[attr-defined]


def takes_functions(function: TaskFunction[[str], bytes]) -> Result[bytes]:
    return function("x")


takes_functions(fetch)
takes_functions(nothing)  # type: ignore[arg-type]

# Decorators without parentheses ---------------------------------------------------------------------------------------


@queue.task
def bare(a: int, *, b: str = "") -> float:
    return a / 2


@queue.task
async def bare_async(a: int) -> bytes:
    return bytes(a)


@queue.signal
def bare_handler(signal: str, task: Task, exc: BaseException | None = None) -> int:
    return task.attempt


@queue.pre_execute
def bare_before(task: Task) -> str:
    return task.id


@queue.post_execute
def bare_after(task: Task, value: object, exc: BaseException | None) -> None: ...


@queue.on_startup
async def bare_start() -> int:
    return 5


@queue.on_shutdown
def bare_stop() -> None: ...


assert_type(bare(1, b="x"), Result[float])
assert_type(bare_async(1), Result[bytes])
assert_type(bare_handler("complete", add.s(1)), int)
assert_type(bare_before(add.s(1)), str)
bare("1")  # type: ignore[arg-type]

# Context tasks -------------------------------------------------------------------------------------------------------


@contextmanager
def connection() -> Iterator[str]:
    yield "a connection"


shared: AbstractContextManager[str] = connection()


@queue.context_task(shared)
def within(n: int) -> int:
    return n


@queue.context_task(shared, as_argument=True, retries=1)
def given(conn: str, n: int) -> int:
    return len(conn) + n


@queue.context_task(shared)
async def within_async(n: int) -> int:
    return n


assert_type(within(5).get(), int | None)
assert_type(given(5).get(), int | None)
assert_type(within_async(5).get(), int | None)

# Signals and hooks keep their handlers -------------------------------------------------------------------------------


@queue.signal()
def on_any(signal: str, task: Task, exc: BaseException | None = None) -> None: ...


@queue.signal(SIGNAL_COMPLETE)
def on_complete(signal: str, task: Task) -> int:
    return task.attempt


@queue.signal(SIGNAL_ERROR)
def on_error(signal: str, task: Task, exc: BaseException) -> None:
    raise CancelExecution("no", retry=False) from exc


@queue.pre_execute()
def before(task: Task) -> None: ...


@queue.post_execute("after")
def after(task: Task, value: object, exc: BaseException | None) -> None: ...


@queue.on_startup()
def start() -> None: ...


assert_type(on_complete("complete", add.s(1)), int)
on_any(5, add.s(1))  # type: ignore[arg-type]
queue.disconnect_signal(on_any)
queue.disconnect_signal(on_error, SIGNAL_ERROR)
assert_type(queue.unregister_pre_execute(before), bool)
assert_type(queue.unregister_on_startup("start"), bool)
queue.signal(5)  # type: ignore[call-overload]

# Running, looking, acting --------------------------------------------------------------------------------------------

assert_type(queue.run_next(), Task | None)
assert_type(queue.run_next(datetime.now(UTC)), Task | None)
assert_type(queue.enqueue(add.s(1)), Result[object])
assert_type(queue.enqueue_many([add.s(1), nothing.s()]), list[Result[object]])
assert_type(queue.get("id"), Task)
assert_type(queue.history("id"), list[Record])
assert_type(queue.counts(), dict[str, int])
assert_type(queue.tasks(["error", "timeout"], limit=5), list[Task])
assert_type(queue.retry("id"), Result[object])
assert_type(queue.is_revoked(add), bool)
assert_type(queue.is_revoked(add(1)), bool)
queue.revoke(add(1), revoke_until=timedelta(hours=1))
queue.cancel(add(1).id)
add(1).cancel()
add(1).task.check_canceled()
check_canceled()
queue.revoke_all(fetch, datetime.now(UTC), revoke_once=True)
queue.enqueue(add(1))  # type: ignore[call-overload]
assert_type(queue.enqueue(add.s(1).then(add, 2).error(fetch)), ResultGroup)
assert_type(queue.enqueue(add.s(1) | add.s()), ResultGroup)
assert_type(queue.enqueue(group([add.s(1), add.s(1) | add.s()])), ResultGroup)
assert_type(queue.enqueue(chord([add.s(1)], add)), ChordResult[object])
assert_type(queue.enqueue(chord(group([]), add.s())).members.get(True), list[object])

result = add(1)
assert_type(result.id, str)
assert_type(result.state, str)
assert_type(result.history()[0].at, float)
assert_type(result.reschedule(delay=5), Result[float])
assert_type(result.restore(), bool)
result.get(blocking="yes")  # type: ignore[arg-type]

task = add.s(1)
task.priority, task.retries, task.timeout = 5, 3, None
task.priority = "high"  # type: ignore[assignment]

# Locks keep what they decorate ---------------------------------------------------------------------------------------


@queue.task()
@queue.lock_task("one at a time", ttl=timedelta(minutes=1))
def alone(n: int) -> str:
    return str(n)


@queue.lock_task("one at a time")
async def alone_async(n: int) -> str:
    return str(n)


assert_type(alone(5), Result[str])
alone("5")  # type: ignore[arg-type]
with queue.lock_task("one at a time") as lock:
    assert_type(lock.is_locked(), bool)


async def program() -> None:
    assert_type(await alone_async(5), str)


# Exceptions, the table -----------------------------------------------------------------------------------------------

RetryTask("later", delay=timedelta(seconds=5))
RetryTask(eta=5)  # type: ignore[arg-type]
try:
    add(1).get()
except TaskException as error:
    assert_type(error.metadata, dict[str, object])
    assert_type((error.state, error.error_type, error.traceback, error.attempt), tuple[str, str, str, int])
assert_type(queue.errors(["7"]), dict[str, TaskException])

assert_type(LIFECYCLE.next("queued", "start"), State)
assert_type(LIFECYCLE.allowed("queued"), tuple[str, ...])


class Upper:
    """A serializer of one's own needs no base class."""

    def dumps(self, value: object) -> bytes:
        return repr(value).upper().encode()

    def loads(self, data: bytes) -> object:
        return data.decode().lower()


serializer: Serializer = Upper()
TaskQueue(serializer=serializer)

# The spec, and traces ------------------------------------------------------------------------------------------------

queue.signal()(TraceWriter("trace.jsonl"))
assert_type(check(["enqueued", "executing"], complete=True), int)
check([("7", "enqueued")], LIFECYCLE, from_start=False)
check([5])  # type: ignore[list-item]
assert_type(legal_histories(LIFECYCLE, complete=True), SearchStrategy[list[str]])
assert_type(illegal_histories(), SearchStrategy[IllegalHistory])
assert_type(streams().example(), list[tuple[str, str]])
assert_type(lifecycles(), SearchStrategy[Lifecycle])
lifecycle.testing.nonsense  # type: ignore[attr-defined]
