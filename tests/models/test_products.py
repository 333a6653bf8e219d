"""Products of layers: torch's values and gradients, and the same digits whatever MKL chooses."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from atsdp_utils.foundation import paths
from atsdp_utils.models import products

SHAPES = ((64, 700, 256), (37, 256, 64), (64, 64, 700), (5, 8, 1), (1, 30, 2))


def drawn(n: int, inputs: int, outputs: int) -> tuple[torch.Tensor, ...]:
    made = torch.Generator().manual_seed(0)
    return tuple(torch.randn(s, generator=made) for s in ((n, inputs), (outputs, inputs), (outputs,), (n, outputs)))


def with_gradients(product, x, W, b, grad):
    leaves = [t.clone().requires_grad_() for t in (x, W, b)]
    value = product(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, grad)]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_torch(shape):
    *inputs, grad = drawn(*shape)
    for ours, theirs in zip(
        with_gradients(products.linear, *inputs, grad), with_gradients(F.linear, *inputs, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_that_of_the_public_layout_of_onednn(shape):
    x, W, b, _ = drawn(*shape)
    public = F.linear(x.to_mkldnn(), W.to_mkldnn(), b.to_mkldnn()).to_dense()
    assert torch.equal(products.linear(x, W, b), public)


def test_only_what_asks_for_a_gradient_gets_one():
    x, W, b, grad = drawn(*SHAPES[1])
    W.requires_grad_()
    products.linear(x, W).backward(grad)
    assert x.grad is None and torch.allclose(W.grad, grad.T @ x, atol=1e-3)
    layer = products.Linear(256, 64).requires_grad_(False)
    x.requires_grad_()
    layer(x).backward(grad)
    assert layer.weight.grad is None and torch.allclose(x.grad, grad @ layer.weight, atol=1e-3)


def test_a_layer_takes_sequences_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = products.Linear(32, 16), nn.Linear(32, 16)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 5, 32)
    assert ours(x).shape == (7, 5, 16)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    doubled = products.Linear(32, 16).double()
    assert doubled(x.double()).dtype == torch.float64


TRAINED = """
import hashlib, torch
from atsdp_utils.foundation.config import TABLE2
from atsdp_utils.models import network
torch.set_num_threads(1)
torch.manual_seed(0)
product = torch.randn(40, 700) @ torch.randn(700, 60)
dae, x = network.DenoisingAutoencoder(700, TABLE2["DATA1"]), torch.randn(90, 700)
optimiser = torch.optim.AdamW(dae.parameters(), lr=1e-3, fused=True)
for _ in range(4):
    optimiser.zero_grad()
    (dae(network.corrupt(x, 0.2)) - x).square().mean().backward()
    optimiser.step()
for tensors in ([product], dae.state_dict().values()):
    print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest())
"""


def test_a_training_does_not_depend_on_the_code_that_mkl_chooses():
    """Two choices that an Intel processor has stand for two makers. MKL's own product shows that they differ."""
    said = {
        held: subprocess.run(
            [sys.executable, "-c", TRAINED],
            env=os.environ | {"MKL_CBWR": held, "MKL_NUM_THREADS": "1"},
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for held in ("COMPATIBLE", "AUTO")
    }
    (product, trained), (other, again) = said.values()
    if product == other:
        pytest.skip("MKL has one code on this processor")
    assert trained == again
