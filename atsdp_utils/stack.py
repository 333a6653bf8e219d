"""Networks of one shape as one: their parameters stacked along a first axis, trained in the same steps.

On a GPU a step of one small network is mostly the start of its hundred kernels; a step of a stack starts no more of
them, for the folds of a cross-validation or for many seeds at once. Every layer of a stack reads and gives
(networks, n, ...); rows of one network never meet those of another.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .model import TokenEmbedding


class _Stacked(nn.Module):
    """Parameters and buffers of a layer, (networks, ...) each."""

    def __init__(self, layer: nn.Module, networks: int) -> None:
        super().__init__()
        for name, value in layer.named_parameters(recurse=False):
            self.register_parameter(name, nn.Parameter(value.detach().expand(networks, *value.shape).clone()))
        for name, value in layer.named_buffers(recurse=False):
            self.register_buffer(name, value.expand(networks, *value.shape).clone())


class _Linear(_Stacked):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1, -2)
        return torch.baddbmm(self.bias[:, None], rows, self.weight.mT).unflatten(1, x.shape[1:-1])


class _BatchNorm(_Stacked):
    """Statistics of a gene's or feature's rows in its own network: networks x features are so many features."""

    def __init__(self, layer: nn.BatchNorm1d, networks: int) -> None:
        super().__init__(layer, networks)
        self.momentum, self.eps = layer.momentum, layer.eps

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
        side_by_side = F.batch_norm(
            x.transpose(0, 1).flatten(1), self.running_mean.view(-1), self.running_var.view(-1), self.weight.view(-1),
            self.bias.view(-1), self.training, self.momentum, self.eps,
        )  # fmt: skip
        return side_by_side.unflatten(1, self.bias.shape).transpose(0, 1)


class _LayerNorm(_Stacked):
    def __init__(self, layer: nn.LayerNorm, networks: int) -> None:
        super().__init__(layer, networks)
        self.shape, self.eps = layer.normalized_shape, layer.eps

    def forward(self, x: Tensor) -> Tensor:
        own = (len(x), *[1] * (x.ndim - 1 - len(self.shape)), *self.shape)
        return F.layer_norm(x, self.shape, eps=self.eps) * self.weight.view(own) + self.bias.view(own)


class _TokenEmbedding(_Stacked):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[:, None]


_LAYERS = {
    nn.Linear: _Linear, nn.BatchNorm1d: _BatchNorm, nn.LayerNorm: _LayerNorm, TokenEmbedding: _TokenEmbedding,
}  # fmt: skip


def stack(networks: Sequence[nn.Module]) -> nn.Module:
    """One module that computes all `networks`, which have the same layers, and leaves them as they are.

    Its values have an axis more than those of a network, (networks, n, ...); so have the entries of its state.
    """
    whole = copy.deepcopy(networks[0])
    for name, layer in list(whole.named_modules()):
        if type(layer) in _LAYERS:
            whole.set_submodule(name, _LAYERS[type(layer)](layer, len(networks)))
    states = [network.state_dict() for network in networks]
    whole.load_state_dict({name: torch.stack([s[name] for s in states]) for name in states[0]})
    return whole


def unstack(whole: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Copy the weights of a stack into its `networks`, in place."""
    for i, network in enumerate(networks):
        network.load_state_dict({name: value[i] for name, value in whole.state_dict().items()})
