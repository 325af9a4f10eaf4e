"""Machines, states and models of all sorts, their copies and threads, and what is illegal."""

import copy
import pickle
from enum import IntEnum
from functools import partial
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compiled_machines import ATTACHMENTS, enters_library, make, nothing
from support.machine_pairs import Boom, Crossed, Plain, outcome
from transitions import Event, Machine, MachineError, Transition

from lifecycle.core.machine import CompiledEvent, CompiledMachine, IllegalTransition

# States and models of all sorts --------------------------------------------------------------------------------------


def test_models_with_slots_are_looked_up():
    """A model needs no more than a place for its state, which is set without a dictionary."""

    class Slotted:
        __slots__ = ("state",)

    machine, model = make(Slotted())
    assert not enters_library(machine, model)
    assert model.state == "b"


@pytest.mark.parametrize("states", [Plain, Crossed])
def test_members_of_an_enum_are_looked_up(states):
    """The states of a model are members of the Enum that the machine was made from, whatever they equal."""
    machine, model = make(states=states, initial=states.a)
    assert not enters_library(machine, model, start=states.a)
    assert model.state is states.b
    assert machine.triggers["go"](model) is True
    assert model.state is states.c


@pytest.mark.parametrize("state", [IntEnum("Number", "x b").b, Crossed.a, "zz", None, 1, ["a"], {}, object()])
def test_unknown_state_of_a_model_is_treated_as_in_the_library(state):
    """A model whose state is not a state of the machine is treated as the library does, compiled or not."""
    results = []
    for cls in (Machine, CompiledMachine):
        machine, model = make(cls=cls)
        for start in "abc":
            machine.set_state(start, model)
            machine.events["go"].trigger(model)
        model.state = state
        results.append(outcome(machine, lambda m, model=model: m.events["go"].trigger(model))[0])
    assert results[0] == results[1]


def test_a_state_that_equals_everything_is_not_looked_up():
    """A state with an equality of its own does not find the entry of another one."""

    class Any(str):
        __slots__ = ()

        def __eq__(self, other):
            return True

        __hash__ = str.__hash__

    machine, model = make()
    enters_library(machine, model)
    model.state = Any("a")
    with mock.patch.object(Event, "_trigger", autospec=True, side_effect=Event._trigger) as spy:
        assert machine.events["go"].trigger(model)
    assert spy.called


@pytest.mark.parametrize("state", [AttributeError, KeyError, TypeError, ["a"], "zz"])
def test_overridden_state_lookup_of_a_machine_is_used(state):
    """A subclass with its own way of finding a state is used, also for states that the library does not know."""

    class Lenient(CompiledMachine):
        def get_model_state(self, model):
            return self.get_state("a")

    class Odd:
        @property
        def state(self):
            if isinstance(state, type):
                raise state
            return state

    machine, _ = make(cls=Lenient)
    with mock.patch.object(Transition, "_change_state", autospec=True) as change_state:  # it reads the state again
        assert machine.events["go"].trigger(Odd()) is True
    assert change_state.called


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, Boom])
def test_errors_of_the_model_are_raised(error):
    """An error of the model's own, when its state is read or set, is raised as the library raises it."""

    class Broken:
        broken = False
        value = "a"

        @property
        def state(self):
            if self.broken == "read":
                raise error
            return self.value

        @state.setter
        def state(self, value):
            if self.broken == "set":
                raise error
            self.value = value

    for cls in (Machine, CompiledMachine):
        machine, model = make(Broken(), cls=cls)
        for broken in ("read", "set"):
            model.broken = False
            machine.set_state("a", model)
            machine.triggers["go"](model) if cls is CompiledMachine else None
            machine.set_state("a", model)
            model.broken = broken
            with pytest.raises(error):
                machine.events["go"].trigger(model)
            assert model.value == "a"


def test_errors_go_to_on_exception_if_set():
    """An error within a trigger, also an illegal trigger, goes to `on_exception` if set, and is not raised."""
    found = []
    machine, model = make(send_event=True)
    assert not enters_library(machine, model)
    machine.on_exception.append(lambda data: found.append(data.error))
    machine.set_state("b", model)
    assert machine.events["stay"].trigger(model) is False
    machine.on_enter_c(partial(pytest.fail, "called"))
    assert machine.events["go"].trigger(model) is False
    assert [type(error) for error in found] == [IllegalTransition, pytest.fail.Exception]


def test_a_machine_that_is_its_own_model_is_looked_up():
    """A machine may be its own model, with attributes of its own, and is looked up all the same."""
    machine = CompiledMachine(states=["a", "b"], initial="a", auto_transitions=False)
    machine.add_transition("go", ["a", "b"], "=")
    assert not enters_library(machine, machine)
    table = machine.events["go"]._cell[0]
    machine.counter = 1
    assert machine.go()
    assert machine.events["go"]._cell[0] is table  # neither state nor counter made it compile again


# Copies, threads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda machine: pickle.loads(pickle.dumps(machine))])  # noqa: S301
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(("attach", "detach"), ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_copied_machines_are_independent(make_copy, warm, attach, detach):
    """A copied or pickled machine looks triggers up, and a callback attached to one machine is not attached to the other."""
    machine, model = make()
    if warm:
        for start in "abc":
            enters_library(machine, model, start=start)
    other = make_copy(machine)
    assert not enters_library(other, model)
    attach(other)
    assert enters_library(other, model)
    assert not enters_library(machine, model)
    detach(other)
    assert not enters_library(other, model)
    attach(machine)
    assert enters_library(machine, model)
    assert not enters_library(other, model)


@pytest.mark.parametrize("moment", ["_next", "_is_plain", "_are_empty", "_owns"])
@pytest.mark.parametrize(("attach", "detach"), ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_callback_attached_while_a_thread_compiles_is_called(attach, detach, moment):
    """A change during compilation, as another thread could make it, is not lost: the next trigger calls the callback."""
    owner = next(cls for cls in CompiledEvent.__mro__ if moment in vars(cls))
    stock = getattr(owner, moment)
    for turn in range(30):
        machine, model = make()
        calls = []

        def then_attach(self, *args, calls=calls, machine=machine, turn=turn):
            result = stock(self, *args)
            calls.append(moment)
            if len(calls) == turn + 1:
                attach(machine)
            return result

        with mock.patch.object(owner, moment, then_attach):
            machine.events["go"].trigger(model)
        if len(calls) <= turn:
            break
        assert enters_library(machine, model)
        detach(machine)
        assert not enters_library(machine, model)
    assert 1 <= turn < 20  # it was tried after each call, and there were some


def test_entry_compiled_during_a_change_is_dropped_after_the_change():
    """A trigger between the beginning and the end of a change does not hide the change from the next one."""

    class Nosy:
        def __setattr__(self, name, value):
            if name == "_queued" and value:
                assert not enters_library(*pair)
            super().__setattr__(name, value)

    machine, model = pair = make(cls=type("NosyMachine", (CompiledMachine, Nosy), {}))
    machine.after_state_change.extend(nothing for _ in [1] if not enters_library(machine, model))
    assert enters_library(machine, model)
    machine.after_state_change.clear()
    machine._queued = True
    assert enters_library(machine, model)


def test_threads_that_drop_a_table_at_once_both_succeed():
    """A change that finds the table dropped by another thread in the meantime is no error."""
    machine, model = make()
    assert not enters_library(machine, model)

    class Racing(list):
        def __bool__(self):
            return True  # as it was when this thread looked

    machine._cells = Racing(machine._cells)
    machine._queued = True
    assert enters_library(machine, model)


# Illegal transitions -------------------------------------------------------------------------------------------------


MESSAGES = [
    (("complete", "start", (), "task 7"), "task 7 is complete: cannot start (final)"),
    (
        ("queued", "complete", ("schedule", "start", "revoke", "expire"), "task 7"),
        "task 7 is queued: cannot complete (allowed: schedule, start, revoke, expire)",
    ),
    (("complete", "start", ()), "complete: cannot start (final)"),
    (("queued", "complete", ("start",)), "queued: cannot complete (allowed: start)"),
    ((None, "start", ("enqueue",), "task 7"), "task 7 has no state: cannot start (allowed: enqueue)"),
    ((None, "start", ()), "no state: cannot start"),
]


@pytest.mark.parametrize(("args", "message"), MESSAGES)
def test_message_of_an_illegal_transition_names_subject_state_trigger_and_allowed(args, message):
    """The message of an illegal transition names the subject, its state, the trigger and the allowed triggers."""
    error = IllegalTransition(**dict(zip(("state", "trigger", "allowed", "subject"), args, strict=False)))
    assert str(error) == error.value == message
    assert (error.state, error.trigger, error.allowed, error.subject) == (*args, None)[:4]
    assert isinstance(error, MachineError)


optional_text = st.none() | st.text()


@given(optional_text, st.text(), st.lists(st.text()).map(tuple), optional_text, st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(deadline=None)
def test_illegal_transition_survives_copying_and_pickling(state, trigger, allowed, subject, protocol):
    """An illegal transition survives copying and pickling, notes included."""
    error = IllegalTransition(state, trigger, allowed, subject)
    error.add_note("while testing")
    for other in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(other) is IllegalTransition
        assert (vars(other), str(other), other.args) == (vars(error), str(error), error.args)


def test_illegal_trigger_lists_the_allowed_triggers_and_changes_nothing():
    """The error of an illegal trigger has the machine's own states and triggers in order of definition; nothing changes."""
    machine, model = make()
    for _ in range(2):
        machine.set_state("b", model)
        with pytest.raises(IllegalTransition, match=r"^b: cannot stay \(allowed: go\)$") as caught:
            machine.events["stay"].trigger(model)
        assert (caught.value.state, caught.value.trigger, caught.value.allowed) == ("b", "stay", ("go",))
        assert caught.value.subject is caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        assert model.state == "b"
    machine.remove_transition("go", "b")
    with pytest.raises(MachineError, match=r"^b: cannot stay \(final\)$"):
        machine.events["stay"].trigger(model)
    machine.set_state("a", model)
    machine.add_transition("new", "b", "c")
    with pytest.raises(IllegalTransition, match=r"^a: cannot new \(allowed: go, stay, again\)$"):
        machine.events["new"].trigger(model)


@pytest.mark.parametrize("where", ["machine", "state"])
def test_illegal_triggers_can_be_ignored(where):
    """An illegal trigger that the machine or the state ignores returns False and changes nothing."""
    machine, model = make()
    who = machine if where == "machine" else machine.get_state("b")
    who.ignore_invalid_triggers = True
    machine.set_state("b", model)
    assert machine.events["stay"].trigger(model) is False
    assert model.state == "b"


def test_triggers_are_found_by_name():
    """`triggers` gives, by name and in order of definition, the function that moves a model."""
    machine, model = make()
    assert list(machine.triggers) == ["go", "stay", "again"]
    for name, trigger in machine.triggers.items():
        machine.set_state("a", model)
        assert trigger(model) is True
        assert model.state == ("b" if name == "go" else "a")
