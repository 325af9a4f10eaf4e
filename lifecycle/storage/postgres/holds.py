"""Ends of holds on PostgreSQL: `Storage.release` and `Storage.recover`, each within one transaction."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from lifecycle.core.policies import WAITING, Move, Revocation, recover, visibility
from lifecycle.core.task import Task
from lifecycle.storage.base import Actor, Channel, Claim
from lifecycle.storage.claims import Visibility, visibility_after
from lifecycle.storage.postgres.exchange import cut_histories, own_revocations, reports_of
from lifecycle.storage.postgres.rows import task_from_row
from lifecycle.storage.postgres.session import Command, number_array, text_array
from lifecycle.storage.postgres.statements import Statements
from lifecycle.storage.postgres.transaction import Transaction

__all__ = ["Recovery", "recover_lapsed", "release_held"]


class Recovery(NamedTuple):
    """Tasks whose leases have lapsed, and what is left to do for them."""

    claims: list[Claim]
    changed: set[Channel]
    commands: list[Command]
    """Commands that end the transaction."""


def release_held(
    statements: Statements, transaction: Transaction, queue: int, tasks: Sequence[Task], now: float
) -> tuple[list[bool], list[tuple[int, Visibility]]]:
    """Lock waiting tasks; return whether each is held with this fence, and when claims find those that are."""
    stored, own = _locked(
        transaction,
        (statements.lock_rows, (queue, number_array([task.seq for task in tasks]))),
        (statements.own_revocations, (queue, text_array([task.id for task in tasks]))),
    )
    held = {one.seq: one for one in stored if one.lease is not None and one.state in WAITING}
    freed, places = [], []
    for known in tasks:
        one = held.get(known.seq)
        free = one is not None and one.fence == known.fence
        if one is not None and free:
            del held[known.seq]
            places.append((cast(int, one.seq), visibility(one, own.get(one.id), now)))
        freed.append(free)
    return freed, places


def recover_lapsed(
    statements: Statements,
    transaction: Transaction,
    queue: int,
    now: float,
    actor: Actor,
    allowed_interruptions: Callable[[str], int],
    limit: int,
) -> Recovery:
    """Lock tasks whose leases have lapsed, and decide about each. `allowed_interruptions`: by function."""
    stored, own = _locked(
        transaction,
        (statements.lock_lapsed, (queue, now, limit)),
        (statements.revocations_of_lapsed, (queue, now)),
    )
    claims, freed = [], []
    rows: list[tuple[Task, Move, Visibility]] = []
    changed: set[Channel] = set()
    for known in stored:
        if known.state in WAITING:
            freed.append((cast(int, known.seq), visibility(known, own.get(known.id), now)))
            continue
        move = recover(
            known,
            now,
            worker=actor.worker,
            hold_until=actor.hold_until,
            max_interruptions=allowed_interruptions(known.name),
        )
        rows.append((known, move, visibility_after(known, move, own.get(known.id))))
        claims.append(Claim(known, move))
        changed.add(Channel.OUTCOME if move.ended is not None else Channel.WORK)
    commands: list[Command] = []
    if rows:
        rows.sort(key=lambda row: row[0].seq or 0)
        commands = [
            statements.move(queue, rows),
            (statements.free_locks, (queue, text_array([known.id for known, _ in claims]))),
        ]
    if long := [known.seq or 0 for known, move in claims if move.cuts_history]:
        commands = [cut_histories(statements, transaction, queue, long, commands)]
    if freed:
        changed.add(Channel.WORK)
        commands.append(statements.rank(queue, freed))
    if told := reports_of(claims):  # last: one of the tasks that are freed here may get its verdict
        changed.add(Channel.WORK)
        commands.append(statements.report(queue, told))
    return Recovery(claims, changed, commands)


def _locked(
    transaction: Transaction, lock: Command, select: Command
) -> tuple[list[Task], dict[str, Revocation | None]]:
    """Lock rows, then read the revocations of their tasks, so that none is missed."""
    locked, revocations = transaction.run(lock, select)
    return list(map(task_from_row, locked.rows)), own_revocations(revocations.rows)
