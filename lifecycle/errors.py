"""Exceptions: one type for each kind of error.

There are two families. The queue raises `LifecycleError` and its subclasses: the message says where the error is, and
how to correct it. A task or a hook raises the exceptions at the end of this module to end its attempt in a certain way;
they have the names that Huey uses, so that users of Huey only change an import. Those about locks, limits and timeouts
are of both families.

`IllegalTransition` is defined beside the machine that raises it (`lifecycle.core.machine`), as a subclass of
`transitions.MachineError`.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

from lifecycle.escaping import printable

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
    "StorageRefused",
    "StorageUnavailable",
    "StorageUnusable",
    "TaskCanceled",
    "TaskException",
    "TaskInterrupted",
    "TaskLockedException",
    "TaskTimeout",
    "Undecodable",
    "UnknownOption",
    "UnknownSignal",
    "UnknownTask",
    "Unserializable",
]


class LifecycleError(Exception):
    """Base class of all errors that the queue itself raises. The message is one line; see `lifecycle.escaping`."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigurationError(LifecycleError, ValueError):
    """Invalid option, URL or name. Nothing was changed."""


class FaultyTable(ConfigurationError):
    """Table of states and transitions that is not a sound lifecycle; `.faults` lists every fault, one line each."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        """`faults`: one line for each fault."""
        super().__init__(f"unsound table: {'; '.join(faults)}")
        self.faults = faults

    def __reduce__(self) -> tuple[type["FaultyTable"], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)


class UnknownOption(ConfigurationError, TypeError):
    """Option that does not exist; the message names the option that was probably meant."""


class UnknownSignal(ConfigurationError):
    """Signal that no state sends; the message lists the known signals."""


class UnknownTask(LifecycleError, LookupError):
    """Task id that is not in the store, or function name that is not in the queue; the message says which."""


class DuplicateTask(LifecycleError, ValueError):
    """Task id that is already in the store; `.task_id` is the id. Nothing was written."""

    def __init__(self, task_id: str) -> None:
        """`task_id`: the id that is in the store already."""
        super().__init__(f"task {task_id} is in the store already: enqueue a new task, or retry the stored one")
        self.task_id = task_id

    def __reduce__(self) -> tuple[type["DuplicateTask"], tuple[str]]:
        return type(self), (self.task_id,)


class Unserializable(LifecycleError, TypeError):
    """Value that the serializer cannot restore exactly; raised where the value is passed in."""

    def __init__(self, reason: str, path: str = "") -> None:
        """`reason`: why the value is refused; `path`: the place in the value, in Python notation (``[0]['when']``)."""
        super().__init__(f"{path}: {reason}" if path else reason)
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[type["Unserializable"], tuple[str, str]]:
        return type(self), (self.reason, self.path)


class Undecodable(LifecycleError, ValueError):
    """Stored bytes that this queue's serializer cannot read: another serializer, another secret, or damaged bytes."""


class StorageError(LifecycleError):
    """Failed operation of the store. The operation had no effect, unless the subclass says otherwise."""


class StorageUnusable(StorageError, ConfigurationError):
    """URL that leads to no usable store: another program's file, a newer schema, a folder, a missing permission."""


class StorageFull(StorageError):
    """No space is left for a write. Nothing was changed. Make space, then repeat the call."""


class StorageRefused(StorageError, ValueError):
    """Write that the store will never take: a value is too large, or breaks a rule of the store. Nothing was changed.

    To repeat the call does not help: make the value smaller, or store it elsewhere and enqueue its name.
    """


class StorageUnavailable(StorageError):
    """The store did not answer in time (locked by another program, or unreachable). Repeat the call later."""


class ResultTimeout(LifecycleError, TimeoutError):
    """No outcome arrived within the caller's timeout, or none can arrive any more. The task is not affected."""


class TaskException(LifecycleError):
    """Raised for the result of a task that did not complete.

    A traceback of this exception shows the traceback of the task, too, as a note.
    """

    state: str
    """Name of the state that the attempt, or the task, ended in."""
    error_type: str
    """Type of the exception, as in ``ValueError`` or ``shop.billing.CardRefused``; empty if no exception was raised."""
    traceback: str
    """The traceback in the worker; empty if there is none."""
    attempt: int
    """Number of the attempt: 1 is the first, 0 means that the task never started."""
    metadata: dict[str, object]
    """The same as a dict, and more: ``error`` (repr of the exception, or a description), ``error_type``, ``traceback``,
    ``task_id``, ``state``, ``attempt`` and ``retries`` (the retries that were left to the attempt)."""

    def __init__(self, metadata: Mapping[str, object]) -> None:
        """`metadata`: copied into a dict."""
        super().__init__(str(metadata.get("error", "unknown error")))
        self.metadata = dict(metadata)
        self.state, self.error_type, self.traceback = (
            str(metadata.get(key, "")) for key in ("state", "error_type", "traceback")
        )
        attempt = metadata.get("attempt")
        self.attempt = attempt if isinstance(attempt, int) else 0
        if self.traceback:
            self.add_note(f"\nThe traceback in the worker (attempt {self.attempt}):\n\n{self.traceback.rstrip()}")

    def __reduce__(self) -> tuple[type["TaskException"], tuple[dict[str, object]]]:
        return type(self), (self.metadata,)


# Raised by tasks and hooks ------------------------------------------------------------------------------------------


class CancelExecution(Exception):
    """Raise this in a pre-execute hook or in a task to end the task `canceled`.

    `retry`: ``True``: retry even if no retry is left; ``False``: do not retry; ``None`` (default): do not retry if a
    hook raises this; if a task does, retry if a retry is left.
    """

    def __init__(self, msg: str | None = None, retry: bool | None = None) -> None:
        """`msg`: the reason, stored with the outcome."""
        super().__init__(*(() if msg is None else (msg,)))
        self.retry = retry


class TaskCanceled(CancelExecution):
    """Raised in a running task after `TaskQueue.cancel`: the task ends `canceled` and is not retried.

    The worker raises it inside the function, and so does `Task.check_canceled`. If the function catches it and returns,
    the task ends `complete`.
    """

    def __init__(self, msg: str | None = None) -> None:
        """`msg`: the reason, stored with the outcome."""
        super().__init__(msg, retry=False)


class RetryTask(Exception):
    """Raise this in a task to run the task again, at `eta` or after `delay` (seconds or timedelta).

    With neither, the task's own retry policy decides how long to wait. The task keeps all its retries, and no `error`
    signal is sent.
    """

    def __init__(
        self,
        msg: str | None = None,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
    ) -> None:
        """`eta`: a naive datetime means local time. Give `eta`, or `delay`, or neither."""
        super().__init__(*(() if msg is None else (msg,)))
        self.eta = eta
        self.delay = delay


class TaskLockedException(LifecycleError):
    """The lock is held already. Raised inside a task, it ends the attempt `locked`."""


class RateLimitExceeded(LifecycleError):
    """Raise this in a task to end the attempt `rate-limited`.

    `delay`: seconds until the limit allows another run. `retry`: try again then, and keep all retries.
    """

    def __init__(self, key: str, delay: float, retry: bool = True) -> None:
        """`key`: the name of the limit."""
        super().__init__(key, delay, retry)
        self.key, self.delay, self.retry = key, delay, retry

    def __str__(self) -> str:
        return f"rate limit {self.key!r} exceeded: next run possible in {self.delay:.1f} s"


class TaskTimeout(LifecycleError):
    """Raised by the worker inside a function that ran longer than its `timeout`; the attempt ends `timeout`."""


class TaskInterrupted(BaseException):
    """Raised inside a running function whose worker stops: clean up and do not catch it; the task is requeued.

    It is no `Exception`, so that ``except Exception`` in a task does not catch it.
    """
