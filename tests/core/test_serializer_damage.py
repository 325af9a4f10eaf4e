"""Bytes that no serializer wrote, or not so: each is refused as `Undecodable`, or is some value that could be written."""

import contextlib
import pickle
import struct
import time as clock

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.unserializable_values import json_like, often, plain
from support.values import values

from lifecycle.errors import Undecodable

pytestmark = pytest.mark.untraced


def opened(data):
    """Loads `data`, which may be refused as payloads are, and in no other way."""
    with contextlib.suppress(Undecodable):
        plain.loads(data)


@often
@given(st.binary())
def test_random_bytes_are_undecodable_or_a_value(data):
    """Random bytes are undecodable or give a value; they raise no other error."""
    opened(data)


@often
@given(values(), st.data())
def test_changed_payload_is_undecodable_or_another_value(value, data):
    """A changed payload is undecodable or gives another value; it raises no other error."""
    payload = bytearray(plain.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload) - 1))
        payload[place] = data.draw(
            st.integers(0, 255) | st.sampled_from([0xC7, 0xD4, 0xD5, 0xD6, 0xD8, 0xC1, 0x90, 0x80])
        )
    opened(bytes(payload))


def extension(code, payload):
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload))


@often
@given(
    st.integers(-128, 127) | st.integers(0, 14),
    st.binary(max_size=24) | values().map(plain.dumps) | json_like.map(msgspec.msgpack.encode),
)
def test_random_extension_is_undecodable_or_a_value(code, payload):
    """An extension type of any code and content is undecodable or gives a value, at any place."""
    data = extension(code, payload)
    for wrapped in (data, b"\x91" + data, b"\x81" + data + b"\x01", extension(4, b"\x92\x91" + data + b"\x91\x01")):
        opened(wrapped)


@pytest.mark.parametrize("code", [code for code in range(-128, 128) if not 1 <= code <= 13 and code != -1])
def test_unknown_extension_code_is_undecodable(code):
    """An extension type that no release wrote is undecodable."""
    with pytest.raises(Undecodable):
        plain.loads(b"\x91" + extension(code, b"\x90"))


A_TIME = bytes.fromhex("0102030000000400")
DAMAGED = {
    "nothing": b"",
    "two values": b"\x01\x01",
    "text": b"{'a': 1}",
    "a pickle": pickle.dumps([1, 2]),
    "no UTF-8": b"\xa1\xff",
    "a map with an unhashable key": b"\x81\x91\x80\x01",
    "a tuple that is none": extension(1, b"\x0c"),
    "a tuple cut short": extension(1, b"\x92\x01"),
    "two tuples in one": extension(1, b"\x90\x90"),
    "a set with a dict": extension(2, b"\x91\x80"),
    "a frozenset with a dict": extension(3, b"\x91\x80"),
    "more keys than values": extension(4, b"\x92\x91\x01\x90"),
    "more values than keys": extension(4, b"\x92\x90\x91\x01"),
    "three columns": extension(4, b"\x93\x90\x90\x90"),
    "an unhashable key": extension(4, b"\x92\x91\x90\x91\x01"),
    "a datetime cut short": extension(7, b"\x07\xe8\x01\x01"),
    "a month 13": extension(8, b"\x07\xe8\x0d\x01"),
    "an hour 24": extension(9, b"\x18" + A_TIME[1:]),
    "a fold of 2": extension(9, A_TIME[:-1] + b"\x02"),
    "half an offset": extension(9, A_TIME + b"\0\0\0\0"),
    "an offset of a day": extension(9, A_TIME + struct.pack(">q", 86400 * 10**6)),
    "a delta of too many days": extension(10, struct.pack(">iii", 1_000_000_000, 0, 0)),
    "no number": extension(11, b"1.x"),
    "no ASCII": extension(11, "٣".encode()),
    "a UUID of 15 bytes": extension(12, bytes(15)),
    "half a complex": extension(13, bytes(8)),
}


@pytest.mark.parametrize("payload", DAMAGED.values(), ids=DAMAGED)
def test_impossible_payload_is_undecodable(payload):
    """A payload that no value can have is undecodable."""
    with pytest.raises(Undecodable):
        plain.loads(payload)


def test_payload_that_promises_too_much_costs_neither_time_nor_memory():
    """Bytes that promise more than they hold, or are nested without end, cost neither time nor memory."""
    started = clock.perf_counter()
    lengths = [opcode + b"\xff\xff\xff\xff\x01" for opcode in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")]
    depths = [b"\x91" * 10**6, b"\x81" * 10**6, b"\xdd\x00\x0f\xff\xff" * 10**5]
    for payload in (*lengths, *depths, nested_extensions(1, 5000), nested_extensions(3, 5000)):
        with pytest.raises(Undecodable):
            plain.loads(payload)
    assert clock.perf_counter() - started < 5


def nested_extensions(code, levels):
    data = b"\x90"
    for _ in range(levels):
        data = b"\x91" + b"\xc9" + struct.pack(">IB", len(data), code) + data
    return data


@often
@given(values())
def test_truncated_or_extended_payload_is_undecodable(value):
    """A payload that was cut anywhere, or has additional bytes, is undecodable."""
    payload = plain.dumps(value)
    for size in range(len(payload)):
        with pytest.raises(Undecodable):
            plain.loads(payload[:size])
    for more in (b"\x00", b"\xc1", payload):
        with pytest.raises(Undecodable):
            plain.loads(payload + more)
