"""Random masks: the masking noise of equation 1, and the dropout of ATSDP-NET and of the graph models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def keep_mask(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Random booleans of the shape of `x`, each true with probability 1 - p, to within 1/65536.

    A value takes 16 random bits: on a processor a third of the time of torch's own draw from a Bernoulli distribution.
    """
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[: x.numel()].view(x.shape) >= round(p * 2**16) - 2**15


class Dropout(nn.Dropout):
    """torch's dropout with the mask of :func:`keep_mask`; kept values are divided by 1 - p."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (keep_mask(x, self.p) / (1 - self.p)) if self.training and self.p else x
