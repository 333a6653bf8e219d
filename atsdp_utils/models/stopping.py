"""What held-out rows say of an epoch, and the rules by which the bulk stage keeps one."""

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of held-out rows in which both classes count the same. It punishes confidence, not ranking."""
    weight = 1 / torch.bincount(y, minlength=2)[y]
    return (weight * F.cross_entropy(logits, y, reduction="none")).sum() / weight.sum()


def misranked(logits: Tensor, y: Tensor) -> Tensor:
    """1 - AUC: share of pairs of a sensitive and a resistant row that are ranked the wrong way, ties half.

    Without a row of either class nothing is ranked, and the value is one half.
    """
    z = logits[:, 1] - logits[:, 0]
    gap = z[y == 1][:, None] - z[y == 0]
    return ((gap < 0).float() + 0.5 * (gap == 0).float()).mean() if gap.numel() else z.new_tensor(0.5)


def misranked_first(logits: Tensor, y: Tensor) -> Tensor:
    """1 - AUC, and where that is equal the smaller class-balanced cross-entropy.

    Few held-out cells are soon ranked without a fault; a network that goes on learning is then the better one. The
    value, to be minimised, is :func:`misranked` plus 1e-4 times :func:`balanced_cross_entropy`.

    Parameters
    ----------
    logits, y : (n, 2) and (n,) int64
        Logits of held-out cells, resistant first, and their labels: 0 resistant, 1 sensitive.
    """
    return misranked(logits, y) + 1e-4 * balanced_cross_entropy(logits, y)


#: What is minimised on held-out lines to choose the epoch of the bulk stage; None: the last epoch is taken.
STOPPING = {"auc": misranked, "cross-entropy": balanced_cross_entropy, "last epoch": None}
