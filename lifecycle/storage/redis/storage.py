"""The Redis adapter: a queue under keys of its own on a server, any number of processes on any number of hosts."""

import random
from collections.abc import Collection, Sequence
from operator import attrgetter
from typing import Any, Final

from lifecycle.clock import Clock, RemoteClock
from lifecycle.core.policies import Move, Revocation, claimed, enqueued, recover
from lifecycle.core.task import Record, Task, read_history
from lifecycle.errors import DuplicateTask
from lifecycle.storage.base import Actor, Claim, ClaimRequest, Lock, RevocationTarget, Settlement, TaskStatus
from lifecycle.storage.redis.in_doubt import Doubts
from lifecycle.storage.redis.rows import (
    birth,
    entries,
    known_by,
    lock_of,
    revocation_of,
    settlement,
    stamp_of,
    state_of,
    stored_lock,
    stored_revocation,
    task,
    tasks,
)
from lifecycle.storage.redis.scripts import STORED
from lifecycle.storage.redis.server import OutcomeUnknown, RedisServer, log
from lifecycle.storage.redis.url import ConnectionSettings

__all__ = ["RedisStorage"]

_PAGE: Final = 500
"""How many tasks are looked at in one call: others wait for the server meanwhile."""


class RedisStorage:
    """One queue on a Redis server, which is reached at the first call."""

    def __init__(self, settings: ConnectionSettings, queue: str = "default") -> None:
        """`settings`: what `lifecycle.storage.redis.url.parsed` made of a URL."""
        self._server = RedisServer(settings, queue)
        self._doubts = Doubts(self._server)
        watch = self._server.watch
        self.generation, self.wait, self.wake = watch.generation, watch.wait, watch.wake

    # Moves ---------------------------------------------------------------------------------------------------------

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """See `Storage.enqueue`."""
        made = [enqueued(one, now, *actor) for one in tasks]
        done, answer = self._server.write("enqueue", [birth(*one) for one in zip(tasks, made, strict=True)])
        if not done:
            raise DuplicateTask(answer.decode())
        for one, seq in zip(tasks, answer, strict=True):
            one.seq = seq
        return made

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """See `Storage.exchange`."""
        if not done and request is None:
            return [], []
        if self._doubts:
            self._doubts.resolve(done, request, self._received)
            found = self._doubts.claims(request, self.get)
            settled = self._doubts.settled(done)
            rest = [one for one, known in zip(done, settled, strict=True) if known is None]
            request = None if found else request
            took, claims = self._exchange(rest, request) if rest or request is not None else ([], [])
            others = iter(took)
            return [next(others) if known is None else known for known in settled], [*found, *claims]
        return self._exchange(done, request)

    def _exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        told = []
        for known, move in done:
            born = [birth(one, enqueued(one, move.at, move.worker, move.hold_until)) for one in move.follow_ups]
            told.append(settlement(known, move, born))
        wish = None
        if request is not None:
            worker, now, lease, hold_scheduled, limit, batchable = request
            wish = (worker, now, now + lease, hold_scheduled, limit, batchable and [*batchable], *stamp_of(now, worker))
        try:
            answer = self._server.write("exchange", told, wish)
        except OutcomeUnknown as error:
            self._doubts.remember(error.line, done, request)
            raise
        return self._received(answer, done, request)

    def _received(
        self, answer: Any, done: Sequence[Settlement], request: ClaimRequest | None
    ) -> tuple[list[bool], list[Claim]]:
        """Read the answer to an exchange."""
        took, places, claims, damaged = answer
        for taken, (_, move), born in zip(took, done, places, strict=True):
            if taken:
                for one, seq in zip(move.follow_ups, born, strict=True):
                    if seq is not None:
                        one.seq = seq
        _warn(damaged)
        made = []
        if request is not None:
            worker, now, lease, hold_scheduled, *_ = request
            for trigger, *fields in entries(claims, 5):
                known = task(*fields)
                move = claimed(known, trigger.decode(), worker, now, lease, hold_scheduled=hold_scheduled)
                made.append(Claim(known, move))
        return [bool(taken) for taken in took], made

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """See `Storage.release`."""
        return [bool(freed) for freed in self._server.write("release", [known_by(one) for one in tasks], now)]

    def extend(self, workers: Collection[str], until: float) -> int:
        """See `Storage.extend`."""
        return int(self._server.write("extend", [*workers], until))

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """See `Storage.recover`."""
        chance = str(random.getrandbits(30))
        at = stamp_of(now, actor.worker)
        lapsed, damaged = self._server.write("recover", now, *actor, max_interruptions, limit, *at, chance)
        _warn(damaged)
        claims = []
        for fields in entries(lapsed, 4):
            known = task(*fields)
            move = recover(
                known, now, worker=actor.worker, hold_until=actor.hold_until, max_interruptions=max_interruptions
            )
            claims.append(Claim(known, move))
        return claims

    def cancel(self, task_id: str) -> bool:
        """See `Storage.cancel`."""
        return bool(self._server.write("cancel", task_id))

    def canceling(self, workers: Collection[str]) -> list[str]:
        """See `Storage.canceling`."""
        return [task_id.decode() for task_id in self._server.read("canceling", [*workers])]

    # Revocations and locks -----------------------------------------------------------------------------------------

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """See `Storage.revoke`."""
        task_id = None if target.function else target.key
        self._server.write("revoke", _field(target), stored_revocation(revocation), task_id, now)

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """See `Storage.restore`."""
        task_id = None if target.function else target.key
        return bool(self._server.write("revoke", _field(target), None, task_id, now))

    def revocation(self, target: RevocationTarget) -> Revocation | None:
        """See `Storage.revocation`."""
        return revocation_of(self._server.ask(b"HGET", self._key("revocations"), _field(target).encode()))

    def lock(self, lock: Lock, now: float) -> bool:
        """See `Storage.lock`."""
        return bool(self._server.write("lock", lock.name, stored_lock(lock), now))

    def unlock(self, name: str, owner: str) -> bool:
        """See `Storage.unlock`."""
        return bool(self._server.write("lock", name, None, owner))

    def locks(self, now: float) -> list[Lock]:
        """See `Storage.locks`."""
        stored = self._server.ask(b"HGETALL", self._key("locks"))
        return sorted((lock for lock in (lock_of(*pair) for pair in entries(stored, 2)) if lock.until > now), key=_name)

    def flush_locks(self, names: Collection[str] | None = None) -> int:
        """See `Storage.flush_locks`."""
        return int(self._server.write("flush_locks", None if names is None else [*names]))

    # Look-ups ------------------------------------------------------------------------------------------------------

    def get(self, task_id: str) -> Task | None:
        """See `Storage.get`."""
        at, asked, payload = self._server.fields(task_id, b"at", b"call", b"payload")
        return None if at is None and asked is None else task(task_id.encode(), at, asked, payload)

    def history(self, task_id: str) -> list[Record] | None:
        """See `Storage.history`."""
        (text,) = self._server.fields(task_id, b"history")
        return None if text is None else read_history(text.decode())

    def status(self, task_id: str) -> TaskStatus | None:
        """See `Storage.status`."""
        at, result = self._server.fields(task_id, b"at", b"result")
        return None if at is None else TaskStatus(state_of(task_id, at), result)

    def counts(self) -> dict[str, int]:
        """See `Storage.counts`."""
        counts = zip(STORED, self._server.read("counts", STORED), strict=True)
        return {state: number for state, number in counts if number}

    def tasks(self, states: Collection[str] | None = None, limit: int = 100, before: int | None = None) -> list[Task]:
        """See `Storage.tasks`. More than 500 are read in several calls: what moves meanwhile may be missing."""
        among = [state for state in STORED if states is None or state in states]
        found: list[Task] = []
        while len(found) < limit:
            wanted = min(limit - len(found), _PAGE)
            last, page = self._server.read("look", among, wanted, before)
            found += tasks(page)
            if len(page) < 4 * wanted:
                break
            before = last
        return found

    def next_due(self) -> float | None:
        """See `Storage.next_due`."""
        ready, *moments = self._server.read("next_due")
        if ready:
            return float("-inf")
        return min((float(moment) for moment in moments if moment is not None), default=None)

    # Keeping house -------------------------------------------------------------------------------------------------

    def prune(self, before: float, limit: int = 1000) -> int:
        """See `Storage.prune`."""
        return int(self._server.write("prune", before, limit))

    def flush(self) -> None:
        """See `Storage.flush`."""
        self._server.write("clear")

    def clock(self) -> Clock:
        """See `Storage.clock`. The server's."""
        return RemoteClock(self._server.now)

    def close(self) -> None:
        """See `Storage.close`."""
        self._server.close()

    def _key(self, name: str) -> bytes:
        return f"{self._server.prefix}:{name}".encode()


_name: Final = attrgetter("name")


def _field(target: RevocationTarget) -> str:
    """Under which a revocation is kept."""
    return ("f" if target.function else "t") + target.key


def _warn(damaged: Sequence[bytes]) -> None:
    for task_id in damaged:
        log.error("task %s cannot be read, and was set aside: somebody has damaged it", task_id.decode())
