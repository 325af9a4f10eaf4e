"""The checker of recorded signals, held against a second one: a regular expression, put together here from the law."""

import copy
import pickle
import random
import re
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.strategies import EDGES, LAW, of_kind, patient

from lifecycle import testing
from lifecycle.analysis import checker as checking
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.errors import LifecycleError
from lifecycle.testing import Checker, IllegalSequence, check, illegal_histories, legal_histories, lifecycles, streams

SIGNALS = [signal for signal, *_ in LAW.values()]


def matcher(signals, edges, first=(None,)):
    """A pattern for a legal sequence, from a table's edges: each signal is looked back from, at what may come before.

    ``signals``: state → signal. Each signal matches where the text before it ends with one that it may follow; so
    nothing of the table's ways is walked, and nothing is shared with the checker.
    """
    words = []
    for state, signal in signals.items():
        sources = [start for (start, _), end in edges if end == state]
        before = ["(?<=^ )" for source in sources if source in first]
        before += [f"(?<= {re.escape(signals[source])} )" for source in sources if source is not None]
        words.append(f"(?:{'|'.join(before)}){re.escape(signal)} " if before else "(?!)")
    return re.compile(f" (?:{'|'.join(words)})*")  # a space comes first, so that looking back never sees half a word


LEGAL = matcher({state: signal for state, (signal, *_) in LAW.items()}, EDGES.items(), first=(None,))


def accepts(pattern, signals):
    """Return whether the pattern matches all signals."""
    return bool(pattern.fullmatch("".join([" ", *(f"{signal} " for signal in signals)])))


def verdict(signals, *args, **options):
    """Return the checker's verdict: the number of signals, or the error."""
    try:
        return check(signals, *args, **options)
    except IllegalSequence as fault:
        return fault


# Agreement ---------------------------------------------------------------------------------------------------------


def sequences(number):
    """Random sequences: walks of the law, walks with one signal changed, added or left out, and mere noise."""
    dice = random.Random(5)
    followers = {state: [end for (start, _), end in EDGES.items() if start == state] for state in (None, *LAW)}
    for turn in range(number):
        state, walk = None, []
        for _ in range(dice.randint(0, 15)):
            if not followers[state]:
                break
            state = dice.choice(followers[state])
            walk.append(LAW[state][0])
        place = dice.randrange(len(walk) + 1)
        match turn % 5:
            case 1:
                walk.insert(place, dice.choice(SIGNALS))
            case 2:
                del walk[place : place + 1]
            case 3 if walk:
                walk[min(place, len(walk) - 1)] = dice.choice([*SIGNALS, "unknown"])
            case 4:
                walk = dice.choices(SIGNALS, k=dice.randint(1, 4))
        yield walk


@pytest.mark.untraced
def test_checker_agrees_with_a_regular_expression():
    """On 10,000 random sequences, legal and not, the checker and the regular expression say the same."""
    legal = 0
    for signals in sequences(examples(10_000)):
        said = verdict(signals)
        assert isinstance(said, int) == accepts(LEGAL, signals), (signals, said)
        if isinstance(said, IllegalSequence):  # the first that is illegal: up to there it was not
            assert accepts(LEGAL, signals[: said.position - 1])
            assert not accepts(LEGAL, signals[: said.position])
            assert said.signal == signals[said.position - 1]
        else:
            assert said == len(signals)
            legal += 1
    assert examples(3_000) < legal < examples(7_000), "the sequences are one-sided"


@pytest.mark.untraced
@patient
@given(lifecycles(), st.data())
def test_checker_agrees_with_a_regular_expression_for_any_table(table, data):
    """For any table, the checker and the regular expression agree."""
    signals = {state.name: state.signal for state in table.states}
    edges = [((row.source and row.source.name, row.trigger), row.target.name) for row in table.transitions]
    pattern = matcher({name: f"<{signal}>" for name, signal in signals.items()}, edges)
    words = st.lists(st.sampled_from(sorted(signals.values())), max_size=6)
    for drawn in (data.draw(words), data.draw(legal_histories(table)), data.draw(illegal_histories(table)).signals):
        said = verdict(drawn, table)
        assert isinstance(said, int) == accepts(pattern, [f"<{signal}>" for signal in drawn]), (drawn, said)


@pytest.mark.untraced
@patient
@given(streams(), st.data())
def test_stream_gives_the_same_verdict_as_the_whole(stream, data):
    """Fed signal by signal, the checker gives the verdict of the whole; each task is judged on its own."""
    bad = data.draw(st.none() | st.tuples(st.integers(0, len(stream)), st.sampled_from(SIGNALS)))
    if bad is not None:
        stream.insert(bad[0], ("task-0", bad[1]))
    checker, faults = Checker(), []
    for number, (task, signal) in enumerate(stream):
        try:
            checker.feed(signal, task)
        except IllegalSequence as fault:
            faults.append((number, fault))
    whole = verdict(stream)
    if faults:
        assert (faults[0][1].task, faults[0][1].args) == (whole.task, whole.args)
        assert checker.count == len(stream) - len(faults)
    else:
        assert whole == checker.count == len(stream)
    own = {task: verdict([signal for one, signal in stream if one == task]) for task, _ in stream}
    broken = {fault.task for _, fault in faults}
    assert broken == {task for task, said in own.items() if isinstance(said, IllegalSequence)}


@patient
@given(illegal_histories())
def test_task_keeps_its_state_after_a_fault(illegal):
    """After a fault the task keeps its state, and the signals that are legal from there are legal."""
    checker, found = Checker(), []
    for signal in illegal.signals:
        try:
            checker.feed(signal)
        except IllegalSequence as fault:
            found.append(fault.position)
    assert found == [illegal.position]
    assert checker.count == len(illegal.signals) - 1


# Met later, and at rest --------------------------------------------------------------------------------------------


@patient
@given(legal_histories())
def test_trace_of_a_consumer_may_begin_after_the_creation(history):
    """With ``from_start=False`` a task may begin after its creation: consumers do not receive `enqueued`."""
    assert check(history[1:], from_start=False) == len(history) - 1
    assert check(history, from_start=False) == len(history)
    births = {LAW[end][0] for (start, _), end in EDGES.items() if start is None}
    if len(history) > 1 and history[1] not in births:
        with pytest.raises(IllegalSequence, match="as the first; legal: enqueued, pending"):
            check(history[1:])


def test_trace_of_a_consumer_may_not_begin_later():
    """Only signals that may follow a creation may come first."""
    born = [end for (start, _), end in EDGES.items() if start is None]
    first = {LAW[end][0] for (start, _), end in EDGES.items() if start in (None, *born)}
    for signal in SIGNALS:
        said = verdict([signal], from_start=False)
        assert (said == 1) == (signal in first), signal
    assert set(verdict(["complete"], from_start=False).legal) == first


@patient
@given(legal_histories(), st.booleans())
def test_complete_history_ends_in_a_resting_state(history, named):
    """With ``complete=True`` a history must end in a resting state; otherwise it may end anywhere."""
    state = next(state for state, (signal, *_) in LAW.items() if signal == history[-1])
    stream = [("t", signal) for signal in history] if named else history
    assert check(stream) == len(history)
    if state in of_kind("outcome", "final"):
        assert check(stream, complete=True) == len(history)
        return
    with pytest.raises(IllegalSequence) as caught:
        check(stream, complete=True)
    fault = caught.value
    assert (fault.task, fault.position, fault.signal) == ("t" if named else None, len(history) + 1, None)
    assert fault.after == history[-1]
    assert set(fault.legal) == {LAW[end][0] for (start, _), end in EDGES.items() if start == state}


def test_empty_sequence_is_legal():
    """An empty sequence is legal and leaves no task unfinished."""
    assert check([], complete=True) == check(iter(())) == 0


# What it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (["complete"], "signal 1 is 'complete' as the first; legal: enqueued, pending"),
        (
            [("7", "enqueued"), ("7", "complete")],
            "task 7: signal 2 is 'complete' after 'enqueued'; legal: scheduled, executing, revoked, expired",
        ),
        (
            ["enqueued", "revoked", "executing"],
            "signal 3 is 'executing' after 'revoked'; nothing may follow, that is final",
        ),
        (["enqueued", "Executing"], "signal 2 is 'Executing' after 'enqueued'; legal: scheduled, "),
    ],
)
def test_message_names_task_position_signal_and_legal_signals(stream, said):
    """The message names the task, the position, the signal and the legal signals."""
    with pytest.raises(IllegalSequence) as caught:
        check(stream)
    assert str(caught.value).startswith(said)


def test_message_of_an_unfinished_task():
    """The message of an unfinished task names the last signal and the legal next signals."""
    said = str(verdict([("7", "enqueued"), ("7", "executing")], complete=True))
    assert said.startswith("task 7: ends after 'executing', not at rest; legal: complete, error, ")


@patient
@given(illegal_histories(), st.none() | st.text())
def test_illegal_sequence_is_an_assertion_and_survives_pickling(illegal, task):
    """`IllegalSequence` is an AssertionError and a LifecycleError, and survives copying and pickling."""
    stream = [signal if task is None else (task, signal) for signal in illegal.signals]
    with pytest.raises(AssertionError) as caught:
        check(stream)
    fault = caught.value
    assert isinstance(fault, LifecycleError)
    assert (fault.task, fault.position, fault.legal) == (task, illegal.position, illegal.legal)
    for twin in (pickle.loads(pickle.dumps(fault)), copy.copy(fault)):  # noqa: S301 -- made here
        assert (str(twin), vars(twin)) == (str(fault), vars(fault))


def test_checker_is_exported_by_lifecycle_testing():
    """`lifecycle.testing` exports the checker."""
    assert (testing.check, testing.Checker, testing.IllegalSequence) == (check, Checker, IllegalSequence)
    assert checking.__all__ == ["Checker", "IllegalSequence", "check"]


# Memory ------------------------------------------------------------------------------------------------------------

CONSUMER_LIFECYCLE = ("enqueued", "executing", "complete")


@pytest.mark.untraced
def test_memory_for_finished_tasks_is_bounded(monkeypatch):
    """Memory for finished tasks is bounded: 50,000 tasks take no more memory than 10,000."""
    monkeypatch.setattr(checking, "REMEMBERED_TASK_COUNT", 1_000)
    checker = Checker()

    def live(numbers):
        for number in numbers:
            for signal in CONSUMER_LIFECYCLE:
                checker.feed(signal, f"task-{number}")

    tracemalloc.start()
    try:
        live(range(10_000))
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        live(range(10_000, 50_000))
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert before < 1_000_000
    assert after < before * 1.1
    assert peak < before * 1.5  # what it remembers is laid out anew at times
    assert checker.count == 150_000
    assert checker.under_way == 0


def test_signal_after_the_end_is_noticed_for_remembered_tasks(monkeypatch):
    """A signal after the end is noticed for remembered tasks; for older tasks it looks like a new task's first."""
    monkeypatch.setattr(checking, "REMEMBERED_TASK_COUNT", 2)
    checker = Checker()
    for task in ("a", "b", "c"):
        for signal in CONSUMER_LIFECYCLE:
            checker.feed(signal, task)
    for task in ("b", "c"):
        with pytest.raises(IllegalSequence, match="that is final"):
            checker.feed("enqueued", task)
    checker.feed("enqueued", "a")
    assert checker.under_way == 1


def test_under_way_counts_tasks_that_are_not_final():
    """Tasks that may still get a signal are counted, outcomes included, final states excluded."""
    checker = Checker()
    for task, signals in {
        "a": CONSUMER_LIFECYCLE,
        "b": CONSUMER_LIFECYCLE[:2],
        "c": ("enqueued", "executing", "error"),
    }.items():
        for signal in signals:
            checker.feed(signal, task)
    assert checker.under_way == 2
    assert [fault.task for fault in checker.unfinished()] == ["b"]
    assert LIFECYCLE.state("error").kind is Kind.OUTCOME
