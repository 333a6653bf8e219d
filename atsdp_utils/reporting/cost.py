"""What a training costs: wall time and peak memory of a call, in this process."""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path


def _resident(field: str) -> float:
    """Megabytes of this process, from Linux: ``VmRSS`` now, ``VmHWM`` at the peak."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def measure(call: Callable[[], object]) -> tuple[object, tuple[float, float]]:
    """What `call` returns, its seconds, and by how many megabytes resident memory rose, NaN where that cannot be read.

    Freed memory is handed back first, so that models do not share it.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the recorded peak to the present size
        before = _resident("VmRSS")
    except (OSError, AttributeError):
        before = None
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    return result, (seconds, float("nan") if before is None else max(_resident("VmHWM") - before, 0.0))
