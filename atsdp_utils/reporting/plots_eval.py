"""Figures of single analyses of the evaluation: radar, curves, reliability, heads, ranks, and a threshold to slide."""

import hashlib
import html
import json
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from atsdp_utils.evaluation import stats
from atsdp_utils.evaluation.metrics import ECE_BINS, calibration_error, classification_metrics
from atsdp_utils.reporting.plots import CHANCE, CLASS, INK, METRIC_LABEL, PAPER, SERIES, shades

GRID = np.linspace(0, 1, 101)
#: Of series that lie on each other: one shows through the gaps of the next.
LINES = ("-", "--", ":", "-.")
Curve = tuple[np.ndarray, np.ndarray]


def radar(ax, table: pd.DataFrame, *, colours: Mapping[str, str] | None = None) -> None:
    """Radar chart in polar axes with its key at the right: rows are series, the first on top, columns metrics.

    Areas of a radar chart depend on the order of the spokes: it is here because the paper has one; read the bars.
    """
    k = table.shape[1]
    angles = np.pi / 2 - 2 * np.pi * np.arange(k) / k
    for i, ((name, row), colour) in enumerate(zip(table.iterrows(), shades(table.index, colours), strict=True)):
        look = {"color": colour, "linewidth": 1.2, "linestyle": LINES[i % 4], "label": name, "zorder": 3 - i / 100}
        ax.plot(np.append(angles, angles[0]), np.append(row, row.iloc[0]), **look)
    ax.set_xticks(angles % (2 * np.pi), [METRIC_LABEL.get(name, name) for name in table], fontsize=8)
    ax.set_ylim(0, 1)
    ax.set_yticks([0.25, 0.5, 0.75, 1.0], ["", "0.5", "", "1"], fontsize=8, color="#666666")
    ax.set_rlabel_position(90 - 180 / k * 3)
    ax.spines["polar"].set_visible(False)
    ax.legend(loc="center left", bbox_to_anchor=(1.25, 0.5))


def _curves(ax, y, p, fold, curve: Callable[..., Curve], name: str, of: Callable, step: str | None) -> str:
    """Draw the curve of all cells (thick), those of ten folds with both classes (thin), the band of 80 % of all folds.

    `step` is the drawstyle, if the curve is made of steps. Returns the note of the areas.
    """
    y, p, fold = np.asarray(y), np.asarray(p), np.asarray(fold)
    parts = [(y[fold == f], p[fold == f]) for f in np.unique(fold)]
    parts = [(a, b) for a, b in parts if 0 < a.sum() < a.size]
    lines = [curve(a, b) for a, b in parts]
    if step:  # the value at the first threshold that reaches each place of the grid: average precision's reading
        lines = [v[np.minimum(np.searchsorted(x, GRID - 1e-12), len(x) - 1)] for x, v in lines]
    else:
        lines = [np.interp(GRID, *line) for line in lines]
    for line in lines[:10]:  # more, of several repeats, would hide each other
        ax.plot(GRID, line, color=SERIES[0], linewidth=0.5, alpha=0.35)
    if len(lines) > 2:
        ax.fill_between(GRID, *np.quantile(lines, (0.1, 0.9), axis=0), color=SERIES[0], alpha=0.2, linewidth=0)
    ax.plot(*curve(y, p), color=SERIES[0], drawstyle=step)
    folds = [of(a, b) for a, b in parts]
    spread = f" · folds {np.mean(folds):.3f} ± {np.std(folds, ddof=1):.3f}" if len(folds) > 1 else ""
    return f"{name} {of(y, p):.3f}{spread}"


def _unit_square(ax, xlabel: str, ylabel: str, note: str) -> None:
    """Frame of a curve in [0, 1] x [0, 1]; its numbers stand under the axis, never on the curve."""
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), ylabel=ylabel, aspect="equal")
    ax.set_xlabel(f"{xlabel}\n{note}", fontsize=8)
    ax.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    ax.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))


def roc(ax, y, p, fold) -> None:
    """ROC curve of label, P(sensitive) and test fold (or any code of repeat and fold) of each prediction, (n,)."""
    note = _curves(ax, y, p, fold, lambda *a: roc_curve(*a, drop_intermediate=False)[:2], "AUC", roc_auc_score, None)
    ax.plot((0, 1), (0, 1), **CHANCE)
    _unit_square(ax, "false positive rate", "true positive rate", note)


def pr(ax, y, p, fold) -> None:
    """Precision-recall curve like :func:`roc`; the dotted line is the share of sensitive cells, a coin's precision."""

    def rates(y, p) -> Curve:
        precision, recall, _ = precision_recall_curve(y, p)
        precision, recall = precision[recall > 0][::-1], recall[recall > 0][::-1]
        return np.append(0, recall), np.append(precision[0], precision)

    note = _curves(ax, y, p, fold, rates, "AP", average_precision_score, "steps-pre")
    ax.axhline(np.mean(y), **CHANCE)
    _unit_square(ax, "recall", "precision", note)


def reliability(ax, y, p, repeats: int = 1) -> None:
    """Share of sensitive cells against the mean predicted probability, in ten bins of equal width.

    Whiskers are Wilson intervals of the share, a cell counted once however many `repeats` predict it; the strip at the
    foot shows how the predictions spread.
    """
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    bin_of = np.minimum((p * ECE_BINS).astype(int), ECE_BINS - 1)
    n, hits, total = (np.bincount(bin_of, v, ECE_BINS) for v in (np.ones_like(y), y, p))
    ax.bar((np.arange(ECE_BINS) + 0.5) / ECE_BINS, 0.18 * n / n.max(), 0.092, color="#DDDDDD", zorder=0)
    ax.plot((0, 1), (0, 1), **CHANCE)
    n, hits, total = (v[n > 0] for v in (n, hits, total))
    ax.vlines(total / n, *stats.wilson(hits / repeats, n / repeats)[1:], color=SERIES[0], linewidth=1.5)
    ax.plot(total / n, hits / n, color=SERIES[0], marker="o", markersize=4, linestyle="none")
    note = f"ECE {calibration_error(y, p):.3f} · Brier {np.mean((p - y) ** 2):.3f}"
    _unit_square(ax, "predicted P(sensitive)", "share sensitive", note)


def heads(ax, summary: pd.DataFrame, *, chosen: int, control: str) -> None:
    """Metrics against the number of attention heads, a line a metric.

    `chosen` is the paper's number, marked on the axis; `control`, the linear layer, is drawn apart, at the left.
    """
    counts = sorted(set(summary["setting"]) - {control}, key=int)
    x = np.array([-1.3, *range(len(counts))])
    names, colours = list(dict.fromkeys(summary["metric"])), dict(zip(METRIC_LABEL, SERIES, strict=False))
    for i, name in enumerate(names):
        part = summary[summary["metric"] == name].set_index("setting").reindex([control, *counts])
        at = x + 0.16 * (i - (len(names) - 1) / 2)
        look = {"color": colours[name], "markersize": 3.5}
        ax.vlines(at, part["ci_low"], part["ci_high"], color=colours[name], linewidth=0.9, alpha=0.7)
        ax.plot(at[1:], part["mean"].iloc[1:], marker="o", linewidth=1.2, label=METRIC_LABEL[name], **look)
        ax.plot(at[:1], part["mean"].iloc[:1], marker="s", linestyle="none", **look)
    ax.set_xticks(x, [control, *(f"{s}*" if s == str(chosen) else s for s in counts)])
    ax.grid(axis="y")


def critical_difference(ax, ranks: pd.Series, distance: float, blocks: int) -> None:
    """Mean ranks on a line; bars join models less than Nemenyi's `distance` apart over so many `blocks` of data."""
    from scikit_posthocs import critical_difference_diagram

    near = np.abs(np.subtract.outer(ranks.to_numpy(), ranks.to_numpy())) <= distance
    critical_difference_diagram(
        ranks,
        pd.DataFrame(near.astype(float), ranks.index, ranks.index),  # in place of p: 1 joins, 0 parts
        ax=ax, label_fmt_left="{label}  {rank:.2f} ", label_fmt_right=" {rank:.2f}  {label}", text_h_margin=0.3,
        label_props={"fontsize": 8}, color_palette=[INK] * len(ranks), elbow_props={"linewidth": 0.8},
        marker_props={"s": 8}, crossbar_props={"color": INK, "linewidth": 3},
    )  # fmt: skip
    ax.spines["top"].set_visible(True)
    ax.set(xlim=(1, len(ranks)), xticks=range(1, len(ranks) + 1))
    said = f"critical difference {distance:.1f} ranks; underpowered: {blocks} data sets"
    ax.set_title(f"mean rank, 1 is best; {said}", fontsize=8, color=PAPER)


# --- a decision threshold to slide, over values computed beforehand, with no library behind it ------------------------

SHOWN = ("precision", "recall", "f1", "balanced_accuracy", "mcc")
_PAGE = """<div class="threshold-slider">
<p><label for="{id}">Threshold for calling a cell sensitive: <output>0.50</output></label><br>
<input id="{id}" type="range" min="0" max="100" value="50" style="width:100%;max-width:40rem"></p>
<svg viewBox="0 0 100 32" role="img" aria-label="P(sensitive) of {name}"
 style="width:100%;max-width:40rem;background:#fff">
{bars}<line x1="50" x2="50" y1="0" y2="32" stroke="#000" stroke-width="0.4"/></svg>
<p>{name}: P(sensitive) of sensitive cells above, of resistant cells below.</p>
<p aria-live="polite"></p>
<noscript>This slider needs JavaScript; the figure below holds the same values.</noscript>
<script>(function () {{
  const said = {said}, input = document.getElementById("{id}"), whole = input.closest(".threshold-slider");
  (input.oninput = () => {{
    whole.querySelector("output").textContent = (input.value / 100).toFixed(2);
    for (const end of ["x1", "x2"]) whole.querySelector("line").setAttribute(end, input.value);
    whole.querySelector("[aria-live]").textContent = said[input.value];
  }})();
}})();</script></div>
"""


def threshold_table(y: np.ndarray, p: np.ndarray) -> pd.DataFrame:
    """Sensitive and resistant cells called right, then the scores of :data:`SHOWN`, at thresholds 0, 0.01, … 1."""
    rows = {}
    for t in np.arange(101) / 100:
        scores = classification_metrics(y, p, threshold=t)
        right = {"sensitive": ((p >= t) & (y == 1)).sum(), "resistant": ((p < t) & (y == 0)).sum()}
        rows[t] = right | {METRIC_LABEL.get(k, k): round(scores[k], 4) for k in SHOWN}
    return pd.DataFrame.from_dict(rows, orient="index")


def threshold_slider(y: np.ndarray, p: np.ndarray, name: str) -> str:
    """HTML of a slider over :func:`threshold_table`; `name` says what the cells are, to a screen reader too."""
    bars = ""
    for value, base in ((1, 16), (0, 32)):
        counts = np.histogram(p[y == value], bins=40, range=(0, 1))[0]
        for i, n in enumerate(counts / max(counts.max(), 1) * 14):
            size = f'x="{2.5 * i + 0.1:.1f}" y="{base - n:.2f}" width="2.3" height="{n:.2f}"'
            bars += f'<rect {size} fill="{CLASS[value]}"/>\n' if n else ""
    said = json.dumps([
        f"{row.pop('sensitive'):.0f} of {(y == 1).sum()} sensitive and {row.pop('resistant'):.0f} of {(y == 0).sum()} "
        "resistant cells are called right; " + ", ".join(f"{k} {v:.3f}" for k, v in row.items()) + "."
        for row in threshold_table(y, p).to_dict("records")
    ])  # fmt: skip
    mark = "ts" + hashlib.sha256(said.encode()).hexdigest()[:8]
    return _PAGE.format(id=mark, bars=bars, said=said, name=html.escape(name))
