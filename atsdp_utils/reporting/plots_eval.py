"""Figures of the evaluation (Figures 2 to 4 and their extras): every function draws into axes it is given.

Series carry their names beside them, legends lie outside the axes, intervals are 95 % unless a docstring says
otherwise. The look comes from :mod:`atsdp_utils.reporting.plots`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats as sps

from atsdp_utils.evaluation.metrics import ECE_BINS, average_precision, calibration_error
from atsdp_utils.reporting.plots import PAPER, SERIES

METRIC_LABEL = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "ap": "AP",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "brier": "Brier",
    "ece": "ECE",
}
CHANCE = {"color": "#AAAAAA", "linewidth": 1, "linestyle": ":", "zorder": 0}
GRID = np.linspace(0, 1, 101)


def _spread(values: Sequence[float], gap: float) -> np.ndarray:
    """Nearest positions to `values` that keep their order and are `gap` apart: blocks of neighbours share a centre."""
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []  # centre, members
    for v in np.asarray(values, dtype=float)[order]:
        blocks.append([v, 1])
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2:
            (b, m), (a, n) = blocks.pop(), blocks.pop()
            blocks.append([(a * n + b * m) / (n + m), n + m])
    placed = np.concatenate([c + gap * (np.arange(n) - (n - 1) / 2) for c, n in blocks])
    result = np.empty(len(placed))
    result[order] = placed
    return result


def _colours(names: Sequence[str], colours: Mapping[str, str] | None) -> list[str]:
    return [(colours or {}).get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(names)]


def key(fig, ax) -> None:
    """Legend of the series in `ax` above the whole figure, outside every axes."""
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i] == "paper")  # the paper's mark last
    place = {"loc": "outside upper left", "ncols": len(labels), "columnspacing": 1.2, "handletextpad": 0.4}
    fig.legend([handles[i] for i in order], [labels[i] for i in order], **place)


def _wrapped(names: Sequence[str]) -> list[str]:
    """Long names broken after their first hyphen."""
    return [n.replace("-", "-\n", 1) if len(n) > 10 else n for n in map(str, names)]


def radar(ax, table: pd.DataFrame, *, colours: Mapping[str, str] | None = None) -> None:
    """Radar chart in polar axes, its series named beside their point on the right-hand spoke.

    Give it a place wider than high: the chart takes the left of it and the names the rest.

    Areas of a radar chart depend on the order of the spokes: it is here because the paper has one; read the bars.

    Parameters
    ----------
    ax
        Axes made with ``projection="polar"``.
    table
        Rows are series (at most 9), columns metrics (at least 3), values in [0, 1].
    """
    k = table.shape[1]
    angles = np.pi / 2 - 2 * np.pi * np.arange(k) / k
    shades = _colours(table.index, colours)
    for (_, row), colour in zip(table.iterrows(), shades, strict=True):
        values = np.append(row.to_numpy(), row.iloc[0])
        ax.plot(np.append(angles, angles[0]), values, color=colour, linewidth=1.6, solid_joinstyle="round")
    side = int(np.cos(angles).argmax())
    for i, (angle, name) in enumerate(zip(angles, table.columns, strict=True)):
        aside = 0.22 if i == side else 0.0  # clear of the lines to the names
        ax.text(angle + aside, 1.17, METRIC_LABEL.get(name, name), ha="center", va="center", fontsize=8)
    ax.set_ylim(0, 1)
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=8, color="#666666")
    ax.set_rlabel_position(90 - 180 / k * 3)
    ax.set_xticks(angles % (2 * np.pi), [""] * k)
    ax.spines["polar"].set_visible(False)
    ax.set_anchor("W")  # leaves the rest of its place to the names
    radii = table.iloc[:, side].to_numpy()
    tips = np.c_[radii * np.cos(angles[side]), radii * np.sin(angles[side])] / 2 + 0.5  # in fractions of the axes
    heights = _spread(tips[:, 1], 0.1)
    heights += 0.5 - heights.mean() if len(heights) > 4 else 0
    for name, tip, height, colour in zip(table.index, tips, heights, shades, strict=True):
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "relpos": (0, 0.5)}
        arrow |= {"shrinkA": 0, "shrinkB": 1}
        place = {"xycoords": "axes fraction", "textcoords": "axes fraction", "va": "center", "fontsize": 8}
        text = ax.annotate(name, tip, (1.12, height), color=colour, arrowprops=arrow, annotation_clip=False, **place)
        text.set_in_layout(False)


def bars(ax, summary: pd.DataFrame, *, group: str, series: str, colours: Mapping[str, str] | None = None) -> None:
    """Grouped bars from zero with interval whiskers, the paper's value as an open diamond where there is one.

    Parameters
    ----------
    ax
        Axes.
    summary
        Tidy: `group`, `series`, ``mean, ci_low, ci_high`` and optionally ``paper``.
    group, series
        Columns that name the groups along the axis and the bars in a group.
    """
    groups, names = list(dict.fromkeys(summary[group])), list(dict.fromkeys(summary[series]))
    width = 0.8 / len(names)
    for i, (name, colour) in enumerate(zip(names, _colours(names, colours), strict=True)):
        rows = summary[summary[series] == name].set_index(group).reindex(groups)
        x = np.arange(len(groups)) + (i - (len(names) - 1) / 2) * width
        ax.bar(x, rows["mean"], width * 0.92, color=colour, label=METRIC_LABEL.get(name, name))
        ax.vlines(x, rows["ci_low"], rows["ci_high"], color="#222222", linewidth=1)
        if "paper" in rows and rows["paper"].notna().any():
            label = "paper" if name == names[-1] else None
            ax.scatter(x, rows["paper"], marker="D", s=14, facecolor="white", edgecolor=PAPER, zorder=3, label=label)
    ax.set_xticks(range(len(groups)), _wrapped(groups))
    ax.tick_params(axis="x", length=0)
    ax.set_ylim(min(0.0, summary["ci_low"].min()), 1.0)
    ax.grid(axis="y")


def _roc(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates at every distinct threshold, from (0, 0) to (1, 1)."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), y.size - 1)
    hits = np.cumsum(y[order])[last]
    return np.append(0, (last + 1 - hits) / (y == 0).sum()), np.append(0, hits / y.sum())


def _pr(y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at every distinct threshold that finds a sensitive cell, from recall 0."""
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), y.size - 1)
    hits = np.cumsum(y[order])[last]
    precision, hits = (hits / (last + 1))[hits > 0], hits[hits > 0]
    return np.append(0, hits / y.sum()), np.append(precision[0], precision)


def _precision_at(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Precision at the first threshold that reaches each recall of the grid (a step, not a slope: AP's reading)."""
    return precision[np.minimum(np.searchsorted(recall, GRID - 1e-12), len(recall) - 1)]


def _folds(y, p, fold):
    """Folds with both classes: (y, p) of each."""
    y, p, fold = np.asarray(y), np.asarray(p), np.asarray(fold)
    parts = [(y[fold == f], p[fold == f]) for f in np.unique(fold)]
    return y, p, [(a, b) for a, b in parts if 0 < a.sum() < a.size]


def _fan(ax, curves: list[np.ndarray], colour: str) -> None:
    """Thin line for each fold and a band of the middle 80 % of them."""
    for curve in curves:
        ax.plot(GRID, curve, color=colour, linewidth=0.5, alpha=0.35)
    if len(curves) > 2:
        ax.fill_between(GRID, *np.quantile(curves, (0.1, 0.9), axis=0), color=colour, alpha=0.2, linewidth=0)


def _unit_square(ax, xlabel: str, ylabel: str, note: str) -> None:
    """Frame of a curve in [0, 1] x [0, 1]; its numbers stand under the axis, never on the curve."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=ylabel, aspect="equal")
    ax.set_xlabel(f"{xlabel}\n{note}", fontsize=8)
    ax.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    ax.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))


def roc(ax, y, p, fold, *, colour: str = SERIES[0]) -> None:
    """ROC curve of all cells together (thick), of each fold (thin), and the band of the middle 80 % of folds.

    Folds have their own models, whose scores need not share a scale, so the pooled curve may lie below them.

    Parameters
    ----------
    ax
        Axes.
    y, p, fold
        Label, P(sensitive) and test fold (or repeat and fold, any code) of each prediction, shape (n,).
    """
    y, p, parts = _folds(y, p, fold)
    curves = [np.interp(GRID, *_roc(a, b)) for a, b in parts]
    areas = [np.trapezoid(*_roc(a, b)[::-1]) for a, b in parts]
    _fan(ax, curves, colour)
    fpr, tpr = _roc(y, p)
    ax.plot(fpr, tpr, color=colour)
    ax.plot((0, 1), (0, 1), **CHANCE)
    _unit_square(ax, "false positive rate", "true positive rate", _note("AUC", np.trapezoid(tpr, fpr), areas))


def pr(ax, y, p, fold, *, colour: str = SERIES[0]) -> None:
    """Precision-recall curve like :func:`roc`; the dotted line is the share of sensitive cells, a coin's precision."""
    y, p, parts = _folds(y, p, fold)
    _fan(ax, [_precision_at(*_pr(a, b)) for a, b in parts], colour)
    recall, precision = _pr(y, p)
    ax.plot(recall, precision, color=colour, drawstyle="steps-pre")
    ax.axhline(np.mean(y), **CHANCE)
    note = _note("AP", average_precision(y, p), [average_precision(a, b) for a, b in parts])
    _unit_square(ax, "recall", "precision", note)


def _note(name: str, pooled: float, folds: Sequence[float]) -> str:
    spread = f" · folds {np.mean(folds):.3f} ± {np.std(folds, ddof=1):.3f}" if len(folds) > 1 else ""
    return f"{name} {pooled:.3f}{spread}"


def reliability(ax, y, p, *, colour: str = SERIES[0]) -> None:
    """Share of sensitive cells against the mean predicted probability, in ten bins of equal width.

    Whiskers are Wilson intervals of the share; the strip at the foot shows how the predictions spread.
    """
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    bin_of = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    n = np.bincount(bin_of, minlength=ECE_BINS)
    used = n > 0
    share, mean = (np.bincount(bin_of, v, ECE_BINS)[used] / n[used] for v in (y, p))
    low, high = _wilson(share, n[used])
    ax.bar((np.arange(ECE_BINS) + 0.5) / ECE_BINS, 0.18 * n / n.max(), 0.092, color="#DDDDDD", zorder=0)
    ax.plot((0, 1), (0, 1), **CHANCE)
    ax.vlines(mean, low, high, color=colour, linewidth=1.5)
    ax.plot(mean, share, color=colour, marker="o", markersize=4, linewidth=1)
    note = f"ECE {calibration_error(y, p):.3f} · Brier {np.mean((p - y) ** 2):.3f}"
    _unit_square(ax, "predicted P(sensitive)", "share sensitive", note)


def _wilson(share: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    z = sps.norm.ppf((1 + level) / 2)
    centre, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def boxes(
    ax,
    values: Mapping[str, Sequence[float]],
    *,
    colours: Mapping[str, str] | None = None,
    paper: Mapping[str, float] | None = None,
) -> None:
    """Horizontal box plots with every score as a dot; whiskers reach the extremes, the first group is on top."""
    names = list(values)
    at = np.arange(len(names))[::-1]
    scores = [np.asarray(v, dtype=float)[np.isfinite(v)] for v in values.values()]
    line = {"color": "#222222", "linewidth": 1}
    look = {"boxprops": line, "whiskerprops": line, "capprops": line, "medianprops": line | {"linewidth": 2}}
    ax.boxplot(scores, positions=at, orientation="horizontal", widths=0.55, whis=(0, 100), manage_ticks=False, **look)
    for y, v, colour in zip(at, scores, _colours(names, colours), strict=True):
        spread = 0.2 * np.sin(2.4 * np.arange(len(v)))  # a fixed pattern that neighbours in rank do not share
        ax.scatter(v, y + spread, s=10, color=colour, alpha=0.6, linewidth=0, zorder=3)
    if paper:
        rows = [(paper[n], y) for n, y in zip(names, at, strict=True) if n in paper]
        ax.scatter(*zip(*rows, strict=True), marker="D", s=30, facecolor="white", edgecolor=PAPER, zorder=4)
    ax.set_yticks(at, names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def dots(
    ax,
    summary: pd.DataFrame,
    *,
    row: str,
    series: str | None = None,
    chance: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> None:
    """Means with intervals as rows, the first on top; several series share a row side by side.

    Parameters
    ----------
    ax
        Axes.
    summary
        Tidy: `row`, optionally `series`, ``mean, ci_low, ci_high`` and optionally ``paper`` (open diamond).
    row, series
        Columns that name the rows and the series.
    chance
        Where to draw the line of a coin toss.
    """
    rows, names = list(dict.fromkeys(summary[row])), list(dict.fromkeys(summary[series])) if series else [None]
    step = 0.66 / len(names)
    for i, (name, colour) in enumerate(zip(names, _colours(names, colours), strict=True)):
        part = summary if name is None else summary[summary[series] == name]
        part = part.set_index(row).reindex(rows)
        y = np.arange(len(rows))[::-1] - (i - (len(names) - 1) / 2) * step
        ax.hlines(y, part["ci_low"], part["ci_high"], color=colour, linewidth=1.6)
        ax.scatter(part["mean"], y, color=colour, s=18, zorder=3, label=name)
        if "paper" in part and part["paper"].notna().any():
            ax.scatter(part["paper"], y, marker="D", s=22, facecolor="white", edgecolor=PAPER, zorder=4)
    if chance is not None:
        ax.axvline(chance, **CHANCE)
    ax.set_yticks(np.arange(len(rows))[::-1], rows)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def heads(ax, summary: pd.DataFrame, *, chosen: int | None = None, control: str | None = None) -> None:
    """Metrics against the number of attention heads, each line named at its right end.

    Parameters
    ----------
    ax
        Axes.
    summary
        Tidy: ``setting`` (number of heads, or the name of the control), ``metric``, ``mean, ci_low, ci_high``.
    chosen
        The paper's number of heads, marked on the axis.
    control
        Setting that is not a number of heads (the width-matched linear layer): drawn apart, at the left.
    """
    settings = [s for s in dict.fromkeys(summary["setting"]) if s != control]
    settings.sort(key=int)
    order = ([control] if control else []) + settings
    x = np.arange(len(order)) - (1.3 if control else 0) + np.array([0.0] + [0.3] * (len(order) - 1)) * bool(control)
    names = list(dict.fromkeys(summary["metric"]))
    first, ends = int(bool(control)), {}
    for i, (name, colour) in enumerate(zip(names, SERIES, strict=False)):
        part = summary[summary["metric"] == name].set_index("setting").reindex(order)
        at = x + 0.09 * (i - (len(names) - 1) / 2)
        ax.vlines(at, part["ci_low"], part["ci_high"], color=colour, linewidth=0.9, alpha=0.7)
        ax.plot(at[first:], part["mean"].iloc[first:], color=colour, marker="o", markersize=3, linewidth=1.2)
        ax.plot(at[:first], part["mean"].iloc[:first], color=colour, marker="s", markersize=3.5, linestyle="none")
        ends[name] = (part["mean"].iloc[-1], colour)
    ax.set_xticks(x, [f"{s}*" if chosen is not None and s == str(chosen) else s for s in order])
    ax.set_xlim(x[0] - 0.5, x[-1] + 0.4)
    ax.grid(axis="y")
    low, high = summary["ci_low"].min(), summary["ci_high"].max()
    pad = max(0.05 * (high - low), 0.01)
    ax.set_ylim(low - pad, high + pad)
    _name_ends(ax, ends, x[-1] + 0.5)


def _name_ends(ax, ends: Mapping[str, tuple[float, str]], x: float) -> None:
    """Write series names to the right of the axes at their last values, pushed apart by a line's height."""
    low, high = ax.get_ylim()
    inches = ax.get_position().height * ax.figure.get_figheight()
    heights = _spread([value for value, _ in ends.values()], (high - low) * 0.125 / inches)
    for (name, (_, colour)), height in zip(ends.items(), heights, strict=True):
        ax.text(x, height, METRIC_LABEL.get(name, name), color=colour, fontsize=8, va="center", clip_on=False)


def critical_difference(ax, ranks: pd.Series, distance: float, blocks: int) -> None:
    """Critical-difference diagram: mean ranks on a line, bars join models that the data cannot tell apart.

    Parameters
    ----------
    ax
        Axes; its own frame is removed.
    ranks
        Mean rank of each model (1 is best).
    distance
        Nemenyi's critical difference, from :func:`stats.friedman`.
    blocks
        Number of data sets, written into the caption of the diagram: it is underpowered, and says so.
    """
    ranks = ranks.sort_values()
    k, half = len(ranks), (len(ranks) + 1) // 2
    ax.hlines(0, 1, k, color="#222222", linewidth=1)
    for tick in range(1, k + 1):
        ax.vlines(tick, 0, 0.12, color="#222222", linewidth=1)
        ax.text(tick, 0.2, str(tick), ha="center", va="bottom", fontsize=8)
    groups = _joined(ranks.to_numpy(), distance)
    for level, (a, b) in enumerate(groups):
        ax.hlines(-0.18 - 0.16 * level, a - 0.04, b + 0.04, color="#222222", linewidth=3)
    foot = -0.35 - 0.16 * len(groups)
    for i, (name, rank) in enumerate(ranks.items()):
        left = i < half
        y = foot - 0.32 * (i if left else k - 1 - i)
        side = 0.7 if left else k + 0.3
        ax.plot((rank, rank, side), (0, y, y), color=SERIES[7], linewidth=0.8, zorder=0)
        text = f"{name}  {rank:.1f}" if left else f"{rank:.1f}  {name}"
        ax.text(side - 0.05 if left else side + 0.05, y, text, ha="right" if left else "left", va="center", fontsize=8)
    ax.hlines(0.95, 1, 1 + distance, color=PAPER, linewidth=2)
    text = f"critical difference {distance:.1f} ranks; underpowered: {blocks} data sets"
    ax.text(1, 1.05, text, va="bottom", fontsize=8, color=PAPER)
    ax.text(k, 0.55, "mean rank, 1 is best", ha="right", va="bottom", fontsize=8)
    ax.set(xlim=(0.6, k + 0.4), ylim=(foot - 0.32 * half, 1.35))
    ax.axis("off")


def _joined(ranks: np.ndarray, distance: float) -> list[tuple[float, float]]:
    """Maximal runs of sorted ranks no wider than `distance`."""
    runs = [(a, ranks[ranks <= a + distance].max()) for a in ranks]
    return [(a, b) for i, (a, b) in enumerate(runs) if b > a and (i == 0 or b > runs[i - 1][1])]
