"""MsgpackSerializer: a value comes back exactly, or is refused."""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.unserializable_values import (
    UNSUPPORTED,
    Color,
    Data,
    Name,
    Point,
    Text,
    Unhashable,
    json_like,
    nested,
    often,
    plain,
    seldom,
)
from support.values import exact, values

from lifecycle.core.serializer import MsgpackSerializer
from lifecycle.errors import LifecycleError, Undecodable, Unserializable

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


@often
@given(values())
@example((("a", 1), {}))
@example({(1, (2, frozenset({"x"}))): [1 << 64], b"": {-(1 << 64): (), None: {}}})
@example([{}, [], (), set(), frozenset(), bytearray(), b"", ""])
@example({(): {}, frozenset(): {(): ()}})
@example(((1,), {("a", 1): 2}))
@example(((1,), {"a": (2,)}))
@example([(1,), {"a": 2}])
def test_loads_restores_value_types_and_order(value):
    """Loading returns the dumped value: equal, of the same type at every level, in the same order."""
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
def test_ints_of_64_bits_are_written_as_messagepack_ints(number):
    """An int of 64 bits is written as a MessagePack int, also beside an int of more bits."""
    big = 1 << 64
    assert plain.dumps([number, big]) == b"\x92" + msgspec.msgpack.encode(number) + plain.dumps(big)


@often
@given(json_like)
def test_plain_values_are_written_as_plain_messagepack(value):
    """Values of MessagePack's own types are written as any MessagePack writer writes them, without a copy."""
    assert plain.dumps(value) == msgspec.msgpack.encode(value)
    for look in plain._packers:
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
def test_payloads_of_older_releases_are_read_and_written(value, payload):
    """Payloads of older releases are read, and the same bytes are written: the format never changes."""
    assert plain.dumps(value).hex() == payload
    assert exact(plain.loads(bytes.fromhex(payload))) == exact(value)


class Zone(tzinfo):
    """Zone with summer time: the offset depends on date and fold; a time without a date has none."""

    def utcoffset(self, moment):
        return None if moment is None else timedelta(hours=2 if moment.month == 7 and not moment.fold else 1)

    def dst(self, moment):
        return None

    def tzname(self, moment):
        return "Zone"


def test_datetime_of_a_zone_comes_back_with_its_zone():
    """A datetime or time with a `ZoneInfo` comes back with the same zone, so that it can be calculated with."""
    berlin = ZoneInfo("Europe/Berlin")
    for value in (
        datetime(2024, 10, 26, 12, tzinfo=berlin),
        datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=berlin),
        time(9, tzinfo=berlin),
    ):
        back = plain.loads(plain.dumps(value))
        assert (back.tzinfo is berlin, back, back.fold) == (True, value, value.fold)
    next_day = plain.loads(plain.dumps(datetime(2024, 10, 26, 12, tzinfo=berlin))) + timedelta(days=1)
    assert next_day.utcoffset() == timedelta(hours=1)


def test_tzinfo_of_another_type_is_refused():
    """A tzinfo that would come back as another one is refused, with the types that do not, also a zone without a key."""
    with open(next(path for path in Path("/usr/share/zoneinfo").rglob("Berlin")), "rb") as file:  # noqa: PTH123
        nameless = ZoneInfo.from_file(file)

    class Mine(ZoneInfo):
        """Subclass of a zone."""

    for zone in (Zone(), nameless, Mine("Europe/Berlin")):
        error = refused([datetime(2024, 7, 1, tzinfo=zone)])
        assert "would not come back unchanged: use timezone or zoneinfo.ZoneInfo" in error.reason


@pytest.mark.parametrize("key", ["No/Such_Zone", "Europe", "../localtime", "/etc/passwd", "\0"])
def test_payload_with_an_unknown_zone_cannot_be_read(key):
    """A payload with the key of a zone that the reading host does not have is no payload."""
    payload = plain.dumps(datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")))
    size = len(payload) - len("Europe/Berlin")
    head = bytes([*payload[:1], payload[1] - len("Europe/Berlin") + len(key)]) + payload[2:size]
    with pytest.raises(Undecodable):
        plain.loads(head + key.encode())


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0)), timezone(timedelta(0), "Zulu")], ids=repr)
def test_utc_offset_comes_back_as_timezone_utc(zone):
    """A value at UTC comes back with `timezone.utc` itself."""
    assert plain.loads(plain.dumps(datetime(2024, 1, 1, tzinfo=zone))).tzinfo is UTC
    assert plain.loads(plain.dumps(time(1, tzinfo=zone))).tzinfo is UTC


class Raises(tzinfo):
    def utcoffset(self, moment):
        raise LookupError("no such zone")


@pytest.mark.parametrize(
    "value", [time(1, tzinfo=Zone()), time(1, tzinfo=Raises()), datetime(2024, 1, 1, tzinfo=tzinfo())]
)
def test_aware_time_without_an_offset_is_refused(value):
    """An aware time whose zone gives no offset is refused, because it would come back naive."""
    refused([value])


@often
@given(st.sampled_from(UNSUPPORTED), st.data())
def test_unsupported_type_is_refused_with_its_path(bad, data):
    """Any other type, also a subclass, is refused with its path, its type and a way out."""
    value, path = data.draw(around(bad))
    error = refused(value)
    assert eval(f"value{error.path}") is bad  # noqa: S307 -- what the path is for
    assert error.path == path
    assert f"{type(bad).__module__}.{type(bad).__qualname__}" in error.reason
    assert "pass its id or plain values, or give the queue a PickleSerializer" in error.reason


@pytest.mark.parametrize("bad", UNSUPPORTED, ids=lambda bad: type(bad).__qualname__)
def test_each_unsupported_type_is_refused_as_in_the_manual(bad):
    """Each unsupported type is refused, also at the place of the example in the manual."""
    assert refused(bad).path == ""
    assert refused([{"id": 1, "when": (1, [2], bad)}, bad]).path == "[0]['when'][2]"
    assert isinstance(refused(bad), LifecycleError | TypeError)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_arguments_in_subclasses_of_tuple_and_dict_are_refused(kind):
    """Arguments are refused if their tuple or dict is of a subclass."""
    own = type("Own", (kind,), {})
    assert refused(own([(1,), {"a": 2}] if kind is tuple else {1: 2})).path == ""
    assert refused(((1,), own({} if kind is dict else ()))).path == "[1]"
    assert refused((own({} if kind is dict else ()), {"a": 1})).path == "[0]"


@pytest.mark.parametrize("bad", [Color.RED, Text("key"), Data(), Point(1, 2), Name.BOB, (10**5000, Color.RED)])
def test_unsupported_key_or_member_is_named_in_the_reason(bad):
    """A key and a member of a set have no path: the path leads to the container, and the reason shows the part."""
    for value in ({"a": 1, bad: 2}, {bad}, frozenset({bad}), {(1, bad): ()}, {frozenset({bad}): ()}, {((bad,),)}):
        error = refused([0, {"in": value}])
        assert error.path == "[1]['in']"
        assert "member or key" in error.reason
        assert "would not come back unchanged" in error.reason
    assert refused(((), {bad: 2})).path == "[1]"  # of arguments, too


def test_long_key_is_shortened_in_the_path():
    """A path stays readable with a long key, and exists for a key without a repr."""
    assert len(refused({"k" * 10**6: object()}).path) < 100
    assert refused({10**5000: object()}).path == "[<int>]"


@pytest.mark.parametrize("bad", ["\ud800", "a\udfff", "\udc80\ud83d", "text \ude00\ud83d"])
@seldom
@given(st.data())
def test_str_with_a_lone_surrogate_is_refused(bad, data):
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
def test_every_text_is_supported(text):
    """Every str that is text is supported, also characters next to the surrogates."""
    assume(not any("\ud800" <= character <= "\udfff" for character in text))
    assert plain.loads(plain.dumps([1 << 64, text])) == [1 << 64, text]


@seldom
@given(st.data())
def test_circular_value_is_refused_with_its_path(data):
    """A container within itself is refused with the path of the repetition; twice side by side, it is supported."""
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
def test_depth_of_100_containers_is_supported(wrap, innermost):
    """A hundred nested containers come back; far deeper values are refused, with a path where possible."""
    levels = 33 if wrap is WRAPS["mixed"] else 99
    assert exact(plain.loads(plain.dumps(nested(wrap, levels, innermost)))) == exact(nested(wrap, levels, innermost))
    for more in (103, 400):
        assert "deep" in refused(nested(wrap, more, innermost)).reason
    if wrap is WRAPS["list"]:
        assert refused(nested(wrap, 102, ())).path.startswith("[0][0]")


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"k": value}, lambda value: (value,)])
def test_no_depth_raises_recursion_error(wrap):
    """`dumps` never raises RecursionError, neither for a deep value nor on a nearly full stack."""
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


def test_value_with_a_broken_class_is_refused():
    """A value whose class cannot be inspected is refused as well."""
    refused([Unhashable()])


@seldom
@given(st.decimals().filter(lambda number: not number.is_snan()) | st.decimals(places=20))
def test_decimal_is_exact_in_any_context(number):
    """A Decimal comes back to the digit, whatever the precision of the thread that dumps or loads it."""
    with localcontext(prec=1, Emax=1, Emin=-1, capitals=0) as context:
        context.clear_traps()
        assert exact(plain.loads(plain.dumps([number]))) == exact([number])


def test_threads_share_a_serializer():
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
