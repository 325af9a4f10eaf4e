"""The part of `TaskQueue` that enqueues tasks and workflows."""

from collections.abc import Iterable, Sequence
from typing import cast, overload

from lifecycle.core.nodes import Chord, Group, Node, Pipeline
from lifecycle.core.task import Task
from lifecycle.execution import external_transaction
from lifecycle.execution.engine import Engine
from lifecycle.result import Result
from lifecycle.validation import instance
from lifecycle.workflows.planning import is_alone, planned_workflow
from lifecycle.workflows.results import ChordResult, ResultGroup, result_of

__all__ = ["Enqueueing"]


class Enqueueing:
    """Base class of `TaskQueue`: enqueues tasks made by ``function.s(…)``, and workflows of them."""

    _engine: Engine

    @overload
    def enqueue(self, task: Chord, connection: object = None) -> ChordResult[object]: ...
    @overload
    def enqueue(self, task: Pipeline | Group, connection: object = None) -> ResultGroup: ...
    @overload
    def enqueue(self, task: Task, connection: object = None) -> Result[object]: ...
    @overload
    def enqueue(self, task: Node, connection: object = None) -> Result[object] | ResultGroup: ...
    def enqueue(self, task: Node, connection: object = None) -> Result[object] | ResultGroup:
        """Enqueue a task made by ``function.s(…)``, or a workflow, and return its handle.

        All tasks of a workflow are enqueued in one transaction. A pipeline or a group has a `ResultGroup`, a chord the
        `ChordResult` of its callback. A task that begins a pipeline enqueues the pipeline, and returns its
        `ResultGroup`.

        Raises `Unserializable` (naming the argument), `ConfigurationError` (naming the field), `TypeError` for a
        missing argument (in a workflow a `ConfigurationError`), `DuplicateTask` or `StorageError`, among them
        `StorageRefused` if the arguments are too large. Then nothing was enqueued and no signal is sent.

        :param connection: enqueue within the open transaction of this connection: see `transaction`.
        """
        if isinstance(task, Task) and is_alone(task):
            self._enqueue((task,), connection)
            return Result(self._engine, task.id)
        return self._enqueue_workflows((task,), connection)[0]

    @overload
    def enqueue_many(self, tasks: Iterable[Task], connection: object = None) -> list[Result[object]]: ...
    @overload
    def enqueue_many(
        self, tasks: Iterable[Node], connection: object = None
    ) -> Sequence[Result[object] | ResultGroup]: ...
    def enqueue_many(self, tasks: Iterable[Node], connection: object = None) -> Sequence[Result[object] | ResultGroup]:
        """Enqueue tasks and workflows in one transaction, all or none; return the handle of each.

        Raises the errors of `enqueue`.
        """
        tasks = list(instance(tasks, Iterable, "tasks", "must be an iterable of tasks made by function.s(…)"))
        if all(isinstance(task, Task) and is_alone(task) for task in tasks):
            alone = cast(list[Task], tasks)
            self._enqueue(alone, connection)
            return [Result(self._engine, task.id) for task in alone]
        return self._enqueue_workflows(tasks, connection)

    def _enqueue_workflows(self, nodes: Sequence[Node], connection: object) -> list[Result[object] | ResultGroup]:
        planned = [planned_workflow(self._engine, node) for node in nodes]
        self._enqueue([task for one in planned for task in (*one.tasks, *one.callbacks)], connection)
        return [result_of(self._engine, one) for one in planned]

    def _enqueue(self, tasks: Sequence[Task], connection: object) -> None:
        if connection is None:
            self._engine.enqueue(tasks)
        else:
            external_transaction.enqueue(self._engine, tasks, connection)
