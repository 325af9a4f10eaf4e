"""Policies of later attempts and of revocations ahead: when a task expires, and whether it would be revoked."""

import itertools
import math

import attrs
import pytest

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation, recover, settle, visibility
from lifecycle.core.task import RetryPolicy, Task

NOW, LATER, ETA, MUCH_LATER = 1000.0, 1500.0, 2000.0, 2500.0
ETAS = {"none": None, "past": 999.0, "now": NOW, "ahead": ETA}
EXPIRIES = {"none": None, "past": 999.0, "now": NOW, "before eta": LATER, "after eta": MUCH_LATER}
UNTILS = {"past": 999.0, "now": NOW, "before eta": LATER, "at eta": ETA, "after eta": MUCH_LATER, "for good": None}
REVOCATIONS = {None: None} | {name: Revocation(until) for name, until in UNTILS.items()}


@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("expires", EXPIRIES)
def test_task_is_revoked_if_it_would_be_at_its_turn(state, expires):
    """A waiting task counts as revoked if a claim now, or at its ETA, would revoke it; any other task if it is now."""
    for eta, own, function in itertools.product(ETAS, REVOCATIONS, REVOCATIONS):
        task = Task("7", "add", state=state, eta=ETAS[eta], expires=EXPIRIES[expires])
        turn = ETA if eta == "ahead" else NOW
        of_task = policies.admit(task, REVOCATIONS[own], None, NOW) == "revoke"
        of_function = policies.admit(task, None, REVOCATIONS[function], turn) == "revoke"
        arguments = REVOCATIONS[own], REVOCATIONS[function], NOW
        assert policies.revokes(task, *arguments) == (of_task or of_function)
        task.state = "executing"
        assert policies.revokes(task, *arguments) == any(
            one in ("before eta", "at eta", "after eta", "for good") for one in (own, function)
        )


RELATIVE = RetryPolicy(expires_after=10.0)


@pytest.mark.parametrize(
    ("attempt", "eta", "policy", "expected"),
    [
        (0, None, RELATIVE, 5.0),
        (0, 50.0, RELATIVE, 5.0),
        (1, 50.0, RELATIVE, 60.0),
        (2, None, RELATIVE, None),
        (1, 50.0, RetryPolicy(), 5.0),
    ],
)
def test_later_attempt_expires_by_its_own_eta(attempt, eta, policy, expected):
    """The expiry of a later attempt counts from its ETA if the policy says so; else it is that of the task."""
    task = Task("7", "add", state="scheduled", eta=eta, expires=5.0, attempt=attempt, retry=policy)
    assert policies.expiry(task) == expected
    assert policies.expiry(attrs.evolve(task, expires=None)) is None
    assert visibility(task, None, 0.0)[1] == min(one for one in (eta, expected, math.inf) if one is not None)
    if expected is not None and eta is not None:
        assert policies.admit(task, None, None, max(expected, eta)) == "expire"
        assert policies.admit(task, None, None, max(expected, eta) - 0.5) == ("start" if expected > eta else "expire")


def test_each_later_attempt_has_an_eta_from_which_its_expiry_counts():
    """A retry at once, a requeued task and an operator's retry have the present as their ETA if their expiry counts from it."""
    for policy, expected in (RELATIVE, NOW), (RetryPolicy(), None):
        task = Task("7", "add", state="executing", expires=5.0, attempt=1, retries=1, retry=policy)
        moves = [
            settle(task, Outcome("fail"), NOW, worker="w"),
            recover(task, NOW, worker="w"),
            recover(task, NOW, worker="w", free=True),
            policies.retry(attrs.evolve(task, state="error"), NOW, worker="w"),
        ]
        assert [move.eta for move in moves] == [expected] * 4
        assert recover(attrs.evolve(task, interruptions=1), NOW, worker="w").eta == NOW + policies.interruption_pause(2)
