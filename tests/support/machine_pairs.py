"""Two worlds: a machine of the library's and a compiled one of ours, built alike, and what can be seen of them."""

from collections import Counter
from enum import Enum, StrEnum
from functools import partial

import transitions
from transitions import Machine, MachineError

from lifecycle.core.machine import CompiledMachine, IllegalTransition

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


class Model:
    """Model with every callback as a method, for callbacks given by name."""

    world = None


class Magic(Model):
    """Model with methods that the library finds by name."""

    def on_enter_b(self, *args, **kwargs):
        return self.world.call("magic-enter-b", *args, **kwargs)

    def on_exit_c(self, *args, **kwargs):
        return self.world.call("magic-exit-c", *args, **kwargs)


for _label in LABELS:
    setattr(
        Model,
        f"m_{_label}",
        lambda self, *args, _label=_label, **kwargs: self.world.call(_label, *args, **kwargs),
    )


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
        """Return a single hook alone, several hooks as a list that may be changed later."""
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
        """Return the machine's description of itself."""
        found = [(t.source, t.dest, len(t.conditions), len(t.before), len(t.after)) for t in self.transitions()]
        return found, list(self.machine.events), list(self.machine.states), self.machine.get_triggers(*STATES)


def kind(error):
    """The type of an error, for which the library's is as good as ours."""
    return MachineError if isinstance(error, IllegalTransition) else error and type(error)


def outcome(world, action, *args):
    """Return the result of an operation, and the error if it raised."""
    try:
        return ("returned", action(world, *args)), None
    except Exception as error:
        return ("raised", kind(error)), error
