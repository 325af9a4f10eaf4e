"""What a table says about signals: the language of its legal sequences, as an automaton, an expression, and a count.

Every signal is the entry into one state, so a table is a deterministic automaton over signals already. Here it is
minimised, written as a regular expression, and walked.
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
    """A deterministic automaton over signals; its states are numbered from 0, where it starts."""

    moves: tuple[Mapping[str, int], ...]
    """For each state the signals that may come, and where they lead."""
    accepting: frozenset[int]
    """The states in which a task may rest for good."""
    members: tuple[tuple[str, ...], ...]
    """For each state the table's states that it stands for; the start need not have any."""

    def accepts(self, signals: Iterator[str] | tuple[str, ...] | list[str]) -> bool:
        """Are these the signals of a whole life, from its creation to where it rests?"""
        at = START
        for signal in signals:
            following = self.moves[at].get(signal)
            if following is None:
                return False
            at = following
        return at in self.accepting


def automaton(lifecycle: Lifecycle = LIFECYCLE) -> Automaton:
    """The smallest automaton that accepts the signals of every whole life, and nothing else.

    A whole life ends where a task may rest: in an outcome or a final state. A signal enters one state, wherever it is
    sent; so two states are alike if a task may rest in both or in neither, and the same signals may follow in both. A
    state in which only the signal of creation may follow is like the start.
    """
    names: tuple[str | None, ...] = (None, *(state.name for state in lifecycle.states))
    ways = {name: _following(lifecycle, name) for name in names}
    resting = {state.name for state in lifecycle.of_kind(Kind.OUTCOME, Kind.FINAL)}
    numbers: dict[tuple[bool, frozenset[str]], int] = {}
    told = {name: numbers.setdefault((name in resting, frozenset(ways[name])), len(numbers)) for name in names}
    members: list[list[str]] = [[] for _ in numbers]
    for name in names:
        if name is not None:
            members[told[name]].append(name)
    first = {number: next(name for name in names if told[name] == number) for number in told.values()}
    return Automaton(
        tuple({s: told[end] for s, end in ways[first[number]].items()} for number in range(len(numbers))),
        frozenset(told[name] for name in names if name in resting),
        tuple(tuple(group) for group in members),
    )


def regular(lifecycle: Lifecycle = LIFECYCLE) -> Expression:
    """The same language as a regular expression, for programs; see `expression` and `readable`.

    Made from the minimal automaton by taking away one state after the other, and writing what led through it on the
    ways that are left. In which order makes the difference between a line and a page: of the many, those are followed
    that have the least to write so far.
    """
    machine = automaton(lifecycle)
    end = len(machine.moves)
    begin = -1  # ways may lead back to the start, and none leads back to here
    ways: Ways = {(begin, START): EMPTY}
    ways.update(((state, end), EMPTY) for state in machine.accepting)
    for source, moves in enumerate(machine.moves):
        for signal, target in moves.items():
            ways[source, target] = choice(*_known(ways, source, target), Word(signal))
    best = {frozenset(range(end)): ways}
    for _ in range(end):
        following: dict[frozenset[int], Ways] = {}
        for left, written in best.items():
            for state in left:
                rest, shorter = left - {state}, _without(state, written)
                if rest not in following or _size(shorter) < _size(following[rest]):
                    following[rest] = shorter
        best = dict(sorted(following.items(), key=lambda item: (_size(item[1]), sorted(item[0])))[:FOLLOWED])
    return best[frozenset()][begin, end]


Ways = dict[tuple[int, int], Expression]
"""What is written on the way from one state to another."""
FOLLOWED: Final = 32
"""How many orders are followed at once."""


def _known(ways: Ways, source: int, target: int) -> list[Expression]:
    return [ways[source, target]] if (source, target) in ways else []


def _without(state: int, ways: Ways) -> Ways:
    """The ways that are left when a state is taken away."""
    left = {way: written for way, written in ways.items() if state not in way}
    rounds = [loop(one) for one in _known(ways, state, state)]
    for (source, through), before in ways.items():
        for (start, target), after in ways.items():
            if through == start == state and state not in (source, target):
                left[source, target] = choice(*_known(left, source, target), chain(before, *rounds, after))
    return left


def _size(ways: Ways) -> int:
    return sum(map(weight, ways.values()))


def expression(lifecycle: Lifecycle = LIFECYCLE) -> str:
    """The same language as a pattern for `re.fullmatch`, on the signals with a space after each."""
    return pattern(regular(lifecycle))


def readable(lifecycle: Lifecycle = LIFECYCLE) -> dict[str, str]:
    """The same for people: what a life is, under ``LIFE``, after the names of what would be written more than once.

    The signals of one kind of state that are always a choice are called after the kind.
    """
    whole = regular(lifecycle)
    written = list(parts(whole))
    names: dict[Expression, str] = {}
    for kind in Kind:
        words = {Word(state.signal): None for state in lifecycle.of_kind(kind)}
        chosen = [[word for word in words if word in one.options] for one in written if isinstance(one, Choice)]
        alike = [group for group in chosen if len(group) >= WORTH_A_NAME and chosen.count(group) > 1]
        if alike:
            names[choice(*max(alike, key=len))] = kind.name
    named = {frozenset(part.options) for part in names if isinstance(part, Choice)}
    larger: list[Expression] = []
    for part in sorted(dict.fromkeys(written), key=weight, reverse=True):
        texts = [one for made in (whole, *larger) for one in parts(made, set(larger) - {made})]
        known = isinstance(part, Choice) and frozenset(part.options) in named
        if weight(part) >= WORTH_A_NAME and texts.count(part) > 1 and not known:
            larger.append(part)
    for number, part in enumerate(reversed(larger), 1):
        names[part] = f"PART_{number}"
    lines = {
        name: text(part, {other: called for other, called in names.items() if called != name})
        for part, name in names.items()
    }
    return lines | {"LIFE": text(whole, names)}


WORTH_A_NAME: Final = 3
"""Words that a part has at least, for it to get a name."""


def sequences(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> Iterator[tuple[str, ...]]:
    """Every legal sequence of at most `length` signals, from a task's creation on, the shortest first.

    A task need not have come to rest at its end. Walked anew for each length, so that it takes no memory to speak of.
    """
    for exactly in range(1, length + 1):
        yield from _walks(lifecycle, None, exactly)


def _walks(lifecycle: Lifecycle, state: str | None, length: int) -> Iterator[tuple[str, ...]]:
    if length == 0:
        yield ()
        return
    for signal, following in _following(lifecycle, state).items():
        for rest in _walks(lifecycle, following, length - 1):
            yield (signal, *rest)


def count(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> list[int]:
    """How many legal sequences there are of 1, 2, … `length` signals; counted without walking them."""
    at: dict[str | None, int] = {None: 1}
    counts = []
    for _ in range(length):
        following: dict[str | None, int] = {}
        for state, number in at.items():
            for target in _following(lifecycle, state).values():
                following[target] = following.get(target, 0) + number
        at = following
        counts.append(sum(at.values()))
    return counts


def _following(lifecycle: Lifecycle, state: str | None) -> dict[str, str]:
    """The signals that may come in a state, and the states that they enter; several triggers may send the same."""
    return {target.signal: target.name for target in lifecycle.targets(state)}
