"""SHA-256 of the embedded files, checked before anything is read.

``python -m atsdp_utils.foundation.checksums`` checks every file; ``... write`` records them after a deliberate change.
"""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path

from atsdp_utils.foundation import paths

REGISTER = paths.DATA / "checksums.json"
#: What belongs to the embedded data; scripts and prose do not.
SUFFIXES = {".csv", ".gz", ".h5ad", ".npz", ".toml"}


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
    if not path.exists():
        raise FileNotFoundError(f"{path}: missing from the checkout. Restore it: git checkout -- data/{name}")
    if name not in register():
        raise KeyError(
            f"data/{name}: not in {REGISTER.name}. Record it: python -m atsdp_utils.foundation.checksums write"
        )
    found, expected = sha256(path), register()[name]
    if found != expected:
        raise ValueError(
            f"data/{name}: SHA-256 is {found[:12]}…, expected {expected[:12]}…. Restore it: git checkout -- data/{name}"
        )
    return path


def embedded() -> list[Path]:
    """Every data file under ``data/``."""
    return sorted(p for p in paths.DATA.rglob("*") if p.is_file() and p.suffix in SUFFIXES)


def write() -> None:
    """Record the SHA-256 of every embedded file as it is now."""
    found = {path.relative_to(paths.DATA).as_posix(): sha256(path) for path in embedded()}
    REGISTER.write_text(json.dumps(found, indent=2) + "\n")


def main(argv: list[str]) -> int:
    """Command line; returns 0 when every registered file is there and as recorded."""
    if argv == ["write"]:
        write()
        return 0
    failed = 0
    for name in register():
        try:
            print(f"[OK] data/{verify(paths.DATA / name).relative_to(paths.DATA)}")
        except (OSError, ValueError) as error:
            failed += 1
            print(f"[FAIL] {error}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
