"""Storage adapters with one mistake each, such as an author of an adapter may make.

Each is the memory adapter, or SQLite's, with a few methods replaced.
"""

import attrs

from lifecycle.core.policies import WAITING, visibility
from lifecycle.core.table import START, Kind
from lifecycle.storage import MemoryStorage, SQLiteStorage
from lifecycle.storage.base import Channel, Settlement
from lifecycle.storage.notifications import ChangeCounter

BUGS = {}
"""Class → pattern of the failure's message, and name of the test that fails; `MACHINE`: the state machine."""

MACHINE = "test_adapter_and_model_agree"


def bug(says, by=MACHINE):
    def note(adapter):
        BUGS[adapter] = says, by
        return adapter

    return note


# Settling ----------------------------------------------------------------------------------------------------------


@bug(r"next attempt by w: accepted is \[True\]", by="test_late_outcome_is_refused")
class SettlesWhateverTheVersion(MemoryStorage):
    """Compares only id and state when an attempt ends: accepts the outcome of a lost attempt."""

    def _settle(self, task, move):
        row = self._rows.get(task.id)
        if row is not None and row.task.state == task.state:
            task.version, task.worker, task.seq = row.task.version, row.task.worker, row.task.seq
        return super()._settle(task, move)


@bug(r"ac are held after interrupt, not abc", by="test_interruption_frees_the_locks_of_its_attempt")
class KeepsLocksOfInterrupted(MemoryStorage):
    """Frees the locks of an interrupted attempt only at their end."""

    def _commit(self, row, move):
        locks = self._locks
        claim = super()._commit(row, move)
        self._locks = locks
        return claim


@bug(r"history\('.'\): the adapter says \[.*\], the model \[.*\]")
class LosesLines(MemoryStorage):
    """Writes one line of history for each move, even if the move passes through several states."""

    def _commit(self, row, move):
        history = row.history
        claim = super()._commit(row, move)
        row.history = history + row.history.splitlines(keepends=True)[-1]
        return claim


@bug(r"the follow-up's object: worker of task .* the adapter says None, the model 'w\d'")
class DropsFollowUps(MemoryStorage):
    """Commits a move without its follow-ups."""

    def exchange(self, done, request):
        done = [Settlement(task, attrs.evolve(move, follow_ups=())) for task, move in done]
        return super().exchange(done, request)


@bug(r"exchange: a waiter for OUTCOME was not woken")
class WakesNobody(MemoryStorage):
    """Wakes threads that wait for work, and no threads that wait for an outcome."""

    def __init__(self):
        super().__init__()
        self._changes.count = lambda channel: channel is Channel.WORK and ChangeCounter.count(self._changes, channel)


# Claiming ----------------------------------------------------------------------------------------------------------


@bug(r"exchange: the moves: the adapter says \[\('.', .*\], the model \[\('.', ")
class LowestFirst(MemoryStorage):
    """Starts low priorities before high ones."""

    def _empty(self):
        super()._empty()
        set_rank = self._rows.set_rank
        self._rows.set_rank = lambda row, rank, due: set_rank(row, -rank if rank else rank, due)


@bug(r"exchange: the moves: the adapter says .*'(executing|revoked)'.*, the model .*'expired'")
class StartsWhatHasExpired(MemoryStorage):
    """Ignores the expiry."""

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
    """Gives the task of the last claim to the next worker, too."""

    last = ()

    def _claim(self, request):
        claims = super()._claim(request)
        if not claims and self.last and request.worker != self.last[0].move.worker:
            claims = self.last
        self.last = [claim for claim in claims if claim.move.path == (START,)]
        return claims


@bug(r"next_due\(\): the adapter says -inf, the model 1010\.0|exchange: the moves")
class IgnoresHolds(MemoryStorage):
    """Lets claims find tasks that are held to be announced."""

    def _commit(self, row, move):
        claim = super()._commit(row, move)
        if row.task.lease is not None and row.task.state in WAITING:
            self._rows.set_rank(row, *visibility(row.task, None, move.at))
        return claim


@bug(
    r"a one-time revocation is spent with the task that it revoked",
    by="test_one_time_revocation_stops_only_the_first_task",
)
class NeverSpends(MemoryStorage):
    """Keeps a one-time revocation of a function after the task that it stopped."""

    def _claim(self, request):
        known = {target: said for target, said in self._revocations.items() if target.function}
        claims = super()._claim(request)
        self._revocations |= known
        return claims


@bug(r"exchange: the moves: the adapter says \[\('.', .*\], the model \[\('.', ")
class YoungestFirst(MemoryStorage):
    """Orders tasks of one priority by id, not by age."""

    def _empty(self):
        super()._empty()
        self._rows.first_ready = self._first_by_id

    def _first_by_id(self):
        entries = {task_id for _, _, task_id in self._rows.ready}  # without those that the claim has passed over
        ready = [row for row in self._rows.values() if row.rank is not None and row.task.id in entries]
        first = min(ready, key=lambda row: (-row.rank, row.task.id), default=None)
        if first is not None:
            self._rows.ready.sort(key=lambda entry: entry[2] != first.task.id)  # a claim takes the entry off
        return first


# Leases ------------------------------------------------------------------------------------------------------------


@bug(r"recover: a waiter for WORK was not woken|lease of task .*: the adapter says .*, the model None")
class ForgetsHolds(MemoryStorage):
    """Recovers running tasks, and does not release waiting tasks."""

    def recover(self, now, actor, **options):
        waiting = {task_id: row for task_id, row in self._held.items() if row.task.state in WAITING}
        for task_id in waiting:
            del self._held[task_id]
        claims = super().recover(now, actor, **options)
        self._held |= waiting
        return claims


@bug(r"recover: the moves: the adapter says \[\], the model|recover: a waiter for WORK was not woken|lease of task .*")
class RecoversTooLate(MemoryStorage):
    """Treats a lease as valid at the very moment when it ends."""

    def recover(self, now, actor, **options):
        ending = {task_id: row for task_id, row in self._held.items() if row.task.lease == now}
        for task_id in ending:
            del self._held[task_id]
        claims = super().recover(now, actor, **options)
        self._held |= ending
        return claims


@bug(
    r"leases and versions are \[\(50\.0, 3\), \(12\.0, 2\)\] after a heartbeat", by="test_heartbeat_changes_only_leases"
)
class CountsHeartbeats(MemoryStorage):
    """Increases the version with a heartbeat: the worker's own outcome is refused then."""

    def extend(self, workers, until):
        for row in self._held.values():
            row.task.version += row.task.worker in workers
        return super().extend(workers, until)


@bug(r"a waiting task is released once|a running task is not released", by="test_held_task_is_released_once")
class ReleasesWhatRuns(MemoryStorage):
    """Releases a task in any state, for any caller."""

    def _release(self, task, now):
        row = self._rows.get(task.id)
        if row is None or row.task.lease is None:
            return False
        self._unhold(row, now)
        return True


# Cancellation ------------------------------------------------------------------------------------------------------


@bug(
    r"canceling of task .*: the adapter says False, the model True|canceling\(.*\): the adapter says \[\], the model \['.'\]"
)
class ForgetsAtARetry(MemoryStorage):
    """Deletes a request to cancel when the attempt ends, even if the task is retried."""

    def _commit(self, row, move):
        claim = super()._commit(row, move)
        if move.path != (START,):
            row.task.canceling = False
        return claim


@bug(
    "cancellation requested after complete: True, not False", by="test_cancellation_is_requested_of_running_tasks_only"
)
class RemembersAtRest(MemoryStorage):
    """Keeps a request to cancel after the task has come to rest."""

    def _commit(self, row, move):
        requested = row.task.canceling
        claim = super()._commit(row, move)
        row.task.canceling = requested
        return claim


@bug(r"cancel: the adapter says True, the model False")
class CancelsWaitingTasks(MemoryStorage):
    """Stores a request to cancel a waiting task."""

    def cancel(self, task_id):
        row = self._rows.get(task_id)
        if row is None or row.ended is not None:
            return False
        row.task.canceling = True
        return True


@bug(r"canceling\(.*\): the adapter says \['.'\], the model \[\]")
class TellsEveryWorker(MemoryStorage):
    """Reports requests to cancel to workers that do not run the task."""

    def canceling(self, workers):
        return [row.task.id for row in self._held.values() if row.task.canceling and row.task.state not in WAITING]


@bug(r"recover: the moves: the adapter says .*'interrupt'.*, the model .*'cancel'")
class RunsItAgain(MemoryStorage):
    """Requeues an interrupted task whose cancellation was requested."""

    def recover(self, now, actor, **options):
        requested = [row.task for row in self._held.values() if row.task.canceling and row.task.lease <= now]
        for task in requested:
            task.canceling = False
        claims = super().recover(now, actor, **options)
        for task in requested:
            task.canceling = task.state in WAITING
        return claims


# Enqueuing and keeping ---------------------------------------------------------------------------------------------


@bug(r"enqueue: the object: worker of task .*: the adapter says 'producer', the model None")
class Overwrites(MemoryStorage):
    """Replaces a task with a new task of the same id."""

    def enqueue(self, tasks, now, actor):
        for task in tasks:
            self._rows.pop(task.id, None)
            super().enqueue([task], now, actor)


@bug(r"enqueue: the object: worker of task .*: the adapter says 'producer', the model None")
class EnqueuesHalf(MemoryStorage):
    """Writes the tasks before the first duplicate, instead of none."""

    def enqueue(self, tasks, now, actor):
        for task in tasks:
            super().enqueue([task], now, actor)


@bug(r"before 3\.0 1 are deleted, ba left, not cba", by="test_prune_deletes_only_tasks_at_rest")
class PrunesWhatWaits(MemoryStorage):
    """Deletes old tasks even if they have not come to rest."""

    def prune(self, before, limit=1000, states=None):
        gone = super().prune(before, limit, states)
        for task_id, row in list(self._rows.items()):
            if row.task.state in WAITING and row.task.lease is None and self.history(task_id)[-1].at < before:
                del self._rows[task_id]
                gone += 1
        return gone


@bug(r"status\('.'\): the adapter says TaskStatus\(.*result=None\), the model TaskStatus\(.*result=b'.'\)")
class ReadsOnce(MemoryStorage):
    """Deletes a result when it is read, as some queues do."""

    def status(self, task_id):
        status = super().status(task_id)
        if status is not None:
            self._rows[task_id].result = None
        return status


@bug(r"restore: the adapter says True, the model False")
class RestoresInVain(MemoryStorage):
    """Reports success when there was no revocation to delete."""

    def restore(self, target, now):
        super().restore(target, now)
        return True


# Several processes -------------------------------------------------------------------------------------------------


@bug(r"get\('.'\): .*: the adapter says .*, the model ")
class RemembersWhatItRead(SQLiteStorage):
    """Caches tasks until its own next write, and misses the writes of other processes."""

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
    """Keeps locks in its process: other processes do not see them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.own = MemoryStorage()
        for name in "lock", "unlock", "locks", "flush_locks":
            setattr(self, name, getattr(self.own, name))


# Workflows ---------------------------------------------------------------------------------------------------------


@bug(r"step of task .* the adapter says Step\(.*, the model Step\(")
class DecidesAtOnce(MemoryStorage):
    """Takes the first end for the last: a task starts before others that it waits for have completed."""

    def _insert(self, task, move):
        super()._insert(task, move)
        if task.id in self._rows.awaits:
            self._rows.awaits[task.id] = 1


@bug(r"the claims are \[\], not", by="test_first_failure_decides")
class WaitsForAllEnds(MemoryStorage):
    """Decides after the last end only: a task waits on, though one of the tasks before it has failed."""

    def _report(self, task, move):
        if move.ended is None or move.state.kind is Kind.FINAL:
            super()._report(task, move)


@bug(r"accepted are \[True, False\], claimed \[\('c'", by="test_refused_outcome_reports_nothing")
class CountsRefusedOutcomes(MemoryStorage):
    """Reports the ends of refused outcomes."""

    def _settle(self, task, move):
        self._report(task, move)
        return super()._settle(task, move)


@bug(r"the claims are", by="test_every_end_reports")
class ForgetsRecovery(MemoryStorage):
    """Reports the outcomes of workers, and no other ends: a task waits for ever for one that was recovered."""

    def recover(self, now, actor, **options):
        self._report = lambda task, move: None
        try:
            return super().recover(now, actor, **options)
        finally:
            del self._report
