"""A claim of one certain task, for a caller that runs the task itself: in tests, at a prompt, in a debugger."""

from lifecycle.core import policies
from lifecycle.core.machine import IllegalTransition
from lifecycle.core.policies import WAITING
from lifecycle.core.table import LIFECYCLE, REVOKE, START
from lifecycle.execution.engine import Engine, unknown_task
from lifecycle.execution.signals import SIGNAL_SCHEDULED
from lifecycle.storage.base import Claim, RevocationTarget, Settlement

__all__ = ["claim_task"]


def claim_task(engine: Engine, worker: str, task_id: str, now: float) -> Claim | None:
    """Claim a waiting task for a worker, as a claim at `now` (UTC seconds) would; ``None``: the task is not due.

    The claim takes no other task first, whatever the priorities. Raises `UnknownTask`, and `IllegalTransition` if the
    task does not wait.
    """
    while True:
        task = engine.storage.get(task_id)  # without a decoder: the worker gives a step one that knows its inputs
        if task is None:
            raise unknown_task(task_id)
        if task.state not in WAITING:
            allowed = LIFECYCLE.allowed(task.state)
            raise IllegalTransition(state=task.state, trigger=START, allowed=allowed, subject=str(task))
        own = engine.storage.revocation(RevocationTarget(function=False, key=task_id))
        of_function = engine.storage.revocation(target := RevocationTarget(function=True, key=task.name))
        trigger = policies.admit(task, own, of_function, now)
        if trigger is None:
            return None
        hold = SIGNAL_SCHEDULED in engine.signals.connected
        move = policies.claimed(task, trigger, worker, now, engine.lease, hold_scheduled=hold)
        (took,), _ = engine.storage.exchange([Settlement(task, move)], None)
        if took:
            break  # else the task moved between the two calls: look again
    if trigger == REVOKE and not policies.revoked_when_due(task, own, now) and of_function and of_function.once:
        engine.restore(target)
    return Claim(task, move)
