"""How a process learns of changes that others make to a queue on PostgreSQL: by ``NOTIFY``, after it has registered."""

from collections.abc import Collection
from typing import Final, Protocol

from lifecycle.clock import monotonic
from lifecycle.storage.base import Channel
from lifecycle.storage.postgres.errors import translated
from lifecycle.storage.postgres.session import Command, ConnectionLost, Result, ServerError, Session, Statement
from lifecycle.storage.postgres.statements import Statements

__all__ = ["RECHECK_SECONDS", "ListenerServer", "PostgresSubscription", "channel_name"]

RECHECK_SECONDS: Final = 0.3
"""Time after a registration when all waits end once: by then every commit that did not see the registration is done."""
REFRESH_SECONDS: Final = 20.0
"""Time between two registrations of a channel."""
REGISTRATION_SECONDS: Final = 60.0
"""Time for which a registration holds."""


class ListenerServer(Protocol):
    """The part of the server that a listener needs."""

    schema: str
    statements: Statements
    process: str

    @property
    def queue_id(self) -> int:
        """Number of the queue in the schema."""
        ...

    def connect(self) -> Session:
        """Return a new connection."""
        ...

    def disconnect(self, session: Session) -> None:
        """Close a connection."""
        ...

    def is_own_backend(self, pid: int) -> bool:
        """Return whether a server process serves a connection of this process."""
        ...


def channel_name(schema: str, queue_id: int, channel: Channel) -> str:
    """Return the name for ``LISTEN``, at most 63 bytes long, whatever the length of the schema's name."""
    return f"lifecycle {queue_id} {channel.value} {schema}".encode()[:63].decode("utf-8", "ignore")


class PostgresSubscription:
    """A connection that listens; implements `lifecycle.storage.notifications.Subscription`."""

    def __init__(self, server: ListenerServer) -> None:
        self._server = server
        self._registered: dict[Channel, float] = {}
        """Registered channels, and the moments of their last registrations (`monotonic`)."""
        queue = server.queue_id
        self._names = {channel_name(server.schema, queue, channel): channel for channel in Channel}
        quoted = ['"' + name.replace('"', '""') + '"' for name in self._names]
        self._session = server.connect()
        try:
            self._run(*((Statement(b"", f"listen {name}".encode()), ()) for name in quoted))
        except BaseException:
            self.close()
            raise

    @property
    def fd(self) -> int:
        """File descriptor of the connection's socket."""
        return self._session.fd

    def _run(self, *commands: Command) -> list[Result]:
        try:
            return self._session.run(*commands)
        except (ServerError, ConnectionLost) as error:
            raise translated(error) from error

    def subscribe(self, wanted: Collection[Channel]) -> Collection[Channel]:
        """Register the wanted channels, and no others; return those that are new."""
        server, now = self._server, monotonic()
        new = set()
        for channel in Channel:
            key = (server.queue_id, channel.value, server.process)
            if channel in wanted and now - self._registered.get(channel, -REFRESH_SECONDS) >= REFRESH_SECONDS:
                self._run((server.statements.listen, (*key, REGISTRATION_SECONDS)))
                if channel not in self._registered:
                    new.add(channel)
                self._registered[channel] = now
            elif channel not in wanted and channel in self._registered:
                del self._registered[channel]
                self._run((server.statements.unlisten, key))
        return new

    def changed_channels(self) -> Collection[Channel]:
        """Return the channels of which other processes have notified."""
        try:
            received = [(self._names.get(one.relname.decode()), one.be_pid) for one in self._session.notifications()]
        except ConnectionLost as error:
            raise translated(error) from error
        return {channel for channel, pid in received if channel is not None and not self._server.is_own_backend(pid)}

    def close(self) -> None:
        """Close the connection."""
        self._server.disconnect(self._session)
