"""An audit of leases: which worker holds which task until when, derived from all calls of a world's store."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from lifecycle.core.table import EXECUTING, START
from lifecycle.storage.base import Claim, Settlement, Storage

__all__ = ["LeaseAudit"]


@attrs.define
class _Lease:
    """The lease of a running attempt."""

    worker: str
    version: int
    until: float | None


class LeaseAudit:
    """Checks the answers of a store against P1: one worker at a time, and only its outcome, while its lease lasts.

    Histories do not show that: an outcome of the wrong worker is as legal there as one of the right worker.
    """

    def __init__(self, add_fault: Callable[[str], object]) -> None:
        """`add_fault`: called with the text of each fault."""
        self._add_fault = add_fault
        self._held: dict[str, _Lease] = {}

    def note(self, call: str, arguments: Sequence[Any], answer: Any) -> None:
        """Note a call of the store and its answer."""
        if call == Storage.exchange.__name__:
            accepted, claims = answer
            self._note_settlements(arguments[0], accepted)
            self._note_claims(claims)
        elif call == Storage.recover.__name__:
            self._note_recovery(answer, arguments[0])
        elif call == Storage.extend.__name__:
            for hold in self._held.values():
                if hold.worker in arguments[0]:
                    hold.until = arguments[1]

    def _note_settlements(self, done: Sequence[Settlement], accepted: Sequence[bool]) -> None:
        for (task, move), is_accepted in zip(done, accepted, strict=True):
            if task.state != EXECUTING:
                continue
            hold = self._held.get(task.id)
            holds = hold is not None and (hold.worker, hold.version) == (move.worker, task.version)
            if is_accepted and not holds:
                self._add_fault(f"{task}: an outcome of {move.worker} was accepted, but the task is held by {hold}")
            elif holds and not is_accepted:
                self._add_fault(f"{task}: the outcome of {move.worker}, which holds the task, was refused")
            if is_accepted or holds:
                self._held.pop(task.id, None)

    def _note_claims(self, claims: Sequence[Claim]) -> None:
        for task, move in claims:
            if move.path[-1] == START:
                if task.id in self._held:
                    self._add_fault(f"{task} was claimed by {move.worker}, but is held by {self._held[task.id]}")
                self._held[task.id] = _Lease(move.worker, move.version, move.lease)

    def _note_recovery(self, claims: Sequence[Claim], now: float) -> None:
        for task, move in claims:
            hold = self._held.pop(task.id, None)
            if move.frees_locks and (hold is None or hold.until is None or hold.until > now):
                self._add_fault(f"{task} was recovered at {now}, before its lease had lapsed: {hold}")
