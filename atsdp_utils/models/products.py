"""Products of matrices that have the same digits on processors of every maker, and are not slow for it.

torch multiplies by MKL, which chooses its code by the maker of the processor. The Makefile holds MKL to the code that
all x86 processors share (``MKL_CBWR=COMPATIBLE``), which takes three to seven times as long. oneDNN, in torch as well,
chooses by instruction set alone, and the Makefile holds it to AVX2: it computes the products of layers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _product(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    # What F.linear does with tensors of oneDNN's layout, without the copies into and out of that layout.
    return torch.ops.mkldnn._linear_pointwise(x, W, b, "none", [], "")


class _OneDNN(torch.autograd.Function):
    """x W^T + b and its gradients, every product by oneDNN."""

    @staticmethod
    def forward(ctx, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, W)
        return _product(x, W, b)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, W = ctx.saved_tensors
        to_x, to_W, to_b = ctx.needs_input_grad
        return (
            _product(grad, W.T) if to_x else None,
            _product(grad.T, x.T) if to_W else None,
            grad.sum(dim=0) if to_b else None,
        )


def linear(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """x W^T + b of x (n, inputs), W (outputs, inputs) and b (outputs,), as ``torch.nn.functional.linear`` has it.

    By oneDNN where all is float32 on a processor; on a GPU, and where torch rounds products to bfloat16, by torch.
    """
    plain = x.device.type == "cpu" and x.dtype == W.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return _OneDNN.apply(x, W, b) if plain and torch.backends.mkldnn.is_available() else F.linear(x, W, b)


class Linear(nn.Linear):
    """torch's linear layer, (..., inputs) to (..., outputs), with the product of :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x if x.dim() == 2 else x.flatten(0, -2)
        return linear(rows, self.weight, self.bias).view(*x.shape[:-1], -1)
