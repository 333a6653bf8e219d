"""Figure 1: the three stages, drawn from a network as it is built."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from torch import nn

from atsdp_utils.foundation.config import Training
from atsdp_utils.models.network import ATSDPNet, n_parameters
from atsdp_utils.reporting import plots
from atsdp_utils.reporting.plots import INK, SERIES

#: Where boxes of a row begin and how high the rows lie.
COLUMNS, WIDTH, HEIGHT = (0.0, 1.6, 3.2, 4.8, 6.4), 1.32, 0.62
DATA, SOURCE, TARGET, PREDICTOR, LOSS = "#F2F2F2", SERIES[0], SERIES[3], SERIES[6], SERIES[2]


class Box(NamedTuple):
    """A box of the figure: column, height of its middle, what it is, its sizes, and its colour."""

    column: int
    y: float
    name: str
    sizes: str
    colour: str


def widths(module: nn.Module) -> list[int]:
    """Widths of the layers of a chain of linear layers, the input first."""
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [linear[0].in_features, *(layer.out_features for layer in linear)]


def _chain(module: nn.Module) -> str:
    """Widths and weights of a part of the network, on two lines."""
    return " → ".join(f"{n:,}" for n in widths(module)) + f"\n{n_parameters(module):,} weights"


def boxes(net: ATSDPNet, training: Training, lines: int) -> list[Box]:
    """All boxes: stage 1 (autoencoder, predictor), stage 2, stage 3."""
    genes = f"{net.source.n_genes:,} genes"
    attention, noise = net.predictor.attention, f"zero with p = {training.noise:g}"
    attended = "no attention"
    if attention is not None:
        attended = f"{attention.shape[0]} tokens × {attention.shape[1]}, {net.arch.heads} heads"
    predictor = (
        f"{attended}\n{' → '.join(map(str, widths(net.predictor.mlp)))}\n{n_parameters(net.predictor):,} weights"
    )
    return [
        Box(0, 4.6, "$X_g$: bulk lines", f"{lines} × {genes}", DATA),
        Box(1, 4.6, "corrupt, $G$ (1)", noise, DATA),
        Box(2, 4.6, "encoder $E_g$ (3)", _chain(net.source), SOURCE),
        Box(3, 4.6, "decoder $D_g$ (3)", _chain(net.decoder), SOURCE),
        Box(4, 4.6, "squared error (2)", "of $X''_g$ and $X_g$", LOSS),
        Box(3, 3.8, "predictor $P$ (4–9, 11)", predictor, PREDICTOR),
        Box(4, 3.8, "cross-entropy (10)", "with labels of lines", LOSS),
        Box(0, 2.55, "$X_t$: single cells", f"n × {genes}", DATA),
        Box(1, 2.55, "corrupt (14)", noise, DATA),
        Box(2, 2.55, "encoder $E_t$ (13)", "starts as $E_g$", TARGET),
        Box(3, 2.55, "decoder $D_t$ (13)", "starts as $D_g$", TARGET),
        Box(4, 2.55, "squared error (12)", "of the cells", LOSS),
        Box(0, 1.3, "$X_g$: bulk lines", "with labels", DATA),
        Box(1, 1.3, "$E_g$", "from stage 1", SOURCE),
        Box(3, 1.3, "$P$", "from stage 1", PREDICTOR),
        Box(4, 1.3, "cross-entropy (16)", "with labels of lines", LOSS),
        Box(2, 0.55, "MMD (15)", f"of the embeddings\nweight ω = {training.omega:g}", LOSS),
        Box(0, -0.2, "$X_t$: single cells", "without labels", DATA),
        Box(1, -0.2, "$E_t$", "from stage 2", TARGET),
        Box(3, -0.2, "regulariser (17)", f"alike within clusters\nweight θ = {training.theta:g}", LOSS),
        Box(0, -1.45, "$X_t$: single cells", "", DATA),
        Box(1, -1.45, "$E_t$", "as stage 3 left it", TARGET),
        Box(3, -1.45, "$P$", "as stage 3 left it", PREDICTOR),
        Box(4, -1.45, "P(sensitive)", "of every cell", DATA),
    ]


#: Arrows between boxes, by their places in :func:`boxes`.
ARROWS = ((0, 1), (1, 2), (2, 3), (3, 4), (2, 5), (5, 6), (7, 8), (8, 9), (9, 10), (10, 11), (12, 13), (13, 14),
          (14, 15), (13, 16), (17, 18), (18, 16), (18, 19), (20, 21), (21, 22), (22, 23))  # fmt: skip
HEADINGS = (
    (5.05, "Stage 1: an autoencoder of the lines, then a predictor of their response"),
    (3.0, "Stage 2: the autoencoder goes on with the cells"),
    (1.75, "Stage 3: encoders and predictor together (16), so that lines and cells embed alike"),
    (-1.0, "Prediction, without a label of any cell"),
)


def workflow(net: ATSDPNet, training: Training, lines: int):
    """Draw Figure 1.

    Parameters
    ----------
    net
        A network; its sizes and numbers of weights are written into the boxes.
    training
        Noise and the two weights of equation 16.
    lines
        Number of bulk lines, (n, genes) of which enter stage 1.

    Returns
    -------
    Figure
    """
    fig, ax = plots.figure(7.6, 7.0)
    found = boxes(net, training, lines)
    for box in found:
        x, y, data = COLUMNS[box.column], box.y, box.colour == DATA
        fill, edge = (DATA, "#AAAAAA") if data else ((*to_rgb(box.colour), 0.16), box.colour)
        patch = FancyBboxPatch((x, y - HEIGHT / 2), WIDTH, HEIGHT, "round,pad=0,rounding_size=0.06", fc=fill, ec=edge)
        ax.add_patch(patch)
        middle, below = x + WIDTH / 2, 0.07 * len(box.sizes.splitlines())
        ax.text(middle, y + below, box.name, ha="center", va="center", fontsize=7.5, fontweight="bold", color=INK)
        ax.text(middle, y + below - 0.1, box.sizes, ha="center", va="top", fontsize=6.4, color=INK, linespacing=1.15)
    for start, end in ARROWS:
        a, b = found[start], found[end]
        arrow = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1, "shrinkA": 1, "shrinkB": 1}
        ax.annotate("", (COLUMNS[b.column], b.y), (COLUMNS[a.column] + WIDTH, a.y), arrowprops=arrow)
    for y, heading in HEADINGS:
        ax.text(0, y, heading, fontsize=9, fontweight="bold", color=INK, va="bottom")
    ax.set(xlim=(-0.05, COLUMNS[-1] + WIDTH + 0.05), ylim=(-1.85, 5.3), aspect="equal")
    ax.axis("off")
    return fig
