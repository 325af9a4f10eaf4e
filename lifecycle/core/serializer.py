"""ClaimOrderCases the arguments and the results of tasks into bytes, and back into exactly what they were.

`MsgpackSerializer`, the default, writes MessagePack: plain values come back equal and of the same type, anything else
is refused where it is handed in, and reading never runs code. `PickleSerializer`, opt-in, writes signed pickle: nearly
anything, for queues whose every writer may run code in every worker anyhow. No other module does any of this.
"""

import hmac
import pickle
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, Protocol
from uuid import UUID

from msgspec import MsgspecError
from msgspec.msgpack import Decoder, Encoder, Ext

from lifecycle.errors import TaskTimeout, Undecodable, Unserializable

__all__ = ["MsgpackSerializer", "PickleSerializer", "Serializer"]


class Serializer(Protocol):
    """What a queue needs of a serializer. Many threads call it at once."""

    def dumps(self, value: object) -> bytes:
        """`value` as bytes of which `loads` makes an equal value, of the same type at every level.

        Raises `Unserializable` if that cannot be, with the place in `value` as its `.path`.
        """

    def loads(self, data: bytes) -> object:
        """The value that `dumps` was given. Raises `Undecodable`, and nothing else, for what `dumps` did not make."""


_Unpack = Callable[[memoryview], object]


def _fields(kind: Any, layout: str, *names: str) -> tuple[Callable[[Any], bytes], _Unpack]:
    """How to pack and unpack a `kind`, made of its attributes `names`, which are laid out as `struct` says."""
    parts, read = struct.Struct(layout), attrgetter(*names)
    return lambda value: parts.pack(*read(value)), lambda data: kind(*parts.unpack(data))


def _moment(kind: Any, layout: str, *names: str) -> tuple[Callable[[Any], bytes], _Unpack]:
    """As `_fields`; then the fold (u8) and, unless it is naive, the offset of UTC in microseconds (i64).

    Not ISO 8601, which is not exact: it has no fold, and `fromisoformat` drops an offset of less than a second.
    """
    parts, offset, read = struct.Struct(layout + "B"), struct.Struct(">q"), attrgetter(*names, "fold")

    def pack(value: datetime | time) -> bytes:
        delta = value.utcoffset()
        if delta is None and value.tzinfo is not None:
            raise Unserializable("its tzinfo has no offset for it: make it naive, or give it a fixed offset")
        return parts.pack(*read(value)) + (b"" if delta is None else offset.pack(delta // timedelta(microseconds=1)))

    def unpack(data: memoryview) -> object:
        raw = bytes(data)  # a slice of the view itself is wrong in msgspec up to 0.19 (its issue 835)
        *fields, fold = parts.unpack(raw[: parts.size])
        if rest := raw[parts.size :]:
            fields.append(timezone(timedelta(microseconds=offset.unpack(rest)[0])))  # of 0, it is timezone.utc itself
        return kind(*fields, fold=fold)

    return pack, unpack


# What MessagePack, or msgspec, would change is carried by MessagePack's extension types. Their codes and payloads are a
# storage format, which outlives releases: a code never changes its meaning and is never used for another one.
_COLLECTION: Final[dict[Any, int]] = {tuple: 1, set: 2, frozenset: 3}  # MessagePack array of the items
_DICT: Final = 4  # MessagePack array [keys, values]; only for a dict with a key that is an extension type itself
_SCALARS: Final[dict[Any, tuple[int, Callable[[Any], bytes], _Unpack]]] = {
    # Two's complement, of an int that MessagePack's own 64 bits do not hold; here and below, big-endian.
    int: (5, lambda n: n.to_bytes(n.bit_length() // 8 + 1, signed=True), lambda b: int.from_bytes(b, signed=True)),
    bytearray: (6, bytes, bytearray),  # the bytes
    datetime: (7, *_moment(datetime, ">HBBBBBI", "year", "month", "day", "hour", "minute", "second", "microsecond")),
    date: (8, *_fields(date, ">HBB", "year", "month", "day")),
    time: (9, *_moment(time, ">BBBI", "hour", "minute", "second", "microsecond")),
    timedelta: (10, *_fields(timedelta, ">iii", "days", "seconds", "microseconds")),
    Decimal: (11, lambda value: str(value).encode(), lambda data: Decimal(str(data, "ascii"))),  # its text
    UUID: (12, attrgetter("bytes"), lambda data: UUID(bytes=bytes(data))),  # its 16 bytes
    complex: (13, *_fields(complex, ">dd", "real", "imag")),
}
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})  # written as they are; but see `dumps`
_DEEPEST: Final = 100  # containers in one another: fits in Python's stack, and leaves most of it to the program
_FAULTS: Final = (ArithmeticError, LookupError, MsgspecError, RuntimeError, struct.error, TypeError, ValueError)


def _shown(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 -- anybody's repr may fail, and so does that of an int of thousands of digits
        text = f"<{type(key).__qualname__}>"
    return f"{text:.80}"


class _Look:
    """Makes of a value what msgspec writes exactly: the value itself, wherever nothing in it has to be changed.

    `encode`: msgspec's. `plain`: the types that are passed on without a look at the value.
    """

    def __init__(self, encode: Callable[[object], bytes], plain: frozenset[type]) -> None:
        self.encode, self.plain = encode, plain

    def pack(self, value: Any, parents: tuple[int, ...] = ()) -> object:
        """`value`, or what is written for it. `parents`: the ids of the containers that it is in."""
        kind = type(value)
        if kind in _COLLECTION:
            return Ext(_COLLECTION[kind], self.encode(self.parts(value, parents)))
        if kind is list or kind is dict:
            packed = self.parts(value, parents)
            if kind is dict and packed and type(keys := self.parts(value.keys(), parents)) is list:
                return Ext(_DICT, self.encode((keys, [*packed.values()])))
            return packed
        if kind in self.plain or (kind is int and -(1 << 63) <= value < 1 << 64):
            return value
        if kind in _SCALARS:
            code, pack, _ = _SCALARS[kind]
            return Ext(code, pack(value))
        if kind is str:
            if any("\ud800" <= character <= "\udfff" for character in value):
                raise Unserializable("a str with a lone surrogate, which is no text: pass it encoded, as bytes")
            return value
        raise Unserializable(
            f"{kind.__module__}.{kind.__qualname__} would not come back as it is:"
            " pass its id or plain values, or give the queue a PickleSerializer"
        )

    def look(self, value: object) -> object:
        """The same as `pack`; quick for ``(args, kwargs)`` with nothing but plain values in them, as most calls are."""
        match value:
            case (tuple() as args, dict() as kwargs) if (
                type(value) is type(args) is tuple
                and type(kwargs) is dict
                and self.plain.issuperset(map(type, (*args, *kwargs, *kwargs.values())))
            ):
                tuples = _COLLECTION[tuple]
                return Ext(tuples, self.encode((Ext(tuples, self.encode(args)), kwargs)))
        return self.pack(value)

    def parts(self, parts: Any, parents: tuple[int, ...]) -> Any:
        """`parts` with its items (of a dict, its values) packed, as a list or a dict; it itself if nothing changed."""
        kind, plain = type(parts), self.plain
        if not parts or plain.issuperset(map(type, parts.values() if kind is dict else parts)):
            return parts
        if id(parts) in parents:
            raise Unserializable("it contains itself: pass what is needed of it as plain values")
        if len(parents) == _DEEPEST:
            raise Unserializable(f"nested more than {_DEEPEST} deep: pass it flatter, or its id")
        parents, packed = (*parents, id(parts)), parts
        for place, part in parts.items() if kind is dict else enumerate(parts):
            if type(part) not in plain:
                try:
                    new = self.pack(part, parents)
                except Unserializable as error:
                    if kind in {list, tuple, dict}:
                        raise Unserializable(error.reason, f"[{_shown(place)}]{error.path}") from None
                    # No path leads to a member of a set or to a key.
                    raise Unserializable(f"in its member or key {_shown(part)}: {error.reason}") from None
                if new is not part:
                    if packed is parts:
                        packed = dict(parts) if kind is dict else list(parts)
                    packed[place] = new
        return packed


class MsgpackSerializer:
    """The default: MessagePack for plain values, exact to the type; reading it runs no code.

    Carried: None, bool, int of any size, float, str (without lone surrogates), bytes, bytearray, list, tuple, dict (in
    its order; any hashable one of these as a key), set, frozenset, datetime, date, time, timedelta, Decimal, UUID and
    complex; exactly these types, none of their subclasses; in one another, but not in themselves. Only the name of a
    time zone does not come back: an aware datetime or time has the offset that it had, `timezone.utc` if that is none.

    Not promised: that parts which are one object come back as one (each is written); that a payload changed into
    another valid one is noticed (`PickleSerializer` does); that equal values make equal bytes (sets have no order).

    Threads may share one: msgspec's encoders and decoders keep no state from call to call (since 0.16, by its pull
    request 402), nor does this. But nobody may change a value while it is being written.
    """

    def __init__(self) -> None:
        def hook(code: int, data: memoryview) -> object:
            return unpack[code](data)

        self._encode, self._decode = Encoder().encode, Decoder(ext_hook=hook).decode
        self._looks = _Look(self._encode, _PLAIN).look, _Look(self._encode, _PLAIN - {int, str}).look
        pairs = Decoder(tuple[list[object], list[object]], ext_hook=hook).decode
        unpack: dict[int, _Unpack] = {code: unpack for code, _, unpack in _SCALARS.values()}
        unpack |= {code: Decoder(kind, ext_hook=hook).decode for kind, code in _COLLECTION.items()}
        unpack[_DICT] = lambda data: dict(zip(*pairs(data), strict=True))

    def dumps(self, value: object) -> bytes:
        """`value` as MessagePack. Raises `Unserializable` if a part of it is not carried, or nested too deep (100)."""
        # The first look takes each int and str for plain, as nearly all are. msgspec balks at the others, an int beyond
        # 64 bits or a lone surrogate: then the second look does not take them so.
        fault: Exception | None = None
        for look in self._looks:
            try:
                return self._encode(look(value))
            except Unserializable:
                raise
            except _FAULTS as error:
                fault = error
        raise Unserializable(f"it cannot be written: {type(fault).__name__}: {fault}") from fault

    def loads(self, data: bytes) -> object:
        """The value of which `dumps` made `data`. Raises `Undecodable` for bytes that are no such payload."""
        try:
            return self._decode(data)
        except _FAULTS as error:
            raise Undecodable(f"not a payload of MsgpackSerializer: {type(error).__name__}: {error}") from error


_SHORTEST: Final = 16  # bytes of secret
_SIGNATURE: Final = 32  # bytes of SHA-256


class PickleSerializer:
    """Signed pickle, for whoever needs more types than `MsgpackSerializer` has.

    A payload is the HMAC-SHA256 of a pickle, then the pickle. Reading a pickle can run any code, so only one that was
    signed with the secret is read: whoever knows the secret can run code in every process that reads payloads.

    Not promised: more exactness than pickle's; that a payload can be read after its classes changed; that whoever sees
    the store cannot read it, or put an old payload in the place of a new one.
    """

    def __init__(self, secret: str | bytes) -> None:
        """`secret`: the same in every process; ValueError if it has less than 16 bytes. 32 random ones are best."""
        key = secret.encode() if isinstance(secret, str) else secret
        if len(key) < _SHORTEST:
            raise ValueError(f"PickleSerializer needs a secret of {_SHORTEST} bytes at least: try secrets.token_hex()")
        # A key of its own: what another program signed with this secret is no payload.
        self._key = hmac.digest(key, b"lifecycle.PickleSerializer", "sha256")

    def dumps(self, value: object) -> bytes:
        """`value` pickled and signed. Raises `Unserializable`, without a path, for what pickle refuses."""
        try:
            body = pickle.dumps(value)
        except (MemoryError, TaskTimeout):  # no fault of the value's: this one comes from outside, to end the task
            raise
        except Exception as error:  # the value's own methods run here and may raise anything
            raise Unserializable(f"it cannot be pickled: {type(error).__name__}: {error}") from error
        return hmac.digest(self._key, body, "sha256") + body

    def loads(self, data: bytes) -> object:
        """The value of which `dumps` made `data`. Raises `Undecodable` if it did not, or if its class is gone since."""
        signature, body = data[:_SIGNATURE], data[_SIGNATURE:]
        if not hmac.compare_digest(signature, hmac.digest(self._key, body, "sha256")):
            raise Undecodable("signature does not match: another secret, or the payload was changed")
        try:
            return pickle.loads(body)  # noqa: S301 -- see above
        except (MemoryError, TaskTimeout):
            raise
        except Exception as error:
            raise Undecodable(f"signed, but cannot be unpickled here: {type(error).__name__}: {error}") from error
