"""Figures of the biology notebooks (Figures 5 to 8): embeddings, scores, nulls, heat maps, trends.

Every function draws into axes it is given. Keys lie outside the axes or in titles, never over data; P(sensitive) runs
from the colour of resistant to the colour of sensitive.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.colors import LinearSegmentedColormap
from sklearn.metrics import RocCurveDisplay

from atsdp_utils.reporting.plots import CHANCE, CLASS, CLASS_NAME, INK, SERIES, shades

RESPONSE = LinearSegmentedColormap.from_list("response", [CLASS[0], "#BDBDBD", CLASS[1]])
CLASSES = {CLASS_NAME[v]: CLASS[v] for v in (1, 0)}


def culture_colours(groups: Sequence[str]) -> dict[str, str]:
    """Colour of every culture, in sorted order; none is the colour of a class."""
    return dict(zip(sorted(set(groups)), SERIES, strict=False))


def _cells(ax, xy: np.ndarray, colour: np.ndarray, title: str, **look):
    """Cells as dots, larger where they are few, drawn in a fixed random order, so that none hides all."""
    order = np.random.default_rng(0).permutation(len(xy))
    size = float(np.clip(4000 / len(xy), 3, 14))
    drawn = ax.scatter(*xy[order].T, s=size, c=colour[order], linewidth=0, rasterized=True, **look)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="#DDDDDD", linewidth=0.6)  # or neighbours look like one map
    ax.set_title(title)
    return drawn


def cells_by(ax, xy: np.ndarray, names: np.ndarray, colours: Mapping[str, str], title: str) -> None:
    """Cells coloured by a category, with the key below the axes."""
    _cells(ax, xy, np.array([colours[n] for n in names]), title)
    for name in colours:
        ax.scatter([], [], s=18, color=colours[name], label=name)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=7, handletextpad=0.1, borderpad=0.1)


def cells_value(
    ax, xy: np.ndarray, value: np.ndarray, title: str, *, cmap="cividis", limits=(None, None), ends=()
) -> None:
    """Cells coloured by a number, with a colour bar below the axes, whose ends may be words.

    The scale ends at `limits`, or at the 1st and 99th percentile where one is None.
    """
    low, high = (np.nanpercentile(value, q) if v is None else v for v, q in zip(limits, (1, 99), strict=True))
    drawn = _cells(ax, xy, value, title, cmap=cmap, vmin=low, vmax=high)
    beyond = "both" if None in limits else "neither"
    bar = ax.figure.colorbar(drawn, ax=ax, orientation="horizontal", shrink=0.8, aspect=18, pad=0.02, extend=beyond)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)
    if ends:
        bar.set_ticks([low, high], labels=list(ends))


def score_scatter(ax, scores: pd.DataFrame, y: np.ndarray, row: Mapping[str, float]) -> None:
    """True against predicted gene score with the regression line; r and r² with intervals in the title.

    `scores` are those of a ``ScoreComparison``, `row` is one row of its table.
    """
    predicted, true = (scores[f"{kind}_{row['list']}"].to_numpy() for kind in ("predicted", "true"))
    order = np.random.default_rng(0).permutation(len(y))
    ax.scatter(predicted[order], true[order], s=6, c=[CLASS[v] for v in y[order]], alpha=0.6, linewidth=0)
    said = "no gene passes: nothing to correlate"
    if np.isfinite(row["r"]):
        ends = np.array([predicted.min(), predicted.max()])
        ax.plot(ends, row["slope"] * ends + row["intercept"], color="black", linewidth=1.2)
        r, r2 = (f"{row[k]:.3f} [{row[k + '_low']:.3f}, {row[k + '_high']:.3f}]" for k in ("r", "r2"))
        said = f"r = {r}\nr² = {r2}"
    ax.set_title(f"{row['list']} list\n{said}", fontsize=9)
    ax.set(xlabel="score of the list from predictions", ylabel="score of the list from truth")


def null_histogram(ax, nulls: pd.DataFrame, table: pd.DataFrame, name: str) -> None:
    """Null distributions of r (``ListScorer.nulls``, ``null_table``) of a list, the observed r as a dashed line."""
    draws, table, title = nulls[nulls["list"] == name], table[table["list"] == name], f"{name} list"
    looks = zip((SERIES[7], *SERIES), ("-", "-", ":"), strict=False)
    for (kind, r), (colour, line) in zip(draws.groupby("null", sort=False)["r"], looks, strict=False):
        look = {"histtype": "step", "color": colour, "linewidth": 1.4, "linestyle": line}
        ax.hist(r, bins=np.linspace(-1, 1, 61), label=kind, **look)
    if len(table):
        ax.axvline(table["r"].iloc[0], color=INK, linestyle="--", linewidth=1.3, label="observed")
        title += "".join(f"\np ({kind}) = {value:.4f}" for kind, value in zip(table["null"], table["p"], strict=True))
    ax.set(xlabel="r with the score of the true list", ylabel="draws", xlim=(-1, 1.02))
    ax.set_title(title, fontsize=9)


def expression_heatmap(
    ax, values: np.ndarray, genes: Sequence[str], directions: Sequence[str], group: np.ndarray
) -> None:
    """Genes by cells, each gene z-scored over the cells, with the name of each culture above its cells.

    `values` (cells, genes) and `group` come sorted into blocks of cultures. `directions` names the list of each gene,
    ``sensitive`` or ``resistant``, in blocks; the gene's name has that colour.
    """
    z = pd.DataFrame((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9), columns=genes)
    bar = {"shrink": 0.6, "aspect": 20, "pad": 0.01, "label": "expression (z over cells)"}
    sns.heatmap(z.T, vmin=-2, vmax=2, cmap="cividis", xticklabels=False, yticklabels=True, cbar_kws=bar, ax=ax)
    ax.collections[0].set_rasterized(True)
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    for start, stop in zip(starts, [*starts[1:], len(group)], strict=True):
        ax.text((start + stop) / 2, -0.4, group[start], ha="center", va="bottom", fontsize=8)
    edges = np.flatnonzero(np.asarray(directions)[1:] != np.asarray(directions)[:-1]) + 1
    ax.vlines(starts[1:], 0, len(genes), color="white", linewidth=1.5)
    ax.hlines(edges, 0, len(group), color="white", linewidth=1.5)
    ax.tick_params(length=0, labelsize=7.5, labelrotation=0)
    for label, direction in zip(ax.get_yticklabels(), directions, strict=True):
        label.set_color(CLASSES[direction])


def trend(ax, mean: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, title: str) -> None:
    """One smoothed curve over pseudotime rank with its band."""
    grid = np.linspace(0, 1, len(mean))
    ax.fill_between(grid, low, high, color=colour, alpha=0.25, linewidth=0)
    ax.plot(grid, mean, color=colour)
    ax.set(xlim=(0, 1), xticks=(0, 0.5, 1))
    ax.set_title(title, fontsize=9)


def class_legend(fig) -> None:
    """Key of the two classes above a figure."""
    handles = [fig.axes[0].scatter([], [], s=20, color=colour, label=name) for name, colour in CLASSES.items()]
    fig.legend(handles=handles, loc="outside upper left", ncols=2, handletextpad=0.2)


def roc_staircases(ax, scores: Mapping[str, np.ndarray], planted: np.ndarray) -> None:
    """ROC of planted genes for several rankings, named beside the axes with their areas; empty if none is planted."""
    for (name, value), colour in zip(scores.items(), shades(scores), strict=True):
        if planted.any():
            RocCurveDisplay.from_predictions(planted, value, name=name, ax=ax, curve_kwargs={"color": colour})
    ax.plot([0, 1], [0, 1], **CHANCE | {"zorder": 2})
    ax.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    ax.set(xlabel="share of other genes ranked above", ylabel="share of planted genes found")
