"""Quality control, scaling, balancing and gene space; what is fitted must not see test rows."""

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.data.preprocess import Cells, Standardizer
from atsdp_utils.foundation import config


def counts(cells=30, genes=260, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.poisson(3.0, (cells, genes)).astype(np.float32)
    names = [f"G{i}" for i in range(genes - 3)] + ["MT-ND1", "MT-CO1", "MT-CYB"]
    X[:, -3:] = 1
    X[0, 100:] = 0  # a nearly empty cell
    X[1, -3:] = 400  # a cell full of mitochondrial counts
    X[:, 5] = 0
    X[2:4, 5] = 1  # a gene in two cells
    obs = pd.DataFrame({"culture": "c", "sensitive": pd.array([True] * cells, "boolean")}, index=map(str, range(cells)))
    obs["sensitive_paper"] = obs["sensitive"]
    return anndata.AnnData(sparse.csr_matrix(X), obs, pd.DataFrame({"ortholog": names}, index=names))


def test_quality_control_removes_what_was_planted_and_says_so():
    kept, table = preprocess.quality_control(counts())
    assert "0" not in kept.obs_names and "1" not in kept.obs_names and kept.n_obs == 28
    assert "G5" not in kept.var_names
    by_rule = table.set_index("rule")
    assert by_rule.loc["cells with < 200 genes", "cells_removed"] == 1
    assert by_rule.loc["genes in < 3 cells", "genes_removed"] == 1
    assert by_rule.loc["cells with > 10% mitochondrial counts", "cells_removed"] == 1
    assert table["cells_left"].iloc[-1] == kept.n_obs and table["genes_left"].iloc[-1] == kept.n_vars


def test_mitochondrial_genes_are_found_by_ortholog_and_their_absence_is_said():
    mouse = counts()
    mouse.var_names = [f"ENSMUSG{i:011d}" for i in range(mouse.n_vars)]
    assert "1" not in preprocess.quality_control(mouse)[0].obs_names
    bare = counts()[:, :257].copy()
    _, table = preprocess.quality_control(bare)
    assert table["note"].iloc[-1] == "no mitochondrial genes measured: a no-op"


def test_normalisation_against_a_hand_computed_cell():
    adata = counts()
    values = preprocess.normalise(adata).X.toarray()[3]
    raw = adata.X.toarray()[3]
    np.testing.assert_allclose(values, np.log1p(raw / raw.sum() * 1e4), rtol=1e-5)


def test_standardizer_sees_training_rows_only():
    """A planted test row would change every training value if the scaler saw it."""
    rng = np.random.default_rng(0)
    X = rng.normal(2, 3, (50, 4)).astype(np.float32)
    scaler = Standardizer().fit(X[:40])
    planted = X.copy()
    planted[45] = 1e6
    np.testing.assert_array_equal(scaler.transform(X[:40]), Standardizer().fit(planted[:40]).transform(planted[:40]))
    assert not np.allclose(scaler.transform(X[:40]), Standardizer().fit(planted).transform(planted[:40]))
    np.testing.assert_allclose(scaler.transform(X[:40]).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaler.transform(X[:40]).std(0), 1, atol=1e-4)


def test_values_beyond_ten_standard_deviations_are_cut():
    X = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    found = Standardizer().fit(X).transform(np.array([[1e4, -1e4]], np.float32))
    assert found.tolist() == [[10, -10]]


def test_a_constant_gene_becomes_zero():
    X = np.ones((10, 2), np.float32)
    assert (Standardizer().fit(X).transform(X + 5) == 0).all()


@pytest.mark.parametrize(
    ("how", "expected"), [("none", [30, 8]), ("oversampling", [30, 30]), ("smote", [30, 30]), ("undersampling", [8, 8])]
)
def test_balancing_gives_the_stated_counts(how, expected):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(38, 6)).astype(np.float32), np.repeat([0, 1], [30, 8]).astype(np.int8)
    xb, yb, weight = preprocess.balance(X, y, how, 0)
    assert np.bincount(yb).tolist() == expected and weight is None
    assert xb.dtype == np.float32 and len(xb) == len(yb)
    originals = {r.tobytes() for r in X}
    made = sum(r.tobytes() not in originals for r in xb)
    assert made == (22 if how == "smote" else 0)


def test_class_weights_make_the_classes_count_the_same():
    y = np.repeat([0, 1], [30, 10]).astype(np.int8)
    _, _, weight = preprocess.balance(np.zeros((40, 2), np.float32), y, "class_weight", 0)
    assert weight[y == 0].sum() == pytest.approx(weight[y == 1].sum())
    assert weight.sum() == pytest.approx(len(y))


def test_balanced_classes_are_left_alone_by_every_strategy():
    """DATA3's situation: 162 against 162, so Table 1 cannot differ."""
    X, y = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32), np.repeat([0, 1], 10).astype(np.int8)
    for how in config.BALANCING:
        xb, yb, weight = preprocess.balance(X, y, how, 0)
        assert xb is X and yb is y and weight is None


def test_smote_with_a_single_minority_row_duplicates_it():
    X, y = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32), np.repeat([0, 1], [10, 1]).astype(np.int8)
    xb, yb, _ = preprocess.balance(X, y, "smote", 0)
    assert np.bincount(yb).tolist() == [10, 10]
    assert (xb[yb == 1] == X[10]).all()


def test_unknown_strategy_is_named():
    with pytest.raises(ValueError, match="how: got 'adasyn', expected one of none, oversampling"):
        preprocess.balance(np.zeros((2, 1)), np.array([0, 1]), "adasyn", 0)


def test_gene_space_ignores_the_values_of_cells():
    bulk = gdsc.load_bulk("CISPLATIN")
    names = bulk.genes[np.random.default_rng(0).permutation(len(bulk.genes))[:500]]
    genes = gdsc.shared_genes(bulk, names, 100)
    assert len(genes) == 100 and set(genes) <= set(names)
    variance = pd.Series(bulk.X.var(0), bulk.genes)[names]
    assert set(genes) == set(variance.nlargest(100).index)
    with pytest.raises(ValueError, match="genes: 0 of 200 are in the bulk matrix, expected at least 100"):
        gdsc.shared_genes(bulk, np.array([f"ENSG{i}" for i in range(200)]), 100)


def test_test_lines_are_the_same_for_every_drug_and_scaled_on_training_lines():
    one, two = (gdsc.load_bulk(d) for d in ("CISPLATIN", "DOCETAXEL"))
    genes = one.genes[:150]
    a, b = (gdsc.bulk_source(x, genes, seed=3) for x in (one, two))
    np.testing.assert_array_equal(a.train, b.train)
    assert 0.19 < (~a.train).mean() < 0.21
    np.testing.assert_allclose(a.X[a.train].mean(0), 0, atol=0.02)  # not exactly 0: values are clipped at ten
    assert not set(a.fit_rows) & set(a.test_rows)
    assert (gdsc.held_out_lines(3) != gdsc.held_out_lines(4)).any()


def test_a_twins_bulk_lacks_the_lines_of_its_direction():
    from atsdp_utils.data import twins

    genes = gdsc.load_bulk().genes
    cells = Cells("DATA1-sim", "simulated", "CISPLATIN", None, genes, None, None, None, None, None)
    source = datasets.source_domain(cells, 150, seed=0)
    assert len(source.y) == len(gdsc.load_bulk().lines) - len(twins.direction_lines("CISPLATIN"))


def test_louvain_finds_planted_clusters_and_is_deterministic():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 40)
    X = (rng.normal(size=(120, 20)) + 8 * np.eye(3, 20)[truth]).astype(np.float32)
    found = preprocess.louvain(X, seed=0)
    # every found cluster lies inside one planted cluster
    assert all(len(set(truth[found == c])) == 1 for c in np.unique(found))
    np.testing.assert_array_equal(found, preprocess.louvain(X, seed=0))


def test_subsampling_keeps_every_culture_and_changes_the_key():
    n = 200
    group = np.repeat(["a", "b", "c"], [150, 40, 10])
    y = np.tile([0, 1], n // 2).astype(np.int8)
    per_cell = {"y": y, "strict": y, "group": group, "library_size": np.ones(n), "cell_id": np.arange(n).astype(str)}
    cells = Cells("x", "real", "d", np.zeros((n, 2)), genes=np.array(["A", "B"]), **per_cell)
    small = preprocess.subsample(cells, 40)
    assert 36 <= len(small.y) <= 44 and set(small.group) == {"a", "b", "c"} and small.key != cells.key
    assert preprocess.subsample(cells, None) is cells


def test_real_sets_have_the_published_classes():
    for name, expected in {"A375-PLX4720": (46, 62), "SCC47-afatinib": (60, 60), "SCC47-sorafenib": (60, 60)}.items():
        obs = datasets.load_cells(name).obs
        assert (int((~obs["sensitive"]).sum()), int(obs["sensitive"].sum())) == expected
    afatinib, sorafenib = (datasets.load_cells(f"SCC47-{d}").obs["sensitive"] for d in ("afatinib", "sorafenib"))
    assert (afatinib != sorafenib).all()


def test_label_table_has_the_published_classes():
    counts = (gdsc.label_table() == 1).sum()
    assert len(gdsc.drugs()) == 83 and len(gdsc.label_table()) == 803
    # data-sources.md counts 804 rows; the second TT row is dropped and is resistant to these
    assert {d: int(counts[d]) for d in ("CISPLATIN", "DOCETAXEL", "PLX.4720")} == {
        "CISPLATIN": 119, "DOCETAXEL": 39, "PLX.4720": 88,
    }  # fmt: skip
    with pytest.raises(KeyError, match="drug: got 'ASPIRIN', expected one of the 83"):
        gdsc.load_bulk("ASPIRIN")
