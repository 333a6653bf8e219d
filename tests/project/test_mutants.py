"""The list of planted faults cannot rot: each text is there once, changes something, and leaves code that parses."""

import ast
import importlib.util
import json
import shlex
import sys
from collections import Counter

from atsdp_utils.foundation import paths

SPEC = importlib.util.spec_from_file_location("mutants_run", paths.ROOT / "tests" / "mutants" / "run.py")
run = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = run  # dataclasses look their module up
SPEC.loader.exec_module(run)
MUTANTS = run.mutants()


def parses(name: str, text: str, right: set[str]) -> bool:
    """Whether a module, or what is not among the right cells of a notebook, is Python; a table holds none."""
    if name.endswith(".csv"):
        return True
    cells = [text] if name.endswith(".py") else set(code_cells(text)) - right
    try:
        for source in cells:
            ast.parse(source)
    except SyntaxError:
        return False
    return True


def code_cells(text: str) -> list[str]:
    """Sources of the cells with code."""
    return ["".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "code"]


def test_planted_faults_are_where_the_list_says():
    wrong = []
    for name in dict.fromkeys(m.file for m in MUTANTS):
        text = (paths.ROOT / name).read_text(encoding="utf-8")
        right = set(code_cells(text)) if name.endswith(".ipynb") else set()
        for mutant in (m for m in MUTANTS if m.file == name):
            if mutant.occurrences(text) != 1:
                wrong.append(f"{mutant.id}: the old text must stand in {name} exactly once")
                continue
            planted = mutant.planted(text)
            if planted == text:
                wrong.append(f"{mutant.id} changes nothing")
            if not parses(name, planted, right):
                wrong.append(f"{mutant.id} is not Python")
    assert not wrong, "\n".join(wrong)


def test_selections_name_tests():
    files = {f for m in MUTANTS for f in run.test_files(m.tests)}
    assert not [f for f in files if not (paths.ROOT / f).is_file()]
    # pytest takes the last -k only
    assert not [m.id for m in MUTANTS if not run.test_files(m.tests) or shlex.split(m.tests).count("-k") > 1]


def test_there_are_many_over_all_modules_and_notebooks():
    assert len(MUTANTS) >= 100 and not [n for n, k in Counter(m.id for m in MUTANTS).items() if k > 1]
    files = {m.file for m in MUTANTS}
    assert sum(f.startswith("notebooks/") for f in files) >= 12
    modules = {f for f in files if f.startswith("atsdp_utils/")}
    rooms = {p.parent.name for p in (paths.ROOT / "atsdp_utils").glob("*/*.py")}
    assert {f.split("/")[1] for f in modules} == rooms and len(modules) >= 30
    assert sum(bool(m.survives) for m in MUTANTS) <= 0.05 * len(MUTANTS)
