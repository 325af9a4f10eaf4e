"""`lifecycle verify`, and the properties of a table that it computes."""

import json
import os
import re

import pytest
from hypothesis import given
from support.strategies import LAW, patient

from lifecycle import FaultyTable, Kind, Lifecycle, State, Transition
from lifecycle.analysis.grammar import count, readable, sequences
from lifecycle.analysis.properties import properties
from lifecycle.testing import check, lifecycles

# Properties --------------------------------------------------------------------------------------------------------


@patient
@given(lifecycles())
def test_tables_that_can_be_built_have_all_properties(table):
    """For any table that can be built every property holds."""
    assert [one for one in properties(table) if not one.holds] == []
    assert len(properties(table)) == 7


def unchecked(states, rows):
    """A table without the checks of its constructor."""
    table = object.__new__(Lifecycle)
    table.states, table.transitions = tuple(states), tuple(rows)
    table._by_name = {state.name: state for state in states}
    table._rows = {name: {} for name in (None, *table._by_name)}
    table._walks = {}
    for row in rows:
        table._rows[row.source and row.source.name][row.trigger] = row.target
    return table


def test_each_property_can_fail():
    """Each property is computed from the answers of the table: a fault is named by its own property alone."""
    a, b = (State(name, name, Kind.WAITING, "x") for name in "ab")
    end, twin = State("end", "end", Kind.FINAL, "x"), State("twin", "end", Kind.FINAL, "x")
    new, on, off = Transition("make", None, a, ""), Transition("go", a, b, ""), Transition("stop", b, end, "")
    cases = {
        "every state can be reached": ([a, b, end], [new, Transition("go", a, end, ""), off], ("b",)),
        "no state is a trap": ([a, b, end], [new, on, Transition("stop", a, end, "")], ("b",)),
        "a final state can be reached": ([a, b], [new, on, Transition("back", b, a, "")], ("a", "b")),
        "no row leaves a final state": ([a, b, end], [new, on, off, Transition("undo", end, b, "")], ("end",)),
        "each state and trigger have one": ([a, b, end], [new, on, off, Transition("go", a, b, "")], ("go from a",)),
        "at least one row creates": ([a, b, end], [on, off], ("(none)",)),
        "each signal belongs to one": ([a, b, end, twin], [new, on, off, Transition("s", a, twin, "")], ("end",)),
    }
    assert [property_.holds for property_ in properties(unchecked([a, b, end], [new, on, off]))] == [True] * 7
    for place, (claim, (states, rows, faults)) in enumerate(cases.items()):
        found = properties(unchecked(states, rows))
        assert found[place].claim.startswith(claim)
        assert found[place].faults == faults
        with pytest.raises(FaultyTable):
            Lifecycle(states, rows)
    assert properties(unchecked([a, b, end], [on, off]))[0].faults == ("a", "b", "end")


# verify ------------------------------------------------------------------------------------------------------------


def test_verify(cli):
    """It prints the properties and the language: automaton, expression, and the number of sequences."""
    code, said, err = cli("verify")
    assert (code, err) == (0, "")
    assert said.startswith("lifecycle.LIFECYCLE: 15 states, 31 rows\n")
    assert said.count("✓") == 8
    assert "✗" not in said
    for name, line in readable().items():
        assert f"{name} = {line}" in said
    assert re.search(r"^ +8 signals +786 *$", said, re.MULTILINE)
    assert f"in all {sum(count(length=8)):>17,}" in said
    assert "error | timeout | locked | rate-limited | canceled → 6" in said


def test_verify_list(cli):
    """On demand it prints each legal sequence up to the length that was given."""
    code, said, _ = cli("verify", "--length", "3", "--list")
    assert code == 0
    listed = said.split("Each of them\n")[1].splitlines()
    assert [tuple(line.split()) for line in listed] == list(sequences(length=3))
    assert all(check(line.split()) == len(line.split()) for line in listed)


def test_verify_counts_sequences_that_are_too_many_to_list(cli):
    """Long sequences are counted, not listed one by one."""
    code, said, _ = cli("verify", "-n", "60")
    assert code == 0
    assert said.count("✓") == 7
    assert f"{count(length=60)[-1]:,}" in said


def test_verify_json_is_the_whole_report(cli):
    """With `--json` it prints the same as JSON."""
    code, said, _ = cli("verify", "--json", "--length", "4", "--list")
    report = json.loads(said)
    assert code == 0
    assert report["states"] == list(LAW)
    assert all(one["holds"] and one["faults"] == [] for one in report["properties"])
    assert report["counts"] == count(length=4)
    assert [tuple(one) for one in report["sequences"]] == list(sequences(length=4))
    assert re.fullmatch(report["expression"], "enqueued executing complete ")
    assert {name for one in report["automaton"] for name in one["members"]} == set(LAW)
    assert report["readable"] == readable()
    assert "sequences" not in json.loads(cli("verify", "--json")[1])


def test_verify_takes_a_table_of_the_user(cli):
    """A table of the user is verified in the same way; the attribute's name may be left out."""
    for target in ("own:TABLE", "own"):
        code, said, _ = cli("verify", target)
        assert code == 0
        assert said.startswith(f"{target}: 2 states, 2 rows\n")
        assert "LIFE = opened closed" in said


def test_verify_names_all_faults_of_a_table_that_cannot_be_built(cli):
    """A table that cannot be built: one line with each fault and its place, and exit code 1."""
    code, said, err = cli("verify", "faulty:TABLE")
    assert (code, said) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("error: 'faulty' cannot be imported: FaultyTable: unsound table: ")
    for fault in ("c cannot be reached", "b is final but leads to a", "c is a trap"):
        assert fault in err
    assert "faulty.py, line 4)" in err


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:TABLE", "there is no module 'nowhere'"),
        ("own:TABEL", "'own' has no 'TABEL'; did you mean TABLE?"),
        ("own:number", "own:number is a int, not a Lifecycle; did you mean TABLE?"),
        ("own table", "'own table' does not name a table: write module:attribute, as in module:TABLE"),
    ],
)
def test_unknown_table_is_bad_usage(cli, target, said):
    """A name without a table is bad usage, for `verify` and `check`."""
    for command in (("verify", target), ("check", "--table", target, os.devnull)):
        code, out, err = cli(*command)
        assert (code, out) == (2, "")
        assert said in err
        assert err.count("\n") == 1


def test_verify_length_below_one_is_bad_usage(cli):
    """A length below one is bad usage."""
    assert cli("verify", "--length", "0")[0] == 2


def test_verify_names_a_property_that_does_not_hold(cli, monkeypatch):
    """A property that does not hold is named, with exit code 1."""
    fault = properties()[0].__class__("every state can be reached", ("error",))
    monkeypatch.setattr("lifecycle.consumer.cli.verify.properties", lambda _: [fault])
    monkeypatch.setattr("lifecycle.consumer.cli.verify.sequences", lambda *_: iter([("enqueued",)]))
    code, said, _ = cli("verify", "--length", "2")
    assert code == 1
    assert "✗ every state can be reached: error\n" in said
    assert "as were counted: 1 instead of 11\n" in said
    assert json.loads(cli("verify", "--json")[1])["properties"][0]["faults"] == ["error"]
