"""Tier ``real``: the embedded single-cell sets, with the group that a label is a property of and the label itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.foundation import cache, paths
from atsdp_utils.foundation.checksums import register, verify

if TYPE_CHECKING:
    from anndata import AnnData

#: File, column of the label, and what the sensitive and the resistant cells are. SCC47 is one culture that no drug
#: touched: the two groups are the ends of an expression score, exchanged for sorafenib (data/README.md).
_REAL = {
    "A375-PLX4720": ("a375_plx4720.h5ad", "sensitive_PLX-4720", "A375 parental culture", "A375 resistant culture"),
    "SCC47-afatinib": ("scc47_multidrug.h5ad", "sensitive_Afatinib", "SCC47, EpiSen high", "SCC47, EpiSen low"),
    "SCC47-sorafenib": ("scc47_multidrug.h5ad", "sensitive_Sorafenib", "SCC47, EpiSen low", "SCC47, EpiSen high"),
}


def load_pc9() -> AnnData:
    """PC9 after 11 days of erlotinib: 1,529 cells of raw UMI counts, resistant class only. For quality control."""
    import anndata

    adata = anndata.read_h5ad(verify(paths.DATA / "pc9_erlotinib_day11_counts.h5ad"))
    adata.obs["culture"] = pd.Categorical(["PC9 erlotinib day 11"] * adata.n_obs)
    return adata


def load(name: str) -> AnnData:
    """Embedded cells; a set that only :data:`config.REAL` names is ``data/<name>.h5ad`` with human gene symbols."""
    import anndata

    file, column, *groups = _REAL.get(name, (f"{name}.h5ad", "sensitive"))
    adata = anndata.read_h5ad(verify(paths.DATA / file))
    needed = {column} if groups else {"culture", column}
    if missing := sorted(needed - set(adata.obs)):
        raise ValueError(f"data/{file}: obs has no {missing}; expected the culture and sensitive (true or false)")
    sensitive = adata.obs[column].astype("boolean")
    culture = np.where(sensitive, *groups) if groups else adata.obs["culture"]
    obs = {"culture": pd.Categorical(culture), "sensitive": sensitive, "sensitive_paper": sensitive}
    adata.obs = pd.DataFrame(obs, index=adata.obs_names)
    adata.var["ortholog"] = adata.var_names.to_numpy(str)
    origin = adata.uns.get("source", adata.uns.get("origin", "not stated"))
    adata.uns = {"origin": str(origin), "tier": "real"}
    return adata


def key(name: str) -> str:
    """Key of what :func:`load` reads, and of its code."""
    file, *columns = _REAL.get(name, (f"{name}.h5ad",))
    return cache.key(register().get(file), columns, cache.code("data.real_cells.load", cut=("data.real_cells._REAL",)))
