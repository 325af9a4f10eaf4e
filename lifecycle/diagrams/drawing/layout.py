"""Layout of a diagram: ranks from left to right, and slots from top to bottom in each rank. Pure arithmetic.

An edge goes from slot to slot through every rank between its ends; its label is one of these slots. So parts never
overlap: the slots of a rank are kept apart, and between two ranks there are only curves.
"""

from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["Slot", "assign_heights", "reduce_crossings"]

SWEEP_COUNT: Final = 24
INNER_BEND_WEIGHT: Final = 64.0
"""Weight of a bend within a line, relative to a bend at its end."""


@attrs.define(eq=False)
class Slot:
    """Place of a state, a label or a part of a line in a rank."""

    rank: int
    height: float
    block: int = 0
    """Number of the block; slots of one block stay together, with a gap between blocks. 0: no block."""
    bends: bool = True
    """True at the end of a line, where the line may bend."""
    y: float = 0.0
    """Height of the middle."""
    left: "list[Slot]" = attrs.field(factory=list, repr=False)
    right: "list[Slot]" = attrs.field(factory=list, repr=False)
    """Connected slots in the neighbouring ranks."""


Ranks = list[list[Slot]]


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
    """Return the number of crossings between a rank and the next rank."""
    at = {slot: n for n, slot in enumerate(ranks[number + 1])}
    ends = [sorted(at[other] for other in slot.right) for slot in ranks[number]]
    return sum(
        above > below for n, upper in enumerate(ends) for lower in ends[n + 1 :] for above in upper for below in lower
    )


# Heights -----------------------------------------------------------------------------------------------------------


def assign_heights(ranks: Ranks, gap: float, between_blocks: float) -> float:
    """Set `y` of each slot so that lines are as straight as their order allows; return the total height.

    `gap`: minimal distance of two slots; `between_blocks`: additional distance between blocks.
    """
    for rank in ranks:
        y = 0.0
        for slot in rank:
            slot.y = y + slot.height / 2
            y += slot.height + gap
    for number in range(SWEEP_COUNT * 12):
        towards = number % 2 == 0
        for rank in ranks if towards else reversed(ranks):
            _settle(rank, towards, gap, between_blocks, both=number >= SWEEP_COUNT)
    top = min((slot.y - slot.height / 2 for rank in ranks for slot in rank), default=0.0)
    for rank in ranks:
        for slot in rank:
            slot.y = round(slot.y - top, 1)
    return max((slot.y + slot.height / 2 for rank in ranks for slot in rank), default=0.0)


def _settle(rank: Sequence[Slot], towards: bool, gap: float, between_blocks: float, *, both: bool) -> None:
    """Move the slots of a rank as near to the heights of connected slots as order and sizes allow.

    Least squares under an order: overlapping slots form a pool and share their mean (pool adjacent violators).
    """
    offsets, offset = [], 0.0
    for before, slot in zip([None, *rank], rank, strict=False):
        if before is not None:
            apart = gap + between_blocks * (before.block != slot.block)
            offset += (before.height + slot.height) / 2 + apart
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # sum of weighted wishes, sum of weights, how many
    for slot, shift in zip(rank, offsets, strict=True):
        beside = [*slot.left, *slot.right] if both else (slot.left if towards else slot.right)
        weights = [1.0 if slot.bends or other.bends else INNER_BEND_WEIGHT for other in beside]
        weight = sum(weights) or 0.01
        wish = sum(w * other.y for w, other in zip(weights, beside, strict=True)) / weight if beside else slot.y
        pool = (weight * (wish - shift), weight, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            before_pool = pools.pop()
            pool = (before_pool[0] + pool[0], before_pool[1] + pool[1], before_pool[2] + pool[2])
        pools.append(pool)
    settled = [total / weight for total, weight, count in pools for _ in range(count)]
    for slot, base, shift in zip(rank, settled, offsets, strict=True):
        slot.y = base + shift
