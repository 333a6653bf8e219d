"""DeepDR (expression-only adaptation)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from atsdp_utils.baselines._torch import Logit, TorchBaseline, pretrain_autoencoder


def dense(*widths: int) -> list[nn.Module]:
    """Linear–ReLU layers of these widths."""
    return [m for a, b in zip(widths, widths[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())]


class DeepDR(TorchBaseline):
    """Expression branch of DeepDR: an encoder pre-trained as an autoencoder on bulk, then a dense predictor.

    Original: Chiu et al., BMC Med Genomics 2019: autoencoders of mutations and of expression (1024–256–64)
    pre-trained on 9,059 TCGA tumours; both codes feed three layers of 128 units that predict ln IC50 of 265 drugs.

    Deviations: no mutations are measured in these cells, so only the expression branch; pre-training on the bulk
    training lines of `source` (on the training rows where there is none); encoder 256–64, since the input
    has about 1,000 genes, not 15,363; one output, the class of one drug; drop-out before the predictor.
    """

    def __init__(self, *, seed: int = 0, encoder: tuple = (256, 64), predictor: int = 128, dropout=0.2, **loop):
        super().__init__(seed=seed, **loop)
        self.encoder, self.predictor, self.dropout = tuple(encoder), predictor, dropout

    def _build(self, X, y, source):
        bulk = X if source is None else torch.from_numpy(np.asarray(source.X[source.train], np.float32))
        if bulk.shape[1] != X.shape[1]:
            raise ValueError(f"source.X: got {bulk.shape[1]} genes, expected the {X.shape[1]} columns of X")
        widths = (X.shape[1], *self.encoder)
        encoder = nn.Sequential(*dense(*widths))
        decoder = nn.Sequential(*dense(*widths[:0:-1]), nn.Linear(widths[1], widths[0]))
        pretrain_autoencoder(encoder, decoder, bulk, self.loop, seed=self.seed)
        p = self.predictor
        return Logit(encoder, nn.Dropout(self.dropout), *dense(widths[-1], p, p, p), nn.Linear(p, 1))
