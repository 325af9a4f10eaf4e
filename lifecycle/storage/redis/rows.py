"""What is stored of a task on Redis, and what scripts are told of tasks and moves."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from lifecycle.core.policies import Move, Revocation
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task, history_line, policy_fields
from lifecycle.errors import StorageError
from lifecycle.storage.base import Lock

__all__ = [
    "Told", "birth", "entries", "known_by", "lock_of", "revocation_of", "settlement", "stamp_of", "state_of",
    "stored_lock", "stored_revocation", "task", "tasks",
]  # fmt: skip

Told = tuple[object, ...]
"""A part of a script's arguments."""

log = logging.getLogger("lifecycle")

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


def _blob(data: bytes | None) -> msgspec.Raw | None:
    """Bytes, as scripts can read them: theirs is MessagePack of a time when bytes and texts were one."""
    if data is None:
        return None
    size = len(data)
    head = b"\xda" + size.to_bytes(2) if size < 2**16 else b"\xdb" + size.to_bytes(4)
    return msgspec.Raw(head + data)


def _kept(value: float | str | None) -> float | str | bool:
    """As it stands in a row: a script cannot keep what is nil in the midst of an array."""
    return False if value is None else value


def told_move(move: Move) -> Told:
    """A move, as a script makes it."""
    return (
        move.states[-1].name, len(move.states), move.history, move.worker, move.attempt, move.retries,
        move.interruptions, _kept(move.eta), _kept(move.lease), move.at, _blob(move.result),
        move.frees_locks,
    )  # fmt: skip


def birth(new: Task, move: Move) -> Told:
    """A new task."""
    policy = None if new.retry is NO_DELAY else dict(policy_fields(new.retry))
    asked = _encode((new.name, new.priority, new.expires, policy, new.timeout))
    return new.id, _blob(asked), _blob(new.payload), told_move(move), new.priority, new.expires


def known_by(known: Task) -> Told:
    """A task as its caller knows it."""
    return known.fence


def settlement(known: Task, move: Move, births: Sequence[Told]) -> Told:
    """What a task's worker has to say of it, and what is born with it."""
    return *known_by(known), told_move(move), births


def stamp_of(now: float, worker: str) -> tuple[str, str]:
    """A moment and a worker's name as they stand in a history."""
    _, at, _, name = history_line("", now, 0, worker)[:-1].split("\t")
    return at, name


# Rows --------------------------------------------------------------------------------------------------------------


def task(task_id: bytes, at: bytes | None, asked: bytes | None, payload: bytes | None) -> Task:
    """A stored task. Raises `StorageError` if somebody has damaged it."""
    try:
        state, version, worker, seq, attempt, retries, interruptions, eta, lease, canceling = _decode(at or b"")
        name, priority, expires, policy, timeout = _decode(asked or b"")
        return Task(
            task_id.decode(), name, payload or b"", LIFECYCLE.state(state).name, _float(eta), _float(expires), priority,
            retries, NO_DELAY if policy is None else RetryPolicy(**policy), _float(timeout), attempt, interruptions,
            worker, version, _float(lease), seq, canceling,
        )  # fmt: skip
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise _damaged(task_id.decode("utf-8", "replace"), error) from None


def state_of(task_id: str, at: bytes) -> str:
    """The state in a row."""
    try:
        return LIFECYCLE.state(_decode(at)[0]).name
    except (msgspec.MsgspecError, TypeError, ValueError, LookupError) as error:
        raise _damaged(task_id, error) from None


def _damaged(task_id: str, error: Exception) -> StorageError:
    return StorageError(f"task {task_id}: what is stored of it was damaged: {error}")


def _float(value: float | None) -> float | None:
    return None if value is None or value is False else float(value)


def entries(answer: Sequence[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """An answer, so many parts at once."""
    parts = iter(answer)
    return zip(*[parts] * size, strict=True)


def tasks(answer: Sequence[Any]) -> Iterator[Task]:
    """The tasks in an answer, but for those that cannot be read."""
    for fields in entries(answer, 4):
        try:
            yield task(*fields)
        except StorageError as error:
            log.warning("left out: %s", error)


# Revocations and locks ---------------------------------------------------------------------------------------------


def stored_revocation(said: Revocation) -> object:
    """A revocation, as it is to be stored."""
    return _blob(_encode((said.until, said.once)))


def revocation_of(stored: bytes | None) -> Revocation | None:
    """What is stored of it, if anything is."""
    return None if stored is None else Revocation(*_decode(stored))


def stored_lock(lock: Lock) -> object:
    """A lock, as it is to be stored under its name."""
    return _blob(_encode((lock.owner, lock.until, _kept(lock.worker), _kept(lock.task))))


def _text(stored: str | bool) -> str | None:
    return stored if isinstance(stored, str) else None


def lock_of(name: bytes, stored: bytes) -> Lock:
    """The same lock."""
    owner, until, worker, of_task = _decode(stored)
    return Lock(name.decode(), owner, float(until), _text(worker), _text(of_task))
