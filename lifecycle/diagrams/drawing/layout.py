"""Layout of a diagram: ranks from left to right, and slots from top to bottom in each rank. Pure arithmetic.

An edge goes from slot to slot through every rank between its ends; its label is one of these slots. So parts never
overlap: the slots of a rank are kept apart, and between two ranks there are only curves.
"""

import itertools
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final

import attrs

__all__ = ["Slot", "assign_heights", "reduce_crossings"]

SWEEP_COUNT: Final = 24
RELAXATION_COUNT: Final = 200
RELAXATION_STEP: Final = 0.2
"""Share of the way to its neighbours that a row goes in one step."""
PUSH_COUNT: Final = 4
"""How often, after each step, rows that are too near are moved apart."""


@attrs.define(eq=False)
class Slot:
    """Place of a state, a label or a part of a line in a rank."""

    rank: int
    height: float
    block: int = 0
    """Number of the block; slots of one block stay together, with a gap between blocks. 0: no block."""
    y: float = 0.0
    """Height of the middle."""
    weight: int = 1
    """So many crossings with other lines are worth one crossing with a line between two slots of this weight."""
    left: "list[Slot]" = attrs.field(factory=list, repr=False)
    right: "list[Slot]" = attrs.field(factory=list, repr=False)
    """Connected slots in the neighbouring ranks."""


Ranks = list[list[Slot]]
Distance = tuple[int, int, float]
"""Two rows, the upper one first, and their minimal distance."""


def reduce_crossings(ranks: Ranks) -> Ranks:
    """Return the ranks in an order with few crossings of lines; blocks stay together. Deterministic.

    First medians, then exchanges of neighbours while they help; among equal orders, the given order is kept.
    """
    best, least = ranks, _crossings(ranks)
    now = ranks
    for number in range(SWEEP_COUNT):
        now = _sweep(now, down=number % 2 == 0)
        if (count := _crossings(now)) < least:
            best, least = now, count
    return _exchange(best)


def _sweep(ranks: Ranks, *, down: bool) -> Ranks:
    """Sort each rank by the positions of the connected slots on one side."""
    ranks = [list(rank) for rank in ranks]
    at: dict[Slot, float] = {slot: float(n) for rank in ranks for n, slot in enumerate(rank)}
    for rank in ranks if down else reversed(ranks):
        wish = {}
        for slot in rank:
            beside = [at[other] for other in (slot.left if down else slot.right)]
            wish[slot] = sum(beside) / len(beside) if beside else at[slot]
        blocks = _blocks(rank)
        middle = {id(block): sum(wish[slot] for slot in block) / len(block) for block in blocks}
        blocks.sort(key=lambda block: middle[id(block)])
        rank[:] = [slot for block in blocks for slot in sorted(block, key=wish.__getitem__)]
        at |= {slot: float(n) for n, slot in enumerate(rank)}
    return ranks


def _blocks(rank: Sequence[Slot]) -> Ranks:
    """Return the groups of slots that stay together."""
    blocks: Ranks = []
    for slot in rank:
        if blocks and slot.block and blocks[-1][0].block == slot.block:
            blocks[-1].append(slot)
        else:
            blocks.append([slot])
    return blocks


def _exchange(ranks: Ranks) -> Ranks:
    """Exchange neighbours (blocks, and slots within a block) while the number of crossings falls."""
    ranks = [list(rank) for rank in ranks]
    better = True
    while better:
        better = False
        for number, rank in enumerate(ranks):
            now = _around(ranks, number)
            for other in _neighbours(rank):
                ranks[number] = other
                if (count := _around(ranks, number)) < now:
                    rank, now, better = other, count, True  # noqa: PLW2901
                ranks[number] = rank
    return ranks


def _neighbours(rank: list[Slot]) -> Ranks:
    """Return all orders of a rank after one exchange."""
    blocks = _blocks(rank)
    others = [[*blocks[:n], blocks[n + 1], blocks[n], *blocks[n + 2 :]] for n in range(len(blocks) - 1)]
    for n, block in enumerate(blocks):
        for at in range(len(block) - 1):
            swapped = [*block[:at], block[at + 1], block[at], *block[at + 2 :]]
            others.append([*blocks[:n], swapped, *blocks[n + 1 :]])
    return [[slot for block in other for slot in block] for other in others]


def _crossings(ranks: Ranks) -> int:
    return sum(_between(ranks, number) for number in range(len(ranks) - 1))


def _around(ranks: Ranks, number: int) -> int:
    return sum(_between(ranks, n) for n in (number - 1, number) if 0 <= n < len(ranks) - 1)


def _between(ranks: Ranks, number: int) -> int:
    """Return the weight of the crossings between a rank and the next rank."""
    at = {slot: n for n, slot in enumerate(ranks[number + 1])}
    ends = [[(at[other], min(slot.weight, other.weight)) for other in slot.right] for slot in ranks[number]]
    return sum(
        max(upper_weight, lower_weight)
        for n, upper in enumerate(ends)
        for lower in ends[n + 1 :]
        for above, upper_weight in upper
        for below, lower_weight in lower
        if above > below
    )


# Heights -----------------------------------------------------------------------------------------------------------


def assign_heights(ranks: Ranks, straight: Iterable[Sequence[Slot]], gap: float, between_blocks: float) -> float:
    """Set `y` of each slot so that lines are as straight as their order allows; return the total height.

    `straight`: slots that get the same height, the most important ones first; slots whose order in two ranks forbids
    one height are left apart. `gap`: minimal distance of two slots; `between_blocks`: additional distance between
    blocks.
    """
    rows = _Rows(ranks, gap, between_blocks)
    for slots in straight:
        rows.unite(slots)
    rows.relax()
    top = min((slot.y - slot.height / 2 for rank in ranks for slot in rank), default=0.0)
    for rank in ranks:
        for slot in rank:
            slot.y = round(slot.y - top, 1)
    return max((slot.y + slot.height / 2 for rank in ranks for slot in rank), default=0.0)


class _Rows:
    """Rows: sets of slots of one height. A row is above another row if one of its slots is above in some rank."""

    def __init__(self, ranks: Ranks, gap: float, between_blocks: float) -> None:
        self.slots = [slot for rank in ranks for slot in rank]
        self.row_of = {slot: number for number, slot in enumerate(self.slots)}
        self.apart = [
            (above, below, (above.height + below.height) / 2 + gap + between_blocks * (above.block != below.block))
            for rank in ranks
            for above, below in itertools.pairwise(rank)
        ]

    def unite(self, slots: Sequence[Slot]) -> None:
        """Make one row of the rows of these slots, one after the other, unless a row would be above itself."""
        for slot in slots[1:]:
            one, other = self.row_of[slots[0]], self.row_of[slot]
            before = self.row_of
            self.row_of = {slot: one if row == other else row for slot, row in before.items()}
            if not self.sorted_rows():
                self.row_of = before

    def sorted_rows(self) -> list[int]:
        """Return the rows from top to bottom; an empty list if a row is above itself."""
        above: dict[int, set[int]] = {row: set() for row in self.row_of.values()}
        for upper, lower, _ in self.apart:
            above[self.row_of[lower]].add(self.row_of[upper])
        try:
            return list(TopologicalSorter(above).static_order())
        except CycleError:
            return []

    def relax(self) -> None:
        """Move each row towards its neighbours, again and again, and keep the distances."""
        order = self.sorted_rows()
        distances = self._distances(order)
        y = dict.fromkeys(order, 0.0)
        _push_down(y, distances)
        wishes: dict[int, list[int]] = {row: [] for row in order}
        for slot, row in self.row_of.items():
            wishes[row] += [self.row_of[other] for other in (*slot.left, *slot.right) if self.row_of[other] != row]
        for _ in range(RELAXATION_COUNT):
            wished = {row: sum(y[other] for other in beside) / len(beside) for row, beside in wishes.items() if beside}
            for row, wish in wished.items():
                y[row] += (wish - y[row]) * RELAXATION_STEP
            for _ in range(PUSH_COUNT):
                _push_apart(y, reversed(distances))
                _push_apart(y, distances)
        _push_down(y, distances)
        for slot, row in self.row_of.items():
            slot.y = y[row]

    def _distances(self, order: Sequence[int]) -> list[Distance]:
        """Return the minimal distance of each pair of rows that meet in a rank, from top to bottom."""
        distances: dict[tuple[int, int], float] = {}
        for upper, lower, apart in self.apart:
            pair = self.row_of[upper], self.row_of[lower]
            distances[pair] = max(distances.get(pair, 0.0), apart)
        place = {row: number for number, row in enumerate(order)}
        pairs = sorted(distances, key=lambda pair: (place[pair[1]], place[pair[0]]))
        return [(*pair, distances[pair]) for pair in pairs]


def _push_apart(y: dict[int, float], distances: Iterable[Distance]) -> None:
    """Move two rows that are too near apart, each by the same way."""
    for upper, lower, apart in distances:
        if (lack := y[upper] + apart - y[lower]) > 0:
            y[upper] -= lack / 2
            y[lower] += lack / 2


def _push_down(y: dict[int, float], distances: Iterable[Distance]) -> None:
    """Move rows down until none is too near to a row above; `distances`: from top to bottom."""
    for upper, lower, apart in distances:
        y[lower] = max(y[lower], y[upper] + apart)
