"""The language of a table: automaton, expression, sequences and count are four views of the same, for any table."""

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st
from support.strategies import EDGES, LAW, of_kind, patient, seldom

from lifecycle.analysis.grammar import automaton, count, expression, readable, regular, sequences
from lifecycle.analysis.regex import EMPTY, Word, chain, choice, loop, parts, pattern, text, weight
from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle, State, Transition
from lifecycle.testing import legal_histories, lifecycles

NEXT = {state: {LAW[end][0]: end for (start, _), end in EDGES.items() if start == state} for state in (None, *LAW)}


AUTOMATON, PATTERN = automaton(), re.compile(expression())


def is_life(signals):
    """Return whether this is a whole life, by the hand-written law."""
    state = None
    for signal in signals:
        if signal not in NEXT[state]:
            return False
        state = NEXT[state][signal]
    return state in of_kind("outcome", "final")


def written(signals):
    return "".join(f"{signal} " for signal in signals)


def merged(table):
    """Return the number of states of the minimal automaton, by a table of distinguishable pairs.

    The other algorithm than the one in the library; a place where every signal is refused counts as one of the pairs.
    """
    places = [None, *(state.name for state in table.states), "(refused)"]
    moves = {place: {} for place in places}
    for row in table.transitions:
        moves[row.source and row.source.name][row.target.signal] = row.target.name
    rests = {state.name for state in table.states if state.kind in (Kind.OUTCOME, Kind.FINAL)}
    words = [state.signal for state in table.states]
    apart = {frozenset(pair) for pair in itertools.combinations(places, 2) if (pair[0] in rests) != (pair[1] in rests)}
    grown = True
    while grown:
        grown = False
        for one, other in itertools.combinations(places, 2):
            ends = [{moves[one].get(word, "(refused)"), moves[other].get(word, "(refused)")} for word in words]
            if frozenset((one, other)) not in apart and any(frozenset(pair) in apart for pair in ends):
                apart.add(frozenset((one, other)))
                grown = True
    classes = []
    for place in places:
        if not any(frozenset((place, seen)) not in apart for seen in classes):
            classes.append(place)
    return len(classes) - 1  # every state of a table leads to an end, so none is like the refused one


# The automaton -----------------------------------------------------------------------------------------------------


def test_automaton_of_the_law_has_nine_states():
    """The automaton of the law has nine states: final states are merged, and so are outcomes left only by a retry."""
    machine = automaton()
    outcomes = [state for state in of_kind("outcome") if state != "interrupted"]
    assert [set(group) for group in machine.members] == [
        set(), {"queued"}, {"scheduled"}, {"pending"}, {"executing"}, set(of_kind("final")), set(outcomes), {"interrupted"},
        {"retrying"},
    ]  # fmt: skip
    assert {name for at in machine.accepting for name in machine.members[at]} == set(of_kind("outcome", "final"))


@patient
@given(legal_histories(), st.lists(st.sampled_from([signal for signal, *_ in LAW.values()]), max_size=6))
def test_automaton_and_expression_accept_whole_lives_of_the_law(history, noise):
    """Automaton and expression accept exactly the whole lives of the law."""
    for signals in (history, history[:-1], history[1:], noise):
        assert AUTOMATON.accepts(signals) == bool(PATTERN.fullmatch(written(signals))) == is_life(signals)


@patient
@given(lifecycles(), st.data())
def test_automaton_and_expression_accept_whole_lives_of_any_table(table, data):
    """For any table, automaton and expression accept exactly its whole lives."""
    machine, pattern = automaton(table), re.compile(expression(table))
    words = st.lists(st.sampled_from([state.signal for state in table.states]), max_size=6)
    for signals in [data.draw(legal_histories(table)), *data.draw(st.lists(words, max_size=5)), *sequences(table, 3)]:
        at, whole = None, bool(signals)
        for signal in signals:
            found = [row for row in table.transitions if row.source == at and row.target.signal == signal]
            whole = whole and bool(found)
            at = found[0].target if found else "(refused)"
        whole = whole and at.kind in (Kind.OUTCOME, Kind.FINAL)
        assert machine.accepts(signals) == whole
        assert bool(pattern.fullmatch(written(signals))) == whole, (signals, pattern)


@patient
@given(lifecycles())
def test_automaton_is_minimal(table):
    """The automaton has as many states as a second algorithm finds, and each can be reached."""
    machine = automaton(table)
    assert len(machine.moves) == merged(table)
    reached, todo = {0}, [0]
    for at in todo:
        todo += [end for end in machine.moves[at].values() if end not in reached]
        reached |= set(machine.moves[at].values())
    assert reached == set(range(len(machine.moves)))
    names = sorted(name for group in machine.members for name in group)
    assert names == sorted(state.name for state in table.states)


def test_state_equivalent_to_the_start_is_merged_with_it():
    """A state that only the signal of creation may follow is merged with the start; lives through it are accepted."""
    a, b, end = (
        State("a", "a", Kind.WAITING, "x"),
        State("b", "b", Kind.PASSING, "x"),
        State("end", "z", Kind.FINAL, "x"),
    )
    rows = [(None, a), (a, b), (b, a), (a, end)]
    table = Lifecycle([a, b, end], [Transition(f"to_{end}", start, end, "it can") for start, end in rows])
    assert automaton(table).members == (("b",), ("a",), ("end",))
    assert readable(table) == {"LIFE": "(a b)* a z"}
    for signals in ("az", "abaz", "ababaz", "", "ab", "aba", "bz", "baz"):
        assert automaton(table).accepts(list(signals)) == bool(re.fullmatch(expression(table), written(signals)))
        assert automaton(table).accepts(list(signals)) == bool(re.fullmatch("a(ba)*z", signals))


# Sequences ---------------------------------------------------------------------------------------------------------


def test_sequence_counts_of_the_law():
    """There are two sequences of one signal, nine of two, …; counted by hand up to three."""
    assert list(sequences(length=2)) == [
        ("enqueued",),
        ("pending",),
        *(("enqueued", signal) for signal in ("scheduled", "executing", "revoked", "expired")),
        *(("pending", signal) for signal in ("enqueued", "scheduled", "revoked", "skipped", "expired")),
    ]
    assert count(length=3) == [2, 4 + 5, 3 + 8 + 4 + 3]
    assert list(sequences(length=0)) == count(length=0) == []


@seldom
@given(lifecycles(), st.integers(0, 6))
def test_listed_sequences_are_as_many_as_counted(table, length):
    """All sequences are listed once, the shortest first, and their number is the count."""
    found = list(sequences(table, length))
    assert len(set(found)) == len(found)
    lengths = [len(signals) for signals in found]
    assert lengths == sorted(lengths)
    assert [lengths.count(number) for number in range(1, length + 1)] == count(table, length)
    words = [state.signal for state in table.states]
    every = {
        signals
        for number in range(1, min(length, 3) + 1)
        for signals in itertools.product(words, repeat=number)
        if all(any(pair == step for step in pairs(table)) for pair in itertools.pairwise((None, *signals)))
    }
    assert {signals for signals in found if len(signals) <= 3} == every


def pairs(table):
    """The pairs of signals that may follow each other, from the rows."""
    return {(row.source and row.source.signal, row.target.signal) for row in table.transitions}


# The expression ----------------------------------------------------------------------------------------------------


def test_readable_grammar_of_the_law_has_three_lines():
    """The readable grammar of the law has three lines: repeated parts have names."""
    lines = readable()
    assert list(lines) == ["OUTCOME", "PART_1", "LIFE"]
    assert set(lines["OUTCOME"].split(" | ")) == set(of_kind("outcome"))
    assert sum(map(len, lines.values())) < 360
    assert lines["LIFE"].startswith("pending (revoked | skipped | expired) | (pending? enqueued | ")


@seldom
@given(lifecycles(), st.data())
def test_readable_grammar_means_the_same_as_the_expression(table, data):
    """With its names replaced, the readable grammar of any table is equivalent to the expression."""
    lines = {name: f"({line})" for name, line in readable(table).items()}
    whole = lines.pop("LIFE")
    for name, line in reversed(lines.items()):
        whole = re.sub(rf"(?<![\w-]){name}(?![\w-])", line, whole)
    words = {state.signal for state in table.states}
    spelt = re.sub(r"[\w-]+", lambda word: f"(?:{re.escape(word[0])} )", whole)
    compiled = re.compile(spelt.replace(" )", "\0").replace(" ", "").replace("\0", " )"))
    machine = automaton(table)
    drawn = data.draw(st.lists(st.lists(st.sampled_from(sorted(words)), max_size=5), max_size=5))
    for signals in [*drawn, *sequences(table, 4)]:
        assert bool(compiled.fullmatch(written(signals))) == machine.accepts(signals), (readable(table), signals)


A, B, C, D = (Word(letter) for letter in "abcd")


def test_expressions_are_shortened():
    """Common beginnings and ends are written once; an optional or repeated part is not marked again."""
    assert text(choice(chain(A, B), chain(A, C))) == "a (b | c)"
    assert text(choice(chain(B, A), chain(C, A), A)) == "(b | c)? a"
    assert text(choice(A, A)) == text(choice(choice(A))) == "a"
    assert text(choice(A, EMPTY)) == text(choice(choice(A, EMPTY), EMPTY)) == "a?"
    assert text(loop(choice(A, EMPTY))) == text(loop(loop(A))) == text(choice(EMPTY, loop(A))) == "a*"
    assert text(loop(chain(A, choice(B, C)))) == "(a (b | c))*"
    assert text(choice(chain(A, B), EMPTY)) == "(a b)?"
    assert chain() == chain(EMPTY, EMPTY) == choice(EMPTY) == loop(EMPTY) == EMPTY
    assert weight(chain(A, choice(B, loop(C)), EMPTY)) == 3
    assert list(parts(chain(A, choice(B, EMPTY)))) == [chain(A, choice(B, EMPTY)), A, B, B]


expressions = st.recursive(
    st.sampled_from([A, B, C, EMPTY]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda some: ("chain", some))
        | st.lists(inner, min_size=1, max_size=3).map(lambda some: ("choice", some))
        | inner.map(lambda one: ("loop", [one]))
    ),
    max_leaves=8,
)


def made(plan):
    if not isinstance(plan, tuple):
        return plan
    how, some = plan
    return {"chain": chain, "choice": choice, "loop": loop}[how](*map(made, some))


def plain(plan):
    """The same as a pattern, without any wit."""
    if not isinstance(plan, tuple):
        return "" if plan == EMPTY else f"(?:{plan.name} )"
    how, some = plan
    inner = ("" if how == "chain" else "|").join(map(plain, some))
    return f"(?:{inner})" + "*" * (how == "loop")


@patient
@given(expressions, st.lists(st.text("abc", max_size=5), max_size=10))
def test_shortening_keeps_the_meaning(plan, texts):
    """Shortening keeps the accepted language of any expression and never lengthens it."""
    short = made(plan)
    for letters in ["", "a", "b", "ab", *texts]:
        signals = written(letters)
        assert bool(re.fullmatch(pattern(short), signals)) == bool(re.fullmatch(plain(plan), signals)), text(short)
    assert weight(short) <= len(re.findall("[abc]", plain(plan)))


def test_expression_of_the_law_has_49_words():
    """The expression of the law has 49 words; another order of elimination would give some hundreds."""
    assert weight(regular()) <= 49
    assert len(LIFECYCLE.states) == 15
