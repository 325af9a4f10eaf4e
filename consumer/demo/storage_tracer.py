"""A storage that records its calls and their outcomes, for pictures of real runs."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, cast

from lifecycle.core.policies import MAX_INTERRUPTIONS, Move, Revocation
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.diagrams.palette import FAILED, shade
from lifecycle.diagrams.sequence import Arrow, Message, Note
from lifecycle.storage import Storage
from lifecycle.storage.base import (
    NO_LIMITS,
    Actor,
    Channel,
    Claim,
    ClaimRequest,
    Lock,
    PeriodicState,
    RevocationTarget,
    Settlement,
    Tick,
)

__all__ = ["HANDLERS", "STORE", "StepLog", "StorageTracer"]

STORE: Final = "store"
HANDLERS: Final = "handlers"
HELD: Final = " (held)"
REFUSED: Final = "refused"


class StepLog:
    """The recorded steps of a run."""

    def __init__(self, now: Callable[[], float], *, with_reads: bool = False) -> None:
        """`with_reads`: record also calls that only read, and calls without an effect."""
        self.with_reads = with_reads
        self.steps: list[Message | Note] = []
        self.ended_count = 0
        """The number of attempts that ended."""
        self._now, self._last = now, now()

    def add(self, step: Message | Note) -> None:
        """Record a step; if time has passed since the last step, record how much."""
        now = self._now()
        if passed := round(now - self._last, 2):
            self.steps.append(Note((), f"{passed:g} s later"))
        self._last = now
        self.steps.append(step)

    def add_call(self, source: str, target: str, text: str, arrow: Arrow = Arrow.CALL) -> None:
        """Record a call or a message."""
        self.add(Message(source, target, text, arrow))

    def add_note(self, participant: str, text: str, shade: str | None = None) -> None:
        """Record a note at a participant."""
        self.add(Note((participant,), text, shade))

    def add_signal(self, sender: str, signal: str) -> None:
        """Record a signal to the handlers."""
        self.add(Message(sender, HANDLERS, signal, Arrow.SEND, shade(LIFECYCLE, LIFECYCLE.by_signal(signal))))


class StorageTracer:
    """A `Storage` that passes each call on to another one, and records it."""

    def __init__(
        self, store: Storage, step_log: StepLog, caller: str, wait: Callable[[Callable[[], bool]], None]
    ) -> None:
        """`caller`: the name of the participant that calls.

        `wait`: called instead of waiting, with a function that returns whether the wait is over.
        """
        self._store, self._step_log, self._caller, self._wait = store, step_log, caller, wait

    def fail_all_calls(self, error: type[BaseException]) -> None:
        """Raise `error` in every call from now on: the caller was killed."""
        self._store = cast("Storage", _Unavailable(error))

    def __getattr__(self, name: str) -> object:
        """Return another method of the storage; with `with_reads`, its calls are recorded, too."""
        method = cast("Callable[..., object]", getattr(self._store, name))
        if not self._step_log.with_reads or name in ("close", "wake"):
            return method

        def traced(*args: object, **kwargs: object) -> object:
            self._step_log.add_call(self._caller, STORE, name)
            return method(*args, **kwargs)

        return traced

    def _record(self, call: str, *outcomes: str | Move) -> None:
        """Record a call, and a note for each outcome."""
        self._step_log.add_call(self._caller, STORE, call)
        for one in outcomes:
            if isinstance(one, str):
                self._step_log.add_note(STORE, one, FAILED if one.startswith(REFUSED) else None)
            else:
                self._step_log.add_note(STORE, _move_text(one), shade(LIFECYCLE, one.state))

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """Enqueue, and record the state of each task."""
        moves = self._store.enqueue(tasks, now, actor)
        self._step_log.add_call(self._caller, STORE, f"enqueue {', '.join(_short_name(task) for task in tasks)}")
        for status in filter(None, (self._store.status(task.id) for task in tasks)):
            state = LIFECYCLE.state(status.state)
            held = HELD * (actor.hold_until is not None)
            self._step_log.add_note(STORE, state.name + held, shade(LIFECYCLE, state))
        return moves

    def periodic_states(self) -> list[PeriodicState]:
        """Look at the periodic tasks, and record it."""
        states = self._store.periodic_states()
        self._record("look at the ticks")
        return states

    def tick(self, tick: Tick, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move] | None:
        """Make ticks, and record the new tasks."""
        moves = self._store.tick(tick, tasks, now, actor)
        what = f", enqueue {', '.join(_short_name(task) for task in tasks)}" * bool(tasks)
        outcomes = [f"{REFUSED}: another consumer was first"] if moves is None else moves
        self._record(f"tick {tick.name}{what}", *outcomes)
        return moves

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """Exchange, and record the moves and the refused settlements."""
        took, claims = self._store.exchange(done, request)
        self._step_log.ended_count += sum(took)
        if done or claims or self._step_log.with_reads:
            asked = [f"settle {' → '.join(move.path)}" for _, move in done] + ["claim"] * (request is not None)
            outcomes: list[str | Move] = [
                move if ok else f"{REFUSED}: another worker holds the task"
                for (_, move), ok in zip(done, took, strict=True)
            ]
            outcomes += [move for _, move in claims]
            if self._step_log.with_reads and request is not None and not claims:
                outcomes.append("nothing is due")
            call = "exchange: " * self._step_log.with_reads + ", ".join(asked)
            self._record(call, *outcomes)
        return took, claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Release, and record the tasks."""
        released = self._store.release(tasks, now)
        self._record(f"release {', '.join(_short_name(task) for task in tasks)}")
        return released

    def extend(self, workers: Collection[str], until: float) -> int:
        """Extend the leases, and record it if there were any."""
        count = self._store.extend(workers, until)
        if count:
            self._record("extend", "the lease is extended")
        return count

    def recover(
        self,
        now: float,
        actor: Actor,
        *,
        max_interruptions: int = MAX_INTERRUPTIONS,
        of_functions: Mapping[str, int] = NO_LIMITS,
        limit: int = 100,
    ) -> list[Claim]:
        """Recover, and record the moves if there were any."""
        moved = self._store.recover(
            now, actor, max_interruptions=max_interruptions, of_functions=of_functions, limit=limit
        )
        self._step_log.ended_count += len(moved)
        if moved:
            self._record("recover", *(move for _, move in moved))
        return moved

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """Revoke, and record the target."""
        self._store.revoke(target, revocation, now)
        self._record(f"revoke {_target_text(target)}")

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """Restore, and record the target."""
        restored = self._store.restore(target, now)
        self._record(f"restore {_target_text(target)}")
        return restored

    def lock(self, lock: Lock, now: float) -> bool:
        """Lock, and record whether the lock was free."""
        taken = self._store.lock(lock, now)
        self._record(f"lock {lock.name}", "taken" if taken else f"{REFUSED}: the lock is held")
        return taken

    def unlock(self, name: str, owner: str) -> bool:
        """Unlock, and record the lock's name."""
        given = self._store.unlock(name, owner)
        self._record(f"unlock {name}")
        return given

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Let the other processes run instead of waiting."""
        del generation, timeout
        if self._step_log.with_reads:
            self._step_log.add_call(self._caller, STORE, f"wait for {channel.value}")
        before = self._step_log.ended_count  # a generation of SQLite may change when another thread reads
        self._wait(lambda: self._step_log.ended_count != before)
        return True


class _Unavailable:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error


def _short_name(task: Task) -> str:
    return task.name.rpartition(".")[2]


def _target_text(target: RevocationTarget) -> str:
    return f"all of {target.key.rpartition('.')[2]}" if target.function else "the task"


def _move_text(move: Move) -> str:
    held = move.lease is not None and move.state.kind is Kind.WAITING
    return " → ".join(state.name for state in move.states) + HELD * held
