"""The compiled machine is `transitions.Machine`, only faster: two worlds are built alike, and told apart by nothing."""

import copy
import pickle
import threading
from collections import Counter
from enum import Enum, IntEnum, StrEnum
from functools import partial
from types import SimpleNamespace
from unittest import mock

import pytest
import transitions
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from transitions import Event, Machine, MachineError, State, Transition
from transitions.core import Condition
from transitions.extensions.states import Tags, Timeout, add_state_features

from lifecycle.machine import CompiledEvent, CompiledMachine, CompiledState, CompiledTransition, IllegalTransition

STATES = ("a", "b", "c", "d")
TRIGGERS = ("go", "run", "end")
MACHINE_LISTS = (
    "prepare_event",
    "before_state_change",
    "after_state_change",
    "finalize_event",
    "on_exception",
    "on_final",
)
STATE_LISTS = ("on_enter", "on_exit")
TRANSITION_LISTS = ("prepare", "before", "after")
LABELS = ("say", "tell", "boom", "yes", "no", "odd", "grow", "again-go", "again-run")

thorough = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Plain(Enum):
    a, b, c, d = range(4)


class Crossed(StrEnum):
    """Each member equals another one's name."""

    a, b, c, d = "b", "c", "d", "a"


class Named(str):
    """A string of another type: the same state to the library."""

    __slots__ = ()


class Boom(Exception):
    pass


# Two worlds ----------------------------------------------------------------------------------------------------------


class Model:
    """Has every callback as a method, for those that are given by name."""

    world = None


class Magic(Model):
    """Has methods that the library finds by their names."""

    def on_enter_b(self, *args, **kwargs):
        return self.world.call("magic-enter-b", *args, **kwargs)

    def on_exit_c(self, *args, **kwargs):
        return self.world.call("magic-exit-c", *args, **kwargs)


for _label in LABELS:
    setattr(Model, f"m_{_label}", lambda self, *args, _label=_label, **kwargs: self.world.call(_label, *args, **kwargs))


class OwnStock(Model, Machine):
    """A machine that is its own model."""


class OwnCompiled(Model, CompiledMachine):
    """A machine that is its own model."""


class World:
    """A machine, its models, the log of its callbacks, and the lists that its caller handed in."""

    def __init__(self, kind, spec):
        self.log, self.calls, self.budget, self.lists = [], Counter(), 0, []
        own = spec["model"] == "self"
        made = {False: (Machine, OwnStock), True: (CompiledMachine, OwnCompiled)}[kind][own]
        self.models = [] if own else [{"plain": Model, "magic": Magic}[spec["model"]]() for _ in range(2)]
        self.names = spec["names"]
        self.machine = made(
            model=Machine.self_literal if own else None,
            states=[self.state(state) for state in spec["states"]],
            initial=self.value("a"),
            **{name: self.hooks(spec["machine"].get(name)) for name in MACHINE_LISTS},
            **spec["options"],
        )
        self.models = [self.machine] if own else self.models
        for model in self.models:
            model.world = self
        if not own:
            self.machine.add_model(self.models)
        for transition in spec["transitions"]:
            self.add(*transition)

    def value(self, name):
        return name if self.names is None else self.names[name]

    def state(self, spec):
        name, hooks, extra = spec
        if not hooks and not extra:
            return self.value(name)
        return {"name": self.value(name), **{key: self.hooks(value) for key, value in hooks.items()}, **extra}

    def hook(self, hook):
        form, label = hook
        return f"m_{label}" if form == "named" else partial(self.call, label)

    def hooks(self, hooks):
        """One hook is given alone, several as a list: ours to change later."""
        if hooks is None or (isinstance(hooks, tuple) and isinstance(hooks[0], str)):
            return hooks and self.hook(hooks)
        self.lists.append([self.hook(hook) for hook in hooks])
        return self.lists[-1]

    def add(self, trigger, source, dest, hooks):
        self.machine.add_transition(trigger, source, dest, **{key: self.hooks(value) for key, value in hooks.items()})

    def where(self):
        attribute = self.machine.model_attribute
        return [repr(getattr(model, attribute, "-")) for model in self.models]

    def call(self, label, *args, **kwargs):
        shown = [
            (arg.event.name, arg.state.name, arg.transition and arg.transition.dest, kind(arg.error), arg.result)
            if isinstance(arg, transitions.EventData)
            else arg
            for arg in args
        ]
        self.log.append((label, shown, kwargs, self.where()))
        self.calls[label] += 1
        if label == "boom":
            raise Boom
        if label == "grow" and self.calls[label] < 3:  # callbacks may attach callbacks
            self.machine.after_state_change.append(partial(self.call, "grown"))
        if label.startswith("again-") and self.budget > 0:  # and trigger again
            self.budget -= 1
            self.models[0].trigger(label.removeprefix("again-"))
        return label in {"yes", "named"} or (label == "odd" and self.calls[label] % 2 == 1)

    def transitions(self):
        return self.machine.get_transitions()

    def shape(self):
        """What the machine says of itself."""
        found = [(t.source, t.dest, len(t.conditions), len(t.before), len(t.after)) for t in self.transitions()]
        return found, list(self.machine.events), list(self.machine.states), self.machine.get_triggers(*STATES)


def kind(error):
    """The type of an error, for which the library's is as good as ours."""
    return MachineError if isinstance(error, IllegalTransition) else error and type(error)


# What can be done to a world: the same to both -----------------------------------------------------------------------


def pull(world, model, trigger, way, args):
    model = world.models[model % len(world.models)]
    world.budget = 3
    if way == "event":
        return world.machine.events[trigger].trigger(model, *args)
    if way == "dispatch":
        return world.machine.dispatch(trigger, *args)
    return model.trigger(trigger, *args) if way == "trigger" else getattr(model, trigger)(*args)


def may(world, trigger):
    return world.models[0].may_trigger(trigger)


def put(world, model, state):
    """Set a model's state by hand, to something sensible or not."""
    state = state() if isinstance(state, type) else state
    setattr(world.models[model % len(world.models)], world.machine.model_attribute, state)


def change(container, way, item):
    """Change a list in place, in one of the ways that lists have."""
    if way == "append":
        container.append(item)
    elif way == "extend":
        container.extend([item])
    elif way == "insert":
        container.insert(0, item)
    elif way == "slice":
        container[:] = [item]
    elif way == "del":
        del container[:]
    elif way == "clear":
        container.clear()
    elif way == "pop":
        container.pop()
    elif way == "remove":
        container.remove(container[0])
    elif way == "imul":
        container *= 0
    elif way == "iadd":
        container += [item]
    elif way == "reverse":
        container.reverse()
    elif way == "broken":  # adds one, then raises
        container.extend(item if i == 0 else 1 / 0 for i in range(2))


WAYS = (
    *("append", "extend", "insert", "slice", "del", "clear", "clear", "pop"),
    *("remove", "imul", "iadd", "reverse", "broken"),
)


def set_on_machine(world, name, hooks):
    setattr(world.machine, name, world.hooks(hooks))


def hang_on_machine(world, name, way, hook):
    change(getattr(world.machine, name), way, world.hook(hook))


def hang_on_state(world, state, name, way, hook):
    found = world.machine.get_state(state)
    if way == "add":
        found.add_callback(name.removeprefix("on_"), world.hook(hook))
    elif way == "magic":
        getattr(world.machine, f"{name}_{state}")(world.hook(hook))
    elif way == "set":
        setattr(found, name, [world.hook(hook)])
    else:
        change(getattr(found, name), way, world.hook(hook))


def hang_on_transition(world, index, name, way, hook):
    if not (found := world.transitions()):
        return
    found = found[index % len(found)]
    if way == "add":
        found.add_callback(name, world.hook(hook))
    elif way == "set":
        setattr(found, name, [world.hook(hook)])
    else:
        change(getattr(found, name), way, world.hook(hook))


def hang_on_event(world, trigger, name, hook):
    getattr(world.machine, f"{name}_{trigger}")(world.hook(hook))


def condition(world, index, way, hook, target):
    if found := world.transitions():
        change(found[index % len(found)].conditions, way, Condition(world.hook(hook), target))


def shared_list(world, index, way, hook):
    """Change a list that was handed in, where it came from."""
    if world.lists:
        change(world.lists[index % len(world.lists)], way, world.hook(hook))


def lend_list(world, index, other, name):
    """Have two transitions share a list."""
    if found := world.transitions():
        setattr(found[index % len(found)], name, getattr(found[other % len(found)], name))


def add_transition(world, transition):
    world.add(*transition)


def remove_transition(world, trigger, source, dest):
    world.machine.remove_transition(trigger, source, dest)


def turn(world, index, attribute, value):
    """Set an attribute of a transition."""
    if found := world.transitions():
        setattr(found[index % len(found)], attribute, value)


def reorder(world, trigger, source, way, index):
    """Change a list of transitions in place."""
    found = world.transitions()
    if found:
        change(world.machine.events[trigger].transitions[source], way, found[index % len(found)])


def drop_source(world, trigger, source, way):
    found = world.machine.events[trigger].transitions
    if way == "del":
        del found[source]
    elif way == "pop":
        found.pop(source)
    elif way == "set":
        found[source] = []
    else:
        world.machine.events[trigger].transitions = type(found)(list)


def add_state(world, name, hooks):
    world.machine.add_states(world.value(name), **{key: world.hooks(value) for key, value in hooks.items()})


def replace_state(world, name, foreign):
    make = State if foreign else world.machine.state_cls
    world.machine.states[name] = make(world.value(name))


def remove_state(world, name, way):
    world.machine.states.pop(name) if way else world.machine.states.__delitem__(name)


def describe(world, state, attribute, value):
    setattr(world.machine.get_state(state), attribute, value)


def option(world, name, value):
    setattr(world.machine, name, value)


def patch(world, target, name):
    """Put a method of one's own on an object of the machine's."""
    part = {
        "machine": lambda: world.machine,
        "state": lambda: world.machine.get_state("b"),
        "event": lambda: world.machine.events["go"],
        "transition": lambda: world.transitions()[0],
    }[target]()
    stock = getattr(part, name)

    def patched(*args):
        world.log.append(("patched", name))
        return stock(*args)

    setattr(part, name, patched)


PATCHES = [
    *(("machine", name) for name in ("_process", "callbacks", "get_state", "get_model_state", "set_state")),
    *(("state", name) for name in ("enter", "exit")),
    *(("event", name) for name in ("_trigger", "_process", "_is_valid_source")),
    *(("transition", name) for name in ("execute", "_eval_conditions", "_change_state")),
]

# Any of it -----------------------------------------------------------------------------------------------------------

names = st.sampled_from(STATES)
triggers = st.sampled_from(TRIGGERS)
indices = st.integers(0, 5)
one_hook = st.tuples(st.sampled_from(["function", "function", "named"]), st.sampled_from(LABELS))
some_hooks = one_hook | st.lists(one_hook, max_size=2)
ways = st.sampled_from(WAYS)


def few(keys):
    """Mostly nothing: a machine with a callback everywhere has nothing to compile."""
    return st.just({}) | st.just({}) | st.dictionaries(st.sampled_from(keys), some_hooks, max_size=2)


transition_specs = st.tuples(
    triggers,
    names | st.just("*") | st.lists(names, min_size=1, max_size=3),
    names | names | names | st.sampled_from(["=", None]),
    few((*TRANSITION_LISTS, "conditions", "unless")),
)
state_specs = st.tuples(
    *(
        st.tuples(
            st.just(name),
            few(STATE_LISTS),
            st.sampled_from([{}, {}, {"final": True}, {"ignore_invalid_triggers": True}]),
        )
        for name in STATES
    )
)
specs = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["plain", "plain", "magic", "self"]),
        "names": st.sampled_from([None, None, None, Plain, Crossed]),
        "states": state_specs,
        "machine": few(MACHINE_LISTS),
        "transitions": st.lists(transition_specs, min_size=2, max_size=8),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "send_event": st.booleans(),
                "queued": st.sampled_from([False, False, True]),
                "ignore_invalid_triggers": st.booleans(),
                "auto_transitions": st.booleans(),
                "model_attribute": st.sampled_from(["state", "state", "mode"]),
                "name": st.just("m"),
            },
        ),
    }
)
values = st.sampled_from([*STATES, *Plain, *Crossed, *map(Named, STATES), "zz", None, 1, list, dict])
pulls = st.tuples(
    st.just(pull),
    st.integers(0, 1),
    triggers | triggers | triggers | st.sampled_from(["to_a", "to_b", "none"]),
    st.sampled_from(["event", "method", "trigger", "dispatch"]),
    st.sampled_from([(), (), (1,)]),
)
changes = {
    "asking": st.tuples(st.just(may), triggers),
    "state by hand": st.tuples(st.just(put), st.integers(0, 1), values),
    "machine set": st.tuples(
        st.just(set_on_machine), st.sampled_from(MACHINE_LISTS), st.none() | st.none() | some_hooks
    ),
    "machine list": st.tuples(st.just(hang_on_machine), st.sampled_from(MACHINE_LISTS), ways, one_hook),
    "state list": st.tuples(
        st.just(hang_on_state),
        names,
        st.sampled_from(STATE_LISTS),
        ways | st.sampled_from(["add", "magic", "set"]),
        one_hook,
    ),
    "transition list": st.tuples(
        st.just(hang_on_transition),
        indices,
        st.sampled_from(TRANSITION_LISTS),
        ways | st.sampled_from(["add", "set"]),
        one_hook,
    ),
    "event": st.tuples(st.just(hang_on_event), triggers, st.sampled_from(TRANSITION_LISTS), one_hook),
    "condition": st.tuples(st.just(condition), indices, ways, one_hook, st.booleans()),
    "caller's list": st.tuples(st.just(shared_list), indices, ways, one_hook),
    "lent list": st.tuples(st.just(lend_list), indices, indices, st.sampled_from(TRANSITION_LISTS)),
    "transition added": st.tuples(st.just(add_transition), transition_specs),
    "transition removed": st.tuples(st.just(remove_transition), triggers, names | st.just("*"), names | st.just("*")),
    "transition turned": st.tuples(
        st.just(turn),
        indices,
        st.sampled_from(["source", "dest", "dest"]),
        names | st.sampled_from([None, "", "zz", *Crossed]),
    ),
    "order": st.tuples(st.just(reorder), triggers, names, ways, indices),
    "source dropped": st.tuples(st.just(drop_source), triggers, names, st.sampled_from(["del", "pop", "set", "all"])),
    "state added": st.tuples(st.just(add_state), names | st.just("e"), few(STATE_LISTS)),
    "state replaced": st.tuples(st.just(replace_state), names, st.booleans()),
    "state removed": st.tuples(st.just(remove_state), names, st.booleans()),
    "final": st.tuples(st.just(describe), names, st.just("final"), st.booleans()),
    "renamed": st.tuples(st.just(describe), names, st.just("_name"), names),
    "state's choice": st.tuples(
        st.just(describe), names, st.just("ignore_invalid_triggers"), st.sampled_from([None, True, False])
    ),
    "machine's choice": st.tuples(
        st.just(option), st.sampled_from(["send_event", "ignore_invalid_triggers", "_queued"]), st.booleans()
    ),
    "attribute": st.tuples(st.just(option), st.just("model_attribute"), st.sampled_from(["state", "mode"])),
    "patch": st.sampled_from(PATCHES).map(lambda found: (patch, *found)),
}


seen = Counter()


def outcome(world, action, *args):
    """What doing it comes to, and the error itself if it is one."""
    try:
        return ("returned", action(world, *args)), None
    except Exception as error:
        return ("raised", kind(error)), error


def check_alike(spec, steps):
    """Do the same in both worlds and compare all that can be seen, after each step."""
    stock, compiled = World(False, spec), World(True, spec)
    for action, *args in steps:
        entered = seen["library"]
        expected, _ = outcome(stock, action, *args)
        found, error = outcome(compiled, action, *args)
        if action is pull:
            seen["looked up"] += entered == seen["library"] and found == ("returned", True)
        assert found == expected, action.__name__
        assert compiled.log == stock.log
        assert compiled.where() == stock.where()
        assert outcome(compiled, World.shape)[0] == outcome(stock, World.shape)[0]
        if type(error) is MachineError:
            assert "queue" in str(error)  # every other one is an IllegalTransition
        if isinstance(error, IllegalTransition):
            assert error.allowed == tuple(stock.machine.get_triggers(error.state))
            assert error.trigger not in error.allowed


def counted(self, event_data, _trigger=Event._trigger):
    seen["library"] += isinstance(self, CompiledEvent)
    return _trigger(self, event_data)


def test_any_machine_and_any_use_of_it_is_alike():
    """Results, types of errors, states, and the order of callbacks are the library's, whatever is attached and when."""

    @settings(thorough, max_examples=400)
    @given(specs, st.lists(pulls | pulls | st.one_of(*changes.values()), min_size=4, max_size=24))
    def alike(spec, steps):
        before = seen["looked up"]
        check_alike(spec, steps)
        event(f"looked up {min(seen['looked up'] - before, 5)} times")

    seen.clear()
    with mock.patch.object(Event, "_trigger", counted):
        alike()
    assert seen["looked up"] > 50
    assert seen["library"] > 50


FLAT = [
    *(("go", "a", "b", {}), ("go", "b", "c", {}), ("go", "c", "a", {})),
    *(("run", "a", "=", {}), ("run", "a", "c", {}), ("run", "b", "a", {}), ("run", "c", "c", {})),
    *(("end", "a", "d", {}), ("end", "a", None, {}), ("end", "b", "d", {})),
]
ROUND = [(pull, 0, trigger, "event", ()) for trigger in ("go", "run", "go", "go", "go", "run", "run", "run")]
ROUND += [(pull, 1, "end", "method", ()), (put, 1, "b"), (pull, 1, "end", "trigger", ()), (put, 1, "a"), (put, 0, "a")]


@pytest.mark.parametrize("what", changes)
def test_a_bare_machine_changed_in_one_place_is_alike(what):
    """A change of any kind is noticed by a machine that has compiled all it can, and so is its undoing."""

    @settings(thorough, max_examples=60)
    @given(
        change=changes[what],
        back=changes[what],
        model=st.sampled_from(["plain", "self"]),
        names=st.sampled_from([None, None, Plain, Crossed]),
        options=st.sampled_from([{}, {"send_event": True}, {"auto_transitions": False}]),
        lists=st.sampled_from([{}, {}, {"after_state_change": []}, {"on_final": []}]),
    )
    def alike(change, back, model, names, options, lists):
        states = [(name, {}, {"final": True} if name == "d" else {}) for name in STATES]
        spec = {"model": model, "names": names, "states": states, "machine": lists, "transitions": FLAT}
        check_alike(spec | {"options": options}, [*ROUND, change, *ROUND, back, *ROUND])

    seen.clear()
    with mock.patch.object(Event, "_trigger", counted):
        alike()
    assert seen["looked up"] > 100
    assert seen["library"] > 100


# The compiled path ---------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("attach", "detach"), ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_the_library_is_entered_while_something_is_attached(attach, detach):
    """A trigger is looked up exactly as long as nothing is attached to it, whenever that begins and ends."""
    machine, model = make()
    assert not enters_library(machine, model)
    attach(machine)
    assert enters_library(machine, model)
    assert enters_library(machine, model)
    detach(machine)
    assert not enters_library(machine, model)


def test_a_trigger_is_looked_into_once():
    """Whether a trigger can be looked up is found out once, whatever the answer, until something changes."""
    machine, model = make()
    for attach in (list, lambda: machine.on_enter_b(nothing)):
        attach()
        with mock.patch.object(CompiledEvent, "_next", autospec=True, side_effect=CompiledEvent._next) as spy:
            for _ in range(3):
                model.state = "a"
                machine.events["go"].trigger(model)
        assert spy.call_count == 1


@pytest.mark.parametrize("how", [*MACHINE_LISTS[:5], *STATE_LISTS])
def test_what_is_attached_from_the_start_is_called(how):
    """A callback that a machine or a state is made with is called, and the rest is looked up once it is taken away."""
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
def test_what_is_documented_as_never_looked_up_is_not(options, trigger):
    """A queue, another attribute, a caller's list, a foreign state, an internal transition take the library's path."""
    machine, model = make(**options)
    assert enters_library(machine, model, trigger)
    assert enters_library(machine, model, trigger)


def test_final_states_matter_only_to_those_who_listen():
    """A callback for final states leaves the other states to the look-up, and an empty one leaves all of them."""
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


def test_a_state_put_back_is_looked_up():
    """A state that was missing makes its transitions fail, and is looked up once it is there."""
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
def test_the_ends_of_a_transition_can_be_anything(attribute, value, warm):
    """A transition whose source or destination is set to whatever is treated as the library does."""
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


def test_a_state_kept_under_another_name_is_the_library_s_to_judge():
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
def test_a_method_put_on_an_object_is_called(target, name):
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
    """The library's state features work; those that do something on entry are called."""

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


def test_a_state_of_two_machines_tells_both():
    """A state object that two machines share makes both of them call what is attached to it."""
    shared = CompiledState("b")
    pairs = [make(states=["a", shared, "c"]) for _ in range(2)]
    assert not any(enters_library(*pair) for pair in pairs)
    shared.on_enter.append(nothing)
    assert all(enters_library(*pair) for pair in pairs)
    shared.on_enter.clear()
    assert not any(enters_library(*pair) for pair in pairs)


def test_events_whose_tables_are_equal_are_told_each():
    """A change is told to every event, though two may know equally little at the time."""
    machine, model = make()
    assert not enters_library(machine, model, "go")
    machine.get_state("b").final = False  # which "go" forgets all about, and "again" has no part in
    assert not enters_library(machine, model, "again")
    machine.after_state_change.append(nothing)
    assert enters_library(machine, model, "again")
    assert enters_library(machine, model, "go")


@pytest.mark.parametrize("name", TRANSITION_LISTS)
def test_a_list_lent_to_another_transition_tells_both(name):
    """A list of callbacks that two transitions share is seen by both."""
    machine, model = make()
    first, second, *_ = machine.get_transitions("go")
    setattr(second, name, getattr(first, name))
    for start in "ab":
        enters_library(machine, model, start=start)
    getattr(first, name).append(nothing)
    assert enters_library(machine, model, start="a")
    assert enters_library(machine, model, start="b")


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
def test_what_is_no_state_is_the_library_s_to_judge(state):
    """A model in a state that is none of the machine's is treated as the library does, compiled or not."""
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
def test_a_machine_may_find_the_state_in_its_own_way(state):
    """A subclass that knows a state where the library knows none is asked for it, whatever is wrong with it."""

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


def test_a_handler_of_exceptions_is_asked():
    """An error within a trigger, an illegal one as well, goes to `on_exception` if there is one, and is not raised."""
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
def test_copies_are_machines_of_their_own(make_copy, warm, attach, detach):
    """A copied or pickled machine is looked up, and what is attached to one of the two is not attached to the other."""
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


@pytest.mark.parametrize("moment", ["_next", "_is_plain", "_is_idle", "_owns"])
@pytest.mark.parametrize(("attach", "detach"), ATTACHMENTS.values(), ids=ATTACHMENTS)
def test_what_is_attached_while_a_thread_compiles_is_called(attach, detach, moment):
    """A change in the midst of compiling, as another thread could make it, is not lost: the next trigger calls it."""
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


def test_what_is_compiled_during_a_change_is_forgotten_after_it():
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

    machine._readers = Racing(machine._readers)
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
def test_messages(args, message):
    """An illegal transition says what is where, what it cannot do, and what it could do instead."""
    error = IllegalTransition(**dict(zip(("state", "trigger", "allowed", "subject"), args, strict=False)))
    assert str(error) == error.value == message
    assert (error.state, error.trigger, error.allowed, error.subject) == (*args, None)[:4]
    assert isinstance(error, MachineError)


optional_text = st.none() | st.text()


@given(optional_text, st.text(), st.lists(st.text()).map(tuple), optional_text, st.integers(0, pickle.HIGHEST_PROTOCOL))
@settings(deadline=None)
def test_illegal_transitions_travel(state, trigger, allowed, subject, protocol):
    """An illegal transition survives copying and pickling, notes included."""
    error = IllegalTransition(state, trigger, allowed, subject)
    error.add_note("while testing")
    for other in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(other) is IllegalTransition
        assert (vars(other), str(other), other.args) == (vars(error), str(error), error.args)


def test_an_illegal_trigger_says_what_is_allowed():
    """A machine raises it with its own states and triggers, in order of definition, and changes nothing."""
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
