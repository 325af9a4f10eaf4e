"""The commands that change a task: ``retry``, ``cancel`` and ``revoke``."""

import sys

from lifecycle.consumer.cli.options import FoundWrong, command, task_id_argument, with_queue
from lifecycle.core.machine import IllegalTransition
from lifecycle.queue import TaskQueue

__all__ = ["cancel", "retry", "revoke"]


@command("retry")
@task_id_argument
@with_queue
def retry(queue: TaskQueue, task_id: str) -> None:
    """Enqueue a task again."""
    try:
        queue.retry(task_id)
    except IllegalTransition as error:
        raise FoundWrong(str(error)) from None
    sys.stdout.write(f"task {task_id} is queued again\n")


@command("cancel")
@task_id_argument
@with_queue
def cancel(queue: TaskQueue, task_id: str) -> None:
    """Request a task's cancellation."""
    try:
        queue.cancel(task_id)
    except IllegalTransition as error:
        raise FoundWrong(str(error)) from None
    sys.stdout.write(f"cancellation of task {task_id} is requested\n")


@command("revoke")
@task_id_argument
@with_queue
def revoke(queue: TaskQueue, task_id: str) -> None:
    """Revoke a task that exists."""
    queue.get(task_id)  # an id that does not exist is more likely mistyped than meant for later
    queue.revoke_by_id(task_id)
    sys.stdout.write(f"task {task_id} will not run again\n")
