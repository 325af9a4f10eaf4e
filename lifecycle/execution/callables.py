"""Callables that users register: the origin of each, its parameters, and the checks that a call would run it."""

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FunctionType, GeneratorType
from typing import Any, Final

import attrs

from lifecycle.errors import ConfigurationError
from lifecycle.escaping import printable

__all__ = [
    "Origin", "TaskCallable", "check_call", "check_callable", "import_name", "is_async", "note_task_attribute",
    "origin_of", "own_signature", "refuse_unrun", "task_function_in", "unrun_kind",
]  # fmt: skip

_WRAPPERS: Final = (functools.partial, functools.partialmethod)
_UNRUN: Final = {CoroutineType: "a coroutine", GeneratorType: "a generator", AsyncGeneratorType: "an async generator"}


class TaskCallable:
    """Base class of `TaskFunction`: a call enqueues a task, and runs no function."""

    name: str
    """The function's name in its queue."""


@attrs.frozen
class Origin:
    """The place where a callable is defined, and the execution of its module that defined the callable."""

    module: str
    """Name by which a consumer imports the module: that of its file in place of ``__main__``."""
    name: str
    file: str
    line: int
    at_prompt: bool
    namespace: object = attrs.field(eq=False, repr=False)
    """The module's dictionary. A module that is imported anew has another one."""
    spec: object = attrs.field(eq=False, repr=False)
    """The module's ``__spec__`` at that time. `importlib.reload` gives the module another one."""

    @property
    def path(self) -> str:
        """Module and qualified name."""
        return f"{self.module}.{self.name}"

    def replaces(self, earlier: "Origin") -> bool:
        """Return whether this is the same definition after a reload of its module, or at a prompt or in a notebook."""
        if (self.module, self.name) != (earlier.module, earlier.name):
            return False
        if self.at_prompt:
            return "<" not in self.name
        again = self.namespace is not earlier.namespace or self.spec is not earlier.spec
        return again and self.file == earlier.file and not self.file.startswith("<")  # text that is no file has no name

    def __str__(self) -> str:
        return printable(f"{self.path} ({self.file}, line {self.line})" if self.file else self.path)


def origin_of(function: Callable[..., object]) -> Origin:
    """Return the origin of a callable; a wrapper made with `functools.wraps` has the origin of the wrapped function."""
    body: Any = _body(function)
    while hasattr(body, "__wrapped__"):
        body = _body(body.__wrapped__)
    named: Any = function if hasattr(function, "__qualname__") else body
    namespace = getattr(body, "__globals__", None)
    code = getattr(body, "__code__", None)
    file = code.co_filename if isinstance(code, CodeType) else ""
    module = getattr(named, "__module__", None) or ""
    return Origin(
        import_name(module),
        getattr(named, "__qualname__", repr(function)),
        str(Path(file).absolute()) if file and not file.startswith("<") else file,
        code.co_firstlineno if isinstance(code, CodeType) else 0,
        module == "__main__" and hasattr(sys, "ps1"),
        namespace,
        namespace.get("__spec__") if isinstance(namespace, dict) else None,
    )


def import_name(module: str) -> str:
    """Return the name by which a consumer imports a module: for ``__main__`` the name of its file, if it has one."""
    if module not in ("__main__", "__mp_main__"):  # the second is the same module, in a process that was spawned
        return module
    main = sys.modules[module]
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    return spec.name if spec is not None else Path(file).stem if file else module


def _body(function: object) -> object:
    """Return the Python function that a call of a callable runs: without `partial`, and the `__call__` of an object."""
    while isinstance(function, _WRAPPERS):
        function = function.func
    if isinstance(function, staticmethod):
        function = function.__func__
    if inspect.ismethod(function):
        function = function.__func__
    if hasattr(function, "__code__") or hasattr(function, "__wrapped__") or isinstance(function, type):
        return function
    return type(function).__call__ if callable(function) else function


def is_async(function: Callable[..., object]) -> bool:
    """Return whether a call makes a coroutine: an `async def` function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(_body(function))


def own_signature(function: Callable[..., object]) -> inspect.Signature:
    """Return the parameters of a callable itself, not those of a function that it wraps.

    Of a callable that tells none (some are written in C) the parameters of the wrapped function, or else any.
    """
    wrapped = getattr(function, "__wrapped__", None)
    told = getattr(function, "__signature__", None)
    if isinstance(function, FunctionType) and told is not None and told is getattr(wrapped, "__signature__", None):
        # `functools.wraps` has copied the signature of the wrapped function; the code has the wrapper's own.
        bare = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        bare.__kwdefaults__ = function.__kwdefaults__
        function = bare
    for follow in (False, True):
        try:
            return inspect.signature(function, follow_wrapped=follow)
        except ValueError:
            pass
    kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "kwargs": inspect.Parameter.VAR_KEYWORD}
    return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()])


def task_function_in(function: object) -> TaskCallable | None:
    """Return the task function that a callable is or wraps, if any."""
    while not isinstance(function, TaskCallable):
        if isinstance(function, _WRAPPERS):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return None
    return function


def check_callable(function: object, role: str, *, may_be_async: bool = False, may_enqueue: bool = False) -> None:
    """Check that a call of this object runs its code.

    Raises `ConfigurationError` for an object that cannot be called, for a generator function, and, unless the options
    allow them, for an `async` function and for a task function. `role`: a noun for the object, for the error.
    """
    if not callable(function):
        hint = ": put @staticmethod in its place" if isinstance(function, classmethod) else ""
        raise ConfigurationError(f"{role}={function!r}: must be a function{hint}")
    task_function = task_function_in(function)
    if task_function is not None and not may_enqueue:
        raise ConfigurationError(
            f"{role}={task_function.name}: must be a plain function, and this one is a task already, so that each call "
            "would enqueue a task; decorate the plain function"
        )
    body: Any = _body(function)
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise ConfigurationError(
            f"{role}={origin_of(function)}: must not contain yield, since a call of a generator function runs nothing; "
            "return a list"
        )
    if not may_be_async and is_async(function):
        raise ConfigurationError(
            f"{role}={origin_of(function)}: must be a plain function, since nothing awaits a coroutine here; "
            "write def, not async def"
        )


def check_call(function: Callable[..., object], role: str, *arguments: str) -> None:
    """Check that a callable can be called with these positional arguments; raises `ConfigurationError`."""
    signature = own_signature(function)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"{role}={origin_of(function)}: must take ({', '.join(arguments)}), not {signature}: {error}"
        ) from None


def unrun_kind(value: object) -> str | None:
    """Return a noun for a value whose code has not run (a coroutine, a generator), and close it; None for others."""
    kind = _UNRUN.get(type(value))
    if isinstance(value, CoroutineType | GeneratorType):
        value.close()  # a coroutine that is collected without that warns
    return kind


def refuse_unrun(value: object) -> None:
    """Raise `ConfigurationError` if a handler or hook has returned a coroutine or a generator, whose code has not run.

    A plain wrapper of an `async` function returns one: only a call shows that.
    """
    kind = unrun_kind(value)
    if kind is not None:
        raise ConfigurationError(f"returned {kind}, so that its code has not run; write a plain function")


def note_task_attribute(error: BaseException) -> None:
    """Add a hint to the error of a handler, a hook or a function that uses an attribute of its own on a task."""
    if isinstance(error, AttributeError) and str(error).startswith("'Task' object has no attribute"):
        error.add_note("task.local is a dict for values of your own")
