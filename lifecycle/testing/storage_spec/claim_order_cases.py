"""The tests of `StorageSpec.TestCase` that are about order: which tasks a claim, a recovery or a deletion takes."""

import unittest
from typing import ClassVar, Final

from lifecycle.core import policies
from lifecycle.core.policies import Outcome, Revocation
from lifecycle.core.table import COMPLETE, EXPIRE, FAIL, REVOKE, SCHEDULED, START
from lifecycle.core.task import RetryPolicy, Task
from lifecycle.storage.base import PROMOTE_LIMIT, Actor, ClaimRequest, RevocationTarget, Settlement, Storage
from lifecycle.testing.storage_spec.agreement import AdapterAgreement
from lifecycle.testing.storage_spec.invariants import require
from lifecycle.testing.storage_spec.reference_storage import fields

__all__ = ["ClaimOrderCases"]

_ACTOR: Final = Actor("producer")


class ClaimOrderCases(unittest.TestCase):
    """The tests of the order that every adapter keeps."""

    spec: ClassVar[type[AdapterAgreement]]

    def opened(self) -> Storage:
        """Open an empty store, closed after the test."""
        storage = self.spec.open_storage()
        self.addCleanup(storage.close)
        return storage

    def test_claim_promotes_a_limited_number_of_due_tasks(self) -> None:
        """A claim promotes the earliest `PROMOTE_LIMIT` of the due tasks, and the next claim the others."""
        storage = self.opened()
        # The oldest task is due last: it goes first once it is promoted.
        storage.enqueue([Task(str(n), "add", eta=9000.0 - n) for n in range(PROMOTE_LIMIT + 1)], 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=PROMOTE_LIMIT + 1))
        require(storage.counts() == {SCHEDULED.name: PROMOTE_LIMIT + 1}, "all are scheduled")
        for task_id in "1", "0", "2":
            _, [(task, _)] = storage.exchange((), ClaimRequest("w", 9999.0, 10.0))
            require(task.id == task_id, f"task {task_id} is next, not {task.id}")

    def test_claim_leaves_a_task_until_its_eta(self) -> None:
        """A claim just before a task's ETA takes another task, and leaves the due time as it is."""
        storage = self.opened()
        storage.enqueue([Task("soon", "add", eta=8.0), Task("later", "add", eta=9.0)], 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=2))
        storage.enqueue([Task("a", "add", priority=1)], 1.0, _ACTOR)
        for now, task_id, due in (7.5, "a", 8.0), (8.5, "soon", 9.0):
            _, [(task, _)] = storage.exchange((), ClaimRequest("w", now, 10.0))
            shown = task.id, storage.next_due()
            require(shown == (task_id, due), f"{task} was claimed, the next is due at {shown[1]}")

    def test_claim_after_a_clock_step_back_skips_future_tasks(self) -> None:
        """A claim whose clock has stepped back skips promoted tasks that are not due any more, and takes the others."""
        storage = self.opened()
        etas = (30.0, 10.0, 30.0, 30.0, 10.0, 30.0, 10.0, 10.0)
        storage.enqueue([Task(str(n), "add", eta=eta) for n, eta in enumerate(etas)], 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=len(etas)))
        storage.enqueue([Task("first", "add", priority=1)], 1.0, _ACTOR)
        for now, limit, ids in (40.0, 1, ["first"]), (20.0, 2, ["1", "4"]), (20.0, 9, ["6", "7"]), (20.0, 9, []):
            _, claims = storage.exchange((), ClaimRequest("w", now, 10.0, limit=limit))
            found = [task.id for task, _ in claims]
            require(found == ids, f"at {now} {ids} are claimed, not {found}")

    def test_only_batchable_tasks_start_together(self) -> None:
        """Tasks of batchable functions are started together; a task of another function is started alone."""
        storage = self.opened()
        names = {"a": "quick", "b": "quick", "c": "slow", "d": "slow", "e": "quick"}
        storage.enqueue([Task(task_id, name) for task_id, name in names.items()], 1.0, _ACTOR)
        for ids in ["a", "b"], ["c"], ["d"], ["e"], []:
            _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=9, batchable={"quick"}))
            found = [task.id for task, _ in claims]
            require(found == ids, f"{ids} are started together, not {found}")

    def test_skipped_functions_are_left_to_other_workers(self) -> None:
        """A claim passes over the tasks of functions to skip; other claims find them in the order of rank and age."""
        storage, skip = self.opened(), frozenset(("new",))
        names = {"a": "new", "b": "old", "c": "new", "d": "old", "e": "new"}
        tasks = [Task(one, name, priority=int(one == "c")) for one, name in names.items()]
        storage.enqueue(tasks, 1.0, _ACTOR)
        before = list(map(storage.get, "ace"))
        for ids in ["b"], ["d"], []:
            require(storage.next_due(skip) == (float("-inf") if ids else None), f"{ids} are left for the claim")
            _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, skip_names=skip))
            found = [task.id for task, _ in claims]
            require(found == ids, f"{ids} are claimed, not {found}")
        require(
            [fields(task) for task in map(storage.get, "ace") if task] == [fields(task) for task in before if task],
            "a claim changes no task that it passes over",
        )
        require(storage.next_due() == float("-inf"), "other workers find the skipped tasks")
        storage.enqueue([Task("f", "old", priority=1), Task("g", "old")], 3.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 3.0, 10.0, limit=9, skip_names=frozenset(("other",))))
        found = [task.id for task, _ in claims]
        require(found == ["c", "f", "a", "e", "g"], f"the others are claimed by rank and age, not {found}")

    def test_skipped_task_ends_by_expiry_or_revocation(self) -> None:
        """A claim ends tasks that have expired or are revoked themselves, even of a function to skip."""
        storage, skip = self.opened(), frozenset(("new",))
        tasks = [Task(task_id, "new") for task_id in "abcd"]
        tasks[1].expires, tasks[3].eta = 9.0, 4.0
        storage.enqueue(tasks, 1.0, _ACTOR)
        storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=9, skip_names=skip))
        due = storage.next_due(skip)
        require(due == tasks[1].expires, f"the next claim is due at the expiry, not at {due}")
        storage.revoke(RevocationTarget(function=True, key="new"), Revocation(), 2.0)
        storage.revoke(RevocationTarget(function=False, key="c"), Revocation(), 2.0)
        storage.revoke(RevocationTarget(function=False, key="d"), Revocation(until=5.0), 2.0)
        for now, paths in (5.0, [("c", REVOKE)]), (8.0, []), (9.0, [("b", EXPIRE)]), (10.0, []):
            _, claims = storage.exchange((), ClaimRequest("w", now, 10.0, limit=9, skip_names=skip))
            found = [(task.id, *move.path) for task, move in claims]
            require(found == paths, f"at {now} the moves are {paths}, not {found}")
        require(storage.next_due(skip) is None, f"no claim is due, not at {storage.next_due(skip)}")
        _, claims = storage.exchange((), ClaimRequest("w", 11.0, 10.0, limit=9))
        found = [(task.id, *move.path) for task, move in claims]
        require(found == [("a", REVOKE), ("d", REVOKE)], f"a worker that skips nothing ends the others, not {found}")

    def test_skipped_retry_waits_for_its_function(self) -> None:
        """A claim passes over the later attempts of a function to skip, whether or not they have expired."""
        storage, skip = self.opened(), frozenset(("new",))
        policies_of = {
            "a": RetryPolicy(),
            "b": RetryPolicy(expires_after=4.0),
            "c": RetryPolicy(3.0, expires_after=4.0),
        }
        tasks = [Task(one, "new", expires=5.0, retries=1, retry=retry) for one, retry in policies_of.items()]
        storage.enqueue(tasks, 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=3))
        for task, move in claims:
            move.apply(task)
        ends = [Settlement(task, policies.settle(task, Outcome(FAIL), 2.0, worker="w")) for task, _ in claims]
        storage.exchange(ends, None)
        for now in 4.0, 5.0, 6.0, 20.0:
            _, claims = storage.exchange((), ClaimRequest("w", now, 10.0, limit=9, skip_names=skip))
            require(not [move for _, move in claims if START in move.path], f"none starts at {now}")
        due = storage.next_due(skip)
        require(due is None, f"no claim is due, not at {due}")
        _, claims = storage.exchange((), ClaimRequest("w", 20.0, 10.0, limit=9))
        found = [(task.id, *move.path) for task, move in claims]
        require(found == [("a", EXPIRE), ("b", EXPIRE), ("c", EXPIRE)], f"other workers end them, not {found}")

    def test_many_skipped_tasks_hide_no_other(self) -> None:
        """A task behind any number of tasks to skip is claimed, after a few claims at most."""
        storage, skip = self.opened(), frozenset(("new",))
        count = 2 * PROMOTE_LIMIT + 100
        storage.enqueue([Task(str(number), "new", priority=1) for number in range(count)], 1.0, _ACTOR)
        storage.enqueue([Task("a", "old")], 1.0, _ACTOR)
        for _ in range(4):
            require(storage.next_due(skip) == float("-inf"), "a claim may find a task")
            if claims := storage.exchange((), ClaimRequest("w", 2.0, 10.0, skip_names=skip))[1]:
                break
        require([task.id for task, _ in claims] == ["a"], "the task behind the skipped tasks is claimed")
        require(storage.next_due(skip) is None, "no other task is due")
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=count))
        found = [task.id for task, _ in claims]
        require(found == [str(number) for number in range(count)], "the others are claimed in their order")

    def test_one_time_revocation_stops_only_the_first_task(self) -> None:
        """A function's one-time revocation stops only the first of several tasks in one claim."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add") for task_id in "abcd"], 1.0, _ACTOR)
        function = RevocationTarget(function=True, key="add")
        storage.revoke(function, Revocation(once=True), 1.0)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=9))
        path = [(task.id, *move.path) for task, move in claims]
        require(path == [("a", REVOKE), ("b", START), ("c", START), ("d", START)], f"only the first is revoked: {path}")
        require(storage.revocation(function) is None, "a one-time revocation is spent with the task that it revoked")

    def test_one_time_revocation_is_not_spent_on_tasks_that_end_anyway(self) -> None:
        """A function's one-time revocation is not spent on tasks that are revoked by id, or have expired."""
        storage = self.opened()
        storage.enqueue([Task("a", "add"), Task("b", "add", expires=1.5), Task("c", "add")], 1.0, _ACTOR)
        storage.revoke(RevocationTarget(function=False, key="a"), Revocation(), 1.0)
        storage.revoke(RevocationTarget(function=True, key="add"), Revocation(once=True), 1.0)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=9))
        path = [(task.id, *move.path) for task, move in claims]
        require(
            path == [("a", REVOKE), ("b", EXPIRE), ("c", REVOKE)],
            f"the revocation is spent on the last of the three: {path}",
        )

    def test_skipped_task_keeps_its_place_after_a_clock_step_back(self) -> None:
        """A task that a worker has skipped goes after older tasks, also if some of these are not due any more."""
        storage = self.opened()
        tasks = [Task(task_id, "add", eta=eta) for task_id, eta in (("a", 5.0), ("b", 30.0), ("c", 5.0))]
        storage.enqueue([*tasks, Task("d", "mul")], 1.0, _ACTOR)
        skip = frozenset({"mul"})
        storage.exchange((), ClaimRequest("w", 1.0, 10.0, limit=9, skip_names=skip))
        storage.enqueue([Task("e", "add", priority=1)], 1.0, _ACTOR)
        for now, limit, ids in (40.0, 1, ["e"]), (10.0, 2, ["a", "c"]), (10.0, 2, ["d"]):
            found = [task.id for task, _ in storage.exchange((), ClaimRequest("w", now, 10.0, limit=limit))[1]]
            require(found == ids, f"at {now} the claim takes {ids}, not {found}")

    def test_task_revoked_in_advance_goes_first(self) -> None:
        """A task revoked before it was enqueued goes first, also if it is a follow-up of another task."""
        storage = self.opened()
        for task_id in "bc":
            storage.revoke(RevocationTarget(function=False, key=task_id), Revocation(), 1.0)
        storage.enqueue([Task("a", "add", priority=9), Task("b", "add")], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=2))
        storage.enqueue([Task("d", "add", priority=9)], 3.0, _ACTOR)
        task, move = claims[-1]
        move.apply(task)
        end = policies.settle(task, Outcome(COMPLETE), 3.0, worker="w", follow_ups=(Task("c", "add"),))
        claims += storage.exchange([Settlement(task, end)], ClaimRequest("w", 4.0, 10.0))[1]
        path = [(task.id, *move.path) for task, move in claims]
        require(path == [("b", REVOKE), ("a", START), ("c", REVOKE)], f"revoked tasks go first: {path}")

    def test_task_revoked_while_it_runs_is_not_retried(self) -> None:
        """A task revoked while it runs is revoked right after that attempt, not when its retry is due."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1)], 1.0, _ACTOR)
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(task)
        storage.revoke(RevocationTarget(function=False, key="a"), Revocation(), 2.0)
        end = policies.settle(task, Outcome(FAIL, delay=5.0), 3.0, worker="w")
        _, claims = storage.exchange([Settlement(task, end)], ClaimRequest("w", 3.0, 10.0))
        path = [(task.id, *move.path) for task, move in claims]
        require(path == [("a", REVOKE)], f"the task is revoked: {path}")

    def test_task_id_that_equals_a_function_name_is_another_target(self) -> None:
        """A function's revocation does not apply to a task whose id is the function's name."""
        storage = self.opened()
        storage.enqueue([Task("x", "add", retries=1), Task("y", "x")], 1.0, _ACTOR)
        function = RevocationTarget(function=True, key="x")
        storage.revoke(function, Revocation(), 1.0)
        require(storage.revocation(RevocationTarget(function=False, key="x")) is None, "the task is not revoked")
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=2))
        path = [(task.id, *move.path) for task, move in claims]
        require(path == [("x", START), ("y", REVOKE)], f"the function's task is revoked: {path}")
        task, move = claims[0]
        move.apply(task)
        end = policies.settle(task, Outcome(FAIL, delay=5.0), 3.0, worker="w")
        storage.exchange([Settlement(task, end)], None)
        shown = storage.next_due(), storage.revocation(function)
        require(
            shown == (8.0, Revocation()), f"the task waits for its second attempt, the function is revoked: {shown}"
        )
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 8.0, 10.0))
        move.apply(task)
        storage.exchange([Settlement(task, policies.settle(task, Outcome(COMPLETE), 9.0, worker="w"))], None)
        shown = storage.prune(99.0), storage.revocation(function)
        require(shown == (2, Revocation()), f"both are deleted, the function is revoked: {shown}")

    def test_changed_copy_changes_no_stored_field(self) -> None:
        """A function that changes the fields of its task changes neither the stored fields nor the order."""
        storage = self.opened()
        storage.enqueue([Task("a", "add", retries=1, priority=9), Task("b", "add", priority=5)], 1.0, _ACTOR)
        _, [(task, move)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        move.apply(task)
        task.priority, task.expires = 0, 3.0
        end = policies.settle(task, Outcome(FAIL), 3.0, worker="w")
        _, [(again, move)] = storage.exchange([Settlement(task, end)], ClaimRequest("w", 3.0, 10.0))
        require(
            (again.id, *move.path) == ("a", START), f"a goes first, with its stored priority, not {again}: {move.path}"
        )

    def test_reused_id_waits_for_its_turn(self) -> None:
        """A task with the id of a deleted, revoked task is a new task, and waits for its turn."""
        storage = self.opened()
        target = RevocationTarget(function=False, key="a")
        storage.enqueue([Task("a", "add"), Task("b", "add"), Task("c", "add")], 1.0, _ACTOR)
        storage.revoke(target, Revocation(), 1.0)
        _, [(gone, _)] = storage.exchange((), ClaimRequest("w", 2.0, 10.0))
        require(gone.id == "a" and storage.prune(3.0) == 1, "the revoked task is deleted")
        storage.enqueue([Task("a", "add")], 3.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 4.0, 10.0, limit=3))
        order = [task.id for task, _ in claims]
        require(order == ["b", "c", "a"], f"claimed in the order of age, not {order}")

    def test_recovery_begins_with_the_earliest_lapsed_lease(self) -> None:
        """Recovery takes the leases that ended first, up to the limit."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add") for task_id in "abcd"], 1.0, _ACTOR)
        storage.enqueue([Task("held", "add")], 1.0, Actor("producer", 12.5))  # released, which is no move
        for number, now in enumerate((5.0, 4.0, 2.0, 3.0)):
            storage.exchange((), ClaimRequest(f"w{number}", now, 10.0))
        for now, limit, ids in (11.5, 9, []), (12.0, 9, ["c"]), (99.0, 2, ["d"]), (99.0, 1, ["b"]), (99.0, 9, ["a"]):
            found = [task.id for task, _ in storage.recover(now, _ACTOR, limit=limit)]
            require(found == ids, f"the first {limit} lapsed at {now} are {ids}, not {found}")

    def test_prune_begins_with_the_oldest_task(self) -> None:
        """Pruning deletes the tasks that came to rest first, up to the limit, and their revocations."""
        storage = self.opened()
        storage.enqueue([Task(task_id, "add") for task_id in "abcd"], 1.0, _ACTOR)
        _, claims = storage.exchange((), ClaimRequest("w", 2.0, 10.0, limit=4))
        for (task, move), now in zip(claims, (6.0, 5.0, 3.0, 4.0), strict=True):
            move.apply(task)
            end = policies.settle(task, Outcome(COMPLETE), now, worker="w")
            storage.exchange([Settlement(task, end)], None)
            storage.revoke(RevocationTarget(function=False, key=task.id), Revocation(), now)
        for limit, left in (1, "abd"), (2, "a"), (9, ""):
            deleted = storage.prune(99.0, limit)
            there = "".join(task_id for task_id in "abcd" if storage.get(task_id) is not None)
            revoked = "".join(
                one for one in "abcd" if storage.revocation(RevocationTarget(function=False, key=one)) is not None
            )
            shown = f"{deleted} of {limit} are deleted, {there} is left, {revoked} revoked"
            require(deleted <= limit and (there, revoked) == (left, left), f"{shown}, not {left}")
