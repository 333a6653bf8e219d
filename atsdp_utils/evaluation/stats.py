"""Tests and intervals behind every "better", "significant" and "±" of the book.

Folds of cross-validation share most of their training rows, so a plain t-test finds differences in noise.
"""

from collections import namedtuple
from collections.abc import Sequence

import numpy as np
from scipy import stats as sps
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtr, stdtridf, stdtrit
from statsmodels.stats.proportion import proportion_confint

#: Differences of AUC of at most this size do not matter: the region of practical equivalence.
ROPE = 0.01
#: Quantile at the upper limit of every interval here, which hold at 95 %.
UPPER = 0.975

#: An estimate with its confidence limits.
Interval = namedtuple("Interval", "mean low high")
#: Mean difference with its limits, t, degrees of freedom, two-sided p.
TTest = namedtuple("TTest", "mean low high t df p")
#: Posterior probabilities that a - b is below -ROPE (b better), within it (no matter), above it (a better).
Bayes = namedtuple("Bayes", "p_left p_rope p_right")


def _finite(name: str, values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f"{name}: got shape {values.shape}, expected a vector of finite numbers")
    return values


def mean_test(values, folds: int = 1, draws=None, df_cells: float = np.inf) -> TTest:
    """Interval and two-sided test against 0 for the mean of scores, or of paired differences of scores.

    Parameters
    ----------
    values : (n,)
        One value a fold, (repeats * folds,), or one a seed.
    folds : int
        Folds of one repeat. Their training rows overlap, so the variance is that of Nadeau and Bengio (2003), with the
        factor 1/n + n_test/n_train, which is 1/n + 1/(folds - 1). 1 for seeds: no correction.
    draws : (resamples, n), optional
        The values on resampled cells, for seeds that are all scored on the same cells, or nearly. They share the luck
        of these cells, which their spread does not show: :func:`shared_variance` is added.
    df_cells : int
        Degrees of freedom behind `draws`: cells of the rarer class, less one.

    Returns
    -------
    TTest
        Half the interval is the root of t_own^2 var_own + t_cells^2 var_cells, each with the t of its own degrees of
        freedom (after Cochran 1951; Satterthwaite's covers too seldom with five seeds); `df` are those that give as
        wide an interval, and `p` is the level at which the interval ends at 0. The limits are NaN for fewer than two
        values.
    """
    values = _finite("values", values)
    n, mean = values.size, float(values.mean()) if values.size else np.nan
    if n < 2:
        return TTest(mean, *[np.nan] * 5)
    own = (1 / n + (1 / (folds - 1) if folds > 1 else 0.0)) * float(np.var(values, ddof=1))
    shared = 0.0 if draws is None else shared_variance(np.asarray(draws, dtype=float))
    variance, wide = own + shared, stdtrit((n - 1, df_cells), UPPER)
    half = float(np.hypot(*(wide * np.sqrt([own, shared]))))
    ends = sorted((n - 1, min(df_cells, 1e6)))  # reached where one of the two variances is nothing beside the other
    df = float(np.clip(stdtridf(UPPER, half / np.sqrt(variance)), *ends) if shared > 0 else n - 1)
    t = mean / np.sqrt(variance) if variance > 0 else float(np.copysign(np.inf, mean)) if mean else 0.0
    p = _level(abs(mean), own, shared, n, df_cells) if shared > 0 else float(2 * stdtr(df, -abs(t)))
    return TTest(mean, float(mean - half), float(mean + half), t, df, p)


def _level(distance: float, own: float, shared: float, n: int, df_cells: float) -> float:
    """Level at which the interval of :func:`mean_test` is as wide, to one side, as the mean is far from 0."""

    def beyond(log_level: float) -> float:
        wide = -stdtrit((n - 1, df_cells), np.exp(log_level) / 2)
        return float(np.hypot(*(wide * np.sqrt([own, shared])))) - distance

    least = -600.0  # of a logarithm: smaller levels are 0
    return float(np.exp(brentq(beyond, least, 0.0))) if beyond(least) > 0 else 0.0


def shared_variance(draws: np.ndarray) -> float:
    """Variance that all seeds share: mean covariance of two columns of (resamples, seeds), at least 0.

    Each seed's own part, which the spread over seeds has already, is not in it. Draws that leave a seed without a
    value, as those of cells of one class do, are left out.
    """
    draws = draws[np.isfinite(draws).all(axis=1)]
    n, total = draws.shape[1], np.var(draws.mean(axis=1), ddof=1)
    return max(float(n * total - np.var(draws, axis=0, ddof=1).mean()) / (n - 1), 0.0)


def share_limits(found: TTest, cells: int) -> tuple[float, float]:
    """Limits for a mean of shares or AUCs: Wilson's interval for as many cells as have the error of `found`.

    Near 1 the symmetric interval of :func:`mean_test` ends too early: over 62 and 46 cells it holds an AUC of .99 in 82
    of 100 draws, this one in 98. The effective number of cells, mean (1 - mean) / variance, counts up to `cells` (after
    Korn and Graubard 1998), so that a mean of 1 has an open limit. A sign that no drawn seed takes is in neither.
    """
    mean, half, wide = round(found.mean, 12), found.high - found.mean, stdtrit(found.df, UPPER)
    variance = 0.0 if half < 1e-9 else (half / wide) ** 2  # less is rounding
    if variance == 0 and 0 < mean < 1:  # a constant
        return mean, mean
    n = min(mean * (1 - mean) / variance, cells) if variance else cells
    return proportion_confint(mean * n, n, 2 * sps.norm.sf(wide), method="wilson")


def wilson(hits: int, n: int) -> Interval:
    """Share of hits with Wilson's interval."""
    return Interval(hits / n, *proportion_confint(hits, n, method="wilson"))


def bayesian_ttest(a, b, repeats: int = 1) -> Bayes:
    """Bayesian correlated t-test (Benavoli et al. 2017) of paired fold scores a - b, through baycomp.

    Parameters
    ----------
    a, b : (repeats * folds,)
        Scores of two models on the same folds.
    repeats : int
        Repeats of the cross-validation, by which the number of folds is known.

    Returns
    -------
    Bayes
        Probabilities that b is better by more than :data:`ROPE`, that neither is, and that a is.

    Raises
    ------
    ValueError
        If a score is not finite, or if there are fewer than two folds in a repeat.
    """
    import baycomp

    a, b = _finite("a", a), _finite("b", b)
    if a.size // repeats < 2:
        raise ValueError(f"repeats: got {repeats} for {a.size} scores, expected at least two folds a repeat")
    # baycomp looks at second minus first; its "left" is the first argument's win
    return Bayes(*map(float, baycomp.two_on_single(b, a, rope=ROPE, runs=repeats)))


def holm(p) -> np.ndarray:
    """Holm's step-down adjusted p-values, in the order given. A value that is NaN stays so and counts as no test."""
    p = np.asarray(p, dtype=float)
    known = ~np.isnan(p)
    if p.ndim != 1 or ((p[known] < 0) | (p[known] > 1)).any():
        raise ValueError(f"p: got {p}, expected a vector of values in [0, 1] or NaN")
    adjusted, tested = p.copy(), p[known]
    order = np.argsort(tested, kind="stable")  # statsmodels collects garbage at each call: seconds, beside torch
    stepped = np.maximum.accumulate(tested[order] * np.arange(tested.size, 0, -1))
    adjusted[known] = np.minimum(stepped, 1)[np.argsort(order)]
    return adjusted


def expected_maximum(settings: int, sd: float) -> float:
    """Mean of the largest of `settings` independent normal values of standard deviation `sd`, by integration."""
    x = np.linspace(-9, 9, 4001)
    density = settings * sps.norm.pdf(x) * sps.norm.cdf(x) ** (settings - 1)
    return float(sd * np.trapezoid(x * density, x))


def _placements(y, p) -> tuple[np.ndarray, np.ndarray]:
    """Structural components of DeLong et al. (1988): of each sensitive cell, of each resistant cell."""
    y, p = np.asarray(y).astype(bool), _finite("p", p)
    pos, neg = p[y], p[~y]
    if pos.size < 2 or neg.size < 2:
        raise ValueError(f"y: got {pos.size} sensitive and {neg.size} resistant cells, expected at least 2 of each")
    rank = sps.rankdata(p)
    of_pos = (rank[y] - sps.rankdata(pos)) / neg.size
    of_neg = 1 - (rank[~y] - sps.rankdata(neg)) / pos.size
    return of_pos, of_neg


def _delong(y, p, q=None) -> tuple[float, float]:
    """AUC of `p`, or of `p` minus that of `q` on the same cells, and its variance."""
    parts = _placements(y, p)
    if q is not None:
        parts = [a - b for a, b in zip(parts, _placements(y, q), strict=True)]
    return float(parts[0].mean()), sum(np.var(d, ddof=1) / d.size for d in parts)


def _on_logit(area: float, variance: float) -> Interval:
    """Normal interval on the logit scale, which stays within (0, 1)."""
    half = sps.norm.ppf(UPPER) * np.sqrt(variance) / (area * (1 - area))
    return Interval(area, float(expit(logit(area) - half)), float(expit(logit(area) + half)))


def auc_interval(y, p) -> Interval:
    """AUC with DeLong's interval over cells at 95 %, on the logit scale.

    A perfect (or perfectly wrong) ranking has no estimated variance; its open limit is that of Clopper and Pearson for
    a share of all of the m cells of the smaller class, 0.025^(1/m).

    Parameters
    ----------
    y, p : (n,)
        Labels, 1 sensitive and 0 resistant (leave out cells without one), and scores of any scale, high for sensitive.

    Raises
    ------
    ValueError
        If a class has fewer than two cells, or if a score is not finite.
    """
    area, variance = _delong(y, p)
    if area in (0.0, 1.0):
        bound = float((1 - UPPER) ** (1 / np.bincount(np.asarray(y).astype(bool)).min()))
        return Interval(area, bound, 1.0) if area else Interval(area, 0.0, 1 - bound)
    return _on_logit(area, variance)


def printed_auc_interval(area: float, sensitive: int, resistant: int) -> Interval:
    """The interval of :func:`auc_interval` where only the value and the class sizes are known (Hanley and McNeil 1982).

    Parameters
    ----------
    area : float
        The AUC.
    sensitive, resistant : int
        Numbers of cells of the two classes.

    Raises
    ------
    ValueError
        If the AUC is not inside (0, 1).
    """
    if not 0 < area < 1:
        raise ValueError(f"area: got {area}, expected a value inside (0, 1)")
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (sensitive - 1) * (q1 - area**2) + (resistant - 1) * (q2 - area**2)
    return _on_logit(float(area), variance / (sensitive * resistant))


def auc_over_folds(y, p, fold=None, q=None) -> Interval:
    """Mean over folds of an AUC, or of a difference of two, with DeLong's error of the cells, each in one fold.

    Folds are not pooled, as their models need not share a scale; each weighs the same. The limits are normal ones at
    95 %, not cut at the range of an AUC.

    Parameters
    ----------
    y, p : (n,)
        As in :func:`auc_interval`, with the same errors for each fold.
    fold : (n,), optional
        Fold of each cell; by default one model scored all cells.
    q : (n,), optional
        Scores of another model on the same cells, whose AUC is subtracted.
    """
    y, p = np.asarray(y), np.asarray(p)
    fold = np.zeros(len(y)) if fold is None else np.asarray(fold)
    parts = (fold == f for f in np.unique(fold))
    found = [_delong(y[own], p[own], None if q is None else np.asarray(q)[own]) for own in parts]
    means, variances = np.transpose(found)
    mean, half = float(means.mean()), sps.norm.ppf(UPPER) * np.sqrt(variances.sum()) / means.size
    return Interval(mean, mean - half, mean + half)


def permutation_p(observed: float, null: Sequence[float]) -> float:
    """One-sided permutation p-value (b + 1)/(n + 1): never 0, valid at any number of permutations.

    Parameters
    ----------
    observed : float
        The statistic, for which high values speak against the null. If it is NaN, so is the p-value.
    null : (n,)
        The statistic, finite, after each permutation; b of these values are at least as high as `observed`, or lower
        by rounding alone.
    """
    null = _finite("null", null)
    reached = (null >= observed) | np.isclose(null, observed, rtol=1e-9, atol=1e-12)
    return np.nan if np.isnan(observed) else float((reached.sum() + 1) / (null.size + 1))


def correlations(X, y) -> np.ndarray:
    """Pearson's r of every column of X (n, k) with y (n,), (k,); NaN where one of the two does not vary."""
    varies = (np.ptp(X, axis=0) > 0) & (np.ptp(y) > 0)
    X, y = X - X.mean(axis=0), y - y.mean()
    norm = np.sqrt((X**2).sum(axis=0) * (y**2).sum())
    return np.divide(y @ X, norm, out=np.full(len(norm), np.nan), where=varies)


def spearman_interval(x, y) -> Interval:
    """Spearman's rho with Fisher's z interval at 95 % and the standard error of Bonett and Wright (2000).

    Parameters
    ----------
    x, y : (n,)
        Paired values.

    Raises
    ------
    ValueError
        If the lengths differ, there are fewer than four pairs, or a value is not finite.
    """
    x, y = _finite("x", x), _finite("y", y)
    if x.size != y.size or x.size < 4:
        raise ValueError(f"x, y: got {x.size} and {y.size} values, expected two equally long vectors of at least 4")
    rho = float(sps.spearmanr(x, y).statistic)
    half = sps.norm.ppf(UPPER) * np.sqrt((1 + rho**2 / 2) / (x.size - 3))
    with np.errstate(divide="ignore"):
        z = np.arctanh(rho)
    return Interval(rho, float(np.tanh(z - half)), float(np.tanh(z + half)))
