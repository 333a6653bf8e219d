"""The bulk stage and transfer of scDEAL's recipe, written plainly: what its README suggests, and torch as it comes.

Settings are those of ``config.SUGGESTED`` and of Table 2 without attention, 500 epochs a stage; the MMD has one kernel,
of standard deviation 1000, as in scDEAL's code. Nothing stops a stage; the weights with the smallest loss on held-out
rows are kept. It is our own code: what a person would write first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from atsdp_utils.models.losses import BANDWIDTHS

RATE, BATCH, NOISE, DROPOUT, OMEGA, WIDTH = 0.01, 200, 0.2, 0.3, 0.25, 1000.0
ENCODER, BOTTLENECK, PREDICTOR = (256, 128), 512, (128, 64)


def layers(widths: tuple[int, ...], last: int, *, norm: bool = True) -> nn.Sequential:
    """Hidden layers of `widths`, the first of which is that of the input, and a linear one to `last`."""
    made: list[nn.Module] = []
    for n_in, n_out in zip(widths[:-1], widths[1:], strict=True):
        made += [nn.Linear(n_in, n_out), *([nn.BatchNorm1d(n_out)] if norm else []), nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*made, nn.Linear(widths[-1], last))


def encoder(genes: int) -> nn.Sequential:
    return layers((genes, *ENCODER), BOTTLENECK)


def train(
    net: nn.Module, rows: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], loss: nn.Module, epochs: int,
    after: Callable[[nn.Module], None] = lambda net: None,
) -> None:  # fmt: skip
    """Minimise `loss` of corrupted rows (x, target) by Adam; `after` sees the network after each epoch."""
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    best, weights = float("inf"), None
    for _ in range(epochs):
        net.train()
        for x, target in DataLoader(TensorDataset(*rows), batch_size=BATCH, shuffle=True):
            optimiser.zero_grad()
            loss(net(x * (torch.rand_like(x) > NOISE)), target).backward()
            optimiser.step()
        net.eval()
        with torch.no_grad():
            value = loss(net(held[0]), held[1]).item()
        if value < best:
            best, weights = value, copy.deepcopy(net.state_dict())
        after(net)
    net.load_state_dict(weights)


def autoencoder(x: Tensor, held: Tensor, epochs: int) -> nn.Sequential:
    """Encoder and decoder that reconstruct rows."""
    net = nn.Sequential(encoder(x.shape[1]), layers((BOTTLENECK, *ENCODER[::-1]), x.shape[1]))
    train(net, (x, x), (held, held), nn.MSELoss(), epochs)
    return net


def predictor(coder: nn.Module, rows: tuple, held: tuple, epochs: int, after: Callable) -> nn.Sequential:
    """The encoder goes on, with a predictor on it."""
    net = nn.Sequential(coder, layers((BOTTLENECK, *PREDICTOR), 2, norm=False))
    train(net, rows, held, nn.CrossEntropyLoss(), epochs, after)
    return net


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Squared MMD with one RBF kernel."""
    z = torch.cat([x, y])
    k = torch.exp(-torch.cdist(z, z).square() / (2 * WIDTH**2))
    n = len(x)
    return k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()


def mmd2_by_autograd(x: Tensor, y: Tensor) -> Tensor:
    """What ``losses.mmd2`` computes, as its definition reads: what the closed form is tested and timed against."""
    z, n = torch.cat([x, y]), len(x)
    squared = torch.cdist(z, z).square()
    i, j = torch.triu_indices(*squared.shape, offset=1)
    scale = squared[i, j].median().detach()
    kernel = torch.stack([torch.exp(-squared / (b * scale)) for b in BANDWIDTHS]).mean(0)
    return kernel[:n, :n].mean() - 2 * kernel[:n, n:].mean() + kernel[n:, n:].mean()


def transfer(net: nn.Sequential, rows: tuple[Tensor, Tensor], cells: Tensor, epochs: int) -> None:
    """Class loss of lines and their MMD to as many cells, for two encoders and the predictor."""
    source, head = net
    target = copy.deepcopy(source)
    optimiser = torch.optim.Adam([p for part in (source, target, head) for p in part.parameters()], lr=RATE)
    for _ in range(epochs):
        for x, y in DataLoader(TensorDataset(*rows), batch_size=BATCH, shuffle=True):
            optimiser.zero_grad()
            of_lines, of_cells = source(x), target(cells[torch.randint(len(cells), (len(x),))])
            (nn.functional.cross_entropy(head(of_lines), y) + OMEGA * mmd2(of_lines, of_cells)).backward()
            optimiser.step()
