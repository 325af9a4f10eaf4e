"""Storage adapters as somebody may write them, each with one mistake in it.

What a mistake can do to what an adapter shows is done to the memory adapter, or to that of SQLite, from outside where
possible: so that each stands here in a few lines.
"""

import attrs

from lifecycle.core.policies import WAITING, visibility
from lifecycle.core.table import START
from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.storage.base import Channel, Settlement
from lifecycle.storage.notifications import ChangeCounter

BUGS = {}
"""Class → what is said about it, as a pattern; the test of the proof that says so, `MACHINE` for any run of steps."""

MACHINE = "test_adapter_and_model_agree"


def bug(says, by=MACHINE):
    def note(adapter):
        BUGS[adapter] = says, by
        return adapter

    return note


# Settling ----------------------------------------------------------------------------------------------------------


@bug(r"of w: accepted is \[True\]", by="test_a_late_outcome")
class SettlesWhateverTheVersion(MemoryStorage):
    """Compares state and id when an attempt ends, and so takes the outcome of one that was given up."""

    def _settle(self, task, move):
        row = self._rows.get(task.id)
        if row is not None and row.task.state == task.state:
            task.version, task.worker, task.seq = row.task.version, row.task.worker, row.task.seq
        return super()._settle(task, move)


@bug(r"ac are taken after interrupt, not abc", by="test_locks_of_an_attempt")
class KeepsLocksOfInterrupted(MemoryStorage):
    """Frees the locks of an interrupted attempt when they run out, not before."""

    def _commit(self, row, move):
        locks = self._locks
        claim = super()._commit(row, move)
        self._locks = locks
        return claim


@bug(r"history\('.'\): the adapter says \[.*\], the model \[.*\]")
class LosesLines(MemoryStorage):
    """Writes one line of history for each move, though a move may pass through several states."""

    def _commit(self, row, move):
        history = row.history
        claim = super()._commit(row, move)
        row.history = history + row.history.splitlines(keepends=True)[-1]
        return claim


@bug(r"the follow-up's object: worker of task .* the adapter says None, the model 'w\d'")
class DropsFollowUps(MemoryStorage):
    """Commits a move without the tasks that are to follow."""

    def exchange(self, done, request):
        done = [Settlement(task, attrs.evolve(move, follow_ups=())) for task, move in done]
        return super().exchange(done, request)


@bug(r"exchange: who waits for OUTCOME was not told")
class WakesNobody(MemoryStorage):
    """Tells those who wait for work, and not those who wait for an outcome."""

    def __init__(self):
        super().__init__()
        self._changes.count = lambda channel: channel is Channel.WORK and ChangeCounter.count(self._changes, channel)


# Claiming ----------------------------------------------------------------------------------------------------------


@bug(r"exchange: the moves: the adapter says \[\('.', .*\], the model \[\('.', ")
class LowestFirst(MemoryStorage):
    """Takes the number of a priority for a place in the queue."""

    def _set_rank(self, row, rank, due):
        super()._set_rank(row, -rank if rank else rank, due)


@bug(r"exchange: the moves: the adapter says .*'(executing|revoked)'.*, the model .*'expired'")
class StartsWhatHasExpired(MemoryStorage):
    """Never looks at the expiry."""

    def _claim(self, request):
        moments = [(row.task, row.task.expires) for row in self._rows.values()]
        for task, _ in moments:
            task.expires = None
        claims = super()._claim(request)
        for task, expires in moments:
            task.expires = expires
        for task, _ in claims:
            task.expires = self._rows[task.id].task.expires
        return claims


@bug(r"exchange: the moves: the adapter says \[.*\], the model \[\]")
class GivesOneTaskToTwo(MemoryStorage):
    """Reads what it claims, and writes it down when nobody else has been there meanwhile: or so it believes."""

    last = ()

    def _claim(self, request):
        claims = super()._claim(request)
        if not claims and self.last and request.worker != self.last[0].move.worker:
            claims = self.last
        self.last = [claim for claim in claims if claim.move.path == (START,)]
        return claims


@bug(r"next_due\(\): the adapter says -inf, the model 1010\.0|exchange: the moves")
class IgnoresHolds(MemoryStorage):
    """Lets workers see what is held to be announced."""

    def _commit(self, row, move):
        claim = super()._commit(row, move)
        if row.task.lease is not None and row.task.state in WAITING:
            self._set_rank(row, *visibility(row.task, None, move.at))
        return claim


@bug(r"a one-time revocation is spent with the task that it has stopped", by="test_revoked_once")
class NeverSpends(MemoryStorage):
    """Goes on to stop a function's tasks after the one that was to be stopped."""

    def _claim(self, request):
        known = {target: said for target, said in self._revocations.items() if target.function}
        claims = super()._claim(request)
        self._revocations |= known
        return claims


@bug(r"exchange: the moves: the adapter says \[\('.', .*\], the model \[\('.', ")
class YoungestFirst(MemoryStorage):
    """Orders tasks of one priority by their id, as if ids were given out in order."""

    def _first_ready(self):
        ready = [row for row in self._rows.values() if row.rank is not None]
        return min(ready, key=lambda row: (-row.rank, row.task.id), default=None)


# Leases ------------------------------------------------------------------------------------------------------------


@bug(r"recover: who waits for WORK was not told|lease of task .*: the adapter says .*, the model None")
class ForgetsHolds(MemoryStorage):
    """Recovers what ran, and leaves what was held to be announced."""

    def recover(self, now, actor, **options):
        waiting = {task_id: row for task_id, row in self._held.items() if row.task.state in WAITING}
        for task_id in waiting:
            del self._held[task_id]
        claims = super().recover(now, actor, **options)
        self._held |= waiting
        return claims


@bug(r"recover: the moves: the adapter says \[\], the model|recover: who waits for WORK was not told|lease of task .*")
class RecoversTooLate(MemoryStorage):
    """Takes a lease for good at the very moment when it ends."""

    def recover(self, now, actor, **options):
        ending = {task_id: row for task_id, row in self._held.items() if row.task.lease == now}
        for task_id in ending:
            del self._held[task_id]
        claims = super().recover(now, actor, **options)
        self._held |= ending
        return claims


@bug(r"leases and versions are \[\(50\.0, 3\), \(12\.0, 2\)\] after a heartbeat", by="test_what_a_heartbeat_changes")
class CountsHeartbeats(MemoryStorage):
    """Takes a heartbeat for a change, after which the worker's own outcome is refused."""

    def extend(self, workers, until):
        for row in self._held.values():
            row.task.version += row.task.worker in workers
        return super().extend(workers, until)


@bug(r"a waiting task is let go once|a running task cannot be let go", by="test_what_can_be_released")
class ReleasesWhatRuns(MemoryStorage):
    """Lets go of a task whoever asks for it, in whatever state."""

    def _release(self, task, now):
        row = self._rows.get(task.id)
        if row is None or row.task.lease is None:
            return False
        self._unhold(row, now)
        return True


# Calling off -------------------------------------------------------------------------------------------------------


@bug(
    r"canceling of task .*: the adapter says False, the model True|canceling\(.*\): the adapter says \[\], the model \['.'\]"
)
class ForgetsAtARetry(MemoryStorage):
    """Takes what was wished of an attempt for done when that attempt has ended, though the task goes on."""

    def _commit(self, row, move):
        claim = super()._commit(row, move)
        if move.path != (START,):
            row.task.canceling = False
        return claim


@bug("to be called off after complete: True, not False", by="test_what_is_to_be_called_off")
class RemembersAtRest(MemoryStorage):
    """Never forgets that a task was to be called off."""

    def _commit(self, row, move):
        wished = row.task.canceling
        claim = super()._commit(row, move)
        row.task.canceling = wished
        return claim


@bug(r"cancel: the adapter says True, the model False")
class CallsOffWhatWaits(MemoryStorage):
    """Notes of any task that is not at rest that it is to be called off."""

    def cancel(self, task_id):
        row = self._rows.get(task_id)
        if row is None or row.ended is not None:
            return False
        row.task.canceling = True
        return True


@bug(r"canceling\(.*\): the adapter says \['.'\], the model \[\]")
class TellsEveryWorker(MemoryStorage):
    """Does not look whose worker runs a task that is to be called off."""

    def canceling(self, workers):
        return [row.task.id for row in self._held.values() if row.task.canceling and row.task.state not in WAITING]


@bug(r"recover: the moves: the adapter says .*'interrupt'.*, the model .*'cancel'")
class RunsItAgain(MemoryStorage):
    """Recovers what was to be called off like anything else."""

    def recover(self, now, actor, **options):
        wished = [row.task for row in self._held.values() if row.task.canceling and row.task.lease <= now]
        for task in wished:
            task.canceling = False
        claims = super().recover(now, actor, **options)
        for task in wished:
            task.canceling = task.state in WAITING
        return claims


# Enqueuing and keeping ---------------------------------------------------------------------------------------------


@bug(r"enqueue: the object: worker of task .*: the adapter says 'producer', the model None")
class Overwrites(MemoryStorage):
    """Writes a task in the place of another one with the same id."""

    def enqueue(self, tasks, now, actor):
        for task in tasks:
            self._rows.pop(task.id, None)
            super().enqueue([task], now, actor)


@bug(r"enqueue: the object: worker of task .*: the adapter says 'producer', the model None")
class EnqueuesHalf(MemoryStorage):
    """Writes one task after the other, until one is refused."""

    def enqueue(self, tasks, now, actor):
        for task in tasks:
            super().enqueue([task], now, actor)


@bug(r"before 3\.0 1 are deleted, ba left, not cba", by="test_what_is_deleted")
class PrunesWhatWaits(MemoryStorage):
    """Deletes what is old, whether it has come to rest or not."""

    def prune(self, before, limit=1000):
        gone = super().prune(before, limit)
        for task_id, row in list(self._rows.items()):
            if row.task.state in WAITING and row.task.lease is None and self.history(task_id)[-1].at < before:
                del self._rows[task_id]
                gone += 1
        return gone


@bug(r"status\('.'\): the adapter says TaskStatus\(.*result=None\), the model TaskStatus\(.*result=b'.'\)")
class ReadsOnce(MemoryStorage):
    """Gives a result to the first who asks, as some queues do."""

    def status(self, task_id):
        status = super().status(task_id)
        if status is not None:
            self._rows[task_id].result = None
        return status


@bug(r"restore: the adapter says True, the model False")
class RestoresInVain(MemoryStorage):
    """Says of any revocation that it was taken back."""

    def restore(self, target, now):
        super().restore(target, now)
        return True


# Several processes -------------------------------------------------------------------------------------------------


@bug(r"get\('.'\): .*: the adapter says .*, the model ")
class RemembersWhatItRead(SQLiteStorage):
    """Keeps what it has read, until it changes something itself: nobody else will."""

    known = None

    def get(self, task_id):
        self.known = self.known or {}
        if task_id not in self.known:
            self.known[task_id] = super().get(task_id)
        return self.known[task_id]

    def exchange(self, done, request):
        self.known = None
        return super().exchange(done, request)

    def enqueue(self, tasks, now, actor):
        self.known = None
        super().enqueue(tasks, now, actor)


@bug(r"locks\(\): the adapter says \[\], the model \[Lock\(")
class LocksInMemory(SQLiteStorage):
    """Keeps the locks in the process, where they lock nobody out."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.own = MemoryStorage()
        for name in "lock", "unlock", "locks", "flush_locks":
            setattr(self, name, getattr(self.own, name))
