"""The law's scenarios, row by row, signals exactly; and any mixture of them, against the table typed by hand."""

import threading
from collections import Counter
from itertools import pairwise

import pytest
from conftest import KINDS, Heard, another_thread, drain, failure, spin, states
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from strategies import EDGES, LAW, of_kind

from lifecycle import (
    SIGNAL_EXECUTING,
    CancelExecution,
    IllegalTransition,
    RateLimitExceeded,
    RetryTask,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
)
from lifecycle.storage.base import Target
from lifecycle.worker import Worker

LEASE = 30.0
"""Seconds, as queues have it unless they are told otherwise."""


class Killed(BaseException):
    """The end of a worker, in the midst of anything."""


@pytest.fixture
def add(queue):
    @queue.task()
    def add(a, b):
        return a + b

    return add


# The table of scenarios --------------------------------------------------------------------------------------------


def test_a_call(queue, heard, add):
    """A call is enqueued, executed, and complete."""
    result = add(1, 2)
    assert heard.story(result) == "enqueued"
    task = queue.run_next()
    assert (task.id, task.state) == (result.id, "complete")
    assert heard.story(result) == "enqueued executing complete"
    assert result.get() == 3


def test_a_scheduled_call(queue, heard, clock, add):
    """A call for later is scheduled by the first worker that meets it, and executed at its ETA, not before."""
    result = add.schedule((2, 3), delay=10)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued scheduled"
    clock.advance(9.999)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued scheduled"
    clock.advance(0.001)
    assert queue.run_next().id == result.id
    assert heard.story(result) == "enqueued scheduled executing complete"
    _, scheduled, executing, _ = result.history()
    assert executing.at - scheduled.at == pytest.approx(10)


def test_a_flaky_task(queue, heard, clock):
    """A failure with retries left and a delay is an error, retried, scheduled, and executed after the delay."""

    @queue.task(retries=2, retry_delay=10, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError("not yet")
        return "done"

    result = flaky()
    assert queue.run_next().state == "scheduled"
    assert heard.story(result) == "enqueued executing error retrying scheduled"
    assert queue.get(result.id).retries == 1
    clock.advance(9.999)
    assert queue.run_next() is None
    clock.advance(0.001)
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing error retrying scheduled executing complete"
    assert [record.attempt for record in result.history()] == [0, 1, 1, 1, 1, 2, 2]
    assert result.get() == "done"


def test_a_revoked_function(queue, heard):
    """A task of a revoked function is revoked, and nothing else happens to it."""
    ran = []

    @queue.task()
    def add(a, b):
        ran.append((a, b))

    add.revoke()
    result = add(1, 2)
    assert queue.run_next().state == "revoked"
    assert heard.story(result) == "enqueued revoked"
    assert ran == []


def test_a_retry_without_a_delay(queue, heard):
    """A failure with retries left and no delay is an error, retried, enqueued, and executed."""

    @queue.task(retries=1, context=True)
    def flaky(task=None):
        if task.attempt == 1:
            raise ValueError("not yet")

    result = flaky()
    assert [task.state for task in drain(queue)] == ["queued", "complete"]
    assert heard.story(result) == "enqueued executing error retrying enqueued executing complete"


def test_a_hook_cancels(queue, heard, add):
    """A pre-execute hook that raises `CancelExecution` cancels the task: its function does not run."""

    @queue.pre_execute()
    def refuse(task):
        raise CancelExecution("not today")

    result = add(1, "not a number")
    assert queue.run_next().state == "canceled"
    assert heard.story(result) == "enqueued executing canceled"
    assert failure(result)["error"] == "CancelExecution('not today')"


def test_the_lock_is_taken(queue, heard):
    """A task whose lock is taken ends `locked`."""

    @queue.task()
    @queue.lock_task("one at a time")
    def alone(): ...

    with queue.lock_task("one at a time"):
        result = alone()
        assert queue.run_next().state == "locked"
    assert heard.story(result) == "enqueued executing locked"


@pytest.mark.parametrize("delay", [None, 5, 100])
def test_past_its_expiry(queue, heard, clock, add, delay):
    """A task that nobody started before its expiry is expired, whether or not it had an ETA."""
    result = add.schedule((1, 2), delay=delay, expires=60)
    clock.advance(60)
    assert queue.run_next().state == "expired"
    assert heard.story(result) == "enqueued expired"


def test_a_killed_worker(queue, heard, clock, add):
    """What a killed worker ran is interrupted, enqueued and executed again once its lease has lapsed, not before."""
    doomed = True

    @queue.signal(SIGNAL_EXECUTING)
    def kill(signal, task):
        if doomed:
            raise Killed

    result = add(1, 2)
    with pytest.raises(Killed):
        queue.run_next()
    doomed = False
    clock.advance(LEASE - 0.001)
    assert queue.run_next() is None
    assert heard.story(result) == "enqueued executing"
    clock.advance(0.001)
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert [record.attempt for record in result.history()] == [0, 1, 1, 1, 2, 2]


def test_a_stopped_worker(queue, heard):
    """A worker that is told to stop interrupts what it runs and puts it back, at once; another runs it."""
    runs, release = threading.Event(), threading.Event()

    @queue.task(retries=0)
    def slow():
        runs.set()
        spin(release)

    stopped = Worker(queue.engine, "stopped")
    result = slow()
    with another_thread(stopped.run_next):
        assert runs.wait(30)
        stopped.interrupt()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    release.set()
    assert Worker(queue.engine, "next").run_next().state == "complete"
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert {record.worker for record in result.history()[-2:]} == {"next"}


def test_a_worker_told_to_stop_before_it_begins(queue, heard, add):
    """What a stopped worker has claimed is not begun, but put back: no hook hears of it."""
    worker, hooked = Worker(queue.engine, "stopped"), []
    queue.pre_execute("note")(hooked.append)
    queue.post_execute("note")(lambda task, value, exc: hooked.append(task))
    worker.interrupt()
    result = add("never", "tried")
    assert worker.run_next().state == "queued"
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert hooked == []


def test_a_worker_told_to_stop_while_hooks_run(queue, heard):
    """A worker that is told to stop after it has started a task and before its body does not begin the body."""
    ran = []
    worker = Worker(queue.engine, "stopped")
    queue.pre_execute("stop")(lambda task: worker.interrupt())

    @queue.task()
    def late():
        ran.append(1)

    result = late()
    worker.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert ran == []


def test_what_a_stuck_worker_runs_is_put_back(queue, heard):
    """A task that cannot be interrupted is put back without its consent; what it says later is refused, in silence."""
    worker = Worker(queue.engine, "stuck")

    @queue.task(context=True)
    def stubborn(task=None):
        if task.attempt == 1:
            worker.put_back()
            assert queue.run_next().state == "complete"
            return "too late"
        return "in time"

    result = stubborn()
    worker.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert result.get() == "in time"


@pytest.mark.parametrize("late", ["returns", "raises"])
def test_a_frozen_worker(queue, heard, clock, caplog, late):
    """A worker that was frozen past its lease says nothing more of its task: the outcome is refused, and logged."""

    @queue.task(context=True, retries=1)
    def frozen(task=None):
        if task.attempt == 1:
            clock.advance(LEASE)
            assert queue.run_next().state == "complete"
            if late == "raises":
                raise ValueError("too late")
            return "too late"
        return "in time"

    result = frozen()
    queue.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued executing complete"
    assert result.get() == "in time"
    assert drain(queue) == []
    assert f"{result.id}" in caplog.text
    assert "too late" in caplog.text


def test_frozen_but_not_replaced(queue, heard, clock):
    """A worker that was frozen past its lease, but not replaced, settles its task as if nothing had happened."""

    @queue.task()
    def frozen():
        clock.advance(10 * LEASE)

    result = frozen()
    assert queue.run_next().state == "complete"
    assert heard.story(result) == "enqueued executing complete"


def test_a_user_presses_ctrl_c(queue, heard):
    """Ctrl-C while `run_next` runs a task interrupts it and puts it back, and still reaches the caller."""

    @queue.task(context=True)
    def patient(task=None):
        if task.attempt == 1:
            raise KeyboardInterrupt

    result = patient()
    with pytest.raises(KeyboardInterrupt):
        queue.run_next()
    assert heard.story(result) == "enqueued executing interrupted enqueued"
    assert queue.run_next().state == "complete"


# Any mixture -------------------------------------------------------------------------------------------------------

DELAYS = st.sampled_from([0, 0, 5, 20])
ACTS = st.sampled_from([
    ("return",), ("raise",), ("raise",), ("time out",), ("time out",), ("lock",), ("lock",),
    ("cancel", None), ("cancel", True), ("cancel", False),
    ("limit", 0, True), ("limit", 5, True), ("limit", 5, False),
    ("retry", None), ("retry", 0), ("retry", 5),
    ("interrupt",), ("die",), ("freeze",),
])  # fmt: skip
"""What an attempt may do."""
CALLS = st.fixed_dictionaries(
    {
        "script": st.lists(ACTS, max_size=4) | st.lists(st.just(("die",)), min_size=1, max_size=3),
        "function": st.sampled_from([0, 1]),
        "retries": st.integers(0, 3),
        "delay": st.sampled_from([None, None, 0, 10, 25]),
        "retry_delay": DELAYS,
        "retry_backoff": st.sampled_from([0, 2]),
        "expires": st.sampled_from([None, None, None, None, None, 5, 30]),
        "priority": st.integers(-1, 1),
    }
)
SETTLED = [*of_kind("outcome"), *of_kind("final")]
LEAVES = ["complete", "error", "timeout", "locked", "rate-limited", "canceled"]
"""The states that leave something to read."""
PATIENCE = 1
"""Interruptions after which a task is not put back any more."""


class QueueMachine(RuleBasedStateMachine):
    """Calls of a scripted task, and everything that can happen to them and around them."""

    kind, new = "memory", None
    entered: Counter
    taken: Counter

    def __init__(self):
        super().__init__()
        self._open = type(self).new(self.kind, lease=LEASE, max_interruptions=PATIENCE)
        self.queue = self._open.__enter__()
        self.clock = self.queue.engine.clock
        self.heard = Heard(self.queue)
        self.queue.signal(SIGNAL_EXECUTING)(self.maybe_die)
        self.functions = [self.queue.task(context=True, name=name)(self.body) for name in ("one", "two")]
        self.results, self.scripts, self.calls, self.handles = [], {}, {}, {}
        self.due, self.expiry, self.revoked, self.ran = {}, {}, set(), {}
        self.forgotten, self.shown, self.operated, self.depth = {}, {}, Counter(), 0
        self.faults = []

    # What runs -----------------------------------------------------------------------------------------------------

    def act(self, task):
        """What this attempt does, by the script; when that is at its end, it returns."""
        script = self.scripts[task.id]
        return script[task.attempt - 1] if task.attempt <= len(script) else ("return",)

    def maybe_die(self, signal, task):
        self.ran[task.id, task.attempt] = (self.act(task), task.retries, task.interruptions)
        if self.act(task) == ("die",):
            raise Killed

    def body(self, task=None):
        now = self.clock.now()
        if now < self.due.get(task.id, now) or now >= self.expiry.get(task.id, now + 1):
            self.faults.append(f"{task} ran out of its time")
        if task.id in self.revoked or task.name in self.revoked:
            self.faults.append(f"{task} ran though revoked")
        match self.act(task):
            case ("raise",):
                raise ValueError(task.attempt)
            case ("time out",):
                raise TaskTimeout
            case ("lock",):
                raise TaskLockedException("taken")
            case ("cancel", again):
                raise CancelExecution(retry=again)
            case ("limit", delay, again):
                raise RateLimitExceeded("limit", delay, again)
            case ("retry", delay):
                raise RetryTask(delay=delay)
            case ("interrupt",):
                raise TaskInterrupted
            case ("freeze",):
                self.clock.advance(LEASE)
                self.step()
        return task.attempt

    def step(self):
        """One step of some worker, which may be its last."""
        self.died = False
        try:
            return self.queue.run_next()
        except Killed:
            self.died = True
            return None

    # Rules ---------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.results) < 6)
    @rule(calls=st.lists(CALLS, min_size=1, max_size=3))
    def call(self, calls):
        """Somebody calls a few tasks."""
        for call in calls:
            options = {name: call[name] for name in call.keys() - {"script", "function"}}
            result = self.functions[call["function"]].schedule(id=f"t{len(self.results)}", **options)
            self.results.append(result)
            self.scripts[result.id], self.calls[result.id] = call["script"], call
            self.due[result.id] = self.clock.now() + (call["delay"] or 0)
            if call["expires"] is not None:
                self.expiry[result.id] = self.clock.now() + call["expires"]
            self.forgotten[result.id] = self.shown[result.id] = 0

    @precondition(lambda self: self.results)
    @rule(seconds=st.sampled_from([0, 0, 1, 5, 10, 20, LEASE]), steps=st.sampled_from([1, 2, 3, 8]))
    def work(self, seconds, steps):
        """Time passes, and workers deal with what is next."""
        self.clock.advance(seconds)
        for _ in range(steps):
            before = self.queue.counts()
            task = self.step()
            if task is not None:
                assert task.id in self.scripts
            elif not self.died and before == self.queue.counts():  # nothing was put off either: nothing was due
                due = self.queue.storage.next_due()
                assert due is None or due > self.clock.now()
                break

    @precondition(lambda self: self.results)
    @rule(data=st.data(), until=st.sampled_from([None, 5]), once=st.booleans(), again=st.booleans())
    def revoke(self, data, until, once, again):
        """Somebody revokes a task, and may take it back."""
        scheduled = [result for result in self.results if result.state == "scheduled"]
        result = data.draw(st.sampled_from(self.results + 3 * scheduled))
        self.queue.revoke_by_id(result.id, until, once)
        if until is None and not again:
            self.revoked.add(result.id)
        else:
            self.revoked.discard(result.id)
        if again:
            assert self.queue.restore_by_id(result.id) or result.state == "revoked"

    @rule(function=st.sampled_from([0, 1]), until=st.sampled_from([None, 5]), once=st.booleans(), again=st.booleans())
    def revoke_function(self, function, until, once, again):
        """Somebody revokes a function, or its next task, and may take it back."""
        function = self.functions[function]
        function.revoke(until, once)
        self.revoked.discard(function.name)
        if again:
            assert function.restore() is True
            assert function.restore() is False
        elif until is None and not once:
            self.revoked.add(function.name)

    @precondition(lambda self: any(result.state in of_kind("outcome") for result in self.results))
    @rule(data=st.data())
    def retry(self, data):
        """An operator gives a task that rests in an outcome another chance."""
        result = data.draw(st.sampled_from([one for one in self.results if one.state in of_kind("outcome")]))
        before = states(result)
        self.queue.retry(result.id)
        assert states(result) == f"{before} retrying queued"

    @precondition(lambda self: any(result.state not in of_kind("outcome") for result in self.results))
    @rule(data=st.data(), forget=st.booleans())
    def look(self, data, forget):
        """Somebody wants the next outcome, or another chance for a task that has no need of it."""
        result = data.draw(st.sampled_from([one for one in self.results if one.state not in of_kind("outcome")]))
        if forget:
            result.reset()
            self.forgotten[result.id] = self.shown[result.id]
            return
        before = states(result)
        with pytest.raises(IllegalTransition):
            self.queue.retry(result.id)
        assert states(result) == before

    def teardown(self):
        """A task is revoked, others run to their end; then each that rests in an outcome gets a last chance."""
        try:
            for target in self.revoked:
                self.queue.engine.restore(Target(function=target in ("one", "two"), key=target))
            self.revoked.clear()
            for result in self.results[::2]:
                if result.state == "scheduled":
                    result.revoke()
                    self.revoked.add(result.id)
            self.finish()
            for result in self.results:
                if result.state in of_kind("outcome"):
                    self.queue.retry(result.id)
            self.finish()
        finally:
            self._open.__exit__(None, None, None)

    def finish(self):
        """Time passes until nothing waits or runs."""
        while self.step() is not None or any(result.state not in SETTLED for result in self.results):
            self.clock.advance(LEASE / 2)
        self.the_law_holds()
        self.results_agree()
        self.states_are_counted()

    # What always holds ---------------------------------------------------------------------------------------------

    @invariant()
    def the_law_holds(self):
        """Signals are the history; the history is a path of the table, and what the attempts did; nothing follows an end."""
        assert not self.faults
        edges = {(source, target) for (source, _), target in EDGES.items()}
        for result in self.results:
            path = [None, *(record.state for record in result.history())]
            assert self.heard.story(result) == " ".join(LAW[state][0] for state in path[1:])
            assert set(pairwise(path)) <= edges
            assert not any(state in of_kind("final") for state in path[:-1])
            assert result.state == path[-1]
            self.follows(result, result.history())

    def follows(self, result, history):
        """Each attempt is followed by what it did."""
        counts = Counter(record.state for record in history)
        for place, record in enumerate(history):
            if record.state != "executing":
                continue
            after = [one.state for one in history[place + 1 :]]
            if not after:
                continue
            expected = self.expected(result.id, record.attempt, *self.ran[result.id, record.attempt])
            assert after[: len(expected)] == expected, (self.ran[result.id, record.attempt], after)
            assert len(after) == len(expected) or expected[-1] in (*of_kind("waiting"), *of_kind("outcome"))
        assert counts["executing"] == self.queue.get(result.id).attempt

    def expected(self, task_id, attempt, act, retries, interruptions):
        """The states that follow an attempt, as the documentation has it."""
        options = self.calls[task_id]
        wait = options["retry_delay"] * max(options["retry_backoff"], 1) ** (attempt - 1)
        if act in (("interrupt",), ("die",), ("freeze",)):
            # Who was frozen is replaced, or, if nobody came, finishes.
            return ["interrupted"] if interruptions >= PATIENCE else ["interrupted", "queued"]
        match act:
            case ("return",):
                return ["complete"]
            case ("raise",):
                state, again = "error", retries
            case ("time out",):
                state, again = "timeout", retries
            case ("lock",):
                state, again = "locked", retries
            case ("cancel", wish):
                state, again = "canceled", retries if wish is None else wish
            case ("limit", delay, wish):
                state, again, wait = "rate-limited", wish or retries, delay
            case ("retry", delay):
                return ["retrying", "scheduled" if (wait if delay is None else delay) else "queued"]
        return [state, "retrying", "scheduled" if wait else "queued"] if again else [state]

    @invariant()
    def results_agree(self):
        """A handle shows the last outcome that it has not forgotten, whatever the task does now."""
        for result in self.results:
            task = self.queue.get(result.id)
            outcomes = [record for record in result.history() if record.state in LEAVES]
            last = outcomes[-1] if outcomes and outcomes[-1].attempt > self.forgotten[result.id] else None
            if last is not None and last.state == "complete":
                assert result.get() == last.attempt
                self.shown[result.id] = last.attempt
            elif last is not None or (
                task.state in ("revoked", "expired")
                or (task.state == "interrupted" and task.attempt > self.forgotten[result.id])
            ):
                metadata = failure(result)
                state, attempt = (last.state, last.attempt) if last else (task.state, task.attempt)
                assert (metadata["task_id"], metadata["state"]) == (result.id, state)
                assert metadata["attempt"] == attempt
                self.shown[result.id] = attempt
            else:
                assert result.get() is None

    @invariant()
    def states_are_counted(self):
        """The queue's own count agrees; what was seen is noted."""
        counts = Counter(result.state for result in self.results)
        assert self.queue.counts() == {state: counts[state] for state in LAW if state != "retrying"}
        for result in self.results:
            path = [None, *(record.state for record in result.history())]
            known = self.handles.get(result.id, 0)
            self.handles[result.id] = len(path) - 1
            self.entered.update(path[known + 1 :])
            self.taken.update(list(pairwise(path))[known:])


@pytest.mark.parametrize("kind", KINDS)
def test_any_mixture(kind, new):
    """Whatever happens, each task goes its way by the table, and is heard of, read and counted as it stands there."""

    class Machine(QueueMachine):
        entered, taken = Counter(), Counter()

    Machine.kind, Machine.new = kind, staticmethod(new)
    rows = {(source, target) for (source, _), target in EDGES.items()}
    for _ in range(4):  # a row that is rare may be missing once
        run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=20, deadline=None))
        if set(Machine.taken) == rows:
            break
    assert set(Machine.taken) == rows, "a row of the table was never taken"
    assert set(Machine.entered) == set(LAW), "a state was never entered"
