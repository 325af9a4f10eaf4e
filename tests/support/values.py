"""Arguments and results of every type that `MsgpackSerializer` stores, and their exact comparison."""

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import cache
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import strategies as st

_OFFSETS = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
_KEYS = sorted({"Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC", "Etc/Zulu"} & available_timezones())
"""Keys of zones that this host knows; one has eight letters, as an offset has bytes."""
_ZONES = (
    st.none() | st.just(UTC) | _OFFSETS.map(timezone) | st.integers(-14, 14).map(lambda h: timezone(timedelta(hours=h)))
    | st.sampled_from(_KEYS).map(ZoneInfo)
)  # fmt: skip
_EDGES = [
    sign * (1 << bits) + more for bits in (7, 8, 31, 32, 63, 64, 65, 71, 72) for more in (-1, 0, 1) for sign in (1, -1)
]


def _folded(moments):
    return st.builds(lambda moment, fold: moment.replace(fold=fold), moments, st.sampled_from([0, 0, 1]))


@cache
def scalars():
    """Return scalars: values without parts, which can be keys."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers() | st.sampled_from(_EDGES) | st.integers(-(1 << 200), 1 << 200),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=20),
        _folded(st.datetimes(timezones=_ZONES)),
        st.dates(),
        _folded(st.times(timezones=_ZONES)),
        st.timedeltas(),
        st.decimals().filter(lambda number: not number.is_snan()),
        st.builds(lambda sign, digits, exponent: Decimal((sign, digits, exponent)), st.integers(0, 1),
                  st.lists(st.integers(0, 9), max_size=40).map(tuple), st.integers(-9999, 9999)),
        st.uuids(),
        st.complex_numbers(),
    )  # fmt: skip


@cache
def keys():
    """Return hashable values: scalars, and nested tuples and frozensets of scalars."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
        max_leaves=4,
    )


@cache
def values():
    """Return values of any type that `MsgpackSerializer` stores, nested in any way."""
    return st.recursive(
        keys() | st.binary(max_size=20).map(bytearray) | st.just(Decimal("sNaN")) | st.sets(keys(), max_size=3),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.lists(inner, max_size=4).map(tuple)
            | st.dictionaries(keys() | st.text(max_size=5), inner, max_size=4)
        ),
        max_leaves=12,
    )


def exact(value):
    """Return a text that is the same for two values only if they are equal and of the same types at every level.

    Unlike ``==``: nan is nan, 1 is neither 1.0 nor True, -0.0 is not 0.0, Decimal("1.0") is not Decimal("1"), the order
    of a dict and the fold and the offset of a time count.
    """
    kind = type(value)
    match value:
        case list() | tuple():
            inner = ", ".join(map(exact, value))
        case dict():
            inner = ", ".join(f"{exact(key)}: {exact(item)}" for key, item in value.items())
        case set() | frozenset():
            inner = ", ".join(sorted(map(exact, value)))
        case float():
            inner = struct.pack(">d", value).hex()
        case complex():
            inner = struct.pack(">dd", value.real, value.imag).hex()
        case datetime() | time():
            zone = value.tzinfo
            if type(zone) is not ZoneInfo and zone is not None:
                zone = UTC if zone is UTC else timezone(value.utcoffset())
                assert zone != UTC or value.tzinfo is UTC, f"{value!r} is UTC, but not by timezone.utc"
            inner = f"{value.replace(tzinfo=None)!r} {zone!r}"
        case None | bool() | int() | str() | bytes() | bytearray() | date() | timedelta() | Decimal() | UUID():
            inner = hex(value) if kind is int else repr(value)  # hex has no limit of digits
        case _:
            raise AssertionError(f"value of an unknown type: {value!r}")
    return f"{kind.__module__}.{kind.__qualname__}({inner})"
