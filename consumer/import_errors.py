"""Errors of the modules of users, shown without the frames of this library and of Python's import system."""

import traceback
from pathlib import Path
from types import TracebackType
from typing import Final

from lifecycle.errors import ConfigurationError

__all__ = ["ImportFailed", "users_traceback"]

_LIBRARY: Final = Path(__file__).parents[1]


class ImportFailed(ConfigurationError):
    """A module of the user that cannot be imported: its code has raised the exception that is the cause of this one."""


def users_traceback(error: BaseException) -> list[str]:
    """Return the lines of an error's traceback from the user's first frame on, as `traceback.format_exception` does."""
    frames = error.__traceback__
    while frames is not None and not _is_users(frames):
        frames = frames.tb_next
    return traceback.format_exception(type(error), error, frames)


def _is_users(frames: TracebackType) -> bool:
    file = frames.tb_frame.f_code.co_filename
    of_python = file.startswith("<frozen importlib") or Path(file).parent.name == "importlib"
    return not of_python and not Path(file).is_relative_to(_LIBRARY)
