"""Attributions of a trained network to genes (section 3.6; the paper names no method, see the notebook on key genes).

A network is any callable from standardised expression (n, genes) to logits (n, 2), resistant then sensitive, or to one
value a cell; put it in evaluation mode first. What is explained is the log-odds of *sensitive* (the difference of the
logits), because P saturates near 0 and 1 and its gradients vanish there. Every function is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats as sps
from torch import Tensor

from atsdp_utils.data import datasets, preprocess
from atsdp_utils.experiments import grid, protocols
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.interpretation.interpret import binary, differential_genes

Forward = Callable[[Tensor], Tensor]


def log_odds(output: Tensor) -> Tensor:
    """Log-odds of sensitive (n,) from logits (n, 2); a single value a cell passes through."""
    if output.ndim == 1:
        return output
    if output.ndim != 2 or output.shape[1] != 2:
        raise ValueError(f"forward: returned shape {tuple(output.shape)}, expected (n, 2) logits or (n,) values")
    return output[:, 1] - output[:, 0]


@dataclass(frozen=True)
class Attribution:
    """Contribution of every gene to the log-odds of every cell.

    Attributes
    ----------
    values
        (n, genes) float32.
    delta
        (n,) convergence delta: sum of contributions minus [f(cell) - f(baseline)]; 0 for an exact method.
    change
        (n,) f(cell) - f(baseline), the scale to judge `delta` by.
    """

    values: np.ndarray
    delta: np.ndarray
    change: np.ndarray

    @property
    def relative_delta(self) -> float:
        """Mean |delta| over mean |change|."""
        return float(np.abs(self.delta).mean() / np.abs(self.change).mean())


def _gradient(forward: Forward, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(log_odds(forward(x)).sum(), x)[0]


def _attribution(forward: Forward, X: Tensor, values: Tensor, at_baseline: Tensor) -> Attribution:
    with torch.no_grad():
        change = log_odds(forward(X)) - at_baseline
    return Attribution(values.numpy(), (values.sum(dim=1) - change).numpy(), change.numpy())


def integrated_gradients(forward: Forward, X: np.ndarray, baseline: np.ndarray, *, steps: int = 32) -> Attribution:
    """Integrated gradients from one baseline, by Gauss-Legendre quadrature along the straight line.

    Parameters
    ----------
    forward
        Network, see the module.
    X
        (n, genes) standardised expression of the cells to explain.
    baseline
        (genes,) reference cell; the mean of the training cells here.
    steps
        Points of the quadrature; `delta` tells whether they were enough.
    """
    X, baseline = (torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in (X, baseline))
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    gradient = torch.zeros_like(X)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        gradient += weight * _gradient(forward, baseline + float(node) * (X - baseline))
    with torch.no_grad():
        start = log_odds(forward(baseline[None]))
    return _attribution(forward, X, gradient * (X - baseline), start)


def expected_gradients(
    forward: Forward, X: np.ndarray, reference: np.ndarray, *, samples: int = 64, seed: int = 0
) -> Attribution:
    """Expected gradients (GradientSHAP without noise): baselines are random training cells, not their mean.

    The cross-check of :func:`integrated_gradients`: a gene that matters only relative to a mean cell that does not
    exist loses its place here.

    Parameters
    ----------
    reference
        (m, genes) training cells to draw baselines from.
    samples
        Pairs of a baseline and a point on the line to it, per cell.
    """
    X, reference = (torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in (X, reference))
    generator = torch.Generator().manual_seed(seed)
    values = torch.zeros_like(X)
    for _ in range(samples):
        start = reference[torch.randint(len(reference), (len(X),), generator=generator)]
        x = start + torch.rand((len(X), 1), generator=generator) * (X - start)
        values += _gradient(forward, x) * (X - start) / samples
    with torch.no_grad():
        mean_start = log_odds(forward(reference)).mean()
    return _attribution(forward, X, values, mean_start)


def rank_genes(attribution: Attribution, X: np.ndarray, y, genes: Sequence[str]) -> pd.DataFrame:
    """Key genes of a network, in the order of `genes`.

    Parameters
    ----------
    attribution
        Of the cells `X`.
    X
        (n, genes) the explained expression.
    y
        (n,) labels of the cells, true or predicted, 0 and 1.

    Returns
    -------
    DataFrame
        ``gene``; ``mean_abs``, mean |attribution|; ``z, p, padj``, the rank-sum test of attributions between sensitive
        and resistant cells (the paper's test); ``slope``, how the attribution moves with expression over the cells;
        ``direction``, the list the gene belongs to: *sensitive* where more expression means more log-odds of sensitive.
        A resistance gene pulls resistant cells down, so its attribution too is higher in sensitive cells: the sign of
        z cannot tell the two kinds apart, the slope can.
    """
    values = attribution.values.astype(np.float64)
    tested = differential_genes(values, binary(y), genes)
    centred = X - X.mean(axis=0)
    variance = (centred**2).sum(axis=0)
    slope = np.divide((centred * values).sum(axis=0), variance, out=np.zeros(len(variance)), where=variance > 0)
    return tested.drop(columns="delta").assign(
        mean_abs=np.abs(values).mean(axis=0), slope=slope, direction=np.where(slope > 0, "sensitive", "resistant")
    )


def key_genes(ranking: pd.DataFrame, *, top: int = 10, by: str = "mean_abs") -> dict[str, np.ndarray]:
    """Positions of the `top` genes of each direction in `ranking`, best first, by ``mean_abs`` or ``z``."""
    order = ranking[by].abs().sort_values(ascending=False, kind="stable").index
    return {d: np.array([i for i in order if ranking.at[i, "direction"] == d][:top], dtype=int)
            for d in ("sensitive", "resistant")}  # fmt: skip


# --- attention --------------------------------------------------------------------------------------------------------


def attention_table(weights: np.ndarray, y) -> pd.DataFrame:
    """What the attention weights look like, per head.

    Parameters
    ----------
    weights
        (n, heads, T, T), rows summing to 1.
    y
        (n,) labels, 0 and 1.

    Returns
    -------
    DataFrame
        ``head``; ``entropy``, mean entropy of a row over log T (1 is uniform: the head looks everywhere alike);
        ``class_distance``, total variation between the mean maps of the classes (0: the head does not know the class);
        ``p``, smallest Bonferroni-corrected rank-sum p over the attention that the tokens receive.
    """
    sensitive, tokens = binary(y), weights.shape[-1]
    entropy = -(weights * np.log(np.clip(weights, 1e-12, None))).sum(axis=-1).mean(axis=(0, 2)) / np.log(tokens)
    maps = np.stack([weights[sensitive].mean(axis=0), weights[~sensitive].mean(axis=0)])
    received = weights.mean(axis=2)
    p = [sps.mannwhitneyu(received[sensitive, h], received[~sensitive, h], axis=0).pvalue.min() for h in
         range(weights.shape[1])]  # fmt: skip
    distance = np.abs(maps[0] - maps[1]).sum(axis=-1).mean(axis=-1) / 2
    return pd.DataFrame({"head": np.arange(len(entropy)), "entropy": entropy, "class_distance": distance,
                         "p": np.minimum(1.0, np.array(p) * tokens)})  # fmt: skip


def attention_relevance(
    tokens: Forward, weights: Forward, X: np.ndarray, *, probes: int = 8, seed: int = 0
) -> np.ndarray:
    """Genes as the attention sees them: sensitivity of the tokens to a gene, weighted by the attention they receive.

    Root mean square over cells of d(a·token)/d(gene), with a the attention received (held fixed), estimated with
    `probes` random directions. Reads weights, not the prediction: the view that "attention explains" rests on.

    Parameters
    ----------
    tokens
        Expression (n, genes) to tokens (n, T, d).
    weights
        Expression (n, genes) to attention weights (n, heads, T, T).

    Returns
    -------
    ndarray
        (genes,) non-negative.
    """
    x = torch.as_tensor(np.asarray(X), dtype=torch.float32).requires_grad_(True)
    with torch.no_grad():
        received = weights(x).mean(dim=(1, 2))[..., None]
    generator, total = torch.Generator().manual_seed(seed), torch.zeros(x.shape[1])
    for _ in range(probes):
        sequence = tokens(x)
        probe = torch.randn(sequence.shape[1:], generator=generator)
        total += torch.autograd.grad((received * sequence * probe).sum(), x)[0].square().mean(dim=0)
    return (total / probes).sqrt().numpy()


# --- trained networks, explained --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explained:
    """One network, trained on the cells outside fold 0, and what explains it on those cells.

    Attributes
    ----------
    genes
        (genes,) that the network reads.
    rows
        Training cells, as rows of ``protocols.cells_of``; the held-out rest serves to test lists of genes.
    X, y
        Their standardised expression and the labels that were learned (shuffled ones for a randomised network).
    integrated, expected
        The two attributions.
    relevance
        (genes,) :func:`attention_relevance`.
    attention
        :func:`attention_table`.
    """

    genes: np.ndarray
    rows: np.ndarray
    X: np.ndarray
    y: np.ndarray
    integrated: Attribution
    expected: Attribution
    relevance: np.ndarray
    attention: pd.DataFrame


def training_rows(name: str, profile: str) -> np.ndarray:
    """Rows of ``protocols.cells_of`` outside fold 0 of the saved partition that all models share."""
    fold = protocols.splits(protocols.cells_of(name, profile), config.profile(profile).folds, 0)
    return np.flatnonzero(fold > 0)


def explain(name: str, profile: str, seed: int, randomised: bool = False) -> Explained:
    """Train ATSDP-NET with labels (protocol S) on a prepared set and explain it; cached by content.

    Parameters
    ----------
    seed
        Of the network, its bulk stage and the draws of expected gradients.
    randomised
        Train on shuffled labels: what the attributions then still show does not come from the labels.
    """
    task, rows, X, y = _training_cells(name, profile, seed, randomised)
    source, path = protocols.source_of(name, profile, seed), _stored(name, profile, seed, randomised)
    z = cache.kept(path, _load_arrays, lambda temporary: _savez(temporary, _explain(task, X, y, source)))
    ig, eg = (Attribution(*(z[f"{kind}_{part}"] for part in ("values", "delta", "change"))) for kind in ("ig", "eg"))
    attention = pd.DataFrame({c: z[f"attention_{c}"] for c in ("head", "entropy", "class_distance", "p")})
    return Explained(source.genes, rows, X, y, ig, eg, z["relevance"], attention)


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as z:
        return dict(z)


def _training_cells(name: str, profile: str, seed: int, randomised: bool):
    cells, source = protocols.cells_of(name, profile), protocols.source_of(name, profile, seed)
    rows = training_rows(name, profile)
    X, y = preprocess.standardised(cells, source, rows), cells.y[rows]
    if randomised:
        y = np.random.default_rng([seed, 81]).permutation(y)
    return protocols.Task(name, "S", protocols.ATSDP, profile, seed=seed), rows, X, y


def _stored(name: str, profile: str, seed: int, randomised: bool) -> Path:
    """File of :func:`explain`: named by the training cells, the bulk, the settings and the code."""
    task, _, X, y = _training_cells(name, profile, seed, randomised)
    source, spec = protocols.source_of(name, profile, seed), protocols.spec_of(task)
    sizes = (protocols.architecture(spec, {}), protocols.training(spec, config.profile(profile), {}), spec.balance)
    code = (
        cache.code("interpretation.interpret_attribution._explain", "models.atsdp.ATSDP", cut=protocols.CUT),
        runtime.precision(),
    )
    key = cache.key(X, y, source.X[source.train], source.y[source.train], task.seed, sizes, *code)
    return paths.CACHE / "explained" / f"{key}.npz"


def _savez(path: str, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as handle:
        np.savez_compressed(handle, **arrays)


def _explain(task: protocols.Task, X: np.ndarray, y: np.ndarray, source: preprocess.Source) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    spec = protocols.spec_of(task)
    xb, yb, weight = preprocess.balance(X, y, spec.balance, task.seed)
    net = protocols.build(task, spec).fit(xb, yb, weight=weight, source=source).net_.cpu().eval()
    block = net.predictor.attention

    def weights(x: Tensor) -> Tensor:
        return block.weights(net.embed(x))

    with torch.no_grad():
        table = attention_table(weights(torch.as_tensor(X)).numpy(), y)
    found = {f"attention_{c}": table[c].to_numpy() for c in table}
    found["relevance"] = attention_relevance(lambda x: block.tokens(net.embed(x)), weights, X, seed=task.seed)
    for kind, a in (
        ("ig", integrated_gradients(net, X, X.mean(axis=0))),
        ("eg", expected_gradients(net, X, X, seed=task.seed)),
    ):
        found |= {f"{kind}_values": a.values, f"{kind}_delta": a.delta, f"{kind}_change": a.change}
    return found


def explain_all(
    name: str, profile: str, seeds: Sequence[int], *, jobs: int = 1, randomised: bool = False
) -> list[Explained]:
    """:func:`explain` for several seeds, in parallel processes; the same result for any `jobs`."""
    from joblib import delayed

    datasets.prepare(name)  # in tier geo no training has prepared the twin
    left = [s for s in seeds if not _stored(name, profile, s, randomised).exists()]
    grid.pool(max(1, min(jobs, len(left))))(delayed(explain)(name, profile, s, randomised) for s in left)
    return [explain(name, profile, s, randomised) for s in seeds]


def ensemble(attributions: Sequence[Attribution]) -> Attribution:
    """Mean attribution of several networks on the same cells: for integrated gradients, that of their mean log-odds."""
    return Attribution(*(np.mean([getattr(a, f) for a in attributions], axis=0) for f in ("values", "delta", "change")))


def rankings(networks: Sequence[Explained]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Key genes of several networks together, and every ranking of the genes to compare them with.

    Parameters
    ----------
    networks
        Trained on the same cells with different seeds.

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
