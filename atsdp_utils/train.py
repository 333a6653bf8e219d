"""Training: denoising, bulk predictor, transfer (equation 16), supervised fine-tuning.

All data live as tensors on one device; a stage is a loop over shuffled mini-batches with a fused AdamW, early stopping
on validation rows taken from the training rows, and the best weights restored. Seeds fix every draw, so a stage gives
the same result in any process with the same number of threads.
"""

from __future__ import annotations

import copy
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from . import cache, losses, paths, preprocess
from .config import Architecture, Training
from .model import ATSDPNet, DenoisingAutoencoder, Encoder, corrupt

History = list[dict[str, float]]
#: Cells at most on which transfer watches the MMD, whose cost is quadratic.
WATCHED = 500


def device() -> torch.device:
    """``ATSDP_DEVICE`` (``cpu``, ``cuda``), else CUDA where there is one."""
    name, there = os.environ.get("ATSDP_DEVICE", "auto"), torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not there):
        found = "is" if there else "is not"
        raise ValueError(f"ATSDP_DEVICE: got {name!r}, expected auto, cpu or cuda; CUDA {found} available here")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _tensor(x: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=device())


def _batches(n: int, size: int) -> Iterator[Tensor]:
    """Shuffled batches of nearly equal size, none of a single row (batch norm needs two)."""
    order = torch.randperm(n, device=device())
    yield from torch.tensor_split(order, max(1, min(round(n / size), n // 2)))


def _cycle(n: int, size: int) -> Iterator[Tensor]:
    while True:
        yield from _batches(n, size)


def _split(n: int, share: float, seed: int, y: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows; stratified where every class has at least two rows."""
    from sklearn.model_selection import train_test_split

    stratify = y if y is not None and np.bincount(y).min() >= 2 and share * n >= len(np.unique(y)) else None
    train, validation = train_test_split(np.arange(n), test_size=share, random_state=seed, stratify=stratify)
    return np.sort(train), np.sort(validation)


def _fit(
    module: nn.Module, parameters: list[nn.Parameter], epoch: Callable[[], Iterator[tuple[Tensor, dict]]],
    validate: Callable[[], float] | None, *, epochs: int, cfg: Training,
) -> History:  # fmt: skip
    """Minimise what `epoch` yields (loss and named terms per step).

    Without `validate` all epochs run; with it, `patience` epochs without improvement end the stage and the weights of
    the best epoch are restored.
    """
    optimiser = torch.optim.AdamW(parameters, lr=cfg.learning_rate, weight_decay=cfg.weight_decay, fused=True)
    history, best, waited = [], (np.inf, None), 0
    for i in range(epochs):
        module.train()
        terms: list[dict] = []
        for loss, named in epoch():
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            terms.append({"loss": loss.item()} | named)
        row = {"epoch": i} | {k: float(np.mean([t[k] for t in terms])) for k in terms[0]}
        history.append(row)
        if validate is None:
            continue
        module.eval()
        with torch.no_grad():
            row["validation"] = validate()
        if row["validation"] < best[0] - 1e-5:
            best, waited = (row["validation"], copy.deepcopy(module.state_dict())), 0
        else:
            waited += 1
            if waited >= cfg.patience:
                break
    if best[1] is not None:
        module.load_state_dict(best[1])
    module.eval()
    return history


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
    dae = DenoisingAutoencoder(X.shape[1], arch).to(device())
    rows, held = _split(len(X), 0.1, seed)
    x, x_val = _tensor(X[rows]), _tensor(X[held])
    mse = nn.functional.mse_loss

    def epoch() -> Iterator[tuple[Tensor, dict]]:
        for batch in _batches(len(x), cfg.batch_size):
            clean = x[batch]
            yield mse(dae(corrupt(clean, cfg.noise)), clean), {}

    def validate() -> float:
        return mse(dae(x_val), x_val).item()

    history = _fit(dae, list(dae.parameters()), epoch, validate, epochs=cfg.epochs_dae, cfg=cfg)
    return dae, history


def train_predictor(net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int) -> History:
    """Equations 10-11: cross-entropy of P(E_g(X'_g)) on balanced bulk training rows, in place.

    Validation rows are taken before balancing, so no duplicate or synthetic line is validated on.
    """
    torch.manual_seed(seed)
    rows, held = _split(len(y), cfg.validation, seed, y)
    xb, yb, weight = preprocess.balance(X[rows], y[rows], cfg.balance, seed)
    x, labels = _tensor(xb), _tensor(yb, torch.long)
    w = None if weight is None else _tensor(weight)
    x_val, y_val = _tensor(X[held]), _tensor(y[held], torch.long)
    class_weight = _class_weight(y[held])

    def epoch() -> Iterator[tuple[Tensor, dict]]:
        for batch in _batches(len(x), cfg.batch_size):
            logits = net(corrupt(x[batch], cfg.noise), "source")
            yield _cross_entropy(logits, labels[batch], None if w is None else w[batch]), {}

    def validate() -> float:
        return nn.functional.cross_entropy(net(x_val, "source"), y_val, class_weight).item()

    parameters = [*net.source.parameters(), *net.predictor.parameters()]
    history = _fit(net, parameters, epoch, validate, epochs=cfg.epochs_predictor, cfg=cfg)
    net.target.load_state_dict(net.source.state_dict())
    return history


def _cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    loss = nn.functional.cross_entropy(logits, y, reduction="none")
    return loss.mean() if weight is None else (loss * weight).mean()


def _class_weight(y: np.ndarray) -> Tensor:
    """Weights that make both classes count the same in a validation loss."""
    counts = np.maximum(np.bincount(y, minlength=2), 1)
    return _tensor(len(y) / (2 * counts))


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
    key = _key("dae", x_all, asdict(dae_arch), asdict(dae_cfg), seed)
    path = paths.PRETRAINED / f"dae-{key}.pt"
    dae = DenoisingAutoencoder(x_all.shape[1], arch).to(device())
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
    path = paths.PRETRAINED / f"bulk-{_key(key, source.y[rows], rows, asdict(arch), asdict(cfg), seed)}.pt"
    torch.manual_seed(seed)
    net = ATSDPNet(source.X.shape[1], arch, dae.encoder).to(device())
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


def _key(*parts: object) -> str:
    """Key of a cached stage: its inputs, the code that trains, the kind of device."""
    return cache.key(cache.code_version(*cache.NETWORK), device().type, *parts)


def _load(path) -> dict | None:
    """A cached stage, or None; a damaged file (a full disk, a flipped bit) counts as absent and is removed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is None:  # torch itself does not compare check sums
                return torch.load(path, map_location=device(), weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:
        warnings.warn(f"{path}: unreadable ({error}); computing it again", stacklevel=2)
    path.unlink(missing_ok=True)
    return None


def _save(path, state: dict) -> None:
    cache.write_atomically(path, lambda temporary: torch.save(state, temporary))


def transfer(
    net: ATSDPNet, source: preprocess.Source, X: np.ndarray, cfg: Training, seed: int
) -> tuple[ATSDPNet, History]:
    """Stage 2, equation 16: class loss on bulk + omega MMD^2 + theta regulariser, updating E_g, E_t and P.

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
    rows = source.fit_rows
    keep, held = _split(len(rows), cfg.validation, seed, source.y[rows])
    xb, yb, weight = preprocess.balance(source.X[rows[keep]], source.y[rows[keep]], cfg.balance, seed)
    x_g, y_g, x_t = _tensor(xb), _tensor(yb, torch.long), _tensor(X)
    w = None if weight is None else _tensor(weight)
    x_val, y_val = _tensor(source.X[rows[held]]), _tensor(source.y[rows[held]], torch.long)
    class_weight = _class_weight(source.y[rows[held]])
    clusters = _tensor(preprocess.louvain(X, seed), torch.long) if cfg.theta else None
    cells = _cycle(len(x_t), min(cfg.batch_size, len(x_t)))
    x_watched = x_t[np.sort(np.random.default_rng(seed).permutation(len(X))[:WATCHED])]

    def epoch() -> Iterator[tuple[Tensor, dict]]:
        for batch in _batches(len(x_g), cfg.batch_size):
            cell_batch = next(cells)
            z_g, z_t = net.embed(x_g[batch], "source"), net.embed(x_t[cell_batch], "target")
            class_loss = _cross_entropy(net.predictor(z_g), y_g[batch], None if w is None else w[batch])
            loss, named = _with_alignment(class_loss, z_g, z_t, None if clusters is None else clusters[cell_batch], cfg)
            yield loss, named | {"class": class_loss.item()}

    def validate() -> float:
        z_g = net.embed(x_val, "source")
        class_loss = nn.functional.cross_entropy(net.predictor(z_g), y_val, class_weight).item()
        return class_loss + cfg.omega * losses.mmd2(z_g, net.embed(x_watched, "target")).item()

    history = _fit(net, list(net.parameters()), epoch, validate, epochs=cfg.epochs_transfer, cfg=cfg)
    return net, history


def _with_alignment(
    class_loss: Tensor, z_g: Tensor, z_t: Tensor, clusters: Tensor | None, cfg: Training
) -> tuple[Tensor, dict]:
    """Add omega MMD^2 and theta times the regulariser (equation 16); name the terms for the history."""
    loss, named = class_loss, {}
    if cfg.omega:
        mmd = losses.mmd2(z_g, z_t)
        loss, named = loss + cfg.omega * mmd, {"mmd2": mmd.item()}
    if clusters is not None:
        regulariser = losses.cluster_dissimilarity(z_t, clusters)
        loss, named = loss + cfg.theta * regulariser, named | {"regulariser": regulariser.item()}
    return loss, named


def separate_space(net: ATSDPNet, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """The literature's literal reading of stage 2: E_t from an own autoencoder on the set's own genes.

    Returns a copy of `net` whose target encoder reads (cells, own genes); nothing but luck fixes its sign.
    """
    dae, _ = pretrain_autoencoder(X, net.arch, cfg, seed)
    net = copy.deepcopy(net)
    net.target = dae.encoder
    return net


def fine_tune(
    net: ATSDPNet, X: np.ndarray, y: np.ndarray, cfg: Training, seed: int,
    *, weight: np.ndarray | None = None, source: preprocess.Source | None = None, validation: bool = True,
) -> tuple[ATSDPNet, History]:  # fmt: skip
    """Protocols S and F: cross-entropy on labelled cells beside the alignment of equation 16, E_g frozen.

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
    keep, held = _split(len(y), cfg.validation, seed, y) if validation else (np.arange(len(y)), None)
    x, labels = _tensor(X[keep]), _tensor(y[keep], torch.long)
    w = None if weight is None else _tensor(weight[keep])
    clusters = _tensor(preprocess.louvain(X[keep], seed), torch.long) if cfg.theta else None
    size = min(cfg.batch_size, max(16, len(x) // 4))
    z_g = y_g = None
    if source is not None:
        rows = source.fit_rows
        xb, yb, _ = preprocess.balance(source.X[rows], source.y[rows], "oversampling", seed)
        y_g = _tensor(yb, torch.long)
        with torch.no_grad():
            z_g = net.eval().embed(_tensor(xb), "source")
        lines = _cycle(len(z_g), max(16, size // 2))

    def epoch() -> Iterator[tuple[Tensor, dict]]:
        for batch in _batches(len(x), size):
            z_t = net.embed(corrupt(x[batch], cfg.noise), "target")
            line = None if z_g is None else next(lines)
            logits = net.predictor(z_t if line is None else torch.cat([z_t, z_g[line]]))
            class_loss = _cross_entropy(logits[: len(batch)], labels[batch], None if w is None else w[batch])
            if line is None:
                yield class_loss, {"class": class_loss.item()}
                continue
            both = class_loss + nn.functional.cross_entropy(logits[len(batch) :], y_g[line])
            loss, named = _with_alignment(both, z_g[line], z_t, None if clusters is None else clusters[batch], cfg)
            yield loss, named | {"class": class_loss.item()}

    validate = None
    if held is not None:
        x_val, y_val, class_weight = _tensor(X[held]), _tensor(y[held], torch.long), _class_weight(y[held])

        def validate() -> float:
            return nn.functional.cross_entropy(net(x_val), y_val, class_weight).item()

    parameters = [*net.target.parameters(), *net.predictor.parameters()]
    history = _fit(net, parameters, epoch, validate, epochs=cfg.epochs_tune, cfg=cfg)
    return net, history


@torch.no_grad()
def predict(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """P(sensitive), (n,) float64, of standardised rows (n, genes)."""
    net.eval()
    return torch.softmax(net(_tensor(X), domain).double(), dim=1)[:, 1].cpu().numpy()


@torch.no_grad()
def embed(net: ATSDPNet, X: np.ndarray, domain: str = "target") -> np.ndarray:
    """Embeddings (n, bottleneck) float32 of standardised rows."""
    net.eval()
    return net.embed(_tensor(X), domain).cpu().numpy()


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
        return ATSDPNet(n_genes, self.arch).to(device())

    def fit(self, X, y, *, weight=None, source: preprocess.Source | None = None) -> ATSDP:
        """Protocol S: fine-tune on labelled, balanced training cells."""
        net = self.start(X.shape[1], source)
        anchor = source if self.pretrained else None
        self.net_, self.history_ = fine_tune(net, X, y, self.cfg, self.seed, weight=weight, source=anchor)
        return self

    def fit_bulk(self, source: preprocess.Source) -> ATSDP:
        """Protocol U before transfer: the bulk stage alone."""
        self.net_, self.history_ = self.start(source.X.shape[1], source), []
        return self

    def fit_transfer(self, X, source: preprocess.Source) -> ATSDP:
        """Protocol U: transfer to unlabelled cells."""
        self.net_, self.history_ = transfer(self.start(X.shape[1], source), source, X, self.cfg, self.seed)
        return self

    def fit_transfer_once(self, X, source: preprocess.Source) -> ATSDP:
        """As `fit_transfer`, with the network cached by content: tables and every number of labelled cells share it."""
        cfg = replace(self.cfg, epochs_tune=0)
        parts = source.X, source.y, source.train, X, asdict(self.arch), asdict(cfg), self.seed
        path = paths.PRETRAINED / f"transfer-{_key(*parts)}.pt"
        state = _load(path)
        if state is None:
            self.fit_transfer(X, source)
            _save(path, {"weights": self.net_.state_dict(), "history": self.history_})
            return self
        self.net_, self.history_ = self.start(X.shape[1], source), state["history"]
        self.net_.load_state_dict(state["weights"])
        return self

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
