"""What a table says about signals: the language of its legal sequences, as an automaton, an expression, and a count.

Every signal is the entry into one state, so a table is a deterministic automaton over signals already. Here it is
minimised, written as a regular expression, and walked.
"""

from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from lifecycle.table import LIFECYCLE, Kind, Lifecycle

__all__ = ["Automaton", "automaton", "count", "expression", "sequences"]

START: Final = 0


@attrs.frozen
class Automaton:
    """A deterministic automaton over signals; its states are numbered from 0, where it starts."""

    moves: tuple[Mapping[str, int], ...]
    """For each state the signals that may come, and where they lead."""
    accepting: frozenset[int]
    """The states in which a task may rest for good."""
    members: tuple[tuple[str, ...], ...]
    """For each state the table's states that it stands for; none for the start."""

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

    A whole life ends where a task may rest: in an outcome or a final state. Moore's algorithm: states are told apart by
    whether a task may rest there, then by where their signals lead, until nothing more is told apart.
    """
    names: tuple[str | None, ...] = (None, *(state.name for state in lifecycle.states))
    ways = {
        name: {target.signal: target.name for target in (lifecycle.next(name, t) for t in lifecycle.allowed(name))}
        for name in names
    }
    resting = {state.name for state in lifecycle.of_kind(Kind.OUTCOME, Kind.FINAL)}
    block: dict[str | None, int] = {name: int(name in resting) for name in names}
    while True:
        looks = {
            name: (block[name], tuple(sorted((signal, block[end]) for signal, end in ways[name].items())))
            for name in names
        }
        numbers: dict[object, int] = {}
        told = {name: numbers.setdefault(looks[name], len(numbers)) for name in names}
        if len(numbers) == len(set(block.values())):
            break
        block = told
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


def expression(lifecycle: Lifecycle = LIFECYCLE) -> str:
    """The same language as a regular expression, for `re.fullmatch` on the signals with a space after each.

    Made from the minimal automaton by taking away one state after the other, those with the fewest ways first, and
    writing what led through it on the ways that are left.
    """
    machine = automaton(lifecycle)
    end = len(machine.moves)
    ways: dict[tuple[int, int], str] = {}
    for source, moves in enumerate(machine.moves):
        for signal, target in moves.items():
            ways[source, target] = _either(ways.get((source, target)), f"{signal} ")
    for state in machine.accepting:
        ways[state, end] = ""
    left = set(range(end)) - {START}
    while left:
        state = min(left, key=lambda one: (sum(one in way for way in ways), -one))
        left.remove(state)
        loop = _repeat(ways.pop((state, state), None))
        into = [(source, text) for (source, target), text in ways.items() if target == state]
        out = [(target, text) for (source, target), text in ways.items() if source == state]
        ways = {way: text for way, text in ways.items() if state not in way}
        for source, before in into:
            for target, after in out:
                ways[source, target] = _either(ways.get((source, target)), _group(before) + loop + _group(after))
    return ways[START, end]


def _either(one: str | None, other: str) -> str:
    if one is None or one == other:
        return other
    options = [*_options(one), *(option for option in _options(other) if option not in _options(one))]
    if "" in options:
        return f"(?:{'|'.join(option for option in options if option)})?"
    return "|".join(options)


def _options(text: str) -> list[str]:
    """What stands between the bars that are in no group."""
    options, depth, option = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            options.append(option)
            option = ""
        else:
            option += character
    return [*options, option]


def _group(text: str) -> str:
    return f"(?:{text})" if len(_options(text)) > 1 else text


def _repeat(text: str | None) -> str:
    return f"(?:{text})*" if text else ""


def sequences(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> Iterator[tuple[str, ...]]:
    """Every legal sequence of at most `length` signals, from a task's creation on, the shortest first.

    A task need not have come to rest at its end.
    """
    ways: list[tuple[tuple[str, ...], str | None]] = [((), None)]
    for _ in range(length):
        ways = [
            ((*signals, target.signal), target.name)
            for signals, state in ways
            for target in (lifecycle.next(state, trigger) for trigger in lifecycle.allowed(state))
        ]
        yield from (signals for signals, _ in ways)


def count(lifecycle: Lifecycle = LIFECYCLE, length: int = 8) -> list[int]:
    """How many legal sequences there are of 1, 2, … `length` signals; counted without walking them."""
    at: dict[str | None, int] = {None: 1}
    counts = []
    for _ in range(length):
        following: dict[str | None, int] = {}
        for state, number in at.items():
            for trigger in lifecycle.allowed(state):
                target = lifecycle.next(state, trigger).name
                following[target] = following.get(target, 0) + number
        at = following
        counts.append(sum(at.values()))
    return counts
