"""Checks of tasks that a caller has made, and the serialization of their arguments: before anything is stored."""

from collections.abc import Iterable, Mapping
from operator import attrgetter, is_not
from typing import Final

from lifecycle.core.serializer import Serializer
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task
from lifecycle.errors import ConfigurationError, StorageRefused, Unserializable
from lifecycle.execution.registry import Function
from lifecycle.validation import (
    checked_priority,
    duration,
    factor,
    instance,
    is_plain_text,
    number,
    refusal,
    text,
    time_limit,
    utc_seconds,
    whole_number,
)

__all__ = ["prepare", "too_large"]

_SET_BY_QUEUE: Final = ("attempt", "interruptions", "worker", "version", "lease", "canceling", "enqueued_at")
"""Fields that only the queue sets; equal in all new tasks."""
_set_by_queue: Final = attrgetter(*_SET_BY_QUEUE)
_UNSET: Final = _set_by_queue(Task("", ""))


def too_large(what: str, data: bytes, max_bytes: int) -> StorageRefused:
    """Return the error for a serialized value that is larger than the queue accepts. `what`: names the value."""
    return StorageRefused(
        f"{what}: {len(data):,} bytes when serialized, the queue accepts {max_bytes:,} (max_bytes): store the value"
        " elsewhere, and pass its name"
    )


def _check(task: object, now: float) -> None:
    """Check the fields that a caller may have set. Raises `ConfigurationError`, naming the task, field and rule."""
    if not isinstance(task, Task):
        raise refusal(task, "task", None, "is no task: enqueue a task made by function.s(…)")
    if not (is_plain_text(task.id) and is_plain_text(task.name)):
        task.id = text(task.id, "id", "a new task")
        task.name = text(task.name, "name", task)
    if task.state is not None:
        raise ConfigurationError(f"{task} was enqueued before: make a new one, or retry that one by its id")
    if any(map(is_not, _set_by_queue(task), _UNSET)):
        raise ConfigurationError(f"{task}: only the queue sets {', '.join(_SET_BY_QUEUE)}: leave them as they are")
    task.priority = checked_priority(task.priority, task)
    task.retries = whole_number(task.retries, "retries", task)
    if task.retry is not NO_DELAY:
        _check_policy(task)
    if task.timeout is not None:
        task.timeout = time_limit(task.timeout, "timeout", task)
    if task.eta is not None:
        task.eta = utc_seconds(task.eta, "eta", task)
    if task.expires is not None:
        task.expires = utc_seconds(task.expires, "expires", task)
        if task.eta is not None and task.eta > now and task.expires <= task.eta:
            raise refusal(
                task.expires, "expires", task, f"must be later than eta={task.eta}, or the task can never run"
            )


def prepare(
    tasks: Iterable[Task],
    now: float,
    serializer: Serializer,
    functions: Mapping[str, Function],
    max_bytes: int,
    *,
    checked: bool = False,
) -> None:
    """Check new tasks, set each expiry that counts from when the task is due, and serialize the arguments.

    `checked`: no caller could change the tasks since they were made of checked options. Raises `ConfigurationError`,
    `Unserializable`, naming the argument, `StorageRefused` if the arguments are larger than `max_bytes`, and
    `TypeError` for a missing argument of a task that is no step of a workflow.
    """
    for task in tasks:
        if not checked:
            _check(task, now)
            if task.place is not None and task.place.is_partial and task.step is None:
                _check_complete(task, functions)
        if task.expires is None and (after := task.retry.expires_after) is not None and not _waits_for_others(task):
            task.expires = (now if task.eta is None else max(now, task.eta)) + after
        try:
            task.payload = serializer.dumps(task.call)
        except Unserializable as error:
            path = error.path or _path_of_culprit(task, serializer)
            raise Unserializable(error.reason, _argument(task, path, functions)) from None
        if len(task.payload) > max_bytes:
            raise too_large(f"the arguments of {task.name}", task.payload, max_bytes)


def _check_complete(task: Task, functions: Mapping[str, Function]) -> None:
    """Raise the `TypeError` of a plain call if arguments are missing that no other task passes on."""
    function = functions.get(task.name)
    if function is not None:
        try:
            function.signature.bind(*task.args, **task.kwargs)
        except TypeError as error:
            raise TypeError(f"{task.name}(): {error}") from None


def _waits_for_others(task: Task) -> bool:
    """Return whether nobody knows when the task is due: its expiry is counted later (`policies.expiry`)."""
    return task.step is not None and task.step.awaits > 0


def _check_policy(task: Task) -> None:
    """Check the retry policy of a task, which a caller may have made."""
    policy = instance(task.retry, RetryPolicy, f"{task}: retry", "must be a RetryPolicy")
    duration(policy.delay, "retry.delay", task)
    factor(policy.backoff, "retry.backoff", task)
    duration(policy.max_delay, "retry.max_delay", task)
    number(policy.jitter, "retry.jitter", task, at_most=1)
    if policy.expires_after is not None:
        duration(policy.expires_after, "retry.expires_after", task)


def _path_of_culprit(task: Task, serializer: Serializer) -> str:
    """The path of the first argument that cannot be serialized by itself, for serializers that name none."""
    parts = [(f"[0][{place}]", value) for place, value in enumerate(task.args)]
    for path, value in [*parts, *((f"[1][{name!r}]", value) for name, value in task.kwargs.items())]:
        try:
            serializer.dumps(value)
        except Unserializable:
            return path
    return ""


def _argument(task: Task, path: str, functions: Mapping[str, Function]) -> str:
    """The serializer's path into ``(args, kwargs)``, in the caller's words: ``argument 'b'['when'] of add``."""
    head, _, rest = path.removeprefix("[0][").removeprefix("[1][").partition("]")
    function = functions.get(task.name)
    if path.startswith("[0]") and function is not None and int(head) < len(function.parameters):
        head = repr(function.parameters[int(head)])
    return f"argument {head}{rest} of {task.name}" if head else f"the arguments of {task.name}"
