"""The proof that a storage adapter keeps the protocol's promises: a state machine for Hypothesis, to be subclassed.

It needs ``hypothesis``, which the library itself does not.
"""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, multiple, precondition, rule

from lifecycle import policies
from lifecycle.storage.base import Actor, Lock, Storage, Target
from lifecycle.table import LIFECYCLE, Kind
from lifecycle.testing import steps
from lifecycle.testing.lockstep import Lockstep, same
from lifecycle.testing.proof import TestCaseOf
from lifecycle.testing.steps import IDS, LEASE, WORKERS, Call, Copy, End, Until, Wish

__all__ = ["StorageSpec"]

T = TypeVar("T")
_STORED: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)
_HANDLES: Final = 3
"""How often a store is open at once."""


def _among(choose: "Callable[[StorageSpec], Sequence[T]]") -> st.SearchStrategy[T]:
    """One of what the machine has at that moment; the rule's precondition says that it has any."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choose(machine)))


def _by_id(ids: Sequence[str]) -> list[Target]:
    return [Target(function=False, key=task_id) for task_id in ids]


class StorageSpec(Lockstep):
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

    TestCase = TestCaseOf()  # type: ignore[assignment]  # it has more tests than Hypothesis's

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

    # Producers ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free())
    @rule(
        target=copies,
        calls=st.runner().flatmap(
            lambda self: st.lists(steps.calls(self.free()), min_size=1, max_size=3, unique_by=lambda call: call.id)
        ),
        hold=st.booleans(),
    )
    def enqueue(self, calls: list[Call], hold: bool) -> MultipleResults[Copy]:
        """One task or several, whose ids are free."""
        return multiple(*self.write([call.task(self.now) for call in calls], hold=hold))

    @rule(calls=st.lists(steps.calls(IDS), min_size=1, max_size=2), again=steps.calls(IDS))
    def enqueue_what_is_there(self, calls: list[Call], again: Call) -> None:
        """With an id that is taken, or stands there twice, none is enqueued."""
        taken = self.ids()
        last = again if again.id in taken else calls[0]
        self.write([call.task(self.now) for call in (*calls, last)], hold=False)

    @precondition(lambda self: len(self.free()) > 1)
    @rule(call=st.runner().flatmap(lambda self: steps.calls(self.free())), state=st.sampled_from(_STORED))
    def enqueue_what_has_a_state(self, call: Call, state: str) -> None:
        """What was enqueued before is not enqueued again, nor is what stands before it in the same call."""
        calls = (call, Call(next(task_id for task_id in self.free() if task_id != call.id)))
        tasks = [call.task(self.now) for call in calls]
        tasks[1].state = state
        self.write(tasks, hold=False)

    # Workers -----------------------------------------------------------------------------------------------------

    @rule(target=copies, wish=steps.wishes)
    def claim(self, wish: Wish) -> MultipleResults[Copy]:
        """A worker asks for work."""
        return multiple(*self.swap((), wish.claimant(self.now))[1])

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
        move = self.ending(copy, end, hold=hold, follow_ups=follow_ups)
        known = copy.tampered() if tampered else copy
        (took,), claimed = self.swap([(known, move)], then.claimant(self.now) if then else None)
        if took:
            self.ended[end.trigger, left] += 1
        return multiple(*claimed)

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
        done = [(copy, self.ending(copy, end))]
        if (move := self.late_move(late, end)) is not None:
            done.insert(0, (late, move))
        return multiple(*self.swap(done + done[-1:] * again, then.claimant(self.now) if then else None)[1])

    @precondition(lambda self: self.running)
    @rule(task=_among(lambda self: sorted(self.running)), end=steps.ends)
    def settle_twice(self, task: str, end: End) -> None:
        """A worker that does not note that it has settled a task settles it once more."""
        copy = self.running.pop(task)
        move = self.ending(copy, end)
        before = copy.task.state
        self.swap([(copy, move)])
        after, copy.task.state = copy.task.state, before
        self.swap([(copy, move)])
        copy.task.state = after

    @rule(copy=copies, end=steps.ends)
    def come_late(self, copy: Copy, end: End) -> None:
        """Somebody comes back with an old copy, to settle it or to let go of it."""
        copy = copy.snapshot()
        if (move := self.late_move(copy, end)) is not None:
            self.swap([(copy, move)])
        else:
            self.let_go([copy])

    @precondition(lambda self: self.held)
    @rule(task=_among(lambda self: sorted(self.held)), late=copies, tampered=st.booleans())
    def release(self, task: str, late: Copy, tampered: bool) -> None:
        """What was held to be announced is let go, once; and something from long ago, perhaps."""
        copy = self.held.pop(task)
        copy = copy.tampered() if tampered else copy
        self.let_go([copy, late.snapshot(), copy])

    @rule(workers=st.lists(st.sampled_from((*WORKERS, "producer")), max_size=2), by=st.sampled_from((LEASE, 1.0)))
    def extend(self, workers: list[str], by: float) -> None:
        """Heartbeats."""
        same("extend", *self.both("extend", workers, self.now + by))

    @precondition(lambda self: any(row.task.lease for row in self.model.rows))
    @rule(
        target=copies,
        hold=st.booleans(),
        patience=st.sampled_from((10, 1, 0)),
        limit=st.sampled_from((100, 100, 1)),
    )
    def recover(self, hold: bool, patience: int, limit: int) -> MultipleResults[Copy]:
        """Somebody looks for leases that have lapsed."""
        actor = Actor("recoverer", self.until(hold))
        claims, expected = self.both("recover", self.now, actor, max_interruptions=patience, limit=limit)
        return multiple(*self.received("recover", claims, expected))

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

    # Operators ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ids(Kind.OUTCOME))
    @rule(target=copies, task=_among(lambda self: self.ids(Kind.OUTCOME)), hold=st.booleans())
    def retry(self, task: str, hold: bool) -> MultipleResults[Copy]:
        """An operator gives a task at rest one more attempt."""
        copy = self.look(task)
        move = policies.retry(copy.task, self.now, worker="operator", hold=self.until(hold))
        self.swap([(copy, move)])
        return multiple(copy.snapshot())

    @rule(what=steps.targets, until=steps.untils)
    def revoke(self, what: Target, until: Until) -> None:
        """A task (waiting, running, over, or not there yet), or a function."""
        self.both("revoke", what, until.revocation(self.now), self.now)

    @precondition(lambda self: self.model.revocations or self.ids(Kind.FINAL))
    @rule(what=_among(lambda self: [*self.model.revocations, *_by_id(self.ids(Kind.FINAL))]))
    def restore(self, what: Target) -> None:
        """What was revoked, or cannot be any more."""
        same("restore", *self.both("restore", what, self.now))

    @rule(
        name=st.sampled_from("LM"),
        owner=st.sampled_from("xy"),
        seconds=st.sampled_from((20.0, 5.0)),
        worker=st.none() | st.sampled_from(WORKERS),
        task=st.runner().flatmap(lambda self: st.sampled_from((None, *sorted(self.running)))),
    )
    def lock(self, name: str, owner: str, seconds: float, worker: str | None, task: str | None) -> None:
        """Somebody wants a lock."""
        same("lock", *self.both("lock", Lock(name, owner, self.now + seconds, worker, task), self.now))

    @rule(name=st.sampled_from("LM"), owner=st.sampled_from("xy"))
    def unlock(self, name: str, owner: str) -> None:
        """Somebody gives a lock back, or believes so."""
        same("unlock", *self.both("unlock", name, owner))

    @precondition(lambda self: self.model.taken)
    @rule(names=st.none() | st.lists(st.sampled_from("LM"), max_size=2))
    def flush_locks(self, names: list[str] | None) -> None:
        """An operator frees locks."""
        same("flush_locks", *self.both("flush_locks", names))

    @precondition(lambda self: self.model.rows)
    @rule(target=copies, task=_among(lambda self: self.ids()))
    def get(self, task: str) -> Copy:
        """Somebody looks at a task, and remembers it."""
        return self.look(task)

    @rule(
        states=st.none() | st.lists(st.sampled_from(_STORED), max_size=4),
        limit=st.integers(0, 3),
        before=st.runner().flatmap(lambda self: st.sampled_from((None, *self.ids()))),
    )
    def turn_pages(self, states: list[str] | None, limit: int, before: str | None) -> None:
        """Somebody looks at a page of tasks."""
        birth = next((row.task.seq for row in self.model.rows if row.task.id == before), None)
        place = None if birth is None else self.places[birth]
        found, expected = self.both("tasks", states, limit, place, twins=(states, limit, birth))
        same("tasks", list(map(fields, found)), list(map(fields, expected)))

    @precondition(lambda self: self.ids(Kind.FINAL, Kind.OUTCOME))
    @rule(
        before=_among(lambda self: sorted({r.ended + more for r in self.model.rows if r.ended for more in (0, 1)})),
        limit=st.sampled_from((1000, 1000, 1)),
    )
    def prune(self, before: float, limit: int) -> None:
        """What came to rest long ago is deleted."""
        self.emptied = True
        same("prune", *self.both("prune", before, limit))

    @precondition(lambda self: not self.free())
    @rule()
    def flush(self) -> None:
        """All is deleted."""
        self.emptied = True
        self.both("flush")

    @rule()
    def exchange_nothing(self) -> None:
        """Somebody has nothing to say, and wants nothing."""
        same("exchange", *self.both("exchange", (), None))

    # Time --------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((1.0, 3.0, 3.0, 11.0, 30.0, -1.0, -5.0)))
    def pass_time(self, seconds: float) -> None:
        """The clock goes on, or steps back."""
        self.now += seconds

    @precondition(lambda self: self.moments())
    @rule(moment=_among(lambda self: self.moments()), seconds=st.sampled_from((0.0, 0.0, -0.5)))
    def wait_for(self, moment: float, seconds: float) -> None:
        """It is exactly the moment when something comes, ends or lapses, or just before it."""
        self.now = moment + seconds

    # The end ---------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Claim all that is left, in the right order: now, and once all leases have lapsed and all ETAs have come."""
        try:
            for seconds in (0.0, 100.0) if self.agreed else ():
                self.now += seconds
                self.received("recover", *self.both("recover", self.now, Actor("recoverer")))
                self.swap((), Wish("w1", 100).claimant(self.now))
                self.agree()
        finally:
            for storage in self.handles:
                storage.close()
