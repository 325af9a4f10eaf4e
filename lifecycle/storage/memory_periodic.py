"""The states of periodic tasks in memory. The caller holds the adapter's lock."""

from lifecycle.storage.base import PeriodicState, Tick

__all__ = ["MemoryPeriodic"]


class MemoryPeriodic:
    """States by name."""

    def __init__(self) -> None:
        self.states: dict[str, PeriodicState] = {}

    def may_step(self, tick: Tick) -> bool:
        """Return whether a tick is the next one, and its periodic task is not paused."""
        state = self.states.get(tick.name)
        return tick.before is None if state is None else state.ticked == tick.before and not state.paused

    def step(self, tick: Tick, task: str | None) -> None:
        """Store a tick; `task`: the id of its last task."""
        state = self.states.get(tick.name)
        latest = state.task if state is not None and task is None else task
        self.states[tick.name] = PeriodicState(tick.name, tick.until, paused=False, task=latest)

    def pause(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task; return whether that changed anything."""
        state = self.states.get(name, PeriodicState(name, now, paused=False, task=None))
        if state.paused != paused:
            self.states[name] = state._replace(ticked=now, paused=paused)
        return state.paused != paused
