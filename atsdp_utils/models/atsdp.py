"""ATSDP-NET with the interface of the baselines: one method a protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation import runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import stages
from atsdp_utils.models.network import ATSDPNet, n_parameters


class ATSDP:
    """ATSDP-NET with the interface of the baselines.

    Without `pretrained` the network starts from random weights and uses no bulk. With `own_genes` cells come on genes
    of their own, read by an E_t from an autoencoder of theirs: stage 2 taken literally, whose sign is arbitrary.
    """

    def __init__(
        self, *, seed: int = 0, arch: Architecture | None = None, cfg: Training | None = None,
        pretrained: bool = True, own_genes: bool = False,
    ) -> None:  # fmt: skip
        self.seed, self.pretrained, self.own_genes = seed, pretrained, own_genes
        self.arch, self.cfg = arch or Architecture(), cfg or Training()

    def fit_bulk(self, source: Source | None) -> ATSDP:
        """Protocols B, and U before transfer: the bulk stage alone."""
        if source is None:
            raise ValueError("source: got None, expected bulk rows (or pretrained=False)")
        self.net_, self.history_ = stages.pretrain(source, self.arch, self.cfg, self.seed).net, []
        return self

    def fit(self, X, y, *, balance: str = "none", source: Source | None = None) -> ATSDP:
        """Protocol S: fine-tune on labelled training cells; those that are not held out are balanced."""
        if self.pretrained:
            net = self.fit_bulk(source).net_
        else:
            torch.manual_seed(self.seed)
            net, source = ATSDPNet(X.shape[1], self.arch).to(runtime.device()), None
        self.net_, self.history_ = stages.fine_tune(net, X, y, self.cfg, self.seed, balance=balance, source=source)
        return self

    def fit_transfer(self, X, source: Source, *, keep: bool = False) -> ATSDP:
        """Protocol U: transfer to unlabelled cells; `keep` as in :func:`stages.transfer`."""
        net = self.fit_bulk(source).net_
        if self.own_genes:
            net.target = stages.pretrain_autoencoder(X, self.arch, self.cfg, self.seed)[0].encoder
        self.net_, self.history_ = stages.transfer(net, source, X, self.cfg, self.seed, keep=keep)
        return self

    def fit_few(self, X_all, X, y, *, source: Source) -> ATSDP:
        """Protocol F: transfer to all cells without labels, then a fixed number of epochs on a few labelled ones."""
        net, cfg = self.fit_transfer(X_all, source, keep=True).net_, replace(self.cfg, theta=0.0)
        self.net_, self.history_ = stages.fine_tune(net, X, y, cfg, self.seed, source=source, validation=False)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        return stages.predict(self.net_, X)

    @property
    def n_parameters(self) -> int:
        """Trainable parameters of E_t and P."""
        return n_parameters(self.net_.target, self.net_.predictor)
