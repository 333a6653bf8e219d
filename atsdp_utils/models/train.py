"""Training: denoising, bulk predictor, transfer (equation 16), supervised fine-tuning.

All data live as tensors on one device; `loop` trains. Validation rows are taken from the training
rows. Seeds fix every draw, so a stage gives the same result in any process with the same number of threads.
"""

from __future__ import annotations

import copy
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.data import preprocess
from atsdp_utils.foundation import cache, paths, runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import losses
from atsdp_utils.models.loop import History, Rows, Stage, Step, fit, tensor
from atsdp_utils.models.model import ATSDPNet, DenoisingAutoencoder, Encoder, corrupt

#: Cells at most on which transfer watches the MMD, whose cost is quadratic.
WATCHED = 500


def _split(n: int, share: float, seed: int, y: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows; stratified where every class has at least two rows."""
    from sklearn.model_selection import train_test_split

    stratify = y if y is not None and np.bincount(y).min() >= 2 and share * n >= len(np.unique(y)) else None
    train, validation = train_test_split(np.arange(n), test_size=share, random_state=seed, stratify=stratify)
    return np.sort(train), np.sort(validation)


def _nll(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of every row."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)


def _cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    loss = _nll(logits, y)
    return (loss if weight is None else loss * weight).mean(-1)


def _balanced_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Validation loss: both classes count the same."""
    counts = torch.stack([(y == label).sum(-1) for label in (0, 1)], -1).clamp_min(1)
    weight = 1 / counts.gather(-1, y)
    return (weight * _nll(logits, y)).sum(-1) / weight.sum(-1)


@dataclass
class Denoising(Stage):
    """Equations 1-3: reconstruct the clean rows from corrupted ones."""

    rows: Rows
    x_held: Tensor

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self.cfg.epochs_dae

    def epoch(self, net: nn.Module) -> Iterator[Step]:
        """Mean squared errors."""
        for batch in self.rows.batches(self.cfg.batch_size):
            (clean,) = self.rows[batch]
            yield _mse(net(corrupt(clean, self.cfg.noise)), clean), {}

    def validate(self, net: nn.Module) -> Tensor:
        """Mean squared error of held rows, not corrupted."""
        return _mse(net(self.x_held), self.x_held)


def _mse(found: Tensor, clean: Tensor) -> Tensor:
    if clean.ndim == 2:
        return nn.functional.mse_loss(found, clean)
    return nn.functional.mse_loss(found, clean, reduction="none").mean((-2, -1))


def pretrain_autoencoder(
    X: np.ndarray, arch: Architecture, cfg: Training, seed: int
) -> tuple[DenoisingAutoencoder, History]:
    """Equations 1-3 (bulk) or 12-14 (single cells): reconstruct the clean X from a corrupted one.

    Parameters
    ----------
    X
        (n, genes) standardised training rows; a tenth of them watches for early stopping.

    Returns
    -------
    tuple
        The autoencoder and its history (``loss``, ``validation``: mean squared errors).
    """
    torch.manual_seed(seed)
    dae = DenoisingAutoencoder(X.shape[1], arch).to(runtime.device())
    rows, held = _split(len(X), 0.1, seed)
    return dae, fit(dae, Denoising(cfg, Rows(tensor(X[rows])), tensor(X[held])))


@dataclass
class Classification(Stage):
    """Equations 10-11: cross-entropy of P(E_g(X'_g)) on bulk lines."""

    lines: Rows
    x_held: Tensor
    y_held: Tensor

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self.cfg.epochs_predictor

    def trained(self, net: ATSDPNet) -> list[nn.Module]:
        """E_g and P."""
        return [net.source, net.predictor]

    def loss(self, logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """Class loss of a batch."""
        return _cross_entropy(logits, y, weight)

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        """Losses on corrupted lines."""
        for batch in self.lines.batches(self.cfg.batch_size):
            x, y, weight = self.lines[batch]
            yield self.loss(net(corrupt(x, self.cfg.noise), "source"), y, weight), {}

    def validate(self, net: ATSDPNet) -> Tensor:
        """Class loss on held lines."""
        return _balanced_cross_entropy(net(self.x_held, "source"), self.y_held)


def train_predictor(net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int) -> History:
    """Equations 10-11: cross-entropy of P(E_g(X'_g)) on balanced bulk training rows, in place.

    Validation rows are taken before balancing, so no duplicate or synthetic line is validated on.
    """
    torch.manual_seed(seed)
    rows, held = _split(len(y), cfg.validation, seed, y)
    xb, yb, weight = preprocess.balance(X[rows], y[rows], cfg.balance, seed)
    stage = Classification(cfg, _labelled(xb, yb, weight), tensor(X[held]), tensor(y[held], torch.long))
    history = fit(net, stage)
    net.target.load_state_dict(net.source.state_dict())
    return history


def _labelled(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None, *more: Tensor | None) -> Rows:
    return Rows(tensor(x), tensor(y, torch.long), None if weight is None else tensor(weight), *more)


@dataclass
class Pretrained:
    """The bulk stage: network with E_t = E_g, and what the book shows of it."""

    net: ATSDPNet
    dae_history: History
    predictor_history: History


def pretrained_autoencoder(
    source: preprocess.Source, arch: Architecture, cfg: Training, seed: int
) -> tuple[DenoisingAutoencoder, History, str]:
    """Denoising autoencoder of the training lines, its history and the key of its cache file.

    It does not depend on labels, heads or balancing, so drugs, ablations and the members of an ensemble share it.
    """
    x_all = source.X[source.train]
    dae_arch = replace(arch, heads=0, attention="tokens", predictor=(1,))
    dae_cfg = replace(_bulk_only(cfg), balance="none", epochs_predictor=0)
    key = _key("models.train.pretrained_autoencoder", x_all, asdict(dae_arch), asdict(dae_cfg), seed)
    path = paths.PRETRAINED / f"dae-{key}.pt"
    dae = DenoisingAutoencoder(x_all.shape[1], arch).to(runtime.device())
    state = _load(path)
    if state is None:
        dae, history = pretrain_autoencoder(x_all, arch, cfg, seed)
        state = {"weights": dae.state_dict(), "history": history}
        _save(path, state)
    dae.load_state_dict(state["weights"])
    return dae, state["history"], key


def pretrain(
    source: preprocess.Source, arch: Architecture, cfg: Training, seed: int, *, autoencoder_seed: int | None = None
) -> Pretrained:
    """Stage 1: denoising autoencoder on the training lines, then the predictor; cached by content.

    The autoencoder has a seed of its own where members of an ensemble share it.
    """
    dae, dae_history, key = pretrained_autoencoder(
        source, arch, cfg, seed if autoencoder_seed is None else autoencoder_seed
    )
    rows = source.fit_rows
    cfg = _bulk_only(cfg)
    parts = key, source.y[source.train], asdict(arch), asdict(cfg), seed
    path = paths.PRETRAINED / f"bulk-{_key('models.train.pretrain', *parts)}.pt"
    torch.manual_seed(seed)
    net = ATSDPNet(source.X.shape[1], arch, dae.encoder).to(runtime.device())
    bulk = _load(path)
    if bulk is None:
        history = train_predictor(net, source.X[rows], source.y[rows], cfg, seed)
        bulk = {"weights": net.state_dict(), "history": history}
        _save(path, bulk)
    net.load_state_dict(bulk["weights"])
    net.eval()
    return Pretrained(net, dae_history, bulk["history"])


def _bulk_only(cfg: Training) -> Training:
    """The settings without those of later stages, so that they do not distinguish cached bulk stages."""
    return replace(cfg, epochs_transfer=0, epochs_tune=0, omega=0, theta=0)


def _key(maker: str, *parts: object) -> str:
    """Key of a cached stage: the code that trains it and the device, and its inputs."""
    return cache.key(cache.code(maker), runtime.precision(), *parts)


def _load(path) -> dict | None:
    """A cached stage, or None; a damaged file (a full disk, a flipped bit) counts as absent and is removed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is None:  # torch itself does not compare check sums
                return torch.load(path, map_location=runtime.device(), weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:
        warnings.warn(f"{path}: unreadable ({error}); computing it again", stacklevel=2)
    path.unlink(missing_ok=True)
    return None


def _save(path, state: dict) -> None:
    cache.write_atomically(path, lambda temporary: torch.save(state, temporary))


@dataclass
class Transfer(Stage):
    """Stage 2, equation 16: class loss on bulk + omega MMD^2 + theta regulariser, updating E_g, E_t and P."""

    lines: Rows
    cells: Rows
    x_held: Tensor
    y_held: Tensor
    x_watched: Tensor

    @classmethod
    def of(cls, source: preprocess.Source, X: np.ndarray, cfg: Training, seed: int) -> Transfer:
        """Tensors of one network: lines but for those held out, cells with their clusters, cells that are watched."""
        rows = source.fit_rows
        keep, held = (rows[part] for part in _split(len(rows), cfg.validation, seed, source.y[rows]))
        lines = _labelled(*preprocess.balance(source.X[keep], source.y[keep], cfg.balance, seed))
        clusters = tensor(preprocess.louvain(X, seed), torch.long) if cfg.theta else None
        watched = np.sort(np.random.default_rng(seed).permutation(len(X))[:WATCHED])
        cells = Rows(tensor(X), clusters)
        return cls(
            cfg, lines, cells, tensor(source.X[held]), tensor(source.y[held], torch.long), cells.values[0][watched]
        )

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self.cfg.epochs_transfer

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        """Losses of equation 16, each on as many cells as lines."""
        for batch in self.lines.batches(self.cfg.batch_size):
            x_t, clusters = self.cells[self.cells.draw(self.cfg.batch_size)]
            x_g, y_g, weight = self.lines[batch]
            z_g, z_t = net.embed(x_g, "source"), net.embed(x_t, "target")
            class_loss = _cross_entropy(net.predictor(z_g), y_g, weight)
            yield _with_alignment(class_loss, z_g, z_t, clusters, self.cfg)

    def validate(self, net: ATSDPNet) -> Tensor:
        """Class loss on held lines and MMD to the cells that are watched."""
        z_g = net.embed(self.x_held, "source")
        class_loss = _balanced_cross_entropy(net.predictor(z_g), self.y_held)
        return class_loss + self.cfg.omega * losses.mmd2(z_g, net.embed(self.x_watched, "target"))


def transfer(
    net: ATSDPNet, source: preprocess.Source, X: np.ndarray, cfg: Training, seed: int
) -> tuple[ATSDPNet, History]:
    """Stage 2 (:class:`Transfer`).

    Parameters
    ----------
    net
        A pre-trained network; left as it is, a copy is trained. Its `target` encoder decides the gene space of `X`.
    source
        Bulk rows; validation lines come from its training rows.
    X
        (cells, genes) standardised, without labels.

    Returns
    -------
    tuple
        The transferred network and its history: ``class``, ``mmd2``, ``regulariser``, ``loss``, ``validation``.
    """
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    return net, fit(net, Transfer.of(source, X, cfg, seed))


def _with_alignment(
    class_loss: Tensor, z_g: Tensor, z_t: Tensor, clusters: Tensor | None, cfg: Training, also: Tensor | None = None
) -> Step:
    """Add omega MMD^2 and theta times the regulariser (equation 16); name the terms for the history."""
    loss, named = class_loss if also is None else class_loss + also, {"class": class_loss}
    if cfg.omega:
        named["mmd2"] = losses.mmd2(z_g, z_t)
        loss = loss + cfg.omega * named["mmd2"]
    if clusters is not None:
        named["regulariser"] = losses.cluster_dissimilarity(z_t, clusters)
        loss = loss + cfg.theta * named["regulariser"]
    return loss, named


def separate_space(net: ATSDPNet, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """The literature's literal reading of stage 2: E_t from an own autoencoder on the set's own genes.

    Returns a copy of `net` whose target encoder reads (cells, own genes); its sign is arbitrary.
    """
    dae, _ = pretrain_autoencoder(X, net.arch, cfg, seed)
    net = copy.deepcopy(net)
    net.target = dae.encoder
    return net


@dataclass
class FineTuning(Stage):
    """Protocols S and F: cross-entropy on labelled cells beside the alignment of equation 16, E_g frozen."""

    cells: Rows
    lines: Rows | None
    size: int
    x_held: Tensor | None
    y_held: Tensor | None

    @classmethod
    def of(
        cls, net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int, *, weight: np.ndarray | None,
        source: preprocess.Source | None, validation: bool = True,
    ) -> FineTuning:  # fmt: skip
        """Tensors of one network, with what its frozen E_g makes of the lines."""
        keep, held = _split(len(y), cfg.validation, seed, y) if validation else (np.arange(len(y)), None)
        clusters = tensor(preprocess.louvain(X[keep], seed), torch.long) if cfg.theta else None
        cells = _labelled(X[keep], y[keep], None if weight is None else weight[keep], clusters)
        lines = None
        if source is not None:
            rows = source.fit_rows
            xb, yb, _ = preprocess.balance(source.X[rows], source.y[rows], "oversampling", seed)
            with torch.no_grad():
                lines = Rows(net.eval().embed(tensor(xb), "source"), tensor(yb, torch.long))
        held = (None, None) if held is None else (tensor(X[held]), tensor(y[held], torch.long))
        return cls(cfg, cells, lines, min(cfg.batch_size, max(16, len(keep) // 4)), *held)

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        return self.cfg.epochs_tune

    def trained(self, net: ATSDPNet) -> list[nn.Module]:
        """E_t and P."""
        return [net.target, net.predictor]

    def epoch(self, net: ATSDPNet) -> Iterator[Step]:
        """Class losses of cells, and of lines beside half as many of them."""
        for batch in self.cells.batches(self.size):
            x, y, weight, clusters = self.cells[batch]
            z_t = net.embed(corrupt(x, self.cfg.noise), "target")
            if self.lines is None:
                class_loss = _cross_entropy(net.predictor(z_t), y, weight)
                yield class_loss, {"class": class_loss}
                continue
            z_g, y_g = self.lines[self.lines.draw(max(16, self.size // 2))]
            logits, n = net.predictor(torch.cat([z_t, z_g], dim=-2)), x.shape[-2]
            class_loss = _cross_entropy(logits[..., :n, :], y, weight)
            of_lines = _cross_entropy(logits[..., n:, :], y_g)
            yield _with_alignment(class_loss, z_g, z_t, clusters, self.cfg, also=of_lines)

    def validate(self, net: ATSDPNet) -> Tensor | None:
        """Class loss on held cells, if any are."""
        return None if self.x_held is None else _balanced_cross_entropy(net(self.x_held), self.y_held)


def fine_tune(
    net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int,
    *, weight: np.ndarray | None = None, source: preprocess.Source | None = None, validation: bool = True,
) -> tuple[ATSDPNet, History]:  # fmt: skip
    """Protocols S and F (:class:`FineTuning`).

    Parameters
    ----------
    net
        Pre-trained (or transferred) network; a copy is trained.
    X, y
        (n, genes) standardised and balanced training cells, (n,) labels.
    weight
        (n,) weights, or None.
    source
        Bulk rows; their embeddings by the frozen E_g keep P true to the bulk and anchor the MMD. None: cells alone.
    validation
        Whether a part of the training cells decides when to stop (not with a handful of cells).
    """
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    stage = FineTuning.of(net, X, y, cfg, seed, weight=weight, source=source, validation=validation)
    return net, fit(net, stage)


@torch.no_grad()
def predict(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """P(sensitive), (n,) float64, of standardised rows (n, genes)."""
    net.eval()
    return torch.softmax(net(tensor(X), domain).double(), dim=1)[:, 1].cpu().numpy()


@torch.no_grad()
def embed(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """Embeddings (n, bottleneck) float32 of standardised rows."""
    net.eval()
    return net.embed(tensor(X), domain).cpu().numpy()


class ATSDP:
    """ATSDP-NET with the interface of the baselines.

    Parameters
    ----------
    seed
        Seed of every draw.
    arch, cfg
        Sizes and training settings.
    pretrained
        Whether the bulk stage comes first; without it the network starts from random weights and no bulk is used.
    """

    def __init__(
        self, *, seed: int = 0, arch: Architecture | None = None, cfg: Training | None = None, pretrained: bool = True
    ) -> None:
        self.seed, self.pretrained = seed, pretrained
        self.arch, self.cfg = arch or Architecture(), cfg or Training()

    def start(self, n_genes: int, source: preprocess.Source | None) -> ATSDPNet:
        """The network before it sees a cell: after the bulk stage, or random."""
        if self.pretrained:
            if source is None:
                raise ValueError("source: got None, expected bulk rows (or pretrained=False)")
            return pretrain(source, self.arch, self.cfg, self.seed).net
        torch.manual_seed(self.seed)
        return ATSDPNet(n_genes, self.arch).to(runtime.device())

    def fit(self, X, y, *, weight=None, source: preprocess.Source | None = None) -> ATSDP:
        """Protocol S: fine-tune on labelled, balanced training cells."""
        return self._learn(self.supervised(X, y, weight=weight, source=source))

    def supervised(self, X, y, *, weight=None, source: preprocess.Source | None = None) -> FineTuning:
        """What `fit` trains: the network, made here, and the stage that is returned."""
        self.net_ = self.start(X.shape[1], source)
        anchor = source if self.pretrained else None
        return FineTuning.of(self.net_, X, y, self.cfg, self.seed, weight=weight, source=anchor)

    def unsupervised(self, X, source: preprocess.Source) -> Transfer:
        """The same of `fit_transfer`."""
        self.net_ = self.start(X.shape[1], source)
        return Transfer.of(source, X, self.cfg, self.seed)

    def _learn(self, stage: Stage) -> ATSDP:
        torch.manual_seed(self.seed)
        self.history_ = fit(self.net_, stage)
        return self

    def fit_bulk(self, source: preprocess.Source) -> ATSDP:
        """Protocol U before transfer: the bulk stage alone."""
        self.net_, self.history_ = self.start(source.X.shape[1], source), []
        return self

    def fit_transfer(self, X, source: preprocess.Source) -> ATSDP:
        """Protocol U: transfer to unlabelled cells."""
        return self._learn(self.unsupervised(X, source))

    def fit_transfer_once(self, X, source: preprocess.Source) -> ATSDP:
        """As `fit_transfer`, with the network cached by content: tables and every number of labelled cells share it."""
        state = _load(self._transfer_path(X, source))
        if state is None:
            self.fit_transfer(X, source).keep_transfer(X, source)
            return self
        self.net_, self.history_ = self.start(X.shape[1], source), state["history"]
        self.net_.load_state_dict(state["weights"])
        return self

    def keep_transfer(self, X, source: preprocess.Source) -> None:
        """Store the network, transferred to X, where `fit_transfer_once` finds it."""
        _save(self._transfer_path(X, source), {"weights": self.net_.state_dict(), "history": self.history_})

    def _transfer_path(self, X: np.ndarray, source: preprocess.Source) -> Path:
        cfg = replace(self.cfg, epochs_tune=0)
        lines = source.X[source.train], source.y[source.train]
        parts = *lines, X, asdict(self.arch), asdict(cfg), self.seed
        return paths.PRETRAINED / f"transfer-{_key('models.train.ATSDP', *parts)}.pt"

    def fit_transfer_separate(self, X, source: preprocess.Source) -> ATSDP:
        """Protocol U in the separate gene space: X holds the set's own genes, read by an encoder of its own."""
        net = separate_space(self.start(source.X.shape[1], source), X, self.cfg, self.seed)
        self.net_, self.history_ = transfer(net, source, X, self.cfg, self.seed)
        return self

    def fit_few(self, X_all, X, y, *, source: preprocess.Source) -> ATSDP:
        """Protocol F: transfer to all cells without labels, then a fixed number of epochs on a few labelled ones."""
        net = self.fit_transfer_once(X_all, source).net_
        cfg = replace(self.cfg, theta=0.0)
        self.net_, self.history_ = fine_tune(net, X, y, cfg, self.seed, source=source, validation=False)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive), (n,), of standardised cells (n, genes)."""
        return predict(self.net_, X)

    @property
    def n_parameters(self) -> int:
        """Trainable parameters of E_t and P."""
        return sum(p.numel() for m in (self.net_.target, self.net_.predictor) for p in m.parameters())


def encoder_parameters(n_genes: int, arch: Architecture) -> int:
    """Parameters of an encoder with the sizes of Table 2."""
    return sum(p.numel() for p in Encoder(n_genes, arch).parameters())
