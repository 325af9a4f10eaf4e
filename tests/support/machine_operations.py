"""Operations on a pair of machines, and Hypothesis strategies that draw them."""

from hypothesis import strategies as st
from support.machine_pairs import (
    LABELS,
    MACHINE_LISTS,
    STATE_LISTS,
    STATES,
    TRANSITION_LISTS,
    TRIGGERS,
    Crossed,
    Named,
    Plain,
)
from transitions import State
from transitions.core import Condition

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
