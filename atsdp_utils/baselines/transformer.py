"""Transformer without positional encoding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from atsdp_utils.baselines._torch import TorchBaseline


def separation(X: Tensor, y: Tensor) -> Tensor:
    """|difference of class means| / standard deviation within classes, per gene (g,)."""
    a, b = X[y == 0], X[y == 1]
    within = ((a - a.mean(0)) ** 2).sum(0) + ((b - b.mean(0)) ** 2).sum(0)
    return (a.mean(0) - b.mean(0)).abs() / (within / len(X)).sqrt().clamp_min(1e-6)


class GeneTransformer(nn.Module):
    """Encoder over gene tokens, mean over tokens, one logit.

    The token of gene i with value v is b_i + v·e_i. With `identity` each gene has its own (b_i, e_i); without it
    all genes share one pair, and the network is a function of the multiset of values.
    """

    def __init__(self, genes: Tensor, dim: int, heads: int, dropout: float, *, identity: bool = True) -> None:
        super().__init__()
        self.register_buffer("genes", genes)
        tokens = len(genes) if identity else 1
        self.offset = nn.Parameter(0.1 * torch.randn(tokens, dim))
        self.direction = nn.Parameter(torch.randn(tokens, dim) / dim**0.5)
        self.encoder = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout, batch_first=True)
        self.head = nn.Linear(dim, 1)

    def forward(self, X: Tensor) -> Tensor:
        """Logits (n,) of X (n, genes)."""
        tokens = self.offset + X[:, self.genes, None] * self.direction
        return self.head(self.encoder(tokens).mean(1)).squeeze(1)


class Transformer(TorchBaseline):
    """Transformer encoder without positional encoding.

    Original: Vaswani et al., NeurIPS 2017; in drug response DeepTTA (Jiang et al., Brief Bioinform 2022, the
    paper's reference 32). The paper: "without positional encoding ... on unordered gene expression data".

    Deviations: without any mark on its tokens the network sees only the multiset of values of a cell, not which gene
    has which, so tokens carry gene-identity embeddings (no order is implied by them). One layer, and the
    `tokens` genes that separate the training classes best (training rows only): attention costs the square of
    the number of tokens; a step on 32 cells x 40 tokens takes about 6 ms.
    """

    def __init__(self, *, seed=0, tokens: int = 40, dim: int = 16, heads: int = 2, dropout: float = 0.1, **loop):
        super().__init__(seed=seed, **loop)
        self.tokens, self.dim, self.heads, self.dropout = tokens, dim, heads, dropout

    def _build(self, X, y, source):
        genes = separation(X, y).argsort(descending=True, stable=True)[: self.tokens]
        return GeneTransformer(genes.sort().values, self.dim, self.heads, self.dropout)
