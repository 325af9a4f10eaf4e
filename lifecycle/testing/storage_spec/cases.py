"""The tests that `StorageSpec.TestCase` consists of."""

import threading
from collections.abc import Callable, Iterator
from copy import copy
from typing import ClassVar, Final

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LIFECYCLE
from lifecycle.core.task import Task
from lifecycle.errors import StorageError
from lifecycle.storage.base import Actor, Channel, ClaimRequest, Lock, RevocationTarget, Settlement, Storage
from lifecycle.testing.storage_spec.agreement import AdapterAgreement
from lifecycle.testing.storage_spec.claim_order_cases import ClaimOrderCases
from lifecycle.testing.storage_spec.invariants import demand
from lifecycle.testing.storage_spec.reference_storage import fields

__all__ = ["StorageCases", "TestCaseOf"]

_PATIENCE: Final = 60.0
"""Seconds after which a waiter that should have been woken is taken for one that sleeps on."""
_ACTOR: Final = Actor("producer")
_SHORT: Final = (5, 15)
"""Steps in a run."""


class StorageCases(ClaimOrderCases):
    """What holds for each adapter."""

    settings: ClassVar[settings]

    def test_adapter_and_model_agree(self) -> None:
        """Whatever is asked of adapter and model, in whatever order, they show the same, and the law is kept."""
        how = self.settings
        # Short runs first: what they show is told in few steps, which a long run's counterexample is hardly shrunk to.
        for steps in (*(n for n in _SHORT if n < how.stateful_step_count), how.stateful_step_count):
            run_state_machine_as_test(self.spec, settings=settings(how, stateful_step_count=steps))

    def test_every_transition_was_taken(self) -> None:
        """Tasks go through each row of the table, and attempts end in each way there is: no matter of luck."""
        machine = self.spec()
        try:
            machine.take_every_transition()
        finally:
            machine.teardown()
        missing = self.spec.missing()
        demand(not missing, "no run has come to: " + "; ".join(missing))

    def test_a_late_outcome(self) -> None:
        """The outcome of an attempt that was given up is refused once there is another, be it of the same worker."""
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
                demand(took == [accepted], f"of {worker}: accepted is {took}")

    def test_a_lock_at_its_end(self) -> None:
        """A lock is free from the moment on that was said, not before; who had it then has it no more."""
        storage = self.opened()
        demand(storage.lock(Lock("L", "x", 5.0), 1.0), "it is free")
        demand(not storage.lock(Lock("L", "y", 9.0), 4.5), "it is taken")
        demand(storage.locks(4.5) == [Lock("L", "x", 5.0)] and storage.locks(5.0) == [], "it ends at 5")
        demand(storage.lock(Lock("L", "y", 9.0), 5.0), "it is free again")
        demand(not storage.unlock("L", "x") and storage.unlock("L", "y"), "only its owner gives it back")

    def test_locks_of_an_attempt(self) -> None:
        """An interruption frees the locks that were taken in that attempt, and no others; another end frees none."""
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
            demand(names == left, f"{left} are taken after {trigger}, not {names}")

    def test_an_outcome_of_another_worker(self) -> None:
        """Every part of the fence counts: a store that was set back may give one version out to two workers."""
        storage = self.opened()
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(task)
        end = policies.settle(task, Outcome(COMPLETE), 3.0, worker="w")
        for name, value in ("worker", "the other"), ("state", LIFECYCLE.initial.name), ("version", 1), ("seq", 10**9):
            other = copy(task)
            setattr(other, name, value)
            took, _ = storage.exchange([Settlement(other, end)], None)
            demand(took == [False], f"an outcome with {name}={value!r} is refused")
        took, _ = storage.exchange([Settlement(task, end)], None)
        demand(took == [True], "it is still its own worker's")

    def test_two_moves_of_one_task(self) -> None:
        """Of two moves of one task in one call the second is made as well, if it follows from the first."""
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
        demand((took, version) == ([True, True], later.version + 2), f"accepted are {took}, the version is {version}")

    def test_what_a_heartbeat_changes(self) -> None:
        """A heartbeat prolongs the leases of its workers, and changes nothing else: their outcomes are accepted."""
        storage = self.opened()
        storage.enqueue([Task("a", "add"), Task("b", "add")], 1.0, _ACTOR)
        started = [storage.exchange((), ClaimRequest(worker, 2.0, 10.0))[1][0] for worker in ("w", "other")]
        demand(storage.extend(["w"], 50.0) == 1, "one task is prolonged")
        shown = [(task.lease, task.version) for task in map(storage.get, "ab") if task is not None]
        demand(shown == [(50.0, 2), (12.0, 2)], f"leases and versions are {shown} after a heartbeat")
        for task, move in started:
            move.apply(task)
            end = policies.settle(task, Outcome(COMPLETE), 3.0, worker=str(task.worker))
            took, _ = storage.exchange([Settlement(task, end)], None)
            demand(took == [True], f"the outcome of {task} is refused after a heartbeat")

    def test_what_a_heartbeat_keeps(self) -> None:
        """A heartbeat keeps the tasks and the locks of its workers, until the moment it says, and nobody else's."""
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
            demand((tasks, locks) == (lapsed, kept), f"at {now} {tasks} have lapsed, and {locks} are taken")

    def test_what_is_to_be_called_off(self) -> None:
        """Only a running task can be called off; it stays so over a retry, and until it comes to rest."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1, canceling=True)], 1.0, _ACTOR)
        new = storage.get("a")
        demand(new is not None and not new.canceling, "nobody has called off what is new, whoever enqueues it says")
        demand(not storage.cancel("a") and not storage.cancel("?"), "a task that waits, or is not there, cannot be")
        for trigger, left in (FAIL, True), (COMPLETE, False):
            _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(task)
            demand(storage.cancel("a") and storage.cancel("a"), "a running task is, once or twice")
            asked = storage.canceling(["w", "other"]), storage.canceling(["other"]), storage.canceling(())
            demand(asked == (["a"], [], []), f"its own worker is told, and no other: {asked}")
            task.canceling = False  # it may not know
            done = policies.settle(task, Outcome(trigger), 3.0, worker="w")
            demand(storage.exchange([Settlement(task, done)], None)[0] == [True], f"{trigger} is accepted all the same")
            known = storage.get("a")
            kept = known is not None and known.canceling
            demand(kept is left, f"to be called off after {trigger}: {kept}, not {left}")
            demand(storage.canceling(["w"]) == [], "it does not run")
        demand(not storage.cancel("a"), "what is complete stays so")

    def test_called_off_when_its_worker_is_gone(self) -> None:
        """A task that was to be called off, and whose worker is gone, is canceled; its locks are free."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1)], 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        storage.lock(Lock("L", "x", 99.0, "w", "a"), 2.0)
        storage.cancel("a")
        moves = [(task.id, *move.path) for task, move in storage.recover(12.0, _ACTOR)]
        demand(moves == [("a", CANCEL)], f"it is canceled, not {moves}")
        known = storage.get("a")
        demand(known is not None and not known.canceling, "nothing is left to be called off")
        demand(storage.locks(12.0) == [], "its locks are free")

    def test_what_can_be_released(self) -> None:
        """What is held to be announced is let go once; what runs stays its worker's, whoever asks for it."""
        storage = self.opened()
        task = Task("a", "add", retries=1)
        [birth] = storage.enqueue([task], 1.0, Actor("producer", 9.0))
        birth.apply(task)
        freed = [storage.release([task], 1.0) for _ in range(2)]
        demand(freed == [[True], [False]], f"a waiting task is let go once, not {freed}")
        _, [(running, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(running)
        demand(storage.release([running], 2.0) == [False], "a running task cannot be let go")
        known = storage.get("a")
        demand(known is not None and known.lease == running.lease, "a running task keeps its lease")
        move = policies.settle(running, Outcome(FAIL), 3.0, worker="w", hold_until=9.0)
        storage.exchange([Settlement(running, move)], None)
        move.apply(running)
        freed = [storage.release([known], 3.0) for known in (task, running)]
        demand(freed == [[False], [True]], f"who let it go before does not hold it now: {freed}")

    def test_what_is_deleted(self) -> None:
        """Only what came to rest before the moment given is deleted: not what waits or runs, however old it is."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add") for task_id in "abc"], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=2))
        task, move = claims[0]
        move.apply(task)
        storage.exchange([Settlement(task, policies.settle(task, Outcome(COMPLETE), 3.0, worker="w"))], None)
        for before, gone, left in (3.0, 0, "cba"), (99.0, 1, "cb"), (99.0, 0, "cb"):
            deleted = storage.prune(before)
            there = "".join(task.id for task in storage.tasks())
            demand((deleted, there) == (gone, left), f"before {before} {deleted} are deleted, {there} left, not {left}")

    def test_revoked_for_good(self) -> None:
        """What is said about a task that is revoked already can be unsaid, but that does not restore it."""
        storage = self.opened()
        target = RevocationTarget(function=False, key="a")
        storage.revoke(target, Revocation(), 1.0)
        demand(storage.restore(target, 1.0), "it can be taken back before there is a task")
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        storage.revoke(target, Revocation(), 1.0)
        demand(storage.restore(target, 1.0), "it can be taken back while the task waits")
        storage.revoke(target, Revocation(), 1.0)
        storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        demand(not storage.restore(target, 2.0), "it has come true")
        storage.revoke(target, Revocation(), 3.0)
        demand(not storage.restore(target, 3.0) and storage.revocation(target) is None, "it was said in vain")

    def test_an_outcome_of_one_that_is_gone(self) -> None:
        """An outcome of a task that is gone settles none that bears its id now, however alike the two are."""
        storage = self.opened()
        copies = []
        for _ in range(2):
            storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
            _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(task)
            copies.append(copy(task))
            end = Settlement(copy(copies[0]), policies.settle(task, Outcome(COMPLETE), 3.0, worker="w"))
            took, _ = storage.exchange([end], None)
            demand(took == [task.seq == copies[0].seq], f"of the task that is gone: accepted is {took}")
            storage.prune(4.0)
        known = storage.get("a")
        demand(known is not None and fields(known) == fields(copies[1]), "the task that bears its id now still runs")

    def test_waiters_are_woken(self) -> None:
        """Whoever waits for work, or for an outcome, is woken by what another thread does."""
        storage = self.opened()
        task = Task("a", "add")

        def settle() -> None:
            _, [(started, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
            move.apply(started)
            done = policies.settle(started, Outcome(COMPLETE), 3.0, worker="w")
            storage.exchange([Settlement(started, done)], None)

        self._wakes(storage, Channel.WORK, lambda: storage.enqueue([task], 1.0, _ACTOR))
        self._wakes(storage, Channel.OUTCOME, settle)
        for channel in Channel:
            self._wakes(storage, channel, storage.wake)
            self._wakes(storage, channel, storage.flush)

    def _wakes(self, storage: Storage, channel: Channel, act: Callable[[], object]) -> None:
        before = storage.generation(channel)
        woken = threading.Event()

        def wait() -> None:
            while not woken.is_set():
                storage.wait(channel, before, _PATIENCE)
                if storage.generation(channel) != before:
                    woken.set()

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        act()
        demand(woken.wait(_PATIENCE), f"who waits for {channel.name} sleeps on")
        waiter.join()

    def test_closed_for_good(self) -> None:
        """A closed store answers each call with `StorageError`, as often as it is closed, and no wait goes on."""
        storage = self.opened()
        storage.enqueue([Task("a", "add")], 1.0, _ACTOR)
        storage.close()
        storage.close()
        for call in _calls(storage):
            self.assertRaises(StorageError, call)  # noqa: PT027 -- not everybody has pytest


def _calls(storage: Storage) -> Iterator[Callable[[], object]]:
    """Everything that one can ask of a store."""
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
    yield storage.counts
    yield storage.tasks
    yield storage.next_due
    yield lambda: storage.prune(9.0)
    yield storage.flush
    yield lambda: storage.wait(Channel.WORK, storage.generation(Channel.WORK), _PATIENCE)


class TestCaseOf:
    """Makes the test case of a machine's class: one for each, so that its ``settings`` can be changed."""

    __test__ = False

    def __init__(self) -> None:
        self._made: dict[type[AdapterAgreement], type[StorageCases]] = {}

    def __get__(self, machine: AdapterAgreement | None, spec: type[AdapterAgreement]) -> type[StorageCases]:
        if spec not in self._made:
            # Made late, so that Hypothesis's profile is the one that counts.
            chosen = settings(
                deadline=None, max_examples=200, stateful_step_count=50, suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,  # the first is told sooner
            )  # fmt: skip
            body = {"spec": spec, "settings": chosen, "__module__": spec.__module__, "__doc__": spec.__doc__}
            self._made[spec] = type(f"{spec.__name__}.TestCase", (StorageCases,), body)
        return self._made[spec]
