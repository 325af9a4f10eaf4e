"""What goes into a serializer comes out of it again exactly, or does not go in."""

import collections
import contextlib
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
from values import exact, values

from lifecycle.errors import LifecycleError, TaskTimeout, Undecodable, Unserializable
from lifecycle.serializer import MsgpackSerializer, PickleSerializer

plain = MsgpackSerializer()
signed = PickleSerializer("a secret that only the tests know")

often = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
seldom = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


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
    type("Amount", (Decimal,), {})(1), type("Id", (UUID,), {})(int=1), type("Plane", (complex,), {})(1), Data(),
    Attrs(), Struct(), object(), len, int, lambda: None, (item for item in ()), range(3), slice(1), memoryview(b"view"),
    Ellipsis, NotImplemented, ValueError("an error"), pathlib.Path("path"), fractions.Fraction(1, 3), UTC,
    threading.Lock(), sys, msgspec.msgpack.Ext(1, b"\x90"), msgspec.Raw(b"\x01"), msgspec.UNSET,
    {}.keys(), {1: 2}.keys(), {1: 2}.items(),
]  # fmt: skip

simple_keys = st.one_of(
    st.text(max_size=5),
    st.integers(),
    st.booleans(),
    st.none(),
    st.binary(max_size=5),
    st.tuples(st.integers(), st.text(max_size=3)),
)


@st.composite
def around(draw, innermost):
    """A value with `innermost` somewhere in it, reached by indices and keys; and the path to it."""
    value, path = innermost, ""
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            before = draw(st.lists(values(), max_size=2))
            after = draw(st.lists(values() | st.just(innermost), max_size=2))
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


# MsgpackSerializer ----------------------------------------------------------------------------------------------------


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
    ([None, True, -1, 1.5, "a", b"b", {"k": []}], "97c0c3ffcb3ff8000000000000a161c4016281a16b90"),
    (("a", 1), "d60192a16101"),
    ({1}, "d5029101"),
    (frozenset({1}), "d5039101"),
    ({(1,): 2}, "d7049291d50191019102"),
    (1 << 64, "c70905010000000000000000"),
    (-(1 << 63) - 1, "c70905ff7fffffffffffffff"),
    (bytearray(b"ab"), "d5066162"),
    (datetime(2024, 2, 29, 23, 59, 58, 999999), "c70c0707e8021d173b3a000f423f00"),  # noqa: DTZ001 -- naive
    (
        datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=-3)), fold=1),
        "c7140707e80a1b021e000000000001fffffffd7c451400",
    ),
    (date(2024, 2, 29), "d60807e8021d"),
    (time(1, 2, 3, 4), "d7090102030000000400"),
    (time(1, 2, 3, 4, UTC, fold=1), "d80901020300000004010000000000000000"),
    (timedelta(-1, 2, 3), "c70c0affffffff0000000200000003"),
    (Decimal("-1.50"), "c7050b2d312e3530"),
    (UUID(int=1), "d80c00000000000000000000000000000001"),
    (1.5 - 2j, "d80d3ff8000000000000c000000000000000"),
    ([(1, 2), {"k": None}], "92c7030192010281a16bc0"),
]


@pytest.mark.parametrize(("value", "payload"), PAYLOADS, ids=repr)
def test_storage_format(value, payload):
    """Payloads that an older release wrote are read, and the same are written: the format never changes."""
    assert plain.dumps(value).hex() == payload
    assert exact(plain.loads(bytes.fromhex(payload))) == exact(value)


class Zone(tzinfo):
    """As a zone with summer time is: its offset depends on the date and on the fold; of a time alone, it has none."""

    def utcoffset(self, moment):
        return None if moment is None else timedelta(hours=2 if moment.month == 7 and not moment.fold else 1)

    def dst(self, moment):
        return None

    def tzname(self, moment):
        return "Zone"


@often
@given(st.datetimes(), st.sampled_from([0, 1]))
@example(datetime.fromisoformat("2024-07-01"), 0)
@example(datetime.fromisoformat("2024-07-01"), 1)
def test_named_zones(moment, fold):
    """An aware datetime of a named zone comes back with the offset that it had, and nothing else of it is changed."""
    moment = moment.replace(tzinfo=Zone(), fold=fold)
    assert exact(plain.loads(plain.dumps(moment))) == exact(moment.replace(tzinfo=timezone(moment.utcoffset())))


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0)), timezone(timedelta(0), "Zulu")], ids=repr)
def test_utc_is_utc(zone):
    """What is at UTC comes back at `timezone.utc` itself."""
    assert plain.loads(plain.dumps(datetime(2024, 1, 1, tzinfo=zone))).tzinfo is UTC
    assert plain.loads(plain.dumps(time(1, tzinfo=zone))).tzinfo is UTC


class Raises(tzinfo):
    def utcoffset(self, moment):
        raise LookupError("no such zone")


@pytest.mark.parametrize(
    "value", [time(1, tzinfo=Zone()), time(1, tzinfo=Raises()), datetime(2024, 1, 1, tzinfo=tzinfo())]
)
def test_zones_without_an_offset(value):
    """An aware time whose zone gives no offset for it is refused, for it would come back naive."""
    refused([value])


@often
@given(st.sampled_from(UNSUPPORTED), st.data())
def test_unsupported_types(bad, data):
    """Any other type, subclasses included, is refused: the path leads to it, the reason says what it is, what to do."""
    value, path = data.draw(around(bad))
    error = refused(value)
    assert eval(f"value{error.path}") is bad  # noqa: S307 -- what the path is for
    assert error.path == path
    assert f"{type(bad).__module__}.{type(bad).__qualname__}" in error.reason
    assert "pass its id or plain values, or give the queue a PickleSerializer" in error.reason


@pytest.mark.parametrize("bad", UNSUPPORTED, ids=lambda bad: type(bad).__qualname__)
def test_each_unsupported_type(bad):
    """Each of them is refused at once, and at the place of the example in the manual."""
    assert refused(bad).path == ""
    assert refused([{"id": 1, "when": (1, [2], bad)}, bad]).path == "[0]['when'][2]"
    assert isinstance(refused(bad), LifecycleError | TypeError)


@pytest.mark.parametrize("bad", [Color.RED, Text("key"), Data(), Point(1, 2), Name.BOB, (10**5000, Color.RED)])
def test_unsupported_keys_and_members(bad):
    """No path leads to a key or to a member of a set: it leads to the dict or the set, and the reason shows which."""
    for value in ({"a": 1, bad: 2}, {bad}, frozenset({bad}), {(1, bad): ()}, {frozenset({bad}): ()}, {((bad,),)}):
        error = refused([0, {"in": value}])
        assert error.path == "[1]['in']"
        assert "member or key" in error.reason
        assert "would not come back as it is" in error.reason


def test_long_keys_are_cut():
    """A path stays readable where a key is long, and there is one where a key has no repr."""
    assert len(refused({"k" * 10**6: object()}).path) < 100
    assert refused({10**5000: object()}).path == "[<int>]"


@pytest.mark.parametrize("bad", ["\ud800", "a\udfff", "\udc80\ud83d", "text \ude00\ud83d"])
@seldom
@given(st.data())
def test_lone_surrogates(bad, data):
    """A str that is no text is refused with its path, as a value and as a key."""
    value, path = data.draw(around(bad))
    error = refused(value)
    assert error.path == path
    assert "surrogate" in error.reason
    error.path.encode()  # and what is said of it can be printed
    for holder in ({bad: 1}, {bad}, {(1, bad): 1}):
        error = refused([1 << 64, holder])
        assert error.path == "[1]"
        assert "surrogate" in error.reason
        str(error).encode()


@seldom
@given(st.text(st.characters(min_codepoint=0xD000, max_codepoint=0x11FFF), max_size=5))
@example("\ud7ff")
@example("\ue000")
@example("\U00010000")
def test_text_is_carried(text):
    """Every str that is text is carried, those next to the surrogates too."""
    assume(not any("\ud800" <= character <= "\udfff" for character in text))
    assert plain.loads(plain.dumps([1 << 64, text])) == [1 << 64, text]


@seldom
@given(st.data())
def test_circular_values(data):
    """A container within itself is refused, with the path to where it is again; twice side by side, it is carried."""
    innermost = []
    value, path = data.draw(around(innermost))
    assert exact(plain.loads(plain.dumps(value))) == exact(value)
    value = [1, value]
    innermost.append({"again": (value,)})
    error = refused(value)
    assert error.path == f"[1]{path}[0]['again'][0]"
    assert "itself" in error.reason
    innermost.clear()


WRAPS = {
    "list": lambda value: [value],
    "tuple": lambda value: (0, value),
    "dict": lambda value: {"k": value},
    "frozenset": lambda value: frozenset({value}),
    "mixed": lambda value: [{"a": (value,)}],
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
@pytest.mark.parametrize("innermost", [(), 1, 1 << 64, Decimal(1)])
def test_depth(wrap, innermost):
    """Containers a hundred deep come back; far deeper ones are refused, with a path where there can be one."""
    levels = 33 if wrap is WRAPS["mixed"] else 99
    assert exact(plain.loads(plain.dumps(nested(wrap, levels, innermost)))) == exact(nested(wrap, levels, innermost))
    for more in (103, 400):
        assert "deep" in refused(nested(wrap, more, innermost)).reason
    if wrap is WRAPS["list"]:
        assert refused(nested(wrap, 102, ())).path.startswith("[0][0]")


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}, lambda value: (value,)])
def test_bottomless_values(wrap):
    """No depth of a value makes `dumps` raise RecursionError, nor does a caller's stack that is nearly full."""
    assert "deep" in refused(nested(wrap, 50_000)).reason

    value = nested(wrap, 90)
    data = plain.dumps(value)
    fates = set()

    def deep(levels):
        if levels:
            deep(levels - 1)
            return
        try:
            assert plain.dumps(value) == data
            assert plain.loads(data) == value
        except (Unserializable, Undecodable) as error:
            fates.add(type(error))
        else:
            fates.add(None)

    used = len(list(iterate_frames()))
    for spare in range(30, 600, 5):
        deep(sys.getrecursionlimit() - used - spare)
    assert fates >= {Unserializable, None}


def iterate_frames():
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back


def test_odd_classes():
    """A value whose very class cannot be looked at is refused all the same."""
    refused([Unhashable()])


def opened(data):
    """Loads `data`, which may be refused as payloads are, and in no other way."""
    with contextlib.suppress(Undecodable):
        plain.loads(data)


@often
@given(st.binary())
def test_any_bytes(data):
    """Arbitrary bytes are undecodable, or give a value; they never raise anything else."""
    opened(data)


@often
@given(values(), st.data())
def test_tampered_payloads(value, data):
    """A payload that is changed anywhere is undecodable, or gives another value; it never raises anything else."""
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
def test_tampered_extensions(code, payload):
    """An extension type of any code and any content is undecodable, or gives a value, in any place."""
    data = extension(code, payload)
    for wrapped in (data, b"\x91" + data, b"\x81" + data + b"\x01", extension(4, b"\x92\x91" + data + b"\x91\x01")):
        opened(wrapped)


@pytest.mark.parametrize("code", [code for code in range(-128, 128) if not 1 <= code <= 13 and code != -1])
def test_unknown_extensions(code):
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
def test_damaged_payloads(payload):
    """What cannot have been a value is undecodable, whatever is wrong with it."""
    with pytest.raises(Undecodable):
        plain.loads(payload)


def test_huge_payloads():
    """Bytes that promise more than they hold, or are nested without end, cost neither the time nor the memory."""
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
def test_truncated_payloads(value):
    """A payload that was cut short anywhere, or has something after it, is undecodable."""
    payload = plain.dumps(value)
    for size in range(len(payload)):
        with pytest.raises(Undecodable):
            plain.loads(payload[:size])
    for more in (b"\x00", b"\xc1", payload):
        with pytest.raises(Undecodable):
            plain.loads(payload + more)


@seldom
@given(st.decimals().filter(lambda number: not number.is_snan()) | st.decimals(places=20))
def test_no_context_matters(number):
    """A Decimal comes back to the digit, whatever the precision of the thread that loads or dumps it."""
    with localcontext(prec=1, Emax=1, Emin=-1, capitals=0) as context:
        context.clear_traps()
        assert exact(plain.loads(plain.dumps([number]))) == exact([number])


def test_many_threads():
    """Threads may share a serializer."""
    one = MsgpackSerializer()
    work = [
        (number, [(number, {"k": (f"{number}" * 50, 1 << 70)}), {number, ()}], b"x" * number) for number in range(200)
    ]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda value: one.loads(one.dumps(value)), work * 10)) == work * 10
    finally:
        sys.setswitchinterval(interval)


# PickleSerializer -----------------------------------------------------------------------------------------------------

ran = []


def run():
    ran.append("ran")


class Runs:
    """Something whose pickle runs code."""

    def __reduce__(self):
        return run, ()


class Fails:
    """Something that fails as it likes, when it is pickled or unpickled."""

    def __init__(self, error, late=False):
        self.error, self.late = error, late

    def __getstate__(self):
        if self.late:
            return {"error": self.error}
        raise self.error

    def __setstate__(self, state):
        raise state["error"]


@often
@given(values())
def test_pickled_round_trip(value):
    """What is loaded is what was dumped, for everything that MessagePack carries."""
    assert exact(signed.loads(signed.dumps(value))) == exact(value)


@pytest.mark.parametrize(
    "value", [Color.RED, Text("text"), Items([1]), Point(1, 2), Data(), Attrs(), Struct(), UTC, len, "\ud800"]
)
def test_pickled_types(value):
    """Pickle carries the types that MessagePack does not, and circular values."""
    loaded = signed.loads(signed.dumps(value))
    assert loaded == value
    assert type(loaded) is type(value)
    value = [value]
    value.append(value)
    loaded = signed.loads(signed.dumps(value))
    assert loaded[1] is loaded


@often
@given(values() | st.builds(Runs), st.data())
def test_pickled_bytes_are_signed(value, data):
    """A payload of which any byte is changed is refused, and no code of it runs."""
    payload = bytearray(signed.dumps(value))
    payload[data.draw(st.integers(0, len(payload) - 1) | st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecodable, match="signature does not match: another secret, or the payload was changed"):
        signed.loads(bytes(payload))
    assert not ran


def test_each_byte_is_signed():
    """There is no byte of a payload, and no part of it, that is not signed."""
    payload = signed.dumps([Runs(), "text"])
    damaged = [payload[:size] for size in range(len(payload))] + [payload + b"\x00", payload[32:], payload + payload]
    damaged += [payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :] for place in range(len(payload))]
    damaged += [plain.dumps([1, 2]), pickle.dumps(Runs()), b"", b"\x00" * 32, b"\x00" * 32 + pickle.dumps(Runs())]
    for data in damaged:
        with pytest.raises(Undecodable, match="signature does not match"):
            signed.loads(data)
    assert not ran


def test_another_secret():
    """What was signed with another secret is refused before a byte of it is unpickled; with its own, it is read."""
    payload = PickleSerializer("another secret, of somebody else").dumps(Runs())
    with pytest.raises(Undecodable, match="another secret"):
        signed.loads(payload)
    assert not ran
    assert PickleSerializer(b"another secret, of somebody else").loads(payload) is None
    assert ran == ["ran"]  # so it is the signature that held it
    ran.clear()


def test_the_signature():
    """The signature is by a key of its own: what another program signed with the same secret is no payload."""
    secret, body = b"sixteen bytes at", pickle.dumps(Runs())
    with pytest.raises(Undecodable, match="signature"):
        PickleSerializer(secret).loads(hmac.digest(secret, body, "sha256") + body)
    assert not ran
    key = hmac.digest(secret, b"lifecycle.PickleSerializer", "sha256")  # a storage format too
    body = pickle.dumps([1, "a"])
    assert PickleSerializer(secret).loads(hmac.digest(key, body, "sha256") + body) == [1, "a"]


@pytest.mark.parametrize("secret", ["", b"", "short", b"fifteen bytes..", "fifteen bytes..", "ä" * 7])
def test_short_secrets(secret):
    """A secret that is easily guessed is refused, and not shown."""
    with pytest.raises(ValueError, match="16 bytes") as caught:
        PickleSerializer(secret)
    assert not secret or str(secret) not in str(caught.value)
    PickleSerializer("sixteen bytes at")
    PickleSerializer("ä" * 8)


@pytest.mark.parametrize("secret", [16, None, ["s"] * 16])
def test_secrets_are_text_or_bytes(secret):
    """A secret that is no text or bytes is refused: a number is not that many zeros."""
    with pytest.raises(TypeError):
        PickleSerializer(secret)


def test_the_secret_is_not_shown():
    """Nothing that is printed of a serializer, or of its errors, or that it holds, is the secret."""
    secret = "hunter2 hunter2 hunter2"
    serializer = PickleSerializer(secret)
    with pytest.raises(Undecodable) as undecodable:
        serializer.loads(b"")
    with pytest.raises(Unserializable) as unserializable:
        serializer.dumps(lambda: None)
    for shown in (serializer, vars(serializer), undecodable.value, unserializable.value):
        assert secret not in repr(shown)
        assert serializer._key.hex() not in repr(shown)
    assert repr(serializer._key) not in repr(serializer)


@pytest.mark.parametrize(
    "value",
    [
        lambda: None,
        threading.Lock(),
        (item for item in ()),
        Fails(KeyError("k")),
        Fails(RuntimeError("r")),
        nested(lambda v: [v], 50_000),
    ],
)
def test_what_pickle_refuses(value):
    """What cannot be pickled is refused, whatever it raises, without a path."""
    with pytest.raises(Unserializable, match="cannot be pickled") as caught:
        signed.dumps([value])
    assert caught.value.path == ""
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [KeyError("k"), RuntimeError("r"), AttributeError("gone")])
def test_what_cannot_be_unpickled(error):
    """What was signed but cannot be unpickled here is undecodable, and the message says so."""
    with pytest.raises(Undecodable, match="signed, but cannot be unpickled here"):
        signed.loads(signed.dumps(Fails(error, late=True)))


def test_a_class_that_is_gone(monkeypatch):
    """A value whose class is gone is undecodable."""
    payload = signed.dumps(Data())
    monkeypatch.delattr(sys.modules[Data.__module__], "Data")
    with pytest.raises(Undecodable, match="Data"):
        signed.loads(payload)


@pytest.mark.parametrize("error", [TaskTimeout, MemoryError])
def test_what_passes(error):
    """A timeout that ends the task, and a lack of memory, pass through a serializer: no payload is to blame."""

    class Slow(tzinfo):
        def utcoffset(self, moment):
            raise error

    with pytest.raises(error):
        plain.dumps([datetime(2024, 1, 1, tzinfo=Slow())])
    with pytest.raises(error):
        signed.dumps(Fails(error()))
    with pytest.raises(error):
        signed.loads(signed.dumps(Fails(error(), late=True)))
