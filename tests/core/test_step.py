"""Steps of workflows: reports and verdicts, and what the policies make of a task that waits for others."""

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import LAW, of_kind, patient

from lifecycle.core import policies
from lifecycle.core.policies import Revocation, admit, expiry, revokes, visibility
from lifecycle.core.step import Report, Step, Verdict, decided, input_ids, reports, step_from, step_text, verdict_text
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import RetryPolicy, Task, read_history
from lifecycle.testing import strategies as drawn

NOW, ETA, LATER = 1000.0, 2000.0, 2500.0
REVOCATIONS = {
    "none": None, "over": Revocation(NOW), "until later": Revocation(LATER), "for good": Revocation(),
}  # fmt: skip
VERDICTS = {
    "undecided": None, "enqueue": Verdict("enqueue", "a", 500.0), "skip": Verdict("skip", "a", 500.0),
}  # fmt: skip


def waiting(verdict=None, **fields):
    """A pending task."""
    return Task("7", "add", state="pending", step=Step("a", 1, verdict=VERDICTS.get(verdict)), **fields)


# Reports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LAW)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_end_is_reported_to_each_dependent_once(state, verdict):
    """A task that comes to rest reports to each task that waits for it; a skipped one names the cause of its own end."""
    step = Step(None, 0, ("b", "c"), verdict=VERDICTS[verdict])
    cause = "a" if verdict == "skip" else "7"
    wanted = [Report(dependent, cause, state == "complete", NOW) for dependent in ("b", "c")]
    assert reports("7", step, LIFECYCLE.state(state), NOW) == wanted
    assert reports("7", step, LIFECYCLE.state(state), None) == []
    assert reports("7", None, LIFECYCLE.state(state), NOW) == []
    assert reports("7", attrs.evolve(step, dependents=()), LIFECYCLE.state(state), NOW) == []


@pytest.mark.parametrize(("on_failure", "completed"), [*itertools.product((False, True), repeat=2)])
def test_verdict_follows_from_the_end(on_failure, completed):
    """A task runs after tasks that have completed, an error callback after one that has not; else both are skipped."""
    step = Step("a", 2, ("d",), on_failure, after=("b",))
    after = decided(step, Report("7", "b", completed, NOW))
    assert after.verdict == Verdict("enqueue" if completed != on_failure else "skip", "b", NOW)
    assert attrs.evolve(after, verdict=None) == step


# As text -----------------------------------------------------------------------------------------------------------

ids = st.text(min_size=1) | st.text(" a", min_size=1)
inputs = st.none() | st.recursive(ids, lambda inner: st.lists(inner | st.none(), max_size=3), max_leaves=8)
steps = st.builds(
    Step, inputs, st.integers(0, 9), st.lists(ids).map(tuple), st.booleans(), st.none(), st.lists(ids).map(tuple)
)
verdicts = st.none() | st.builds(
    Verdict, st.sampled_from(["enqueue", "skip"]), ids, st.floats(allow_nan=False, allow_infinity=False)
)


@patient
@given(steps, verdicts)
def test_stored_step_is_read_as_it_was(step, verdict):
    """A step and its verdict are the same after a way through the store's texts, whatever the ids are."""
    texts = step_text(step), None if verdict is None else verdict_text(verdict)
    assert step_from(*texts) == attrs.evolve(step, verdict=verdict)


def flat(tree):
    if isinstance(tree, str):
        return [tree]
    return [] if tree is None else [one for branch in tree for one in flat(branch)]


@patient
@given(steps)
def test_inputs_are_listed_in_their_order(step):
    """The ids in a tree of inputs are listed from left to right; those that pass nothing come after them."""
    assert input_ids(step.inputs) == flat(step.inputs)
    assert step.prerequisites == [*flat(step.inputs), *step.after]


# The guards of a claim ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("expires", [None, NOW, LATER])
def test_claim_guards_of_a_step_follow_the_order_of_the_law(verdict, expires):
    """The guards are: expired, own revocation, undecided or to skip, ETA ahead, revoked function now, else start."""
    for eta, own, function in itertools.product((None, NOW, ETA), REVOCATIONS, REVOCATIONS):
        task = waiting(verdict, eta=eta, expires=expires)
        stops = own == "for good" or (own == "until later" and verdict != "undecided")
        if expires == NOW:
            law = "expire"
        elif stops:
            law = "revoke"
        elif verdict != "enqueue":
            law = {"undecided": None}.get(verdict, verdict)
        elif eta == ETA:
            law = "schedule"
        elif function in ("until later", "for good"):
            law = "revoke"
        else:
            law = "start"
        assert admit(task, REVOCATIONS[own], REVOCATIONS[function], NOW) == law, (eta, own, function)


def test_undecided_task_counts_as_revoked_only_if_it_is_now():
    """Nobody knows the turn of an undecided task: a revocation counts if it holds now, the function's too."""
    for own, function in itertools.product(REVOCATIONS, REVOCATIONS):
        wanted = {own, function} & {"until later", "for good"}
        assert revokes(waiting(eta=ETA), REVOCATIONS[own], REVOCATIONS[function], NOW) == bool(wanted)


@pytest.mark.parametrize("state", [state for state in LAW if state != "pending"])
def test_verdict_counts_only_in_pending(state):
    """A task that has left `pending` passes the guards of its state, whatever its verdict is."""
    if state in of_kind("waiting"):
        task = attrs.evolve(waiting("enqueue", eta=None), state=state)
        alone = attrs.evolve(task, step=None)
        for own in REVOCATIONS.values():
            assert admit(task, own, None, NOW) == admit(alone, own, None, NOW)
            assert visibility(task, own, NOW) == visibility(alone, own, NOW)


# When a claim looks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", VERDICTS)
def test_expiry_of_its_own_goes_before_one_that_counts_from_the_verdict(verdict):
    """A step with an expiry at a moment expires then, also if its function has one that counts from the verdict."""
    task = waiting(verdict, expires=700.0, retry=RetryPolicy(expires_after=9000.0))
    assert (expiry(task), admit(task, None, None, 700.0)) == (700.0, "expire")


@pytest.mark.parametrize("own", REVOCATIONS)
@pytest.mark.parametrize("expires", [None, 700.0, LATER])
def test_step_is_seen_by_claims_with_its_verdict(own, expires):
    """A claim looks at a step from its verdict on, first at one to skip; at an undecided one at its expiry only."""
    revoked = own == "for good"
    for verdict, rank in ("undecided", None), ("enqueue", 3), ("skip", policies.REVOKED_RANK):
        task = waiting(verdict, eta=ETA, expires=expires, priority=3)
        if revoked or (own == "until later" and verdict != "undecided"):
            wanted = policies.REVOKED_RANK, None
            wanted = wanted if revoked or max(NOW, ETA) < LATER else (rank, None)
        else:
            wanted = (rank, None) if rank is not None else (None, expires or float("inf"))
        assert visibility(task, REVOCATIONS[own], NOW) == wanted


def test_expiry_counts_from_the_verdict():
    """A relative expiry of a step counts from its verdict, or from its ETA if that is later; before, there is none."""
    policy = RetryPolicy(expires_after=10.0)
    assert expiry(waiting("undecided", retry=policy)) is None
    assert expiry(waiting("enqueue", retry=policy)) == 510.0
    assert expiry(waiting("enqueue", eta=400.0, retry=policy)) == 510.0
    assert expiry(waiting("enqueue", eta=700.0, retry=policy)) == 710.0
    assert expiry(waiting("enqueue", eta=700.0, attempt=1, retry=policy)) == 710.0
    assert expiry(waiting("enqueue", attempt=1, retry=policy)) is None
    assert expiry(waiting("enqueue", expires=5.0)) == 5.0
    for at, trigger in (509.5, "start"), (510.0, "expire"):
        assert admit(waiting("enqueue", retry=policy), None, None, at) == trigger


@patient
@given(drawn.tasks(["pending"]), drawn.all_times, drawn.all_times)
def test_step_is_enqueued_and_started_in_one_move(task, now, lease):
    """A claim that starts a step writes two lines of history: the first has the number of attempts before the start."""
    move = policies.claimed(task, "start", "w", now, lease)
    assert (move.path, [*move.states]) == (("enqueue", "start"), ["queued", "executing"])
    lines = [(record.state, record.attempt) for record in read_history(move.history)]
    assert lines == [("queued", task.attempt), ("executing", task.attempt + 1)]
    assert move.version == task.version + 2
    assert move.attempt == task.attempt + 1
