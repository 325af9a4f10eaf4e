"""Who holds which task, and until when: an account of all that goes through a world's store, kept beside it."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from lifecycle.core.table import EXECUTING, START
from lifecycle.storage.base import Claim, Settlement, Storage

__all__ = ["LeaseAudit"]


@attrs.define
class _Hold:
    """An attempt that somebody makes."""

    worker: str
    version: int
    until: float | None


class LeaseAudit:
    """Holds the answers of a store against P1: one worker at a time, and only his outcome, while his lease lasts.

    Histories alone do not show it: an outcome of the wrong worker is as legal as that of the right one.
    """

    def __init__(self, fault: Callable[[str], object]) -> None:
        """`fault`: told what is wrong."""
        self._fault = fault
        self._held: dict[str, _Hold] = {}

    def note(self, call: str, arguments: Sequence[Any], answer: Any) -> None:
        """The store has answered a call."""
        if call == Storage.exchange.__name__:
            took, claims = answer
            self._settled(arguments[0], took)
            self._started(claims)
        elif call == Storage.recover.__name__:
            self._interrupted(answer, arguments[0])
        elif call == Storage.extend.__name__:
            for hold in self._held.values():
                if hold.worker in arguments[0]:
                    hold.until = arguments[1]

    def _settled(self, done: Sequence[Settlement], took: Sequence[bool]) -> None:
        """These settlements were taken, or not."""
        for (task, move), taken in zip(done, took, strict=True):
            if task.state != EXECUTING:
                continue
            hold = self._held.get(task.id)
            holds = hold is not None and (hold.worker, hold.version) == (move.worker, task.version)
            if taken and not holds:
                self._fault(f"{task}: an outcome of {move.worker} was taken, and it is held by {hold}")
            elif holds and not taken:
                self._fault(f"{task}: the outcome of {move.worker}, who holds it, was refused")
            if taken or holds:
                self._held.pop(task.id, None)

    def _started(self, claims: Sequence[Claim]) -> None:
        """These were claimed."""
        for task, move in claims:
            if move.path == (START,):
                if task.id in self._held:
                    self._fault(f"{task} was given to {move.worker}, and is held by {self._held[task.id]}")
                self._held[task.id] = _Hold(move.worker, task.version + 1, move.lease)

    def _interrupted(self, claims: Sequence[Claim], now: float) -> None:
        """These were recovered."""
        for task, move in claims:
            hold = self._held.pop(task.id, None)
            if move.frees_locks and (hold is None or hold.until is None or hold.until > now):
                self._fault(f"{task} was taken at {now} from somebody whose lease had not lapsed: {hold}")
