"""Scores of gene lists in cells, their correlation, and what of it is built in (sections 3.5 and 3.7).

Gene sets are columns of a boolean membership matrix (genes, sets), so that a thousand random sets cost one product.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps

from atsdp_utils.evaluation import stats
from atsdp_utils.experiments import inputs
from atsdp_utils.foundation import config
from atsdp_utils.interpretation import predicted
from atsdp_utils.interpretation.gene_lists import DIRECTIONS, binary, deg_lists, rank_sum, tested


def expression_bins(X: np.ndarray, n_bins: int = 25) -> np.ndarray:
    """Bin of mean expression of every gene, (genes,) int, cut as ``scanpy.tl.score_genes`` cuts it."""
    rank = sps.rankdata(np.asarray(X, dtype=np.float64).mean(axis=0), method="min")
    return (rank // max(1, round(X.shape[1] / (n_bins - 1)))).astype(int)


def membership(sets: Sequence[np.ndarray], n_genes: int) -> np.ndarray:
    """Boolean matrix (genes, sets) of sets given as positions of genes."""
    member = np.zeros((n_genes, len(sets)), dtype=bool)
    for j, positions in enumerate(sets):
        member[positions, j] = True
    return member


def score_sets(X: np.ndarray, member: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Mean of the genes of every set in every cell minus that of all other genes of like expression, (cells, sets).

    ``scanpy.tl.score_genes`` samples 50 controls from each bin. NaN for an empty set.

    Parameters
    ----------
    X : (cells, genes)
        Log-normalised expression, whose unit the score has.
    member, bins : (genes, sets) bool and (genes,) int
        The genes of each set, and the bin of each gene (:func:`expression_bins`). Genes of one bin are alike in mean
        expression.
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
    """Random gene sets, (genes, n_sets) membership, with as many genes in every stratum as `reference` has."""
    rng = np.random.default_rng(seed)
    member = np.zeros((len(strata), n_sets), dtype=bool)
    for stratum, count in zip(*np.unique(strata[reference], return_counts=True), strict=True):
        pool = np.flatnonzero(strata == stratum)
        picked = np.argsort(rng.random((n_sets, len(pool))), axis=1)[:, :count]
        member[pool[picked], np.arange(n_sets)[:, None]] = True
    return member


def correlate(a, b) -> dict[str, float]:
    """Pearson r and r² of two scores of the same cells, (n,) each, with 95 % intervals, and the line between them.

    Returns
    -------
    dict of str to float
        ``r, r_low, r_high, r2, r2_low, r2_high``; ``slope`` and ``intercept`` of b = slope·a + intercept; ``n``, the
        cells. All but ``n`` are NaN where a score is missing, as for an empty list, or does not vary.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    values = (np.nan,) * 8
    if np.isfinite(a).all() and np.isfinite(b).all() and np.ptp(a) > 0 and np.ptp(b) > 0:
        found = sps.pearsonr(a, b)
        r, (low, high) = float(found.statistic), found.confidence_interval()
        squares = r**2, 0.0 if low < 0 < high else min(low**2, high**2), max(low**2, high**2)
        values = r, low, high, *squares, *np.polyfit(a, b, 1)
    keys = ("r", "r_low", "r_high", "r2", "r2_low", "r2_high", "slope", "intercept")
    return dict(zip(keys, values, strict=True)) | {"n": len(a)}


class ScoreComparison(NamedTuple):
    """Gene scores from true and from predicted labels."""

    true: dict[str, np.ndarray]  # as deg_lists gives them
    predicted: dict[str, np.ndarray]
    scores: pd.DataFrame  # a row a scored cell: true_sensitive, predicted_sensitive, true_resistant, ...
    table: pd.DataFrame  # a row a direction: correlate, sizes of the lists, and r_unshared without the genes on both


class ListScorer:
    """Derives lists from the cells `derive` and scores them on those of `score`; all cells, as in the paper.

    Parameters
    ----------
    X, genes : (n, genes) and (genes,)
        Log-normalised expression of all cells, and the names of the genes.
    derive, score : (n,) bool, optional
        Cells that give lists and bins of expression, the only ones of which a label is read, and cells that are scored.
    top, alpha : int and float
        Those of :func:`deg_lists`.
    """

    def __init__(self, X, genes, *, derive=None, score=None, top: int = 50, alpha: float = 0.05) -> None:
        X, everything = np.asarray(X), np.ones(len(X), dtype=bool)
        self.derive, score = (everything if part is None else np.asarray(part, dtype=bool) for part in (derive, score))
        self.genes, self.top, self.alpha, self.X = np.asarray(genes), top, alpha, X[score]
        self.bins = expression_bins(X[self.derive])
        self._ranks = sps.rankdata(X[self.derive], axis=0)

    def lists(self, y) -> dict[str, np.ndarray]:
        """Lists derived from labels (n,) of all cells."""
        table = tested(self._ranks, np.asarray(y)[self.derive], self.genes)
        return deg_lists(table, top=self.top, alpha=self.alpha)

    def compare(self, y_true, y_pred) -> ScoreComparison:
        """Lists and scores from true and from predicted labels, both (n,) of 0 and 1 over all cells.

        Returns
        -------
        ScoreComparison
            Its ``table`` has a row for each direction: ``list``; what :func:`correlate` finds of the predicted list's
            score (a) and the true list's (b); ``n_true, n_predicted, n_shared``, genes on each list and on both;
            ``r_unshared``, r without those on both.
        """
        true, called = self.lists(y_true), self.lists(y_pred)
        scores, rows = {}, []
        for name in DIRECTIONS:
            shared = np.intersect1d(true[name], called[name])
            pair = [true[name], called[name], *(np.setdiff1d(s[name], shared) for s in (true, called))]
            values = score_sets(self.X, membership(pair, self.X.shape[1]), self.bins)
            scores |= {f"true_{name}": values[:, 0], f"predicted_{name}": values[:, 1]}
            sizes = {"n_true": len(true[name]), "n_predicted": len(called[name]), "n_shared": len(shared)}
            fit = correlate(values[:, 1], values[:, 0])
            rows.append({"list": name} | fit | sizes | {"r_unshared": correlate(values[:, 3], values[:, 2])["r"]})
        return ScoreComparison(true, called, pd.DataFrame(scores), pd.DataFrame(rows))

    def nulls(self, comparison: ScoreComparison, y_pred, n_draws: int, seed: int) -> pd.DataFrame:
        """Correlations with the score of the true list that arise without a good prediction.

        *plain*: random genes, as many as the predicted list has (the paper's test); *matched*: of the same expression
        bins; *permuted*: the list that predictions dealt out to random cells give. None is exact: predictions follow
        the expression, whatever they know of labels, and those dealt out do not.

        Parameters
        ----------
        comparison, y_pred : ScoreComparison and (n,)
            What :meth:`compare` found, and the predicted labels that it was given.
        n_draws, seed : int
            Draws of each null, and what fixes them.

        Returns
        -------
        DataFrame
            ``list, null, r``, one row for each draw; none for a list that is empty or whose true list has no score.
        """
        rng = np.random.default_rng(seed)
        sensitive = binary(np.asarray(y_pred)[self.derive])
        z, _ = rank_sum(self._ranks, rng.permuted(np.tile(sensitive, (n_draws, 1)), axis=1))
        tables = []
        for name, sign in zip(DIRECTIONS, (1, -1), strict=True):
            target, called = comparison.scores[f"true_{name}"].to_numpy(), comparison.predicted[name]
            if not (len(called) and np.isfinite(target).all()):
                continue
            best = np.argpartition(-sign * z, len(called) - 1, axis=1)[:, : len(called)]
            members = {
                "plain": draw_sets(np.zeros_like(self.bins), called, n_draws, seed),
                "matched": draw_sets(self.bins, called, n_draws, seed),
                "permuted": membership(best, len(self.genes)),
            }
            for kind, member in members.items():
                r = stats.correlations(score_sets(self.X, member, self.bins), target)
                tables.append(pd.DataFrame({"list": name, "null": kind, "r": r}))
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["list", "null", "r"])

    def shuffled(self, y_true, y_pred, n_shuffles: int, seed: int) -> pd.DataFrame:
        """Tables of :meth:`compare` after true and predicted labels move **together** to random cells of `derive`.

        Parameters
        ----------
        y_true, y_pred : (n,)
            Labels of 0 and 1 over all cells.
        n_shuffles, seed : int
            How often they move, one table each time, and what fixes where they go.
        """
        rng, y, tables = np.random.default_rng(seed), np.column_stack([y_true, y_pred]), []
        for _ in range(n_shuffles):
            moved = y.copy()
            moved[self.derive] = rng.permutation(y[self.derive])
            tables.append(self.compare(*moved.T).table)
        return pd.concat(tables, ignore_index=True)


def null_table(comparison: ScoreComparison, null: pd.DataFrame) -> pd.DataFrame:
    """Observed r of each list against the draws of :meth:`ListScorer.nulls`.

    Returns
    -------
    DataFrame
        One row for each list and null: ``list, null``; observed ``r``; mean, 95th percentile and largest draw,
        ``null_mean, null_95, null_max``; one-sided ``p``.
    """
    observed = comparison.table.set_index("list")["r"]
    rows = []
    for (name, kind), draws in null.groupby(["list", "null"], sort=False)["r"]:
        p = stats.permutation_p(observed[name], draws)
        rows.append((name, kind, observed[name], draws.mean(), draws.quantile(0.95), draws.max(), p))
    return pd.DataFrame(rows, columns=["list", "null", "r", "null_mean", "null_95", "null_max", "p"])


def scores_by_seed(name: str, profile: str, *, resamples: int = 200, **parallel) -> pd.DataFrame:
    """Correlation of gene scores under S (over repeats) and U (over seeds), with the errors of seeds and of cells.

    Parameters
    ----------
    name, profile : str
        A data set and a profile. Lists and scores rest on all labelled cells, as in the paper.
    resamples : int
        Bootstrap draws of cells within each class, of a fixed seed, for the error of the cells.
    **parallel
        ``jobs`` and ``backend`` of :func:`grid.run`, which trains what is not in the cache.

    Returns
    -------
    DataFrame
        One row for each protocol and list, and for *sensitive - resistant*: ``protocol, list``; ``seeds``, their
        number, or that of repeats; mean ``r``, 95 % interval ``r_low, r_high``, ``df``; ``p`` of the first seed against
        plain random lists, of which there are ``draws``. No rows of a protocol where some list is empty.
    """
    rows, rng, draws = [], np.random.default_rng(0), config.profile(profile).permutations
    for protocol in ("S", "U"):
        results = predicted.results(name, profile, protocol, repeats=True, **parallel)
        cells, order = inputs.cells_of(name, profile), [np.argsort(r.row) for r in results]
        # Every repeat in the same order of cells.
        scorer = ListScorer(cells.X[np.sort(results[0].row)], cells.genes)
        y = results[0].y.astype(int)[order[0]]
        called = [(r.p[o] >= 0.5).astype(int) for r, o in zip(results, order, strict=True)]
        found = [scorer.compare(y, c) for c in called if np.unique(c).size == 2]
        if len(found) < len(called) or not all(np.isfinite(f.table["r"]).all() for f in found):
            continue
        tested = null_table(found[0], scorer.nulls(found[0], called[0], draws, seed=0))
        p = tested[tested["null"] == "plain"].set_index("list")["p"]
        index = [
            np.concatenate([rng.choice(np.flatnonzero(y == k), (y == k).sum()) for k in (0, 1)])
            for _ in range(resamples)
        ]
        r = []
        for direction in DIRECTIONS:
            pairs = [f.scores[[f"true_{direction}", f"predicted_{direction}"]].to_numpy().T for f in found]
            drawn = np.array([[np.corrcoef(pair[:, i])[0, 1] for pair in pairs] for i in (slice(None), *index)])
            r.append((drawn[0], drawn[1:]))
        gap = [sensitive - resistant for sensitive, resistant in zip(*r, strict=True)]
        for shown, (by_seed, by_draw) in zip((*DIRECTIONS, "sensitive - resistant"), (*r, gap), strict=True):
            t = stats.mean_test(by_seed, draws=by_draw, df_cells=np.bincount(y).min() - 1)
            rows.append((protocol, shown, len(found), t.mean, t.low, t.high, t.df, p.get(shown, np.nan), draws))
    return pd.DataFrame(rows, columns=["protocol", "list", "seeds", "r", "r_low", "r_high", "df", "p", "draws"])


def built_in(
    data: predicted.Predicted, without: dict[int, np.ndarray], n_shuffles: int, seed: int, *, top: int = 50
) -> pd.DataFrame:
    """How much of the correlation of two gene scores comes from the construction.

    Parameters
    ----------
    data, without : Predicted and dict of int to (n,)
        Cells with predictions under S, and those of models that saw no label of a fold
        (:func:`predicted.without_folds`).
    n_shuffles, seed : int
        Shuffles of the labels (:meth:`ListScorer.shuffled`), and what fixes them.
    top : int
        Genes of a list, whatever their p.

    Returns
    -------
    DataFrame
        ``cells, labels, list, r, r_unshared, n_unshared``, a row for each list, fold and shuffle; the last two are of
        genes on one list alone. ``cells`` are the *same* for lists and scores, or *held out*: no list and no model that
        made it saw a label of the fold that is scored. ``labels`` are *real* or *shuffled*.
    """
    tables = []
    designs = [("same", None, None, data.label)]
    designs += [("held out", data.fold != k, data.fold == k, called) for k, called in without.items()]
    for name, derive, score, called in designs:
        scorer = ListScorer(data.X, data.genes, derive=derive, score=score, top=top, alpha=1.1)
        tables.append(scorer.compare(data.y, called).table.assign(cells=name, labels="real"))
        tables.append(scorer.shuffled(data.y, called, n_shuffles, seed).assign(cells=name, labels="shuffled"))
    table = pd.concat(tables, ignore_index=True)
    table["n_unshared"] = table["n_true"] - table["n_shared"]
    return table[["cells", "labels", "list", "r", "r_unshared", "n_unshared"]]
