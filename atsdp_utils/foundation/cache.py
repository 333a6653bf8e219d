"""Atomic files and content keys: what makes every run resumable and no result stale."""

import errno
import hashlib
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import numpy as np

from atsdp_utils.foundation import checksums, closure

T = TypeVar("T")
#: Whose versions every key holds: what they compute ends up in cached numbers.
LIBRARIES = (
    "torch", "numpy", "scipy", "scikit-learn", "imbalanced-learn", "pandas", "igraph", "anndata", "scanpy", "mousipy",
)  # fmt: skip
#: Loaders whose values stand in keys themselves (:func:`gdsc.bulk_key`), so that their code need not.
READ_BY_VALUE = ("data.gdsc._expression", "data.gdsc.label_table", "data.gdsc.LABEL_FILE")


def write_atomically(path: Path, write: Callable[[str], object]) -> Path:
    """Call ``write(temporary path)`` and rename: a reader never sees a partial file, a failed write leaves none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".part-{uuid.uuid4().hex}{path.suffix}")
    try:
        write(str(temporary))
        os.replace(temporary, path)
    except RuntimeError as error:  # what torch says of a full disk: an unexpected position
        if shutil.disk_usage(path.parent).free < 2**20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def kept(path: Path, read: Callable[[Path], T], write: Callable[[str], object]) -> T:
    """Read a cached file; if it is absent or damaged, it is written (atomically) first.

    Parameters
    ----------
    path : Path
        The file. Its name is to hold a key of all that its content depends on.
    read : callable
        Gives the content of the file at a path. ``FileNotFoundError`` means absent; any other error means damaged, and
        there is a warning.
    write : callable
        Computes the content and writes it to the temporary path (a str) that it is given.
    """
    try:
        return read(path)
    except FileNotFoundError:
        pass
    except Exception as error:  # a full disk, a flipped bit
        warnings.warn(f"{path}: unreadable ({error}); computing it again", stacklevel=2)
    write_atomically(path, write)
    return read(path)


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text atomically, without a change to its ends of lines."""
    return write_atomically(path, lambda temporary: Path(temporary).write_bytes(text.encode()))


version = cache(metadata.version)  # which reads the description of a package, a millisecond each time


@cache
def code(*roots: str, cut: tuple[str, ...] = ()) -> str:
    """Hash of the code that `roots` reach (:func:`closure.closure`), the data files named in it, and the libraries.

    A changed comment, docstring or module that they do not reach changes nothing. Values of settings are not in it.
    """
    texts = sorted(closure.closure(roots, (*READ_BY_VALUE, *cut)).items())
    quoted = re.findall(r"['\"]([^'\"\s]+\.(?:gz|npz|h5ad|csv|toml))['\"]", "\n".join(text for _, text in texts))
    # also by a pattern such as ``*.gmt.gz``
    files = sorted((f, sha) for f, sha in checksums.register().items() if any(fnmatch(f, name) for name in quoted))
    return key([f"{name} {version(name)}" for name in LIBRARIES], texts, files)


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
