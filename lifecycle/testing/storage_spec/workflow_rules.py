"""The rules of `StorageSpec` for workflows: tasks that wait for others."""

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import MultipleResults, multiple, precondition, rule

from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT
from lifecycle.testing.storage_spec import strategies as values
from lifecycle.testing.storage_spec.machine import copies
from lifecycle.testing.storage_spec.strategies import Ending, NewTask, TaskCopy, WorkerRequest, workflow_tasks
from lifecycle.testing.storage_spec.worker_rules import WorkerRules

__all__ = ["WorkflowRules"]

_MOSTLY_COMPLETE: Final = (COMPLETE, COMPLETE, COMPLETE, FAIL, CANCEL, INTERRUPT)


class WorkflowRules(WorkerRules):
    """Steps of producers that enqueue tasks which wait for others, and of workers that run the tasks."""

    @precondition(lambda self: len(self.unawaited_ids()) > 1)
    @rule(
        target=copies,
        calls=st.runner().flatmap(lambda self: values.workflows(self.unawaited_ids())),
        hold=st.booleans(),
        backwards=st.booleans(),
    )
    def enqueue_workflow(self, calls: list[NewTask], hold: bool, backwards: bool) -> MultipleResults[TaskCopy]:
        """A producer enqueues the tasks of a workflow in one call, in any order, and may hold them."""
        tasks = workflow_tasks(calls, self.now)
        return multiple(*self.enqueue_tasks(tasks[::-1] if backwards else tasks, hold=hold))

    @precondition(lambda self: len(self.unawaited_ids()) > 1)
    @rule(
        calls=st.runner().flatmap(lambda self: values.workflows(self.unawaited_ids())),
        wish=values.worker_requests(),
        ends=st.lists(values.endings(_MOSTLY_COMPLETE), min_size=1, max_size=5),
    )
    def work_on_workflow(self, calls: list[NewTask], wish: WorkerRequest, ends: list[Ending]) -> None:
        """A producer enqueues a workflow, and a busy worker runs some of its tasks."""
        self.enqueue_tasks(workflow_tasks(calls, self.now), hold=False)
        self.work_in_batches(wish, ends)

    @precondition(lambda self: self.running)
    @rule(ends=st.lists(values.endings(_MOSTLY_COMPLETE), min_size=1, max_size=3), then=values.worker_requests())
    def settle_several(self, ends: list[Ending], then: WorkerRequest) -> None:
        """A worker settles several tasks in one call, and claims tasks that wait for them."""
        self.settle(list(zip(self.running.copy().values(), ends, strict=False)), then.request(self.now))
