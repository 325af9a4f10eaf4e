"""How a process learns of changes that others make to a queue on Redis: by publish and subscribe."""

from collections.abc import Callable, Collection

from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel
from lifecycle.storage.redis.connection import CommandRefused, ConnectionLost, RedisConnection

__all__ = ["ProcessSubscriptions", "RedisSubscription"]


class ProcessSubscriptions:
    """The name of this process as a publisher, and the channels to which the process itself has subscribed."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.single_server = True
        """False in a cluster, where other subscribers may be at other servers."""
        self.script_argument: tuple[str, int, int] = (process, 0, 0)
        """The process, and its number of subscriptions for each channel; -1: other servers may have subscribers."""

    def replace(self, channels: Collection[Channel]) -> None:
        """Set the channels to which the process has subscribed."""
        work, outcome = (int(channel in channels) if self.single_server else -1 for channel in Channel)
        self.script_argument = (self.process, work, outcome)


class RedisSubscription:
    """A connection that subscribes; implements `lifecycle.storage.notifications.Subscription`."""

    def __init__(
        self,
        connection: RedisConnection,
        prefix: str,
        subscriptions: ProcessSubscriptions,
        translated: Callable[[CommandRefused | ConnectionLost], StorageError],
    ) -> None:
        """`prefix`: of the queue's keys; `subscriptions`: of this process, kept up to date."""
        self._connection, self._subscriptions, self._translated = connection, subscriptions, translated
        self._process = subscriptions.process.encode()
        self._names = {channel: f"{prefix}:{channel.value}" for channel in Channel}
        self._channels = {name.encode(): channel for channel, name in self._names.items()}
        self._subscribed: set[Channel] = set()
        self._changed: set[Channel] = set()

    @property
    def fd(self) -> int:
        """File descriptor of the connection's socket."""
        return self._connection.fd

    def subscribe(self, wanted: Collection[Channel]) -> Collection[Channel]:
        """Subscribe to the wanted channels, and to no others; return those that are new."""
        new = [channel for channel in Channel if channel in wanted and channel not in self._subscribed]
        old = [channel for channel in Channel if channel not in wanted and channel in self._subscribed]
        # Removed channels before `UNSUBSCRIBE`, new channels after `SUBSCRIBE`: so a script never takes the
        # subscription of another process for one of ours.
        self._subscriptions.replace(self._subscribed & set(wanted))
        for command, channels in (("SUBSCRIBE", new), ("UNSUBSCRIBE", old)):
            if channels:
                self._send(command, channels)
        self._subscribed = set(wanted)
        self._subscriptions.replace(wanted)
        return new

    def _send(self, command: str, channels: Collection[Channel]) -> None:
        try:
            self._connection.send_words(command, *(self._names[channel] for channel in channels))
            missing_answers = len(channels)
            while missing_answers:
                missing_answers -= self._is_answer(self._connection.receive())
        except (CommandRefused, ConnectionLost) as error:
            raise self._translated(error) from error

    def _is_answer(self, received: list[bytes]) -> bool:
        """Note a change, if a message of another process says so; return whether this is an answer to a command."""
        kind, channel, process = received
        if kind != b"message":
            return True
        if process != self._process:
            self._changed.add(self._channels[channel])
        return False

    def changed_channels(self) -> Collection[Channel]:
        """Return the channels on which other processes have published."""
        try:
            while self._connection.has_input():
                self._is_answer(self._connection.receive())
        except (CommandRefused, ConnectionLost) as error:
            raise self._translated(error) from error
        changed, self._changed = self._changed, set()
        return changed

    def close(self) -> None:
        """Close the connection."""
        self._subscriptions.replace(())
        self._connection.close()
