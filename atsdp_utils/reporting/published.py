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


def published_predictions(data: str) -> pd.DataFrame:
    """What the scDEAL study's published predictions score, beside what the paper prints for its own model.

    Accuracy is the support-weighted recall, to which the paper's recall corresponds.

    Returns
    -------
    DataFrame
        ``dataset, method, quantity, list, mean, ci_low, ci_high, cells, atsdp_printed, atsdp_cells, tier, note``.
    """
    printed = audit.reported().query("model == 'ATSDP-NET'").set_index(["dataset", "metric", "where"])["value"]
    rows = []
    for file, dataset, figure in PUBLISHED:
        table = pd.read_csv(paths.DATA / f"scdeal_scores_{file}.csv.gz", index_col="Cell id")
        predicted = (table["Prediction"] == "Sensitive").astype(int)
        theirs = max(sum(sizes) for (d, _), sizes in audit.CLASS_SIZES.items() if d == dataset)
        accuracy, f1 = (printed[dataset, metric, "Table 3"] for metric in ("recall", "f1"))

        def add(quantity, which="", found=(np.nan,) * 3, cells=np.nan, beside=np.nan, note="", d=dataset, m=theirs):
            rows.append((d, "scDEAL", quantity, which, *found, cells, beside, m, "real", note))

        y = _true_labels(file, dataset, data).reindex(table.index).dropna().astype(int)
        called, unknown = predicted[y.index], f"labels of these cells: {NEEDS_CELLS}"
        if y.empty:
            add("accuracy", cells=len(table), beside=accuracy, note=unknown)
            add("weighted F1", cells=len(table), beside=f1, note=unknown)
        else:
            score, note = metrics.classification_metrics(y, called), f"{theirs - len(y)} cells fewer than the paper's"
            limits = proportion_confint(int((y == called).sum()), len(y), method="wilson")
            add("accuracy", "", (score["recall"], *limits), len(y), accuracy, note)
            add("weighted F1", "", (score["f1"], np.nan, np.nan), len(y), f1, note)
        for name, k in (("sensitive", 1), ("resistant", 0)) * (not y.empty):
            of, hit = int((y == k).sum()), int(((y == k) & (called == k)).sum())
            limits = proportion_confint(hit, of, method="wilson")
            add("called right", name, (hit / of, *limits), of, note=f"{hit} of {of}")
        for name, k in (("sensitive", 1), ("resistant", 0)):
            count = float((predicted == k).sum())
            add("predicted", name, (count, np.nan, np.nan), len(table), note="number of cells")
        for name in gene_lists.DIRECTIONS:
            found = gene_scores.correlate(*(table[f"{k}_{name}_DEG_score"] for k in ("Predicted", "Ground_truth")))
            beside = printed[dataset, "pearson_r", f"{figure}_{name}"]
            add("r of gene scores", name, [found[k] for k in ("r", "r_low", "r_high")], len(table), beside)
    return pd.DataFrame(rows, columns=COLUMNS)
