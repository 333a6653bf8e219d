"""What diffusion pseudotime by scanpy (section 3.7) leaves open: roots and genes, on an AnnData with its map."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats as sps
from scipy.sparse.csgraph import connected_components

from atsdp_utils.evaluation import stats


def root_without_labels(adata, signature: np.ndarray) -> int:
    """Row of the cell at the end of the first moving diffusion component where `signature` is lower.

    Parameters
    ----------
    adata : AnnData
        Cells after ``sc.tl.diffmap``. No label of theirs is read.
    signature : (n,)
        Resistance of each cell by bulk lines. Only its order counts.
    """
    component = np.asarray(adata.obsm["X_diffmap"][:, np.argmax(_moving(adata))], dtype=np.float64)
    rises = sps.spearmanr(component, signature).statistic >= 0
    return int(np.argmin(component) if rises else np.argmax(component))


def root_from_labels(adata, sensitive: np.ndarray) -> int:
    """Root from the labels: row of the sensitive cell at the largest mean distance from resistant cells.

    Parameters
    ----------
    adata : AnnData
        Cells after ``sc.pp.neighbors`` and ``sc.tl.diffmap``.
    sensitive : (n,) bool
        Which cells are sensitive; all others are resistant. One that the graph does not reach counts as distance 0.
    """
    sensitive = np.asarray(sensitive, dtype=bool)
    distance = diffusion_distances(adata)[np.ix_(sensitive, ~sensitive)]
    mean = np.where(np.isfinite(distance), distance, 0).mean(axis=1)
    return int(np.flatnonzero(sensitive)[np.argmax(mean)])


def _moving(adata) -> np.ndarray:
    """Which components tell cells of one component of the graph apart: scanpy takes eigenvalues below 0.9994."""
    return np.asarray(adata.uns["diffmap_evals"]) < 0.9994


def diffusion_distances(adata) -> np.ndarray:
    """Distance between all pairs of cells that ``sc.tl.dpt`` scales to [0, 1], (n, n); row i has root i."""
    values = np.asarray(adata.uns["diffmap_evals"], dtype=np.float64)
    moving = _moving(adata)  # scanpy keeps the others with weight 1
    weight = np.where(moving, values / np.where(moving, 1 - values, 1.0), 1.0)
    scaled = np.asarray(adata.obsm["X_diffmap"], dtype=np.float64) * weight
    square = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(axis=-1)
    component = connected_components(adata.obsp["connectivities"])[1]
    return np.where(component[:, None] == component[None, :], np.sqrt(square), np.inf)


def all_roots(adata, values: np.ndarray) -> np.ndarray:
    """Spearman correlation of pseudotime with `values` (n,) for every cell as the root.

    Returns
    -------
    (n,)
        Correlation over the cells that each root reaches; NaN where they are fewer than three, the root included.
    """
    distance = diffusion_distances(adata)
    result = np.full(len(distance), np.nan)
    for i, row in enumerate(distance):
        reached = np.isfinite(row)
        if reached.sum() > 2:
            result[i] = sps.spearmanr(row[reached], values[reached]).statistic
    return result


def genes_along(time: np.ndarray, X: np.ndarray, genes: Sequence[str]) -> pd.DataFrame:
    """Spearman correlation of every gene of X (n, genes) with `time` (n,), over the cells that it reaches (finite).

    A time made from these genes is not independent of them: p is no evidence that a gene changes.

    Returns
    -------
    DataFrame
        One row for each gene: ``gene, rho``, two-sided ``p``, ``padj`` (Benjamini-Hochberg). A gene that does not vary
        has rho 0 and p 1.
    """
    reached = np.isfinite(time)
    rho = stats.correlations(sps.rankdata(X[reached], axis=0), sps.rankdata(time[reached]))
    rho = np.nan_to_num(rho).clip(-1, 1)
    free = reached.sum() - 2
    p = 2 * sps.t.sf(np.abs(rho) * np.sqrt(free / np.maximum(1 - rho**2, 1e-300)), free)
    return pd.DataFrame({"gene": np.asarray(genes), "rho": rho, "p": p, "padj": sps.false_discovery_control(p)})


def smooth(
    time: np.ndarray, Y: np.ndarray, *, width: float = 0.1, points: int = 50, n_boot: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian kernel mean of `Y` (n, genes) over the rank of pseudotime, and its 95 % band by a bootstrap of cells.

    Parameters
    ----------
    time, Y : (n,) and (n, genes)
        Pseudotime and expression. Cells that it does not reach (infinite) are left out.
    width, points : float and int
        Standard deviation of the kernel as a share of the cells, and places of the even grid over [0, 1].
    n_boot, seed : int
        Bootstrap draws, and what fixes them.

    Returns
    -------
    mean, low, high : (points, genes)
        The curve, and the limits of its band at each place.
    """
    reached = np.isfinite(time)
    time, Y = time[reached], Y[reached]
    position = (sps.rankdata(time) - 0.5) / len(time)
    kernel = np.exp(-0.5 * ((np.linspace(0, 1, points)[:, None] - position) / width) ** 2)
    counts = np.random.default_rng(seed).multinomial(len(time), np.full(len(time), 1 / len(time)), size=n_boot)

    def mean(weight: np.ndarray) -> np.ndarray:
        return weight @ Y / weight.sum(axis=1, keepdims=True)

    low, high = np.percentile(np.stack([mean(kernel * c) for c in counts]), [2.5, 97.5], axis=0)
    return mean(kernel), low, high
