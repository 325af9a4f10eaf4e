"""A connection to a Redis server: commands on their way there, and what comes back.

Below redis-py's client, and on purpose: its own way from a call to the socket costs more than the server's work.
"""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from lifecycle.errors import ConfigurationError

__all__ = ["ConnectionLost", "RedisConnection", "Refused", "driver"]


class ConnectionLost(Exception):
    """There is no connection, or none any more. `.sent`: something was sent, and whether it was done is not known."""

    sent = False


class Refused(Exception):
    """The server answered with an error; `.code` is its first word."""

    def __init__(self, code: str, message: str) -> None:
        """`message`: the server's, without the code."""
        super().__init__(message)
        self.code = code


def driver() -> ModuleType:
    """redis-py, loaded when it is first used. Raises `ConfigurationError` if it is not there."""
    try:
        return importlib.import_module("redis")
    except ImportError as error:
        raise ConfigurationError(
            f"a Redis queue needs redis-py 5 or newer ({error}): pip install 'task-lifecycle[redis]'"
        ) from None


class RedisConnection:
    """A connection, used by one thread at a time. It is not open until `open`."""

    def __init__(self, parameters: Mapping[str, Any], *, tls: bool) -> None:
        """`parameters`: redis-py's."""
        redis = driver()
        self._errors = redis.exceptions
        kind = redis.connection.SSLConnection if tls else redis.Connection
        self.connection = kind(
            **parameters,
            protocol=2,
            health_check_interval=0,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # who repeats what is not for the driver to say
        )
        self.open = False

    def connect(self, host: str, port: int) -> None:
        """Open it, to a server there. Raises `ConnectionLost`, or `Refused` if the server does not let us in."""
        self.connection.host, self.connection.port = host, port
        try:
            self.connection.connect()
            self.open = True
        except BaseException as error:  # noqa: BLE001 -- raised again, in our words
            self.close()
            raise self._translated(error) from None  # the driver's own may have its parameters in it

    def send(self, command: bytes) -> None:
        """Send a command."""
        try:
            self.connection.send_packed_command([command], check_health=False)
        except BaseException as error:  # noqa: BLE001 -- raised again, in our words
            self.close()
            raise self._translated(error, sent=True) from None

    def answer(self) -> Any:
        """What the server says next. Raises `Refused` if that is an error, `ConnectionLost`."""
        try:
            return self.connection.read_response()
        except BaseException as error:  # noqa: BLE001 -- raised again, in our words
            if not isinstance(error, self._errors.ResponseError):
                self.close()
            raise self._translated(error, sent=True) from None

    def send_words(self, *words: str) -> None:
        """Send a command that is not worth a packing of its own."""
        self.send(b"".join(self.connection.pack_command(*words)))

    def say(self, *words: str) -> Any:
        """The same, and its answer."""
        self.send_words(*words)
        return self.answer()

    @property
    def fd(self) -> int:
        """The socket's number."""
        return int(self.connection._sock.fileno())

    def has_news(self) -> bool:
        """Is there anything to read, or has it ended?"""
        try:
            return bool(self.connection.can_read(0))
        except Exception as error:  # noqa: BLE001 -- raised again, in our words
            self.close()
            raise self._translated(error) from None

    def close(self) -> None:
        """End it; `connect` makes another."""
        self.open = False
        self.connection.disconnect()

    def part(self) -> None:
        """Let go of it as a child after a fork: without a word to the server, which talks to the parent."""
        self.open = False
        if self.connection._sock is not None:
            self.connection._sock.close()

    def _translated(self, error: BaseException, *, sent: bool = False) -> BaseException:
        """What the driver raised, in our words; what is not its business stays as it is."""
        errors = self._errors
        words = " ".join(str(error).split())
        for kind, code in (
            (errors.AuthenticationError, "NOAUTH"),
            (errors.BusyLoadingError, "LOADING"),
            (errors.NoScriptError, "NOSCRIPT"),
            (errors.OutOfMemoryError, "OOM"),
            (errors.ReadOnlyError, "READONLY"),
            (errors.NoPermissionError, "NOPERM"),
            (errors.MasterDownError, "MASTERDOWN"),
            (errors.ClusterDownError, "CLUSTERDOWN"),
            (errors.TryAgainError, "TRYAGAIN"),
            (errors.MovedError, "MOVED"),
            (errors.AskError, "ASK"),
        ):
            if isinstance(error, kind):
                return Refused(code, words)
        if isinstance(error, errors.ResponseError):
            code, _, rest = words.partition(" ")
            return Refused(code, rest) if code.isupper() else Refused("ERR", words)
        if isinstance(error, errors.RedisError | OSError):
            lost = ConnectionLost(words or type(error).__name__)
            lost.sent = sent
            return lost
        return error
