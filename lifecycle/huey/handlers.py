"""The part of `Huey` that registers signal handlers and hooks: they get tasks with Huey's names."""

from collections.abc import Callable
from functools import wraps
from typing import Final, TypeVar

from lifecycle.core.task import Task as CoreTask
from lifecycle.errors import CancelExecution
from lifecycle.execution.callables import check_callable, own_signature
from lifecycle.huey import signals as hueys
from lifecycle.huey.base import HueyBase
from lifecycle.huey.tasks import view

__all__ = ["Handlers"]

F = TypeVar("F", bound=Callable[..., object])

HUEYS_SIGNALS: Final = tuple(getattr(hueys, name) for name in hueys.__all__)
"""The signals that Huey has, too."""

_CANCELED_BY_HOOK: Final = "lifecycle.huey: canceled by a hook"
"""Key in `Task.local`."""


class Handlers(HueyBase):
    """Base class of `Huey`: signals and hooks."""

    _wrappers: dict[Callable[..., object], Callable[..., object]]
    """Handlers and hooks of the program → those that the queue calls."""

    def signal(self, *signals: str) -> Callable[[F], F]:
        """Return a decorator that connects a handler to these signals, or to all that Huey has if none is named."""
        connect = self.queue.signal(*(signals or HUEYS_SIGNALS))

        def decorate(handler: F) -> F:
            def handle(signal: str, task: CoreTask, *error: object) -> object:
                return handler(signal, view(self, task), *error)

            connect(self._wrapper("signal handler", handler, handle))
            return handler

        return decorate

    def disconnect_signal(self, receiver: Callable[..., object], *signals: str) -> None:
        """Disconnect a handler from these signals, or from all signals if none is named."""
        self.queue.disconnect_signal(self._wrappers.get(receiver, receiver), *signals)

    def pre_execute(self, name: str | None = None) -> Callable[[F], F]:
        """Return a decorator that registers ``hook(task)``, called before each task; see `TaskQueue.pre_execute`."""
        register = self.queue.pre_execute(name)

        def decorate(hook: F) -> F:
            def call(task: CoreTask) -> object:
                try:
                    return hook(view(self, task))
                except CancelExecution:
                    task.local[_CANCELED_BY_HOOK] = True
                    raise

            register(self._wrapper("pre_execute", hook, call))
            return hook

        return decorate

    def post_execute(self, name: str | None = None) -> Callable[[F], F]:
        """Return a decorator that registers ``hook(task, value, exc)``, called after each task.

        Not called after a task that a hook has canceled. See `TaskQueue.post_execute`.
        """
        register = self.queue.post_execute(name)

        def decorate(hook: F) -> F:
            def call(task: CoreTask, value: object, exc: BaseException | None) -> object:
                return None if _CANCELED_BY_HOOK in task.local else hook(view(self, task), value, exc)

            register(self._wrapper("post_execute", hook, call))
            return hook

        return decorate

    def on_startup(self, name: str | None = None) -> Callable[[F], F]:
        """Return a decorator that registers ``hook()``, called in each worker before its first task."""
        return self.queue.on_startup(name)

    def on_shutdown(self, name: str | None = None) -> Callable[[F], F]:
        """Return a decorator that registers ``hook()``, called in each worker after its last task."""
        return self.queue.on_shutdown(name)

    def unregister_pre_execute(self, name: Callable[..., object] | str) -> bool:
        """Remove a hook, given as itself or its name; return False if it is not registered."""
        return self.queue.unregister_pre_execute(self._wrapped(name))

    def unregister_post_execute(self, name: Callable[..., object] | str) -> bool:
        """Remove a hook, given as itself or its name; return False if it is not registered."""
        return self.queue.unregister_post_execute(self._wrapped(name))

    def unregister_on_startup(self, name: Callable[..., object] | str) -> bool:
        """Remove a hook, given as itself or its name; return False if it is not registered."""
        return self.queue.unregister_on_startup(name)

    def unregister_on_shutdown(self, name: Callable[..., object] | str) -> bool:
        """Remove a hook, given as itself or its name; return False if it is not registered."""
        return self.queue.unregister_on_shutdown(name)

    def _wrapper(self, role: str, own: Callable[..., object], call: Callable[..., object]) -> Callable[..., object]:
        """Return the callable that the queue calls in place of a handler or hook, with the origin of that one."""
        check_callable(own, role)
        known = self._wrappers.get(own)
        if known is None:
            known = self._wrappers[own] = wraps(own)(call)
            known.__signature__ = own_signature(own).replace()  # type: ignore[attr-defined]  # the queue checks it
        return known

    def _wrapped(self, hook: Callable[..., object] | str) -> Callable[..., object] | str:
        return hook if isinstance(hook, str) else self._wrappers.get(hook, hook)
