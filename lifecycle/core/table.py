"""The law: every state of a task and every trigger between states. No other module defines a transition.

Two rules come first:

1. **A signal is the entry into a state.** Each state names its signal; nothing else sends a signal.
2. **Final means final.** No row of the table leaves a final state.

`Lifecycle` checks its table in the constructor: in every table that exists, each state can be reached, and a final
state can be reached from each state. The table is data. The machine, the guards in storage, the diagrams, the tables in
the documentation and the model in the tests are derived from it.

A table builds its own machine, so this module imports the generic machine (`lifecycle.core.machine`).
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from lifecycle.core.machine import CompiledMachine, IllegalTransition
from lifecycle.errors import ConfigurationError, FaultyTable, UnknownSignal

__all__ = ["LIFECYCLE", "Kind", "Lifecycle", "State", "Transition"]


class Kind(StrEnum):
    """Meaning of a state for the task in the state."""

    WAITING = "waiting"
    """In the store, to be claimed by a worker."""
    RUNNING = "running"
    """Under a worker's lease."""
    PASSING = "passing"
    """Entered and left within one commit; no stored task is in a passing state."""
    OUTCOME = "outcome"
    """End of an attempt without success; the last state of the task unless the task is retried."""
    FINAL = "final"
    """Never left."""


class State(str):
    """Name of a state (a `str`) with the state's signal, its kind and a note on what moves a task on.

    ``State("queued", …) == "queued"``. Sets and dicts treat a state as the plain string.
    """

    __slots__ = ("kind", "moved_by", "name", "signal")

    name: str
    """The plain name."""
    signal: str
    kind: Kind
    moved_by: str

    def __new__(cls, name: str, signal: str, kind: Kind, moved_by: str) -> Self:
        """`name` is stored, `signal` is sent on entry, `moved_by` is one line for the documentation."""
        self = super().__new__(cls, name)
        self.name, self.signal, self.kind, self.moved_by = name, signal, kind, moved_by
        return self

    def __getnewargs__(self) -> tuple[str, str, Kind, str]:  # type: ignore[override]  # that of str has one element
        return (self.name, self.signal, self.kind, self.moved_by)


class Transition(NamedTuple):
    """Row of the table."""

    trigger: str
    source: State | None
    """``None``: the task does not exist yet."""
    target: State
    why: str
    """Reason for the row, in one line."""


class Lifecycle:
    """Checked, immutable table of states and transitions; tables compare by identity.

    Raises `FaultyTable`, which lists every fault, unless: names and signals are unique; each pair of state and trigger
    has one target; at least one row creates a task; every state can be reached; no row leaves a final state, and at
    least one row leaves every other state; a final state can be reached from each state.
    """

    states: tuple[State, ...]
    transitions: tuple[Transition, ...]
    initial: State
    """State of a new task; if there are several, the state of the first row that creates a task."""

    def __init__(self, states: Iterable[State], transitions: Iterable[Transition]) -> None:
        """`states` and `transitions` keep their order in documentation and diagrams."""
        self.states = tuple(states)
        self.transitions = tuple(transitions)
        if faults := _find_faults(self.states, self.transitions):
            raise FaultyTable(tuple(faults))
        self._by_name = {state.name: state for state in self.states}
        self._by_signal = {state.signal: state for state in self.states}
        self._rows: dict[str | None, dict[str, State]] = {name: {} for name in (None, *self._by_name)}
        for row in self.transitions:
            self._rows[None if row.source is None else row.source.name][row.trigger] = row.target
        self.initial = next(iter(self._rows[None].values()))
        self._walks: dict[tuple[str | None, tuple[str, ...]], tuple[State, ...]] = {}

    def state(self, name: str) -> State:
        """Return the state of this name; raises `ConfigurationError` with the list of states."""
        try:
            return self._by_name[name]
        except KeyError:
            raise ConfigurationError(f"no state {name!r}: there are {', '.join(self._by_name)}") from None

    def by_signal(self, name: str) -> State:
        """Return the state whose entry sends this signal; raises `UnknownSignal` with the list of signals."""
        try:
            return self._by_signal[name]
        except (KeyError, TypeError):  # TypeError: not hashable, so no name
            raise UnknownSignal(f"no signal {name!r}: there are {', '.join(self._by_signal)}") from None

    def of_kind(self, *kinds: Kind) -> tuple[State, ...]:
        """Return the states of these kinds, in the table's order."""
        return tuple(state for state in self.states if state.kind in kinds)

    def allowed(self, state: str | None) -> tuple[str, ...]:
        """Return the triggers that `state` allows, in the table's order; ``None`` as state: there is no task yet."""
        return tuple(self._from(state))

    def targets(self, state: str | None) -> tuple[State, ...]:
        """Return the states that may be entered next from `state`, in the table's order, each once."""
        return tuple(dict.fromkeys(self._from(state).values()))

    def next(self, state: str | None, trigger: str) -> State:
        """Return the state that `trigger` leads to; raises `IllegalTransition` if the table has no such row."""
        return self.walk(state, (trigger,))[0]

    def walk(self, state: str | None, path: tuple[str, ...]) -> tuple[State, ...]:
        """Return the states that the triggers in `path` enter one after the other, starting in `state`.

        Raises `IllegalTransition` for the first trigger that is not allowed in its state. Results are cached: on the
        hot path this is one dictionary look-up.
        """
        try:
            return self._walks[state, path]
        except KeyError:
            current, entered = state, []
            self._from(current)  # raises for an unknown state, also if the path is empty
            for trigger in path:
                allowed = self._from(current)
                if trigger not in allowed:
                    raise IllegalTransition(state=current, trigger=trigger, allowed=tuple(allowed)) from None
                entered.append(allowed[trigger])
                current = allowed[trigger].name
            return self._walks.setdefault((state, path), tuple(entered))

    def _from(self, state: str | None) -> dict[str, State]:
        """Return trigger → target for the rows that leave `state`."""
        return self._rows[None if state is None else self.state(state).name]

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals, in the order of the states."""
        return tuple(self._by_signal)

    @property
    def triggers(self) -> tuple[str, ...]:
        """Names of the triggers, in the table's order."""
        return tuple(dict.fromkeys(row.trigger for row in self.transitions))

    @property
    def steps(self) -> Mapping[str | None, frozenset[State]]:
        """Map of each stored state (``None``: no task yet) to the states in which one commit may leave the task.

        A commit writes a whole path at once, for example `fail`, `retry`, `schedule`, so that a store sees only the two
        ends of the path. Only outcomes and passing states can lie between the ends, and the state in which a waiting
        task is enqueued: a claim may start the task in the same commit. No task stays in a passing state. Stores derive
        their guards from this map.
        """
        steps: dict[str | None, frozenset[State]] = {}
        for start in (None, *self.states):
            waits = start is not None and start.kind is Kind.WAITING
            ends: set[State] = set()
            todo = list(self._rows[start and start.name].items())
            while todo:
                trigger, state = todo.pop()
                if state not in ends:
                    ends.add(state)
                    if state.kind in (Kind.OUTCOME, Kind.PASSING) or (waits and trigger == ENQUEUE):
                        todo.extend(self._rows[state.name].items())
            steps[start and start.name] = frozenset(state for state in ends if state.kind is not Kind.PASSING)
        return MappingProxyType(steps)

    def machine(self, model: object = None) -> CompiledMachine:
        """Return a new `transitions.Machine` of this table, for `model` or a list of models if given.

        You may add callbacks and conditions: the queue uses a machine of its own.
        """
        return CompiledMachine(
            model=model,
            states=[state.name for state in self.states],
            transitions=[
                {"trigger": row.trigger, "source": row.source.name, "dest": row.target.name}
                for row in self.transitions
                if row.source is not None
            ],
            initial=self.initial.name,
            auto_transitions=False,  # with the library's default, any state could reach any other
        )

    def __repr__(self) -> str:
        return f"<Lifecycle of {len(self.states)} states and {len(self.transitions)} transitions>"


def _find_faults(states: tuple[State, ...], rows: tuple[Transition, ...]) -> list[str]:
    """Return the faults of a table, one line each; empty for a sound table."""
    faults: list[str] = []
    for what, names in (("state", [s.name for s in states]), ("signal", [s.signal for s in states])):
        faults += [f"{what} {name!r} is defined twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    targets: dict[str | None, set[str]] = {None: set()} | {state.name: set() for state in states}
    pairs: set[tuple[str | None, str]] = set()
    for trigger, source, target, _why in rows:
        # By identity: a State of the same name may have another signal or another kind.
        unknown = [str(end) for end in (source, target) if end is not None and all(end is not one for one in states)]
        if unknown:
            faults.append(f"{trigger!r} names {', '.join(unknown)}: not a state of the table")
            continue
        start = None if source is None else str(source)
        if (start, trigger) in pairs:
            faults.append(f"{trigger!r} from {start or '(new)'} is defined twice")
        pairs.add((start, trigger))
        targets[start].add(str(target))
    creations = [source for _, source, _, _ in rows].count(None)
    if not creations:
        faults.append("no row creates a task: must be at least 1")
    faults += [f"{state} cannot be reached" for state in states if state.name not in _reachable(targets, None)]
    for state in states:
        if state.kind is Kind.FINAL and targets[state.name]:
            faults.append(f"{state} is final but leads to {', '.join(sorted(targets[state.name]))}")
        elif state.kind is not Kind.FINAL and not targets[state.name]:
            faults.append(f"{state} is a trap: not final, but no row leaves it")
        elif not any(
            end.kind is Kind.FINAL for end in states if end == state or end.name in _reachable(targets, state.name)
        ):
            faults.append(f"no final state can be reached from {state}")
    return faults


def _reachable(targets: Mapping[str | None, set[str]], start: str | None) -> set[str]:
    """Return the names of the states that can be reached from `start` in one or more steps."""
    reached: set[str] = set()
    todo = list(targets[start])
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo.extend(targets[name])
    return reached


# The states -------------------------------------------------------------------------------------------------------

_CLAIMER: Final = "a worker that claims it"
_RETRIER: Final = "a retry, if any is left, or an operator's"
_NOBODY: Final = "nobody"

QUEUED: Final = State("queued", "enqueued", Kind.WAITING, _CLAIMER)
SCHEDULED: Final = State("scheduled", "scheduled", Kind.WAITING, "a worker, once its ETA has come")
PENDING: Final = State(
    "pending", "pending", Kind.WAITING, "a worker, once the tasks before it in a workflow have ended"
)
EXECUTING: Final = State(
    "executing",
    "executing",
    Kind.RUNNING,
    "the worker that holds its lease; once the lease has lapsed, recovery",
)
COMPLETED: Final = State("complete", "complete", Kind.FINAL, _NOBODY)
REVOKED: Final = State("revoked", "revoked", Kind.FINAL, _NOBODY)
EXPIRED: Final = State("expired", "expired", Kind.FINAL, _NOBODY)
SKIPPED: Final = State("skipped", "skipped", Kind.FINAL, _NOBODY)
ERROR: Final = State("error", "error", Kind.OUTCOME, _RETRIER)
TIMEOUT: Final = State("timeout", "timeout", Kind.OUTCOME, _RETRIER)
LOCKED: Final = State("locked", "locked", Kind.OUTCOME, _RETRIER)
RATE_LIMITED: Final = State("rate-limited", "rate-limited", Kind.OUTCOME, _RETRIER)
CANCELED: Final = State("canceled", "canceled", Kind.OUTCOME, _RETRIER)
INTERRUPTED: Final = State(
    "interrupted",
    "interrupted",
    Kind.OUTCOME,
    "recovery requeues it; after too many interruptions, only an operator",
)
RETRYING: Final = State("retrying", "retrying", Kind.PASSING, "the same commit that entered it")

# The triggers ------------------------------------------------------------------------------------------------------

ENQUEUE: Final = "enqueue"
SCHEDULE: Final = "schedule"
DEFER: Final = "defer"
START: Final = "start"
REVOKE: Final = "revoke"
EXPIRE: Final = "expire"
SKIP: Final = "skip"
COMPLETE: Final = "complete"
FAIL: Final = "fail"
TIME_OUT: Final = "time_out"
LOCK_OUT: Final = "lock_out"
RATE_LIMIT: Final = "rate_limit"
CANCEL: Final = "cancel"
INTERRUPT: Final = "interrupt"
RETRY: Final = "retry"
RECOVER: Final = "recover"

# The table ---------------------------------------------------------------------------------------------------------

LIFECYCLE: Final = Lifecycle(
    states=(
        QUEUED, SCHEDULED, PENDING, EXECUTING, COMPLETED, REVOKED, EXPIRED, SKIPPED,
        ERROR, TIMEOUT, LOCKED, RATE_LIMITED, CANCELED, INTERRUPTED, RETRYING,
    ),
    transitions=(
        Transition(ENQUEUE, None, QUEUED, "its function is called"),
        Transition(DEFER, None, PENDING, "it is a step of a workflow, and other steps come first"),
        Transition(ENQUEUE, PENDING, QUEUED, "the steps before it have ended as it needs"),
        Transition(ENQUEUE, RETRYING, QUEUED, "a retry without a delay waits for the next free worker"),
        Transition(SCHEDULE, QUEUED, SCHEDULED, "a worker claimed it before its ETA"),
        Transition(SCHEDULE, PENDING, SCHEDULED, "the steps before it have ended before its ETA"),
        Transition(SCHEDULE, RETRYING, SCHEDULED, "a retry with a delay waits for its ETA"),
        Transition(START, QUEUED, EXECUTING, "a worker claimed it: due, not expired, not revoked"),
        Transition(START, SCHEDULED, EXECUTING, "its ETA has come and a worker claimed it"),
        Transition(REVOKE, QUEUED, REVOKED, "it, or its function, is revoked"),
        Transition(REVOKE, SCHEDULED, REVOKED, "it is revoked, or its function is when its ETA comes"),
        Transition(REVOKE, PENDING, REVOKED, "it is revoked before its turn, or its function is at its turn"),
        Transition(SKIP, PENDING, SKIPPED, "the steps before it have ended so that it never runs"),
        Transition(EXPIRE, QUEUED, EXPIRED, "no worker claimed it before its expiry"),
        Transition(EXPIRE, SCHEDULED, EXPIRED, "its expiry came before its ETA, or before a worker"),
        Transition(EXPIRE, PENDING, EXPIRED, "its expiry came before its turn"),
        Transition(COMPLETE, EXECUTING, COMPLETED, "its function returned"),
        Transition(FAIL, EXECUTING, ERROR, "its function raised, or its arguments cannot be read"),
        Transition(TIME_OUT, EXECUTING, TIMEOUT, "it ran longer than its timeout"),
        Transition(LOCK_OUT, EXECUTING, LOCKED, "the lock that it needs is taken"),
        Transition(RATE_LIMIT, EXECUTING, RATE_LIMITED, "one of its rate limits is exceeded"),
        Transition(CANCEL, EXECUTING, CANCELED, "a hook, the task itself or an operator canceled it"),
        Transition(INTERRUPT, EXECUTING, INTERRUPTED, "its worker stopped, died, froze, or lacks the function"),
        Transition(RETRY, ERROR, RETRYING, "a retry is left, or an operator retries it"),
        Transition(RETRY, TIMEOUT, RETRYING, "the same"),
        Transition(RETRY, LOCKED, RETRYING, "the same"),
        Transition(RETRY, RATE_LIMITED, RETRYING, "the same; or the rate limit says when the next run is possible"),
        Transition(RETRY, CANCELED, RETRYING, "the same; or the cancellation asked for a retry"),
        Transition(RETRY, INTERRUPTED, RETRYING, "an operator retries a task that was interrupted too often"),
        Transition(RETRY, EXECUTING, RETRYING, "the task raised RetryTask"),
        Transition(RECOVER, INTERRUPTED, QUEUED, "an interrupted task is requeued; the retries left stay the same"),
    ),
)  # fmt: skip
"""The lifecycle of a task."""
