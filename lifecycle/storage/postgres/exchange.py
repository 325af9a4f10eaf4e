"""`Storage.exchange` on PostgreSQL: settle what is done and claim what is next, in two round trips."""

from collections.abc import Sequence
from typing import Any

from lifecycle.core.policies import WAITING, Move, Revocation, enqueued
from lifecycle.core.table import REVOKE
from lifecycle.core.task import Task
from lifecycle.storage.base import PROMOTE_LIMIT, Channel, Claim, ClaimRequest, Settlement
from lifecycle.storage.claims import ClaimDecisions, visibility_after
from lifecycle.storage.postgres.server import Transaction
from lifecycle.storage.postgres.session import Command, numbers, texts
from lifecycle.storage.postgres.statements import Rank, Sql, ranks, revocation, task

__all__ = ["Exchange", "Row"]

Row = tuple[Any, ...]
_NOWHERE: Rank = (None, None)


class Exchange:
    """One attempt at an exchange, and what came of it; a transaction that has to be repeated makes another."""

    def __init__(self, sql: Sql, queue: int, transaction: Transaction) -> None:
        self._sql, self._queue, self._transaction = sql, queue, transaction
        self.took: list[bool] = []
        self.births: list[tuple[Task, int]] = []
        self.claims: list[Claim] = []
        self.news: set[Channel] = set()
        self._unwritten: list[tuple[Task, Move, Rank]] = []
        self._reranked: list[tuple[int, Rank]] = []

    def settle(self, done: Sequence[Settlement], request: ClaimRequest | None) -> list[Row] | None:
        """Commit outcomes; what the request finds then, if that could be had along with it."""
        found = None
        parts = _parts(done)
        for part in parts:
            found = self._settle(part, request if part is parts[-1] else None)
        return found

    def claim(self, request: ClaimRequest, found: list[Row] | None) -> None:
        """Decide what becomes of the foremost tasks; `found`: those, if `settle` had them."""
        now, limit = request.now, request.limit
        decisions = ClaimDecisions(request)
        if found is None:
            found = self._transaction.run(self._foremost(now, PROMOTE_LIMIT, limit))[0].rows
        wanted = limit
        while True:
            more = self._go_through(found, decisions) or len(found) == wanted
            wanted = limit - len(self.claims)
            if decisions.over or not more or not wanted:
                return
            found = self._transaction.run(*self.writes(), self._foremost(now, 0, wanted))[-1].rows

    def _go_through(self, found: Sequence[Row], decisions: ClaimDecisions) -> bool:
        """Decide on each; whether they have to be looked at anew, since a revocation was spent."""
        for row in found:
            known, own = task(row), revocation(*row[17:19])
            decision = decisions.decide(known, own, revocation(*row[19:21]))
            if isinstance(decision, Move):
                # If another worker was faster, the revocation stops that worker's task, not this one.
                if decisions.spends and not self._spent(known.name):
                    return True
                self._take(known, decision, own)
            elif decision is not None:
                self._reranked.append((known.seq or 0, decision))
                self.news.add(Channel.WORK)
            if decisions.spends or decisions.over:
                return decisions.spends
        return False

    def _spent(self, function: str) -> bool:
        """Use up a one-time revocation, which another worker may be doing at this moment."""
        return self._transaction.run((self._sql.spend, (self._queue, function)))[0].touched > 0

    def _take(self, known: Task, move: Move, own: Revocation | None) -> None:
        if move.lease is None and move.state.name in WAITING:
            self.news.add(Channel.WORK)
        if move.ended is not None:
            self.news.add(Channel.OUTCOME)
        self._unwritten.append((known, move, visibility_after(known, move, own)))
        self.claims.append(Claim(known, move))

    def writes(self) -> list[Command]:
        """What is decided and not written yet."""
        commands: list[Command] = []
        if self._unwritten:
            self._unwritten.sort(key=lambda entry: entry[0].seq or 0)
            commands.append(self._sql.moves(self._queue, self._unwritten))
            if revoked := [known.id for known, move, _ in self._unwritten if move.path[-1] == REVOKE]:
                commands.append((self._sql.forget_own, (self._queue, texts(revoked))))
        if self._reranked:
            commands.append((self._sql.rank, ranks(self._queue, self._reranked)))
        self._unwritten, self._reranked = [], []
        return commands

    def _foremost(self, now: float, ripen: int, most: int) -> Command:
        return self._sql.foremost, (self._queue, now, ripen, most)

    def _settle(self, done: Sequence[Settlement], request: ClaimRequest | None) -> list[Row] | None:
        places = self._places(done)
        order = sorted(range(len(done)), key=lambda number: done[number].task.seq or 0)
        rows = [(*done[number], places.get(number, _NOWHERE)) for number in order]
        alone = request is None or any(move.follow_ups or move.frees_locks for _, move in done)
        commands: list[Command] = [self._sql.moves(self._queue, rows)]
        if request is not None and not alone:
            commands.append(self._foremost(request.now, PROMOTE_LIMIT, request.limit))
        results = self._transaction.run(*commands)
        moved = {order[place - 1] for (place,) in results[0].rows}
        self.took += [number in moved for number in range(len(done))]
        accepted = [done[number] for number in sorted(moved)]
        for _, move in accepted:
            if move.ended is not None or move.result is not None:
                self.news.add(Channel.OUTCOME)
            if move.lease is None and move.state.name in WAITING:
                self.news.add(Channel.WORK)
        if broken_off := [known.id for known, move in accepted if move.frees_locks]:
            self._transaction.run((self._sql.free_locks, (self._queue, texts(broken_off))))
        if follow_ups := [(one, move) for _, move in accepted for one in move.follow_ups]:
            self._bear(follow_ups)
        return None if alone else results[1].rows

    def _places(self, done: Sequence[Settlement]) -> dict[int, Rank]:
        """Where claims find what is left waiting. By its stored row, locked: the caller may have changed its copy."""
        waiting = {
            number: known.seq
            for number, (known, move) in enumerate(done)
            if move.lease is None and move.state.name in WAITING and known.seq is not None
        }
        if not waiting:
            return {}
        ids = texts([done[number].task.id for number in waiting])
        # What is revoked is read once the rows are locked: whoever revokes has to wait for them, too.
        locked, said = self._transaction.run(
            (self._sql.lock_rows, (self._queue, numbers(waiting.values()))), (self._sql.own, (self._queue, ids))
        )
        own = {key: revocation(until, once) for key, until, once in said.rows}
        stored = {one.seq: one for one in map(task, locked.rows)}
        places = {}
        for number, seq in waiting.items():
            if one := stored.get(seq):
                places[number] = visibility_after(one, done[number].move, own.get(one.id))
        return places

    def _bear(self, new: Sequence[tuple[Task, Move]]) -> None:
        """Follow-ups, but for those whose id is taken."""
        made = {one.id: (one, enqueued(one, move.at, move.worker, move.hold_until)) for one, move in reversed(new)}
        tasks = [one for one, _ in new if made[one.id][0] is one]
        (said,) = self._transaction.run((self._sql.own, (self._queue, texts(made))))
        own = {key: revocation(until, once) for key, until, once in said.rows}
        birth = [made[one.id][1] for one in tasks]
        places = [visibility_after(one, move, own.get(one.id))[0] for one, move in zip(tasks, birth, strict=True)]
        (born,) = self._transaction.run(self._sql.births(self._queue, tasks, birth, places, new=False))
        self.births += [(made[task_id][0], seq) for seq, task_id in born.rows]
        if born.rows:
            self.news.add(Channel.WORK)


def _parts(done: Sequence[Settlement]) -> list[list[Settlement]]:
    """The same, cut so that no part has two of one task: the first may make the second stale."""
    parts: list[list[Settlement]] = []
    seen: set[int | None] = set()
    for settlement in done:
        if not parts or settlement.task.seq in seen:
            parts.append([])
            seen = set()
        parts[-1].append(settlement)
        seen.add(settlement.task.seq)
    return parts
