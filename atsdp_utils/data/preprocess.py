"""Section 2.2 of the paper: quality control, normalisation, gene space, scaling, class balancing.

Quality control works on AnnData; everything that a training needs afterwards is plain arrays (:class:`Cells`,
:class:`Source`), so that workers of the grid never import scanpy. Whatever is fitted is fitted on training rows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.foundation import cache, config

if TYPE_CHECKING:
    from anndata import AnnData

MIN_GENES, MIN_CELLS, MAX_MITO = 200, 3, 0.10
#: Cells are scaled to this total before log1p.
TARGET_SUM = 1e4


@dataclass(frozen=True)
class Cells:
    """A single-cell set ready for training."""

    name: str
    tier: str
    drug: str
    X: np.ndarray  # (cells, genes) float32: log-normalised, or z-scored where so published; not yet standardised
    genes: np.ndarray  # (genes,) human symbols, unique
    y: np.ndarray  # (cells,) int8: 1 sensitive, 0 resistant, -1 no label, in the counting of the set's default
    strict: np.ndarray  # the same with drug-holiday cells unlabelled
    group: np.ndarray  # (cells,) culture or condition
    library_size: np.ndarray  # (cells,) float32 total counts; NaN where the published values do not hold them
    cell_id: np.ndarray

    @property
    def labelled(self) -> np.ndarray:
        """Rows with a label, as indices."""
        return np.flatnonzero(self.y >= 0)

    @cached_property
    def key(self) -> str:
        """Key of the expression: values and genes. Labels, cultures and library sizes are read by some tasks only."""
        return cache.key(self.X, self.genes)


@dataclass(frozen=True)
class Source:
    """Bulk rows on the genes of a single-cell set, standardised on their own training rows."""

    X: np.ndarray  # (lines, genes) float32
    y: np.ndarray  # (lines,) int8: 1 sensitive, 0 resistant, -1 no label
    genes: np.ndarray
    train: np.ndarray  # (lines,) bool: the 80 % that trainings may use; the rest is the held-out bulk test set
    others: np.ndarray | None = None  # (lines, drugs) int8: labels of every drug, for joint training

    @property
    def fit_rows(self) -> np.ndarray:
        """Labelled training lines, as indices."""
        return np.flatnonzero(self.train & (self.y >= 0))

    @property
    def test_rows(self) -> np.ndarray:
        """Labelled held-out lines, as indices."""
        return np.flatnonzero(~self.train & (self.y >= 0))


class Standardizer:
    """Per-gene mean 0 and standard deviation 1, fitted on training rows; constant genes become 0."""

    def fit(self, X: np.ndarray) -> Standardizer:
        """Learn the mean and standard deviation of each column of X (n, genes)."""
        self.mean_ = X.mean(0, dtype=np.float64)
        scale = X.std(0, dtype=np.float64)
        self.scale_ = np.where(scale > 1e-6, scale, np.inf)
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Standardise X (n, genes); float32, clipped to ten standard deviations."""
        return np.clip((X - self.mean_) / self.scale_, -10, 10).astype(np.float32)

    def fit_transform(self, X: np.ndarray) -> np.ndarray:
        """X (n, genes) standardised on itself."""
        return self.fit(X).transform(X)


def quality_control(adata: AnnData) -> tuple[AnnData, pd.DataFrame]:
    """The paper's three filters, on raw counts, in its order; nothing is normalised here.

    Cells with fewer than 200 genes, genes in fewer than 3 cells, and cells above 10 % mitochondrial counts are removed.
    Mitochondrial genes are found by symbol (human or mouse, so that Ensembl ids are no trap; ambiguity 17).

    Parameters
    ----------
    adata : AnnData
        Raw counts (cells, genes); ``var['ortholog']`` has human symbols. It is not changed.

    Returns
    -------
    tuple of AnnData and DataFrame
        A filtered copy, with the ``obs`` columns ``n_genes``, ``total_counts`` and ``mito_share``, all from before any
        gene was removed. The table has one row for the data as measured and one for each filter: ``rule,
        cells_removed, genes_removed, cells_left, genes_left, note``.
    """
    import scanpy as sc

    adata = adata.copy()
    names = adata.var["ortholog"].astype(str), adata.var_names.astype(str)
    mito = np.any([n.str.upper().str.startswith("MT-") for n in names], axis=0)
    adata.obs["n_genes"] = np.asarray((adata.X > 0).sum(1)).ravel()
    adata.obs["total_counts"] = np.asarray(adata.X.sum(1)).ravel()
    mito_counts = np.asarray(adata[:, mito].X.sum(1)).ravel()
    adata.obs["mito_share"] = mito_counts / np.maximum(adata.obs["total_counts"], 1)
    left = [("as measured", *adata.shape, "")]
    sc.pp.filter_cells(adata, min_genes=MIN_GENES)
    left.append((f"cells with < {MIN_GENES} genes", *adata.shape, ""))
    sc.pp.filter_genes(adata, min_cells=MIN_CELLS)
    left.append((f"genes in < {MIN_CELLS} cells", *adata.shape, ""))
    adata = adata[adata.obs["mito_share"] <= MAX_MITO].copy()
    note = f"{int(mito.sum())} mitochondrial genes" if mito.any() else "no mitochondrial genes measured: a no-op"
    left.append((f"cells with > {MAX_MITO:.0%} mitochondrial counts", *adata.shape, note))
    table = pd.DataFrame(left, columns=["rule", "cells_left", "genes_left", "note"])
    for i, what in enumerate(("cells", "genes")):
        table.insert(1 + i, f"{what}_removed", -table[f"{what}_left"].diff().fillna(0).astype(int))
    return adata, table


def normalise(adata: AnnData) -> AnnData:
    """Total-count normalisation to 10,000 and log1p, in a copy; each cell on its own, so nothing can leak."""
    import scanpy as sc

    adata = adata.copy()
    adata.X = adata.X.astype(np.float32)
    sc.pp.normalize_total(adata, target_sum=TARGET_SUM)
    sc.pp.log1p(adata)
    return adata


def bulk_spelling(symbols: np.ndarray) -> np.ndarray:
    """Symbols (n,) as the bulk matrix has them: it writes HLA.DRA for HLA-DRA, as R does, and no symbol has a dot."""
    return np.char.replace(np.asarray(symbols, str), "-", ".")


def to_cells(adata: AnnData, spec: config.Dataset) -> Cells:
    """Quality control and normalisation where the values are counts, then plain arrays on symbols of the bulk."""
    library = np.full(adata.n_obs, np.nan, np.float32)
    if spec.values == "counts":
        adata, _ = quality_control(adata)
        library = adata.obs["total_counts"].to_numpy(np.float32)
        adata = normalise(adata)
    symbol = bulk_spelling(adata.var["ortholog"].to_numpy(str))
    keep = (symbol != "") & ~pd.Series(symbol).duplicated().to_numpy()
    X = adata.X[:, keep]
    X = np.ascontiguousarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float32)

    def labels(column: str) -> np.ndarray:
        return adata.obs[column].astype("boolean").astype("Int8").fillna(-1).to_numpy(np.int8)

    return Cells(
        spec.name, spec.tier, spec.drug, X, symbol[keep], labels(spec.counting), labels("sensitive"),
        adata.obs["culture"].to_numpy(str), library, adata.obs_names.to_numpy(str),
    )  # fmt: skip


def subsample(cells: Cells, size: int | None, seed: int = 0) -> Cells:
    """About `size` cells in their old order, drawn with equal shares of every culture and label.

    Parameters
    ----------
    cells : Cells
        The whole set; its labels only say how many cells are drawn of each.
    size : int or None
        Number of cells, from which rounding may depart; `cells` itself if it is None or there are no more.
    seed : int
        Draws the cells; at least one is drawn of each culture with each label (-1, no label, counts as one).
    """
    if size is None or len(cells.y) <= size:
        return cells
    rng = np.random.default_rng(seed)
    strata = pd.Series(cells.group).str.cat(pd.Series(cells.y).astype(str), sep="|").to_numpy()
    fraction = size / len(cells.y)
    parts = []
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata == stratum)
        parts.append(rng.choice(rows, max(1, round(fraction * len(rows))), replace=False))
    rows = np.sort(np.concatenate(parts))
    per_cell = {f: getattr(cells, f)[rows] for f in ("X", "y", "strict", "group", "library_size", "cell_id")}
    return replace(cells, **per_cell)


def columns(X: np.ndarray, genes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Columns (n, k) of X in the order of the k genes that are wanted.

    Parameters
    ----------
    X, genes : (n, genes) and (genes,)
        Values, and the names of their columns, each of which must be there once.
    wanted : (k,)
        Names of the columns to take.

    Raises
    ------
    KeyError
        If one of `wanted` is not in `genes`.
    """
    position = pd.Index(genes).get_indexer(wanted)
    if (position < 0).any():
        raise KeyError(f"wanted: {(position < 0).sum()} genes are missing, first {wanted[position < 0][0]!r}")
    return X[:, position]


def standardised(cells: Cells, source: Source, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Cells on the genes of `source`, (cells, genes) float32, standardised on themselves: no label is seen.

    Parameters
    ----------
    cells, source : Cells, Source
        The cells, which must have all genes of `source`; no value of a line is used.
    rows : optional
        Indices, mask or slice of the cells to take; mean and standard deviation are theirs alone. By default all cells.
    """
    return Standardizer().fit_transform(columns(cells.X, cells.genes, source.genes)[rows])


def hold_out(n: int, share: float, seed: int, y: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows of `n`, sorted indices; stratified where every class has at least two rows.

    Rows are held out before :func:`balance` sees them, or copies and mixtures of training rows would be validated on.

    Parameters
    ----------
    n : int
        Number of rows.
    share : float
        Share of them that becomes validation rows, rounded up.
    seed : int
        Draws the validation rows.
    y : (n,), optional
        Labels, 0 or 1, by which the draw is stratified; it is not if `share` times n is below the number of classes.
    """
    from sklearn.model_selection import train_test_split

    stratify = y if y is not None and np.bincount(y).min() >= 2 and share * n >= len(np.unique(y)) else None
    train, validation = train_test_split(np.arange(n), test_size=share, random_state=seed, stratify=stratify)
    return np.sort(train), np.sort(validation)


def balance(X: np.ndarray, y: np.ndarray, how: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Balance the classes of training rows (section 2.2; Table 1).

    SMOTE needs more minority rows than neighbours: with fewer than 6 it uses fewer neighbours, with one it falls back
    to duplicating.

    Parameters
    ----------
    X, y : (n, genes) and (n,)
        Training rows only, and their labels in {0, 1}.
    how : str
        One of :data:`config.BALANCING`.
    seed : int
        Draws copies, synthetic rows, or rows that are left out.

    Returns
    -------
    tuple
        X, y and weights. Only ``class_weight`` gives weights, (n,) float32 with mean 1, and leaves the rows unchanged;
        else they are None. Classes that are equal already, or of which one is missing, are left as they are.

    Raises
    ------
    ValueError
        If `how` is none of these strategies.
    """
    if how not in config.BALANCING:
        raise ValueError(f"how: got {how!r}, expected one of {', '.join(config.BALANCING)}")
    counts = np.bincount(y, minlength=2)
    if how == "none" or counts.min() == 0 or counts[0] == counts[1]:
        return X, y, None
    if how == "class_weight":
        return X, y, (len(y) / (2 * counts))[y].astype(np.float32)
    from imblearn.over_sampling import SMOTE, RandomOverSampler
    from imblearn.under_sampling import RandomUnderSampler

    neighbours = min(5, counts.min() - 1)
    if how == "undersampling":
        sampler = RandomUnderSampler(random_state=seed)
    elif how == "smote" and neighbours:
        sampler = SMOTE(random_state=seed, k_neighbors=neighbours)
    else:
        sampler = RandomOverSampler(random_state=seed)
    X, y = sampler.fit_resample(X, y)
    return X.astype(np.float32), y.astype(np.int8), None


def louvain(X: np.ndarray, seed: int, neighbours: int = 15, components: int = 30) -> np.ndarray:
    """Louvain clusters of the kNN graph of principal components, (n,) int64 (the CC of equation 17).

    If there are no more cells than `neighbours`, all are in cluster 0.

    Parameters
    ----------
    X : (n, genes)
        Cells, standardised; no label is read.
    seed : int
        Rules the randomised principal components and the clustering.
    neighbours, components : int
        Neighbours of each cell in the graph, and principal components at most.
    """
    import igraph
    from sklearn.decomposition import PCA
    from sklearn.neighbors import kneighbors_graph

    n = len(X)
    if n <= neighbours:
        return np.zeros(n, np.int64)
    Z = PCA(min(components, n - 1, X.shape[1]), random_state=seed, svd_solver="randomized").fit_transform(X)
    rows, cols = kneighbors_graph(Z, neighbours).nonzero()
    graph = igraph.Graph(n, edges=list(zip(rows.tolist(), cols.tolist(), strict=True))).simplify()
    igraph.set_random_number_generator(random.Random(seed))
    return np.asarray(graph.community_multilevel().membership, np.int64)
