"""The thread that listens for changes of other processes: it runs when there is something to do, and no wait is missed."""

import os
import threading
from contextlib import closing

import pytest

from lifecycle.storage.base import Channel
from lifecycle.storage.notifications import Notifier

PATIENCE = 20


class PipeSubscription:
    """A subscription to notifications that the test writes into a pipe."""

    def __init__(self):
        self.fd, self._end = os.pipe()
        self.subscribed, self._pending = [], []
        self.change = threading.Condition()

    def publish(self, channel):
        """Send a notification, as another process does."""
        self._pending.append(channel)
        os.write(self._end, b".")

    def subscribe(self, channels):
        """Note the channels; none counts as new, so that only notifications end waits."""
        with self.change:
            self.subscribed.append(set(channels))
            self.change.notify_all()
        return ()

    def changed_channels(self):
        """Return what was published."""
        found, self._pending = self._pending, []
        if found:
            os.read(self.fd, len(found))
        return found

    def await_channels(self, *channels):
        """Wait until these channels are subscribed to."""
        with self.change:
            assert self.change.wait_for(lambda: self.subscribed[-1:] == [set(channels)], PATIENCE)

    def close(self):
        """Close the pipe."""
        os.close(self.fd)
        os.close(self._end)


@pytest.fixture
def subscription():
    """The subscription of the notifier."""
    return PipeSubscription()


@pytest.fixture
def notifier(subscription, monkeypatch):
    """A notifier whose thread listens for work, as a thread of the test waits for it; nothing happens by time alone."""
    for name in "IDLE_CHECK_SECONDS", "MAX_WAIT_SECONDS":
        monkeypatch.setattr(f"lifecycle.storage.notifications.{name}", 10 * PATIENCE)
    with closing(Notifier(lambda: subscription)) as notifier:
        waiting = threading.Thread(target=notifier.wait, args=(Channel.WORK, 0, PATIENCE))
        waiting.start()
        subscription.await_channels(Channel.WORK)
        yield notifier
        notifier.wake()
        waiting.join()


def test_waits_of_a_channel_that_is_listened_to_do_not_wake_the_thread(notifier, subscription, monkeypatch):
    """While the thread listens to a channel, waits for the channel cost it nothing."""
    assert not notifier.wait(Channel.OUTCOME, 0, 0)
    subscription.await_channels(*Channel)
    while notifier._subscribed != set(Channel):
        pass
    wakes = []
    monkeypatch.setattr(notifier, "_wake_thread", lambda: wakes.append(True))
    for _ in range(100):
        assert not notifier.wait(Channel.OUTCOME, 0, 0)
    monkeypatch.undo()
    assert wakes == []
    assert subscription.subscribed == [{Channel.WORK}, set(Channel)]


def test_each_wait_hears_of_a_change_of_another_process(notifier, subscription):
    """A wait ends with a notification, whether the thread listens at its beginning, sleeps, or goes to sleep."""
    notifier.wake()  # the only wait ends: the thread goes to sleep, sooner or later
    for number in range(1, 200):
        channel = list(Channel)[number % 2]
        generation = notifier.generation(channel)
        ended = []
        waiting = threading.Thread(target=lambda: ended.append(notifier.wait(channel, generation, PATIENCE)))  # noqa: B023
        waiting.start()
        with subscription.change:
            assert subscription.change.wait_for(lambda: channel in subscription.subscribed[-1], PATIENCE)  # noqa: B023
        subscription.publish(channel)
        waiting.join(PATIENCE)
        assert ended == [True]
        generation = notifier.generation(channel)
        subscription.publish(channel)  # nobody waits: the thread goes to sleep after it
        while notifier.generation(channel) == generation:
            pass
