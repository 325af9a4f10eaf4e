"""The tests of `StorageSpec.TestCase` that are about workflows: tasks that wait for others."""

from typing import Final

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.step import Step, Verdict
from lifecycle.core.table import COMPLETE, ENQUEUE, EXPIRE, FAIL, LIFECYCLE, PENDING, REVOKE, SCHEDULE, SKIP, START
from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, Channel, Claim, ClaimRequest, RevocationTarget, Settlement, Storage
from lifecycle.testing.storage_spec.invariants import require
from lifecycle.testing.storage_spec.periodic_cases import PeriodicCases

__all__ = ["WorkflowCases"]

_ACTOR: Final = Actor("producer")
_MEMBER_COUNT: Final = 300
_RUN: Final = (ENQUEUE, START)


def _waiting(task_id: str, *after: str, on_failure: bool = False, dependents: tuple[str, ...] = ()) -> Task:
    """Return a task that waits for others."""
    return Task(task_id, "add", step=Step(None, len(after), dependents, on_failure, None, after))


def _first(task_id: str, *dependents: str) -> Task:
    """Return a task for which others wait."""
    return Task(task_id, "add", step=Step(dependents=dependents))


def _claim(storage: Storage, now: float, limit: int = 9, skip_names: frozenset[str] = frozenset()) -> list[Claim]:
    return storage.exchange((), ClaimRequest("w", now, 10.0, limit=limit, skip_names=skip_names))[1]


def _end(storage: Storage, claim: Claim, trigger: str, now: float) -> bool:
    """Settle a started task; return whether the store accepted that."""
    task = claim.after()
    accepted, _ = storage.exchange([Settlement(task, policies.settle(task, Outcome(trigger), now, worker="w"))], None)
    return accepted[0]


def _paths(claims: list[Claim]) -> list[tuple[str, tuple[str, ...]]]:
    return [(task.id, move.path) for task, move in claims]


class WorkflowCases(PeriodicCases):
    """The tests of workflows that every adapter passes."""

    def test_last_end_decides(self) -> None:
        """A task runs after the last of the tasks before it is complete: enqueued and started in one move."""
        storage = self.opened()
        storage.enqueue([_waiting("c", "a", "b"), _first("a", "c"), _first("b", "c")], 1.0, _ACTOR)
        require(storage.counts().get(PENDING.name) == 1, f"there are {storage.counts()}")
        claims = _claim(storage, 2.0)
        require(_paths(claims) == [("a", (START,)), ("b", (START,))], f"the first claim is {_paths(claims)}")
        for number, claim in enumerate(claims):
            require(_claim(storage, 3.0) == [], "a task is claimed before those that it waits for have ended")
            require(_end(storage, claim, COMPLETE, 3.0 + number), "the end is refused")
        [(task, move)] = _claim(storage, 5.0)
        verdict = None if task.step is None else task.step.verdict
        require(verdict == Verdict(ENQUEUE, "b", 4.0), f"the verdict is {verdict}")
        shown = task.id, move.path, move.version, move.attempt
        require(shown == ("c", _RUN, 3, 1), f"the claim is {shown}")
        states = [record.state for record in storage.history("c") or ()]
        wanted = [PENDING.name, *(state.name for state in LIFECYCLE.walk(PENDING, _RUN))]
        require(states == wanted, f"the history is {states}")

    def test_first_failure_decides(self) -> None:
        """The first end that is no completion decides, and no later end: steps are skipped, error callbacks run."""
        storage = self.opened()
        tasks = [_first("a", "c", "h"), _first("b", "c", "h"), _waiting("c", "a", "b", dependents=("d",))]
        tasks += [_waiting("h", "a", "b", on_failure=True), _waiting("d", "c")]
        storage.enqueue(tasks, 1.0, _ACTOR)
        first, second = _claim(storage, 2.0)
        _end(storage, first, FAIL, 3.0)
        claims = _claim(storage, 4.0)
        wanted = [("c", (SKIP,)), ("d", (SKIP,)), ("h", _RUN)]
        require(_paths(claims) == wanted, f"the claims are {_paths(claims)}, not {wanted}")
        for task_id, trigger, at in ("c", SKIP, 3.0), ("h", ENQUEUE, 3.0), ("d", SKIP, 4.0):
            self._require_verdict(storage, task_id, Verdict(trigger, "a", at))
        _end(storage, second, COMPLETE, 5.0)
        require(_claim(storage, 6.0) == [], "a later end decides again")
        self._require_verdict(storage, "c", Verdict(SKIP, "a", 3.0))

    def test_verdict_stays_and_waits_for_the_release(self) -> None:
        """A verdict about a held task is applied after its release; a retry of the cause changes no verdict."""
        storage = self.opened()
        tasks = [_first("a", "b"), _waiting("b", "a")]
        for task, move in zip(tasks, storage.enqueue(tasks, 1.0, Actor("producer", 99.0)), strict=True):
            move.apply(task)
        storage.release(tasks[:1], 1.0)
        for now, trigger in (2.0, FAIL), (4.0, FAIL), (6.0, COMPLETE):
            [claim] = _claim(storage, now)
            require(claim.task.id == "a", f"{claim.task} is claimed, but is held")
            _end(storage, claim, trigger, now + 1)
            self._require_verdict(storage, "b", Verdict(SKIP, "a", 3.0))
            known = storage.get("a")
            if known is not None and trigger == FAIL:
                storage.exchange([Settlement(known, policies.retry(known, now + 1, worker="operator"))], None)
        require(storage.release(tasks[1:], 8.0) == [True], "a verdict changes the fence of a held task")
        require(_paths(_claim(storage, 8.0)) == [("b", (SKIP,))], "a released task is not skipped")

    def test_refused_outcome_reports_nothing(self) -> None:
        """Only the accepted outcome of a task is counted, and once, also if it is settled twice in one call."""
        storage = self.opened()
        tasks = [_first("a", "c"), _first("b", "c"), _waiting("c", "a", "b"), _waiting("d", "e"), _first("e", "d")]
        storage.enqueue(tasks, 1.0, _ACTOR)
        late, other, _ = _claim(storage, 2.0)
        storage.recover(12.0, _ACTOR)
        again = _claim(storage, 12.0)
        require([task.id for task, _ in again] == ["a", "b", "e"], f"the claims are {_paths(again)}")
        for claim in late, other:
            require(not _end(storage, claim, FAIL, 13.0), "an outcome of a lost attempt is accepted")
        task = again[0].after()
        done = Settlement(task, policies.settle(task, Outcome(COMPLETE), 14.0, worker="w"))
        accepted, claims = storage.exchange([done, done], ClaimRequest("w", 14.0, 10.0))
        require((accepted, claims) == ([True, False], []), f"accepted are {accepted}, claimed {_paths(claims)}")
        _end(storage, again[1], COMPLETE, 15.0)
        require(_paths(_claim(storage, 15.0)) == [("c", _RUN)], "the last end does not decide")
        self._require_verdict(storage, "c", Verdict(ENQUEUE, "b", 15.0))

    def test_every_end_reports(self) -> None:
        """Recovery, cancellation, revocation and expiry bring tasks to rest, too: those that wait are skipped."""
        storage = self.opened()
        for number, id_ in enumerate("abcd"):
            first = _first(id_, f"after {id_}")
            first.expires = 20.0 if id_ == "d" else None
            storage.enqueue([first, _waiting(f"after {id_}", id_)], 1.0, _ACTOR)
            if number < 2:  # noqa: PLR2004 -- two run, and are recovered
                _claim(storage, 2.0)
        storage.cancel("b")
        storage.recover(12.0, _ACTOR, max_interruptions=0)
        storage.revoke(RevocationTarget(function=False, key="c"), Revocation(), 13.0)
        claims = _claim(storage, 20.0)
        wanted = [("c", (REVOKE,)), ("after a", (SKIP,)), ("after b", (SKIP,)), ("after c", (SKIP,)), ("d", (EXPIRE,))]
        require(sorted(_paths(claims)) == sorted([*wanted, ("after d", (SKIP,))]), f"the claims are {_paths(claims)}")
        for id_, at in ("a", 12.0), ("b", 12.0), ("c", 20.0), ("d", 20.0):
            self._require_verdict(storage, f"after {id_}", Verdict(SKIP, id_, at))

    def test_task_that_is_decided_passes_the_other_guards(self) -> None:
        """After its verdict a task waits for its ETA, expires, or is revoked with its function, as any other task."""
        storage = self.opened()
        after = [_waiting(id_, "a") for id_ in ("early", "late", "stopped", "run")]
        after[0].eta, after[1].expires, after[2].name = 50.0, 4.0, "mul"
        storage.enqueue([_first("a", *(task.id for task in after)), *after], 1.0, _ACTOR)
        storage.revoke(RevocationTarget(function=True, key="mul"), Revocation(), 1.0)
        [claim] = _claim(storage, 2.0)
        _end(storage, claim, COMPLETE, 3.0)
        claims = _claim(storage, 4.0)
        wanted = [("early", (SCHEDULE,)), ("late", (EXPIRE,)), ("stopped", (REVOKE,)), ("run", _RUN)]
        require(_paths(claims) == wanted, f"the claims are {_paths(claims)}, not {wanted}")
        require(_claim(storage, 49.0) == [], "a task is started before its ETA")
        require(_paths(_claim(storage, 50.0)) == [("early", (START,))], "a task is not started at its ETA")

    def test_waiting_task_ends_early(self) -> None:
        """Before its verdict a task ends at its expiry, or if it is revoked for good; a shorter revocation is kept."""
        storage = self.opened()
        after = [_waiting(id_, "a") for id_ in ("for good", "for a while", "late")]
        after[2].expires = 9.0
        storage.enqueue([_first("a", *(task.id for task in after)), *after], 1.0, _ACTOR)
        [claim] = _claim(storage, 2.0)
        for id_, until in ("for good", None), ("for a while", 20.0):
            storage.revoke(RevocationTarget(function=False, key=id_), Revocation(until), 2.0)
        require(_paths(_claim(storage, 8.0)) == [("for good", (REVOKE,))], "the revoked task has not ended")
        require(_paths(_claim(storage, 9.0)) == [("late", (EXPIRE,))], "the expired task has not ended")
        _end(storage, claim, COMPLETE, 10.0)
        require(_paths(_claim(storage, 10.0)) == [("for a while", (REVOKE,))], "the revocation does not hold")
        for id_ in "for good", "late":
            task = storage.get(id_)
            verdict = None if task is None or task.step is None else task.step.verdict
            require(verdict is None, f"the ended task {id_!r} has the verdict {verdict}")

    def test_skipped_functions_do_not_keep_a_step_from_its_end(self) -> None:
        """A claim with functions to skip skips steps of these functions, and leaves steps to run to other workers."""
        storage, skip = self.opened(), frozenset(("add",))
        first = _first("a", "c", "h")
        first.name = "mul"
        storage.enqueue([first, _waiting("c", "a"), _waiting("h", "a", on_failure=True)], 1.0, _ACTOR)
        [claim] = _claim(storage, 2.0, skip_names=skip)
        _end(storage, claim, COMPLETE, 3.0)
        require(_paths(_claim(storage, 4.0, skip_names=skip)) == [("h", (SKIP,))], "the error callback is not skipped")
        require(_paths(_claim(storage, 4.0)) == [("c", _RUN)], "the step is lost")

    def test_step_goes_by_priority_and_age(self) -> None:
        """A decided task is claimed by its priority and its age, as if it had been queued from the start."""
        storage = self.opened()
        tasks = [_first("a", "b", "c"), _waiting("b", "a"), _waiting("c", "a"), Task("d", "add"), Task("e", "add")]
        tasks[2].priority = tasks[4].priority = 1
        storage.enqueue(tasks, 1.0, _ACTOR)
        order = []
        for _ in range(5):
            [claim] = _claim(storage, 2.0, limit=1)
            order.append(claim.task.id)
            _end(storage, claim, COMPLETE, 2.0)
        require(order == ["e", "a", "c", "b", "d"], f"the order is {order}")

    def test_many_tasks_report_to_one(self) -> None:
        """The last of many ends decides, settled in portions of any size, and wakes a waiter for work."""
        storage = self.opened()
        ids = [f"m{number}" for number in range(_MEMBER_COUNT)]
        storage.enqueue([_waiting("c", *ids), *(_first(id_, "c") for id_ in ids)], 1.0, _ACTOR)
        done = []
        for task, move in _claim(storage, 2.0, limit=_MEMBER_COUNT):
            move.apply(task)
            done.append(Settlement(task, policies.settle(task, Outcome(COMPLETE), 3.0, worker="w")))
        for portion in done[:100], done[100:101], done[101:-1]:
            storage.exchange(portion, None)
        require(_claim(storage, 4.0) == [], "the task is claimed before the last end")
        before = storage.generation(Channel.WORK)
        storage.exchange(done[-1:], None)
        require(storage.generation(Channel.WORK) != before, "the last end wakes no waiter for work")
        require(_paths(_claim(storage, 4.0)) == [("c", _RUN)], "the task is not claimed after the last end")
        require(_claim(storage, 4.0) == [], "the task is claimed twice")

    def test_id_of_a_deleted_step_is_used_again(self) -> None:
        """A step with the id of a deleted one counts anew, whether that was flushed, or pruned without a verdict."""
        storage = self.opened()
        for flushes in False, True:
            tasks = [_first("a", "c"), _first("b", "c"), _waiting("c", "a", "b")]
            tasks[2].expires = 4.0
            storage.enqueue(tasks, 1.0, _ACTOR)
            first, second = _claim(storage, 2.0)
            _end(storage, first, COMPLETE, 3.0)
            if flushes:
                storage.flush()
            else:
                require(_paths(_claim(storage, 4.0)) == [("c", (EXPIRE,))], "the step does not expire")
                _end(storage, second, COMPLETE, 5.0)
                require(storage.prune(9.0) == len(tasks), "some are left")
        tasks = [_first("a", "c"), _first("b", "c"), _waiting("c", "a", "b")]
        storage.enqueue(tasks, 1.0, _ACTOR)
        for number, claim in enumerate(_claim(storage, 2.0)):
            require(_claim(storage, 3.0) == [], f"{number} of two ends decide")
            _end(storage, claim, COMPLETE, 3.0)
        require(_paths(_claim(storage, 4.0)) == [("c", _RUN)], "the step is not started")

    def _require_verdict(self, storage: Storage, task_id: str, wanted: Verdict) -> None:
        task = storage.get(task_id)
        verdict = None if task is None or task.step is None else task.step.verdict
        require(verdict == wanted, f"the verdict about {task_id} is {verdict}, not {wanted}")
