"""Cells that write the method out say that the package does the same: a fault planted in the package makes them fail.

Cells with the tag ``method`` and the cell ``setup`` of a chapter run here in order, without its other cells.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from atsdp_utils.data import preprocess
from atsdp_utils.evaluation import two_way
from atsdp_utils.foundation import paths
from book import build


def method_of(number: str) -> list[tuple[str, str]]:
    """Names and code of the cells that write out the method of a chapter, after its parameters and its setup."""
    (path,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    wanted = [c for c in cells if c["id"] == "setup" or "method" in c["metadata"].get("tags", [])]
    smoke = build.PARAMETERS.replace('"quick"', '"smoke"')
    return [("parameters", smoke), *((c["id"], "".join(c["source"])) for c in wanted)]


def run_method(number: str) -> dict:
    """Run them as one program."""
    space = {"__name__": f"method_of_{number}", "display": lambda *shown: None}
    for name, code in method_of(number):
        exec(compile(code, f"{number}:{name}", "exec"), space)
    return space


class Fault(NamedTuple):
    """A wrong version of a name of the package, which the method cells of a chapter must notice."""

    chapter: str
    module: str
    name: str
    wrong: Callable


def with_ribosomes_as_mitochondria(cells):
    """Cells whose ribosomal genes are named like mitochondrial ones."""
    cells = cells.copy()
    ribosomal = cells.var_names.str.startswith("RPS")
    cells.var["ortholog"] = np.where(ribosomal, "MT-RPS", cells.var["ortholog"])
    return cells


def with_sample_scales(right):
    """A fit that divides by n - 1."""

    def fit(self, X):
        right(self, X).scale_ *= np.sqrt(len(X) / (len(X) - 1))
        return self

    return fit


def scaled_with_held_out_lines(right):
    """A bulk side whose scales are those of all lines."""

    def bulk_source(bulk, genes, seed):
        X = preprocess.columns(bulk.X, bulk.genes, genes)
        return replace(right(bulk, genes, seed), X=preprocess.Standardizer().fit_transform(X))

    return bulk_source


#: Each replaces ``module.name`` by ``wrong(original)``; a row a fault, in the order of chapters.
FAULTS: list[Fault] = [
    # A recorded hash that is not the file's.
    Fault("01", "atsdp_utils.foundation.checksums", "register",
          lambda right: lambda: right() | {"drug_names.csv": "0" * 64}),
    # Key genes that small profiles do not read; a direction the wrong way; the levels of other genes; Poisson counts.
    Fault("01", "atsdp_utils.data.twins", "GENE_SPACE", lambda right: 10 * right),
    Fault("01", "atsdp_utils.data.twins", "direction", lambda right: lambda drug: -right(drug)),
    Fault("01", "atsdp_utils.data.twins", "baseline", lambda right: lambda lines: tuple(x[::-1] for x in right(lines))),
    Fault("01", "atsdp_utils.data.twins", "draw_counts",
          lambda right: lambda level, phi, *rest: right(level, 1e-3 * phi, *rest)),
    Fault("01", "atsdp_utils.data.preprocess", "MIN_GENES", lambda right: 0),
    # More genes are taken for mitochondrial ones; another cut-off; another total.
    Fault("02", "atsdp_utils.data.preprocess", "quality_control",
          lambda right: lambda cells: right(with_ribosomes_as_mitochondria(cells))),
    Fault("02", "atsdp_utils.data.preprocess", "MAX_MITO", lambda right: 0.2),
    Fault("02", "atsdp_utils.data.preprocess", "TARGET_SUM", lambda right: 1e6),
    # Genes as they come, not the most variable ones.
    Fault("02", "atsdp_utils.data.gdsc", "shared_genes",
          lambda right: lambda bulk, genes, most: bulk.genes[np.isin(bulk.genes, genes)][:most]),
    # Scales with n - 1; scales of all lines, held-out ones with them.
    Fault("02", "atsdp_utils.data.preprocess", "Standardizer.fit", with_sample_scales),
    Fault("02", "atsdp_utils.data.gdsc", "bulk_source", scaled_with_held_out_lines),
    # Copies instead of mixtures; balance before the split.
    Fault("02", "atsdp_utils.data.preprocess", "balance",
          lambda right: lambda X, y, how, seed: right(X, y, "oversampling", seed)),
    Fault("02", "atsdp_utils.baselines.rows", "split", lambda right: lambda X, y, how, share, seed: right(
        *preprocess.balance(X, y, how, seed)[:2], "none", share, seed)),
    Fault("16", "atsdp_utils.experiments.pseudo", "clusters", lambda right: lambda: np.roll(right(), 1)),
    # The cluster's own lines are learnt from.
    Fault("16", "atsdp_utils.experiments.cluster_study", "side",
          lambda right: lambda train, target, genes: right(train | target, target, genes)),
    # The cluster is brought to the scale of the training lines.
    Fault("16", "atsdp_utils.experiments.cluster_study", "side", lambda right: lambda train, target, genes: replace(
        right(train, target, genes), B=right(train | target, train | target, genes).A[target])),
    Fault("16", "atsdp_utils.experiments.cluster_study", "auc", lambda right: lambda y, score: 1 - right(y, score)),
    # The variance of one way only, and a normal quantile.
    Fault("16", "atsdp_utils.evaluation.two_way", "variance",
          lambda right: lambda values, drug, cluster: right(values, drug, drug)),
    Fault("16", "atsdp_utils.evaluation.two_way", "interval", lambda right: lambda values, *ways: np.mean(values)
          + 1.96 * np.array([0, -1, 1]) * two_way.variance(values, *ways) ** 0.5),
]  # fmt: skip
CHAPTERS = [p.stem[:2] for p in build.numbered() if len(method_of(p.stem[:2])) > 2]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_method_on_the_page_is_that_of_the_package(chapter, run_folders):
    run_method(chapter)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.chapter}-{f.name}")
def test_a_planted_fault_makes_the_chapter_fail(fault, run_folders, monkeypatch):
    import importlib

    module = importlib.import_module(fault.module)
    owner, _, attribute = fault.name.rpartition(".")
    place = getattr(module, owner) if owner else module
    original = getattr(place, attribute)
    wrong = fault.wrong(original)
    for name, loaded in list(sys.modules.items()):  # also where it was imported by its name
        if name.startswith("atsdp_utils") and not owner and getattr(loaded, attribute, None) is original:
            monkeypatch.setattr(loaded, attribute, wrong)
    monkeypatch.setattr(place, attribute, wrong)
    with pytest.raises(AssertionError):
        run_method(fault.chapter)


def test_chapters_that_show_the_method_have_a_fault_each():
    assert set(CHAPTERS) == {f.chapter for f in FAULTS}
