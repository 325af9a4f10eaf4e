"""`QueueSpec`: a user's tasks and handlers, in a simulated world that Hypothesis drives."""

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
from lifecycle.testing.simulation.audit import Violation
from lifecycle.testing.simulation.stepping import SimulatedProcess
from lifecycle.testing.simulation.world import World

__all__ = ["QueueSpec"]

_FAILURES: Final[dict[str, Callable[[], BaseException]]] = {
    "an error": lambda: RuntimeError("raised by QueueSpec"),
    "a timeout": TaskTimeout,
    "a lock that is taken": lambda: TaskLockedException("taken"),
    "a rate limit": lambda: RateLimitExceeded("limit", 5.0, retry=False),
    "RetryTask": RetryTask,
    "CancelExecution": CancelExecution,
    "an interruption": TaskInterrupted,
}
_UNFINISHED: Final = (*LIFECYCLE.of_kind(Kind.WAITING), *LIFECYCLE.of_kind(Kind.RUNNING))
_numbers = st.integers(0, 7)


class QueueSpec(RuleBasedStateMachine):
    """A Hypothesis machine to subclass: your tasks run on simulated workers, and every possible failure happens.

    Define the queue, a rule for each call of your program, and the invariants that must hold::

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

    The workers run the real code, one step at a time, on a store in memory and a virtual clock. The queue's own store
    is not touched. One more process makes the ticks of periodic tasks. Hypothesis decides which process takes how many
    steps, which one crashes or freezes, how the next function fails (before its work, or after it), when time passes,
    and which task is revoked, restored, canceled or retried. After each step the signals are compared with the table,
    and your invariants are checked. At the end all tasks come to rest, and the world is audited (`World.audit`); then
    `at_rest` may check your final conditions.

    Not simulated: real processes and stores (`StorageSpec` tests stores), two functions at the same time (a function
    runs in one step, unless it calls the queue), the duration of anything.
    """

    workers: ClassVar[int] = 2
    """Number of workers, each a process of its own."""

    transition_counts: ClassVar[Counter[tuple[str | None, str]]]
    """(state, next state) → number of times a task of this specification took that transition."""

    outcome_counts: ClassVar[Counter[tuple[str, bool]]]
    """(signal of the end of an attempt, whether retries were left) → number of times handlers received that."""

    def open_queue(self) -> TaskQueue:
        """Return the queue to test, with its tasks and handlers; its store is not touched."""
        raise NotImplementedError

    def at_rest(self) -> None:
        """Assert your final conditions: called at the end of a run, when all tasks are at rest."""

    @classmethod
    def missing(cls) -> list[str]:
        """Return the transitions, and the ends of an attempt, that no run of this specification has reached."""
        rows = {(row.source and row.source.name, row.target.name) for row in LIFECYCLE.transitions}
        ends = [state.signal for state in LIFECYCLE.targets(EXECUTING)]
        return [
            f"{source or '(new)'} → {target}"
            for source, target in rows
            if (source, target) not in cls.transition_counts
        ] + [
            f"{signal} with {'' if left else 'no '}retries left"
            for signal in ends
            for left in (True, False)
            if (signal, left) not in cls.outcome_counts
        ]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.transition_counts, cls.outcome_counts = Counter(), Counter()

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.open_queue()
        self.world = World(self.queue)
        self.clock = self.world.clock
        self._process_count = 0
        for _ in range(self.workers):
            self._add_worker()
        self.world.add_recoverer("recoverer").start_replacement = lambda: self.world.add_recoverer(
            self._name("recoverer")
        )

        if self.queue.periodic_tasks():
            self._add_ticker()

    def _add_ticker(self) -> None:
        ticker = self.world.add_ticker(self._name("ticker"), self.queue._ticker.tasks)
        ticker.start_replacement = self._add_ticker

    def call(self, call: Callable[[], object]) -> None:
        """Make a call, such as ``tasks.add(1, 2)``, in a process of its own, which may freeze or crash meanwhile."""
        self.world.add_process(self._name("caller"), lambda _: call())

    def _name(self, kind: str) -> str:
        self._process_count += 1
        return f"{kind} {self._process_count}"

    def _add_worker(self) -> None:
        self.world.add_worker(self._name("worker")).start_replacement = self._add_worker

    def _choose(self, number: int, *, frozen: bool = False) -> SimulatedProcess | None:
        able = [process for process in self.world.processes.values() if not (process.ended or process.crashed)]
        able = [process for process in able if frozen or not process.frozen]
        return able[number % len(able)] if able else None

    # Rules ---------------------------------------------------------------------------------------------------------

    @rule(number=_numbers, steps=st.sampled_from((1, 2, 5, 50)))
    def a_process_takes_steps(self, number: int, steps: int) -> None:
        """A worker, a caller or the recoverer takes a number of steps."""
        process = self._choose(number)
        if process is not None:
            process.step(steps)

    @rule()
    def all_processes_run(self) -> None:
        """Every process runs until it has nothing to do, callers first."""
        for process in reversed(list(self.world.processes.values())):
            if process.can_run:
                process.step(50)

    @rule(number=_numbers)
    def a_process_crashes(self, number: int) -> None:
        """A process crashes, and another one is started in its place."""
        process = self._choose(number, frozen=True)
        if process is not None:
            self.world.crash(process)
            if process.start_replacement is not None:
                process.start_replacement()

    @rule(number=_numbers)
    def a_process_freezes_or_resumes(self, number: int) -> None:
        """A process freezes, or a frozen process can run again."""
        process = self._choose(number, frozen=True)
        if process is not None:
            self.world.freeze(process, not process.frozen)

    @rule(number=_numbers, function=_numbers)
    def a_process_has_another_version(self, number: int, function: int) -> None:
        """A process does not know one of the functions, or knows all again: its tasks wait for another process."""
        process = self._choose(number)
        if process is not None:
            names = sorted(self.queue.engine.functions)
            process.unknown = frozenset() if process.unknown or not names else frozenset({names[function % len(names)]})

    @rule(failure=st.sampled_from(sorted(_FAILURES)), after=st.booleans(), at_once=st.booleans())
    def the_next_function_fails(self, failure: str, after: bool, at_once: bool) -> None:
        """The next function fails, instead of its work or after it; `at_once`: all processes run now."""
        self.world.failures.append((_FAILURES[failure](), after))
        if at_once:
            self.all_processes_run()

    @rule(seconds=st.sampled_from((1, 10, 100, 1000)))
    def time_passes(self, seconds: int) -> None:
        """Time passes, and the heartbeats of all running processes are sent."""
        self.world.advance(seconds)

    @rule()
    def heartbeats_stop(self) -> None:
        """Time passes without heartbeats: all leases lapse."""
        self.world.advance(2 * self.queue.engine.lease, heartbeats=False)

    @rule(number=_numbers, once=st.booleans(), seconds=st.sampled_from((None, 10)))
    def a_task_is_revoked(self, number: int, once: bool, seconds: int | None) -> None:
        """One of the newest tasks is revoked."""
        for task in _chosen(self.world.storage.tasks(limit=8), number):
            self.queue.revoke_by_id(task.id, None if seconds is None else timedelta(seconds=seconds), once)

    @rule(number=_numbers)
    def a_task_is_restored(self, number: int) -> None:
        """One of the newest tasks is restored."""
        for task in _chosen(self.world.storage.tasks(limit=8), number):
            self.queue.restore_by_id(task.id)

    @rule(number=_numbers)
    def a_task_is_canceled(self, number: int) -> None:
        """Cancellation of a waiting or running task is requested; a running function ends, and is not retried."""
        for task in _chosen(self.world.storage.tasks(_UNFINISHED, limit=8), number):
            try:
                self.queue.cancel(task.id)
            except IllegalTransition as error:  # no process has run since the task was read
                raise Violation(str(error)) from error

    @rule(number=_numbers)
    def an_operator_retries(self, number: int) -> None:
        """An operator retries a task that rests in an outcome, after its signal."""
        resting = [
            one
            for one in self.world.storage.tasks(LIFECYCLE.of_kind(Kind.OUTCOME), 8)
            if self.world.auditor.is_announced(one)
        ]
        for task in _chosen(resting, number):
            try:
                self.queue.retry(task.id)
            except IllegalTransition as error:  # no process has run since the task was read
                raise Violation(str(error)) from error

    # Checks --------------------------------------------------------------------------------------------------------

    @invariant()
    def no_promise_is_broken(self) -> None:
        """Signals were stored before, in order; no attempt began twice."""
        self.world.raise_faults()

    def teardown(self) -> None:
        """Bring all tasks to rest, and audit the world, unless the run has failed already."""
        try:
            if sys.exc_info()[0] is None:
                self.world.failures.clear()
                self.world.finish()
                self.world.audit()
                self.at_rest()
                type(self).transition_counts.update(self.world.transition_counts())
                type(self).outcome_counts.update(self.world.auditor.outcome_counts)
        finally:
            self.world.close()


def _chosen(tasks: list[Task], number: int) -> list[Task]:
    """Return one of the tasks in a list, or an empty list."""
    return [tasks[number % len(tasks)]] if tasks else []
