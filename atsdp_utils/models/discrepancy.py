"""How far apart two samples of embeddings are: MMD (equation 15), and what peers take in its place (chapter 14)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atsdp_utils.foundation.config import Training
from atsdp_utils.models.losses import mmd2


class MMD(nn.Module):
    """Equation 15, squared (:func:`losses.mmd2`)."""

    name = "mmd2"

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, z_g: Tensor, z_t: Tensor) -> Tensor:
        return mmd2(z_g, z_t, self.scale)


class Coral(nn.Module):
    """Squared Frobenius distance of the covariances of (n, d) and (m, d), over 4 d^2 (Sun and Saenko 2016)."""

    name = "coral"

    def forward(self, z_g: Tensor, z_t: Tensor) -> Tensor:
        """The distance of two batches, a scalar with a gradient for both.

        Parameters
        ----------
        z_g, z_t : (n, d) and (m, d)
            Embeddings of lines and of cells, at least two rows of each; with a single row the value is NaN.
        """
        return (torch.cov(z_g.T) - torch.cov(z_t.T)).square().sum() / (4 * z_g.shape[1] ** 2)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient has the other sign."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


class Adversary(nn.Module):
    """Domain-adversarial training (Ganin et al. 2016): a critic tells lines from cells, encoders mislead it.

    The value is the critic's cross-entropy, domains weighted alike; the weight is constant from the first step.
    """

    name = "critic"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.critic = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, z_g: Tensor, z_t: Tensor) -> Tensor:
        """Cross-entropy of the critic, in nats, on a batch of lines and a batch of cells.

        A step that lowers it teaches the critic. The gradient that the embeddings receive has the other sign, so the
        same step moves the embeddings to where the critic errs. A critic that always answers one half has ln 2.

        Parameters
        ----------
        z_g, z_t : (n, width) and (m, width)
            Embeddings of lines (class 1 of the critic) and of cells (class 0).
        """
        lines, cells = (self.critic(_Reversed.apply(z)).squeeze(1) for z in (z_g, z_t))
        return (F.softplus(-lines).mean() + F.softplus(cells).mean()) / 2


#: What makes one for embeddings of a width, by the value of the setting ``align``.
DISCREPANCIES: dict[str, Callable[[int, Training], nn.Module]] = {
    "mmd": lambda width, cfg: MMD(cfg.mmd_scale),
    "coral": lambda width, cfg: Coral(),
    "adversary": lambda width, cfg: Adversary(width),
}
