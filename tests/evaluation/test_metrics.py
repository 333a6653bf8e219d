"""Metrics: by hand, against scikit-learn, and what they refuse."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t
from sklearn import metrics as sk

from atsdp_utils.evaluation import metrics

# Five cells; 0.5 counts as sensitive: called 1, 1, 0, 1, 0 against true 1, 1, 1, 0, 0.
Y = np.array([1, 1, 1, 0, 0])
P = np.array([0.9, 0.5, 0.2, 0.6, 0.1])


def test_by_hand():
    found = metrics.classification_metrics(Y, P)
    # class 1: tp 2, called 3, support 3; class 0: tn 1, called 2, support 2
    assert found["precision"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5)
    assert found["recall"] == pytest.approx(3 / 5)
    assert found["f1"] == pytest.approx((3 * (4 / 6) + 2 * (2 / 4)) / 5)
    # pairs (sensitive, resistant): .9 wins 2, .5 wins 1 of 2, .2 wins 1 of 2
    assert found["auc"] == pytest.approx(4 / 6)
    # ranking .9+ .6- .5+ .2+ .1-: precision at each hit 1/1, 2/3, 3/4, each a third of the recall
    assert found["ap"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["mcc"] == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))
    assert found["brier"] == pytest.approx((0.1**2 + 0.5**2 + 0.8**2 + 0.6**2 + 0.1**2) / 5)
    # every cell alone in its bin
    assert found["ece"] == pytest.approx((0.1 + 0.5 + 0.8 + 0.6 + 0.1) / 5)


def test_calibration_error_pools_cells_of_a_bin():
    # one bin: mean p 0.73, two thirds sensitive; p = 1 falls into the last bin
    y, p = np.array([1, 1, 0, 1]), np.array([0.71, 0.72, 0.76, 1.0])
    assert metrics.calibration_error(y, p) == pytest.approx((3 * abs(2 / 3 - 0.73) + 0) / 4)


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, 80)
    p = np.round(rng.random(80), 1 + seed % 3)  # one decimal: many ties
    called, found = p >= 0.5, metrics.classification_metrics(y, p)
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        assert found[name] == pytest.approx(score(y, called, average="weighted", zero_division=0)), name
    assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p))
    assert found["ap"] == pytest.approx(sk.average_precision_score(y, p))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, called))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(y, called))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p))


def test_constant_predictor_gives_the_papers_pattern():
    """Always "sensitive" at a share p of sensitive cells: p squared, p, 2 p^2/(1 + p) (ambiguity 27)."""
    y, share = np.array([1] * 361 + [0] * 187), 361 / 548
    found = metrics.classification_metrics(y, np.full(548, 0.7))
    assert found["precision"] == pytest.approx(share**2)
    assert found["recall"] == pytest.approx(share)
    assert found["f1"] == pytest.approx(2 * share**2 / (1 + share))
    assert (round(found["precision"], 3), round(found["recall"], 4), found["auc"]) == (0.434, 0.6588, 0.5)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_undefined_without_warning(label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metrics.classification_metrics([label] * 3, [0.2, 0.6, 0.7])
    assert all(np.isnan(found[m]) for m in ("auc", "ap", "balanced_accuracy"))
    assert found["mcc"] == 0
    assert found["recall"] == pytest.approx(2 / 3 if label else 1 / 3)


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1], [0.2, np.nan], r"p: got nan at position 1"),
        ([0, 1], [1.2, 0.1], r"p: got 1.2 at position 0"),
        ([0, 1], [0.1, -0.1], r"p: got -0.1 at position 1"),
        ([0, -1], [0.1, 0.2], r"y: got \[-1\].*unlabelled"),
        ([0, 1], [0.1], r"y, p: got shapes \(2,\) and \(1,\)"),
        ([], [], "non-empty"),
    ],
)
def test_refuses(y, p, message):
    with pytest.raises(ValueError, match=message):
        metrics.classification_metrics(y, p)


def test_threshold_moves_only_the_thresholded_metrics():
    low, high = (metrics.classification_metrics(Y, P, threshold=t) for t in (0.15, 0.5))
    assert low["recall"] == pytest.approx(4 / 5)
    assert low["recall"] != high["recall"] and low["auc"] == high["auc"] and low["brier"] == high["brier"]


def test_per_fold_scores_each_fold_alone():
    frame = metrics.per_fold(np.r_[Y, 1, 0], np.r_[P, 0.3, 0.4], np.r_[[0] * 5, 7, 7])
    assert frame["fold"].tolist() == [0, 7] and frame["n"].tolist() == [5, 2]
    assert frame["auc"].tolist() == pytest.approx([4 / 6, 0])
    with pytest.raises(ValueError, match="fold"):
        metrics.per_fold(Y, P, [0])


def _scores(values, repeats, folds):
    index = pd.MultiIndex.from_product([range(repeats), range(folds)], names=["repeat", "fold"])
    return pd.DataFrame({"model": "m", "n": 50, "auc": values}, index=index).reset_index()


def _wilson(mean, half, wide, cells):
    """Wilson's interval of as many cells as give the error `half` / `wide`, at most `cells`."""
    n = min(mean * (1 - mean) / (half / wide) ** 2, cells)
    root = wide * np.sqrt(mean * (1 - mean) / n + wide**2 / (4 * n**2))
    return tuple((mean + wide**2 / (2 * n) + side * root) / (1 + wide**2 / n) for side in (-1, 1))


def test_summary_of_repeats_takes_std_over_repeats():
    values = [0.6, 0.8, 0.7, 0.9, 0.5, 0.9]  # repeats average 0.7, 0.8, 0.7
    row = metrics.summarise(_scores(values, 3, 2), ["model"], ["auc"]).iloc[0]
    assert row["mean"] == pytest.approx(np.mean(values)) and row["n"] == 6 and row["std_over"] == "repeats"
    assert row["std"] == pytest.approx(np.std([0.7, 0.8, 0.7], ddof=1))
    half = t.ppf(0.975, 5) * np.sqrt((1 / 6 + 1) * np.var(values, ddof=1))  # test/train = 1/(2 - 1)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(_wilson(np.mean(values), half, t.ppf(0.975, 5), 100))
    assert np.mean(values) + half > 1 > row["ci_high"]


def test_summary_of_one_repeat_says_that_std_is_over_folds():
    values = [0.6, 0.62, 0.64, np.nan]
    row = metrics.summarise(_scores(values, 1, 4), ["model"], ["auc"]).iloc[0]
    assert row["std_over"] == "folds" and row["n"] == 3
    assert row["mean"] == pytest.approx(0.62) and row["std"] == pytest.approx(0.02)


def test_summary_of_seeds_uses_the_plain_t_interval():
    values = [0.50, 0.52, 0.48, 0.50]
    row = metrics.summarise(_scores(values, 4, 1), ["model"], ["auc"]).iloc[0]
    half = t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    n = 0.25 / (half / t.ppf(0.975, 3)) ** 2
    assert n > 50  # more than were scored: the error of this many cells is the least
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(_wilson(0.5, half, t.ppf(0.975, 3), 50))


def test_a_perfect_score_has_an_open_limit_and_a_constant_none():
    perfect = metrics.summarise(_scores([1.0] * 5, 1, 5), ["model"], ["auc"]).iloc[0]
    wide = t.ppf(0.975, 4)
    assert (perfect["ci_low"], perfect["ci_high"]) == pytest.approx((1 / (1 + wide**2 / 250), 1))
    for nearly in ([1, 1, 1, 1 + 2.2e-16, 1], [1 - 2e-16] * 5):  # as the sum of an average precision can be
        row = metrics.summarise(_scores(nearly, 1, 5), ["model"], ["auc"]).iloc[0]
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((perfect["ci_low"], 1))
    constant = metrics.summarise(_scores([0.5] * 5, 1, 5), ["model"], ["auc"]).iloc[0]
    assert constant["ci_low"] == constant["ci_high"] == 0.5
    constant = metrics.summarise(_scores([0.7] * 3, 1, 3), ["model"], ["auc"]).iloc[0]  # whose variance is 1e-32
    assert constant["ci_low"] == constant["ci_high"] == 0.7
    frame = _scores([0.1, 0.2, 0.0, 0.1], 1, 4).rename(columns={"auc": "ece"})  # no share of cells: cut at its range
    assert metrics.summarise(frame, ["model"], ["ece"]).iloc[0]["ci_low"] == 0


def test_summary_keeps_groups_apart_and_in_order():
    frame = pd.concat([_scores([0.9, 0.8], 2, 1).assign(model="z"), _scores([0.1, 0.2], 2, 1).assign(model="a")])
    table = metrics.summarise(frame, ["model"], ["auc"])
    assert table["model"].tolist() == ["z", "a"] and table["mean"].tolist() == pytest.approx([0.85, 0.15])
    with pytest.raises(ValueError, match=r"lacks columns \['brier'\]"):
        metrics.summarise(frame, ["model"], ["brier"])
