"""Serializers with Huey's names."""

from lifecycle.core.serializer import MsgpackSerializer, PickleSerializer

__all__ = ["Serializer", "SignedSerializer"]


class Serializer(MsgpackSerializer):
    """The default: exact, and without code in the data."""

    def __init__(self, compression: bool = False, use_zlib: bool = False) -> None:
        """No option has an effect: what is stored is compact."""
        del compression, use_zlib
        super().__init__()

    def serialize(self, data: object) -> bytes:
        """Return the bytes of a value. Raises `Unserializable`."""
        return self.dumps(data)

    def deserialize(self, data: bytes) -> object:
        """Return the value of bytes. Raises `Undecodable`."""
        return self.loads(data)


class SignedSerializer(PickleSerializer):
    """Any value that pickle takes, signed with a secret."""

    def __init__(
        self, secret: str | bytes, salt: str = "huey", compression: bool = False, use_zlib: bool = False
    ) -> None:
        """`secret`: at least 16 bytes, the same in every process. No other option has an effect."""
        del salt, compression, use_zlib
        super().__init__(secret)

    def serialize(self, data: object) -> bytes:
        """Return the bytes of a value. Raises `Unserializable`."""
        return self.dumps(data)

    def deserialize(self, data: bytes) -> object:
        """Return the value of bytes. Raises `Undecodable`."""
        return self.loads(data)
