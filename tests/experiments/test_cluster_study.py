"""Held-out clusters: which tasks there are, what a model may see, planted truth, and the rule of choice."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from atsdp_utils.data import gdsc
from atsdp_utils.experiments import cluster_study as study
from atsdp_utils.experiments import pseudo, tables
from atsdp_utils.experiments.task import ATSDP, BULK_ONLY, FURTHER
from atsdp_utils.foundation import cache


@pytest.fixture
def planted():
    """Lines of two sides whose first gene decides; the target lies far off and is standardised by itself."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(120, 30)).astype(np.float32), rng.normal(size=(40, 30)).astype(np.float32)
    y, truth = (A[:, 0] > 0).astype(np.int8), (B[:, 0] > 0).astype(np.int8)
    y[:20] = -1
    return study.Side(A, B), study.Side(A[:, :10], B[:, :10]), y, truth


def test_every_simple_model_finds_the_planted_gene_but_pc1(planted):
    near, far, y, truth = planted
    scores = study.simple_scores(near, far, near, y, 50)
    assert {*study.SIMPLE, *study.CANDIDATES[:-2]} <= set(scores)  # the last two need the network
    found = {name: study.auc(truth, s) for name, s in scores.items() if name != "splits"}
    smoothed = ("smoothed", "PC1")  # neighbours of noise, and its first component, dilute one gene
    assert min(a for name, a in found.items() if not any(w in name for w in smoothed)) > 0.75
    signs = study.without_labels(scores)
    assert 0 < signs["agreement"] < signs["stability"] <= 1


def test_the_rotated_regression_is_that_on_genes(planted):
    near, _, y, truth = planted
    rows = np.flatnonzero(y >= 0)
    plain = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=500, tol=1e-8).fit(near.A[rows], y[rows])
    np.testing.assert_allclose(near.logistic(y, rows), plain.decision_function(near.B), atol=1e-3)
    truth[:5] = -1
    assert study.auc(truth, near.B[:, 1]) == pytest.approx(roc_auc_score(truth[5:], near.B[5:, 1]))


def test_cross_validation_scores_lines_that_it_did_not_learn_from(planted):
    near, _, y, _ = planted
    noise = np.random.default_rng(1).integers(0, 2, len(y)).astype(np.int8)
    assert study.cross_validated(near, y) > 0.8 and abs(study.cross_validated(near, noise) - 0.5) < 0.2


@pytest.mark.slow
def test_tasks_have_enough_lines_of_each_class_on_both_sides():
    tasks, of = pseudo.held_out_tasks(), pseudo.clusters()
    assert len(tasks) == len(set(tasks)) > 300
    for drug, k in tasks[::20]:
        y = gdsc.load_bulk(drug).y
        assert min((y[of == k] == c).sum() for c in (0, 1)) >= 8
        assert min((y[of != k] == c).sum() for c in (0, 1)) >= 15
    target = pseudo.make(tasks[0][0], f"lines:{tasks[0][1]}", 3, 120)
    assert len(target.X) == (of == tasks[0][1]).sum() and len(target.source.X) == (of != tasks[0][1]).sum()


@pytest.mark.slow
def test_no_label_of_the_cluster_reaches_a_score_or_a_sign_of_trust(monkeypatch):
    """Turn every label of the held-out lines round: an AUC becomes its complement, and no sign of trust moves."""
    cluster = 2
    before = study._values(cluster, "smoke").set_index(["drug", "what"])["value"]
    table = gdsc.label_table().copy()
    held = gdsc.load_bulk().lines[pseudo.clusters() == cluster]
    table.loc[table.index.isin(held)] = 1 - table.loc[table.index.isin(held)]
    monkeypatch.setattr(gdsc, "label_table", lambda: table)
    after = study._values(cluster, "smoke").set_index(["drug", "what"])["value"]
    for name in (*study.SIMPLE, "null 0"):
        np.testing.assert_allclose(after.xs(name, level="what"), 1 - before.xs(name, level="what"))
    for name in ("agreement", "stability", "other clusters", "cross-validated"):
        np.testing.assert_allclose(after.xs(name, level="what"), before.xs(name, level="what"))


@pytest.mark.slow
def test_values_of_another_precision_are_kept_apart(monkeypatch):
    asked = []
    monkeypatch.setattr(cache, "kept", lambda path, read, write: asked.append(path.name))
    for precision in ("0", "1"):
        monkeypatch.setenv("ATSDP_BF16", precision)
        study.held_out_values(0, "smoke")
    assert len(set(asked)) == 2


def test_networks_have_one_cluster_of_a_third_or_all_of_the_drugs_and_their_control():
    tasks = pseudo.held_out_tasks()
    names = sorted({drug for drug, _ in tasks})
    for profile, step in (("quick", 3), ("paper", 1)):
        few = pseudo.network_tasks(profile)
        assert [drug for drug, _ in few] == names[::step] and set(few) <= set(tasks)
    grid = tables.clusters("embedded", "quick")
    named = pd.Series([tables.held_out(t) for t in grid]).value_counts()
    assert set(named.index) == set(tables.HELD_OUT)
    bulk_only = [name for name, (model, _) in tables.HELD_OUT.items() if model in (BULK_ONLY, FURTHER)]
    assert len(bulk_only) == 3 and set(named[bulk_only]) == {named[ATSDP]}


def test_the_rule_takes_the_simplest_that_ties_with_the_best_on_the_choosing_half():
    index = pd.MultiIndex.from_product([list("abcd"), [0, 1]], names=["drug", "cluster"])
    choosing = np.isin(index.get_level_values("drug"), ["a", "c"])
    wide = pd.DataFrame(
        {"simple": 0.6, "good": np.where(choosing, 0.7, 0.5), "late": np.where(choosing, 0.6, 0.9)}, index
    )
    taken, chooses = study.chosen(wide, ("simple", "good", "late"))
    assert taken == "good" and chooses.to_dict() == {"a": True, "b": False, "c": True, "d": False}
    wide["good"] = [0.7, 0.7, 0, 0, 0.55, 0.55, 0, 0]  # ahead by .025 with a standard error of .075
    assert study.chosen(wide, ("simple", "good", "late"))[0] == "simple"
