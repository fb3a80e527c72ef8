"""Sets the wall clock of a Python process wrong, by `SKEW_SECONDS`.

With this folder on `PYTHONPATH` it runs before everything else. Only `time.time` and `time.time_ns`
are wrong: what asks the kernel by itself, as `datetime.now` does, still sees the right time. Clocks
that only measure are left alone.
"""

import os
import time

_SECONDS = float(os.environ["SKEW_SECONDS"])
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _SECONDS
time.time_ns = lambda: _time_ns() + int(_SECONDS * 1e9)
