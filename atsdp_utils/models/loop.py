"""The loop of every stage: shuffled rows, fused AdamW, early stopping. A stage says what is drawn and minimised."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.foundation.config import Training
from atsdp_utils.foundation.runtime import device

History = list[dict[str, float]]
#: What a step minimises, and named terms of it for the history.
Step = tuple[Tensor, dict[str, Tensor]]


def tensor(x: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values on the device."""
    return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=device())


class Rows:
    """Values that are drawn by row, together: (n, ...) tensors of equal n, or None for what a stage lacks."""

    def __init__(self, *values: Tensor | None) -> None:
        self.values, self._endless = values, None

    def __len__(self) -> int:
        return len(self.values[0])

    def __getitem__(self, batch: Tensor) -> list[Tensor | None]:
        return [None if v is None else v[batch] for v in self.values]

    def batches(self, size: int) -> Iterator[Tensor]:
        """Shuffled rows in batches of nearly equal size, none of a single row (batch norm needs two)."""
        order = torch.randperm(len(self), device=device())
        yield from torch.tensor_split(order, _count(len(self), size))

    def draw(self, size: int) -> Tensor:
        """The next batch of an endless sequence of such passes."""
        if self._endless is None:
            self._endless = (batch for _ in itertools.count() for batch in self.batches(size))
        return next(self._endless)


def _count(n: int, size: int) -> int:
    """Batches of about `size` that n rows make."""
    return max(1, min(round(n / size), n // 2))


@dataclass
class Stage:
    """What is drawn and minimised; subclasses add what they draw from, as :class:`Rows` or as tensors of held rows."""

    cfg: Training
    #: A validation loss is better if it is smaller by more than this.
    better: ClassVar[float] = 1e-5

    @property
    def epochs(self) -> int:
        """Epochs at most."""
        raise NotImplementedError

    def trained(self, net: nn.Module) -> list[nn.Module]:
        """Parts of `net` that learn."""
        return [net]

    def epoch(self, net: nn.Module) -> Iterator[Step]:
        """Losses of the steps of one pass."""
        raise NotImplementedError

    def validate(self, net: nn.Module) -> Tensor | None:
        """Loss on rows that are not trained on; None: all epochs run."""
        raise NotImplementedError


def _optimiser(stage: Stage, net: nn.Module) -> torch.optim.Optimizer:
    parameters = [p for part in stage.trained(net) for p in part.parameters()]
    rate, decay = stage.cfg.learning_rate, stage.cfg.weight_decay
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)


def _pass(stage: Stage, net: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Train for one epoch; the mean of the loss and of every named term, a value a network."""
    net.train()
    terms: list[dict[str, Tensor]] = []
    for loss, named in stage.epoch(net):
        optimiser.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimiser.step()
        terms.append({"loss": loss.detach()} | {k: v.detach() for k, v in named.items()})
    return {k: np.mean([t[k].tolist() for t in terms], axis=0) for k in terms[0]}


@torch.no_grad()
def _validation(stage: Stage, net: nn.Module) -> Tensor | None:
    net.eval()
    return stage.validate(net)


def fit(net: nn.Module, stage: Stage) -> History:
    """Minimise the losses of a stage, in place.

    With a validation loss, `patience` epochs without a better one end the stage, and the weights of the best epoch are
    restored.
    """
    optimiser = _optimiser(stage, net)
    history, best, waited = [], (np.inf, None), 0
    for i in range(stage.epochs):
        row = {"epoch": i} | {k: float(v) for k, v in _pass(stage, net, optimiser).items()}
        history.append(row)
        value = _validation(stage, net)
        if value is None:
            continue
        row["validation"] = value.item()
        if row["validation"] < best[0] - stage.better:
            best, waited = (row["validation"], copy.deepcopy(net.state_dict())), 0
        else:
            waited += 1
            if waited >= stage.cfg.patience:
                break
    if best[1] is not None:
        net.load_state_dict(best[1])
    net.eval()
    return history
