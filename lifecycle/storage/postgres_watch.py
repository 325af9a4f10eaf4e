"""Waiting for a queue to change, in this process or another: told by ``NOTIFY``, heard by one connection a process."""

import os
import select
import threading
from typing import Final, Protocol

from lifecycle.clock import monotonic
from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel
from lifecycle.storage.postgres_sql import Sql
from lifecycle.storage.postgres_wire import ConnectionLost, ServerError, Session, Statement

__all__ = ["Server", "Watch"]

LOOK: Final = 5.0
"""Seconds after which a wait ends anyway: news can be lost with a connection."""
BUSY: Final = 0.5
"""Seconds between two looks at what has come while nobody waits for it."""
SOON: Final = 0.3
"""Seconds after which all look again once a channel is listened to: what was being committed has been, by then."""
LINGER: Final = 10.0
"""Seconds that a channel is listened to after the last wait."""
REFRESH: Final = 20.0
"""Seconds after which who listens says so again."""
LASTS: Final = 60.0
"""Seconds for which that holds."""
AWAY: Final = 0.5
"""Seconds between two attempts to reach the server."""


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


def channel_name(schema: str, queue_id: int, channel: Channel) -> str:
    """What is listened to: short enough for PostgreSQL whatever the schema is called."""
    return f"lifecycle {queue_id} {channel.value} {schema}".encode()[:63].decode("utf-8", "ignore")


class Watch:
    """Counts the changes of a queue, and wakes those who wait for the next.

    Changes of this process are told to it (`notify`); those of others are heard by a thread, from the first wait on.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._changed = threading.Condition()
        self._waiting = 0
        self._waited = dict.fromkeys(Channel, -LINGER)
        """When somebody last began to wait, or saw the end of a wait (`monotonic`)."""
        self._heard: dict[Channel, float] = {}
        """The channels that are listened to, and when that was last said."""
        self._closed = False
        self._thread: threading.Thread | None = None
        self._stamps = dict.fromkeys(Channel, 0)
        self._again = 0.0
        """When everybody is to look again (`monotonic`)."""
        self._bell: tuple[int, int] | None = None

    def forget(self) -> None:
        """In the child, after a fork: the thread is the parent's."""
        for end in self._bell or ():
            os.close(end)

    def stamp(self, channel: Channel) -> int:
        """How many changes there were."""
        return self._stamps[channel]

    def notify(self, *channels: Channel) -> None:
        """Something changed."""
        with self._changed:
            for channel in channels:
                self._stamps[channel] += 1
            if self._waiting:
                self._changed.notify_all()

    def wait(self, channel: Channel, stamp: int, timeout: float) -> bool:
        """Block until there is a change after `stamp`, at most `timeout` seconds; whether there may have been one."""
        with self._changed:
            if self._closed:
                raise StorageError("the queue was closed")
            if self._thread is None:
                self._bell = os.pipe()
                self._thread = threading.Thread(target=self._listen, name="lifecycle-listen", daemon=True)
                self._thread.start()
            self._waiting += 1
            self._waited[channel] = monotonic()
            if self._waiting == 1 or channel not in self._heard:
                self._ring()
            try:
                seen = self._changed.wait_for(lambda: self._stamps[channel] != stamp, min(timeout, LOOK))
            finally:
                self._waiting -= 1
                self._waited[channel] = monotonic()
            return seen or timeout > LOOK

    def close(self) -> None:
        """End the thread, and every wait."""
        with self._changed:
            self._closed = True
            if self._bell is not None:
                self._ring()
            thread = self._thread
        self.notify(*Channel)
        if thread is not None and thread is not threading.current_thread():
            thread.join(AWAY * 10)

    def _ring(self) -> None:
        if self._bell is not None:
            os.write(self._bell[1], b".")

    # The thread ------------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        bell, ringer = self._bell or (0, 0)
        session: Session | None = None
        while not self._closed:
            try:
                session = self._server.connect()
                names = self._begin(session)
                while not self._closed:
                    self._say(session)
                    self._hear(session, bell, names)
                self._say(session)
            except (StorageError, ServerError, ConnectionLost):
                # Those who wait shall find out for themselves; there is news, perhaps, when the server is back.
                self.notify(*Channel)
            finally:
                self._heard = {}
                if session is not None:
                    self._server.drop(session)
                    session = None
            if not self._closed:
                _pause(bell, AWAY)
        with self._changed:
            self._bell = None
            os.close(bell)
            os.close(ringer)

    def _begin(self, session: Session) -> dict[str, Channel]:
        names = {channel_name(self._server.schema, self._server.queue_id, channel): channel for channel in Channel}
        quoted = ['"' + name.replace('"', '""') + '"' for name in names]
        session.run(*((Statement(b"", f"listen {name}".encode()), ()) for name in quoted))
        return names

    def _say(self, session: Session) -> None:
        """Let others know what is listened to here, and for how long."""
        queue, sql, process, now = self._server.queue_id, self._server.sql, self._server.process, monotonic()
        for channel in Channel:
            key = (queue, channel.value, process)
            wanted = not self._closed and now - self._waited[channel] < LINGER + LOOK
            if wanted and now - self._heard.get(channel, -REFRESH) >= REFRESH:
                session.run((sql.listen, (*key, LASTS)))
                if channel not in self._heard:
                    self.notify(channel)  # what came before
                    self._again = now + SOON
                self._heard[channel] = now
            elif not wanted and channel in self._heard:
                del self._heard[channel]
                session.run((sql.unlisten, key))

    def _hear(self, session: Session, bell: int, names: dict[str, Channel]) -> None:
        """Wait for news, and pass it on; while nobody waits for it, only now and then."""
        if self._waiting:
            poll = select.poll()
            for descriptor in bell, session.fd:
                poll.register(descriptor, select.POLLIN)
            patience = self._again - monotonic() if self._again else LOOK
            if any(descriptor == bell for descriptor, _ in poll.poll(max(patience, 0.0) * 1000)):
                os.read(bell, 4096)
        else:
            _pause(bell, BUSY)
        if self._again and monotonic() >= self._again:
            self._again = 0.0
            self.notify(*Channel)
        news = set()
        for told in session.news():
            channel = names.get(told.relname.decode())
            if channel is not None and not self._server.is_ours(told.be_pid):
                news.add(channel)
        if news:
            self.notify(*news)


def _pause(bell: int, seconds: float) -> None:
    """Wait for the bell, or so long."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    if poll.poll(seconds * 1000):
        os.read(bell, 4096)
