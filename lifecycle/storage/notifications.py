"""Waiting for a queue on a server to change, in this process or another: told by the server, heard by a thread."""

import os
import select
import threading
from collections.abc import Callable, Collection
from typing import Final, Protocol

from lifecycle.clock import monotonic
from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel

__all__ = ["LINGER", "LOOK", "Notifier", "Subscription"]

LOOK: Final = 5.0
"""Seconds after which a wait ends anyway: news can be lost with a connection."""
BUSY: Final = 0.5
"""Seconds between two looks at what has come while nobody waits for it."""
LINGER: Final = 10.0
"""Seconds that a channel is listened to after the last wait."""
AWAY: Final = 0.5
"""Seconds between two attempts to reach the server."""


class Subscription(Protocol):
    """A connection that is told of changes. It raises `StorageError` when it is lost."""

    @property
    def fd(self) -> int:
        """What becomes readable when there is news."""
        ...

    def heed(self, wanted: Collection[Channel]) -> Collection[Channel]:
        """Listen to these channels, and no others; which of them are new, now that they are listened to."""
        ...

    def news(self) -> Collection[Channel]:
        """What others have changed since the last look."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Notifier:
    """Counts the changes of a queue, and wakes those who wait for the next.

    Changes of this process are told to it (`notify`); those of others are heard by a thread, from the first wait on.
    One thread, and one connection, for each store that is open and was waited for.
    """

    def __init__(self, listen: Callable[[], Subscription], *, settles: float = 0.0) -> None:
        """`listen`: opens an ear.

        `settles`: seconds after which all look again once a channel is listened to, where a change that was on its way
        by then is told to nobody.
        """
        self._listen, self._settles = listen, settles
        self._changed = threading.Condition()
        self._waiting = 0
        self._waited = dict.fromkeys(Channel, -LINGER)
        """When somebody last began to wait, or saw the end of a wait (`monotonic`)."""
        self._heard: set[Channel] = set()
        """The channels that are listened to."""
        self._closed = False
        self._thread: threading.Thread | None = None
        self._generations = dict.fromkeys(Channel, 0)
        self._again = 0.0
        """When everybody is to look again (`monotonic`)."""
        self._bell: tuple[int, int] | None = None

    def forget(self) -> None:
        """In the child, after a fork: the thread is the parent's."""
        for end in self._bell or ():
            os.close(end)

    def generation(self, channel: Channel) -> int:
        """How many changes there were."""
        return self._generations[channel]

    def notify(self, *channels: Channel) -> None:
        """Something changed."""
        with self._changed:
            for channel in channels:
                self._generations[channel] += 1
            if self._waiting:
                self._changed.notify_all()

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block until there is a change after `generation`, at most `timeout` seconds; whether there may have been one."""
        with self._changed:
            if self._closed:
                raise StorageError("the queue was closed")
            if self._thread is None:
                self._bell = os.pipe()
                self._thread = threading.Thread(target=self._run, name="lifecycle-listen", daemon=True)
                self._thread.start()
            self._waiting += 1
            self._waited[channel] = monotonic()
            if self._waiting == 1 or channel not in self._heard:
                self._ring()
            try:
                seen = self._changed.wait_for(lambda: self._generations[channel] != generation, min(timeout, LOOK))
            finally:
                self._waiting -= 1
                self._waited[channel] = monotonic()
            return seen or timeout > LOOK

    def close(self) -> None:
        """End the thread, and every wait."""
        with self._changed:
            self._closed = True
            self._ring()
            thread = self._thread
        self.notify(*Channel)
        if thread is not None and thread is not threading.current_thread():
            thread.join(AWAY * 10)

    def _ring(self) -> None:
        if self._bell is not None:
            os.write(self._bell[1], b".")

    # The thread ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        bell, ringer = self._bell or (0, 0)
        ear: Subscription | None = None
        while not self._closed:
            try:
                ear = self._listen()
                while not self._closed:
                    self._heed(ear)
                    self._hear(ear, bell)
                self._heed(ear)
            except StorageError:
                # Those who wait shall find out for themselves; there is news, perhaps, when the server is back.
                self.notify(*Channel)
            finally:
                self._heard = set()
                if ear is not None:
                    ear.close()
                    ear = None
            if not self._closed:
                _pause(bell, AWAY)
        with self._changed:
            self._bell = None
            os.close(bell)
            os.close(ringer)

    def _heed(self, ear: Subscription) -> None:
        """Listen to what was waited for lately."""
        now = monotonic()
        wanted = {channel for channel in Channel if not self._closed and now - self._waited[channel] < LINGER + LOOK}
        if new := ear.heed(wanted):
            self.notify(*new)  # what came before
            self._again = now + self._settles if self._settles else 0.0
        self._heard = wanted

    def _hear(self, ear: Subscription, bell: int) -> None:
        """Wait for news, and pass it on; while nobody waits for it, only now and then."""
        if self._waiting:
            poll = select.poll()
            for descriptor in bell, ear.fd:
                poll.register(descriptor, select.POLLIN)
            patience = self._again - monotonic() if self._again else LOOK
            if any(descriptor == bell for descriptor, _ in poll.poll(max(patience, 0.0) * 1000)):
                os.read(bell, 4096)
        else:
            _pause(bell, BUSY)
        if self._again and monotonic() >= self._again:
            self._again = 0.0
            self.notify(*Channel)
        if news := ear.news():
            self.notify(*news)


def _pause(bell: int, seconds: float) -> None:
    """Wait for the bell, or so long."""
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    if poll.poll(seconds * 1000):
        os.read(bell, 4096)
