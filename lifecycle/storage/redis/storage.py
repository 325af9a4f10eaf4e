"""The Redis adapter: a queue under keys of its own on a server, any number of processes on any number of hosts."""

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from lifecycle.clock import Clock, RemoteClock
from lifecycle.core.policies import MAX_INTERRUPTIONS, Move, Revocation, claimed, enqueued, recover
from lifecycle.core.task import Record, Task, read_history
from lifecycle.errors import DuplicateTask
from lifecycle.escaping import printable
from lifecycle.storage.base import (
    NO_LIMITS,
    Actor,
    Claim,
    ClaimRequest,
    Lock,
    PeriodicState,
    RevocationTarget,
    Settlement,
    TaskStatus,
    Tick,
)
from lifecycle.storage.redis.errors import OutcomeUnknown
from lifecycle.storage.redis.in_doubt import ExchangesInDoubt
from lifecycle.storage.redis.rows import (
    grouped,
    history_stamp,
    lock_from_bytes,
    new_task_argument,
    packed_lock,
    packed_revocation,
    periodic_from_bytes,
    readable_tasks,
    revocation_from_bytes,
    settlement_argument,
    state_from_bytes,
    task_from_fields,
)
from lifecycle.storage.redis.scripts import STORED_STATES
from lifecycle.storage.redis.server import RedisServer, log
from lifecycle.storage.redis.url import ConnectionSettings

__all__ = ["RedisStorage"]

_TICKED: Final = 2
"""The answer of the script that enqueues, if another process has made the tick."""
_PAGE_SIZE: Final = 500
"""Number of tasks that one call reads: other clients of the server wait meanwhile."""
_SCAN_PAGE_SIZE: Final = 5000
"""Number of entries of a set that one call looks at."""
_GLOB_CHARACTER: Final = re.compile(r"[*?\[\]^\\-]")
"""A character with a meaning in a pattern of Redis."""


class RedisStorage:
    """One queue on a Redis server; the first call connects."""

    def __init__(self, settings: ConnectionSettings, queue: str = "default") -> None:
        """`settings`: see `lifecycle.storage.redis.url.parsed`."""
        self._server = RedisServer(settings, queue)
        self.location = settings.location
        self._in_doubt = ExchangesInDoubt(self._server)
        notifier = self._server.notifier
        self.generation, self.wait, self.wake = notifier.generation, notifier.wait, notifier.wake

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Insert new tasks, all or none."""
        moves = [enqueued(task, now, *actor) for task in tasks]
        _set_numbers(tasks, *self._server.write("enqueue", list(map(new_task_argument, tasks, moves))))
        return moves

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make ticks of a periodic task."""
        moves = [enqueued(task, now, *actor) for task in tasks]
        step = tick.name, tick.until, tick.before if tick.before is not None else False
        kind, answer = self._server.write("enqueue", list(map(new_task_argument, tasks, moves)), step)
        if kind == _TICKED:
            return None
        _set_numbers(tasks, kind, answer)
        return moves

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Settle attempts and claim tasks, in one call."""
        if not done and request is None:
            return [], []
        if self._in_doubt:
            self._in_doubt.resolve(done, request, self._read_answer)
            found = self._in_doubt.claims(request, self.get)
            settled = self._in_doubt.settled(done)
            rest = [one for one, known in zip(done, settled, strict=True) if known is None]
            request = None if found else request
            took, claims = self._exchange(rest, request) if rest or request is not None else ([], [])
            others = iter(took)
            return [next(others) if known is None else known for known in settled], [*found, *claims]
        return self._exchange(done, request)

    def _exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        settlements = []
        for known, move in done:
            moves = [enqueued(task, move.at, move.worker, move.hold_until) for task in move.follow_ups]
            follow_ups = list(map(new_task_argument, move.follow_ups, moves))
            settlements.append(settlement_argument(known, move, follow_ups))
        claim = None
        if request is not None:
            worker, now, lease, hold_scheduled, limit, batchable, skip_names = request
            claim = (
                worker,
                now,
                now + lease,
                hold_scheduled,
                limit,
                batchable and [*batchable],
                *history_stamp(now, worker),
                [*skip_names] if skip_names else None,
            )
        try:
            answer = self._server.write("exchange", settlements, claim)
        except OutcomeUnknown as error:
            self._in_doubt.remember(error.connection, done, request)
            raise
        return self._read_answer(answer, done, request)

    def _read_answer(
        self, answer: Any, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> tuple[list[bool], list[Claim]]:
        """Read the answer to an exchange: whether each settlement took, and the claims."""
        took, follow_up_numbers, claimed_fields, damaged = answer
        for taken, (_, move), numbers in zip(took, done, follow_up_numbers, strict=True):
            if taken:
                for task, seq in zip(move.follow_ups, numbers, strict=True):
                    if seq is not None:
                        task.seq = seq
        _log_damaged(damaged)
        claims = []
        if request is not None:
            worker, now, lease, hold_scheduled, *_ = request
            for trigger, *fields in grouped(claimed_fields, 5):
                known = task_from_fields(*fields)
                move = claimed(known, trigger.decode(), worker, now, lease, hold_scheduled=hold_scheduled)
                claims.append(Claim(known, move))
        return [bool(taken) for taken in took], claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Stop holding waiting tasks."""
        return [bool(freed) for freed in self._server.write("release", [task.fence for task in tasks], now)]

    def extend(self, workers: Collection[str], until: float) -> int:
        """Prolong the leases of workers, on tasks and locks."""
        return int(self._server.write("extend", [*workers], until))

    def recover(
        self,
        now: float,
        actor: Actor,
        *,
        max_interruptions: int = MAX_INTERRUPTIONS,
        of_functions: Mapping[str, int] = NO_LIMITS,
        limit: int = 100,
    ) -> list[Claim]:
        """Recover tasks whose leases have lapsed."""
        cursor = str(random.getrandbits(30))
        at = history_stamp(now, actor.worker)
        limits = {**of_functions}
        lapsed, damaged = self._server.write("recover", now, *actor, max_interruptions, limits, limit, *at, cursor)
        _log_damaged(damaged)
        claims = []
        for fields in grouped(lapsed, 4):
            known = task_from_fields(*fields)
            move = recover(
                known,
                now,
                worker=actor.worker,
                hold_until=actor.hold_until,
                max_interruptions=of_functions.get(known.name, max_interruptions),
            )
            claims.append(Claim(known, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """Request cancellation of a running task."""
        return bool(self._server.write("cancel", task_id))

    def canceling(self, workers: Collection[str]) -> list[str]:
        """Return the ids of the workers' tasks for which cancellation was requested."""
        return [task_id.decode() for task_id in self._server.read("canceling", [*workers])]

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Store a revocation."""
        task_id = None if target.function else target.key
        self._server.write("revoke", _field(target), packed_revocation(revocation), task_id, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Delete a revocation."""
        task_id = None if target.function else target.key
        return bool(self._server.write("revoke", _field(target), None, task_id, now))

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """Return a stored revocation."""
        return revocation_from_bytes(self._server.command(b"HGET", self._key("revocations"), _field(target).encode()))

    def lock(self, lock: Lock, now: float) -> bool:
        """Take a lock."""
        return bool(self._server.write("lock", lock.name, packed_lock(lock), now))

    def unlock(self, name: str, owner: str) -> bool:
        """Free a lock of this owner."""
        return bool(self._server.write("lock", name, None, owner))

    def locks(self, now: float) -> list[Lock]:
        """Return the locks that are taken, by name."""
        stored = self._server.command(b"HGETALL", self._key("locks"))
        locks = (lock_from_bytes(*pair) for pair in grouped(stored, 2))
        return sorted((lock for lock in locks if lock.until > now), key=_by_name)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """Free locks, whatever their owner."""
        return int(self._server.write("flush_locks", None if names is None else [*names]))

    def periodic_states(self) -> list[PeriodicState]:
        """Return the states of periodic tasks."""
        stored = self._server.command(b"HGETALL", self._key("periodic"))
        return sorted(periodic_from_bytes(*pair) for pair in grouped(stored, 2))

    def pause_periodic(self, name: str, *, paused: bool, now: float) -> bool:
        """Pause or resume a periodic task."""
        return bool(self._server.write("pause_periodic", name, paused, now))

    # Queries -------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """Return a task."""
        at, call, payload = self._server.fields(task_id, b"at", b"call", b"payload")
        return None if at is None and call is None else task_from_fields(task_id.encode(), at, call, payload)

    def history(self, task_id: str) -> list[Record] | None:
        """Return the history of a task."""
        (text,) = self._server.fields(task_id, b"history")
        return None if text is None else read_history(text.decode())

    def status(self, task_id: str) -> TaskStatus | None:
        """Return state and result of a task."""
        at, result = self._server.fields(task_id, b"at", b"result")
        return None if at is None else TaskStatus(state_from_bytes(task_id, at), result)

    def statuses(self, task_ids: Collection[str]) -> dict[str, TaskStatus]:
        """Return state and result of many tasks; more than 500 are read in several calls."""
        found, wanted = {}, list(task_ids)
        for begin in range(0, len(wanted), _PAGE_SIZE):
            ids = wanted[begin : begin + _PAGE_SIZE]
            for task_id, (at, result) in zip(ids, self._server.read("statuses", ids), strict=True):
                if at is not None:
                    found[task_id] = TaskStatus(state_from_bytes(task_id, at), result)
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of tasks in each state."""
        counts = zip(STORED_STATES, self._server.read("counts", STORED_STATES), strict=True)
        return {state: number for state, number in counts if number}

    def tasks(
        self,
        states: Collection[str] | None = None,
        limit: int = 100,
        before: int | None = None,
        *,
        name: str | None = None,
        since: float | None = None,
    ) -> list[Task]:
        """Return tasks, newest first.

        More than 500 are read in several calls: a task that moves meanwhile may be missing.
        """
        among = [state for state in STORED_STATES if states is None or state in states]
        found: list[Task] = []
        more = True
        while more and len(found) < limit:
            wanted = limit - len(found)
            before, more, page = self._server.read("tasks", among, wanted, before, name, since, _PAGE_SIZE)
            found += readable_tasks(page)
        return found

    def find_ids(self, text: str, limit: int = 10) -> list[str]:
        """Return ids that begin or end with a text."""
        escaped = _GLOB_CHARACTER.sub(r"\\\g<0>", text)
        found: dict[str, float] = {}
        for key in self._key("running"), *self._server.read("state_sets"):
            # An entry of the running tasks begins with the sequence number.
            runs = key == self._key("running")
            head = "?" * 16 if runs else ""
            for pattern in f"{head}{escaped}*", f"*{escaped}":
                for entry, score in self._scan(key, pattern.encode()):
                    task_id = entry[16:] if runs else entry
                    if task_id.startswith(text) or task_id.endswith(text):
                        found[task_id] = int(entry[:16]) if runs else score
        return sorted(found, key=lambda task_id: -found[task_id])[:limit]

    def _scan(self, key: bytes, pattern: bytes) -> Iterator[tuple[str, float]]:
        """Yield the members of a sorted set that match, with their scores, in any order; some twice."""
        cursor = b"0"
        while True:
            cursor, page = self._server.command(
                b"ZSCAN", key, cursor, b"MATCH", pattern, b"COUNT", b"%d" % _SCAN_PAGE_SIZE
            )
            yield from ((entry.decode(), float(score)) for entry, score in grouped(page, 2))
            if cursor == b"0":
                return

    def next_due(self, skip_names: frozenset[str] = frozenset()) -> float | None:
        """Return the moment from which a claim may find a task."""
        ready, *moments = self._server.read("next_due", [*skip_names])
        if ready:
            return float("-inf")
        return min((float(moment) for moment in moments if moment is not None), default=None)

    # Maintenance ---------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000, states: Collection[str] | None = None) -> int:
        """Delete tasks that came to rest before a moment."""
        among = [state for state in STORED_STATES if states is None or state in states]
        return int(self._server.write("prune", before, limit, among))

    def flush(self) -> None:
        """Delete everything of the queue."""
        self._server.write("flush")

    def clock(self) -> Clock:
        """Return the clock of the server."""
        return RemoteClock(self._server.now)

    def close(self) -> None:
        """Close the connections."""
        self._server.close()

    def _key(self, name: str) -> bytes:
        return f"{self._server.prefix}:{name}".encode()


_by_name: Final = attrgetter("name")


def _set_numbers(tasks: Sequence[Task], inserted: int, answer: Any) -> None:
    """Set the numbers of new tasks, or raise `DuplicateTask`, as the script answers."""
    if not inserted:
        raise DuplicateTask(answer.decode())
    for task, seq in zip(tasks, answer, strict=True):
        task.seq = seq


def _field(target: RevocationTarget) -> str:
    """Return the field that stores a revocation."""
    return ("f" if target.function else "t") + target.key


def _log_damaged(damaged: Sequence[bytes]) -> None:
    for task_id in damaged:
        log.error("quarantined a damaged task: id=%s", printable(task_id.decode("utf-8", "replace")))
