"""How much memory this process uses."""

import os
import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["used"]

_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UNIT: Final = 1 if sys.platform == "darwin" else 1024


def used() -> int:
    """Bytes of it that are in memory now; where the system does not say so, the most that ever were."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
