"""The fields of tasks and of their histories: as text, and as ``--json`` prints them."""

import msgspec

from lifecycle.core.task import Record, Task
from lifecycle.errors import LifecycleError, TaskException
from lifecycle.escaping import printable_lines
from lifecycle.queue import TaskQueue

__all__ = [
    "call_fields", "call_text", "plain", "record_fields", "repr_of", "result_field", "result_text", "task_fields",
    "traceback_text",
]  # fmt: skip

TEXT_LENGTH_LIMIT = 2_000
"""Characters that are shown of a call and of a result."""


def task_fields(task: Task, error: TaskException | None) -> dict[str, object]:
    """Return the fields of a task; `error`: its last error."""
    return {
        "id": task.id, "name": task.name, "state": task.state, "attempt": task.attempt, "retries": task.retries,
        "priority": task.priority, "eta": task.eta, "expires": task.expires, "worker": task.worker,
        "interruptions": task.interruptions, "canceling": task.canceling,
        "enqueued_at": task.enqueued_at, "error": None if error is None else str(error),
    }  # fmt: skip


def record_fields(record: Record) -> dict[str, object]:
    """Return the fields of a line of a history; `left_out`: the number of lines before this one that are left out."""
    gap = {"left_out": record.left_out} if record.left_out else {}
    return gap | {"state": record.state, "at": record.at, "worker": record.worker, "attempt": record.attempt}


def call_text(task: Task) -> str:
    """Return a task's call as Python writes it; with a remark if the arguments cannot be read here."""
    try:
        texts = [*map(repr_of, task.args), *(f"{name}={repr_of(value)}" for name, value in task.kwargs.items())]
    except LifecycleError as error:
        return f"{task.name}(…), whose arguments cannot be read here: {error}"
    return _shortened(f"{task.name}({', '.join(texts)})")


def result_text(queue: TaskQueue, task: Task) -> str:
    """Return the value that a complete task has returned, as Python writes it."""
    try:
        return _shortened(repr_of(queue.result(task.id)))
    except LifecycleError as error:
        return f"cannot be read here: {error}"


def call_fields(task: Task) -> dict[str, object]:
    """Return a task's arguments; ``None`` if they cannot be read here."""
    try:
        return {"args": [plain(one) for one in task.args], "kwargs": {k: plain(v) for k, v in task.kwargs.items()}}
    except LifecycleError:
        return {"args": None, "kwargs": None}


def result_field(queue: TaskQueue, task: Task) -> object:
    """Return the value that a task has returned; ``None``: none, or it cannot be read here."""
    try:
        return plain(queue.result(task.id))
    except LifecycleError:
        return None


def traceback_text(error: TaskException) -> str:
    """Return the traceback of a task's last error, indented under a title; ``""`` if there is none."""
    if not error.traceback:
        return ""
    lines = printable_lines(error.traceback).splitlines()
    return "".join([f"Traceback of attempt {error.attempt}:\n", *(f"  {line}\n" for line in lines)])


def plain(value: object) -> object:
    """Return a value that JSON can have: the value itself, or its text."""
    try:
        msgspec.json.encode(value)
    except Exception:  # noqa: BLE001 -- a value of a user: its methods may raise anything
        return repr_of(value)
    return value


def repr_of(value: object) -> str:
    """Return the text of a value as Python writes it, even if its class cannot."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 -- as above
        return f"<{type(value).__name__}, whose repr raises>"


def _shortened(text: str) -> str:
    rest = len(text) - TEXT_LENGTH_LIMIT
    return text if rest <= 0 else f"{text[:TEXT_LENGTH_LIMIT]} … and {rest:,} characters"
