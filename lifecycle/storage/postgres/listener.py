"""How a process hears what others change in a queue on PostgreSQL: by ``NOTIFY``, if it says that it listens."""

from collections.abc import Collection
from typing import Final, Protocol

from lifecycle.clock import monotonic
from lifecycle.storage.base import Channel
from lifecycle.storage.postgres.session import Command, ConnectionLost, Result, ServerError, Session, Statement
from lifecycle.storage.postgres.statements import Sql

__all__ = ["SOON", "PostgresSubscription", "Server", "channel_name"]

SOON: Final = 0.3
"""Seconds after which all look again once a channel is listened to: what was being committed has been, by then."""
REFRESH: Final = 20.0
"""Seconds after which who listens says so again."""
LASTS: Final = 60.0
"""Seconds for which that holds."""


class Server(Protocol):
    """What it needs of the server."""

    schema: str
    sql: Sql
    process: str

    @property
    def queue_id(self) -> int:
        """The queue's number."""
        ...

    def connect(self) -> Session:
        """A connection of its own."""
        ...

    def drop(self, session: Session) -> None:
        """End one."""
        ...

    def is_ours(self, pid: int) -> bool:
        """Is that the backend of a connection of this process?"""
        ...

    def translated(self, error: ServerError | ConnectionLost) -> Exception:
        """What to raise for it."""
        ...


def channel_name(schema: str, queue_id: int, channel: Channel) -> str:
    """What is listened to: short enough for PostgreSQL whatever the schema is called."""
    return f"lifecycle {queue_id} {channel.value} {schema}".encode()[:63].decode("utf-8", "ignore")


class PostgresSubscription:
    """A connection that listens; see `lifecycle.storage.notifications.Subscription`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._heard: dict[Channel, float] = {}
        """The channels that are listened to, and when that was last said."""
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
        """The connection's socket."""
        return self._session.fd

    def _run(self, *commands: Command) -> list[Result]:
        try:
            return self._session.run(*commands)
        except (ServerError, ConnectionLost) as error:
            raise self._server.translated(error) from error

    def subscribe(self, wanted: Collection[Channel]) -> Collection[Channel]:
        """Let others know what is listened to here, and for how long."""
        queue, sql, process, now = self._server.queue_id, self._server.sql, self._server.process, monotonic()
        new = set()
        for channel in Channel:
            key = (queue, channel.value, process)
            if channel in wanted and now - self._heard.get(channel, -REFRESH) >= REFRESH:
                self._run((sql.listen, (*key, LASTS)))
                if channel not in self._heard:
                    new.add(channel)
                self._heard[channel] = now
            elif channel not in wanted and channel in self._heard:
                del self._heard[channel]
                self._run((sql.unlisten, key))
        return new

    def changed_channels(self) -> Collection[Channel]:
        """What other processes told."""
        try:
            told = [(self._names.get(one.relname.decode()), one.be_pid) for one in self._session.news()]
        except ConnectionLost as error:
            raise self._server.translated(error) from error
        return {channel for channel, pid in told if channel is not None and not self._server.is_ours(pid)}

    def close(self) -> None:
        """End the connection."""
        self._server.drop(self._session)
