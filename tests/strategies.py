"""The law, typed by hand, and Hypothesis strategies: what the tests of the core share."""

from hypothesis import settings
from hypothesis import strategies as st

from lifecycle.policies import Revocation
from lifecycle.table import Kind, Lifecycle, State, Transition
from lifecycle.task import RetryPolicy, Task

patient = settings(deadline=None)
"""As Hypothesis has it, but a slow machine is no failure."""

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
        interruptions=draw(st.integers(0, 12)),
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
