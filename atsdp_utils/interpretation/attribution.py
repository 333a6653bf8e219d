"""Attributions of a network to genes (section 3.6): any callable from expression (n, genes) to logits (n, 2) or (n,).

What is explained is the log-odds of *sensitive*, because P saturates near 0 and 1 and its gradients vanish there.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats as sps
from torch import Tensor

from atsdp_utils.foundation.config import RESISTANT, SENSITIVE
from atsdp_utils.interpretation.gene_lists import DIRECTIONS, binary, differential_genes

Forward = Callable[[Tensor], Tensor]


class Attribution(NamedTuple):
    """Contribution of every gene to the log-odds of every cell."""

    values: np.ndarray  # (n, genes) float32
    delta: np.ndarray  # (n,) sum of contributions minus change: 0 for an exact method
    change: np.ndarray  # (n,) f(cell) - f(baseline)

    @property
    def relative_delta(self) -> float:
        """Mean |delta| over mean |change|."""
        return float(np.abs(self.delta).mean() / np.abs(self.change).mean())


def log_odds(output: Tensor) -> Tensor:
    """Log-odds of sensitive (n,) from logits (n, 2); a single value a cell passes through."""
    if output.ndim == 1:
        return output
    if output.ndim != 2 or output.shape[1] != 2:
        raise ValueError(f"forward: returned shape {tuple(output.shape)}, expected (n, 2) logits or (n,) values")
    return output[:, 1] - output[:, 0]


def _gradient(forward: Forward, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(log_odds(forward(x)).sum(), x)[0]


def _attribution(forward: Forward, X: Tensor, values: Tensor, baselines: Tensor) -> Attribution:
    with torch.no_grad():
        change = log_odds(forward(X)) - log_odds(forward(baselines)).mean()
    return Attribution(values.numpy(), (values.sum(dim=1) - change).numpy(), change.numpy())


def integrated_gradients(forward: Forward, X: np.ndarray, baseline: np.ndarray, *, steps: int = 32) -> Attribution:
    """Integrated gradients: how much every gene contributes to the log-odds of *sensitive* in every cell.

    Parameters
    ----------
    forward : callable
        The network: a tensor (n, genes) to logits (n, 2), resistant first, or to one value for each cell, (n,).
    X, baseline : (n, genes) and (genes,)
        Expression of the cells, as `forward` takes it, and of the point b from which contributions count.
    steps : int
        Nodes of the quadrature. Each takes one gradient over all cells.

    Returns
    -------
    Attribution
        (x - b) times the integral over t in [0, 1] of the gradient at b + t (x - b), by Gauss-Legendre quadrature.
    """
    X, baseline = (torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in (X, baseline))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    gradient = torch.zeros_like(X)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        gradient += weight * _gradient(forward, baseline + float(node) * (X - baseline))
    return _attribution(forward, X, gradient * (X - baseline), baseline[None])


def expected_gradients(
    forward: Forward, X: np.ndarray, reference: np.ndarray, *, baselines: int = 24, points: int = 10, seed: int = 0
) -> Attribution:
    """Expected gradients (GradientSHAP without noise): baselines are random cells of `reference`, not their mean.

    The draws are stratified, for each cell anew: one baseline from each of `baselines` equal strata of `reference` by
    log-odds, and on the line to it `points` at equal distances from a random start. So the contributions add up to the
    change within a fraction of the error of as many plain draws.

    Parameters
    ----------
    forward, X
        The network, and the cells (n, genes), as in :func:`integrated_gradients`.
    reference : (cells, genes)
        Cells from which baselines are drawn. No label is read. ``change`` counts from their mean log-odds.
    baselines, points : int
        Baselines of each cell, and points for each of them; their product is the number of gradients over all cells.
    seed : int
        Fixes all draws.
    """
    X, reference = (torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in (X, reference))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        by_odds = reference[torch.argsort(log_odds(forward(reference)))]
    first, values = torch.rand((len(X), 1), generator=generator), torch.zeros_like(X)
    for stratum in range(baselines):
        place = (stratum + torch.rand(len(X), generator=generator)) / baselines * len(by_odds)
        start = by_odds[place.long().clamp(max=len(by_odds) - 1)]
        # Steps of the golden ratio spread the random starts of the strata evenly.
        shift = (first + stratum * 0.6180339887498949) % 1
        for piece in range(points):
            values += _gradient(forward, start + (piece + shift) / points * (X - start)) * (X - start)
    return _attribution(forward, X, values / (baselines * points), reference)


def ensemble(attributions: Sequence[Attribution]) -> Attribution:
    """Mean attribution of several networks on the same cells."""
    return Attribution(*(np.mean(parts, axis=0) for parts in zip(*attributions, strict=True)))


def rank_genes(attribution: Attribution, X: np.ndarray, y, genes: Sequence[str]) -> pd.DataFrame:
    """How large the attribution of each gene is, how it differs between the classes, and the gene's direction.

    Parameters
    ----------
    attribution, X : Attribution and (n, genes)
        Attribution of cells, and the expression from which it was made.
    y, genes : (n,) and (genes,)
        Labels of the cells, 1 sensitive and 0 resistant, both present, and names of the genes.

    Returns
    -------
    DataFrame
        One row for each of `genes`, in their order. ``mean_abs`` is the mean absolute attribution; ``z, p, padj`` are a
        rank-sum test of attributions between classes; ``slope`` is how the attribution moves with expression, which
        gives the ``direction``, sensitive where it is positive. The sign of z cannot, as the attribution of a
        resistance gene too is higher in sensitive cells.
    """
    values = attribution.values.astype(np.float64)
    centred = X - X.mean(axis=0)
    variance = (centred**2).sum(axis=0)
    slope = np.divide((centred * values).sum(axis=0), variance, out=np.zeros(len(variance)), where=variance > 0)
    direction = np.where(slope > 0, SENSITIVE, RESISTANT)
    tested = differential_genes(values, y, genes).drop(columns="delta")
    return tested.assign(mean_abs=np.abs(values).mean(axis=0), slope=slope, direction=direction)


def key_genes(ranking: pd.DataFrame, *, top: int = 10, by: str = "mean_abs") -> dict[str, np.ndarray]:
    """Positions of the `top` genes of each direction in `ranking`, best first, by the size of ``mean_abs`` or ``z``."""
    order = ranking[by].abs().sort_values(ascending=False, kind="stable").index
    direction = ranking["direction"].loc[order]
    return {d: order[direction == d][:top].to_numpy() for d in DIRECTIONS}


def attention_table(weights: np.ndarray, y) -> pd.DataFrame:
    """Attention weights (n, heads, T, T) of cells with labels `y`, in one row a head.

    ``entropy`` is relative to log T (1: the head looks everywhere alike); ``class_distance`` the total variation
    between the classes' mean maps; ``p`` the smallest corrected rank-sum p over the attention that the tokens receive.
    """
    sensitive, (heads, tokens) = binary(y), weights.shape[1:3]
    entropy = -(weights * np.log(np.clip(weights, 1e-12, None))).sum(axis=-1).mean(axis=(0, 2)) / np.log(tokens)
    distance = np.abs(weights[sensitive].mean(axis=0) - weights[~sensitive].mean(axis=0)).sum(axis=-1).mean(axis=-1) / 2
    received = weights.mean(axis=2)
    p = sps.mannwhitneyu(received[sensitive], received[~sensitive], axis=0).pvalue.min(axis=-1)
    p = np.minimum(1.0, p * tokens)
    return pd.DataFrame({"head": np.arange(heads), "entropy": entropy, "class_distance": distance, "p": p})


def attention_relevance(
    tokens: Forward, weights: Forward, X: np.ndarray, *, probes: int = 8, seed: int = 0
) -> np.ndarray:
    """Genes as the attention sees them, (genes,): the view that "attention explains" rests on.

    Root mean square over cells of d(a·token)/d(gene), with a the attention received (held fixed), by random `probes`.
    `tokens` maps expression (n, genes) to (n, T, d), `weights` to (n, heads, T, T).
    """
    x = torch.as_tensor(np.asarray(X), dtype=torch.float32).requires_grad_(True)
    with torch.no_grad():
        received = weights(x).mean(dim=(1, 2))[..., None]
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(x.shape[1])
    for _ in range(probes):
        sequence = tokens(x)
        probe = torch.randn(sequence.shape[1:], generator=generator)
        total += torch.autograd.grad((received * sequence * probe).sum(), x)[0].square().mean(dim=0)
    # numpy's root, because torch's differs in its last digit from one code of MKL to another.
    return np.sqrt((total / probes).numpy())
