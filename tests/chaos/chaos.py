"""Kill, starve and confuse tiny runs; each must end with the tables of an uninterrupted one, byte for byte.

``python tests/chaos/chaos.py --kills 50`` (in the environment of ``make install``) prints one line a case and ends with
status 1 if any failed. Bounded: no run of a program lasts longer than ``--limit`` seconds, and everything happens in a
temporary folder. Two vehicles: ``grid`` (a script that runs a few trainings with two workers) and ``make`` (Make,
papermill, kernel and workers, in a copy of the repository under another path, on one notebook).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import nbformat
import psutil

ROOT = Path(__file__).resolve().parents[2]
#: What both vehicles run: a few trainings of every kind, and a table that holds every digit of their predictions.
CODE = """
import hashlib
import pandas as pd
from atsdp_utils.experiments import grid
from atsdp_utils.foundation import cache, paths
from atsdp_utils.experiments.task import ATSDP, NO_TRANSFER, Task
NAME = "SCC47-afatinib"
tasks = [Task(NAME, "U", ATSDP, "smoke", seed=s) for s in range(3)]
tasks += [Task(NAME, "S", m, "smoke", folds=2, repeat=r)
          for m in (NO_TRANSFER, "Logistic", "CNN") for r in range(2)]
results = grid.run(tasks, jobs=JOBS, label="chaos")
rows = [(t.protocol, t.model, t.seed, t.repeat, float(r.p.mean()), hashlib.sha256(r.p.tobytes()).hexdigest())
        for t, r in zip(tasks, results)]
table = pd.DataFrame(rows, columns=["protocol", "model", "seed", "repeat", "mean_p", "sha256"])
cache.write_text(paths.FIGURES / "chaos.csv", table.to_csv(index=False))
"""
Command = list[str]
#: What the Makefile tells libraries of the processor: without it a run outside Make may have other last digits.
HELD = ("OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES", "MKL_CBWR")


def exported(environment: dict[str, str]) -> dict[str, str]:
    """The environment that Make gives its commands, from its own."""
    show = ["make", "-s", "--eval", "show:; @env", "show"]
    shown = subprocess.run(show, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(line.partition("=")[::2] for line in shown.splitlines())


@cache
def held() -> dict[str, str]:
    """The variables of :data:`HELD` as Make exports them."""
    return {name: value for name, value in exported(dict(os.environ)).items() if name in HELD}


class Failure(Exception):
    """A promise was broken."""


class Vehicle:
    """A program that writes ``chaos.csv``, and where it keeps its files."""

    name = "grid"

    def __init__(self, folder: Path, build: Path | None = None, jobs: int = 2) -> None:
        self.build, self.figures = build or folder / "build", folder / "figures"
        self.cwd, self.jobs, self.extra = ROOT, jobs, {}
        self.figures.mkdir(parents=True, exist_ok=True)

    @property
    def command(self) -> Command:
        """What is run."""
        return [sys.executable, "-c", f"JOBS = {self.jobs}\nif __name__ == '__main__':\n    exec({CODE!r})"]

    @property
    def surroundings(self) -> dict[str, str]:
        """Its environment."""
        own = {"ATSDP_BUILD": str(self.build), "ATSDP_FIGURES": str(self.figures), "ATSDP_LOG": os.devnull}
        one = {f"{x}_NUM_THREADS": "1" for x in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
        kept = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")}
        return {**kept, **one, **held(), **own, **self.extra}

    def start(self) -> psutil.Popen:
        """Start it in a process group of its own."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        return psutil.Popen(self.command, cwd=self.cwd, env=self.surroundings, start_new_session=True, **options)

    def finish(self, limit: float) -> None:
        """Run it to its end."""
        process = self.start()
        try:
            out, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failure(f"{self.name}: not finished after {limit:.0f} s") from None
        if process.returncode:
            raise Failure(f"{self.name}: status {process.returncode}: {out.strip()[-300:]}")

    @property
    def table(self) -> Path:
        """The result that must not depend on anything."""
        return self.figures / "chaos.csv"

    def forget(self, *, keep: tuple[str, ...] = ()) -> None:
        """Remove what a run leaves, but for the folders `keep` of its cache."""
        self.table.unlink(missing_ok=True)
        for folder in (self.build / "cache").glob("*"):
            if folder.name not in keep:
                shutil.rmtree(folder)

    def partial(self) -> list[str]:
        """Names of unfinished files that are in the way of a reader."""
        whole = {".npz", ".npy", ".pt", ".csv", ".h5ad"}
        files = [p for d in (self.build, self.figures) for p in d.rglob("*") if p.is_file() and p.suffix in whole]
        return [p.name for p in files if p.stat().st_size == 0 and not p.name.startswith(".part-")]


class Checkout(Vehicle):
    """Make in a copy of the repository, with one notebook, under another path."""

    name = "make"

    def __init__(self, folder: Path, jobs: int = 2) -> None:
        root = folder / "checkout"
        root.mkdir(parents=True)
        for item in ("Makefile", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / item, root)
        for item in ("atsdp_utils", "data", "book"):
            shutil.copytree(ROOT / item, root / item, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "notebooks").mkdir()
        cells = [("parameters", 'DATA = "embedded"\nPROFILE = "smoke"\nJOBS = 2\nBACKEND = "loky"'), ("work", CODE)]
        made = [nbformat.v4.new_code_cell(source, id=name, metadata={"tags": [name]}) for name, source in cells]
        kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), root / "notebooks" / "01_chaos.ipynb")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
        (packages,) = (root / ".venv" / "lib").glob("python*/site-packages")
        installed = next(p for p in sys.path if p.endswith("site-packages"))
        (packages / "copy.pth").write_text(f"{root}\n{installed}\n")  # this copy first, then what is installed
        super().__init__(root, root / "build", jobs)
        self.cwd = root

    @property
    def command(self) -> Command:
        """The notebook's target under the lock, as ``make reproduce`` does."""
        target = self.build / "embedded-smoke" / "notebooks" / "01_chaos.ipynb"
        make = ["make", str(target), "PROFILE=smoke", f"JOBS={self.jobs}", "INSTALLED="]
        return [sys.executable, "book/lock.py", str(self.build / ".lock"), *make]

    def forget(self, *, keep: tuple[str, ...] = ()) -> None:
        """Also remove the executed notebook."""
        super().forget(keep=keep)
        shutil.rmtree(self.build / "embedded-smoke", ignore_errors=True)


# --- killing ----------------------------------------------------------------------------------------------------------


def family(process: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Living processes of a run by what they are."""
    marks = {"worker": "popen_loky", "kernel": "ipykernel_launcher", "papermill": "book.build"}
    found: dict[str, list[psutil.Process]] = {"run": [process]}
    for child in process.children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        kind = next((k for k, mark in marks.items() if mark in line), None)
        if kind:
            found.setdefault(kind, []).append(child)
    return found


def orphans(build: Path, seconds: float = 20) -> list[int]:
    """Workers and kernels of a killed run that are still there after `seconds`."""

    def left() -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or [])
            if "popen_loky" in line or "ipykernel_launcher" in line:
                try:
                    if process.environ().get("ATSDP_BUILD") == str(build):
                        found.append(process.pid)
                except psutil.Error:
                    continue
        return found

    until = time.monotonic() + seconds
    while left() and time.monotonic() < until:
        time.sleep(0.3)
    return left()


def kill_once(vehicle: Vehicle, rng: random.Random, delay: float, limit: float) -> tuple[str, bool]:
    """Start a run and kill a random one of its processes after `delay`; what was killed, and whether the run ended."""
    process = vehicle.start()
    try:
        process.wait(delay)
    except psutil.TimeoutExpired:
        kin = family(process)
        kind = rng.choice([*kin, "all"])
        try:
            if kind == "all":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                rng.choice(kin[kind]).kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            kind = "nothing (it was faster)"
    else:
        kind = "nothing (it was faster)"
    try:
        process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Failure(f"{vehicle.name}: hangs after {kind} was killed") from None
    if kind in ("run", "all"):
        left = orphans(vehicle.build)
        if left and vehicle.name == "grid":
            raise Failure(f"{len(left)} workers outlive their killed parent")
    return kind, process.returncode == 0


def same(vehicle: Vehicle, reference: bytes) -> None:
    """Compare the table with the reference."""
    if not vehicle.table.exists():
        raise Failure("no table")
    if vehicle.table.read_bytes() != reference:
        raise Failure("the table differs from that of an uninterrupted run")
    if vehicle.partial():
        raise Failure(f"partial files are left: {vehicle.partial()[:3]}")


def random_kills(vehicle: Vehicle, reference: bytes, kills: int, span: float, seed: int, limit: float) -> str:
    """Kill runs at random moments, going on each time; whenever one ends, compare it and start from nothing."""
    rng, counts, ended = random.Random(seed), {}, 0
    vehicle.forget(keep=("datasets",))
    while sum(n for k, n in counts.items() if not k.startswith("nothing")) < kills:
        kind, done = kill_once(vehicle, rng, rng.uniform(0.1, span), limit)
        counts[kind] = counts.get(kind, 0) + 1
        if done:
            same(vehicle, reference)
            ended += 1
            vehicle.forget(keep=("datasets",))
    vehicle.finish(limit)
    same(vehicle, reference)
    killed = ", ".join(f"{n} x {k}" for k, n in sorted(counts.items()))
    return f"{killed}; {ended + 1} finished runs equal the reference"


# --- other cases ------------------------------------------------------------------------------------------------------


def damaged_cache(vehicle: Vehicle, reference: bytes, seed: int, limit: float) -> str:
    """Cut half of the cached files short and flip a byte in the others; the next run repairs all that it needs."""
    rng = random.Random(seed)
    vehicle.table.unlink(missing_ok=True)
    shutil.rmtree(vehicle.build / "embedded-smoke", ignore_errors=True)
    files = sorted(p for p in (vehicle.build / "cache").rglob("*") if p.suffix in (".npz", ".pt"))
    for i, path in enumerate(files):
        content = bytearray(path.read_bytes())
        if i % 2:
            content = content[: rng.randrange(len(content))]
        else:
            content[rng.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)
    vehicle.finish(limit)
    same(vehicle, reference)
    return f"{len(files)} files damaged, table as before"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of `size` at `folder` (root only); yields a function that changes its size."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield lambda n: subprocess.run(["mount", "-o", f"remount,size={n}", folder], check=True)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def disk_full(folder: Path, reference: bytes, limit: float) -> str:
    """A disk that fills up ends the run with a message; with room again it goes on to the same table."""
    if os.geteuid() or sys.platform != "linux":
        return "SKIPPED: a small file system needs root on Linux"
    try:
        with small_disk(folder / "disk", "2500k") as resize:
            vehicle = Vehicle(folder, folder / "disk" / "build")
            try:
                vehicle.finish(limit)
            except Failure as error:
                if "No space left" not in str(error):
                    raise Failure(f"a full disk ends with another message: {error}") from None
            else:
                raise Failure("the disk was not too small")
            if vehicle.partial():
                raise Failure(f"partial files are left: {vehicle.partial()[:3]}")
            resize("400m")
            vehicle.finish(limit)
            same(vehicle, reference)
    except subprocess.CalledProcessError as error:
        return f"SKIPPED: no small file system can be mounted here ({error.stderr!r:.80})"
    return "stopped with 'No space left on device', nothing partial, finished with more room"


def two_at_once(vehicle: Vehicle, reference: bytes, limit: float) -> str:
    """Two runs in one checkout: the second waits, finds everything done, and both end well."""
    vehicle.forget(keep=("datasets",))
    both = [vehicle.start() for _ in range(2)]
    outputs = [p.communicate(timeout=limit)[0] for p in both]
    if any(p.returncode for p in both):
        raise Failure(f"status {[p.returncode for p in both]}: {' '.join(outputs)[-300:]}")
    waited, ran = sum("waiting for it to end" in o for o in outputs), sum("01_chaos  " in o for o in outputs)
    if (waited, ran) != (1, 1):
        raise Failure(f"{waited} waited, {ran} ran the notebook; expected one each")
    same(vehicle, reference)
    return "one waited, one ran"


def clock_jump(vehicle: Vehicle, reference: bytes, limit: float) -> str:
    """Files dated two days ahead or thirty years back; a run still ends with the same table."""
    vehicle.table.unlink(missing_ok=True)
    shutil.rmtree(vehicle.build / "embedded-smoke" / "notebooks", ignore_errors=True)
    for shift in (2 * 86400, -30 * 365 * 86400):
        for path in vehicle.cwd.rglob("*"):
            if ".venv" not in path.parts and path.is_file():
                os.utime(path, (time.time() + shift,) * 2)
        shutil.rmtree(vehicle.build / "embedded-smoke" / "notebooks", ignore_errors=True)
        vehicle.finish(limit)
        same(vehicle, reference)
    return "dates ahead and back, table as before"


# --- the command ------------------------------------------------------------------------------------------------------


def case(name: str, work: Callable[[], str]) -> bool:
    """Run one case and print its line."""
    started = time.monotonic()
    try:
        right, said = True, work()
    except Failure as failure:
        right, said = False, str(failure)
    mark = "SKIP" if said.startswith("SKIPPED") else "OK" if right else "FAIL"
    print(f"[{mark:<4}] {name:<34} {time.monotonic() - started:6.0f} s  {said}", flush=True)
    return right


def main() -> int:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="random kills, half of them under make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=600, help="seconds that one run may last")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atsdp-chaos-") as name:
        folder = Path(name)
        plain, checkout = Vehicle(folder / "plain"), Checkout(folder / "other")
        started = time.monotonic()
        plain.finish(args.limit)
        span, reference = time.monotonic() - started, plain.table.read_bytes()
        print(f"uninterrupted run: {span:.0f} s, {len(reference)} bytes; seed {args.seed}", flush=True)
        limit, seed = args.limit, args.seed
        results = [
            case("another path, under make", lambda: checkout.finish(limit) or same(checkout, reference) or "equal"),
            case("damaged cache", lambda: damaged_cache(plain, reference, seed, limit)),
            case("damaged cache, under make", lambda: damaged_cache(checkout, reference, seed + 1, limit)),
            case("two runs at once, under make", lambda: two_at_once(checkout, reference, limit)),
            case("clock jump, under make", lambda: clock_jump(checkout, reference, limit)),
            case("disk full", lambda: disk_full(folder / "full", reference, limit)),
            case("random kills", lambda: random_kills(plain, reference, args.kills // 2, span, seed, limit)),
            case("random kills, under make",
                 lambda: random_kills(checkout, reference, args.kills - args.kills // 2, 1.5 * span, seed, limit)),
        ]  # fmt: skip
    print(f"{sum(results)} of {len(results)} cases passed")
    return int(not all(results))


if __name__ == "__main__":
    sys.exit(main())
