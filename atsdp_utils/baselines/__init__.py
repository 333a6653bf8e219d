"""Baselines: the paper's eight, adapted as its text says, and what it leaves out (``registry.toml``).

Every model is a class with one interface: ``Model(*, seed=0, **hyperparameters)``, ``fit(X, y, *, balance="none",
source=None) -> self`` and ``predict_proba(X)``, P(sensitive) as float64 (n,). X is float32 (n, genes), standardised per
gene on training rows; y is 0 (resistant) or 1 (sensitive); balance names a strategy of :func:`preprocess.balance` that
a model applies itself, to the rows that it learns from and never to those that it stops or calibrates by; source is a
:class:`atsdp_utils.data.preprocess.Source` (bulk rows on the same genes, and the gene names).

To add one: write a module with such a class, add an entry to ``registry.toml`` beside it. Importing this package
imports neither torch nor scikit-learn; making a model does.
"""

import importlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np

from atsdp_utils.baselines.rows import check_rows
from atsdp_utils.data.preprocess import hold_out


@dataclass(frozen=True)
class Baseline:
    """One entry of the registry."""

    name: str
    #: Makes the model from ``seed`` and hyperparameters; ``".module:Class"`` is imported when it is called.
    factory: str | Callable
    #: Defaults; a variant has those of its model too.
    hyperparameters: dict = field(default_factory=dict)
    #: Search space of :func:`tune`: values of each name, the default first; four settings of each model that has any.
    grid: dict = field(default_factory=dict)
    #: Changes that shorten a training in the search to about a quarter, of what is trained in epochs or trees; a
    #: network's epochs are the profile's.
    trial: dict = field(default_factory=dict)
    #: Whether it is trained in epochs: as many as ATSDP-NET, with its patience (``experiments.task.budget``).
    network: bool = False
    #: Whether `fit` reads `source`.
    uses_source: bool = False
    #: Column of the paper's Table 4; empty where the paper lacks it.
    paper_name: str = ""
    #: ``genes``, or ``library_size``: X has one column, its logarithm.
    features: str = "genes"
    #: Whether training rows are balanced.
    balanced: bool = True
    #: Whether it is trained on cell labels (protocol S).
    under_s: bool = True
    #: Name in tables and figures, where it differs from `name`.
    label: str = ""
    note: str = ""
    #: What one of the paper's eight was made of, and how this one departs from it.
    original: str = ""
    departs: str = ""
    #: Model of which this is another reading or a control; it takes the settings that the search chose for that one on
    #: the same rows, so that the two differ in one thing.
    variant_of: str = ""

    @property
    def under_u(self) -> bool:
        """Whether it is trained on bulk labels too (protocol U)."""
        return self.features == "genes" and not self.variant_of

    @property
    def defaults(self) -> dict:
        """Hyperparameters, with those of the model of which this is a variant."""
        return (REGISTRY[self.variant_of].defaults if self.variant_of else {}) | self.hyperparameters

    def make(self, *, seed: int = 0, **changes):
        """A new model with the default hyperparameters, some changed."""
        factory = self.factory
        if isinstance(factory, str):
            module, _, name = factory.partition(":")
            factory = getattr(importlib.import_module(module, __name__), name)
        return factory(seed=seed, **self.defaults | changes)

    def settings(self, most: int | None = None) -> list[dict]:
        """Combinations of the grid as changes to the defaults, the defaults' first; `most` of them, spread evenly."""
        every = [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]
        if most is None or most >= len(every):
            return every
        return [every[i] for i in np.linspace(0, len(every) - 1, most).round().astype(int)]


def _registry() -> dict[str, Baseline]:
    table = tomllib.loads(Path(__file__).with_name("registry.toml").read_text(encoding="utf-8"))
    for entry in table.values():
        for group in ("hyperparameters", "grid"):
            entry[group] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.get(group, {}).items()}
    return {name: Baseline(name, **entry) for name, entry in table.items()}


#: Baselines by name, in the order of tables: the paper's eight, what it left out, variants.
REGISTRY = _registry()


def tune(
    baseline: Baseline, X, y, *, source=None, balance: str = "none", seed: int = 0, most: int | None = None
) -> dict:
    """Choose among a baseline's settings by AUC on a quarter of the training rows; a tie goes to the earlier one.

    The budget is the same for every model: at most `most` settings, each trained for a quarter of its epochs or
    trees. X and y are the training rows of an outer fold, `balance` the strategy of :func:`preprocess.balance` for the
    inner ones.
    """
    from sklearn.metrics import roc_auc_score

    X, y = check_rows(X, y)
    settings = baseline.settings(most)
    if len(settings) == 1:
        return {}
    rows, held = hold_out(len(y), 0.25, seed, y)
    if set(y[held].tolist()) != {0, 1}:
        raise ValueError("y: too few rows of a class for an inner fold; use the default setting instead")

    def inner_auc(changes: dict) -> float:
        model = baseline.make(seed=seed, **baseline.trial | changes)
        model.fit(X[rows], y[rows], balance=balance, source=source)
        return roc_auc_score(y[held], model.predict_proba(X[held]))

    return max(settings, key=inner_auc)
