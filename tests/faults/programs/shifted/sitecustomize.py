"""Wrong clock: in each process with this module on its path the time is off by ``CLOCK_SHIFT`` seconds.

The interpreter imports this module by itself, before any other module imports the clock.
"""

import os
import time

shift = float(os.environ.get("CLOCK_SHIFT", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + shift
time.time_ns = lambda: _time_ns() + int(shift * 1e9)
