"""Exchanges of which nobody knows whether they happened: the connection was lost, and the server did not come back.

Neither may simply be repeated: an outcome that was stored would be refused, and never announced; a claim that was
stored would be held, by a worker that does not know of it, for as long as that worker lives. The server remembers its
answer to the last call of each connection, and is asked for it as soon as somebody wants the same again.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lifecycle.core.task import Task
from lifecycle.storage.base import Claim, ClaimRequest, Settlement
from lifecycle.storage.redis.server import NamedConnection, RedisServer

__all__ = ["Doubts"]

Received = Callable[[Any, Sequence[Settlement], ClaimRequest | None], tuple[list[bool], list[Claim]]]


class _Doubt(NamedTuple):
    """An exchange whose answer was lost."""

    line: NamedConnection
    done: Sequence[Settlement]
    request: ClaimRequest | None

    def concerns(self, done: Sequence[Settlement], request: ClaimRequest | None) -> bool:
        """Is it asked for again, or is its worker back?"""
        moves = {id(settlement.move) for settlement in self.done}
        again = any(id(settlement.move) in moves for settlement in done)
        return again or (request is not None and self.request is not None and request.worker == self.request.worker)


class Doubts:
    """The exchanges in doubt, until their workers ask again, and what has become of them."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._open: list[_Doubt] = []
        self._settled: dict[int, tuple[Settlement, bool]] = {}
        self._claims: dict[str, list[Claim]] = {}

    def __bool__(self) -> bool:
        return bool(self._open or self._settled or self._claims)

    def remember(self, line: NamedConnection, done: Sequence[Settlement], request: ClaimRequest | None) -> None:
        """This exchange may have happened, or not."""
        self._open.append(_Doubt(line, done, request))

    def resolve(self, done: Sequence[Settlement], request: ClaimRequest | None, received: Received) -> None:
        """Ask what became of what is wanted again; `received`: what is done with an answer."""
        for doubt in [one for one in self._open if one.concerns(done, request)]:
            answer = self._server.resolve(doubt.line)  # in doubt still, if this fails
            self._open.remove(doubt)
            if answer is None:  # it did not happen, and never will
                continue
            took, claims = received(answer, doubt.done, doubt.request)
            for settlement, taken in zip(doubt.done, took, strict=True):
                self._settled[id(settlement.move)] = settlement, taken
            if claims and doubt.request is not None:
                self._claims.setdefault(doubt.request.worker, []).extend(claims)

    def settled(self, done: Sequence[Settlement]) -> list[bool | None]:
        """Of each settlement whether it took; ``None``: it was not made, and can be."""
        known = [self._settled.pop(id(settlement.move), None) for settlement in done]
        return [None if one is None else one[1] for one in known]

    def claims(self, request: ClaimRequest | None, get: Callable[[str], Task | None]) -> list[Claim]:
        """What a worker has, and did not know of."""
        found = []
        for claim in self._claims.pop(request.worker, []) if request is not None else []:
            (known, move), now = claim, get(claim.task.id)
            after = known.seq, known.version + len(move.states), move.worker
            if now is not None and (now.seq, now.version, now.worker) == after:
                move.lease = now.lease  # prolonged meanwhile, perhaps
                found.append(claim)
        return found
