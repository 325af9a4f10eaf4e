"""Workflows: every store decides about the tasks that wait for others as the memory adapter does."""

from contextlib import closing
from copy import copy
from typing import NamedTuple

import pytest
from conftest import SERVERS, on_server
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.profiles import examples
from support.stores import PRODUCER, settlement, start
from support.strategies import patient

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.step import Step, Verdict
from lifecycle.core.table import (
    CANCEL,
    COMPLETE,
    ENQUEUE,
    EXECUTING,
    FAIL,
    INTERRUPT,
    LIFECYCLE,
    REVOKE,
    SKIP,
    START,
    TIME_OUT,
    Kind,
)
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task
from lifecycle.storage import MemoryStorage, open_storage
from lifecycle.storage.base import Actor, ClaimRequest, RevocationTarget, Settlement
from lifecycle.testing.storage_spec.reference_storage import fields

KINDS = ("memory", "sqlite", *SERVERS)
FUNCTIONS = ("add", "mul")
WORKERS = ("w1", "w2")
BEGIN = 1.0
LEASE = 5.0

# Workflows ---------------------------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A task of a workflow, and the tasks before it by their numbers."""

    after: frozenset[int]
    on_failure: bool = False
    name: str = FUNCTIONS[0]
    priority: int = 0
    retries: int = 0
    eta: float | None = None
    expires: float | None = None
    expires_after: float | None = None


def tasks_of(nodes, first=0):
    """Return the tasks of a workflow; the number of a node, from `first` on, is the id of its task."""
    tasks = []
    for number, node in enumerate(nodes):
        before = [str(first + other) for other in sorted(node.after) if other < number]
        behind = tuple(str(first + other) for other, one in enumerate(nodes) if number in one.after and other > number)
        inputs, after = (None, tuple(before)) if node.on_failure else (before, ())
        retry = NO_DELAY if node.expires_after is None else RetryPolicy(expires_after=node.expires_after)
        tasks.append(
            Task(
                str(first + number), node.name, eta=node.eta, expires=node.expires, priority=node.priority,
                retries=node.retries, retry=retry,
                step=Step(inputs, len(before), behind, bool(before) and node.on_failure, None, after),
            )
        )  # fmt: skip
    return tasks


def rarely(strategy):
    """A value in one case of four, else ``None``."""
    return st.integers(0, 3).flatmap(lambda number: st.none() if number else strategy)


moments = st.integers(2, 24).map(lambda half: half / 2)
limits = st.just((None, None)) | rarely(moments).map(lambda at: (at, None)) | st.just((None, 2.0))
nodes = st.builds(
    lambda limit, **values: Node(expires=limit[0], expires_after=limit[1], **values),
    limits,
    after=st.frozensets(st.integers(0, 11), max_size=4),
    on_failure=st.integers(0, 3).map(lambda number: not number),
    name=st.sampled_from(FUNCTIONS),
    priority=st.integers(-1, 1),
    retries=st.integers(0, 1),
    eta=rarely(moments),
)
workflows = st.lists(nodes, min_size=2, max_size=12)

# Both stores -------------------------------------------------------------------------------------------------------


class Pair:
    """The memory adapter and another one: each call is made on both, and must do the same."""

    def __init__(self, storage):
        self.storages = MemoryStorage(), storage
        self.now = BEGIN
        self.count = 0
        self.running = []
        """For each running task its copies: of the memory adapter, and of the other one."""
        self.stale = []
        """The same, for tasks as they were once."""

    def both(self, call, same=lambda answer: answer):
        """Make a call on both stores; return both answers. `same`: what of an answer must be equal."""
        answers = [call(number, storage) for number, storage in enumerate(self.storages)]
        assert same(answers[0]) == same(answers[1])
        self.compare()
        return answers

    def compare(self):
        """Compare all that look-ups tell."""
        pages = [storage.tasks(limit=99) for storage in self.storages]
        for one, other in zip(*pages, strict=True):
            assert (fields(one), one.step) == (fields(other), other.step)
            memory, storage = self.storages
            assert memory.history(one.id) == storage.history(one.id)
            assert memory.status(one.id) == storage.status(one.id)
        assert self.storages[0].counts() == self.storages[1].counts()
        assert self.storages[0].next_due() == self.storages[1].next_due()

    def begin(self, nodes, hold):
        """Enqueue a workflow; the answer of a task is its id."""
        first, self.count = self.count, self.count + len(nodes)
        actor = Actor("p", self.now + LEASE if hold else None)
        copies = [tasks_of(nodes, first) for _ in self.storages]
        self.both(lambda number, storage: storage.enqueue(copies[number], self.now, actor))

    def exchange(self, ends, request):
        """Settle running tasks and claim others. `ends`: for each settlement its copies, and the outcome."""
        follow_ups = [self._follow_ups() if outcome.trigger == COMPLETE else ((), ()) for _, outcome in ends]

        def call(number, storage):
            done = []
            for (copies, outcome), new in zip(ends, follow_ups, strict=True):
                task = copies[number]
                move = policies.settle(task, outcome, self.now, worker=task.worker, follow_ups=new[number])
                done.append(Settlement(task, move))
            return storage.exchange(done, request)

        answers = self.both(call, lambda answer: (answer[0], [(one.task.id, one.move) for one in answer[1]]))
        for (copies, _), took in zip(ends, answers[0][0], strict=True):
            self.stale.append(copies)
            self.running = [one for one in self.running if one is not copies] if took else self.running
        self._hear_claims([answer[1] for answer in answers])
        return [move.path for _, move in answers[0][1]]

    def _follow_ups(self):
        """Return a small workflow for each store, sometimes."""
        if self.count % 3:
            return (), ()
        first, self.count = self.count, self.count + 2
        two = [Node(frozenset()), Node(frozenset({0}))]
        return tuple(tuple(tasks_of(two, first)) for _ in self.storages)

    def _hear_claims(self, claims):
        for pair in zip(*claims, strict=True):
            copies = []
            for task, move in pair:
                after = copy(task)
                move.apply(after)
                copies.append(after)
            if copies[0].state == EXECUTING:
                self.running.append(copies)

    def recover(self):
        """Recover what has lapsed."""
        answers = self.both(
            lambda _, storage: storage.recover(self.now, Actor("r"), max_interruptions=1),
            lambda claims: [(task.id, move) for task, move in claims],
        )
        lost = {task.id for task, _ in answers[0]}
        self.stale += [copies for copies in self.running if copies[0].id in lost]
        self.running = [copies for copies in self.running if copies[0].id not in lost]

    def release(self, task_id):
        """Stop holding a task, if there is such a task."""
        copies = [storage.get(task_id) for storage in self.storages]
        if copies[0] is not None:
            self.both(lambda number, storage: storage.release([copies[number]], self.now))

    def retry(self, task_id):
        """Retry a task as an operator does, if it is at rest and may be retried."""
        copies = [storage.get(task_id) for storage in self.storages]
        if copies[0] is not None and LIFECYCLE.state(copies[0].state).kind is Kind.OUTCOME:
            self.both(
                lambda number, storage: storage.exchange(
                    [Settlement(copies[number], policies.retry(copies[number], self.now, worker="o"))], None
                )
            )

    def drain(self):
        """Claim one task after the other, whatever its function, until none is left: their ranks agree."""
        while self.exchange([], ClaimRequest("w1", self.now, LEASE)):
            pass


class Call(NamedTuple):
    """A call in a test: what is done, and numbers that choose with what."""

    what: str
    which: int
    flag: bool

    def make(self, pair):
        """Make the call."""
        getattr(self, f"_{self.what}")(pair)

    def _claim(self, pair):
        names = frozenset(FUNCTIONS[:1]) if self.which % 5 == 4 else frozenset()
        request = ClaimRequest(WORKERS[self.flag], pair.now, LEASE, self.flag, self.which % 4 + 1, None, names)
        pair.exchange([], request)

    def _settle(self, pair):
        """Settle one to three running tasks, and claim at the same time."""
        outcomes = [
            Outcome(COMPLETE, b"1"), Outcome(COMPLETE), Outcome(FAIL, b"2"), Outcome(FAIL, b"3", retry=False),
            Outcome(TIME_OUT, retry=False), Outcome(CANCEL, retry=False), Outcome(INTERRUPT, free=self.flag),
            Outcome(FAIL, retry=True, delay=1.5),
        ]  # fmt: skip
        ends = [
            (copies, outcomes[(self.which + 3 * place) % len(outcomes)])
            for place, copies in enumerate(pair.running[: self.which % 3 + 1])
        ]
        if self.flag and pair.stale:
            ends.insert(self.which % 2, (pair.stale[self.which % len(pair.stale)], Outcome(COMPLETE)))
        request = ClaimRequest(WORKERS[0], pair.now, LEASE, limit=3) if self.which % 2 else None
        if ends or request:
            pair.exchange(ends, request)

    def _wait(self, pair):
        pair.now += (0.5, 1.0, 2.0, 6.0)[self.which % 4]

    def _recover(self, pair):
        pair.recover()

    def _revoke(self, pair):
        target = self._target(pair)
        until = None if self.which % 3 else pair.now + 1.0
        revocation = Revocation(until, once=target.function and bool(self.which % 2))
        pair.both(lambda _, storage: storage.revoke(target, revocation, pair.now))

    def _restore(self, pair):
        target = self._target(pair)
        pair.both(lambda _, storage: storage.restore(target, pair.now))

    def _cancel(self, pair):
        pair.both(lambda _, storage: storage.cancel(str(self.which % pair.count)))

    def _release(self, pair):
        pair.release(str(self.which % pair.count))

    def _retry(self, pair):
        pair.retry(str(self.which % pair.count))

    def _extend(self, pair):
        pair.both(lambda _, storage: storage.extend(WORKERS[:1], pair.now + LEASE))

    def _target(self, pair):
        key = FUNCTIONS[self.which % 2] if self.flag else str(self.which % pair.count)
        return RevocationTarget(function=self.flag, key=key)


OFTEN = ("claim", "settle", "settle", "settle", "wait")
SELDOM = ("recover", "revoke", "restore", "cancel", "release", "retry", "extend")
calls = st.lists(
    st.builds(
        Call, st.sampled_from(OFTEN * 3 + SELDOM), st.integers(0, 59), st.integers(0, 3).map(lambda number: not number)
    ),
    max_size=40,
)


@pytest.fixture(scope="module", params=KINDS)
def storage(request, tmp_path_factory):
    """A store of each kind; each case empties it."""
    if request.param in SERVERS:
        url = on_server(request.param, request)
    elif request.param == "memory":
        url = "memory://"
    else:
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/q.db?synchronous=off"
    with closing(open_storage(url, "default")) as storage:
        yield storage


@settings(patient, max_examples=examples(400))
@given(workflows, st.booleans(), calls)
@example([Node(frozenset()), Node(frozenset({0})), Node(frozenset({1}))], False, [Call("claim", 0, False)])
def test_stores_agree_about_workflows(storage, nodes, hold, calls):
    """A workflow goes on every store as in memory, whatever its tasks come to: histories, verdicts, and order of claims."""
    storage.flush()
    pair = Pair(storage)
    pair.begin(nodes, hold)
    for call in calls:
        call.make(pair)
    pair.now += 2 * LEASE
    pair.recover()
    pair.drain()


# By example --------------------------------------------------------------------------------------------------------

CHORD = [Node(frozenset()), Node(frozenset()), Node(frozenset()), Node(frozenset({0, 1, 2}))]


def claimed_paths(storage, **options):
    """Claim; return the path of each claimed task."""
    _, claims = storage.exchange((), ClaimRequest("w", 7.0, LEASE, limit=9, **options))
    return {task.id: move.path for task, move in claims}


@pytest.mark.parametrize("together", [False, True])
def test_task_starts_after_the_last_of_those_before_it(storage, together):
    """A task that waits for several starts once all have completed, in one call or in several, and not before."""
    storage.flush()
    storage.enqueue(tasks_of(CHORD), BEGIN, PRODUCER)
    running = start(storage, limit=9)
    calls = [running] if together else [[task] for task in running]
    for tasks in calls:
        assert claimed_paths(storage) == {}
        assert storage.exchange([settlement(task) for task in tasks], None)[0] == [True] * len(tasks)
    assert claimed_paths(storage) == {"3": (ENQUEUE, START)}
    assert storage.get("3").step.verdict == Verdict(ENQUEUE, "2", 6.0)


@pytest.mark.parametrize("together", [False, True])
def test_first_failure_decides(storage, together):
    """The first task that does not complete decides for those behind it; what the others come to changes nothing."""
    storage.flush()
    storage.enqueue(tasks_of(CHORD), BEGIN, PRODUCER)
    first, second, third = start(storage, limit=9)
    ends = [settlement(first, FAIL, 6.0), settlement(second, FAIL, 6.5), settlement(third, COMPLETE, 7.0)]
    for done in [ends] if together else [[end] for end in ends]:
        storage.exchange(done, None)
    assert storage.get("3").step.verdict == Verdict(SKIP, "0", 6.0)
    assert claimed_paths(storage) == {"3": (SKIP,)}


def test_revoked_step_goes_before_others_once_it_is_decided(storage):
    """A step that is revoked for a while is revoked at its turn, before tasks of any priority, and not earlier."""
    storage.flush()
    storage.enqueue([*tasks_of(CHORD), Task("urgent", "add", priority=9)], BEGIN, PRODUCER)
    storage.revoke(RevocationTarget(function=False, key="3"), Revocation(until=99.0), BEGIN)
    urgent, *running = start(storage, limit=9)
    assert claimed_paths(storage) == {}
    storage.enqueue([Task("more urgent", "add", priority=9)], BEGIN, PRODUCER)
    storage.exchange([settlement(task) for task in [urgent, *running]], None)
    _, claims = storage.exchange((), ClaimRequest("w", 7.0, LEASE))
    assert [(task.id, move.path) for task, move in claims] == [("3", (REVOKE,))]


def test_worker_without_the_function_ends_what_is_to_be_skipped(storage):
    """A task to be skipped ends on any worker, but one that is to run waits for a worker that knows its function."""
    storage.flush()
    behind = [Node(frozenset({0}), name="mul"), Node(frozenset({0}), on_failure=True, name="mul")]
    storage.enqueue(tasks_of([Node(frozenset()), *behind]), BEGIN, PRODUCER)
    [running] = start(storage)
    storage.exchange([settlement(running, FAIL)], None)
    assert claimed_paths(storage, skip_names=frozenset({"mul"})) == {"1": (SKIP,)}
    assert claimed_paths(storage) == {"2": (ENQUEUE, START)}


def test_id_of_a_deleted_task_can_be_used_again(storage):
    """A task with the id of one that was deleted before its turn waits for as many as it says."""
    storage.flush()
    for _ in range(2):
        storage.enqueue([Task("b", "add", step=Step(["a"], 1))], BEGIN, PRODUCER)
        storage.revoke(RevocationTarget(function=False, key="b"), Revocation(), BEGIN)
        assert claimed_paths(storage) == {"b": (REVOKE,)}
        assert storage.prune(99.0) == 1
    storage.enqueue(tasks_of(CHORD), BEGIN, PRODUCER)
    assert storage.counts() == {"queued": 3, "pending": 1}
