"""A Redis server as a queue uses it: connected at the first call, again after a lost connection, and after a fork."""

import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lifecycle.clock import monotonic, pause
from lifecycle.errors import StorageError, StorageRefused, StorageUnusable
from lifecycle.storage.base import Channel
from lifecycle.storage.notifications import Notifier
from lifecycle.storage.redis.connection import CommandRefused, ConnectionLost, NamedConnection, RedisConnection
from lifecycle.storage.redis.errors import TRANSIENT_CODES, OutcomeUnknown, translated
from lifecycle.storage.redis.listener import ProcessSubscriptions, RedisSubscription
from lifecycle.storage.redis.scripts import Script, command_word, key_prefix, script
from lifecycle.storage.redis.url import ConnectionSettings

__all__ = ["RedisServer"]

log = logging.getLogger("lifecycle")

OLDEST_VERSION: Final = (6, 2)
"""The oldest version of Redis that is accepted; Valkey reports a later version of Redis."""
EVICTING_POLICIES: Final = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm")
"""Values of `maxmemory-policy` that delete tasks. The volatile policies do not: no key of a queue expires."""
FIRST_RETRY_SECONDS: Final = 0.01
LONGEST_RETRY_SECONDS: Final = 0.5
"""Pauses between attempts of a call that the server cannot serve now: the first is doubled up to the longest."""
CONNECTION_NAME_SECONDS: Final = 3600.0
"""Age at which a connection gets a new name for its kept answers."""
COMMAND_LIMIT_BYTES: Final = 512 * 2**20
"""Size of a word of a command that a server accepts, unless its setting `proto-max-bulk-len` can be read."""
_CHANNEL_BITS: Final = {1: Channel.WORK, 2: Channel.OUTCOME}

_encode: Final = msgspec.msgpack.Encoder().encode
_servers: "weakref.WeakSet[RedisServer]" = weakref.WeakSet()


class RedisServer:
    """One queue on a server. Each new connection checks the server's version and settings."""

    def __init__(self, settings: ConnectionSettings, queue: str) -> None:
        """`settings`: see `lifecycle.storage.redis.url.parsed`."""
        self.settings = settings
        self.prefix = key_prefix(settings.prefix, queue)
        self._key = command_word(b"1") + command_word(self.prefix.encode())
        self._closed = self._policy_warned = self._connected_once = self._sorted_in = False
        self._configured_address = self._address = settings.parameters["host"], settings.parameters["port"]
        """The address in the URL, and the address of the queue: in a cluster another node may hold the queue."""
        self._command_limit_bytes = COMMAND_LIMIT_BYTES
        self._connections: weakref.WeakSet[RedisConnection] = weakref.WeakSet()
        self.notifier = Notifier(
            lambda: RedisSubscription(self.connected(), self.prefix, self._subscriptions, translated)
        )
        self._start()
        _servers.add(self)

    def _start(self) -> None:
        self._free: list[NamedConnection] = []
        self._subscriptions = ProcessSubscriptions(f"{os.getpid()}:{os.urandom(6).hex()}")

    def reset_after_fork(self) -> None:
        """Start again in a child process: connections and threads belong to the parent."""
        for connection in self._connections:
            connection.abandon_after_fork()
        self._connections = weakref.WeakSet()
        self.notifier.reset_after_fork()
        self._start()

    # Connections ---------------------------------------------------------------------------------------------------

    def _new_connection(self) -> RedisConnection:
        connection = RedisConnection(self.settings.parameters, tls=self.settings.tls)
        self._connections.add(connection)
        return connection

    def connected(self) -> RedisConnection:
        """Return a new, open connection. Raises `StorageUnavailable`, `StorageUnusable`."""
        if self._closed:
            raise StorageError("the queue was closed")
        connection = self._new_connection()
        try:
            self._connect(connection)
        except (CommandRefused, ConnectionLost) as error:
            raise translated(error) from None
        return connection

    def _connect(self, connection: RedisConnection) -> None:
        try:
            connection.connect(*self._address)
        except ConnectionLost:
            self._address = self._configured_address
            raise
        except UnicodeError:
            raise StorageUnusable("the host in the queue's URL is not a valid host name") from None
        try:
            self._check_server(connection)
        except BaseException:
            connection.close()
            raise
        self._connected_once = True

    def _check_server(self, connection: RedisConnection) -> None:
        """Raise `StorageUnusable` if the server is too old, or deletes keys when its memory is full."""
        info = _server_info(connection)
        version = info.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST_VERSION:
            oldest = ".".join(map(str, OLDEST_VERSION))
            raise StorageUnusable(f"Redis {version} is too old: {oldest} or newer is needed")
        if self._subscriptions.single_server and info.get("redis_mode", "standalone") == "cluster":
            self._subscriptions.single_server = False
            self._subscriptions.replace(())
        try:
            answer = connection.call("CONFIG", "GET", "proto-max-bulk-len")
            self._command_limit_bytes = int(answer[1]) if len(answer) > 1 else COMMAND_LIMIT_BYTES
            answer = connection.call("CONFIG", "GET", "maxmemory-policy")
        except CommandRefused as error:
            if error.code in TRANSIENT_CODES:
                raise
            if not self._policy_warned:
                self._policy_warned = True
                log.warning(
                    "cannot read maxmemory-policy of the Redis server (%s): make sure that it is noeviction, or tasks"
                    " will be lost when the server's memory is full",
                    error,
                )
            return
        policy = answer[1].decode() if len(answer) > 1 else ""
        if policy in EVICTING_POLICIES:
            raise StorageUnusable(
                f"the server's maxmemory-policy is {policy}: when its memory is full, it deletes tasks; set it to"
                " noeviction, or use another server for the queue"
            )

    def _acquire(self) -> NamedConnection:
        if self._closed:
            raise StorageError("the queue was closed")
        try:
            connection = self._free.pop()
        except IndexError:
            connection = NamedConnection(self._new_connection())
        if connection.name and monotonic() - connection.named_at > CONNECTION_NAME_SECONDS:
            self._drop_name(connection)
        return connection

    def _drop_name(self, connection: NamedConnection) -> None:
        connection.name, connection.call_number = "", 0

    def _release(self, connection: NamedConnection) -> None:
        self._free.append(connection)
        if self._closed:
            self._close_free_connections()

    def _close_free_connections(self) -> None:
        while self._free:
            self._free.pop().connection.close()

    # Calls -----------------------------------------------------------------------------------------------------------

    def write(self, name: str, *arguments: object) -> Any:
        """Run a script that writes, exactly once even if connections are lost, and return its answer.

        Raises `OutcomeUnknown` if the server does not come back in time; `resolve` finds out whether the script ran.
        """
        connection = self._acquire()
        try:
            if not connection.name:
                connection.name = self._new_name(connection)
            connection.call_number += 1
            call = connection.name, connection.call_number, self._subscriptions.script_argument
            answer = self._run(connection, script(name), (*call, *arguments), writes=True)
        except OutcomeUnknown:
            raise  # the caller keeps the connection, for `resolve`
        except BaseException:
            self._drop_name(connection)  # a command that is still on its way must not count as a later call
            self._release(connection)
            raise
        self._release(connection)
        return self._notify(answer)

    def _notify(self, answer: Any) -> Any:
        """Notify waiting threads of this process of the changes in the answer of a script; return the rest."""
        changed, rest = answer
        if changed:
            self.notifier.notify(*(channel for bit, channel in _CHANNEL_BITS.items() if changed & bit))
        return rest

    def _new_name(self, connection: NamedConnection) -> str:
        """Return a new name for a connection: the server's time and a random part."""
        (seconds, _) = self._send(connection, b"*1\r\n" + command_word(b"TIME"))
        connection.named_at = monotonic()
        return f"{int(seconds)}-{os.urandom(8).hex()}"

    def resolve(self, connection: NamedConnection) -> Any:
        """Return the answer to a call whose outcome was unknown.

        ``None``: the call did not happen, and cannot happen any more.
        """
        answer = self._run(connection, script("resolve"), (connection.name, connection.call_number), writes=False)
        self._release(connection)
        return None if answer is None else self._notify(answer)

    def read(self, name: str, *arguments: object) -> Any:
        """Return the answer of a script that changes nothing."""
        connection = self._acquire()
        try:
            return self._run(connection, script(name), arguments, writes=False)
        finally:
            self._release(connection)

    def fields(self, task_id: str, *names: bytes) -> list[bytes | None]:
        """Return fields of a task's hash."""
        key = f"{self.prefix}:task:{task_id}".encode()
        return self.command(b"HMGET", key, *names)  # type: ignore[no-any-return]

    def command(self, *words: bytes) -> Any:
        """Return the answer to a command that changes nothing."""
        connection = self._acquire()
        try:
            return self._send(connection, b"*%d\r\n" % len(words) + b"".join(map(command_word, words)))
        finally:
            self._release(connection)

    def _run(self, connection: NamedConnection, which: Script, arguments: Sequence[object], *, writes: bool) -> Any:
        if not self._sorted_in:
            key = self._key + command_word(_encode(()))
            while self._send(connection, script("sort_in").evalsha + key, script("sort_in").eval + key):
                pass  # tasks that an older release has written
            self._sorted_in = True
        rest = self._key + command_word(_encode(arguments))
        return self._send(connection, which.evalsha + rest, which.eval + rest, writes=writes)

    def _send(
        self, connection: NamedConnection, command: bytes, with_text: bytes = b"", *, writes: bool = False
    ) -> Any:
        """Send a command until it is answered, or until the time that the URL allows is over.

        `with_text`: the same command for a server that does not know the script.
        """
        until, seconds, unknown = monotonic() + self.settings.patience, 0.0, False
        failure: CommandRefused | ConnectionLost
        while True:
            try:
                return self._send_once(connection.connection, command, with_text)
            except CommandRefused as error:
                if error.code not in TRANSIENT_CODES:
                    raise translated(error) from None
                failure = error
            except ConnectionLost as error:
                unknown = unknown or (writes and error.sent)
                failure = error
            if monotonic() >= until or not self._connected_once:
                if not unknown:
                    raise translated(failure)
                raise OutcomeUnknown(
                    f"the connection to Redis was lost ({failure}) as a write was on its way: look whether it was made"
                    " before you repeat it",
                    connection,
                )
            pause(seconds)  # first without a pause: most often only the connection was lost
            seconds = min(max(seconds * 2, FIRST_RETRY_SECONDS), LONGEST_RETRY_SECONDS)

    def _send_once(self, connection: RedisConnection, command: bytes, with_text: bytes) -> Any:
        if not connection.is_open:
            if self._closed:
                raise StorageError("the queue was closed")
            self._connect(connection)
        if len(command) > self._command_limit_bytes:  # the server would end the connection, and not say why
            raise StorageRefused(
                f"Redis: a call of {len(command):,} bytes, the server takes {self._command_limit_bytes:,}"
                " (proto-max-bulk-len); nothing was changed"
            )
        try:
            connection.send(command)
            return connection.receive()
        except CommandRefused as error:
            if error.code == "NOSCRIPT" and with_text:  # the server was restarted, or its scripts were flushed
                return self._send_once(connection, with_text, b"")
            if error.code == "READONLY":  # the same address may lead to another server by now
                connection.close()
            elif error.code == "MOVED":
                host, _, port = str(error).rpartition(" ")[2].rpartition(":")
                self._address = host or self._address[0], int(port)
                connection.close()
            raise

    def now(self) -> float:
        """Return the time of the server's clock (UTC seconds)."""
        seconds, microseconds = self.command(b"TIME")
        return int(seconds) + int(microseconds) / 1e6

    def close(self) -> None:
        """Close the connections for good; a connection in use is closed after its call."""
        self._closed = True
        self.notifier.close()
        self._close_free_connections()


def _server_info(connection: RedisConnection) -> Mapping[str, str]:
    """Return the section ``server`` of ``INFO``; empty if the user may not read it."""
    try:
        lines = connection.call("INFO", "server").decode("utf-8", "replace").splitlines()
    except CommandRefused as error:
        if error.code != "NOPERM":
            raise
        return {}
    return dict(line.split(":", 1) for line in lines if ":" in line)


# Forks -------------------------------------------------------------------------------------------------------------


def _reset_in_child() -> None:
    for server in list(_servers):
        server.reset_after_fork()


os.register_at_fork(after_in_child=_reset_in_child)
