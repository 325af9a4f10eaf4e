"""An adapter and the model in lockstep: the calls and checks that the rules of `StorageSpec` consist of."""

import itertools
from collections.abc import Callable, Sequence
from copy import copy as copied
from typing import Any, Final

import attrs
from hypothesis.stateful import invariant

from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import Move, Revocation
from lifecycle.core.table import COMPLETE, EXECUTING, FAIL, INTERRUPT, RETRY, Kind
from lifecycle.core.task import HISTORY_HEAD, HISTORY_STEP, HISTORY_TAIL, Record, Task
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import Actor, Channel, Claim, ClaimRequest, RevocationTarget, Settlement, Tick
from lifecycle.testing.storage_spec.invariants import require
from lifecycle.testing.storage_spec.machine import SpecMachine
from lifecycle.testing.storage_spec.reference_storage import FIELDS, fields
from lifecycle.testing.storage_spec.strategies import (
    ENDING_TRIGGERS,
    FUNCTIONS,
    IDS,
    LEASE_SECONDS,
    WORKERS,
    Ending,
    NewTask,
    TaskCopy,
    workflow_tasks,
)

__all__ = ["AdapterAgreement", "assert_same"]

_TARGETS: Final = (
    *(RevocationTarget(function=False, key=task_id) for task_id in IDS),
    *(RevocationTarget(function=True, key=name) for name in FUNCTIONS),
)

_OFTEN: Final = 60
"""Number of attempts after which every history has left out records several times."""


def assert_same(what: str, actual: object, expected: object) -> None:
    """Raise `AssertionError` unless the adapter returned what the model returned."""
    if actual != expected:
        require(holds=False, fault=f"{what}: the adapter says {actual!r}, the model {expected!r}")


def _assert_same_task(what: str, task: Task | None, model_task: Task | None) -> None:
    if task is None or model_task is None:
        assert_same(what, task, model_task)
    elif fields(task) != fields(model_task):
        for name, actual, expected in zip(FIELDS, fields(task), fields(model_task), strict=True):
            assert_same(f"{what}: {name} of {task}", actual, expected)


def _call(call: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]) -> tuple[Any, Exception | None]:
    try:
        return call(*arguments, **options), None
    except (DuplicateTask, IllegalTransition) as error:
        return None, error


class AdapterAgreement(SpecMachine):
    """Makes each call on an adapter and on the model, and compares everything that can be read. It has no rules."""

    # Calls ---------------------------------------------------------------------------------------------------------

    def call_both(
        self, call: str, *arguments: Any, model_arguments: Sequence[Any] | None = None, **options: Any
    ) -> tuple[Any, Any]:
        """Call a method of the adapter and of the model; return both results.

        `model_arguments`: the model's own objects, if the call changes its arguments.
        """
        self._check_wakeups()
        self.agreed = False
        self.call_count += 1
        storage = self.handles[self.call_count % len(self.handles)]
        generations = {channel: storage.generation(channel) for channel in Channel}
        self.model.woken_channels.clear()
        if model_arguments is None:
            model_arguments = arguments
        expected, expected_error = _call(getattr(self.model, call), model_arguments, options)
        actual, error = _call(getattr(storage, call), arguments, options)
        if error is not None and expected_error is None:
            raise error
        assert_same(f"{call}: the exception", type(error), type(expected_error))
        self._missed_wakeups = [
            f"{call}: a waiter for {channel.name} was not woken"
            for channel in self.model.woken_channels
            if storage.generation(channel) == generations[channel]
        ]
        return actual, expected

    def _check_wakeups(self) -> None:
        """Check that the last call has woken all waiters; other differences are reported first."""
        require(not self._missed_wakeups, "; ".join(self._missed_wakeups))

    def enqueue_tasks(self, tasks: list[Task], *, hold: bool) -> list[TaskCopy]:
        """Enqueue tasks, and announce their first moves."""
        model_tasks = [copied(task) for task in tasks]
        actor = Actor("producer", self.hold_until(hold))
        moves, expected = self.call_both(
            "enqueue", tasks, self.now, actor, model_arguments=(model_tasks, self.now, actor)
        )
        return self._new_copies("enqueue", tasks, model_tasks, moves, expected)

    def make_tick(self, tick: Tick, tasks: list[Task], *, hold: bool) -> list[TaskCopy]:
        """Make ticks of a periodic task, and announce the first moves of their tasks."""
        model_tasks = [copied(task) for task in tasks]
        actor = Actor("consumer", self.hold_until(hold))
        moves, expected = self.call_both(
            "tick", tick, tasks, self.now, actor, model_arguments=(tick, model_tasks, self.now, actor)
        )
        return self._new_copies("tick", tasks, model_tasks, moves, expected)

    def _new_copies(
        self,
        call: str,
        tasks: list[Task],
        model_tasks: list[Task],
        moves: Sequence[Move] | None,
        expected: Sequence[Move] | None,
    ) -> list[TaskCopy]:
        assert_same(f"{call}: the moves", moves, expected)
        if moves is None:  # refused
            return []
        copies = []
        for task, model_task, move in zip(tasks, model_tasks, moves, strict=True):
            _assert_same_task(f"{call}: the object", task, model_task)
            copies.append(TaskCopy(task, model_task.seq or 0))
            self._apply(copies[-1], move)
        return [copy.snapshot() for copy in copies]

    def exchange(
        self, done: Sequence[tuple[TaskCopy, Move]], request: ClaimRequest | None = None
    ) -> tuple[list[bool], list[TaskCopy]]:
        """Settle, claim and announce; return which settlements were accepted, and the copies of `check_claims`."""
        model_tasks = {id(copy): copy.model_task() for copy, _ in done}
        versions = [(copy.model_seq, copy.task.version) for copy, _ in done]
        settlements = [Settlement(copy.task, move) for copy, move in done]
        moves = [attrs.evolve(move, follow_ups=tuple(map(copied, move.follow_ups))) for _, move in done]
        model_settlements = [
            Settlement(model_tasks[id(copy)], move) for (copy, _), move in zip(done, moves, strict=True)
        ]
        (accepted, claims), (expected, expected_claims) = self.call_both(
            "exchange", settlements, request, model_arguments=(model_settlements, request)
        )
        assert_same("exchange: which settlements were accepted", accepted, expected)
        for (copy, move), model in zip(done, model_settlements, strict=True):
            _assert_same_task("exchange: the settled object", copy.task, model.task)
            for follow_up, other in zip(move.follow_ups, model.move.follow_ups, strict=True):
                _assert_same_task("exchange: the follow-up's object", follow_up, other)
        for is_accepted, version, (copy, move), model in zip(accepted, versions, done, model_settlements, strict=True):
            if is_accepted:
                self.checker.check_settlement(*version)
                self._apply(copy, move)
                for follow_up, other in zip(move.follow_ups, model.move.follow_ups, strict=True):
                    if other.seq is not None:
                        first_move = policies.enqueued(follow_up, move.at, move.worker, move.hold_until)
                        self._apply(TaskCopy(follow_up, other.seq), first_move)
        return accepted, self.check_claims("exchange", claims, expected_claims)

    def settle(
        self,
        ends: Sequence[tuple[TaskCopy, Ending]],
        request: ClaimRequest | None,
        *,
        hold: bool = False,
        follow_ups: Sequence[NewTask] = (),
        tampered: bool = False,
    ) -> list[TaskCopy]:
        """End running attempts in one exchange, and count the accepted outcomes; return the copies of `check_claims`.

        `tampered`: the functions have changed their copies of the tasks.
        """
        done, outcomes = [], []
        for copy, end in ends:
            self.running.pop(copy.task.id, None)
            move = self.ending_move(copy, end, hold=hold, follow_ups=follow_ups)
            done.append((copy.tampered() if tampered else copy, move))
            outcomes.append((end.trigger, copy.task.retries > 0))
        accepted, claimed = self.exchange(done, request)
        self.outcome_counts.update(itertools.compress(outcomes, accepted))
        return claimed

    def check_claims(self, call: str, claims: Sequence[Claim], expected: Sequence[Claim]) -> list[TaskCopy]:
        """Compare and announce claims; return two copies of each task: from before its move, and from after it."""
        moves, expected_moves = ([(task.id, move) for task, move in one] for one in (claims, expected))
        assert_same(f"{call}: the moves", moves, expected_moves)
        copies = []
        for (task, move), (model_task, _) in zip(claims, expected, strict=True):
            _assert_same_task(f"{call}: the object", task, model_task)
            copy = TaskCopy(task, model_task.seq or 0)
            copies.append(copy.snapshot())
            self._apply(copy, move)
            if move.state == EXECUTING:
                self.checker.check_claim(copy.model_seq, task.version)
            copies.append(copy.snapshot())
        return copies

    def _apply(self, copy: TaskCopy, move: Move) -> None:
        move.apply(copy.task)
        if move.state == EXECUTING:
            self.running[copy.task.id] = copy
        elif copy.task.lease is not None:
            self.held[copy.task.id] = copy

    def release_tasks(self, known: Sequence[TaskCopy]) -> None:
        """Release tasks."""
        tasks, model_tasks = [copy.task for copy in known], [copy.model_task() for copy in known]
        assert_same("release", *self.call_both("release", tasks, self.now, model_arguments=(model_tasks, self.now)))

    def read(self, task_id: str) -> TaskCopy:
        """Return a copy of a stored task."""
        task, model_task = self.call_both("get", task_id)
        return TaskCopy(task, model_task.seq)

    def take_every_transition(self) -> None:
        """Take every transition of the table, and end an attempt in every way, with retries left and without.

        Random runs reach the rarest transitions by chance; this run is always the same.
        """
        for retries, trigger in itertools.product((0, 1), ENDING_TRIGGERS):
            # With a retry left: scheduled, and retried later. Without: at once, and an operator's retry at once.
            delay = 5.0 * retries
            self.enqueue_tasks([NewTask("a", eta=delay or None, retries=retries).task(self.now)], hold=False)
            for _ in range(1 + retries):  # the first claim schedules a task with an ETA
                self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS))
                self.adapter_and_model_agree()
                self.now += delay
            self.settle([(self.running["a"], Ending(trigger, delay=delay, max_interruptions=retries))], None)
            self.adapter_and_model_agree()
            if self.task_ids(Kind.OUTCOME):
                copy = self.read("a")
                self.exchange([(copy, policies.retry(copy.task, self.now, worker="operator"))])
            self.call_both("revoke", RevocationTarget(function=False, key="a"), Revocation(), self.now)
            self._claim_and_flush()
        self._take_every_transition_of_steps()
        for eta in (None, 5.0):
            self.enqueue_tasks([NewTask("a", eta=eta, expires=20.0).task(self.now)], hold=False)
            if eta is not None:
                self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS))
            self.now += 20.0
            self._claim_and_flush()

    def _take_every_transition_of_steps(self) -> None:
        steps = [
            NewTask("b", after=("a",)),
            NewTask("c", after=("a",), passes=True, eta=50.0),
            NewTask("d", after=("a",), on_failure=True),
            NewTask("e", after=("b", "a"), expires=20.0),
            NewTask("f", after=("c",)),
        ]
        self.enqueue_tasks(workflow_tasks([NewTask("a"), *steps], self.now), hold=False)
        self.call_both("revoke", RevocationTarget(function=False, key="f"), Revocation(), self.now)
        for _ in range(2):
            self.adapter_and_model_agree()
            self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS, limit=9))
            if "a" in self.running:
                self.settle([(self.running["a"], Ending(COMPLETE))], None)
        self.now += 20.0
        self._claim_and_flush()

    def leave_nothing_pending(self) -> None:
        """Complete every task, and let time pass: then nothing waits."""
        for _ in range(2 * len(IDS)):
            self.now += 1000.0
            self.check_claims("recover", *self.call_both("recover", self.now, Actor("recoverer")))
            self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS, limit=100))
            self.settle([(copy, Ending(COMPLETE)) for copy in self.running.values()], None)
        self.adapter_and_model_agree()
        waiting = [str(task) for task in self.handles[0].tasks(list(policies.WAITING))]
        require(not waiting, f"these tasks wait for ever: {', '.join(waiting)}")

    def retry_often(self) -> None:
        """Retry one task so often that the middle of its history is left out several times, by every kind of call."""
        self.enqueue_tasks([NewTask("a").task(self.now)], hold=False)
        endings = (
            Ending(RETRY),
            Ending(RETRY, delay=5.0),
            Ending(FAIL, retry=True),
            Ending(INTERRUPT, max_interruptions=_OFTEN),
            None,
        )
        for ending in itertools.islice(itertools.cycle(endings), _OFTEN):
            self.now = max(self.now, self.read("a").task.eta or 0.0)
            self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS))
            if ending is not None:
                self.settle([(self.running["a"], ending)], ClaimRequest("w1", self.now, LEASE_SECONDS))
            self.now += LEASE_SECONDS
            recovered = self.call_both("recover", self.now, Actor("recoverer"), max_interruptions=_OFTEN)
            self.check_claims("recover", *recovered)
            self.adapter_and_model_agree()
        history = self.handles[0].history("a") or []
        held, count = len(history), sum(1 + record.left_out for record in history)
        most = HISTORY_HEAD + HISTORY_TAIL + HISTORY_STEP + 3
        require(held <= most < count, f"{held} of {count} records are kept, more than {most}")

    def _claim_and_flush(self) -> None:
        self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS))
        self.adapter_and_model_agree()
        self.deletes = True
        self.call_both("flush")
        self.adapter_and_model_agree()

    def run_to_rest(self) -> None:
        """Claim all due tasks, end them in different ways, retry them; repeat that when all other tasks are due.

        So even the shortest run ends some tasks, and all runs together end tasks in every possible way.
        """
        for seconds in (0.0, 100.0, 100.0):
            self.now += seconds
            self.check_claims("recover", *self.call_both("recover", self.now, Actor("recoverer")))
            # The first claim promotes tasks that are not due in the second, for which the clock steps back.
            for limit, step in (1, -seconds), (3, seconds), (100, 0.0):
                self.exchange((), ClaimRequest("w1", self.now, LEASE_SECONDS, limit=limit))
                self.adapter_and_model_agree()
                self.now += step
            choices = len(ENDING_TRIGGERS) + 2
            last = [(copy, (copy.model_seq + copy.task.version) % choices) for copy in self.running.values()]
            for task_id in self.task_ids(Kind.RUNNING)[::2]:
                assert_same("cancel", *self.call_both("cancel", task_id))
            # Some are not settled: the next round recovers them.
            ends = [(copy, Ending(ENDING_TRIGGERS[number])) for copy, number in last if number < len(ENDING_TRIGGERS)]
            self.settle(ends, None)
            self.adapter_and_model_agree()
            for task_id in self.task_ids(Kind.OUTCOME):
                copy = self.read(task_id)
                self.exchange([(copy, policies.retry(copy.task, self.now, worker="operator"))])
            for task_id in self.task_ids(Kind.WAITING)[::2]:
                self.call_both("revoke", RevocationTarget(function=False, key=task_id), Revocation(), self.now)
            self.adapter_and_model_agree()

    # Checks after each step ----------------------------------------------------------------------------------------

    @invariant()
    def adapter_and_model_agree(self) -> None:
        """Compare everything that can be read from adapter and model, and check the adapter's invariants."""
        self.agreed = False
        storage, model = self.handles[(self.call_count + 1) % len(self.handles)], self.model
        shown: dict[int, tuple[Task, Sequence[Record]]] = {}
        for task_id in IDS:
            task, model_task = storage.get(task_id), model.get(task_id)
            history = storage.history(task_id)
            _assert_same_task(f"get({task_id!r})", task, model_task)
            assert_same(f"history({task_id!r})", history, model.history(task_id))
            assert_same(f"status({task_id!r})", storage.status(task_id), model.status(task_id))
            if task is not None and model_task is not None:
                shown[model_task.seq or 0] = (task, history or ())
        found = storage.tasks()
        assert_same("tasks()", list(map(fields, found)), list(map(fields, model.tasks())))
        assert_same("statuses()", storage.statuses(IDS), model.statuses(IDS))
        assert_same("counts()", storage.counts(), model.counts())
        assert_same("next_due()", storage.next_due(), model.next_due())
        names = frozenset(FUNCTIONS[: 1 + self.call_count % 3])
        assert_same(f"next_due({set(names)})", storage.next_due(names), model.next_due(names))
        workers = WORKERS[: 1 + self.call_count % len(WORKERS)]
        assert_same(f"canceling({workers})", sorted(storage.canceling(workers)), sorted(model.canceling(workers)))
        assert_same("periodic_states()", storage.periodic_states(), model.periodic_states())
        assert_same("locks()", storage.locks(self.now), model.locks(self.now))
        for target in _TARGETS:
            assert_same(f"revocation({target})", storage.revocation(target), model.revocation(target))
        self._check_seq(shown, found)
        self.checker.check_shown(shown, deletion=self.deletes)
        self._check_wakeups()
        versions = (self.model.last_seq, [row.task.version for row in self.model.rows])
        self.idle_steps = self.idle_steps + 1 if versions == self._versions else 0
        self._versions, self.deletes, self.agreed = versions, False, True

    def _check_seq(self, shown: dict[int, tuple[Task, Sequence[Record]]], found: Sequence[Task]) -> None:
        """Check that a task keeps its `seq`, and that each new task has a greater one."""
        for model_seq, (task, _) in shown.items():
            seq = task.seq if task.seq is not None else -1
            assert_same(f"seq of {task}", seq, self.seqs.setdefault(model_seq, seq))
        seqs = [self.seqs[model_seq] for model_seq in sorted(self.seqs)]
        require(all(a < b for a, b in itertools.pairwise(seqs)), f"seq does not grow with each task: {seqs}")
        newest_first = [self.seqs[model_seq] for model_seq in sorted(shown, reverse=True)]
        assert_same("seq, newest first", [task.seq for task in found], newest_first)
