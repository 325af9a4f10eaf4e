"""What an attempt left behind, as it is stored and as a caller reads it.

Stored as MessagePack ``[attempt, ok, body]``: a value's body is what the queue's serializer made of it, an error's is a
map of plain values (`TaskException.metadata`), so that an error can be read whatever the serializer.
"""

import traceback
from typing import Final

import msgspec

from lifecycle.core.table import State
from lifecycle.core.task import Task
from lifecycle.errors import Undecodable

__all__ = ["StoredResult", "error_metadata", "pack_error", "pack_value", "unpack"]

MAX_TEXT: Final = 20_000
"""Characters of a traceback that are kept: its end, where the cause stands."""

_encode: Final = msgspec.msgpack.Encoder().encode


class StoredResult(msgspec.Struct, array_like=True, frozen=True):
    """A stored outcome."""

    attempt: int
    ok: bool
    body: bytes


_decode: Final = msgspec.msgpack.Decoder(StoredResult).decode
_decode_error: Final = msgspec.msgpack.Decoder(dict[str, object]).decode


def pack_value(attempt: int, body: bytes) -> bytes:
    """The outcome of an attempt whose function returned; `body`: its value, serialized."""
    return _encode((attempt, True, body))


def pack_error(task: Task, state: State, error: BaseException) -> bytes:
    """The outcome of an attempt that ended in `state` because of `error`."""
    metadata = error_metadata(task, state.name, _repr(error)) | {"traceback": _traceback(error)}
    return _encode((task.attempt, False, _encode(metadata)))


def error_metadata(task: Task, state: str, error: str) -> dict[str, object]:
    """What `TaskException.metadata` says of a task."""
    return {
        "error": error,
        "traceback": "",
        "task_id": task.id,
        "state": state,
        "attempt": task.attempt,
        "retries": task.retries,
    }


def unpack(data: bytes) -> StoredResult:
    """A stored outcome; raises `Undecodable`."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"the stored result is damaged: {error}") from None


def unpack_error(body: bytes) -> dict[str, object]:
    """The metadata in an error's body; raises `Undecodable`."""
    try:
        return _decode_error(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(f"the stored error is damaged: {error}") from None


def _repr(error: BaseException) -> str:
    try:
        text = repr(error)
    except Exception:  # noqa: BLE001 -- a broken repr of a user's exception must not hide that there was one
        text = f"<{type(error).__name__}, whose repr raises>"
    return _storable(text[:MAX_TEXT])


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001 -- as above: it asks the exception for its text, and more
        text = "".join(traceback.format_tb(error.__traceback__))
    return _storable(text[-MAX_TEXT:])


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
