"""The house: thin, its rooms whole, and nothing in it that names what lies outside of the project."""

import importlib
import re
import subprocess

import pytest

from atsdp_utils.baselines import REGISTRY
from atsdp_utils.foundation import paths
from tests import lines

PACKAGE = paths.ROOT / "atsdp_utils"
TRACKED = subprocess.run(["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True).stdout.split()


def test_the_package_stays_thin():
    for folder in ("atsdp_utils", "book"):
        assert lines.of_folder(folder)["all"] <= lines.LIMITS[folder]
    assert lines.of_folder("atsdp_utils")["code"] <= lines.LIMITS["code of atsdp_utils"]
    assert lines.of_cells() <= lines.LIMITS["code cells of notebooks"]


def test_lines_are_counted_by_kind():
    counts = lines.of_python('"""One\ntwo."""\n\n# why\nx = 1\n\n\ndef f():\n    """Do."""\n    return x\n')
    assert counts == {"all": 10, "docstrings": 3, "blank": 3, "comments": 1, "code": 3}
    assert lines.of_python('"""One.\n\nTwo.\n"""\nx = 1\n') == {
        "all": 5, "docstrings": 4, "blank": 0, "comments": 0, "code": 1
    }  # fmt: skip


def test_every_module_lives_in_a_room():
    assert [p.name for p in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_what_is_imported_by_name_is_there():
    """Linters see no import that is a string."""
    for entry in REGISTRY.values():
        module, _, name = entry.factory.partition(":")
        assert callable(getattr(importlib.import_module(module, "atsdp_utils.baselines"), name)), entry.name
    for path in (p for p in map(paths.ROOT.joinpath, TRACKED) if p.suffix in (".py", "") and p.is_file()):
        for module in re.findall(r'"-m", "((?:atsdp_utils|book|tests)\.[\w.]+)"', path.read_text(errors="ignore")):
            assert importlib.util.find_spec(module), f"{path}: {module}"


def test_commands_of_the_makefile_are_there():
    modules = re.findall(r"-m ((?:atsdp_utils|book|tests)\.[\w.]+)", (paths.ROOT / "Makefile").read_text())
    modules += re.findall(r"\b(atsdp_utils\.[\w.]+)(?: check)?[,)]", (paths.ROOT / "Makefile").read_text())
    assert len(modules) > 8
    assert [m for m in modules if importlib.util.find_spec(m) is None] == []


@pytest.mark.skipif(not TRACKED, reason="not a git checkout")
def test_the_product_names_nothing_outside_of_it():
    """What a run reads lies in the checkout: no path to a folder beside it, and the package knows no tool around it."""
    texts = {f: (paths.ROOT / f).read_text(errors="ignore") for f in TRACKED if (paths.ROOT / f).is_file()}
    outside = re.compile(r"\.\./" + "shared|/" + "shared/(?:data|paper|design)")
    assert [f for f, text in texts.items() if outside.search(text)] == []
    upward = re.compile(r"^\s*(?:from|import) (?:book|tests)\b", re.MULTILINE)
    assert [f for f, text in texts.items() if f.startswith("atsdp_utils/") and upward.search(text)] == []
