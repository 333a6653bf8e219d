"""What Make runs again, and what it does not. Python is played by a script that only notes what it was asked for."""

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atsdp_utils.foundation import paths
from atsdp_utils.own_cells import cli
from tests.bench import bench
from tests.chaos import chaos

NAMES = ("01_a", "02_b", "04_c", "05_d", "11_scorecard", "13_f")
FAKE = """#!/bin/bash
# python -m MODULE COMMAND ...
set -eu
if [ "$2" = book.train ]; then echo "train ${*:7}" >> trained; exit; fi
case "$3" in
  run) [ ! -e fail-$(basename "$4" .ipynb) ] || exit 1
       mkdir -p "$(dirname "$5")"; touch "$5"; basename "$4" .ipynb >> asked;;
  manifest) mkdir -p "$ATSDP_FIGURES/embedded-smoke"; touch "$ATSDP_FIGURES/embedded-smoke/manifest.json";;
  book) html=$ATSDP_BUILD/embedded-smoke/html; mkdir -p "$html"; touch "$html/index.html"; echo book >> asked;;
esac
"""


@pytest.fixture
def make(tmp_path):
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / file, tmp_path)
    for file in ("notebooks/x", "atsdp_utils/x.py", "data/x.csv", "book/x.md"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("first")
    (tmp_path / "notebooks" / "x").unlink()
    for name in NAMES:
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("{}")
    (tmp_path / "fake").write_text(FAKE)
    (tmp_path / "fake").chmod(0o755)
    environment = {
        k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "ATSDP_BUILD", "ATSDP_FIGURES")
    }

    def run(*variables: str, status: int = 0) -> list[str]:
        """What was asked for in this run of Make."""
        (tmp_path / "asked").write_text("")
        time.sleep(0.02)
        command = ["make", "run-notebooks", "PROFILE=smoke", "PY=./fake", *variables]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert bool(done.returncode) == bool(status), done.stderr
        return (tmp_path / "asked").read_text().split()

    return run, tmp_path


def test_everything_runs_in_order_and_then_nothing(make):
    run, folder = make
    first = run()
    assert sorted(first) == [*NAMES, "book"] and first[-1] == "book"
    assert first[-2] == "11_scorecard"
    assert run() == []
    assert run("JOBS=7", "BACKEND=dask") == []
    assert (folder / "trained").read_text() == f"train {' '.join(NAMES)}\n"  # once, before the first notebook


def test_some_chapters_run_alone_and_a_whole_run_adds_the_others(make):
    run, folder = make
    assert sorted(run("CHAPTERS=01 05")) == ["01_a", "05_d", "book"]
    assert run("CHAPTERS=01 05") == []
    assert sorted(run()) == sorted({*NAMES, "book"} - {"01_a", "05_d"})
    assert (folder / "trained").read_text() == f"train 01_a 05_d\ntrain {' '.join(NAMES)}\n"


def test_a_changed_notebook_runs_with_its_dependents_only(make):
    run, folder = make
    run()
    for changed, expected in (("05_d", ["05_d", "11_scorecard"]), ("11_scorecard", ["11_scorecard"])):
        (folder / "notebooks" / f"{changed}.ipynb").write_text("{ }")
        assert run() == [*expected, "book"]


def test_another_profile_that_has_run_is_compared_again_and_the_own_one_is_not(make):
    run, folder = make
    run()
    other = folder / "figures" / "embedded-paper" / "manifest.json"
    other.parent.mkdir()
    other.write_text("{}")
    assert run() == ["11_scorecard", "book"]
    assert run() == []


@pytest.mark.parametrize("file", ["atsdp_utils/x.py", "data/x.csv", "requirements.lock"])
def test_changed_code_data_or_libraries_run_everything_but_a_new_date_does_not(make, file):
    run, folder = make
    run()
    (folder / file).touch()
    assert run() == []
    (folder / file).write_text("second")
    assert sorted(run()) == [*NAMES, "book"]


def test_a_changed_page_builds_the_book_only(make):
    run, folder = make
    run()
    (folder / "book" / "x.md").write_text("second")
    assert run() == ["book"]


def test_a_failure_stops_its_dependents_and_a_later_run_goes_on(make):
    run, folder = make
    (folder / "fail-04_c").touch()
    assert "11_scorecard" not in run("-k", status=2)
    (folder / "fail-04_c").unlink()
    assert run() == ["04_c", "11_scorecard", "book"]


@pytest.mark.parametrize("target", ["help", "doctor", "clean"])
def test_a_path_with_a_space_is_refused_and_nothing_is_touched(tmp_path, target):
    folder = tmp_path / "my work" / "checkout"
    folder.mkdir(parents=True)
    for file in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / file, folder)
    (tmp_path / "my").write_text("a neighbour's")
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "ATSDP_BUILD")}
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    done = subprocess.run(["make", target], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode and "has a space in it" in done.stderr and len(done.stderr.splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    elsewhere = environment | {"ATSDP_BUILD": str(tmp_path / "my work")}
    done = subprocess.run(["make", target], cwd=paths.ROOT, env=elsewhere, capture_output=True, text=True)
    assert done.returncode and "has a space in it" in done.stderr


def test_a_wrong_choice_is_named():
    done = subprocess.run(["make", "help", "PROFILE=fast"], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode and "PROFILE is 'fast', expected smoke, quick or paper" in done.stderr
    done = subprocess.run(["make", "help", "CHAPTERS=05 5"], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode and "CHAPTERS is '05 5': there is no notebooks/5_*.ipynb" in done.stderr


def test_the_code_that_computes_does_not_depend_on_the_processor():
    names = chaos.HELD
    assert names == (
        "OPENBLAS_CORETYPE",
        "ATEN_CPU_CAPABILITY",
        "ONEDNN_MAX_CPU_ISA",
        "NPY_DISABLE_CPU_FEATURES",
        "MKL_CBWR",
    )
    plain = {k: v for k, v in os.environ.items() if k not in names}
    said = {name: value for name, value in chaos.exported(plain).items() if name in names}
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
    assert cli.held_arithmetic() == said
    assert said.pop("MKL_CBWR") == "COMPATIBLE"  # which every processor is held to
    assert set(said) == {n for n, flag in zip(names[:4], ["avx2"] * 3 + ["avx512f"], strict=True) if flag in flags}
    bfloat16 = plain | {"ATSDP_BF16": "1"}
    told = chaos.exported(bfloat16)
    assert told["ATSDP_BF16"] == "1" and not told.keys() & set(bench.HELD)
    # What numpy may choose at run time beyond AVX2, by its own names; others it would ignore without a word.
    asked = "import numpy._core._multiarray_umath as m, torch; print(*m.__cpu_dispatch__); print(m.__cpu_features__)"
    asked += "; print(torch.backends.cpu.get_cpu_capability())"
    listed = subprocess.run([sys.executable, "-c", asked], env=plain | said, capture_output=True, text=True).stdout
    dispatched, found, capability = listed.splitlines()
    assert capability == "AVX2" or "avx2" not in flags
    if "avx512f" in flags:
        assert set(dispatched.split()) - {"X86_V3"} == set(said[names[3]].split())
        assert not any(ast.literal_eval(found)[feature] for feature in said[names[3]].split())
