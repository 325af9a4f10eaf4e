"""Serializers: arguments and results of tasks to bytes, and back to exactly the same values.

`MsgpackSerializer` is the default and writes MessagePack: plain values come back equal and of the same type, any other
value is refused where it is passed in, and reading never runs code. `PickleSerializer` writes signed pickle, for nearly
any value; it fits only queues where every writer is trusted to run code in every worker.
"""

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Protocol
from uuid import UUID

from msgspec import MsgspecError
from msgspec.msgpack import Decoder, Encoder, Ext

from lifecycle.errors import TaskTimeout, Undecodable, Unserializable

__all__ = ["MsgpackSerializer", "PickleSerializer", "Serializer"]


class Serializer(Protocol):
    """Interface of a serializer. Several threads may call it at once."""

    def dumps(self, value: object) -> bytes:
        """Return bytes from which `loads` makes an equal value, of the same type at every level.

        Raises `Unserializable` if there are no such bytes; its `.path` is the place in `value`.
        """

    def loads(self, data: bytes) -> object:
        """Return the value that `dumps` was given. Raises only `Undecodable`, for bytes that `dumps` did not make."""


_Unpack = Callable[[memoryview], object]
_MICROSECOND: Final = timedelta(microseconds=1)


def _struct_codec(kind: Any, layout: str, *names: str) -> tuple[Callable[[Any], bytes], _Unpack]:
    """Return functions that pack and unpack a `kind`: its attributes `names` in a `struct` layout."""
    parts, read = struct.Struct(layout), attrgetter(*names)
    return lambda value: parts.pack(*read(value)), lambda data: kind(*parts.unpack(data))


def _moment_codec(kind: Any, layout: str, *names: str) -> tuple[Callable[[Any], bytes], _Unpack]:
    """Act as `_struct_codec`; the fold (u8) follows and, unless naive, the UTC offset in microseconds (i64).

    The key of a `ZoneInfo` comes last; a time has the offset 0 then.
    ISO 8601 is not exact: it has no fold and no zone, and `fromisoformat` drops offsets of less than a second.
    """
    parts, offset, read = struct.Struct(layout + "B"), struct.Struct(">q"), attrgetter(*names, "fold")

    def pack(value: datetime | time) -> bytes:
        zone, delta = value.tzinfo, value.utcoffset()
        packed = parts.pack(*read(value))
        if zone is None:
            return packed
        if type(zone) is timezone and delta is not None:
            return packed + offset.pack(delta // _MICROSECOND)
        key = getattr(zone, "key", None) if type(zone).__module__ == "zoneinfo" else None
        if not isinstance(key, str):
            raise Unserializable(
                f"the tzinfo {_short_repr(zone)} would not come back unchanged: use timezone or zoneinfo.ZoneInfo"
            )
        return packed + offset.pack((delta or timedelta(0)) // _MICROSECOND) + key.encode()

    def unpack(data: memoryview) -> object:
        raw = bytes(data)  # slices of the view are wrong in msgspec up to 0.19 (msgspec issue 835)
        *fields, fold = parts.unpack(raw[: parts.size])
        if rest := raw[parts.size :]:
            key = rest[offset.size :].decode()
            fixed = timezone(timedelta(microseconds=offset.unpack(rest[: offset.size])[0]))  # 0: timezone.utc itself
            fields.append(_zone(key) if key else fixed)
        return kind(*fields, fold=fold)

    return pack, unpack


def _zone(key: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # only for programs that use it

    try:
        return ZoneInfo(key)
    except OSError:  # a folder of zones, for example
        raise ValueError(f"no time zone {key!r}") from None


# Values that MessagePack or msgspec would change are written as extension types of MessagePack. Their codes and
# payloads are a storage format, which outlives releases: a code never changes its meaning and is never reused.
_TUPLE_CODE: Final = 1  # MessagePack array of the items; so is the next line
_COLLECTION_CODES: Final[dict[Any, int]] = {tuple: _TUPLE_CODE, set: 2, frozenset: 3}
_DICT_CODE: Final = 4  # MessagePack array [keys, values]; only for a dict with an extension type among its keys
_DATE_FIELDS: Final = ("year", "month", "day")
_TIME_FIELDS: Final = ("hour", "minute", "second", "microsecond")
_SCALAR_CODECS: Final[dict[Any, tuple[int, Callable[[Any], bytes], _Unpack]]] = {
    # Two's complement, for ints beyond the 64 bits of MessagePack; big-endian, here and below.
    int: (5, lambda n: n.to_bytes(n.bit_length() // 8 + 1, signed=True), lambda b: int.from_bytes(b, signed=True)),
    bytearray: (6, bytes, bytearray),  # the bytes themselves
    datetime: (7, *_moment_codec(datetime, ">HBBBBBI", *_DATE_FIELDS, *_TIME_FIELDS)),
    date: (8, *_struct_codec(date, ">HBB", *_DATE_FIELDS)),
    time: (9, *_moment_codec(time, ">BBBI", *_TIME_FIELDS)),
    timedelta: (10, *_struct_codec(timedelta, ">iii", "days", "seconds", "microseconds")),
    Decimal: (11, lambda value: str(value).encode(), lambda data: Decimal(str(data, "ascii"))),  # the text
    UUID: (12, attrgetter("bytes"), lambda data: UUID(bytes=bytes(data))),  # the 16 bytes
    complex: (13, *_struct_codec(complex, ">dd", "real", "imag")),
}
# Written unchanged, but see `dumps`.
_PLAIN_TYPES: Final = frozenset({type(None), bool, int, float, str, bytes})
_MAX_DEPTH: Final = 100  # nested containers: uses a small part of Python's stack
_CODEC_ERRORS: Final = (ArithmeticError, LookupError, MsgspecError, RuntimeError, struct.error, TypeError, ValueError)


def _short_repr(key: object) -> str:
    """Return a short repr for an error text."""
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 -- any repr may raise, as that of an int of thousands of digits does
        text = f"<{type(key).__qualname__}>"
    return f"{text:.80}"


class _Packer:
    """Replaces the parts of a value that msgspec would not write exactly; all other parts stay the same objects.

    `encode`: msgspec's encoder. `plain`: the types that are passed on without inspection.
    """

    def __init__(self, encode: Callable[[object], bytes], plain: frozenset[type]) -> None:
        self.encode, self.plain = encode, plain

    def pack(self, value: Any, parents: tuple[int, ...] = ()) -> object:
        """Return `value` or its replacement. `parents`: the ids of the containers around `value`."""
        kind = type(value)
        if kind in _COLLECTION_CODES:
            return Ext(_COLLECTION_CODES[kind], self.encode(self.parts(value, parents)))
        if kind is list or kind is dict:
            packed = self.parts(value, parents)
            if kind is dict and packed and type(keys := self.parts(value.keys(), parents)) is list:
                return Ext(_DICT_CODE, self.encode((keys, [*packed.values()])))
            return packed
        if kind in self.plain or (kind is int and -(1 << 63) <= value < 1 << 64):
            return value
        if kind in _SCALAR_CODECS:
            code, pack, _ = _SCALAR_CODECS[kind]
            return Ext(code, pack(value))
        if kind is str:
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise Unserializable("a str with a lone surrogate is no text: pass it encoded, as bytes")
            return value
        raise Unserializable(
            f"{kind.__module__}.{kind.__qualname__} would not come back unchanged:"
            " pass its id or plain values, or give the queue a PickleSerializer"
        )

    def pack_call(self, value: object) -> object:
        """Act as `pack`, faster for a plain value and for ``(args, kwargs)`` of plain values, as most calls are."""
        if type(value) in self.plain:
            return value
        if type(value) is tuple and len(value) == 2:  # noqa: PLR2004 -- a pair
            args, kwargs = value
            is_call = type(args) is tuple and type(kwargs) is dict and self.plain.issuperset(map(type, args))
            if is_call and (not kwargs or self.plain.issuperset(map(type, (*kwargs, *kwargs.values())))):
                return Ext(_TUPLE_CODE, self.encode((Ext(_TUPLE_CODE, self.encode(args)), kwargs)))
        return self.pack(value)

    def parts(self, parts: Any, parents: tuple[int, ...]) -> Any:
        """Return a list or dict of the packed items (of a dict: values), or `parts` itself if nothing changed."""
        kind, plain = type(parts), self.plain
        if not parts or plain.issuperset(map(type, parts.values() if kind is dict else parts)):
            return parts
        if id(parts) in parents:
            raise Unserializable("it contains itself: pass the needed parts as plain values")
        if len(parents) == _MAX_DEPTH:
            raise Unserializable(f"nested more than {_MAX_DEPTH} deep: pass a flatter value, or its id")
        parents, packed = (*parents, id(parts)), parts
        for place, part in parts.items() if kind is dict else enumerate(parts):
            if type(part) not in plain:
                try:
                    new = self.pack(part, parents)
                except Unserializable as error:
                    if kind in {list, tuple, dict}:
                        raise Unserializable(error.reason, f"[{_short_repr(place)}]{error.path}") from None
                    # A member of a set and a key have no path.
                    raise Unserializable(f"in its member or key {_short_repr(part)}: {error.reason}") from None
                if new is not part:
                    if packed is parts:
                        packed = dict(parts) if kind is dict else list(parts)
                    packed[place] = new
        return packed


class MsgpackSerializer:
    """Default serializer: MessagePack for plain values, exact to the type; reading runs no code.

    Supported: None, bool, int of any size, float, str (without lone surrogates), bytes, bytearray, list, tuple, dict
    (order is kept; keys are any hashable values of these types), set, frozenset, datetime, date, time, timedelta,
    Decimal, UUID and complex; exactly these types, no subclasses; nested, but not in themselves. An aware datetime or
    time has a `datetime.timezone` (without its name: `timezone.utc` for the offset 0), or a `ZoneInfo`, which comes
    back by its key, with the rules of the reading host. Any other tzinfo is refused.

    Not promised: that one object in two places comes back as one object (each place is written); that a payload changed
    into another valid payload is noticed (`PickleSerializer` notices); that equal values have equal bytes (sets have no
    order).

    Threads may share a serializer: the encoders and decoders of msgspec keep no state between calls (since 0.16,
    msgspec pull request 402). No thread may change a value while it is written.
    """

    def __init__(self) -> None:
        def hook(code: int, data: memoryview) -> object:
            return unpack[code](data)

        self._encode, self._decode = Encoder().encode, Decoder(ext_hook=hook).decode
        self._packers = (
            _Packer(self._encode, _PLAIN_TYPES).pack_call,
            _Packer(self._encode, _PLAIN_TYPES - {int, str}).pack_call,
        )
        pairs = Decoder(tuple[list[object], list[object]], ext_hook=hook).decode
        unpack: dict[int, _Unpack] = {code: unpack for code, _, unpack in _SCALAR_CODECS.values()}
        unpack |= {code: Decoder(kind, ext_hook=hook).decode for kind, code in _COLLECTION_CODES.items()}
        unpack[_DICT_CODE] = lambda data: dict(zip(*pairs(data), strict=True))

    def dumps(self, value: object) -> bytes:
        """Return `value` as MessagePack. Raises `Unserializable` for unsupported parts and a depth of more than 100."""
        # The first packer passes each int and str on. msgspec refuses ints beyond 64 bits and lone surrogates; the
        # second packer, which inspects ints and strings, handles both.
        refusal: Exception | None = None
        for pack in self._packers:
            try:
                return self._encode(pack(value))
            except Unserializable:
                raise
            except _CODEC_ERRORS as error:
                refusal = error
        raise Unserializable(f"it cannot be written: {type(refusal).__name__}: {refusal}") from refusal

    def loads(self, data: bytes) -> object:
        """Return the value from which `dumps` made `data`. Raises `Undecodable` for any other bytes."""
        try:
            return self._decode(data)
        except _CODEC_ERRORS as error:
            raise Undecodable(f"not a payload of MsgpackSerializer: {type(error).__name__}: {error}") from error


_MIN_SECRET_BYTES: Final = 16
_SIGNATURE_BYTES: Final = 32  # of SHA-256


class PickleSerializer:
    """Serializer that writes signed pickle, for types that `MsgpackSerializer` does not support.

    A payload is the HMAC-SHA256 of a pickle, followed by the pickle. Reading a pickle can run any code, so that only
    pickles signed with the secret are read: a person who knows the secret can run code in every process that reads
    payloads.

    Not promised: values that are more exact than pickle makes them; payloads that can be read after their classes
    changed; secrecy from readers of the store; protection against an old payload in the place of a new one.
    """

    def __init__(self, secret: str | bytes) -> None:
        """`secret`: the same in every process; raises ValueError for less than 16 bytes. 32 random bytes are best."""
        key = secret.encode() if isinstance(secret, str) else secret
        if len(key) < _MIN_SECRET_BYTES:
            raise ValueError(f"secret: must have at least {_MIN_SECRET_BYTES} bytes, for example secrets.token_hex()")
        import hmac

        # A derived key: data that another program signed with the same secret is no payload.
        self._key = hmac.digest(key, b"lifecycle.PickleSerializer", "sha256")

    def dumps(self, value: object) -> bytes:
        """Return `value` pickled and signed. Raises `Unserializable`, without a path, if pickle refuses the value."""
        import hmac
        import pickle

        try:
            pickled = pickle.dumps(value)
        except (MemoryError, TaskTimeout):  # raised from outside to end the task, not because of the value
            raise
        except Exception as error:  # methods of the value run here and may raise anything
            raise Unserializable(f"it cannot be pickled: {type(error).__name__}: {error}") from error
        return hmac.digest(self._key, pickled, "sha256") + pickled

    def loads(self, data: bytes) -> object:
        """Return the value from which `dumps` made `data`. Raises `Undecodable` for other bytes and missing classes."""
        import hmac
        import pickle

        signature, pickled = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, hmac.digest(self._key, pickled, "sha256")):
            raise Undecodable("signature does not match: another secret, or the payload was changed")
        try:
            return pickle.loads(pickled)  # noqa: S301 -- see above
        except (MemoryError, TaskTimeout):
            raise
        except Exception as error:
            raise Undecodable(f"signed, but cannot be unpickled here: {type(error).__name__}: {error}") from error
