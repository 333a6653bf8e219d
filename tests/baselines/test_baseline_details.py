"""Which rows and genes a baseline looks at, and that its seed reaches its weights."""

import numpy as np
import pytest
import torch

from atsdp_utils.baselines.graph import cell_graph
from atsdp_utils.baselines.networks import SparseAutoencoder, Transformer
from atsdp_utils.baselines.wrapper import reproducible


def test_a_new_cell_receives_from_the_training_cells_that_it_resembles():
    rng = np.random.default_rng(0)
    train = torch.tensor(rng.normal(size=(20, 30)), dtype=torch.float32)
    like = torch.tensor([3, 11, 17])
    new = train[like] + 0.05 * torch.randn(3, 30, generator=torch.Generator().manual_seed(0))
    to, source = cell_graph(train, new, neighbours=1).edges
    for i, j in enumerate(like.tolist()):
        assert set(source[to == 20 + i].tolist()) == {j, 20 + i}


@pytest.mark.slow
def test_the_transformer_reads_the_genes_that_separate_the_classes():
    rng = np.random.default_rng(1)
    y = np.tile([0, 1], 30)
    X = rng.normal(size=(60, 25)).astype(np.float32)
    X[:, [2, 9, 20]] += 3 * y[:, None]
    fitted = Transformer(tokens=3, dim=4, heads=2, epochs=2).fit(X, y)
    assert fitted.net_.genes.tolist() == [2, 9, 20]


@pytest.mark.slow
def test_another_seed_gives_another_network():
    rng = np.random.default_rng(2)
    X, y = rng.normal(size=(40, 12)).astype(np.float32), np.tile([0, 1], 20)
    p = [SparseAutoencoder(seed=seed, hidden=8, epochs=4).fit(X, y).predict_proba(X) for seed in (0, 0)]
    assert (p[0] == p[1]).all()
    drawn = []
    for seed in (0, 0, 5):
        with reproducible(seed):
            drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[1] != drawn[2]
