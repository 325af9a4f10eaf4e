"""`QueueSpec`: a user's tasks and handlers, in a world in which Hypothesis decides what happens next."""

import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import EXECUTING, LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.errors import (
    CancelExecution,
    RateLimitExceeded,
    RetryTask,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
)
from lifecycle.queue import TaskQueue
from lifecycle.testing.simulation.world import Actor, Violation, World

__all__ = ["QueueSpec"]

_TROUBLES: Final[dict[str, Callable[[], BaseException]]] = {
    "an error": lambda: RuntimeError("this is the specification's doing"),
    "a timeout": TaskTimeout,
    "a lock that is taken": lambda: TaskLockedException("taken"),
    "a rate limit": lambda: RateLimitExceeded("limit", 5.0, retry=False),
    "RetryTask": RetryTask,
    "CancelExecution": CancelExecution,
    "an interruption": TaskInterrupted,
}
_AFOOT: Final = (*LIFECYCLE.of_kind(Kind.WAITING), *LIFECYCLE.of_kind(Kind.RUNNING))
_who = st.integers(0, 7)


class QueueSpec(RuleBasedStateMachine):
    """A machine for Hypothesis, to be subclassed: your tasks run on simulated workers, and all happens that can happen.

    Name the queue, add a rule for each call that your program makes, and the invariants that have to hold::

        class Invoices(QueueSpec):
            def open_queue(self):
                return tasks.queue

            @rule(number=st.integers(0, 3))
            def bill(self, number):
                self.call(lambda: tasks.bill(number))

            @invariant()
            def sent_once(self):
                assert all(count == 1 for count in tasks.sent.values())

        TestInvoices = Invoices.TestCase

    The workers run the real code, one step at a time, on a store in memory and a virtual clock; the queue's own store
    is not touched. Hypothesis decides who goes on, and how far, whose process crashes or freezes, what befalls the next
    body (before it, or when it has done its work), when time passes, what is revoked, restored, called off and retried.
    After each step the signals are held against the table, and your invariants; at the end all comes to rest, and the
    world is audited (`World.audit`); then `at_rest` may check what must be so in the end.

    What it does not show: what real processes and stores do (that is `StorageSpec`'s and the consumer's business), two
    bodies of which each is in the middle (a body runs whole, unless it calls the queue), how long anything takes.
    """

    workers: ClassVar[int] = 2
    """How many workers there are, each a process of its own."""

    taken: ClassVar[Counter[tuple[str | None, str]]]
    """(state, next state) → how often a task of this specification went that way."""

    ended: ClassVar[Counter[tuple[str, bool]]]
    """(signal of what an attempt ended in, whether it had retries left) → how often it was heard."""

    def open_queue(self) -> TaskQueue:
        """The queue that is tried, with its tasks and handlers; its store is left alone."""
        raise NotImplementedError

    def at_rest(self) -> None:
        """Called at the end, when every task has come to rest: assert what must be so then."""

    @classmethod
    def missing(cls) -> list[str]:
        """Which rows of the table, and which ends of an attempt, no run of this specification has come to."""
        rows = {(row.source and row.source.name, row.target.name) for row in LIFECYCLE.transitions}
        ends = [state.signal for state in LIFECYCLE.targets(EXECUTING)]
        return [f"{source or '(new)'} → {target}" for source, target in rows if (source, target) not in cls.taken] + [
            f"{signal} with {'' if left else 'no '}retries left"
            for signal in ends
            for left in (True, False)
            if (signal, left) not in cls.ended
        ]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.taken, cls.ended = Counter(), Counter()

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.open_queue()
        self.world = World(self.queue)
        self.clock = self.world.clock
        self._number = 0
        for _ in range(self.workers):
            self._hire()
        self.world.recoverer("recoverer").replacement = lambda: self.world.recoverer(self._name("recoverer"))

    def call(self, call: Callable[[], object]) -> None:
        """Have a process of its own make a call, `tasks.add(1, 2)` say: it may be held up, or crash, on its way."""
        self.world.add(self._name("caller"), lambda _: call())

    def _name(self, kind: str) -> str:
        self._number += 1
        return f"{kind} {self._number}"

    def _hire(self) -> None:
        self.world.hire(self._name("worker")).replacement = self._hire

    def _one(self, who: int, *, frozen: bool = False) -> Actor | None:
        able = [actor for actor in self.world.actors.values() if not (actor.over or actor.crashed)]
        able = [actor for actor in able if frozen or not actor.frozen]
        return able[who % len(able)] if able else None

    # What happens --------------------------------------------------------------------------------------------------

    @rule(who=_who, steps=st.sampled_from((1, 2, 5, 50)))
    def somebody_goes_on(self, who: int, steps: int) -> None:
        """A worker, a caller or the recoverer goes on, over so many operations."""
        actor = self._one(who)
        if actor is not None:
            actor.step(steps)

    @rule()
    def all_go_on(self) -> None:
        """Everybody does what there is to do, callers first."""
        for actor in reversed(list(self.world.actors.values())):
            if actor.can_go_on:
                actor.step(50)

    @rule(who=_who)
    def somebody_crashes(self, who: int) -> None:
        """A process is killed, and another one started in its place."""
        actor = self._one(who, frozen=True)
        if actor is not None:
            self.world.crash(actor)
            if actor.replacement is not None:
                actor.replacement()

    @rule(who=_who)
    def somebody_freezes_or_wakes(self, who: int) -> None:
        """A process is stopped where it is, or goes on again."""
        actor = self._one(who, frozen=True)
        if actor is not None:
            self.world.freeze(actor, not actor.frozen)

    @rule(trouble=st.sampled_from(sorted(_TROUBLES)), after=st.booleans(), soon=st.booleans())
    def the_next_body_meets(self, trouble: str, after: bool, soon: bool) -> None:
        """The next body that runs ends so: instead of running, or after it has done its work; `soon`: all go on now."""
        self.world.troubles.append((_TROUBLES[trouble](), after))
        if soon:
            self.all_go_on()

    @rule(seconds=st.sampled_from((1, 10, 100, 1000)))
    def time_passes(self, seconds: int) -> None:
        """Time passes, and the hearts of all who live beat meanwhile."""
        self.world.advance(seconds)

    @rule()
    def hearts_stand_still(self) -> None:
        """Time passes, and no heart beats: all leases lapse."""
        self.world.advance(2 * self.queue.engine.lease, beats=False)

    @rule(which=_who, once=st.booleans(), seconds=st.sampled_from((None, 10)))
    def a_task_is_revoked(self, which: int, once: bool, seconds: int | None) -> None:
        """One of the last tasks."""
        for task in _chosen(self.world.store.tasks(limit=8), which):
            self.queue.revoke_by_id(task.id, None if seconds is None else timedelta(seconds=seconds), once)

    @rule(which=_who)
    def a_task_is_restored(self, which: int) -> None:
        """One of the last tasks."""
        for task in _chosen(self.world.store.tasks(limit=8), which):
            self.queue.restore_by_id(task.id)

    @rule(which=_who)
    def a_task_is_called_off(self, which: int) -> None:
        """One of those that wait or run; a body that runs does so whole, and is not followed by another attempt."""
        for task in _chosen(self.world.store.tasks(_AFOOT, limit=8), which):
            try:
                self.queue.cancel(task.id)
            except IllegalTransition as error:  # nobody else acts meanwhile
                raise Violation(str(error)) from error

    @rule(which=_who)
    def an_operator_retries(self, which: int) -> None:
        """One of the tasks that rest in an outcome, and of which that was heard."""
        resting = [one for one in self.world.store.tasks(LIFECYCLE.of_kind(Kind.OUTCOME), 8) if self.world.told(one)]
        for task in _chosen(resting, which):
            try:
                self.queue.retry(task.id)
            except IllegalTransition as error:  # nobody else acts meanwhile
                raise Violation(str(error)) from error

    # What must be so -----------------------------------------------------------------------------------------------

    @invariant()
    def the_law_holds(self) -> None:
        """What was announced was stored before, in order; no attempt began twice."""
        if self.world.faults:
            raise Violation("\n".join(self.world.faults))

    def teardown(self) -> None:
        """Bring all to rest, and audit it, unless something is wrong already."""
        try:
            if sys.exc_info()[0] is None:
                self.world.troubles.clear()
                self.world.finish()
                self.world.audit()
                self.at_rest()
                type(self).taken.update(self.world.taken())
                type(self).ended.update(self.world.ended)
        finally:
            self.world.close()


def _chosen(tasks: list[Task], which: int) -> list[Task]:
    """One of them, if there are any."""
    return [tasks[which % len(tasks)]] if tasks else []
