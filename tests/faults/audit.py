"""Audit of all enqueued tasks, from the store and from the journal of the functions; without a clock or a store.

An audit knows the table, and nothing of the way in which the tasks ran. It reports each fact that it cannot explain.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple

import attrs

from lifecycle.analysis.checker import IllegalSequence, check
from lifecycle.core.table import COMPLETED, ERROR, EXECUTING, INTERRUPTED, LIFECYCLE, LOCKED, RETRYING, Kind
from lifecycle.core.task import Record

__all__ = ["Audit", "Found", "Line", "audit"]

AT_REST = {state.name for state in LIFECYCLE.of_kind(Kind.FINAL, Kind.OUTCOME)}
RAN = {COMPLETED, ERROR, RETRYING}
"""Ends of an attempt whose function has surely begun; any other end may come before the function."""
NOT_ENDED = {ERROR, RETRYING, LOCKED}
"""Ends of an attempt whose function has not reached its end; any other end may come even after the last line."""
FINAL_SIGNALS = {state.signal for state in LIFECYCLE.of_kind(Kind.FINAL)}
BEGIN, END, SIGNAL = "begin", "end", "signal "


class Line(NamedTuple):
    """Line of the journal: functions and handlers append lines to the file."""

    what: str
    """`BEGIN` and `END` of a function, or `SIGNAL` and a name from a handler; the audit ignores all other lines."""
    task: str
    attempt: int
    member: int
    """Number of the consumer."""
    pid: int
    at: float
    """Seconds of the monotonic clock that all processes of the host share."""


class Found(NamedTuple):
    """Task as the store has it at the end of a trial."""

    id: str
    name: str
    """Name of the task's function."""
    state: str
    version: int
    held: bool
    history: Sequence[Record]


@attrs.define
class Audit:
    """Counts of a trial, and its faults by kind, each a sentence."""

    tasks: int = 0
    """Count of enqueued tasks."""
    executions: int = 0
    """Count of functions that began."""
    again: int = 0
    """Count of those in interrupted attempts: the function ran again, or may run again."""
    done_again: int = 0
    """Count of those that reached the function's end: its effects happened twice."""
    interruptions: int = 0
    """Count of interrupted attempts, with or without a begun function."""
    wrong: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))

    def count(self, kind: str) -> int:
        """Return the number of faults of this kind."""
        return len(self.wrong.get(kind, ()))

    @property
    def faults(self) -> list[str]:
        """All faults, a line each."""
        return [f"{kind}: {sentence}" for kind, sentences in self.wrong.items() for sentence in sentences]


def audit(
    wanted: Mapping[str, str],
    found: Iterable[Found],
    lines: Iterable[Line],
    rests: Mapping[str, frozenset[str]],
    locks: Iterable[str] = (),
) -> Audit:
    """Compare the tasks of the store with the enqueued tasks and the journal.

    :param wanted: id of each task whose enqueuing was confirmed → its function.
    :param rests: function → the states in which its tasks may rest.
    :param locks: names of the locks that are still taken.
    """
    result = Audit(tasks=len(wanted))
    noted: dict[str, list[Line]] = defaultdict(list)
    signals: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.what in (BEGIN, END):
            noted[line.task].append(line)
        elif line.what.startswith(SIGNAL):
            signals[line.task].append(line.what.removeprefix(SIGNAL))
    tasks = {task.id: task for task in found}
    for task_id, name in wanted.items():
        if task_id not in tasks:
            result.wrong["lost"].append(f"task {task_id} ({name}) is not in the store")
    for task in tasks.values():
        if task.id not in wanted:
            result.wrong["lost"].append(f"task {task.id} ({task.name}) is in the store, but was not enqueued")
        _rest(result, task, rests.get(task.name, frozenset()))
        _history(result, task)
        _executions(result, task, noted.pop(task.id, []))
        _signals(result, task, signals.get(task.id, []))
    for task_id, rest in noted.items():
        result.executions += sum(line.what == BEGIN for line in rest)
        result.wrong["unexplained"].append(f"task {task_id} ran, and is not in the store")
    result.wrong["held"] += [f"the lock {name} is still taken" for name in locks]
    return result


def _rest(result: Audit, task: Found, rests: frozenset[str]) -> None:
    """Report a task that does not rest in one of its states, or is still held."""
    if task.state not in AT_REST:
        result.wrong["lost"].append(f"task {task.id} ({task.name}) does not come to rest: it is {task.state}")
    elif task.state not in rests:
        result.wrong["misplaced"].append(f"task {task.id} ({task.name}) rests in {task.state}")
    if task.held:
        result.wrong["held"].append(f"task {task.id} ({task.name}) is still held, in {task.state}")


def _history(result: Audit, task: Found) -> None:
    """Report a history that is no path of the table to the task's state, or is complete more than once."""
    states = [record.state for record in task.history]
    first, *others = _parts(task.history) or [[]]
    try:
        check(LIFECYCLE.state(record.state).signal for record in first)
    except IllegalSequence as error:
        result.wrong["illegal"].append(f"task {task.id} ({task.name}): {error}")
    for before, after in (pair for part in others for pair in pairwise(part)):
        if LIFECYCLE.state(after.state) not in LIFECYCLE.targets(LIFECYCLE.state(before.state)):
            result.wrong["illegal"].append(f"task {task.id} ({task.name}): {after.state} follows {before.state}")
    if states[-1:] != [task.state]:
        result.wrong["illegal"].append(f"task {task.id} is {task.state}, its history ends in {states[-1:]}")
    transitions = sum(1 + record.left_out for record in task.history)
    if task.version != transitions:
        result.wrong["illegal"].append(f"task {task.id} is at version {task.version} after {transitions} transitions")
    following = zip_longest(task.history, task.history[1:], task.history[2:])
    starts = [
        record.attempt
        for record, *after in following
        # A claim that was handed back before its function began does not count.
        if record.state == EXECUTING
        and not any(one and not one.left_out and one.attempt < record.attempt for one in after)
    ]
    unseen = _left_out_attempts(task.history)
    seen = [attempt for attempt in range(1, len(starts) + len(unseen) + 1) if attempt not in unseen]
    if starts != seen:
        result.wrong["illegal"].append(f"task {task.id}: its attempts are numbered {starts}")
    if states.count(COMPLETED) > 1:
        result.wrong["finished twice"].append(
            f"task {task.id} ({task.name}) is {COMPLETED} {states.count(COMPLETED)} times"
        )


def _executions(result: Audit, task: Found, lines: Sequence[Line]) -> None:
    """Report runs of the function that do not belong to one attempt each, or contradict its end."""
    ends = _ends(task.history)
    begun = Counter(line.attempt for line in lines if line.what == BEGIN)
    ended = Counter(line.attempt for line in lines if line.what == END)
    result.executions += begun.total()
    wrong = result.wrong["unexplained"]
    unseen = _left_out_attempts(task.history)
    for attempt in sorted(begun.keys() | ended.keys() | ends.keys()):
        what = f"attempt {attempt} of task {task.id} ({task.name})"
        if attempt not in ends and attempt not in unseen:
            wrong.append(f"{what} ran, though it was never started")
            continue
        if begun[attempt] > 1:
            wrong.append(f"{what} ran {begun[attempt]} times")
        if ended[attempt] > begun[attempt]:
            wrong.append(f"{what} ended {ended[attempt]} times, and began {begun[attempt]} times")
        end = ends.get(attempt)
        if end in RAN and not begun[attempt]:
            wrong.append(f"{what} is {end}, though its function never began")
        elif end == COMPLETED and not ended[attempt]:
            wrong.append(f"{what} is {end}, though its function did not reach its end")
        if end in NOT_ENDED and ended[attempt]:
            wrong.append(f"{what} is {end}, though its function did reach its end")
        if end == INTERRUPTED:
            result.interruptions += 1
            result.again += begun[attempt]
            result.done_again += ended[attempt]


def _signals(result: Audit, task: Found, received: Sequence[str]) -> None:
    """Report signals that do not follow the history's order, or came twice; those of a dead process may be missing.

    Of the middle that a long history leaves out only the number of transitions is known, and that none of them was into
    a final state.
    """
    first, *others = [[LIFECYCLE.state(record.state).signal for record in part] for part in _parts(task.history)] or [
        []
    ]
    rest = _without(received, first)
    for part in others[-1:]:
        rest = _without(rest[::-1], part[::-1])
    known = sum(map(len, others[:-1])) + sum(record.left_out for record in task.history)
    if len(rest) > known or not FINAL_SIGNALS.isdisjoint(rest):
        result.wrong["out of order"].append(
            f"task {task.id} ({task.name}): the signals sent were {', '.join(received)}"
        )


def _without(received: Sequence[str], sent: Iterable[str]) -> Sequence[str]:
    """Return the signals after the longest beginning that has been sent in this order."""
    left = iter(sent)
    count = next((number for number, signal in enumerate(received) if signal not in left), len(received))
    return received[count:]


def _ends(history: Sequence[Record]) -> dict[int, str | None]:
    """Return a dict: attempt → its last state, ``None`` without an end."""
    ends: dict[int, str | None] = {}
    for record, following in zip_longest(history, history[1:]):
        if record.state == EXECUTING:
            ends[record.attempt] = following.state if following is not None and not following.left_out else None
    return ends


def _parts(history: Sequence[Record]) -> list[list[Record]]:
    """Return the history cut at each gap, where records are left out."""
    parts: list[list[Record]] = []
    for record in history:
        if record.left_out or not parts:
            parts.append([])
        parts[-1].append(record)
    return parts


def _left_out_attempts(history: Sequence[Record]) -> set[int]:
    """Return the attempts whose starts a long history leaves out."""
    unseen: set[int] = set()
    for before, after in pairwise(history):
        if after.left_out:
            unseen |= set(range(before.attempt + 1, after.attempt + (after.state != EXECUTING)))
    return unseen
