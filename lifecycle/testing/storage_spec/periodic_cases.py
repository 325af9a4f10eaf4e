"""The tests of `StorageSpec.TestCase` that are about periodic tasks."""

from typing import Final

from lifecycle.core.table import QUEUED
from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, PeriodicState, Tick
from lifecycle.testing.storage_spec.claim_order_cases import ClaimOrderCases
from lifecycle.testing.storage_spec.invariants import require

__all__ = ["PeriodicCases"]

_ACTOR: Final = Actor("consumer")
_NAME: Final = "clean up"


class PeriodicCases(ClaimOrderCases):
    """The tests of the ticks that every adapter keeps."""

    def test_tick_is_accepted_from_one_process(self) -> None:
        """The first of the processes that have read the same moment makes the tick; all others change nothing."""
        storage = self.opened()
        for before, until in (None, 5.5), (5.5, 1e9 + 0.1):
            for place in range(2):
                task = Task(f"{until}/{place}", "add")
                moves = storage.tick(Tick(_NAME, before, until), [task], 5.0, _ACTOR)
                require((moves is None) == (place > 0), f"call {place} with {before} is answered by {moves}")
        state = PeriodicState(_NAME, 1e9 + 0.1, paused=False, task=f"{1e9 + 0.1}/0")
        require(storage.periodic_states() == [state], f"the states are {storage.periodic_states()}")
        require(storage.counts() == {QUEUED.name: 2}, f"there are {storage.counts()}")

    def test_paused_periodic_task_has_no_ticks(self) -> None:
        """A tick of a paused task is refused, also with the right moment; a resumed task goes on from then."""
        storage = self.opened()
        require(not storage.pause_periodic(_NAME, paused=False, now=1.0), "a task that is not known is not paused")
        require(storage.pause_periodic(_NAME, paused=True, now=2.0), "the task was not paused")
        require(not storage.pause_periodic(_NAME, paused=True, now=3.0), "the task is paused already")
        require(storage.tick(Tick(_NAME, 2.0, 4.0), [], 4.0, _ACTOR) is None, "a paused task has a tick")
        require(storage.pause_periodic(_NAME, paused=False, now=5.0), "the task is paused")
        require(storage.tick(Tick(_NAME, 5.0, 6.0), [], 6.0, _ACTOR) == [], "a resumed task has no tick")

    def test_flush_forgets_periodic_tasks(self) -> None:
        """A queue that was emptied has no states of periodic tasks."""
        storage = self.opened()
        storage.tick(Tick(_NAME, None, 1.0), [], 1.0, _ACTOR)
        storage.flush()
        require(storage.periodic_states() == [], "a state has survived the flush")
        require(storage.tick(Tick(_NAME, None, 1.0), [], 1.0, _ACTOR) == [], "the first tick is refused")
