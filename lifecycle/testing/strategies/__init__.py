"""Hypothesis strategies: legal and illegal histories, streams, tasks, outcomes, and tables.

Import them from `lifecycle.testing`. They need ``hypothesis``: ``pip install 'task-lifecycle[testing]'``.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, TypeVar

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.step import Step as WorkflowStep
from lifecycle.core.step import Verdict
from lifecycle.core.table import (
    ENQUEUE,
    EXECUTING,
    LIFECYCLE,
    PENDING,
    SCHEDULED,
    SKIP,
    SKIPPED,
    Kind,
    Lifecycle,
    State,
    Transition,
)
from lifecycle.core.task import RetryPolicy, Task
from lifecycle.errors import ConfigurationError
from lifecycle.testing.strategies.paths import Paths

__all__ = [
    "Fault", "IllegalHistory", "Step", "illegal_histories", "legal_histories", "lifecycles", "outcomes",
    "retry_policies", "revocations", "schedules", "streams", "tables", "tasks",
]  # fmt: skip

T = TypeVar("T")

few_times: Final = st.integers(0, 6).map(float)
"""Times of which many are equal."""
all_times: Final = few_times | st.floats(0, 4e9)
WALKS_PER_DIRECT_WALK: Final = 8
"""One of so many walks enters no state twice."""


# Histories ---------------------------------------------------------------------------------------------------------


@st.composite
def _walk(draw: DrawFn, paths: Paths, start: str | None, goals: frozenset[str | None], max_size: int) -> list[str]:
    """Draw the states of a walk from `start` to one of `goals`, at most `max_size`.

    Half of its steps are paths to a transition anywhere in the table, so that states deep in the table are not rare.
    The other half are single transitions. A few walks enter no state twice: a walk shrinks to one of these.
    """
    state, walked = start, list[str]()
    while True:
        near, far = paths.steps(state, goals, max_size - len(walked))
        if not near and not far:
            break
        stop = state in goals
        step = draw(st.sampled_from([*[()] * stop, *near]) | st.sampled_from([*[()] * stop, *far]))
        if not step:
            break
        walked += step
        state = step[-1]
    walked += paths.shortest_path(state, goals)
    return walked if draw(st.integers(0, WALKS_PER_DIRECT_WALK - 1)) else _without_loops(start, walked)


def _without_loops(start: str | None, walked: Iterable[str]) -> list[str]:
    """Return a walk without the parts that lead back to a state of the walk."""
    direct: list[str] = []
    for state in walked:
        if state == start:
            direct.clear()
        elif state in direct:
            del direct[direct.index(state) + 1 :]
        else:
            direct.append(state)
    return direct


def legal_histories(
    lifecycle: Lifecycle = LIFECYCLE, *, complete: bool = False, max_size: int = 20
) -> SearchStrategy[list[str]]:
    """Draw the signals of one task, from its creation on, in an order that the table allows; shrinks to short ones.

    `complete`: only histories that end in a resting state. `max_size`: the largest number of signals; raises
    `ConfigurationError` if no (complete) history is that short. Rare states are reached, too, however
    deep they lie in the table.
    """
    paths = Paths(lifecycle)
    goals = paths.resting if complete else paths.states
    if not paths.single_steps(None, goals, max_size):
        raise ConfigurationError(f"max_size={max_size}: every {'complete ' * complete}history has more signals")
    return _walk(paths, None, goals, max_size).map(paths.signals)


class Fault(StrEnum):
    """The way in which one signal of a history is illegal."""

    UNKNOWN = "unknown"
    """No state sends it."""
    FIRST = "first"
    """The task's first signal is not the signal of its creation."""
    AFTER_END = "after-end"
    """It comes after the signal of a final state."""
    REPEATED = "repeated"
    """It is the same as the signal before."""
    SKIPPED = "skipped"
    """It would be legal one step later."""
    BACKWARDS = "backwards"
    """It is legal before the signal before: the two are exchanged."""
    ELSEWHERE = "elsewhere"
    """It belongs to another part of the table."""


@attrs.frozen
class IllegalHistory:
    """The signals of one task, of which exactly one is illegal: without that signal they are legal."""

    signals: tuple[str, ...]
    position: int
    """The position of the illegal signal; 1 is the first."""
    fault: Fault
    legal: tuple[str, ...]
    """The signals that are legal there; empty: none."""


def illegal_histories(lifecycle: Lifecycle = LIFECYCLE, *, max_size: int = 20) -> SearchStrategy[IllegalHistory]:
    """Draw histories that are illegal in exactly one place.

    Every `Fault` that is possible in the table is equally likely, and so is every pair of a state and a signal that may
    not follow. `max_size`: the largest number of signals, unless the illegal place lies deeper in the table.
    """
    return _illegal(Paths(lifecycle), max_size)


@st.composite
def _illegal(draw: DrawFn, paths: Paths, max_size: int) -> IllegalHistory:
    faults = _faults(paths)
    fault = draw(st.sampled_from([Fault.UNKNOWN, *sorted(faults)]))
    if fault is Fault.UNKNOWN:
        source: str | None = draw(st.sampled_from(paths.sources))
        signal = draw(_unknown_signals(paths.lifecycle))
    else:
        source, signal = draw(st.sampled_from(faults[fault]))
    rest_size = max(max_size - 1, paths.distance(None, frozenset({source})))
    before = draw(_walk(paths, None, frozenset({source}), rest_size)) if source is not None else []
    # If the illegal signal is the first, the rest may be empty, or a whole history.
    after = draw(_walk(paths, source, paths.states | {source}, max(rest_size - len(before), 0)))
    signals = (*paths.signals(before), signal, *paths.signals(after))
    legal = tuple(paths.signals(paths.next_states(source)))
    return IllegalHistory(signals, len(before) + 1, fault, legal)


def _faults(paths: Paths) -> dict[Fault, list[tuple[str | None, str]]]:
    """Return for each fault the pairs of a state (``None``: no task yet) and a known signal that are this fault."""
    found: dict[Fault, list[tuple[str | None, str]]] = {}
    for source in paths.sources:
        next_states = paths.next_states(source)
        later = {state for one in next_states for state in paths.next_states(one)}
        for state in paths.lifecycle.states:
            if state.name in next_states:
                continue
            if source is None:
                fault = Fault.FIRST
            elif paths.lifecycle.state(source).kind is Kind.FINAL:
                fault = Fault.AFTER_END
            elif state == source:
                fault = Fault.REPEATED
            elif state in later:
                fault = Fault.SKIPPED
            elif source in paths.next_states(state.name):
                fault = Fault.BACKWARDS
            else:
                fault = Fault.ELSEWHERE
            found.setdefault(fault, []).append((source, state.signal))
    return found


def _unknown_signals(lifecycle: Lifecycle) -> SearchStrategy[str]:
    """Draw texts that are no signal; many are names of states or triggers, or misspelled signals."""
    signals = set(lifecycle.signals)
    near = {name for signal in signals for name in (signal.upper(), f" {signal}", f"{signal}\n", signal[:-1])}
    near |= {state.name for state in lifecycle.states} | set(lifecycle.triggers)
    return st.sampled_from(sorted(near - signals)) | st.text().filter(lambda text: text not in signals)


# Several tasks or workers ------------------------------------------------------------------------------------------


@st.composite
def _merged(draw: DrawFn, sequences: Sequence[Sequence[T]]) -> list[tuple[int, T]]:
    """Draw an interleaving of the sequences; each item comes with the number of its sequence."""
    numbers = [number for number, sequence in enumerate(sequences) for _ in sequence]
    rest = [iter(sequence) for sequence in sequences]
    return [(number, next(rest[number])) for number in draw(st.permutations(numbers))]


def streams(
    lifecycle: Lifecycle = LIFECYCLE, *, complete: bool = False, max_tasks: int = 5, max_size: int = 12
) -> SearchStrategy[list[tuple[str, str]]]:
    """Draw the signals of several tasks in one stream: ``(task id, signal)``, those of each task in legal order.

    `complete`: every task comes to rest. `max_size`: the largest number of signals of a task.
    """
    histories = legal_histories(lifecycle, complete=complete, max_size=max_size)
    return (
        st.lists(histories, max_size=max_tasks)
        .flatmap(_merged)
        .map(lambda merged: [(f"task-{number}", signal) for number, signal in merged])
    )


@attrs.frozen
class Step:
    """One step of a worker."""

    worker: str
    outcome: Outcome | None
    """``None``: the worker claims a task. Else it settles its last claimed task, if it has one."""
    after: float
    """Seconds since the step before, of any worker; may be longer than a lease."""


def schedules(
    workers: Sequence[str] = ("w1", "w2", "w3"), *, lease: float = 10.0, max_size: int = 12
) -> SearchStrategy[list[Step]]:
    """Draw interleaved steps of several workers: each worker claims, settles, claims, and so on.

    A worker may stop after any step, and may sleep past its `lease` (seconds) while others work. `max_size`: the
    largest number of steps of a worker. Shrinks to few steps without pauses, with default outcomes.
    """
    pauses = st.just(0.0) | st.sampled_from([lease / 2, lease, lease * 2])
    steps = st.lists(st.tuples(outcomes(), pauses), max_size=max_size)

    def order(drawn: list[list[tuple[Outcome, float]]]) -> SearchStrategy[list[Step]]:
        rows = [
            [(outcome if number % 2 else None, pause) for number, (outcome, pause) in enumerate(row)] for row in drawn
        ]
        return _merged(rows).map(
            lambda merged: [Step(workers[number], outcome, pause) for number, (outcome, pause) in merged]
        )

    return st.tuples(*[steps for _ in workers]).map(list).flatmap(order)


# Tasks and outcomes ------------------------------------------------------------------------------------------------


@st.composite
def tasks(draw: DrawFn, states: Sequence[str] | None = None, times: SearchStrategy[float] = all_times) -> Task:
    """Draw a stored task in one of these states (default: any), with any other fields.

    A scheduled task has an ETA, a pending task is a step that waits for others; other tasks may be steps, too. `times`:
    its ETA, expiry, timeout and lease, and the time of a verdict. Its payload holds no arguments for a queue to read.
    """
    maybe = st.none() | times
    state = draw(st.sampled_from([state.name for state in LIFECYCLE.states] if states is None else states))
    return Task(
        draw(st.uuids()).hex,
        draw(st.sampled_from(["add", "tasks.mail"])),
        payload=draw(st.binary(max_size=4)),
        state=state,
        eta=draw(times if state == SCHEDULED else maybe),
        expires=draw(maybe),
        priority=draw(st.integers(-(2**31), 2**31 - 1)),
        retries=draw(st.sampled_from([0, 1]) | st.integers(0, 100)),
        retry=draw(retry_policies()),
        timeout=draw(maybe),
        attempt=draw(st.integers(0, 50)),
        interruptions=draw(st.sampled_from([0, 9, 10]) | st.integers(0, 12)),
        worker=draw(st.none() | st.just("before")),
        version=draw(st.integers(0, 200)),
        lease=draw(maybe),
        canceling=state is not None and LIFECYCLE.state(state).kind in _CANCELABLE and draw(st.booleans()),
        seq=draw(st.none() | st.integers(1, 9)),
        step=draw(_workflow_steps(state, times)),
    )


@st.composite
def _workflow_steps(draw: DrawFn, state: str | None, times: SearchStrategy[float]) -> WorkflowStep | None:
    """Draw the place in a workflow of a task in this state; ``None``: in none. A started task has its verdict."""
    waits = state in (PENDING, SKIPPED)
    if not (waits or draw(st.booleans())):
        return None
    awaits = draw(st.integers(int(waits), 3))
    before = tuple(f"before {number}" for number in range(awaits))
    verdict = None
    if awaits and state is not None and (state != PENDING or draw(st.booleans())):
        triggers = {PENDING.name: (ENQUEUE, SKIP), SKIPPED.name: (SKIP,)}.get(state, (ENQUEUE,))
        verdict = Verdict(draw(st.sampled_from(triggers)), draw(st.sampled_from(before)), draw(times))
    inputs = draw(st.sampled_from((None, *before)))
    return WorkflowStep(
        inputs,
        awaits,
        draw(st.sampled_from(((), ("after",)))),
        draw(st.booleans()),
        verdict,
        tuple(one for one in before if one != inputs),
    )


def retry_policies() -> SearchStrategy[RetryPolicy]:
    """Draw retry policies, extreme ones included."""
    return st.just(RetryPolicy()) | st.builds(
        RetryPolicy,
        delay=st.sampled_from([0.0, 1.0, 10.0]) | st.floats(0, 1e6),
        backoff=st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 1e300),
        max_delay=st.just(86_400.0) | st.floats(0, 1e7),
        jitter=st.just(0.0) | st.floats(0, 1),
    )


def revocations(times: SearchStrategy[float] = all_times) -> SearchStrategy[Revocation | None]:
    """Draw the revocation of a task or a function, or ``None``."""
    return st.none() | st.builds(Revocation, until=st.none() | times, once=st.booleans())


def outcomes(triggers: Sequence[str] | None = None) -> SearchStrategy[Outcome]:
    """Draw outcomes of an attempt with these triggers (default: all triggers of a running task)."""
    return st.builds(
        Outcome,
        trigger=st.sampled_from(LIFECYCLE.allowed(EXECUTING) if triggers is None else triggers),
        result=st.none() | st.binary(max_size=3),
        retry=st.none() | st.booleans(),
        free=st.booleans(),
        delay=st.none() | few_times | st.floats(-10, 1e9),
        eta=st.none() | all_times,
    )


# Tables ------------------------------------------------------------------------------------------------------------

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=6)
_OPEN: Final = [kind for kind in Kind if kind is not Kind.FINAL]
_CANCELABLE: Final = (Kind.WAITING, Kind.RUNNING)
"""Kinds of states in which cancellation may be requested: of a running task, which may wait for a retry later."""


@st.composite
def tables(draw: DrawFn, min_open: int = 0) -> tuple[list[State], list[Transition]]:
    """Draw the states and transitions of a valid table, as lists, so that a test can break the table.

    At least `min_open` of the states are not final.
    """
    names = draw(st.lists(_names, min_size=min_open + 1, max_size=7, unique=True))
    signals = draw(st.lists(_names, min_size=len(names), max_size=len(names), unique=True))
    opens = draw(st.integers(min_open, len(names) - 1))
    names = names if opens else names[:1]
    kinds = [draw(st.sampled_from(_OPEN)) for _ in range(opens)] + [Kind.FINAL] * (len(names) - opens)
    states = [State(*columns, "a worker") for columns in zip(names, signals, kinds, strict=False)]
    # Every state is reached from one before it, and every open state leads to a later one.
    edges = [(draw(st.integers(0, min(place, opens) - 1)), place) for place in range(1, len(states))]
    edges += [(place, draw(st.integers(place + 1, len(states) - 1))) for place in range(opens)]
    if opens:
        edges += draw(st.lists(st.tuples(st.integers(0, opens - 1), st.integers(0, len(states) - 1)), max_size=6))
    triggers = [
        f"do_{name}" for name in draw(st.lists(_names, min_size=len(edges), max_size=len(edges) + 3, unique=True))
    ]
    births = draw(st.lists(st.sampled_from(triggers or ["do"]), min_size=1, max_size=2, unique=True))
    rows, used = [Transition(births[0], None, states[0], "a task is created")], set()
    rows += [Transition(trigger, None, draw(st.sampled_from(states)), "or elsewhere") for trigger in births[1:]]
    for start, end in edges:
        trigger = draw(st.sampled_from([one for one in triggers if (start, one) not in used]))
        used.add((start, trigger))
        rows.append(Transition(trigger, states[start], states[end], "always"))
    return draw(st.permutations(states)), draw(st.permutations(rows))


def lifecycles(min_open: int = 0) -> SearchStrategy[Lifecycle]:
    """Draw valid tables of any shape: with loops, shared triggers, several beginnings and ends, rows in any order.

    At least `min_open` of the states are not final.
    """
    return tables(min_open).map(lambda table: Lifecycle(*table))
