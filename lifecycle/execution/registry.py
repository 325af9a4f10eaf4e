"""The functions and hooks of a queue."""

import logging
from collections.abc import Callable, Container
from inspect import Signature
from typing import Final, TypeVar

import attrs

from lifecycle.errors import ConfigurationError
from lifecycle.execution.callables import Origin, check_call, check_callable, origin_of
from lifecycle.validation import text

__all__ = ["Function", "Hook", "Hooks", "UnknownFunctions", "register"]

log = logging.getLogger("lifecycle.worker")

H = TypeVar("H", bound=Callable[..., object])

_ARGUMENTS: Final = {
    "pre_execute": ("task",), "post_execute": ("task", "value", "exc"), "on_startup": (), "on_shutdown": (),
}  # fmt: skip
"""Kind of hook → the arguments of its call. Hooks of workers have none, and may be `async`."""


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
    origin: Origin
    signature: Signature
    """The parameters as its callers see them: without the task."""
    retries: int = 0
    """The number of retries of its tasks."""


def register(functions: dict[str, Function], new: Function) -> None:
    """Add a function under its name.

    Raises `ConfigurationError` if another function has the name: a call of the one would run the other. The same
    definition after a reload of its module takes the place of the earlier one.
    """
    old = functions.get(new.name)
    if old is not None and not new.origin.replaces(old.origin):
        if old.call != new.call:
            raise ConfigurationError(
                f"name={new.name!r}: used by two functions, {old.origin} and {new.origin}; give one of them another "
                "name with task(name=…), or, if a decorator has made them, use functools.wraps in the decorator"
            )
        if old.context != new.context:
            raise ConfigurationError(f"name={new.name!r}: declared with context=True and without; choose one")
    functions[new.name] = new


@attrs.frozen
class Hook:
    """A registered hook."""

    name: str
    call: Callable[..., object]
    origin: Origin

    def has_name(self, name: str) -> bool:
        """Return whether the hook is meant by a name: its own, or the end of its own after a dot."""
        return f".{self.name}".endswith(f".{name}")


class Hooks:
    """The hooks of a queue around tasks and workers, by kind, in the order of registration."""

    def __init__(self) -> None:
        self.pre_execute: tuple[Hook, ...] = ()
        self.post_execute: tuple[Hook, ...] = ()
        self.on_startup: tuple[Hook, ...] = ()
        self.on_shutdown: tuple[Hook, ...] = ()

    def register(self, kind: str, name: str | None) -> Callable[[H], H]:
        """Return a decorator that adds a hook of that kind.

        The decorator raises `ConfigurationError` for a hook that could not be called, and for a name that is given and
        in use. A hook that is registered already, and one whose module was reloaded, is replaced.

        `name`: default is the hook's module and qualified name, which several hooks may have.
        """
        if name is not None:
            text(name, "name", kind)

        def add(hook: H) -> H:
            of_worker = not _ARGUMENTS[kind]
            check_callable(hook, kind, may_be_async=of_worker, may_enqueue=of_worker)
            check_call(hook, kind, *_ARGUMENTS[kind])
            origin = origin_of(hook)
            new, hooks = Hook(name or origin.path, hook, origin), self._of(kind)
            place = next(
                (n for n, old in enumerate(hooks) if old.call == hook or origin.replaces(old.origin)), len(hooks)
            )
            others = (*hooks[:place], *hooks[place + 1 :])
            if name and (same := [other for other in others if other.name == name]):
                raise ConfigurationError(
                    f"name={name!r}: used by two {kind} hooks, {same[0].origin} and {origin}; give one of them another "
                    f"name, or call unregister_{kind}({name!r}) first"
                )
            # Replaced, not changed: workers may be iterating over the old hooks.
            setattr(self, kind, (*hooks[:place], new, *hooks[place + 1 :]))
            return hook

        return add

    def unregister(self, kind: str, hook: Callable[..., object] | str) -> bool:
        """Remove a hook, given itself or its name; return False if there was no such hook.

        The name may be the last part of the full name. Raises `ConfigurationError` if it is that of several hooks, and
        for an object that is neither a function nor a name.
        """
        hooks = self._of(kind)
        if isinstance(hook, str):
            found = [known for known in hooks if known.name == hook] or [one for one in hooks if one.has_name(hook)]
            if len(found) > 1:
                names = " and ".join(str(known.origin) for known in found)
                raise ConfigurationError(f"{hook!r}: {kind} hooks of this name are {names}; give the function itself")
        elif callable(hook):
            found = [known for known in hooks if known.call == hook]
        else:
            raise ConfigurationError(f"{kind}={hook!r}: must be a hook or its name")
        setattr(self, kind, tuple(known for known in hooks if known not in found))
        return bool(found)

    def _of(self, kind: str) -> tuple[Hook, ...]:
        hooks: tuple[Hook, ...] = getattr(self, kind)
        return hooks


class UnknownFunctions:
    """Names of functions that tasks have asked a process for, and that the process does not know."""

    def __init__(self, known: Callable[[], Container[str]]) -> None:
        """`known`: returns the functions that the process knows now."""
        self._known, self._names = known, frozenset[str]()

    def add(self, name: str) -> None:
        """Add a name, with a warning if it is new: claims leave the tasks of this function alone from now on."""
        if name not in self._names:
            self._names |= {name}
            log.warning("no function is registered here as %r: its tasks wait for a consumer that knows it", name)

    @property
    def skip_names(self) -> frozenset[str]:
        """The names for the next claim: without those that were registered meanwhile."""
        if self._names:  # seldom
            known = self._known()
            self._names = frozenset(name for name in self._names if name not in known)
        return self._names
