"""Plant the faults of ``mutants.toml`` one at a time, in a copy of the tree, and run what should catch each.

``make mutants`` or ``python tests/mutants/run.py [-k WORD] [--jobs N] [--again]``. Outcomes are written as they come,
to ``build/mutants/outcomes.csv``; a run that is stopped goes on where it was. A fault is planted again when its text,
its file or the tests that should catch it have changed. ``--right`` runs the tests on right code instead. Needs
``fork``: Linux, or WSL.
"""

from __future__ import annotations

import argparse
import compileall
import csv
import hashlib
import importlib
import json
import os
import py_compile
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.toml")
OUTCOMES = ROOT / "build" / "mutants" / "outcomes.csv"
#: Seconds of computing, and of waiting, that the tests of one fault may take.
LIMIT, PATIENCE = 120, 900
#: Read once, before children are made.
LIBRARIES = (
    "anndata", "igraph", "imblearn.over_sampling", "imblearn.under_sampling", "matplotlib.pyplot", "pytest",
    "pytest_timeout", "scipy.stats", "sklearn.cluster", "sklearn.ensemble", "sklearn.linear_model",
    "sklearn.model_selection", "statsmodels.stats.proportion", "torch._dynamo",
)  # fmt: skip
CAUGHT, SURVIVED, SLOW = "caught", "survived", "too slow"


@dataclass(frozen=True)
class Mutant:
    """One planted fault.

    Attributes
    ----------
    id
        Name, unique.
    file
        Path in the repository.
    old, new
        Text that occurs once in the file, and what takes its place. In a notebook both are source of one line.
    tests
        Arguments of pytest: what should catch it.
    survives
        Why no test can catch it; empty for all that should be caught.
    """

    id: str
    file: str
    old: str
    new: str
    tests: str
    survives: str = ""

    def _as_written(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=False)[1:-1] if self.file.endswith(".ipynb") else text

    def occurrences(self, text: str) -> int:
        """How often the old text stands in the text of the file."""
        return text.count(self._as_written(self.old))

    def planted(self, text: str) -> str:
        """The text of the file with the fault."""
        return text.replace(self._as_written(self.old), self._as_written(self.new), 1)

    def fingerprint(self) -> str:
        """Hash of the fault, its file and the tests that should catch it."""
        digest = hashlib.sha256(repr((self.id, self.old, self.new, self.tests)).encode())
        for name in (self.file, *test_files(self.tests)):
            digest.update((ROOT / name).read_bytes())
        return digest.hexdigest()[:16]


def mutants() -> list[Mutant]:
    """All planted faults, in the order of the list."""
    return [Mutant(**row) for row in tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]]


def test_files(tests: str) -> list[str]:
    """Files that a selection names."""
    return [part.partition("::")[0] for part in shlex.split(tests) if part.startswith("tests/")]


@dataclass
class Running:
    """A child process with what it runs."""

    what: Mutant
    pid: int
    copy: Path
    started: float


def copied(where: Path) -> Path:
    """A copy of the files that git knows or would take."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, stdout=subprocess.PIPE)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            target = where / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    # Bytecode that is valid by the content of its source, so that a planted fault is never missed.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(where / "atsdp_utils", quiet=2, invalidation_mode=mode)
    return where


def start(mutant: Mutant, copy: Path) -> Running:
    """Plant the fault in the copy, if it has one, and run its tests in a child."""
    if mutant.old:
        (copy / mutant.file).write_text(mutant.planted((ROOT / mutant.file).read_text("utf-8")), "utf-8")
    pid = os.fork()
    if pid:
        return Running(mutant, pid, copy, time.monotonic())
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT + 5))
    os.chdir(copy)
    log = os.open(copy / "mutant.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    sys.path.insert(0, str(copy))
    import pytest

    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "--no-header"]
    os._exit(int(pytest.main([*options, *shlex.split(mutant.tests)])))


def finished(running: Running) -> str | None:
    """Outcome of a child, with the copy as it was; None while it runs."""
    pid, status = os.waitpid(running.pid, os.WNOHANG)
    if not pid and time.monotonic() - running.started < PATIENCE:
        return None
    if not pid:
        end(running)
        outcome = SLOW
    else:
        code = os.waitstatus_to_exitcode(status)
        outcomes = {0: SURVIVED, 1: CAUGHT, 2: CAUGHT, -signal.SIGXCPU: SLOW, -signal.SIGKILL: SLOW}
        outcome = outcomes.get(code, f"pytest ended with {code}")
    if running.what.old:
        shutil.copyfile(ROOT / running.what.file, running.copy / running.what.file)
    return outcome


def end(running: Running) -> None:
    """End a child and what it started."""
    os.killpg(running.pid, signal.SIGKILL)
    os.waitpid(running.pid, 0)


def known() -> dict[str, str]:
    """Outcomes of earlier runs by fingerprint."""
    if not OUTCOMES.exists():
        return {}
    with OUTCOMES.open(encoding="utf-8", newline="") as lines:
        return {row["fingerprint"]: row["outcome"] for row in csv.DictReader(lines)}


def note(mutant: Mutant, outcome: str, seconds: float) -> None:
    """Write an outcome down."""
    new = not OUTCOMES.exists()
    with OUTCOMES.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["fingerprint", "id", "outcome", "seconds"])
        writer.writerow([mutant.fingerprint(), mutant.id, outcome, f"{seconds:.1f}"])


def run(todo: list[Mutant], jobs: int) -> dict[str, str]:
    """Outcomes by fingerprint; a line a fault with the time left."""
    import_what_tests_import()
    found, running, done, began = {}, [], 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        free = [copied(Path(folder) / str(i)) for i in range(min(jobs, len(todo)))]
        waiting = list(todo)
        try:
            while waiting or running:
                while waiting and free:
                    running.append(start(waiting.pop(0), free.pop()))
                for r in list(running):
                    if (outcome := finished(r)) is None:
                        continue
                    running.remove(r)
                    free.append(r.copy)
                    seconds = time.monotonic() - r.started
                    note(r.what, outcome, seconds)
                    found[r.what.fingerprint()] = outcome
                    done += 1
                    left = (time.monotonic() - began) / done * (len(todo) - done) / 60
                    word = "passes" if not r.what.old and outcome == SURVIVED else outcome
                    print(
                        f"[{done}/{len(todo)}] {word:8} {r.what.id} ({seconds:.0f} s; {left:.0f} min left)", flush=True
                    )
                    if outcome != (CAUGHT if r.what.old else SURVIVED):
                        last = (r.copy / "mutant.log").read_text(errors="replace").splitlines()[-3:]
                        print("".join(f"      | {text}\n" for text in last), end="", flush=True)
                time.sleep(0.05)
        finally:
            for r in running:
                end(r)
    return found


def import_what_tests_import() -> None:
    """Import the large libraries once, so that children have them; nothing of this package."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ |= {"MPLBACKEND": "agg", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for variable in ("ATSDP_BUILD", "ATSDP_FIGURES"):
        os.environ.pop(variable, None)
    sys.dont_write_bytecode = True
    for library in LIBRARIES:
        importlib.import_module(library)
    import torch

    torch.set_num_threads(1)


def main() -> int:
    """Command line; status 1 if a fault survives that should be caught."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-k", default="", help="only faults with this word in their name or file")
    parser.add_argument("--jobs", type=int, default=2, help="at once")
    parser.add_argument("--again", action="store_true", help="also those whose outcome is known")
    parser.add_argument("--right", action="store_true", help="run the selections on right code, where all must pass")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = [m for m in mutants() if asked.k in m.id or asked.k in m.file]
    if asked.right:
        every = dict.fromkeys(m.tests for m in chosen)
        chosen = [Mutant(f"right code: {tests}", test_files(tests)[0], "", "", tests) for tests in every]
    OUTCOMES.parent.mkdir(parents=True, exist_ok=True)
    outcomes = {} if asked.again else known()
    todo = [m for m in chosen if m.fingerprint() not in outcomes]
    outcomes |= run(todo, asked.jobs) if todo else {}
    final = {m.id: outcomes[m.fingerprint()] for m in chosen}
    if asked.right:
        wrong = [name for name, outcome in final.items() if outcome != SURVIVED]
        print("\n".join(wrong) or "All selections pass on right code.")
        return int(bool(wrong))
    caught = sum(outcome == CAUGHT for outcome in final.values())
    print(f"\n{caught} of {len(final)} planted faults are caught ({caught / max(1, len(final)):.1%}).")
    for m in chosen:
        if final[m.id] != CAUGHT:
            print(f"- {final[m.id]}: {m.id} ({m.file}); {m.survives or 'NOT EXPLAINED: ' + m.tests}")
    return int(any(final[m.id] != CAUGHT and not m.survives for m in chosen))


if __name__ == "__main__":
    sys.exit(main())
