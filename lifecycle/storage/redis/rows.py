"""Stored tasks, revocations and locks on Redis: from bytes to objects, and from objects to arguments of scripts."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from lifecycle.core.policies import Move, Revocation
from lifecycle.core.step import Step, step_of, step_values
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task, history_line, policy_fields
from lifecycle.errors import StorageError
from lifecycle.storage.base import Lock, PeriodicState

__all__ = [
    "ScriptArgument", "grouped", "history_stamp", "lock_from_bytes", "move_argument", "new_task_argument",
    "packed_lock", "packed_revocation", "periodic_from_bytes", "readable_tasks", "revocation_from_bytes",
    "settlement_argument", "state_from_bytes", "task_from_fields",
]  # fmt: skip

ScriptArgument = tuple[object, ...]
"""An argument of a script that is an array."""

log = logging.getLogger("lifecycle")

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


def _blob(data: bytes | None) -> msgspec.Raw | None:
    """Return bytes as MessagePack that Redis can read: its version knows one type for bytes and texts."""
    if data is None:
        return None
    size = len(data)
    head = b"\xda" + size.to_bytes(2) if size < 2**16 else b"\xdb" + size.to_bytes(4)
    return msgspec.Raw(head + data)


def _false_for_none(value: float | str | None) -> float | str | bool:
    """Return a value as a row stores it: Lua cannot keep nil inside an array."""
    return False if value is None else value


def move_argument(move: Move) -> ScriptArgument:
    """Return a move as the function `apply_move` in moves.lua takes it."""
    return (
        move.states[-1].name, len(move.states), move.history, move.worker, move.attempt, move.retries,
        move.interruptions, _false_for_none(move.eta), _false_for_none(move.lease), move.at, _blob(move.result),
        move.frees_locks,
    )  # fmt: skip


def new_task_argument(task: Task, move: Move) -> ScriptArgument:
    """Return a new task as the function `insert_task` in rows.lua takes it. `move`: its first move."""
    policy = None if task.retry is NO_DELAY else dict(policy_fields(task.retry))
    call: ScriptArgument = task.name, task.priority, task.expires, policy, task.timeout, move.at
    step: ScriptArgument = ()
    if task.step is not None:
        call = *call, step_values(task.step)
        step = task.step.awaits, task.retry.expires_after
    return (
        task.id, _blob(_encode(call)), _blob(task.payload), move_argument(move), task.priority, task.expires,
        task.name, *step,
    )  # fmt: skip


def settlement_argument(task: Task, move: Move, follow_ups: Sequence[ScriptArgument]) -> ScriptArgument:
    """Return a settlement as exchange.lua takes it. `task`: the task before the move, as its worker knows it."""
    return task.fence, move_argument(move), follow_ups


def history_stamp(now: float, worker: str) -> tuple[str, str]:
    """Return a moment and a worker's name as a history stores them."""
    _, at, _, name = history_line("", now, 0, worker)[:-1].split("\t")
    return at, name


# Tasks -------------------------------------------------------------------------------------------------------------


def task_from_fields(task_id: bytes, at: bytes | None, call: bytes | None, payload: bytes | None) -> Task:
    """Return a stored task, from the fields of its hash. Raises `StorageError` if the fields are damaged."""
    try:
        state, version, worker, seq, attempt, retries, interruptions, eta, lease, canceling, *more = _decode(at or b"")
        name, priority, expires, policy, timeout, enqueued, step = (*_decode(call or b""), None, None)[:7]
        return Task(
            task_id.decode(), name, payload or b"", LIFECYCLE.state(state).name, _float(eta), _float(expires), priority,
            retries, NO_DELAY if policy is None else RetryPolicy(**policy), _float(timeout), attempt, interruptions,
            worker, version, _float(lease), seq, canceling, _float(enqueued),
            None if step is None else _step(step, *more[1:]),
        )  # fmt: skip
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise _damaged(task_id.decode("utf-8", "replace"), error) from None


def _step(values: list[Any], verdict: str | bool = False) -> Step:
    """Return a step from its values in the field `call`, and the verdict in the field `at`."""
    return step_of(values, _text(verdict))


def state_from_bytes(task_id: str, at: bytes) -> str:
    """Return the state in the field `at` of a task. Raises `StorageError` if the field is damaged."""
    try:
        return LIFECYCLE.state(_decode(at)[0]).name
    except (msgspec.MsgspecError, TypeError, ValueError, LookupError) as error:
        raise _damaged(task_id, error) from None


def _damaged(task_id: str, error: Exception) -> StorageError:
    return StorageError(f"task {task_id}: the stored row is damaged: {error}")


def _float(value: float | None) -> float | None:
    return None if value is None or value is False else float(value)


def grouped(answer: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Return the items of a flat answer in groups of `size`."""
    items = iter(answer)
    return zip(*[items] * size, strict=True)


def readable_tasks(answer: Sequence[Any]) -> Iterator[Task]:
    """Return the tasks in an answer; damaged tasks are left out, with a warning."""
    for fields in grouped(answer, 4):
        try:
            yield task_from_fields(*fields)
        except StorageError as error:
            log.warning("left out a task: %s", error)


# Revocations and locks ---------------------------------------------------------------------------------------------


def packed_revocation(revocation: Revocation) -> object:
    """Return a revocation as it is stored."""
    return _blob(_encode((revocation.until, revocation.once)))


def revocation_from_bytes(stored: bytes | None) -> Revocation | None:
    """Return a stored revocation; ``None`` if none is stored."""
    return None if stored is None else Revocation(*_decode(stored))


def packed_lock(lock: Lock) -> object:
    """Return a lock as it is stored under its name."""
    return _blob(_encode((lock.owner, lock.until, _false_for_none(lock.worker), _false_for_none(lock.task))))


def periodic_from_bytes(name: bytes, stored: bytes) -> PeriodicState:
    """Return a stored state of a periodic task."""
    ticked, paused, task_id = _decode(stored)
    return PeriodicState(name.decode(), float(ticked), bool(paused), _text(task_id))


def _text(stored: str | bool) -> str | None:
    return stored if isinstance(stored, str) else None


def lock_from_bytes(name: bytes, stored: bytes) -> Lock:
    """Return a stored lock."""
    owner, until, worker, task_id = _decode(stored)
    return Lock(name.decode(), owner, float(until), _text(worker), _text(task_id))
