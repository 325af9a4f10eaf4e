"""Checks of tasks that a caller has made, and the serialization of their arguments: before anything is stored."""

from collections.abc import Mapping
from datetime import datetime

from lifecycle.clock import timestamp
from lifecycle.core.serializer import Serializer
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError, Unserializable
from lifecycle.execution.registry import Function

__all__ = ["check_priority", "prepare"]


def prepare(task: object, serializer: Serializer, functions: Mapping[str, Function]) -> None:
    """Check the fields that a caller may have set, and serialize the arguments.

    Raises `ConfigurationError` or `Unserializable`, naming the task, the field or argument, and what is right.
    """
    if not isinstance(task, Task):
        raise ConfigurationError(f"{task!r} is no task: enqueue what function.s(…) makes")
    check_priority(task.priority, task)
    if isinstance(task.retries, bool) or not isinstance(task.retries, int) or task.retries < 0:
        raise ConfigurationError(f"{task}: retries={task.retries!r}: it takes a whole number, 0 or more")
    if task.eta is not None:
        task.eta = _moment(task, "eta", task.eta)
    if task.expires is not None:
        task.expires = _moment(task, "expires", task.expires)
    if task.timeout is not None:
        _check_seconds(task, task.timeout)
    if task.state is not None:
        raise ConfigurationError(f"{task} was enqueued before: make a new one, or retry that one by its id")
    try:
        task.payload = serializer.dumps(task.call)
    except Unserializable as error:
        path = error.path or _path_of_culprit(task, serializer)
        raise Unserializable(error.reason, _argument(task, path, functions)) from None


def check_priority(priority: object, subject: object) -> None:
    """Raise `ConfigurationError` unless `priority`, given for `subject`, can be one."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
        raise ConfigurationError(f"{subject}: priority={priority!r}: it takes a whole number of 32 bits")


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


def _check_seconds(task: Task, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{task}: timeout={value!r}: set it to seconds, 0 or more")


def _moment(task: Task, field: str, value: object) -> float:
    """Return a field that the caller has set, to a datetime perhaps, in UTC seconds."""
    if isinstance(value, datetime):
        return timestamp(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0:
        return value
    raise ConfigurationError(f"{task}: {field}={value!r} is no moment: set it to a datetime, or to UTC seconds")
