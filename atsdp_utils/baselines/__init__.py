"""Baselines: the paper's eight, adapted as its text says (``data/baselines.csv``), and what it leaves out.

Every model is a class with one interface: ``Model(*, seed=0, **hyperparameters)``, ``fit(X, y, *, weight=None,
source=None) -> self`` and ``predict_proba(X)``, P(sensitive) as float64 (n,). X is float32 (n, genes), standardised per
gene on training rows; y is 0 (resistant) or 1 (sensitive); weight is (n,) or None; source is a
:class:`atsdp_utils.data.preprocess.Source` (bulk rows on the same genes, and the gene names).

To add one: write a module with such a class, add one line to :data:`REGISTRY`. Importing this package imports neither
torch nor scikit-learn; making a model does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product

import numpy as np

from atsdp_utils.baselines.rows import check_rows, hold_out


@dataclass(frozen=True)
class Baseline:
    """One entry of the registry."""

    name: str
    #: Makes the model from ``seed`` and hyperparameters; ``".module:Class"`` is imported when it is called.
    factory: str | Callable
    #: Defaults; ``of`` stands for those of another entry.
    hyperparameters: dict = field(default_factory=dict)
    #: Search space of :func:`tune`: values of each name, the default first; four settings for every model.
    grid: dict = field(default_factory=dict)
    #: Changes that shorten a training in the search, to about a quarter for every model.
    trial: dict = field(default_factory=dict)
    #: Whether `fit` reads `source`.
    uses_source: bool = False
    #: Column of the paper's Table 4; empty where the paper lacks it.
    paper_name: str = ""
    #: ``genes``, or ``library_size``: X has one column, its logarithm.
    features: str = "genes"
    #: Whether training rows are balanced before `fit`.
    balanced: bool = True
    #: Whether it is trained on cell labels (protocol S).
    under_s: bool = True
    #: Name in tables and figures, where it differs from `name`.
    label: str = ""
    note: str = ""
    #: Model of which this is another reading or a control; it takes the settings that the search chose for that one on
    #: the same rows, so that the two differ in one thing.
    variant_of: str = ""

    @property
    def under_u(self) -> bool:
        """Whether it is trained on bulk labels too (protocol U)."""
        return self.features == "genes" and not self.variant_of

    @property
    def defaults(self) -> dict:
        """Hyperparameters, with those of the entry that ``of`` names."""
        own = dict(self.hyperparameters)
        return (REGISTRY[own.pop("of")].defaults if "of" in own else {}) | own

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


#: The paper names the threshold; the learning rate and 60 full-batch steps are those of the original GCN, shortened.
_GRAPH = {
    "hidden": 32, "dropout": 0.3, "threshold": 0.8, "neighbours": 10, "learning_rate": 1e-2, "steps": 60,
}  # fmt: skip
_SHORT = {"steps": 25, "check_every": 8}
_EIGHT = (
    Baseline(
        "SA", ".networks:SparseAutoencoder", {"hidden": 64, "sparsity": 0.05, "dropout": 0.2},
        {"sparsity": (0.05, 0.5), "dropout": (0.2, 0.5)}, trial=_SHORT, paper_name="SA", label="Sparse autoencoder",
    ),
    Baseline(
        "ResNet18", ".networks:ResNet18",
        {"width": 8, "dropout": 0.3, "batch_size": 16, "learning_rate": 1e-2, "steps": 120},
        {"learning_rate": (1e-2, 3e-3), "dropout": (0.3, 0.6)}, trial={"steps": 30, "check_every": 10},
        paper_name="ResNet18", label="ResNet18 (1-D)",
    ),
    Baseline(
        "CNN", ".networks:CNN", {"channels": 16, "dropout": 0.3},
        {"learning_rate": (2e-3, 6e-3), "dropout": (0.3, 0.6)}, trial=_SHORT, paper_name="CNN", label="CNN (1-D)",
    ),
    Baseline(
        "Transformer", ".networks:Transformer",
        {"tokens": 40, "dim": 16, "heads": 2, "dropout": 0.1, "learning_rate": 5e-3},
        {"learning_rate": (5e-3, 2e-3), "dropout": (0.1, 0.3)}, trial=_SHORT, paper_name="Transformer",
    ),
    Baseline(
        "GCN", ".graph:GCN", _GRAPH,
        {"neighbours": (10, 5), "dropout": (0.3, 0.6)}, trial={"steps": 15}, paper_name="GCN", note="inductive",
    ),
    Baseline(
        "GAT", ".graph:GAT", _GRAPH,
        {"neighbours": (10, 5), "dropout": (0.3, 0.6)}, trial={"steps": 15}, paper_name="GAT", note="inductive",
    ),
    Baseline(
        "DeepDR", ".networks:DeepDR", {"encoder": (256, 64), "predictor": 128, "dropout": 0.2},
        {"learning_rate": (2e-3, 5e-4), "dropout": (0.2, 0.5)}, uses_source=True, trial=_SHORT, paper_name="DeepDR",
        label="DeepDR (expression-only adaptation)", note="encoder pre-trained on bulk",
    ),
    Baseline(
        "DrugCell", ".drugcell:DrugCell", {"width": 4, "root": 6, "dropout": 0.2, "auxiliary": 0.2},
        {"auxiliary": (0.2, 1.0), "dropout": (0.2, 0.5)}, uses_source=True, trial=_SHORT, paper_name="DrugCell",
        label="DrugCell (expression-only adaptation)", note="reads gene names",
    ),
)  # fmt: skip

_LEFT_OUT = (
    Baseline("Majority", ".classical:Majority", label="Majority class", balanced=False, note="constant"),
    Baseline(
        "LibrarySize", ".classical:LibrarySize", {"C": 1.0}, {"C": (1.0, 1e-2, 1e-1, 10.0)},
        features="library_size", label="Library size only",
    ),
    Baseline(
        "Logistic", ".classical:Logistic", {"C": 1e-3}, {"C": (1e-3, 1e-4, 1e-2, 1e-1)},
        label="Logistic regression (L2)",
    ),
    Baseline(
        "PCA+SVM", ".classical:PcaSvm", {"components": 50, "C": 1.0}, {"components": (50, 20), "C": (1.0, 0.1)},
    ),
    Baseline(
        "RandomForest", ".classical:Forest", {"n_estimators": 100, "max_features": "sqrt"},
        {"min_samples_leaf": (1, 3), "max_features": ("sqrt", 0.1)}, trial={"n_estimators": 25}, label="Random forest",
    ),
    Baseline(
        "Boosting", ".classical:Boosting", {"max_iter": 60, "max_leaf_nodes": 8, "max_features": 0.1},
        {"learning_rate": (0.1, 0.03), "min_samples_leaf": (20, 5)}, trial={"max_iter": 15}, label="Gradient boosting",
    ),
    Baseline(
        "kNN", ".classical:Neighbours", {"neighbours": 15, "metric": "cosine"},
        {"neighbours": (15, 5), "metric": ("cosine", "euclidean")}, label="k nearest neighbours",
    ),
    Baseline("PC1Sign", ".classical:PC1Sign", {"C": 1e-3}, under_s=False, label="PC1, bulk sign", note="one sign bit"),
)  # fmt: skip

_VARIANTS = (
    Baseline(
        "GCN-transductive", ".graph:TransductiveGCN", _GRAPH, label="GCN (transductive)",
        note="test cells are in the training graph", variant_of="GCN",
    ),
    Baseline(
        "GAT-transductive", ".graph:TransductiveGAT", _GRAPH, label="GAT (transductive)",
        note="test cells are in the training graph", variant_of="GAT",
    ),
    Baseline(
        "CNN-shuffled", ".networks:ShuffledCNN", {"of": "CNN"}, label="CNN, shuffled genes", variant_of="CNN",
    ),
    Baseline(
        "ResNet18-shuffled", ".networks:ShuffledResNet18", {"of": "ResNet18"}, label="ResNet18, shuffled genes",
        variant_of="ResNet18",
    ),
)  # fmt: skip

#: Baselines by name, in the order of tables: the paper's eight, what it left out, variants.
REGISTRY: dict[str, Baseline] = {b.name: b for b in (*_EIGHT, *_LEFT_OUT, *_VARIANTS)}


def tune(
    baseline: Baseline, X, y, *, source=None, balance: Callable | None = None, seed: int = 0, most: int | None = None
) -> dict:
    """Choose among a baseline's settings by AUC on a quarter of the training rows; a tie goes to the earlier one.

    The budget is the same for every model: at most `most` settings, each trained for a quarter of the length. X and y
    are the training rows of an outer fold; ``balance(X, y) -> (X, y, weight)`` is applied to the inner ones only.
    """
    X, y, _ = check_rows(X, y, None)
    settings = baseline.settings(most)
    if len(settings) == 1:
        return {}
    rows, held = hold_out(X, y, 0.25, seed)
    if set(y[held].tolist()) != {0, 1}:
        raise ValueError("y: too few rows of a class for an inner fold; use the default setting instead")
    inner = (X[rows], y[rows], None) if balance is None or not baseline.balanced else balance(X[rows], y[rows])
    return max(settings, key=lambda changes: _inner_auc(baseline, changes, inner, X[held], y[held], source, seed))


def _inner_auc(baseline, changes, inner, X_held, y_held, source, seed) -> float:
    from sklearn.metrics import roc_auc_score

    X, y, weight = inner
    model = baseline.make(seed=seed, **{**baseline.trial, **changes}).fit(X, y, weight=weight, source=source)
    return roc_auc_score(y_held, model.predict_proba(X_held))
