"""MMD and regulariser against naive loops and closed forms."""

import math

import pytest
import torch

from atsdp_utils.models.losses import BANDWIDTHS, cluster_dissimilarity, mmd2
from tests.bench.plain import mmd2_by_autograd


def naive_mmd2(x, y, scale):
    def k(a, b):
        d = sum((ai - bi) ** 2 for ai, bi in zip(a, b, strict=True))
        return sum(math.exp(-d / (w * scale)) for w in BANDWIDTHS) / len(BANDWIDTHS)

    def mean(a, b):
        return sum(k(i, j) for i in a for j in b) / (len(a) * len(b))

    return mean(x, x) - 2 * mean(x, y) + mean(y, y)


def test_mmd_against_a_naive_loop():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 3, generator=g).double(), torch.randn(7, 3, generator=g).double() + 1
    assert mmd2(x, y, 2.5).item() == pytest.approx(naive_mmd2(x.tolist(), y.tolist(), 2.5), abs=1e-12)


def test_mmd_of_two_points_has_a_closed_form():
    x, y = torch.tensor([[0.0]]).double(), torch.tensor([[3.0]]).double()
    expected = 2 - 2 * sum(math.exp(-9 / (w * 4.0)) for w in BANDWIDTHS) / len(BANDWIDTHS)
    assert mmd2(x, y, 4.0).item() == pytest.approx(expected, abs=1e-12)


def test_mmd_is_zero_for_equal_samples_and_grows_with_the_shift():
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(1)).double()
    values = [mmd2(x, x + s, 4.0).item() for s in (0.0, 0.5, 1.0, 2.0)]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert values == sorted(values)


def test_mmd_default_scale_is_the_median_and_carries_no_gradient():
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    y = torch.randn(5, 2, generator=torch.Generator().manual_seed(3)).double()
    pooled = torch.cat([x.detach(), y])
    squared = torch.cdist(pooled, pooled).square()
    median = squared[~torch.eye(11, dtype=torch.bool)].median()
    torch.testing.assert_close(mmd2(x, y), mmd2(x, y, median))
    (g1,) = torch.autograd.grad(mmd2(x, y), x)
    (g2,) = torch.autograd.grad(mmd2(x, y, median.detach()), x)
    torch.testing.assert_close(g1, g2)
    assert g1.abs().max() > 0


def test_gradient_of_the_mmd_against_differences():
    g = torch.Generator().manual_seed(6)
    x, y = (torch.randn(n, 3, generator=g).double().requires_grad_() for n in (5, 4))
    assert torch.autograd.gradcheck(lambda a, b: mmd2(a, b, 2.5), (x, y))
    assert torch.autograd.gradcheck(lambda a: mmd2(a, y.detach(), 2.5), (x,))


def test_the_closed_form_agrees_with_the_definition_in_value_and_gradient():
    g = torch.Generator().manual_seed(7)
    x, y = (torch.randn(n, 4, generator=g).double().requires_grad_() for n in (30, 20))
    closed, plain = mmd2(x, y + 1), mmd2_by_autograd(x, y + 1)
    torch.testing.assert_close(closed, plain)
    for a, b in zip(torch.autograd.grad(closed, (x, y)), torch.autograd.grad(plain, (x, y)), strict=True):
        torch.testing.assert_close(a, b)
        assert a.abs().max() > 1e-4


def test_mmd_names_wrong_shapes():
    with pytest.raises(ValueError, match="x, y: got shapes"):
        mmd2(torch.ones(3, 2), torch.ones(3, 4))


def test_regulariser_against_pairs():
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(4)).double()
    cluster = torch.tensor([0, 0, 0, 2, 2, 2, 2, 5, 5])
    expected = []
    for c in (0, 2, 5):
        rows = [z[i] for i in range(9) if cluster[i] == c]
        cosines = [
            torch.dot(a, b) / (a.norm() * b.norm()) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j
        ]
        expected.append(1 - sum(cosines) / len(cosines))
    assert cluster_dissimilarity(z, cluster).item() == pytest.approx(float(sum(expected) / 3), abs=1e-12)


def test_regulariser_has_a_gradient_and_ignores_single_cells():
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(5)).requires_grad_()
    cluster_dissimilarity(z, torch.tensor([0, 0, 1, 1, 7])).backward()
    assert z.grad[:4].abs().max() > 1e-4
    assert z.grad[4].abs().max() == 0
    assert cluster_dissimilarity(z, torch.arange(5)).item() == 0


def test_regulariser_is_zero_for_parallel_members():
    z = torch.tensor([[1.0, 2.0], [2.0, 4.0], [0.5, 1.0]])
    assert cluster_dissimilarity(z, torch.zeros(3, dtype=torch.long)).item() == pytest.approx(0, abs=1e-6)
