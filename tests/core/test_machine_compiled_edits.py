"""Compiled entries are dropped when parts of the machine are edited in place, lent or shared."""

from functools import partial
from types import SimpleNamespace

import pytest
from support.compiled_machines import enters_library, make, nothing
from support.machine_pairs import STATES, TRANSITION_LISTS, Crossed, Plain, outcome
from transitions import Machine, MachineError

from lifecycle.core.machine import CompiledMachine, CompiledState, IllegalTransition


def test_a_transition_added_later_is_looked_up():
    """A pair that was illegal when it was first tried is looked up once there is a transition for it."""
    machine, model = make()
    machine.set_state("b", model)
    with pytest.raises(IllegalTransition):
        machine.events["stay"].trigger(model)
    machine.add_transition("stay", "b", "c")
    assert not enters_library(machine, model, "stay", "b")


def test_a_removed_transition_is_illegal_and_the_others_are_looked_up():
    """Removing a transition ends its look-up and keeps the others'; removing the last removes the trigger."""
    machine, model = make()
    assert not enters_library(machine, model)
    machine.remove_transition("go", "a")
    assert not enters_library(machine, model, start="b")
    machine.set_state("a", model)
    with pytest.raises(IllegalTransition):
        machine.events["go"].trigger(model)
    machine.events["go"].transitions["a"].append(machine.transition_cls("a", "c"))
    assert not enters_library(machine, model)
    machine.events["go"].transitions["a"].append(None)
    machine.events["go"].transitions["a"].reverse()
    with pytest.raises(AttributeError):
        enters_library(machine, model)
    machine.remove_transition("stay")
    assert "stay" not in machine.triggers


EDITS = {  # of the transitions from a, of which there are two
    "append": lambda found: found["a"].append(found["b"][0]),
    "extend": lambda found: found["a"].extend(found["b"]),
    "insert": lambda found: found["a"].insert(0, found["a"][1]),
    "slice": lambda found: found["a"].__setitem__(slice(1), []),
    "item": lambda found: found["a"].__setitem__(0, found["a"][1]),
    "del item": lambda found: found["a"].__delitem__(0),
    "list.pop": lambda found: found["a"].pop(0),
    "remove": lambda found: found["a"].remove(found["a"][0]),
    "list.clear": lambda found: found["a"].clear(),
    "reverse": lambda found: found["a"].reverse(),
    "sort": lambda found: found["a"].sort(key=lambda t: t.dest, reverse=True),
    "addition": lambda found: found["a"].__iadd__(found["b"]),
    "multiplication": lambda found: found["a"].__imul__(0),
    "set": lambda found: found.__setitem__("a", found["a"][1:]),
    "del": lambda found: found.__delitem__("a"),
    "dict.pop": lambda found: found.pop("a"),
    "popitem": lambda found: [found.popitem() for _ in list(found)],
    "dict.clear": lambda found: found.clear(),
    "update": lambda found: found.update(a=found["c"]),
    "union": lambda found: found.__ior__({"a": found["c"]}),
    "setdefault": lambda found: [found.pop("a"), found.setdefault("a", found["c"])],
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_transitions_can_be_edited_in_place(edit):
    """A change of an event's own transitions, by any method of a list or a dict, is noticed."""
    results = []
    for cls in (Machine, CompiledMachine):
        machine, model = make(cls=cls)
        machine.add_transition("go", "a", "c")
        enters_library(machine, model)
        model.state = "a"
        edit(machine.events["go"].transitions)
        results.append((outcome(machine, lambda m, model=model: m.events["go"].trigger(model))[0], model.state))
    assert results[0] == results[1]


def test_transitions_that_become_legal_in_place_are_looked_up():
    """A source added to an event's own dict is looked up after it was illegal."""
    machine, model = make()
    machine.set_state("b", model)
    assert outcome(machine, lambda m: m.events["stay"].trigger(model))[0] == ("raised", MachineError)
    machine.events["stay"].transitions.setdefault("b", machine.events["go"].transitions["b"])
    assert enters_library(machine, model, "stay", "b")  # the list is another event's
    found = machine.events["stay"].transitions
    del found["b"]
    found["b"].append(machine.transition_cls("b", "c"))
    assert not enters_library(machine, model, "stay", "b")
    kept = found.pop("b")
    machine.set_state("b", model)
    assert outcome(machine, lambda m: m.events["stay"].trigger(model))[0] == ("raised", MachineError)
    found.setdefault("b", kept)
    assert not enters_library(machine, model, "stay", "b")


STATE_EDITS = {
    "set": lambda m: m.states.__setitem__("b", CompiledState("b", on_enter=nothing)),
    "update": lambda m: m.states.update({"b": CompiledState("b", on_enter=nothing)}),
    "union": lambda m: m.states.__ior__({"b": CompiledState("b", on_enter=nothing)}),
    "del": lambda m: m.states.__delitem__("b"),
    "pop": lambda m: m.states.pop("b"),
    "popitem": lambda m: (m.states.move_to_end("b"), m.states.popitem()),
    "clear": lambda m: m.states.clear(),
    "assignment": lambda m: setattr(m, "states", {"a": m.states["a"]}),
}


@pytest.mark.parametrize("edit", STATE_EDITS.values(), ids=STATE_EDITS)
def test_states_can_be_edited_in_place(edit):
    """A change of the machine's own states, by any method of a dict, is noticed."""
    results = []
    for cls in (Machine, CompiledMachine):
        machine, model = make(cls=cls)
        enters_library(machine, model)
        model.state = "a"
        edit(machine)
        results.append((outcome(machine, lambda m, model=model: m.events["go"].trigger(model))[0], model.state))
    assert results[0] == results[1]


def test_state_that_is_added_again_is_looked_up():
    """A missing state makes its transitions fail, and is looked up once it is added again."""
    machine, model = make()
    gone = machine.states.pop("b")
    model.state = "a"
    with pytest.raises(ValueError, match="registered"):
        machine.events["go"].trigger(model)
    machine.states.setdefault("b", gone)
    assert not enters_library(machine, model)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [(end, value) for end in ("source", "dest") for value in (*Crossed, *Plain, *STATES[1:], "", None, ["b"], "zz")],
)
@pytest.mark.parametrize("warm", [False, True])
def test_source_and_destination_may_be_set_to_any_value(attribute, value, warm):
    """A transition whose source or destination is set to any value is treated as the library does."""
    results = []
    for cls in (Machine, CompiledMachine):
        machine, model = make(cls=cls, states=["a", "b", "c", "d", ""])
        calls = []
        machine.on_exit_c(partial(calls.append, "c"))
        machine.on_exit_d(partial(calls.append, "d"))
        if warm:
            enters_library(machine, model)
            model.state = "a"
        setattr(machine.get_transitions("go", "a")[0], attribute, value)
        for _ in range(2):
            model.state = "a"
            found, _ = outcome(machine, lambda m, model=model: m.events["go"].trigger(model))
            results.append((found, model.state, list(calls)))
    assert results[:2] == results[2:]


def test_state_registered_under_another_name_fails_as_in_the_library():
    """A transition into a state that is registered under another name fails as it does in the library."""
    machine, model = make()
    machine.states["b"] = CompiledState("x")
    for _ in range(2):
        model.state = "a"
        with pytest.raises(ValueError, match="'x' is not a registered state"):
            machine.events["go"].trigger(model)


def test_a_queue_that_is_switched_off_while_it_is_full_refuses():
    """A trigger that would overtake a queued one is refused, as by the library."""
    machine, model = make(queued=True)
    other = SimpleNamespace(state="c")

    def switch_off():
        machine._queued = False
        with pytest.raises(MachineError, match="queue is not empty"):
            machine.events["go"].trigger(other)

    machine.on_enter_b(switch_off)
    assert machine.events["go"].trigger(model) is True
    assert (model.state, other.state) == ("b", "c")


def test_an_event_given_to_another_machine_serves_that_one():
    """An event whose machine is replaced calls the callbacks of the new one."""
    machine, model = make()
    other, _ = make(after_state_change=nothing)
    assert not enters_library(machine, model)
    machine.events["go"].machine = other
    assert enters_library(machine, model)


def test_state_shared_by_two_machines_is_observed_by_both():
    """A callback attached to a state that two machines share is called by both machines."""
    shared = CompiledState("b")
    pairs = [make(states=["a", shared, "c"]) for _ in range(2)]
    assert not any(enters_library(*pair) for pair in pairs)
    shared.on_enter.append(nothing)
    assert all(enters_library(*pair) for pair in pairs)
    shared.on_enter.clear()
    assert not any(enters_library(*pair) for pair in pairs)


def test_change_drops_the_tables_of_all_events():
    """A change reaches every event, also events whose tables are equal at that time."""
    machine, model = make()
    assert not enters_library(machine, model, "go")
    machine.get_state("b").final = False  # which "go" forgets all about, and "again" has no part in
    assert not enters_library(machine, model, "again")
    machine.after_state_change.append(nothing)
    assert enters_library(machine, model, "again")
    assert enters_library(machine, model, "go")


@pytest.mark.parametrize("name", TRANSITION_LISTS)
def test_list_shared_by_two_transitions_is_observed_by_both(name):
    """A change of a callback list that two transitions share is noticed by both."""
    machine, model = make()
    first, second, *_ = machine.get_transitions("go")
    setattr(second, name, getattr(first, name))
    for start in "ab":
        enters_library(machine, model, start=start)
    getattr(first, name).append(nothing)
    assert enters_library(machine, model, start="a")
    assert enters_library(machine, model, start="b")
