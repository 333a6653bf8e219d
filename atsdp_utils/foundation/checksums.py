"""SHA-256 of the embedded files, checked before anything is read.

``python -m atsdp_utils.foundation.checksums`` checks every file; ``... write`` records them after a deliberate change.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from atsdp_utils.foundation import paths

REGISTER = paths.DATA / "checksums.json"
#: What belongs to the embedded data; scripts and prose do not.
SUFFIXES = {".csv", ".gz", ".h5ad", ".npz", ".toml"}
#: Whether something holds, its name, what is said of it.
Line = tuple[bool, str, str]


class DataError(ValueError):
    """A file of ``data/`` is missing, changed or not recorded: the checkout is at fault, no input."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@cache
def register() -> dict[str, str]:
    """File name (relative to ``data/``) to SHA-256."""
    return json.loads(REGISTER.read_text())


@cache
def verify(path: Path) -> Path:
    """Return `path` if its content is what ``data/checksums.json`` says, else raise; a file is read once a process."""
    name = path.relative_to(paths.DATA).as_posix()
    restore = f"Restore it: git checkout -- data/{name}"
    if not path.exists():
        raise DataError(f"{path}: missing from the checkout. {restore}")
    if name not in register():
        raise DataError(
            f"data/{name}: not in {REGISTER.name}. Record it: python -m atsdp_utils.foundation.checksums write"
        )
    found, expected = sha256(path), register()[name]
    if found != expected:
        raise DataError(f"data/{name}: SHA-256 is {found[:12]}…, expected {expected[:12]}…. {restore}")
    return path


def table(name: str, **options):
    """An embedded table by its place under ``data/``, verified; `options` are those of :func:`pandas.read_csv`."""
    import pandas as pd

    return pd.read_csv(verify(paths.DATA / name), **options)


def embedded() -> list[Path]:
    """Every data file under ``data/``."""
    return sorted(p for p in paths.DATA.rglob("*") if p.is_file() and p.suffix in SUFFIXES)


def state() -> Iterator[Line]:
    """Whether each registered file is there and as recorded."""
    for name in register():
        try:
            verify(paths.DATA / name)
            yield True, f"data/{name}", "as recorded"
        except (OSError, DataError) as error:
            yield False, f"data/{name}", str(error)


def failures(lines: Iterable[Line]) -> int:
    """Print lines of what was checked; how many do not hold."""
    failed = 0
    for right, name, said in lines:
        failed += not right
        print(f"{'[OK]  ' if right else '[FAIL]'} {name:<40} {said}")
    return failed


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        found = {path.relative_to(paths.DATA).as_posix(): sha256(path) for path in embedded()}
        REGISTER.write_text(json.dumps(found, indent=2) + "\n")
    else:
        sys.exit(failures(state()) > 0)
