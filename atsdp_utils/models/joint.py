"""Joint bulk stage: one trunk, 83 drugs, each line's known labels (the paper's future work)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation import runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import stages
from atsdp_utils.models.loop import History, Rows, fit, tensor
from atsdp_utils.models.network import ATSDPNet
from atsdp_utils.models.stopping import STOPPING


def joint_labels(source: Source) -> tuple[np.ndarray, int]:
    """Labels of all drugs, (lines, drugs), and the column of the drug at hand (added where the table lacks it)."""
    if source.others is None:
        return source.y[:, None], 0
    same = np.flatnonzero((source.others == source.y[:, None]).all(0))
    if len(same):
        return source.others, int(same[0])
    return np.column_stack([source.y, source.others]), 0


@dataclass
class JointClassification(stages.Classification):
    """Lines with the labels of all drugs, (lines, drugs), and their weights (0 without a label)."""

    weight_held: Tensor

    @classmethod
    def of(cls, X: np.ndarray, labels: np.ndarray, cfg: Training, seed: int) -> JointClassification:
        """Labels are -1 where there is none; both classes of every drug weigh the same."""
        keep, held = stages.hold_out(len(X), cfg.validation, seed)
        counts = np.stack([(labels[keep] == c).sum(0) for c in (0, 1)])  # (2, drugs)
        of_class = counts.sum(0) / (2 * np.maximum(counts, 1))
        weight = np.where(labels == 1, of_class[1], of_class[0]) * (labels >= 0)
        values = [tensor(v) for v in (X, labels == 1, weight)]
        return cls(cfg, Rows(*(v[keep] for v in values)), *(v[held] for v in values))

    def loss(self, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        per_label = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return (per_label * weight).sum() / weight.sum().clamp_min(1)

    def watch(self, net: ATSDPNet) -> dict[str, Tensor]:
        return {}

    def validate(self, net: ATSDPNet) -> Tensor | None:
        """The rule of the bulk stage for each drug by itself, on its held-out lines; its mean over the drugs."""
        rule, z = STOPPING[self.cfg.stopping], net(self.x_held, "source")
        drugs = zip(torch.stack([-z, z], 2).unbind(1), self.y_held.long().T, (self.weight_held > 0).T, strict=True)
        return rule and torch.stack([rule(logits[rows], y[rows]) for logits, y, rows in drugs if rows.any()]).mean()


def joint_heads(
    source: Source, labels: np.ndarray, arch: Architecture, cfg: Training, seed: int, autoencoder_seed: int
) -> tuple[ATSDPNet, nn.Linear]:
    """Bulk stage over all drugs with `labels` (lines, drugs): a network of one logit a drug, and what gives it two.

    It does not depend on the drug, so one stored training serves all of them.
    """
    rows, cfg = np.flatnonzero(source.train & (labels >= 0).any(1)), cfg.bulk_only()
    dae, _ = stages.pretrain_autoencoder(source.X[source.train], arch, cfg, autoencoder_seed)
    torch.manual_seed(seed)
    net = ATSDPNet(source.X.shape[1], arch, dae)
    two = net.predictor.mlp[-1]
    net.predictor.mlp[-1] = nn.Linear(two.in_features, labels.shape[1])
    net.to(runtime.device())

    def train() -> History:
        history = fit(net, JointClassification.of(source.X[rows], labels[rows], cfg, seed))
        net.target.load_state_dict(net.source.state_dict())
        return history

    parts = source.X[source.train], labels[source.train], asdict(arch), asdict(cfg), seed, autoencoder_seed
    stages.stored(net, "joint", "models.joint.joint_heads", parts, train)
    return net, two


def joint_stage(source: Source, arch: Architecture, cfg: Training, seed: int, autoencoder_seed: int) -> ATSDPNet:
    """Bulk stage over all drugs, in which the logit of the drug at hand becomes the two of the network.

    Parameters
    ----------
    source : Source
        Lines with the labels of all drugs (``others``). Held-out lines take part in no training; their labels only help
        to find the column of the drug (:func:`joint_labels`).
    arch, cfg : Architecture, Training
        Sizes and settings.
    seed, autoencoder_seed : int
        The second draws the autoencoder, the first all else.

    Returns
    -------
    ATSDPNet
        With logits (n, 2), resistant first, and E_t a copy of E_g. The joint training is read from disk if it is there.
    """
    labels, drug = joint_labels(source)
    net, two = joint_heads(source, labels, arch, cfg, seed, autoencoder_seed)
    heads = net.predictor.mlp[-1]
    with torch.no_grad():  # softmax over (-z/2, z/2) is the sigmoid of z
        two.weight.copy_(torch.stack([-heads.weight[drug], heads.weight[drug]]) / 2)
        two.bias.copy_(torch.stack([-heads.bias[drug], heads.bias[drug]]) / 2)
    net.predictor.mlp[-1] = two.to(runtime.device())
    return net.eval()
