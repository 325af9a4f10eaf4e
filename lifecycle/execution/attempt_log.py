"""Log lines about tasks: one for each attempt that has ended, and one for each task that ends without an attempt.

The logger is ``lifecycle.task``; outcomes that the store refuses are lines of ``lifecycle.worker``. The arguments of a
line are a dict, so that a formatter can print them one by one. The texts of exceptions are limited, and can be written
to any file.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from lifecycle.core.policies import Move
from lifecycle.core.table import COMPLETED, ERROR, EXPIRED, INTERRUPTED, LOCKED, RATE_LIMITED, REVOKED, SKIPPED, TIMEOUT
from lifecycle.core.task import Task
from lifecycle.errors import StorageError, Undecodable
from lifecycle.escaping import printable, printable_lines
from lifecycle.execution.stored_result import describe, unpack, unpack_error
from lifecycle.storage.base import Storage

__all__ = ["log_dropped", "log_end", "log_of_tasks"]

log_of_tasks = logging.getLogger("lifecycle.task")
log_of_workers = logging.getLogger("lifecycle.worker")

REASON_LENGTH_LIMIT: Final = 200
"""Characters of an exception's repr in a line; the outcome in the store has more."""

_FAULTS: Final = frozenset((ERROR.name, TIMEOUT.name))
"""The function failed: a warning if a retry follows, else an error, with the traceback."""
_REFUSALS: Final = frozenset((LOCKED.name, RATE_LIMITED.name, INTERRUPTED.name))
"""Usual if another attempt follows, else a warning."""
_WITHOUT_COUNT: Final = frozenset((COMPLETED.name, REVOKED.name, EXPIRED.name, SKIPPED.name))
"""No attempt follows, whatever retries are left."""


def log_end(task: Task, move: Move, error: BaseException | None = None, seconds: float | None = None) -> None:
    """Log that an attempt has ended, or that a task has ended without one.

    `task`: before the move; `error`: the exception that ended the attempt; `seconds`: how long the attempt took. Raises
    nothing, even if a filter of the program's logging raises.
    """
    state, last = move.states[0].name, move.ended is not None
    if state in _FAULTS:
        level = logging.ERROR if last else logging.WARNING
    else:
        level = logging.WARNING if last and state in _REFUSALS else logging.INFO
    if log_of_tasks.isEnabledFor(level):
        with suppress(Exception):
            text, fields = _line(task, move, seconds)
            if error is None:
                _log(level, text, fields)
                return
            metadata = _metadata(move)
            reason = printable(str(metadata.get("error") or describe(error))[:REASON_LENGTH_LIMIT])
            if state in _FAULTS:
                traceback = printable_lines(str(metadata.get("traceback") or reason).rstrip())
                fields["error"] = printable(str(metadata.get("error_type") or type(error).__name__))
                _log(level, text + " error=%(error)s", fields, error, traceback)
            else:
                fields["reason"] = reason
                _log(level, text + " reason=%(reason)s", fields)


def log_dropped(task: Task, move: Move, storage: Storage) -> None:
    """Log that the store has refused the outcome of an attempt: the task belongs to another worker, or is gone."""
    is_gone = False
    with suppress(StorageError):
        is_gone = storage.get(task.id) is None
    if is_gone:
        state = move.states[0].name
        log_of_workers.error("lost an outcome: the task is not in the store any more task=%s outcome=%s", task, state)
    else:
        log_of_workers.warning("%s: its outcome came too late, another worker has taken it over; it is dropped", task)


def _line(task: Task, move: Move, seconds: float | None) -> tuple[str, dict[str, object]]:
    """Return the text of a line, and the values of its fields."""
    state = move.states[0].name
    function, task_id = printable(task.name), printable(task.id)
    fields: dict[str, object] = {"state": state, "function": function, "task": task_id, "attempt": task.attempt}
    text = "task %(state)s"
    if state not in _WITHOUT_COUNT:
        fields["of"] = task.attempt + task.retries
        text += " (attempt %(attempt)d of %(of)d"
        if move.ended is None:
            fields["wait"] = 0.0 if move.eta is None else move.eta - move.at
            text += ", again at once" if move.eta is None else ", again in %(wait)g s"
        text += ")"
    text += ": function=%(function)s task=%(task)s"
    if seconds is not None:
        fields["seconds"] = seconds
        text += " seconds=%(seconds).3f"
    fields["worker"] = move.worker
    return text + " worker=%(worker)s", fields


def _metadata(move: Move) -> Mapping[str, object]:
    """Return the texts of an exception as they are stored with the attempt's outcome."""
    if move.result is not None:
        with suppress(Undecodable):
            return unpack_error(unpack(move.result).data)
    return {}


def _log(
    level: int, text: str, fields: dict[str, object], error: BaseException | None = None, traceback: str = ""
) -> None:
    """Log a line as `logging` does, but with this traceback, and without a search for the place of the call."""
    caught = None if error is None else (type(error), error, error.__traceback__)
    record = log_of_tasks.makeRecord(log_of_tasks.name, level, __file__, 0, text, (fields,), caught, log_end.__name__)
    if caught is not None:
        record.exc_text = traceback
    log_of_tasks.handle(record)
