"""The functions and hooks of a queue."""

from collections.abc import Callable
from typing import TypeVar

import attrs

from lifecycle.core.task import Task

__all__ = ["Function", "Hooks"]

H = TypeVar("H", bound=Callable[..., object])


@attrs.frozen
class Function:
    """A registered function, as a runner calls it."""

    name: str
    call: Callable[..., object]
    context: bool
    """True if the function takes its task as the argument ``task``."""
    is_async: bool
    parameters: tuple[str, ...]
    """The names of its positional parameters as its callers see them, for errors that name an argument."""
    task_position: int | None
    """The position of the task among the positional arguments; ``None``: the task is a keyword argument."""


class Hooks:
    """The hooks of a queue around tasks and workers, by kind and name, in the order of registration."""

    def __init__(self) -> None:
        self.pre_execute: dict[str, Callable[[Task], object]] = {}
        self.post_execute: dict[str, Callable[[Task, object, BaseException | None], object]] = {}
        self.on_startup: dict[str, Callable[[], object]] = {}
        self.on_shutdown: dict[str, Callable[[], object]] = {}

    def register(self, kind: str, name: str | None) -> Callable[[H], H]:
        """Return a decorator that adds a hook of that kind.

        `name`: default is the name of the hook itself. A hook of the same name is replaced.
        """

        def add(hook: H) -> H:
            key = name or getattr(hook, "__qualname__", None) or repr(hook)
            # Replaced, not changed: workers may be iterating over the old dictionary.
            setattr(self, kind, {**getattr(self, kind), key: hook})
            return hook

        return add

    def unregister(self, kind: str, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given itself or its name; return False if there was no such hook."""
        hooks = getattr(self, kind)
        left = {name: known for name, known in hooks.items() if name != hook and known is not hook}
        setattr(self, kind, left)
        return len(left) < len(hooks)
