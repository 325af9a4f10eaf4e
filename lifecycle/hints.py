"""Hints for names that do not exist here: options and methods of other task queues, and misspelt ones."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Final, ParamSpec, TypeVar

from lifecycle.errors import UnknownOption

__all__ = ["METHOD_HINTS", "known_option", "refuses_unknown_options"]

P = ParamSpec("P")
R = TypeVar("R")

_OPTIONS: Final = {
    "always_eager": "immediate", "apply_timeout": "timeout", "at": "eta", "backend": "url", "backoff": "retry_backoff",
    "bind": "context", "blocking_timeout": "timeout", "broker": "url", "concurrency": "workers", "countdown": "delay",
    "default_retry_delay": "retry_delay", "eager": "immediate", "expire": "expires", "expires_in": "expires",
    "filename": "url", "job_id": "id", "job_timeout": "timeout", "jitter": "retry_jitter",
    "max_backoff": "retry_max_delay", "max_retries": "retries", "max_tasks_per_child": "max_tasks",
    "max_tries": "retries", "min_backoff": "retry_delay", "num_workers": "workers", "pool": "worker_type",
    "result_expires": "retention", "result_ttl": "retention", "retry": "retries", "retry_kwargs": "retries",
    "run_at": "eta", "soft_time_limit": "timeout", "task_always_eager": "immediate", "task_id": "id",
    "time_limit": "timeout", "ttl": "expires", "visibility_timeout": "lease", "worker_class": "worker_type",
    "worker_count": "workers",
}  # fmt: skip
"""Option of another task queue → ours."""

_CALL: Final = "call {0}(…) to enqueue a task"
_SCHEDULE: Final = "{0}.schedule(args, kwargs, delay=…) enqueues a call with options"
METHOD_HINTS: Final = {
    "apply": "{0}.call_local(…) calls the function here",
    "apply_async": _SCHEDULE,
    "defer": _CALL,
    "delay": _CALL,
    "enqueue": _CALL,
    "enqueue_at": _SCHEDULE,
    "enqueue_in": _SCHEDULE,
    "fn": "{0}.call_local(…) calls the function here",
    "func": "{0}.call_local(…) calls the function here",
    "kiq": _CALL,
    "message": "{0}.s(…) makes a task",
    "retry": "raise RetryTask in the function to retry its task",
    "send": _CALL,
    "send_with_options": _SCHEDULE,
    "si": "{0}.s(…) makes a task",
    "signature": "{0}.s(…) makes a task",
    "starmap": "{0}.map([(…), …]) enqueues many calls",
    "subtask": "{0}.s(…) makes a task",
}
"""Method of another queue's tasks → the way to do the same here; ``{0}`` stands for the name of the function."""


def known_option(name: str, known: Iterable[str]) -> str | None:
    """Return the known option that is meant by an unknown name; None if there is no likely one."""
    known = list(known)
    if _OPTIONS.get(name) in known:
        return _OPTIONS[name]
    near = difflib.get_close_matches(name, known, n=1)
    return near[0] if near else None


def refuses_unknown_options(method: Callable[P, R]) -> Callable[P, R]:
    """Return the method with a check before each call: an unknown keyword raises `UnknownOption`, with a hint."""
    known = frozenset(list(inspect.signature(method).parameters)[1:])
    name = method.__qualname__.split(".")[0] if method.__name__ == "__init__" else method.__name__

    @functools.wraps(method)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known.issuperset(kwargs):
            raise _unknown_option(name, next(option for option in kwargs if option not in known), known)
        return method(*args, **kwargs)

    return checked


def _unknown_option(where: str, name: str, known: Iterable[str]) -> UnknownOption:
    meant = known_option(name, known)
    hint = f"did you mean {meant}=?" if meant else f"there are {', '.join(sorted(known))}"
    return UnknownOption(f"{where}() has no option {name!r}; {hint}")
