"""On what cells are standardised: ways compared by held-out evidence from cell lines, without a label of a real cell.

A cluster of bulk lines is left out and becomes cells (:mod:`pseudo`), in files that hold the classes in unequal shares.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc, preprocess, real_cells
from atsdp_utils.data.preprocess import Source, Standardizer
from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.experiments import pseudo
from atsdp_utils.models import plus
from atsdp_utils.own_cells.cellfile import dense

#: Ways of standardising, the one in use first.
FILE, BULK, REFERENCE, RANKS = WAYS = ("the file", "the bulk", "real cells (PC9)", "ranks within the cell")
#: Shares of sensitive cells in a file.
SHARES = (0.2, 0.5, 0.8)
MEASURES = ["auc", "balanced_accuracy", "labels_changed"]
SEEDS, GENES = (0, 1, 2), 500


def _lines_and_cells(drug: str, seed: int) -> tuple[Source, np.ndarray, np.ndarray]:
    """Lines outside a cluster, as published; log-normalised cells of those within it, and labels of the cells."""
    bulk, target = gdsc.load_bulk(drug), pseudo.held_out_cluster(drug, seed)
    genes = gdsc.shared_genes(bulk, real_cells.load_pc9().var_names.to_numpy(str), GENES)
    lines = preprocess.columns(bulk.X, bulk.genes, genes)[~target]
    labelled = np.flatnonzero(target & (bulk.y >= 0))
    cells = preprocess.columns(pseudo.pseudo_cells(tuple(bulk.lines[labelled]), seed), bulk.genes, genes)
    source = Source(lines, bulk.y[~target], genes, np.ones(len(lines), bool))
    return source, cells, np.repeat(bulk.y[labelled], pseudo.CELLS_PER_LINE)


def within(X: np.ndarray) -> np.ndarray:
    """Rows standardised over their own genes, as the bulk is published."""
    return (X - X.mean(1, keepdims=True)) / np.maximum(X.std(1, keepdims=True), 1e-6)


def in_a_way(way: str, lines: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, Callable]:
    """Lines as a model sees them, and the function that does the same to the cells of a file."""
    if way == RANKS:
        return plus.ranks(lines), plus.ranks
    if way == BULK:
        of_rows = Standardizer().fit(within(lines))
        return of_rows.transform(within(lines)), lambda cells: of_rows.transform(within(cells))
    if way == REFERENCE:  # the embedded counts, the only real cells here whose genes were not centred before
        adata = preprocess.normalise(real_cells.load_pc9())
        reference = preprocess.columns(dense(adata.X), adata.var_names.to_numpy(str), genes)
        return Standardizer().fit_transform(lines), Standardizer().fit(reference).transform
    return Standardizer().fit_transform(lines), lambda cells: Standardizer().fit_transform(cells)


def files(drugs: int | None = None) -> Iterator[dict]:
    """A row for each drug, cluster, way and share: AUC, balanced accuracy at 0.5, and labels that change."""
    for drug, seed in itertools.product(pseudo.drugs()[:drugs], SEEDS):
        source, cells, y = _lines_and_cells(drug, seed)
        mixes = {share: pseudo.mix(y, share, seed) for share in SHARES}
        for way in WAYS:
            lines, same = in_a_way(way, source.X, source.genes)
            model = plus.logistic().fit(lines[source.fit_rows], source.y[source.fit_rows])
            whole = model.predict(same(cells))
            for share, rows in mixes.items():
                p = model.predict_proba(same(cells[rows]))[:, 1]
                called = p >= 0.5
                yield {"drug": drug, "seed": seed, "standardised": way, "share": share, "cells": len(rows),
                       "auc": metrics.classification_metrics(y[rows], p)["auc"],
                       "balanced_accuracy": np.mean([(called == y[rows])[y[rows] == c].mean() for c in (0, 1)]),
                       "labels_changed": (called != whole[rows]).mean()}  # fmt: skip


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over drugs and clusters, each a mean over shares, with 95 % t intervals, and differences to the file.

    A row a way; for each measure the mean, ``_low``, ``_high``, and the same of its paired difference to standardising
    on the file, ``_gain``.
    """
    tasks = rows.groupby(["standardised", "drug", "seed"])[MEASURES].mean()
    out = []
    for way in WAYS:
        own, base = tasks.loc[way], tasks.loc[FILE]
        found = {"standardised": way, "tasks": len(own)}
        for measure in MEASURES:
            for name, values in ((measure, own[measure]), (f"{measure}_gain", own[measure] - base[measure])):
                if name == measure or way != FILE:
                    found |= dict(zip((name, f"{name}_low", f"{name}_high"), stats.mean_test(values)[:3], strict=True))
        out.append(found)
    return pd.DataFrame(out)
