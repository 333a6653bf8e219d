"""``predict`` from file to scores, on lines of known label in the place of cells, and its AUC on held-out lines."""

from dataclasses import replace
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.evaluation import metrics
from atsdp_utils.foundation import config
from atsdp_utils.own_cells import cellfile, predict
from atsdp_utils.own_cells.cell_values import SCORED
from atsdp_utils.own_cells.prediction import Prediction

SETTINGS = predict.Settings(
    members=2, max_genes=120, sample=200, chunk=64, jobs=1,
    arch=config.Architecture(bottleneck=32, encoder=(32,), predictor=(16,), heads=2, tokens=4, token_dim=8),
    training=replace(config.PROFILES["smoke"].training, balance="oversampling", epochs_dae=10, epochs_predictor=25,
                     epochs_transfer=8, patience=25, batch_size=64),
)  # fmt: skip
LINES, CELLS, GENES = 220, 80, 140


def forget() -> None:
    """Names of genes are kept once read; those of these lines must not be found by other tests, nor theirs here."""
    for kept in [*vars(gene_names).values(), *vars(cellfile).values()]:
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()


@pytest.fixture
def planted(monkeypatch, tmp_path):
    """Lines whose first 30 genes carry the label, and a file with other such lines as its cells."""
    rng = np.random.default_rng(0)
    genes = gdsc.load_bulk().genes[:GENES]
    y = (np.arange(LINES + CELLS) % 3 == 0).astype(np.int8)
    X = rng.normal(size=(LINES + CELLS, GENES)).astype(np.float32)
    X[:, :30] += 1.3 * (2 * y[:, None] - 1)
    names = np.array([f"L{i}" for i in range(LINES)])
    bulk = gdsc.Bulk(X[:LINES], names, genes, y[:LINES])
    monkeypatch.setattr(gdsc, "load_bulk", lambda *a: bulk)
    monkeypatch.setattr(gdsc, "all_labels", lambda lines: y[:LINES, None])
    word = np.where(y[LINES:] == 1, "sensitive", "resistant")
    obs = pd.DataFrame({"truth": word}, [f"cell{i}" for i in range(CELLS)])
    order = rng.permutation(GENES)  # genes of the file stand in another order
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(X[LINES:, order], obs, pd.DataFrame(index=genes[order])).write_h5ad(path)
    forget()
    yield SimpleNamespace(path=path, y=y[LINES:], bulk=bulk)
    forget()


@pytest.mark.slow
@pytest.mark.parametrize("model", predict.MODELS)
def test_lines_of_known_label_get_the_probability_of_being_sensitive(planted, run_folders, model):
    settings = replace(SETTINGS, model=model)
    found = predict.predict(planted.path, "cisplatin", labels="truth", settings=settings, say=lambda line: None)
    y = planted.y
    scores = metrics.classification_metrics(y, found.p)
    assert scores["auc"] > 0.95 and found.p[y == 1].mean() > 0.6 > 0.4 > found.p[y == 0].mean()
    assert (found.label == np.where(found.p >= 0.5, "sensitive", "resistant")).all()
    assert found.metrics["auc"] == pytest.approx(scores["auc"]) and found.metrics["cells"] == CELLS
    calibrated = metrics.classification_metrics(y, found.calibrated)
    assert calibrated["auc"] > 0.9 and found.members.shape == (2, CELLS)
    assert found.facts["held_out_auc"] > 0.9
    if found.sets is not None:
        right, wrong = found.sets[np.arange(CELLS), y], found.sets[np.arange(CELLS), 1 - y]
        # Cells are not exchangeable with lines after transfer, so no coverage is promised; a set of the wrong label
        # alone would be an error.
        assert found.metrics["conformal_coverage"] == right.mean() and not (wrong & ~right).any()
    written = anndata.read_h5ad(planted.path.with_name("cells.CISPLATIN.atsdp.h5ad")).obs
    np.testing.assert_allclose(written["atsdp_p_sensitive"], found.p)
    assert written.index.tolist() == [f"cell{i}" for i in range(CELLS)]
    assert (written["atsdp_label"].astype(str) == found.label).all()
    assert (written["truth"].astype(str) == np.where(y == 1, "sensitive", "resistant")).all()


def test_a_regression_is_what_scikit_learn_fits_on_four_fifths_of_the_lines(planted):
    source = gdsc.bulk_source(planted.bulk, planted.bulk.genes, 3)
    model = predict.Regressions(seed=3, members=4, recipe="plain").fit_transfer(source.X[:9], source)
    y, z = source.y[source.fit_rows], model._logits(source.X[:9], "target")
    kept = StratifiedShuffleSplit(4, train_size=0.8, random_state=3).split(y, y)
    for (rows, left), one in zip(kept, z, strict=True):
        assert not {*rows} & {*left} and len(left) == pytest.approx(0.2 * len(y), abs=1)
        fit = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=2000)
        fit.fit(source.X[source.fit_rows][rows], y[rows])
        np.testing.assert_allclose(one, fit.decision_function(source.X[:9]))
    np.testing.assert_allclose(model.predict_proba(source.X[:9]), 1 / (1 + np.exp(-z.mean(0))))


def test_the_auc_on_held_out_lines_is_of_lines_that_nothing_was_trained_on():
    source = SimpleNamespace(
        X=np.arange(8.0)[:, None], y=np.array([0, 1, 0, 1, 1, 0, 1, 1]), test_rows=np.array([1, 2, 4, 5])
    )
    asked = []

    def line_logits(X):
        asked.append(X[:, 0].tolist())
        return np.array([2.0, 1.0, 0.5, -3.0])

    auc = predict.held_out_auc(SimpleNamespace(line_logits=line_logits), source)
    assert asked == [[1, 2, 4, 5]]
    assert auc == 0.75  # of the pairs (1 or 4) against (2 or 5), 4 against 2 is lost


@pytest.mark.slow
def test_labels_of_the_person_change_no_score(planted, run_folders):
    quick = replace(SETTINGS, members=1, training=replace(SETTINGS.training, epochs_dae=1, epochs_predictor=1))
    with_, without = (
        predict.predict(planted.path, "cisplatin", labels=column, settings=quick, say=lambda line: None)
        for column in ("truth", None)
    )
    assert with_.p.tobytes() == without.p.tobytes() and with_.metrics and not without.metrics


def test_spread_and_mean_of_the_members_are_those_of_the_logits():
    members = np.array([[0.2, 0.9], [0.6, 0.7]])
    p, calibrated = np.array([0.5, 0.4]), np.array([0.3, 0.8])
    found = Prediction(members, p, calibrated, None, np.array([SCORED] * 2), np.array([5, 9]))
    columns = found.columns
    assert columns["atsdp_label"].tolist() == ["sensitive", "resistant"]
    np.testing.assert_allclose(columns["atsdp_p_sd"], members.std(0, ddof=1))
    np.testing.assert_allclose(columns["atsdp_p_calibrated"], [0.3, 0.8])
