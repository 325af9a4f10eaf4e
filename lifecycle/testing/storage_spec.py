"""The proof that a storage adapter keeps the protocol's promises: a state machine for Hypothesis, made to be subclassed.

It needs ``hypothesis``, which the library itself does not.
"""

import itertools
import unittest
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final, TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lifecycle import policies
from lifecycle.errors import DuplicateTask, StorageError
from lifecycle.machine import IllegalTransition
from lifecycle.policies import Move
from lifecycle.storage.base import RIPEN, Actor, Channel, Claim, Claimant, Lock, Settlement, Storage, Target
from lifecycle.table import EXECUTING, LIFECYCLE, Kind, State
from lifecycle.task import Task
from lifecycle.testing import steps
from lifecycle.testing.model import FIELDS, Law, Model, fields, is_waiting
from lifecycle.testing.steps import ENDINGS, FUNCTIONS, IDS, LEASE, WORKERS, Call, Copy, End, Until, Wish

__all__ = ["StorageSpec"]

T = TypeVar("T")
_TARGETS: Final = (
    *(Target(function=False, key=id_) for id_ in IDS),
    *(Target(function=True, key=f) for f in FUNCTIONS),
)
_STORED: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)
_HANDLES: Final = 3
"""How often a store is open at once."""


def _check(holds: bool, fault: str) -> None:
    if not holds:
        raise AssertionError(fault)


def _same(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: the adapter says {actual!r}, the model {expected!r}")


def _same_task(what: str, task: Task | None, twin: Task | None) -> None:
    if task is None or twin is None:
        _same(what, task, twin)
    elif fields(task) != fields(twin):
        for name, actual, expected in zip(FIELDS, fields(task), fields(twin), strict=True):
            _same(f"{what}: {name} of {task}", actual, expected)


def _tried(call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        return call(*arguments, **options), None
    except (DuplicateTask, IllegalTransition) as error:
        return None, error


def _own(ids: Sequence[str]) -> list[Target]:
    return [Target(function=False, key=id_) for id_ in ids]


def _among(choose: "Callable[[StorageSpec], Sequence[T]]") -> st.SearchStrategy[T]:
    """One of what the machine has at that moment; the rule's precondition says that it has any."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choose(machine)))


class _TestCaseOf:
    """Makes the test case of a machine's class, one for each."""

    def __init__(self) -> None:
        self._made: dict[type[StorageSpec], type[_Proof]] = {}

    def __get__(self, machine: "StorageSpec | None", spec: "type[StorageSpec]") -> "type[_Proof]":
        if spec not in self._made:
            body = {"spec": spec, "settings": settings(
                    deadline=None, max_examples=100, stateful_step_count=50, suppress_health_check=list(HealthCheck)
                ), "__module__": spec.__module__}
            self._made[spec] = type(f"{spec.__name__}.TestCase", (_Proof,), body)
        return self._made[spec]


class StorageSpec(RuleBasedStateMachine):
    """Drives a storage adapter and a plain model of it in lockstep, and compares all that the two show at every step.

    Subclass it, say how an empty store is opened, and give its test case to pytest or unittest::

        class MyStorageSpec(StorageSpec):
            @classmethod
            def open_storage(cls):
                return MyStorage("my-server", queue=uuid4().hex)

            @classmethod
            def reopen(cls, storage):  # may be left out
                return MyStorage("my-server", queue=storage.queue)

        TestMyStorage = MyStorageSpec.TestCase

    The steps are what producers, workers, operators and clocks do, in any order, the wrong ones included: tasks
    enqueued, claimed, settled, put back, revoked; workers that die, or wake up too late with a copy of a task that has
    moved on; a clock that jumps to the very end of a lease, or back. With `reopen`, operations go now through one
    handle and now through another. Besides the equality with the model, the store's own words are held against the law
    (`lifecycle.testing.model.Law`): each change a row of the table, histories that replay, no task lost, final states
    for good, no task given to two workers, no outcome accepted twice.

    The test case also asserts that **every row of the table was gone through**, and every way in which an attempt can
    end, with retries left and without; `taken` and `ended` count them, `missing()` says what is not there. Its
    ``settings`` are Hypothesis's, to be changed as usual: ``TestMyStorage.settings = settings(max_examples=1000)``.
    Where a test case takes place in a store that takes something to be torn down, override `teardown`, and call it
    first.

    Not proven here, since one thread makes all the steps: that operations stay atomic when they run at the same time or
    are cut off in the middle, that `wait` wakes up other processes, how fast anything is, what happens when there is no
    room or no connection, and what a power cut leaves.
    """

    taken: ClassVar[Counter[tuple[str | None, str, str]]]
    """(source, trigger, target) → how often a task of this adapter went that way."""
    ended: ClassVar[Counter[tuple[str, bool]]]
    """(what ended an attempt, whether it had retries left) → how often this was accepted."""

    TestCase = _TestCaseOf()  # type: ignore[assignment]  # it has more tests than Hypothesis's

    copies: Bundle[Copy] = Bundle("copies")

    @classmethod
    def open_storage(cls) -> Storage:
        """A new, empty store."""
        raise NotImplementedError

    @classmethod
    def reopen(cls, storage: Storage) -> Storage:
        """The same store, opened once more as another process would; both are used from then on."""
        del storage
        raise NotImplementedError

    @classmethod
    def missing(cls) -> list[str]:
        """What no run of this class has come to yet."""
        rows = [(row.source and row.source.name, row.trigger, row.target.name) for row in LIFECYCLE.transitions]
        return [f"{row[1]}: {row[0] or '(new)'} → {row[2]}" for row in rows if row not in cls.taken] + [
            f"{trigger} with {'' if left else 'no '}retries left"
            for trigger in ENDINGS
            for left in (True, False)
            if (trigger, left) not in cls.ended
        ]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.taken, cls.ended = Counter(), Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model = Model()
        self.law = Law(self.taken)
        self.handles = [self.open_storage()]
        self.turn = 0
        self.agreed = self.emptied = False
        self.running: dict[str, Copy] = {}
        """What the workers believe that they run, by id."""
        self.held: dict[str, Copy] = {}
        """What is to be released once it is announced."""
        self.places: dict[int, int] = {}
        """Birth → the adapter's `seq`."""

    # Both at once ------------------------------------------------------------------------------------------------------

    def _both(self, call: str, *arguments: Any, twins: Sequence[Any] | None = None, **options: Any) -> tuple[Any, Any]:
        """Ask the same of the adapter and of the model (`twins`: with the model's own objects); what each said."""
        self.agreed = False
        self.turn += 1
        storage = self.handles[self.turn % len(self.handles)]
        stamps = {channel: storage.stamp(channel) for channel in Channel}
        due = self._due()
        self.model.woken.clear()
        expected, refused = _tried(getattr(self.model, call), arguments if twins is None else twins, options)
        actual, error = _tried(getattr(storage, call), arguments, options)
        if error is not None and refused is None:
            raise error
        _same(f"{call} raises", type(error), type(refused))
        if self._due() < due:
            self.model.woken.add(Channel.WORK)
        for channel in self.model.woken:
            _check(storage.stamp(channel) != stamps[channel], f"{call}: nobody who waits for {channel.name} was told")
        return actual, expected

    def _due(self) -> float:
        """From when on a worker would have something to do, and somebody has to wake it."""
        due = self.model.next_due()
        return float("inf") if due is None else max(due, self.now)

    def _exchange(
        self, done: Sequence[tuple[Copy, Move]], claimant: Claimant | None
    ) -> tuple[list[bool], MultipleResults[Copy]]:
        twins = {id(copy): copy.twin() for copy, _ in done}
        known = [(copy.birth, copy.task.version) for copy, _ in done]
        settlements = [Settlement(copy.task, move) for copy, move in done]
        moves = [attrs.evolve(move, follow_ups=tuple(map(attrs.evolve, move.follow_ups))) for _, move in done]
        expected = [Settlement(twins[id(copy)], move) for (copy, _), move in zip(done, moves, strict=True)]
        (took, claims), (taken, model_claims) = self._both(
            "exchange", settlements, claimant, twins=(expected, claimant)
        )
        _same("exchange: which settlements took", took, taken)
        for accepted, version, (copy, move), twin in zip(took, known, done, expected, strict=True):
            _same_task("exchange: the settled object", copy.task, twin.task)
            for follow_up, other in zip(move.follow_ups, twin.move.follow_ups, strict=True):
                _same_task("exchange: the follow-up's object", follow_up, other)
                if other.seq is not None:
                    self._announce(Copy(follow_up, other.seq), LIFECYCLE.initial)
            if accepted:
                _check(not (fault := self.law.settled(*version)), fault)
                self._announce(copy, move.state)
        return took, multiple(*self._claimed("exchange", claims, model_claims))

    def _claimed(self, call: str, claims: Sequence[Claim], expected: Sequence[Claim]) -> list[Copy]:
        """Announce what was claimed; what somebody may remember of it, before that and after."""
        _same(f"{call}: the moves", [(task.id, move) for task, move in claims], [(t.id, move) for t, move in expected])
        remembered = []
        for (task, move), (twin, _) in zip(claims, expected, strict=True):
            _same_task(f"{call}: the object", task, twin)
            copy = Copy(task, twin.seq or 0)
            remembered.append(copy.snapshot())
            if move.state == EXECUTING:
                _check(not (fault := self.law.granted(copy.birth, task.version)), fault)
            self._announce(copy, move.state)
            remembered.append(copy.snapshot())
        return remembered

    def _announce(self, copy: Copy, state: State) -> None:
        copy.task.state = state.name
        if state == EXECUTING:
            self.running[copy.task.id] = copy
        elif copy.task.lease is not None:
            self.held[copy.task.id] = copy

    def _ending(self, copy: Copy, end: End, hold: bool, follow_ups: Sequence[Call] = ()) -> Move:
        return policies.settle(
            copy.task,
            end.outcome(self.now),
            self.now,
            worker=str(copy.task.worker),
            hold=self._hold(hold),
            max_interruptions=end.patience,
            follow_ups=tuple(call.task(self.now) for call in follow_ups),
        )

    def _late(self, copy: Copy, end: End) -> Move | None:
        """What somebody with that copy may still try; nothing if it is final, or waits and there is nothing to try."""
        task = copy.task
        if task.state == EXECUTING:
            return self._ending(copy, end, hold=False)
        if task.state in policies.OUTCOMES:
            return policies.retry(task, self.now, worker="operator")
        row = self.model.row(task.id)
        current = row is not None and (row.task.seq, row.task.version) == (copy.birth, task.version)
        if is_waiting(task) and not current:
            return policies.claimed(task, policies.START, "thief", self.now, LEASE)
        return None

    def _hold(self, hold: bool) -> float | None:
        return self.now + LEASE if hold else None

    def _look(self, task_id: str) -> Copy:
        task, twin = self._both("get", task_id)
        return Copy(task, twin.seq)

    # What there is to choose from --------------------------------------------------------------------------------------

    def _free(self) -> tuple[str, ...]:
        return tuple(id_ for id_ in IDS if self.model.row(id_) is None)

    def _ids(self, *kinds: Kind) -> list[str]:
        tasks = [row.task for row in self.model.rows]
        return [task.id for task in tasks if not kinds or LIFECYCLE.state(str(task.state)).kind in kinds]

    def _moments(self) -> list[float]:
        """All moments at which something changes, but for now."""
        tasks = [row.task for row in self.model.rows]
        moments = {moment for task in tasks for moment in (task.eta, task.expires, task.lease)}
        moments |= {lock.until for lock in self.model.taken} | {said.until for said in self.model.revocations.values()}
        return sorted(moment for moment in moments - {self.now} if moment is not None)

    # Producers ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._free())
    @rule(
        target=copies,
        calls=st.runner().flatmap(
            lambda self: st.lists(steps.calls(self._free()), min_size=1, max_size=3, unique_by=lambda call: call.id)
        ),
        hold=st.booleans(),
    )
    def enqueue(self, calls: list[Call], hold: bool) -> MultipleResults[Copy]:
        """One task or several, whose ids are free."""
        return self._enqueue([call.task(self.now) for call in calls], hold=hold)

    @rule(calls=st.lists(steps.calls(IDS), min_size=1, max_size=2), again=steps.calls(IDS))
    def enqueue_what_is_there(self, calls: list[Call], again: Call) -> None:
        """With an id that is taken, or stands there twice, none is enqueued."""
        taken = self._ids()
        last = again if again.id in taken else calls[0]
        self._enqueue([call.task(self.now) for call in (*calls, last)], hold=False)

    @precondition(lambda self: self._free())
    @rule(
        calls=st.runner().flatmap(lambda self: st.tuples(*[steps.calls(self._free())] * 2)),
        state=st.sampled_from(_STORED),
    )
    def enqueue_what_has_a_state(self, calls: tuple[Call, Call], state: str) -> None:
        """What was enqueued before is not enqueued again, nor is what stands before it in the same call."""
        tasks = [call.task(self.now) for call in calls]
        tasks[1].state = state
        self._enqueue(tasks, hold=False)

    def _enqueue(self, tasks: list[Task], *, hold: bool) -> MultipleResults[Copy]:
        twins = [attrs.evolve(task) for task in tasks]
        actor = Actor("producer", self._hold(hold))
        self._both("enqueue", tasks, self.now, actor, twins=(twins, self.now, actor))
        copies = []
        for task, twin in zip(tasks, twins, strict=True):
            _same_task("enqueue: the object", task, twin)
            if twin.seq is not None:
                copies.append(Copy(task, twin.seq))
                self._announce(copies[-1], LIFECYCLE.initial)
        return multiple(*(copy.snapshot() for copy in copies))

    # Workers -----------------------------------------------------------------------------------------------------------

    @rule(target=copies, wish=steps.wishes)
    def claim(self, wish: Wish) -> MultipleResults[Copy]:
        """A worker asks for work."""
        return self._exchange((), wish.claimant(self.now))[1]

    @precondition(lambda self: self.running)
    @rule(
        target=copies,
        task=_among(lambda self: sorted(self.running)),
        end=steps.ends,
        hold=st.booleans(),
        follow_ups=st.lists(steps.calls(IDS), max_size=2),
        then=st.none() | steps.wishes,
        tampered=st.booleans(),
    )
    def settle(
        self, task: str, end: End, hold: bool, follow_ups: list[Call], then: Wish | None, tampered: bool
    ) -> MultipleResults[Copy]:
        """A worker settles what it believes to run, and may ask for more; a careless task may have changed its copy."""
        copy = self.running.pop(task)
        left = copy.task.retries > 0
        move = self._ending(copy, end, hold, follow_ups)
        known = copy.tampered() if tampered else copy
        (took,), claimed = self._exchange([(known, move)], then and then.claimant(self.now))
        if took:
            self.ended[end.trigger, left] += 1
        return claimed

    @precondition(lambda self: self.running)
    @rule(
        target=copies,
        task=_among(lambda self: sorted(self.running)),
        late=copies,
        end=steps.ends,
        again=st.booleans(),
        then=st.none() | steps.wishes,
    )
    def settle_together(self, task: str, late: Copy, end: End, again: bool, then: Wish | None) -> MultipleResults[Copy]:
        """Several settlements in one call: what runs (twice, perhaps), and something from long ago."""
        copy = self.running.pop(task)
        late = late.snapshot()
        done = [(copy, self._ending(copy, end, hold=False))]
        if (move := self._late(late, end)) is not None:
            done.insert(0, (late, move))
        return self._exchange(done + done[-1:] * again, then and then.claimant(self.now))[1]

    @precondition(lambda self: self.running)
    @rule(task=_among(lambda self: sorted(self.running)), end=steps.ends)
    def settle_twice(self, task: str, end: End) -> None:
        """A worker that does not note that it has settled a task settles it once more."""
        copy = self.running.pop(task)
        move = self._ending(copy, end, hold=False)
        before = copy.task.state
        self._exchange([(copy, move)], None)
        after, copy.task.state = copy.task.state, before
        self._exchange([(copy, move)], None)
        copy.task.state = after

    @rule(copy=copies, end=steps.ends)
    def come_late(self, copy: Copy, end: End) -> None:
        """Somebody comes back with an old copy, to settle it or to let go of it."""
        copy = copy.snapshot()
        if (move := self._late(copy, end)) is not None:
            self._exchange([(copy, move)], None)
        else:
            self._release([copy])

    @precondition(lambda self: self.held)
    @rule(task=_among(lambda self: sorted(self.held)), late=copies, tampered=st.booleans())
    def release(self, task: str, late: Copy, tampered: bool) -> None:
        """What was held to be announced is let go, once; so is, if nothing has happened to it, something from long ago."""
        copy = self.held.pop(task)
        copy = copy.tampered() if tampered else copy
        self._release([copy, late.snapshot(), copy])

    def _release(self, known: Sequence[Copy]) -> None:
        twins = [copy.twin() for copy in known]
        freed, expected = self._both("release", [copy.task for copy in known], self.now, twins=(twins, self.now))
        _same("release", freed, expected)

    @rule(workers=st.lists(st.sampled_from((*WORKERS, "producer")), max_size=2), by=st.sampled_from((LEASE, 1.0)))
    def extend(self, workers: list[str], by: float) -> None:
        """Heartbeats."""
        _same("extend", *self._both("extend", workers, self.now + by))

    @precondition(lambda self: any(row.task.lease for row in self.model.rows))
    @rule(
        target=copies,
        hold=st.booleans(),
        patience=st.sampled_from((10, 1, 0)),
        limit=st.sampled_from((100, 100, 1)),
    )
    def recover(self, hold: bool, patience: int, limit: int) -> MultipleResults[Copy]:
        """Somebody looks for leases that have lapsed."""
        actor = Actor("recoverer", self._hold(hold))
        claims, expected = self._both("recover", self.now, actor, max_interruptions=patience, limit=limit)
        return multiple(*self._claimed("recover", claims, expected))

    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        """A worker dies, and all that it knew with it."""
        for known in (self.running, self.held):
            for task_id in [id_ for id_, copy in known.items() if copy.task.worker == worker]:
                del known[task_id]

    @precondition(lambda self: self._reopens and len(self.handles) < _HANDLES)
    @rule()
    def another_process(self) -> None:
        """Opens the same store."""
        self.handles.append(self.reopen(self.handles[0]))

    @property
    def _reopens(self) -> bool:
        return type(self).reopen.__func__ is not StorageSpec.reopen.__func__  # type: ignore[attr-defined]

    # Operators ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._ids(Kind.OUTCOME))
    @rule(target=copies, task=_among(lambda self: self._ids(Kind.OUTCOME)), hold=st.booleans())
    def retry(self, task: str, hold: bool) -> MultipleResults[Copy]:
        """An operator gives a task at rest one more attempt."""
        copy = self._look(task)
        move = policies.retry(copy.task, self.now, worker="operator", hold=self._hold(hold))
        self._exchange([(copy, move)], None)
        return multiple(copy.snapshot())

    @rule(what=steps.targets, until=steps.untils)
    def revoke(self, what: Target, until: Until) -> None:
        """A task (waiting, running, over, or not there yet), or a function."""
        self._both("revoke", what, until.revocation(self.now), self.now)

    @precondition(lambda self: self.model.revocations or self._ids(Kind.FINAL))
    @rule(what=_among(lambda self: [*self.model.revocations, *_own(self._ids(Kind.FINAL))]))
    def restore(self, what: Target) -> None:
        """What was revoked, or cannot be any more."""
        _same("restore", *self._both("restore", what, self.now))

    @rule(
        name=st.sampled_from("LM"),
        owner=st.sampled_from("xy"),
        seconds=st.sampled_from((20.0, 5.0)),
        worker=st.none() | st.sampled_from(WORKERS),
        task=st.runner().flatmap(lambda self: st.sampled_from((None, *sorted(self.running)))),
    )
    def lock(self, name: str, owner: str, seconds: float, worker: str | None, task: str | None) -> None:
        """Somebody wants a lock."""
        _same("lock", *self._both("lock", Lock(name, owner, self.now + seconds, worker, task), self.now))

    @rule(name=st.sampled_from("LM"), owner=st.sampled_from("xy"))
    def unlock(self, name: str, owner: str) -> None:
        """Somebody gives a lock back, or believes so."""
        _same("unlock", *self._both("unlock", name, owner))

    @precondition(lambda self: self.model.taken)
    @rule(names=st.none() | st.lists(st.sampled_from("LM"), max_size=2))
    def flush_locks(self, names: list[str] | None) -> None:
        """An operator frees locks."""
        _same("flush_locks", *self._both("flush_locks", names))

    @precondition(lambda self: self.model.rows)
    @rule(target=copies, task=_among(lambda self: self._ids()))
    def get(self, task: str) -> Copy:
        """Somebody looks at a task, and remembers it."""
        return self._look(task)

    @rule(
        states=st.none() | st.lists(st.sampled_from(_STORED), max_size=4),
        limit=st.integers(0, 3),
        before=st.runner().flatmap(lambda self: st.sampled_from((None, *self._ids()))),
    )
    def turn_pages(self, states: list[str] | None, limit: int, before: str | None) -> None:
        """Somebody looks at a page of tasks."""
        birth = next((row.task.seq for row in self.model.rows if row.task.id == before), None)
        place = None if birth is None else self.places[birth]
        found, expected = self._both("tasks", states, limit, place, twins=(states, limit, birth))
        _same("tasks", list(map(fields, found)), list(map(fields, expected)))

    @precondition(lambda self: self._ids(Kind.FINAL, Kind.OUTCOME))
    @rule(
        before=_among(lambda self: sorted({r.ended + more for r in self.model.rows if r.ended for more in (0, 1)})),
        limit=st.sampled_from((1000, 1000, 1)),
    )
    def prune(self, before: float, limit: int) -> None:
        """What came to rest long ago is deleted."""
        self.emptied = True
        _same("prune", *self._both("prune", before, limit))

    @precondition(lambda self: not self._free())
    @rule()
    def flush(self) -> None:
        """All is deleted."""
        self.emptied = True
        self._both("flush")

    @rule()
    def exchange_nothing(self) -> None:
        """Somebody has nothing to say, and wants nothing."""
        _same("exchange", *self._both("exchange", (), None))

    # Time --------------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1.0, 3.0, 3.0, 11.0, 30.0, -1.0, -5.0)))
    def pass_time(self, seconds: float) -> None:
        """The clock goes on, or steps back."""
        self.now += seconds

    @precondition(lambda self: self._moments())
    @rule(moment=_among(lambda self: self._moments()), seconds=st.sampled_from((0.0, 0.0, -0.5)))
    def wait_for(self, moment: float, seconds: float) -> None:
        """It is exactly the moment when something comes, ends or lapses, or just before it."""
        self.now = moment + seconds

    # What holds after each step ----------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """All that the adapter shows is what the model shows, and breaks no law."""
        storage, model = self.handles[(self.turn + 1) % len(self.handles)], self.model
        shown = {}
        for id_ in IDS:
            task, twin = storage.get(id_), model.get(id_)
            _same_task(f"get({id_!r})", task, twin)
            history = storage.history(id_)
            _same(f"history({id_!r})", history, model.history(id_))
            _same(f"outlook({id_!r})", storage.outlook(id_), model.outlook(id_))
            if task is not None and twin is not None:
                shown[twin.seq or 0] = (task, history or ())
        found = storage.tasks()
        _same("tasks()", list(map(fields, found)), list(map(fields, model.tasks())))
        _same("counts()", storage.counts(), model.counts())
        _same("next_due()", storage.next_due(), model.next_due())
        _same("locks()", storage.locks(self.now), model.locks(self.now))
        for target in _TARGETS:
            _same(f"revocation({target})", storage.revocation(target), model.revocation(target))
        places = {birth: task.seq for birth, (task, _) in shown.items()}
        known = [self.places.get(birth, place) for birth, place in places.items()]
        _check(list(places.values()) == known, "the seq of a task changed")
        self.places.update(places)
        _check(all(a.seq > b.seq for a, b in itertools.pairwise(found)), "seq does not grow with each task")
        for fault in self.law.faults(shown, emptied=self.emptied):
            _check(holds=False, fault=fault)
        self.emptied, self.agreed = False, True

    def teardown(self) -> None:
        """What is left is claimed, in the right order: now, and once all leases have lapsed and all ETAs have come."""
        try:
            if self.agreed:
                for seconds in (0.0, 100.0):
                    self.now += seconds
                    self._claimed("recover", *self._both("recover", self.now, Actor("recoverer")))
                    self.claim(Wish("w1", 100))
                    self.agree()
        finally:
            for storage in self.handles:
                storage.close()


class _Proof(unittest.TestCase):
    """What `StorageSpec.TestCase` is made of."""

    spec: ClassVar[type[StorageSpec]]
    settings: ClassVar[settings]

    def test_adapter_and_model_agree(self) -> None:
        """Whatever is asked of them."""
        run_state_machine_as_test(self.spec, settings=self.settings)

    def test_every_transition_was_taken(self) -> None:
        """Each row of the table, and each way in which an attempt ends."""
        if not self.spec.taken:
            self.test_adapter_and_model_agree()
        missing = self.spec.missing()
        self.assertFalse(missing, "the runs never came to: " + "; ".join(missing))
