"""What a task reads: cells, lines, columns, labels and folds. Nothing here is fitted but scales without labels."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from atsdp_utils.data import datasets, gdsc, preprocess
from atsdp_utils.experiments.task import Task
from atsdp_utils.foundation import cache, config, paths

#: Parts of a cross-validation inside the cells that a task ``without`` a fold has left.
WITHOUT_PARTS = 3


@lru_cache(maxsize=4)
def cells_of(dataset: str, profile: str) -> preprocess.Cells:
    """A prepared set, sub-sampled as the profile says, not standardised.

    Calls in a process share the arrays, which must not be changed.

    Parameters
    ----------
    dataset : str
        A name of :data:`config.DATASETS` that is prepared (:func:`datasets.prepare`).
    profile : str
        Its ``max_cells`` says about how many cells are drawn, with a fixed seed and equal shares of every culture and
        label; None keeps all.
    """
    return preprocess.subsample(datasets.load_prepared(dataset), config.profile(profile).max_cells)


@lru_cache(maxsize=4)
def source_of(dataset: str, profile: str, seed: int) -> preprocess.Source:
    """The bulk side of a set: cell lines on the genes shared with the cells, standardised on the training lines.

    Of the cells only the names of genes are read. Beside a twin, the lines that its response was estimated on are left
    out. Calls in a process share the arrays, which must not be changed.

    Parameters
    ----------
    dataset, profile : str
        As in :func:`cells_of`; the profile's ``max_genes`` bounds the number of genes.
    seed : int
        Draws the held-out fifth of the lines.
    """
    return datasets.source_domain(cells_of(dataset, profile), config.profile(profile).max_genes, seed)


def bulk_side(task: Task) -> preprocess.Source:
    """Bulk rows of a task: on the genes shared with its cells, or (protocol B) on the bulk's own."""
    if task.protocol != "B":
        return source_of(task.dataset, task.profile, task.seed_of("lines"))
    bulk = gdsc.load_bulk(task.dataset)
    genes = gdsc.shared_genes(bulk, bulk.genes, task.options.get("max_genes", len(bulk.genes)))
    return gdsc.bulk_source(bulk, genes, task.seed_of("lines"))


def learnt_from(task: Task) -> preprocess.Source:
    """The bulk side of a task under U; with ``permute_lines`` the labels of its lines change places, by the seed."""
    source = bulk_side(task)
    if not task.options.get("permute_lines"):
        return source
    y, known = source.y.copy(), np.flatnonzero(source.y >= 0)
    y[known] = np.random.default_rng([task.seed, 101]).permutation(y[known])
    return replace(source, y=y)


def library_size_only(task: Task) -> bool:
    """Whether the model of a task sees the library size and no gene."""
    return bool(task.baseline) and task.baseline.features == "library_size"


def features(task: Task, source: preprocess.Source) -> np.ndarray:
    """Columns that the model sees: shared genes, or the library size alone."""
    cells = cells_of(task.dataset, task.profile)
    if library_size_only(task):
        return np.log1p(np.nan_to_num(cells.library_size))[:, None].astype(np.float32)
    return preprocess.columns(cells.X, cells.genes, source.genes)


def unlabelled(task: Task, source: preprocess.Source) -> np.ndarray:
    """Cells as a model sees them that transfers to them: all of them, standardised on themselves. No label is read.

    Parameters
    ----------
    task : Task
        With ``gene_space`` = ``separate`` the genes are as many of the set's own most variable ones. Genes of equal
        variance, as in a set that was published z-scored by gene, come in an order drawn with a fixed seed.
    source : Source
        The bulk side, whose genes are taken otherwise.

    Returns
    -------
    (cells, genes) float32
        A single column, log1p of the library size, for a model that sees no gene.
    """
    X = features(task, source)
    if task.options.get("gene_space") == "separate":
        own = cells_of(task.dataset, task.profile).X
        drawn = np.random.default_rng(0).permutation(own.shape[1])
        most = np.lexsort((drawn, -np.round(own.var(0, dtype=np.float64), 4)))
        X = own[:, np.sort(most[: X.shape[1]])]
    return preprocess.Standardizer().fit_transform(X)


def labels(task: Task) -> np.ndarray:
    """Labels that the task learns and is scored on: the paper's counting, or the strict one, or shuffled ones.

    With ``all_wells`` what has no label counts as sensitive: the control and empty wells of DATA4 (ambiguity 19).
    """
    cells = cells_of(task.dataset, task.profile)
    y = (cells.strict if task.options.get("strict") else cells.y).copy()
    if task.options.get("all_wells"):
        y[y < 0] = 1
    if task.options.get("permute"):
        rows = np.flatnonzero(y >= 0)
        y[rows] = np.random.default_rng([task.seed, 77]).permutation(y[rows])
    return y


def splits(cells: preprocess.Cells, folds: int, repeat: int) -> np.ndarray:
    """Fold of each cell, (cells,), -1 without a label; stratified by label, saved once and shared by all models.

    Parameters
    ----------
    cells : Cells
        The set, as of :func:`cells_of`.
    folds, repeat : int
        Number of folds; which partition, the seed of the draw.

    Raises
    ------
    ValueError
        If there are more folds than cells of the rarer class.
    """
    rarest = int(np.bincount(cells.y[cells.labelled], minlength=2).min())
    if rarest < folds:
        raise ValueError(f"folds: got {folds} for {cells.name}, expected at most {rarest} (cells of the rarer class)")
    key = cache.key(cells.y, folds, repeat, cache.code("experiments.inputs._draw_splits"))
    path = paths.SPLITS / f"{cells.name}-{folds}fold-repeat{repeat}-{key}.npz"
    return cache.kept(path, _read_splits, lambda part: np.savez(part, fold=_draw_splits(cells, folds, repeat)))


def _read_splits(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as z:
        return z["fold"]


def _draw_splits(cells: preprocess.Cells, folds: int, repeat: int) -> np.ndarray:
    return _dealt(cells.y, cells.labelled, folds, repeat)


def _dealt(y: np.ndarray, rows: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each of the `rows` of y (n,), stratified; -1 elsewhere."""
    from sklearn.model_selection import StratifiedKFold

    fold = np.full(len(y), -1, np.int16)
    for i, (_, test) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, y[rows])):
        fold[rows[test]] = i
    return fold


def folds_of(task: Task, y: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Test and training rows of every fold of a task under protocol S.

    Rows without a label are in none. A stress split (``train_cultures``, ``test_cultures``) is one fold. With
    ``all_wells`` the wells that have a label by that alone are dealt to the folds, which stay as they are. With
    ``without`` the rows of that fold are in no part, and the others are dealt anew into :data:`WITHOUT_PARTS`.

    Parameters
    ----------
    task : Task
        Its data set, folds, repeat and options.
    y : (cells,)
        Its labels (:func:`labels`): 1, 0, or -1 without one.

    Yields
    ------
    int, (test,), (training,)
        Number of the fold, and indices of its test and training rows, which share none.
    """
    cells, options = cells_of(task.dataset, task.profile), task.options
    if "train_cultures" in options:
        test, train = (np.isin(cells.group, options[f"{part}_cultures"]) for part in ("test", "train"))
        yield 0, np.flatnonzero(test & ~train & (y >= 0)), np.flatnonzero(train & (y >= 0))
        return
    fold = np.where(y >= 0, splits(cells, task.folds, task.repeat).astype(int), -2)
    added = np.flatnonzero(fold == -1)  # wells that `all_wells` labels: dealt to the folds, which stay as they are
    fold[added] = np.arange(len(added)) % max(task.folds, 1)
    if "without" in options:  # the rows of this fold are in no part; the others are dealt anew
        others = np.flatnonzero((fold >= 0) & (fold != options["without"]))
        fold = _dealt(y, others, WITHOUT_PARTS, task.repeat)
    for i in range(fold.max() + 1):
        yield i, np.flatnonzero(fold == i), np.flatnonzero((fold != i) & (fold >= 0))
