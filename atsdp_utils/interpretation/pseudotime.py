"""Diffusion pseudotime by scanpy (section 3.7) on an AnnData made by :func:`neighbourhood`."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as sps

DIFFUSION_COMPONENTS = 10


def centre_groups(X: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Subtract from every cell the mean of its group, (n, genes): a known difference that is not the question."""
    X = np.array(X, dtype=np.float32)
    for name in np.unique(group):
        X[group == name] -= X[group == name].mean(axis=0)
    return X


def neighbourhood(X: np.ndarray, obs: pd.DataFrame, *, n_pcs: int, n_neighbors: int = 15, seed: int = 0):
    """AnnData with PCA, neighbour graph and diffusion map of cells `X` (n, genes); `obs` has one row a cell."""
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(np.asarray(X, dtype=np.float32), obs=obs.reset_index(drop=True).rename(index=str))
    sc.pp.pca(adata, n_comps=n_pcs, random_state=seed)
    sc.pp.neighbors(adata, n_neighbors=n_neighbors, random_state=seed)
    sc.tl.diffmap(adata, n_comps=DIFFUSION_COMPONENTS, random_state=seed)
    return adata


def root_without_labels(adata, signature: np.ndarray) -> int:
    """Extreme of the first moving diffusion component, where `signature` (n,) is lower: no cell's label is read.

    Diffusion gives two ends and no direction. Here `signature` is a resistance score that bulk lines define.
    """
    component = np.asarray(adata.obsm["X_diffmap"][:, 1], dtype=np.float64)
    rises = sps.spearmanr(component, signature).statistic >= 0
    return int(np.argmin(component) if rises else np.argmax(component))


def root_from_labels(adata, sensitive: np.ndarray) -> int:
    """Root as the paper's figure implies it: the sensitive cell at the largest mean distance from resistant cells."""
    sensitive = np.asarray(sensitive, dtype=bool)
    distance = diffusion_distances(adata)[np.ix_(sensitive, ~sensitive)]
    mean = np.where(np.isfinite(distance), distance, 0).mean(axis=1)
    return int(np.flatnonzero(sensitive)[np.argmax(mean)])


def pseudotime(adata, root: int) -> np.ndarray:
    """Diffusion pseudotime from cell `root`, (n,) in [0, 1]; infinite in other components of the graph."""
    import scanpy as sc

    adata.uns["iroot"] = int(root)
    sc.tl.dpt(adata, n_dcs=DIFFUSION_COMPONENTS)
    return adata.obs["dpt_pseudotime"].to_numpy(dtype=np.float64)


def diffusion_distances(adata) -> np.ndarray:
    """Distance between all pairs of cells that :func:`pseudotime` scales to [0, 1], (n, n); row i has root i."""
    from scipy.sparse.csgraph import connected_components

    values = np.asarray(adata.uns["diffmap_evals"], dtype=np.float64)
    # scanpy keeps near-stationary components (eigenvalue >= 0.9994) with weight 1.
    moving = values < 0.9994
    weight = np.where(moving, values / np.where(moving, 1 - values, 1.0), 1.0)
    scaled = np.asarray(adata.obsm["X_diffmap"], dtype=np.float64) * weight
    square = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(axis=-1)
    component = connected_components(adata.obsp["connectivities"])[1]
    return np.where(component[:, None] == component[None, :], np.sqrt(square), np.inf)


def all_roots(adata, values: np.ndarray) -> np.ndarray:
    """Spearman correlation of pseudotime with `values` for every cell as the root, (n,)."""
    distance = diffusion_distances(adata)
    result = np.full(len(distance), np.nan)
    for i, row in enumerate(distance):
        reached = np.isfinite(row)
        if reached.sum() > 2:
            result[i] = sps.spearmanr(row[reached], values[reached]).statistic
    return result


def paga(adata, groups: str) -> pd.DataFrame:
    """PAGA connectivities between the groups of ``obs[groups]``, one row a pair, in alphabetical order."""
    import scanpy as sc

    adata.obs[groups] = adata.obs[groups].astype("category")
    sc.tl.paga(adata, groups=groups)
    matrix = adata.uns["paga"]["connectivities"].toarray()
    pairs = combinations(enumerate(adata.obs[groups].cat.categories), 2)
    rows = [(a, b, matrix[i, j]) for (i, a), (j, b) in pairs]
    return pd.DataFrame(rows, columns=["a", "b", "connectivity"])


def smooth(
    time: np.ndarray, Y: np.ndarray, *, width: float = 0.1, points: int = 50, n_boot: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expression along pseudotime: Gaussian kernel mean over the rank of pseudotime, with bootstrap bands over cells.

    `width` is the standard deviation of the kernel, as a share of the cells. Returns the mean and the lower and upper
    pointwise 95 % band of `Y` (n, genes), each (points, genes), on an even grid over [0, 1].
    """
    position = (sps.rankdata(time) - 0.5) / len(time)
    kernel = np.exp(-0.5 * ((np.linspace(0, 1, points)[:, None] - position) / width) ** 2)
    counts = np.random.default_rng(seed).multinomial(len(time), np.full(len(time), 1 / len(time)), size=n_boot)

    def mean(weight: np.ndarray) -> np.ndarray:
        return weight @ Y / weight.sum(axis=1, keepdims=True)

    low, high = np.percentile(np.stack([mean(kernel * c) for c in counts]), [2.5, 97.5], axis=0)
    return mean(kernel), low, high
