"""Random mixtures of the law's scenarios, compared with a table typed by hand."""

from collections import Counter
from itertools import pairwise

import pytest
from conftest import KINDS, LEASE, Heard, Killed, failure, states
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from support.profiles import examples, repeat_until
from support.strategies import EDGES, LAW, of_kind

from lifecycle import (
    LIFECYCLE,
    SIGNAL_EXECUTING,
    CancelExecution,
    IllegalTransition,
    RateLimitExceeded,
    RetryTask,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
)
from lifecycle.storage.base import RevocationTarget

DELAYS = st.sampled_from([0, 0, 5, 20])
ACTS = st.sampled_from([
    ("return",), ("raise",), ("raise",), ("time out",), ("time out",), ("lock",), ("lock",),
    ("cancel", None), ("cancel", True), ("cancel", False),
    ("limit", 0, True), ("limit", 5, True), ("limit", 5, False),
    ("retry", None), ("retry", 0), ("retry", 5),
    ("interrupt",), ("die",), ("freeze",),
])  # fmt: skip
"""Acts of an attempt."""
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
STATES_WITH_OUTCOME = ["complete", "error", "timeout", "locked", "rate-limited", "canceled"]
"""States that leave a result or an error to read."""
MAX_INTERRUPTIONS = 1
"""Count of interruptions after which a task is not requeued any more."""


class QueueMachine(RuleBasedStateMachine):
    """Calls of a scripted task, and random events around them."""

    kind, new = "memory", None
    entered: Counter
    taken: Counter

    def __init__(self):
        super().__init__()
        self._open = type(self).new(self.kind, lease=LEASE, max_interruptions=MAX_INTERRUPTIONS)
        self.queue = self._open.__enter__()
        self.clock = self.queue.engine.clock
        self.heard = Heard(self.queue)
        self.queue.signal(SIGNAL_EXECUTING)(self.maybe_die)
        self.functions = [self.queue.task(context=True, name=name)(self.function) for name in ("one", "two")]
        self.results, self.scripts, self.calls, self.handles = [], {}, {}, {}
        self.due, self.expiry, self.revoked, self.ran = {}, {}, set(), {}
        self.forgotten, self.shown, self.operated, self.depth = {}, {}, Counter(), 0
        self.faults = []

    # The task function -----------------------------------------------------------------------------------------------

    def act(self, task):
        """Return the act of this attempt: from the script, or a return after its end."""
        script = self.scripts[task.id]
        return script[task.attempt - 1] if task.attempt <= len(script) else ("return",)

    def maybe_die(self, signal, task):
        self.ran[task.id, task.attempt] = (self.act(task), task.retries, task.interruptions)
        if self.act(task) == ("die",):
            raise Killed

    def expiry_of(self, task, default):
        """Return the expiry of a running task as far as it is known: that of its first attempt, and of retries at once."""
        if task.attempt == 1 or task.id not in self.expiry:
            return self.expiry.get(task.id, default)
        *_, before, waiting, _ = self.queue.history(task.id)
        at_once = (before.state, waiting.state) == ("retrying", "queued")
        return waiting.at + self.calls[task.id]["expires"] if at_once else default

    def function(self, task=None):
        now = self.clock.now()
        if now < self.due.get(task.id, now) or now >= self.expiry_of(task, now + 1):
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
        """Let some worker take one step; the worker may die in it."""
        self.died = False
        try:
            return self.queue.run_next()
        except Killed:
            self.died = True
            return None

    # Rules -----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.results) < 6)
    @rule(calls=st.lists(CALLS, min_size=1, max_size=3))
    def call(self, calls):
        """Call a few tasks."""
        for call in calls:
            options = {name: call[name] for name in call.keys() - {"script", "function"}}
            result = self.functions[call["function"]].schedule(id=f"t{len(self.results)}", **options)
            self.results.append(result)
            self.scripts[result.id], self.calls[result.id] = call["script"], call
            self.due[result.id] = self.clock.now() + (call["delay"] or 0)
            if call["expires"] is not None:
                self.expiry[result.id] = self.due[result.id] + call["expires"]
            self.forgotten[result.id] = self.shown[result.id] = 0

    @precondition(lambda self: self.results)
    @rule(seconds=st.sampled_from([0, 0, 1, 5, 10, 20, LEASE]), steps=st.sampled_from([1, 2, 3, 8]))
    def work(self, seconds, steps):
        """Advance the clock and let workers run due tasks."""
        self.clock.advance(seconds)
        for _ in range(steps):
            before = self.queue.counts()
            task = self.step()
            if task is not None:
                assert task.id in self.scripts
            elif not self.died and before == self.queue.counts():  # nor was a task scheduled: nothing was due
                due = self.queue.storage.next_due()
                assert due is None or due > self.clock.now()
                break

    @precondition(lambda self: self.results)
    @rule(data=st.data(), until=st.sampled_from([None, 5]), once=st.booleans(), again=st.booleans())
    def revoke(self, data, until, once, again):
        """Revoke a task, and perhaps restore it."""
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
        """Revoke a function, or its next task, and perhaps restore it."""
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
        """Retry a task that rests in an outcome."""
        result = data.draw(st.sampled_from([one for one in self.results if one.state in of_kind("outcome")]))
        before = states(result)
        self.queue.retry(result.id)
        assert states(result) == f"{before} retrying queued"

    @precondition(lambda self: any(result.state not in of_kind("outcome") for result in self.results))
    @rule(data=st.data(), forget=st.booleans())
    def reset_or_retry_in_vain(self, data, forget):
        """Reset a handle, or fail to retry a task that does not rest in an outcome."""
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
        """Revoke some tasks, run the others to their end, then retry each task that rests in an outcome."""
        try:
            for target in self.revoked:
                self.queue.engine.restore(RevocationTarget(function=target in ("one", "two"), key=target))
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
        """Advance the clock until no task waits or runs."""
        while self.step() is not None or any(result.state not in SETTLED for result in self.results):
            self.clock.advance(LEASE / 2)
        self.the_law_holds()
        self.results_agree()
        self.states_are_counted()

    # Invariants ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_law_holds(self):
        """Signals equal the history, which is a path of the table that the attempts explain; a final state is last."""
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
        """Each attempt is followed by the states of its act."""
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
        """Return the states that follow an attempt, as the documentation has it."""
        options = self.calls[task_id]
        wait = options["retry_delay"] * max(options["retry_backoff"], 1) ** (attempt - 1)
        if act in (("interrupt",), ("die",), ("freeze",)):
            # The lease of a frozen worker lapsed: recovery interrupts the task.
            return ["interrupted"] if interruptions >= MAX_INTERRUPTIONS else ["interrupted", "queued"]
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
        """A handle shows the last outcome that it has not forgotten, whatever the state of the task now."""
        for result in self.results:
            task = self.queue.get(result.id)
            outcomes = [record for record in result.history() if record.state in STATES_WITH_OUTCOME]
            last = outcomes[-1] if outcomes and outcomes[-1].attempt > self.forgotten[result.id] else None
            at_rest = LIFECYCLE.state(task.state).kind in ("outcome", "final")
            if last is not None and last.state in ("locked", "rate-limited") and not at_rest:
                assert result.get() is None
                continue
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
        """The counts of the queue agree with the states of its tasks; states and steps are noted."""
        counts = Counter(result.state for result in self.results)
        assert self.queue.counts() == {state: counts[state] for state in LAW if state != "retrying"}
        for result in self.results:
            path = [None, *(record.state for record in result.history())]
            known = self.handles.get(result.id, 0)
            self.handles[result.id] = len(path) - 1
            self.entered.update(path[known + 1 :])
            self.taken.update(list(pairwise(path))[known:])


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_any_mixture_of_scenarios_follows_the_table(kind, new):
    """In any mixture of scenarios each task follows the table, and its signals, result and count agree.

    The scenarios have no workflows: the rows of these are taken in `workflows/test_result_groups.py`.
    """

    class Machine(QueueMachine):
        entered, taken = Counter(), Counter()

    Machine.kind, Machine.new = kind, staticmethod(new)
    rows = {(source, target) for (source, _), target in EDGES.items() if "pending" not in (source, target)}
    how = settings(max_examples=examples(60), stateful_step_count=20, deadline=None)
    repeat_until(lambda: run_state_machine_as_test(Machine, settings=how), Machine, lambda: set(Machine.taken) == rows)
    assert set(Machine.taken) == rows, "a row of the table was never taken"
    assert set(Machine.entered) == set(LAW) - {"pending", "skipped"}, "a state was never entered"
