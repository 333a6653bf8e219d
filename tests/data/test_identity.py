"""Identity of data: labels at their lines, drugs at their columns, classes and sizes as the public files print them."""

import csv
import gzip

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from atsdp_utils.data import datasets, gdsc, preprocess, twins
from atsdp_utils.experiments import pseudo
from atsdp_utils.foundation import config, paths
from atsdp_utils.own_cells import predict, prediction
from atsdp_utils.reporting import plots, plots_biology


@pytest.fixture(scope="module")
def published() -> dict[tuple[str, str], str]:
    """(line, drug) to the word in the label file, read without the package; of two lines TT the one that is kept."""
    words = {}
    with gzip.open(paths.DATA / "scdeal_labels_gdsc_804x83.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            if row["cell_line"] != "TT" or row["cosmic"] == "930299":
                words |= {(row["cell_line"], k): v for k, v in row.items() if k not in ("cell_line", "cosmic")}
    return words


CODE = {"sensitive": 1, "resistant": 0, "": -1}


def test_labels_stand_at_their_lines_and_drugs_at_their_columns(published):
    bulk = gdsc.load_bulk()
    every = gdsc.all_labels(bulk.lines)
    drugs = gdsc.drugs()
    assert len(drugs) == every.shape[1] == 83 and (bulk.y == -1).all()
    expected = np.array([[CODE[published.get((line, d), "")] for d in drugs] for line in bulk.lines])
    np.testing.assert_array_equal(every, expected)
    for d in ("CISPLATIN", "DOCETAXEL", "I.BET.762", "PLX.4720", "AFATINIB", "SORAFENIB"):
        np.testing.assert_array_equal(gdsc.load_bulk(d).y, expected[:, drugs.index(d)])
        kept = gdsc.load_bulk(d, tuple(bulk.lines[::2]))
        assert kept.lines.tolist() == bulk.lines[1::2].tolist()
        np.testing.assert_array_equal(kept.y, expected[1::2, drugs.index(d)])
        np.testing.assert_array_equal(kept.X, bulk.X[1::2])


def test_a_bulk_source_keeps_labels_values_and_genes_together(published):
    bulk = gdsc.load_bulk("CISPLATIN")
    genes = bulk.genes[[700, 3, 41, 5000]]
    source = gdsc.bulk_source(bulk, genes, 0)
    held = set(gdsc.held_out_lines(0))
    assert source.train.tolist() == [line not in held for line in bulk.lines] and len(held) == 195
    assert source.y.tolist() == [CODE[published.get((line, "CISPLATIN"), "")] for line in bulk.lines]
    np.testing.assert_array_equal(source.others[:, gdsc.drugs().index("CISPLATIN")], source.y)
    for j, g in enumerate((700, 3, 41, 5000)):
        raw = bulk.X[:, g].astype(float)
        z = (raw - raw[source.train].mean()) / raw[source.train].std()
        np.testing.assert_allclose(source.X[:, j], np.clip(z, -10, 10), rtol=1e-3, atol=1e-4)
    assert set(source.fit_rows) == set(np.flatnonzero(source.train & (source.y >= 0)))
    assert set(source.test_rows) == set(np.flatnonzero(~source.train & (source.y >= 0)))


def test_shared_genes_are_the_most_variable_of_the_bulk_and_columns_are_asked_by_name():
    rng = np.random.default_rng(0)
    genes = np.array([f"G{i}" for i in range(200)])
    X = rng.normal(size=(30, 200)) * np.linspace(0.1, 3, 200)
    bulk = gdsc.Bulk(X, np.arange(30).astype(str), genes, np.zeros(30, np.int8))
    measured = rng.permutation(genes[:150])
    chosen = gdsc.shared_genes(bulk, measured, 20)
    expected = {*genes[:150][np.argsort(-X[:, :150].var(0))[:20]]}
    assert set(chosen) == expected and [g for g in genes if g in expected] == chosen.tolist()
    table = np.tile(np.arange(150.0), (2, 1))
    found = preprocess.columns(table, measured, chosen)
    assert found[0].tolist() == [measured.tolist().index(g) for g in chosen]


# --- Table 2 and the paper's sets -------------------------------------------------------------------------------------


def test_table_2_is_what_the_paper_prints():
    printed = pd.read_csv(paths.PAPER / "table2.csv").set_index("dataset")
    assert set(printed.index) == set(config.TABLE2) == {"DATA1", "DATA2", "DATA3", "DATA4"}
    for name, row in printed.iterrows():
        a = config.TABLE2[name]
        widths = tuple(tuple(int(n) for n in row[c].split(",")) for c in ("encoder_dims", "predictor_dims"))
        assert (a.bottleneck, a.encoder, a.predictor, a.dropout) == (row["bottleneck"], *widths, row["dropout"]), name
        assert config.PAPER_EPOCHS == row["epochs"]
        for suffix in ("", "-sim", "-null-sim"):
            assert config.DATASETS[name + suffix].architecture == a
    best = pd.read_csv(paths.PAPER / "quoted_values.csv").query("where.str.startswith('fig3')")
    heads = dict(zip(best["dataset"], best["where"].str.split("=").str[1].astype(int), strict=True))
    assert {name: a.heads for name, a in config.TABLE2.items()} == heads
    paper = config.PROFILES["paper"].training
    stopped = {paper.epochs_dae, paper.epochs_predictor, paper.epochs_cells, paper.epochs_tune}
    assert stopped == {config.PAPER_EPOCHS}
    assert paper.epochs_transfer == 20  # nothing stops it, so it is fixed (see the ledger, 25)


def test_every_set_has_its_drug_species_and_tier():
    drug = {"DATA1": "CISPLATIN", "DATA2": "CISPLATIN", "DATA3": "DOCETAXEL", "DATA4": "I.BET.762"}
    for paper, name in drug.items():
        for suffix, tier in (("", "geo"), ("-sim", "simulated"), ("-null-sim", "simulated")):
            spec = config.DATASETS[paper + suffix]
            assert (spec.drug, spec.tier, spec.paper, spec.null) == (name, tier, paper, suffix == "-null-sim")
            assert spec.species == ("mouse" if paper == "DATA4" else "human")
    reals = {"A375-PLX4720": "PLX.4720", "SCC47-afatinib": "AFATINIB", "SCC47-sorafenib": "SORAFENIB"}
    assert {name: config.DATASETS[name].drug for name in reals} == reals and {s.tier for s in config.REAL} == {"real"}
    assert all(d in gdsc.drugs() for d in [*drug.values(), *reals.values()])


@pytest.mark.parametrize(
    ("paper", "file"),
    [("DATA1", "labels_GSE117872_HN120"), ("DATA2", "labels_GSE117872_HN137"), ("DATA3", "labels_GSE140440")],
)
def test_twins_have_the_classes_of_the_label_files(paper, file):
    printed = pd.read_csv(paths.DATA / f"{file}.csv")["sensitive"]
    counts = {1: 0, 0: 0}
    for group in twins.DESIGNS[paper].groups:
        counts[int(group.sensitive)] += group.cells
        assert group.strict in (group.sensitive, None)
    assert counts == printed.value_counts().to_dict()


def test_the_ibet_twin_has_the_published_conditions():
    groups = {g.culture: (g.cells, g.sensitive) for g in twins.DESIGNS["DATA4"].groups}
    assert groups == {
        "I-BET resistant": (345, False), "I-BET withdrawal": (340, False), "DMSO": (372, True),
        "I-BET 400 nM": (343, True), "101 CELL CONTROL": (4, None), "EMPTY": (15, None),
    }  # fmt: skip


def test_a_twins_direction_is_resistant_minus_sensitive_on_its_own_lines():
    bulk = gdsc.load_bulk("CISPLATIN")
    half = np.isin(bulk.lines, twins.direction_lines("CISPLATIN"))
    labelled = bulk.y >= 0
    assert half.sum() == pytest.approx(labelled.sum() / 2, abs=1) and not (half & ~labelled).any()
    expected = bulk.X[half & (bulk.y == 0)].mean(0) - bulk.X[half & (bulk.y == 1)].mean(0)
    np.testing.assert_allclose(twins.direction("CISPLATIN"), gdsc.RMA_SCALE * expected, rtol=1e-5)
    assert pseudo.EVIDENCE_SEED not in (twins.TWIN_SEED, twins.CALIBRATION_SEED, twins.DIRECTION_SEED)


# --- real cells -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["A375-PLX4720", "SCC47-afatinib", "SCC47-sorafenib"])
def test_cells_of_a_real_set_carry_the_label_of_their_own_drug(name):
    file, column = {
        "A375-PLX4720": ("a375_plx4720", "sensitive_PLX-4720"),
        "SCC47-afatinib": ("scc47_multidrug", "sensitive_Afatinib"),
        "SCC47-sorafenib": ("scc47_multidrug", "sensitive_Sorafenib"),
    }[name]
    raw = anndata.read_h5ad(paths.DATA / f"{file}.h5ad")
    adata = datasets.load_cells(name)
    cells = preprocess.to_cells(adata, config.DATASETS[name])
    expected = raw.obs[column].astype(int).loc[cells.cell_id].to_numpy()
    np.testing.assert_array_equal(cells.y, expected)
    np.testing.assert_array_equal(cells.strict, expected)
    resistant, sensitive = {
        "A375-PLX4720": ("A375 resistant culture", "A375 parental culture"),
        "SCC47-afatinib": ("SCC47, EpiSen low", "SCC47, EpiSen high"),
        "SCC47-sorafenib": ("SCC47, EpiSen high", "SCC47, EpiSen low"),
    }[name]
    assert cells.group.tolist() == [sensitive if v else resistant for v in expected]
    i = raw.obs_names.get_loc(cells.cell_id[7])
    raw.var_names = preprocess.bulk_spelling(raw.var_names)
    values = raw[i, cells.genes].X
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    np.testing.assert_allclose(cells.X[7], values.ravel(), rtol=1e-6)
    assert np.isnan(cells.library_size).all()


def test_the_two_drugs_of_scc47_are_complements_and_not_exchanged():
    afatinib, sorafenib = (datasets.load_cells(f"SCC47-{d}") for d in ("afatinib", "sorafenib"))
    assert (afatinib.obs["sensitive"].astype(int) + sorafenib.obs["sensitive"].astype(int) == 1).all()
    raw = anndata.read_h5ad(paths.DATA / "scc47_multidrug.h5ad").obs
    first = raw.index[0]
    assert bool(afatinib.obs.at[first, "sensitive"]) == bool(raw.at[first, "sensitive_Afatinib"])
    assert bool(sorafenib.obs.at[first, "sensitive"]) == bool(raw.at[first, "sensitive_Sorafenib"])


# --- from a loader to plain arrays ------------------------------------------------------------------------------------


@pytest.fixture
def counted() -> anndata.AnnData:
    """Counts of 30 cells on 260 genes, with the three labels; two symbols are doubled or missing."""
    rng = np.random.default_rng(0)
    X = rng.poisson(np.linspace(2, 9, 30)[:, None] * np.ones(260)).astype(np.float32)
    obs = pd.DataFrame({"culture": pd.Categorical(np.where(np.arange(30) < 15, "P", "M"))},
                       [f"cell{i}" for i in range(30)])  # fmt: skip
    obs["sensitive_paper"] = pd.array([True, False, None] * 10, "boolean")
    obs["sensitive"] = pd.array([True, None, None] * 5 + [None, False, None] * 5, "boolean")
    var = pd.DataFrame(index=[f"m{i}" for i in range(260)])
    var["ortholog"] = [f"G{i}" for i in range(260)]
    var.iloc[5, 0], var.iloc[6, 0] = "", "G7"
    return anndata.AnnData(sparse.csr_matrix(X), obs, var)


def test_library_size_is_the_count_before_normalisation(counted):
    spec = config.Dataset("made", "real", "CISPLATIN")
    cells = preprocess.to_cells(counted, spec)
    total = np.asarray(counted.X.sum(1)).ravel()
    np.testing.assert_array_equal(cells.library_size, total)
    assert np.ptp(total) > 100
    expected = np.log1p(1e4 * counted.X.toarray() / total[:, None])
    names = counted.var["ortholog"].tolist()
    for gene in ("G0", "G100", "G259"):
        j = cells.genes.tolist().index(gene)
        np.testing.assert_allclose(cells.X[:, j], expected[:, names.index(gene)], rtol=1e-5)


def test_both_countings_genes_and_names_stay_where_they_were(counted):
    cells = preprocess.to_cells(counted, config.Dataset("made", "real", "CISPLATIN"))
    assert cells.y.tolist() == [1, 0, -1] * 10
    assert cells.strict.tolist() == [1, -1, -1] * 5 + [-1, 0, -1] * 5
    assert cells.group.tolist() == ["P"] * 15 + ["M"] * 15 and cells.cell_id.tolist() == counted.obs_names.tolist()
    assert "" not in cells.genes and len(set(cells.genes)) == len(cells.genes) == 258
    assert cells.labelled.tolist() == [i for i in range(30) if i % 3 < 2]


def test_a_subsample_keeps_rows_together_and_shares_alike(counted):
    cells = preprocess.to_cells(counted, config.Dataset("made", "real", "CISPLATIN"))
    part = preprocess.subsample(cells, 12)
    at = [cells.cell_id.tolist().index(c) for c in part.cell_id]
    for field in ("X", "y", "strict", "group", "library_size"):
        np.testing.assert_array_equal(getattr(part, field), getattr(cells, field)[at])
    assert [at.count(i) for i in at] == [1] * 12
    strata = pd.Series([f"{g}{y}" for g, y in zip(part.group, part.y, strict=True)]).value_counts()
    assert strata.tolist() == [2] * 6


# --- what 1 and 0 are called ------------------------------------------------------------------------------------------


def test_one_is_sensitive_and_blue_wherever_classes_have_names_or_colours():
    assert plots.CLASS_NAME[1] == "sensitive" and plots.CLASS_NAME[0] == "resistant"
    assert plots.CLASS[1] == "#0072B2" and plots.CLASS[0] == "#D55E00"
    assert plots_biology.CLASSES == {"sensitive": plots.CLASS[1], "resistant": plots.CLASS[0]}
    low, high = plots_biology.RESPONSE(0.0), plots_biology.RESPONSE(1.0)
    assert low[0] > low[2] and high[2] > high[0]  # P(sensitive) = 0 is red, 1 is blue
    assert predict.SPELLINGS["sensitive"] == predict.SPELLINGS["responder"] == 1
    assert predict.SPELLINGS["resistant"] == predict.SPELLINGS["nonresponder"] == 0
    sets = prediction.SETS
    assert sets[1, 0] == "resistant" and sets[0, 1] == "sensitive" and sets[1, 1] == "both"
