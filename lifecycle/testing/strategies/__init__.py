"""Hypothesis strategies made from the table: histories, legal and not, streams, tasks, outcomes, and tables themselves.

They need ``hypothesis`` (``pip install 'task-lifecycle[testing]'``). All names here are also in `lifecycle.testing`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, TypeVar

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import EXECUTING, LIFECYCLE, SCHEDULED, Kind, Lifecycle, State, Transition
from lifecycle.core.task import RetryPolicy, Task
from lifecycle.errors import ConfigurationError
from lifecycle.testing.strategies.paths import Paths

__all__ = [
    "Fault", "IllegalHistory", "Step", "illegal_histories", "legal_histories", "lifecycles", "outcomes",
    "retry_policies", "revocations", "schedules", "streams", "tables", "tasks",
]  # fmt: skip

T = TypeVar("T")

few: Final = st.integers(0, 6).map(float)
"""Moments so close together that equal ones are common."""
moments: Final = few | st.floats(0, 4e9)


# Histories ---------------------------------------------------------------------------------------------------------


@st.composite
def _walk(draw: DrawFn, walks: Paths, start: str | None, goals: frozenset[str | None], longest: int) -> list[str]:
    """The states of a walk from `start` to one of `goals`, at most `longest`.

    Half of its legs lead to any row of the table that can be reached, so that a state which a step in ten leads to, and
    from there one in ten, is no rarer than others; the other half are single steps.
    """
    at, walked = start, list[str]()
    while True:
        left = longest - len(walked)
        near, far = walks.legs(at, goals, left)
        if not near and not far:
            break
        stop = at in goals
        leg = draw(st.sampled_from([*[()] * stop, *near]) | st.sampled_from([*[()] * stop, *far]))
        if not leg:
            break
        walked += leg
        at = leg[-1]
    return walked + walks.way(at, goals)


def legal_histories(
    lifecycle: Lifecycle = LIFECYCLE, *, complete: bool = False, max_size: int = 20
) -> SearchStrategy[list[str]]:
    """The signals of one task, from its creation on, as the table allows them; shrinks to short ones.

    `complete`: whole lives only, which end where a task may rest: in an outcome or a final state. `max_size`: how many
    signals at most; raises `ConfigurationError` if no (whole) life is so short. The walks are random, but so that rare
    states are reached, however deep in the table they lie.
    """
    walks = Paths(lifecycle)
    goals = walks.resting if complete else walks.states
    if not walks.near(None, goals, max_size):
        raise ConfigurationError(f"no {'whole ' * complete}life has {max_size} signals or fewer")
    return _walk(walks, None, goals, max_size).map(walks.signals)


class Fault(StrEnum):
    """In which way one signal of a history is illegal."""

    UNKNOWN = "unknown"
    """No state sends it."""
    FIRST = "first"
    """The task's first signal is not that of its creation."""
    AFTER_END = "after-end"
    """It comes after a final state's."""
    REPEATED = "repeated"
    """It is the same as the one before."""
    SKIPPED = "skipped"
    """It would be legal one step later."""
    BACKWARDS = "backwards"
    """From its state the task might have come: the two signals have changed places."""
    ELSEWHERE = "elsewhere"
    """It belongs to another part of the table."""


@attrs.frozen
class IllegalHistory:
    """The signals of one task, with one among them that is illegal. Without that one they are legal."""

    signals: tuple[str, ...]
    position: int
    """Which is illegal; 1 is the first."""
    fault: Fault
    legal: tuple[str, ...]
    """What might have come there; empty: nothing."""


def illegal_histories(lifecycle: Lifecycle = LIFECYCLE, *, max_size: int = 20) -> SearchStrategy[IllegalHistory]:
    """Histories that are illegal in exactly one place, wherever that is.

    Every `Fault` that the table has room for is as likely as any other, and so is every pair of a state and a signal
    that may not follow there. `max_size`: how many signals at most, unless the place itself lies deeper in the table.
    """
    return _illegal(Paths(lifecycle), max_size)


@st.composite
def _illegal(draw: DrawFn, walks: Paths, max_size: int) -> IllegalHistory:
    faults = _faults(walks)
    fault = draw(st.sampled_from([Fault.UNKNOWN, *sorted(faults)]))
    if fault is Fault.UNKNOWN:
        place: str | None = draw(st.sampled_from(walks.places))
        signal = draw(_unknown_signals(walks.lifecycle))
    else:
        place, signal = draw(st.sampled_from(faults[fault]))
    room = max(max_size - 1, walks.distance(None, frozenset({place})))
    before = draw(_walk(walks, None, frozenset({place}), room)) if place is not None else []
    # No task: what follows may be nothing, or the life that the illegal signal came too early for.
    after = draw(_walk(walks, place, walks.states | {place}, max(room - len(before), 0)))
    signals = (*walks.signals(before), signal, *walks.signals(after))
    legal = tuple(walks.signals(walks.following(place)))
    return IllegalHistory(signals, len(before) + 1, fault, legal)


def _faults(walks: Paths) -> dict[Fault, list[tuple[str | None, str]]]:
    """For each kind of fault the pairs of a state (``None``: no task yet) and a known signal that make it."""
    found: dict[Fault, list[tuple[str | None, str]]] = {}
    for place in walks.places:
        following = walks.following(place)
        later = {state for one in following for state in walks.following(one)}
        for state in walks.lifecycle.states:
            if state.name in following:
                continue
            if place is None:
                fault = Fault.FIRST
            elif walks.lifecycle.state(place).kind is Kind.FINAL:
                fault = Fault.AFTER_END
            elif state == place:
                fault = Fault.REPEATED
            elif state in later:
                fault = Fault.SKIPPED
            elif place in walks.following(state.name):
                fault = Fault.BACKWARDS
            else:
                fault = Fault.ELSEWHERE
            found.setdefault(fault, []).append((place, state.signal))
    return found


def _unknown_signals(lifecycle: Lifecycle) -> SearchStrategy[str]:
    """Any text but a signal, and what is easily taken for one: a state's or a trigger's name, another spelling."""
    signals = set(lifecycle.signals)
    near = {name for signal in signals for name in (signal.upper(), f" {signal}", f"{signal}\n", signal[:-1])}
    near |= {state.name for state in lifecycle.states} | set(lifecycle.triggers)
    return st.sampled_from(sorted(near - signals)) | st.text().filter(lambda text: text not in signals)


# Many tasks, many workers ------------------------------------------------------------------------------------------


@st.composite
def _merged(draw: DrawFn, sequences: Sequence[Sequence[T]]) -> list[tuple[int, T]]:
    """The sequences, each in its own order, mixed in any way; each item with its sequence's number."""
    turns = [number for number, sequence in enumerate(sequences) for _ in sequence]
    rest = [iter(sequence) for sequence in sequences]
    return [(number, next(rest[number])) for number in draw(st.permutations(turns))]


def streams(
    lifecycle: Lifecycle = LIFECYCLE, *, complete: bool = False, max_tasks: int = 5, max_size: int = 12
) -> SearchStrategy[list[tuple[str, str]]]:
    """The signals of many tasks, as one listener hears them: ``(task id, signal)``, each task's in legal order.

    `complete`: every task comes to rest. `max_size`: how many signals a task has at most.
    """
    histories = legal_histories(lifecycle, complete=complete, max_size=max_size)
    return (
        st.lists(histories, max_size=max_tasks)
        .flatmap(_merged)
        .map(lambda heard: [(f"task-{number}", signal) for number, signal in heard])
    )


@attrs.frozen
class Step:
    """What a worker does next."""

    worker: str
    outcome: Outcome | None
    """``None``: it claims a task. Else it settles the one that it claimed last, if it got one."""
    after: float
    """Seconds since the step before, whoever made that; may be longer than a lease."""


def schedules(
    workers: Sequence[str] = ("w1", "w2", "w3"), *, lease: float = 10.0, max_size: int = 12
) -> SearchStrategy[list[Step]]:
    """What several workers do, interleaved in any way: each claims, settles, claims, … in its own order.

    A worker may stop for good between the two, and any may sleep past its `lease` (seconds) while others go on.
    `max_size`: how many steps a worker makes at most. Shrinks to few steps, at once, with default outcomes.
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


# Tasks and what becomes of them ------------------------------------------------------------------------------------


@st.composite
def tasks(draw: DrawFn, states: Sequence[str] | None = None, times: SearchStrategy[float] = moments) -> Task:
    """A stored task in one of these states (default: any), with whatever else it may carry; a scheduled one has an ETA.

    `times`: where its ETA, expiry, timeout and lease are drawn from. Its payload is no queue's arguments.
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
        canceling=state is not None and LIFECYCLE.state(state).kind in _CALLED_OFF and draw(st.booleans()),
        seq=draw(st.none() | st.integers(1, 9)),
    )


def retry_policies() -> SearchStrategy[RetryPolicy]:
    """Ways to wait for a retry, the extreme ones included."""
    return st.just(RetryPolicy()) | st.builds(
        RetryPolicy,
        delay=st.sampled_from([0.0, 1.0, 10.0]) | st.floats(0, 1e6),
        backoff=st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 1e300),
        max_delay=st.just(86_400.0) | st.floats(0, 1e7),
        jitter=st.just(0.0) | st.floats(0, 1),
    )


def revocations(times: SearchStrategy[float] = moments) -> SearchStrategy[Revocation | None]:
    """What is revoked of a task or its function, if anything."""
    return st.none() | st.builds(Revocation, until=st.none() | times, once=st.booleans())


def outcomes(triggers: Sequence[str] | None = None) -> SearchStrategy[Outcome]:
    """How an attempt may end, with one of these triggers (default: whatever the table has for a running task)."""
    return st.builds(
        Outcome,
        trigger=st.sampled_from(LIFECYCLE.allowed(EXECUTING) if triggers is None else triggers),
        result=st.none() | st.binary(max_size=3),
        retry=st.none() | st.booleans(),
        free=st.booleans(),
        delay=st.none() | few | st.floats(-10, 1e9),
        eta=st.none() | moments,
    )


# Tables ------------------------------------------------------------------------------------------------------------

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=6)
_OPEN: Final = [kind for kind in Kind if kind is not Kind.FINAL]
_CALLED_OFF: Final = (Kind.WAITING, Kind.RUNNING)
"""Where a task can be that somebody has called off: it was running, and may wait again."""


@st.composite
def tables(draw: DrawFn, min_open: int = 0) -> tuple[list[State], list[Transition]]:
    """The states and rows of a valid table, to be broken before a `Lifecycle` is made of them.

    At least `min_open` of the states are not final.
    """
    names = draw(st.lists(_names, min_size=min_open + 1, max_size=7, unique=True))
    signals = draw(st.lists(_names, min_size=len(names), max_size=len(names), unique=True))
    opens = draw(st.integers(min_open, len(names) - 1))
    names = names if opens else names[:1]
    kinds = [draw(st.sampled_from(_OPEN)) for _ in range(opens)] + [Kind.FINAL] * (len(names) - opens)
    states = [State(*about, "somebody") for about in zip(names, signals, kinds, strict=False)]
    # Every state can be reached from one before it, and from every open one a later one can be.
    ways = [(draw(st.integers(0, min(place, opens) - 1)), place) for place in range(1, len(states))]
    ways += [(place, draw(st.integers(place + 1, len(states) - 1))) for place in range(opens)]
    if opens:
        ways += draw(st.lists(st.tuples(st.integers(0, opens - 1), st.integers(0, len(states) - 1)), max_size=6))
    triggers = [
        f"do_{name}" for name in draw(st.lists(_names, min_size=len(ways), max_size=len(ways) + 3, unique=True))
    ]
    rows, used = [Transition(draw(st.sampled_from(triggers or ["do"])), None, states[0], "it is born")], set()
    for start, end in ways:
        trigger = draw(st.sampled_from([one for one in triggers if (start, one) not in used]))
        used.add((start, trigger))
        rows.append(Transition(trigger, states[start], states[end], "it can"))
    return draw(st.permutations(states)), draw(st.permutations(rows))


def lifecycles(min_open: int = 0) -> SearchStrategy[Lifecycle]:
    """Valid tables of any shape: loops, shared triggers, several ends, states and rows in any order.

    At least `min_open` of the states are not final.
    """
    return tables(min_open).map(lambda table: Lifecycle(*table))
