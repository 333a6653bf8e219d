"""What the torch baselines share: settings of a training, rows held out for early stopping, one seed, one thread."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from atsdp_utils.baselines.rows import Split, check_rows, split
from atsdp_utils.data import preprocess
from atsdp_utils.data.preprocess import Source
from atsdp_utils.models import loop


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


class Minibatches(loop.Stage):
    """`loss` of shuffled minibatches; an epoch of the loop are the steps between two checks on the held-out rows."""

    better = 0.0

    def __init__(
        self, cfg: TorchBaseline, n: int, loss: Callable[[Tensor], Tensor], held: Callable[[], Tensor] | None
    ) -> None:
        super().__init__(cfg)
        self.loss, self.held = loss, held
        size = min(cfg.batch_size, n)
        passes = math.ceil(cfg.steps * size / n)
        batches = torch.cat([torch.randperm(n) for _ in range(passes)]).split(size)[: cfg.steps]
        self.checks, self.batches = math.ceil(len(batches) / cfg.check_every), iter(batches)

    @property
    def epochs(self) -> int:
        return self.checks

    def epoch(self, net: nn.Module) -> Iterator[loop.Step]:
        for batch in itertools.islice(self.batches, self.cfg.check_every):
            yield self.loss(batch), {}

    def validate(self, net: nn.Module) -> Tensor | None:
        return self.held() if self.held else None


@dataclass(kw_only=True)
class TorchBaseline:
    """fit and predict_proba around a network from (n, genes) to logits (n,), which `_build` of a subclass makes.

    Steps, not epochs, are the unit of a training, so that it costs the same for 20 and 1,400 cells. Every
    `check_every` steps the inner validation rows are asked; `patience` checks without a better loss end the training.
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    check_every: int = 10
    patience: int = 4
    validation: float = 0.15

    def _build(self, rows: Split, source: Source | None) -> nn.Module:
        """The network; what it is made from are training rows that are not held out."""
        raise NotImplementedError

    def _loss(self, X: Tensor, y: Tensor, weight: Tensor, batch: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(self.net_(X[batch]), y[batch], weight[batch])

    def fit(self, X, y, *, balance="none", source=None):
        return self._learn(split(*check_rows(X, y), balance, self.validation, self.seed), source)

    def _learn(self, rows: Split, source: Source | None = None):
        X, y, weight = torch.from_numpy(rows.X), torch.from_numpy(rows.y).float(), torch.from_numpy(rows.weight)
        with reproducible(self.seed):
            self.net_ = self._build(rows, source)
            held = self._held_loss(rows) if len(rows.held) else None
            stage = Minibatches(self, len(X), lambda batch: self._loss(X, y, weight, batch), held)
            self.history_ = loop.fit(self.net_, stage)
        return self

    def _held_loss(self, rows: Split) -> Callable[[], Tensor]:
        """Cross-entropy of the held rows, both classes weighing the same, as ATSDP-NET stops by."""
        _, y, weight = preprocess.balance(rows.held, rows.y_held, "class_weight", self.seed)
        X, y = torch.from_numpy(rows.held), torch.from_numpy(y).float()
        weight = None if weight is None else torch.from_numpy(weight)
        return lambda: binary_cross_entropy_with_logits(self._held_logit(X), y, weight)

    def _held_logit(self, X: Tensor) -> Tensor:
        return self._logit(X)

    def predict_proba(self, X) -> np.ndarray:
        with reproducible(self.seed), torch.inference_mode():
            logit = self._logit(torch.as_tensor(np.asarray(X, np.float32)))
            return torch.sigmoid(logit).double().numpy()

    def _logit(self, X: Tensor) -> Tensor:
        return torch.cat([self.net_(part) for part in X.split(256)])

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.net_.parameters() if p.requires_grad)


class Logit(nn.Sequential):
    """A sequence of layers whose last one has width 1, returned as (n,)."""

    def forward(self, X: Tensor) -> Tensor:
        return super().forward(X).squeeze(1)
