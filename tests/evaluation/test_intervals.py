"""Limits of intervals, bins of nulls, and means over seeds, against closed forms, other libraries and simulation."""

import dataclasses
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from atsdp_utils.evaluation import evaluate, metrics, plus_study, stats
from atsdp_utils.experiments import inputs, tables  # fmt: skip
from atsdp_utils.experiments.task import PLUS, Result, Task
from atsdp_utils.foundation import config  # fmt: skip
from atsdp_utils.interpretation import attribution, explained, gene_scores, predicted, pseudotime
from atsdp_utils.reporting import plots_eval  # fmt: skip

RNG = np.random.default_rng(12)


# --- 95 %, not 90 -----------------------------------------------------------------------------------------------------


def test_an_interval_over_seeds_is_the_t_interval_at_95_per_cent():
    scores = RNG.normal(0.7, 0.05, 12)
    found = stats.mean_test(scores)[:3]
    low, high = sps.t.interval(0.95, 11, scores.mean(), sps.sem(scores))
    assert found == pytest.approx((scores.mean(), low, high))


def test_an_interval_over_folds_is_wider_by_the_shared_training_rows():
    scores = RNG.normal(0.7, 0.05, 20)
    found = stats.mean_test(scores, folds=5)
    half = sps.t.ppf(0.975, 19) * scores.std(ddof=1) * np.sqrt(1 / 20 + 1 / 4)
    assert found.high - found.mean == pytest.approx(half) == found.mean - found.low


def test_the_t_interval_covers_19_times_of_20():
    draws = np.random.default_rng(3).normal(0.4, 1, (2000, 8))
    inside = [i.low <= 0.4 <= i.high for i in map(stats.mean_test, draws)]
    assert 0.935 < np.mean(inside) < 0.965


def test_intervals_of_rank_correlations_are_bonetts():
    x = RNG.normal(size=80)
    y = x + RNG.normal(size=80)
    rho = sps.spearmanr(x, y).statistic
    half = 1.959964 * np.sqrt((1 + rho**2 / 2) / 77)
    assert stats.spearman_interval(x, y) == pytest.approx(
        (rho, np.tanh(np.arctanh(rho) - half), np.tanh(np.arctanh(rho) + half)), rel=1e-5
    )


def test_the_interval_of_an_auc_is_delongs_at_95_per_cent():
    y = np.repeat([0, 1], [60, 40])
    p = y * 0.8 + RNG.normal(size=100)
    wins = (p[y == 1][:, None] > p[y == 0]).astype(float)
    variance = wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 60
    area = wins.mean()
    half = 1.959964 * np.sqrt(variance) / (area * (1 - area))
    z = np.log(area / (1 - area))
    expected = area, 1 / (1 + np.exp(-(z - half))), 1 / (1 + np.exp(-(z + half)))
    assert stats.auc_interval(y, p) == pytest.approx(expected, rel=1e-5)
    perfect = stats.auc_interval(y, y.astype(float))
    assert perfect.low == pytest.approx(sps.beta.ppf(0.025, 40, 1)) and perfect.high == 1


def test_whiskers_of_the_reliability_plot_are_wilsons():
    hits, n, z = np.array([0, 8, 10]), np.array([5, 40, 11]), sps.norm.ppf(0.975)
    y = np.concatenate([np.arange(m) < k for k, m in zip(hits, n, strict=True)])
    _, ax = plt.subplots()
    plots_eval.reliability(ax, y, np.repeat([0.15, 0.45, 0.85], n))
    drawn = np.array(ax.collections[0].get_segments())[:, :, 1].T
    plt.close()
    centre, half = (hits + z**2 / 2) / (n + z**2), z / (n + z**2) * np.sqrt(hits * (n - hits) / n + z**2 / 4)
    np.testing.assert_allclose(drawn, (centre - half, centre + half), atol=1e-12)


def test_bands_of_a_trend_hold_the_mean_19_times_of_20():
    Y = np.random.default_rng(0).normal(size=(200, 40))
    mean, low, high = pseudotime.smooth(np.arange(200.0), Y, width=1e3, points=2, n_boot=1500)
    np.testing.assert_allclose(mean, np.tile(Y.mean(0), (2, 1)), atol=1e-6)
    half = (high - low)[0] / 2
    assert (half / (Y.std(0) / np.sqrt(200))).mean() == pytest.approx(1.96, abs=0.06)


def test_candidates_have_95_per_cent_intervals_over_places_in_which_a_drug_counts_once():
    auc = RNG.normal(0.7, 0.1, (10, 2))
    auc[6:, :] = auc[:4, :] + 0.05 * RNG.normal(size=(4, 2))  # pseudo-cells of the same drugs
    places = (
        [("lines", i) for i in range(4)] + [("twin", i) for i in range(2)] + [("pseudo-cells", i) for i in range(4)]
    )
    rows = [{"kind": k, "place": f"{k}{i}" if k == "twin" else f"drug{i}", "seed": 0, "candidate": c, "auc": row[m]}
            for (k, i), row in zip(places, auc, strict=True) for m, c in enumerate(("plain", "ensemble"))]  # fmt: skip
    _, summary = plus_study.choose(pd.DataFrame(rows))
    one = summary.set_index("candidate").loc["plain"]
    lines, twins, pseudo = auc[:4, 0], auc[4:6, 0], auc[6:, 0]
    of_drugs, of_twins = ((lines + pseudo) / 3).var(ddof=1) / 4, (twins / 3).var(ddof=1) / 2
    df = (of_drugs + of_twins) ** 2 / (of_drugs**2 / 3 + of_twins**2 / 1)
    half = sps.t.ppf(0.975, df) * np.sqrt(of_drugs + of_twins)
    assert one["score"] == pytest.approx(np.mean([lines.mean(), twins.mean(), pseudo.mean()]))
    assert one["ci_high"] - one["score"] == pytest.approx(half) == one["score"] - one["ci_low"]
    alone = plus_study.choose(pd.DataFrame([r for r in rows if r["place"] == "drug0"]))[1]
    assert alone[["ci_low", "ci_high"]].isna().all(axis=None) and (alone["behind_se"] == 0).all()


def test_summaries_give_both_limits_on_their_side_and_the_mean_of_all():
    frame = pd.DataFrame({"model": "m", "repeat": range(6), "fold": 0, "n": 9, "mcc": [0.5, 0.6, 0.7, 0.8, 0.9, 0.61]})
    row = metrics.summarise(frame, ["model"], ["mcc"]).iloc[0]
    low, high = sps.t.interval(0.95, 5, frame.mcc.mean(), sps.sem(frame.mcc))
    assert (row["mean"], row.ci_low, row.ci_high) == pytest.approx((frame.mcc.mean(), low, high))
    assert row["std"] == pytest.approx(frame.mcc.std()) and row.n == 6


# --- nulls ------------------------------------------------------------------------------------------------------------


def test_nulls_are_what_they_are_called(monkeypatch):
    """*plain*: any genes, as many; *matched*: as many of each bin of expression; *permuted*: lists of dealt labels."""
    rng = np.random.default_rng(8)
    X = (rng.gamma(1, 2, 240) + rng.normal(size=(60, 240))).astype(np.float32)
    y = np.tile([0, 1], 30)
    high = np.argsort(-X.mean(0))[:16]  # the list comes from the most expressed genes
    X[:, high] += 2.5 * y[:, None]
    scorer = gene_scores.ListScorer(X, np.array([f"G{i}" for i in range(240)]), top=12)
    comparison, seen = scorer.compare(y, y), []
    original = gene_scores.score_sets

    def spy(values, member, bins):
        seen.append(member)
        return original(values, member, bins)

    monkeypatch.setattr(gene_scores, "score_sets", spy)
    draws = scorer.nulls(comparison, y, 40, seed=0)
    members = dict(zip(draws[draws["list"] == "sensitive"]["null"].unique(), seen, strict=False))
    mine = comparison.predicted["sensitive"]
    profile = np.bincount(scorer.bins[mine], minlength=scorer.bins.max() + 1)
    assert set(members) == {"plain", "matched", "permuted"} and len(mine) == 12
    composition = {
        kind: np.array([np.bincount(scorer.bins[np.flatnonzero(m)], minlength=len(profile)) for m in member.T])
        for kind, member in members.items()
    }
    assert all((c.sum(1) == 12).all() for c in composition.values())
    assert (composition["matched"] == profile).all()
    assert (composition["plain"] != profile).any(1).all() and (composition["permuted"] != profile).any(1).mean() > 0.8
    assert len({m.tobytes() for m in members["matched"].T}) > 10
    # both directions: a permuted list of resistant genes is lower in the cells that were dealt "sensitive"
    assert set(draws["list"]) == {"sensitive", "resistant"} or not len(comparison.predicted["resistant"])


def test_a_list_dealt_to_random_cells_holds_the_genes_that_are_highest_there():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(50, 80)).astype(np.float32), np.tile([0, 1], 25)
    scorer = gene_scores.ListScorer(X, np.arange(80).astype(str), top=10, alpha=1.1)
    comparison = scorer.compare(y, y)
    draws = scorer.nulls(comparison, y, 300, seed=1)
    mean = draws.groupby(["list", "null"])["r"].mean().unstack()
    assert (mean["permuted"].abs() < 0.15).all() and (mean["plain"].abs() < 0.15).all()


def test_bins_of_expression_are_scanpys_quantiles():
    X = np.tile(np.arange(100.0), (3, 1))
    bins = gene_scores.expression_bins(X, n_bins=11)
    assert (np.diff(bins) >= 0).all() and np.bincount(bins)[1:10].tolist() == [10] * 9


def test_the_table_of_nulls_names_mean_95th_percentile_largest_and_p():
    draws = pd.DataFrame({"list": "sensitive", "null": "plain", "r": np.linspace(-0.5, 0.49, 100)})
    comparison = SimpleNamespace(table=pd.DataFrame({"list": ["sensitive"], "r": [0.4]}))
    row = gene_scores.null_table(comparison, draws).iloc[0]
    values = np.linspace(-0.5, 0.49, 100)
    assert row["null_95"] == pytest.approx(np.quantile(values, 0.95)) and row["null_max"] == pytest.approx(0.49)
    assert row["null_mean"] == pytest.approx(values.mean())
    assert row["p"] == pytest.approx((1 + (values >= 0.4).sum()) / 101)


# --- means over seeds, not the last of them ---------------------------------------------------------------------------


def _result(dataset, model, seed, p, setting=(), protocol="U", **more):
    task = Task(dataset, protocol, model, "smoke", setting, seed=seed, **more)
    return Result(task, np.arange(len(p)), np.tile([0, 1], len(p) // 2), np.asarray(p), np.zeros(len(p), int), 1.0, 1)


def test_predictions_without_labels_are_the_mean_over_seeds_and_with_labels_the_first_repeat(monkeypatch):
    asked = []

    def run(tasks, **kw):
        asked.append(tasks)
        return [_result(t.dataset, t.model, t.seed, 0.1 + 0.2 * t.seed + 0.01 * np.arange(6), protocol=t.protocol,
                        folds=t.folds, repeat=t.repeat) for t in tasks]  # fmt: skip

    cells = preprocess_cells(6)
    monkeypatch.setattr(predicted.grid, "run", run)
    monkeypatch.setattr(inputs, "cells_of", lambda *a: cells)
    found = predicted.predictions("DATA1-sim", "smoke", protocol="U")
    assert [t.seed for t in asked[-1]] == [0, 1] and {t.setting for t in asked[-1]} == {()}
    np.testing.assert_allclose(found.p, 0.2 + 0.01 * np.arange(6))
    assert found.label.tolist() == [0] * 6 and found.cell_id.tolist() == cells.cell_id.tolist()
    supervised = predicted.predictions("DATA1-sim", "paper", protocol="S")
    assert [(t.protocol, t.repeat) for t in asked[-1]] == [("S", 0)]
    np.testing.assert_allclose(supervised.p, 0.1 + 0.01 * np.arange(6))


def preprocess_cells(n):
    names = np.array([f"c{i}" for i in range(n)])
    return SimpleNamespace(X=np.zeros((n, 3)), genes=np.array(["A", "B", "C"]), group=names, cell_id=names)


def test_scores_of_models_are_means_over_seeds_with_an_interval_over_cells_and_seeds():
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 20)
    results = [_result("A375-PLX4720", m, s, np.clip(0.5 + strength * (y - 0.5) + 0.2 * rng.normal(size=40), 0, 1))
               for m, strength in ((PLUS, 0.6), ("Logistic", 0.1)) for s in range(3)]  # fmt: skip
    _, table = plus_study.score(results)
    aucs = [metrics.classification_metrics(r.y, r.p)["auc"] for r in results]
    row = table.set_index("model")
    for name, part in (("ATSDP-NET+", aucs[:3]), ("logistic regression", aucs[3:])):
        found = row.loc[name]
        assert found["mean"] == pytest.approx(np.mean(part), abs=1e-6)
        assert found["std"] == pytest.approx(np.std(part, ddof=1))
        assert (found["min"], found["max"], found["n"]) == (min(part), max(part), 3)
        assert found["ci_low"] < found["mean"] < found["ci_high"]


def test_attributions_of_several_networks_are_their_mean():
    parts = [attribution.Attribution(*(np.full(s, v) for s in ((2, 3), 2, 2))) for v in (1.0, 2.0, 6.0)]
    whole = attribution.ensemble(parts)
    assert (whole.values == 3).all() and (whole.delta == 3).all() and (whole.change == 3).all()


def test_networks_are_explained_on_cells_outside_the_first_fold(monkeypatch):
    monkeypatch.setattr(inputs, "cells_of", lambda *a: None)
    monkeypatch.setattr(inputs, "splits", lambda cells, folds, repeat: np.array([0, 1, -1, 2, 0, 1]))
    assert explained.training_rows("DATA1-sim", "smoke").tolist() == [1, 3, 5]


def test_a_table_averages_repeats_seeds_and_folds_alike():
    y = np.tile([0, 1], 20)
    rng = np.random.default_rng(1)
    results = [_result("A375-PLX4720", "ATSDP-NET", s, np.clip(0.5 + 0.3 * (y - 0.5) + 0.2 * rng.normal(size=40), 0, 1))
               for s in range(5)]  # fmt: skip
    table = evaluate.summary(evaluate.scores(results), ["auc"])
    aucs = [metrics.classification_metrics(r.y, r.p)["auc"] for r in results]
    assert table["mean"].item() == pytest.approx(np.mean(aucs)) and table["n"].item() == 5
    assert evaluate.scores(results)["repeat"].tolist() == list(range(5)) and table["std_over"].item() == "repeats"
    assert table["tier"].item() == "real" and table["protocol"].item() == "U"


def test_the_interval_of_two_areas_on_the_same_cells_is_that_of_a_paired_bootstrap():
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], 150)
    score = y + rng.normal(0, 1.2, 300)
    p, q = (1 / (1 + np.exp(-s)) for s in (score, score + rng.normal(0, 0.8, 300)))
    found = stats.auc_over_folds(y, p, q=q)
    auc = lambda i, s: metrics.classification_metrics(y[i], s[i])["auc"]  # noqa: E731
    draws = [np.r_[rng.integers(0, 150, 150), rng.integers(150, 300, 150)] for _ in range(400)]
    spread = np.std([auc(i, p) - auc(i, q) for i in draws])
    assert found.mean == pytest.approx(auc(np.arange(300), p) - auc(np.arange(300), q))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * spread, rel=0.15)
    assert stats.auc_over_folds(y, q, q=p).low == pytest.approx(-found.high)


@pytest.mark.slow
def test_the_ablation_compares_each_change_with_the_method_as_it_is():
    y = np.tile([0, 1], 20)
    rng = np.random.default_rng(4)
    results = []
    for name, (model, setting) in tables.ABLATIONS.items():
        strength = {"as it is": 0.3, "no MMD": 0.8, "no cluster regulariser": 0.0}.get(name, 0.3)
        for seed in range(4):
            p = np.clip(0.5 + strength * (y - 0.5) + 0.2 * rng.normal(size=40), 0, 1)
            results.append(_result("A375-PLX4720", model, seed, p, setting))
    frame, changes = plus_study.ablation(results)
    by = changes.set_index("setting")
    assert list(by.index) == list(tables.ABLATIONS) and np.isnan(by.loc["as it is", "difference"])
    assert by.loc["no MMD", "difference"] > 0.1 > -0.1 > by.loc["no cluster regulariser", "difference"]
    for name in tables.ABLATIONS:
        assert by.loc[name, "mean"] == pytest.approx(frame.auc[frame.setting == name].mean())


def test_class_mixes_name_their_training_share_and_calls():
    p = np.linspace(0, 1, 10)
    results = [dataclasses.replace(r, task=dataclasses.replace(
        r.task, setting=(("kind", "twin:10"), *setting))) for r, setting in (
        (_result("DATA3-sim", PLUS, 1, p, protocol="P"), s) for s in tables.ALIGNED.values())]  # fmt: skip
    table = plus_study.class_mix(results)
    assert table.setting.tolist() == list(tables.ALIGNED) and set(table.percent) == {10} and set(table.seed) == {1}
    assert set(table.called) == {0.5} and set(table.tier) == {"simulated"}
    assert config.DATASETS["DATA3-sim"].simulated
