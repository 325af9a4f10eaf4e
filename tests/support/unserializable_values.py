"""Values of types that `MsgpackSerializer` does not store, and settings and values for tests of serializers."""

import collections
import dataclasses
import enum
import fractions
import pathlib
import sys
import threading
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import attrs
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from support.profiles import examples

from lifecycle.core.serializer import MsgpackSerializer

plain = MsgpackSerializer()

often = settings(deadline=None, max_examples=examples(120), suppress_health_check=[HealthCheck.too_slow])
seldom = settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])


def nested(wrap, levels, innermost=None):
    value = innermost
    for _ in range(levels):
        value = wrap(value)
    return value


class Color(enum.IntEnum):
    RED = 1


class Name(enum.StrEnum):
    BOB = "bob"


class Text(str):
    __slots__ = ()


class Moment(datetime):
    pass


class Items(list):
    pass


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 -- users have such types


@dataclasses.dataclass(frozen=True)
class Data:
    x: int = 1


@attrs.frozen
class Attrs:
    x: int = 1


class Struct(msgspec.Struct, frozen=True):
    x: int = 1


class UnhashableType(type):
    """Metaclass whose classes cannot be hashed."""

    __hash__ = None


class Unhashable(metaclass=UnhashableType):
    pass


UNSUPPORTED = [
    Color.RED, Name.BOB, Text("text"), type("Number", (int,), {})(3), type("Real", (float,), {})(1.5),
    type("Raw", (bytes,), {})(b"raw"), Items([1]), type("Array", (bytearray,), {})(b"a"), Point(1, 2),
    type("Members", (set,), {})({1}), type("Frozen", (frozenset,), {})({1}), collections.defaultdict(list),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1]), Moment(2024, 1, 1),
    type("Day", (date,), {})(2024, 1, 1), type("Hour", (time,), {})(1), type("Delta", (timedelta,), {})(1),
    type("Amount", (Decimal,), {})(1), type("Id", (UUID,), {})(int=1), type("Plane", (complex,), {})(1), Data(),
    Attrs(), Struct(), object(), len, int, lambda: None, (item for item in ()), range(3), slice(1), memoryview(b"view"),
    Ellipsis, NotImplemented, ValueError("an error"), pathlib.Path("path"), fractions.Fraction(1, 3), UTC,
    threading.Lock(), sys, msgspec.msgpack.Ext(1, b"\x90"), msgspec.Raw(b"\x01"), msgspec.UNSET,
    {}.keys(), {1: 2}.keys(), {1: 2}.items(),
]  # fmt: skip

json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=20,
)
