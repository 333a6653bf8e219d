"""Trained networks, explained: attributions of several seeds, cached, and the rankings of genes that they give."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from atsdp_utils.data import datasets, preprocess
from atsdp_utils.experiments import inputs, keys
from atsdp_utils.experiments.task import ATSDP, Task, build
from atsdp_utils.foundation import cache, config, paths, pool, runtime
from atsdp_utils.interpretation import attribution
from atsdp_utils.interpretation.attribution import Attribution, ensemble, rank_genes
from atsdp_utils.interpretation.gene_lists import differential_genes


class Explained(NamedTuple):
    """One network, trained on the cells outside fold 0, and what explains it on those cells."""

    genes: np.ndarray
    rows: np.ndarray  # of its cells in inputs.cells_of; the held-out rest serves to test lists of genes
    X: np.ndarray  # their standardised expression
    y: np.ndarray  # the labels that were learned, shuffled ones for a randomised network
    integrated: Attribution
    expected: Attribution
    relevance: np.ndarray  # attribution.attention_relevance
    attention: pd.DataFrame  # attribution.attention_table


def training_rows(name: str, profile: str) -> np.ndarray:
    """Rows of ``inputs.cells_of`` outside fold 0 of the saved partition that all models share.

    Returns
    -------
    (rows,) int
        The rows that the explained networks learn from, in rising order. No cell without a label is among them.
    """
    fold = inputs.splits(inputs.cells_of(name, profile), config.profile(profile).folds, 0)
    return np.flatnonzero(fold > 0)


def asked(name: str, profile: str, seed: int, randomised: bool = False) -> tuple:
    """Task, bulk, rows, cells and labels of :func:`explain`, and its file, named by them, the settings and the code."""
    cells, source = inputs.cells_of(name, profile), inputs.source_of(name, profile, seed)
    rows = training_rows(name, profile)
    X, y = preprocess.standardised(cells, source, rows), cells.y[rows]
    if randomised:
        y = np.random.default_rng([seed, 81]).permutation(y)
    task = Task(name, "S", ATSDP, profile, seed=seed)
    sizes = task.architecture, task.training, task.spec.balance
    code = cache.code("interpretation.explained._explain", "models.atsdp.ATSDP", cut=keys.CUT)
    bulk = source.X[source.train], source.y[source.train]
    key = cache.key(X, y, *bulk, seed, sizes, code, runtime.precision())
    return task, source, rows, X, y, paths.CACHE / "explained" / f"{key}.npz"


def explain(name: str, profile: str, seed: int, randomised: bool = False) -> Explained:
    """Train ATSDP-NET with labels (protocol S; `randomised` ones are shuffled) and explain it; cached by content."""
    task, source, rows, X, y, path = asked(name, profile, seed, randomised)
    z = cache.kept(path, _read, lambda part: np.savez_compressed(part, **_explain(task, source, X, y)))
    ig, eg = (Attribution(*(z[f"{kind}_{part}"] for part in Attribution._fields)) for kind in ("ig", "eg"))
    attention = pd.DataFrame({c: z[f"attention_{c}"] for c in ("head", "entropy", "class_distance", "p")})
    return Explained(source.genes, rows, X, y, ig, eg, z["relevance"], attention)


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as z:
        return dict(z)


def _explain(task: Task, source: preprocess.Source, X: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    net = build(task).fit(X, y, balance=task.spec.balance, source=source).net_.cpu().eval()
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
    name: str, profile: str, seeds: Sequence[int], *, jobs: int = 1, backend: str = "loky", randomised: bool = False
) -> list[Explained]:
    """:func:`explain` for several seeds, in parallel processes; what is in the cache is not trained again.

    Parameters
    ----------
    name, profile, seeds
        A data set, a profile, and one seed for each network. No expression or label of a cell in fold 0 is read.
    jobs, backend
        As in :func:`pool.call_all`. They change no result.
    randomised : bool
        Whether labels are shuffled before training, by a permutation that the seed fixes.
    """
    datasets.prepare(name)  # in tier geo no training has prepared the twin
    left = [(name, profile, s, randomised) for s in seeds if not asked(name, profile, s, randomised)[-1].exists()]
    pool.call_all(explain, left, jobs=jobs, backend=backend, label=f"{name} explained")
    return [explain(name, profile, s, randomised) for s in seeds]


def rankings(networks: Sequence[Explained]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """:func:`rank_genes` of the mean integrated gradients of several networks, and (genes,) importances by name."""
    genes, _, X, y, *_ = networks[0]
    scores = {}
    eg, ig = (rank_genes(ensemble([getattr(n, k) for n in networks]), X, y, genes) for k in ("expected", "integrated"))
    for short, table in (("IG", ig), ("EG", eg)):
        scores[f"{short}, mean size"] = table["mean_abs"].to_numpy()
        scores[f"{short}, rank-sum test"] = table["z"].abs().to_numpy()
    scores["attention"] = np.mean([n.relevance for n in networks], axis=0)
    scores["expression, rank-sum test"] = differential_genes(X, y, genes)["z"].abs().to_numpy()
    linear = LogisticRegression(C=1e-3, class_weight="balanced", max_iter=1000).fit(X, y)
    scores["linear coefficients"] = np.abs(linear.coef_[0])
    return ig, scores
