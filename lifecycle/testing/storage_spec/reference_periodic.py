"""The part of the model that concerns periodic tasks."""

from collections.abc import Sequence

import attrs

from lifecycle.core.task import Task
from lifecycle.storage.base import PeriodicState, Tick

__all__ = ["ReferencePeriodic"]


@attrs.define
class ReferencePeriodic:
    """The states of periodic tasks."""

    periodic: list[PeriodicState] = attrs.field(factory=list, kw_only=True)

    def step(self, tick: Tick, tasks: Sequence[Task]) -> bool:
        """Store a tick, if the caller knows the latest one and the periodic task is not paused."""
        stored = [state for state in self.periodic if state.name == tick.name]
        known = [] if tick.before is None else [tick.before]
        if [state.ticked for state in stored] != known or any(state.paused for state in stored):
            return False
        ids = [None, *(state.task for state in stored), *(task.id for task in tasks)]
        self._store(PeriodicState(tick.name, tick.until, paused=False, task=ids[-1]))
        return True

    def periodic_states(self) -> list[PeriodicState]:
        """Return the states, by name."""
        return sorted(self.periodic)

    def pause_periodic(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task; one that is not known is not paused."""
        before = PeriodicState(name, now, paused=False, task=None)
        for state in self.periodic:
            if state.name == name:
                before = state
        if before.paused == paused:
            return False
        self._store(PeriodicState(name, now, paused, before.task))
        return True

    def _store(self, new: PeriodicState) -> None:
        self.periodic = [new, *(state for state in self.periodic if state.name != new.name)]
