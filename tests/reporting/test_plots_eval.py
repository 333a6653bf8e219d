"""Evaluation figures: the numbers they draw, and that nothing is small, clipped or laid over data."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from atsdp_utils.reporting import plots, plots_eval

METRICS = ["precision", "recall", "f1", "auc", "ap"]


@pytest.fixture(autouse=True)
def _look():
    plots.style()
    yield
    plt.close("all")


def _summary(**columns):
    rng = np.random.default_rng(0)
    frame = pd.MultiIndex.from_product(columns.values(), names=list(columns)).to_frame(index=False)
    mean = rng.uniform(0.6, 0.9, len(frame))
    return frame.assign(mean=mean, ci_low=mean - 0.05, ci_high=mean + 0.05)


def _predictions(decimals):
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 90)
    return y, np.round(np.clip(rng.random(90) * 0.7 + 0.3 * y, 0, 1), decimals), rng.integers(0, 3, 90)


@pytest.mark.parametrize("decimals", [1, 8])
def test_curves_have_scikit_learns_areas(decimals):
    y, p, fold = _predictions(decimals)
    _, axes = plt.subplots(1, 2)
    plots_eval.roc(axes[0], y, p, fold)
    plots_eval.pr(axes[1], y, p, fold)
    fpr, tpr = axes[0].lines[3].get_data()  # after three folds
    assert np.trapezoid(tpr, fpr) == pytest.approx(sk.roc_auc_score(y, p))
    recall, precision = axes[1].lines[3].get_data()
    assert np.sum(np.diff(recall) * precision[1:]) == pytest.approx(sk.average_precision_score(y, p))
    areas = [sk.roc_auc_score(y[fold == f], p[fold == f]) for f in range(3)]
    note = f"AUC {sk.roc_auc_score(y, p):.3f} · folds {np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f}"
    assert note in axes[0].get_xlabel()
    assert f"AP {sk.average_precision_score(y, p):.3f} · folds" in axes[1].get_xlabel()


def test_curves_skip_folds_with_one_class():
    y, p, fold = _predictions(8)
    fold = np.where((fold == 2) & (y == 0), 1, fold)
    _, ax = plt.subplots()
    plots_eval.roc(ax, y, p, fold)
    assert len(ax.lines) == 2 + 1 + 1  # two folds, pooled, chance


def test_curves_of_many_repeats_show_ten_folds_and_count_all():
    rng = np.random.default_rng(0)
    y, p, fold = np.tile([0, 1], 300), rng.random(600), np.repeat(np.arange(20), 30)
    _, ax = plt.subplots()
    plots_eval.roc(ax, y, p, fold)
    assert len(ax.lines) == 10 + 1 + 1
    curves = [sk.roc_curve(y[fold == f], p[fold == f], drop_intermediate=False)[:2] for f in range(20)]
    low, high = np.quantile([np.interp(plots_eval.GRID, *c) for c in curves], (0.1, 0.9), axis=0)
    drawn = {tuple(v) for v in np.round(ax.collections[0].get_paths()[0].vertices, 6).tolist()}
    ends = np.vstack([np.column_stack([plots_eval.GRID, end]) for end in (low, high)])
    band = {tuple(v) for v in np.round(ends, 6).tolist()}
    assert band <= drawn
    areas = [sk.roc_auc_score(y[fold == f], p[fold == f]) for f in range(20)]
    assert f"folds {np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f}" in ax.get_xlabel()


def test_reliability_by_hand():
    _, ax = plt.subplots()
    plots_eval.reliability(ax, [0, 1, 1, 1], [0.11, 0.13, 0.15, 1.0])
    line = ax.lines[-1]
    assert line.get_xdata().tolist() == pytest.approx([0.13, 1.0])
    assert line.get_ydata().tolist() == pytest.approx([2 / 3, 1.0])
    _, ax = plt.subplots()
    plots_eval.reliability(ax, np.repeat([0, 1], 5), np.full(10, 0.55))
    ((_, low), (_, high)) = ax.collections[0].get_segments()[0]  # 5 of 10: .2366 to .7634
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_dots_of_two_sets_show_the_papers_values_once_in_the_key():
    summary = _summary(dataset=["DATA1", "DATA2-sim"], metric=METRICS)
    summary["paper"] = [0.85] * 5 + [np.nan] * 5
    fig, ax = plt.subplots()
    plots.dots(ax, summary, row="dataset", series="metric")
    drawn = {c.get_label(): c.get_offsets()[:, 0] for c in ax.collections}
    assert drawn["paper"].compressed().tolist() == [0.85]
    assert drawn["F1"].tolist() == summary[summary["metric"] == "f1"]["mean"].tolist()
    plots.legend(fig, ax)
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["precision", "recall", "F1", "AUC", "AP", "paper"]


def test_heads_are_ordered_by_number_and_lines_are_named():
    summary = _summary(setting=["16", "linear", "0", "2"], metric=METRICS)
    _, ax = plt.subplots()
    plots_eval.heads(ax, summary, chosen=2, control="linear")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["linear", "0", "2*", "16"]
    assert ax.get_legend_handles_labels()[1] == ["precision", "recall", "F1", "AUC", "AP"]
    drawn = ax.lines[0].get_ydata()  # the first metric, without the control
    expected = summary[summary["metric"] == "precision"].set_index("setting")["mean"][["0", "2", "16"]]
    assert drawn.tolist() == pytest.approx(expected.tolist())


def test_critical_difference_joins_and_says_that_it_is_underpowered():
    _, ax = plt.subplots()
    plots_eval.critical_difference(ax, pd.Series({"b": 1.5, "a": 1.0, "c": 2.4, "d": 4.0}), 1.0, 7)
    texts = " ".join([ax.get_title("left"), *(t.get_text() for t in ax.texts)])
    assert "underpowered: 7 data sets" in texts and "a  1.00" in texts and "4.00  d" in texts
    joined = [tuple(sorted(x.get_xdata())) for x in ax.lines if x.get_linewidth() == 3]
    assert sorted(joined) == [(1.0, 1.5), (1.5, 2.4)]  # a with b, b with c, d alone


def test_dots_put_the_first_row_on_top():
    summary = _summary(dataset=["first", "second"], model=["m", "n"])
    _, ax = plt.subplots()
    plots.dots(ax, summary, row="dataset", series="model", chance=0.5)
    assert dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.get_yticks(), strict=True))["first"] == 1
    first = ax.collections[1].get_offsets()  # dots of model m
    assert first[:, 0].tolist() == pytest.approx(summary[summary["model"] == "m"]["mean"].tolist())
    assert first[0, 1] > first[1, 1]


def test_radar_names_every_series_and_metric_and_closes_its_lines():
    table = pd.DataFrame([[0.9, 0.8, 0.7, 0.6, 0.5], [0.5] * 5], index=["high", "low"], columns=METRICS)
    _, ax = plt.subplots(subplot_kw={"projection": "polar"})
    plots_eval.radar(ax, table)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["high", "low"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["precision", "recall", "F1", "AUC", "AP"]
    assert ax.get_ylim() == (0, 1)
    assert ax.lines[0].get_ydata().tolist() == [0.9, 0.8, 0.7, 0.6, 0.5, 0.9]


def test_text_is_readable():
    summary = _summary(dataset=["A375-PLX4720", "DATA1-sim"], metric=METRICS).assign(paper=0.8)
    y, p, fold = _predictions(8)
    fig = plt.figure(figsize=(8, 8))
    grid = fig.add_gridspec(3, 2)
    table = summary.pivot(index="dataset", columns="metric", values="mean")
    plots_eval.radar(fig.add_subplot(grid[0, 0], projection="polar"), table)
    dots = fig.add_subplot(grid[0, 1])
    plots.dots(dots, summary, row="dataset", series="metric")
    plots.legend(fig, dots)
    plots_eval.roc(fig.add_subplot(grid[1, 0]), y, p, fold)
    plots_eval.reliability(fig.add_subplot(grid[1, 1]), y, p)
    heads = _summary(setting=["linear", "0", "8"], metric=METRICS)
    plots_eval.heads(fig.add_subplot(grid[2, 0]), heads, chosen=8, control="linear")
    plots_eval.critical_difference(fig.add_subplot(grid[2, 1]), pd.Series({"a": 1.0, "b": 2.0, "c": 3.0}), 1, 4)
    sizes = [t.get_fontsize() for t in fig.findobj(mpl.text.Text) if t.get_text().strip()]
    assert min(sizes) >= 8
