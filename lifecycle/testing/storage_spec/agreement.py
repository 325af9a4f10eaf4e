"""An adapter and the model in lockstep: what the rules of `StorageSpec` are made of."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy as copied
from typing import Any, ClassVar, Final

import attrs
from hypothesis.stateful import RuleBasedStateMachine, invariant

from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import Move, Revocation
from lifecycle.core.table import EXECUTING, LIFECYCLE, START, Kind
from lifecycle.core.task import Record, Task
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import Actor, Channel, Claim, ClaimRequest, RevocationTarget, Settlement, Storage
from lifecycle.testing.storage_spec.invariants import Invariants, demand
from lifecycle.testing.storage_spec.reference_storage import FIELDS, ReferenceStorage, fields, is_waiting
from lifecycle.testing.storage_spec.strategies import ENDINGS, FUNCTIONS, IDS, LEASE, WORKERS, Call, Copy, End

__all__ = ["AdapterAgreement", "same"]

_TARGETS: Final = (
    *(RevocationTarget(function=False, key=task_id) for task_id in IDS),
    *(RevocationTarget(function=True, key=name) for name in FUNCTIONS),
)
_IDLE: Final = 2
"""How many steps in a row may move no task."""


def same(what: str, actual: object, expected: object) -> None:
    """Raise `AssertionError` unless adapter and model say the same."""
    if actual != expected:
        demand(holds=False, fault=f"{what}: the adapter says {actual!r}, the model {expected!r}")


def _same_task(what: str, task: Task | None, twin: Task | None) -> None:
    if task is None or twin is None:
        same(what, task, twin)
    elif fields(task) != fields(twin):
        for name, actual, expected in zip(FIELDS, fields(task), fields(twin), strict=True):
            same(f"{what}: {name} of {task}", actual, expected)


def _tried(call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        return call(*arguments, **options), None
    except (DuplicateTask, IllegalTransition) as error:
        return None, error


class AdapterAgreement(RuleBasedStateMachine):
    """Asks the same of an adapter and of the model, and compares all that can be seen. It has no rules yet."""

    taken: ClassVar[Counter[tuple[str | None, str, str]]]
    """(source, trigger, target) → how often a task of this adapter went that way."""

    ended: ClassVar[Counter[tuple[str, bool]]]
    """(what ended an attempt, whether it had retries left) → how often this was accepted."""

    @classmethod
    def open_storage(cls) -> Storage:
        """A new, empty store."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> list[str]:
        """What no run of this class has come to yet."""
        rows = [(row.source and row.source.name, row.trigger, row.target.name) for row in LIFECYCLE.transitions]
        ends = [(trigger, left) for trigger in ENDINGS for left in (True, False)]
        return [
            f"{trigger}: {source or '(new)'} → {target}"
            for source, trigger, target in rows
            if (source, trigger, target) not in cls.taken
        ] + [
            f"{trigger} with {'' if left else 'no '}retries left"
            for trigger, left in ends
            if (trigger, left) not in cls.ended
        ]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.taken, cls.ended = Counter(), Counter()

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model = ReferenceStorage()
        self.law = Invariants(self.taken)
        self.handles = [self.open_storage()]
        """The same store, as several processes have it open."""
        self.turn = 0
        self.running: dict[str, Copy] = {}
        """What the workers believe that they run, by id."""
        self.held: dict[str, Copy] = {}
        """What is to be released once it is announced."""
        self.places: dict[int, int] = {}
        """Birth → the adapter's `seq`."""
        self.emptied = False
        """Was the store told to delete something?"""
        self.agreed = False
        self.idle = 0
        """Steps since a task moved."""
        self._moves: tuple[int, list[int]] = (0, [])
        self._asleep: list[str] = []

    # Asking --------------------------------------------------------------------------------------------------------

    def both(self, call: str, *arguments: Any, twins: Sequence[Any] | None = None, **options: Any) -> tuple[Any, Any]:
        """Call a method of the adapter and of the model (`twins`: with the model's own objects); what each returned."""
        self._told()
        self.agreed = False
        self.turn += 1
        storage = self.handles[self.turn % len(self.handles)]
        stamps = {channel: storage.generation(channel) for channel in Channel}
        self.model.woken.clear()
        expected, refused = _tried(getattr(self.model, call), arguments if twins is None else twins, options)
        actual, error = _tried(getattr(storage, call), arguments, options)
        if error is not None and refused is None:
            raise error
        same(f"{call}: what is raised", type(error), type(refused))
        self._asleep = [
            f"{call}: who waits for {channel.name} was not told"
            for channel in self.model.woken
            if storage.generation(channel) == stamps[channel]
        ]
        return actual, expected

    def _told(self) -> None:
        """Whoever had to be woken was: looked at last, since an adapter that does something else wakes others."""
        demand(not self._asleep, "; ".join(self._asleep))

    def write(self, tasks: list[Task], *, hold: bool) -> list[Copy]:
        """Enqueue them, and announce them."""
        twins = [copied(task) for task in tasks]
        actor = Actor("producer", self.until(hold))
        moves, theirs = self.both("enqueue", tasks, self.now, actor, twins=(twins, self.now, actor))
        same("enqueue: the moves", moves, theirs)
        copies = []
        for task, twin, move in zip(tasks, twins, moves or (), strict=moves is not None):
            _same_task("enqueue: the object", task, twin)
            copies.append(Copy(task, twin.seq or 0))
            self._announce(copies[-1], move)
        return [copy.snapshot() for copy in copies]

    def swap(
        self, done: Sequence[tuple[Copy, Move]], request: ClaimRequest | None = None
    ) -> tuple[list[bool], list[Copy]]:
        """Exchange; announce what was settled and what was claimed. Which settlements took, and see `received`."""
        twins = {id(copy): copy.twin() for copy, _ in done}
        known = [(copy.birth, copy.task.version) for copy, _ in done]
        settlements = [Settlement(copy.task, move) for copy, move in done]
        moves = [attrs.evolve(move, follow_ups=tuple(map(copied, move.follow_ups))) for _, move in done]
        expected = [Settlement(twins[id(copy)], move) for (copy, _), move in zip(done, moves, strict=True)]
        (took, claims), (taken, theirs) = self.both("exchange", settlements, request, twins=(expected, request))
        same("exchange: which settlements took", took, taken)
        for (copy, move), twin in zip(done, expected, strict=True):
            _same_task("exchange: the settled object", copy.task, twin.task)
            for follow_up, other in zip(move.follow_ups, twin.move.follow_ups, strict=True):
                _same_task("exchange: the follow-up's object", follow_up, other)
        for accepted, version, (copy, move), twin in zip(took, known, done, expected, strict=True):
            if accepted:
                self.law.settle(*version)
                self._announce(copy, move)
                for follow_up, other in zip(move.follow_ups, twin.move.follow_ups, strict=True):
                    if other.seq is not None:
                        born = policies.enqueued(follow_up, move.at, move.worker, move.hold_until)
                        self._announce(Copy(follow_up, other.seq), born)
        return took, self.received("exchange", claims, theirs)

    def finish(
        self,
        ends: Sequence[tuple[Copy, End]],
        request: ClaimRequest | None,
        *,
        hold: bool = False,
        follow_ups: Sequence[Call] = (),
        tampered: bool = False,
    ) -> list[Copy]:
        """Settle what a worker believes to run, in one exchange, and count what was accepted; see `received`."""
        done, ways = [], []
        for copy, end in ends:
            self.running.pop(copy.task.id, None)
            move = self.ending(copy, end, hold=hold, follow_ups=follow_ups)
            done.append((copy.tampered() if tampered else copy, move))
            ways.append((end.trigger, copy.task.retries > 0))
        took, claimed = self.swap(done, request)
        self.ended.update(itertools.compress(ways, took))
        return claimed

    def received(self, call: str, claims: Sequence[Claim], expected: Sequence[Claim]) -> list[Copy]:
        """Announce claims; copies of what was claimed, as somebody may have made them before that, and after."""
        same(f"{call}: the moves", [(task.id, move) for task, move in claims], [(t.id, move) for t, move in expected])
        copies = []
        for (task, move), (twin, _) in zip(claims, expected, strict=True):
            _same_task(f"{call}: the object", task, twin)
            copy = Copy(task, twin.seq or 0)
            copies.append(copy.snapshot())
            self._announce(copy, move)
            if move.state == EXECUTING:
                self.law.grant(copy.birth, task.version)
            copies.append(copy.snapshot())
        return copies

    def _announce(self, copy: Copy, move: Move) -> None:
        move.apply(copy.task)
        if move.state == EXECUTING:
            self.running[copy.task.id] = copy
        elif copy.task.lease is not None:
            self.held[copy.task.id] = copy

    def let_go(self, known: Sequence[Copy]) -> None:
        """Release."""
        twins = [copy.twin() for copy in known]
        freed, expected = self.both("release", [copy.task for copy in known], self.now, twins=(twins, self.now))
        same("release", freed, expected)

    def look(self, task_id: str) -> Copy:
        """Get a task that is there."""
        task, twin = self.both("get", task_id)
        return Copy(task, twin.seq)

    def take_every_transition(self) -> None:
        """Take each row of the table, and end an attempt in each way, with retries left and without.

        Random runs come to the rarest rows by luck; this run is always the same.
        """
        for retries, ending in itertools.product((0, 1), ENDINGS):
            # With a retry left: for later, and retried later. Without: at once, and an operator's retry at once.
            later = 5.0 * retries
            self.write([Call("a", eta=later or None, retries=retries).task(self.now)], hold=False)
            for _ in range(1 + retries):  # it is scheduled first
                self.swap((), ClaimRequest("w1", self.now, LEASE))
                self.agree()
                self.now += later
            self.finish([(self.running["a"], End(ending, delay=later, patience=retries))], None)
            self.agree()
            if self.ids(Kind.OUTCOME):
                copy = self.look("a")
                self.swap([(copy, policies.retry(copy.task, self.now, worker="operator"))])
            self.both("revoke", RevocationTarget(function=False, key="a"), Revocation(), self.now)
            self._claim_and_empty()
        for eta in (None, 5.0):
            self.write([Call("a", eta=eta, expires=20.0).task(self.now)], hold=False)
            if eta is not None:
                self.swap((), ClaimRequest("w1", self.now, LEASE))
            self.now += 20.0
            self._claim_and_empty()

    def _claim_and_empty(self) -> None:
        self.swap((), ClaimRequest("w1", self.now, LEASE))
        self.agree()
        self.emptied = True
        self.both("flush")
        self.agree()

    def clear_up(self) -> None:
        """Claim all that is due, end it in one way or another, try it again; then the same when everything is due.

        No run is too short to end some tasks, and so all runs together end them in each way there is.
        """
        for seconds in (0.0, 100.0, 100.0):
            self.now += seconds
            self.received("recover", *self.both("recover", self.now, Actor("recoverer")))
            # The first claim makes ready what the second, for which the clock has stepped back, has to put off again.
            for limit, step in (1, -seconds), (3, seconds), (100, 0.0):
                self.swap((), ClaimRequest("w1", self.now, LEASE, limit=limit))
                self.agree()
                self.now += step
            last = [(copy, (copy.birth + copy.task.version) % (len(ENDINGS) + 2)) for copy in self.running.values()]
            for task_id in self.ids(Kind.RUNNING)[::2]:
                same("cancel", *self.both("cancel", task_id))
            # Some are left to themselves, and recovered in the next round.
            self.finish([(copy, End(ENDINGS[number])) for copy, number in last if number < len(ENDINGS)], None)
            self.agree()
            for task_id in self.ids(Kind.OUTCOME):
                copy = self.look(task_id)
                self.swap([(copy, policies.retry(copy.task, self.now, worker="operator"))])
            for task_id in self.ids(Kind.WAITING)[::2]:
                self.both("revoke", RevocationTarget(function=False, key=task_id), Revocation(), self.now)
            self.agree()

    # What there is to say ------------------------------------------------------------------------------------------

    def until(self, hold: bool) -> float | None:
        """The end of a hold."""
        return self.now + LEASE if hold else None

    def ending(self, copy: Copy, end: End, *, hold: bool = False, follow_ups: Sequence[Call] = ()) -> Move:
        """How an attempt ends."""
        return policies.settle(
            copy.task,
            end.outcome(self.now),
            self.now,
            worker=str(copy.task.worker),
            hold_until=self.until(hold),
            max_interruptions=end.patience,
            follow_ups=tuple(call.task(self.now) for call in follow_ups),
        )

    def late_move(self, copy: Copy, end: End) -> Move | None:
        """What somebody with an old copy may still try; `None` if there is nothing, or if the copy is not old."""
        task = copy.task
        if task.state == EXECUTING:
            return self.ending(copy, end)
        if task.state in policies.OUTCOMES:
            return policies.retry(task, self.now, worker="operator")
        row = self.model.row(task.id)
        current = row is not None and (row.task.seq, row.task.version) == (copy.birth, task.version)
        if is_waiting(task) and not current:
            return policies.claimed(task, START, "thief", self.now, LEASE)
        return None

    # What there is to choose from ----------------------------------------------------------------------------------

    def spare(self) -> bool:
        """Is this the time for steps that move no task? Else those that do would be far between."""
        return bool(self.model.rows) and self.idle < _IDLE

    def ripe(self) -> bool:
        """Would a claim find something?"""
        return any(row.rank is not None or (row.due or self.now + 1) <= self.now for row in self.model.rows)

    def sleepy(self) -> bool:
        """Has nobody anything to do before time has passed?"""
        return bool(self.model.rows) and self.idle < 2 * _IDLE and not self.ripe() and not self.running

    def leases(self) -> list[float]:
        """When what is held is free again."""
        return [row.task.lease for row in self.model.rows if row.task.lease is not None]

    def free(self) -> tuple[str, ...]:
        """The ids that no task has."""
        return tuple(task_id for task_id in IDS if self.model.row(task_id) is None)

    def ids(self, *kinds: Kind) -> list[str]:
        """Those that tasks have, in states of these kinds, or in any."""
        tasks = [row.task for row in self.model.rows]
        return [task.id for task in tasks if not kinds or LIFECYCLE.state(str(task.state)).kind in kinds]

    def moments(self) -> list[float]:
        """All those when something changes, but for now."""
        tasks = [row.task for row in self.model.rows]
        moments = {moment for task in tasks for moment in (task.eta, task.expires, task.lease)}
        moments |= {lock.until for lock in self.model.taken} | {said.until for said in self.model.revocations.values()}
        return sorted(moment for moment in moments - {self.now} if moment is not None)

    # What holds after each step ------------------------------------------------------------------------------------

    @invariant()
    def agree(self) -> None:
        """All that the adapter shows is what the model shows, and breaks no law."""
        self.agreed = False
        storage, model = self.handles[(self.turn + 1) % len(self.handles)], self.model
        shown: dict[int, tuple[Task, Sequence[Record]]] = {}
        for task_id in IDS:
            task, twin = storage.get(task_id), model.get(task_id)
            history = storage.history(task_id)
            _same_task(f"get({task_id!r})", task, twin)
            same(f"history({task_id!r})", history, model.history(task_id))
            same(f"status({task_id!r})", storage.status(task_id), model.status(task_id))
            if task is not None and twin is not None:
                shown[twin.seq or 0] = (task, history or ())
        found = storage.tasks()
        same("tasks()", list(map(fields, found)), list(map(fields, model.tasks())))
        same("counts()", storage.counts(), model.counts())
        same("next_due()", storage.next_due(), model.next_due())
        workers = WORKERS[: 1 + self.turn % len(WORKERS)]
        same(f"canceling({workers})", sorted(storage.canceling(workers)), sorted(model.canceling(workers)))
        same("locks()", storage.locks(self.now), model.locks(self.now))
        for target in _TARGETS:
            same(f"revocation({target})", storage.revocation(target), model.revocation(target))
        self._agree_on_places(shown, found)
        self.law.look(shown, emptied=self.emptied)
        self._told()
        moves = (self.model.births, [row.task.version for row in self.model.rows])
        self.idle = self.idle + 1 if moves == self._moves else 0
        self._moves, self.emptied, self.agreed = moves, False, True

    def _agree_on_places(self, shown: dict[int, tuple[Task, Sequence[Record]]], found: Sequence[Task]) -> None:
        """A task keeps its `seq`, and each new one gets a greater one."""
        for birth, (task, _) in shown.items():
            place = task.seq if task.seq is not None else -1
            same(f"seq of {task}", place, self.places.setdefault(birth, place))
        places = [self.places[birth] for birth in sorted(self.places)]
        demand(all(a < b for a, b in itertools.pairwise(places)), f"seq does not grow with each task: {places}")
        same("seq, newest first", [task.seq for task in found], [self.places[b] for b in sorted(shown, reverse=True)])
