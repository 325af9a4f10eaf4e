"""The compiled path: taken while no callback is attached; no callback is ever skipped."""

import threading
from functools import partial
from unittest import mock

import pytest
from support.compiled_machines import ATTACHMENTS, enters_library, make, nothing
from support.machine_operations import PATCHES
from support.machine_pairs import MACHINE_LISTS, STATE_LISTS
from transitions import State
from transitions.extensions.states import Tags, Timeout, add_state_features

from lifecycle.core.machine import CompiledEvent, CompiledMachine, CompiledState, CompiledTransition


@pytest.mark.parametrize(("attach", "detach"), ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_library_path_is_taken_exactly_while_a_callback_is_attached(attach, detach):
    """A trigger is looked up exactly as long as no callback is attached on its path."""
    machine, model = make()
    assert not enters_library(machine, model)
    attach(machine)
    assert enters_library(machine, model)
    assert enters_library(machine, model)
    detach(machine)
    assert not enters_library(machine, model)


def test_trigger_is_inspected_once_per_change():
    """The inspection of a trigger happens once, whatever its result, until the machine changes."""
    machine, model = make()
    for attach in (list, lambda: machine.on_enter_b(nothing)):
        attach()
        with mock.patch.object(CompiledEvent, "_next", autospec=True, side_effect=CompiledEvent._next) as spy:
            for _ in range(3):
                model.state = "a"
                machine.events["go"].trigger(model)
        assert spy.call_count == 1


@pytest.mark.parametrize("how", [*MACHINE_LISTS[:5], *STATE_LISTS])
def test_callback_given_at_construction_is_called(how):
    """A callback given to the constructor of a machine or a state is called; other triggers are looked up."""
    calls = []
    call = partial(calls.append, how)
    if how in MACHINE_LISTS:
        machine, model = make(**{how: call})
    else:
        machine, model = make(states=["a", {"name": "b", how: call}, "c"])
    assert enters_library(machine, model, start="b" if how == "on_exit" else "a")
    assert calls == [how] * (how != "on_exception")
    getattr(machine if how in MACHINE_LISTS else machine.get_state("b"), how).clear()
    assert not enters_library(machine, model)
    assert not enters_library(machine, model, start="b")


@pytest.mark.parametrize(
    ("options", "trigger"),
    [
        ({"queued": True}, "go"),
        ({"model_attribute": "mode"}, "go"),
        ({"after_state_change": []}, "go"),  # the caller's own list
        ({"states": [State("a"), "b", "c"]}, "go"),
        ({"states": ["a", State("b"), "c"]}, "go"),
        ({"transitions": [{"trigger": "go", "source": "a", "dest": "b", "before": []}]}, "go"),
        ({}, "stay"),
    ],
)
def test_documented_exceptions_take_the_library_path(options, trigger):
    """A queue, another attribute, a caller's list, a foreign state and an internal transition take the library's path."""
    machine, model = make(**options)
    assert enters_library(machine, model, trigger)
    assert enters_library(machine, model, trigger)


def test_on_final_callback_affects_only_final_states():
    """A callback for final states leaves other states to the look-up, and an empty list leaves all of them."""
    machine, model = make(states=["a", "b", {"name": "c", "final": True}], on_final=nothing)
    assert not enters_library(machine, model)
    assert enters_library(machine, model, start="b")
    machine.on_final.clear()
    assert not enters_library(machine, model, start="b")


def test_reflexive_transitions_and_the_first_of_several_are_looked_up():
    """A transition to the same state is looked up, and so is the first of several if it has no condition."""
    machine, model = make()
    assert not enters_library(machine, model, "again")
    machine.add_transition("go", "a", "c", conditions=[nothing])
    assert not enters_library(machine, model)
    assert model.state == "b"


OVERRIDES = {
    "Machine": ("_process", "callbacks", "get_state", "get_model_state", "set_state", "has_queue", *MACHINE_LISTS),
    "State": ("enter", "exit", "name", "value"),
    "Transition": ("execute", "_eval_conditions", "_change_state"),
    "Event": ("_trigger", "_process", "_is_valid_source"),
}


@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in OVERRIDES.items() for name in names])
def test_an_overridden_method_is_called(part, name):
    """A method or property of a subclass is used by every trigger, as if it were the library's own machine."""
    stock = {
        "Machine": CompiledMachine,
        "State": CompiledState,
        "Transition": CompiledTransition,
        "Event": CompiledEvent,
    }
    found, calls = getattr(stock[part], name), []
    if isinstance(found, property):
        read = property(lambda self: calls.append(name) or found.fget(self), found.fset)
    else:

        def read(self, *args):
            calls.append(name)
            return found(self, *args)

    own = type("Own", (stock[part],), {name: read})
    cls = own
    if part != "Machine":
        cls = type("Machine", (CompiledMachine,), {f"{part.lower()}_cls": own})
    machine, model = make(cls=cls)
    for _ in range(2):
        assert enters_library(machine, model) or (part, name) == ("Event", "_trigger")
        assert name in calls or name in {"on_exception", "on_final"}  # which nothing reads while nothing happens
        calls.clear()


@pytest.mark.parametrize(("target", "name"), PATCHES)
def test_method_assigned_to_an_object_is_called(target, name):
    """A method assigned to the machine, a state, an event or a transition is called from the next trigger on."""
    machine, model = make()
    parts = {"machine": machine, "state": machine.get_state("b"), "event": machine.events["go"]}
    part = parts.get(target) or machine.get_transitions("go", "a")[0]
    assert not enters_library(machine, model)
    assert not enters_library(machine, model, start="b")
    with mock.patch.object(part, name, wraps=getattr(part, name)) as spy:
        for start in ("a", "b"):
            machine.set_state(start, model)
            spy.reset_mock()
            machine.events["go"].trigger(model)
            if (target, start, name) in {("state", "a", "exit"), ("state", "b", "enter"), ("transition", "b", name)}:
                continue
            assert spy.called


def test_state_features_are_kept():
    """The library's state features work; features that act on entry are called."""

    @add_state_features(Tags, Timeout)
    class Featured(CompiledMachine):
        pass

    expired = threading.Event()
    states = ["a", {"name": "b", "tags": ["x"], "timeout": 0.001, "on_timeout": expired.set}, "c"]
    machine, model = make(cls=Featured, states=states)
    assert enters_library(machine, model)
    assert machine.get_state("b").is_x
    assert expired.wait(10)

    @add_state_features(Tags)
    class Tagged(CompiledMachine):
        pass

    machine, model = make(cls=Tagged, states=["a", {"name": "b", "tags": ["x"]}, "c"])
    assert not enters_library(machine, model)
    machine.on_enter_b(nothing)
    assert enters_library(machine, model)
