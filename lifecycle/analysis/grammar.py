"""Language of a table: its legal sequences of signals as an automaton, as a regular expression, and counted.

Every signal is the entry into one state, so that a table already is a deterministic automaton over signals. This module
minimises the automaton, writes it as a regular expression, and enumerates its sequences.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from lifecycle.analysis.regex import EMPTY, Choice, Expression, Word, chain, choice, loop, parts, pattern, text, weight
from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle

__all__ = ["Automaton", "automaton", "count", "expression", "readable", "regular", "sequences"]

START: Final = 0


@attrs.frozen
class Automaton:
    """Deterministic automaton over signals. Its states are numbers; 0 is the start."""

    moves: tuple[Mapping[str, int], ...]
    """For each state, a map of the possible signals to the next states."""
    accepting: frozenset[int]
    """States that stand for resting states."""
    members: tuple[tuple[str, ...], ...]
    """For each state, the states of the table that it stands for; may be empty for the start."""

    def accepts(self, signals: Iterator[str] | tuple[str, ...] | list[str]) -> bool:
        """Return whether these are the signals of a whole life, from the creation to a resting state."""
        current = START
        for signal in signals:
            target = self.moves[current].get(signal)
            if target is None:
                return False
            current = target
        return current in self.accepting


def automaton(lifecycle: Lifecycle = LIFECYCLE) -> Automaton:
    """Return the smallest automaton that accepts the signals of every whole life and no other sequence.

    A whole life ends in a resting state (an outcome or a final state). A signal enters the same state from everywhere.
    So two states are equivalent if both or neither are resting states, and the same signals may follow. A state that
    only the signal of creation may follow is equivalent to the start.
    """
    names: tuple[str | None, ...] = (None, *(state.name for state in lifecycle.states))
    targets = {name: _targets_by_signal(lifecycle, name) for name in names}
    resting = {state.name for state in lifecycle.of_kind(Kind.OUTCOME, Kind.FINAL)}
    numbers: dict[tuple[bool, frozenset[str]], int] = {}
    number_of = {name: numbers.setdefault((name in resting, frozenset(targets[name])), len(numbers)) for name in names}
    members: list[list[str]] = [[] for _ in numbers]
    for name in names:
        if name is not None:
            members[number_of[name]].append(name)
    first = {number: next(name for name in names if number_of[name] == number) for number in number_of.values()}
    return Automaton(
        tuple(
            {signal: number_of[end] for signal, end in targets[first[number]].items()} for number in range(len(numbers))
        ),
        frozenset(number_of[name] for name in names if name in resting),
        tuple(tuple(group) for group in members),
    )


def regular(lifecycle: Lifecycle = LIFECYCLE) -> Expression:
    """Return the same language as a regular expression, for programs; see `expression` and `readable`.

    State elimination on the minimal automaton: one state after the other is removed, and the remaining edges get the
    expressions of the paths through the removed state. The order of removal decides between one line and one page, so
    a beam search keeps the orders with the shortest expressions so far.
    """
    machine = automaton(lifecycle)
    end = len(machine.moves)
    begin = -1  # an extra start: no edge leads back to it
    edges: Edges = {(begin, START): EMPTY}
    edges.update(((state, end), EMPTY) for state in machine.accepting)
    for source, moves in enumerate(machine.moves):
        for signal, target in moves.items():
            edges[source, target] = choice(*_existing(edges, source, target), Word(signal))
    best = {frozenset(range(end)): edges}
    for _ in range(end):
        following: dict[frozenset[int], Edges] = {}
        for left, written in best.items():
            for state in left:
                rest, shorter = left - {state}, _eliminate(state, written)
                if rest not in following or _size(shorter) < _size(following[rest]):
                    following[rest] = shorter
        best = dict(sorted(following.items(), key=lambda item: (_size(item[1]), sorted(item[0])))[:BEAM_WIDTH])
    return best[frozenset()][begin, end]


Edges = dict[tuple[int, int], Expression]
"""Expression on the edge from one state to another."""
BEAM_WIDTH: Final = 32
"""Number of orders that the beam search keeps."""


def _existing(edges: Edges, source: int, target: int) -> list[Expression]:
    return [edges[source, target]] if (source, target) in edges else []


def _eliminate(state: int, edges: Edges) -> Edges:
    """Return the edges that remain when a state is eliminated."""
    left = {ends: written for ends, written in edges.items() if state not in ends}
    rounds = [loop(one) for one in _existing(edges, state, state)]
    for (source, through), before in edges.items():
        for (start, target), after in edges.items():
            if through == start == state and state not in (source, target):
                left[source, target] = choice(*_existing(left, source, target), chain(before, *rounds, after))
    return left


def _size(edges: Edges) -> int:
    return sum(map(weight, edges.values()))


def expression(lifecycle: Lifecycle = LIFECYCLE) -> str:
    """Return the same language as a pattern for `re.fullmatch`, on the signals with a space after each signal."""
    return pattern(regular(lifecycle))


def readable(lifecycle: Lifecycle = LIFECYCLE) -> dict[str, str]:
    """Return the same language for readers: named parts that occur more than once, and last ``LIFE``, a whole life.

    Signals of one kind of state that always occur as one choice get the name of the kind.
    """
    whole = regular(lifecycle)
    written = list(parts(whole))
    names: dict[Expression, str] = {}
    for kind in Kind:
        words = {Word(state.signal): None for state in lifecycle.of_kind(kind)}
        chosen = [[word for word in words if word in one.options] for one in written if isinstance(one, Choice)]
        alike = [group for group in chosen if len(group) >= NAMED_PART_MIN_WORDS and chosen.count(group) > 1]
        if alike:
            names[choice(*max(alike, key=len))] = kind.name
    named = {frozenset(part.options) for part in names if isinstance(part, Choice)}
    larger: list[Expression] = []
    for part in sorted(dict.fromkeys(written), key=weight, reverse=True):
        texts = [one for made in (whole, *larger) for one in parts(made, set(larger) - {made})]
        known = isinstance(part, Choice) and frozenset(part.options) in named
        if weight(part) >= NAMED_PART_MIN_WORDS and texts.count(part) > 1 and not known:
            larger.append(part)
    for number, part in enumerate(reversed(larger), 1):
        names[part] = f"PART_{number}"
    lines = {
        name: text(part, {other: called for other, called in names.items() if called != name})
        for part, name in names.items()
    }
    return lines | {"LIFE": text(whole, names)}


NAMED_PART_MIN_WORDS: Final = 3
"""Number of words from which on a repeated part gets a name."""


def sequences(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> Iterator[tuple[str, ...]]:
    """Yield every legal sequence of at most `length` signals, from a task's creation on, the shortest first.

    The last state need not be a resting state. Each length is enumerated from the beginning, to use little memory.
    """
    for exactly in range(1, length + 1):
        yield from _walks(lifecycle, None, exactly)


def _walks(lifecycle: Lifecycle, state: str | None, length: int) -> Iterator[tuple[str, ...]]:
    if length == 0:
        yield ()
        return
    for signal, target in _targets_by_signal(lifecycle, state).items():
        for rest in _walks(lifecycle, target, length - 1):
            yield (signal, *rest)


def count(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> list[int]:
    """Return the numbers of legal sequences of 1, 2, … `length` signals, counted without enumeration."""
    number_in: dict[str | None, int] = {None: 1}
    counts = []
    for _ in range(length):
        following: dict[str | None, int] = {}
        for state, number in number_in.items():
            for target in _targets_by_signal(lifecycle, state).values():
                following[target] = following.get(target, 0) + number
        number_in = following
        counts.append(sum(number_in.values()))
    return counts


def _targets_by_signal(lifecycle: Lifecycle, state: str | None) -> dict[str, str]:
    """Return signal → state for the states that may be entered next."""
    return {target.signal: target.name for target in lifecycle.targets(state)}
