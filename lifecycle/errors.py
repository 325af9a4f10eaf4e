"""What can go wrong, each with a type of its own.

Two families. `LifecycleError` and its children are raised *by* the queue: they tell the caller, or the operator, what
was wrong, where, and what to do. The exceptions at the end are raised *by a task or a hook* to steer its own fate, and
carry Huey's names, so that its users move by changing an import.

`IllegalTransition` lives beside the machine that raises it (`lifecycle.core.machine`): it is a `transitions.MachineError`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

__all__ = [
    "CancelExecution",
    "ConfigurationError",
    "DuplicateTask",
    "FaultyTable",
    "LifecycleError",
    "RateLimitExceeded",
    "ResultTimeout",
    "RetryTask",
    "StorageError",
    "StorageFull",
    "StorageUnavailable",
    "StorageUnusable",
    "TaskCanceled",
    "TaskException",
    "TaskInterrupted",
    "TaskLockedException",
    "TaskTimeout",
    "Undecodable",
    "UnknownSignal",
    "UnknownTask",
    "Unserializable",
]


class LifecycleError(Exception):
    """The base of everything that the queue itself raises."""


class ConfigurationError(LifecycleError, ValueError):
    """An option, a URL or a name that cannot be right, wherever it was given. Nothing was changed."""


class FaultyTable(ConfigurationError):
    """States and rows that make no lifecycle; `.faults` are all that is wrong with them, a line each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        """`faults`: see the class."""
        super().__init__(f"no lifecycle: {'; '.join(faults)}")
        self.faults = faults

    def __reduce__(self) -> tuple[type["FaultyTable"], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


class UnknownSignal(ConfigurationError):
    """A handler was registered for a signal that no state sends; the message lists the signals there are."""


class UnknownTask(LifecycleError, LookupError):
    """There is no task of this id in the store, or no function of this name in the queue; the message says which."""


class DuplicateTask(LifecycleError, ValueError):
    """A task of this id is in the store already. Nothing was written; `.task_id` is the id."""

    def __init__(self, task_id: str) -> None:
        """`task_id`: the id that is taken."""
        super().__init__(f"task {task_id} is in the store already: enqueue a new one, or retry that one")
        self.task_id = task_id

    def __reduce__(self) -> tuple[type["DuplicateTask"], tuple[str]]:
        return type(self), (self.task_id,)


class Unserializable(LifecycleError, TypeError):
    """A value that the serializer could not give back exactly as it is; raised where the value is handed in."""

    def __init__(self, reason: str, path: str = "") -> None:
        """`reason`: what is wrong with it; `path`: where in the value, in Python's notation (``[0]['when']``)."""
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[type["Unserializable"], tuple[str, str]]:
        return type(self), (self.reason, self.path)


class Undecodable(LifecycleError, ValueError):
    """Stored bytes that this queue's serializer did not make: another serializer's, another secret's, or damaged."""


class StorageError(LifecycleError):
    """The store could not do what it was asked; what it was asked did not happen, unless a subclass says otherwise."""


class StorageUnusable(StorageError, ConfigurationError):
    """What the URL points at is no store of ours: another program's file, a newer schema, a folder, no permission."""


class StorageFull(StorageError):
    """No space is left for a write. Nothing was changed; space made, the same call can be made again."""


class StorageUnavailable(StorageError):
    """The store did not answer in time (locked by another program, gone). The same call can be made again."""


class ResultTimeout(LifecycleError, TimeoutError):
    """No outcome came within the time that the caller gave. The task is not affected."""


class TaskException(LifecycleError):
    """The task whose result was asked for did not complete.

    `.metadata` is a mapping with the keys ``error`` (the exception's repr, or what happened instead), ``traceback``
    (text, may be empty), ``task_id``, ``state`` (the outcome's), ``attempt`` and ``retries`` (those left then).
    """

    def __init__(self, metadata: Mapping[str, object]) -> None:
        """`metadata`: see the class."""
        super().__init__(str(metadata.get("error", "unknown error")))
        self.metadata = dict(metadata)

    def __reduce__(self) -> tuple[type["TaskException"], tuple[dict[str, object]]]:
        return type(self), (self.metadata,)


# What a task, or a hook, raises to steer its own fate -------------------------------------------------------------


class CancelExecution(Exception):
    """Raise it in a pre-execute hook or a task: the task ends `canceled`.

    `retry`: ``True`` retries even if no retry is left, ``False`` never does, ``None`` (default) retries if one is left.
    """

    def __init__(self, msg: str | None = None, retry: bool | None = None) -> None:
        """`msg`: the reason, stored with the outcome."""
        super().__init__(*(() if msg is None else (msg,)))
        self.retry = retry


class TaskCanceled(CancelExecution):
    """Somebody has called the running task off (`TaskQueue.cancel`): it ends `canceled`, whatever retries are left.

    A worker raises it in the body, as does `Task.check_canceled`. A body that catches it and returns is complete.
    """

    def __init__(self, msg: str | None = None) -> None:
        """`msg`: the reason, stored with the outcome."""
        super().__init__(msg, retry=False)


class RetryTask(Exception):
    """Raise it in a task to have it run again, at `eta` or after `delay` (seconds or timedelta).

    With neither it waits as its own retry policy says. It costs none of the task's retries, and sends no `error`.
    """

    def __init__(
        self,
        msg: str | None = None,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
    ) -> None:
        """`eta`: aware, or naive for local time. Give one of `eta` and `delay`, or neither."""
        super().__init__(*(() if msg is None else (msg,)))
        self.eta = eta
        self.delay = delay


class TaskLockedException(Exception):
    """The lock that was asked for is held by somebody else. Raised within a task, it ends the attempt `locked`."""


class RateLimitExceeded(Exception):
    """Ends the attempt `rate-limited`. `delay`: seconds until there is room; `retry`: try again then, at no cost."""

    def __init__(self, key: str, delay: float, retry: bool = True) -> None:
        """`key`: which limit it was."""
        super().__init__(key, delay, retry)
        self.key, self.delay, self.retry = key, delay, retry

    def __str__(self) -> str:
        return f"rate limit {self.key!r} exceeded, room in {self.delay:.1f} s"


class TaskTimeout(Exception):
    """The attempt took longer than its `timeout`; it ends in `timeout`. A worker raises it in the task's body."""


class TaskInterrupted(BaseException):
    """The worker is stopped while the task runs: clean up and let it pass, the task is put back and runs again.

    Not an `Exception`, so that a task's ``except Exception`` does not take it for a failure of its own.
    """
