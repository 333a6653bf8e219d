"""ATSDP-NET with the interface of the baselines: one method a protocol."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation import runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import loop, stages
from atsdp_utils.models.network import ATSDPNet, n_parameters

#: Added to a seed for the autoencoder of the cells alone, so that its first weights are not those of E_g.
OWN_START = 10_000


class ATSDP:
    """ATSDP-NET with the interface of the baselines.

    Without `pretrained` the network starts from random weights and uses no bulk. With `own_start` E_t comes from an
    autoencoder of the cells alone, on the shared genes or on genes of their own; its sign is arbitrary.
    `weights_seed` draws the first weights of a pre-trained network and trains its autoencoder, `seed` does the
    rest, and that too by default.
    """

    def __init__(
        self, *, seed: int = 0, arch: Architecture | None = None, cfg: Training | None = None,
        pretrained: bool = True, own_start: bool = False, weights_seed: int | None = None,
    ) -> None:  # fmt: skip
        self.seed, self.pretrained, self.own_start = seed, pretrained, own_start
        self.weights_seed = seed if weights_seed is None else weights_seed
        self.arch, self.cfg = arch or Architecture(), cfg or Training()

    def fit_bulk(self, source: Source | None) -> ATSDP:
        """Protocols B, and U before transfer: the bulk stage alone (:func:`stages.pretrain`).

        Parameters
        ----------
        source : Source
            Lines, of which the training lines are learned from and the others are not read.

        Raises
        ------
        ValueError
            If `source` is None.
        """
        if source is None:
            raise ValueError("source: got None, expected bulk rows (or pretrained=False)")
        found = stages.pretrain(source, self.arch, self.cfg, self.weights_seed, batch_seed=self.seed)
        self.net_, self.history_ = found.net, []
        return self

    def fit(self, X, y, *, balance: str = "none", source: Source | None = None) -> ATSDP:
        """Protocol S: fine-tune on labelled training cells (:func:`stages.fine_tune`).

        Parameters
        ----------
        X, y : (n, genes) and (n,)
            Training cells, standardised on these rows, and their labels: 0 resistant, 1 sensitive.
        balance : str
            Strategy of :func:`preprocess.balance` for the cells that are not held out to decide when to stop.
        source : Source, optional
            Lines on the same genes; a network that is not `pretrained` ignores them.

        Raises
        ------
        ValueError
            If the network is `pretrained` and `source` is None.
        """
        if self.pretrained:
            net = self.fit_bulk(source).net_
        else:
            torch.manual_seed(self.seed)
            net, source = ATSDPNet(X.shape[1], self.arch).to(runtime.device()), None
        self.net_, self.history_ = stages.fine_tune(net, X, y, self.cfg, self.seed, balance=balance, source=source)
        return self

    def fit_transfer(self, X, source: Source, *, keep: bool = False) -> ATSDP:
        """Protocol U: the bulk stage, then transfer to unlabelled cells (:func:`stages.transfer`).

        Parameters
        ----------
        X : (cells, genes)
            Cells, standardised on themselves, on the genes of `source`; with `own_start` also on other genes.
        source : Source
            Lines, of which the training lines are learned from and the others are not read.
        keep : bool
            As in :func:`stages.transfer`.
        """
        net, cfg = self.fit_bulk(source).net_, self.cfg
        if self.own_start:
            of_cells = replace(cfg, batch_size=loop.batch_size(len(X), cfg.batch_size))  # as stage 2 has it
            own = stages.pretrain_autoencoder(X, self.arch, of_cells, OWN_START + self.weights_seed)[0]
            net.target = own.encoder
            cfg = replace(cfg, epochs_cells=0)  # stage 2 is done, from its own start
        self.net_, self.history_ = stages.transfer(net, source, X, cfg, self.seed, keep=keep)
        return self

    def fit_few(self, X_all, X, y, *, source: Source) -> ATSDP:
        """Protocol F: transfer to all cells without labels, then a fixed number of epochs on a few labelled ones.

        Parameters
        ----------
        X_all : (cells, genes)
            All cells, standardised on themselves. The network after transfer is stored on disk.
        X, y : (k, genes) and (k,)
            The labelled cells among them, on the same scale, and their labels: 0 resistant, 1 sensitive.
        source : Source
            As in :meth:`fit_transfer`; its labelled training lines take part in both steps.
        """
        net, cfg = self.fit_transfer(X_all, source, keep=True).net_, replace(self.cfg, theta=0.0)
        self.net_, self.history_ = stages.fine_tune(net, X, y, cfg, self.seed, source=source, validation=False)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive), (n,) float64, of cells X (n, genes) that are standardised as in training, by E_t and P."""
        return stages.predict(self.net_, X)

    @property
    def n_parameters(self) -> int:
        """Trainable parameters of E_t and P."""
        return n_parameters(self.net_.target, self.net_.predictor)


class FurtherSteps(ATSDP):
    """The control of transfer: as many steps on bulk, nothing of the cells (:func:`stages.further_steps`)."""

    def fit_transfer(self, X, source: Source, *, keep: bool = False) -> ATSDP:
        """As that of ATSDP-NET, but nothing is learned from X, and `keep` has no effect: the result is never stored."""
        net = self.fit_bulk(source).net_
        self.net_, self.history_ = stages.further_steps(net, source, X, self.cfg, self.seed)
        return self
