"""What other studies published on the same cells: values, one sweep over settings, scores and labels of single cells.

The values are theirs. How each was chosen stands beside it (``chosen_by``), as far as public texts tell.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from atsdp_utils.data import datasets
from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.foundation import checksums, paths
from atsdp_utils.interpretation import gene_lists, gene_scores
from atsdp_utils.reporting import audit
from atsdp_utils.reporting.scorecard import NEEDS_CELLS

#: Labels by which a setting can be chosen, the mildest first.
CHOSEN_BY = ("nothing (library defaults)", "bulk labels", "unknown", "cell labels")
#: The sets of the sweep that are the paper's, under its names.
OF_PAPER = {"GSE117872HN120": "DATA1", "GSE117872HN137": "DATA2", "GSE140440": "DATA3", "GSE110894": "DATA4"}
SETTING = ["bottle", "edim", "pdim", "model", "dropout", "lr", "mod", "sam"]
#: The sweep's file holds this share of all runs, those with the highest scores of each set.
KEPT = 0.5


def results() -> pd.DataFrame:
    """Published values, a row each: set, drug, method, AUC, AUPR, what it was trained on, how chosen, source."""
    table = checksums.table("peers/peers_auc.csv")
    cells = table["dataset"].str.replace(r" \(GSE(108383|149215)\)", "", regex=True)
    return table.assign(task=cells + ", " + table["drug"])


def sweep() -> pd.DataFrame:
    """Runs of the scDEAL study's sweep that its file holds, with ``above``: the share of all runs that score higher."""
    runs = checksums.table("peers/scdeal_sweep.csv.gz")
    rank = runs.groupby("data")["score"].rank(ascending=False, method="min") - 1
    return runs.assign(above=KEPT * rank / runs.groupby("data")["score"].transform("size"))


def share_above(scores: pd.Series, value: float) -> float:
    """Share of all runs of a set that score above `value`; NaN where it lies below every run that the file holds."""
    return float(KEPT * (scores > value).mean()) if value >= scores.min() else np.nan


def named_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Settings that the study names for each set, with their runs in the sweep: a row without score where none is kept.

    Where no bulk table is named, the runs on each of the three count.
    """
    named = checksums.table("peers/scdeal_settings.csv", keep_default_na=False)
    named = named.rename(columns={"bulk_data": "bulk_named"})
    keys = ["data", *SETTING]
    found = named.merge(runs[[*keys, "bulk_data", "transfer", "score", "above"]], on=keys)
    found = found[found["bulk_named"].eq("") | found["bulk_named"].eq(found["bulk_data"])]
    return named.merge(found, "left", on=[*named])


def percell() -> pd.DataFrame:
    """Scores of single cells of SCAD and of SCAD on scFoundation's embedding, side by side, with fold and label."""
    table = checksums.table("peers/scad_percell.csv.gz")
    wide = table.pivot(index=["drug", "split", "cell", "sensitive"], columns="method", values="probability")
    return wide.reset_index().rename_axis(columns=None)


def own(folder: Path) -> pd.DataFrame:
    """AUC of this book's models on real cells, from Table 4 of the same run; empty if notebook 07 has not run there."""
    file = folder / "table4.csv"
    if not file.exists():
        return pd.DataFrame(columns=["dataset", "model", "protocol", "mean", "ci_low", "ci_high"])
    table = pd.read_csv(file).query("metric == 'auc' and tier == 'real'")
    return table[["dataset", "model", "protocol", "mean", "ci_low", "ci_high"]]


# --- predictions of cells of DATA1 and DATA4: a reference, no reproduction --------------------------------------------

#: The scDEAL study's cells with a prediction each: file, the paper's set, and the paper's figure of gene scores.
PUBLISHED = (("GSE117872_HN120", "DATA1", "Figure 8b"), ("GSE110894", "DATA4", "Figure 5c"))
COLUMNS = ["dataset", "method", "quantity", "list", "mean", "ci_low", "ci_high", "cells", "atsdp_printed",
           "atsdp_cells", "tier", "note"]  # fmt: skip


def published_predictions(data: str) -> pd.DataFrame:
    """What the scDEAL study's published predictions score, beside what the paper prints for its own model.

    A row a set, quantity and list, with the columns :data:`COLUMNS`. Accuracy is the support-weighted recall, to which
    the paper's recall corresponds.
    """
    printed = audit.reported().query("model == 'ATSDP-NET'").set_index(["dataset", "metric", "where"])["value"]
    rows, none = [], (np.nan,) * 3
    for file, dataset, figure in PUBLISHED:
        table = checksums.table(f"scdeal_scores_{file}.csv.gz", index_col="Cell id")
        predicted = (table["Prediction"] == "Sensitive").astype(int)
        theirs = max(sum(sizes) for (d, _), sizes in audit.CLASS_SIZES.items() if d == dataset)
        recall, f1 = (printed[dataset, metric, "Table 3"] for metric in ("recall", "f1"))
        labels = pd.Series(dtype=int)  # of no cell, where neither the file nor the paper's own cells are here
        if (embedded := paths.DATA / f"labels_{file}.csv").exists():
            labels = checksums.table(embedded.name, index_col="cell")["sensitive"]
        elif data == "geo":
            labels = datasets.load_cells(dataset).obs["sensitive"]
        y = labels.reindex(table.index).dropna().astype(int)
        called, note = predicted[y.index], f"labels of these cells: {NEEDS_CELLS}"
        accuracy, weighted, cells = none, none, len(y) or len(table)
        if len(y):
            weighted = (metrics.classification_metrics(y, called)["f1"], np.nan, np.nan)
            accuracy = stats.wilson(int((y == called).sum()), len(y))
            note = f"{theirs - len(y)} cells fewer than the public label table"
        found = [("accuracy", "", accuracy, cells, recall, note), ("weighted F1", "", weighted, cells, f1, note)]
        lists = (("sensitive", 1), ("resistant", 0))
        for name, k in lists if len(y) else ():
            of, hit = int((y == k).sum()), int(((y == k) & (called == k)).sum())
            found.append(("called right", name, stats.wilson(hit, of), of, np.nan, f"{hit} of {of}"))
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
