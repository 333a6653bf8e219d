"""Where and how exactly numbers are computed: device, precision and threads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from atsdp_utils.foundation.cache import version

if TYPE_CHECKING:
    import torch


def device() -> torch.device:
    """``ATSDP_DEVICE`` (``cpu``, ``cuda``), else CUDA where there is one."""
    import torch

    name, there = os.environ.get("ATSDP_DEVICE", "auto"), torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not there):
        found = "is" if there else "is not"
        raise ValueError(f"ATSDP_DEVICE: got {name!r}, expected auto, cpu or cuda; CUDA {found} available here")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def bf16() -> bool:
    """Whether the products of encoders and decoders run in bfloat16: ``ATSDP_BF16=1``, faster and less exact."""
    return os.environ.get("ATSDP_BF16") == "1"


def cuda() -> bool:
    """Whether networks are trained on a GPU. A CPU build of torch is known by its version, without importing it."""
    if os.environ.get("ATSDP_DEVICE", "auto") in ("cpu", "auto") and version("torch").endswith("+cpu"):
        return False
    return device().type == "cuda"


def precision() -> str:
    """What decides how sums are rounded: precision of products, kind of device, what MKL and oneDNN are held to."""
    held = (os.environ.get(name, "auto") for name in ("MKL_CBWR", "ONEDNN_MAX_CPU_ISA"))
    return "-".join(("bf16" if bf16() else "float32", "cuda" if cuda() else "cpu", *held))


def one_thread() -> None:
    """One thread a worker: workers do not compete, and sums have one order."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    import torch

    torch.set_num_threads(1)
