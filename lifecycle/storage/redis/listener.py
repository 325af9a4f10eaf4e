"""How a process hears what others change in a queue on Redis: by publish and subscribe."""

from collections.abc import Callable, Collection

from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel
from lifecycle.storage.redis.connection import ConnectionLost, RedisConnection, Refused

__all__ = ["RedisSubscription", "Who"]


class Who:
    """This process, as scripts know it: its name among those who publish, and what it hears itself."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.alone = True
        """Is there but one server? In a cluster others may listen elsewhere."""
        self.told: tuple[str, int, int] = (process, 0, 0)
        """For each channel how many subscriptions are our own; -1: there may be more than the server knows of."""

    def hears(self, channels: Collection[Channel]) -> None:
        """These, and no others."""
        work, outcome = (int(channel in channels) if self.alone else -1 for channel in Channel)
        self.told = (self.process, work, outcome)


class RedisSubscription:
    """A connection that has subscribed; see `lifecycle.storage.notifications.Subscription`."""

    def __init__(
        self,
        wire: RedisConnection,
        prefix: str,
        who: Who,
        translated: Callable[[Refused | ConnectionLost], StorageError],
    ) -> None:
        """`who`: what scripts are told of this process; kept up to date."""
        self._wire, self._who, self._process, self._translated = wire, who, who.process.encode(), translated
        self._names = {channel: f"{prefix}:{channel.value}" for channel in Channel}
        self._channels = {name.encode(): channel for channel, name in self._names.items()}
        self._heard: set[Channel] = set()
        self._news: set[Channel] = set()

    @property
    def fd(self) -> int:
        """The connection's socket."""
        return self._wire.fd

    def subscribe(self, wanted: Collection[Channel]) -> Collection[Channel]:
        """Subscribe to what is wanted, and to that only."""
        new = [channel for channel in Channel if channel in wanted and channel not in self._heard]
        old = [channel for channel in Channel if channel not in wanted and channel in self._heard]
        # Told before there is one less, and after there is one more: so nobody else's is ever taken for ours.
        self._who.hears(self._heard & set(wanted))
        for command, channels in (("SUBSCRIBE", new), ("UNSUBSCRIBE", old)):
            if channels:
                self._say(command, channels)
        self._heard = set(wanted)
        self._who.hears(wanted)
        return new

    def _say(self, command: str, channels: Collection[Channel]) -> None:
        try:
            self._wire.send_words(command, *(self._names[channel] for channel in channels))
            open_answers = len(channels)
            while open_answers:
                open_answers -= self._note(self._wire.answer())
        except (Refused, ConnectionLost) as error:
            raise self._translated(error) from error

    def _note(self, said: list[bytes]) -> bool:
        """Note a message; whether it was none, but an answer."""
        kind, channel, text = said
        if kind != b"message":
            return True
        if text != self._process:
            self._news.add(self._channels[channel])
        return False

    def changed_channels(self) -> Collection[Channel]:
        """What others published."""
        try:
            while self._wire.has_news():
                self._note(self._wire.answer())
        except (Refused, ConnectionLost) as error:
            raise self._translated(error) from error
        news, self._news = self._news, set()
        return news

    def close(self) -> None:
        """End the connection."""
        self._who.hears(())
        self._wire.close()
