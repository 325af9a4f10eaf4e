"""Where things stand in a picture: ranks from left to right, in each its slots from top to bottom. Pure arithmetic.

An edge goes from slot to slot, through every rank between its ends; its label is one of these slots. So nothing can lie
upon anything else: what stands in a rank is kept apart, and between two ranks there are only curves.
"""

from collections.abc import Sequence
from typing import Final

import attrs

__all__ = ["Slot", "order", "place"]

ROUNDS: Final = 24
STRAIGHT: Final = 64.0
"""How much more a bend within a line weighs than one at its end."""


@attrs.define(eq=False)
class Slot:
    """Something in a rank."""

    rank: int
    height: float
    block: int = 0
    """Slots of a rank with the same block stay together; blocks have a gap between them."""
    bends: bool = True
    """It is where a line ends, and may bend; elsewhere it shall go straight."""
    y: float = 0.0
    """Its middle."""
    left: "list[Slot]" = attrs.field(factory=list, repr=False)
    right: "list[Slot]" = attrs.field(factory=list, repr=False)
    """What it is joined to in the ranks beside."""


Ranks = list[list[Slot]]


def order(ranks: Ranks) -> Ranks:
    """The same slots, each rank in an order in which few lines cross; blocks stay together. Deterministic.

    Medians first, then exchanges of neighbours as long as one helps; of equal orders the given one stays.
    """
    best, least = ranks, _crossings(ranks)
    now = ranks
    for number in range(ROUNDS):
        now = _sweep(now, down=number % 2 == 0)
        if (count := _crossings(now)) < least:
            best, least = now, count
    return _exchange(best)


def _sweep(ranks: Ranks, *, down: bool) -> Ranks:
    """Each rank sorted by where its neighbours on one side stand."""
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
    """What stays together; block 0 is none."""
    blocks: Ranks = []
    for slot in rank:
        if blocks and slot.block and blocks[-1][0].block == slot.block:
            blocks[-1].append(slot)
        else:
            blocks.append([slot])
    return blocks


def _exchange(ranks: Ranks) -> Ranks:
    """Neighbours, blocks and slots in them, change places as long as fewer lines cross."""
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
    """The orders that one exchange makes of this."""
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
    """How many pairs of lines cross between a rank and the next."""
    at = {slot: n for n, slot in enumerate(ranks[number + 1])}
    ends = [sorted(at[other] for other in slot.right) for slot in ranks[number]]
    return sum(
        above > below for n, upper in enumerate(ends) for lower in ends[n + 1 :] for above in upper for below in lower
    )


# Heights -----------------------------------------------------------------------------------------------------------


def place(ranks: Ranks, gap: float, between_blocks: float) -> float:
    """Give each slot its `y`, so that lines are as straight as the order allows; returns the height of all.

    `gap`: at least so much room between two slots; `between_blocks`: more of it where a block begins or ends.
    """
    for rank in ranks:
        y = 0.0
        for slot in rank:
            slot.y = y + slot.height / 2
            y += slot.height + gap
    for number in range(ROUNDS * 12):
        towards = number % 2 == 0
        for rank in ranks if towards else reversed(ranks):
            _settle(rank, towards, gap, between_blocks, both=number >= ROUNDS)
    top = min((slot.y - slot.height / 2 for rank in ranks for slot in rank), default=0.0)
    for rank in ranks:
        for slot in rank:
            slot.y = round(slot.y - top, 1)
    return max((slot.y + slot.height / 2 for rank in ranks for slot in rank), default=0.0)


def _settle(rank: Sequence[Slot], towards: bool, gap: float, between_blocks: float, *, both: bool) -> None:
    """Move the slots of a rank as near to their neighbours' heights as their own order and sizes allow.

    Least squares under an order: pools of slots that would overlap share their mean (pool adjacent violators).
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
        weights = [1.0 if slot.bends or other.bends else STRAIGHT for other in beside]
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
