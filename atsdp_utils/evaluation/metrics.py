"""Scores of predictions: the paper's five metrics (eqs 18-21), four more, and tables of many.

Plain numpy, because one table asks for thousands of evaluations; tests hold every value against scikit-learn.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from atsdp_utils.evaluation import stats
from atsdp_utils.foundation import config

ECE_BINS = 10
#: Shares of cells, or of pairs of cells; their intervals are those of :func:`stats.share_limits`.
SHARES = (*config.METRICS, "balanced_accuracy")
#: Lowest and highest possible value; intervals of the others are cut there. Every other metric lies in [0, 1].
RANGES = {"mcc": (-1.0, 1.0)}


def limits(found: stats.TTest, metric: str, cells: int) -> tuple[float, float]:
    """Limits of the interval for the mean of a metric over folds or seeds that score `cells` cells together."""
    cut = np.clip((found.low, found.high), *RANGES.get(metric, (0.0, 1.0)))
    return stats.share_limits(found, cells) if metric in SHARES else tuple(cut)


def _checked(y, p) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(y), np.asarray(p, dtype=float)
    if y.ndim != 1 or p.shape != y.shape or not y.size:
        raise ValueError(f"y, p: got shapes {y.shape} and {p.shape}, expected two equally long, non-empty vectors")
    if not np.isin(y, (0, 1)).all():
        found = sorted(set(np.unique(y).tolist()) - {0, 1})
        raise ValueError(f"y: got {found[:3]}, expected 0 (resistant) or 1 (sensitive); drop unlabelled cells first")
    if (wrong := ~((p >= 0) & (p <= 1))).any():  # also catches NaN, which compares false
        raise ValueError(f"p: got {p[wrong][0]} at position {wrong.argmax()}, expected P(sensitive) in [0, 1]")
    return y.astype(bool), p


def _off_by_bin(y: np.ndarray, p: np.ndarray, bins: int) -> np.ndarray:
    """y - p of each cell in the column of its bin of p, (n, bins)."""
    off = np.zeros((y.size, bins))
    off[np.arange(y.size), np.minimum((p * bins).astype(int), bins - 1)] = y - p
    return off


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = ECE_BINS) -> float:
    """Expected calibration error: mean over cells of |share sensitive - mean p| of the bin of each cell.

    Parameters
    ----------
    y, p : (n,)
        Labels, 1 sensitive and 0 resistant, and P(sensitive) in [0, 1]; neither is checked.
    bins : int
        Number of bins of p, of equal width.
    """
    return float(np.abs(_off_by_bin(y, p, bins).sum(axis=0)).sum() / y.size)


def classification_metrics(y, p, threshold: float = 0.5) -> dict[str, float]:
    """Score the predictions of one fit on one set of cells.

    ``precision``, ``recall``, ``f1`` are means of the two classes weighted by their support, which fits what the paper
    prints for ATSDP-NET (ambiguity 26; eqs 18-20 are of the positive class); a class that is never predicted has
    precision 0.

    Parameters
    ----------
    y, p : (n,)
        Labels, 1 sensitive and 0 resistant, and P(sensitive).
    threshold : float
        A cell with p >= threshold is called sensitive (the paper's two intervals overlap at 0.5, ambiguity 24).

    Returns
    -------
    dict
        ``precision, recall, f1, auc, ap, balanced_accuracy, mcc, brier, ece``. With one class in y ``auc``, ``ap``,
        ``balanced_accuracy`` are NaN and ``mcc`` is 0, its convention for an empty margin.

    Raises
    ------
    ValueError
        If the vectors are empty or not of one length, y is not 0 or 1, or p is outside [0, 1] or NaN.
    """
    return {k: v.item() for k, v in resampled(y, p, np.ones((1, np.size(y))), threshold).items()}


def resampled(y, p, weights: np.ndarray, threshold: float = 0.5) -> dict[str, np.ndarray]:
    """:func:`classification_metrics` of many draws of the same cells at once.

    The average precision is the sum of (R_k - R_{k-1}) P_k over the distinct values of p, eq. 21.

    Parameters
    ----------
    y, p, threshold
        As in :func:`classification_metrics`, with the same errors.
    weights : (draws, n)
        How often each draw holds each cell.

    Returns
    -------
    dict
        The same names, each with a value for every draw, (draws,).
    """
    y, p = _checked(y, p)
    called = p >= threshold
    n1, n0 = weights @ y, weights @ ~y
    tp, fp, n = weights @ (called & y), weights @ (called & ~y), n1 + n0
    fn, tn = n1 - tp, n0 - fp
    order = np.argsort(-p, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(p[order], prepend=np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * k[order], first_of_tie, axis=1) for k in (y, ~y))
    above, called_so_far = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = n1 * np.nan_to_num(tp / (tp + fp)) + n0 * np.nan_to_num(tn / (tn + fn))
        f1 = n1 * np.nan_to_num(2 * tp / (2 * tp + fp + fn)) + n0 * np.nan_to_num(2 * tn / (2 * tn + fn + fp))
        auc = ((above - hits / 2) * misses).sum(axis=1) / (n1 * n0)
        ap = (hits / n1[:, None] * above / np.maximum(called_so_far, 1)).sum(axis=1)
        return {
            "precision": precision / n,
            "recall": (tp + tn) / n,  # support-weighted recall is accuracy
            "f1": f1 / n,
            "auc": auc,
            "ap": np.where(n0 > 0, ap, np.nan),
            "balanced_accuracy": (tp / n1 + tn / n0) / 2,
            "mcc": np.nan_to_num((tp * tn - fp * fn) / np.sqrt(n1 * n0 * (tp + fp) * (tn + fn))),
            "brier": weights @ (p - y) ** 2 / n,
            "ece": np.abs(weights @ _off_by_bin(y, p, ECE_BINS)).sum(axis=1) / n,
        }


def coverage(sets: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Share of cells whose conformal set holds their label, over all cells and by class.

    Parameters
    ----------
    sets : (n, 2) bool
        Whether the set of a cell holds resistant (first column) and sensitive (second).
    y : (n,) int
        1 sensitive, 0 resistant; cells without a label must be left out before.

    Returns
    -------
    dict
        ``coverage, coverage_sensitive, coverage_resistant``; NaN for a class without a cell.
    """
    held = sets[np.arange(len(y)), y]
    by_class = {"coverage_sensitive": held[y == 1].mean(), "coverage_resistant": held[y == 0].mean()}
    return {"coverage": held.mean()} | by_class


def per_fold(y, p, fold) -> pd.DataFrame:
    """Score each test fold on its own: ``fold``, ``n`` and the metrics."""
    y, p, fold = np.asarray(y), np.asarray(p), np.asarray(fold)
    if fold.shape != y.shape:
        raise ValueError(f"fold: got shape {fold.shape}, expected that of y, {y.shape}")
    rows = [
        {"fold": int(f), "n": int((fold == f).sum()), **classification_metrics(y[fold == f], p[fold == f])}
        for f in np.unique(fold)
    ]
    return pd.DataFrame(rows)


def summarise(
    frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] = config.METRICS + config.EXTRA_METRICS
) -> pd.DataFrame:
    """Means, spreads and 95 % intervals of many fits (a row a fit and test fold): a row a group of `by` and metric.

    The std is over repeats, each averaged over its folds, as in the paper; a single repeat leaves only the (larger) std
    over folds (``std_over``). The interval is that of :func:`limits`; undefined scores are left out.
    """
    missing = {*by, "repeat", "fold", "n", *metrics} - set(frame.columns)
    if missing:
        raise ValueError(f"frame: lacks columns {sorted(missing)}, has {list(frame.columns)}")
    rows = []
    for (key, group), metric in product(frame.groupby(list(by), sort=False, observed=True), metrics):
        scores = group.dropna(subset=[metric])
        values, per_repeat = scores[metric], scores.groupby("repeat")[metric].mean()
        over, spread = ("repeats", per_repeat) if len(per_repeat) > 1 else ("folds", values)
        found = stats.mean_test(values, max(scores["fold"].nunique(), 1))
        cells = scores.groupby("repeat")["n"].sum().max()
        rows.append((*key, metric, found.mean, spread.std(), len(values), over, *limits(found, metric, cells)))
    return pd.DataFrame(rows, columns=[*by, "metric", "mean", "std", "n", "std_over", "ci_low", "ci_high"])
