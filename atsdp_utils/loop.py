"""The loop of every stage: shuffled rows, fused AdamW, early stopping; for one network, or for a stack of them.

A stage says what is drawn and minimised, in terms that hold for one network and for a stack of them
(:mod:`atsdp_utils.stack`), where every loss is a vector, one value a network.
"""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .config import Training
from .stack import stack, unstack

History = list[dict[str, float]]
#: What a step minimises, and named terms of it for the history.
Step = tuple[Tensor, dict[str, Tensor]]
#: A validation loss is better if it is smaller by this much.
BETTER = 1e-5


def device() -> torch.device:
    """``ATSDP_DEVICE`` (``cpu``, ``cuda``), else CUDA where there is one."""
    name, there = os.environ.get("ATSDP_DEVICE", "auto"), torch.cuda.is_available()
    if name not in ("auto", "cpu", "cuda") or (name == "cuda" and not there):
        found = "is" if there else "is not"
        raise ValueError(f"ATSDP_DEVICE: got {name!r}, expected auto, cpu or cuda; CUDA {found} available here")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


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


class StackedRows(Rows):
    """Rows of the networks of a stack: values are (networks, longest, ...), batches (networks, rows).

    Every network shuffles its own rows with a generator of its own. All batches have one size; the few rows of a
    network that then remain wait for its next pass.
    """

    def __init__(self, parts: Sequence[Rows], generators: Sequence[torch.Generator]) -> None:
        kinds = zip(*(part.values for part in parts), strict=True)
        super().__init__(*(None if kind[0] is None else pad_sequence(kind, batch_first=True) for kind in kinds))
        self.lengths, self.generators = [len(part) for part in parts], generators

    def __getitem__(self, batch: Tensor) -> list[Tensor | None]:
        network = torch.arange(len(batch), device=batch.device)[:, None]
        return [None if v is None else v[network, batch] for v in self.values]

    def batches(self, size: int) -> Iterator[Tensor]:
        """As of one network, (networks, rows) each."""
        count = _count(min(self.lengths), size)
        rows = min(self.lengths) // count
        orders = [torch.randperm(n, generator=g) for n, g in zip(self.lengths, self.generators, strict=True)]
        yield from torch.stack([o[: count * rows] for o in orders]).to(device()).split(rows, dim=1)


def _count(n: int, size: int) -> int:
    """Batches of about `size` that n rows make."""
    return max(1, min(round(n / size), n // 2))


@dataclass
class Stage:
    """What is drawn and minimised; subclasses add what they draw from, as :class:`Rows` or as tensors of held rows."""

    cfg: Training

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


def _stacked(stages: Sequence[Stage], generators: Sequence[torch.Generator]) -> Stage:
    """One stage for a stack: rows side by side, held rows cut to as many as the network with the fewest has."""

    def joined(parts: list):
        if isinstance(parts[0], Rows):
            return StackedRows(parts, generators)
        if isinstance(parts[0], Tensor):
            return torch.stack([p[: min(map(len, parts))] for p in parts])
        return parts[0]

    return replace(stages[0], **{f.name: joined([getattr(s, f.name) for s in stages]) for f in fields(stages[0])})


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
        if row["validation"] < best[0] - BETTER:
            best, waited = (row["validation"], copy.deepcopy(net.state_dict())), 0
        else:
            waited += 1
            if waited >= stage.cfg.patience:
                break
    if best[1] is not None:
        net.load_state_dict(best[1])
    net.eval()
    return history


def fit_together(nets: Sequence[nn.Module], stages: Sequence[Stage], seeds: Sequence[int]) -> list[History]:
    """What :func:`fit` does to each network of a list, in the same steps for all of them, in place.

    The networks have the same layers, the stages the same settings; rows may differ in number. A network that has
    waited long enough goes on with the others, but its best weights are fixed. Draws of masks depend on which networks
    are trained together, so results are those of :func:`fit` with other random numbers.
    """
    torch.manual_seed(seeds[0])
    stage = _stacked(stages, [torch.Generator().manual_seed(seed) for seed in seeds])
    whole = stack(nets)
    optimiser = _optimiser(stage, whole)
    histories: list[History] = [[] for _ in nets]
    best, waited, state = np.full(len(nets), np.inf), np.zeros(len(nets), int), None
    for i in range(stage.epochs):
        going = waited < stage.cfg.patience
        means = {k: np.broadcast_to(v, len(nets)) for k, v in _pass(stage, whole, optimiser).items()}
        value = _validation(stage, whole)
        if value is not None:
            means["validation"] = value.double().cpu().numpy()
        for n in np.flatnonzero(going):
            histories[n].append({"epoch": i} | {k: float(v[n]) for k, v in means.items()})
        if value is None:
            continue
        better = going & (means["validation"] < best - BETTER)
        state = _keep(state, whole.state_dict(), torch.as_tensor(better, device=value.device))
        best, waited = np.where(better, means["validation"], best), np.where(better, 0, waited + going)
        if (waited >= stage.cfg.patience).all():
            break
    if state is not None:
        whole.load_state_dict(state)
    unstack(whole, nets)
    for net in nets:
        net.eval()
    return histories


def _keep(kept: dict[str, Tensor] | None, now: dict[str, Tensor], better: Tensor) -> dict[str, Tensor]:
    """`kept` with the entries of the networks that are `better` replaced, in place; a copy of `now` at first."""
    if kept is None:
        return {k: v.clone() for k, v in now.items()}
    for name, value in now.items():
        kept[name][better] = value[better]
    return kept
