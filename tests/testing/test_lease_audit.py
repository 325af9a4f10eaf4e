"""The lease audit of a simulated world finds broken leases that histories and signals hardly show."""

import pytest
from support.stores import PRODUCER, settlement

from lifecycle import TaskQueue
from lifecycle.core.table import EXECUTING
from lifecycle.core.task import Task
from lifecycle.execution.engine import Engine
from lifecycle.storage import MemoryStorage
from lifecycle.storage.base import Actor, Claim, ClaimRequest, Settlement
from lifecycle.testing import Violation, World, simulate
from lifecycle.testing.simulation.lease_audit import LeaseAudit

SEEDS = 60
"""Seeds that search for each bug. A comment at each bug names the first seed that found it."""


def refusing(original):
    """Now and then an outcome is refused though its worker holds the task."""
    times = iter(range(10**9))
    return lambda self, task, move: next(times) % 9 != 8 and original(self, task, move)


def silent(original):
    """A recovery is not announced."""

    def recover(self, now=None):
        return len(
            self.storage.recover(self.clock.now(), Actor(self.process_name()), max_interruptions=self.max_interruptions)
        )

    return recover


def generous(original):
    """Now and then a task is given away twice in one claim."""

    def claim(self, claimant):
        claims = original(self, claimant)
        return claims + [one for one in claims[:1] if one.move.lease is not None and claimant.now % 7 < 1]

    return claim


BUGS = {
    "a heartbeat is lost": (MemoryStorage, "extend", lambda original: lambda self, workers, until: 0, "before its lease had lapsed"),  # 2
    "recovered a second early": (
        MemoryStorage, "recover",
        lambda original: lambda self, now, actor, **options: original(self, now + 1, actor, **options), "before its lease had lapsed",
    ),  # 14
    "who holds it is refused": (MemoryStorage, "_settle", refusing, "was refused"),  # 0
    "a fence that looks at the state only": (
        Task, "fence", lambda original: property(lambda self: (self.id, self.state)), "was accepted, but the task is held",
    ),  # 40
    "a recovery is not announced": (Engine, "recover", silent, "(interrupted|canceled) by .* was not announced"),  # 0
    "given to somebody twice": (MemoryStorage, "_claim", generous, "was claimed by"),  # 0
}  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_broken_lease_handling_is_found(monkeypatch, bug):
    """A store or an engine that breaks P1, or leaves out an announcement, is found by one of the first seeds."""
    owner, name, broken, says = BUGS[bug]
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    with pytest.raises(Violation, match=f"(?s)^seed .*{says}"):
        for seed in range(SEEDS):
            simulate(seed, crashes=seed % 2 == 0)


# The account itself ------------------------------------------------------------------------------------------------


class Kept:
    """A store in memory with one running task, and the account of it."""

    def __init__(self):
        self.faults = []
        self.ledger, self.storage = LeaseAudit(self.faults.append), MemoryStorage()
        self.storage.enqueue([Task("a", "add")], 1.0, PRODUCER)
        self.claimed = self.ask("exchange", (), ClaimRequest("w", 5.0, 10.0))[1]
        for task, move in self.claimed:
            move.apply(task)

    def ask(self, call, *arguments):
        answer = getattr(self.storage, call)(*arguments)
        self.ledger.note(call, arguments, answer)
        return answer


def test_correct_store_has_no_fault():
    """A heartbeat, a recovery at the end of a lease, and a late outcome that is refused are no faults."""
    kept = Kept()
    late = settlement(kept.claimed[0].task)
    kept.ask("extend", ["w"], 20.0)
    kept.ask("recover", 19.9, PRODUCER)
    assert kept.storage.get("a").state == EXECUTING
    kept.ask("recover", 20.0, PRODUCER)
    assert kept.ask("exchange", [late], None) == ([False], [])
    _, [(task, move)] = kept.ask("exchange", (), ClaimRequest("v", 21.0, 10.0))
    move.apply(task)
    assert kept.ask("exchange", [settlement(task)], None) == ([True], [])
    assert kept.faults == []


def test_second_accepted_outcome_is_a_fault():
    """A second outcome of the same attempt is a fault if it was accepted, and none if it was refused."""
    kept = Kept()
    done = settlement(kept.claimed[0].task)
    kept.ask("exchange", [done], None)
    kept.ledger.note("exchange", ([done], None), ([False], []))
    assert kept.faults == []
    kept.ledger.note("exchange", ([done], None), ([True], []))
    assert len(kept.faults) == 1


def test_accepted_outcome_of_another_worker_is_a_fault():
    """An outcome of a worker that does not hold the task is a fault if it was accepted."""
    kept = Kept()
    (task, move) = settlement(kept.claimed[0].task)
    move.worker = "v"
    kept.ledger.note("exchange", ([Settlement(task, move)], None), ([False], []))
    assert kept.faults == []
    kept.ledger.note("exchange", ([Settlement(task, move)], None), ([True], []))
    assert "an outcome of v was accepted" in kept.faults[0]


def test_claim_of_a_held_task_is_a_fault():
    """A claim of a task that a worker holds is a fault."""
    kept = Kept()
    [(task, move)] = kept.claimed
    kept.ledger.note("exchange", ((), None), ([], [Claim(task, move)]))
    assert "was claimed by w" in kept.faults[0]


@pytest.mark.parametrize(("now", "faults"), [(14.9, 1), (15.0, 0)])
def test_recovery_before_the_end_of_a_lease_is_a_fault(now, faults):
    """A recovery before the lease has lapsed is a fault."""
    kept = Kept()
    claims = kept.storage.recover(15.0, PRODUCER)
    kept.ledger.note("recover", (now, PRODUCER), claims)
    assert len(kept.faults) == faults


def test_process_in_a_call_longer_than_its_lease_is_disturbed():
    """A process in a call of the store that takes as long as its lease counts as frozen, and another takes over its task."""
    queue = TaskQueue("memory://", lease=30)
    ran = []
    add = queue.task(name="add")(lambda a, b: ran.append(a + b))
    with World(queue) as world:
        add(1, 2)
        slow = world.add_worker("slow")
        slow.step()  # it is about to claim
        world.advance(29)
        assert world.auditor.disturbed == set()
        world.advance(1)
        assert world.auditor.disturbed == {"slow"}
        slow.step()  # it has claimed, for 30 seconds from before
        assert queue.engine.recover() == 1
        slow.step(100)
        world.finish()
        world.audit()
        (signals,) = world.auditor.signals.values()
    assert signals == ["enqueued", "interrupted", "enqueued", "executing", "complete"]
    assert ran == [3]


@pytest.mark.parametrize(("worker", "attempt", "faults"), [("w", 1, 0), ("v", 1, 1), ("w", 2, 1)])
def test_signal_of_another_worker_or_attempt_is_a_fault(worker, attempt, faults):
    """A signal of one worker and attempt does not pass for a signal of another worker or attempt."""
    queue = TaskQueue("memory://", lease=30)
    with World(queue) as world:
        world.auditor.disturbed.add("w")
        queue.task(name="add")(lambda: None)()
        _, [(task, move)] = world.storage.exchange((), ClaimRequest("w", world.clock.now(), 30.0))
        task.state, task.worker, task.attempt = move.state.name, worker, attempt
        world._receive_signal(move.state.signal, task)
        assert len(world.auditor.faults) == faults
