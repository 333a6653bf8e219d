"""Cells and profiles that carry the label of a cell line: mixology (counts of lung lines) and CCLE (RNA-seq)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc
from atsdp_utils.data.preprocess import bulk_spelling
from atsdp_utils.foundation import paths
from atsdp_utils.foundation.checksums import verify

if TYPE_CHECKING:
    from anndata import AnnData

#: Raw counts of cells of known lines, by the name of the set.
MIXOLOGY = {
    "mixology-5": "mixology_5lines_celseq2_counts.h5ad",
    "mixology-3": "mixology_3lines_celseq2_counts.h5ad",
}


@dataclass(frozen=True)
class Profiles:
    """RNA-seq of CCLE lines, z-scored by gene over all of them, with two sets of calls, GDSC's and CCLE's."""

    X: np.ndarray  # (lines, genes) float32
    lines: np.ndarray  # names in the spelling of the bulk matrix
    genes: np.ndarray
    calls: pd.DataFrame  # rows (CCLE) of the label table: 1 sensitive, 0 resistant, NaN none; lines x drugs
    gdsc_calls: pd.DataFrame  # the same of the GDSC line of that name


def load_mixology(name: str) -> AnnData:
    """Raw counts of a set of :data:`MIXOLOGY`; ``obs`` has ``line``, ``batch``, and no label of a cell.

    The five lines are in the bulk matrix under the same names. Labels of a line are those of :func:`gdsc.label_table`,
    which the file repeats as ``line_label_<DRUG>``; what differs from the table is an error.
    """
    import anndata

    if name not in MIXOLOGY:
        raise KeyError(f"name: got {name!r}, expected one of {', '.join(MIXOLOGY)}")
    adata = anndata.read_h5ad(verify(paths.DATA / MIXOLOGY[name]))
    line = adata.obs["gdsc_line"].astype(str)
    bulk = gdsc.load_bulk().lines
    if unknown := sorted(set(line) - set(bulk)):
        raise ValueError(f"data/{MIXOLOGY[name]}: lines {unknown} are not in the bulk matrix")
    told = adata.obs.filter(like="line_label_").rename(columns=lambda c: c.removeprefix("line_label_"))
    told = told.astype(object).where(told.notna(), None).groupby(line).first()
    told = told.apply(lambda c: c.map({"sensitive": 1.0, "resistant": 0.0}))
    if not told.equals(gdsc.label_table().reindex(index=told.index, columns=told.columns).astype(float)):
        raise ValueError(f"data/{MIXOLOGY[name]}: line_label_<DRUG> differs from {gdsc.LABEL_FILE.name}")
    adata.obs = pd.DataFrame({"line": pd.Categorical(line), "batch": adata.obs["batch"]}, index=adata.obs_names)
    adata.var = pd.DataFrame({"ortholog": bulk_spelling(adata.var_names)}, index=adata.var_names)
    adata.uns = {"origin": "GSE118767, sc_mixology, CEL-seq2", "tier": "real"}
    return adata


def load_ccle() -> Profiles:
    """CCLE lines with a row in the label table, their expression and both sets of calls."""
    with np.load(verify(paths.DATA / "ccle_expr_580x706_z.npz"), allow_pickle=False) as z:
        X, ids, names, genes = (z[k] for k in ("X", "depmap_id", "ccle_name", "gene"))
    table = gdsc.labels_of_both_databases()
    rows = np.isin(ids, table.index)
    if not rows.any() or len(set(names)) < len(names):
        raise ValueError("data/ccle_expr_580x706_z.npz: expected lines of the label table, each name once")
    lines = names[rows].astype(str)
    calls = table.loc[ids[rows]].set_axis(lines)
    gdsc_calls = gdsc.label_table().reindex(lines)
    return Profiles(X[rows].astype(np.float32), lines, bulk_spelling(genes), calls, gdsc_calls)


def ln_ic50(lines: tuple[str, ...]) -> pd.DataFrame:
    """ln IC50 of `lines` by screen, drug and line where it was measured (low is sensitive); repeats are averaged.

    Names of drugs are those of the label table, names of lines those of the bulk matrix: capitals and digits only.
    """
    table = pd.read_csv(verify(paths.DATA / "gdsc_response_selected_drugs.csv.gz"))
    line = table["CELL_LINE_NAME"].str.upper().str.replace(r"[^A-Z0-9]", "", regex=True)
    table = table.assign(line=line, drug=table["DRUG_NAME"].str.upper().str.replace("-", "."))
    table = table.rename(columns={"dataset": "screen", "LN_IC50": "ln_ic50"})
    table = table[table["line"].isin(lines) & table["drug"].isin(gdsc.drugs())]
    if (table.groupby("line")["CELL_LINE_NAME"].nunique() > 1).any():
        raise ValueError("lines: a name stands for two lines of the response table (TT and T-T, KM-H2 and KMH-2)")
    return table.groupby(["screen", "drug", "line"], as_index=False)["ln_ic50"].mean()
