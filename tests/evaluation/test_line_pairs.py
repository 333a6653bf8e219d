"""Pairs of lines: shares counted by hand, nulls that keep lines whole, draws of lines and drugs."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from atsdp_utils.evaluation import line_pairs

# Four lines, two drugs; the last line has no label for the second drug.
SCORES = pd.DataFrame({"one": [4.0, 3.0, 2.0, 1.0], "two": [1.0, 2.0, 2.0, 9.0]})
LABELS = pd.DataFrame({"one": [1, 0, 1, 0], "two": [0, 1, 0, np.nan]})


def test_pairs_counted_by_hand():
    right, there = line_pairs.counts(SCORES, LABELS)
    # one: 4>3, 4>1, 2>1 right, 2<3 wrong; two: 2>1 right, 2=2 half.
    assert right.tolist() == [[3.0, 1.5]] and there.tolist() == [[4.0, 2.0]]
    assert line_pairs.share(SCORES, LABELS) == pytest.approx(4.5 / 6)


def test_a_line_drawn_twice_counts_twice_and_a_pair_with_itself_is_none():
    right, there = line_pairs.counts(SCORES, LABELS, [[2, 1, 0, 1], [4, 0, 0, 0]])
    assert there.tolist() == [[4.0, 2.0], [0.0, 0.0]] and right[0].tolist() == [4.0, 2.0]


def test_share_of_one_drug_is_its_auc():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 1)), rng.integers(0, 2, (30, 1))
    assert line_pairs.share(scores, labels) == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))


def test_no_p_under_one_in_24_and_the_mean_over_orders_is_a_coin():
    labels = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]]).T
    scores = np.tile([[4.0], [3.0], [2.0], [1.0]], 3)
    found = line_pairs.orders(scores, labels)
    assert len(found) == 24 and found[0] == line_pairs.share(scores, labels) == 1
    assert found.mean() == pytest.approx(0.5) and line_pairs.p_of_orders(found) == pytest.approx(1 / 24)
    assert line_pairs.p_of_orders(line_pairs.orders(-scores, labels)) == 1


def test_a_line_without_a_label_does_not_change_places():
    labels = np.array([[1.0, np.nan, 0.0], [0.0, np.nan, 1.0]]).T
    found = line_pairs.orders(np.array([[3.0, 9.0, 1.0]] * 2).T, labels)
    assert found.tolist() == [0.5, 0.5]


def test_drawn_lines_cover_a_planted_truth_and_a_perfect_rank_stays_perfect():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, (60, 8))
    noise = rng.normal(size=labels.shape)
    for resampled in (line_pairs.resampled_share, line_pairs.resampled_auc):
        assert (resampled(labels, labels, 50) == 1).all()
        low, high = np.quantile(resampled(labels + noise, labels, 300), (0.025, 0.975))
        assert low < 0.760 < high  # P(1 + a > b) of two standard normal values
        low, high = np.quantile(resampled(noise, labels, 300), (0.025, 0.975))
        assert low < 0.5 < high


def test_a_draw_holds_its_lines_and_drugs_as_often_as_it_says():
    rng = np.random.default_rng(2)
    scores, labels = rng.normal(size=(7, 3)), np.array([[1, 0, 0, 1, 0, -1, 0]] * 3).T
    lines, drugs = line_pairs.drawn(scores.shape, 60)
    assert (lines.sum(1) == 7).all() and (drugs.sum(1) == 3).all()
    shares, aucs = line_pairs.resampled_share(scores, labels, 60), line_pairs.resampled_auc(scores, labels, 60)
    missing = 0
    for i, (of_lines, of_drugs) in enumerate(zip(lines, drugs, strict=True)):
        rows, columns = np.repeat(np.arange(7), of_lines), np.repeat(np.arange(3), of_drugs)
        right, there = line_pairs.counts(scores[rows][:, columns], labels[rows][:, columns])
        if not there.any():
            missing += 1
            assert np.isnan([shares[i], aucs[i]]).all()
            continue
        assert shares[i] == pytest.approx(right.sum() / there.sum())
        assert aucs[i] == pytest.approx((right / there).mean())
    assert 0 < missing < 30


def test_drawn_drugs_weigh_as_often_as_they_are_drawn():
    labels = np.tile(np.arange(40) % 2, (2, 1)).T
    scores = np.column_stack([labels[:, 0], -labels[:, 0]])  # one drug ranked right, one wrong
    assert set(line_pairs.resampled_auc(scores, labels, 50)) == {0, 0.5, 1}


def test_drugs_count_alike_in_the_mean_over_drugs():
    labels = np.array([[1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]).T
    scores = np.array([[9, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]).T
    right, there = line_pairs.counts(scores, labels)
    assert (right / there).mean() == 0.5 and line_pairs.share(scores, labels) == pytest.approx(5 / 14)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [(SCORES.to_numpy()[:3], LABELS, "shapes"), (SCORES * np.nan, LABELS, "no finite score")],
)
def test_wrong_input_is_named(scores, labels, said):
    with pytest.raises(ValueError, match=said):
        line_pairs.counts(scores, labels)


def test_many_lines_have_too_many_orders():
    with pytest.raises(ValueError, match="too many orders"):
        line_pairs.orders(np.zeros((9, 1)), np.array([[1, 0, 0, 0, 0, 0, 0, 0, 0]]).T)
