"""Exchanges with an unknown outcome: the connection was lost, and the server did not come back in time.

Such an exchange must not simply be repeated. If it was stored, its outcomes would be refused and never announced, and
its claims would be held for as long as the worker lives, without the worker's knowledge. The server keeps its answer to
the last call of each connection, and is asked for the answer when the same worker calls again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lifecycle.core.task import Task
from lifecycle.storage.base import Claim, ClaimRequest, Settlement
from lifecycle.storage.redis.connection import NamedConnection
from lifecycle.storage.redis.server import RedisServer

__all__ = ["ExchangesInDoubt"]

ReadAnswer = Callable[[Any, Sequence[Settlement], ClaimRequest | None], tuple[list[bool], list[Claim]]]


class _ExchangeInDoubt(NamedTuple):
    """An exchange whose answer was lost."""

    connection: NamedConnection
    done: Sequence[Settlement]
    request: ClaimRequest | None

    def concerns(self, done: Sequence[Settlement], request: ClaimRequest | None) -> bool:
        """Return whether a call repeats one of the settlements, or comes from the same worker."""
        moves = {id(settlement.move) for settlement in self.done}
        repeated = any(id(settlement.move) in moves for settlement in done)
        return repeated or (request is not None and self.request is not None and request.worker == self.request.worker)


class ExchangesInDoubt:
    """The exchanges with an unknown outcome, and their results once known, until their workers ask."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._unresolved: list[_ExchangeInDoubt] = []
        self._settled: dict[int, tuple[Settlement, bool]] = {}
        self._claims: dict[str, list[Claim]] = {}

    def __bool__(self) -> bool:
        return bool(self._unresolved or self._settled or self._claims)

    def remember(self, connection: NamedConnection, done: Sequence[Settlement], request: ClaimRequest | None) -> None:
        """Add an exchange that may have happened."""
        self._unresolved.append(_ExchangeInDoubt(connection, done, request))

    def resolve(self, done: Sequence[Settlement], request: ClaimRequest | None, read_answer: ReadAnswer) -> None:
        """Ask the server about the exchanges that a call concerns. Raises `StorageError`; then they stay in doubt."""
        for exchange in [one for one in self._unresolved if one.concerns(done, request)]:
            answer = self._server.resolve(exchange.connection)
            self._unresolved.remove(exchange)
            if answer is None:  # the exchange did not happen, and cannot happen any more
                continue
            took, claims = read_answer(answer, exchange.done, exchange.request)
            for settlement, taken in zip(exchange.done, took, strict=True):
                self._settled[id(settlement.move)] = settlement, taken
            if claims and exchange.request is not None:
                self._claims.setdefault(exchange.request.worker, []).extend(claims)

    def settled(self, done: Sequence[Settlement]) -> list[bool | None]:
        """Return for each settlement whether it took; ``None`` if it was not made, and can be made now."""
        known = [self._settled.pop(id(settlement.move), None) for settlement in done]
        return [None if one is None else one[1] for one in known]

    def claims(self, request: ClaimRequest | None, get: Callable[[str], Task | None]) -> list[Claim]:
        """Return the claims that a worker still has, and does not know of."""
        found = []
        for claim in self._claims.pop(request.worker, []) if request is not None else []:
            (known, move), stored = claim, get(claim.task.id)
            after = known.seq, move.version, move.worker
            if stored is not None and (stored.seq, stored.version, stored.worker) == after:
                move.lease = stored.lease  # a heartbeat may have prolonged the lease
                found.append(claim)
        return found
