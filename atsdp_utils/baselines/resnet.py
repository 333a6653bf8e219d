"""ResNet18 in 1-D."""

from __future__ import annotations

from torch import Tensor, nn

from atsdp_utils.baselines._torch import Logit, TorchBaseline


class Block(nn.Module):
    """Basic residual block: two convolutions of width 3, batch norm, and a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm1d(n_out), nn.ReLU(),
            nn.Conv1d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm1d(n_out),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv1d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm1d(n_out))

    def forward(self, X: Tensor) -> Tensor:
        """(n, n_in, length) to (n, n_out, length / stride)."""
        return nn.functional.relu(self.body(X) + self.shortcut(X))


class ResNet18(TorchBaseline):
    """ResNet18 over the vector of genes.

    Original: He et al., CVPR 2016; in drug research ResNet18DNN (Chen et al., Brief Bioinform 2022, the paper's
    reference 31). Kept: stem, four stages of two basic blocks (17 convolutions), one linear layer, hence 18 layers.

    Deviations: 1-D; widths 8–64 instead of 64–512 and a stem of stride 8, so that a step on 16 cells x 1,000 genes
    takes about 10 ms; the last map (8 positions) is flattened, not averaged: with a global average the network
    could not tell genes apart.
    """

    def __init__(self, *, seed: int = 0, width: int = 8, dropout: float = 0.3, **loop):
        super().__init__(seed=seed, **loop)
        self.width, self.dropout = width, dropout

    def _build(self, X, y, source):
        widths = [self.width * 2**i for i in range(4)]
        blocks = []
        for n_in, n_out in zip([self.width, *widths], widths, strict=False):
            blocks += [Block(n_in, n_out, stride=1 if n_in == n_out else 2), Block(n_out, n_out, stride=1)]
        return Logit(
            nn.Unflatten(1, (1, X.shape[1])),
            nn.Conv1d(1, self.width, 15, stride=8, padding=7, bias=False), nn.BatchNorm1d(self.width), nn.ReLU(),
            nn.MaxPool1d(3, 2, 1),
            *blocks,
            nn.AdaptiveAvgPool1d(8), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(8 * widths[-1], 1),
        )  # fmt: skip
