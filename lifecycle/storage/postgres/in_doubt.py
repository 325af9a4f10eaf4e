"""Exchanges with an unknown outcome: the connection was lost during the commit.

Such an exchange must not simply be repeated. If it was stored, its outcomes would be refused and never announced, and
its claims would be held for as long as the worker lives, without the worker's knowledge.
"""

from collections.abc import Sequence

from lifecycle.core.policies import Move
from lifecycle.core.task import Task, lines_after
from lifecycle.storage.base import Claim, ClaimRequest, Settlement
from lifecycle.storage.postgres.rows import task_from_row
from lifecycle.storage.postgres.session import number_array
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["ExchangesInDoubt", "Resolved"]


class Resolved:
    """Outcome of the settlements and claims that a call asks for again; they stay in doubt until `confirm`."""

    def __init__(
        self,
        in_doubt: "ExchangesInDoubt",
        done: Sequence[Settlement],
        made: Sequence[Settlement],
        claims: list[tuple[Claim, Task]],
    ) -> None:
        """`made`: the settlements that happened; `claims`: the claims that happened, each with its task as stored."""
        self._in_doubt, self._done, self._claims = in_doubt, done, claims
        self._made = [id(settlement.move) for settlement in made]
        self.open = [settlement for settlement in done if id(settlement.move) not in self._made]
        """Settlements that did not happen, and can be made now."""

    @property
    def claims(self) -> list[Claim]:
        """Claims that the worker still has, and does not know of."""
        return [claim for claim, _ in self._claims]

    def confirm(self) -> None:
        """Remove what is resolved: the worker gets the answer now."""
        for (_, move), stored in self._claims:
            move.lease = stored.lease  # a heartbeat may have prolonged the lease
        self._in_doubt.forget(self._made, self.claims)

    def merged(self, took: Sequence[bool]) -> list[bool]:
        """Return for each settlement whether it took. `took`: the same for the settlements in `open`."""
        rest = iter(took)
        return [id(settlement.move) in self._made or next(rest) for settlement in self._done]


class ExchangesInDoubt:
    """The settlements and claims with an unknown outcome, until their workers ask again."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._settled: dict[int, Settlement] = {}
        self._claims: dict[str, list[Claim]] = {}

    def __bool__(self) -> bool:
        return bool(self._settled or self._claims)

    def remember(self, done: Sequence[Settlement], took: Sequence[bool], claims: Sequence[Claim]) -> None:
        """Add an exchange that may have happened. `took`: whether each settlement took, if the commit happened."""
        for settlement, taken in zip(done, took, strict=True):
            if taken:
                self._settled[id(settlement.move)] = settlement
        for claim in claims:
            self._claims.setdefault(claim.move.worker, []).append(claim)

    def resolve(
        self, transaction: Transaction, queue: int, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> Resolved | None:
        """Find out which of the settlements and claims happened; ``None`` if none of them is in doubt."""
        repeated = [settlement for settlement in done if id(settlement.move) in self._settled]
        claims = self._claims.get(request.worker, []) if request is not None else []
        if not repeated and not claims:
            return None
        numbers = number_array([known.seq for known, _ in (*repeated, *claims)])
        # Locking the rows waits for a commit that the server has not finished.
        rows, histories = transaction.run(
            (self._statements.lock_rows, (queue, numbers)), (self._statements.histories, (queue, numbers))
        )
        stored = {one.seq: one for one in map(task_from_row, rows.rows)}
        history = dict(histories.rows)
        made = [one for one in repeated if _contains(history.get(one.task.seq, ""), one.task, one.move)]
        happened = []
        for claim in claims:
            known, move = claim
            row = stored.get(known.seq)
            if row is not None and (row.version, row.worker) == (move.version, move.worker):
                happened.append((claim, row))
        # Settlements and claims that happened stay in doubt until `confirm`: the rest of the call may fail, too.
        for one in repeated:
            del self._settled[id(one.move)]
        self._settled |= {id(one.move): one for one in made}
        if request is not None:
            self._claims.pop(request.worker, None)
            if happened:
                self._claims[request.worker] = [claim for claim, _ in happened]
        return Resolved(self, done, made, happened)

    def forget(self, moves: Sequence[int], claims: Sequence[Claim]) -> None:
        """Remove settlements, by the ids of their moves, and claims."""
        for move in moves:
            del self._settled[move]
        for worker in {claim.move.worker for claim in claims}:
            del self._claims[worker]


def _contains(history: str, known: Task, move: Move) -> bool:
    """Return whether the move follows in the history, directly after the version that the worker knew."""
    return "".join(lines_after(history, known.version)[: len(move.states)]) == move.history
