"""Policies: guards, outcomes, waits, and the stored history."""

import copy
import itertools
import uuid

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import strategies as some
from support.strategies import EDGES, ENDINGS, LAW, MOVES, of_kind, patient

from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import Outcome, Revocation, backoff, recover, revoked_when_due, settle, visibility
from lifecycle.core.step import Step
from lifecycle.core.table import LIFECYCLE
from lifecycle.core.task import (
    HISTORY_HEAD,
    HISTORY_STEP,
    HISTORY_TAIL,
    Record,
    RetryPolicy,
    Task,
    cut_history,
    history_line,
    is_history_cut,
    lines_after,
    new_id,
    numbered,
    policy_fields,
    read_history,
)
from lifecycle.errors import Undecodable
from lifecycle.execution import stored_result as outcomes
from lifecycle.testing import strategies as drawn

WAITING, OUTCOMES = of_kind("waiting"), of_kind("outcome")
CLAIMS = [(state, trigger) for state, trigger in EDGES if state in WAITING and trigger != "enqueue"]
CLAIMS += [("pending", "start")]  # a claim enqueues and starts a pending task in one move

# The guards of a claim ---------------------------------------------------------------------------------------------


NOW, LATER, ETA, MUCH_LATER = 1000.0, 1500.0, 2000.0, 2500.0
ETAS = {"none": None, "past": 999.0, "now": NOW, "ahead": ETA}
EXPIRIES = {"none": None, "past": 999.0, "now": NOW, "before eta": LATER, "after eta": MUCH_LATER}
UNTILS = {"past": 999.0, "now": NOW, "before eta": LATER, "at eta": ETA, "after eta": MUCH_LATER, "for good": None}
STOPS = {  # until when the task itself is revoked: the etas at which that stops it now
    "past": (),
    "now": (),
    "before eta": ("none", "past", "now"),
    "at eta": ("none", "past", "now"),
    "after eta": ("none", "past", "now", "ahead"),
    "for good": ("none", "past", "now", "ahead"),
}
REVOCATIONS = {None: None} | {name: Revocation(until) for name, until in UNTILS.items()}


@pytest.mark.parametrize("state", ["queued", "scheduled"])
@pytest.mark.parametrize("expires", EXPIRIES)
def test_claim_guards_follow_the_order_of_the_law(state, expires):
    """The guards are: expired, own revocation at the ETA, ETA ahead, revoked function now, else start."""
    for eta, own, function in itertools.product(ETAS, REVOCATIONS, REVOCATIONS):
        task = Task("7", "add", state=state, eta=ETAS[eta], expires=EXPIRIES[expires])
        if expires in ("past", "now"):
            law = "expire"
        elif own is not None and eta in STOPS[own]:
            law = "revoke"
        elif eta == "ahead":
            law = "schedule" if state == "queued" else None
        elif function in ("before eta", "at eta", "after eta", "for good"):
            law = "revoke"
        else:
            law = "start"
        assert policies.admit(task, REVOCATIONS[own], REVOCATIONS[function], NOW) == law, (eta, own, function)
        assert revoked_when_due(task, REVOCATIONS[own], NOW) == (own is not None and eta in STOPS[own])


@patient
@given(drawn.tasks(WAITING), st.sampled_from(CLAIMS), drawn.all_times, drawn.all_times, st.booleans())
def test_start_takes_a_lease_and_counts_the_attempt(task, edge, now, lease, hold):
    """A start holds the task for its lease, counts the attempt and clears the ETA; other claims change nothing else."""
    task.state, trigger = edge
    if task.state == "pending":
        task.step = Step("a", 1)
    move, starts = policies.claimed(task, trigger, "me", now, lease, hold_scheduled=hold), trigger == "start"
    after = some.moved(task, move)
    assert some.legal(task, move, ("enqueue", "start") if edge == ("pending", "start") else (trigger,))
    assert some.unchanged(task, after, "attempt", "eta")
    assert (after.attempt, after.eta) == ((task.attempt + 1, None) if starts else (task.attempt, task.eta))
    assert after.lease == (now + lease if starts or (hold and trigger == "schedule") else None)
    assert (after.worker, move.at, move.result, move.follow_ups) == ("me", now, None, ())
    for state, other in itertools.product([None, *LAW], {trigger for _, trigger in CLAIMS}):
        if (state, other) not in (*EDGES, *CLAIMS):
            with pytest.raises(IllegalTransition):
                policies.claimed(attrs.evolve(task, state=state), other, "me", now, lease, hold_scheduled=hold)


@pytest.mark.untraced
@patient
@given(drawn.tasks([None]), drawn.all_times, some.maybe)
def test_new_task_is_created_once(task, now, hold):
    """A new task is queued, or pending if it waits for others, and held if its caller announces it; it is created once."""
    move = policies.enqueued(task, now, "me", hold)
    assert some.legal(task, move, ("defer",) if task.step is not None and task.step.awaits else ("enqueue",))
    assert some.unchanged(task, some.moved(task, move), "enqueued_at")
    assert some.moved(task, move).enqueued_at == now
    assert (move.lease, move.hold_until, move.at) == (hold, hold, now)
    for state in of_kind("waiting", "running", "outcome", "final"):
        with pytest.raises(IllegalTransition):
            policies.enqueued(attrs.evolve(task, state=state), now, "me")


# When a claim looks ------------------------------------------------------------------------------------------------


@patient
@given(
    drawn.tasks((*WAITING * 9, *LAW), drawn.few_times),
    drawn.revocations(drawn.few_times),
    drawn.revocations(drawn.few_times),
    drawn.few_times,
)
def test_ranked_tasks_are_moved_by_a_claim(task, own, function, now):
    """A claim moves every task with a rank: first tasks with a revocation of their own, then by priority."""
    rank, due = visibility(task, own, now)
    assert ((rank is None) + (due is None)) == (1 if task.state in WAITING else 2)
    if task.state in WAITING and revoked_when_due(task, own, now):
        assert rank == policies.REVOKED_RANK > 2**31
        assert policies.admit(task, own, function, now) in ("revoke", "expire")
    elif task.state == "queued":
        assert rank == task.priority
    assert rank is None or policies.admit(task, own, function, now) is not None


@patient
@given(
    drawn.tasks(["scheduled"], drawn.few_times),
    drawn.revocations(drawn.few_times),
    drawn.revocations(drawn.few_times),
    drawn.few_times,
)
def test_scheduled_task_is_due_at_its_eta_or_expiry(task, own, function, now):
    """A scheduled task is due at its ETA or its expiry, not earlier and not later."""
    rank, due = visibility(task, own, now)
    for then in map(float, range(int(now), 8)) if rank is None else ():
        trigger = policies.admit(task, own, function, then)
        assert (trigger is None) == (then < due)
        assert trigger != "schedule"


# What an outcome leads to ------------------------------------------------------------------------------------------


@patient
@given(drawn.tasks(["executing"]), some.endings, drawn.all_times, some.maybe, st.floats(0, 1), st.booleans())
def test_outcome_rests_or_is_retried_as_the_law_says(task, outcome, now, hold, jitter, follows):
    """An outcome rests or is retried, at once or later, as law, outcome and retries left say."""
    before = copy.copy(task)
    follow_ups = (Task("8", "add"),) if follows else ()
    move = settle(task, outcome, now, worker="me", hold_until=hold, jitter=jitter, follow_ups=follow_ups)
    assert some.unchanged(before, task)
    after = some.moved(task, move)
    if (trigger := outcome.trigger) == "interrupt":  # see the recovery
        return
    wanted = task.retries > 0 if outcome.retry is None else outcome.retry
    retried = trigger == "retry" or (trigger != "complete" and wanted)
    path, eta = () if trigger == "retry" else (trigger,), None
    if retried:
        wait = backoff(task.retry, task.attempt, jitter) if outcome.delay is None else outcome.delay
        eta = now + wait if outcome.eta is None else outcome.eta
        path += ("retry", "schedule") if eta > now else ("retry", "enqueue")
        eta = eta if eta > now else None
    assert some.legal(task, move, path)
    assert some.unchanged(task, after, "retries", "eta")
    assert after.eta == (eta if retried else task.eta)
    paid = retried and trigger != "retry" and not outcome.free
    assert after.retries == (max(task.retries - 1, 0) if paid else task.retries)
    assert after.lease == (hold if retried else None)
    assert move.frees_locks == (path[:1] == ("cancel",))
    assert (move.hold_until, move.worker, move.at) == (hold, "me", now)
    assert (move.result, move.follow_ups) == (outcome.result, follow_ups)


@pytest.mark.parametrize("trigger", sorted({*ENDINGS} - {"complete", "interrupt", "retry"}))
@pytest.mark.parametrize(
    ("retries", "retry", "delay", "free", "path", "left"),
    [
        (0, None, None, False, (), 0),
        (0, True, None, False, ("retry", "enqueue"), 0),
        (1, None, None, False, ("retry", "enqueue"), 0),
        (1, None, 5.0, False, ("retry", "schedule"), 0),
        (2, True, 5.0, True, ("retry", "schedule"), 2),
        (2, None, -5.0, False, ("retry", "enqueue"), 1),
        (2, False, 5.0, False, (), 2),
    ],
)
def test_examples_of_failures_and_retries_left(trigger, retries, retry, delay, free, path, left):
    """Examples: the path of each failure, and the retries left afterwards."""
    task = Task("7", "add", state="executing", retries=retries, attempt=1)
    move = settle(task, Outcome(trigger, b"why", retry, free, delay), 100.0, worker="me")
    assert (move.path, move.retries, move.result) == ((trigger, *path), left, b"why")
    assert move.eta == (105.0 if path[-1:] == ("schedule",) else None)
    assert settle(task, Outcome(trigger, retry=True, delay=5.0, eta=0.0), 100.0, worker="me").eta is None


@patient
@given(drawn.tasks([None, *LAW]), some.endings)
def test_outcome_of_a_task_that_does_not_execute_is_refused(task, outcome):
    """A task that does not execute accepts no outcome, and an attempt ends only with an outcome of the law."""
    if task.state != "executing":
        with pytest.raises(IllegalTransition):
            settle(task, outcome, 1.0, worker="me")
        with pytest.raises(IllegalTransition):
            recover(task, 1.0, worker="me")
    for trigger in set(MOVES) - set(ENDINGS):
        with pytest.raises(IllegalTransition):
            settle(task, attrs.evolve(outcome, trigger=trigger), 1.0, worker="me")


@patient
@given(drawn.tasks(["executing"]), drawn.all_times, some.maybe, st.none() | st.integers(0, 12))
def test_recovered_task_is_requeued_or_rests(task, now, hold, limit):
    """An interrupted task is requeued without spending a retry; after more than so many interruptions (3) it rests.

    After each but the first interruption it waits longer. If cancellation was requested, the task is canceled instead,
    which does not count as an interruption.
    """
    options = {"worker": "me", "hold_until": hold} | ({} if limit is None else {"max_interruptions": limit})
    move, again = recover(task, now, **options), task.interruptions < (3 if limit is None else limit)
    assert move == settle(task, Outcome("interrupt"), now, **options)
    assert move.frees_locks
    after = some.moved(task, move)
    if task.canceling:
        assert some.legal(task, move, ("cancel",))
        assert (after.interruptions, after.lease, after.canceling) == (task.interruptions, None, False)
    else:
        assert some.legal(task, move, ("interrupt", "recover") if again else ("interrupt",))
        assert some.unchanged(task, after, "interruptions", "eta")
        assert (after.interruptions, after.lease) == (task.interruptions + 1, hold if again else None)
        pause = 0 if task.interruptions == 0 else 2 ** min(task.interruptions, 6)
        assert after.eta == (now + pause if again and pause else task.eta)
    assert (after.worker, move.hold_until, move.at, move.result) == ("me", hold, now, None)


@patient
@given(drawn.tasks(["executing"]), drawn.all_times, some.maybe, st.booleans(), st.integers(0, 12))
def test_interruption_that_is_not_the_tasks_fault_does_not_count(task, now, hold, begun, limit):
    """A task is requeued at once, as it was, if its worker was stopped; if it has not begun, nor does the start count."""
    outcome = Outcome("interrupt", b"a result", free=True, begun=begun)
    move = settle(task, outcome, now, worker="me", hold_until=hold, max_interruptions=limit)
    after = some.moved(task, move)
    assert some.legal(task, move, ("cancel",) if task.canceling else ("interrupt", "recover"))
    assert some.unchanged(task, after, "attempt")
    assert (after.attempt, after.lease) == (task.attempt - (not begun), None if task.canceling else hold)
    assert (move.frees_locks, move.result) == (True, None)


@patient
@given(drawn.tasks(["executing"]), st.integers(0, 12))
def test_result_of_an_interruption_is_stored_with_the_last_one(task, limit):
    """What interrupted a task is stored once the task rests: a caller that waits hears nothing of those before."""
    task.canceling = False
    move = settle(task, Outcome("interrupt", b"why"), 5.0, worker="me", max_interruptions=limit)
    assert move.result == (b"why" if move.ended is not None else None)


@patient
@given(drawn.tasks([None, *LAW]), drawn.all_times, some.maybe)
def test_operator_retries_only_outcomes(task, now, hold):
    """An operator retries a task in an outcome at once and without spending a retry; all other states are refused."""
    if task.state in OUTCOMES:
        move = policies.retry(task, now, worker="me", hold_until=hold)
        assert some.legal(task, move, ("retry", "enqueue"))
        after = some.moved(task, move)
        assert some.unchanged(task, after, "eta", "interruptions")
        assert (after.eta, after.interruptions, after.lease, move.result) == (None, 0, hold, None)
        assert (after.worker, move.hold_until, move.at) == ("me", hold, now)
    else:
        with pytest.raises(IllegalTransition) as caught:
            policies.retry(task, now, worker="me", hold_until=hold)
        allowed = {trigger for state, trigger in EDGES if state == task.state} - {"retry"}
        assert (caught.value.state, caught.value.trigger, set(caught.value.allowed)) == (task.state, "retry", allowed)
        assert f"task {task.id}" in str(caught.value)
        assert ("(final)" in str(caught.value)) == (task.state in of_kind("final"))


@pytest.mark.untraced
@patient
@given(st.data())
def test_history_replays_to_state_and_version(data):
    """The history of any life replays to the task's state, and its length is the version."""
    task, history, now = data.draw(drawn.tasks([None])), "", 0.0
    task.version, task.attempt, task.retries = 0, 0, data.draw(st.integers(0, 3))
    for _ in range(12):
        now += data.draw(drawn.few_times)
        if task.state is None:
            move = policies.enqueued(task, now, "caller")
        elif task.state in WAITING:
            own, function = (data.draw(drawn.revocations(drawn.few_times)) for _ in range(2))
            trigger = policies.admit(task, own, function, now)
            if trigger is None:
                continue
            move = policies.claimed(task, trigger, "worker", now, 60.0)
        elif task.state == "executing":
            move = settle(task, data.draw(some.endings), now, worker="worker")
        elif task.state in OUTCOMES and data.draw(st.booleans()):
            move = policies.retry(task, now, worker="operator")
        else:
            break
        assert move.state in LIFECYCLE.steps[task.state]
        assert 0 <= move.retries <= task.retries
        history, task = history + move.history, some.moved(task, move)
        records = read_history(history)
        assert len(records) == task.version
        assert records[-1] == Record(task.state, now, task.worker, task.attempt)
        assert task.attempt == [record.state for record in records].count("executing")
        for before, after in itertools.pairwise([None, *(record.state for record in records)]):
            assert after in {target for (source, _), target in EDGES.items() if source == before}
        assert (task.eta is not None and task.eta > now) or task.state != "scheduled"
        assert (task.lease is not None) == (task.state == "executing")


# How long a retry waits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (RetryPolicy(), [0, 0, 0, 0]),
        (RetryPolicy(10), [10, 10, 10, 10]),
        (RetryPolicy(10, 1), [10, 10, 10, 10]),
        (RetryPolicy(10, 2), [10, 20, 40, 80]),
        (RetryPolicy(10, 3, max_delay=50), [10, 30, 50, 50]),
        (RetryPolicy(10, 2, jitter=0.5), [12.5, 25, 50, 100]),
        (RetryPolicy(0, 2), [0, 0, 0, 0]),
    ],
)
def test_examples_of_retry_delays(policy, waits):
    """Examples with half the jitter: the waits before the first four retries; a delay of the outcome takes precedence."""
    tasks = [Task("7", "add", state="executing", retry=policy, attempt=attempt) for attempt in range(5)]
    assert [backoff(policy, task.attempt, 0.5) for task in tasks] == [waits[0], *waits], "never started: as the first"
    for task, wait in zip(tasks[1:], waits, strict=True):
        assert settle(task, Outcome("retry"), 9.0, worker="me", jitter=0.5).eta == (9.0 + wait if wait else None)
        assert settle(task, Outcome("retry", delay=0.0), 9.0, worker="me", jitter=0.5).eta is None


@patient
@given(drawn.retry_policies(), st.integers(0, 60) | st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0, 1))
@example(RetryPolicy(1.0, 10.0, max_delay=50.0), 2, 10**6, 0.5)
@example(RetryPolicy(0.0, 10.0), 10**6, 1, 0.5)
@example(RetryPolicy(1e6, 1e153), 3, 1, 0.0)
def test_retry_delays_grow_up_to_the_limit(policy, attempt, more, jitter):
    """Later retries never wait less, no retry waits longer than the limit, and jitter adds at most its share."""
    plain, wait = backoff(policy, attempt), backoff(policy, attempt, jitter)
    assert 0 <= plain <= wait <= min(plain * (1 + policy.jitter * jitter) * (1 + 1e-9), policy.max_delay)
    assert wait <= backoff(policy, attempt + more, jitter)
    assert wait == pytest.approx(min(plain * (1 + policy.jitter * jitter), policy.max_delay))
    assert wait == 0 or policy.delay > 0


# What is written down ----------------------------------------------------------------------------------------------


@patient
@given(st.lists(some.records), drawn.retry_policies())
def test_history_and_policy_are_restored_as_stored(records, policy):
    """A history is read as written, whatever the workers' names; so are the fields of a policy."""
    text = "".join(history_line(record.state, record.at, record.attempt, record.worker) for record in records)
    assert read_history(text) == records
    fields = policy_fields(policy)
    assert RetryPolicy(**fields) == policy
    assert all(fields[name] != getattr(RetryPolicy(), name) for name in fields)


@patient
@given(st.lists(st.lists(some.records, min_size=1, max_size=4), max_size=120))
@example([[Record("queued", float(at), "w\t", at)] for at in range(500)])
def test_long_history_keeps_its_beginning_and_its_end(moves):
    """A history of any length has few lines: the first and the last, each with its number; a line says how many lack."""
    text, everything = "", []
    for move in moves:
        before = len(everything)
        everything += move
        text += "".join(history_line(one.state, one.at, one.attempt, one.worker) for one in move)
        if is_history_cut(before, len(everything)):
            text = cut_history(text)
        records = read_history(text)
        assert len(records) < HISTORY_HEAD + HISTORY_TAIL + HISTORY_STEP + 4
        assert len(records) == len(everything) or len(records) >= HISTORY_HEAD + HISTORY_TAIL
        numbers = dict(numbered(records))
        assert [attrs.evolve(one, left_out=0) for one in records] == [everything[number - 1] for number in numbers]
        assert list(numbers)[:HISTORY_HEAD] == list(range(1, len(everything) + 1))[:HISTORY_HEAD]
        assert list(numbers)[-HISTORY_TAIL:] == list(range(1, len(everything) + 1))[-HISTORY_TAIL:]
        assert "".join(lines_after(text, before)) == "".join(
            f"{line}\n" for line in text.split("\n")[-len(move) - 1 : -1]
        )
        assert lines_after(text, len(everything)) == []
        assert cut_history(text) == text or len(records) > HISTORY_HEAD + HISTORY_TAIL
        if len(records) < len(everything):
            assert lines_after(text, HISTORY_HEAD) == []


@patient
@given(st.lists(st.floats(0, 2**40 / 1000), min_size=1))
def test_ids_are_sorted_unique_uuids_of_version_7(times):
    """An id is a UUID of version 7 of its millisecond; ids are sorted by time and unique."""
    times = sorted(times) * 20
    ids = [new_id(now) for now in times]
    assert len(set(ids)) == len(ids)
    for now, made in zip(times, ids, strict=True):
        known = uuid.UUID(made)
        assert (known.hex, known.version, known.variant) == (made, 7, uuid.RFC_4122)
        assert known.int >> 80 == int(now * 1000)


def test_arguments_are_decoded_once_at_first_use():
    """The arguments of a task are decoded once, at first use; undecodable arguments raise then."""
    asked = []
    task = Task("7", "add", b"stored", loads=lambda payload: asked.append(payload) or ((1, 2), {"c": 3}))
    assert (asked, str(task)) == ([], "task 7 (add)")
    assert (task.args, task.kwargs, task.call, asked) == ((1, 2), {"c": 3}, ((1, 2), {"c": 3}), [b"stored"])
    assert (Task("7", "add").call, Task("7", "add", retry=RetryPolicy(5)).retry_delay) == (((), {}), 5)
    damaged = Task("7", "add", b"stored", loads=outcomes.unpack)
    with pytest.raises(Undecodable):
        damaged.args
