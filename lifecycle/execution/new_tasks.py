"""Checks of tasks that a caller has made, and the serialization of their arguments: before anything is stored."""

from collections.abc import Mapping

from lifecycle.core.serializer import Serializer
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, StorageRefused, Unserializable
from lifecycle.execution.registry import Function
from lifecycle.validation import checked_priority, duration, utc_seconds, whole_number

__all__ = ["check_size", "prepare"]


def check_size(what: str, data: bytes, max_bytes: int) -> None:
    """Raise `StorageRefused` if a serialized value is larger than the queue accepts. `what`: names the value."""
    if len(data) > max_bytes:
        raise StorageRefused(
            f"{what}: {len(data):,} bytes when serialized, the queue accepts {max_bytes:,} (max_bytes): store the value"
            " elsewhere, and pass its name"
        )


def prepare(task: object, serializer: Serializer, functions: Mapping[str, Function], max_bytes: int) -> None:
    """Check the fields that a caller may have set, and serialize the arguments.

    Raises `ConfigurationError` or `Unserializable`, naming the task, the field or argument, and what is right; and
    `StorageRefused` if the arguments are larger than `max_bytes`.
    """
    if not isinstance(task, Task):
        raise ConfigurationError(f"{task!r} is no task: enqueue what function.s(…) makes")
    checked_priority(task.priority, task)
    whole_number(task.retries, "retries", task)
    if task.eta is not None:
        task.eta = utc_seconds(task.eta, "eta", task)
    if task.expires is not None:
        task.expires = utc_seconds(task.expires, "expires", task)
    if task.timeout is not None:
        task.timeout = duration(task.timeout, "timeout", task)
    if task.state is not None:
        raise ConfigurationError(f"{task} was enqueued before: make a new one, or retry that one by its id")
    try:
        task.payload = serializer.dumps(task.call)
    except Unserializable as error:
        path = error.path or _path_of_culprit(task, serializer)
        raise Unserializable(error.reason, _argument(task, path, functions)) from None
    check_size(f"the arguments of {task.name}", task.payload, max_bytes)


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
