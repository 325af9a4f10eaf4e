"""What has become of everything that was enqueued: pure, from what the store says and what the bodies have noted.

An audit knows the table, and nothing of how the tasks were run. What it cannot explain it names.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import attrs

from lifecycle.analysis.checker import IllegalSequence, check
from lifecycle.core.table import COMPLETED, ERROR, EXECUTING, INTERRUPTED, LIFECYCLE, LOCKED, RETRYING, Kind
from lifecycle.core.task import Record

__all__ = ["Audit", "Found", "Line", "audit"]

AT_REST = {state.name for state in LIFECYCLE.of_kind(Kind.FINAL, Kind.OUTCOME)}
RAN = {COMPLETED, ERROR, RETRYING}
"""Ends of an attempt whose body has surely been entered: all others may come before its first line."""
NOT_ENDED = {ERROR, RETRYING, LOCKED}
"""Ends of an attempt whose body has not come to its own end: others may strike even behind its last line."""
BEGIN, END, SIGNAL = "begin", "end", "signal "


class Line(NamedTuple):
    """What a body has noted, in a file that is only ever appended to."""

    what: str
    """`BEGIN`, as its first act, or `END`, as its last. A handler notes `SIGNAL` and its name. All else is other people's."""
    task: str
    attempt: int
    member: int
    """Which of the consumers it ran in."""
    pid: int
    at: float
    """Seconds, by a clock that all processes of the host share, and that is never set."""


class Found(NamedTuple):
    """A task as the store has it in the end."""

    id: str
    name: str
    """Of its function."""
    state: str
    version: int
    held: bool
    history: Sequence[Record]


@attrs.define
class Audit:
    """What was counted, and what is wrong, by kind: each a sentence."""

    tasks: int = 0
    """How many were enqueued."""
    executions: int = 0
    """How often a body was entered."""
    again: int = 0
    """Of these: in attempts that were interrupted, so that the body ran again, or may."""
    done_again: int = 0
    """Of these: those that had come to the body's end, so that what it does was done twice."""
    interruptions: int = 0
    """How many attempts were interrupted, whether or not a body had begun."""
    wrong: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))

    def count(self, kind: str) -> int:
        """How much of that kind is wrong."""
        return len(self.wrong.get(kind, ()))

    @property
    def faults(self) -> list[str]:
        """All that is wrong, a line each."""
        return [f"{kind}: {sentence}" for kind, sentences in self.wrong.items() for sentence in sentences]


def audit(
    wanted: Mapping[str, str],
    found: Iterable[Found],
    lines: Iterable[Line],
    rests: Mapping[str, frozenset[str]],
    locks: Iterable[str] = (),
) -> Audit:
    """Hold what was found against what was asked for.

    :param wanted: id of each task whose enqueuing was confirmed → its function.
    :param rests: function → the states in which its tasks may rest.
    :param locks: those that are still taken.
    """
    result = Audit(tasks=len(wanted))
    noted: dict[str, list[Line]] = defaultdict(list)
    heard: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        if line.what in (BEGIN, END):
            noted[line.task].append(line)
        elif line.what.startswith(SIGNAL):
            heard[line.task].append(line.what.removeprefix(SIGNAL))
    tasks = {task.id: task for task in found}
    for task_id, name in wanted.items():
        if task_id not in tasks:
            result.wrong["lost"].append(f"task {task_id} ({name}) is not in the store")
    for task in tasks.values():
        if task.id not in wanted:
            result.wrong["lost"].append(f"task {task.id} ({task.name}) is in the store, but nobody enqueued it")
        _rest(result, task, rests.get(task.name, frozenset()))
        _history(result, task)
        _executions(result, task, noted.pop(task.id, []))
        _signals(result, task, heard.get(task.id, []))
    for task_id, rest in noted.items():
        result.executions += sum(line.what == BEGIN for line in rest)
        result.wrong["unexplained"].append(f"task {task_id} ran, and is not in the store")
    result.wrong["held"] += [f"the lock {name} is still taken" for name in locks]
    return result


def _rest(result: Audit, task: Found, rests: frozenset[str]) -> None:
    """Has it come to rest, where it may, and has everybody let go of it?"""
    if task.state not in AT_REST:
        result.wrong["lost"].append(f"task {task.id} ({task.name}) does not come to rest: it is {task.state}")
    elif task.state not in rests:
        result.wrong["misplaced"].append(f"task {task.id} ({task.name}) rests in {task.state}")
    if task.held:
        result.wrong["held"].append(f"task {task.id} ({task.name}) is still held, in {task.state}")


def _history(result: Audit, task: Found) -> None:
    """Is it a way through the table, to where the task is now, and did it come to its end once?"""
    states = [record.state for record in task.history]
    try:
        check(LIFECYCLE.state(name).signal for name in states)
    except IllegalSequence as error:
        result.wrong["illegal"].append(f"task {task.id} ({task.name}): {error}")
    if states[-1:] != [task.state]:
        result.wrong["illegal"].append(f"task {task.id} is {task.state}, its history ends in {states[-1:]}")
    if task.version != len(states):
        result.wrong["illegal"].append(f"task {task.id} is at version {task.version} after {len(states)} transitions")
    starts = [record.attempt for record in task.history if record.state == EXECUTING]
    if starts != list(range(1, len(starts) + 1)):
        result.wrong["illegal"].append(f"task {task.id}: its attempts are numbered {starts}")
    if states.count(COMPLETED) > 1:
        result.wrong["finished twice"].append(
            f"task {task.id} ({task.name}) is {COMPLETED} {states.count(COMPLETED)} times"
        )


def _executions(result: Audit, task: Found, lines: Sequence[Line]) -> None:
    """Is each run of the body one of its attempts, and each that was for nothing interrupted?"""
    ends = _ends(task.history)
    begun = Counter(line.attempt for line in lines if line.what == BEGIN)
    ended = Counter(line.attempt for line in lines if line.what == END)
    result.executions += begun.total()
    wrong = result.wrong["unexplained"]
    for attempt in sorted(begun.keys() | ended.keys() | ends.keys()):
        what = f"attempt {attempt} of task {task.id} ({task.name})"
        if attempt not in ends:
            wrong.append(f"{what} ran, though it was never started")
            continue
        if begun[attempt] > 1:
            wrong.append(f"{what} ran {begun[attempt]} times")
        if ended[attempt] > begun[attempt]:
            wrong.append(f"{what} ended {ended[attempt]} times, and began {begun[attempt]} times")
        end = ends[attempt]
        if end in RAN and not begun[attempt]:
            wrong.append(f"{what} is {end}, though its body never ran")
        elif end == COMPLETED and not ended[attempt]:
            wrong.append(f"{what} is {end}, though its body did not come to its end")
        if end in NOT_ENDED and ended[attempt]:
            wrong.append(f"{what} is {end}, though its body did come to its end")
        if end == INTERRUPTED:
            result.interruptions += 1
            result.again += begun[attempt]
            result.done_again += ended[attempt]


def _signals(result: Audit, task: Found, heard: Sequence[str]) -> None:
    """Were they heard in the order of the history, each at most once? Those of a process that died may be missing."""
    sent = iter([LIFECYCLE.state(record.state).signal for record in task.history])
    if not all(signal in sent for signal in heard):
        result.wrong["misheard"].append(f"task {task.id} ({task.name}): the signals heard were {', '.join(heard)}")


def _ends(history: Sequence[Record]) -> dict[int, str | None]:
    """Attempt → the state that it ended in; ``None``: it has not."""
    ends: dict[int, str | None] = {}
    for record, following in zip_longest(history, history[1:]):
        if record.state == EXECUTING:
            ends[record.attempt] = following.state if following is not None else None
    return ends
