"""Checks of the arguments of a workflow's tasks: an argument that will certainly be missing is refused at once."""

import inspect
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Final

from lifecycle.core.task import Task
from lifecycle.errors import ConfigurationError
from lifecycle.execution.registry import Function
from lifecycle.workflows.plan import Before

__all__ = ["ArgumentCheck"]

_NO_CLASSES: Final = (inspect.Signature.empty, UnionType, typing.Annotated, typing.Any)
"""Annotations that are no class of the value, although they are classes."""
_ONE: Final = (object(),)
"""Stands for the value that a task will get."""


class ArgumentCheck:
    """Checks the tasks of one workflow, one after the other."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        """`functions`: those of the queue. Of a function that is not among them nothing is known."""
        self._functions = functions
        self._passed: dict[str, int | None] = {}
        """Function → number of positional arguments that its value adds; ``None``: not known."""

    def __call__(self, task: Task, before: Before, where: str) -> None:
        """Check a task. Raises `ConfigurationError`, which names the task's place, its function and the argument.

        `before`: what comes before the task; `where`: the task's place.
        """
        function = self._functions.get(task.name)
        if function is None:
            return
        passed = self._number_passed(before)
        if passed == 0 and task.place is not None and not task.place.is_partial:
            return  # checked by `s`
        bind = function.signature.bind_partial if passed is None else function.signature.bind
        args, kwargs = task.args, task.kwargs
        try:
            bind(*args, *_ONE[: passed or 0], **kwargs)
        except TypeError as error:
            gets = {
                None: "the value of the step before, of which nothing is known",
                0: "nothing more from other tasks",
                1: "one more positional argument from other tasks",
            }[passed]
            raise ConfigurationError(f"{where or task}: {task.name}(): {error}; the task gets {gets}") from None

    def _number_passed(self, before: Before) -> int | None:
        """Return how many positional arguments a task gets from those before it; ``None``: not known."""
        if before.on_failure or isinstance(before.inputs, list):
            return 1
        if before.values_of is None:
            return 0
        name = before.values_of.name
        if name not in self._passed:
            function = self._functions.get(name)
            self._passed[name] = None if function is None else _number_of_values(function)
        return self._passed[name]


def _number_of_values(function: Function) -> int | None:
    """Return how many positional arguments a function's value adds, by its annotation; ``None``: not known."""
    try:
        annotation = inspect.signature(function.call, eval_str=True).return_annotation
    except Exception:  # noqa: BLE001 -- evaluating an annotation may raise anything
        return None
    if annotation is None or annotation is NoneType:
        return 0
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in _NO_CLASSES:
        return None
    try:  # also an abstract class may be one of a tuple: Sequence, say
        if any(issubclass(special, kind) or issubclass(kind, special) for special in (tuple, dict, NoneType)):
            return None
    except TypeError:  # a protocol that cannot be asked
        return None
    return 1
