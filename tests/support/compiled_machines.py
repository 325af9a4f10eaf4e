"""A small compiled machine, whether it has looked a trigger up, and all that can be attached to it."""

from types import SimpleNamespace
from unittest import mock

from support.machine_pairs import MACHINE_LISTS, TRANSITION_LISTS
from transitions import Event, State, Transition
from transitions.core import Condition

from lifecycle.core.machine import CompiledMachine


def make(model=None, cls=CompiledMachine, **options):
    """A machine of three states in a ring, and a model in the first."""
    options = {"states": ["a", "b", "c"], "initial": "a", "auto_transitions": False} | options
    ring = [["go", "a", "b"], ["go", "b", "c"], ["go", "c", "a"], ["stay", "a", None], ["again", "a", "="]]
    machine = cls(model=None, **{"transitions": ring} | options)
    model = SimpleNamespace() if model is None else model
    machine.set_state(machine.initial, model)
    return machine, model


def enters_library(machine, model, trigger="go", start="a"):
    """Whether a trigger from that state takes the library's path."""
    machine.set_state(start, model)
    with mock.patch.object(Event, "_trigger", autospec=True, side_effect=Event._trigger) as spy:
        assert machine.events[trigger].trigger(model) is True
    return spy.called


def nothing(*args, **kwargs):
    return True


ATTACHMENTS = {  # where something can be attached to a -> b: how, and how it is taken away again
    **{
        f"machine.{name} by {how}": (attach, lambda m, name=name: getattr(m, name).clear())
        for name in MACHINE_LISTS
        if name != "on_final"
        for how, attach in {
            "append": lambda m, name=name: getattr(m, name).append(nothing),
            "assignment": lambda m, name=name: setattr(m, name, nothing),
            "addition": lambda m, name=name: exec(f"m.{name} += [f]", {"m": m, "f": nothing}),  # noqa: S102
        }.items()
    },
    **{
        f"{state}.{name}": (
            lambda m, state=state, name=name: m.get_state(state).add_callback(name, nothing),
            lambda m, state=state, name=name: getattr(m.get_state(state), f"on_{name}").clear(),
        )
        for state, name in (("a", "exit"), ("b", "enter"))
    },
    **{
        f"transition.{name}": (
            lambda m, name=name: m.events["go"].add_callback(name, nothing),
            lambda m, name=name: getattr(m.get_transitions("go", "a")[0], name).pop(),
        )
        for name in TRANSITION_LISTS
    },
    "transition.conditions": (
        lambda m: m.get_transitions("go", "a")[0].conditions.append(Condition(nothing)),
        lambda m: m.get_transitions("go", "a")[0].conditions.clear(),
    ),
    **{
        f"assigned {name}": (
            lambda m, name=name: setattr(m.get_transitions("go", "a")[0], name, [nothing]),
            lambda m, name=name: setattr(m.get_transitions("go", "a")[0], name, ()),
        )
        for name in TRANSITION_LISTS
    },
    "assigned conditions": (
        lambda m: setattr(m.get_transitions("go", "a")[0], "conditions", [Condition(nothing)]),
        lambda m: setattr(m.get_transitions("go", "a")[0], "conditions", ()),
    ),
    "assigned on_enter": (
        lambda m: setattr(m.get_state("b"), "on_enter", [nothing]),
        lambda m: setattr(m.get_state("b"), "on_enter", ()),
    ),
    "assigned on_exit": (
        lambda m: setattr(m.get_state("a"), "on_exit", [nothing]),
        lambda m: setattr(m.get_state("a"), "on_exit", ()),
    ),
    "machine.on_final and a final state": (
        lambda m: (m.on_final.append(nothing), setattr(m.get_state("b"), "final", True)),
        lambda m: setattr(m.get_state("b"), "final", False),
    ),
    "a final state and machine.on_final": (
        lambda m: (setattr(m.get_state("b"), "final", True), m.on_final.append(nothing)),
        lambda m: setattr(m, "on_final", None),
    ),
    "a transition with a condition in front": (
        lambda m: m.events["go"].transitions["a"].insert(0, m.transition_cls("a", "c", conditions=lambda: False)),
        lambda m: m.events["go"].transitions["a"].pop(0),
    ),
    "a transition that becomes internal after one that is not": (
        lambda m: (m.add_transition("go", "a", None), m.events["go"].transitions["a"].reverse()),
        lambda m: m.events["go"].transitions["a"].sort(key=lambda t: t.dest is None),
    ),
    "a queue": (lambda m: setattr(m, "_queued", True), lambda m: setattr(m, "_queued", False)),
    "another state of that name": (
        lambda m: m.states.update(b=State("b")),
        lambda m: m.states.update(b=m.state_cls("b")),
    ),
    "a transition of another class": (
        lambda m: m.events["go"].transitions.update(a=[Transition("a", "b")]),
        lambda m: (m.remove_transition("go", "a"), m.add_transition("go", "a", "b")),
    ),
}
