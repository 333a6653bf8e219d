"""What the torch baselines share: one training loop, one inner validation split, one seed, one thread."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atsdp_utils.baselines._rows import check_rows, hold_out


@dataclass(frozen=True)
class Loop:
    """How a network is trained. Steps, not epochs, are the unit: a training costs the same for 20 and 1,400 cells.

    Every `check_every` steps the loss on the inner validation rows (`validation` of the training rows) is
    computed; `patience` checks without a better one end the training, and the best weights are kept.
    """

    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    check_every: int = 10
    patience: int = 4
    validation: float = 0.15


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Run with this seed on one thread; both are put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def weighted_bce(logit: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the binary cross-entropy on logits, all (n,)."""
    return F.binary_cross_entropy_with_logits(logit, y, weight)


def minimise(net: nn.Module, loss: Callable[[Tensor], Tensor], rows: np.ndarray, held: np.ndarray, loop: Loop) -> None:
    """Minimise `loss(rows)` over minibatches of `rows` with AdamW; early stopping on `loss(held)` if any are held out.

    Parameters
    ----------
    net
        Network to train, in place; left in evaluation mode.
    loss
        Scalar loss of the rows whose indices it is given.
    """
    optimiser = torch.optim.AdamW(net.parameters(), lr=loop.learning_rate, weight_decay=loop.weight_decay, fused=True)
    rows, held = torch.as_tensor(rows), torch.as_tensor(held)
    size = min(loop.batch_size, len(rows))
    epochs = math.ceil(loop.steps * size / len(rows))
    batches = torch.cat([rows[torch.randperm(len(rows))] for _ in range(epochs)]).split(size)[: loop.steps]
    best, best_state, waited = math.inf, None, 0
    net.train()
    for step, batch in enumerate(batches, start=1):
        optimiser.zero_grad()
        loss(batch).backward()
        optimiser.step()
        if len(held) == 0 or (step % loop.check_every and step != len(batches)):
            continue
        net.eval()
        with torch.no_grad():
            value = loss(held).item()
        net.train()
        if value < best:
            best, best_state, waited = value, copy.deepcopy(net.state_dict()), 0
        else:
            waited += 1
            if waited == loop.patience:
                break
    if best_state is not None:
        net.load_state_dict(best_state)
    net.eval()


def pretrain_autoencoder(
    encoder: nn.Module, decoder: nn.Module, X: Tensor, loop: Loop, *, sparsity: float = 0.0, seed: int = 0
) -> None:
    """Train decoder(encoder(X)) to return X (mean squared error) with an L1 penalty on the code, in place."""
    rows, held = hold_out(X.numpy(), np.zeros(len(X), int), loop.validation, seed)

    def loss(batch: Tensor) -> Tensor:
        code = encoder(X[batch])
        return F.mse_loss(decoder(code), X[batch]) + sparsity * code.abs().mean()

    minimise(nn.ModuleList([encoder, decoder]), loss, rows, held, loop)


class TorchBaseline:
    """fit/predict_proba around a network that maps (n, genes) to logits (n,). Subclasses define `_build`."""

    def __init__(self, *, seed: int = 0, **loop: float) -> None:
        self.seed = seed
        self.loop = Loop(**loop)

    def _build(self, X: Tensor, y: Tensor, source: object | None) -> nn.Module:
        """Make the network; models that pre-train do so here."""
        raise NotImplementedError

    def _loss(self, X: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Training loss of some rows."""
        return weighted_bce(self.net_(X), y, weight)

    def fit(self, X, y, *, weight=None, source=None):
        """Train on rows X (n, genes), labels y in {0, 1}; see the package docstring."""
        X, y, weight = check_rows(X, y, weight)
        rows, held = hold_out(X, y, self.loop.validation, self.seed)
        X, y, weight = torch.from_numpy(X), torch.from_numpy(y).float(), torch.from_numpy(weight)
        with reproducible(self.seed):
            self.net_ = self._build(X, y, source)
            minimise(self.net_, lambda b: self._loss(X[b], y[b], weight[b]), rows, held, self.loop)
        return self

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,)."""
        with reproducible(self.seed), torch.inference_mode():
            logits = [self.net_(part) for part in torch.as_tensor(np.asarray(X, np.float32)).split(256)]
            return torch.sigmoid(torch.cat(logits)).double().numpy()

    @property
    def n_parameters(self) -> int:
        """Trainable parameters of the fitted network."""
        return sum(p.numel() for p in self.net_.parameters() if p.requires_grad)


class Logit(nn.Sequential):
    """A sequence of layers whose last one has width 1, returned as (n,)."""

    def forward(self, X: Tensor) -> Tensor:
        """Logits (n,) of X (n, genes)."""
        return super().forward(X).squeeze(1)
