"""A task queue whose every task is an explicit finite-state machine.

`LIFECYCLE` is the table; a `TaskQueue` runs tasks by it. Start with the README.
"""

from typing import TYPE_CHECKING

from lifecycle.core.machine import IllegalTransition
from lifecycle.core.serializer import MsgpackSerializer, PickleSerializer, Serializer
from lifecycle.core.table import LIFECYCLE, Kind, Lifecycle, State, Transition
from lifecycle.core.task import Record, Task
from lifecycle.errors import (
    CancelExecution,
    ConfigurationError,
    DuplicateTask,
    FaultyTable,
    LifecycleError,
    RateLimitExceeded,
    ResultTimeout,
    RetryTask,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StorageUnusable,
    TaskCanceled,
    TaskException,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    Undecodable,
    UnknownSignal,
    UnknownTask,
    Unserializable,
)
from lifecycle.execution.attempt import check_canceled
from lifecycle.execution.signals import (
    SIGNAL_CANCELED,
    SIGNAL_COMPLETE,
    SIGNAL_ENQUEUED,
    SIGNAL_ERROR,
    SIGNAL_EXECUTING,
    SIGNAL_EXPIRED,
    SIGNAL_INTERRUPTED,
    SIGNAL_LOCKED,
    SIGNAL_RATE_LIMITED,
    SIGNAL_RETRYING,
    SIGNAL_REVOKED,
    SIGNAL_SCHEDULED,
    SIGNAL_TIMEOUT,
    SIGNALS,
)
from lifecycle.function import TaskFunction
from lifecycle.queue import TaskQueue
from lifecycle.result import Result

if TYPE_CHECKING:
    from lifecycle.consumer.consumer import Consumer

__all__ = [
    "LIFECYCLE",
    "SIGNALS",
    "SIGNAL_CANCELED",
    "SIGNAL_COMPLETE",
    "SIGNAL_ENQUEUED",
    "SIGNAL_ERROR",
    "SIGNAL_EXECUTING",
    "SIGNAL_EXPIRED",
    "SIGNAL_INTERRUPTED",
    "SIGNAL_LOCKED",
    "SIGNAL_RATE_LIMITED",
    "SIGNAL_RETRYING",
    "SIGNAL_REVOKED",
    "SIGNAL_SCHEDULED",
    "SIGNAL_TIMEOUT",
    "CancelExecution",
    "ConfigurationError",
    "Consumer",
    "DuplicateTask",
    "FaultyTable",
    "IllegalTransition",
    "Kind",
    "Lifecycle",
    "LifecycleError",
    "MsgpackSerializer",
    "PickleSerializer",
    "RateLimitExceeded",
    "Record",
    "Result",
    "ResultTimeout",
    "RetryTask",
    "Serializer",
    "State",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "StorageUnusable",
    "Task",
    "TaskCanceled",
    "TaskException",
    "TaskFunction",
    "TaskInterrupted",
    "TaskLockedException",
    "TaskQueue",
    "TaskTimeout",
    "Transition",
    "Undecodable",
    "UnknownSignal",
    "UnknownTask",
    "Unserializable",
    "check_canceled",
]


def __getattr__(name: str) -> object:
    """Import `Consumer` when it is used first: most programs only enqueue."""
    if name == "Consumer":
        from lifecycle.consumer.consumer import Consumer

        return Consumer
    raise AttributeError(f"module 'lifecycle' has no attribute {name!r}")
