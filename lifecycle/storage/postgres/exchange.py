"""`Storage.exchange` on PostgreSQL: settle attempts and claim tasks, in two round trips."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from lifecycle.core.policies import WAITING, Move, Revocation, enqueued
from lifecycle.core.step import Report, reports
from lifecycle.core.table import REVOKE, Kind
from lifecycle.core.task import Task, cut_history
from lifecycle.storage.base import PROMOTE_LIMIT, Channel, Claim, ClaimRequest, Settlement
from lifecycle.storage.claims import ClaimDecisions, Visibility, visibility_after
from lifecycle.storage.postgres.rows import revocation_from_columns, task_from_row
from lifecycle.storage.postgres.schema import COLUMNS
from lifecycle.storage.postgres.session import Command, number_array, text_array
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["Exchange", "Row", "cut_histories", "own_revocations", "reports_of"]

Row = tuple[Any, ...]
_INVISIBLE: Final[Visibility] = (None, None)
_OWN: Final = len(COLUMNS)
_OF_FUNCTION: Final = len(COLUMNS) + 2
"""Where a claim's row has the revocation of its task, and that of its function."""


class Exchange:
    """One attempt at an exchange, and its results; a transaction that is repeated makes another attempt."""

    def __init__(self, statements: Statements, queue: int, transaction: Transaction) -> None:
        self._statements, self._queue, self._transaction = statements, queue, transaction
        self.took: list[bool] = []
        """For each settlement whether it took."""
        self.inserted: list[tuple[Task, int]] = []
        """The follow-ups that were inserted, each with its `seq`."""
        self.claims: list[Claim] = []
        self.changed: set[Channel] = set()
        self._unwritten: list[tuple[Task, Move, Visibility]] = []
        self._reranked: list[tuple[int, Visibility]] = []
        self._long_histories: list[int] = []

    def settle(self, done: Sequence[Settlement], request: ClaimRequest | None) -> list[Row] | None:
        """Commit outcomes; return the first rows for the request if the same round trip could fetch them."""
        rows = None
        parts = _parts(done)
        for part in parts:
            rows = self._settle_part(part, request if part is parts[-1] else None)
        return rows

    def claim(self, request: ClaimRequest, rows: list[Row] | None) -> None:
        """Decide about the first tasks. `rows`: the rows of these tasks, if `settle` has fetched them."""
        wanted = limit = request.limit
        decisions = ClaimDecisions(request)
        if rows is None:
            rows = self._fetch(request, PROMOTE_LIMIT, limit)
        while True:
            more = self._decide(rows, decisions) or len(rows) == wanted
            wanted = limit - len(self.claims)
            if decisions.over or not more or not wanted:
                return
            rows = self._fetch(request, 0, wanted)

    def _decide(self, rows: Sequence[Row], decisions: ClaimDecisions) -> bool:
        """Decide about each row; return whether rows must be fetched again, since a decision concerns other rows."""
        for row in rows:
            known, own = task_from_row(row), revocation_from_columns(*row[_OWN:_OF_FUNCTION])
            decision = decisions.decide(known, own, revocation_from_columns(*row[_OF_FUNCTION:]))
            if isinstance(decision, Move):
                # If another worker was faster, the revocation stops that worker's task, not this one.
                if decisions.spends and not self._spend(known.name):
                    return True
                self._take(known, decision, own)
            elif decision is not None:
                self._reranked.append((known.seq or 0, decision))
                self.changed.add(Channel.WORK)
            if decisions.spends or decisions.reports or decisions.over:
                return decisions.spends or decisions.reports
        return False

    def _spend(self, function: str) -> bool:
        """Use up a one-time revocation; False if another worker has done so. Waits for a worker that is doing so."""
        return self._transaction.run((self._statements.spend_revocation, (self._queue, function)))[0].row_count > 0

    def _take(self, known: Task, move: Move, own: Revocation | None) -> None:
        if move.lease is None and move.state.name in WAITING:
            self.changed.add(Channel.WORK)
        if move.ended is not None:
            self.changed.add(Channel.OUTCOME)
        if move.cuts_history:
            self._long_histories.append(known.seq or 0)
        self._unwritten.append((known, move, visibility_after(known, move, own)))
        self.claims.append(Claim(known, move))

    def last_writes(self) -> list[Command]:
        """Return the commands that end the exchange."""
        if not self._long_histories:
            return self.writes()
        return [cut_histories(self._statements, self._transaction, self._queue, self._long_histories, self.writes())]

    def writes(self) -> list[Command]:
        """Return the commands for all decisions that are not written yet."""
        commands: list[Command] = []
        if self._unwritten:
            self._unwritten.sort(key=lambda entry: entry[0].seq or 0)
            commands.append(self._statements.move(self._queue, self._unwritten))
            if revoked := [known.id for known, move, _ in self._unwritten if move.path[-1] == REVOKE]:
                commands.append((self._statements.delete_own_revocations, (self._queue, text_array(revoked))))
        if self._reranked:
            commands.append(self._statements.rank(self._queue, self._reranked))
        steps = [(known, move) for known, move, _ in self._unwritten if known.step is not None]
        if told := reports_of(steps):  # last: see `recover_lapsed`
            commands.append(self._statements.report(self._queue, told))
            self.changed.add(Channel.WORK)
        self._unwritten, self._reranked = [], []
        return commands

    def _fetch(self, request: ClaimRequest, promote_limit: int, limit: int) -> list[Row]:
        """Write the decisions made so far; return the first rows for the request, locked."""
        if not request.skip_names:
            return self._transaction.run(*self.writes(), self._claimable(request.now, promote_limit, limit))[-1].rows
        statements, queue, names = self._statements, self._queue, text_array(request.skip_names)
        locked = self._transaction.run(
            *self.writes(),
            self._claimable(request.now, promote_limit, 0),  # gives due tasks a rank, and returns none
            (statements.lock_ready, (queue, names, request.now, limit)),
        )[-1].rows
        if not locked:
            return []
        numbers = number_array([seq for (seq,) in locked])
        rows, _ = self._transaction.run(
            (statements.revocable, (queue, numbers)), (statements.forget_blocks, (queue, numbers))
        )
        return rows.rows

    def _claimable(self, now: float, promote_limit: int, limit: int) -> Command:
        return self._statements.claimable, (self._queue, now, promote_limit, limit)

    def _settle_part(self, done: Sequence[Settlement], request: ClaimRequest | None) -> list[Row] | None:
        places = self._places(done)
        order = sorted(range(len(done)), key=lambda number: done[number].task.seq or 0)
        moved = [(*done[number], places.get(number, _INVISIBLE)) for number in order]
        alone = request is None or any(
            move.follow_ups or move.frees_locks or (known.step is not None and move.ended is not None)
            for known, move in done
        )
        alone = alone or bool(request and request.skip_names)
        # Claims start tasks, but a settlement may do so.
        if started := [known.seq for known, move in done if move.state.kind is Kind.RUNNING]:
            self._transaction.run((self._statements.forget_blocks, (self._queue, number_array(started))))
        commands: list[Command] = [self._statements.move(self._queue, moved)]
        if request is not None and not alone:
            commands.append(self._claimable(request.now, PROMOTE_LIMIT, request.limit))
        results = self._transaction.run(*commands)
        took = {order[place - 1] for (place,) in results[0].rows}
        self.took += [number in took for number in range(len(done))]
        accepted = [done[number] for number in sorted(took)]
        for _, move in accepted:
            if move.ended is not None or move.result is not None:
                self.changed.add(Channel.OUTCOME)
            if move.lease is None and move.state.name in WAITING:
                self.changed.add(Channel.WORK)
        self._long_histories += [known.seq or 0 for known, move in accepted if move.cuts_history]
        if ids := [known.id for known, move in accepted if move.frees_locks]:
            self._transaction.run((self._statements.free_locks, (self._queue, text_array(ids))))
        if alone and (told := reports_of(accepted)):
            self._transaction.run(self._statements.report(self._queue, told))
            self.changed.add(Channel.WORK)
        if follow_ups := [(task, move) for _, move in accepted for task in move.follow_ups]:
            self._insert_follow_ups(follow_ups)
        return None if alone else results[1].rows

    def _places(self, done: Sequence[Settlement]) -> dict[int, Visibility]:
        """Return by position when claims find the tasks that wait after their settlements.

        Decided by the stored row, which is locked: the caller may have changed its copy of the task.
        """
        waiting = {
            number: known.seq
            for number, (known, move) in enumerate(done)
            if move.lease is None and move.state.name in WAITING and known.seq is not None
        }
        if not waiting:
            return {}
        # Revocations are read after the rows are locked: a call that revokes a task has to wait for its row, too.
        rows, revocations = self._transaction.run(
            (self._statements.lock_rows, (self._queue, number_array(waiting.values()))),
            (
                self._statements.own_revocations,
                (self._queue, text_array([done[number].task.id for number in waiting])),
            ),
        )
        own = own_revocations(revocations.rows)
        stored = {task.seq: task for task in map(task_from_row, rows.rows)}
        places = {}
        for number, seq in waiting.items():
            if task := stored.get(seq):
                places[number] = visibility_after(task, done[number].move, own.get(task.id))
        return places

    def _insert_follow_ups(self, follow_ups: Sequence[tuple[Task, Move]]) -> None:
        """Insert follow-ups, each with the move that it follows; leave out those whose ids are taken."""
        first = {
            task.id: (task, enqueued(task, move.at, move.worker, move.hold_until))
            for task, move in reversed(follow_ups)
        }
        tasks = [task for task, _ in follow_ups if first[task.id][0] is task]
        (revocations,) = self._transaction.run((self._statements.own_revocations, (self._queue, text_array(first))))
        own = own_revocations(revocations.rows)
        moves = [first[task.id][1] for task in tasks]
        places = [visibility_after(task, move, own.get(task.id)) for task, move in zip(tasks, moves, strict=True)]
        (inserted,) = self._transaction.run(self._statements.insert(self._queue, tasks, moves, places, if_new=False))
        new = [(first[task_id][0], seq) for seq, task_id in inserted.rows]
        self.inserted += new
        if waiting := [(task.id, task.step.awaits) for task, _ in new if task.step is not None and task.step.awaits]:
            self._transaction.run(self._statements.count_awaited(self._queue, waiting))
        if inserted.rows:
            self.changed.add(Channel.WORK)


def cut_histories(
    statements: Statements, transaction: Transaction, queue: int, moved: Sequence[int], moves: Sequence[Command]
) -> Command:
    """Run the commands that move tasks; return the command that leaves out the middle of these tasks' histories."""
    *_, histories = transaction.run(*moves, (statements.histories, (queue, number_array(moved))))
    cut = [(seq, cut_history(history)) for seq, history in sorted(histories.rows)]
    numbers, texts = number_array([seq for seq, _ in cut]), text_array([history for _, history in cut])
    return statements.set_histories, (queue, numbers, texts)


def reports_of(moved: Iterable[tuple[Task, Move]]) -> list[Report]:
    """Return what moves have to tell the tasks that wait for theirs. The tasks are as before the moves."""
    return [
        report
        for known, move in moved
        if known.step is not None
        for report in reports(known.id, known.step, move.state, move.ended)
    ]


def own_revocations(rows: Sequence[Row]) -> dict[str, Revocation | None]:
    """Return the revocations of tasks, by id, from the rows of `Statements.own_revocations`."""
    return {task_id: revocation_from_columns(until, once) for task_id, until, once in rows}


def _parts(done: Sequence[Settlement]) -> list[list[Settlement]]:
    """Split settlements so that no part has two of one task: the first may make the second stale."""
    parts: list[list[Settlement]] = []
    seen: set[int | None] = set()
    for settlement in done:
        if not parts or settlement.task.seq in seen:
            parts.append([])
            seen = set()
        parts[-1].append(settlement)
        seen.add(settlement.task.seq)
    return parts
