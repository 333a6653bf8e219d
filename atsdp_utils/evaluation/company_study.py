"""On what cells are standardised: ways compared by held-out evidence from cell lines, without a label of a real cell.

A cluster of bulk lines is left out and becomes cells (:mod:`pseudo`), in files that hold the classes in given shares.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.stats import zscore

from atsdp_utils.data import gdsc, preprocess, real_cells
from atsdp_utils.data.preprocess import Standardizer
from atsdp_utils.evaluation import metrics, two_way
from atsdp_utils.experiments import pseudo
from atsdp_utils.models import plus

#: Ways of standardising, the one in use first.
FILE, BULK, REFERENCE, RANKS = WAYS = ("the file", "the bulk", "real cells (PC9)", "ranks within the cell")
#: Shares of sensitive cells in a file.
SHARES = (0.2, 0.5, 0.8)
MEASURES = ["auc", "balanced_accuracy", "labels_changed"]
SEEDS, GENES = (0, 1, 2), 500


def in_a_way(way: str, lines: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, Callable]:
    """Lines as a model sees them, and the function that does the same to the cells of a file."""
    if way == RANKS:
        return plus.ranks(lines), plus.ranks
    if way == BULK:
        of_rows = Standardizer().fit(zscore(lines, axis=1))  # rows over their own genes, as the bulk is published
        return of_rows.transform(zscore(lines, axis=1)), lambda cells: of_rows.transform(zscore(cells, axis=1))
    if way == REFERENCE:  # the embedded counts of one culture, whose genes were not centred before
        adata = preprocess.normalise(real_cells.load_pc9())
        reference = preprocess.columns(adata.X.toarray(), adata.var_names.to_numpy(str), genes)
        return Standardizer().fit_transform(lines), Standardizer().fit(reference).transform
    return Standardizer().fit_transform(lines), lambda cells: Standardizer().fit_transform(cells)


def files(drugs: int | None = None) -> Iterator[dict]:
    """A row for each drug, cluster, way and share: AUC, balanced accuracy at 0.5, and labels that change."""
    measured = real_cells.load_pc9().var_names.to_numpy(str)
    for drug, seed in itertools.product(pseudo.drugs()[:drugs], SEEDS):
        bulk, target = gdsc.load_bulk(drug), pseudo.held_out_cluster(drug, seed)
        cluster = pseudo.clusters()[target][0]
        genes, labels = gdsc.shared_genes(bulk, measured, GENES), bulk.y[~target]
        outside = preprocess.columns(bulk.X, bulk.genes, genes)[~target]
        labelled = np.flatnonzero(target & (bulk.y >= 0))
        cells = preprocess.columns(pseudo.pseudo_cells(tuple(bulk.lines[labelled]), seed), bulk.genes, genes)
        y = np.repeat(bulk.y[labelled], pseudo.CELLS_PER_LINE)
        mixes = {share: pseudo.mix(y, share, seed) for share in SHARES}
        for way in WAYS:
            lines, same = in_a_way(way, outside, genes)
            model = plus.logistic().fit(lines[labels >= 0], labels[labels >= 0])
            whole = model.predict(same(cells))
            for share, rows in mixes.items():
                p = model.predict_proba(same(cells[rows]))[:, 1]
                scores = metrics.classification_metrics(y[rows], p)
                yield {"drug": drug, "cluster": cluster, "standardised": way, "share": share, "cells": len(rows),
                       "auc": scores["auc"], "balanced_accuracy": scores["balanced_accuracy"],
                       "labels_changed": ((p >= 0.5) != whole[rows]).mean()}  # fmt: skip


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over tasks, each a mean over shares, with 95 % intervals clustered by drug and by cluster of lines.

    A row a way; for each measure the mean, ``_low``, ``_high``, and the same of its paired difference to standardising
    on the file, ``_gain``.
    """
    tasks = rows.groupby(["standardised", "drug", "cluster"])[MEASURES].mean()
    out = []
    for way in WAYS:
        own = tasks.loc[way]
        found, groups = {"standardised": way, "tasks": len(own)}, [own.index.get_level_values(i) for i in (0, 1)]
        gains = (own - tasks.loc[FILE]).add_suffix("_gain")
        for name, values in (own if way == FILE else own.join(gains)).items():
            limits = two_way.interval(values, *groups)
            found |= dict(zip((name, f"{name}_low", f"{name}_high"), limits, strict=True))
        out.append(found)
    return pd.DataFrame(out)
