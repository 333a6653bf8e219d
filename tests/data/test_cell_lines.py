"""Mixology, CCLE and ln IC50: the embedded files are what they are said to be, and what differs is an error."""

import anndata
import numpy as np
import pandas as pd
import pytest

from atsdp_utils.data import cell_lines, gdsc
from atsdp_utils.foundation import paths


@pytest.mark.parametrize(
    ("name", "shape", "cells"),
    [
        ("mixology-5", (571, 15_004), {"A549": 186, "NCIH838": 146, "NCIH1975": 89, "NCIH2228": 85, "HCC827": 65}),
        ("mixology-3", (240, 18_692), {"NCIH1975": 103, "HCC827": 70, "NCIH2228": 67}),
    ],
)
def test_mixology_is_raw_counts_of_lines_of_the_bulk(name, shape, cells):
    adata = cell_lines.load_mixology(name)
    assert adata.shape == shape and adata.obs["line"].value_counts().to_dict() == cells
    assert (adata.X.data == np.round(adata.X.data)).all() and adata.X.data.min() > 0
    assert set(cells) <= set(gdsc.load_bulk().lines) and not set(cells) & set(gdsc.load_bulk(exclude=(*cells,)).lines)
    assert list(adata.obs) == ["line", "batch"] and adata.uns["tier"] == "real"


def test_drugs_with_both_classes_among_the_lines():
    lines = sorted(cell_lines.load_mixology("mixology-5").obs["line"].unique())
    truth = gdsc.label_table().reindex(lines)
    assert (truth.nunique() == 2).sum() == 40 and truth.loc["NCIH838"].isna().all()
    assert (truth.loc[["NCIH1975", "NCIH2228", "HCC827"]].nunique() == 2).sum() == 32


def _miniature(folder, monkeypatch, **obs):
    adata = anndata.AnnData(np.ones((2, 3), np.float32), pd.DataFrame(obs, index=["a", "b"]))
    adata.write_h5ad(folder / cell_lines.MIXOLOGY["mixology-5"])
    monkeypatch.setattr(paths, "DATA", folder)
    monkeypatch.setattr(cell_lines, "verify", lambda path: path)


def test_a_label_that_differs_from_the_table_is_found(tmp_path, monkeypatch):
    true = {0.0: "resistant", 1.0: "sensitive"}[gdsc.label_table().loc["A549", "ERLOTINIB"]]
    wrong = {"resistant": "sensitive", "sensitive": "resistant"}[true]
    of = {"gdsc_line": ["A549", "NCIH838"], "batch": "x"}
    _miniature(tmp_path, monkeypatch, **of, line_label_ERLOTINIB=pd.Categorical([true, None]))
    assert cell_lines.load_mixology("mixology-5").n_obs == 2
    _miniature(tmp_path, monkeypatch, **of, line_label_ERLOTINIB=pd.Categorical([wrong, None]))
    with pytest.raises(ValueError, match="line_label_<DRUG> differs"):
        cell_lines.load_mixology("mixology-5")


def test_a_line_that_could_not_leave_the_bulk_is_found(tmp_path, monkeypatch):
    gdsc.load_bulk()
    _miniature(tmp_path, monkeypatch, gdsc_line=["A549", "H-838"], batch="x", line_label_ERLOTINIB="resistant")
    with pytest.raises(ValueError, match="'H-838'.* not in the bulk"):
        cell_lines.load_mixology("mixology-5")
    with pytest.raises(KeyError, match="mixology-5, mixology-3"):
        cell_lines.load_mixology("mixology-4")


def test_ccle_lines_are_those_with_calls_and_most_are_gdsc_lines_under_the_same_name():
    ccle = cell_lines.load_ccle()
    assert ccle.X.shape == (293, 706) and ccle.X.dtype == np.float32
    assert list(ccle.calls.index) == list(ccle.gdsc_calls.index) == list(ccle.lines)
    common = ccle.gdsc_calls.notna().any(axis=1)
    assert common.sum() == 288 and set(ccle.lines[common]) <= set(gdsc.load_bulk().lines)
    genes = np.intersect1d(ccle.genes, gdsc.load_bulk().genes)
    assert len(genes) == 330
    # The same line on both platforms: expression agrees over lines, gene by gene.
    bulk = pd.DataFrame(gdsc.load_bulk().X, gdsc.load_bulk().lines, gdsc.load_bulk().genes)
    both = pd.DataFrame(ccle.X, ccle.lines, ccle.genes).loc[common.to_numpy(), genes]
    assert both.corrwith(bulk.loc[both.index, genes]).median() > 0.75
    same = (ccle.calls == ccle.gdsc_calls)[common.to_numpy()].mean()
    assert same.median() > 0.6 and same.max() < 1


def test_ln_ic50_by_the_names_of_table_and_matrix():
    table = cell_lines.ln_ic50(("HCC827", "NCIH838", "A549"))
    assert set(table["drug"]) <= set(gdsc.drugs()) and not table.duplicated(["screen", "drug", "line"]).any()
    gefitinib = table.query("drug == 'GEFITINIB' and screen == 'GDSC2'").set_index("line")["ln_ic50"]
    assert gefitinib.idxmin() == "HCC827" and len(gefitinib) == 3
    with pytest.raises(ValueError, match="two lines"):
        cell_lines.ln_ic50(("TT", "A549"))
