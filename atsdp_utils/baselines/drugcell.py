"""DrugCell (expression-only adaptation)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atsdp_utils.baselines.wrapper import TorchBaseline
from atsdp_utils.data import gene_sets as pathways
from atsdp_utils.models.products import linear


def set_mask(genes: Sequence[str], sets: Mapping[str, Sequence[str]], min_genes: int) -> tuple[list[str], np.ndarray]:
    """Sets with at least `min_genes` of `genes`, and their membership as a 0/1 matrix (sets, genes)."""
    column = {gene: i for i, gene in enumerate(genes)}
    members = {name: sorted({column[g] for g in s if g in column}) for name, s in sets.items()}
    names = [name for name, hits in members.items() if len(hits) >= min_genes]
    if not names:
        raise ValueError(
            f"gene sets: none of {len(sets)} has {min_genes} or more of the {len(genes)} genes "
            f"(first: {list(genes)[:3]}); pass human gene symbols, or lower min_genes"
        )
    mask = np.zeros((len(names), len(genes)), np.float32)
    for row, name in enumerate(names):
        mask[row, members[name]] = 1
    return names, mask


class VisibleNetwork(nn.Module):
    """Genes → one module a gene set → root → logit, with an auxiliary logit on each module.

    A module is `width` tanh units that see the genes of their set only: other weights are always multiplied by 0.
    """

    def __init__(self, mask: Tensor, width: int, root: int, dropout: float) -> None:
        super().__init__()
        n_sets, n_genes = mask.shape
        self.register_buffer("mask", mask.repeat_interleave(width, 0))
        # Not torch's square root, which differs in its last digit from one code of MKL to another.
        self.weight = nn.Parameter(torch.randn(n_sets * width, n_genes) * self.mask.sum(1, keepdim=True).rsqrt())
        self.bias = nn.Parameter(torch.zeros(n_sets * width))
        self.norm = nn.BatchNorm1d(n_sets * width)
        self.auxiliary = nn.Parameter(torch.randn(n_sets, width) / width**0.5)
        self.root = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(n_sets * width, root), nn.Tanh(), nn.BatchNorm1d(root), nn.Linear(root, 1)
        )
        self.width = width

    def modules_and_logit(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Auxiliary logits (n, sets) and the logit of the root (n,)."""
        state = self.norm(torch.tanh(linear(X, self.weight * self.mask, self.bias)))
        auxiliary = (state.unflatten(1, (-1, self.width)) * self.auxiliary).sum(-1)
        return auxiliary, self.root(state).squeeze(1)

    def forward(self, X: Tensor) -> Tensor:
        return self.modules_and_logit(X)[1]


@dataclass(kw_only=True)
class DrugCell(TorchBaseline):
    """Visible network of DrugCell: modules are gene sets, each with an auxiliary head (`coverage_`: genes in a set)."""

    width: int = 4
    root: int = 6
    dropout: float = 0.2
    auxiliary: float = 0.2
    min_genes: int = 10
    gene_sets: Mapping[str, Sequence[str]] | None = None

    def _build(self, rows, source):
        genes = rows.kept.shape[1]
        if source is None or len(source.genes) != genes:
            found = "None" if source is None else f"{len(source.genes)} genes"
            raise ValueError(f"source: got {found}, but DrugCell needs the {genes} gene names in source.genes")
        sets = self.gene_sets or pathways.pathway_sets()
        self.sets_, mask = set_mask(source.genes, sets, self.min_genes)
        self.coverage_ = float(mask.any(0).mean())
        return VisibleNetwork(torch.from_numpy(mask), self.width, self.root, self.dropout)

    def _loss(self, X, y, weight, batch):
        auxiliary, logit = self.net_.modules_and_logit(X[batch])
        y, weight = y[batch], weight[batch]
        per_set = F.binary_cross_entropy_with_logits(auxiliary, y[:, None].expand_as(auxiliary), weight[:, None])
        return F.binary_cross_entropy_with_logits(logit, y, weight) + self.auxiliary * per_set

    @property
    def n_parameters(self) -> int:
        """Of the masked layer only the weights inside a set."""
        masked = int((1 - self.net_.mask).sum())
        return super().n_parameters - masked
