"""The tests of `StorageSpec.TestCase`, except those of the order of claims."""

import threading
from collections.abc import Callable, Iterator
from copy import copy
from typing import ClassVar, Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import CANCEL, COMPLETE, EXECUTING, FAIL, INTERRUPT, LIFECYCLE, QUEUED, TIME_OUT
from lifecycle.core.task import Task
from lifecycle.errors import StorageError
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget, Settlement, Storage
from lifecycle.testing.storage_spec.agreement import AdapterAgreement
from lifecycle.testing.storage_spec.invariants import require
from lifecycle.testing.storage_spec.reference_storage import fields
from lifecycle.testing.storage_spec.workflow_cases import WorkflowCases

__all__ = ["SpecTestCase", "StorageCases"]

_WAKE_TIMEOUT_SECONDS: Final = 60.0
"""The longest wait for a waiter to be woken."""
_ACTOR: Final = Actor("producer")
_SHORT_RUN_STEP_COUNTS: Final = (5, 15)
"""Steps of the short runs, which come first."""


class StorageCases(WorkflowCases):
    """The tests of every adapter."""

    settings: ClassVar[settings]

    def test_adapter_and_model_agree(self) -> None:
        """After any calls in any order, adapter and model return the same, and no invariant is broken."""
        how = self.settings
        # Short runs first: Hypothesis hardly ever shrinks the counterexample of a long run to so few steps.
        for steps in (*(n for n in _SHORT_RUN_STEP_COUNTS if n < how.stateful_step_count), how.stateful_step_count):
            run_state_machine_as_test(self.spec, settings=settings(how, stateful_step_count=steps))

    def test_every_transition_was_taken(self) -> None:
        """Tasks take every transition of the table, and attempts end in every possible way, in one fixed run."""
        machine = self.spec()
        try:
            machine.take_every_transition()
        finally:
            machine.teardown()
        missing = self.spec.missing()
        require(not missing, "no run has reached: " + "; ".join(missing))

    def test_long_history_leaves_out_its_middle(self) -> None:
        """The history of a task that is retried for ever stays short: its beginning and its end, and a number."""
        machine = self.spec()
        try:
            machine.retry_often()
        finally:
            machine.teardown()

    def test_late_outcome_is_refused(self) -> None:
        """The outcome of a recovered attempt is refused once another attempt runs, even of the same worker."""
        for worker in "w", "another":
            storage = self.opened()
            storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
            first, second = ClaimRequest("w", 2.0, 10.0), ClaimRequest(worker, 20.0, 10.0)
            _, [(late, start)] = storage.exchange((), first)
            start.apply(late)
            storage.recover(20.0, _ACTOR)
            _, [(current, start)] = storage.exchange((), second)
            start.apply(current)
            for task, accepted in (late, False), (current, True), (current, False), (late, False):
                done = policies.settle(late, Outcome(COMPLETE), 21.0, worker="w")
                took, _ = storage.exchange([Settlement(task, done)], None)
                require(took == [accepted], f"next attempt by {worker}: accepted is {took}")

    def test_lock_is_free_when_it_ends(self) -> None:
        """A lock is free from its end on, not before; its previous owner cannot free it then."""
        storage = self.opened()
        require(storage.lock(Lock("L", "x", 5.0), 1.0), "L is free")
        require(not storage.lock(Lock("L", "y", 9.0), 4.5), "L is held")
        require(storage.locks(4.5) == [Lock("L", "x", 5.0)] and storage.locks(5.0) == [], "the lock ends at 5")
        require(storage.lock(Lock("L", "y", 9.0), 5.0), "L is free again")
        require(not storage.unlock("L", "x") and storage.unlock("L", "y"), "only its owner frees a lock")

    def test_interruption_frees_the_locks_of_its_attempt(self) -> None:
        """An interruption frees the locks of its attempt, and no others; other outcomes free none."""
        storage = self.opened()
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=2))
        for task, move in claims:
            move.apply(task)
            storage.lock(Lock(task.id, "x", 99.0, "w", task.id), 2.0)
        storage.lock(Lock("c", "x", 99.0), 2.0)
        for (task, _), trigger, left in zip(claims, (FAIL, INTERRUPT), ("abc", "ac"), strict=True):
            end = policies.settle(task, Outcome(trigger), 3.0, worker="w")
            storage.exchange([Settlement(task, end)], None)
            names = "".join(lock.name for lock in storage.locks(3.0))
            require(names == left, f"{left} are held after {trigger}, not {names}")

    def test_outcome_with_another_fence_is_refused(self) -> None:
        """Every field of the fence counts: a store restored from a backup may give one version to two workers."""
        storage = self.opened()
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(task)
        end = policies.settle(task, Outcome(COMPLETE), 3.0, worker="w")
        for name, value in ("worker", "the other"), ("state", LIFECYCLE.initial.name), ("version", 1), ("seq", 10**9):
            other = copy(task)
            setattr(other, name, value)
            took, _ = storage.exchange([Settlement(other, end)], None)
            require(took == [False], f"an outcome with {name}={value!r} is refused")
        took, _ = storage.exchange([Settlement(task, end)], None)
        require(took == [True], "the outcome of the worker that holds the task is accepted")

    def test_two_moves_of_one_task_are_made_in_order(self) -> None:
        """Two moves of one task in one call are both made, if the second follows from the first."""
        storage = self.opened()
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(task)
        end = policies.settle(task, Outcome(FAIL), 3.0, worker="w")
        later = copy(task)
        end.apply(later)
        again = policies.retry(later, 3.0, worker="operator")
        took, _ = storage.exchange([Settlement(task, end), Settlement(later, again)], None)
        known = storage.get("a")
        version = known.version if known is not None else 0
        require((took, version) == ([True, True], later.version + 2), f"accepted are {took}, the version is {version}")

    def test_heartbeat_changes_only_leases(self) -> None:
        """A heartbeat extends the leases of its workers, and changes nothing else: their outcomes are accepted."""
        storage = self.opened()
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, _ACTOR)
        started = [storage.exchange((), ClaimRequest(worker, 2.0, 10.0))[1][0] for worker in ("w", "other")]
        require(storage.extend(["w"], 50.0) == 1, "one task is extended")
        shown = [(task.lease, task.version) for task in map(storage.get, "ab") if task is not None]
        require(shown == [(50.0, 2), (12.0, 2)], f"leases and versions are {shown} after a heartbeat")
        for task, move in started:
            move.apply(task)
            end = policies.settle(task, Outcome(COMPLETE), 3.0, worker=str(task.worker))
            took, _ = storage.exchange([Settlement(task, end)], None)
            require(took == [True], f"the outcome of {task} is refused after a heartbeat")

    def test_heartbeat_extends_only_its_own_workers(self) -> None:
        """A heartbeat extends the tasks and locks of its workers to the given time, and no others."""
        storage = self.opened()
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, _ACTOR)
        for worker in "w", "other":
            storage.exchange((), ClaimRequest(worker, 2.0, 10.0))
            storage.lock(Lock(worker, "x", 12.0, worker), 2.0)
        storage.lock(Lock("nobody's", "x", 12.0), 2.0)
        storage.extend(["w"], 50.0)
        for now, lapsed, kept in (11.5, [], ["nobody's", "other", "w"]), (12.0, ["b"], ["w"]), (50.0, ["a"], []):
            locks = sorted(lock.name for lock in storage.locks(now))
            tasks = [task.id for task, _ in storage.recover(now, _ACTOR)]
            require((tasks, locks) == (lapsed, kept), f"at {now} {tasks} have lapsed, and {locks} are held")

    def test_cancellation_is_requested_of_running_tasks_only(self) -> None:
        """Only a running task can be canceled; the request survives a retry, until the task comes to rest."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1, canceling=True)], 1.0, _ACTOR)
        new = storage.get("a")
        require(new is not None and not new.canceling, "a new task has no request, even if its producer says so")
        require(not storage.cancel("a") and not storage.cancel("?"), "a waiting or missing task cannot be canceled")
        for trigger, left in (FAIL, True), (COMPLETE, False):
            _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(task)
            require(storage.cancel("a") and storage.cancel("a"), "a running task can be canceled, once or twice")
            asked = storage.canceling(["w", "other"]), storage.canceling(["other"]), storage.canceling(())
            require(asked == (["a"], [], []), f"only its own worker sees the request: {asked}")
            task.canceling = False  # its copy may be older than the request
            done = policies.settle(task, Outcome(trigger), 3.0, worker="w")
            require(
                storage.exchange([Settlement(task, done)], None)[0] == [True],
                f"{trigger} is accepted with a request, too",
            )
            known = storage.get("a")
            kept = known is not None and known.canceling
            require(kept is left, f"cancellation requested after {trigger}: {kept}, not {left}")
            require(storage.canceling(["w"]) == [], "the task does not run")
        require(not storage.cancel("a"), "a complete task cannot be canceled")

    def test_recovery_honors_a_requested_cancellation(self) -> None:
        """A task with a requested cancellation is canceled when its lease lapses; its locks are free."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1)], 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        storage.lock(Lock("L", "x", 99.0, "w", "a"), 2.0)
        storage.cancel("a")
        moves = [(task.id, *move.path) for task, move in storage.recover(12.0, _ACTOR)]
        require(moves == [("a", CANCEL)], f"the task is canceled, not {moves}")
        known = storage.get("a")
        require(known is not None and not known.canceling, "the request is fulfilled")
        require(storage.locks(12.0) == [], "its locks are free")

    def test_held_task_is_released_once(self) -> None:
        """A held waiting task is released once; a running task is never released."""
        storage = self.opened()
        task = Task("a", "add", retries=1)
        [first_move] = storage.enqueue([task], 1.0, Actor("producer", 9.0))
        first_move.apply(task)
        freed = [storage.release([task], 1.0) for _ in range(2)]
        require(freed == [[True], [False]], f"a waiting task is released once, not {freed}")
        _, [(running, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(running)
        require(storage.release([running], 2.0) == [False], "a running task is not released")
        known = storage.get("a")
        require(known is not None and known.lease == running.lease, "a running task keeps its lease")
        move = policies.settle(running, Outcome(FAIL), 3.0, worker="w", hold_until=9.0)
        storage.exchange([Settlement(running, move)], None)
        move.apply(running)
        freed = [storage.release([known], 3.0) for known in (task, running)]
        require(freed == [[False], [True]], f"an old copy releases no later hold: {freed}")

    def test_prune_deletes_only_tasks_at_rest(self) -> None:
        """Only tasks at rest since before the given time are deleted; waiting and running tasks never are."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add") for task_id in "abc"], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=2))
        task, move = claims[0]
        move.apply(task)
        storage.exchange([Settlement(task, policies.settle(task, Outcome(COMPLETE), 3.0, worker="w"))], None)
        for before, gone, left in (3.0, 0, "cba"), (99.0, 1, "cb"), (99.0, 0, "cb"):
            deleted = storage.prune(before)
            there = "".join(task.id for task in storage.tasks())
            require(
                (deleted, there) == (gone, left), f"before {before} {deleted} are deleted, {there} left, not {left}"
            )

    def test_prune_takes_tasks_of_the_given_states(self) -> None:
        """With states only tasks that rest in one of them are deleted, oldest first, up to the limit."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add" if task_id in "ace" else "mul") for task_id in "abcdef"], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=5))
        triggers, moments = (COMPLETE, FAIL, FAIL, TIME_OUT, COMPLETE), (3.0, 6.0, 5.0, 4.0, 7.0)
        for (task, move), trigger, now in zip(claims, triggers, moments, strict=True):
            move.apply(task)
            end = policies.settle(task, Outcome(trigger), now, worker="w")
            storage.exchange([Settlement(task, end)], None)
        failed = [LIFECYCLE.next(EXECUTING, trigger).name for trigger in (FAIL, TIME_OUT)]
        for before, limit, states, left in (
            (99.0, 9, [QUEUED.name, EXECUTING.name], "fedcba"),
            (99.0, 9, [], "fedcba"),
            (4.0, 9, failed, "fedcba"),
            (99.0, 2, failed, "feba"),
            (99.0, 9, failed[:1], "fea"),
            (99.0, 9, None, "f"),
        ):
            gone, there = storage.prune(before, limit, states), "".join(task.id for task in storage.tasks())
            require(there == left, f"{gone} are deleted of states {states}, {there} left, not {left}")

    def test_revoked_task_is_not_restored(self) -> None:
        """A revocation of a waiting task can be removed; a task that is already revoked cannot be restored."""
        storage = self.opened()
        target = RevocationTarget(function=False, key="a")
        storage.revoke(target, Revocation(), 1.0)
        require(storage.restore(target, 1.0), "a revocation can be removed before the task exists")
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        storage.revoke(target, Revocation(), 1.0)
        require(storage.restore(target, 1.0), "a revocation can be removed while the task waits")
        storage.revoke(target, Revocation(), 1.0)
        storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        require(not storage.restore(target, 2.0), "a revoked task is not restored")
        storage.revoke(target, Revocation(), 3.0)
        require(
            not storage.restore(target, 3.0) and storage.revocation(target) is None,
            "a second revocation changes nothing",
        )

    def test_outcome_of_a_deleted_task_settles_no_other(self) -> None:
        """The outcome of a deleted task does not settle a new task with the same id."""
        storage = self.opened()
        copies = []
        for _ in range(2):
            storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
            _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(task)
            copies.append(copy(task))
            end = Settlement(copy(copies[0]), policies.settle(task, Outcome(COMPLETE), 3.0, worker="w"))
            took, _ = storage.exchange([end], None)
            require(took == [task.seq == copies[0].seq], f"outcome of the deleted task: accepted is {took}")
            storage.prune(4.0)
        known = storage.get("a")
        require(known is not None and fields(known) == fields(copies[1]), "the new task with its id still runs")

    def test_waiters_are_woken(self) -> None:
        """A thread that waits for work, or for an outcome, is woken by a call of another thread."""
        storage = self.opened()
        task = Task("a", "add")

        def settle() -> None:
            _, [(started, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(started)
            done = policies.settle(started, Outcome(COMPLETE), 3.0, worker="w")
            storage.exchange([Settlement(started, done)], None)

        self._check_wakes(storage, Channel.WORK, lambda: storage.enqueue([task], 1.0, _ACTOR))
        self._check_wakes(storage, Channel.OUTCOME, settle)
        for channel in Channel:
            self._check_wakes(storage, channel, storage.wake)
            self._check_wakes(storage, channel, storage.flush)

    def _check_wakes(self, storage: Storage, channel: Channel, act: Callable[[], object]) -> None:
        before = storage.generation(channel)
        woken = threading.Event()

        def wait() -> None:
            while not woken.is_set():
                storage.wait(channel, before, _WAKE_TIMEOUT_SECONDS)
                if storage.generation(channel) != before:
                    woken.set()

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        act()
        require(woken.wait(_WAKE_TIMEOUT_SECONDS), f"a waiter for {channel.name} was not woken")
        waiter.join()

    def test_closed_store_refuses_every_call(self) -> None:
        """After `close`, even twice, each call raises `StorageError`, `wait` too."""
        storage = self.opened()
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        storage.close()
        storage.close()
        for call in _calls(storage):
            self.assertRaises(StorageError, call)  # noqa: PT027 -- unittest runs it, too


def _calls(storage: Storage) -> Iterator[Callable[[], object]]:
    """Yield a call of each method of a store."""
    target = RevocationTarget(function=False, key="a")
    yield lambda: storage.enqueue([Task("b", "add")], 1.0, _ACTOR)
    yield lambda: storage.exchange((), ClaimRequest("w", 1.0, 10.0))
    yield lambda: storage.release([Task("a", "add")], 1.0)
    yield lambda: storage.extend(["w"], 1.0)
    yield lambda: storage.recover(1.0, _ACTOR)
    yield lambda: storage.cancel("a")
    yield lambda: storage.canceling(["w"])
    yield lambda: storage.revoke(target, Revocation(), 1.0)
    yield lambda: storage.restore(target, 1.0)
    yield lambda: storage.revocation(target)
    yield lambda: storage.lock(Lock("L", "x", 9.0), 1.0)
    yield lambda: storage.unlock("L", "x")
    yield lambda: storage.locks(1.0)
    yield storage.flush_locks
    yield lambda: storage.get("a")
    yield lambda: storage.history("a")
    yield lambda: storage.status("a")
    yield lambda: storage.statuses(["a"])
    yield lambda: storage.find_ids("a")
    yield storage.counts
    yield storage.tasks
    yield storage.next_due
    yield lambda: storage.prune(9.0)
    yield storage.flush
    yield lambda: storage.wait(Channel.WORK, storage.generation(Channel.WORK), _WAKE_TIMEOUT_SECONDS)


class SpecTestCase:
    """A descriptor that makes one test case for each machine class, so that its ``settings`` can be changed."""

    __test__ = False

    def __init__(self) -> None:
        self._made: dict[type[AdapterAgreement], type[StorageCases]] = {}

    def __get__(self, machine: AdapterAgreement | None, spec: type[AdapterAgreement]) -> type[StorageCases]:
        if spec not in self._made:
            # Made at first use, so that the loaded Hypothesis profile applies.
            chosen = settings(
                deadline=None, max_examples=200, stateful_step_count=50, suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,  # the first is reported sooner
            )  # fmt: skip
            namespace = {"spec": spec, "settings": chosen, "__module__": spec.__module__, "__doc__": spec.__doc__}
            self._made[spec] = type(f"{spec.__name__}.TestCase", (StorageCases,), namespace)
        return self._made[spec]
