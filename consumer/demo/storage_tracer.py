"""A store that tells what it is asked, and what came of it: what pictures of real runs are made from."""

from collections.abc import Callable, Collection, Sequence
from typing import Final, cast

from lifecycle.core.policies import Move, Revocation
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.diagrams.sequence import Arrow, Message, Note
from lifecycle.storage import Storage
from lifecycle.storage.base import Actor, Channel, Claim, ClaimRequest, Lock, RevocationTarget, Settlement

__all__ = ["HANDLERS", "STORE", "StepLog", "StorageTracer"]

STORE: Final = "store"
HANDLERS: Final = "handlers"
HELD: Final = " (held)"
REFUSED: Final = "refused: it is another's by now"


class StepLog:
    """What has been recorded so far."""

    def __init__(self, now: Callable[[], float], *, full: bool = False) -> None:
        """`full`: also what only looks, and what finds nothing."""
        self.full = full
        self.steps: list[Message | Note] = []
        self.outcomes = 0
        """How often attempts came to an end."""
        self._now, self._last = now, now()

    def add(self, step: Message | Note) -> None:
        """Record a step; and before it how much later than the last one it comes."""
        now = self._now()
        if passed := round(now - self._last, 2):
            self.steps.append(Note((), f"{passed:g} s later"))
        self._last = now
        self.steps.append(step)

    def say(self, source: str, target: str, text: str, arrow: Arrow = Arrow.CALL) -> None:
        """Record a message."""
        self.add(Message(source, target, text, arrow))

    def note(self, who: str, text: str, kind: Kind | None = None) -> None:
        """Record what happens at somebody."""
        self.add(Note((who,), text, kind))

    def announce(self, who: str, signal: str) -> None:
        """Record that handlers hear a signal."""
        kind = next(state.kind for state in LIFECYCLE.states if state.signal == signal)
        self.add(Message(who, HANDLERS, signal, Arrow.SEND, kind))


class StorageTracer:
    """Stands between an engine and its store."""

    def __init__(self, store: Storage, score: StepLog, who: str, wait: Callable[[Callable[[], bool]], None]) -> None:
        """`who` asks; `wait`: what to do instead of waiting, given what says that it is over."""
        self._store, self._score, self._who, self._wait = store, score, who, wait

    def die(self, error: type[BaseException]) -> None:
        """From now on every call raises `error`: who asks is no more."""
        self._store = cast("Storage", _Gone(error))

    def __getattr__(self, name: str) -> object:
        """What changes nothing: passed on, and told only in full."""
        method = cast("Callable[..., object]", getattr(self._store, name))
        if not self._score.full or name in ("close", "wake"):
            return method

        def told(*args: object, **kwargs: object) -> object:
            self._score.say(self._who, STORE, name)
            return method(*args, **kwargs)

        return told

    def _tell(self, call: str, *came: str | Move) -> None:
        """A call, and what came of it, a note each."""
        self._score.say(self._who, STORE, call)
        for one in came:
            if isinstance(one, str):
                self._score.note(STORE, one)
            else:
                self._score.note(STORE, _came(one), one.state.kind)

    def enqueue(self, tasks: Sequence[Task], now: float, actor: Actor) -> list[Move]:
        """See `Storage`; so are the others."""
        moves = self._store.enqueue(tasks, now, actor)
        self._score.say(self._who, STORE, f"enqueue {', '.join(_short(task) for task in tasks)}")
        for status in filter(None, (self._store.status(task.id) for task in tasks)):
            state = LIFECYCLE.state(status.state)
            self._score.note(STORE, state.name + HELD * (actor.hold is not None), state.kind)
        return moves

    def exchange(self, done: Sequence[Settlement], request: ClaimRequest | None) -> tuple[list[bool], list[Claim]]:
        """A settlement that is refused is noted as such."""
        took, claims = self._store.exchange(done, request)
        self._score.outcomes += sum(took)
        if done or claims or self._score.full:
            asked = [f"settle {' → '.join(move.path)}" for _, move in done] + ["claim"] * (request is not None)
            came: list[str | Move] = [move if ok else REFUSED for (_, move), ok in zip(done, took, strict=True)]
            came += [move for _, move in claims]
            if self._score.full and request is not None and not claims:
                came.append("nothing is due")
            self._tell(f"exchange: {', '.join(asked)}", *came)
        return took, claims

    def release(self, tasks: Sequence[Task], now: float) -> list[bool]:
        """Tells for whom."""
        released = self._store.release(tasks, now)
        self._tell(f"release {', '.join(_short(task) for task in tasks)}")
        return released

    def extend(self, workers: Collection[str], until: float) -> int:
        """Told if it prolonged anything."""
        count = self._store.extend(workers, until)
        if count:
            self._tell("extend", "the lease is prolonged")
        return count

    def recover(self, now: float, actor: Actor, *, max_interruptions: int = 10, limit: int = 100) -> list[Claim]:
        """Told if it found anything."""
        moved = self._store.recover(now, actor, max_interruptions=max_interruptions, limit=limit)
        self._score.outcomes += len(moved)
        if moved:
            self._tell("recover", *(move for _, move in moved))
        return moved

    def revoke(self, target: RevocationTarget, revocation: Revocation, now: float) -> None:
        """By the function's name, or the task."""
        self._store.revoke(target, revocation, now)
        self._tell(f"revoke {_aim(target)}")

    def restore(self, target: RevocationTarget, now: float) -> bool:
        """The same."""
        restored = self._store.restore(target, now)
        self._tell(f"restore {_aim(target)}")
        return restored

    def lock(self, lock: Lock, now: float) -> bool:
        """Whether it was free."""
        taken = self._store.lock(lock, now)
        self._tell(f"lock {lock.name}", "taken" if taken else "refused: somebody has it")
        return taken

    def unlock(self, name: str, owner: str) -> bool:
        """Tells the lock's name."""
        given = self._store.unlock(name, owner)
        self._tell(f"unlock {name}")
        return given

    def wait(self, channel: Channel, generation: int, timeout: float) -> bool:
        """Lets the others go on instead."""
        del generation, timeout
        if self._score.full:
            self._score.say(self._who, STORE, f"wait for {channel.value}")
        before = self._score.outcomes  # a generation of SQLite changes when another thread has looked
        self._wait(lambda: self._score.outcomes != before)
        return True


class _Gone:
    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def __getattr__(self, name: str) -> object:
        raise self._error


def _short(task: Task) -> str:
    return task.name.rpartition(".")[2]


def _aim(target: RevocationTarget) -> str:
    return f"all of {target.key.rpartition('.')[2]}" if target.function else "the task"


def _came(move: Move) -> str:
    held = move.lease is not None and move.state.kind is Kind.WAITING
    return " → ".join(state.name for state in move.states) + HELD * held
