"""The ways that an attempt may end, and tasks that end so."""

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
    """A task whose first attempt ends so."""

    @queue.task(context=True, name=how, **options)
    def ends(task=None):
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]
        return "done"

    return ends


def ending_body(how):
    """The same as a body that may be retried; what is interrupted is so each time."""

    def ends(task=None):
        if how == "interrupted":
            raise TaskInterrupted
        if task.attempt == 1 and ENDINGS[how] is not None:
            raise ENDINGS[how]

    return ends
