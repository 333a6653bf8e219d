"""Networks over the vector of genes: sparse autoencoder, CNN, ResNet18, Transformer, DeepDR, and a control of order."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atsdp_utils.baselines.rows import Split
from atsdp_utils.baselines.wrapper import Logit, Minibatches, TorchBaseline
from atsdp_utils.data.preprocess import hold_out
from atsdp_utils.models import loop, stages
from atsdp_utils.models.products import Linear


def _pretrain(
    model: TorchBaseline, encoder: nn.Module, decoder: nn.Module, X: Tensor, held: Tensor, sparsity: float = 0.0
) -> loop.History:
    """Train decoder(encoder(X)) to return X (mean squared error) with an L1 penalty on the code, in place."""

    def loss(rows: Tensor) -> Tensor:
        code = encoder(rows)
        return F.mse_loss(decoder(code), rows) + sparsity * code.abs().mean()

    held_loss = (lambda: loss(held)) if len(held) else None
    stage = Minibatches(model, model.pretraining, len(X), lambda batch: loss(X[batch]), held_loss)
    return loop.fit(nn.ModuleList([encoder, decoder]), stage)


@dataclass(kw_only=True)
class SparseAutoencoder(TorchBaseline):
    """Autoencoder of training rows with an L1 penalty on its code, fine-tuned with a classification layer."""

    hidden: int = 64
    sparsity: float = 0.05
    dropout: float = 0.2

    def _build(self, rows, source):
        genes = rows.kept.shape[1]
        encoder = nn.Sequential(Linear(genes, self.hidden), nn.ReLU())
        kept, held = torch.from_numpy(rows.kept), torch.from_numpy(rows.held)
        _pretrain(self, encoder, Linear(self.hidden, genes), kept, held, self.sparsity)
        return Logit(encoder, nn.Dropout(self.dropout), nn.Linear(self.hidden, 1))


@dataclass(kw_only=True)
class CNN(TorchBaseline):
    """Two 1-D convolutions over genes; the last map is flattened: an average could not tell genes apart."""

    channels: int = 16
    dropout: float = 0.3

    def _build(self, rows, source):
        c = self.channels
        return Logit(
            nn.Unflatten(1, (1, rows.kept.shape[1])),
            nn.Conv1d(1, c, 9, stride=4, padding=4), nn.ReLU(), nn.MaxPool1d(2, ceil_mode=True),
            nn.Conv1d(c, 2 * c, 9, stride=2, padding=4), nn.ReLU(), nn.AdaptiveMaxPool1d(32),
            nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(64 * c, 32), nn.ReLU(), nn.Linear(32, 1),
        )  # fmt: skip


class Block(nn.Module):
    """Basic residual block: two convolutions of width 3, batch norm, and a shortcut.

    A shortcut of stride 2 is as wide as its stride: one of width 1 would skip every second position, which neighbouring
    pixels make up for and genes do not. The branch starts at zero (Goyal et al., 2017), so that a block starts as its
    shortcut.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm1d(n_out), nn.ReLU(),
            nn.Conv1d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm1d(n_out),
        )  # fmt: skip
        nn.init.zeros_(self.body[-1].weight)
        self.shortcut = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv1d(n_in, n_out, stride, stride, bias=False), nn.BatchNorm1d(n_out))
        self.stride = stride

    def forward(self, X: Tensor) -> Tensor:
        X = F.pad(X, (0, -X.shape[2] % self.stride))
        return F.relu(self.body(X) + self.shortcut(X))


@dataclass(kw_only=True)
class ResNet18(TorchBaseline):
    """ResNet18 in 1-D: stem, four stages of two basic blocks, one linear layer on the flattened last map."""

    width: int = 8
    stride: int = 8
    dropout: float = 0.3

    def _build(self, rows, source):
        widths = [self.width * 2**i for i in range(4)]
        blocks, positions = [], -(-rows.kept.shape[1] // self.stride)
        for n_in, n_out in zip([self.width, *widths], widths, strict=False):
            stride = 1 if n_in == n_out else 2
            blocks += [Block(n_in, n_out, stride), Block(n_out, n_out, stride=1)]
            positions = -(-positions // stride)
        stem = nn.Conv1d(1, self.width, 2 * self.stride - 1, self.stride, self.stride - 1, bias=False)
        return Logit(
            nn.Unflatten(1, (1, rows.kept.shape[1])),
            stem, nn.BatchNorm1d(self.width), nn.ReLU(),
            *blocks,
            nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(positions * widths[-1], 1),
        )  # fmt: skip


class GeneTransformer(nn.Module):
    """Encoder over gene tokens, mean over tokens, one logit.

    The token of gene i with value v is b_i + v·e_i. With `identity` each gene has its own (b_i, e_i); without it all
    genes share one pair, and the network is a function of the multiset of values.
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
        tokens = self.offset + X[:, self.genes, None] * self.direction
        return self.head(self.encoder(tokens).mean(1)).squeeze(1)


def _separation(rows: Split) -> np.ndarray:
    """|difference of class means| / standard deviation within classes of the rows that are not held out, (genes,)."""
    a, b = (rows.kept[rows.y_kept == label] for label in (0, 1))
    within = ((a - a.mean(0)) ** 2).sum(0) + ((b - b.mean(0)) ** 2).sum(0)
    return np.abs(a.mean(0) - b.mean(0)) / np.sqrt(within / len(rows.kept)).clip(1e-6)


@dataclass(kw_only=True)
class Transformer(TorchBaseline):
    """One encoder layer, with gene-identity embeddings, over the `tokens` genes that separate the classes best."""

    tokens: int = 40
    dim: int = 16
    heads: int = 2
    dropout: float = 0.1

    def _build(self, rows, source):
        genes = np.argsort(-_separation(rows), kind="stable")[: self.tokens]
        return GeneTransformer(torch.from_numpy(np.sort(genes)), self.dim, self.heads, self.dropout)


def _dense(*widths: int) -> list[nn.Module]:
    """Linear–ReLU layers of these widths."""
    return [m for a, b in zip(widths, widths[1:], strict=False) for m in (Linear(a, b), nn.ReLU())]


@dataclass(kw_only=True)
class DeepDR(TorchBaseline):
    """Expression branch of DeepDR: an encoder pre-trained as an autoencoder on bulk, then a dense predictor.

    No label takes part in the pre-training, so drugs, folds and searched rates of dropout share it.
    """

    encoder: tuple[int, ...] = (256, 64)
    predictor: int = 128
    dropout: float = 0.2

    def _build(self, rows, source):
        seen, held = torch.from_numpy(rows.kept), torch.from_numpy(rows.held)
        if source is not None:
            if source.X.shape[1] != seen.shape[1]:
                raise ValueError(f"source.X: got {source.X.shape[1]} genes, expected the {seen.shape[1]} columns of X")
            bulk = torch.from_numpy(np.asarray(source.X[source.train], np.float32))
            seen, held = (bulk[part] for part in hold_out(len(bulk), self.validation, self.seed))
        widths, p = (seen.shape[1], *self.encoder), self.predictor
        encoder = nn.Sequential(*_dense(*widths))
        decoder = nn.Sequential(*_dense(*widths[:0:-1]), Linear(widths[1], widths[0]))
        settings = self.seed, self.pretraining, self.patience, self.batch_size, self.learning_rate, self.weight_decay
        stages.stored(
            nn.ModuleList([encoder, decoder]), "deepdr", "baselines.networks.DeepDR",
            (seen.numpy(), held.numpy(), self.encoder, settings),
            lambda: _pretrain(self, encoder, decoder, seen, held),
        )  # fmt: skip
        torch.manual_seed(self.seed)  # what follows is the same whether the file was there or not
        return Logit(encoder, nn.Dropout(self.dropout), *_dense(widths[-1], p, p, p), nn.Linear(p, 1))


class ShuffledGenes:
    """Control of the order of genes, to stand before a model: all rows have their genes in one fixed random order.

    If the order carried information that the convolutions use, the model would score lower. `source` keeps its order,
    so such a model must not use it.
    """

    #: Seed of the order: the same for all folds and seeds.
    order = 20250

    def shuffle(self, X: np.ndarray) -> np.ndarray:
        return X[:, np.random.default_rng(self.order).permutation(X.shape[1])]

    def fit(self, X, y, *, balance="none", source=None):
        return super().fit(self.shuffle(X), y, balance=balance)

    def predict_proba(self, X) -> np.ndarray:
        return super().predict_proba(self.shuffle(X))


class ShuffledCNN(ShuffledGenes, CNN):
    """CNN on genes in a random order."""


class ShuffledResNet18(ShuffledGenes, ResNet18):
    """ResNet18 on genes in a random order."""
