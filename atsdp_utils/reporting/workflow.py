"""Figure 1: the three stages, drawn from a network as it is built; its boxes are data (``workflow.toml``)."""

import tomllib
from pathlib import Path

from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch
from torch import nn

from atsdp_utils.foundation.config import Training
from atsdp_utils.models.network import ATSDPNet, n_parameters
from atsdp_utils.reporting import plots
from atsdp_utils.reporting.plots import INK, SERIES

DRAWN = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
#: Distance of columns, size of a box, and the colour of each part.
STEP, WIDTH, HEIGHT = 1.6, 1.32, 0.62
COLOURS = {"data": "#F2F2F2", "source": SERIES[0], "target": SERIES[3], "predictor": SERIES[6], "loss": SERIES[2]}


def _chain(module: nn.Module, weights_of: nn.Module | None = None) -> str:
    """Widths of a chain of linear layers and its weights, or those of the part that it is in, on two lines."""
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    widths = [linear[0].in_features, *(layer.out_features for layer in linear)]
    return " → ".join(f"{n:,}" for n in widths) + f"\n{n_parameters(weights_of or module):,} weights"


def sizes(net: ATSDPNet, training: Training, lines: int) -> list[str]:
    """What each box says of its sizes."""
    attention, attended = net.predictor.attention, "no attention"
    if attention is not None:
        attended = f"{attention.shape[0]} tokens × {attention.shape[1]}, {net.arch.heads} heads"
    values = {
        "lines": lines, "genes": f"{net.source.n_genes:,}", "attention": attended, "encoder": _chain(net.source),
        "decoder": _chain(net.decoder), "predictor": _chain(net.predictor.mlp, net.predictor),
        "noise": training.noise, "omega": training.omega, "theta": training.theta,
    }  # fmt: skip
    return [box[4].format(**values) for box in DRAWN["boxes"]]


def workflow(net: ATSDPNet, training: Training, lines: int):
    """Figure 1 of a network whose first stage reads so many bulk lines."""
    fig, ax = plots.figure(7.6, 7.0)
    for (column, y, part, name, _, _), text in zip(DRAWN["boxes"], sizes(net, training, lines), strict=True):
        colour = COLOURS[part]
        fill, edge = (colour, "#AAAAAA") if part == "data" else ((*to_rgb(colour), 0.16), colour)
        corner = column * STEP, y - HEIGHT / 2
        ax.add_patch(FancyBboxPatch(corner, WIDTH, HEIGHT, "round,pad=0,rounding_size=0.06", fc=fill, ec=edge))
        middle, below = corner[0] + WIDTH / 2, 0.07 * len(text.splitlines())
        ax.text(middle, y + below, name, ha="center", va="center", fontsize=7.5, fontweight="bold", color=INK)
        ax.text(middle, y + below - 0.1, text, ha="center", va="top", fontsize=6.4, color=INK, linespacing=1.15)
    arrow = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1, "shrinkA": 1, "shrinkB": 1}
    for column, y, *_, targets in DRAWN["boxes"]:
        for to, height, *_ in (DRAWN["boxes"][i] for i in targets):
            ax.annotate("", (to * STEP, height), (column * STEP + WIDTH, y), arrowprops=arrow)
    for y, heading in DRAWN["headings"]:
        ax.text(0, y, heading, fontsize=9, fontweight="bold", color=INK, va="bottom")
    ax.set(xlim=(-0.05, 4 * STEP + WIDTH + 0.05), ylim=(-1.85, 5.3), aspect="equal")
    ax.axis("off")
    return fig
