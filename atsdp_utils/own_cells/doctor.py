"""Is everything here that a run needs? One ``[OK]`` or ``[FAIL]`` line a requirement: ``make doctor``."""

import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata

from atsdp_utils.foundation import checksums, paths

FREE_GB = 5.0


def pinned() -> dict[str, str]:
    """Direct requirements and their versions, from ``pyproject.toml``."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    return dict(pin.split("==") for pin in sum(project["optional-dependencies"].values(), project["dependencies"]))


def python() -> Iterator[checksums.Line]:
    """The interpreter, its kernel, room for caches and the book."""
    yield sys.version_info >= (3, 11), "python", f"{sys.version.split()[0]}, needed 3.11 or newer"
    kernel = os.path.join(sys.prefix, "share", "jupyter", "kernels", "python3", "kernel.json")
    yield os.path.exists(kernel), "kernel python3", "in this environment; else: make install"
    paths.BUILD.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(paths.BUILD).free / 1e9
    yield free >= FREE_GB, "free disk", f"{free:.0f} GB, needed {FREE_GB:.0f}"


def threads() -> Iterator[checksums.Line]:
    """One thread a process, which keeps results the same for any JOBS."""
    import torch

    yield torch.get_num_threads() == 1, "torch threads", f"{torch.get_num_threads()}, expected 1; Make sets it"
    yield True, "accelerator", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none, none is needed"


def packages() -> Iterator[checksums.Line]:
    """Every direct requirement at its pinned version (a build tag such as +cpu does not matter)."""
    there = {d.name.lower().replace("_", "-"): d.version.split("+")[0] for d in metadata.distributions()}
    for name, wanted in pinned().items():
        found = there.get(name.lower().replace("_", "-"), "missing")
        yield found == wanted, name, found if found == wanted else f"{found}, expected {wanted}; run: make install"


def main() -> int:
    """Print every line; return 1 if a requirement is not met."""
    failed = 0
    for group in (python, packages, threads, checksums.state):
        try:
            lines = list(group())
        except Exception as error:  # a broken torch or a missing list is itself a finding
            lines = [(False, group.__name__, f"{type(error).__name__}: {error}")]
        failed += checksums.failures(lines)
    print("Ready: make reproduce" if not failed else f"{failed} requirement(s) not met")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
