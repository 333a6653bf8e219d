"""The terms of equation 16: class loss, MMD (equation 15) and the cluster regulariser (equation 17)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from atsdp_utils.models.products import linear

#: Multiples of the median squared distance used as RBF bandwidths.
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of rows (equation 10), each times its weight; the divisor is n, not the sum of the weights.

    Parameters
    ----------
    logits : (n, 2)
        Of the resistant class first, then of the sensitive one.
    y : (n,) int64
        0 resistant, 1 sensitive; every row must have a label.
    weight : (n,), optional
        Weights of the rows; without them each is 1.
    """
    loss = F.cross_entropy(logits, y, reduction="none")
    return (loss if weight is None else loss * weight).mean()


def mmd2(x: Tensor, y: Tensor, scale: Tensor | float | None = None) -> Tensor:
    r"""Squared maximum mean discrepancy of two samples of embeddings: equation 15, squared.

    .. math:: \| \tfrac1n \sum_i \phi(x_i) - \tfrac1m \sum_j \phi(y_j) \|_H^2
              = \overline{k(x, x')} - 2\, \overline{k(x, y)} + \overline{k(y, y')}

    The kernel k is the mean of the RBF kernels :math:`\exp(-\|x - x'\|^2 / (b s))` for b in :data:`BANDWIDTHS`, and s
    is `scale`. The means are over all pairs, those of a row with itself included, so equal samples give 0. The gradient
    is in closed form; `make bench` times what that saves.

    Parameters
    ----------
    x, y : (n, d) and (m, d)
        The two samples.
    scale : Tensor or float, optional
        A squared length; by default the median squared distance within the pooled sample. It gets no gradient.

    Raises
    ------
    ValueError
        If `x` and `y` are not two matrices of the same width.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x, y: got shapes {tuple(x.shape)} and {tuple(y.shape)}, expected (n, d) and (m, d)")
    return _MMD2.apply(torch.cat([x, y]), len(x), scale)


def _squared_distances(z: Tensor) -> Tensor:
    norm = z.square().sum(1)
    return (norm[:, None] + norm - 2 * linear(z, z)).clamp_min(0)


def _median(squared: Tensor) -> Tensor:
    """Median over pairs."""
    i, j = torch.triu_indices(*squared.shape, offset=1, device=squared.device)
    return squared[i, j].median().clamp_min(1e-12)


class _MMD2(torch.autograd.Function):
    """One pass over the pairs: two matrix products where autograd takes three, one exponential for five kernels."""

    @staticmethod
    def forward(ctx, z: Tensor, n: int, scale: Tensor | float | None) -> Tensor:
        """Sum of share_i share_j k(i, j), the shares being 1/n for rows of x and -1/m for rows of y."""
        squared = _squared_distances(z)
        scale = _median(squared) if scale is None else scale
        # The bandwidths double from one to the next, so each kernel is the square of the next wider one.
        narrower = torch.exp(-squared / (BANDWIDTHS[-1] * scale))
        kernel, slope = narrower, narrower / BANDWIDTHS[-1]
        for b in BANDWIDTHS[-2::-1]:
            narrower = narrower * narrower
            kernel, slope = kernel + narrower, slope + narrower / b
        share = z.new_full((len(z),), 1 / n)
        share[n:] = -1 / (len(z) - n)
        ctx.save_for_backward(z, slope / (-len(BANDWIDTHS) * scale) * share * share[:, None])
        return share @ (kernel / len(BANDWIDTHS)) @ share

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """4 sum_j a_ij (z_i - z_j), with a_ij the derivative by the squared distance of i and j."""
        z, a = ctx.saved_tensors
        return 4 * gradient * (a.sum(1, keepdim=True) * z - linear(a, z.T)), None, None


def cluster_dissimilarity(z: Tensor, cluster: Tensor) -> Tensor:
    r"""Regulariser of equation 17 as read in ambiguity 14: mean :math:`1 - \cos` of embeddings within a cluster.

    The mean cosine over the pairs of a cluster of n unit vectors u is :math:`(\|\sum u\|^2 - n) / (n (n - 1))`, so no
    pair is formed. Every cluster weighs the same. Clusters of one cell do not count; without another the value is 0.

    Parameters
    ----------
    z, cluster : (n, d) and (n,)
        Embeddings of cells, and the cluster of each, an integer.
    """
    _, index, size = torch.unique(cluster, return_inverse=True, return_counts=True)
    totals = z.new_zeros(len(size), z.shape[1]).index_add(0, index, F.normalize(z, dim=1))
    several = size > 1
    if not several.any():
        return z.sum() * 0
    size, totals = size[several].to(z.dtype), totals[several]
    return (1 - (totals.square().sum(1) - size) / (size * (size - 1))).mean()
