"""The law, typed by hand, and Hypothesis strategies: what the tests of the core share."""

import copy
from datetime import UTC, timedelta, timezone
from decimal import Decimal

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lifecycle.policies import Outcome, Revocation
from lifecycle.table import Kind, Lifecycle, State, Transition
from lifecycle.task import Record, RetryPolicy, Task, read_history

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""As Hypothesis has it, but a slow machine is no failure."""
seldom = settings(patient, max_examples=40)
"""The same, for what is slow, and so plain that few examples tell."""

RETRIER = "a retry, if any is left, or an operator's"
LAW = {  # state: its signal, its kind, who moves it on
    "queued": ("enqueued", "waiting", "a worker that claims it"),
    "scheduled": ("scheduled", "waiting", "a worker, once its ETA has come"),
    "executing": (
        "executing",
        "running",
        "the worker that holds its lease; once the lease has lapsed, whoever recovers it",
    ),
    "complete": ("complete", "final", "nobody"),
    "revoked": ("revoked", "final", "nobody"),
    "expired": ("expired", "final", "nobody"),
    "error": ("error", "outcome", RETRIER),
    "timeout": ("timeout", "outcome", RETRIER),
    "locked": ("locked", "outcome", RETRIER),
    "rate-limited": ("rate-limited", "outcome", RETRIER),
    "canceled": ("canceled", "outcome", RETRIER),
    "interrupted": ("interrupted", "outcome", "recovery puts it back; after too many interruptions, only an operator"),
    "retrying": ("retrying", "passing", "the same commit that entered it"),
}
MOVES = {  # trigger: from, to
    "enqueue": ((None, "retrying"), "queued"),
    "schedule": (("queued", "retrying"), "scheduled"),
    "start": (("queued", "scheduled"), "executing"),
    "revoke": (("queued", "scheduled"), "revoked"),
    "expire": (("queued", "scheduled"), "expired"),
    "complete": (("executing",), "complete"),
    "fail": (("executing",), "error"),
    "time_out": (("executing",), "timeout"),
    "lock_out": (("executing",), "locked"),
    "rate_limit": (("executing",), "rate-limited"),
    "cancel": (("executing",), "canceled"),
    "interrupt": (("executing",), "interrupted"),
    "retry": (("error", "timeout", "locked", "rate-limited", "canceled", "interrupted", "executing"), "retrying"),
    "recover": (("interrupted",), "queued"),
}
EDGES = {(source, trigger): target for trigger, (sources, target) in MOVES.items() for source in sources}
ENDINGS = [trigger for state, trigger in EDGES if state == "executing"]
"""The triggers that end an attempt."""


def of_kind(*kinds):
    """The names of the states of these kinds."""
    return [name for name, (_, kind, _) in LAW.items() if kind in kinds]


# Tables ------------------------------------------------------------------------------------------------------------

_names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=6)
_OPEN = [kind for kind in Kind if kind is not Kind.FINAL]


@st.composite
def tables(draw, min_open=0):
    """The states and rows of a valid table; at least `min_open` of the states are not final."""
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


def lifecycles(min_open=0):
    """Valid tables of any shape: loops, shared triggers, several ends, states and rows in any order."""
    return tables(min_open).map(lambda table: Lifecycle(*table))


# Tasks -------------------------------------------------------------------------------------------------------------

few = st.integers(0, 6).map(float)
"""Moments so close together that equal ones are common."""
moments = few | st.floats(0, 4e9)
maybe = st.none() | moments


@st.composite
def tasks(draw, states=tuple(LAW), times=moments):
    """A task in one of these states, with whatever else it may carry."""
    state = draw(st.sampled_from(states))
    times = st.none() | times
    return Task(
        draw(st.uuids()).hex,
        draw(st.sampled_from(["add", "tasks.mail"])),
        payload=draw(st.binary(max_size=4)),
        state=state,
        eta=draw(times.filter(lambda eta: eta is not None) if state == "scheduled" else times),
        expires=draw(times),
        priority=draw(st.integers(-(2**31), 2**31 - 1)),
        retries=draw(st.sampled_from([0, 1]) | st.integers(0, 100)),
        retry=draw(retry_policies()),
        timeout=draw(times),
        attempt=draw(st.integers(0, 50)),
        interruptions=draw(st.sampled_from([0, 9, 10]) | st.integers(0, 12)),
        worker=draw(st.none() | st.just("before")),
        version=draw(st.integers(0, 200)),
        lease=draw(times),
        seq=draw(st.none() | st.integers(1, 9)),
    )


def retry_policies():
    """Ways to wait for a retry, the extreme ones included."""
    return st.just(RetryPolicy()) | st.builds(
        RetryPolicy,
        delay=st.sampled_from([0.0, 1.0, 10.0]) | st.floats(0, 1e6),
        backoff=st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 1e300),
        max_delay=st.just(86_400.0) | st.floats(0, 1e7),
        jitter=st.just(0.0) | st.floats(0, 1),
    )


def revocations(times=moments):
    """What is revoked of a task or its function, if anything."""
    return st.none() | st.builds(Revocation, until=st.none() | times, once=st.booleans())


endings = st.builds(
    Outcome,
    trigger=st.sampled_from(ENDINGS),
    result=st.none() | st.binary(max_size=3),
    retry=st.none() | st.booleans(),
    free=st.booleans(),
    delay=st.none() | few | st.floats(-10, 1e9),
    eta=st.none() | moments,
)
"""How an attempt may end."""


records = st.builds(
    Record,
    state=st.sampled_from(list(LAW)),
    at=st.floats(allow_nan=False),
    worker=st.text() | st.text("\\x41n\t\n\r\x85\u2028"),
    attempt=st.integers(0),
)
"""Lines of a history; workers may have any name."""

# What users and their tasks come up with ---------------------------------------------------------------------------

zones = st.none() | st.just(UTC) | st.integers(-23, 23).map(lambda hours: timezone(timedelta(hours=hours)))
NO_NUMBERS = [True, False, "5", b"5", Decimal(5), [5], object(), float("nan"), float("inf"), float("-inf"), 10**400]
"""What is no moment and no duration."""


class Broken(Exception):
    """Cannot tell what it is."""

    def __repr__(self):
        raise RuntimeError


ODD = type("Odd", (Exception,), {"__repr__": lambda self: 5, "__module__": 5})
BROKEN_ERRORS = [Broken(), ODD(), SyntaxError("x", ("file", 1, 1, 5))]
"""Exceptions that cannot describe themselves."""


def storable(text):
    """A text as it is after a way through UTF-8: lone surrogates are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def damaged(whole):
    """Bytes, and what is left of `whole` when one byte is another and the end is cut off."""
    places = st.integers(0, len(whole))
    return st.binary() | st.builds(
        lambda at, byte, end: (whole[:at] + byte + whole[at + 1 :])[:end], places, st.binary(max_size=1), places
    )


# Moves -------------------------------------------------------------------------------------------------------------


def moved(task, move):
    """The task as it is after a move, as storage and announcement leave it; the move itself leaves it alone."""
    after = copy.copy(task)
    move.apply(after)
    assert after.state == task.state, "the state moves as the move is announced, not before"
    after.state = move.state.name
    return after


def unchanged(task, after, *but):
    """All fields of two tasks agree, but for these, and those that every move changes."""
    skip = {"state", "version", "worker", "lease", *but}
    known = [field.name for field in attrs.fields(Task) if field.name not in skip]
    return all(getattr(task, name) == getattr(after, name) for name in known)


def legal(task, move, path):
    """The move takes the task along this path of the law, to where it may rest or wait; nothing else is written."""
    assert move.path == path
    state, entered = task.state, []
    for trigger in path:
        state = EDGES[state, trigger]
        entered.append(state)
    assert list(move.states) == entered
    assert move.state == state
    assert state not in of_kind("passing")
    assert move.ended == (move.at if state in of_kind("outcome", "final") else None)
    assert moved(task, move).version == task.version + len(path)
    lines = [Record(state, move.at, move.worker, move.attempt) for state in entered]
    assert read_history(move.history) == lines
    return True
