"""`StorageSpec`: the specification of a storage adapter, as a Hypothesis state machine to subclass."""

import sys
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from lifecycle.storage.base import Storage
from lifecycle.testing.storage_spec.cases import SpecTestCase
from lifecycle.testing.storage_spec.machine import among
from lifecycle.testing.storage_spec.operator_rules import OperatorRules
from lifecycle.testing.storage_spec.periodic_rules import PeriodicRules
from lifecycle.testing.storage_spec.workflow_rules import WorkflowRules

__all__ = ["StorageSpec"]

_HANDLE_LIMIT: Final = 3
"""Processes that have the store open."""


class StorageSpec(WorkflowRules, OperatorRules, PeriodicRules):
    """Calls a storage adapter and a simple model in lockstep, and compares everything that can be read after each step.

    Subclass it, define how an empty store is opened, and pass its test case to pytest or unittest::

        class MyStorageSpec(StorageSpec):
            @classmethod
            def open_storage(cls):
                return MyStorage("my-server", queue=uuid4().hex)

            @classmethod
            def reopen(cls, storage):  # may be left out
                return MyStorage("my-server", queue=storage.queue)

        TestMyStorage = MyStorageSpec.TestCase

    The steps are calls of producers, workers and operators, and changes of the clock, in any order. Wrong calls are
    among them: workers crash, or settle with a stale copy of a task; the clock jumps to the exact end of a lease, or
    back. With `reopen`, calls alternate between several handles of one store. Besides the comparison with the model,
    `InvariantChecker` checks the adapter alone: each change is a transition of the table, histories replay, no task is
    lost, final states stay, no task is claimed by two workers, no outcome is accepted twice, and each verdict about a
    step of a workflow agrees with the ends of the tasks before it. Short runs come first, so that most bugs are shown
    in few steps. `StorageCases` has tests of cases that the machine reaches too seldom: very
    many due tasks, waits, the closed store.

    One run, always the same, **takes every transition of the table**, and ends attempts in every possible way, with
    retries left and without. `transition_counts` and `outcome_counts` count them in all runs, `missing()` returns the
    rest. The settings are Hypothesis's:
    ``TestMyStorage.settings = settings(TestMyStorage.settings, max_examples=1000)``. To delete what a store leaves
    behind, define a `teardown` that first calls ``super().teardown()``, which closes the store.

    One thread makes all steps. So these are not tested: that calls stay atomic when they run at the same time or are
    interrupted, that `wait` wakes other processes, speed, a full disk, a lost connection, a power cut.
    """

    TestCase = SpecTestCase()  # type: ignore[assignment]  # it has more tests than Hypothesis's

    @classmethod
    def open_storage(cls) -> Storage:
        """Open a new, empty store."""
        raise NotImplementedError

    @classmethod
    def reopen(cls, storage: Storage) -> Storage:
        """Open the same store once more, as another process would; both handles are used from then on."""
        del storage
        raise NotImplementedError

    @precondition(lambda self: self.may_stay_idle() and self._reopens and len(self.handles) < _HANDLE_LIMIT)
    @rule()
    def open_in_another_process(self) -> None:
        """Another process opens the same store."""
        self.handles.append(self.reopen(self.handles[0]))

    @property
    def _reopens(self) -> bool:
        return type(self).reopen.__func__ is not StorageSpec.reopen.__func__  # type: ignore[attr-defined]

    # Time --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.may_stay_idle() or self.must_wait())
    @rule(seconds=st.sampled_from((1.0, 3.0, 3.0, 11.0, 30.0, -1.0, -5.0)))
    def time_passes(self, seconds: float) -> None:
        """The clock advances, or steps back."""
        self.now += seconds

    @precondition(lambda self: self.change_times() and (self.may_stay_idle() or self.must_wait()))
    @rule(moment=among(lambda self: self.change_times()), seconds=st.sampled_from((0.0, 0.0, -0.5)))
    def time_reaches_a_change(self, moment: float, seconds: float) -> None:
        """The clock shows exactly the time of a change, or just before it."""
        self.now = moment + seconds

    # The end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Bring the remaining tasks to rest, and close the store."""
        try:
            # Not if Hypothesis has broken off the run: a fault found now would keep it from shrinking a counterexample.
            if self.agreed and sys.exc_info()[0] is None:
                self.run_to_rest()
                self.leave_nothing_pending()
        finally:
            for storage in self.handles:
                storage.close()
