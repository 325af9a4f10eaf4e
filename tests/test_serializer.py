"""What goes into a serializer comes out of it again exactly, or does not go in."""

import collections
import dataclasses
import enum
import fractions
import hmac
import pathlib
import pickle
import struct
import sys
import threading
import time as clock
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from values import exact, keys, scalars, values

from lifecycle.errors import LifecycleError, TaskTimeout, Undecodable, Unserializable
from lifecycle.serializer import MsgpackSerializer, PickleSerializer

plain = MsgpackSerializer()
signed = PickleSerializer("a secret that only the tests know")

often = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
seldom = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


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


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 -- what users have


@dataclasses.dataclass(frozen=True)
class Data:
    x: int = 1


@attrs.frozen
class Attrs:
    x: int = 1


class Struct(msgspec.Struct, frozen=True):
    x: int = 1


class Odd(type):
    """A metaclass whose classes cannot be hashed."""

    __hash__ = None


class Unhashable(metaclass=Odd):
    pass


UNSUPPORTED = [
    Color.RED, Name.BOB, Text("text"), type("Number", (int,), {})(3), type("Real", (float,), {})(1.5),
    type("Raw", (bytes,), {})(b"raw"), Items([1]), type("Array", (bytearray,), {})(b"a"), Point(1, 2),
    type("Members", (set,), {})({1}), type("Frozen", (frozenset,), {})({1}), collections.defaultdict(list),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1]), Moment(2024, 1, 1),
    type("Day", (date,), {})(2024, 1, 1), type("Hour", (time,), {})(1), type("Delta", (timedelta,), {})(1),
    type("Amount", (Decimal,), {})(1), type("Id", (UUID,), {})(int=1), type("Plane", (complex,), {})(1), Data(), Attrs(),
    Struct(), object(), len, int, lambda: None, (item for item in ()), range(3), slice(1), memoryview(b"view"), Ellipsis,
    NotImplemented, ValueError("an error"), pathlib.Path("path"), fractions.Fraction(1, 3), UTC, threading.Lock(), sys,
    msgspec.msgpack.Ext(1, b"\x90"), msgspec.Raw(b"\x01"), msgspec.UNSET, {}.keys(), {1: 2}.keys(), {1: 2}.items(),
]  # fmt: skip

simple_keys = st.one_of(
    st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.binary(max_size=5), st.tuples(st.integers(), st.text(max_size=3))
)


@st.composite
def around(draw, innermost):
    """A value with `innermost` somewhere in it, reached by indices and keys; and the path to it."""
    value, path = innermost, ""
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            before, after = draw(st.lists(values(), max_size=2)), draw(st.lists(values() | st.just(innermost), max_size=2))
            value, path = draw(st.sampled_from([list, tuple]))([*before, value, *after]), f"[{len(before)}]{path}"
        else:
            key, before = draw(simple_keys), draw(st.dictionaries(simple_keys, values(), max_size=2))
            before.pop(key, None)
            value, path = {**before, key: value}, f"[{key!r}]{path}"
    return value, path


def refused(value):
    with pytest.raises(Unserializable) as caught:
        plain.dumps(value)
    assert str(caught.value) == (f"{caught.value.path}: " if caught.value.path else "") + caught.value.reason
    return caught.value


# MsgpackSerializer -----------------------------------------------------------------------------------------------------


@often
@given(values())
@example((("a", 1), {}))
@example({(1, (2, frozenset({"x"}))): [1 << 64], b"": {-(1 << 64): (), None: {}}})
@example([{}, [], (), set(), frozenset(), bytearray(), b"", ""])
@example({(): {}, frozenset(): {(): ()}})
def test_round_trip(value):
    """What is loaded is what was dumped: equal, of the same type at every level, in the same order."""
    before = exact(value)
    data = plain.dumps(value)
    assert type(data) is bytes
    assert exact(plain.loads(data)) == before
    assert exact(value) == before  # and what was dumped was not changed


@often
@given(st.integers(0, 600), st.integers(-2, 2), st.sampled_from([1, -1]))
@example(20000, 0, 1)
def test_integers_of_any_size(bits, more, sign):
    """An int comes back whatever its size, alone, as a key and in a set."""
    number = sign * (1 << bits) + more
    for value in (number, [number], {number: number}, {number}, (number, "text")):
        assert plain.loads(plain.dumps(value)) == value


@given(st.integers(-(1 << 63), (1 << 64) - 1))
@example((1 << 64) - 1)
@example(-(1 << 63))
@settings(deadline=None)
def test_integers_of_64_bits_are_plain(number):
    """An int of 64 bits is MessagePack's own even next to one that is not."""
    big = 1 << 64
    assert plain.dumps([number, big]) == b"\x92" + msgspec.msgpack.encode(number) + plain.dumps(big)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(0, 9), inner),
    max_leaves=20,
)


@often
@given(json_like)
def test_plain_values_are_plain_messagepack(value):
    """What MessagePack has types for is written as any MessagePack writer writes it, and nothing of it is copied."""
    assert plain.dumps(value) == msgspec.msgpack.encode(value)
    for look in plain._looks:
        assert look(value) is value


PAYLOADS = [
    ((), "c70101" "90"),
    (("a", 1), "d60192" "a161" "01"[:0] + "")  # replaced below
]


def test_time_zones():
    """An aware datetime keeps its instant and offset, not the name of its zone; UTC is `timezone.utc` itself."""
