"""Which draw moves a score? Variance of the AUC over seeds, by what a seed draws (a Latin square of trainings)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats as sps

from atsdp_utils.evaluation import evaluate, stats
from atsdp_utils.experiments.task import SEEDED, Result

#: Quantiles behind the lower and the upper limit of a variance.
ENDS = np.array([0.975, 0.025])
#: Parts of a seed, and what is left, in words.
WORDS = {
    "lines": "split of the lines",
    "weights": "first weights, autoencoder",
    "batches": "batches, noise, held-out lines",
    "rest": "rest of the training",
    "cells": "sampling of the cells",
}


def areas(results: Sequence[Result]) -> pd.DataFrame:
    """AUC of every training: ``dataset, tier, lines, weights, batches, auc``."""
    parts = pd.DataFrame([[r.task.seed_of(part) for part in SEEDED] for r in results], columns=SEEDED)
    return evaluate.scores(results)[["dataset", "tier", "auc"]].join(parts)[["dataset", "tier", *SEEDED, "auc"]]


def square(table: pd.DataFrame) -> pd.DataFrame:
    """Components of variance of ``auc`` in a Latin square, a row a part and ``rest``, with intervals at 95 %.

    With n levels of each part, n^2 trainings and mean squares MS: the variance that a part adds is (MS - MS_rest) / n,
    at least 0, with the limits of Williams (1962): (SS - df F MS_rest) / (n chi^2), F and chi^2 at the quantiles .975
    (lower limit) and .025. What they do together is in the rest.
    """
    n = table["lines"].nunique()
    squares = {c: n * float(((table.groupby(c)["auc"].mean() - table["auc"].mean()) ** 2).sum()) for c in SEEDED}
    left = float(((table["auc"] - table["auc"].mean()) ** 2).sum()) - sum(squares.values())
    df, df_rest = n - 1, (n - 1) * (n - 2)
    rest = max(left, 0.0) / df_rest
    rows = {}
    for part, found in squares.items():
        limits = (found - df * sps.f.ppf(ENDS, df, df_rest) * rest) / (n * sps.chi2.ppf(ENDS, df))
        rows[part] = (n, df, *np.clip(((found / df - rest) / n, *limits), 0, None))
    rows["rest"] = (len(table), df_rest, rest, *df_rest * rest / sps.chi2.ppf(ENDS, df_rest))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["levels", "df", "variance", "low", "high"])


def components(results: Sequence[Result]) -> pd.DataFrame:
    """Of each data set, the standard deviation of the AUC that each part of a seed adds, and that of the cells.

    ``share`` is that of the variance of one training on other cells of this number, resampled within a class.
    """
    table, rows = areas(results), []
    for dataset, part in table.groupby("dataset", sort=False):
        found = square(part)
        own = [r for r in results if r.task.dataset == dataset]
        draws = np.hstack([evaluate.on_resampled_cells(r) for r in own])
        shared, df = stats.shared_variance(draws), np.bincount(own[0].y.astype(int)).min() - 1
        # Nothing shared (trainings that reverse the ranking cancel) is an estimate of zero without limits.
        found.loc["cells"] = (len(own[0].y), df, shared, *df * (shared or np.nan) / sps.chi2.ppf(ENDS, df))
        for name, r in found.iterrows():
            sd = np.sqrt([r["variance"], r["low"], r["high"]])
            about = (dataset, part["tier"].iloc[0], "U", "auc", WORDS[name], int(r["levels"]), int(r["df"]))
            rows.append((*about, *sd, r["variance"] / found["variance"].sum()))
    columns = ["dataset", "tier", "protocol", "metric", "part", "levels", "df", "sd", "sd_low", "sd_high", "share"]
    return pd.DataFrame(rows, columns=columns)
