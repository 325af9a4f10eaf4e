"""The compiled machine behaves as `transitions.Machine`: two equal worlds are built and compared."""

from collections import Counter
from unittest import mock

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from support.machine_operations import changes, pull, pulls, put, specs
from support.machine_pairs import STATES, Crossed, Plain, World, outcome
from support.profiles import examples, repeat_until
from transitions import Event, MachineError

from lifecycle.core.machine import CompiledEvent, IllegalTransition

calm = settings(deadline=None, suppress_health_check=list(HealthCheck))

seen = Counter()


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


@pytest.mark.untraced
def test_random_machines_behave_as_those_of_the_library():
    """Results, types of errors, states and the order of callbacks are as in the library, whatever is attached and when."""

    @settings(calm, max_examples=examples(400))
    @given(specs, st.lists(pulls | pulls | st.one_of(*changes.values()), min_size=4, max_size=24))
    def alike(spec, steps):
        before = seen["looked up"]
        check_alike(spec, steps)
        event(f"looked up {min(seen['looked up'] - before, 5)} times")

    seen.clear()
    with mock.patch.object(Event, "_trigger", counted):
        repeat_until(alike, alike, lambda: min(seen["looked up"], seen["library"]) > examples(50))
    assert min(seen["looked up"], seen["library"]) > examples(50)


FLAT = [
    *(("go", "a", "b", {}), ("go", "b", "c", {}), ("go", "c", "a", {})),
    *(("run", "a", "=", {}), ("run", "a", "c", {}), ("run", "b", "a", {}), ("run", "c", "c", {})),
    *(("end", "a", "d", {}), ("end", "a", None, {}), ("end", "b", "d", {})),
]
ROUND = [(pull, 0, trigger, "event", ()) for trigger in ("go", "run", "go", "go", "go", "run", "run", "run")]
ROUND += [(pull, 1, "end", "method", ()), (put, 1, "b"), (pull, 1, "end", "trigger", ()), (put, 1, "a"), (put, 0, "a")]


@pytest.mark.untraced
@pytest.mark.parametrize("what", changes)
def test_single_change_of_a_compiled_machine_is_noticed(what):
    """A machine that has compiled every entry notices a change of any kind, and the reversal of the change."""

    @settings(calm, max_examples=examples(60))
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
        repeat_until(alike, alike, lambda: min(seen["looked up"], seen["library"]) > examples(100))
    assert min(seen["looked up"], seen["library"]) > examples(100)
