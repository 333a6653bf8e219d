"""ATSDP-NET+: an ensemble for cells without labels, with calibration and conformal sets from bulk lines."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from atsdp_utils.data import preprocess
from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation.config import CHOSEN, RECIPES, Architecture, Training
from atsdp_utils.models import stages
from atsdp_utils.models.calibration import Calibration
from atsdp_utils.models.joint import joint_stage
from atsdp_utils.models.loop import tensor
from atsdp_utils.models.network import ATSDPNet, n_parameters

#: Members of a seed have seeds seed * SEED_STRIDE + i: ensembles of different seeds share no member.
SEED_STRIDE = 1000
#: Strength of the linear path, that of the simple reference.
LINEAR_C = 1e-3
#: With this many labelled cells a class, few-shot labels and transfer weigh the same (fixed beforehand, not tuned).
FEW_HALF = 5


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, finite."""
    p = np.clip(p, 1e-9, 1 - 1e-9)
    return np.log(p) - np.log1p(-p)


def expit(z: np.ndarray) -> np.ndarray:
    """Probabilities of log odds."""
    return 1 / (1 + np.exp(-np.clip(z, -30, 30)))


def ranks(X: np.ndarray) -> np.ndarray:
    """Normal scores of the genes' ranks within each row of X (n, genes), float32; ties share their mean rank."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return ndtri((rankdata(X, axis=1) - 0.5) / X.shape[1]).astype(np.float32)


def mmd(net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """Equation 16 as it stands."""
    return stages.transfer(net, source, X, cfg, seed)[0]


@torch.no_grad()
def adabn(net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """Replace the batch-norm statistics of E_t by those of the cells; no weight is changed."""
    net = copy.deepcopy(net).eval()
    for layer in (m for m in net.target if isinstance(m, nn.BatchNorm1d)):
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative mean: one pass over all cells gives their exact statistics
        layer.train()
    net.target(tensor(X))
    return net.eval()


def balanced(net: ATSDPNet, source: Source, X: np.ndarray, cfg: Training, seed: int) -> ATSDPNet:
    """Equation 16 on cells balanced by predicted class, as the lines are balanced by label: equal mixes are aligned."""
    called = (stages.predict(adabn(net, source, X, cfg, seed), X) >= 0.5).astype(np.int8)
    cells, _, _ = preprocess.balance(X, called, "oversampling", seed)
    return stages.transfer(net, source, cells, cfg, seed)[0]


ALIGNMENTS: dict[str, Callable] = {"mmd": mmd, "adabn": adabn, "balanced": balanced}


class ATSDPPlus:
    """ATSDP-NET+ with the interface of ATSDP-NET under protocol U, and with calibrated outputs.

    Member i has the seed ``seed * 1000 + i``; all share one autoencoder. `recipe` is a key of ``config.RECIPES``, which
    says how many members there are unless `members` does.
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

    def fit_transfer(self, X: np.ndarray, source: Source) -> ATSDPPlus:
        """Learn from labelled lines and unlabelled cells, then calibrate on the held-out lines of `source`, if any.

        Parameters
        ----------
        X : (cells, genes) float32
            Cells, standardised on themselves, on the genes of `source`.
        source : Source
            Lines. The held-out ones take part in no training; those with a label calibrate, if both classes are there.
        """
        source = replace(source, X=self._features(source.X))
        X = self._features(X)
        self.nets_ = self.networks(X, source)
        self.linear_ = None
        if self.recipe.linear:
            self.linear_ = logistic().fit(source.X[source.fit_rows], source.y[source.fit_rows])
            self.scale_ = _spread(self._networks(X).mean(0)) / _spread(self.linear_.decision_function(X))
        held, self.held_, self._calibration = source.test_rows, {}, None
        if len(set(source.y[held].tolist())) == 2:
            self.held_ = {"line_z": self._logits(source.X[held], "source").mean(0), "line_y": source.y[held]}
            self._calibration = Calibration(*self.held_.values())
        return self

    def networks(self, X: np.ndarray, source: Source) -> list[ATSDPNet]:
        return [self.network(i, X, source) for i in range(self.members)]

    def network(self, i: int, X: np.ndarray, source: Source) -> ATSDPNet:
        """Member i after the bulk stage and the alignment to the cells X."""
        seed = self.seed * SEED_STRIDE + i
        if self.recipe.joint:
            net = joint_stage(source, self.arch, self.cfg, seed, self.seed)
        else:
            net = stages.pretrain(source, self.arch, self.cfg, seed, autoencoder_seed=self.seed).net
        return ALIGNMENTS[self.recipe.align](net, source, X, self.cfg, seed)

    def member_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive) by each member, (members, n), of standardised cells (n, genes)."""
        return expit(self._logits(self._features(X), "target"))

    def logits(self, X: np.ndarray) -> np.ndarray:
        """Mean logit of the members, (n,), of standardised cells (n, genes)."""
        return self._logits(self._features(X), "target").mean(0)

    def line_logits(self, X: np.ndarray) -> np.ndarray:
        """The same of lines on the scale of the source, by E_g."""
        return self._logits(self._features(X), "source").mean(0)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """P(sensitive), (n,), of standardised cells (n, genes): sigmoid of the mean logit, not calibrated.

        At 0.5 both classes of the lines weigh the same.
        """
        return expit(self.logits(X))

    @property
    def calibration_(self) -> Calibration:
        if self._calibration is None:
            raise ValueError("source: its held-out lines (train=False) lack a class; nothing to calibrate on")
        return self._calibration

    @property
    def n_parameters(self) -> int:
        return sum(n_parameters(net.target, net.predictor) for net in self.nets_)

    def _features(self, X: np.ndarray) -> np.ndarray:
        return ranks(X) if self.recipe.rank else X

    def _networks(self, X: np.ndarray, domain: str = "target") -> np.ndarray:
        return np.stack([logit(stages.predict(net, X, domain)) for net in self.nets_])

    def _logits(self, X: np.ndarray, domain: str) -> np.ndarray:
        z = self._networks(X, domain)
        if self.linear_ is not None:
            path = self.scale_ * self.linear_.decision_function(X)
            z = (1 - self.recipe.linear) * z + self.recipe.linear * path
        return z


class FewLabels:
    """A logistic regression on k labelled cells a class that joins a logit with a share of k / (k + 5).

    k counts cells of the rarer class. On all cells, with logits `zero` (n,) and features `X_all` (n, genes), both parts
    are brought to one spread.
    """

    def __init__(self, zero: np.ndarray, X_all: np.ndarray, X: np.ndarray, y: np.ndarray) -> None:
        k = int(np.bincount(y, minlength=2).min())
        self.few_, self.share_ = logistic().fit(X, y), k / (k + FEW_HALF)
        self.scale_ = _spread(zero) / _spread(self.few_.decision_function(X_all))

    def join(self, z: np.ndarray, X: np.ndarray) -> np.ndarray:
        """Logits of both together, (n,); z is (n,), X (n, genes)."""
        return (1 - self.share_) * z + self.share_ * self.scale_ * self.few_.decision_function(X)


def logistic():
    """The simple reference."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=LINEAR_C, class_weight="balanced", max_iter=2000)


def _spread(z: np.ndarray) -> float:
    return max(float(z.std()), 1e-9)
