"""Every shape of one set of cells gives its scores, or a message; no file fails after training."""

import itertools
import os
import random
import re
from dataclasses import replace
from types import SimpleNamespace

import anndata
import cells_fixtures as shapes
import h5py
import numpy as np
import pandas as pd
import pytest
from cells_fixtures import SETTINGS, Linear
from scipy import sparse

from atsdp_utils.data import gdsc
from atsdp_utils.foundation import config, paths
from atsdp_utils.own_cells import cell_values, output, page, predict, prediction
from atsdp_utils.own_cells.cellfile import FORMATS, OF_GENES, InputError, names_of_no_gene

CASES = int(os.environ.get("ATSDP_FUZZ_CASES", 300))
DRUG = "CISPLATIN"


@pytest.fixture
def linear(run_folders, monkeypatch):
    """The pipeline with the training, the picture and the page left out; runs a case."""
    shapes.learn_by(monkeypatch, Linear)
    monkeypatch.setattr(predict, "unlikeness", lambda *_, **__: {})
    monkeypatch.setattr(predict.embedding, "umap", lambda X, seed: np.zeros((len(X), 2)))
    monkeypatch.setattr(page, "render", lambda found, y: output.PAGE.decode())

    def run(path, drug=DRUG, **options):
        said = []
        found = predict.predict(path, drug, settings=SETTINGS, say=said.append, **options)
        return found, "\n".join(said)

    return run


# --- shapes -----------------------------------------------------------------------------------------------------------

EVERY = [c for c in itertools.product(shapes.CONTAINERS, shapes.NAMINGS, shapes.VALUES, shapes.CONTAMINATIONS)
         if shapes.possible(*c)]  # fmt: skip


PLAIN: list[np.ndarray] = []


def scores_of_the_plain_file(linear, folder) -> np.ndarray:
    """Computed once."""
    if not PLAIN:
        folder.mkdir()
        PLAIN.append(linear(shapes.make(folder, "h5ad", "symbols", "counts", "none").path)[0].p)
    return PLAIN[0]


def check(linear, folder, shape) -> None:
    """Labels and order of the plain file, or the message expected and nothing written; what is no cell has no score."""
    plain = scores_of_the_plain_file(linear, folder.with_name("plain"))
    folder.mkdir()
    case = shapes.make(folder, *shape)
    before = {p.name for p in folder.iterdir()}
    if case.message:
        with pytest.raises(InputError, match=case.message):
            linear(case.path, **case.options)
        assert {p.name for p in folder.iterdir()} == before
        return
    found, _ = linear(case.path, **case.options)
    p = found.p[case.rows]
    assert np.isnan(np.delete(found.p, case.rows)).all() and not np.isnan(p).any()
    assert pd.Series(p).corr(pd.Series(plain), method="spearman") >= 0.999
    clear = np.abs(plain - 0.5) > (0.01 if shape[2] in ("zscored", "half") else 0)  # the two round what they hold
    assert ((p >= 0.5) == (plain >= 0.5))[clear].all()
    for out in folder.glob("*.atsdp.h5ad"):
        np.testing.assert_array_equal(anndata.read_h5ad(out).obs.atsdp_p_sensitive, found.p)


@pytest.mark.parametrize("shape", random.Random(0).sample(EVERY, CASES // 8), ids="-".join)
@pytest.mark.filterwarnings("ignore")
def test_a_shape_gives_the_scores_of_the_plain_file(linear, tmp_path, shape):
    check(linear, tmp_path / "it", shape)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(CASES < 2000, reason="the long run, ATSDP_FUZZ_CASES=2000")
@pytest.mark.filterwarnings("ignore")
def test_every_shape_gives_the_scores_of_the_plain_file(linear, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "check_output", lambda *_: None)  # what is written and said of a sample of the shapes
    monkeypatch.setattr(predict.cache, "write_atomically", lambda *_: None)
    monkeypatch.setattr(prediction, "company", lambda *_: {})
    failed = {}
    for i, shape in enumerate(EVERY):
        try:
            check(linear, tmp_path / str(i), shape)
        except (AssertionError, InputError) as error:
            failed["-".join(shape)] = str(error)[:200]
    assert not failed


# --- the same cells, the same answer ----------------------------------------------------------------------------------

TINY = replace(
    SETTINGS, model="network", max_genes=110, sample=40,  # fewer than there are cells: a draw must not know their order
    arch=config.Architecture(bottleneck=32, encoder=(16,), predictor=(8,), heads=2, tokens=4, token_dim=8),
    training=replace(config.PROFILES["smoke"].training, balance="oversampling"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_networks_answer_alike_whatever_the_file_looks_like(run_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "unlikeness", lambda *_, **__: {})
    monkeypatch.setattr(predict.embedding, "umap", lambda X, seed: np.zeros((len(X), 2)))
    monkeypatch.setattr(page, "render", lambda found, y: output.PAGE.decode())
    counts = shapes.plain()
    logs = np.log1p(counts / counts.sum(axis=1).to_numpy()[:, None] * 1e4)
    order = np.random.default_rng(3).permutation(len(counts))

    def score(name, X, rows=None, **settings):
        cells = pd.DataFrame(index=counts.index if rows is None else counts.index[rows])
        anndata.AnnData(X, cells, pd.DataFrame(index=counts.columns)).write_h5ad(tmp_path / f"{name}.h5ad")
        p = predict.predict(tmp_path / f"{name}.h5ad", DRUG, settings=replace(TINY, **settings), say=lambda _: None).p
        return p if rows is None else p[np.argsort(rows)]

    whole = counts.to_numpy(np.float32)
    plain = score("plain", whole)
    np.testing.assert_array_equal(score("again", whole), plain)
    np.testing.assert_array_equal(score("sparse", sparse.csr_matrix(whole)), plain)
    np.testing.assert_array_equal(score("half", whole.astype(np.float16)), plain)
    np.testing.assert_array_equal(score("order", whole[order], order), plain)
    np.testing.assert_array_equal(score("jobs", whole, jobs=2), plain)
    np.testing.assert_allclose(score("chunks", whole, chunk=7), plain, atol=1e-5)
    np.testing.assert_array_equal(score("logs", logs.to_numpy(np.float32)), plain)
    np.testing.assert_array_equal(score("cpm", np.expm1(logs).to_numpy(np.float32) * 100), plain)
    # z-scores are rounded after the depth and level of a gene are taken off, which nobody can undo
    z = score("z", ((logs - logs.mean()) / logs.std()).to_numpy(np.float32))
    assert pd.Series(z).corr(pd.Series(plain), method="spearman") > 0.99
    assert 0 < np.abs(z - plain).max() < 0.05


# --- nothing fails after training -------------------------------------------------------------------------------------

COLUMNS = {
    "whole": np.arange(60), "bytes": np.arange(60, dtype=np.int8), "half": np.arange(60, dtype=np.float16),
    "missing": np.where(np.arange(60) < 5, np.nan, 1.5), "flag": np.arange(60) % 2 == 0,
    "nullable whole": pd.array([None, *range(59)], "Int32"), "nullable flag": pd.array([None, *[True] * 59], "boolean"),
    "nullable words": pd.array([None, *["a"] * 59], "string"), "words": ["a"] * 60,
    "category": pd.Categorical(["a", None] * 30), "numbers as category": pd.Categorical([1, 2] * 30),
    "ordered": pd.Categorical(["low", "high"] * 30, ["low", "high"], ordered=True),
}  # fmt: skip
#: Kinds that no h5ad holds but a table in memory may have.
OTHERS = {
    "mixed": [1, "a", None] * 20, "none": [None] * 60, "days": pd.date_range("2024-01-01", periods=60),
    "spans": pd.to_timedelta(np.arange(60), "s"), "bins": pd.cut(np.arange(60), 3), "lists": [[1]] * 60,
}  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An h5ad with every kind of column that it can hold."""
    path = tmp_path_factory.mktemp("kinds") / "mine.h5ad"
    counts = shapes.plain()
    adata = anndata.AnnData(counts.to_numpy(np.float32), pd.DataFrame(COLUMNS, counts.index), counts.iloc[:0].T)
    with anndata.settings.override(allow_write_nullable_strings=True):
        adata.write_h5ad(path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_drug_and_every_kind_of_column_is_written_and_read_back(linear, file, tmp_path):
    without = []
    for drug in gdsc.drugs():
        found, _ = linear(file, drug, out=tmp_path / "out.h5ad")
        obs = anndata.read_h5ad(tmp_path / "out.h5ad").obs
        (tmp_path / "out.h5ad").unlink()
        assert list(obs.columns) == [*COLUMNS, *found.columns]
        for name in COLUMNS:
            given = pd.Series(COLUMNS[name], obs.index)
            assert (obs[name].astype(object).fillna("?") == given.astype(object).fillna("?")).all(), name
        assert obs.atsdp_conformal.notna().all() and obs.atsdp_label.notna().all()
        without += [drug] if found.sets is None else []
        assert (found.sets is None) == (set(obs.atsdp_conformal) == {"no set"})
    assert {"DOCETAXEL", "SORAFENIB"} < set(without) and len(without) == 10


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_networks_of_drugs_with_few_held_out_lines_are_written_and_read_back(run_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "unlikeness", lambda *_, **__: dict.fromkeys(("mmd2", "mmd2_lines", "auc"), 0.5))
    counts = shapes.plain()
    anndata.AnnData(counts).write_h5ad(tmp_path / "mine.h5ad")
    held = np.isin(gdsc.load_bulk().lines, gdsc.held_out_lines(0))
    lines = {d: np.bincount(gdsc.load_bulk(d).y[held] + 1, minlength=3)[1:].min() for d in gdsc.drugs()}
    few = [d for d, n in lines.items() if n < prediction.FEWEST]
    assert len(few) == 10
    for drug in few:
        predict.predict(tmp_path / "mine.h5ad", drug, settings=TINY, say=lambda _: None)
        obs = anndata.read_h5ad(tmp_path / f"mine.{drug}.atsdp.h5ad").obs
        assert set(obs.atsdp_conformal) == {"no set"} and obs.atsdp_p_sensitive.notna().all()
        assert (tmp_path / f"mine.{drug}.atsdp.html").stat().st_size > 10_000


def test_columns_that_no_h5ad_can_hold_are_written_as_text():
    frame = pd.DataFrame(COLUMNS | OTHERS)
    frame = pd.concat([frame, frame[["whole"]], frame[["flag"]].set_axis(["_index"], axis=1)], axis=1)
    obs, notes = output.writable(frame.rename_axis("whole"))
    assert list(obs.columns)[-2:] == ["whole_1", "index_"] and obs.index.name is None
    assert {n.split()[1] for n in notes if "as text" in n} <= set(OTHERS) and "column whole is called whole_1" in notes[
        0
    ]
    with h5py.File("x", "w", driver="core", backing_store=False) as f, output.any_strings():
        anndata.io.write_elem(f, "obs", obs)
        back = anndata.io.read_elem(f["obs"])
    assert list(back.columns) == list(obs.columns) and back.mixed[1] == "a" and back.days[0].startswith("2024-01-01")


def test_tables_with_doubled_names(linear, tmp_path):
    counts = shapes.plain()
    words = pd.DataFrame({0: "a", 1: "b", 2: "c"}, counts.index).set_axis(["note", "note", "_index"], axis=1)
    pd.concat([counts, words], axis=1).to_csv(tmp_path / "cells.csv")
    rows = pd.DataFrame([["x"] * 60, ["y"] * 60], ["batch", "batch"], counts.index)
    pd.concat([rows, counts.T]).to_csv(tmp_path / "rows.csv")
    linear(tmp_path / "cells.csv")
    linear(tmp_path / "rows.csv")
    obs = [anndata.read_h5ad(tmp_path / f"{name}.{DRUG}.atsdp.h5ad").obs for name in ("cells", "rows")]
    assert list(obs[0].columns[:3]) == ["note", "note_1", "index_"] and list(obs[1].columns[:2]) == ["batch", "batch_1"]
    assert set(obs[1].batch) == {"x"} and set(obs[1].batch_1) == {"y"}


@pytest.mark.parametrize("which", ["output", "cache"])
def test_a_folder_that_is_full_or_closed_is_told_before_training(linear, file, tmp_path, monkeypatch, which):
    monkeypatch.setattr(Linear, "fit_transfer", lambda *_: pytest.fail("trained"))
    blocked = tmp_path / "blocked"
    blocked.write_text("a file in the place of a folder")
    if which == "cache":
        monkeypatch.setattr(paths, "CACHE", blocked / "cache")
        with pytest.raises(InputError, match="blocked.*cannot be written to.*ATSDP_BUILD"):
            linear(file, out=tmp_path / "out.h5ad")
    usage = output.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match="0 MB free, .* needed; make room or choose another with --out"):
        linear(file, out=tmp_path / "out.h5ad")
    assert not list(tmp_path.glob(".part*")) and not (tmp_path / "out.h5ad").exists()


# --- a person's files -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_drug_keeps_the_first(linear, file, tmp_path):
    one, two = tmp_path / "mine.h5ad", tmp_path / f"mine.{DRUG}.atsdp.h5ad"
    one.write_bytes(file.read_bytes())
    first, _ = linear(one)
    kept = two.read_bytes()
    linear(one, "docetaxel")
    assert two.read_bytes() == kept and (tmp_path / "mine.DOCETAXEL.atsdp.h5ad").exists()
    with pytest.raises(InputError, match="holds the scores of CISPLATIN of mine.h5ad, which are kept"):
        linear(one, "docetaxel", out=two)
    linear(two, "docetaxel")  # the file with scores may itself be scored: both are in the third
    both = anndata.read_h5ad(tmp_path / f"mine.{DRUG}.DOCETAXEL.atsdp.h5ad")
    np.testing.assert_array_equal(both.obs[f"atsdp_p_sensitive_{DRUG}"], first.p)
    assert (both.uns["atsdp"]["drug"], both.uns[f"atsdp_{DRUG}"]["drug"]) == ("DOCETAXEL", DRUG)
    linear(tmp_path / f"mine.{DRUG}.DOCETAXEL.atsdp.h5ad")  # and again for the first: the latest scores count
    linear(tmp_path / f"mine.{DRUG}.DOCETAXEL.{DRUG}.atsdp.h5ad", "erlotinib")
    all_three = anndata.read_h5ad(tmp_path / f"mine.{DRUG}.DOCETAXEL.{DRUG}.ERLOTINIB.atsdp.h5ad")
    assert {c for c in all_three.obs if c.startswith("atsdp_p_sensitive")} == {
        "atsdp_p_sensitive", f"atsdp_p_sensitive_{DRUG}", "atsdp_p_sensitive_DOCETAXEL",
    }  # fmt: skip


def test_a_file_of_another_kind_is_never_overwritten(linear, file, tmp_path):
    thesis = tmp_path / "thesis.h5ad"
    anndata.AnnData(np.ones((2, 3))).write_h5ad(thesis)
    kept = thesis.read_bytes()
    with pytest.raises(InputError, match="thesis.h5ad: holds no scores of this command, and is kept. Choose another"):
        linear(file, out=thesis)
    assert thesis.read_bytes() == kept


def test_scores_of_another_file_and_pages_of_others_are_kept(linear, file, tmp_path):
    one, two, scores = tmp_path / "one.h5ad", tmp_path / "two.h5ad", tmp_path / "s.h5ad"
    one.write_bytes(file.read_bytes())
    two.write_bytes(file.read_bytes())
    linear(one, out=scores)
    linear(one, out=scores)  # of the same file they are replaced
    kept = scores.read_bytes()
    with pytest.raises(InputError, match="holds the scores of CISPLATIN of one.h5ad, which are kept"):
        linear(two, out=scores)
    other = tmp_path / "B" / "one.h5ad"  # of the same name, as every 10x matrix is, with other cells
    other.parent.mkdir()
    adata = anndata.read_h5ad(one)
    adata.obs_names = [f"other-{name}" for name in adata.obs_names]
    adata.write_h5ad(other)
    with pytest.raises(InputError, match="holds the scores of other cells, which are kept"):
        linear(other, out=scores)
    notes = tmp_path / "notes.html"
    notes.write_text("<h1>Mine</h1>")
    with pytest.raises(InputError, match="notes.html: no page of this command, and is kept. Choose another"):
        linear(one, report=notes)
    assert scores.read_bytes() == kept and notes.read_text() == "<h1>Mine</h1>"


def test_scores_of_a_link_lie_beside_the_link(linear, file, tmp_path):
    (tmp_path / "link.h5ad").symlink_to(file)
    linear(tmp_path / "link.h5ad")
    assert (tmp_path / f"link.{DRUG}.atsdp.h5ad").exists() and [p.name for p in file.parent.iterdir()] == ["mine.h5ad"]


def test_a_path_with_spaces(linear, file, tmp_path):
    folder = tmp_path / "my cells, 2"
    folder.mkdir()
    (folder / "day 3.h5ad").write_bytes(file.read_bytes())
    linear(folder / "day 3.h5ad")
    assert (folder / f"day 3.{DRUG}.atsdp.html").exists()


def test_several_patients_are_said(linear, tmp_path):
    counts = shapes.plain()
    adata = anndata.AnnData(counts, pd.DataFrame({"patient": ["a", "b", "c"] * 20, "n": 1}, counts.index))
    adata.write_h5ad(tmp_path / "mine.h5ad")
    found, _ = linear(tmp_path / "mine.h5ad")
    assert [w for w in found.facts["warnings"] if w.startswith("3 values of patient: genes are standardised over all")]
    ways = ("{}-1-{}", "{}-1_{}", "{}_{}", "{}-{}", "s{1}_{0}-1", "s{1}:{0}x")
    for way in ways:  # as scanpy, Seurat, Cell Ranger and velocyto mark the barcodes of a sample
        names = [way.format("ACGTACGTACGTACGT", i % 2) for i in range(60)]
        assert len(prediction.origins(pd.DataFrame(index=names))) == 1, way
    lanes = pd.DataFrame(index=[f"ACGTACGTACGTACGT-{i % 2 + 1}" for i in range(60)])
    assert prediction.origins_said(prediction.origins(lanes))[0].startswith(
        "2 values of what stands beside the barcodes"
    )


def test_cells_of_unlike_depth_are_cells_and_reasons_are_written(linear, tmp_path):
    counts = shapes.plain()
    shallow = np.random.default_rng(0).binomial(counts.to_numpy(int), np.where(np.arange(60) < 20, 0.15, 1)[:, None])
    empty = np.zeros((1, counts.shape[1]))
    X = np.vstack([shallow, empty]).astype(np.float32)
    cells = pd.DataFrame(index=[f"c{i}" for i in range(61)])
    for values in (X, np.log1p(X / np.maximum(X.sum(1, keepdims=True), 1) * 1e4)):
        anndata.AnnData(values, cells, pd.DataFrame(index=counts.columns)).write_h5ad(tmp_path / "mine.h5ad")
        linear(tmp_path / "mine.h5ad")
        obs = anndata.read_h5ad(tmp_path / f"mine.{DRUG}.atsdp.h5ad").obs
        assert list(obs.atsdp_reason) == ["scored"] * 60 + ["zero on every gene used"]


def scored(linear, path, X, **columns):
    """Which rows have a score, and what is said of depth."""
    cells = pd.DataFrame(columns, [f"c{i}" for i in range(len(X))])
    anndata.AnnData(X.astype(np.float32), cells, pd.DataFrame(index=shapes.plain().columns)).write_h5ad(path)
    found, _ = linear(path)
    return ~np.isnan(found.p), [w for w in found.facts["warnings"] if "less deep than the others: a raw matrix" in w]


def test_depth_is_judged_within_batches_and_two_kinds_of_depth_are_said(linear, tmp_path):
    counts, rng, path = shapes.plain().to_numpy(int), np.random.default_rng(0), tmp_path / "mine.h5ad"
    droplets = rng.poisson(counts.mean(0) / 12, (600, counts.shape[1]))
    rows, said = scored(linear, path, np.vstack([counts, droplets]))
    assert rows[:60].all() and len(said) == 1  # most of the counts are in droplets, which is said
    deep, shallow = counts * 60, rng.binomial(np.vstack([counts] * 3), 0.4)
    both, batch = np.vstack([deep, shallow]), ["deep"] * 60 + ["shallow"] * 180
    rows, said = scored(linear, path, both, batch=batch)
    assert rows.all() and not said
    rows, said = scored(linear, path, both)
    assert rows[:60].all() and len(said) == 1
    spread = rng.poisson(counts * np.exp(np.linspace(0, 8, 60)[:, None]))
    rows, said = scored(linear, path, spread)
    assert rows.all()  # one kind of cells, of very unlike depth
    rows, said = scored(linear, path, counts)
    assert rows.all() and not said


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_on_own_cells_names_what_the_code_knows():
    text = " ".join((paths.BOOK / "own-cells.md").read_text().split())
    kinds = set(names_of_no_gene()) - {OF_GENES}
    for said in (*cell_values.REASONS, *kinds, "`--values`", "`--layer`", "`--species mouse`"):
        assert said in text, said
    for suffix in re.findall(r"\.\w+", FORMATS):
        assert suffix in text, suffix


def test_the_yardstick_of_unlikeness_does_not_follow_the_order_of_the_lines():
    rng = np.random.default_rng(0)
    cells, lines = rng.normal(size=(60, 20)), rng.normal(size=(200, 20)) + np.repeat([0, 3], 100)[:, None]
    given = SimpleNamespace(seen=cells.astype(np.float32), seed=0)
    in_order, mixed = (
        predict.unlikeness(SimpleNamespace(X=X.astype(np.float32)), given) for X in (lines, rng.permutation(lines))
    )
    assert in_order["mmd2_lines"] < 0.1 < in_order["mmd2"]
    assert in_order["mmd2_lines"] == pytest.approx(mixed["mmd2_lines"], abs=0.05)
