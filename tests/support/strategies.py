"""The law, written by hand, and Hypothesis strategies that the tests share."""

import copy
from datetime import UTC, timedelta, timezone
from decimal import Decimal

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from support.profiles import examples

from lifecycle.core.task import Record, Task, read_history
from lifecycle.testing.strategies import all_times, outcomes

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""Settings of Hypothesis under which a slow machine is no failure."""
seldom = settings(patient, max_examples=examples(40))
"""The same, for what is slow, and so plain that few examples tell."""

RETRIER = "a retry, if any is left, or an operator's"
LAW = {  # state: its signal, its kind, who moves it on
    "queued": ("enqueued", "waiting", "a worker that claims it"),
    "scheduled": ("scheduled", "waiting", "a worker, once its ETA has come"),
    "pending": ("pending", "waiting", "a worker, once the tasks before it in a workflow have ended"),
    "executing": (
        "executing",
        "running",
        "the worker that holds its lease; once the lease has lapsed, recovery",
    ),
    "complete": ("complete", "final", "nobody"),
    "revoked": ("revoked", "final", "nobody"),
    "expired": ("expired", "final", "nobody"),
    "skipped": ("skipped", "final", "nobody"),
    "error": ("error", "outcome", RETRIER),
    "timeout": ("timeout", "outcome", RETRIER),
    "locked": ("locked", "outcome", RETRIER),
    "rate-limited": ("rate-limited", "outcome", RETRIER),
    "canceled": ("canceled", "outcome", RETRIER),
    "interrupted": ("interrupted", "outcome", "recovery requeues it; after too many interruptions, only an operator"),
    "retrying": ("retrying", "passing", "the same commit that entered it"),
}
MOVES = {  # trigger: from, to
    "enqueue": ((None, "pending", "retrying"), "queued"),
    "defer": ((None,), "pending"),
    "schedule": (("queued", "pending", "retrying"), "scheduled"),
    "start": (("queued", "scheduled"), "executing"),
    "revoke": (("queued", "scheduled", "pending"), "revoked"),
    "skip": (("pending",), "skipped"),
    "expire": (("queued", "scheduled", "pending"), "expired"),
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


# Tasks -------------------------------------------------------------------------------------------------------------

maybe = st.none() | all_times
endings = outcomes(ENDINGS)
"""Outcomes of attempts, with every trigger that ends an attempt."""


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
"""Values that are no moment, no duration and no number."""


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
    """The task after a move: the same whether its fields are set at once, as a store does, or step by step."""
    after, announced = copy.copy(task), copy.copy(task)
    move.apply(after)
    for step, state in enumerate(move.states):
        announced.state = state.name
        if step < len(move.states) - 1:
            move.enter(announced, step)
            assert (announced.state, announced.version, announced.worker) == (
                state.name,
                task.version + step + 1,
                move.worker,
            )
            assert announced.retries == (move.retries if "retry" in move.path[: step + 1] else task.retries)
            attempt = move.attempt if "interrupt" in move.path[: step + 1] else task.attempt
            assert (announced.eta, announced.attempt, announced.canceling) == (task.eta, attempt, task.canceling)
    move.apply(announced)
    assert attrs.astuple(announced, recurse=False) == attrs.astuple(after, recurse=False)
    return after


def unchanged(task, after, *but):
    """Assert that two tasks agree in all fields except `but` and the fields that every move changes."""
    skip = {"state", "version", "worker", "lease", "canceling", *but}
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
    after = moved(task, move)
    assert after.version == task.version + len(path)
    assert after.canceling == (task.canceling and move.ended is None)  # no request of cancellation outlives the rest
    before = task.attempt if path[-1] == "start" else move.attempt  # the start counts the attempt
    lines = [Record(state, move.at, move.worker, before) for state in entered[:-1]]
    lines.append(Record(entered[-1], move.at, move.worker, move.attempt))
    assert read_history(move.history) == lines
    return True
