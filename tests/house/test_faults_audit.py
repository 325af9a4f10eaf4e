"""The audit after the faults: what is as it should be passes, and whatever is planted is found. An audit that cannot fail proves nothing."""

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
from lifecycle.core.task import Record
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


def test_history_without_its_middle_is_no_fault():
    """A long history leaves out its middle: the attempts there are explained; the parts around it are checked as ever."""
    states = [QUEUED, *[EXECUTING, RETRYING, QUEUED] * 40, EXECUTING, COMPLETED]
    whole = history(states)
    for gap in range(1, 7):
        kept = [*whole[:20], attrs.evolve(whole[20 + 3 * gap + gap], left_out=3 * gap + gap), *whole[21 + 4 * gap :]]
        task = Found("t", "add", COMPLETED, len(states), False, kept)
        assert tried([task], noted(states)).faults == []
        assert tried([task._replace(version=3)], noted(states)).count("illegal") == 1
        wrong = task._replace(history=[*kept[:-2], kept[-1]], version=len(states) - 1)
        assert tried([wrong], noted(states)).count("illegal") >= 1
        assert tried([task], [*noted(states), line(BEGIN, 99)]).count("unexplained") == 1
