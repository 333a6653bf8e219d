"""The stages, one function each: autoencoder and bulk stage (1), cells (2), transfer (3, equation 16), fine-tuning.

Validation rows are taken from the training rows. Seeds fix every draw, so a stage gives the same result in any process
with the same number of threads.
"""

from __future__ import annotations

import copy
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.data import preprocess
from atsdp_utils.data.preprocess import Source, hold_out
from atsdp_utils.foundation import cache, paths, runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import losses
from atsdp_utils.models.discrepancy import DISCREPANCIES, MMD
from atsdp_utils.models.loop import History, Rows, Stage, Step, batch_size, fit, tensor
from atsdp_utils.models.losses import cross_entropy
from atsdp_utils.models.network import ATSDPNet, DenoisingAutoencoder, corrupt
from atsdp_utils.models.stopping import STOPPING, balanced_cross_entropy, misranked, misranked_first


def _labelled(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, *more: Tensor | None) -> Rows:
    return Rows(tensor(x), tensor(y, torch.long), None if weight is None else tensor(weight), *more)


def stored(net: nn.Module, kind: str, maker: str, parts: tuple, train: Callable[[], History]) -> History:
    """Train `net` in place, or take its weights from the file of a training with the same code, device and inputs."""
    path = paths.PRETRAINED / f"{kind}-{cache.key(cache.code(maker), runtime.precision(), *parts)}.pt"

    def write(part: str) -> None:
        history = train()
        torch.save({"weights": net.state_dict(), "history": history}, part)

    state = cache.kept(path, read_network, write)
    net.load_state_dict(state["weights"])
    net.eval()
    return state["history"]


def read_network(path: Path) -> dict:
    """Weights and history of a stored network."""
    with zipfile.ZipFile(path) as archive:  # torch itself does not compare check sums
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} is damaged")
    return torch.load(path, map_location=runtime.device(), weights_only=True)


@dataclass
class Denoising(Stage):
    """Equations 1-3: mean squared error of clean rows that are reconstructed from corrupted ones."""

    rows: Rows
    x_held: Tensor
    length = "epochs_dae"
    #: Means and variances of batch norm follow the weights late: while these move fast, the error of held-out rows may
    #: rise for some passes, and then fall far below what it was.
    least = 10
    #: Passes that gained less were most of those under ``paper``, and ranked held-out lines no better (make bench).
    better = 0.01

    def epoch(self, net: nn.Module) -> Iterator[Step]:
        for batch in self.rows.batches(self.cfg.batch_size):
            (clean,) = self.rows[batch]
            yield nn.functional.mse_loss(net(corrupt(clean, self.cfg.noise)), clean), {}

    def validate(self, net: nn.Module) -> Tensor:
        return nn.functional.mse_loss(net(self.x_held), self.x_held)


def pretrain_autoencoder(
    X: np.ndarray, arch: Architecture, cfg: Training, seed: int
) -> tuple[DenoisingAutoencoder, History]:
    """Equations 1-3 (bulk) or 12-14 (single cells): reconstruct clean, standardised X (n, genes) from corrupted ones.

    It does not depend on labels, heads or balancing, so drugs, ablations and the members of an ensemble share it.
    """
    torch.manual_seed(seed)
    dae = DenoisingAutoencoder(X.shape[1], arch).to(runtime.device())
    rows, held = hold_out(len(X), 0.1, seed)

    def train() -> History:
        return fit(dae, Denoising(cfg, Rows(tensor(X[rows])), tensor(X[held])))

    sizes = replace(arch, heads=0, attention="tokens", predictor=(1,))
    settings = replace(cfg.bulk_only(), balance="none", epochs_predictor=0, stopping="")
    parts = X, asdict(sizes), asdict(settings), seed
    return dae, stored(dae, "dae", "models.stages.pretrain_autoencoder", parts, train)


@dataclass
class Classification(Stage):
    """Equations 10-11: cross-entropy of P(E_g(X'_g)) on corrupted bulk lines; `cfg.stopping` chooses the epoch."""

    lines: Rows
    x_held: Tensor
    y_held: Tensor
    length = "epochs_predictor"
    learns = "source", "predictor"

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int) -> Classification:
        """The stage on labelled lines; a part of them, stratified by class, is held out to choose the epoch.

        Rows are held out before balancing, so no duplicate or synthetic line is validated on.

        Parameters
        ----------
        X, y : (n, genes) and (n,)
            Standardised training lines, and their labels: 0 resistant, 1 sensitive.
        cfg : Training
            `validation` is the share that is held out, `balance` the strategy for the other lines.
        seed : int
            Draws the lines that are held out and the synthetic ones.
        """
        rows, held = hold_out(len(y), cfg.validation, seed, y)
        lines = _labelled(*preprocess.balance(X[rows], y[rows], cfg.balance, seed))
        return cls(cfg, lines, tensor(X[held]), tensor(y[held], torch.long))

    def loss(self, logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """:func:`losses.cross_entropy` of a batch: logits (n, 2), labels y (n,), and weights (n,) or None."""
        return cross_entropy(logits, y, weight)

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        for batch in self.lines.batches(self.cfg.batch_size):
            x, y, weight = self.lines[batch]
            yield self.loss(net(corrupt(x, self.cfg.noise), "source"), y, weight), {}

    def validate(self, net: ATSDPNet) -> Tensor | None:
        rule = STOPPING[self.cfg.stopping]
        return rule and rule(net(self.x_held, "source"), self.y_held)

    def watch(self, net: ATSDPNet) -> dict[str, Tensor]:
        logits, y = net(self.x_held, "source"), self.y_held
        return {"auc": 1 - misranked(logits, y), "cross_entropy": balanced_cross_entropy(logits, y)}


#: The bulk stage: network with E_t = E_g, and what the book shows of it.
Pretrained = namedtuple("Pretrained", "net dae_history predictor_history")


def pretrain(
    source: Source, arch: Architecture, cfg: Training, seed: int, *, autoencoder_seed: int | None = None,
    batch_seed: int | None = None,
) -> Pretrained:  # fmt: skip
    """Stage 1: autoencoder on all training lines, then predictor on the labelled ones.

    Parameters
    ----------
    source : Source
        The lines. Of its held-out lines (``train`` is false) neither values nor labels are read.
    arch, cfg : Architecture, Training
        Sizes and settings; settings of later stages have no effect.
    seed : int
        Draws the first weights of the predictor. It is also the default of the two other seeds.
    autoencoder_seed : int, optional
        Draws all of the autoencoder, so that the members of an ensemble can share one.
    batch_seed : int, optional
        Draws the training lines that choose the epoch, the synthetic lines, their order and noise.

    Returns
    -------
    Pretrained
        The network ``net``, whose E_t is a copy of E_g, and the histories of both trainings, ``dae_history`` and
        ``predictor_history``. A training with the same inputs is read from disk.
    """
    cfg, rows = cfg.bulk_only(), source.fit_rows
    dae_seed = seed if autoencoder_seed is None else autoencoder_seed
    batch_seed = seed if batch_seed is None else batch_seed
    dae, dae_history = pretrain_autoencoder(source.X[source.train], arch, cfg, dae_seed)
    torch.manual_seed(seed)
    net = ATSDPNet(source.X.shape[1], arch, dae).to(runtime.device())

    def train() -> History:
        torch.manual_seed(batch_seed)
        history = fit(net, Classification.of(source.X[rows], source.y[rows], cfg, batch_seed))
        net.target.load_state_dict(net.source.state_dict())
        return history

    parts = source.X[source.train], source.y[source.train], asdict(arch), asdict(cfg), seed, dae_seed, batch_seed
    return Pretrained(net, dae_history, stored(net, "bulk", "models.stages.pretrain", parts, train))


def _with_alignment(
    class_loss: Tensor, z_g: Tensor, z_t: Tensor, clusters: Tensor | None, cfg: Training, apart: nn.Module,
    also: Tensor | float = 0,
) -> Step:  # fmt: skip
    """Add omega times the discrepancy and theta times the regulariser (equation 16); name the terms for the history."""
    loss, named = class_loss + also, {"class": class_loss}
    if cfg.omega:
        named[apart.name] = apart(z_g, z_t)
        loss = loss + cfg.omega * named[apart.name]
    if clusters is not None:
        named["regulariser"] = losses.cluster_dissimilarity(z_t, clusters)
        loss = loss + cfg.theta * named["regulariser"]
    return loss, named


def continue_on_cells(net: ATSDPNet, X: np.ndarray, cfg: Training, seed: int) -> History:
    """Stage 2, in place: E_t and D, as stage 1 left them, learn to reconstruct corrupted cells (equations 12-14).

    X is (cells, genes), standardised. A tenth of the cells chooses the epoch; a few cells still give four steps a pass.
    """
    if not cfg.epochs_cells:
        return []
    rows, held = hold_out(len(X), 0.1, seed)
    size = batch_size(len(rows), cfg.batch_size)
    cfg = replace(cfg, epochs_dae=cfg.epochs_cells, batch_size=size)
    return fit(nn.Sequential(net.target, net.decoder), Denoising(cfg, Rows(tensor(X[rows])), tensor(X[held])))


@dataclass
class Transfer(Stage):
    """Equation 16 on as many cells as lines: class loss + omega discrepancy + theta regulariser; E_g, E_t and P learn.

    All epochs run: what would tell that cells are aligned well enough are their labels, which nothing here may see.
    """

    lines: Rows
    cells: Rows
    apart: nn.Module
    length = "epochs_transfer"
    learns = "source", "target", "predictor"

    def trained(self, net: ATSDPNet) -> list[nn.Module]:
        return [*super().trained(net), self.apart]

    @classmethod
    def of(cls, net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int) -> Transfer:
        """Lines but for those that chose the epoch of the bulk stage, and cells with their clusters."""
        rows = source.fit_rows
        keep = rows[hold_out(len(rows), cfg.validation, seed, source.y[rows])[0]]
        lines = _labelled(*preprocess.balance(source.X[keep], source.y[keep], cfg.balance, seed))
        clusters = tensor(preprocess.louvain(X, seed), torch.long) if cfg.theta else None
        apart = DISCREPANCIES[cfg.align](net.arch.bottleneck, cfg).to(runtime.device())
        return cls(cfg, lines, Rows(tensor(X), clusters), apart)

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        for batch in self.lines.batches(self.cfg.batch_size):
            x_t, clusters = self.cells[self.cells.draw(self.cfg.batch_size)]
            x_g, y_g, weight = self.lines[batch]
            z_g, z_t = net.embed(x_g, "source"), net.embed(x_t, "target")
            class_loss = cross_entropy(net.predictor(z_g), y_g, weight)
            yield _with_alignment(class_loss, z_g, z_t, clusters, self.cfg, self.apart)

    def validate(self, net: ATSDPNet) -> None:
        return None


def transfer(
    net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int, *, keep: bool = False
) -> tuple[ATSDPNet, History]:
    """Stages 2 and 3 of a copy of a pre-trained network, on cells without labels.

    Parameters
    ----------
    net : ATSDPNet
        As :func:`pretrain` left it; it is not changed.
    source : Source
        The lines. Its held-out lines are not read, and those that chose the epoch of the bulk stage are left out.
    X : (cells, genes)
        Cells, standardised, on the genes that the `target` encoder reads.
    cfg : Training
        Settings; stage 3 runs all of its `epochs_transfer`.
    seed : int
        Draws everything. It must be the bulk stage's `batch_seed` for the same lines to be left out.
    keep : bool
        Store the network on disk: protocols U and F and every number of labelled cells share it.

    Returns
    -------
    tuple
        The new network, and the history of stage 3 with its terms ``class``, ``mmd2`` (with another `cfg.align` it is
        ``coral`` or ``critic``) and ``regulariser``. A term whose weight is 0 is not there.
    """
    net = copy.deepcopy(net)

    def train() -> History:
        torch.manual_seed(seed)
        continue_on_cells(net, X, cfg, seed)
        return fit(net, Transfer.of(net, source, X, cfg, seed))

    if not keep:
        return net, train()
    weights = [v.cpu().numpy() for v in net.state_dict().values()]
    settings = asdict(net.arch), asdict(replace(cfg, epochs_tune=0)), seed
    parts = *weights, source.X[source.train], source.y[source.train], X, *settings
    return net, stored(net, "transfer", "models.stages.transfer", parts, train)


def further_steps(net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int) -> tuple[ATSDPNet, History]:
    """The control of transfer: as many further steps on batches of the same lines, without MMD, regulariser or stage 2.

    E_t ends as a copy of E_g, so no cell is learned from.

    Parameters
    ----------
    net, source, cfg, seed
        As in :func:`transfer`. The batches of lines are those of a transfer without stage 2.
    X : (cells, genes)
        Cells, for which random numbers are drawn as in a transfer; their values change nothing.
    """
    net, history = transfer(net, source, X, replace(cfg, omega=0.0, theta=0.0, epochs_cells=0), seed)
    net.target.load_state_dict(net.source.state_dict())
    return net, history


@dataclass
class FineTuning(Stage):
    """Protocols S and F: cross-entropy on cells and half as many lines, aligned by equation 16, E_g frozen."""

    cells: Rows
    lines: Rows | None
    size: int
    x_held: Tensor | None
    y_held: Tensor | None
    length = "epochs_tune"
    better = 0.0
    learns = "target", "predictor"

    @cached_property
    def apart(self) -> MMD:
        return MMD(self.cfg.mmd_scale)

    @classmethod
    def of(
        cls, net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int, *, balance: str = "none",
        source: Source | None, validation: bool = True,
    ) -> FineTuning:  # fmt: skip
        """Cells with their clusters, and what the frozen E_g of `net` makes of the lines.

        Cells are held out before balancing, so no duplicate or synthetic cell is validated on. Clusters are those of
        the cells before balancing, since a copy would be its cell's neighbour; a new row has its nearest cell's.
        """
        keep, held = hold_out(len(y), cfg.validation, seed, y) if validation else (np.arange(len(y)), None)
        x_cells, y_cells, weight = preprocess.balance(X[keep], y[keep], balance, seed)
        clusters = None
        if cfg.theta:
            from sklearn.metrics import pairwise_distances_argmin

            of = pairwise_distances_argmin(x_cells, X[keep])
            clusters = tensor(preprocess.louvain(X[keep], seed)[of], torch.long)
        cells = _labelled(x_cells, y_cells, weight, clusters)
        lines = None
        if source is not None:
            rows = source.fit_rows
            xb, yb, _ = preprocess.balance(source.X[rows], source.y[rows], "oversampling", seed)
            with torch.no_grad():
                lines = Rows(net.eval().embed(tensor(xb), "source"), tensor(yb, torch.long))
        held = (None, None) if held is None else (tensor(X[held]), tensor(y[held], torch.long))
        return cls(cfg, cells, lines, batch_size(len(cells), cfg.batch_size), *held)

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        for batch in self.cells.batches(self.size):
            x, y, weight, clusters = self.cells[batch]
            z_t = net.embed(corrupt(x, self.cfg.noise), "target")
            if self.lines is None:
                class_loss = cross_entropy(net.predictor(z_t), y, weight)
                yield class_loss, {"class": class_loss}
                continue
            z_g, y_g = self.lines[self.lines.draw(max(16, self.size // 2))]
            of_cells, of_lines = net.predictor(torch.cat([z_t, z_g])).split([len(z_t), len(z_g)])
            class_loss = cross_entropy(of_cells, y, weight)
            of_lines = cross_entropy(of_lines, y_g)
            yield _with_alignment(class_loss, z_g, z_t, clusters, self.cfg, self.apart, also=of_lines)

    def validate(self, net: ATSDPNet) -> Tensor | None:
        return None if self.x_held is None else misranked_first(net(self.x_held), self.y_held)


def fine_tune(
    net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int,
    *, balance: str = "none", source: Source | None = None, validation: bool = True,
) -> tuple[ATSDPNet, History]:  # fmt: skip
    """Protocols S and F: train E_t and P of a copy of a network on labelled cells; E_g is frozen.

    Parameters
    ----------
    net : ATSDPNet
        A pre-trained or new network; it is not changed.
    X, y : (n, genes) and (n,)
        Standardised training cells, not yet balanced, and their labels: 0 resistant, 1 sensitive.
    cfg, seed : Training, int
        Settings, among them `epochs_tune`, the most epochs; and the seed, which rules everything that is drawn.
    balance : str
        Strategy of :func:`preprocess.balance` for the cells that are learned from.
    source : Source, optional
        Embeddings of its labelled training lines by the frozen E_g keep P true to the bulk and anchor the MMD. Without
        it the cross-entropy of the cells is all that is minimised.
    validation : bool
        Whether the share `cfg.validation` of the cells is held out and decides when to stop; without it all epochs run,
        as they should on a handful of cells.
    """
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    stage = FineTuning.of(net, X, y, cfg, seed, balance=balance, source=source, validation=validation)
    return net, fit(net, stage)


@torch.no_grad()
def predict(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """P(sensitive), (n,) float64, of rows by the encoder of their domain and P.

    Parameters
    ----------
    net : ATSDPNet
        The network; it is set to evaluation mode.
    X : (n, genes)
        Expression, standardised as the rows of that domain were in training.
    domain : str
        ``target`` for cells or ``source`` for lines.
    """
    net.eval()
    return torch.softmax(net(tensor(X), domain).double(), dim=1)[:, 1].cpu().numpy()


@torch.no_grad()
def embed(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """Embeddings (n, bottleneck) float32 of rows that are given as to :func:`predict`."""
    net.eval()
    return net.embed(tensor(X), domain).cpu().numpy()
