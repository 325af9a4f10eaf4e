"""Inputs of a step of a workflow: the results of the tasks before it, read from the store and not copied.

The results are added to the arguments when these are decoded. So the function, hooks and handlers see complete
arguments, each attempt gets the same, and a result that is missing is an error of the attempt.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import cast

from lifecycle.core.policies import AT_REST
from lifecycle.core.step import Inputs, Step, input_ids
from lifecycle.core.table import COMPLETED, LIFECYCLE, SKIP
from lifecycle.core.task import Call, Task, as_call
from lifecycle.errors import TaskException, Undecodable, UnknownTask
from lifecycle.execution.engine import Engine
from lifecycle.execution.stored_result import error_metadata, read_error, unpack
from lifecycle.storage.base import TaskStatus

__all__ = ["end_metadata", "read_inputs"]


def read_inputs(engine: Engine, tasks: Iterable[Task]) -> None:
    """Read, in one call of the store, what these tasks get from others; give each a decoder that adds the inputs.

    Tasks that get nothing have the queue's decoder, and need no call. Raises `StorageError`; then no task is changed.
    """
    waiting: list[tuple[Task, Step, list[str]]] = []
    for task in tasks:
        step = task.step
        if step is None or task.loads is not None:
            continue
        if step.on_failure and step.verdict is not None:
            waiting.append((task, step, [step.verdict.cause]))
        elif step.inputs is not None:
            waiting.append((task, step, input_ids(step.inputs)))
    if not waiting:
        return
    wanted = dict.fromkeys(task_id for _, _, ids in waiting for task_id in ids)
    statuses = engine.storage.statuses(list(wanted)) if wanted else {}
    for task, step, ids in waiting:
        if step.on_failure:
            error = _failure(engine, ids[0], statuses.get(ids[0]))
            task.loads = partial(_with_error, engine, error)
        else:
            found = {task_id: statuses[task_id] for task_id in ids if task_id in statuses}
            task.loads = partial(_with_inputs, engine, task, step.inputs, found)


def end_metadata(engine: Engine, task: Task) -> dict[str, object]:
    """Return `TaskException.metadata` for a task that came to rest without an outcome of its own, and why it did."""
    state = cast(str, task.state)
    verdict = None if task.step is None else task.step.verdict
    if verdict is None or verdict.trigger != SKIP or state != LIFECYCLE.next(_SKIPPED_FROM, SKIP):
        return error_metadata(task, state, f"the task was not completed: it is {state}")
    if task.step is not None and task.step.on_failure:
        return error_metadata(task, state, f"the error callback was {state}: all tasks before it have completed")
    cause = engine.storage.get(verdict.cause)
    what = f"task {verdict.cause}" if cause is None else str(cause)
    end = "is not in the store any more" if cause is None else f"is {cause.state}"
    return error_metadata(task, state, f"the task was {state}, since {what} before it did not complete: it {end}")


_SKIPPED_FROM = next(row.source for row in LIFECYCLE.transitions if row.trigger == SKIP)


def _with_inputs(
    engine: Engine, task: Task, inputs: Inputs, statuses: Mapping[str, TaskStatus], payload: bytes
) -> Call:
    args, kwargs = as_call(engine.serializer.loads(payload))
    value = _value(engine, task, inputs, statuses)
    if value is None:
        return args, kwargs
    if isinstance(value, tuple):
        return (*args, *value), kwargs
    if isinstance(value, dict):
        return args, {**value, **kwargs}
    return (*args, value), kwargs


def _value(engine: Engine, task: Task, inputs: Inputs, statuses: Mapping[str, TaskStatus]) -> object:
    """Return the values of a tree of tasks. Raises `UnknownTask` or `Undecodable` for a value that is not there."""
    if inputs is None:
        return None
    if isinstance(inputs, list):
        return [_value(engine, task, one, statuses) for one in inputs]
    status = statuses.get(inputs)
    if status is None or status.result is None:
        raise UnknownTask(
            f"{task} needs the result of task {inputs}, which is not in the store any more: the queue's retention is "
            "too short for this workflow"
        )
    stored = unpack(status.result)
    if not stored.ok:
        raise Undecodable(f"{task} needs the value of task {inputs}, whose stored result is an error")
    return engine.serializer.loads(stored.data)


def _failure(engine: Engine, cause: str, status: TaskStatus | None) -> TaskException:
    """Return the error of the task that did not complete, for an error callback."""
    metadata = None if status is None else read_error(cause, status.state, status.result)
    if metadata is None or status is None or status.state not in AT_REST:
        task = engine.storage.get(cause)
        if task is None:
            gone = (
                f"task {cause} did not complete, and is not in the store any more: the queue's retention is too short"
            )
            return TaskException(error_metadata(Task(cause, ""), "", gone))
        if metadata is None:
            state = cast(str, task.state)
            then = "it was retried by hand, and is now" if state == COMPLETED or state not in AT_REST else "it is"
            metadata = error_metadata(task, state, f"the task was not completed: {then} {state}")
    return TaskException(metadata)


def _with_error(engine: Engine, error: TaskException, payload: bytes) -> Call:
    args, kwargs = as_call(engine.serializer.loads(payload))
    return (*args, error), kwargs
