"""What an earlier study's published predictions of cells of DATA1 and DATA4 score: a reference, no reproduction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from atsdp_utils.data import datasets
from atsdp_utils.evaluation import metrics
from atsdp_utils.foundation import paths
from atsdp_utils.interpretation import gene_lists, gene_scores
from atsdp_utils.reporting import audit
from atsdp_utils.reporting.scorecard import NEEDS_CELLS

#: The scDEAL study's cells with a prediction each: file, the paper's set, and the paper's figure of gene scores.
PUBLISHED = (("GSE117872_HN120", "DATA1", "Figure 8b"), ("GSE110894", "DATA4", "Figure 5c"))
COLUMNS = ["dataset", "method", "quantity", "list", "mean", "ci_low", "ci_high", "cells", "atsdp_printed",
           "atsdp_cells", "tier", "note"]  # fmt: skip


def _true_labels(file: str, dataset: str, data: str) -> pd.Series:
    """Labels by cell, from the embedded file or the paper's own cells; empty where neither is here."""
    path = paths.DATA / f"labels_{file}.csv"
    if path.exists():
        return pd.read_csv(path, index_col="cell")["sensitive"]
    return datasets.load_cells(dataset).obs["sensitive"] if data == "geo" else pd.Series(dtype=int)


def _share(hits: int, of: int) -> tuple[float, float, float]:
    """A share with its Wilson interval."""
    return (hits / of, *proportion_confint(hits, of, method="wilson"))


def published_predictions(data: str) -> pd.DataFrame:
    """What the scDEAL study's published predictions score, beside what the paper prints for its own model.

    A row a set, quantity and list, with the columns :data:`COLUMNS`. Accuracy is the support-weighted recall, to which
    the paper's recall corresponds.
    """
    printed = audit.reported().query("model == 'ATSDP-NET'").set_index(["dataset", "metric", "where"])["value"]
    rows, none = [], (np.nan,) * 3
    for file, dataset, figure in PUBLISHED:
        table = pd.read_csv(paths.DATA / f"scdeal_scores_{file}.csv.gz", index_col="Cell id")
        predicted = (table["Prediction"] == "Sensitive").astype(int)
        theirs = max(sum(sizes) for (d, _), sizes in audit.CLASS_SIZES.items() if d == dataset)
        recall, f1 = (printed[dataset, metric, "Table 3"] for metric in ("recall", "f1"))
        y = _true_labels(file, dataset, data).reindex(table.index).dropna().astype(int)
        called, note = predicted[y.index], f"labels of these cells: {NEEDS_CELLS}"
        accuracy, weighted, cells = none, none, len(y) or len(table)
        if len(y):
            weighted = (metrics.classification_metrics(y, called)["f1"], np.nan, np.nan)
            accuracy, note = _share(int((y == called).sum()), len(y)), f"{theirs - len(y)} cells fewer than the paper's"
        found = [("accuracy", "", accuracy, cells, recall, note), ("weighted F1", "", weighted, cells, f1, note)]
        lists = (("sensitive", 1), ("resistant", 0))
        for name, k in lists if len(y) else ():
            of, hit = int((y == k).sum()), int(((y == k) & (called == k)).sum())
            found.append(("called right", name, _share(hit, of), of, np.nan, f"{hit} of {of}"))
        for name, k in lists:
            count = (float((predicted == k).sum()), np.nan, np.nan)
            found.append(("predicted", name, count, len(table), np.nan, "number of cells"))
        for name in gene_lists.DIRECTIONS:
            r = gene_scores.correlate(*(table[f"{k}_{name}_DEG_score"] for k in ("Predicted", "Ground_truth")))
            beside = printed[dataset, "pearson_r", f"{figure}_{name}"]
            found.append(("r of gene scores", name, [r[k] for k in ("r", "r_low", "r_high")], len(table), beside, ""))
        rows += [
            (dataset, "scDEAL", quantity, name, *value, n, beside, theirs, "real", note)
            for quantity, name, value, n, beside, note in found
        ]
    return pd.DataFrame(rows, columns=COLUMNS)
