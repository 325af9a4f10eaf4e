"""Finding the queue or the table that a command line names."""

import difflib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from lifecycle.consumer.import_errors import ImportFailed
from lifecycle.core.table import Lifecycle
from lifecycle.errors import ConfigurationError
from lifecycle.wrapping import unwrapped

if TYPE_CHECKING:
    from lifecycle.function import TaskFunction
    from lifecycle.queue import TaskQueue

__all__ = ["load_function", "load_queue", "load_table"]

T = TypeVar("T")
_LIBRARY: Final = Path(__file__).parents[1]
_STANDARD_MODULES: Final = sys.stdlib_module_names | {"test"}  # a package that the list leaves out


def load_queue(target: str) -> "TaskQueue":
    """Return the queue that ``module:attribute`` names; the default attribute is ``queue``.

    The module is looked for in the current folder, then among installed packages. Raises `ConfigurationError` with one
    line that says which name is wrong, and where it was looked for.
    """
    from lifecycle.queue import TaskQueue

    return _load(target, TaskQueue, "queue", "queue", "tasks:queue")


def load_function(target: str) -> "TaskFunction[..., object]":
    """Return the task function that ``module:attribute`` names. Raises `ConfigurationError`, as `load_queue` does."""
    from lifecycle.function import TaskFunction

    return _load(target, TaskFunction, "task function", "", "tasks:add")


def load_table(target: str) -> Lifecycle:
    """Return the `Lifecycle` that ``module:attribute`` names; the default attribute is ``TABLE``.

    Raises `ConfigurationError`, as `load_queue` does. Its cause is a `FaultyTable` if the module builds a faulty table.
    """
    return _load(target, Lifecycle, "table", "TABLE", "module:TABLE")


def _load(target: str, kind: type[T], noun: str, default: str, example: str) -> T:
    module_name, _, attribute = target.partition(":")
    attribute = attribute or default
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        hint = _module_hint(module_name, target) or f": write module:attribute, as in {example}"
        raise ConfigurationError(f"{target!r} does not name a {noun}{hint}")
    package = module_name.partition(".")[0]
    if package in _STANDARD_MODULES:
        raise ConfigurationError(f"{package!r} is a module of Python's standard library: give yours another name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(_end_of_standard_library(), here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            hint = _module_hint(module_name, target) or _attribute_hint(module_name, kind)
            raise ConfigurationError(
                f"there is no module {error.name!r}, neither in {here} nor installed{hint}"
            ) from None
        raise ImportFailed(f"{module_name!r} cannot be imported: {_error_with_place(error)}") from error
    except (Exception, SystemExit) as error:
        raise ImportFailed(f"{module_name!r} cannot be imported: {_error_with_place(error)}") from error
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"{module_name!r} has no {attribute!r}{_suggestion(found, name, kind)}")
        found = getattr(found, name)
    found = unwrapped(found)
    if not isinstance(found, kind):
        raise ConfigurationError(
            f"{target} is a {type(found).__name__}, not a {kind.__name__}{_suggestion(module, attribute, kind)}"
        )
    return found


def _module_hint(module_name: str, target: str) -> str:
    """Return a hint at the module for a text that is a file, such as ``app/tasks.py``; else an empty text."""
    parts = Path(module_name.removesuffix(".py")).parts
    meant = ".".join(parts)
    if meant == module_name or not parts or not all(part.isidentifier() for part in parts):
        return ""
    return f"; did you mean {meant}{target.removeprefix(module_name)}?"


def _attribute_hint(module_name: str, kind: type[object]) -> str:
    """Return a hint at an attribute of that kind, for ``tasks.queue`` in place of ``tasks:queue``."""
    parent, _, name = module_name.rpartition(".")
    found = vars(sys.modules[parent]) if parent in sys.modules else {}
    known = [other for other, value in found.items() if isinstance(unwrapped(value), kind)]
    names = [name] if name in known else known
    return f"; did you mean {' or '.join(f'{parent}:{name}' for name in names)}?" if names else ""


def _end_of_standard_library() -> int:
    """Return the index in `sys.path` after the standard library and before installed packages.

    The current folder goes there. A user's `queue.py` then never replaces Python's, which the library and its
    dependencies import late, too; and a user's `tests.py` is found before an installed one.
    """
    standard = str(Path(os.__file__).parent)
    ends = [end for end, entry in enumerate(sys.path, 1) if entry == standard or Path(entry).name == "lib-dynload"]
    return max(ends, default=0)


def _suggestion(found: object, name: str, kind: type[object]) -> str:
    """Return a hint at attributes of that kind or, if there is none, at an attribute with a similar name."""
    same_kind = [other for other, value in vars(found).items() if isinstance(unwrapped(value), kind)]
    near = same_kind or difflib.get_close_matches(name, vars(found), n=1)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _error_with_place(error: BaseException) -> str:
    """Return the error on one line, with the file and line of the user's code that raised it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not Path(frame.filename).is_relative_to(_LIBRARY)]
    last = (users or frames)[-1]
    return f"{text} ({last.filename}, line {last.lineno})"
