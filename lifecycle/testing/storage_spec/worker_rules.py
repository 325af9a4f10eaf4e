"""The rules of `StorageSpec` for producers and workers, correct and faulty ones."""

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import MultipleResults, multiple, precondition, rule

from lifecycle.core.table import CANCEL, COMPLETE, FAIL, INTERRUPT, LOCK_OUT, RATE_LIMIT, RETRY, TIME_OUT, Kind
from lifecycle.storage.base import Actor
from lifecycle.testing.storage_spec import strategies as values
from lifecycle.testing.storage_spec.agreement import AdapterAgreement, assert_same
from lifecycle.testing.storage_spec.machine import STORED_STATES, among, copies
from lifecycle.testing.storage_spec.strategies import (
    ENDING_TRIGGERS,
    IDS,
    LEASE_SECONDS,
    WORKERS,
    Ending,
    NewTask,
    TaskCopy,
    WorkerRequest,
)

__all__ = ["WorkerRules"]


def _settling(name: str, trigger: str) -> Callable[..., MultipleResults[TaskCopy]]:
    """Make the rule that ends attempts with one trigger."""

    def settle(
        self: AdapterAgreement,
        task: str,
        end: Ending,
        hold: bool,
        follow_ups: list[NewTask],
        then: WorkerRequest | None,
        tampered: bool,
    ) -> MultipleResults[TaskCopy]:
        copy = self.running[task]
        request = then.request(self.now) if then else None
        claimed = self.settle([(copy, end)], request, hold=hold, follow_ups=follow_ups, tampered=tampered)
        return multiple(*claimed)

    settle.__name__ = name
    settle.__doc__ = (
        f"A worker ends an attempt with `{trigger}`; a careless function may have changed its copy of the task."
    )
    made = rule(
        target=copies,
        task=among(lambda self: sorted(self.running)),
        end=values.endings((trigger,)),
        hold=st.booleans(),
        follow_ups=st.lists(values.new_tasks(IDS), max_size=2),
        then=st.none() | values.worker_requests(),
        tampered=st.booleans(),
    )(settle)
    return precondition(lambda self: self.running)(made)  # type: ignore[return-value]  # a target takes several


class WorkerRules(AdapterAgreement):
    """Steps of producers and workers."""

    # Producers -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.free_ids())
    @rule(target=copies, call=st.runner().flatmap(lambda self: values.new_tasks(self.free_ids())))
    def enqueue(self, call: NewTask) -> MultipleResults[TaskCopy]:
        """A producer enqueues a task."""
        return multiple(*self.enqueue_tasks([call.task(self.now)], hold=False))

    @precondition(lambda self: self.free_ids())
    @rule(target=copies, call=st.runner().flatmap(lambda self: values.new_tasks(self.free_ids())))
    def enqueue_and_hold(self, call: NewTask) -> MultipleResults[TaskCopy]:
        """A producer enqueues a task, and holds it until the announcement."""
        return multiple(*self.enqueue_tasks([call.task(self.now)], hold=True))

    @precondition(lambda self: self.free_ids())
    @rule(
        target=copies,
        calls=st.runner().flatmap(
            lambda self: st.lists(
                values.new_tasks(self.free_ids()), min_size=1, max_size=4, unique_by=lambda call: call.id
            )
        ),
        hold=st.booleans(),
    )
    def enqueue_together(self, calls: list[NewTask], hold: bool) -> MultipleResults[TaskCopy]:
        """A producer enqueues several tasks in one call."""
        return multiple(*self.enqueue_tasks([call.task(self.now) for call in calls], hold=hold))

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(calls=st.lists(values.new_tasks(IDS), min_size=1, max_size=2), again=values.new_tasks(IDS))
    def enqueue_duplicate(self, calls: list[NewTask], again: NewTask) -> None:
        """A producer enqueues tasks of which one has an id that is already used, in the store or in the call."""
        last = again if again.id in self.task_ids() else calls[0]
        self.enqueue_tasks([call.task(self.now) for call in (*calls, last)], hold=False)

    @precondition(lambda self: self.may_stay_idle() and len(self.free_ids()) > 1)
    @rule(
        call=st.runner().flatmap(lambda self: values.new_tasks(self.free_ids())), state=st.sampled_from(STORED_STATES)
    )
    def enqueue_stored_task(self, call: NewTask, state: str) -> None:
        """A producer enqueues a task that has a state already, after another task in the same call."""
        used = NewTask(next(task_id for task_id in self.free_ids() if task_id != call.id)).task(self.now)
        used.state = state
        self.enqueue_tasks([call.task(self.now), used], hold=False)

    # Workers -------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.can_claim() or (self.may_stay_idle() and self.task_ids(Kind.WAITING)))
    @rule(target=copies, worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> MultipleResults[TaskCopy]:
        """A worker claims one task."""
        return multiple(*self.exchange((), WorkerRequest(worker).request(self.now))[1])

    @precondition(lambda self: self.can_claim() or (self.may_stay_idle() and self.task_ids(Kind.WAITING)))
    @rule(target=copies, wish=values.worker_requests())
    def claim_several(self, wish: WorkerRequest) -> MultipleResults[TaskCopy]:
        """A worker claims several tasks, and may hold the tasks that it schedules."""
        return multiple(*self.exchange((), wish.request(self.now))[1])

    @precondition(AdapterAgreement.can_claim)
    @rule(worker=st.sampled_from(WORKERS), ends=st.lists(values.endings(ENDING_TRIGGERS), min_size=1, max_size=3))
    def work(self, worker: str, ends: list[Ending]) -> None:
        """A busy worker settles one task and claims the next in each call."""
        self.work_in_batches(WorkerRequest(worker), ends)

    @precondition(AdapterAgreement.can_claim)
    @rule(wish=values.worker_requests(), ends=st.lists(values.endings(ENDING_TRIGGERS), min_size=1, max_size=4))
    def work_in_batches(self, wish: WorkerRequest, ends: list[Ending]) -> None:
        """A busy worker settles several tasks and claims the next in each call."""
        self.exchange((), wish.request(self.now))
        while ends and (
            mine := [copy for copy in self.running.values() if copy.task.worker == wish.worker][: len(ends)]
        ):
            self.adapter_and_model_agree()
            now, ends = ends[: len(mine)], ends[len(mine) :]
            self.settle(list(zip(mine, now, strict=True)), wish.request(self.now))

    complete = _settling("complete", COMPLETE)
    fail = _settling("fail", FAIL)
    time_out = _settling("time_out", TIME_OUT)
    lock_out = _settling("lock_out", LOCK_OUT)
    rate_limit = _settling("rate_limit", RATE_LIMIT)
    cancel = _settling("cancel", CANCEL)
    interrupt = _settling("interrupt", INTERRUPT)
    request_retry = _settling("request_retry", RETRY)

    @precondition(lambda self: self.running)
    @rule(
        target=copies,
        task=among(lambda self: sorted(self.running)),
        late=copies,
        end=values.endings(ENDING_TRIGGERS),
        again=st.booleans(),
        then=st.none() | values.worker_requests(),
    )
    def settle_together(
        self, task: str, late: TaskCopy, end: Ending, again: bool, then: WorkerRequest | None
    ) -> MultipleResults[TaskCopy]:
        """A worker settles a running task, perhaps twice, and a stale copy in one call."""
        copy = self.running.pop(task)
        late = late.snapshot()
        done = [(copy, self.ending_move(copy, end))]
        if (move := self.stale_move(late, end)) is not None:
            done.insert(0, (late, move))
        return multiple(*self.exchange(done + done[-1:] * again, then.request(self.now) if then else None)[1])

    @precondition(lambda self: self.running)
    @rule(task=among(lambda self: sorted(self.running)), end=values.endings(ENDING_TRIGGERS))
    def settle_twice(self, task: str, end: Ending) -> None:
        """A worker settles a task twice, in two calls."""
        copy = self.running.pop(task)
        move = self.ending_move(copy, end)
        before = copy.task.state
        self.exchange([(copy, move)])
        after, copy.task.state = copy.task.state, before
        self.exchange([(copy, move)])
        copy.task.state = after

    @precondition(AdapterAgreement.may_stay_idle)
    @rule(copy=copies, end=values.endings(ENDING_TRIGGERS))
    def settle_or_release_stale_copy(self, copy: TaskCopy, end: Ending) -> None:
        """A process settles or releases an old copy."""
        copy = copy.snapshot()
        if (move := self.stale_move(copy, end)) is not None:
            self.exchange([(copy, move)])
        else:
            self.release_tasks([copy])

    @precondition(lambda self: self.held)
    @rule(task=among(lambda self: sorted(self.held)), late=copies, tampered=st.booleans())
    def release(self, task: str, late: TaskCopy, tampered: bool) -> None:
        """A process releases a held task twice, a stale copy, and all running tasks."""
        copy = self.held.pop(task)
        copy = copy.tampered() if tampered else copy
        self.release_tasks([copy, late.snapshot(), copy, *self.running.values()])

    @precondition(lambda self: self.may_stay_idle() and (self.model.held_locks or self.lease_ends()))
    @rule(
        workers=st.lists(st.sampled_from((*WORKERS, "producer")), max_size=2), by=st.sampled_from((LEASE_SECONDS, 1.0))
    )
    def extend(self, workers: list[str], by: float) -> None:
        """A heartbeat extends the leases of some workers."""
        assert_same("extend", *self.call_both("extend", workers, self.now + by))

    @precondition(
        lambda self: (
            any(lease <= self.now for lease in self.lease_ends()) or (self.may_stay_idle() and self.lease_ends())
        )
    )
    @rule(
        target=copies,
        hold=st.booleans(),
        max_interruptions=st.sampled_from((10, 1, 0)),
        of_functions=st.sampled_from(({}, {}, {"add": 0}, {"mul": 2, "?": 0})),
        limit=st.sampled_from((100, 100, 1)),
    )
    def recover(
        self, hold: bool, max_interruptions: int, of_functions: dict[str, int], limit: int
    ) -> MultipleResults[TaskCopy]:
        """A process recovers lapsed leases; some functions have a limit of interruptions of their own."""
        actor = Actor("recoverer", self.hold_until(hold))
        claims, expected = self.call_both(
            "recover",
            self.now,
            actor,
            max_interruptions=max_interruptions,
            of_functions=of_functions,
            limit=limit,
        )
        return multiple(*self.check_claims("recover", claims, expected))

    @precondition(lambda self: self.may_stay_idle() and (self.running or self.held))
    @rule(worker=st.sampled_from(WORKERS))
    def worker_crashes(self, worker: str) -> None:
        """A worker crashes, with all its copies."""
        for known in (self.running, self.held):
            for task_id in [id_ for id_, copy in known.items() if copy.task.worker == worker]:
                del known[task_id]
