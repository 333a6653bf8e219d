"""GCN and GAT on a graph of similar cells, inductive by default, and their transductive readings."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atsdp_utils.baselines.rows import check_rows, split, weighed
from atsdp_utils.baselines.wrapper import TorchBaseline
from atsdp_utils.models.network import Dropout
from atsdp_utils.models.products import Linear


@dataclass(frozen=True)
class CellGraph:
    """Edges between cells."""

    #: (2, e): cell ``edges[0]`` receives from cell ``edges[1]``; every cell receives from itself.
    edges: Tensor
    #: ``threshold``, or ``neighbours`` where the threshold was of no use.
    rule: str
    #: Number of neighbours of each training cell at the threshold, (n,), whichever rule was taken.
    threshold_degree: np.ndarray

    def degree(self, n: int) -> np.ndarray:
        """Cells, other than itself, that each of the `n` cells receives from."""
        return torch.bincount(self.edges[0], minlength=n).numpy() - 1


def similarity(A: Tensor, B: Tensor) -> Tensor:
    """Pearson correlation over genes between the cells of A (n, g) and of B (m, g), as (n, m)."""
    A, B = (F.normalize(M - M.mean(1, keepdim=True), dim=1) for M in (A, B))
    return A @ B.T


def nearest(S: Tensor, neighbours: int) -> Tensor:
    """Mask of the `neighbours` largest entries of each row of S."""
    chosen = S.topk(min(neighbours, S.shape[1]), dim=1).indices
    return torch.zeros_like(S, dtype=torch.bool).scatter_(1, chosen, True)


def cell_graph(train: Tensor, new: Tensor | None = None, *, threshold: float = 0.8, neighbours: int = 10) -> CellGraph:
    """Connect training cells to each other, and each new cell to training cells only.

    Cells are connected where their Pearson correlation exceeds `threshold` (the paper: "a similarity threshold (e.g.,
    0.8)"). Where that leaves more than half of the training cells without a neighbour, or connected to more than half
    of the others, each is connected to its `neighbours` most similar ones (in either direction between training cells).
    The rule is chosen from the training cells alone.

    Parameters
    ----------
    train : (n, genes)
        Training cells; they never receive from a new cell.
    new : (m, genes), optional
        Cells to predict; they receive from training cells and from themselves, never from each other.
    threshold : float
        Pearson correlation over genes.
    neighbours : int
        Number of most similar training cells, where the threshold is of no use.

    Returns
    -------
    CellGraph
        Its edges number the training cells from 0 and the new cells from n.
    """
    n = len(train)
    S = similarity(train, train).fill_diagonal_(-2)
    close = threshold < S
    degree = close.sum(1)
    useful = (degree == 0).float().mean() <= 0.5 and (degree > (n - 1) / 2).float().mean() <= 0.5
    if not useful:
        close = nearest(S, min(neighbours, n - 1))
        close |= close.T.clone()
    edges = [close.nonzero().T]
    if new is not None:
        S = similarity(new, train)
        to_train = (threshold < S if useful else nearest(S, neighbours)).nonzero().T
        edges.append(to_train + torch.tensor([[n], [0]]))
    itself = torch.arange(n if new is None else n + len(new)).repeat(2, 1)
    return CellGraph(torch.cat([*edges, itself], 1), "threshold" if useful else "neighbours", degree.numpy())


class GraphConvolution(nn.Module):
    """H_i' = sum_j H_j W / sqrt(d_i d_j) over the neighbours of i and itself (Kipf & Welling, eq. 2)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = Linear(n_in, n_out)

    def forward(self, H: Tensor, edges: Tensor) -> Tensor:
        to, source = edges
        scale = torch.bincount(to, minlength=len(H)).float().rsqrt()
        H = self.linear(H)
        return torch.zeros_like(H).index_add(0, to, (scale[to] * scale[source])[:, None] * H[source])


class GraphAttention(nn.Module):
    """Mean over heads of sum_j a_ij H_j W, a = softmax of LeakyReLU(u·W H_i + v·W H_j) (Veličković, eqs 3, 6).

    u and v are `receive` and `send`: the two halves of the original's vector a.
    """

    def __init__(self, n_in: int, n_out: int, heads: int = 2) -> None:
        super().__init__()
        self.linear = Linear(n_in, heads * n_out)
        self.receive, self.send = (nn.Parameter(torch.randn(heads, n_out) / n_out**0.5) for _ in range(2))
        self.shape = (heads, n_out)

    def forward(self, H: Tensor, edges: Tensor) -> Tensor:
        to, source = edges
        H = self.linear(H).unflatten(1, self.shape)
        score = F.leaky_relu((H * self.receive).sum(-1)[to] + (H * self.send).sum(-1)[source], 0.2)
        # subtracting a cell's own largest score leaves its softmax unchanged and keeps exp() finite
        largest = torch.full_like(H[..., 0], -torch.inf)
        largest = largest.scatter_reduce(0, to[:, None].expand_as(score), score.detach(), "amax")
        weight = (score - largest[to]).exp()
        total = torch.zeros_like(H[..., 0]).index_add(0, to, weight)
        return torch.zeros_like(H).index_add(0, to, (weight / total[to])[..., None] * H[source]).mean(1)


class GraphNet(nn.Module):
    """Two graph layers with ELU and drop-out; one logit a cell."""

    def __init__(self, layer: type[nn.Module], n_genes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = layer(n_genes, hidden), layer(hidden, 1)
        self.dropout = Dropout(dropout)

    def forward(self, X: Tensor, edges: Tensor) -> Tensor:
        H = F.elu(self.first(self.dropout(X), edges))
        return self.second(self.dropout(H), edges).squeeze(1)


@dataclass(kw_only=True)
class GCN(TorchBaseline):
    """Graph convolutional network whose nodes are cells; a test cell has edges to training cells only (inductive)."""

    hidden: int = 32
    dropout: float = 0.3
    threshold: float = 0.8
    neighbours: int = 10
    layer = GraphConvolution

    def fit(self, X, y, *, balance="none", source=None):
        return super().fit(X, y, balance=weighed(balance), source=source)

    def _graph(self, *cells: Tensor) -> CellGraph:
        return cell_graph(*cells, threshold=self.threshold, neighbours=self.neighbours)

    def _build(self, rows, source):
        self.train_ = self._nodes(rows)
        self.graph_ = self._graph(self.train_)
        return GraphNet(self.layer, self.train_.shape[1], self.hidden, self.dropout)

    def _nodes(self, rows) -> Tensor:
        """Cells of the training graph; held-out cells are attached to it as test cells are."""
        return torch.from_numpy(rows.X)

    def _loss(self, X, y, weight, batch):
        """Every step is on the whole graph, as the originals train."""
        logit = self.net_(self.train_, self.graph_.edges)[: len(y)]
        return F.binary_cross_entropy_with_logits(logit, y, weight)

    def _logit(self, X):
        edges = self._graph(self.train_, X).edges
        return self.net_(torch.cat([self.train_, X]), edges)[len(self.train_) :]


@dataclass(kw_only=True)
class GAT(GCN):
    """Graph attention network, inductive as :class:`GCN`."""

    layer = GraphAttention


class Transductive:
    """The original's reading, to stand before a graph model: test cells (never their labels) are in the training graph.

    The training happens in `predict_proba`, so a prediction depends on the other test cells of the same call.
    """

    def fit(self, X, y, *, balance="none", source=None):
        self.rows_ = split(*check_rows(X, y), weighed(balance), self.validation, self.seed)
        return self

    def predict_proba(self, X) -> np.ndarray:
        self.new_ = np.asarray(X, np.float32)
        self._learn(self.rows_)
        return super().predict_proba(X)

    def _nodes(self, rows) -> Tensor:
        return torch.from_numpy(np.concatenate([rows.X, rows.held, self.new_]))

    def _held_logit(self, X):
        return self.net_(self.train_, self.graph_.edges)[-len(self.new_) - len(X) : -len(self.new_)]

    def _logit(self, X):
        return self.net_(self.train_, self.graph_.edges)[-len(X) :]


class TransductiveGCN(Transductive, GCN):
    """GCN on the joint graph of training and test cells."""


class TransductiveGAT(Transductive, GAT):
    """GAT on the joint graph of training and test cells."""
