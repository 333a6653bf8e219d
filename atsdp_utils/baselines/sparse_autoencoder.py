"""SA: sparse autoencoder with a classification layer."""

from __future__ import annotations

from torch import nn

from atsdp_utils.baselines._torch import Logit, TorchBaseline, pretrain_autoencoder


class SparseAutoencoder(TorchBaseline):
    """Sparse autoencoder + classifier.

    Original: a deep sparse autoencoder for drug repositioning (Lei et al., Interdiscip Sci 2024, the paper's
    reference 30). The paper: "extract sparse representations of the gene expression data, which were then passed
    through a classification layer"; "all baseline models were fine-tuned".

    Deviations: one hidden layer of `hidden` units; sparsity is an L1 penalty on ReLU activations (the original
    penalises the KL divergence from a target activation, which needs sigmoid units and many more epochs); the
    autoencoder sees the training rows only, then encoder and classification layer are fine-tuned together.
    """

    def __init__(self, *, seed: int = 0, hidden: int = 64, sparsity: float = 0.05, dropout: float = 0.2, **loop):
        super().__init__(seed=seed, **loop)
        self.hidden, self.sparsity, self.dropout = hidden, sparsity, dropout

    def _build(self, X, y, source):
        encoder = nn.Sequential(nn.Linear(X.shape[1], self.hidden), nn.ReLU())
        decoder = nn.Linear(self.hidden, X.shape[1])
        pretrain_autoencoder(encoder, decoder, X, self.loop, sparsity=self.sparsity, seed=self.seed)
        return Logit(encoder, nn.Dropout(self.dropout), nn.Linear(self.hidden, 1))
