"""Stored results: the value or the error of an attempt, encoded for the store and decoded for callers.

A stored result is MessagePack, ``[attempt, ok, data]``. The data of a value are encoded by the queue's serializer; the
data of an error are a map of plain values (`TaskException.metadata`), which can be read without that serializer.
"""

import traceback
from typing import Final

import msgspec

from lifecycle.core.table import State
from lifecycle.core.task import Task
from lifecycle.errors import Undecodable

__all__ = ["StoredResult", "error_metadata", "pack_error", "pack_value", "unpack", "unpack_error"]

TEXT_LENGTH_LIMIT: Final = 20_000
"""Characters kept of an exception's repr (the beginning), and of its traceback (the end, where the cause stands)."""

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
    """Encode the outcome of an attempt that ended in `state` because of `error`."""
    metadata = error_metadata(task, state.name, _repr(error)) | {"traceback": _traceback(error)}
    return _encode((task.attempt, False, _encode(metadata)))


def error_metadata(task: Task, state: str, error: str) -> dict[str, object]:
    """Return `TaskException.metadata` for a task, with an empty traceback."""
    return {
        "error": error,
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


def _repr(error: BaseException) -> str:
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001 -- a broken repr of a user's exception must not hide the exception
        text = f"<{type(error).__name__}, whose repr raises>"
    return _storable(text[:TEXT_LENGTH_LIMIT])


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 -- the same: formatting calls methods of the user's exception
        text = "".join(traceback.format_tb(error.__traceback__))
    return _storable(text[-TEXT_LENGTH_LIMIT:])


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
