"""The rules of `StorageSpec` for operators, and for tasks that use locks."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import MultipleResults, multiple, precondition, rule

from lifecycle.core import policies
from lifecycle.core.table import Kind
from lifecycle.storage.base import Lock, RevocationTarget
from lifecycle.testing.storage_spec import strategies as values
from lifecycle.testing.storage_spec.agreement import AdapterAgreement, assert_same
from lifecycle.testing.storage_spec.machine import STORED_STATES, among, copies
from lifecycle.testing.storage_spec.reference_storage import fields
from lifecycle.testing.storage_spec.strategies import FUNCTIONS, IDS, WORKERS, RevocationPeriod, TaskCopy

__all__ = ["OperatorRules"]


def _by_id(ids: Sequence[str]) -> list[RevocationTarget]:
    return [RevocationTarget(function=False, key=task_id) for task_id in ids]


class OperatorRules(AdapterAgreement):
    """Steps of operators, and of tasks that use locks."""

    @precondition(lambda self: self.task_ids(Kind.OUTCOME))
    @rule(target=copies, task=among(lambda self: self.task_ids(Kind.OUTCOME)), hold=st.booleans())
    def retry(self, task: str, hold: bool) -> MultipleResults[TaskCopy]:
        """An operator retries a task at rest."""
        copy = self.read(task)
        move = policies.retry(copy.task, self.now, worker="operator", hold_until=self.hold_until(hold))
        self.exchange([(copy, move)])
        return multiple(copy.snapshot())

    @precondition(lambda self: self.may_stay_idle() and self.task_ids(Kind.RUNNING))
    @rule(task=among(lambda self: self.task_ids(Kind.RUNNING)))
    def cancel_running(self, task: str) -> None:
        """An operator requests the cancellation of a running task."""
        assert_same("cancel", *self.call_both("cancel", task))

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(task=st.sampled_from(IDS))
    def cancel_any(self, task: str) -> None:
        """An operator requests the cancellation of a task in any state, or of no task."""
        assert_same("cancel", *self.call_both("cancel", task))

    @precondition(lambda self: self.may_stay_idle() and self.task_ids(Kind.WAITING, Kind.RUNNING))
    @rule(task=among(lambda self: self.task_ids(Kind.WAITING, Kind.RUNNING)), until=values.revocation_periods())
    def revoke_waiting_or_running(self, task: str, until: RevocationPeriod) -> None:
        """An operator revokes a waiting or running task."""
        self.call_both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(lambda self: self.may_stay_idle() and self.free_ids())
    @rule(task=among(lambda self: self.free_ids()), until=values.revocation_periods())
    def revoke_in_advance(self, task: str, until: RevocationPeriod) -> None:
        """An operator revokes a task before it is enqueued."""
        self.call_both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(task=st.sampled_from(IDS), until=values.revocation_periods())
    def revoke_any(self, task: str, until: RevocationPeriod) -> None:
        """An operator revokes a task in any state, or no task."""
        self.call_both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(name=st.sampled_from(FUNCTIONS), until=values.revocation_periods())
    def revoke_function(self, name: str, until: RevocationPeriod) -> None:
        """An operator revokes all tasks of a function, or the next one."""
        self.call_both("revoke", RevocationTarget(function=True, key=name), until.revocation(self.now), self.now)

    @precondition(lambda self: self.may_stay_idle() and (self.model.revocations or self.task_ids(Kind.FINAL)))
    @rule(what=among(lambda self: [*self.model.revocations, *_by_id(self.task_ids(Kind.FINAL))]))
    def restore(self, what: RevocationTarget) -> None:
        """An operator removes a revocation, or tries it for a task in a final state."""
        assert_same("restore", *self.call_both("restore", what, self.now))

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(
        name=st.sampled_from("LM"),
        owner=st.sampled_from("xy"),
        seconds=st.sampled_from((20.0, 5.0)),
        worker=st.none() | st.sampled_from(WORKERS),
    )
    def lock(self, name: str, owner: str, seconds: float, worker: str | None) -> None:
        """A process takes a lock."""
        assert_same("lock", *self.call_both("lock", Lock(name, owner, self.now + seconds, worker), self.now))

    @precondition(lambda self: self.may_stay_idle() and self.running)
    @rule(
        name=st.sampled_from("LM"),
        seconds=st.sampled_from((500.0, 20.0)),
        task=among(lambda self: sorted(self.running)),
    )
    def lock_within_task(self, name: str, seconds: float, task: str) -> None:
        """A running task takes a lock."""
        worker = self.running[task].task.worker
        assert_same("lock", *self.call_both("lock", Lock(name, task, self.now + seconds, worker, task), self.now))

    @precondition(lambda self: self.may_stay_idle() and self.model.held_locks)
    @rule(name=st.sampled_from("LM"), owner=st.sampled_from("xy"))
    def unlock(self, name: str, owner: str) -> None:
        """A process frees a lock, which may be another's."""
        assert_same("unlock", *self.call_both("unlock", name, owner))

    @precondition(lambda self: self.may_stay_idle() and self.model.held_locks)
    @rule(names=st.none() | st.lists(st.sampled_from("LM"), max_size=2))
    def flush_locks(self, names: list[str] | None) -> None:
        """An operator frees locks of any owner."""
        assert_same("flush_locks", *self.call_both("flush_locks", names))

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(target=copies, task=among(lambda self: self.task_ids()))
    def get(self, task: str) -> TaskCopy:
        """A process reads a task, and keeps the copy."""
        return self.read(task)

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(
        states=st.none() | st.lists(st.sampled_from(STORED_STATES), max_size=4),
        limit=st.integers(0, 3),
        before=st.runner().flatmap(lambda self: st.sampled_from((None, *self.task_ids()))),
        name=st.none() | st.sampled_from((*FUNCTIONS, "no function")),
        since=st.runner().flatmap(
            lambda self: st.sampled_from((None, self.now, *(row.task.enqueued_at for row in self.model.rows)))
        ),
        text=st.sampled_from(("", "?", "*", "%", "_", "[a-h]", *IDS)),
    )
    def list_page(
        self,
        states: list[str] | None,
        limit: int,
        before: str | None,
        name: str | None,
        since: float | None,
        text: str,
    ) -> None:
        """An operator lists a page of tasks, and looks for ids by their beginning or end."""
        model_seq = next((row.task.seq for row in self.model.rows if row.task.id == before), None)
        seq = None if model_seq is None else self.seqs[model_seq]
        found, expected = self.call_both(
            "tasks", states, limit, seq, model_arguments=(states, limit, model_seq), name=name, since=since
        )
        assert_same("tasks", list(map(fields, found)), list(map(fields, expected)))
        assert_same("find_ids", *self.call_both("find_ids", text, limit))
        assert_same("empty exchange", *self.call_both("exchange", (), None))

    @precondition(
        lambda self: self.task_ids(Kind.FINAL, Kind.OUTCOME) and (self.may_stay_idle() or not self.free_ids())
    )
    @rule(
        before=among(
            lambda self: sorted({r.rested_at + more for r in self.model.rows if r.rested_at for more in (0, 1)})
        ),
        limit=st.sampled_from((1000, 1000, 1)),
        states=st.none() | st.lists(st.sampled_from(STORED_STATES), max_size=4),
    )
    def prune(self, before: float, limit: int, states: list[str] | None) -> None:
        """A process deletes tasks that came to rest before a given time, in any states or in some."""
        self.deletes = True
        assert_same("prune", *self.call_both("prune", before, limit, states))

    @precondition(lambda self: not self.free_ids())
    @rule()
    def flush(self) -> None:
        """An operator deletes everything."""
        self.deletes = True
        self.call_both("flush")
