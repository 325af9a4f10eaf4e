"""The environment of an engine: store, clocks, heartbeat, name of the process. Simulations replace it whole."""

from collections.abc import Callable, MutableMapping
from typing import Protocol

import attrs

from lifecycle.clock import Clock, monotonic
from lifecycle.execution.process_name import ProcessName
from lifecycle.storage.base import Storage

__all__ = ["Environment", "LeaseKeeper"]


class LeaseKeeper(Protocol):
    """Keeps the leases of workers alive: see `Heartbeat`."""

    def keep(self, worker: str) -> None:
        """Prolong the leases of `worker` from now on. Counts: as many `drop` calls end it."""
        ...

    def drop(self, worker: str) -> None:
        """Undo one `keep`."""
        ...

    def catch_up(self) -> None:
        """Prolong the leases now if that is late. Raises `StorageError`."""
        ...

    def close(self) -> None:
        """End."""
        ...


@attrs.frozen
class Environment:
    """Everything outside the process's own memory that an engine uses."""

    storage: Storage
    clock: Clock
    monotonic: Callable[[], float] = monotonic
    """Seconds that only grow: for decisions that a clock which is set must not change."""
    process_name: Callable[[], str] = attrs.field(factory=ProcessName)
    """The name of the process that acts, as it stands in histories."""
    lease_keeper: LeaseKeeper | None = None
    """Keeps the leases of this process's workers alive; ``None``: the engine's own heartbeat, a thread."""
    running: MutableMapping[str, object] = attrs.field(factory=dict)
    """Id of each task whose function runs in this process → its worker."""
