"""Counting the changes of a queue and waiting for the next one, in this process or, on a server, in another."""

import os
import select
import threading
import weakref
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from lifecycle.clock import monotonic
from lifecycle.errors import StorageError
from lifecycle.storage.base import Channel

__all__ = [
    "MAX_WAIT_SECONDS", "UNSUBSCRIBE_AFTER_SECONDS", "ChangeCounter", "ClosedMutex", "Notifier", "Subscription",
]  # fmt: skip

MAX_WAIT_SECONDS: Final = 5.0
"""A wait on a server ends after this time even without a change: a lost connection can lose a notification."""
IDLE_CHECK_SECONDS: Final = 0.5
"""Time between two checks for notifications while no thread waits."""
UNSUBSCRIBE_AFTER_SECONDS: Final = 10.0
"""Time from the last wait for a channel to the end of the channel's subscription."""
RECONNECT_SECONDS: Final = 0.5
"""Time between two attempts to reach the server."""


class ChangeCounter:
    """Counts the changes of a queue, for each channel, and wakes the threads that wait for the next change.

    Adapters expose `generation`, `wait` and `wake` as their own methods: see `lifecycle.storage.base.Storage`.
    """

    def __init__(self, lock: Any = None) -> None:
        """`lock`: reentrant lock of the adapter that guards the counters; ``None``: a new lock."""
        self._generations = dict.fromkeys(Channel, 0)
        self._closed = False
        self._restart(lock)

    def _restart(self, lock: Any = None) -> None:
        self._lock = lock or threading.RLock()  # as a context manager twice as fast as its condition
        self._changed = threading.Condition(self._lock)
        self._waiting_count = 0

    def reset_after_fork(self) -> None:
        """Start again in the child of a fork: the threads of the parent, and the locks they hold, are not there."""
        self._restart()

    def generation(self, channel: Channel) -> int:
        """Return the number of changes so far."""
        return self._generations[channel]

    def count(self, channel: Channel) -> None:
        """Count a change, and wake the threads that wait. The caller holds the lock."""
        self._generations[channel] += 1
        if self._waiting_count:
            self._changed.notify_all()

    def notify(self, *channels: Channel) -> None:
        """Count a change of each channel, and wake the threads that wait."""
        with self._lock:
            for channel in channels:
                self._generations[channel] += 1
            if self._waiting_count:
                self._changed.notify_all()

    def wake(self) -> None:
        """End all waits in this process, as a change of every channel does."""
        self.notify(*Channel)

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block until the channel has changed since `generation`, at most `timeout` seconds.

        Returns whether the channel has changed, or may have. Raises `StorageError` if the queue was closed before.
        """
        with self._changed:
            if self._closed:
                raise StorageError("the queue was closed")
            self._waiting_count += 1
            try:
                self._begin_wait(channel)
                return self._changed.wait_for(lambda: self._generations[channel] != generation, timeout)
            finally:
                self._waiting_count -= 1
                self._end_wait(channel)

    def _begin_wait(self, channel: Channel) -> None:
        """Prepare for a wait that begins now; the lock is held, and the wait is counted."""

    def _end_wait(self, channel: Channel) -> None:
        """Clean up after a wait; the lock is held, and the wait is not counted any more."""

    def close(self) -> None:
        """End all waits, and refuse later ones."""
        with self._changed:
            self._closed = True
            self.wake()


class Subscription(Protocol):
    """A connection to a server that receives notifications. A lost connection raises `StorageError`."""

    @property
    def fd(self) -> int:
        """File descriptor that becomes readable when a notification arrives."""
        ...

    def subscribe(self, channels: Collection[Channel]) -> Collection[Channel]:
        """Subscribe to these channels and no others. Return the channels with a new subscription."""
        ...

    def changed_channels(self) -> Collection[Channel]:
        """Return the channels that other processes have changed since the last call. Does not block."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Notifier(ChangeCounter):
    """Counts the changes of a queue on a server.

    The adapter reports changes of this process (`notify`). A thread receives those of other processes, from the first
    wait on. Each open store that was waited for has one such thread and one connection.
    """

    def __init__(self, connect: Callable[[], Subscription], *, recheck_seconds: float = 0.0) -> None:
        """`connect`: opens a subscription.

        `recheck_seconds`: time after a new subscription when all waits end once, on servers that send no notification
        of a change that was being committed while the subscription began. 0: never.
        """
        super().__init__()
        self._connect, self._recheck_seconds = connect, recheck_seconds
        self._start()

    def _start(self) -> None:
        self._last_wait = dict.fromkeys(Channel, -UNSUBSCRIBE_AFTER_SECONDS)
        """Beginning or end of the last wait for each channel (`monotonic`)."""
        self._subscribed: set[Channel] = set()
        """Channels whose notifications the thread receives; a wait for another channel has to wake the thread."""
        self._listening = False
        """False if the thread sleeps, or is about to sleep: then a wait has to wake it."""
        self._recheck_at = 0.0
        """Moment when all waits end once (`monotonic`); 0: none."""
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, int] | None = None
        """Reading and writing end of the pipe that wakes the thread."""

    def reset_after_fork(self) -> None:
        """Start again in the child of a fork: the thread is the parent's."""
        super().reset_after_fork()
        for end in self._pipe or ():
            os.close(end)
        self._start()

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Block as `ChangeCounter.wait` does, at most `MAX_WAIT_SECONDS`: then the channel may have changed."""
        return super().wait(channel, generation, min(timeout, MAX_WAIT_SECONDS)) or timeout > MAX_WAIT_SECONDS

    def _begin_wait(self, channel: Channel) -> None:
        if self._thread is None:
            self._pipe = os.pipe()
            target, arguments = _listen, (weakref.ref(self), *self._pipe)
            self._thread = threading.Thread(target=target, args=arguments, name="lifecycle-listen", daemon=True)
            self._thread.start()
        self._last_wait[channel] = monotonic()
        if not self._listening or channel not in self._subscribed:
            self._wake_thread()

    def _end_wait(self, channel: Channel) -> None:
        self._last_wait[channel] = monotonic()

    def close(self) -> None:
        """End all waits and the thread."""
        super().close()
        with self._changed:
            self._wake_thread()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(RECONNECT_SECONDS * 10)

    def _wake_thread(self) -> None:
        if self._pipe is not None:
            os.write(self._pipe[1], b".")

    # The thread ------------------------------------------------------------------------------------------------------

    def _listen_once(self, wake_fd: int) -> float | None:
        """Receive notifications while a thread waits; return the pause after that, or ``None`` after the end."""
        try:
            if self._subscription is None and not self._closed:
                self._subscription = self._connect()
            if (subscription := self._subscription) is not None:
                self._subscribe(subscription)
                while self._keeps_listening():
                    self._await_notification(subscription, wake_fd)
                    self._receive(subscription)
                    self._subscribe(subscription)
                self._receive(subscription)
        except StorageError:
            # The threads that wait must find out for themselves; perhaps there are changes once the server is back.
            self.wake()
            self._end_subscription()
            return None if self._closed else RECONNECT_SECONDS
        if not self._closed:
            return IDLE_CHECK_SECONDS
        self._end_subscription()
        return None

    def _keeps_listening(self) -> bool:
        """Return whether a thread waits; otherwise the next wait wakes the thread that listens."""
        with self._lock:
            self._listening = self._waiting_count > 0 and not self._closed
            return self._listening

    def _forget_pipe(self) -> None:
        with self._changed:
            self._pipe = None

    def _end_subscription(self) -> None:
        self._subscribed, self._listening = set(), False
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _subscribe(self, subscription: Subscription) -> None:
        """Subscribe to the channels with a recent wait."""
        now = monotonic()
        earliest = now - UNSUBSCRIBE_AFTER_SECONDS - MAX_WAIT_SECONDS
        with self._lock:
            recent = {channel for channel, at in self._last_wait.items() if not self._closed and at > earliest}
            if recent == self._subscribed:
                return
            self._subscribed &= recent  # from now on a wait for another channel wakes this thread again
        if new := subscription.subscribe(recent):
            self.notify(*new)  # changes from before the subscription
            self._recheck_at = now + self._recheck_seconds if self._recheck_seconds else 0.0
        self._subscribed = recent

    def _await_notification(self, subscription: Subscription, wake_fd: int) -> None:
        poll = select.poll()
        for descriptor in wake_fd, subscription.fd:
            poll.register(descriptor, select.POLLIN)
        seconds = self._recheck_at - monotonic() if self._recheck_at else MAX_WAIT_SECONDS
        if any(descriptor == wake_fd for descriptor, _ in poll.poll(max(seconds, 0.0) * 1000)):
            os.read(wake_fd, 4096)

    def _receive(self, subscription: Subscription) -> None:
        """Count the notifications that have arrived."""
        if self._recheck_at and monotonic() >= self._recheck_at:
            self._recheck_at = 0.0
            self.wake()
        if changed := subscription.changed_channels():
            self.notify(*changed)


def _listen(reference: "weakref.ref[Notifier]", wake_fd: int, pipe_end: int) -> None:
    """Receive the notifications of a notifier until its end; between waits the thread does not keep it alive."""
    seconds: float | None = 0.0
    while seconds is not None:
        _sleep(wake_fd, seconds)
        notifier = reference()
        seconds = None if notifier is None else notifier._listen_once(wake_fd)
        del notifier
    if (notifier := reference()) is not None:
        notifier._forget_pipe()
    os.close(wake_fd)
    os.close(pipe_end)


def _sleep(wake_fd: int, seconds: float) -> None:
    """Sleep until a byte arrives at `wake_fd`, at most `seconds`."""
    poll = select.poll()
    poll.register(wake_fd, select.POLLIN)
    if poll.poll(seconds * 1000):
        os.read(wake_fd, 4096)


class ClosedMutex:
    """Takes the place of a closed store's mutex, which every call enters first."""

    def __enter__(self) -> None:
        raise StorageError("the queue was closed")

    def __exit__(self, *args: object) -> None: ...
