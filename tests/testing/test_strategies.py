"""The public strategies draw values as documented, and all of them."""

import itertools
import subprocess
import sys
from collections import Counter
from contextlib import closing
from random import Random

import attrs
import pytest
from hypothesis import Phase, find, given, seed, settings
from hypothesis import strategies as st
from support.strategies import EDGES, ENDINGS, LAW, of_kind, patient, seldom

from lifecycle import ConfigurationError, IllegalTransition
from lifecycle.core.policies import admit, claimed, settle
from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle, State, Transition
from lifecycle.core.task import Task
from lifecycle.storage import open_storage
from lifecycle.storage.base import Actor, ClaimRequest, Settlement
from lifecycle.testing import (
    Fault,
    IllegalSequence,
    Step,
    check,
    illegal_histories,
    legal_histories,
    lifecycles,
    outcomes,
    schedules,
    streams,
    tasks,
)
from lifecycle.testing.strategies import _faults
from lifecycle.testing.strategies.paths import Paths

STATE_OF = {signal: state for state, (signal, *_) in LAW.items()}
FOLLOWERS = {state: {LAW[end][0] for (start, _), end in EDGES.items() if start == state} for state in (None, *LAW)}
"""For each state (``None``: no task yet) the signals that may come; from the copy of the law that is typed by hand."""


def drawn(strategy, count=500, number=1):
    """Return what a strategy gives in so many examples; the same in each run with the same modules, by the number."""
    found = []

    @seed(number)
    @settings(patient, max_examples=count, database=None, phases=[Phase.generate])
    @given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


def gathered(strategy, is_enough, most=1000):
    """Draw examples, a hundred at a time, until there are enough, or as many as `most`: more than it mostly takes."""
    found = []
    for number in range(most // 100):
        found += drawn(strategy, 100, number)
        if is_enough(found):
            break
    return found


def steps(history):
    """The pairs of states that a history goes through."""
    states = [None, *(STATE_OF[signal] for signal in history)]
    return list(itertools.pairwise(states))


def first_fault(signals):
    """The place of the first signal that the law does not have there, from 1 on; and what it has."""
    state = None
    for place, signal in enumerate(signals, 1):
        if signal not in FOLLOWERS[state]:
            return place, FOLLOWERS[state]
        state = STATE_OF[signal]
    return None, FOLLOWERS[state]


def chain(length):
    """A table in which one can only go on, or end: its last state is rare in plain random walks."""
    open_states = [State(f"s{n}", f"s{n}", Kind.WAITING, "time") for n in range(length)]
    end = State("end", "end", Kind.FINAL, "nobody")
    rows = [Transition("make", None, open_states[0], "it is born")]
    for here, there in zip(open_states, [*open_states[1:], end], strict=True):
        rows += [Transition("go", here, there, "it can"), Transition("stop", here, end, "it can")]
    return Lifecycle([*open_states, end], rows)


# Legal -------------------------------------------------------------------------------------------------------------


@patient
@given(legal_histories())
def test_legal_histories_are_legal(history):
    """Each is legal by the law, has at least its first signal, and not more than it may have."""
    assert first_fault(history)[0] is None
    assert 1 <= len(history) <= 20


@patient
@given(legal_histories(complete=True))
def test_complete_histories_end_at_rest(history):
    """A whole life is legal and ends where a task may rest."""
    assert first_fault(history)[0] is None
    assert STATE_OF[history[-1]] in of_kind("outcome", "final")


def test_every_transition_is_drawn():
    """In 1,000 histories each row of the table is taken at least 20 times, rare states like `interrupted` included."""
    edges = {(start, end) for (start, _), end in EDGES.items()}

    def taken(histories):
        return Counter(step for history in histories for step in steps(history))

    found = taken(gathered(legal_histories(), lambda histories: min(taken(histories)[edge] for edge in edges) >= 20))
    assert set(found) == edges
    assert min(found.values()) >= 20, found


def test_deep_states_are_reached():
    """In a table of 15 states in a row, each of which may as well end, the last is entered in one history of 20."""
    histories = drawn(legal_histories(chain(15)), 200)
    assert sum("s14" in history for history in histories) > 10


def test_histories_of_every_length_are_drawn():
    """Short histories and long ones are drawn, up to the longest."""
    lengths = set(range(1, 13))
    histories = gathered(legal_histories(max_size=12), lambda found: set(map(len, found)) == lengths)
    assert set(map(len, histories)) == lengths


@patient
@given(st.data(), lifecycles())
def test_histories_of_any_table_are_legal(data, table):
    """With a table of one's own histories are legal there, and whole lives end where that lets a task rest."""
    history = data.draw(legal_histories(table))
    assert check(history, table) == len(history)
    longest = len(table.states) + 3
    history = data.draw(legal_histories(table, complete=True, max_size=longest))
    assert check(history, table, complete=True) == len(history) <= longest


def test_max_size_below_the_shortest_history_raises():
    """That no whole life is so short is said at once, not found by running dry."""
    with pytest.raises(ConfigurationError, match="max_size=1: every complete history has more signals"):
        legal_histories(complete=True, max_size=1)
    with pytest.raises(ConfigurationError, match="max_size=0: every history has more signals"):
        legal_histories(max_size=0)
    assert find(legal_histories(complete=True, max_size=2), lambda _: True) == ["enqueued", "revoked"]


@pytest.mark.parametrize("number", range(10))
def test_histories_shrink_to_short_ones(number):
    """A history that fails is shrunk to a short way to the failure."""

    def shrunk(condition):
        return find(
            legal_histories(), condition, random=Random(number), settings=settings(database=None, max_examples=1000)
        )

    assert len(shrunk(lambda history: len(history) > 2)) == 3
    assert len(shrunk(lambda history: "locked" in history)) <= 5


# Illegal -----------------------------------------------------------------------------------------------------------


@patient
@given(illegal_histories())
def test_illegal_histories_have_exactly_one_illegal_signal(illegal):
    """Each is illegal first where it says, by the law, and legal without that one signal."""
    place, legal = first_fault(illegal.signals)
    assert (place, set(illegal.legal)) == (illegal.position, legal)
    rest = [*illegal.signals]
    bad = rest.pop(place - 1)
    assert first_fault(rest)[0] is None
    assert len(illegal.signals) <= 20
    state = STATE_OF[rest[place - 2]] if place > 1 else None
    match illegal.fault:
        case Fault.UNKNOWN:
            assert bad not in STATE_OF
        case Fault.FIRST:
            assert state is None
            assert bad not in FOLLOWERS[None]
        case Fault.AFTER_END:
            assert state in of_kind("final")
        case Fault.REPEATED:
            assert STATE_OF[bad] == state
        case Fault.SKIPPED:
            assert any(bad in FOLLOWERS[STATE_OF[step]] for step in FOLLOWERS[state])
        case Fault.BACKWARDS:
            assert LAW[state][0] in FOLLOWERS[STATE_OF[bad]]
        case Fault.ELSEWHERE:
            assert bad in STATE_OF


@pytest.mark.untraced
def test_every_fault_is_drawn():
    """Each kind of fault comes often, anywhere in the history, and each state is one after which something is illegal."""

    def missing(found):
        kinds = Counter(one.fault for one in found)
        yield from (f"{fault} comes {kinds[fault]} times" for fault in Fault if kinds[fault] <= 25)
        yield from sorted(set(range(1, 13)) - {one.position for one in found})
        yield from sorted(set(STATE_OF) - {one.signals[one.position - 2] for one in found if one.position > 1})
        if all(one.position == len(one.signals) for one in found):
            yield "nothing ever follows the fault"

    found = gathered(illegal_histories(), lambda found: not [*missing(found)])
    assert [*missing(found)] == []


def test_every_illegal_pair_can_be_drawn():
    """Each signal that may not follow a state belongs to one kind of fault: none of the wrong pairs is out of reach."""
    pairs = [pair for found in _faults(Paths(LIFECYCLE)).values() for pair in found]
    wrong = {(state, signal) for state in (None, *LAW) for signal in STATE_OF if signal not in FOLLOWERS[state]}
    assert sorted(pairs, key=str) == sorted(wrong, key=str)


@patient
@given(st.data(), lifecycles())
def test_illegal_histories_of_any_table_are_illegal_where_they_say(data, table):
    """With a table of one's own the fault is one there, and the checker names it."""
    illegal = data.draw(illegal_histories(table))
    with pytest.raises(IllegalSequence) as caught:
        check(illegal.signals, table)
    assert (caught.value.position, caught.value.legal) == (illegal.position, illegal.legal)
    check([*illegal.signals[: illegal.position - 1], *illegal.signals[illegal.position :]], table)


# Streams and schedules ---------------------------------------------------------------------------------------------


@patient
@given(streams())
def test_streams_are_legal_for_each_task(stream):
    """A stream is legal for each of its tasks."""
    for task in {task for task, _ in stream}:
        assert first_fault([signal for one, signal in stream if one == task])[0] is None
    assert check(stream) == len(stream)


@patient
@given(streams(complete=True))
def test_complete_streams_bring_every_task_to_rest(stream):
    """If they are to, all tasks of a stream come to rest."""
    assert check(stream, complete=True) == len(stream)


def test_streams_interleave_tasks():
    """Tasks take turns: between two signals of one there are some of another."""
    stream = find(
        streams(),
        lambda stream: [task for task, _ in stream][:3] == ["task-0", "task-1", "task-0"],
        settings=settings(patient, max_examples=2000, phases=[Phase.generate]),
    )
    assert check(stream) == len(stream)


@patient
@given(schedules(("a", "b"), max_size=6))
def test_schedules_let_each_worker_claim_and_settle_in_turn(schedule):
    """Each worker claims, settles, claims, …, as often as it may, whatever the others do meanwhile."""
    for worker in ("a", "b"):
        own = [step for step in schedule if step.worker == worker]
        assert [step.outcome is None for step in own] == [number % 2 == 0 for number in range(len(own))]
        assert len(own) <= 6
    assert {step.worker for step in schedule} <= {"a", "b"}
    assert all(step.after in (0.0, 5.0, 10.0, 20.0) for step in schedule)


def test_schedules_interleave_workers():
    """There are schedules in which a worker sleeps past its lease while another claims."""

    def sleeps(steps):
        both_claim = [(step.worker, step.outcome is None) for step in steps[:2]] == [("a", True), ("b", True)]
        return both_claim and any(step.after > 10 for step in steps[1:])

    def overtakes(steps):
        return sleeps(steps) and [step.worker for step in steps[2:4]] == ["b", "a"]

    found = gathered(schedules(("a", "b"), max_size=3), lambda found: any(map(overtakes, found)), most=3000)
    assert any(map(overtakes, found))
    assert isinstance(found[-1], list)
    assert all(isinstance(step, Step) for steps in found for step in steps)


@seldom
@given(schedules(), st.integers(1, 3))
def test_store_keeps_legal_histories_under_any_schedule(schedule, number):
    """Whatever workers do to a store by a schedule, what it keeps of each task is a legal history."""
    with closing(open_storage("memory://", "q")) as store:
        store.enqueue([Task(f"t{birth}", "add", retries=1) for birth in range(number)], 0.0, Actor("producer"))
        now, held = 0.0, {}
        for step in schedule:
            now += step.after
            store.recover(now, Actor("recovery"))
            if step.outcome is None:
                _, claims = store.exchange([], ClaimRequest(step.worker, now, 10.0))
                held[step.worker] = next((one.after() for one in claims if one.move.path == ("start",)), None)
            elif (task := held.pop(step.worker, None)) is not None:
                move = settle(task, step.outcome, now, worker=step.worker)
                store.exchange([Settlement(task, move)], None)
        for birth in range(number):
            check([LIFECYCLE.state(record.state).signal for record in store.history(f"t{birth}")])


# Tasks and outcomes ------------------------------------------------------------------------------------------------


@patient
@given(tasks(), st.none() | st.sampled_from([name for name in LAW if name != "retrying"]))
def test_drawn_tasks_can_be_judged_by_a_claim(task, state):
    """A task is in any state of the law; a scheduled one has an ETA; a pending one waits for others; a claim can judge every one that waits."""
    assert task.state in LAW
    assert task.eta is not None or task.state != "scheduled"
    if task.state in of_kind("waiting"):
        trigger = admit(task, None, None, 5.0)
        from_state = "queued" if (task.state, trigger) == ("pending", "start") else task.state
        assert trigger is None or (from_state, trigger) in EDGES
        if trigger is not None:
            assert claimed(task, trigger, "w", 5.0, 1.0).state == EDGES[from_state, trigger]
    assert task.state != "pending" or task.step.awaits


@pytest.mark.untraced
def test_tasks_in_every_state_are_drawn():
    """Every state is drawn, unless it is said which shall be."""
    found = gathered(tasks(), lambda found: {task.state for task in found} == set(LAW))
    assert {task.state for task in found} == set(LAW)
    assert {task.state for task in drawn(tasks(("error", "queued")), 50)} == {"error", "queued"}


@patient
@given(tasks(("executing",)), outcomes())
def test_outcomes_end_running_attempts_only(task, outcome):
    """An outcome ends an attempt by its own trigger, and no other state; to interrupt a task that is to be canceled cancels it."""
    assert outcome.trigger in ENDINGS
    trigger = "cancel" if task.canceling and outcome.trigger == "interrupt" else outcome.trigger
    assert settle(task, outcome, 5.0, worker="w").states[0] == EDGES["executing", trigger]
    waiting = attrs.evolve(task, state="queued")
    with pytest.raises(IllegalTransition):
        settle(waiting, outcome, 5.0, worker="w")


def test_every_outcome_is_drawn():
    """Every way to end an attempt is drawn, retried or not, at once or later."""

    def is_enough(found):
        return (
            {one.trigger for one in found} == set(ENDINGS)
            and {one.retry for one in found} == {None, True, False}
            and {one.eta is None for one in found} == {True, False}
        )

    assert is_enough(gathered(outcomes(), is_enough))


# Tables ------------------------------------------------------------------------------------------------------------


def test_tables_of_every_shape_are_drawn():
    """Tables with one state and with many, with loops and without, and with states of every kind are drawn."""

    def is_enough(found):
        loops = {any(row.source == row.target for row in table.transitions) for table in found}
        return (
            {len(table.states) for table in found} >= set(range(1, 8))
            and {state.kind for table in found for state in table.states} == set(Kind)
            and loops == {True, False}
            and any(len(table.of_kind(Kind.FINAL)) > 1 for table in found)
        )

    assert is_enough(gathered(lifecycles(), is_enough))


def test_min_open_limits_the_number_of_final_states():
    """`min_open` says how many states are not final, at least."""
    assert min(len(table.states) - len(table.of_kind(Kind.FINAL)) for table in drawn(lifecycles(3), 100)) >= 3


# Without Hypothesis ------------------------------------------------------------------------------------------------

BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hypothesis":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import lifecycle.testing
from lifecycle.testing import VirtualClock, check
assert VirtualClock().now() == 1e9 and check(["enqueued", "executing"]) == 2
try:
    from lifecycle.testing import legal_histories
except ImportError as error:
    print(error)
try:
    lifecycle.testing.nonsense
except AttributeError as error:
    print(error)
print("hypothesis" in sys.modules)
"""


def test_names_that_need_hypothesis_say_so():
    """Where Hypothesis is not installed, clock and checker work, and the rest says what to install."""
    said = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == [
        "lifecycle.testing.legal_histories needs hypothesis: pip install 'task-lifecycle[testing]'",
        "module 'lifecycle.testing' has no attribute 'nonsense'",
        "False",
    ]
