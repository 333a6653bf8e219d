"""Intervals for a mean over tasks that are no independent draws: they share drugs, and they share cell lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats as sps

from atsdp_utils.evaluation.stats import Interval


def variance(values, *groups) -> float:
    """Variance of the mean of `values` (n,), robust to dependence within each of two `groups` (n,) of labels.

    Cameron, Gelbach and Miller (J Bus Econ Stat 2011): the variance clustered by the first, plus that by the second,
    minus that by both together, each times G / (G - 1) for its number G of groups. Where that is smaller than what one
    of the groups gives alone, which chance can do, the larger of these two counts: the conservative reading.
    """
    values = np.asarray(values, float)
    if len(groups) != 2 or any(len(g) != len(values) for g in groups) or not np.isfinite(values).all():
        raise ValueError(f"values: got {len(values)} of them, expected finite ones with two labels each")
    residual = values - values.mean()
    first, second = (_clustered(residual, pd.factorize(np.asarray(g))[0]) for g in groups)
    both = _clustered(residual, pd.MultiIndex.from_arrays(groups).factorize()[0])
    return max(first + second - both, first, second)


def _clustered(residual: np.ndarray, group: np.ndarray) -> float:
    sums = np.bincount(group, residual)
    return float(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum() / len(residual) ** 2)


def interval(values, first, second, *, seeds: Sequence[float] = (), level: float = 0.95) -> Interval:
    """Mean of `values` with its two-way clustered interval; t with one degree less than the smaller number of groups.

    `seeds` are means of the same tasks by single seeds, if `values` are means over seeds: their error is added. The
    limits are NaN where a grouping has a single group.
    """
    values = np.asarray(values, float)
    mean, df = float(values.mean()), min(len(set(first)), len(set(second))) - 1
    if df < 1:
        return Interval(mean, float("nan"), float("nan"))
    total = variance(values, first, second) + (np.var(seeds, ddof=1) / len(seeds) if len(seeds) > 1 else 0.0)
    half = float(sps.t.ppf((1 + level) / 2, df) * np.sqrt(total))
    return Interval(mean, mean - half, mean + half)


def differences(wide: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Paired differences to the column `baseline` of AUCs, rows indexed by ``drug, cluster``, on the tasks of both."""
    rows = []
    for name in wide.columns.drop(baseline):
        pair = wide[[name, baseline]].dropna()
        if len(pair) > 1:
            drug, cluster = (pair.index.get_level_values(level) for level in ("drug", "cluster"))
            found = interval(pair[name] - pair[baseline], drug, cluster)
            rows.append((name, baseline, *found, len(pair), drug.nunique()))
    return pd.DataFrame(rows, columns=["model", "against", "difference", "ci_low", "ci_high", "tasks", "drugs"])
