"""Intervals for a mean over tasks that are no independent draws: they share drugs, and they share cell lines."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats as sps
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.sandwich_covariance import cov_cluster_2groups

from atsdp_utils.evaluation.stats import UPPER, Interval, holm


def variance(values, *groups) -> float:
    """Variance of the mean of `values` (n,), robust to dependence within each of two `groups` (n,) of labels.

    Cameron, Gelbach and Miller (J Bus Econ Stat 2011): the variance clustered by the first, plus that by the second,
    minus that by both together; at least what one of the groups gives alone.
    """
    mean = OLS(np.asarray(values, float), np.ones(len(values))).fit()
    codes = [pd.factorize(np.asarray(g))[0] for g in groups]
    return float(max(found.item() for found in cov_cluster_2groups(mean, *codes)))


def interval(values, first, second, *, seeds: Sequence[float] = ()) -> Interval:
    """Mean with its two-way clustered interval at 95 %; t with one degree less than the smaller number of groups.

    The limits are NaN where a grouping has a single group.

    Parameters
    ----------
    values, first, second : (n,)
        Values, and two groups of labels as in :func:`variance`.
    seeds : sequence of float
        Means of the same tasks by single seeds, if `values` are means over seeds: their error is added.
    """
    values = np.asarray(values, float)
    mean = float(values.mean())
    if _df(first, second) < 1:
        return Interval(mean, np.nan, np.nan)
    total = variance(values, first, second) + (np.var(seeds, ddof=1) / len(seeds) if len(seeds) > 1 else 0.0)
    return _by_t(mean, total, first, second)


def _df(*groups) -> int:
    return min(len(set(g)) for g in groups) - 1


def _by_t(value: float, total: float, *groups) -> Interval:
    half = float(sps.t.ppf(UPPER, _df(*groups)) * np.sqrt(total))
    return Interval(value, value - half, value + half)


def p_value(found: Interval, *groups) -> float:
    """Two-sided p against 0 of a value with the :func:`interval` `found` over two `groups` (n,) of labels."""
    if not (half := found.high - found.mean):
        return float(found.mean == 0)
    df = _df(*groups)
    return float(2 * sps.t.sf(abs(found.mean) / half * sps.t.ppf(UPPER, df), df))


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC of each model with its interval and its sd over seeds.

    Parameters
    ----------
    scores : DataFrame
        ``drug, cluster, model, seed, auc``.

    Returns
    -------
    DataFrame
        A row for each model: ``model, mean, ci_low, ci_high, tasks, drugs, seeds, sd_seeds``. Each task (a drug and a
        cluster) is averaged over seeds first; the interval is that of :func:`interval`, with the error of the seeds.
    """
    rows = []
    for model, part in scores.groupby("model", sort=False):
        task = part.groupby(["drug", "cluster"], as_index=False)["auc"].mean()
        seeds = part.groupby("seed")["auc"].mean()
        found = interval(task["auc"], task["drug"], task["cluster"], seeds=seeds)
        rows.append((model, *found, len(task), task["drug"].nunique(), len(seeds), seeds.std()))
    return pd.DataFrame(rows, columns=["model", "mean", "ci_low", "ci_high", "tasks", "drugs", "seeds", "sd_seeds"])


def differences(scores: pd.DataFrame, against: str) -> pd.DataFrame:
    """Paired differences of mean AUC to one model, on common tasks and seeds.

    A model of one seed is compared with every seed of the other. A task counts if both models have it with all of their
    seeds.

    Parameters
    ----------
    scores : DataFrame
        As in :func:`summary`.
    against : str
        The model that is subtracted from each of the others.

    Returns
    -------
    DataFrame
        A row for each other model: ``model, against, difference, ci_low, ci_high, p, p_holm, tasks, drugs``. ``p_holm``
        is corrected for all models of the table; it is NaN where an interval has no limits.
    """
    wide, rows = scores.pivot(index=["drug", "cluster"], columns=["model", "seed"], values="auc"), []
    for model in scores["model"].drop_duplicates().loc[lambda m: m != against]:
        both = wide[[model, against]].dropna()
        own, base = both[model], both[against]
        if min(own.shape[1], base.shape[1]) > 1:
            common = own.columns.intersection(base.columns)
            own, base = own[common], base[common]
            by_seed = (own - base).mean()
        else:
            several, single = (own, base) if own.shape[1] > 1 else (base, own)
            by_seed = several.sub(single.mean(axis=1), axis=0).mean()
        drug, cluster = (both.index.get_level_values(level) for level in ("drug", "cluster"))
        found = interval(own.mean(axis=1) - base.mean(axis=1), drug, cluster, seeds=by_seed)
        rows.append((model, against, *found, p_value(found, drug, cluster), len(both), drug.nunique()))
    table = pd.DataFrame(rows, columns=["model", "against", "difference", "ci_low", "ci_high", "p", "tasks", "drugs"])
    table.insert(6, "p_holm", holm(table["p"]))
    return table


def jackknifed(table: pd.DataFrame, statistic: Callable[[pd.DataFrame], float]) -> Interval:
    """A statistic of a table of tasks, with an interval at 95 % robust to dependence within drugs and within clusters.

    The parts of :func:`variance` come from leaving out one drug, one cluster or one task at a time.

    Parameters
    ----------
    table : DataFrame
        A row for each task, with a unique index, ``drug``, ``cluster``, and what the statistic reads.
    statistic : callable
        Gives a float for the table, also with some of its rows left out.
    """
    parts, groups = [], [table["drug"], table["cluster"]]
    for labels in (*groups, pd.Series(table.index, table.index)):
        left = [statistic(table[labels != label]) for label in labels.unique()]
        parts.append((len(left) - 1) * float(np.var(left)))
    total = max(parts[0] + parts[1] - parts[2], *parts[:2])
    return _by_t(float(statistic(table)), total, *groups)


def risk_coverage(auc, trust) -> pd.DataFrame:
    """Mean AUC over the most trusted tasks against their share of all, as columns ``mean`` and ``coverage``.

    Parameters
    ----------
    auc, trust : (n,)
        AUC of each task, and a sign of trust, high for a task that is trusted; ties keep their order.
    """
    order = np.argsort(-np.asarray(trust, float), kind="stable")
    count = np.arange(1, len(order) + 1)
    return pd.DataFrame({"coverage": count / len(order), "mean": np.cumsum(np.asarray(auc, float)[order]) / count})
