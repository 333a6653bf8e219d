"""What the torch baselines share: settings of a training, one inner validation split, one seed, one thread."""

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

from atsdp_utils.baselines.rows import check_rows, hold_out
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

    def __init__(self, cfg: TorchBaseline, loss: Callable[[Tensor], Tensor], rows: np.ndarray, held: np.ndarray):
        super().__init__(cfg)
        self.loss, rows, self.held = loss, torch.as_tensor(rows), torch.as_tensor(held)
        size = min(cfg.batch_size, len(rows))
        passes = math.ceil(cfg.steps * size / len(rows))
        batches = torch.cat([rows[torch.randperm(len(rows))] for _ in range(passes)]).split(size)[: cfg.steps]
        self.checks, self.batches = math.ceil(len(batches) / cfg.check_every), iter(batches)

    @property
    def epochs(self) -> int:
        return self.checks

    def epoch(self, net: nn.Module) -> Iterator[loop.Step]:
        for batch in itertools.islice(self.batches, self.cfg.check_every):
            yield self.loss(batch), {}

    def validate(self, net: nn.Module) -> Tensor | None:
        return self.loss(self.held) if len(self.held) else None


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

    def _loss(self, X: Tensor, y: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(self.net_(X[rows]), y[rows], weight[rows])

    def fit(self, X, y, *, weight=None, source=None):
        X, y, weight = check_rows(X, y, weight)
        return self._learn(torch.from_numpy(X), y, weight, source)

    def _learn(self, X: Tensor, labels: np.ndarray, weight: np.ndarray, source: object | None = None):
        """Train on the first rows of X, those with a label."""
        rows, held = hold_out(X[: len(labels)].numpy(), labels, self.validation, self.seed)
        y, weight = torch.from_numpy(labels).float(), torch.from_numpy(weight)
        with reproducible(self.seed):
            self.net_ = self._build(X, y, source)
            loop.fit(self.net_, Minibatches(self, lambda batch: self._loss(X, y, weight, batch), rows, held))
        return self

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
