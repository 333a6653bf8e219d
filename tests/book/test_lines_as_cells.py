"""Notebook 15: its statistic on planted scores, and that no model sees the lines that it scores."""

import json
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from atsdp_utils.baselines.classical import Forest, Logistic
from atsdp_utils.data import gdsc
from atsdp_utils.evaluation import line_pairs, stats
from atsdp_utils.experiments import cluster_study
from atsdp_utils.foundation import config, paths

CELLS = json.loads((paths.NOTEBOOKS / "15_lines_as_cells.ipynb").read_text())["cells"]
CODE = {c["id"]: "".join(c["source"]) for c in CELLS}
LINES = ["a", "b", "c", "d"]


@pytest.fixture
def judged():
    """The function of the notebook."""
    space = {"np": np, "pd": pd, "line_pairs": line_pairs, "stats": stats, "profile": config.profile("quick")}
    exec(CODE["pairs-of"], space)
    return space["judged"]


def test_models_that_know_lines_and_drugs_pass_both_nulls(judged):
    labels = np.tile(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]), (5, 1)).T
    Y = pd.DataFrame(labels, LINES, [f"drug {i}" for i in range(20)])
    about = judged(Y * 1.0, Y)
    assert about["mean"] == 1 and about["pairs"] == 80 and about["drugs"] == 20
    assert about["p_orders"] == pytest.approx(1 / 24) and about["p_drugs"] == pytest.approx(1 / 1001)


def test_one_order_of_the_lines_for_all_drugs_is_told_to_be_no_matter_of_the_drug(judged):
    Y = pd.DataFrame([[1] * 8, [1] * 4 + [0] * 4, [0] * 8, [0] * 8], LINES, [f"drug {i}" for i in range(8)])
    S = pd.DataFrame(np.tile([[4.0], [3.0], [2.0], [1.0]], 8), LINES, Y.columns)
    about = judged(S, Y)
    assert about["mean"] == about["other_drugs"] == 1 and about["p_drugs"] == 1
    assert about["p_orders"] == pytest.approx(2 / 24) and about["ci_low"] == 1  # two lines are resistant throughout


def test_scores_without_information_pass_neither_null(judged):
    rng = np.random.default_rng(0)
    Y = pd.DataFrame(rng.permuted(np.tile([[1], [1], [0], [0]], 40), axis=0), LINES, range(40))
    about = judged(pd.DataFrame(rng.normal(size=Y.shape), LINES, range(40)), Y)
    assert about["p_orders"] > 0.05 and about["p_drugs"] > 0.05 and about["ci_low"] < 0.5 < about["ci_high"]


def test_scored_lines_are_in_no_training_and_scores_are_those_of_the_models():
    genes = gdsc.load_bulk().genes[:300]
    five = ["A549", "HCC827", "NCIH1975", "NCIH2228", "NCIH838"]
    cells = anndata.AnnData(
        np.ones((5, 300), np.float32), pd.DataFrame({"line": five}, index=five), pd.DataFrame(index=genes)
    )
    raw = {"mixology-5": cells, "mixology-3": cells[1:4]}
    clean, profile = {(name, "three filters"): adata for name, adata in raw.items()}, SimpleNamespace(max_genes=150)
    space = {"np": np, "pd": pd, "gdsc": gdsc, "raw": raw, "clean": clean, "small": True, "trees": 5}
    space |= {
        "profile": profile,
        "cluster_study": cluster_study,
        "Forest": Forest,
        "expit": expit,
        "MODELS": ("linear", "forest", "pc1"),
    }
    exec(CODE["models"], space)
    exec(CODE["fitted-scores"], space)
    assert not np.isin(five, space["bulk"].lines).any() and len(space["bulk"].lines) == 970
    assert len(space["drugs"]) == 10 and set(space["truth"].index) == set(five)
    rng, known = np.random.default_rng(0), space["genes"]
    X, target = rng.normal(size=(60, 150)), rng.normal(size=(9, 150))
    calls = pd.DataFrame({"drug": np.where(np.arange(60) < 50, (X[:, 0] > 0) * 1.0, np.nan)})
    found = space["fitted_scores"](X, known, calls, {"t": target})["t", "drug"]
    expected = (
        Logistic(C=1e-3).fit(X[:50], calls["drug"][:50].astype(int), balance="class_weight").predict_proba(target)
    )
    assert found["linear"] == pytest.approx(expected, abs=1e-3)
    assert np.corrcoef(found["pc1"], logit(expected))[0, 1] > 0 and abs(found["pc1"] @ found["pc1"] - 1) < 1e-9
