"""The audit after the faults: what is as it should be passes, and whatever is planted is found. An audit that cannot fail proves nothing."""

from itertools import pairwise

import attrs
import pytest
from faults.audit import BEGIN, END, SIGNAL, Found, Line, audit
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.core.table import (
    COMPLETED,
    ERROR,
    EXECUTING,
    INTERRUPTED,
    LIFECYCLE,
    QUEUED,
    RETRYING,
    Kind,
)
from lifecycle.core.task import Record, cut_history, history_line, numbered, read_history
from lifecycle.testing import illegal_histories, legal_histories

STATE = {signal: LIFECYCLE.by_signal(signal).name for signal in LIFECYCLE.signals}
REST = {"add": frozenset(state.name for state in LIFECYCLE.of_kind(Kind.FINAL, Kind.OUTCOME))}


def history(states):
    """Records of these states."""
    records, attempt = [], 0
    for at, state in enumerate(states):
        attempt += state == EXECUTING
        records.append(Record(state, float(at), "w", attempt))
    return records


def found(states, task_id="t", held=False):
    """A task that has gone this way."""
    return Found(task_id, "add", states[-1], len(states), held, history(states))


def line(what, attempt=1, task="t"):
    return Line(what, task, attempt, 1, 1, 0.0)


def noted(states, choose=lambda options: options[0], task="t"):
    """What the bodies of a task that has gone this way have noted."""
    lines, attempt = [], 0
    for state, following in zip(states, [*states[1:], None], strict=True):
        if state == EXECUTING:
            attempt += 1
            ways = {COMPLETED: [[BEGIN, END]], ERROR: [[BEGIN]], RETRYING: [[BEGIN]]}
            ways[INTERRUPTED] = [[BEGIN, END], [BEGIN], []]
            lines += [line(what, attempt, task) for what in choose(ways.get(following, [[BEGIN], []]))]
    return lines


ONCE = [QUEUED, EXECUTING, COMPLETED]
AGAIN = [QUEUED, EXECUTING, INTERRUPTED, QUEUED, EXECUTING, COMPLETED]
FAILED = [QUEUED, EXECUTING, ERROR]


def tried(tasks=(), lines=(), wanted=None, rests=REST, locks=()):
    """What the audit has to say."""
    return audit({task.id: task.name for task in tasks} if wanted is None else wanted, tasks, lines, rests, locks)


@given(st.data())
def test_legal_lives_have_no_faults(data):
    """Legal lives, with the executions that they tell of, are no faults, and all are counted."""
    lives = data.draw(st.lists(legal_histories(complete=True), max_size=4))
    tasks, lines = [], []
    for number, signals in enumerate(lives):
        states = [STATE[signal] for signal in signals]
        tasks.append(found(states, str(number)))
        lines += noted(states, lambda options: data.draw(st.sampled_from(options)), str(number))
    result = tried(tasks, data.draw(st.permutations(lines)))
    assert result.faults == []
    assert result.tasks == len(lives)
    assert result.executions == sum(line.what == BEGIN for line in lines)
    ends = [record.state for task in tasks for record in task.history]
    assert result.interruptions == ends.count(INTERRUPTED)
    assert result.executions >= result.again >= result.done_again
    assert result.done_again <= result.interruptions


@given(legal_histories(complete=True), st.data())
def test_missing_signals_are_allowed_swapped_ones_are_not(signals, data):
    """Signals whose sender died may be missing; two signals in the wrong order are a fault."""
    states, lines = [STATE[signal] for signal in signals], noted([STATE[signal] for signal in signals])
    heard = [signal for signal in signals if data.draw(st.booleans())]
    assert tried([found(states)], [*lines, *(line(SIGNAL + signal) for signal in heard)]).faults == []
    spoilt = data.draw(st.permutations(signals))
    result = tried([found(states)], [*lines, *(line(SIGNAL + signal) for signal in spoilt)])
    assert result.count("out of order") == (spoilt != signals)


@given(illegal_histories())
def test_illegal_step_is_found_in_any_place(life):
    """A history that is illegal in one place is found, whichever place that is."""
    states = [STATE.get(signal, signal) for signal in life.signals]
    for state in states:
        if state not in STATE.values():
            return  # storage could not even read it
    assert tried([found(states)], noted(states)).count("illegal")


def test_duplicates_are_explained_by_interruptions():
    """An execution whose attempt was interrupted is counted apart, and so is one that had ended."""
    result = tried([found(AGAIN)], noted(AGAIN))
    assert (result.executions, result.again, result.done_again, result.faults) == (2, 1, 1, [])
    result = tried([found(AGAIN)], [line(BEGIN), line(BEGIN, 2), line(END, 2)])
    assert (result.executions, result.again, result.done_again, result.faults) == (2, 1, 0, [])


good = found(ONCE)
PLANTED = {
    "a task that is gone": ("lost", {"tasks": [], "wanted": {"t": "add"}}),
    "a task that nobody asked for": ("lost", {"tasks": [good], "lines": noted(ONCE), "wanted": {}}),
    "a task that waits": ("lost", {"tasks": [found([QUEUED])]}),
    "a task that runs": ("lost", {"tasks": [found([QUEUED, EXECUTING])], "lines": [line(BEGIN)]}),
    "a task that rests elsewhere": (
        "misplaced",
        {"tasks": [found(FAILED)], "lines": noted(FAILED), "rests": {"add": frozenset({COMPLETED})}},
    ),
    "an end that came twice": (
        "finished twice",
        {
            "tasks": [found([*ONCE, EXECUTING, COMPLETED])],
            "lines": [line(BEGIN), line(END), line(BEGIN, 2), line(END, 2)],
        },
    ),
    "another state than the history's": ("illegal", {"tasks": [good._replace(state=str(ERROR))], "lines": noted(ONCE)}),
    "a version that was left behind": ("illegal", {"tasks": [good._replace(version=2)], "lines": noted(ONCE)}),
    "no history": ("illegal", {"tasks": [good._replace(history=[], version=0)]}),
    "attempts that are not counted": (
        "illegal",
        {
            "tasks": [good._replace(history=[attrs.evolve(record, attempt=2) for record in good.history])],
            "lines": [line(BEGIN, 2), line(END, 2)],
        },
    ),
    "an attempt that ran twice": ("unexplained", {"tasks": [good], "lines": [line(BEGIN), line(BEGIN), line(END)]}),
    "an end that was done twice": ("unexplained", {"tasks": [good], "lines": [line(BEGIN), line(END), line(END)]}),
    "a run that was never started": (
        "unexplained",
        {"tasks": [good], "lines": [line(BEGIN), line(END), line(BEGIN, 2), line(END, 2)]},
    ),
    "a run of a task that is not there": ("unexplained", {"lines": [line(BEGIN)]}),
    "a success without a run": ("unexplained", {"tasks": [good]}),
    "a success of a run that did not end": ("unexplained", {"tasks": [good], "lines": [line(BEGIN)]}),
    "a failure of a run that ended": ("unexplained", {"tasks": [found(FAILED)], "lines": [line(BEGIN), line(END)]}),
    "a failure without a run": ("unexplained", {"tasks": [found(FAILED)]}),
    "a signal that nobody may have sent": (
        "out of order",
        {"tasks": [good], "lines": [*noted(ONCE), line("signal error")]},
    ),
    "a signal that came twice": (
        "out of order",
        {"tasks": [good], "lines": [*noted(ONCE), line("signal complete"), line("signal complete")]},
    ),
    "a task that is held": ("held", {"tasks": [good._replace(held=True)], "lines": noted(ONCE)}),
    "a lock that is taken": ("held", {"locks": ["door"]}),
}


@pytest.mark.parametrize(("kind", "what"), PLANTED.values(), ids=PLANTED)
def test_planted_fault_is_found_and_named(kind, what):
    """Each planted fault is found, named, and counted as its own kind."""
    result = tried(**what)
    assert result.count(kind) == 1
    assert len(result.faults) >= 1
    assert [sentence for sentence in result.faults if not sentence.startswith(kind)] == [] or kind == "finished twice"


def long_way(end=RETRYING, rounds=40):
    """Return the states of a task whose attempts end so, before one completes."""
    return [QUEUED, *[EXECUTING, end, QUEUED] * rounds, EXECUTING, COMPLETED]


LONG = long_way()


def cut(states):
    """A task that has gone this way, with its history as a store keeps it: without the middle."""
    whole = history(states)
    text = "".join(history_line(record.state, record.at, record.attempt, record.worker) for record in whole)
    return Found("t", "add", states[-1], len(states), False, read_history(cut_history(text)))


def sent(states):
    """The signals of these states, as handlers have noted them."""
    return [line(SIGNAL + LIFECYCLE.state(state).signal) for state in states]


def gap_of(task):
    """The numbers of the last record before the gap, and of the first record after the gap, in the whole history."""
    after = next(number for number, record in numbered(task.history) if record.left_out)
    before = max(number for number, _ in numbered(task.history) if number < after)
    return before, after


@given(st.data(), st.builds(long_way, st.sampled_from([RETRYING, INTERRUPTED]), st.integers(26, 46)))
def test_history_without_its_middle_is_no_fault(data, states):
    """A long history leaves out its middle: what its task ran and announced is no fault, even if signals are missing."""
    task = cut(states)
    assert any(record.left_out for record in task.history)
    missing = data.draw(st.sets(st.integers(0, len(states) - 1), max_size=9))
    signals = sent(state for number, state in enumerate(states) if number not in missing)
    lines = noted(states, lambda options: data.draw(st.sampled_from(options)))
    assert tried([task], [*lines, *signals]).faults == []


def without_record(task, place):
    records = [*task.history]
    del records[place]
    return task._replace(history=records, version=task.version - 1)


def test_parts_around_the_gap_are_checked_as_ever():
    """In a long history a wrong version, a step that the table lacks, and a wrong attempt are found on both sides."""
    task, lines = cut(LONG), noted(LONG)
    assert tried([task], lines).faults == []
    assert tried([task._replace(version=task.version + 1)], lines).count("illegal") == 1
    assert tried([task._replace(version=len(task.history))], lines).count("illegal") == 1
    for place in (5, -3):  # a `retrying` before the gap, and a `queued` after the gap
        assert tried([without_record(task, place)], lines).count("illegal") == 1
    first = next(place for place, record in enumerate(task.history) if record.left_out)
    starts = [place for place, record in enumerate(task.history) if record.state == EXECUTING]
    for place in (starts[1], next(place for place in starts if place > first)):
        shifted = [*task.history]
        shifted[place] = attrs.evolve(shifted[place], attempt=shifted[place].attempt + 100)
        assert tried([task._replace(history=shifted)], lines).count("illegal") == 1


def test_attempts_of_the_gap_are_explained_once():
    """An attempt of the gap, or one whose end the gap hides, may have run, but once; an attempt after the last may not."""
    for extra in range(3):
        states = long_way(rounds=40 + extra)
        task = cut(states)
        before, after = gap_of(task)
        hidden = {record.attempt for record in history(states)[before - 1 : after - 1] if record.attempt}
        assert len(hidden) > 10
        for attempt in hidden:
            assert tried([task], [*noted(states), line(BEGIN, attempt)]).count("unexplained") == 1
            without = [noted_line for noted_line in noted(states) if noted_line.attempt != attempt]
            known = attempt in {
                record.attempt
                for record, following in pairwise(task.history)
                if record.state == EXECUTING and not following.left_out
            }
            assert tried([task], without).count("unexplained") == known
        assert tried([task], [*noted(states), line(BEGIN, 99)]).count("unexplained") == 1


def test_ends_that_the_gap_hides_are_not_taken_for_other_ends():
    """The state after the gap is not the end of the attempt before the gap: the attempt counts as no interruption."""
    for extra in range(3):
        states = long_way(INTERRUPTED, 40 + extra)
        task = cut(states)
        result = tried([task], noted(states))
        ends = [following for record, following in pairwise(task.history) if record.state == EXECUTING]
        seen = [record for record in ends if record.state == INTERRUPTED and not record.left_out]
        assert result.faults == []
        assert result.interruptions == len(seen)


def test_signals_around_the_gap_are_checked_as_ever():
    """Signals in a wrong order, twice, too many for the gap, or of a final state in the middle are found."""
    task = cut(LONG)
    before, after = gap_of(task)
    whole = sent(LONG)
    assert tried([task], [*noted(LONG), *whole]).faults == []

    def out_of_order(signals):
        return tried([task], [*noted(LONG), *signals]).count("out of order")

    assert out_of_order([whole[1], whole[0], *whole[1:]]) == 1
    assert out_of_order([*whole, whole[-1]]) == 1
    assert out_of_order([*whole[:-2], whole[-1], whole[-2]]) == 1
    assert out_of_order([*whole[:before], *sent([COMPLETED]), *whole[before:]]) == 1
    assert out_of_order([*whole[:before], *sent([COMPLETED]), *whole[after:]]) == 1
    more = sent([ERROR] * (after - before))
    assert out_of_order([*whole[:before], *more[:-1], *whole[after - 1 :]]) == 0
    assert out_of_order([*whole[:before], *more, *whole[after - 1 :]]) == 1
