"""The scripts of the Redis adapter decide as the Python that they repeat: policies, claims, fence."""

from contextlib import closing
from copy import copy
from itertools import product
from typing import NamedTuple

import attrs
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.profiles import examples
from support.redis_server import SERVER, connected, open_store, require_server, unused_prefix
from support.stores import PRODUCER, completed, start
from support.strategies import patient

from lifecycle import LIFECYCLE, Kind
from lifecycle.core.policies import Move, Revocation, admit, recover, visibility
from lifecycle.core.step import Step, Verdict, verdict_text
from lifecycle.core.table import ENQUEUE, EXECUTING, PENDING, REVOKE, SCHEDULED, SKIP
from lifecycle.core.task import FENCE, NO_DELAY, RetryPolicy, Task
from lifecycle.storage.base import Actor, ClaimRequest, RevocationTarget
from lifecycle.storage.claims import ClaimDecisions, is_skipped
from lifecycle.storage.redis import scripts as redis_script
from lifecycle.testing.storage_spec.reference_storage import fields

WAITING = [state.name for state in LIFECYCLE.of_kind(Kind.WAITING)]

# Policies --------------------------------------------------------------------------------------------------------

CALL_POLICIES = """
local values, now, own, of_function, max_interruptions = unpack(cmsgpack.unpack(ARGV[1]), 1, 5)
local row = {
  state = values[1], eta = values[2], expires = values[3] or nil, priority = values[4], interruptions = values[5],
  canceling = values[6], attempt = values[7], expires_after = values[8], awaits = values[9], verdict = values[10],
}
local rank, due = visibility(row, own, now)
local function text(number) return number and string.format("%.17g", number) or false end
return {
  text(rank), text(due), admit(row, own, of_function, now) or false,
  table.concat(recovery_path(row, max_interruptions), " "),
}
"""


@pytest.fixture(scope="module")
def lua():
    """Calls the policies of the scripts on the server."""
    require_server()
    policies = redis_script.filled((redis_script._FOLDER / "policies.lua").read_text())
    with connected(SERVER) as db:
        call = db.register_script(policies + CALL_POLICIES)

        def policies_in_lua(*arguments):
            rank, due, trigger, path = call(args=[msgspec.msgpack.encode(arguments)])
            return (
                None if rank is None else float(rank),
                None if due is None else float(due),
                None if trigger is None else trigger.decode(),
                tuple(path.decode().split()),
            )

        yield policies_in_lua


moments = st.sampled_from([0.0, 1.0, 2.5, 3.0, 9e99, float("inf")]) | st.floats(0, 1e11)
revocations = st.none() | st.builds(Revocation, st.none() | moments, st.booleans())


def assert_policies_agree(
    lua, state, eta, expires, now, own, of_function, *, priority=0, lost=(0, 0), canceling=False, attempt=0, after=None,
    verdict=None,
):  # fmt: skip
    """Compare the results in Lua and in Python.

    `lost`: how many workers the task has lost, and how many it may lose. `after`: the policy's `expires_after`.
    `verdict`: of a task that waited for another one.
    """
    interruptions, max_interruptions = lost
    retry = NO_DELAY if after is None else RetryPolicy(expires_after=after)
    task = Task(
        "a", "add", state=state, eta=eta, expires=expires, priority=priority, interruptions=interruptions, retry=retry,
        attempt=attempt, step=Step(awaits=1, verdict=verdict) if verdict or state == PENDING else None,
    )  # fmt: skip
    rank, due = visibility(task, own, now)
    trigger = admit(task, own, of_function, now)
    task.state, task.canceling = EXECUTING.name, canceling
    path = recover(task, now, worker="w", max_interruptions=max_interruptions).path
    arguments = [None if one is None else (one.until, one.once) for one in (own, of_function)]
    row = (
        state, False if eta is None else eta, expires, priority, interruptions, canceling, attempt, after,
        task.step and 1, verdict and verdict_text(verdict),
    )  # fmt: skip
    assert lua(row, now, *arguments, max_interruptions) == (rank, due, trigger, path)


def test_policies_agree_for_each_order_of_moments(lua):
    """In Lua a claim does to a task what it does in Python, for each order in which the moments can come."""
    around = (None, 1.0, 2.0, 3.0)
    revoked = (None, *(Revocation(until, once=True) for until in around))
    for state, eta, expires, own, of_function in product(WAITING, around, around, revoked, revoked):
        assert_policies_agree(lua, state, eta, expires, 2.0, own, of_function)


def test_policies_agree_for_an_expiry_that_counts_from_when_the_task_is_due(lua):
    """In Lua a later attempt expires when it does in Python, for each order in which the moments can come."""
    around = (None, 1.0, 2.0, 3.0)
    for state, eta, expires, attempt, after in product(WAITING, around, around, (0, 1), (None, 0.0, 0.5, 1.0)):
        assert_policies_agree(lua, state, eta, expires, 2.0, None, None, attempt=attempt, after=after)


def test_policies_agree_for_steps_of_workflows(lua):
    """In Lua a claim does to a step with a verdict, and to one without, what it does in Python."""
    around = (None, 1.0, 2.0, 3.0)
    verdicts = (None, Verdict(ENQUEUE, "b", 1.5), Verdict(SKIP, "b c", 2.5))
    revoked = (None, Revocation(), Revocation(2.5), Revocation(1.0))
    for state, eta, after, verdict, own in product(WAITING, around, (None, 0.0, 0.5, 1.0), verdicts, revoked):
        assert_policies_agree(lua, state, eta, None, 2.0, own, None, after=after, verdict=verdict)
        assert_policies_agree(lua, state, eta, 1.0, 2.0, None, own, after=after, verdict=verdict)
        assert_policies_agree(lua, state, eta, 3.0, 2.0, own, own, after=after, verdict=verdict, attempt=1)


def test_policies_agree_for_recovered_tasks(lua):
    """In Lua a task whose worker is gone takes the path that it takes in Python, whatever happened to it before."""
    for interruptions, most, canceling in product(range(4), range(4), (False, True)):
        assert_policies_agree(
            lua, WAITING[0], None, None, 2.0, None, None, lost=(interruptions, most), canceling=canceling
        )


@patient
@given(
    st.sampled_from(WAITING), st.none() | moments, st.none() | moments, moments, revocations, revocations,
    st.integers(-(2**31), 2**31 - 1),
)  # fmt: skip
@example(WAITING[0], 3.0, None, 1.0, Revocation(2.5), None, 0)
def test_policies_agree_for_any_numbers(lua, state, eta, expires, now, own, of_function, priority):
    """In Lua the policies give the results that they give in Python, for any numbers."""
    assert_policies_agree(lua, state, eta, expires, now, own, of_function, priority=priority)
    assert_policies_agree(lua, state, eta, expires, now, own, of_function, attempt=2, after=abs(priority) / 2)


# Claims ----------------------------------------------------------------------------------------------------------

FUNCTIONS = ("add", "mul", "sub")
BEGIN, LATEST = 0.0, 8.0
"""When the cases are prepared, and the last moment in them."""
case_moments = st.floats(BEGIN + 0.5, LATEST).map(lambda moment: round(moment * 2) / 2)
case_revocations = st.builds(Revocation, st.none() | case_moments, st.booleans())


def rarely(strategy):
    """A value in one case of four, else ``None``: a claim does most with tasks that nothing stops."""
    return st.integers(0, 3).flatmap(lambda number: st.none() if number else strategy)


class WaitingTask(NamedTuple):
    """A task that waits when a claim comes."""

    name: str
    scheduled: bool
    """True: in the state `scheduled`; False: `queued`, perhaps with an ETA still."""
    eta: float | None
    expires: float | None
    priority: int
    own: Revocation | None

    def task(self, number):
        """The task, as it is enqueued."""
        return Task(str(number), self.name, eta=self.eta, expires=self.expires, priority=self.priority)


def waiting_tasks(*, scheduled, etas):
    """Tasks in one of the two states."""
    names, priorities = st.sampled_from(FUNCTIONS), st.integers(-1, 1)
    return st.builds(
        WaitingTask, names, st.just(scheduled), etas, rarely(case_moments), priorities, rarely(case_revocations)
    )


queued_or_scheduled = waiting_tasks(scheduled=False, etas=rarely(case_moments)) | waiting_tasks(
    scheduled=True, etas=case_moments
)


class ClaimCase(NamedTuple):
    """Waiting tasks by age, and a claim."""

    waiting: list[WaitingTask]
    of_functions: dict[str, Revocation]
    promoted_at: float | None
    """When the tasks that were due got their ranks, before the clock was set back to `now`; ``None``: by the claim."""
    now: float
    hold_scheduled: bool
    limit: int
    batchable: set[str] | None
    skip_names: frozenset[str] = frozenset()

    def request(self):
        """The claim."""
        return ClaimRequest("w", self.now, 10.0, self.hold_scheduled, self.limit, self.batchable, self.skip_names)


claim_cases = st.builds(
    ClaimCase,
    waiting=st.lists(queued_or_scheduled, min_size=2, max_size=8),
    of_functions=st.dictionaries(st.sampled_from(FUNCTIONS), case_revocations, max_size=2),
    promoted_at=rarely(case_moments),
    now=case_moments,
    hold_scheduled=st.booleans(),
    limit=st.integers(1, 9),
    batchable=st.none() | st.sets(st.sampled_from(FUNCTIONS)),
    skip_names=st.just(frozenset()) | st.frozensets(st.sampled_from(FUNCTIONS)),
)


@pytest.fixture(scope="module")
def storage():
    """A store on the server; each case empties it."""
    require_server()
    with closing(open_store(unused_prefix())) as storage:
        yield storage


def prepare(storage, case):
    """Bring the store to the case; return the waiting tasks, by age."""
    storage.flush()
    tasks = [one.task(number) for number, one in enumerate(case.waiting)]
    for task, one in zip(tasks, case.waiting, strict=True):
        storage.enqueue([task], BEGIN, PRODUCER if one.scheduled else Actor("producer", LATEST))
    storage.exchange((), ClaimRequest("scheduler", BEGIN, 10.0, limit=len(tasks)))  # all but the tasks that are held
    tasks = [storage.get(task.id) for task in tasks]
    storage.release([task for task in tasks if task.lease is not None], BEGIN)
    for task, one in zip(tasks, case.waiting, strict=True):
        assert (task.state == SCHEDULED) == one.scheduled
        task.lease = None
        if one.own is not None:
            storage.revoke(RevocationTarget(function=False, key=task.id), one.own, BEGIN)
    for name, revocation in case.of_functions.items():
        storage.revoke(RevocationTarget(function=True, key=name), revocation, BEGIN)
    if case.promoted_at is not None:
        storage.exchange((), ClaimRequest("promoter", case.promoted_at, 10.0, limit=0))
    return tasks


def claim_in_python(case, tasks):
    """Decide on rows, sorted by rank and age; return moves by id, what is left of the revocations, and where tasks wait."""
    decisions = ClaimDecisions(case.request())
    own = {task.id: one.own for task, one in zip(tasks, case.waiting, strict=True)}
    of_functions = dict(case.of_functions)
    waits = {task.id: visibility(task, own[task.id], BEGIN) for task in tasks}
    for moment in (case.promoted_at, case.now):
        for task in tasks:
            _, due = waits[task.id]
            if moment is not None and due is not None and due <= moment:
                waits[task.id] = task.priority, None
    moves = {}
    ranked = [task for task in tasks if waits[task.id][0] is not None]
    ranked = [task for task in ranked if not is_skipped(task, waits[task.id][0], case.skip_names, case.now)]
    for task in sorted(ranked, key=lambda task: -waits[task.id][0]):
        if decisions.over or len(moves) == case.limit:
            break
        decision = decisions.decide(task, own[task.id], of_functions.get(task.name))
        if isinstance(decision, Move):
            moves[task.id] = decision
            after = attrs.evolve(task, state=decision.state.name, eta=decision.eta)
            waits[task.id] = (None, decision.lease) if decision.lease else visibility(after, own[task.id], case.now)
            if decisions.spends:
                del of_functions[task.name]
            if decision.path == (REVOKE,):
                own[task.id] = None
        elif decision is not None:
            waits[task.id] = decision
    return moves, own, of_functions, waits


@settings(patient, max_examples=examples(1000))
@given(claim_cases)
@example(
    ClaimCase(
        [WaitingTask("add", True, 6.0, None, 1, None), WaitingTask("add", True, 2.0, None, 0, None)],
        {}, 7.0, 3.0, False, 1, None,
    )
)  # fmt: skip
@example(
    ClaimCase(
        [WaitingTask("add", False, None, None, 0, Revocation()), *[WaitingTask("add", False, None, None, 0, None)] * 3],
        {"add": Revocation(once=True)}, None, 3.0, False, 9, set(),
    )
)  # fmt: skip
def test_claims_agree(storage, case):
    """An exchange on Redis makes the moves that `ClaimDecisions` decides, in that order, and spends the same revocations."""
    tasks = prepare(storage, case)
    moves, own, of_functions, waits = claim_in_python(case, tasks)
    _, claims = storage.exchange((), case.request())
    assert [(claim.task.id, claim.move) for claim in claims] == list(moves.items())
    for task in tasks:
        if task.id in moves:
            moves[task.id].apply(task)
        assert fields(storage.get(task.id)) == fields(task)
        assert storage.revocation(RevocationTarget(function=False, key=task.id)) == own[task.id]
    for name in FUNCTIONS:
        assert storage.revocation(RevocationTarget(function=True, key=name)) == of_functions.get(name)
    waiting = [waits[task.id] for task in tasks if task.state in WAITING]
    now = [float("-inf")] if any(rank is not None for rank, _ in waiting) else []
    assert storage.next_due() == min(now or [due for _, due in waiting], default=None)
    if case.skip_names:  # other workers find the tasks that were set aside
        _, claims = storage.exchange((), ClaimRequest("w", LATEST, 10.0, limit=99))
        assert {task.id for task in tasks if waits[task.id][0] is not None} <= {claim.task.id for claim in claims}


# The fence -------------------------------------------------------------------------------------------------------

OTHERS = {"id": "other", "seq": 10**9, "version": 9, "state": WAITING[-1], "worker": "other"}
"""For each field of the fence a value that no task here has."""


@pytest.mark.parametrize("name", FENCE)
def test_fence_compares_each_field(storage, name):
    """A settlement and a release are refused if the caller's copy differs from the row in one field of the fence."""
    storage.flush()
    storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
    [running] = start(storage)
    storage.enqueue([held := Task("b", "add")], 1.0, Actor("producer", 9.0))
    held = storage.get(held.id)
    other, other_held = copy(running), copy(held)
    setattr(other_held, name, OTHERS[name])
    done = completed(other)
    setattr(other, name, OTHERS[name])
    assert storage.exchange([done], None) == ([False], [])
    assert storage.release([other_held], 2.0) == [False]
    assert fields(storage.get("a")) == fields(running)
    assert storage.release([held], 2.0) == [True]
    assert storage.exchange([completed(running)], None) == ([True], [])


# The scripts -----------------------------------------------------------------------------------------------------


def test_scripts_name_no_state_and_no_trigger():
    """The scripts name no state and no trigger: those are filled in from the table."""
    words = {state.name for state in LIFECYCLE.states} | set(LIFECYCLE.triggers)
    for path in redis_script._FOLDER.glob("*.lua"):
        code = "\n".join(line.partition("--")[0] for line in path.read_text().splitlines())
        typed = {word for word in words if f'"{word}"' in code or f"'{word}'" in code or f">{word}" in code}
        assert not typed, f"{path.name} types {typed}"


def test_scripts_have_all_values_filled_in():
    """In each script every name with a dollar is replaced by its value."""
    parts = {"arguments", *redis_script._ALL_PARTS}
    names = {path.stem for path in redis_script._FOLDER.glob("*.lua")} - parts
    assert len(names) > 10
    for name in names:
        assert "$" not in redis_script.script(name).text
