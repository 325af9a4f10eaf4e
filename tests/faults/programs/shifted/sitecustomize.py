"""A host whose clock is wrong: in processes that find this on their path the time is off by ``CLOCK_SHIFT`` seconds.

The interpreter imports it by itself, before anything else has a name of the clock's.
"""

import os
import time

shift = float(os.environ.get("CLOCK_SHIFT", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + shift
time.time_ns = lambda: _time_ns() + int(shift * 1e9)
