"""What a training costs: wall time and peak memory of a call, in this process."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """Seconds of wall time; peak of resident memory above the start in megabytes, NaN where it cannot be read."""

    seconds: float
    peak_mb: float


def _resident(field: str) -> float:
    """A field of the process's status (``VmRSS`` now, ``VmHWM`` at the peak), in megabytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(call: Callable[[], object]) -> tuple[object, Cost]:
    """Run `call`; return what it returns and what it cost.

    Peak memory is read from Linux's process table, with freed memory handed back first, so that one model does not
    train in what another left behind. Elsewhere it is NaN.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")  # 5 sets the recorded peak to the present size
        before = _resident("VmRSS")
    except (OSError, AttributeError):
        before = float("nan")
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    peak = _resident("VmHWM") - before if before == before else before
    return result, Cost(seconds, max(peak, 0.0) if peak == peak else peak)
