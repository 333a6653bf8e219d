"""Two-way clustered intervals: a variance counted by hand, coverage where drugs and clusters share luck, the paths."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from atsdp_utils.evaluation import stats, two_way

# Residuals -3, -1, 1, 3 about the mean 4.
VALUES, DRUG, CLUSTER = [1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"], [0, 1, 0, 1]


def test_a_variance_counted_by_hand():
    # By drug: sums -4 and 4, 2/1 * 32/16 = 4; by cluster: -2 and 2, 2/1 * 8/16 = 1; by both: 4/3 * 20/16 = 5/3.
    assert two_way.variance(VALUES, DRUG, CLUSTER) == pytest.approx(4.0)  # 10/3 lies under what drugs alone give
    assert two_way.variance(VALUES, list("abcd"), [0, 1, 2, 3]) == pytest.approx(5 / 3)  # independent: s^2 / n
    drug, cluster = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    # Effects 1, 0, -1 of drugs and of clusters. Sums 3, 0, -3 of each: 3/2 * 18; by both 9/8 * 12.
    assert two_way.variance(2.0 - drug - cluster, drug, cluster) == pytest.approx((27 + 27 - 13.5) / 81)


def test_the_interval_covers_where_tasks_share_drugs_and_clusters():
    rng, hits, naive = np.random.default_rng(1), 0, 0
    drug, cluster = (a.ravel() for a in np.meshgrid(np.arange(40), np.arange(8)))
    for _ in range(400):
        values = rng.normal(size=40)[drug] + rng.normal(size=8)[cluster] + rng.normal(size=drug.size)
        found = two_way.interval(values, drug, cluster)
        hits += found.low < 0 < found.high
        naive += abs(values.mean()) < 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert 0.9 <= hits / 400 <= 0.98 and naive / 400 < 0.7


def test_seeds_add_their_error_and_one_group_has_no_limits():
    plain = two_way.interval(VALUES, DRUG, CLUSTER)
    wider = two_way.interval(VALUES, DRUG, CLUSTER, seeds=[3.0, 5.0])
    ratio = (wider.high - wider.low) / (plain.high - plain.low)
    assert wider.mean == plain.mean and ratio == pytest.approx(np.sqrt((4 + 1) / 4))
    assert np.isnan(two_way.interval(VALUES, DRUG, [0] * 4).low)


def scored(**models) -> pd.DataFrame:
    """Scores of models, each a list of seeds with four AUCs."""
    rows = [(d, c, m, s, a) for m, seeds in models.items() for s, aucs in enumerate(seeds)
            for d, c, a in zip(DRUG, CLUSTER, aucs, strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=["drug", "cluster", "model", "seed", "auc"])


def test_differences_are_paired_by_task_and_seed():
    base = [0.5, 0.6, 0.7, 0.8]
    up = [[a + 0.1 for a in base], [a + 0.3 for a in base]]
    found = two_way.differences(scored(base=[base], net=up, other=[up[1], up[0]]), "base").set_index("model")
    assert found.loc["net", "difference"] == pytest.approx(0.2) == found.loc["other", "difference"]
    assert found.loc["net", "ci_high"] > 0.3  # the seeds differ, and two seeds say little
    more = two_way.differences(scored(base=[base, base], net=[*up, [0.0] * 4]), "base").iloc[0]
    assert more["difference"] == pytest.approx(0.2)  # a seed that one of them lacks is in neither
    assert found["p_holm"].tolist() == pytest.approx(stats.holm(found["p"]).tolist())
    paired = two_way.differences(scored(net=up, same=up), "net")
    assert paired.loc[0, ["difference", "ci_low", "ci_high"]].tolist() == [0, 0, 0]
    table = two_way.summary(scored(net=up)).iloc[0]
    assert table["mean"] == pytest.approx(0.85) and table["sd_seeds"] == pytest.approx(0.2 / np.sqrt(2))


def test_the_most_trusted_come_first():
    curve = two_way.risk_coverage([0.5, 0.9, 0.7], [0.1, 0.8, 0.3])
    assert curve["mean"].tolist() == pytest.approx([0.9, 0.8, 0.7]) and curve["coverage"].iloc[-1] == 1


def test_a_statistic_has_the_error_of_whole_drugs_and_clusters():
    effect = [0.1, 0.4, 0.5, 0.9]
    table = pd.DataFrame([(d, k, effect[d]) for d in range(4) for k in range(3)], columns=["drug", "cluster", "x"])
    found = two_way.jackknifed(table, lambda t: t["x"].mean())
    # Tasks of a drug are one observation: four values, and three clusters, hence two degrees of freedom.
    half = sps.t.ppf(0.975, 2) * np.std(effect, ddof=1) / 2
    assert found == pytest.approx((0.475, 0.475 - half, 0.475 + half))
    other = two_way.jackknifed(table.rename(columns={"drug": "cluster", "cluster": "drug"}), lambda t: t["x"].mean())
    assert other == pytest.approx(tuple(found))


def test_p_of_an_interval_is_that_of_its_t_test():
    values = np.array([0.2, -0.1, 0.4, 0.3, 0.1])
    t = stats.mean_test(values)
    of = range(5), range(5)
    assert two_way.p_value(stats.Interval(*t[:3]), *of) == pytest.approx(t.p)
    assert (
        two_way.p_value(stats.Interval(0.0, 0.0, 0.0), *of) == 1
        and two_way.p_value(stats.Interval(0.1, 0.1, 0.1), *of) == 0
    )
