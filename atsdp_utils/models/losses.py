"""The terms of equation 16 beside the class loss: MMD (equation 15) and the cluster regulariser (equation 17).

Embeddings of a stack of networks (:mod:`atsdp_utils.models.stack`) have a first axis more, and get a value each.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: Multiples of the median squared distance used as RBF bandwidths.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def rbf(squared_distance: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """Mean of RBF kernels exp(-d^2 / (b * scale)) over the bandwidth multiples b, and its derivative by d^2.

    The multiples double from one to the next, so each kernel is the square of the next wider one: one exponential.
    """
    kernel = torch.exp(-squared_distance / (BANDWIDTHS[-1] * scale))
    total, slope = kernel.clone(), kernel / BANDWIDTHS[-1]
    for b in BANDWIDTHS[-2::-1]:
        kernel = kernel * kernel
        total += kernel
        slope += kernel / b
    return total / len(BANDWIDTHS), slope / (-len(BANDWIDTHS) * scale)


@lru_cache(maxsize=16)
def _pairs(n: int, device: torch.device) -> Tensor:
    """Flat indices of the pairs above the diagonal of an n x n matrix."""
    i, j = torch.triu_indices(n, n, offset=1, device=device)
    return i * n + j


def mmd2(x: Tensor, y: Tensor, scale: Tensor | float | None = None) -> Tensor:
    r"""Squared maximum mean discrepancy of two samples of embeddings (equation 15, squared; V-statistic).

    .. math:: \| \tfrac1n \sum_i \phi(x_i) - \tfrac1m \sum_j \phi(y_j) \|_H^2
              = \overline{k(x, x')} - 2\, \overline{k(x, y)} + \overline{k(y, y')}

    Parameters
    ----------
    x, y
        (n, d) and (m, d), or (networks, n, d) and (networks, m, d).
    scale
        Squared length scale; by default the median squared distance of the pooled sample, without gradient.

    Returns
    -------
    Tensor
        A scalar >= 0 (one a network), differentiable in `x` and `y`.
    """
    if x.ndim not in (2, 3) or x.ndim != y.ndim or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected (n, d) and (m, d)")
    return _MMD2.apply(torch.cat([x, y], dim=-2), x.shape[-2], scale)


class _MMD2(torch.autograd.Function):
    """The value and its gradient in one pass: two matrix products where autograd takes three, and fewer copies."""

    @staticmethod
    def forward(ctx, pooled: Tensor, n: int, scale: Tensor | float | None) -> Tensor:
        """Sum of share_i share_j k(i, j), the shares being 1/n for rows of x and -1/m for rows of y."""
        norm, rows = pooled.square().sum(-1), pooled.shape[-2]
        product = torch.addmm if pooled.ndim == 2 else torch.baddbmm
        squared = product(norm[..., :, None] + norm[..., None, :], pooled, pooled.mT, alpha=-2).clamp_min_(0)
        if scale is None:
            pairs = squared.flatten(-2).index_select(-1, _pairs(rows, pooled.device))
            scale = pairs.median(-1).values.clamp_min(1e-12)[..., None, None]
        kernel, slope = rbf(squared, scale)
        share = pooled.new_full((rows,), 1 / n)
        share[n:] = -1 / (rows - n)
        ctx.save_for_backward(pooled, slope.mul_(share).mul_(share[:, None]))
        return share @ kernel @ share

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """4 sum_j a_ij (z_i - z_j), with a_ij the derivative by the squared distance of i and j."""
        pooled, a = ctx.saved_tensors
        return 4 * gradient[..., None, None] * (a.sum(-1, keepdim=True) * pooled - a @ pooled), None, None


def cluster_dissimilarity(z: Tensor, cluster: Tensor) -> Tensor:
    r"""Regulariser of equation 17 as read in ambiguity 14: mean within-cluster :math:`1 - \cos` of embeddings.

    The mean cosine over the pairs of a cluster of n unit vectors u is
    :math:`(\|\sum u\|^2 - n) / (n (n - 1))`, so no pair is formed. Clusters of one cell do not count.

    Parameters
    ----------
    z
        Embeddings (n, d), or (networks, n, d).
    cluster
        Louvain cluster of each cell, (n,) int64, or (networks, n).

    Returns
    -------
    Tensor
        A scalar in [0, 2] (one a network); 0 if no cluster has two cells.
    """
    if z.ndim == 2:
        found, _ = _dissimilarities(z, cluster)
        return found.mean() if len(found) else z.sum() * 0
    per_network = int(cluster.max()) + 1
    offset = per_network * torch.arange(len(z), device=z.device)[:, None]
    found, label = _dissimilarities(z.flatten(0, 1), (cluster + offset).flatten())
    network = label // per_network
    counts = torch.bincount(network, minlength=len(z)).clamp_min(1)
    return torch.zeros(len(z), dtype=z.dtype, device=z.device).index_add(0, network, found) / counts


def _dissimilarities(z: Tensor, cluster: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 1 - cos of every cluster of two or more rows, and its label."""
    unit = torch.nn.functional.normalize(z, dim=1)
    labels, index = torch.unique(cluster, return_inverse=True)
    totals = torch.zeros(len(labels), z.shape[1], dtype=z.dtype, device=z.device).index_add(0, index, unit)
    size = torch.bincount(index, minlength=len(labels)).to(z.dtype)
    several = size > 1
    size, totals = size[several], totals[several]
    return 1 - (totals.square().sum(1) - size) / (size * (size - 1)), labels[several]
