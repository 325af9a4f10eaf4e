"""The rules of `StorageSpec` for periodic tasks."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import MultipleResults, multiple, precondition, rule

from lifecycle.storage.base import Tick
from lifecycle.testing.storage_spec.agreement import AdapterAgreement, assert_same
from lifecycle.testing.storage_spec.machine import copies
from lifecycle.testing.storage_spec.strategies import NewTask, TaskCopy

__all__ = ["PeriodicRules"]

PERIODIC_NAMES: Final = ("P", "Q")
"""Names of periodic tasks."""


class PeriodicRules(AdapterAgreement):
    """Steps of consumers that make ticks, and of operators that pause periodic tasks."""

    @precondition(lambda self: self.free_ids())
    @rule(
        target=copies,
        name=st.sampled_from(PERIODIC_NAMES),
        stale=st.sampled_from((None, None, None, 0.0, 1000.0)),
        seconds=st.sampled_from((0.0, 0.0, 1.5, -3.0)),
        count=st.sampled_from((1, 1, 2, 0)),
        hold=st.booleans(),
    )
    def make_ticks(
        self, name: str, stale: float | None, seconds: float, count: int, hold: bool
    ) -> MultipleResults[TaskCopy]:
        """A consumer makes ticks: the next ones, or, with what it knew before (`stale`), ticks that were made."""
        known = {state.name: state.ticked for state in self.model.periodic_states()}
        tick = Tick(name, known.get(name) if stale is None else stale, self.now + seconds)
        tasks = [new.task(self.now) for new in map(NewTask, self.free_ids()[:count])]
        return multiple(*self.make_tick(tick, tasks, hold=hold))

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(name=st.sampled_from(PERIODIC_NAMES), paused=st.sampled_from((True, False, False)))
    def pause_or_resume(self, name: str, paused: bool) -> None:
        """An operator pauses a periodic task, or resumes it."""
        assert_same("pause_periodic", *self.call_both("pause_periodic", name, paused=paused, now=self.now))
