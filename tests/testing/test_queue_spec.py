"""`QueueSpec`: every possible failure happens to a user's tasks, and bugs in them are found."""

import math
import re
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule, run_state_machine_as_test
from support.profiles import examples, repeat_until

from lifecycle import SIGNAL_COMPLETE, TaskQueue
from lifecycle.testing import QueueSpec

calm = settings(deadline=None, suppress_health_check=list(HealthCheck), stateful_step_count=12)
often = settings(calm, stateful_step_count=50, max_examples=examples(50), database=None)


class Chores(QueueSpec):
    """Tasks with every option there is."""

    def open_queue(self):
        queue = TaskQueue("memory://", lease=30)
        self.chores = [
            queue.task(name="once")(lambda n: n),
            queue.task(name="again", retries=2)(lambda n: n),
            queue.task(name="later", retries=1, retry_delay=5)(lambda n: n),
        ]
        self.expected = {}
        return queue

    @initialize(interruptions=st.integers(0, 1))
    def so_patient(self, interruptions):
        self.queue.engine.max_interruptions = interruptions

    @rule(which=st.integers(0, 2), delay=st.sampled_from((None, 20)), expires=st.sampled_from((None, 5, 500)))
    def enqueue(self, which, delay, expires):
        for number in range(len(self.expected), len(self.expected) + 3):
            task_id = f"chore {number}"
            self.expected[task_id] = number
            options = {"delay": delay, "expires": expires, "id": task_id}
            self.call(lambda number=number, options=options: self.chores[which].schedule((number,), **options))

    @rule(delay=st.sampled_from((None, 20)), expires=st.sampled_from((None, 5, 500)))
    def enqueue_workflow(self, delay, expires):
        number = len(self.expected)
        first, step, callback = self.chores[0].s(number), self.chores[1].s(), self.chores[2].s()
        for task, value in (first, number), (step, number), (callback, None):
            task.id = f"chore {len(self.expected)}"
            self.expected[task.id] = value
        step.eta = None if delay is None else self.clock.now() + delay
        step.expires = None if expires is None else (step.eta or self.clock.now()) + expires
        self.call(lambda: self.queue.enqueue(first.then(step).error(callback)))

    def at_rest(self):
        for task_id in self.world.auditor.signals:
            result = self.queue.handle(task_id)
            if result.state == "complete" and self.expected[task_id] is not None:
                assert result.get() == self.expected[task_id]


@pytest.mark.untraced
def test_every_transition_and_every_end_of_an_attempt_is_reached():
    """No promise is broken, every transition is taken, and attempts end in every way, with retries left and without."""
    repeat_until(lambda: run_state_machine_as_test(Chores, settings=often), Chores, lambda: not Chores.missing())
    assert Chores.missing() == []


class Invoices(QueueSpec):
    """A program that sends invoices, and counts them."""

    idempotent = False
    workers = 1

    def open_queue(self):
        queue, self.sent = TaskQueue("memory://", lease=30), Counter()

        @queue.task(retries=1)
        def bill(number):
            if not (self.idempotent and self.sent[number]):
                self.sent[number] += 1
            return number

        self.bill = bill
        return queue

    @rule(number=st.integers(0, 3))
    def bill_somebody(self, number):
        if number not in self.sent:
            self.call(lambda: self.bill(number))

    @invariant()
    def an_invoice_is_sent_once(self):
        assert max(self.sent.values(), default=0) <= 1, f"sent twice: {self.sent}"


class Careful(Invoices):
    idempotent = True


SHRINK_LIMIT = 30
"""How often a counterexample is made shorter: a number, since a busy machine gets less far in a given time."""


def counterexample(spec, **options):
    """Return the text of a specification's failure."""
    with pytest.raises(AssertionError) as caught:
        # Where Hypothesis draws anew each time, the default number of examples would be a matter of luck.
        run_state_machine_as_test(
            spec, settings=settings(calm, database=None, max_examples=2000, report_multiple_bugs=False, **options)
        )
    return str(caught.value) + "\n".join(caught.value.__notes__)


@pytest.mark.untraced
def test_task_that_is_not_idempotent_is_found(monkeypatch):
    """A task that must not run twice fails, with a short counterexample."""
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", math.inf)
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKS", SHRINK_LIMIT)
    text = counterexample(Invoices, derandomize=True, phases=[Phase.generate, Phase.shrink])
    assert "sent twice" in text
    steps = [line for line in text.splitlines() if re.match(r"state\.(?!an_invoice|no_promise)", line)]
    assert 3 <= len(steps) <= 10, text


def test_idempotent_task_passes():
    """The same task passes once it is idempotent."""
    run_state_machine_as_test(Careful, settings=settings(calm, max_examples=examples(50)))


class Forgetful(Invoices):
    """Relies on a signal for every invoice."""

    idempotent = True

    def open_queue(self):
        queue, self.told = super().open_queue(), []
        queue.signal(SIGNAL_COMPLETE)(lambda signal, task: self.told.append(task.args[0]))
        return queue

    def at_rest(self):
        assert sorted(self.told) == sorted(number for number, count in self.sent.items() if count), "not told of all"


@pytest.mark.untraced
def test_handler_that_relies_on_every_signal_is_found():
    """A program that relies on every signal fails, since a killed process sends none."""
    text = counterexample(Forgetful, phases=[Phase.generate, Phase.shrink])
    assert "not told of all" in text


def test_queue_is_as_before_after_the_runs(tmp_path):
    """After the runs the queue has its own store, clock and functions again, unchanged."""
    queue = TaskQueue(f"sqlite:///{tmp_path}/q.db")
    add = queue.task(name="add")(lambda a, b: a + b)
    before = queue.storage

    class Adding(QueueSpec):
        def open_queue(self):
            return queue

        @rule()
        def add(self):
            self.call(lambda: add(1, 2))

    run_state_machine_as_test(Adding, settings=settings(calm, max_examples=5))
    assert queue.storage is before
    assert queue.tasks() == []
    result = add(3, 4)
    assert queue.run_next().id == result.id
    assert result.get() == 7
    assert queue.engine.signals.connected == {}
    assert queue.engine.hooks.pre_execute == ()
    queue.close()
