"""Stored tasks and revocations on PostgreSQL: from rows to objects, and retry policies to text and back."""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from lifecycle.core.policies import Revocation
from lifecycle.core.step import Step, step_from
from lifecycle.core.task import NO_DELAY, RetryPolicy, Task, policy_fields

__all__ = ["policy_text", "revocation_from_columns", "task_from_row"]

log = logging.getLogger("lifecycle.storage")


def task_from_row(row: Sequence[Any]) -> Task:
    """Return the task in a row that begins with `schema.COLUMNS`, in the order of the task's fields."""
    retry = NO_DELAY if row[8] is None else _policy(row[8])
    step = None if row[18] is None else _step(row[18], row[19])
    return Task(*row[:8], retry, *row[9:18], step)  # type: ignore[call-arg]  # mypy counts each * as any number


def revocation_from_columns(until: float | None, once: bool | None) -> Revocation | None:
    """Return the revocation in two columns; ``None`` if both are null."""
    return None if once is None else Revocation(until, once)


def policy_text(policy: RetryPolicy) -> str | None:
    """Return a retry policy as stored text; ``None`` for the default policy."""
    return None if policy is NO_DELAY else msgspec.json.encode(policy_fields(policy)).decode()


def _step(text: str, verdict: str | None) -> Step:
    try:
        return step_from(text, verdict)
    except ValueError as error:  # the same: the task waits on
        log.warning("cannot read the stored place of a task in its workflow: %s", error)
        return Step()


def _policy(text: str) -> RetryPolicy:
    try:
        return msgspec.json.decode(text, type=RetryPolicy)
    except msgspec.MsgspecError as error:  # changed by hand: one such row must not stop the claims of all others
        log.warning("cannot read a stored retry policy, the task is retried without a delay: %s", error)
        return NO_DELAY
