"""The part of the model that concerns steps of workflows."""

import attrs

from lifecycle.core.step import Report, decided
from lifecycle.core.table import PENDING
from lifecycle.core.task import Task
from lifecycle.testing.storage_spec.reference_periodic import ReferencePeriodic

__all__ = ["ReferenceSteps"]


@attrs.define
class ReferenceSteps(ReferencePeriodic):
    """The ends that waiting tasks have heard of."""

    heard: dict[int, list[Report]] = attrs.field(factory=dict, kw_only=True)
    """`seq` of a waiting task → the reports to it, up to its verdict."""

    def hear(self, task: Task, report: Report) -> bool:
        """Keep a report to a task; return whether it decides. The verdict is then in the task's step."""
        step = task.step
        if task.state != PENDING.name or step is None or step.verdict is not None:
            return False
        heard = self.heard.setdefault(task.seq or 0, [])
        heard.append(report)
        if report.completed and len(heard) < step.awaits:
            return False
        task.step = decided(step, report)
        return True
