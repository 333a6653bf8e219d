"""CNN over the vector of genes, and the control that shuffles the order of genes."""

from __future__ import annotations

import numpy as np
from torch import nn

from atsdp_utils.baselines._torch import Logit, TorchBaseline


class CNN(TorchBaseline):
    """Convolutional network in 1-D.

    Original: image classifiers; the paper "reshapes the gene expression matrix into 1D vectors" and adds "fully
    connected layers". It gives no sizes.

    Deviations: two convolutions (kernel 9, strides 4 and 2) with max-pooling and one hidden layer of 32 units,
    so that a step on 32 cells x 1,000 genes takes about 5 ms. The last map is flattened, not averaged: an average
    over positions could not tell one gene from another. The order of genes means nothing to a convolution
    except by accident; :class:`ShuffledGenes` is the control.
    """

    def __init__(self, *, seed: int = 0, channels: int = 16, dropout: float = 0.3, **loop):
        super().__init__(seed=seed, **loop)
        self.channels, self.dropout = channels, dropout

    def _build(self, X, y, source):
        c = self.channels
        return Logit(
            nn.Unflatten(1, (1, X.shape[1])),
            nn.Conv1d(1, c, 9, stride=4, padding=4), nn.ReLU(), nn.MaxPool1d(2, ceil_mode=True),
            nn.Conv1d(c, 2 * c, 9, stride=2, padding=4), nn.ReLU(), nn.AdaptiveMaxPool1d(32),
            nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(64 * c, 32), nn.ReLU(), nn.Linear(32, 1),
        )  # fmt: skip


class ShuffledGenes:
    """Gene-order control: any baseline, trained and scored on genes in one fixed random order.

    If the order of genes carried information that the convolutions use, this would score lower.

    Parameters
    ----------
    of
        Name of the baseline in the registry.
    order
        Seed of the order; the same for all folds and seeds.
    """

    def __init__(self, *, of: str, seed: int = 0, order: int = 20250, **hyperparameters) -> None:
        from atsdp_utils.baselines import REGISTRY

        self.order = order
        self.model = REGISTRY[of].make(seed=seed, **hyperparameters)

    def shuffle(self, X: np.ndarray) -> np.ndarray:
        """Columns of X in the fixed random order."""
        return X[:, np.random.default_rng(self.order).permutation(X.shape[1])]

    def fit(self, X, y, *, weight=None, source=None):
        """Train the inner model on shuffled columns (it must not use `source`, whose genes keep their order)."""
        self.model.fit(self.shuffle(X), y, weight=weight)
        return self

    def predict_proba(self, X) -> np.ndarray:
        """P(sensitive), (n,)."""
        return self.model.predict_proba(self.shuffle(X))

    @property
    def n_parameters(self) -> int:
        """Trainable parameters of the inner model."""
        return self.model.n_parameters
