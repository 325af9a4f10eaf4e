"""The state of the machine of `StorageSpec`, and the choices that its rules have in each state."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine

from lifecycle.core import policies
from lifecycle.core.policies import Move
from lifecycle.core.table import EXECUTING, LIFECYCLE, START, Kind
from lifecycle.storage.base import Storage
from lifecycle.testing.storage_spec.invariants import InvariantChecker
from lifecycle.testing.storage_spec.reference_storage import ReferenceStorage, is_waiting
from lifecycle.testing.storage_spec.strategies import ENDING_TRIGGERS, IDS, LEASE_SECONDS, Ending, NewTask, TaskCopy

__all__ = ["STORED_STATES", "SpecMachine", "among", "copies"]

T = TypeVar("T")
STORED_STATES: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)

_IDLE_STEP_LIMIT: Final = 2
"""Steps in a row that may move no task."""

copies: Final[Bundle[TaskCopy]] = Bundle("copies")
"""All copies of tasks that any process may still have."""


def among(choose: Callable[[Any], Sequence[T]]) -> st.SearchStrategy[T]:
    """Draw one of the values that `choose` returns for the machine; the rule's precondition says that there are any."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choose(machine)))


class SpecMachine(RuleBasedStateMachine):
    """A Hypothesis machine with an adapter and the model. It has no rules."""

    transition_counts: ClassVar[Counter[tuple[str | None, str, str]]]
    """(source, trigger, target) → number of times a task of this adapter took that transition."""

    outcome_counts: ClassVar[Counter[tuple[str, bool]]]
    """(trigger that ended an attempt, whether retries were left) → number of times the store accepted that."""

    @classmethod
    def open_storage(cls) -> Storage:
        """Open a new, empty store."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> list[str]:
        """Return the transitions, and the ends of an attempt, that no run of this class has reached."""
        rows = [(row.source and row.source.name, row.trigger, row.target.name) for row in LIFECYCLE.transitions]
        ends = [(trigger, left) for trigger in ENDING_TRIGGERS for left in (True, False)]
        return [
            f"{trigger}: {source or '(new)'} → {target}"
            for source, trigger, target in rows
            if (source, trigger, target) not in cls.transition_counts
        ] + [
            f"{trigger} with {'' if left else 'no '}retries left"
            for trigger, left in ends
            if (trigger, left) not in cls.outcome_counts
        ]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.transition_counts, cls.outcome_counts = Counter(), Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model = ReferenceStorage()
        self.checker = InvariantChecker(self.transition_counts)
        self.handles = [self.open_storage()]
        """The same store, opened as by several processes."""
        self.call_count = 0
        self.running: dict[str, TaskCopy] = {}
        """Task id → the task as its worker knows it, as far as workers know; some may have lost their lease."""
        self.held: dict[str, TaskCopy] = {}
        """Task id → a waiting task that its process holds until the announcement."""
        self.seqs: dict[int, int] = {}
        """The model's `seq` → the adapter's `seq` of the same task."""
        self.deletes = False
        """True if the last step may have deleted tasks."""
        self.agreed = False
        self.idle_steps = 0
        """Steps since the last move of a task."""
        self._versions: tuple[int, list[int]] = (0, [])
        self._missed_wakeups: list[str] = []

    # Arguments -----------------------------------------------------------------------------------------------------

    def hold_until(self, hold: bool) -> float | None:
        """Return the end of a hold that begins now, or ``None``."""
        return self.now + LEASE_SECONDS if hold else None

    def ending_move(
        self, copy: TaskCopy, end: Ending, *, hold: bool = False, follow_ups: Sequence[NewTask] = ()
    ) -> Move:
        """Return the move that ends an attempt."""
        return policies.settle(
            copy.task,
            end.outcome(self.now),
            self.now,
            worker=str(copy.task.worker),
            hold_until=self.hold_until(hold),
            max_interruptions=end.max_interruptions,
            follow_ups=tuple(new.task(self.now) for new in follow_ups),
        )

    def stale_move(self, copy: TaskCopy, end: Ending) -> Move | None:
        """Return a move that a process with a stale copy may try, or ``None``; a current copy has none if it waits."""
        task = copy.task
        if task.state == EXECUTING:
            return self.ending_move(copy, end)
        if task.state in policies.OUTCOMES:
            return policies.retry(task, self.now, worker="operator")
        row = self.model.row(task.id)
        current = row is not None and (row.task.seq, row.task.version) == (copy.model_seq, task.version)
        if is_waiting(task) and not current:
            return policies.claimed(task, START, "thief", self.now, LEASE_SECONDS)
        return None

    # Choices ---------------------------------------------------------------------------------------------------------

    def may_stay_idle(self) -> bool:
        """Return whether the next step may move no task: such steps would otherwise be most of a run."""
        return bool(self.model.rows) and self.idle_steps < _IDLE_STEP_LIMIT

    def can_claim(self) -> bool:
        """Return whether a claim would find a task."""
        return any(row.rank is not None or (row.due_at or self.now + 1) <= self.now for row in self.model.rows)

    def must_wait(self) -> bool:
        """Return whether no process can move a task before time has passed."""
        is_blocked = bool(self.model.rows) and not self.can_claim() and not self.running
        return is_blocked and self.idle_steps < 2 * _IDLE_STEP_LIMIT

    def lease_ends(self) -> list[float]:
        """Return the ends of all leases and holds."""
        return [row.task.lease for row in self.model.rows if row.task.lease is not None]

    def free_ids(self) -> tuple[str, ...]:
        """Return the ids of no stored task."""
        return tuple(task_id for task_id in IDS if self.model.row(task_id) is None)

    def unawaited_ids(self) -> tuple[str, ...]:
        """Return the ids of no stored task, without those to which a stored task reports."""
        awaited = {one for row in self.model.rows if row.task.step is not None for one in row.task.step.dependents}
        return tuple(task_id for task_id in self.free_ids() if task_id not in awaited)

    def task_ids(self, *kinds: Kind) -> list[str]:
        """Return the ids of the stored tasks, or of those in states of these kinds."""
        tasks = [row.task for row in self.model.rows]
        return [task.id for task in tasks if not kinds or LIFECYCLE.state(str(task.state)).kind in kinds]

    def change_times(self) -> list[float]:
        """Return all other times at which something becomes due or ends."""
        tasks = [row.task for row in self.model.rows]
        times = {time for task in tasks for time in (task.eta, task.expires, task.lease)}
        times |= {lock.until for lock in self.model.held_locks}
        times |= {revocation.until for revocation in self.model.revocations.values()}
        return sorted(time for time in times - {self.now} if time is not None)
