"""A connection to a Redis server: send commands, receive answers.

Uses redis-py's connection class, not its client: the client costs more time for each call than the server does.
"""

import importlib
import re
import weakref
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from lifecycle.errors import ConfigurationError

__all__ = ["CommandRefused", "ConnectionLost", "NamedConnection", "RedisConnection", "driver"]


_ERROR_IN_SCRIPT: Final = re.compile(r"^(?:ERR )?Error running script .*?: -?([A-Z]+ .*)")
"""How servers older than Redis 7 report an error of a command in a script."""


class ConnectionLost(Exception):
    """There is no connection to the server (any more)."""

    sent = False
    """True if a command was sent, so that its outcome is unknown."""


class CommandRefused(Exception):
    """The server answered with an error."""

    def __init__(self, code: str, message: str) -> None:
        """`code`: the first word of the error; `message`: the rest."""
        super().__init__(message)
        self.code = code


def driver() -> ModuleType:
    """Return redis-py, imported at the first use. Raises `ConfigurationError` if it is not installed."""
    try:
        return importlib.import_module("redis")
    except ImportError as error:
        raise ConfigurationError(
            f"a Redis queue needs redis-py 5 or newer ({error}): pip install 'task-lifecycle[redis]'"
        ) from None


class RedisConnection:
    """A connection, used by one thread at a time; closed until `connect`."""

    def __init__(self, parameters: Mapping[str, Any], *, tls: bool) -> None:
        """`parameters`: of redis-py's connection class."""
        redis = driver()
        self._errors = redis.exceptions
        kind = redis.connection.SSLConnection if tls else redis.Connection
        self.connection = kind(
            **parameters,
            protocol=2,
            health_check_interval=0,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # `RedisServer` decides about repeated calls
        )
        self.is_open = False
        # A queue that is dropped without `close` leaves no open socket to the garbage collector.
        weakref.finalize(self, self.connection.disconnect).atexit = False

    def connect(self, host: str, port: int) -> None:
        """Open the connection. Raises `ConnectionLost`, or `CommandRefused` if the server rejects the login."""
        self.connection.host, self.connection.port = host, port
        try:
            self.connection.connect()
            self.is_open = True
        except BaseException as error:  # noqa: BLE001 -- raised again, translated
            self.close()
            raise self._translated(error) from None  # redis-py's error may contain the parameters

    def send(self, command: bytes) -> None:
        """Send a packed command. Raises `ConnectionLost`."""
        try:
            self.connection.send_packed_command([command], check_health=False)
        except BaseException as error:  # noqa: BLE001 -- raised again, translated
            self.close()
            raise self._translated(error, sent=True) from None

    def receive(self) -> Any:
        """Return the next answer or message of the server. Raises `CommandRefused`, `ConnectionLost`."""
        try:
            return self.connection.read_response()
        except BaseException as error:  # noqa: BLE001 -- raised again, translated
            if not isinstance(error, self._errors.ResponseError):
                self.close()
            raise self._translated(error, sent=True) from None

    def send_words(self, *words: str) -> None:
        """Pack a command and send it. Raises `ConnectionLost`."""
        self.send(b"".join(self.connection.pack_command(*words)))

    def call(self, *words: str) -> Any:
        """Send a command and return its answer. Raises `CommandRefused`, `ConnectionLost`."""
        self.send_words(*words)
        return self.receive()

    @property
    def fd(self) -> int:
        """File descriptor of the socket."""
        return int(self.connection._sock.fileno())

    def has_input(self) -> bool:
        """Return whether there is anything to read, the end of the connection included. Raises `ConnectionLost`."""
        try:
            return bool(self.connection.can_read(0))
        except Exception as error:  # noqa: BLE001 -- raised again, translated
            self.close()
            raise self._translated(error) from None

    def close(self) -> None:
        """Close the connection; `connect` opens it again."""
        self.is_open = False
        self.connection.disconnect()

    def abandon_after_fork(self) -> None:
        """Close the child's copy of the socket, and send nothing: the server goes on talking to the parent."""
        self.is_open = False
        if self.connection._sock is not None:
            self.connection._sock.close()

    def _translated(self, error: BaseException, *, sent: bool = False) -> BaseException:
        """Return an error of redis-py or the socket as one of ours; any other error as it is."""
        errors = self._errors
        message = " ".join(str(error).split())
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
                return CommandRefused(code, message)
        if isinstance(error, errors.ResponseError):
            if (nested := _ERROR_IN_SCRIPT.search(message)) is not None:
                message = nested[1]
            code, _, rest = message.partition(" ")
            return CommandRefused(code, rest) if code.isupper() else CommandRefused("ERR", message)
        if isinstance(error, errors.RedisError | OSError):
            lost = ConnectionLost(message or type(error).__name__)
            lost.sent = sent
            return lost
        return error


class NamedConnection:
    """A connection with a name and a call number, by which the server keeps its last answer; both outlive a socket."""

    def __init__(self, connection: RedisConnection) -> None:
        self.connection = connection
        self.name, self.call_number, self.named_at = "", 0, 0.0
