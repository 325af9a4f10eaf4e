"""Finding what a command line names: a queue, or a table."""

import difflib
import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import Final, TypeVar

from lifecycle.core.table import Lifecycle
from lifecycle.errors import ConfigurationError
from lifecycle.queue import TaskQueue

__all__ = ["load_queue", "load_table"]

T = TypeVar("T")
_LIBRARY: Final = Path(__file__).parents[1]
_STANDARD_MODULES: Final = sys.stdlib_module_names | {"test"}  # a package that the list leaves out


def load_queue(target: str) -> TaskQueue:
    """The queue in ``module:attribute`` (``:queue`` may be left out), seen from the current folder.

    Raises `ConfigurationError` with one line that says what was looked for, and where.
    """
    return _load(target, TaskQueue, "queue", "tasks:queue")


def load_table(target: str) -> Lifecycle:
    """The same for a `Lifecycle`; ``:TABLE`` may be left out.

    If importing the module builds a table that is none, the error's cause is a `FaultyTable`.
    """
    return _load(target, Lifecycle, "TABLE", "module:TABLE")


def _load(target: str, kind: type[T], usual: str, as_in: str) -> T:
    module_name, _, attribute = target.partition(":")
    attribute = attribute or usual
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        what = "queue" if kind is TaskQueue else "table"
        raise ConfigurationError(f"{target!r} does not name a {what}: write module:attribute, as in {as_in}")
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
            raise ConfigurationError(f"there is no module {error.name!r}, neither in {here} nor installed") from None
        raise ConfigurationError(f"{module_name!r} cannot be imported: {_where(error)}") from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{module_name!r} cannot be imported: {_where(error)}") from error
    found: object = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"{module_name!r} has no {attribute!r}{_like(found, name, kind)}")
        found = getattr(found, name)
    if not isinstance(found, kind):
        raise ConfigurationError(
            f"{target} is a {type(found).__name__}, not a {kind.__name__}{_like(module, attribute, kind)}"
        )
    return found


def _end_of_standard_library() -> int:
    """Return the index in `sys.path` after the standard library and before installed packages.

    The current folder goes there. A user's `queue.py` then never replaces Python's, which the library and its
    dependencies import late, too; and a user's `tests.py` is found before an installed one.
    """
    standard = str(Path(os.__file__).parent)
    ends = [end for end, entry in enumerate(sys.path, 1) if entry == standard or Path(entry).name == "lib-dynload"]
    return max(ends, default=0)


def _like(found: object, name: str, kind: type[object]) -> str:
    """What could have been meant: those of the kind that there are, and what is spelt nearly so."""
    others = [other for other, value in vars(found).items() if isinstance(value, kind)]
    near = others or difflib.get_close_matches(name, vars(found), n=1)
    return f"; did you mean {', '.join(near)}?" if near else ""


def _where(error: BaseException) -> str:
    """The error, and the place in the user's code that it comes from."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, SyntaxError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if not Path(frame.filename).is_relative_to(_LIBRARY)]
    last = (ours or frames)[-1]
    return f"{text} ({last.filename}, line {last.lineno})"
