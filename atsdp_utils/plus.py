"""ATSDP-NET+: an ensemble of networks for cells without labels, with calibration and conformal sets from bulk lines.

How its recipe is chosen (written before any score on a real single-cell set was computed)
------------------------------------------------------------------------------------------
1. Candidates are the rows of :data:`atsdp_utils.config.RECIPES`, simplest first. Nothing else is eligible.
2. Evidence is bulk and simulation only (:mod:`atsdp_utils.pseudo`): (a) *lines*: an expression cluster of cell lines
   held out as an unlabelled target domain with a standardisation of its own; (b) *pseudo-cells*: the same lines turned
   into sparse counts; (c) *twins*: the four simulated sets, drawn with a seed that is used nowhere else. No label of a
   real single-cell set is read, and no real cell either.
3. The score of a candidate is the mean AUC over the tasks of each kind, averaged over the three kinds.
4. The candidate with the highest score wins; candidates within one standard error (of the paired difference to it, over
   tasks, kinds weighted alike) count as tied, and of the tied ones the first, the simplest, is taken.
5. The real sets are scored once with the winner. Whatever comes out is reported, and the recipe is not chosen again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from . import preprocess, train
from .config import CHOSEN, RECIPES, Architecture, Training
from .model import ATSDPNet

#: Members of a seed have seeds seed * SEED_STRIDE + i: ensembles of different seeds share no member.
SEED_STRIDE = 1000


def ranks(X: np.ndarray) -> np.ndarray:
    """Ranks of the genes within each row of X (n, genes), scaled to [-0.5, 0.5]; ties share their mean rank."""
    from scipy.stats import rankdata

    return ((rankdata(X, axis=1) - 1) / max(1, X.shape[1] - 1) - 0.5).astype(np.float32)


def mmd(net: ATSDPNet, source: preprocess.Source, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """Equation 16 as it stands."""
    return train.transfer(net, source, X, cfg, seed)[0]


@torch.no_grad()
def adabn(net: ATSDPNet, source: preprocess.Source, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """Replace the batch-norm statistics of E_t by those of the cells; no weight is changed."""
    net = copy.deepcopy(net).eval()
    layers = [m for m in net.target if isinstance(m, nn.BatchNorm1d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean: one pass over all cells gives their exact statistics
        layer.train()
    net.target(train._tensor(X))
    return net.eval()


ALIGNMENTS: dict[str, Callable] = {"mmd": mmd, "adabn": adabn}


class ATSDPPlus:
    """ATSDP-NET+ with the interface of ATSDP-NET under protocols U and F.

    Parameters
    ----------
    seed
        Seed of the ensemble; member i has the seed ``seed * 1000 + i``.
    members
        Networks; None: as many as the recipe says.
    recipe
        A key of :data:`atsdp_utils.config.RECIPES`.
    arch, cfg
        Sizes and training settings.
    """

    def __init__(
        self, *, seed: int = 0, members: int | None = None, recipe: str = CHOSEN,
        arch: Architecture | None = None, cfg: Training | None = None,
    ) -> None:  # fmt: skip
        if recipe not in RECIPES:
            raise ValueError(f"recipe: got {recipe!r}, expected one of {', '.join(RECIPES)}")
        self.seed, self.recipe = seed, RECIPES[recipe]
        self.members = members or self.recipe.members
        self.arch, self.cfg = arch or Architecture(), cfg or Training()

    def fit_transfer(self, X: np.ndarray, source: preprocess.Source) -> ATSDPPlus:
        """Learn from labelled lines and unlabelled cells.

        Parameters
        ----------
        X
            (cells, genes) float32, standardised on the cells themselves, on the genes of `source`.
        source
            Bulk rows with the labels of one drug.
        """
        self.nets_ = []
        for i in range(self.members):
            seed = self.seed * SEED_STRIDE + i
            net = train.pretrain(source, self.arch, self.cfg, seed).net
            self.nets_.append(ALIGNMENTS[self.recipe.align](net, source, X, self.cfg, seed))
        return self

    def member_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive) by each member, (members, n), of standardised cells."""
        return np.stack([train.predict(net, X) for net in self.nets_])

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive), (n,): the members' logits are averaged."""
        p = np.clip(self.member_proba(X), 1e-9, 1 - 1e-9)
        return 1 / (1 + np.exp(-np.log(p / (1 - p)).mean(0)))
