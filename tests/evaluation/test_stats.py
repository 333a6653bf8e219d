"""Statistics against explicit arithmetic, brute force and published or independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as sps
from statsmodels.stats.multitest import multipletests

from atsdp_utils.evaluation import stats

A = np.array([0.80, 0.84, 0.79, 0.90, 0.85])
B = np.array([0.78, 0.80, 0.80, 0.85, 0.83])


def test_the_corrected_test_by_hand():
    found = stats.mean_test(A - B, folds=5)
    difference = [0.02, 0.04, -0.01, 0.05, 0.02]
    mean = sum(difference) / 5
    variance = sum((d - mean) ** 2 for d in difference) / 4
    t = mean / np.sqrt((1 / 5 + 1 / 4) * variance)  # 1/n + n_test/n_train
    assert found.mean == pytest.approx(0.024) and found.df == 4
    assert found.t == pytest.approx(t) and found.p == pytest.approx(2 * (1 - sps.t.cdf(t, 4)))
    half = sps.t.ppf(0.975, 4) * np.sqrt(0.45 * variance)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))
    assert found.p > sps.ttest_rel(A, B).pvalue, "the correction must make the test more careful"


def test_uncorrected_case_is_the_paired_ttest():
    found, expected = stats.mean_test(A - B, folds=1), sps.ttest_rel(A, B)
    assert (found.t, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_corrected_test_at_the_edges():
    same = stats.mean_test(A - A, folds=5)
    assert (same.mean, same.t, same.p) == (0, 0, 1)
    shifted = stats.mean_test([0.5, 0.5], folds=2)
    assert shifted.t == np.inf and shifted.p == 0
    with pytest.raises(ValueError, match="values: .*finite"):
        stats.mean_test([0.1, np.nan], folds=2)


@pytest.mark.slow
def test_corrected_test_holds_its_level_where_the_plain_one_does_not():
    """Fold differences with correlation 1/folds, as overlapping training sets give; the true difference is 0."""
    rng, folds, trials = np.random.default_rng(0), 10, 2000
    shared, own = rng.normal(size=(trials, 1)), rng.normal(size=(trials, folds))
    difference = np.sqrt(1 / folds) * shared + np.sqrt(1 - 1 / folds) * own
    corrected = np.mean([stats.mean_test(d, folds).p < 0.05 for d in difference])
    plain = np.mean([stats.mean_test(d).p < 0.05 for d in difference])
    assert corrected < 0.07 and plain > 0.12


def test_interval_without_spread():
    assert np.isnan(stats.mean_test([], 10)).all()
    one = stats.mean_test([0.7], 10)
    assert one.mean == 0.7 and np.isnan(one.low) and np.isnan(one.high)


def test_bayesian_ttest_is_students_t_around_the_mean():
    found = stats.bayesian_ttest(A, B)
    scale = np.sqrt((1 / 5 + 1 / 4) * np.var(A - B, ddof=1))
    left, right = sps.t.cdf(-0.01, 4, 0.024, scale), sps.t.sf(0.01, 4, 0.024, scale)
    assert tuple(found) == pytest.approx((left, 1 - left - right, right))
    assert found.p_right > found.p_left, "right is where a is better"
    swapped = stats.bayesian_ttest(B, A)
    assert tuple(swapped) == pytest.approx(tuple(found)[::-1])
    assert tuple(stats.bayesian_ttest(A, A)) == (0, 1, 0)
    with pytest.raises(ValueError, match="repeats: got 5 for 5"):
        stats.bayesian_ttest(A, B, repeats=5)


def test_bayesian_ttest_counts_folds_from_repeats():
    a, b = np.tile(A, 2) + np.linspace(0, 0.01, 10), np.tile(B, 2)
    scale = np.sqrt((1 / 10 + 1 / 4) * np.var(a - b, ddof=1))
    expected = sps.t.cdf(-0.01, 9, np.mean(a - b), scale)
    assert stats.bayesian_ttest(a, b, repeats=2).p_left == pytest.approx(expected)


@pytest.mark.slow
def test_holm_by_hand_and_against_statsmodels():
    # sorted .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04; the last is raised to .06
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    p = np.random.default_rng(1).random(25) ** 3
    assert stats.holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert stats.holm([0.9, 0.8]).tolist() == [1, 1]
    assert stats.holm([]).size == 0
    unknown = stats.holm([0.01, np.nan, 0.04])  # which is no test
    assert unknown[[0, 2]].tolist() == [0.02, 0.04] and np.isnan(unknown[1])
    with pytest.raises(ValueError, match=r"p: .*\[0, 1\]"):
        stats.holm([0.1, 1.5])


def test_expected_maximum_of_known_cases():
    assert stats.expected_maximum(1, 1.0) == pytest.approx(0, abs=1e-9)
    assert stats.expected_maximum(2, 1.0) == pytest.approx(1 / np.sqrt(np.pi))
    assert stats.expected_maximum(3, 2.0) == pytest.approx(2 * 1.5 / np.sqrt(np.pi))


def _wins(y, p):
    return np.array([[(a > b) + 0.5 * (a == b) for b in p[y == 0]] for a in p[y == 1]])


@pytest.mark.parametrize("decimals", [1, 6])
def test_auc_interval_against_structural_components_in_a_loop(decimals):
    rng = np.random.default_rng(3)
    y = np.r_[np.ones(25, int), np.zeros(35, int)]
    p = np.round(np.clip(0.35 * rng.random(60) + 0.3 * y * rng.random(60), 0, 1), decimals)
    wins = _wins(y, p)
    variance = wins.mean(1).var(ddof=1) / 25 + wins.mean(0).var(ddof=1) / 35
    area = wins.mean()
    half = sps.norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    limits = [1 / (1 + np.exp(-(np.log(area / (1 - area)) + s * half))) for s in (-1, 1)]
    assert tuple(stats.auc_interval(y, p)) == pytest.approx((area, *limits))


def test_auc_interval_covers():
    """Two normals a distance apart: AUC = Phi(d / sqrt 2)."""
    rng, truth, hits = np.random.default_rng(4), sps.norm.cdf(1.2 / np.sqrt(2)), 0
    y = np.r_[np.ones(40), np.zeros(60)]
    for _ in range(400):
        found = stats.auc_interval(y, rng.normal(size=100) + 1.2 * y)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 400 <= 0.98


def test_perfect_auc_still_has_an_interval():
    y = np.array([1, 1, 1, 0, 0, 0, 0])
    found = stats.auc_interval(y, y)
    assert tuple(found) == pytest.approx((1, 0.025 ** (1 / 3), 1))
    assert tuple(stats.auc_interval(y, 1 - y)) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 3)))
    assert tuple(stats.auc_interval(y, np.full(7, 0.5))) == pytest.approx((0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="1 sensitive and 2 resistant"):
        stats.auc_interval([1, 0, 0], [0.1, 0.2, 0.3])


def test_printed_auc_interval_by_hand_and_beside_delong():
    q1, q2 = 0.8 / 1.2, 2 * 0.64 / 1.8
    variance = (0.16 + 29 * (q1 - 0.64) + 19 * (q2 - 0.64)) / 600
    half = 1.959964 * np.sqrt(variance) / 0.16
    found = stats.printed_auc_interval(0.8, 30, 20)
    assert tuple(found) == pytest.approx((0.8, *(1 / (1 + np.exp(-(np.log(4) + s * half))) for s in (-1, 1))), abs=1e-6)
    rng, y = np.random.default_rng(3), np.repeat([1, 0], 100)
    delong = stats.auc_interval(y, rng.normal(size=200) + y)
    found = stats.printed_auc_interval(delong.mean, 100, 100)
    assert (found.low, found.high) == pytest.approx((delong.low, delong.high), abs=0.02)
    with pytest.raises(ValueError, match="area: got 1.0"):
        stats.printed_auc_interval(1.0, 10, 10)


def test_auc_over_folds_is_the_mean_of_folds_and_covers():
    rng = np.random.default_rng(4)
    y, fold = np.tile([1, 0], 60), np.repeat(np.arange(5), 24)
    inside = []
    for _ in range(300):
        p = rng.normal(size=120) + y + 10 * fold  # every fold's model has a scale of its own
        found = stats.auc_over_folds(y, p, fold)
        inside.append(found.low <= sps.norm.cdf(1 / np.sqrt(2)) <= found.high)
    assert 0.9 <= np.mean(inside) <= 0.98
    by_fold = [stats.auc_interval(y[fold == f], p[fold == f]).mean for f in range(5)]
    assert found.mean == pytest.approx(np.mean(by_fold))


@pytest.mark.parametrize(("n", "shared"), [(3, 0.02), (3, 0.15), (5, 0.5), (20, 4.0)])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0, 30.0])
def test_p_is_the_level_at_which_the_interval_ends_at_zero(n, shared, factor):
    rng = np.random.default_rng(n)
    values = rng.normal(size=n)
    values = (values - values.mean()) / values.std(ddof=1)
    luck = rng.normal(size=4000)
    draws = np.sqrt(shared / n) * luck[:, None] + rng.normal(size=(4000, n)) * 1e-6
    start = stats.mean_test(values, draws=draws, df_cells=50)
    values = values + factor * (start.high - start.mean)
    found = stats.mean_test(values, draws=draws, df_cells=50)
    both = 1 / n, stats.shared_variance(draws)
    wide = sps.t.isf(found.p / 2, [n - 1, 50])
    assert np.sqrt(wide[0] ** 2 * both[0] + wide[1] ** 2 * both[1]) == pytest.approx(abs(found.mean), rel=1e-6)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0) or factor == 1.0
    if factor == 1.0:
        assert found.p == pytest.approx(0.05, rel=1e-3)


def test_permutation_p():
    assert stats.permutation_p(0.9, [0.1, 0.9, 0.95, 0.3]) == (2 + 1) / 5
    assert stats.permutation_p(1.0, np.zeros(999)) == 1 / 1000


def test_a_statistic_that_no_permutation_changes_has_a_p_of_one():
    """One fold of one setting misses a pair: shuffled within the fold, the means are others by their last bits."""
    values = np.ones((5, 7))
    values[2, 1:] -= 1 / 108
    rng = np.random.default_rng(0)
    null = [rng.permuted(values, axis=1).mean(0).std() for _ in range(200)]
    assert len({*null}) > 1 and stats.permutation_p(values.mean(0).std(), null) == 1


def test_a_column_that_does_not_vary_has_no_correlation():
    X = np.column_stack([np.full(7, 0.1), np.arange(7.0)])  # whose mean is not 0.1 to the last digit
    found = stats.correlations(X, np.arange(7.0))
    assert np.isnan(found[0]) and found[1] == pytest.approx(1)


def test_rank_correlation_interval_by_hand():
    rng = np.random.default_rng(7)
    x = rng.normal(size=40)
    z = x + rng.normal(size=40)
    rho = sps.spearmanr(x, z).statistic
    half = sps.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / 37)
    found = stats.spearman_interval(x, z)
    assert tuple(found) == pytest.approx((rho, np.tanh(np.arctanh(rho) - half), np.tanh(np.arctanh(rho) + half)))
    assert stats.spearman_interval(x, 2 * x + 1) == pytest.approx((1, 1, 1))
    with pytest.raises(ValueError, match="x, y: got 3 and 3"):
        stats.spearman_interval([1, 2, 3], [1, 2, 3])


def test_no_p_value_of_no_value():
    assert np.isnan(stats.permutation_p(np.nan, [0.1, 0.2]))
