"""Handles of workflows: the results of a group or a pipeline together, and the result of a chord."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar, overload

import attrs

from lifecycle.clock import monotonic
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.nodes import Chord, Group, Pipeline
from lifecycle.core.policies import AT_REST, WAITING
from lifecycle.core.table import COMPLETED, EXECUTING, SKIPPED
from lifecycle.core.task import Record
from lifecycle.errors import ResultTimeout, UnknownTask
from lifecycle.execution.engine import Engine
from lifecycle.result import POLL_INTERVAL_SECONDS, Result
from lifecycle.storage.base import Channel
from lifecycle.validation import delay_seconds, flag
from lifecycle.workflows.plan import Planned

__all__ = ["ChordResult", "Progress", "ResultGroup", "WorkflowRecord", "result_of"]

R = TypeVar("R", covariant=True)  # noqa: PLC0105 -- one name for what a function returns

READ_LIMIT: Final = 1000
"""How many tasks are read in one call of the store, at the most."""


class Progress(NamedTuple):
    """How far a workflow has come."""

    done: int
    """Number of tasks at rest, in whatever state."""
    total: int


@attrs.frozen
class WorkflowRecord(Record):
    """Line of a workflow's history: the entry of one of its tasks into a state."""

    task_id: str = ""
    """The id of the task."""


class ResultGroup:
    """The handle of a group or a pipeline: a sequence of the handles of its members or steps.

    A member that is a group is a `ResultGroup` in turn; of a pipeline within a workflow it is the handle of the last
    step.
    """

    def __init__(self, engine: Engine, results: Sequence["Result[object] | ResultGroup"], planned: Planned) -> None:
        """`results`: the handles of the parts; `planned`: the tasks of the whole."""
        self._engine, self._results = engine, tuple(results)
        self.ids: Final = tuple(task.id for task in planned.tasks)
        """The ids of all tasks, those of nested pipelines and chords included, without error callbacks."""
        self.callbacks: Final = tuple(Result[object](engine, task.id) for task in planned.callbacks)
        """The handles of all error callbacks."""

    # The results -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> "Iterator[Result[object] | ResultGroup]":
        return iter(self._results)

    @overload
    def __getitem__(self, index: int) -> "Result[object] | ResultGroup": ...
    @overload
    def __getitem__(self, index: slice) -> "tuple[Result[object] | ResultGroup, ...]": ...
    def __getitem__(
        self, index: int | slice
    ) -> "Result[object] | ResultGroup | tuple[Result[object] | ResultGroup, ...]":
        return self._results[index]

    def get(self, blocking: bool = False, timeout: float | timedelta | None = None) -> list[object]:
        """Return the values in their order, nested as the groups are; ``None`` in the place of a value to come.

        Raises the errors of `Result.get`, for the first of the results that has one.

        :param blocking: wait for all outcomes.
        :param timeout: the longest wait for all of them, in seconds or a timedelta; implies `blocking`.
        """
        flag(blocking, "blocking", hint="give the longest wait by its name, get(timeout=…)")
        if timeout is None:
            return [result.get(blocking) for result in self._results]
        longest = delay_seconds(timeout, "get(timeout)")
        deadline = monotonic() + longest
        return [result.get(timeout=max(deadline - monotonic(), 0.0)) for result in self._results]

    def __call__(self, blocking: bool = False, timeout: float | timedelta | None = None) -> list[object]:
        """Return the values: the same as `get`."""
        return self.get(blocking, timeout)

    def as_completed(self, timeout: float | timedelta | None = None) -> "Iterator[Result[object] | ResultGroup]":
        """Yield each result once its task has come to rest, in any state; a nested group once all of it has.

        So `get` of a result returns its value at once, or raises its `TaskException`. Raises `ResultTimeout` while
        iterating, and `UnknownTask` if a task is not in the store any more.

        :param timeout: the longest time for all of them, in seconds or a timedelta.
        """
        longest = None if timeout is None else delay_seconds(timeout, "as_completed(timeout)")
        return self._as_completed(longest)

    def _as_completed(self, longest: float | None) -> "Iterator[Result[object] | ResultGroup]":
        deadline = None if longest is None else monotonic() + longest
        missing, members = [], {}
        for place, result in enumerate(self._results):
            ids = [result.id] if isinstance(result, Result) else _leaf_ids(result)
            missing.append(len(ids))
            members.update(dict.fromkeys(ids, place))
            if not ids:
                yield result
        storage = self._engine.storage
        unread = 0
        """How many of the next ids in `members` were not read since the last change."""
        generation: int | None = None
        while members:
            latest = storage.generation(Channel.OUTCOME)
            if latest != generation:
                generation, unread = latest, len(members)
            if unread <= 0:
                self._wait(generation, deadline, longest, len(members))
                continue
            # One call of the store for many tasks; those that are still to come to rest go to the end of the line.
            ids = list(islice(members, READ_LIMIT))
            statuses = storage.statuses(ids)
            unread -= len(ids)
            for task_id in ids:
                place = members.pop(task_id)
                status = statuses.get(task_id)
                if status is None:
                    raise UnknownTask(f"no task {task_id} in the store: was it pruned?")
                if status.state not in AT_REST:
                    members[task_id] = place
                    continue
                missing[place] -= 1
                if not missing[place]:
                    yield self._results[place]

    def _wait(self, generation: int, deadline: float | None, longest: float | None, count: int) -> None:
        """Wait until an attempt ends. Raises `ResultTimeout` at the deadline."""
        remaining = POLL_INTERVAL_SECONDS if deadline is None else deadline - monotonic()
        if remaining <= 0:
            raise ResultTimeout(
                f"{count} tasks of the workflow have not come to rest after {longest:g} s, in "
                f"{self._engine.environment.storage.location}; call as_completed() again to wait longer"
            )
        self._engine.storage.wait(Channel.OUTCOME, generation, min(remaining, POLL_INTERVAL_SECONDS))

    # The whole -------------------------------------------------------------------------------------------------------

    def _states(self) -> list[str]:
        """Return the states of all tasks, in their order; tasks that are not in the store any more are left out."""
        states: list[str] = []
        for start in range(0, len(self.ids), READ_LIMIT):
            ids = self.ids[start : start + READ_LIMIT]
            statuses = self._engine.storage.statuses(ids)
            states += [statuses[task_id].state for task_id in ids if task_id in statuses]
        return states

    @property
    def progress(self) -> Progress:
        """How many of all tasks are at rest; error callbacks do not count."""
        states = self._states()
        gone = len(self.ids) - len(states)  # pruned, so at rest
        return Progress(gone + sum(state in AT_REST for state in states), len(self.ids))

    @property
    def state(self) -> str:
        """The name of the state of the whole.

        `executing` while a task runs; else the state of the first task that waits; else, if all are at rest, the state
        of the first task that did not complete; else `complete`. Error callbacks do not count.
        """
        states = self._states()
        if EXECUTING in states:
            return EXECUTING.name
        others = [state for state in states if state != COMPLETED]
        waiting = [state for state in others if state in WAITING]
        failed = [state for state in others if state != SKIPPED]
        return next(iter((*waiting, *failed, *others)), COMPLETED.name)

    def history(self) -> list[WorkflowRecord]:
        """Return the states that all tasks have entered, error callbacks included, oldest first.

        A task that is not in the store any more is left out.
        """
        ids, storage = (*self.ids, *(result.id for result in self.callbacks)), self._engine.storage
        records = [
            WorkflowRecord(**attrs.asdict(record), task_id=task_id)
            for task_id in ids
            for record in storage.history(task_id) or ()
        ]
        return sorted(records, key=lambda record: record.at)

    def cancel(self) -> None:
        """Cancel the tasks that wait or run, the last first: see `TaskQueue.cancel`. Tasks at rest stay as they are.

        Error callbacks are not canceled: they hear of the cancellation.
        """
        for task_id in reversed(self.ids):
            try:
                self._engine.cancel(task_id)
            except (IllegalTransition, UnknownTask):  # at rest, or at rest for so long that it was deleted
                continue

    def revoke(self, revoke_until: datetime | float | timedelta | None = None, revoke_once: bool = False) -> None:
        """Revoke all tasks, so that none starts any more: see `TaskQueue.revoke_by_id`. Error callbacks may run."""
        for task_id in reversed(self.ids):
            Result[object](self._engine, task_id).revoke(revoke_until, revoke_once)

    def __repr__(self) -> str:
        return f"<ResultGroup of {len(self._results)} results>"


class ChordResult(Result[R], Generic[R]):
    """The handle of a chord: that of its callback, with the handle of its members."""

    def __init__(self, engine: Engine, task_id: str, members: ResultGroup, whole: ResultGroup) -> None:
        """`task_id`: of the callback, or of its last step; `members`: of the header; `whole`: of all tasks."""
        super().__init__(engine, task_id)
        self.members: Final = members
        """The handles of the chord's members."""
        self.whole: Final = whole
        """The handle of the whole chord: members, and callback. For `history`, `progress`, `state` and `cancel`."""

    def cancel(self) -> None:
        """Cancel the whole chord: see `ResultGroup.cancel`."""
        self.whole.cancel()


def result_of(engine: Engine, planned: Planned, *, outermost: bool = True) -> Result[object] | ResultGroup:
    """Return the handle of a planned node.

    `outermost`: a pipeline has a handle for each of its steps; within other nodes it has that of its last step.
    """
    node, parts = planned.node, planned.parts
    if isinstance(node, Chord):
        header, callback = (result_of(engine, part, outermost=False) for part in parts)
        if isinstance(callback, ResultGroup) or not isinstance(header, ResultGroup):
            return callback
        return ChordResult(engine, callback.id, header, ResultGroup(engine, (header, callback), planned))
    if isinstance(node, Pipeline) and not outermost:
        return result_of(engine, parts[-1], outermost=False)
    if isinstance(node, Pipeline | Group):
        return ResultGroup(engine, [result_of(engine, part, outermost=False) for part in parts], planned)
    return Result(engine, planned.tasks[0].id)


def _leaf_ids(results: ResultGroup) -> list[str]:
    ids: list[str] = []
    for result in results:
        ids += [result.id] if isinstance(result, Result) else _leaf_ids(result)
    return ids
