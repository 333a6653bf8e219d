"""Loaders of the embedded data: bulk expression and labels, and the real single-cell sets.

Single cells arrive as AnnData with ``obs`` = ``culture`` (the group that the label is a property of: a culture, or for
SCC47 an end of an expression score), ``sensitive`` (nullable; missing for drug-holiday cells, controls and empty wells)
and ``sensitive_paper`` (the paper's counting, ambiguities 19 and 20); ``var['ortholog']`` is the human symbol. scanpy
and anndata are imported only by the functions that need them, so that workers stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.foundation import cache, config, paths
from atsdp_utils.foundation.checksums import register, verify

if TYPE_CHECKING:
    from anndata import AnnData

BULK_FILE = paths.DATA / "gdsc_expr_975x6163.npz"
LABEL_FILE = paths.DATA / "scdeal_labels_gdsc_804x83.csv.gz"
LABEL_FILE_ALL = paths.DATA / "scdeal_labels_all_1280x83.csv.gz"
RESPONSE_FILE = paths.DATA / "gdsc_response_selected_drugs.csv.gz"
#: RMA = RMA_SCALE * z + RMA_OFFSET undoes the z-scoring within lines (log2 units, approximately).
RMA_SCALE, RMA_OFFSET = 2.126, 4.666
#: Two COSMIC ids carry the name TT; this one is kept (data/README.md says why).
TT_COSMIC = 930299

#: File, column of the label, and what the sensitive and the resistant cells are. SCC47 is one culture that no drug
#: touched: the two groups are the ends of an expression score, exchanged for sorafenib (data/README.md).
_REAL = {
    "A375-PLX4720": ("a375_plx4720.h5ad", "sensitive_PLX-4720", "A375 parental culture", "A375 resistant culture"),
    "SCC47-afatinib": ("scc47_multidrug.h5ad", "sensitive_Afatinib", "SCC47, EpiSen high", "SCC47, EpiSen low"),
    "SCC47-sorafenib": ("scc47_multidrug.h5ad", "sensitive_Sorafenib", "SCC47, EpiSen low", "SCC47, EpiSen high"),
}


@dataclass(frozen=True)
class Bulk:
    """Bulk expression of cell lines.

    Attributes
    ----------
    X
        (lines, genes) float32, z-scored within each line.
    lines, genes
        Names, (lines,) and (genes,).
    y
        (lines,) int8: 1 sensitive, 0 resistant, -1 no label.
    """

    X: np.ndarray
    lines: np.ndarray
    genes: np.ndarray
    y: np.ndarray


@lru_cache(maxsize=1)
def _expression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(verify(BULK_FILE), allow_pickle=False) as z:
        return z["X"].astype(np.float32), z["cell_line"].astype(str), z["gene"].astype(str)


@lru_cache(maxsize=2)
def label_table(*, both_databases: bool = False) -> pd.DataFrame:
    """The public label table: 803 GDSC lines x 83 drugs, or all 1,280 rows (GDSC and CCLE, labels only).

    Values are 1 (sensitive) or 0 (resistant). The index is the line name, or the row's id in the large table.
    """
    if both_databases:
        table = pd.read_csv(verify(LABEL_FILE_ALL), index_col=0)
    else:
        table = pd.read_csv(verify(LABEL_FILE))
        table = table[(table.cell_line != "TT") | (table.cosmic == TT_COSMIC)]
        table = table.set_index("cell_line").drop(columns="cosmic")
    return (table == "sensitive").astype("int8").where(table.notna())


def drugs() -> list[str]:
    """The 83 drugs of the label table, in its spelling."""
    return list(label_table().columns)


def all_labels(lines: np.ndarray) -> np.ndarray:
    """Labels of every drug for `lines`, (lines, drugs) int8: 1 sensitive, 0 resistant, -1 no label."""
    return label_table().reindex(lines).fillna(-1).to_numpy(np.int8)


def load_bulk(drug: str | None = None, exclude: tuple[str, ...] = ()) -> Bulk:
    """Bulk expression with the labels of one drug: the source domain.

    Parameters
    ----------
    drug
        A column of the label table, see :func:`drugs`; None: expression only, every label -1.
    exclude
        Lines to leave out (the half on which a twin's response direction was estimated).

    Raises
    ------
    KeyError
        If the drug is not in the table.
    """
    X, lines, genes = _expression()
    y = np.full(len(lines), -1, np.int8)
    if drug is not None:
        labels = label_table()
        if drug not in labels:
            raise KeyError(f"drug: got {drug!r}, expected one of the 83 of {LABEL_FILE.name} (see datasets.drugs())")
        y = labels[drug].reindex(lines).fillna(-1).to_numpy(np.int8)
    keep = ~np.isin(lines, exclude)
    return Bulk(X[keep], lines[keep], genes, y[keep])


@lru_cache(maxsize=128)
def bulk_key(drug: str | None = None) -> str:
    """Key of the bulk values, lines and genes, and of the labels of one drug (None: of no drug)."""
    if drug is None:
        return cache.key(*_expression())
    return cache.key(bulk_key(), load_bulk(drug).y)


def load_response(drug: str) -> pd.DataFrame:
    """GDSC ln IC50 and AUC of one of the 12 drugs embedded: CELL_LINE_NAME, DRUG_NAME, LN_IC50, AUC, dataset."""
    table = pd.read_csv(verify(RESPONSE_FILE))
    found = table[table.DRUG_NAME.str.upper() == drug.upper()]
    if found.empty:
        raise KeyError(f"drug: got {drug!r}, expected one of {', '.join(sorted(table.DRUG_NAME.unique()))}")
    return found


def load_cells(name: str) -> AnnData:
    """Single cells of any tier by name, as AnnData (see the module's text for the columns).

    Raises
    ------
    KeyError
        If the name is unknown.
    """
    if name not in config.DATASETS:
        raise KeyError(f"name: got {name!r}, expected one of {', '.join(config.DATASETS)}")
    spec = config.DATASETS[name]
    if spec.tier == "geo":
        from atsdp_utils.data import geo

        return geo.load(name)
    if spec.tier == "simulated":
        return _load_twin(name)
    return _load_real(name)


def cells_key(name: str) -> str:
    """Key of the single cells of any tier: what their loader reads, and its code."""
    spec = config.DATASETS[name]
    about = name, spec.tier, spec.drug, spec.paper, spec.values, spec.species, spec.null
    if spec.tier == "geo":
        from atsdp_utils.data import geo

        return cache.key(about, geo.recorded(name), cache.code("geo.load"))
    if spec.tier == "simulated":
        return cache.key(about, bulk_key(spec.drug), cache.code("data.twins.make_twin"))
    file, *columns = _REAL.get(name, (f"{name}.h5ad",))
    return cache.key(
        about, register().get(file), columns, cache.code("data.datasets._load_real", cut=("data.datasets._REAL",))
    )


def load_pc9() -> AnnData:
    """PC9 after 11 days of erlotinib: 1,529 cells of raw UMI counts, resistant class only. For quality control."""
    import anndata

    adata = anndata.read_h5ad(verify(paths.DATA / "pc9_erlotinib_day11_counts.h5ad"))
    adata.obs["culture"] = pd.Categorical(["PC9 erlotinib day 11"] * adata.n_obs)
    adata.uns["tier"] = "real"
    return adata


def _load_real(name: str) -> AnnData:
    import anndata

    if name not in _REAL:
        return _load_added(name)
    file, column, *groups = _REAL[name]
    adata = anndata.read_h5ad(verify(paths.DATA / file))
    sensitive = adata.obs[column].astype("boolean")
    culture = np.where(sensitive, *groups)
    adata.obs = pd.DataFrame({"culture": pd.Categorical(culture), "sensitive": sensitive}, index=adata.obs_names)
    adata.obs["sensitive_paper"] = sensitive
    adata.var["ortholog"] = adata.var_names.to_numpy(str)
    adata.uns = {"origin": str(adata.uns["source"]), "values": str(adata.uns["values"]), "tier": "real"}
    return adata


def _load_added(name: str) -> AnnData:
    """Read a real set that only :data:`config.REAL` names: ``data/<name>.h5ad`` with human gene symbols."""
    import anndata

    adata = anndata.read_h5ad(verify(paths.DATA / f"{name}.h5ad"))
    if missing := [c for c in ("culture", "sensitive") if c not in adata.obs]:
        raise ValueError(f"data/{name}.h5ad: obs has no {missing}; expected the culture and sensitive (true or false)")
    adata.obs["culture"] = adata.obs["culture"].astype("category")
    adata.obs["sensitive"] = adata.obs["sensitive_paper"] = adata.obs["sensitive"].astype("boolean")
    adata.var["ortholog"] = adata.var_names.to_numpy(str)
    adata.uns = {"origin": str(adata.uns.get("origin", "not stated")), "tier": "real"}
    return adata


def _load_twin(name: str) -> AnnData:
    import anndata

    from atsdp_utils.data import twins

    path = paths.DATASETS / f"{name}-{cells_key(name)}.h5ad"
    return cache.kept(path, anndata.read_h5ad, lambda temporary: twins.make_twin(name).write_h5ad(temporary))
