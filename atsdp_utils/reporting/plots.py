"""One look for every figure, the mark of simulated data, and the forms that several notebooks share.

Colours are Okabe and Ito's and three more, told apart with any common colour vision. Sensitive is always blue and
resistant always vermillion; neither colour means anything else in this book. A form draws into axes it is given.
"""

import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from pandas.api.types import is_numeric_dtype

from atsdp_utils.foundation.cache import write_atomically

#: Colours of models, settings and series: what is left of Okabe-Ito once the classes have theirs, and three more.
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F6A00", "#5D3A9B", "#555555")
CLASS = {1: "#0072B2", 0: "#D55E00", -1: "#999999"}
CLASS_NAME = {1: "sensitive", 0: "resistant", -1: "unlabelled"}
INK, PAPER = "#222222", "#444444"
#: A value reported by the paper is always an open diamond.
PRINTED = {"marker": "D", "facecolor": "white", "edgecolor": PAPER}
CHANCE = {"color": "#AAAAAA", "linewidth": 1, "linestyle": ":", "zorder": 0}
METRIC_LABEL = {
    "precision": "precision", "recall": "recall", "f1": "F1", "auc": "AUC", "ap": "AP",
    "balanced_accuracy": "balanced accuracy", "mcc": "MCC", "brier": "Brier", "ece": "ECE",
}  # fmt: skip

STYLE = {
    **mpl.rc_params_from_file(Path(__file__).with_suffix(".mplstyle"), use_default_template=False),
    "axes.prop_cycle": mpl.cycler(color=SERIES),
}


def style() -> None:
    """Set the look, as every :class:`report.Run` does."""
    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]} | STYLE)


def figure(width: float = 7.0, height: float = 3.2, rows: int = 1, columns: int = 1, **options):
    """Figure and axes of the book's width (7 inches); `options` go to ``plt.subplots``."""
    return plt.subplots(rows, columns, figsize=(width, height), **options)


def panels(names: Sequence[str], height: float):
    """Figure of one titled panel a name on shared axes, in rows of four; the lowest of each column has its ticks."""
    fig, grid = figure(9.4, height, -(-len(names) // 4), 4, sharex=True, sharey=True, squeeze=False)
    for i, (ax, title) in enumerate(itertools.zip_longest(grid.flat, names, fillvalue="")):
        ax.set(title=title, visible=bool(title))
        ax.tick_params(labelbottom=i + 4 >= len(names))
    return fig, grid.flat[: len(names)]


def mark_tier(fig, tiers: Mapping[str, str], source: str) -> None:
    """Mark what is simulated in a figure, given the tier of each of its data sets; write its source line below.

    ``SIMULATED`` stands above the figure where all of it is, above each panel whose title names a simulated set where
    others are real, and ``PARTLY SIMULATED`` above the figure where both share a panel.
    """
    box = {"boxstyle": "round,pad=0.3", "facecolor": "#FFF3C4", "edgecolor": "#8A5A00", "linewidth": 1.0}
    look = {"fontsize": 8, "fontweight": "bold", "color": "#6B4500", "ha": "right", "va": "bottom"}
    simulated = {name for name, tier in tiers.items() if tier == "simulated"}
    titles = {ax: " ".join(ax.get_title(where) for where in ("left", "center", "right")) for ax in fig.axes}
    panels = [ax for ax, title in titles.items() if any(name in title for name in simulated)]
    if simulated and simulated == set(tiers) - {"GDSC-bulk"}:  # the bulk trains; what is drawn are cells
        fig.text(1.0, 1.02, "SIMULATED", bbox=box, **look)
    elif {name for name in simulated if any(name in titles[ax] for ax in panels)} == simulated:
        for ax in panels:  # beside the first line of a title, for the second is long
            up = mpl.transforms.ScaledTranslation(0, 0.06 + 0.17 * titles[ax].count("\n"), fig.dpi_scale_trans)
            ax.text(1.0, 1.0, "SIMULATED", transform=ax.transAxes + up, bbox=box, **dict(look, fontsize=6))
    else:
        fig.text(1.0, 1.02, "PARTLY SIMULATED", bbox=box, **look)
    fig.text(0, -0.02, textwrap.fill(source, int(fig.get_figwidth() * 15)), size=8, color="#555555", va="top")


def save_figure(fig, stem: Path) -> list[Path]:
    """Write ``<stem>.png``, then ``<stem>.svg``, byte-identical for the same figure, and close it."""
    # Names beside a chart take no part in the layout, yet belong to the picture.
    kept = [*fig.get_default_bbox_extra_artists(), *fig.findobj(mpl.text.Annotation)]
    look = {"dpi": STYLE["savefig.dpi"], "bbox_inches": "tight", "pad_inches": 0.06, "bbox_extra_artists": kept}
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        with mpl.rc_context({k: STYLE[k] for k in ("svg.hashsalt", "svg.fonttype")}):
            save = partial(fig.savefig, metadata=metadata, **look)
            written.append(write_atomically(stem.with_name(stem.name + suffix), save))
    plt.close(fig)
    return written


def panel(ax, letter: str, title: str) -> None:
    """Head a panel with its letter in bold and a title."""
    ax.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left")


def legend(fig, *axes) -> None:
    """Legend of the series in `axes` above the whole figure, outside every axes, with the paper's mark last."""
    pairs = (pair for ax in axes for pair in zip(*ax.get_legend_handles_labels(), strict=True))
    named = sorted(pairs, key=lambda pair: pair[1] == "paper")
    handles, labels = ([pair[i] for pair in named] for i in (0, 1))  # none where nothing was drawn
    fig.legend(handles, labels, loc="outside upper left", ncols=len(labels), columnspacing=1.2, handletextpad=0.4)


def shades(names: Iterable[str], colours: Mapping[str, str] | None = None) -> list[str]:
    """Colour of each name: its own in `colours`, else the next of :data:`SERIES`."""
    return [(colours or {}).get(name, SERIES[i % len(SERIES)]) for i, name in enumerate(names)]


def dots(
    ax, summary: pd.DataFrame, *, row: str, series: str | None = None, chance: float | None = None,
    colours: Mapping | None = None,
) -> None:  # fmt: skip
    """Means with intervals (``mean, ci_low, ci_high``) as rows, the first on top, and the paper's value where it is.

    `row` and `series` name columns; series share a row side by side. `colours` are theirs, or of rows without series.
    """
    rows, names = list(dict.fromkeys(summary[row])), list(dict.fromkeys(summary[series])) if series else [None]
    inks = shades(names, colours) if series else [[(colours or {}).get(name, SERIES[0]) for name in rows]]
    step, at = 0.66 / len(names), np.arange(len(rows))[::-1]
    ax.set_yticks(at, rows)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    for i, (name, colour) in enumerate(zip(names, inks, strict=True)):
        part = summary[summary[series] == name] if series else summary
        part = part.set_index(row).reindex(rows)
        y = at - (i - (len(names) - 1) / 2) * step
        ax.hlines(y, part["ci_low"], part["ci_high"], color=colour, linewidth=1.6)
        ax.scatter(part["mean"], y, color=colour, s=18, zorder=3, label=METRIC_LABEL.get(name, name))
        if "paper" in part and part["paper"].notna().any():
            ax.scatter(part["paper"], y, s=22, zorder=4, label="paper" if name == names[-1] else None, **PRINTED)
    if chance is not None:
        ax.axvline(chance, **CHANCE)


def strips(
    ax, data: pd.DataFrame, *, x: str, y: str, hue: str | None = None, order: Sequence | None = None,
    colours: Mapping | None = None,
) -> None:  # fmt: skip
    """Every value as a dot at its group, with the median as a bar: no density is estimated from a handful of values."""
    upright = is_numeric_dtype(data[y])
    groups = hue or (x if upright else y)
    names = order if order is not None and not hue else list(dict.fromkeys(data[groups]))
    about = {"data": data, "x": x, "y": y, "hue": groups, "hue_order": names, "order": order, "legend": False, "ax": ax}
    state = np.random.get_state()
    np.random.seed(0)  # seaborn spreads the dots by this generator
    sns.stripplot(**about, palette=shades(names, colours), dodge=bool(hue), size=3.5, alpha=0.6, linewidth=0)
    np.random.set_state(state)
    bar = {"marker": "_" if upright else "|", "markersize": 13, "markeredgewidth": 1.8, "linestyle": "none"}
    bar |= {"dodge": 0.4 if hue else False, "palette": [INK] * len(names), "zorder": 4}  # over the dots
    sns.pointplot(**about, **bar, estimator="median", errorbar=None)
    ax.set(xlabel="", ylabel="")
    ax.grid(axis="y" if upright else "x")
