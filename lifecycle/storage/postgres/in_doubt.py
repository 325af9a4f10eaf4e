"""Exchanges of which nobody knows whether they happened: the connection was lost as they were committed.

Neither may simply be repeated: an outcome that was stored would be refused, and never announced; a claim that was
stored would be held, by a worker that does not know of it, for as long as that worker lives.
"""

from collections.abc import Sequence

from lifecycle.core.policies import Move
from lifecycle.core.task import Task
from lifecycle.storage.base import Claim, ClaimRequest, Settlement
from lifecycle.storage.postgres.server import Transaction
from lifecycle.storage.postgres.session import numbers
from lifecycle.storage.postgres.statements import Sql, task

__all__ = ["Doubts", "Resolved"]


class Resolved:
    """What is known now of settlements and of a worker's claims; still in doubt until `confirm`."""

    def __init__(
        self, doubts: "Doubts", done: Sequence[Settlement], made: Sequence[Settlement], kept: list[tuple[Claim, Task]]
    ) -> None:
        """`made`: those of `done` that did happen; `kept`: the claims that did, each with its task as it is stored."""
        self._doubts, self._done, self._kept = doubts, done, kept
        self._made = [id(settlement.move) for settlement in made]
        self.open = [settlement for settlement in done if id(settlement.move) not in self._made]
        """What did not happen, and can be tried again."""

    @property
    def claims(self) -> list[Claim]:
        """What the worker has, and did not know of."""
        return [claim for claim, _ in self._kept]

    def confirm(self) -> None:
        """Forget the doubts that are resolved: the worker is told now."""
        for (_, move), stored in self._kept:
            move.lease = stored.lease  # prolonged meanwhile, perhaps
        self._doubts.forget(self._made, self.claims)

    def merged(self, took: Sequence[bool]) -> list[bool]:
        """Which of all settlements took; `took`: which of the open ones."""
        rest = iter(took)
        return [id(settlement.move) in self._made or next(rest) for settlement in self._done]


class Doubts:
    """The exchanges in doubt, until their workers ask again."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._settled: dict[int, Settlement] = {}
        self._claims: dict[str, list[Claim]] = {}

    def __bool__(self) -> bool:
        return bool(self._settled or self._claims)

    def remember(self, done: Sequence[Settlement], took: Sequence[bool], claims: Sequence[Claim]) -> None:
        """This exchange may have happened, or not."""
        for settlement, taken in zip(done, took, strict=True):
            if taken:
                self._settled[id(settlement.move)] = settlement
        for claim in claims:
            self._claims.setdefault(claim.move.worker, []).append(claim)

    def resolved(
        self, transaction: Transaction, queue: int, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> Resolved | None:
        """Look what became of what is asked for again; ``None`` if none of that is in doubt."""
        again = [settlement for settlement in done if id(settlement.move) in self._settled]
        claims = self._claims.get(request.worker, []) if request is not None else []
        if not again and not claims:
            return None
        places = [known.seq for known, _ in (*again, *claims)]
        # Locked, so that a commit that is still on its way in the server is waited for.
        rows, histories = transaction.run(
            (self._sql.lock_rows, (queue, numbers(places))), (self._sql.histories, (queue, numbers(places)))
        )
        stored = {one.seq: one for one in map(task, rows.rows)}
        history = dict(histories.rows)
        made = [one for one in again if _has(history.get(one.task.seq, ""), one.task, one.move)]
        kept = []
        for claim in claims:
            known, move = claim
            now = stored.get(known.seq)
            if now is not None and (now.version, now.worker) == (known.version + len(move.states), move.worker):
                kept.append((claim, now))
        # What did happen is kept until the worker is told: the rest of its call may fail, too.
        for one in again:
            del self._settled[id(one.move)]
        self._settled |= {id(one.move): one for one in made}
        if request is not None:
            self._claims.pop(request.worker, None)
            if kept:
                self._claims[request.worker] = [claim for claim, _ in kept]
        return Resolved(self, done, made, kept)

    def forget(self, moves: Sequence[int], claims: Sequence[Claim]) -> None:
        """The worker has been told of these."""
        for move in moves:
            del self._settled[move]
        for worker in {claim.move.worker for claim in claims}:
            del self._claims[worker]


def _has(history: str, known: Task, move: Move) -> bool:
    """Is this move the next in the task's history after what was known?"""
    lines = history.splitlines(keepends=True)[known.version :]
    return "".join(lines[: len(move.states)]) == move.history
