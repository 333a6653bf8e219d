"""Atomic files and content keys: what makes every run resumable and no result stale."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).parent
#: Modules that a trained network depends on.
NETWORK = ("masks.py", "model.py", "stack.py", "losses.py", "loop.py", "train.py")


def write_atomically(path: Path, write: Callable[[str], object]) -> Path:
    """Call ``write(temporary path)`` and rename: a reader never sees a partial file, a failed write leaves none.

    `write` makes the file itself, so it gets the mode that the umask gives, as a file that others may read should.

    Raises
    ------
    OSError
        If the disk is full, whatever `write` says then: torch calls it an unexpected position.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{uuid.uuid4().hex}{path.suffix}")
    try:
        write(str(temporary))
        os.replace(temporary, path)
    except RuntimeError as error:
        if shutil.disk_usage(path.parent).free < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text by :func:`write_atomically`, without a change to its ends of lines."""
    return write_atomically(path, lambda temporary: Path(temporary).write_bytes(text.encode()))


def bf16() -> bool:
    """Whether the products of encoders and decoders run in bfloat16: ``ATSDP_BF16=1``, faster and less exact."""
    return os.environ.get("ATSDP_BF16") == "1"


def cuda() -> bool:
    """Whether networks are trained on a GPU. A CPU build of torch is known by its version, without importing it."""
    if os.environ.get("ATSDP_DEVICE", "auto") in ("cpu", "auto") and metadata.version("torch").endswith("+cpu"):
        return False
    from .loop import device

    return device().type == "cuda"


@cache
def code_version(*modules: str) -> str:
    """Hash of the text of modules of this package, such as ``"model.py"``: changed code recomputes what it touches.

    The precision of matrix products and the kind of device are a part of it: no result of one serves for the other.
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        digest.update(module.encode() + b"\0" + (PACKAGE / module).read_bytes())
    return digest.hexdigest()[:12] + ("-bf16" if bf16() else "") + ("-cuda" if cuda() else "")


@cache
def package_version() -> str:
    """Hash of all sources of the package; what outputs are marked with. Needs no git and ignores dates."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def key(*parts: object) -> str:
    """Twenty hex digits over arrays (by content, shape and type) and plain values (by repr)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]
