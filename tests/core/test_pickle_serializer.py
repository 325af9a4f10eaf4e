"""`PickleSerializer`: whatever pickles, signed; and nothing is unpickled that is not."""

import hmac
import pickle
import sys
import threading
from datetime import UTC, datetime, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.unserializable_values import Attrs, Color, Data, Items, Point, Struct, Text, nested, often, plain
from support.values import exact, values

from lifecycle.core.serializer import PickleSerializer
from lifecycle.errors import TaskTimeout, Undecodable, Unserializable

signed = PickleSerializer("a secret that only the tests know")

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
def test_pickle_restores_every_msgpack_value(value):
    """Loading returns the dumped value for every value that MessagePack supports."""
    assert exact(signed.loads(signed.dumps(value))) == exact(value)


@pytest.mark.parametrize(
    "value", [Color.RED, Text("text"), Items([1]), Point(1, 2), Data(), Attrs(), Struct(), UTC, len, "\ud800"]
)
def test_pickle_supports_types_that_msgpack_does_not(value):
    """Pickle supports types that MessagePack does not, and circular values."""
    loaded = signed.loads(signed.dumps(value))
    assert loaded == value
    assert type(loaded) is type(value)
    value = [value]
    value.append(value)
    loaded = signed.loads(signed.dumps(value))
    assert loaded[1] is loaded


@often
@given(values() | st.builds(Runs), st.data())
def test_changed_payload_is_refused_before_its_code_runs(value, data):
    """A payload with any changed byte is refused, and none of its code runs."""
    payload = bytearray(signed.dumps(value))
    payload[data.draw(st.integers(0, len(payload) - 1) | st.integers(0, 31))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Undecodable, match="signature does not match: another secret, or the payload was changed"):
        signed.loads(bytes(payload))
    assert not ran


def test_each_byte_of_a_payload_is_signed():
    """A change of any byte or part of a payload is noticed."""
    payload = signed.dumps([Runs(), "text"])
    damaged = [payload[:size] for size in range(len(payload))] + [payload + b"\x00", payload[32:], payload + payload]
    damaged += [payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :] for place in range(len(payload))]
    damaged += [plain.dumps([1, 2]), pickle.dumps(Runs()), b"", b"\x00" * 32, b"\x00" * 32 + pickle.dumps(Runs())]
    for data in damaged:
        with pytest.raises(Undecodable, match="signature does not match"):
            signed.loads(data)
    assert not ran


def test_payload_of_another_secret_is_refused():
    """A payload signed with another secret is refused before a byte is unpickled; with its own secret it is read."""
    payload = PickleSerializer("another secret, of somebody else").dumps(Runs())
    with pytest.raises(Undecodable, match="another secret"):
        signed.loads(payload)
    assert not ran
    assert PickleSerializer(b"another secret, of somebody else").loads(payload) is None
    assert ran == ["ran"]  # so it is the signature that held it
    ran.clear()


def test_signature_uses_a_derived_key():
    """The signature uses a derived key: data that another program signed with the same secret is no payload."""
    secret, body = b"sixteen bytes at", pickle.dumps(Runs())
    with pytest.raises(Undecodable, match="signature"):
        PickleSerializer(secret).loads(hmac.digest(secret, body, "sha256") + body)
    assert not ran
    key = hmac.digest(secret, b"lifecycle.PickleSerializer", "sha256")  # a storage format too
    body = pickle.dumps([1, "a"])
    assert PickleSerializer(secret).loads(hmac.digest(key, body, "sha256") + body) == [1, "a"]


@pytest.mark.parametrize("secret", ["", b"", "short", b"fifteen bytes..", "fifteen bytes..", "ä" * 7])
def test_short_secret_is_refused_and_not_shown(secret):
    """A secret that is easily guessed is refused, and the error does not show it."""
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
def test_unpicklable_value_is_unserializable(value):
    """A value that cannot be pickled is refused without a path, whatever pickle raises."""
    with pytest.raises(Unserializable, match="cannot be pickled") as caught:
        signed.dumps([value])
    assert caught.value.path == ""
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("error", [KeyError("k"), RuntimeError("r"), AttributeError("gone")])
def test_payload_that_cannot_be_unpickled_is_undecodable(error):
    """A signed payload that cannot be unpickled here is undecodable, and the message says so."""
    with pytest.raises(Undecodable, match="signed, but cannot be unpickled here"):
        signed.loads(signed.dumps(Fails(error, late=True)))


def test_value_of_a_missing_class_is_undecodable(monkeypatch):
    """A value whose class does not exist any more is undecodable."""
    payload = signed.dumps(Data())
    monkeypatch.delattr(sys.modules[Data.__module__], "Data")
    with pytest.raises(Undecodable, match="Data"):
        signed.loads(payload)


@pytest.mark.parametrize("error", [TaskTimeout, MemoryError])
def test_timeouts_and_memory_errors_pass_through(error):
    """A timeout that ends the task and a MemoryError pass through a serializer unchanged."""

    class Slow(tzinfo):
        def utcoffset(self, moment):
            raise error

    with pytest.raises(error):
        plain.dumps([datetime(2024, 1, 1, tzinfo=Slow())])
    with pytest.raises(error):
        signed.dumps(Fails(error()))
    with pytest.raises(error):
        signed.loads(signed.dumps(Fails(error(), late=True)))
