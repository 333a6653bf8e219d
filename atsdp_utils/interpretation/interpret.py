"""Gene lists, gene scores and their correlations, rankings of genes, enrichment (sections 3.5-3.7).

Everything works on arrays: expression ``X`` (cells, genes) and labels ``y`` (1 sensitive, 0 resistant). Gene sets are
columns of a boolean membership matrix (genes, sets), so that a thousand random sets cost one matrix product.
Attributions of a network are in :mod:`atsdp_utils.interpretation.interpret_attribution`, trajectories in
:mod:`atsdp_utils.interpretation.interpret_pseudotime`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as sps

from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.experiments import grid, protocols, tables
from atsdp_utils.foundation import config

SENSITIVE, RESISTANT = "sensitive", "resistant"
DIRECTIONS = (SENSITIVE, RESISTANT)
#: The six genes that section 3.6 names (ambiguity 29). None of them is planted in a twin.
PAPER_GENES = {
    "ZBTB48": RESISTANT,
    "NEK6": RESISTANT,
    "FBXO25": RESISTANT,
    "UCHL1": SENSITIVE,
    "GNGT1": SENSITIVE,
    "EDIL3": SENSITIVE,
}


# --- differences between two groups of cells --------------------------------------------------------------------------


def binary(y, name: str = "y") -> np.ndarray:
    """Check labels: (n,) of 0 and 1, both present; returns booleans, True where sensitive."""
    y = np.asarray(y)
    if y.ndim != 1 or set(np.unique(y).tolist()) != {0, 1}:
        found = sorted(set(np.ravel(y).tolist()))[:5]
        raise ValueError(f"{name}: found values {found}, expected 0 and 1, both present; drop unlabelled cells first")
    return y.astype(bool)


def rank_sum(ranks: np.ndarray, sensitive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilcoxon rank-sum of every column, sensitive against resistant cells.

    Parameters
    ----------
    ranks
        (n, genes) average ranks of the values within each column.
    sensitive
        (n,) booleans, or (labellings, n) with the same number of sensitive cells in each.

    Returns
    -------
    tuple of ndarray
        Both (genes,), or (labellings, genes): z without tie correction, as scanpy's ``rank_genes_groups`` computes it,
        and Cliff's delta in [-1, 1], P(a sensitive cell is higher) - P(it is lower).
    """
    n, n1 = sensitive.shape[-1], int(sensitive.sum(axis=-1).flat[0])
    n0 = n - n1
    total = sensitive.astype(float) @ ranks
    z = (total - n1 * (n + 1) / 2) / np.sqrt(n1 * n0 * (n + 1) / 12)
    return z, 2 * (total - n1 * (n1 + 1) / 2) / (n1 * n0) - 1


def differential_genes(X: np.ndarray, y, genes: Sequence[str]) -> pd.DataFrame:
    """Wilcoxon test of every gene between sensitive and resistant cells, in the order of `genes`.

    Returns
    -------
    DataFrame
        Columns ``gene, z, p, padj`` (Benjamini-Hochberg), ``delta`` (Cliff's); positive is higher in sensitive cells.
    """
    return _tested(sps.rankdata(X, axis=0), binary(y), genes)


def _tested(ranks: np.ndarray, sensitive: np.ndarray, genes: Sequence[str]) -> pd.DataFrame:
    z, delta = rank_sum(ranks, sensitive)
    p = 2 * sps.norm.sf(np.abs(z))
    return pd.DataFrame(
        {"gene": np.asarray(genes), "z": z, "p": p, "padj": sps.false_discovery_control(p), "delta": delta}
    )


def deg_lists(table: pd.DataFrame, *, top: int = 50, alpha: float = 0.05) -> dict[str, np.ndarray]:
    """The paper's lists: the `top` genes of each direction with adjusted p below `alpha`.

    Returns
    -------
    dict
        ``sensitive`` and ``resistant``: positions of genes in `table`, best first; empty where none passes.
    """
    z, passed = table["z"].to_numpy(), table["padj"].to_numpy() < alpha
    lists = {}
    for name, sign in zip(DIRECTIONS, (1, -1), strict=True):
        order = np.argsort(-sign * z, kind="stable")
        lists[name] = order[(passed & (sign * z > 0))[order]][:top]
    return lists


# --- gene scores ------------------------------------------------------------------------------------------------------


def expression_bins(X: np.ndarray, n_bins: int = 25) -> np.ndarray:
    """Bin of mean expression of every gene, cut as ``scanpy.tl.score_genes`` cuts it; (genes,) int."""
    rank = sps.rankdata(np.asarray(X, dtype=np.float64).mean(axis=0), method="min")
    return (rank // max(1, round(X.shape[1] / (n_bins - 1)))).astype(int)


def membership(sets: Sequence[np.ndarray], n_genes: int) -> np.ndarray:
    """Boolean matrix (genes, sets) of sets given as positions of genes."""
    member = np.zeros((n_genes, len(sets)), dtype=bool)
    for j, positions in enumerate(sets):
        member[positions, j] = True
    return member


def score_sets(X: np.ndarray, member: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Score of every set in every cell: mean of its genes minus the mean of control genes of like expression.

    ``scanpy.tl.score_genes`` samples 50 control genes from each bin that the set touches; here all other genes of a
    bin are the controls of its genes, so the score needs no random numbers.

    Parameters
    ----------
    X
        (n, genes) expression.
    member
        (genes, sets) boolean.
    bins
        (genes,) bins of expression.

    Returns
    -------
    ndarray
        (n, sets) float64; NaN for an empty set.
    """
    one_hot = (bins[:, None] == np.unique(bins)[None, :]).astype(np.float64)
    size = member.sum(axis=0)
    in_bin = one_hot.T @ member  # genes of the set in each bin
    others = one_hot.sum(axis=0)[:, None] - in_bin
    with np.errstate(invalid="ignore", divide="ignore"):
        control = np.where(others > 0, in_bin / others, 0.0) / size
        weight = np.where(member, 1.0 / size, -(one_hot @ control))
    return np.asarray(X, dtype=np.float64) @ weight


def draw_sets(strata: np.ndarray, reference: np.ndarray, n_sets: int, seed: int) -> np.ndarray:
    """Random gene sets with as many genes in every stratum as `reference` has, without replacement.

    With one stratum for all genes these are plain random sets of equal size; with :func:`expression_bins` they are
    matched for expression.

    Returns
    -------
    ndarray
        (genes, n_sets) boolean membership.
    """
    rng = np.random.default_rng(seed)
    member = np.zeros((len(strata), n_sets), dtype=bool)
    for stratum, count in zip(*np.unique(strata[reference], return_counts=True), strict=True):
        pool = np.flatnonzero(strata == stratum)
        picked = np.argsort(rng.random((n_sets, len(pool))), axis=1)[:, :count]
        member[pool[picked], np.arange(n_sets)[:, None]] = True
    return member


def correlate(a, b) -> dict[str, float]:
    """Pearson r and r² of two scores with 95 % intervals (Fisher z), and the regression line b = slope·a + intercept.

    The paper prints one number as R and as R² (ambiguity 7), so both are given. All NaN where a score is constant
    or missing, which is what an empty list of genes gives.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    keys = ("r", "r_low", "r_high", "r2", "r2_low", "r2_high", "slope", "intercept")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and np.ptp(a) > 0 and np.ptp(b) > 0):
        return dict.fromkeys(keys, np.nan) | {"n": len(a)}
    r, low, high = stats.pearson_interval(a, b)
    squares = (r**2, 0.0 if low < 0 < high else min(low**2, high**2), max(low**2, high**2))
    slope, intercept = np.polyfit(a, b, 1)
    return dict(zip(keys, (r, low, high, *squares, slope, intercept), strict=True)) | {"n": len(a)}


def null_correlations(X: np.ndarray, target: np.ndarray, member: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Pearson r between the score of every set of `member` and `target` (n,); (sets,)."""
    scores = score_sets(X, member, bins)
    scores -= scores.mean(axis=0)
    target = target - target.mean()
    norm = np.sqrt((scores**2).sum(axis=0) * (target**2).sum())
    return np.divide(target @ scores, norm, out=np.full(len(norm), np.nan), where=norm > 0)


@dataclass(frozen=True)
class ScoreComparison:
    """Gene scores from true and from predicted labels.

    Attributes
    ----------
    true, predicted
        Lists of genes, as :func:`deg_lists` gives them.
    scores
        One row a scored cell; columns ``true_sensitive, predicted_sensitive, true_resistant, predicted_resistant``.
    table
        One row a direction: :func:`correlate` of the two scores, sizes of the lists, genes on both (`n_shared`), and
        `r_unshared`, the correlation after the genes on both lists are taken out of both.
    """

    true: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    scores: pd.DataFrame
    table: pd.DataFrame


class ListScorer:
    """Derives lists from some cells and scores them on others, both kinds of labels on the same values.

    Parameters
    ----------
    X
        (n, genes) expression.
    genes
        Gene symbols.
    derive, score
        Booleans (n,): the cells that lists come from and the cells that are scored; all by default, as in the paper.
        Disjoint cells make the held-out version.
    top, alpha
        See :func:`deg_lists`. ``alpha=1.1`` takes the `top` genes whatever their p.
    """

    def __init__(self, X, genes, *, derive=None, score=None, top: int = 50, alpha: float = 0.05) -> None:
        everything = np.ones(len(X), dtype=bool)
        self.derive = everything if derive is None else np.asarray(derive, dtype=bool)
        self.score = everything if score is None else np.asarray(score, dtype=bool)
        self.genes, self.top, self.alpha = np.asarray(genes), top, alpha
        self.X = np.asarray(X)[self.score]
        self.bins = expression_bins(np.asarray(X)[self.derive])
        self._ranks = sps.rankdata(np.asarray(X)[self.derive], axis=0)

    def lists(self, y) -> dict[str, np.ndarray]:
        """Lists derived from labels (n,) of all cells."""
        table = _tested(self._ranks, binary(np.asarray(y)[self.derive]), self.genes)
        return deg_lists(table, top=self.top, alpha=self.alpha)

    def compare(self, y_true, y_pred) -> ScoreComparison:
        """Lists and scores from true and from predicted labels, both (n,) of 0 and 1 over all cells."""
        true, predicted = self.lists(y_true), self.lists(y_pred)
        scores, rows = {}, []
        for name in DIRECTIONS:
            shared = np.intersect1d(true[name], predicted[name])
            pair = [true[name], predicted[name], *(np.setdiff1d(s[name], shared) for s in (true, predicted))]
            values = score_sets(self.X, membership(pair, self.X.shape[1]), self.bins)
            scores |= {f"true_{name}": values[:, 0], f"predicted_{name}": values[:, 1]}
            sizes = {"n_true": len(true[name]), "n_predicted": len(predicted[name]), "n_shared": len(shared)}
            fit = correlate(values[:, 1], values[:, 0])
            rows.append({"list": name} | fit | sizes | {"r_unshared": correlate(values[:, 3], values[:, 2])["r"]})
        return ScoreComparison(true, predicted, pd.DataFrame(scores), pd.DataFrame(rows))

    def nulls(self, comparison: ScoreComparison, y_pred, n_draws: int, seed: int) -> pd.DataFrame:
        """Correlations with the score of the true list that arise without a good prediction.

        *plain*: random genes, as many as the predicted list has (the paper's test); *matched*: random genes of the
        same expression bins; *permuted*: the list that predictions dealt out to random cells give. Only the last keeps
        what any list of differing genes shares, and only its p-values are uniform when predictions know nothing.

        Returns
        -------
        DataFrame
            One row a draw: ``list, null, r``. No rows for a direction where a list is empty.
        """
        rng = np.random.default_rng(seed)
        sensitive = binary(np.asarray(y_pred)[self.derive])
        z, _ = rank_sum(self._ranks, rng.permuted(np.tile(sensitive, (n_draws, 1)), axis=1))
        rows = []
        for name, sign in zip(DIRECTIONS, (1, -1), strict=True):
            target, predicted = comparison.scores[f"true_{name}"].to_numpy(), comparison.predicted[name]
            if not (len(predicted) and np.isfinite(target).all()):
                continue
            best = np.argpartition(-sign * z, len(predicted) - 1, axis=1)[:, : len(predicted)]
            members = {
                "plain": draw_sets(np.zeros_like(self.bins), predicted, n_draws, seed),
                "matched": draw_sets(self.bins, predicted, n_draws, seed),
                "permuted": membership(best, len(self.genes)),
            }
            for kind, member in members.items():
                r = null_correlations(self.X, target, member, self.bins)
                rows.append(pd.DataFrame({"list": name, "null": kind, "r": r}))
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["list", "null", "r"])

    def shuffled(self, y_true, y_pred, n_shuffles: int, seed: int) -> pd.DataFrame:
        """:meth:`compare` after true and predicted labels move **together** to random cells.

        The predictions stay as right as they were, but the labels mean nothing any more: what correlation is left is
        built in by scoring two overlapping lists on the same cells.
        """
        rng = np.random.default_rng(seed)
        orders = [rng.permutation(len(y_true)) for _ in range(n_shuffles)]
        tables = [self.compare(np.asarray(y_true)[o], np.asarray(y_pred)[o]).table.assign(shuffle=i)
                  for i, o in enumerate(orders)]  # fmt: skip
        return pd.concat(tables, ignore_index=True)


def null_table(comparison: ScoreComparison, null: pd.DataFrame) -> pd.DataFrame:
    """Observed r against :meth:`ListScorer.nulls`: ``list, null, r, null_mean, null_95, null_max, p``."""
    observed = comparison.table.set_index("list")["r"]
    rows = [
        {"list": name, "null": kind, "r": observed[name], "null_mean": draws.mean(), "null_95": draws.quantile(0.95),
         "null_max": draws.max(), "p": stats.permutation_p(observed[name], draws)}
        for (name, kind), draws in null.groupby(["list", "null"], sort=False)["r"]
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["list", "null", "r", "null_mean", "null_95", "null_max", "p"])


# --- rankings of genes ------------------------------------------------------------------------------------------------


def recovery(scores: Mapping[str, np.ndarray], planted: np.ndarray, ks: Sequence[int] = (10, 20, 50)) -> pd.DataFrame:
    """How well rankings find planted genes.

    Parameters
    ----------
    scores
        Name of a ranking to (genes,) values, larger is more important.
    planted
        (genes,) booleans.

    Returns
    -------
    DataFrame
        One row a ranking: ``ranking, auroc, low, high`` (95 % interval), ``ap, precision@k`` for each k; the areas are
        NaN where no gene, or every gene, is planted.
    """
    from sklearn.metrics import average_precision_score

    planted, rows = np.asarray(planted, dtype=bool), []
    possible = planted.any() and not planted.all()
    for name, value in scores.items():
        best = planted[np.argsort(-np.asarray(value), kind="stable")]
        row = {"ranking": name, "auroc": np.nan, "low": np.nan, "high": np.nan, "ap": np.nan}
        if possible:
            area = stats.auc_interval(planted.astype(int), value)
            row |= {"auroc": area.mean, "low": area.low, "high": area.high}
            row["ap"] = average_precision_score(planted, value)
        rows.append(row | {f"precision@{k}": best[:k].mean() for k in ks})
    return pd.DataFrame(rows)


def stability(scores: np.ndarray, k: int = 50) -> pd.DataFrame:
    """Agreement of every pair of rankings: Spearman over all genes and Jaccard of the `k` best.

    Parameters
    ----------
    scores
        (rankings, genes), larger is more important.
    """
    best = [set(np.argsort(-s, kind="stable")[:k].tolist()) for s in scores]
    rows = [
        {"a": i, "b": j, "spearman": sps.spearmanr(scores[i], scores[j]).statistic,
         f"jaccard@{k}": len(best[i] & best[j]) / len(best[i] | best[j])}
        for i, j in combinations(range(len(scores)), 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def ranks_of(named: Sequence[str], genes: Sequence[str], scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Rank (1 is best) of named genes under each ranking; missing where a gene is not among `genes`."""
    position = {g: i for i, g in enumerate(genes)}
    table = pd.DataFrame({"gene": list(named), "measured": [g in position for g in named]})
    for name, value in scores.items():
        rank = sps.rankdata(-np.asarray(value), method="min")
        table[name] = pd.array([int(rank[position[g]]) if g in position else pd.NA for g in named], dtype="Int64")
    return table.assign(of=len(genes))


# --- predictions of a set ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predicted:
    """Labelled cells of a set with predictions of cells that the model was not trained on.

    Attributes
    ----------
    X, genes
        (n, genes) expression as prepared, all measured genes.
    y, p, fold
        True label, P(sensitive), fold that predicted the cell.
    group, cell_id
        Culture and name of the cell.
    """

    X: np.ndarray
    genes: np.ndarray
    y: np.ndarray
    p: np.ndarray
    fold: np.ndarray
    group: np.ndarray
    cell_id: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """Predicted label: sensitive at P >= 0.5 (ambiguity 24)."""
        return (self.p >= 0.5).astype(int)


def _results(name: str, profile: str, protocol: str, repeats: bool, **parallel) -> list[protocols.Result]:
    """ATSDP-NET's results on a set as Table 3 scores them: the first repeat of S, or all; all seeds of U."""
    data = "geo" if config.DATASETS[name].tier == "geo" else "embedded"
    wanted = (name, protocol, protocols.ATSDP, ())
    tasks = [t for t in tables.table3(data, profile)
             if (t.dataset, t.protocol, t.model, t.setting) == wanted and (repeats or t.repeat == 0)]  # fmt: skip
    return grid.run(tasks, label=f"{name} {protocol}", **parallel)


def predictions(name: str, profile: str, *, protocol: str = "S", **parallel) -> Predicted:
    """ATSDP-NET's predictions as Table 3 scores them, from the grid's cache where they are there.

    Under S the first repeat of the cross-validation; under U the mean of P over all seeds of the profile.
    """
    results = _results(name, profile, protocol, repeats=False, **parallel)
    cells, row = protocols.cells_of(name, profile), results[0].row
    p = np.mean([r.p for r in results], axis=0)
    return Predicted(cells.X[row], cells.genes, results[0].y.astype(int), p, results[0].fold, cells.group[row],
                     cells.cell_id[row])  # fmt: skip


def auc_by_seed(name: str, profile: str, **parallel) -> np.ndarray:
    """AUC of ATSDP-NET's predictions under protocol U, one value a seed."""
    results = _results(name, profile, "U", repeats=True, **parallel)
    return np.array([metrics.classification_metrics(r.y, r.p)["auc"] for r in results])


def scores_by_seed(name: str, profile: str, *, resamples: int = 200, **parallel) -> pd.DataFrame:
    """Correlation of gene scores under S (over repeats) and U (over seeds), with the errors of seeds and of cells.

    Lists and scores are made anew for the predictions of every seed; cells are resampled with the scores kept. The last
    row of a protocol is the difference of the two lists.

    Returns
    -------
    DataFrame
        ``protocol, list, seeds, r, r_low, r_high, df``, and against plain random lists for the first seed ``p`` and
        ``draws``. No rows of a protocol where a list of some seed is empty.
    """

    def correlations(pairs: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([np.corrcoef(pair)[0, 1] for pair in pairs])

    rows, rng, draws = [], np.random.default_rng(0), config.profile(profile).permutations
    for protocol in ("S", "U"):
        results = _results(name, profile, protocol, repeats=True, **parallel)
        cells, y = protocols.cells_of(name, profile), results[0].y.astype(int)
        order = [np.argsort(r.row) for r in results]  # every repeat in the same order of cells
        scorer, y = ListScorer(cells.X[np.sort(results[0].row)], cells.genes), y[order[0]]
        called = [(r.p[o] >= 0.5).astype(int) for r, o in zip(results, order, strict=True)]
        found = [scorer.compare(y, c) for c in called if np.unique(c).size == 2]
        if len(found) < len(called) or not all(np.isfinite(f.table["r"]).all() for f in found):
            continue
        plain = null_table(found[0], scorer.nulls(found[0], called[0], draws, seed=0)).query("null == 'plain'")
        p = dict(zip(plain["list"], plain["p"], strict=True))
        index = [np.concatenate([rng.choice(np.flatnonzero(y == k), (y == k).sum()) for k in (0, 1)])
                 for _ in range(resamples)]  # fmt: skip
        r = {}
        for direction in DIRECTIONS:
            pairs = [f.scores[[f"true_{direction}", f"predicted_{direction}"]].to_numpy().T for f in found]
            resampled = [correlations([pair[:, i] for pair in pairs]).mean() for i in index]
            r[direction] = correlations(pairs), np.array(resampled)
            rows.append((protocol, direction, len(found), *stats.seeds_and_cells(*r[direction]), p[direction], draws))
        gap = [a - b for a, b in zip(r[SENSITIVE], r[RESISTANT], strict=True)]
        rows.append((protocol, "sensitive - resistant", len(found), *stats.seeds_and_cells(*gap), np.nan, draws))
    return pd.DataFrame(rows, columns=["protocol", "list", "seeds", "r", "r_low", "r_high", "df", "p", "draws"])


def built_in(data: Predicted, n_shuffles: int, seed: int, *, top: int = 50) -> pd.DataFrame:
    """How much of the correlation of two gene scores comes from the construction.

    Lists hold the `top` genes whatever their p-value, because shuffled labels pass no threshold.

    Returns
    -------
    DataFrame
        Columns ``cells`` (*same*: lists and scores from the same cells, as in the paper; *held out*: lists from the
        other folds), ``labels`` (*real*, or *shuffled* together with the predictions, see :meth:`ListScorer.shuffled`),
        ``list``, ``r`` and ``r_unshared``; one row a fold and shuffle.
    """
    everything, rows = np.ones(len(data.y), dtype=bool), []
    designs = [("same", everything, everything)]
    designs += [("held out", data.fold != k, data.fold == k) for k in np.unique(data.fold)]
    for name, derive, score in designs:
        scorer = ListScorer(data.X, data.genes, derive=derive, score=score, top=top, alpha=1.1)
        rows.append(scorer.compare(data.y, data.label).table.assign(cells=name, labels="real"))
        shuffled = scorer.shuffled(data.y, data.label, n_shuffles, seed)
        rows.append(shuffled.assign(cells=name, labels="shuffled"))
    return pd.concat(rows, ignore_index=True)[["cells", "labels", "list", "r", "r_unshared"]]


# --- enrichment -------------------------------------------------------------------------------------------------------


def enrichment(
    hits: Sequence[str], background: Sequence[str], sets: Mapping[str, Sequence[str]], *, min_size: int = 5
) -> pd.DataFrame:
    """Hypergeometric over-representation of gene sets among `hits`, Benjamini-Hochberg over the sets tested.

    The background is what could have been a hit, that is the measured genes: against the whole genome every list of
    measured genes looks enriched for whatever the platform measures well.

    Returns
    -------
    DataFrame
        ``set, size`` (measured genes in it), ``overlap, expected, p, padj``, smallest p first.
    """
    background, hits = set(background), set(hits)
    if not hits <= background:
        raise ValueError(f"hits: {sorted(hits - background)[:5]} not in the background, expected measured genes only")
    rows = []
    for name, members in sets.items():
        measured = background.intersection(members)
        if len(measured) >= min_size:
            overlap, n = len(hits & measured), len(background)
            p = sps.hypergeom.sf(overlap - 1, n, len(measured), len(hits))
            rows.append((name, len(measured), overlap, len(measured) * len(hits) / n, p))
    table = pd.DataFrame(rows, columns=["set", "size", "overlap", "expected", "p"])
    table["padj"] = sps.false_discovery_control(table["p"]) if len(table) else []
    return table.sort_values(["p", "set"], ignore_index=True)
