"""Held-out expression clusters of cell lines, all drugs: simple models, their nulls, and estimates without a label.

A task is a drug and a cluster (:func:`atsdp_utils.experiments.pseudo.held_out_tasks`): learn from the lines outside the
cluster, score those in it. Each side is standardised by itself; no label of the cluster is read but to score. What does
not depend on the drug is computed once a cluster. Networks on the same tasks are trained by the grid.
"""

from collections import namedtuple
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import kneighbors_graph
from sklearn.svm import SVC

from atsdp_utils.data import cell_lines, gdsc, preprocess
from atsdp_utils.experiments import pseudo
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.models import plus
from atsdp_utils.models.joint import joint_heads
from atsdp_utils.models.loop import tensor

LOGISTIC, ALL_GENES, FOREST, SVM, PC1 = (
    "logistic regression", "logistic regression, all genes", "random forest", "support vectors", "PC1, bulk sign",
)  # fmt: skip
#: Models that are compared with networks as the simple ones.
SIMPLE = (LOGISTIC, ALL_GENES, FOREST, SVM, PC1)
#: One network with a logit a drug (recipe ``joint``, one member): it sees every drug at the cost of a training.
JOINT = "joint network"
WITH_JOINT = f"mean of {LOGISTIC} and {JOINT}"
#: Simple candidates for ATSDP-NET+, the simplest first; written down with the rule of :func:`chosen`, when the means of
#: the plain regression (on both numbers of genes), the forest and PC1 had been seen and those of the others had not.
#: The last two came later, when the means of all others had been seen and those of the network had not.
CANDIDATES = (
    LOGISTIC, PC1, "logistic regression on ranks", "logistic regression, smoothed", "mean over splits of lines",
    ALL_GENES, "mean of logistic regression and PC1", "mean of logistic regression and forest",
    "mean over splits of lines, smoothed", JOINT, WITH_JOINT,
)  # fmt: skip
#: Drugs whose models are compared on a task (None: all), trees of a forest, and permutations of labels for the
#: regression and for the network.
Amounts = namedtuple("Amounts", "drugs trees permutations of_network")
AMOUNTS = {"smoke": Amounts(9, 10, 1, 1), "quick": Amounts(None, 100, 5, 1), "paper": Amounts(None, 300, 20, 5)}
#: Splits of lines whose models are averaged, each on a share of the lines; neighbours of a smoothed score; folds of a
#: cross-validated AUC.
SPLITS, SHARE, NEIGHBOURS, FOLDS = 5, 0.8, 10, 3


@dataclass(frozen=True)
class Side:
    """Training rows A (lines, genes) and target rows B (n, genes), each standardised by itself."""

    A: np.ndarray
    B: np.ndarray

    @cached_property
    def rotated(self) -> tuple[np.ndarray, np.ndarray]:
        """A and B in the space that the rows of A span: a model with an L2 penalty is the same in it, and small."""
        size, U = np.linalg.eigh((self.A @ self.A.T).astype(float))
        keep = size > 1e-6 * size[-1]
        U, size = U[:, keep], np.sqrt(size[keep])
        return U * size, (self.B @ self.A.T) @ U / size

    @cached_property
    def first(self) -> np.ndarray:
        """First principal component of the target rows, (n,), of arbitrary sign."""
        return np.linalg.svd(self.B - self.B.mean(0), full_matrices=False)[0][:, 0]

    @cached_property
    def kernel(self) -> tuple[np.ndarray, np.ndarray]:
        """Gaussian kernel of the training rows, and of target with training rows: exp(-distance² / genes)."""
        own, cross = (self.A**2).sum(1), self.B @ self.A.T
        of_train = own[:, None] + own - 2 * self.A @ self.A.T
        of_target = (self.B**2).sum(1)[:, None] + own - 2 * cross
        return np.exp(-of_train / self.A.shape[1]), np.exp(-of_target / self.A.shape[1])

    @cached_property
    def smoother(self) -> np.ndarray:
        """Mean over each target row and its neighbours, (n, n)."""
        graph = kneighbors_graph(self.B, min(NEIGHBOURS, len(self.B) - 1), metric="cosine", include_self=False)
        graph = graph.toarray() + np.eye(len(self.B))
        return graph / graph.sum(1, keepdims=True)

    def logistic(self, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Decision for the target rows by a logistic regression on `rows` with labels y (lines,)."""
        of_lines, of_target = self.rotated
        return plus.logistic().fit(of_lines[rows], y[rows]).decision_function(of_target)

    def splits(self, y: np.ndarray) -> np.ndarray:
        """Decisions of models on different shares of the labelled lines, drawn within class, (splits, n)."""
        rng, parts = np.random.default_rng(pseudo.CLUSTER_SEED), []
        for _ in range(SPLITS):
            rows = [rng.permutation(np.flatnonzero(y == c)) for c in (0, 1)]
            parts.append(self.logistic(y, np.concatenate([r[: round(SHARE * len(r))] for r in rows])))
        return np.array(parts)

    def forest(self, y: np.ndarray, trees: int) -> np.ndarray:
        rows = y >= 0
        forest = RandomForestClassifier(trees, min_samples_leaf=5, class_weight="balanced", random_state=0)
        return forest.fit(self.A[rows], y[rows]).predict_proba(self.B)[:, 1]

    def svm(self, y: np.ndarray) -> np.ndarray:
        rows, (own, cross) = np.flatnonzero(y >= 0), self.kernel
        machine = SVC(kernel="precomputed", class_weight="balanced").fit(own[np.ix_(rows, rows)], y[rows])
        return machine.decision_function(cross[:, rows])


def side(train: np.ndarray, target: np.ndarray, max_genes: int) -> Side:
    """Lines of two masks (lines,) on the most variable genes."""
    bulk = gdsc.load_bulk()
    X = preprocess.columns(bulk.X, bulk.genes, gdsc.shared_genes(bulk, bulk.genes, max_genes))
    return Side(*(preprocess.Standardizer().fit_transform(X[part]) for part in (train, target)))


def cells_side(cells: preprocess.Cells | cell_lines.Profiles, max_genes: int, lines=slice(None)) -> Side:
    """All lines, or the rows `lines` of the bulk, and the cells of a set or other profiles of lines."""
    bulk = gdsc.load_bulk()
    genes = gdsc.shared_genes(bulk, cells.genes, max_genes)
    both = (bulk.X[lines], bulk.genes), (cells.X, cells.genes)
    return Side(*(preprocess.Standardizer().fit_transform(preprocess.columns(*x, genes)) for x in both))


def joint_scores(of: Side, labels: np.ndarray, profile: str) -> np.ndarray:
    """Logits of the target rows by the joint network, (n, drugs), learnt from `labels` (lines, drugs)."""
    runtime.one_thread()
    arch, cfg = config.TABLE2["DATA1"], config.profile(profile).training
    every = np.ones(len(labels), bool)
    source = preprocess.Source(of.A, labels[:, 0], np.arange(of.A.shape[1]), every, labels)
    net = plus.adabn(joint_heads(source, labels, arch, cfg, 0, 0)[0], source, of.B, cfg, 0)
    return net(tensor(of.B), "target").detach().cpu().numpy()


def auc(y: np.ndarray, score: np.ndarray) -> float:
    """AUC over rows with a label, by ranks (thousands are asked for); y is 1, 0 or -1."""
    rank, positive = rankdata(score[y >= 0]), y[y >= 0] == 1
    n = positive.sum()
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(rank) - n)))


def _even(*scores: np.ndarray) -> np.ndarray:
    """Mean of the scores' ranks: no scale of one outweighs that of another."""
    return np.mean([rankdata(s) for s in scores], axis=0)


def simple_scores(near: Side, far: Side, of_ranks: Side, y: np.ndarray, trees: int) -> dict[str, np.ndarray]:
    """Scores of the target rows (n,) by every simple model and candidate, and the splits' (splits, n) as ``splits``.

    `near` is on the profile's genes, `far` on all, `of_ranks` on ranks; y (lines,) are labels of training lines.
    """
    rows = np.flatnonzero(y >= 0)
    linear, splits = near.logistic(y, rows), near.splits(y)
    pc1 = near.first * np.sign(near.first @ (linear - linear.mean()))
    found = {LOGISTIC: linear, ALL_GENES: far.logistic(y, rows), FOREST: near.forest(y, trees), SVM: near.svm(y)}
    found |= {PC1: pc1, "logistic regression on ranks": of_ranks.logistic(y, rows)}
    found |= {"logistic regression, smoothed": near.smoother @ linear, "mean over splits of lines": splits.mean(0)}
    found["mean over splits of lines, smoothed"] = near.smoother @ splits.mean(0)
    found["mean of logistic regression and PC1"] = _even(linear, pc1)
    found["mean of logistic regression and forest"] = _even(linear, found[FOREST])
    return found | {"splits": splits}


def without_labels(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """What can be known of scores (of :func:`simple_scores`) without a label of the target.

    ``agreement``: mean Spearman correlation of logistic regression, forest and PC1; ``stability``: that of the models
    of different splits of lines.
    """
    three, splits = np.array([scores[m] for m in (LOGISTIC, FOREST, PC1)]), scores["splits"]
    return {name: _mean_correlation(s) for name, s in (("agreement", three), ("stability", splits))}


def _mean_correlation(scores: np.ndarray) -> float:
    return float(spearmanr(scores, axis=1).statistic[np.triu_indices(len(scores), 1)].mean())


def cross_validated(of: Side, y: np.ndarray) -> float:
    """Mean AUC of the logistic regression over folds of the training lines: what a drug's usual report says."""
    rows = np.flatnonzero(y >= 0)
    X, y, found = of.rotated[0][rows], y[rows], []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(X, y):
        found.append(auc(y[test], plus.logistic().fit(X[train], y[train]).decision_function(X[test])))
    return float(np.mean(found))


def held_out_values(cluster: int, profile: str) -> pd.DataFrame:
    """Everything about the tasks of one cluster, long: ``drug, cluster, what, value``; kept on disk.

    `what` is a model (its AUC), ``null 0`` … (AUC after the lines' labels were permuted, for all drugs at once),
    ``above others`` (share of the other drugs' models with a smaller AUC), the same two with ``, network``, or an
    estimate that reads no label of the cluster: ``agreement``, ``stability``, ``other clusters``, ``cross-validated``.
    """
    sizes = config.profile(profile)
    amounts = AMOUNTS[profile], sizes.max_genes, sizes.training, config.TABLE2["DATA1"]
    parts = cluster, amounts, gdsc.bulk_key(), gdsc.all_labels(gdsc.load_bulk().lines)
    key = cache.key(*parts, runtime.precision(), cache.code("experiments.cluster_study._values"))
    path = paths.RESULTS / "clusters" / f"{cluster}-{key}.csv"
    return cache.kept(path, pd.read_csv, lambda part: _values(cluster, profile).to_csv(Path(part), index=False))


def _values(cluster: int, profile: str) -> pd.DataFrame:
    (most, trees, permutations, of_network), genes = AMOUNTS[profile], config.profile(profile).max_genes
    of = pseudo.clusters()
    train, target = of != cluster, of == cluster
    near = side(train, target, genes)
    far = side(train, target, len(gdsc.load_bulk().genes) if profile != "smoke" else genes)
    of_ranks = Side(plus.ranks(near.A), plus.ranks(near.B))
    labels = pd.DataFrame(gdsc.all_labels(gdsc.load_bulk().lines), columns=gdsc.drugs())
    tasks = pseudo.held_out_tasks(profile)
    drugs = [d for d, k in tasks if k == cluster]
    enough = [d for d in labels if min((labels.loc[train, d] == c).sum() for c in (0, 1)) >= 2][:most]
    Y, T = labels[train].to_numpy(), labels[target].reset_index(drop=True)
    every = {d: near.logistic(labels.loc[train, d].to_numpy(), np.flatnonzero(labels.loc[train, d] >= 0))
             for d in dict.fromkeys([*enough, *drugs])}  # fmt: skip
    inner = {k: side(train & (of != k), of == k, genes) for k in range(pseudo.CLUSTERS) if k != cluster}
    rows = []
    orders = [np.random.default_rng([cluster, i]).permutation(len(Y)) for i in range(permutations)]
    joint = [pd.DataFrame(joint_scores(near, Y[order], profile), columns=labels.columns)
             for order in (slice(None), *orders[:of_network])]  # fmt: skip
    for drug in drugs:
        y, truth = labels.loc[train, drug].to_numpy(), T[drug].to_numpy()
        scores = simple_scores(near, far, of_ranks, y, trees)
        scores[JOINT] = joint[0][drug].to_numpy()
        scores[WITH_JOINT] = _even(scores[LOGISTIC], scores[JOINT])
        values = {name: auc(truth, s) for name, s in scores.items() if name != "splits"} | without_labels(scores)
        for own, of_drugs, name in ((LOGISTIC, every, ""), (JOINT, joint[0], ", network")):
            others = np.array([auc(truth, np.asarray(of_drugs[d])) for d in every if d != drug])
            values[f"above others{name}"] = np.mean((others < values[own]) + 0.5 * (others == values[own]))
        values |= {f"null {i}, network": auc(truth, scored[drug].to_numpy()) for i, scored in enumerate(joint[1:])}
        shuffled = [y[order] for order in orders]
        values |= {f"null {i}": auc(truth, near.logistic(s, np.flatnonzero(s >= 0))) for i, s in enumerate(shuffled)}
        elsewhere = [_inner(inner[k], labels[drug].to_numpy(), of, cluster, k) for k in inner if (drug, k) in tasks]
        elsewhere = [a for a in elsewhere if np.isfinite(a)]
        values["other clusters"] = np.mean(elsewhere) if elsewhere else np.nan
        values["cross-validated"] = cross_validated(near, y)
        rows += [(drug, cluster, name, value) for name, value in values.items()]
    return pd.DataFrame(rows, columns=["drug", "cluster", "what", "value"])


def _inner(own: Side, y: np.ndarray, of: np.ndarray, cluster: int, k: int) -> float:
    """AUC on cluster k by a model that saw neither it nor `cluster`; NaN where a class has too few lines left."""
    outside = y[(of != cluster) & (of != k)]
    if min((outside == c).sum() for c in (0, 1)) < pseudo.MIN_TRAINING:
        return float("nan")
    return auc(y[of == k], own.logistic(outside, np.flatnonzero(outside >= 0)))


def specificity(
    cells: preprocess.Cells, y: np.ndarray, profile: str, permutations: int = 0
) -> tuple[pd.DataFrame, np.ndarray]:
    """AUC on a set's labels y (cells,) of each drug's logistic regression and logit, and the regressions' scores.

    The table has ``model, drug, draw, auc``: draw -1 has the lines' own labels; in draws 0 … the lines change places,
    for all drugs at once, and the network sees as many as :data:`AMOUNTS` says. The scores, (drugs, cells), are of -1.
    """
    of, rows, own = cells_side(cells, config.profile(profile).max_genes), [], []
    labels = gdsc.all_labels(gdsc.load_bulk().lines)
    for draw in range(-1, permutations):
        order = np.random.default_rng([draw, 7]).permutation(len(labels)) if draw >= 0 else slice(None)
        found = {LOGISTIC: [of.logistic(calls, np.flatnonzero(calls >= 0)) for calls in labels[order].T]}
        own = own or found[LOGISTIC]
        if draw < AMOUNTS[profile].of_network:
            found[JOINT] = joint_scores(of, labels[order], profile).T
        for model, scored in found.items():
            rows += [(model, drug, draw, auc(y, z)) for drug, z in zip(gdsc.drugs(), scored, strict=True)]
    return pd.DataFrame(rows, columns=["model", "drug", "draw", "auc"]), np.array(own)


def chosen(wide: pd.DataFrame, candidates: tuple[str, ...]) -> tuple[str, pd.Series]:
    """The candidate that the rule takes on half of the drugs, and whether each drug is of the half that chooses.

    `wide` are AUCs, rows ``drug, cluster``, columns candidates. Drugs in alphabetical order choose and confirm in turn.
    The largest mean AUC over the choosing tasks is the best; of those behind it by at most one standard error of the
    paired difference (over drugs), the first in the order of `candidates`, which has the simplest first, is taken.
    """
    drug = wide.index.get_level_values("drug")
    chooses = pd.Series(np.arange(drug.nunique()) % 2 == 0, sorted(set(drug)))
    part = wide.loc[chooses[drug].to_numpy(), list(candidates)]
    behind = part.rsub(part[part.mean().idxmax()], axis=0)
    by_drug = behind.groupby(level="drug").mean()
    near = behind.mean() <= by_drug.sem().fillna(0.0)  # of one drug there is no error: the best itself
    return next(name for name in candidates if near[name]), chooses
