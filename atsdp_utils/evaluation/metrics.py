"""Scores of predictions: the paper's five metrics (eqs 18-21), four more, and tables of many.

Plain numpy, because one table asks for thousands of evaluations; tests hold every value against scikit-learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from atsdp_utils.evaluation import stats
from atsdp_utils.foundation import config

ECE_BINS = 10
#: Lowest and highest possible value; intervals are cut there. Every other metric lies in [0, 1].
RANGES = {"mcc": (-1.0, 1.0)}


def _checked(y, p) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(y), np.asarray(p, dtype=float)
    if y.ndim != 1 or p.shape != y.shape or not y.size:
        raise ValueError(f"y, p: got shapes {y.shape} and {p.shape}, expected two equally long, non-empty vectors")
    if not np.isin(y, (0, 1)).all():
        found = sorted(set(np.unique(y).tolist()) - {0, 1})
        raise ValueError(f"y: got {found[:3]}, expected 0 (resistant) or 1 (sensitive); drop unlabelled cells first")
    if not ((p >= 0) & (p <= 1)).all():  # also catches NaN, which compares false
        first = int(np.flatnonzero(~((p >= 0) & (p <= 1)))[0])
        raise ValueError(f"p: got {p[first]} at position {first}, expected probabilities P(sensitive) in [0, 1]")
    return y.astype(bool), p


def _ratio(numerator: float, denominator: float) -> float:
    """0 where nothing was predicted or present, scikit-learn's ``zero_division=0``."""
    return numerator / denominator if denominator else 0.0


def average_precision(y: np.ndarray, p: np.ndarray) -> float:
    """Sum of (R_k - R_{k-1}) P_k over the distinct thresholds, eq. 21; NaN without a sensitive cell."""
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(y[order])
    last_of_tie = np.append(np.flatnonzero(np.diff(p[order])), y.size - 1)
    hits = hits[last_of_tie]
    if not hits[-1]:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (last_of_tie + 1)))


def calibration_error(y: np.ndarray, p: np.ndarray, bins: int = ECE_BINS) -> float:
    """Expected calibration error of P(sensitive) in bins of equal width: mean over cells of |share - mean p|."""
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    return float(np.abs(np.bincount(bin_of, y - p, bins)).sum() / y.size)


def classification_metrics(y, p, threshold: float = 0.5) -> dict[str, float]:
    """Score labels y (1 sensitive, 0 resistant) and P(sensitive) p, both (n,), of one fit on one set of cells.

    A cell with p >= threshold is called sensitive (the paper's two intervals overlap at 0.5, ambiguity 24).
    ``precision``, ``recall``, ``f1`` are means of the two classes weighted by their support, which fits what the paper
    prints for ATSDP-NET (ambiguity 26; eqs 18-20 are of the positive class); a class that is never predicted has
    precision 0. With one class present `auc`, `ap`, `balanced_accuracy` are NaN and `mcc` is 0, its convention for an
    empty margin.
    """
    y, p = _checked(y, p)
    called = p >= threshold
    n, n1 = y.size, int(y.sum())
    n0 = n - n1
    tp, fp = int((called & y).sum()), int((called & ~y).sum())
    fn, tn = n1 - tp, n0 - fp
    both = bool(n1 and n0)
    spread = float(n1) * n0 * (tp + fp) * (tn + fn)
    return {
        "precision": (n1 * _ratio(tp, tp + fp) + n0 * _ratio(tn, tn + fn)) / n,
        "recall": (tp + tn) / n,  # support-weighted recall is accuracy
        "f1": (n1 * _ratio(2 * tp, 2 * tp + fp + fn) + n0 * _ratio(2 * tn, 2 * tn + fn + fp)) / n,
        "auc": float((rankdata(p)[y].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if both else float("nan"),
        "ap": average_precision(y, p) if both else float("nan"),
        "balanced_accuracy": (tp / n1 + tn / n0) / 2 if both else float("nan"),
        "mcc": _ratio(float(tp) * tn - float(fp) * fn, spread**0.5),
        "brier": float(np.mean((p - y) ** 2)),
        "ece": calibration_error(y, p),
    }


def resampled(y, p, weights: np.ndarray, threshold: float = 0.5) -> dict[str, np.ndarray]:
    """:func:`classification_metrics` but calibration, a value a draw, which holds cells `weights` (draws, n) times."""
    y, p = _checked(y, p)
    called = p >= threshold
    n1, n0 = weights @ y, weights @ ~y
    tp, fp, n = weights @ (called & y), weights @ (called & ~y), n1 + n0
    fn, tn = n1 - tp, n0 - fp
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = n1 * np.nan_to_num(tp / (tp + fp)) + n0 * np.nan_to_num(tn / (tn + fn))
        mcc = np.nan_to_num((tp * tn - fp * fn) / np.sqrt(n1 * n0 * (tp + fp) * (tn + fn)))
    f1 = n1 * 2 * tp / (2 * tp + fp + fn + (tp == 0)) + n0 * 2 * tn / (2 * tn + fn + fp + (tn == 0))
    order = np.argsort(-p, kind="stable")
    first_of_tie = np.flatnonzero(np.diff(p[order], prepend=np.inf))
    hits, misses = (np.add.reduceat(weights[:, order] * k[order], first_of_tie, axis=1) for k in (y, ~y))
    above, called_so_far = np.cumsum(hits, axis=1), np.cumsum(hits + misses, axis=1)
    auc = ((above - hits / 2) * misses).sum(axis=1) / (n1 * n0)
    ap = (hits * above / np.maximum(called_so_far, 1)).sum(axis=1) / n1
    return {"precision": precision / n, "recall": (tp + tn) / n, "f1": f1 / n, "auc": auc, "ap": ap,
            "balanced_accuracy": (tp / n1 + tn / n0) / 2, "mcc": mcc}  # fmt: skip


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


def _summary(scores: pd.DataFrame, metric: str) -> dict[str, float | int | str]:
    scores = scores.dropna(subset=[metric])
    values, folds = scores[metric].to_numpy(), max(scores["fold"].nunique(), 1)
    per_repeat = scores.groupby("repeat")[metric].mean().to_numpy()
    over = "repeats" if len(per_repeat) > 1 else "folds"
    spread = per_repeat if over == "repeats" else values
    interval = stats.mean_test(values, folds)
    low, high = np.clip((interval.low, interval.high), *RANGES.get(metric, (0.0, 1.0)))
    std = float(np.std(spread, ddof=1)) if spread.size > 1 else float("nan")
    return {"mean": interval.mean, "std": std, "n": values.size, "std_over": over, "ci_low": low, "ci_high": high}


def summarise(
    frame: pd.DataFrame, by: Sequence[str], metrics: Sequence[str] = config.METRICS + config.EXTRA_METRICS
) -> pd.DataFrame:
    """Means, spreads and 95 % intervals of many fits (a row a fit and test fold): a row a group of `by` and metric.

    The std is over repeats, each averaged over its folds, as in the paper; a single repeat leaves only the (larger) std
    over folds (``std_over``). The interval is cut at the metric's range; undefined scores are left out.
    """
    missing = {*by, "repeat", "fold", *metrics} - set(frame.columns)
    if missing:
        raise ValueError(f"frame: lacks columns {sorted(missing)}, has {list(frame.columns)}")
    rows = [
        {**dict(zip(by, key, strict=True)), "metric": metric, **_summary(scores, metric)}
        for key, scores in frame.groupby(list(by), sort=False, observed=True)
        for metric in metrics
    ]
    return pd.DataFrame(rows)
