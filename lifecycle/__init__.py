"""A task queue whose every task is an explicit finite-state machine.

`LIFECYCLE` is the table; a `TaskQueue` runs tasks by it. Start with the README.
"""

from lifecycle.errors import (
    CancelExecution,
    ConfigurationError,
    DuplicateTask,
    LifecycleError,
    RateLimitExceeded,
    ResultTimeout,
    RetryTask,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StorageUnusable,
    TaskException,
    TaskInterrupted,
    TaskLockedException,
    TaskTimeout,
    Undecodable,
    UnknownSignal,
    UnknownTask,
    Unserializable,
)
from lifecycle.function import TaskFunction
from lifecycle.machine import IllegalTransition
from lifecycle.queue import TaskQueue
from lifecycle.result import Result
from lifecycle.serializer import MsgpackSerializer, PickleSerializer, Serializer
from lifecycle.signals import (
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
from lifecycle.table import LIFECYCLE, Kind, Lifecycle, State, Transition
from lifecycle.task import Record, Task

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
    "DuplicateTask",
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
]
