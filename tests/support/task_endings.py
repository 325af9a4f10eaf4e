"""Endings of an attempt, and task functions that end in each way."""

from lifecycle import CancelExecution, RateLimitExceeded, RetryTask, TaskInterrupted, TaskLockedException, TaskTimeout

ENDINGS = {
    "complete": None,
    "error": ValueError("no"),
    "timeout": TaskTimeout(),
    "locked": TaskLockedException(),
    "canceled": CancelExecution(),
    "rate-limited": RateLimitExceeded("api", 5, retry=False),
    "interrupted": TaskInterrupted(),
    "retrying": RetryTask(delay=5),
}


def ending(queue, how, **options):
    """Return a task function whose first attempt ends in this way."""

    @queue.task(context=True, name=how, **options)
    def ends(task=None):
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]
        return "done"

    return ends


def ending_function(how):
    """Return a plain function whose first attempt ends in this way; with "interrupted" each attempt does."""

    def ends(task=None):
        if how == "interrupted":
            raise TaskInterrupted
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]

    return ends
