"""Stored results: the value or the error of an attempt, encoded for the store and decoded for callers.

A stored result is MessagePack, ``[attempt, ok, data]``. The data of a value are encoded by the queue's serializer; the
data of an error are a map of plain values (`TaskException.metadata`), which can be read without that serializer.
"""

import traceback
from types import TracebackType
from typing import Final

import msgspec

from lifecycle.core.table import State
from lifecycle.core.task import Task
from lifecycle.errors import Undecodable

__all__ = [
    "METADATA", "StoredResult", "error_metadata", "pack_error", "pack_value", "read_error", "unpack", "unpack_error",
    "users_frames",
]  # fmt: skip

TEXT_LENGTH_LIMIT: Final = 20_000
"""Characters kept of an exception's repr (the beginning), and of its traceback (the end, where the cause stands)."""

METADATA: Final = "lifecycle_metadata"
"""Attribute of an exception: a dict of plain values for `TaskException.metadata`, beside those of each error."""

_RUNNERS: Final = __name__.rpartition(".")[0] + "."
"""The beginning of the names of the modules that call a task's function."""

_encode: Final = msgspec.msgpack.Encoder().encode


class StoredResult(msgspec.Struct, array_like=True, frozen=True):
    """The decoded outcome of an attempt."""

    attempt: int
    ok: bool
    """True if the function returned; False if the attempt ended in an error."""
    data: bytes
    """The serialized value, or the packed metadata of the error."""


_decode: Final = msgspec.msgpack.Decoder(StoredResult).decode
_decode_error: Final = msgspec.msgpack.Decoder(dict[str, object]).decode


def pack_value(attempt: int, data: bytes) -> bytes:
    """Encode the outcome of an attempt whose function returned; `data`: the serialized value."""
    return _encode((attempt, True, data))


def pack_error(task: Task, state: State, error: BaseException) -> bytes:
    """Encode the outcome of an attempt that ended in `state` because of `error`, with its `METADATA`, if any.

    Raises `TypeError` if these are no plain values.
    """
    metadata = error_metadata(task, state.name, describe(error))
    metadata |= {"error_type": _type_name(error), "traceback": _traceback(error)}
    metadata |= getattr(error, METADATA, {})
    return _encode((task.attempt, False, _encode(metadata)))


def error_metadata(task: Task, state: str, error: str) -> dict[str, object]:
    """Return `TaskException.metadata` for a task, without the type of an exception and without a traceback."""
    return {
        "error": error,
        "error_type": "",
        "traceback": "",
        "task_id": task.id,
        "state": state,
        "attempt": task.attempt,
        "retries": task.retries,
    }


def unpack(data: bytes) -> StoredResult:
    """Decode a stored result. Raises `Undecodable`."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"the stored result is damaged, run the task again: {error}") from None


def unpack_error(data: bytes) -> dict[str, object]:
    """Decode the metadata of an error. Raises `Undecodable`."""
    try:
        return _decode_error(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"the stored error is damaged, run the task again: {error}") from None


def read_error(task_id: str, state: str, result: bytes | None) -> dict[str, object] | None:
    """Return the metadata of a task's last error; ``None`` if its last outcome is a value, or if there is none yet.

    `state` and `result`: those of the task, as its store has them. Damaged bytes are an error, too, described as such.
    """
    if result is None:
        return None
    try:
        stored = unpack(result)
        return None if stored.ok else unpack_error(stored.data)
    except Undecodable as damage:
        return error_metadata(Task(task_id, ""), state, str(damage)) | {"error_type": _type_name(damage)}


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return _storable(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def describe(error: BaseException) -> str:
    """Return the repr of an exception, shortened, or its type if its repr raises."""
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001 -- a broken repr of a user's exception must not hide the exception
        text = f"<{type(error).__name__}, whose repr raises>"
    return _storable(text[:TEXT_LENGTH_LIMIT])


def users_frames(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception without the frames of the runner at its beginning.

    All frames are returned if there are no others, and ``None`` if the exception was never raised.
    """
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(_RUNNERS):
        frames = frames.tb_next
    return error.__traceback__ if frames is None else frames


def _traceback(error: BaseException) -> str:
    frames = users_frames(error)
    if frames is None:
        return ""
    try:
        text = "".join(traceback.format_exception(type(error), error, frames))
    except Exception:  # noqa: BLE001 -- the same: formatting calls methods of the user's exception
        text = "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames), describe(error), "\n"])
    return _storable(text[-TEXT_LENGTH_LIMIT:])


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
