"""No unsound table can be built: each fault is reported, and no other."""

import functools
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import seldom

from lifecycle.core.table import Kind, Lifecycle, State, Transition
from lifecycle.errors import ConfigurationError
from lifecycle.testing.strategies import tables


def refused(states, rows, *faults):
    """Neither a list nor an iterator of such states and rows makes a table; the error tells these faults, no others."""
    for given_as in (list, iter):
        with pytest.raises(ConfigurationError) as caught:
            Lifecycle(given_as(states), given_as(rows))
        reported = str(caught.value).removeprefix("unsound table: ").split("; ")
        assert len(reported) == len(faults), reported
        assert all(any(fault in one for one in reported) for fault in faults), reported


@functools.cache
def new(name, kind=Kind.WAITING):
    """A state that no generated table has: their names have no capitals."""
    return State(name, f"{name}!", kind, "somebody")


def go(source, target, trigger="GO"):
    return Transition(trigger, source, target, "a test")


def pick(data, states, *, final=None):
    return data.draw(st.sampled_from([one for one in states if final is None or (one.kind is Kind.FINAL) == final]))


broken = given(tables(min_open=1), st.data())


@seldom
@given(tables(), st.data())
def test_state_defined_twice_is_refused(table, data):
    """No two states have one name."""
    states, rows = table
    twin = pick(data, states)
    refused([*states, State(twin.name, "TWIN", twin.kind, "")], rows, f"state {twin.name!r} is defined twice")


@seldom
@broken
def test_signal_defined_twice_is_refused(table, data):
    """No two states send one signal."""
    states, rows = table
    one, other = data.draw(st.permutations(states))[:2]
    twin = State(other.name, one.signal, other.kind, "")
    now = {**{state: state for state in states}, None: None, other: twin}
    rows = [row._replace(source=now[row.source], target=now[row.target]) for row in rows]
    refused([now[state] for state in states], rows, f"signal {one.signal!r} is defined twice")


@seldom
@broken
def test_row_defined_twice_is_refused(table, data):
    """No state and trigger lead to two targets, nor twice to the same."""
    states, rows = table
    row = data.draw(st.sampled_from([row for row in rows if row.source is not None]))
    again = row._replace(target=pick(data, states))
    refused(states, [*rows, again], f"{row.trigger!r} from {row.source} is defined twice")


@seldom
@broken
def test_row_with_an_unknown_state_is_refused(table, data):
    """No row names a state that the table does not have."""
    states, rows = table
    for start, end in itertools.permutations([pick(data, states, final=False), new("STRANGER")]):
        refused(states, [*rows, go(start, end)], "'GO' names STRANGER")


@seldom
@broken
def test_row_with_a_state_of_the_same_name_is_refused(table, data):
    """No row leads to another State object with the name of a state of the table."""
    states, rows = table
    real = pick(data, states)
    fake = State(real.name, "FAKE", real.kind, "")
    refused(states, [*rows, go(pick(data, states, final=False), fake)], f"'GO' names {real}")


@seldom
@broken
def test_unreachable_state_is_refused(table, data):
    """Every state can be reached; a ring of states that is not connected is refused as well."""
    states, rows = table
    way_out = go(new("ISLAND"), pick(data, states, final=True))
    refused([*states, new("ISLAND")], [*rows, way_out], "ISLAND cannot be reached")
    rows_of_ring = [*rows, way_out, go(new("ISLAND"), new("REEF"), "ROUND"), go(new("REEF"), new("ISLAND"))]
    culprits = "ISLAND cannot be reached", "REEF cannot be reached"
    refused([*states, new("ISLAND"), new("REEF")], rows_of_ring, *culprits)
    refused([*states, new("END", Kind.FINAL)], rows, "END cannot be reached")


@seldom
@broken
def test_row_that_leaves_a_final_state_is_refused(table, data):
    """No row leaves a final state, not even to itself."""
    states, rows = table
    end, target = pick(data, states, final=True), pick(data, states)
    refused(states, [*rows, go(end, target)], f"{end} is final but leads to {target}")
    refused(states, [*rows, go(end, end)], f"{end} is final but leads to {end}")


@seldom
@broken
def test_trap_is_refused(table, data):
    """At least one row leaves each state that is not final."""
    states, rows = table
    start, trap = pick(data, states, final=False), new("TRAP", data.draw(st.sampled_from([*Kind][:-1])))
    refused([*states, trap], [*rows, go(start, trap)], "TRAP is a trap")


@seldom
@broken
def test_state_without_a_path_to_a_final_state_is_refused(table, data):
    """A final state can be reached from each state."""
    states, rows = table
    way_in = go(pick(data, states, final=False), new("WHEEL"))
    rows = [*rows, way_in, go(new("WHEEL"), new("WHEEL"))]
    refused([*states, new("WHEEL")], rows, "no final state can be reached from WHEEL")
    rows = [*rows[:-1], go(new("WHEEL"), new("MILL")), go(new("MILL"), new("WHEEL"))]
    culprits = "no final state can be reached from WHEEL", "no final state can be reached from MILL"
    refused([*states, new("WHEEL"), new("MILL")], rows, *culprits)


@seldom
@given(tables(), st.data())
def test_at_least_one_row_creates_a_task(table, data):
    """At least one row creates a task; a second one may create it in another state."""
    states, rows = table
    refused(states, [row for row in rows if row.source is not None], "no row creates a task", *states)
    assert Lifecycle(states, [*rows, go(None, pick(data, states))]).initial == Lifecycle(states, rows).initial


@seldom
@broken
def test_all_faults_are_reported_at_once(table, data):
    """A table with several faults is refused with all of them."""
    states, rows = table
    start, end = pick(data, states, final=False), pick(data, states, final=True)
    more = [go(start, new("TRAP")), go(new("ISLAND"), end), go(end, start)]
    faults = "TRAP is a trap", "ISLAND cannot be reached", f"{end} is final"
    refused([*states, new("TRAP"), new("ISLAND")], [*rows, *more], *faults)
