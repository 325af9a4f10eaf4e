"""The exceptions under Huey's names; `lifecycle.errors` documents each."""

from typing import Final

from lifecycle.errors import (
    CancelExecution,
    ConfigurationError,
    LifecycleError,
    RateLimitExceeded,
    ResultTimeout,
    RetryTask,
    TaskException,
    TaskLockedException,
    TaskTimeout,
)

__all__ = [
    "RETRYING_EXCEPTIONS", "CancelExecution", "ConfigurationError", "HueyException", "RateLimitExceeded",
    "ResultTimeout", "RetryTask", "TaskException", "TaskLockedException", "TaskTimeout",
]  # fmt: skip

HueyException = LifecycleError
"""Base class of the errors that the queue raises, and of those about locks, limits and timeouts in a task."""

RETRYING_EXCEPTIONS: Final = (RetryTask, RateLimitExceeded, TaskLockedException)
"""Exceptions that are no failure of a task while a retry is to come."""
