"""The table is the law, held against a copy typed by hand; and so is any other table."""

import copy
import itertools
import pickle
from types import SimpleNamespace

import pytest
import transitions
from hypothesis import assume, given
from hypothesis import strategies as st
from support.strategies import EDGES, LAW, MOVES, of_kind, patient

import lifecycle
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle, State
from lifecycle.errors import ConfigurationError, UnknownSignal
from lifecycle.testing.strategies import lifecycles

EVERYWHERE = (None, *LAW)
COMMITS = {  # what one commit may make of a stored task
    None: {"queued", "pending"},
    "queued": {"scheduled", "executing", "revoked", "expired"},
    "scheduled": {"executing", "revoked", "expired"},
    "pending": {"queued", "scheduled", "executing", "revoked", "expired", "skipped"},
    "executing": {"complete", *of_kind("outcome"), "queued", "scheduled"},
    **{state: {"queued", "scheduled"} for state in (*of_kind("outcome"), "retrying")},
    **{state: set() for state in of_kind("final")},
}


def follow(edges, state, path):
    """The states on a path, and the trigger that leads nowhere, if one does: the plain way to read a table."""
    entered = []
    for trigger in path:
        if (state, trigger) not in edges:
            return entered, state, trigger
        state = edges[state, trigger]
        entered.append(state)
    return entered, state, None


def edges_of(table):
    return {(row.source and str(row.source), row.trigger): str(row.target) for row in table.transitions}


def allowed_in(table, state):
    return tuple(row.trigger for row in table.transitions if row.source == state)


def travel(value, protocol=None):
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 -- made here


def refusal(table, state, trigger):
    """Return the error for a trigger; fail if the table allows the trigger."""
    with pytest.raises(IllegalTransition) as caught:
        table.next(state, trigger)
    return caught.value


# The law -----------------------------------------------------------------------------------------------------------


def test_states_are_those_of_the_law():
    """The states are those of the law, in its order, each with signal, kind and note."""
    about = {state.name: (state.signal, state.kind.value, state.moved_by) for state in LIFECYCLE.states}
    assert list(about.items()) == list(LAW.items())
    assert LIFECYCLE.initial is LIFECYCLE.state("queued")


def test_rows_are_those_of_the_law():
    """The rows are those of the law, no more, each with a reason."""
    assert edges_of(LIFECYCLE) == EDGES
    assert len(LIFECYCLE.transitions) == len(EDGES) == 31
    assert LIFECYCLE.triggers == tuple(MOVES)
    assert all(row.why.strip() == row.why != "" and "\n" not in row.why for row in LIFECYCLE.transitions)
    assert repr(LIFECYCLE) == "<Lifecycle of 15 states and 31 transitions>"


@pytest.mark.parametrize("state", EVERYWHERE)
def test_every_state_and_trigger_lead_where_the_law_says(state):
    """In each state each trigger leads where the law says, or is refused with state, trigger and allowed triggers."""
    allowed = tuple(trigger for trigger in MOVES if (state, trigger) in EDGES)
    assert set(LIFECYCLE.allowed(state)) == set(allowed)
    assert LIFECYCLE.allowed(state) == allowed_in(LIFECYCLE, state)
    for trigger in MOVES:
        if (state, trigger) in EDGES:
            target = LIFECYCLE.next(state, trigger)
            assert target is LIFECYCLE.state(EDGES[state, trigger])
        else:
            refused = refusal(LIFECYCLE, state, trigger)
            assert (refused.state, refused.trigger, refused.allowed) == (state, trigger, LIFECYCLE.allowed(state))
            message = str(refused)
            assert message.startswith(f"{state or 'no state'}: cannot {trigger} (")
            assert all(name in message for name in allowed)
            assert message.endswith("(final)") == (state in of_kind("final"))
            assert isinstance(refused, transitions.MachineError)
            assert vars(travel(refused)) == vars(refused)


@patient
@given(st.sampled_from(EVERYWHERE), st.text() | st.sampled_from([name for name in LAW if name not in MOVES]))
def test_unknown_trigger_is_refused(state, word):
    """No other word is a trigger, not even the name of a state."""
    assume(word not in MOVES)
    assert refusal(LIFECYCLE, state, word).trigger == word


@patient
@given(st.text() | st.sampled_from(list(MOVES)))
def test_unknown_state_is_refused_with_the_list_of_states(name):
    """A name that is no state's is refused everywhere; the message lists the states."""
    assume(name not in LAW)
    for ask in (
        LIFECYCLE.state,
        LIFECYCLE.allowed,
        LIFECYCLE.targets,
        lambda name: LIFECYCLE.next(name, "start"),
        lambda name: LIFECYCLE.walk(name, ("start", "complete")),
        lambda name: LIFECYCLE.walk(name, ()),
    ):
        with pytest.raises(ConfigurationError) as caught:
            ask(name)
        assert str(caught.value) == f"no state {name!r}: there are {', '.join(LAW)}"


@patient
@given(st.text() | st.sampled_from(list(LAW)) | st.none() | st.lists(st.text()))
def test_unknown_signal_is_refused_with_the_list_of_signals(name):
    """A name that is no signal's is refused; the message lists the signals."""
    signals = [signal for signal, *_ in LAW.values()]
    assume(name not in signals)
    with pytest.raises(UnknownSignal) as caught:
        LIFECYCLE.by_signal(name)
    assert str(caught.value) == f"no signal {name!r}: there are {', '.join(signals)}"


def test_signal_constants_are_the_signals_of_the_law():
    """The fifteen `SIGNAL_*` constants are the signals of the law, as plain strings."""
    constants = {name: getattr(lifecycle, name) for name in dir(lifecycle) if name.startswith("SIGNAL_")}
    assert constants == {f"SIGNAL_{signal.upper().replace('-', '_')}": signal for signal, *_ in LAW.values()}
    assert all(type(value) is str for value in constants.values())
    assert list(lifecycle.SIGNALS) == [signal for signal, *_ in LAW.values()]


def test_steps_of_one_commit_follow_the_law():
    """One commit takes a stored task only where rows of the law lead, through outcomes and passing states."""
    assert {start: set(ends) for start, ends in LIFECYCLE.steps.items()} == COMMITS
    with pytest.raises(TypeError):
        LIFECYCLE.steps["complete"] = frozenset({LIFECYCLE.initial})


@patient
@given(st.sampled_from(EVERYWHERE), st.lists(st.sampled_from(list(MOVES)), max_size=8))
def test_walk_stops_at_the_first_illegal_trigger(state, path):
    """A path is walked row by row, and refused at the first trigger that its state does not allow."""
    entered, at, refused = follow(EDGES, state, path)
    for _ in range(2):  # what is remembered is the same
        if refused is None:
            assert LIFECYCLE.walk(state, tuple(path)) == tuple(entered)
        else:
            with pytest.raises(IllegalTransition) as caught:
                LIFECYCLE.walk(state, tuple(path))
            assert (caught.value.state, caught.value.trigger) == (at, refused)
            assert caught.value.allowed == LIFECYCLE.allowed(at)


def test_walk_along_every_path():
    """Every life of up to six transitions can be walked, whole, from the task's birth."""
    todo = [((), None)]
    for path, state in todo:
        assert LIFECYCLE.walk(None, path) == tuple(follow(EDGES, None, path)[0])
        if len(path) < 6:
            todo += [((*path, trigger), EDGES[source, trigger]) for source, trigger in EDGES if source == state]


# Its machine -------------------------------------------------------------------------------------------------------


def moves_of(machine):
    """Return all transitions of a machine, as the library lists them."""
    return sorted((row.source, name, row.dest) for name in machine.events for row in machine.get_transitions(name))


def moves_in(edges):
    """The same of a table's rows; a machine begins where a task is born already."""
    return sorted((source, trigger, target) for (source, trigger), target in edges.items() if source is not None)


def agree(table, machine, model, trigger_by):
    """Try every trigger in every state of a machine: it does what the table does, and says what the table says."""
    for state, trigger in itertools.product(table.states, machine.events):
        machine.set_state(state.name, model)
        if trigger in table.allowed(state):
            assert trigger_by(model, trigger)
            assert model.state == table.next(state, trigger)
        else:
            with pytest.raises(IllegalTransition) as caught:
                trigger_by(model, trigger)
            assert (caught.value.state, caught.value.trigger) == (state, trigger)
            assert set(caught.value.allowed) == set(table.allowed(state))
            if table is LIFECYCLE:
                assert str(caught.value) == str(refusal(table, state, trigger))
            assert model.state == state


def test_machine_has_the_states_and_rows_of_the_law():
    """The machine is one of `transitions`, with the law's states and rows, and no automatic transitions."""
    model = SimpleNamespace()
    machine = LIFECYCLE.machine(model)
    assert isinstance(machine, transitions.Machine)
    assert moves_of(machine) == moves_in(EDGES)
    assert list(machine.states) == list(LAW)
    assert model.state == machine.initial == "queued"
    assert not any(name.startswith("to_") for name in dir(model))


def test_machine_moves_models_as_the_law_says():
    """A model moves as the law says, by its methods, by name, and by the machine's own triggers; else nothing moves."""
    model = SimpleNamespace()
    machine = LIFECYCLE.machine(model)
    agree(LIFECYCLE, machine, model, lambda model, trigger: getattr(model, trigger)())
    agree(LIFECYCLE, machine, model, lambda model, trigger: model.trigger(trigger))
    bare = LIFECYCLE.machine()
    assert bare.models == []
    agree(LIFECYCLE, bare, model, lambda model, trigger: bare.triggers[trigger](model))


def test_each_machine_is_independent():
    """Each call makes an independent machine: its callbacks are called by no other; a list of models is accepted."""
    mine, yours = [SimpleNamespace(), SimpleNamespace()], SimpleNamespace()
    called = []
    LIFECYCLE.machine(mine).after_state_change.append(lambda: called.append("mine"))
    LIFECYCLE.machine(yours)
    yours.start()
    assert called == []
    assert mine[1].start()
    assert (called, mine[0].state, mine[1].state) == (["mine"], "queued", "executing")


# Any table ---------------------------------------------------------------------------------------------------------


@patient
@given(lifecycles())
def test_any_sound_table_answers_as_its_rows_say(table):
    """A sound table exists, and answers every question as its rows do."""
    edges = edges_of(table)
    assert len(edges) == len(table.transitions)
    for state in (None, *table.states):
        assert table.allowed(state) == allowed_in(table, state)
        targets = [row.target for row in table.transitions if row.source == state]
        assert table.targets(state) == tuple(dict.fromkeys(targets))
        for trigger in table.triggers:
            if (state, trigger) in edges:
                assert table.next(state, trigger) == edges[state, trigger]
            else:
                assert refusal(table, state, trigger).allowed == table.allowed(state)
    assert edges[None, table.allowed(None)[0]] == table.initial
    assert set(table.triggers) == {row.trigger for row in table.transitions}
    assert len(set(table.triggers)) == len(table.triggers)
    for kinds in itertools.combinations(Kind, 2):
        assert table.of_kind(*kinds) == tuple(state for state in table.states if state.kind in kinds)
    assert table.of_kind() == ()
    assert all(table.state(state.name) is state for state in table.states)
    assert all(table.by_signal(state.signal) is state for state in table.states)
    assert table.signals == tuple(state.signal for state in table.states)
    assert table == table != Lifecycle(table.states, table.transitions)  # noqa: PLR0124 -- by identity


@patient
@given(lifecycles())
def test_steps_of_any_table(table):
    """The commits of any table are what a search through all its paths finds."""
    edges, kinds = edges_of(table), {state.name: state.kind for state in table.states}

    def ends(state, through):
        for (source, _), target in edges.items():
            if source == state and target not in through:
                if kinds[target] is not Kind.PASSING:
                    yield target
                if kinds[target] in (Kind.OUTCOME, Kind.PASSING):
                    yield from ends(target, {*through, target})

    assert table.steps == {state: set(ends(state, set())) for state in (None, *kinds)}


@patient
@given(lifecycles())
def test_machine_of_any_table(table):
    """The machine of any table does what the table does."""
    model = SimpleNamespace()
    machine = table.machine(model)
    assert set(machine.events) == {row.trigger for row in table.transitions if row.source is not None}
    agree(table, machine, model, lambda model, trigger: model.trigger(trigger))
    assert moves_of(machine) == moves_in(edges_of(table))


# A state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", LIFECYCLE.states, ids=str)
def test_state_equals_its_name(state):
    """A state compares, prints, hashes and is stored as the string of its name."""
    assert isinstance(state, str)
    assert state == state.name == str(state) == f"{state}"
    assert type(state.name) is str
    assert {state: 1}[state.name] == {state.name: 1}[state] == 1
    assert {state, state.name} == {state.name}
    assert hash(state) == hash(state.name)


@pytest.mark.parametrize("state", LIFECYCLE.states, ids=str)
def test_copied_state_keeps_its_attributes(state):
    """A copy of a state, pickled or not, has the same attributes."""
    pickled = [travel(state, protocol) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for other in (copy.copy(state), copy.deepcopy(state), *pickled):
        assert type(other) is State
        assert (other, other.name, other.signal, other.kind, other.moved_by) == (
            state, state.name, state.signal, state.kind, state.moved_by,
        )  # fmt: skip
