"""What the torch baselines share: settings of a training, rows held out for early stopping, one seed, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from atsdp_utils.baselines.rows import Split, check_rows, split
from atsdp_utils.data.preprocess import Source
from atsdp_utils.models import loop
from atsdp_utils.models.stopping import misranked_first


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
    """`loss` of shuffled minibatches of `n` rows, as many an epoch as fine-tuning of ATSDP-NET takes."""

    better = 0.0

    def __init__(
        self,
        cfg: TorchBaseline,
        epochs: int,
        n: int,
        loss: Callable[[Tensor], Tensor],
        held: Callable[[], Tensor] | None,
    ) -> None:
        super().__init__(cfg)
        self.length_, self.loss, self.held = epochs, loss, held
        self.rows = loop.Rows(torch.arange(n))

    @property
    def epochs(self) -> int:
        return self.length_

    def epoch(self, net: nn.Module) -> Iterator[loop.Step]:
        for batch in self.rows.batches(loop.batch_size(len(self.rows), self.cfg.batch_size)):
            yield self.loss(batch), {}

    def validate(self, net: nn.Module) -> Tensor | None:
        return self.held() if self.held else None


@dataclass(kw_only=True)
class TorchBaseline:
    """fit and predict_proba around a network from (n, genes) to logits (n,), which `_build` of a subclass makes.

    It is trained by the rule of ATSDP-NET: as many epochs, batches of the same size, the same share of rows held out,
    the weights of the epoch that ranks them best, and the same patience. The defaults are those of ``quick``, but for
    the learning rate, which each model has in the registry.
    """

    seed: int = 0
    epochs: int = 20
    #: Epochs of an autoencoder, where a model has one.
    pretraining: int = 40
    patience: int = 4
    batch_size: int = 128
    validation: float = 0.15
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2

    def _build(self, rows: Split, source: Source | None) -> nn.Module:
        """The network; what it is made from are training rows that are not held out."""
        raise NotImplementedError

    def _loss(self, X: Tensor, y: Tensor, weight: Tensor, batch: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(self.net_(X[batch]), y[batch], weight[batch])

    def fit(self, X, y, *, balance="none", source=None):
        """Train on labelled rows, of which the share `validation` is held out to choose the epoch.

        Parameters
        ----------
        X, y : (n, genes) and (n,)
            Training rows, standardised by gene, and their labels: 0 resistant, 1 sensitive.
        balance : str
            Strategy of :func:`preprocess.balance` for the rows that are not held out.
        source : Source, optional
            Bulk rows on the same genes, for models that read them.

        Raises
        ------
        ValueError
            If shapes do not fit, a value is not finite, or the labels are not both 0 and 1.
        """
        return self._learn(split(*check_rows(X, y), balance, self.validation, self.seed), source)

    def _learn(self, rows: Split, source: Source | None = None):
        X, y, weight = torch.from_numpy(rows.X), torch.from_numpy(rows.y).float(), torch.from_numpy(rows.weight)
        with reproducible(self.seed):
            self.net_ = self._build(rows, source)
            held = self._held_rows(rows) if len(rows.held) else None
            stage = Minibatches(self, self.epochs, len(X), lambda batch: self._loss(X, y, weight, batch), held)
            self.history_ = loop.fit(self.net_, stage)
        return self

    def _held_rows(self, rows: Split) -> Callable[[], Tensor]:
        """How the held rows are ranked, the rule by which fine-tuning of ATSDP-NET stops too."""
        X, y = torch.from_numpy(rows.held), torch.from_numpy(rows.y_held)

        def value() -> Tensor:
            logit = self._held_logit(X)
            return misranked_first(torch.stack([torch.zeros_like(logit), logit], dim=1), y)

        return value

    def _held_logit(self, X: Tensor) -> Tensor:
        return self._logit(X)

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,) float64, of rows X (n, genes) that are standardised as the training rows are."""
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
