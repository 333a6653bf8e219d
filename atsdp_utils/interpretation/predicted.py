"""Cells of a set with ATSDP-NET's predictions as Table 3 scores them, from the grid's cache where they are there."""

from typing import NamedTuple

import numpy as np

from atsdp_utils.evaluation import metrics
from atsdp_utils.experiments import grid, inputs, tables
from atsdp_utils.experiments.task import ATSDP, Result
from atsdp_utils.foundation import config


class Predicted(NamedTuple):
    """Labelled cells, and predictions of a model that was not trained on them."""

    X: np.ndarray  # (n, genes) expression as prepared, all measured genes
    genes: np.ndarray
    y: np.ndarray
    p: np.ndarray  # P(sensitive)
    fold: np.ndarray  # that predicted the cell
    group: np.ndarray  # culture
    cell_id: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """Predicted label: sensitive at P >= 0.5 (ambiguity 24)."""
        return (self.p >= 0.5).astype(int)


def results(name: str, profile: str, protocol: str, *, repeats: bool, **parallel) -> list[Result]:
    """Results of a set: the first repeat of S, or all `repeats`; all seeds of U."""
    data = "geo" if config.DATASETS[name].tier == "geo" else "embedded"
    wanted = (name, protocol, ATSDP, ())
    tasks = [t for t in tables.table3(data, profile) if (t.dataset, t.protocol, t.model, t.setting) == wanted]
    tasks = [t for t in tasks if repeats or t.repeat == 0]
    return grid.run(tasks, label=f"{name} {protocol}", **parallel)


def predictions(name: str, profile: str, *, protocol: str = "S", **parallel) -> Predicted:
    """ATSDP-NET's predictions of the labelled cells of a set.

    Parameters
    ----------
    name, profile : str
        A data set and a profile.
    protocol : {"S", "U"}
        Under S the first repeat of the cross-validation, in which the model of a cell saw no label of its fold; under U
        the mean of P over all seeds of the profile, whose models saw no label of any cell.
    **parallel
        ``jobs`` and ``backend`` of :func:`grid.run`, which trains what is not in the cache.
    """
    found = results(name, profile, protocol, repeats=False, **parallel)
    cells, first, row = inputs.cells_of(name, profile), found[0], found[0].row
    p = np.mean([r.p for r in found], axis=0)
    return Predicted(
        cells.X[row], cells.genes, first.y.astype(int), p, first.fold, cells.group[row], cells.cell_id[row]
    )


def without_folds(name: str, profile: str, *, most: int = 3, **parallel) -> dict[int, np.ndarray]:
    """Predicted labels of the cells outside a fold by models that saw no label of it.

    The cells outside are dealt to new folds and cross-validated among themselves.

    Parameters
    ----------
    name, profile, most : str, str and int
        A data set, a profile, and how many folds are left out in turn, from the first on.
    **parallel
        ``jobs`` and ``backend`` of :func:`grid.run`.

    Returns
    -------
    dict of int to (n,) int
        By fold, over the cells of :func:`predictions` under S: 1 sensitive, 0 resistant, -1 in the fold itself.
    """
    (first,) = results(name, profile, "S", repeats=False, **parallel)
    folds = np.unique(first.fold)[:most].tolist()
    found = grid.run([first.task.changed(without=k) for k in folds], label=f"{name} without a fold", **parallel)
    called = {k: np.full(len(first.row), -1) for k in folds}
    for k, result in zip(folds, found, strict=True):
        at = np.searchsorted(first.row, result.row)
        called[k][at] = result.p >= 0.5
    return called


def auc_by_seed(name: str, profile: str, **parallel) -> np.ndarray:
    """AUC under protocol U, one value a seed."""
    found = results(name, profile, "U", repeats=True, **parallel)
    return np.array([metrics.classification_metrics(r.y, r.p)["auc"] for r in found])
