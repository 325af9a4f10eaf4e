"""The proof that a storage adapter keeps the protocol's promises: a state machine for Hypothesis, to be subclassed.

It needs ``hypothesis``, which the library itself does not.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, multiple, precondition, rule

from lifecycle.core import policies
from lifecycle.core.table import (
    CANCEL,
    COMPLETE,
    FAIL,
    INTERRUPT,
    LIFECYCLE,
    LOCK_OUT,
    RATE_LIMIT,
    RETRY,
    TIME_OUT,
    Kind,
)
from lifecycle.storage.base import Actor, Lock, RevocationTarget, Storage
from lifecycle.testing.storage_spec import strategies as steps
from lifecycle.testing.storage_spec.agreement import AdapterAgreement, same
from lifecycle.testing.storage_spec.cases import TestCaseOf
from lifecycle.testing.storage_spec.reference_storage import fields
from lifecycle.testing.storage_spec.strategies import (
    ENDINGS,
    FUNCTIONS,
    IDS,
    LEASE,
    WORKERS,
    Call,
    Copy,
    End,
    Until,
    Wish,
)

__all__ = ["StorageSpec"]

T = TypeVar("T")
_STORED: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING)
_HANDLES: Final = 3
"""How often a store is open at once."""


def _among(choose: "Callable[[StorageSpec], Sequence[T]]") -> st.SearchStrategy[T]:
    """One of what the machine has at that moment; the rule's precondition says that it has any."""
    return st.runner().flatmap(lambda machine: st.sampled_from(choose(machine)))


copies: Final[Bundle[Copy]] = Bundle("copies")
"""All that anybody remembers of tasks."""


def _settling(name: str, trigger: str) -> Callable[..., MultipleResults[Copy]]:
    """The rule by which attempts end in one way."""

    def settle(
        self: "StorageSpec", task: str, end: End, hold: bool, follow_ups: list[Call], then: Wish | None, tampered: bool
    ) -> MultipleResults[Copy]:
        copy = self.running[task]
        request = then.request(self.now) if then else None
        claimed = self.finish([(copy, end)], request, hold=hold, follow_ups=follow_ups, tampered=tampered)
        return multiple(*claimed)

    settle.__name__ = name
    settle.__doc__ = (
        f"An attempt ends with `{trigger}`, as its worker believes; a careless task may have changed its copy."
    )
    made = rule(
        target=copies,
        task=_among(lambda self: sorted(self.running)),
        end=steps.ends((trigger,)),
        hold=st.booleans(),
        follow_ups=st.lists(steps.calls(IDS), max_size=2),
        then=st.none() | steps.wishes(),
        tampered=st.booleans(),
    )(settle)
    return precondition(lambda self: self.running)(made)  # type: ignore[return-value]  # a target takes several


def _by_id(ids: Sequence[str]) -> list[RevocationTarget]:
    return [RevocationTarget(function=False, key=task_id) for task_id in ids]


class StorageSpec(AdapterAgreement):
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
    (`lifecycle.testing.storage_spec.invariants.Invariants`): each change a row of the table, histories that replay, no task lost, final states
    for good, no task given to two workers, no outcome accepted twice. Short runs come first, so that most mistakes are
    told in a few steps. A few tests of their own
    (`lifecycle.testing.storage_spec.cases.StorageCases`) say what a machine comes to too seldom: crowds, waits, the closed store.

    One run, always the same, **goes through every row of the table**, and ends attempts in every way there is, with
    retries left and without; `taken` and `ended` count them in all runs, `missing()` names those that are left. The
    settings are Hypothesis's: ``TestMyStorage.settings = settings(TestMyStorage.settings, max_examples=1000)``. What a
    store leaves behind is cleared away in a `teardown` of yours, after ``super().teardown()``, which closes it.

    Not proven here, since one thread makes all the steps: that operations stay atomic when they run at the same time or
    are cut off in the middle, that `wait` wakes up other processes, how fast anything is, what happens when there is no
    room or no connection, and what a power cut leaves.
    """

    TestCase = TestCaseOf()  # type: ignore[assignment]  # it has more tests than Hypothesis's

    @classmethod
    def open_storage(cls) -> Storage:
        """A new, empty store."""
        raise NotImplementedError

    @classmethod
    def reopen(cls, storage: Storage) -> Storage:
        """The same store, opened once more as another process would; both are used from then on."""
        del storage
        raise NotImplementedError

    # Producers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free())
    @rule(target=copies, call=st.runner().flatmap(lambda self: steps.calls(self.free())))
    def enqueue(self, call: Call) -> MultipleResults[Copy]:
        """A task whose id is free."""
        return multiple(*self.write([call.task(self.now)], hold=False))

    @precondition(lambda self: self.free())
    @rule(target=copies, call=st.runner().flatmap(lambda self: steps.calls(self.free())))
    def enqueue_and_hold(self, call: Call) -> MultipleResults[Copy]:
        """The same, and nobody shall have it before that is announced."""
        return multiple(*self.write([call.task(self.now)], hold=True))

    @precondition(lambda self: self.free())
    @rule(
        target=copies,
        calls=st.runner().flatmap(
            lambda self: st.lists(steps.calls(self.free()), min_size=1, max_size=4, unique_by=lambda call: call.id)
        ),
        hold=st.booleans(),
    )
    def enqueue_together(self, calls: list[Call], hold: bool) -> MultipleResults[Copy]:
        """Several in one call."""
        return multiple(*self.write([call.task(self.now) for call in calls], hold=hold))

    @precondition(AdapterAgreement.spare)
    @rule(calls=st.lists(steps.calls(IDS), min_size=1, max_size=2), again=steps.calls(IDS))
    def enqueue_what_is_there(self, calls: list[Call], again: Call) -> None:
        """With an id that is taken, or stands there twice, none is enqueued."""
        last = again if again.id in self.ids() else calls[0]
        self.write([call.task(self.now) for call in (*calls, last)], hold=False)

    @precondition(lambda self: self.spare() and len(self.free()) > 1)
    @rule(call=st.runner().flatmap(lambda self: steps.calls(self.free())), state=st.sampled_from(_STORED))
    def enqueue_what_has_a_state(self, call: Call, state: str) -> None:
        """What was enqueued before is not enqueued again, nor is what stands before it in the same call."""
        used = Call(next(task_id for task_id in self.free() if task_id != call.id)).task(self.now)
        used.state = state
        self.write([call.task(self.now), used], hold=False)

    # Workers -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.ripe() or (self.spare() and self.ids(Kind.WAITING)))
    @rule(target=copies, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> MultipleResults[Copy]:
        """A worker asks for work."""
        return multiple(*self.swap((), Wish(worker).request(self.now))[1])

    @precondition(lambda self: self.ripe() or (self.spare() and self.ids(Kind.WAITING)))
    @rule(target=copies, wish=steps.wishes())
    def claim_together(self, wish: Wish) -> MultipleResults[Copy]:
        """A worker asks for as much as it can get, and to announce what it puts off, perhaps."""
        return multiple(*self.swap((), wish.request(self.now))[1])

    @precondition(AdapterAgreement.ripe)
    @rule(worker=st.sampled_from(WORKERS), ends=st.lists(steps.ends(ENDINGS), min_size=1, max_size=3))
    def work(self, worker: str, ends: list[End]) -> None:
        """A busy worker: each call to the store settles one task and claims the next."""
        self.work_in_batches(Wish(worker), ends)

    @precondition(AdapterAgreement.ripe)
    @rule(wish=steps.wishes(), ends=st.lists(steps.ends(ENDINGS), min_size=1, max_size=4))
    def work_in_batches(self, wish: Wish, ends: list[End]) -> None:
        """The same with several tasks at once."""
        self.swap((), wish.request(self.now))
        while ends and (
            mine := [copy for copy in self.running.values() if copy.task.worker == wish.worker][: len(ends)]
        ):
            self.agree()
            now, ends = ends[: len(mine)], ends[len(mine) :]
            self.finish(list(zip(mine, now, strict=True)), wish.request(self.now))

    complete = _settling("complete", COMPLETE)
    fail = _settling("fail", FAIL)
    time_out = _settling("time_out", TIME_OUT)
    lock_out = _settling("lock_out", LOCK_OUT)
    rate_limit = _settling("rate_limit", RATE_LIMIT)
    cancel = _settling("cancel", CANCEL)
    interrupt = _settling("interrupt", INTERRUPT)
    ask_for_retry = _settling("ask_for_retry", RETRY)

    @precondition(lambda self: self.running)
    @rule(
        target=copies,
        task=_among(lambda self: sorted(self.running)),
        late=copies,
        end=steps.ends(ENDINGS),
        again=st.booleans(),
        then=st.none() | steps.wishes(),
    )
    def settle_together(self, task: str, late: Copy, end: End, again: bool, then: Wish | None) -> MultipleResults[Copy]:
        """Several settlements in one call: what runs (twice, perhaps), and something from long ago."""
        copy = self.running.pop(task)
        late = late.snapshot()
        done = [(copy, self.ending(copy, end))]
        if (move := self.late_move(late, end)) is not None:
            done.insert(0, (late, move))
        return multiple(*self.swap(done + done[-1:] * again, then.request(self.now) if then else None)[1])

    @precondition(lambda self: self.running)
    @rule(task=_among(lambda self: sorted(self.running)), end=steps.ends(ENDINGS))
    def settle_twice(self, task: str, end: End) -> None:
        """A worker that does not note that it has settled a task settles it once more."""
        copy = self.running.pop(task)
        move = self.ending(copy, end)
        before = copy.task.state
        self.swap([(copy, move)])
        after, copy.task.state = copy.task.state, before
        self.swap([(copy, move)])
        copy.task.state = after

    @precondition(AdapterAgreement.spare)
    @rule(copy=copies, end=steps.ends(ENDINGS))
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
        """What was held to be announced is let go, once; something from long ago, perhaps; and nothing that runs."""
        copy = self.held.pop(task)
        copy = copy.tampered() if tampered else copy
        self.let_go([copy, late.snapshot(), copy, *self.running.values()])

    @precondition(lambda self: self.spare() and (self.model.taken or self.leases()))
    @rule(workers=st.lists(st.sampled_from((*WORKERS, "producer")), max_size=2), by=st.sampled_from((LEASE, 1.0)))
    def extend(self, workers: list[str], by: float) -> None:
        """Heartbeats."""
        same("extend", *self.both("extend", workers, self.now + by))

    @precondition(lambda self: any(lease <= self.now for lease in self.leases()) or (self.spare() and self.leases()))
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

    @precondition(lambda self: self.spare() and (self.running or self.held))
    @rule(worker=st.sampled_from(WORKERS))
    def crash(self, worker: str) -> None:
        """A worker dies, and all that it knew with it."""
        for known in (self.running, self.held):
            for task_id in [id_ for id_, copy in known.items() if copy.task.worker == worker]:
                del known[task_id]

    @precondition(lambda self: self.spare() and self._reopens and len(self.handles) < _HANDLES)
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
        move = policies.retry(copy.task, self.now, worker="operator", hold_until=self.until(hold))
        self.swap([(copy, move)])
        return multiple(copy.snapshot())

    @precondition(lambda self: self.spare() and self.ids(Kind.RUNNING))
    @rule(task=_among(lambda self: self.ids(Kind.RUNNING)))
    def ask_to_stop(self, task: str) -> None:
        """A task that runs is to be called off; its worker is not told before it asks."""
        same("cancel", *self.both("cancel", task))

    @precondition(AdapterAgreement.spare)
    @rule(task=st.sampled_from(IDS))
    def ask_whatever_to_stop(self, task: str) -> None:
        """The same of a task that may wait, rest or not be there; of such nothing is noted."""
        same("cancel", *self.both("cancel", task))

    @precondition(lambda self: self.spare() and self.ids(Kind.WAITING, Kind.RUNNING))
    @rule(task=_among(lambda self: self.ids(Kind.WAITING, Kind.RUNNING)), until=steps.untils())
    def call_off(self, task: str, until: Until) -> None:
        """A task that waits or runs is revoked by itself."""
        self.both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(lambda self: self.spare() and self.free())
    @rule(task=_among(lambda self: self.free()), until=steps.untils())
    def call_off_in_advance(self, task: str, until: Until) -> None:
        """A task that is not there yet is revoked."""
        self.both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(AdapterAgreement.spare)
    @rule(task=st.sampled_from(IDS), until=steps.untils())
    def revoke(self, task: str, until: Until) -> None:
        """A task is revoked, whatever has become of it."""
        self.both("revoke", RevocationTarget(function=False, key=task), until.revocation(self.now), self.now)

    @precondition(AdapterAgreement.spare)
    @rule(name=st.sampled_from(FUNCTIONS), until=steps.untils())
    def revoke_function(self, name: str, until: Until) -> None:
        """All tasks of a function are revoked, or the next one."""
        self.both("revoke", RevocationTarget(function=True, key=name), until.revocation(self.now), self.now)

    @precondition(lambda self: self.spare() and (self.model.revocations or self.ids(Kind.FINAL)))
    @rule(what=_among(lambda self: [*self.model.revocations, *_by_id(self.ids(Kind.FINAL))]))
    def restore(self, what: RevocationTarget) -> None:
        """What was revoked, or cannot be any more."""
        same("restore", *self.both("restore", what, self.now))

    @precondition(AdapterAgreement.spare)
    @rule(
        name=st.sampled_from("LM"),
        owner=st.sampled_from("xy"),
        seconds=st.sampled_from((20.0, 5.0)),
        worker=st.none() | st.sampled_from(WORKERS),
    )
    def lock(self, name: str, owner: str, seconds: float, worker: str | None) -> None:
        """Somebody wants a lock."""
        same("lock", *self.both("lock", Lock(name, owner, self.now + seconds, worker), self.now))

    @precondition(lambda self: self.spare() and self.running)
    @rule(
        name=st.sampled_from("LM"),
        seconds=st.sampled_from((500.0, 20.0)),
        task=_among(lambda self: sorted(self.running)),
    )
    def lock_in_a_task(self, name: str, seconds: float, task: str) -> None:
        """A task that somebody believes to run wants a lock."""
        worker = self.running[task].task.worker
        same("lock", *self.both("lock", Lock(name, task, self.now + seconds, worker, task), self.now))

    @precondition(lambda self: self.spare() and self.model.taken)
    @rule(name=st.sampled_from("LM"), owner=st.sampled_from("xy"))
    def unlock(self, name: str, owner: str) -> None:
        """Somebody gives a lock back, or believes so."""
        same("unlock", *self.both("unlock", name, owner))

    @precondition(lambda self: self.spare() and self.model.taken)
    @rule(names=st.none() | st.lists(st.sampled_from("LM"), max_size=2))
    def flush_locks(self, names: list[str] | None) -> None:
        """An operator frees locks."""
        same("flush_locks", *self.both("flush_locks", names))

    @precondition(AdapterAgreement.spare)
    @rule(target=copies, task=_among(lambda self: self.ids()))
    def get(self, task: str) -> Copy:
        """Somebody looks at a task, and remembers it."""
        return self.look(task)

    @precondition(AdapterAgreement.spare)
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
        same("exchange of nothing", *self.both("exchange", (), None))

    @precondition(lambda self: self.ids(Kind.FINAL, Kind.OUTCOME) and (self.spare() or not self.free()))
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

    # Time --------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.spare() or self.sleepy())
    @rule(seconds=st.sampled_from((1.0, 3.0, 3.0, 11.0, 30.0, -1.0, -5.0)))
    def pass_time(self, seconds: float) -> None:
        """The clock goes on, or steps back."""
        self.now += seconds

    @precondition(lambda self: self.moments() and (self.spare() or self.sleepy()))
    @rule(moment=_among(lambda self: self.moments()), seconds=st.sampled_from((0.0, 0.0, -0.5)))
    def wait_for(self, moment: float, seconds: float) -> None:
        """It is exactly the moment when something comes, ends or lapses, or just before it."""
        self.now = moment + seconds

    # The end -------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Bring all that is left to an end, in the right order, and close the store."""
        try:
            # Hypothesis ends a run, too, that it wants no more of: a fault found then would hide that, and it could not
            # make its counterexample any shorter.
            if self.agreed and sys.exc_info()[0] is None:
                self.clear_up()
        finally:
            for storage in self.handles:
                storage.close()
