"""The kinds of workers there are."""

from collections.abc import Mapping
from typing import Final, Protocol

from consumer.post import Hand, Post, Terms
from consumer.threads import ThreadHand
from lifecycle import TaskQueue

__all__ = ["KINDS", "Kind"]


class Kind(Protocol):
    """One kind of workers."""

    renews_all: bool
    """Is it the consumer's whole process that is started again when they have run enough tasks?"""

    def check(self, queue: TaskQueue, terms: Terms) -> None:
        """Raise `ConfigurationError` if workers of this kind cannot run this queue's tasks."""
        ...

    def hands(self, terms: Terms) -> int:
        """How many of them it takes."""
        ...

    def hire(self, post: Post, name: str) -> Hand:
        """A new one."""
        ...


class _Threads:
    """Any function, as it is."""

    renews_all = True

    def check(self, queue: TaskQueue, terms: Terms) -> None:
        """Nothing is asked of a queue."""

    def hands(self, terms: Terms) -> int:
        return terms.workers

    def hire(self, post: Post, name: str) -> Hand:
        return ThreadHand(post, name)


KINDS: Final[Mapping[str, Kind]] = {"thread": _Threads()}
"""By name."""
