"""Objects that Huey's chords and raw results use."""

from collections.abc import Mapping
from typing import Final

import attrs

__all__ = ["SKIPPED", "Error"]


@attrs.frozen
class Error:
    """The failure of a task as a value."""

    metadata: Mapping[str, object]
    """`TaskException.metadata`."""


class _Skipped:
    """A task of a group that has not run."""

    def __repr__(self) -> str:
        return "SKIPPED"


SKIPPED: Final = _Skipped()
"""Stands for the value of a task that was revoked or has expired."""
