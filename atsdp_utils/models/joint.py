"""Joint bulk stage: one trunk, 83 drugs, each line's known labels (the paper's future work)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.data.preprocess import Source
from atsdp_utils.foundation import paths, runtime
from atsdp_utils.foundation.config import Architecture, Training
from atsdp_utils.models import train
from atsdp_utils.models.loop import Rows, fit, tensor
from atsdp_utils.models.model import ATSDPNet


def joint_labels(source: Source) -> tuple[np.ndarray, int]:
    """Labels of all drugs, (lines, drugs), and the column of the drug at hand (added where the table lacks it)."""
    if source.others is None:
        return source.y[:, None], 0
    same = np.flatnonzero((source.others == source.y[:, None]).all(0))
    if len(same):
        return source.others, int(same[0])
    return np.column_stack([source.y, source.others]), 0


def joint_stage(source: Source, arch: Architecture, cfg: Training, seed: int, autoencoder_seed: int) -> ATSDPNet:
    """Bulk stage over all drugs: one trunk, one logit a drug; the drug's own logit becomes the two of the network.

    The class loss is a binary cross-entropy over the labels there are, both classes of every drug weighing the same.
    It does not depend on the drug, so one cached training serves all of them.
    """
    labels, drug = joint_labels(source)
    rows = np.flatnonzero(source.train & (labels >= 0).any(1))
    dae, _, key = train.pretrained_autoencoder(source, arch, cfg, autoencoder_seed)
    torch.manual_seed(seed)
    net = ATSDPNet(source.X.shape[1], arch, dae.encoder).to(runtime.device())
    last = net.predictor.mlp[-1]
    net.predictor.mlp[-1] = nn.Linear(last.in_features, labels.shape[1]).to(runtime.device())
    parts = key, labels[source.train], asdict(arch), asdict(train._bulk_only(cfg)), seed
    path = paths.PRETRAINED / f"joint-{train._key('models.joint.joint_stage', *parts)}.pt"
    state = train._load(path)
    if state is None:
        _fit_joint(net, source.X[rows], labels[rows], cfg, seed)
        state = {"weights": net.state_dict()}
        train._save(path, state)
    net.load_state_dict(state["weights"])
    heads, two = net.predictor.mlp[-1], nn.Linear(last.in_features, 2).to(runtime.device())
    with torch.no_grad():  # softmax over (-z/2, z/2) is the sigmoid of z
        two.weight.copy_(torch.stack([-heads.weight[drug], heads.weight[drug]]) / 2)
        two.bias.copy_(torch.stack([-heads.bias[drug], heads.bias[drug]]) / 2)
    net.predictor.mlp[-1] = two
    return net.eval()


@dataclass
class JointClassification(train.Classification):
    """Lines with the labels of all drugs, (lines, drugs), and their weights (0 without a label)."""

    weight_held: Tensor

    def loss(self, logits: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """Binary cross-entropy over the labels there are."""
        per_label = nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return (per_label * weight).sum() / weight.sum().clamp_min(1)

    def validate(self, net: ATSDPNet) -> Tensor:
        """The same loss on held lines."""
        return self.loss(net(self.x_held, "source"), self.y_held, self.weight_held)


def _fit_joint(net: ATSDPNet, X: np.ndarray, labels: np.ndarray, cfg: Training, seed: int) -> None:
    """Train all heads on labels (lines, drugs) with -1 for none; a part of the lines watches for early stopping."""
    keep, held = train._split(len(X), cfg.validation, seed)
    counts = np.stack([(labels[keep] == c).sum(0) for c in (0, 1)])  # (2, drugs)
    of_class = counts.sum(0) / (2 * np.maximum(counts, 1))
    weight = np.where(labels == 1, of_class[1], of_class[0]) * (labels >= 0)
    values = [tensor(v) for v in (X, labels == 1, weight)]
    fit(net, JointClassification(cfg, Rows(*(v[keep] for v in values)), *(v[held] for v in values)))
    net.target.load_state_dict(net.source.state_dict())
