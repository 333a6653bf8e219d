"""The terms of equation 16 beside the class loss: MMD (equation 15) and the cluster regulariser (equation 17)."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

#: Multiples of the median squared distance used as RBF bandwidths.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def rbf(squared_distance: Tensor, scale: Tensor | float) -> Tensor:
    """Mean of RBF kernels exp(-d^2 / (b * scale)) over the bandwidth multiples b.

    The multiples double from one to the next, so each kernel is the square of the next wider one: one exponential.
    """
    kernel = torch.exp(-squared_distance / (BANDWIDTHS[-1] * scale))
    total = kernel
    for _ in BANDWIDTHS[1:]:
        kernel = kernel * kernel
        total = total + kernel
    return total / len(BANDWIDTHS)


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
        (n, d) and (m, d).
    scale
        Squared length scale; by default the median squared distance of the pooled sample, without gradient.

    Returns
    -------
    Tensor
        A scalar >= 0, differentiable in `x` and `y`.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected (n, d) and (m, d)")
    pooled = torch.cat([x, y])
    squared = (pooled.square().sum(1)[:, None] + pooled.square().sum(1) - 2 * pooled @ pooled.T).clamp_min(0)
    if scale is None:
        pairs = _pairs(len(pooled), pooled.device)
        scale = squared.detach().flatten().index_select(0, pairs).median().clamp_min(1e-12)
    kernel = rbf(squared, scale)
    n = len(x)
    return kernel[:n, :n].mean() - 2 * kernel[:n, n:].mean() + kernel[n:, n:].mean()


def cluster_dissimilarity(z: Tensor, cluster: Tensor) -> Tensor:
    r"""Regulariser of equation 17 as read in ambiguity 14: mean within-cluster :math:`1 - \cos` of embeddings.

    The mean cosine over the pairs of a cluster of n unit vectors u is
    :math:`(\|\sum u\|^2 - n) / (n (n - 1))`, so no pair is formed. Clusters of one cell do not count.

    Parameters
    ----------
    z
        Embeddings (n, d).
    cluster
        Louvain cluster of each cell, (n,) int64.
    """
    unit = torch.nn.functional.normalize(z, dim=1)
    _, index = torch.unique(cluster, return_inverse=True)
    k = int(index.max()) + 1
    totals = torch.zeros(k, z.shape[1], dtype=z.dtype, device=z.device).index_add(0, index, unit)
    size = torch.bincount(index, minlength=k).to(z.dtype)
    several = size > 1
    if not several.any():
        return z.sum() * 0
    size, totals = size[several], totals[several]
    cosine = (totals.square().sum(1) - size) / (size * (size - 1))
    return (1 - cosine).mean()
