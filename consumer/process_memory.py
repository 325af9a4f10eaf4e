"""The memory of this process."""

import os
import resource
import sys
from pathlib import Path
from typing import Final

__all__ = ["resident_bytes"]

_STATM: Final = Path("/proc/self/statm")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_MAXRSS_BYTES: Final = 1 if sys.platform == "darwin" else 1024


def resident_bytes() -> int:
    """Return the bytes that are in memory now; where the system does not say so, the most that ever were."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_BYTES
