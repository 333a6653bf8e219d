"""One look for every figure, the mark of simulated data, and the few plot forms that several notebooks share.

Colours are Okabe and Ito's, told apart with any common colour vision. Sensitive is always blue and resistant always
vermillion; neither colour means anything else in this book.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from atsdp_utils.foundation.cache import write_atomically

SENSITIVE, RESISTANT, UNLABELLED = "#0072B2", "#D55E00", "#999999"
#: Colours of models, settings and series: what is left of Okabe-Ito once the classes have theirs.
SERIES = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F6A00", "#5D3A9B", "#8C8C8C")
CLASS = {1: SENSITIVE, 0: RESISTANT, -1: UNLABELLED}
CLASS_NAME = {1: "sensitive", 0: "resistant", -1: "unlabelled"}
PAPER = "#444444"  # a value reported by the paper, always an open diamond

STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "svg.hashsalt": "atsdp-companion",  # the same ids, hence the same bytes, in every run
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": mpl.cycler(color=SERIES),
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
    "image.cmap": "cividis",
}


def style() -> None:
    """Set the look; call it once in the setup cell of a notebook."""
    mpl.rcParams.update(mpl.rcParamsDefault | {"backend": mpl.rcParams["backend"]} | STYLE)


def figure(width: float = 7.0, height: float = 3.2, rows: int = 1, columns: int = 1, **options):
    """Figure and axes of the book's width (7 inches); `options` go to ``plt.subplots``."""
    import matplotlib.pyplot as plt

    return plt.subplots(rows, columns, figsize=(width, height), **options)


def mark_tier(fig, simulated: bool, source: str = "") -> None:
    """Mark a figure: ``SIMULATED`` above its upper right corner where it applies, its source line below.

    Both lie outside the canvas, so they cover no data; :func:`save_figure` keeps them through its tight box.
    """
    if simulated:
        box = {"boxstyle": "round,pad=0.3", "facecolor": "#FFF3C4", "edgecolor": "#8A5A00", "linewidth": 1.0}
        text = {"fontsize": 8, "fontweight": "bold", "color": "#6B4500", "ha": "right", "va": "bottom"}
        fig.text(1.0, 1.02, "SIMULATED", bbox=box, **text)
    if source:
        lines = textwrap.fill(source, width=int(fig.get_figwidth() * 15))
        fig.text(0.0, -0.02, lines, fontsize=8, color="#555555", ha="left", va="top")


def save_figure(fig, stem: Path) -> list[Path]:
    """Write ``<stem>.png`` and ``<stem>.svg``, byte-identical for the same figure, and close it.

    Returns
    -------
    list of Path
        The PNG, then the SVG.
    """
    import matplotlib.pyplot as plt

    # Names beside a chart take no part in the layout, yet belong to the picture.
    kept = [*fig.get_default_bbox_extra_artists(), *fig.findobj(mpl.text.Annotation)]
    written = []
    for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None, "Creator": None})):
        look = {"dpi": STYLE["savefig.dpi"], "bbox_inches": "tight", "pad_inches": 0.06, "metadata": metadata}
        look["bbox_extra_artists"] = kept
        with mpl.rc_context({k: STYLE[k] for k in ("svg.hashsalt", "svg.fonttype")}):
            written.append(write_atomically(stem.with_name(stem.name + suffix), partial(fig.savefig, **look)))
    plt.close(fig)
    return written


def panel(ax, letter: str, title: str = "") -> None:
    """Head a panel with its letter in bold and a title."""
    ax.set_title(rf"$\bf{{{letter}}}$  {title}", loc="left")


def intervals(ax, df: pd.DataFrame, *, label: str, chance: float | None = None, colours: Mapping | None = None) -> None:
    """Rows of means with confidence intervals, and the paper's value as an open diamond where there is one.

    Parameters
    ----------
    ax
        Axes; row 0 of `df` is drawn on top.
    df
        Columns ``mean, ci_low, ci_high``, `label`, and optionally ``paper``.
    label
        Column that names the rows.
    chance
        Where to draw the line of a coin toss.
    colours
        Colour by value of `label`; default: the first of :data:`SERIES`.
    """
    y = np.arange(len(df))[::-1]
    colour = [(colours or {}).get(v, SERIES[0]) for v in df[label]]
    ax.hlines(y, df["ci_low"], df["ci_high"], color=colour, linewidth=2)
    ax.scatter(df["mean"], y, color=colour, s=26, zorder=3)
    if "paper" in df and df["paper"].notna().any():
        ax.scatter(df["paper"], y, marker="D", s=26, facecolor="none", edgecolor=PAPER, zorder=3, label="paper")
        ax.legend(loc="best")
    if chance is not None:
        ax.axvline(chance, color="#AAAAAA", linewidth=1, linestyle=":")
    ax.set_yticks(y, df[label].astype(str))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")


def points(ax, values: Mapping[str, Sequence[float]], *, chance: float | None = None) -> None:
    """Every value of each group as a dot, spread sideways in a fixed order, with the median as a bar.

    Shows a distribution over seeds or folds as it is: no density is estimated from a handful of values.
    """
    for i, v in enumerate(values.values()):
        v = np.asarray(v, dtype=float)
        spread = np.linspace(-0.18, 0.18, len(v)) if len(v) > 1 else np.zeros(1)
        ax.scatter(i + spread, v, s=16, color=SERIES[i % len(SERIES)], alpha=0.8, linewidth=0)
        ax.hlines(np.median(v), i - 0.28, i + 0.28, color="#222222", linewidth=1.5, label=None if i else "median")
    if chance is not None:
        ax.axhline(chance, color="#AAAAAA", linewidth=1, linestyle=":")
    ax.set_xticks(range(len(values)), list(values))
    ax.grid(axis="y")


def embedding(ax, xy: np.ndarray, y: np.ndarray, *, legend: bool = True) -> None:
    """Scatter of cells in two dimensions, coloured by class.

    Parameters
    ----------
    xy
        (cells, 2) coordinates.
    y
        (cells,) 1 sensitive, 0 resistant, -1 unlabelled.
    """
    for value in (-1, 0, 1):
        rows = np.asarray(y) == value
        if rows.any():
            name = f"{CLASS_NAME[value]} ({rows.sum()})"
            ax.scatter(*xy[rows].T, s=7, color=CLASS[value], linewidth=0, alpha=0.8, label=name, rasterized=True)
    ax.set(xticks=[], yticks=[])
    if legend:
        ax.legend(loc="best", markerscale=2, handletextpad=0.1)


def heat(ax, table: pd.DataFrame, *, fmt: str = ".2f", low: float | None = None, high: float | None = None) -> None:
    """Table of numbers as a heat map with the numbers written in it."""
    values = table.to_numpy(dtype=float)
    image = ax.imshow(values, aspect="auto", vmin=low, vmax=high, cmap="cividis")
    for (i, j), v in np.ndenumerate(values):
        if np.isfinite(v):
            dark = image.norm(v) < 0.55
            ax.text(j, i, format(v, fmt), ha="center", va="center", fontsize=7.5, color="white" if dark else "black")
    ax.set_xticks(range(table.shape[1]), [str(c) for c in table.columns])
    ax.set_yticks(range(table.shape[0]), [str(r) for r in table.index])
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
