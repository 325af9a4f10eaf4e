"""From a node that a program hands to a queue to the plan of its workflow, with all checks."""

from lifecycle.core.nodes import Node, whole_of
from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.engine import Engine
from lifecycle.validation import refusal
from lifecycle.workflows.arguments import ArgumentCheck
from lifecycle.workflows.plan import Before, Planned, plan

__all__ = ["is_alone", "planned_workflow"]


def is_alone(task: Task) -> bool:
    """Return whether a task is a part of no workflow."""
    place = task.place
    return place is None or (place.parent is None and not place.callbacks)


def planned_workflow(engine: Engine, node: Node) -> Planned:
    """Return the plan of the workflow that is meant by a node: see `whole_of`.

    Raises `ConfigurationError` for a node in the middle of a workflow, for a task of another queue, and for an argument
    that is missing or does not fit.
    """
    if not isinstance(node, Node):
        raise refusal(node, "task", None, "is no task: enqueue a task made by function.s(…)")
    check_arguments = ArgumentCheck(engine.functions)

    def check(task: Task, before: Before, where: str) -> None:
        place = task.place
        if place is not None and place.queue not in (None, engine):
            raise ConfigurationError(
                f"{where or task}: {task.name} belongs to {place.queue}, and cannot be enqueued in {engine}"
            )
        check_arguments(task, before, where)

    return plan(whole_of(node), check)
