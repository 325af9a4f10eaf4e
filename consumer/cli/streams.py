"""The standard streams of the command line, made usable in any state that a shell leaves them in.

This module is imported for ``lifecycle --help``, so it imports little.
"""

import errno
import io
import os
import sys
from typing import Final

__all__ = ["OUTPUT_ERRORS", "discard_output", "prepare_streams"]

OUTPUT_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Numbers of the system's errors that mean: the output could not be written."""


def prepare_streams() -> None:
    """Make the standard streams usable: a closed one leads to nowhere, and no character of a text is an error.

    Without this, the next file that the process opens would get the number of the closed stream, and output would be
    written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number: this one
    for name in "stdout", "stderr":
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 -- open until the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Lead the standard output to nowhere, with all that it still holds: Python flushes it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
