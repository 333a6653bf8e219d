"""The list of planted faults cannot rot: each text is there once, changes something, and leaves code that parses."""

import ast
import importlib.util
import json
import shlex
import sys
from collections import Counter

import pytest

from atsdp_utils import paths

SPEC = importlib.util.spec_from_file_location("mutants_run", paths.ROOT / "tests" / "mutants" / "run.py")
run = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = run  # dataclasses look their module up
SPEC.loader.exec_module(run)
MUTANTS = run.mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.id)
def test_a_planted_fault_is_where_the_list_says(mutant):
    assert mutant.occurrences() == 1, f"{mutant.file}: the old text of {mutant.id} must stand there exactly once"
    assert mutant.old != mutant.new and mutant.planted() != (paths.ROOT / mutant.file).read_text(encoding="utf-8")
    if mutant.file.endswith(".py"):
        ast.parse(mutant.planted())
    else:
        for cell in json.loads(mutant.planted())["cells"]:
            if cell["cell_type"] == "code":
                ast.parse("".join(cell["source"]))
    assert run.test_files(mutant.tests)
    for name in run.test_files(mutant.tests):
        assert (paths.ROOT / name).is_file(), name
    assert shlex.split(mutant.tests).count("-k") <= 1  # pytest takes the last one only


def test_there_are_many_over_all_modules_and_notebooks():
    assert len(MUTANTS) >= 100 and not [n for n, k in Counter(m.id for m in MUTANTS).items() if k > 1]
    files = {m.file for m in MUTANTS}
    assert sum(f.startswith("notebooks/") for f in files) >= 8
    for module in ("protocols", "train", "loop", "model", "losses", "masks", "stack", "joint", "plus", "preprocess",
                   "datasets", "twins", "pseudo", "config", "tables", "grid", "evaluate", "metrics", "stats",
                   "calibration", "interpret", "plots", "findings", "scorecard", "audit", "predict"):  # fmt: skip
        assert f"atsdp_utils/{module}.py" in files, module
    assert sum(bool(m.survives) for m in MUTANTS) <= 0.05 * len(MUTANTS)
