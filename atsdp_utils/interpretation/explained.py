"""Trained networks, explained: attributions of several seeds, cached, and the rankings of genes that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from atsdp_utils.data import datasets, preprocess
from atsdp_utils.experiments import grid, protocols
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.interpretation import attribution
from atsdp_utils.interpretation.attribution import Attribution, ensemble, rank_genes
from atsdp_utils.interpretation.gene_lists import differential_genes


@dataclass(frozen=True)
class Explained:
    """One network, trained on the cells outside fold 0, and what explains it on those cells.

    ``genes`` that it reads; ``rows`` of its cells in ``protocols.cells_of`` (the held-out rest serves to test lists of
    genes); ``X, y`` their standardised expression and the labels that were learned (shuffled ones for a randomised
    network); both attributions; ``relevance`` (genes,) and ``attention`` as :mod:`attribution` defines them.
    """

    genes: np.ndarray
    rows: np.ndarray
    X: np.ndarray
    y: np.ndarray
    integrated: Attribution
    expected: Attribution
    relevance: np.ndarray
    attention: pd.DataFrame


class Inputs(NamedTuple):
    """What :func:`explain` trains on, and the file for the result."""

    task: protocols.Task
    source: preprocess.Source
    rows: np.ndarray
    X: np.ndarray
    y: np.ndarray
    path: Path


def training_rows(name: str, profile: str) -> np.ndarray:
    """Rows of ``protocols.cells_of`` outside fold 0 of the saved partition that all models share."""
    fold = protocols.splits(protocols.cells_of(name, profile), config.profile(profile).folds, 0)
    return np.flatnonzero(fold > 0)


def inputs(name: str, profile: str, seed: int, randomised: bool = False) -> Inputs:
    """Inputs of :func:`explain`; the file is named by the training cells, the bulk, the settings and the code."""
    cells, source = protocols.cells_of(name, profile), protocols.source_of(name, profile, seed)
    rows = training_rows(name, profile)
    X, y = preprocess.standardised(cells, source, rows), cells.y[rows]
    if randomised:
        y = np.random.default_rng([seed, 81]).permutation(y)
    task = protocols.Task(name, "S", protocols.ATSDP, profile, seed=seed)
    spec = protocols.spec_of(task)
    sizes = protocols.architecture(spec, {}), protocols.training(spec, config.profile(profile), {}), spec.balance
    code = cache.code("interpretation.explained._explain", "models.train.ATSDP", cut=protocols.CUT)
    bulk = source.X[source.train], source.y[source.train]
    key = cache.key(X, y, *bulk, seed, sizes, code, runtime.precision())
    return Inputs(task, source, rows, X, y, paths.CACHE / "explained" / f"{key}.npz")


def explain(name: str, profile: str, seed: int, randomised: bool = False) -> Explained:
    """Train ATSDP-NET with labels (protocol S) on a prepared set and explain it; cached by content.

    `seed` is that of the network, its bulk stage and the draws of expected gradients. A `randomised` network learns
    shuffled labels: what the attributions then still show does not come from the labels.
    """
    given = inputs(name, profile, seed, randomised)
    z = cache.kept(given.path, _read, lambda part: np.savez_compressed(part, **_explain(given)))
    ig, eg = (Attribution(*(z[f"{kind}_{part}"] for part in Attribution._fields)) for kind in ("ig", "eg"))
    attention = pd.DataFrame({c: z[f"attention_{c}"] for c in ("head", "entropy", "class_distance", "p")})
    return Explained(given.source.genes, given.rows, given.X, given.y, ig, eg, z["relevance"], attention)


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as z:
        return dict(z)


def _explain(given: Inputs) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    task, source, X, y = given.task, given.source, given.X, given.y
    spec = protocols.spec_of(task)
    xb, yb, weight = preprocess.balance(X, y, spec.balance, task.seed)
    net = protocols.build(task, spec).fit(xb, yb, weight=weight, source=source).net_.cpu().eval()
    block = net.predictor.attention

    def weights(x: Tensor) -> Tensor:
        return block.weights(net.embed(x))

    with torch.no_grad():
        table = attribution.attention_table(weights(torch.as_tensor(X)).numpy(), y)
    found = {f"attention_{c}": table[c].to_numpy() for c in table}
    found["relevance"] = attribution.attention_relevance(
        lambda x: block.tokens(net.embed(x)), weights, X, seed=task.seed
    )
    ig = attribution.integrated_gradients(net, X, X.mean(axis=0))
    eg = attribution.expected_gradients(net, X, X, seed=task.seed)
    return found | {f"{kind}_{part}": v for kind, a in (("ig", ig), ("eg", eg)) for part, v in a._asdict().items()}


def explain_all(
    name: str, profile: str, seeds: Sequence[int], *, jobs: int = 1, randomised: bool = False
) -> list[Explained]:
    """:func:`explain` for several seeds, in parallel processes; the same result for any `jobs`."""
    from joblib import delayed

    datasets.prepare(name)  # in tier geo no training has prepared the twin
    left = [s for s in seeds if not inputs(name, profile, s, randomised).path.exists()]
    grid.pool(max(1, min(jobs, len(left))))(delayed(explain)(name, profile, s, randomised) for s in left)
    return [explain(name, profile, s, randomised) for s in seeds]


def rankings(networks: Sequence[Explained]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Key genes of several networks together, and every ranking of the genes to compare them with.

    The networks are trained on the same cells with different seeds.

    Returns
    -------
    tuple
        :func:`rank_genes` of the mean integrated gradients; and (genes,) importance by name: both attributions by mean
        |attribution| and by the rank-sum test, the attention's view, and what needs no network: the rank-sum test of
        expression and the coefficients of a logistic regression, from the same cells.
    """
    from sklearn.linear_model import LogisticRegression

    one = networks[0]
    tables = {
        "IG": rank_genes(ensemble([n.integrated for n in networks]), one.X, one.y, one.genes),
        "EG": rank_genes(ensemble([n.expected for n in networks]), one.X, one.y, one.genes),
    }
    scores = {}
    for short, table in tables.items():
        scores[f"{short}, mean size"] = table["mean_abs"].to_numpy()
        scores[f"{short}, rank-sum test"] = table["z"].abs().to_numpy()
    scores["attention"] = np.mean([n.relevance for n in networks], axis=0)
    scores["expression, rank-sum test"] = differential_genes(one.X, one.y, one.genes)["z"].abs().to_numpy()
    linear = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=1000).fit(one.X, one.y)
    scores["linear coefficients"] = np.abs(linear.coef_[0])
    return tables["IG"], scores
