"""The loop of every stage: shuffled rows, fused AdamW, early stopping. A stage says what is drawn and minimised."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from atsdp_utils.foundation.runtime import device

History = list[dict[str, float]]
#: What a step minimises, and named terms of it for the history.
Step = tuple[Tensor, dict[str, Tensor]]


def tensor(x: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
    """The values on the device."""
    return torch.as_tensor(np.ascontiguousarray(x), dtype=dtype, device=device())


def batch_size(n: int, most: int) -> int:
    """Rows of a step on `n` rows: four steps an epoch or more, no batch below 16 rows or above `most`."""
    return min(most, max(16, n // 4))


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
        order = torch.randperm(len(self), device=self.values[0].device)
        yield from torch.tensor_split(order, max(1, min(round(len(self) / size), len(self) // 2)))

    def draw(self, size: int) -> Tensor:
        """The next batch of an endless sequence of such passes."""
        if self._endless is None:
            self._endless = (batch for _ in itertools.count() for batch in self.batches(size))
        return next(self._endless)


@dataclass
class Stage:
    """What is drawn and minimised; subclasses add what they draw from, as :class:`Rows` or as tensors of held rows."""

    #: Settings with ``learning_rate``, ``weight_decay``, ``patience``.
    cfg: Any
    #: Epochs at most: the name of a setting.
    length: ClassVar[str]
    #: Parts of the network that learn; none named: all.
    learns: ClassVar[tuple[str, ...]] = ()
    #: Epochs before those without a better validation loss count.
    least: ClassVar[int] = 0
    #: A validation loss is better if it is smaller by more than this share of it.
    better: ClassVar[float] = 1e-5

    @property
    def epochs(self) -> int:
        return getattr(self.cfg, self.length)

    def trained(self, net: nn.Module) -> list[nn.Module]:
        return [getattr(net, part) for part in self.learns] or [net]

    def epoch(self, net: nn.Module) -> Iterator[Step]:
        """Losses of the steps of one pass."""
        raise NotImplementedError

    def validate(self, net: nn.Module) -> Tensor | None:
        """What is to be small on rows that are not trained on; None: all epochs run."""
        raise NotImplementedError

    def watch(self, net: nn.Module) -> dict[str, Tensor]:
        """Further values of an epoch for the history; nothing is decided by them."""
        return {}


def fit(net: nn.Module, stage: Stage) -> History:
    """Minimise the losses of a stage, in place, and give the history of the training.

    With a validation loss, `patience` epochs without a better one, after the stage's `least`, end the training, and the
    weights of the best epoch are restored. Random numbers are those of torch's global generator, which callers seed.

    Parameters
    ----------
    net : Module
        What is trained; it is in evaluation mode afterwards.
    stage : Stage
        What is drawn and minimised, and which parts of `net` learn.

    Returns
    -------
    list of dict
        One entry for each epoch: ``epoch`` (from 0), the means over its steps of ``loss`` and of every named term, what
        the stage watches, and ``validation`` where there is such a loss.
    """
    parameters = [p for part in stage.trained(net) for p in part.parameters()]
    rate, decay = stage.cfg.learning_rate, stage.cfg.weight_decay
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
    history, best, weights, waited = [], np.inf, None, 0
    for i in range(stage.epochs):
        history.append({"epoch": i} | _train(net, stage, optimiser))
        net.eval()
        with torch.no_grad():
            value = stage.validate(net)
            history[-1] |= {name: v.item() for name, v in stage.watch(net).items()}
        if value is None:
            continue
        history[-1]["validation"] = value.item()
        if value.item() < best * (1 - stage.better):
            best, weights, waited = value.item(), copy.deepcopy(net.state_dict()), 0
        else:
            waited += i >= stage.least
            if waited >= stage.cfg.patience:
                break
    if weights is not None:
        net.load_state_dict(weights)
    net.eval()
    return history


def _train(net: nn.Module, stage: Stage, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    """One epoch. Values are read at its end, because reading one waits for the device."""
    net.train()
    terms: list[dict[str, Tensor]] = []
    for loss, named in stage.epoch(net):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        terms.append({"loss": loss.detach()} | {k: v.detach() for k, v in named.items()})
    return {k: float(np.mean([t[k].item() for t in terms])) for k in terms[0]}
