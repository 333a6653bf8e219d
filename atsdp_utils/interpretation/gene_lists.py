"""Lists and rankings of genes from expression ``X`` (cells, genes) and labels ``y`` (1 sensitive)."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as sps
from sklearn.metrics import average_precision_score

from atsdp_utils.evaluation import stats
from atsdp_utils.foundation.config import RESISTANT, SENSITIVE

DIRECTIONS = SENSITIVE, RESISTANT


def binary(y) -> np.ndarray:
    """Labels (n,) as booleans, True where sensitive."""
    y = np.asarray(y)
    if y.ndim != 1 or set(np.unique(y).tolist()) != {0, 1}:
        found = sorted(set(np.ravel(y).tolist()))[:5]
        raise ValueError(f"y: found values {found}, expected 0 and 1, both present; drop unlabelled cells first")
    return y.astype(bool)


def rank_sum(ranks: np.ndarray, sensitive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilcoxon rank-sum of every column of `ranks` (n, genes), sensitive against resistant cells.

    `sensitive` is (n,), or (labellings, n) with equally many sensitive cells in each. Returns z without tie correction,
    as scanpy's ``rank_genes_groups`` computes it, and Cliff's delta, P(a sensitive cell is higher) - P(it is lower).
    """
    n, n1 = sensitive.shape[-1], int(sensitive.sum(axis=-1).flat[0])
    n0 = n - n1
    total = sensitive.astype(float) @ ranks
    z = (total - n1 * (n + 1) / 2) / np.sqrt(n1 * n0 * (n + 1) / 12)
    return z, 2 * (total - n1 * (n1 + 1) / 2) / (n1 * n0) - 1


def differential_genes(X: np.ndarray, y, genes: Sequence[str]) -> pd.DataFrame:
    """Wilcoxon test of every gene between sensitive and resistant cells.

    Parameters
    ----------
    X, genes : (n, genes) and (genes,)
        Expression, or another value of which only the ranks within a gene count, and the names of the genes.
    y : (n,)
        1 sensitive, 0 resistant. Another value, or one class alone, is an error: drop unlabelled cells first.

    Returns
    -------
    DataFrame
        One row for each gene, in the order of `genes`: ``gene, z, p, padj`` (Benjamini-Hochberg), ``delta`` (Cliff's).
        Positive ``z`` and ``delta`` are higher in sensitive cells.
    """
    return tested(sps.rankdata(X, axis=0), y, genes)


def tested(ranks: np.ndarray, y, genes: Sequence[str]) -> pd.DataFrame:
    """:func:`differential_genes` of values that are ranked already, for many labellings of the same cells."""
    z, delta = rank_sum(ranks, binary(y))
    p = 2 * sps.norm.sf(np.abs(z))
    padj = sps.false_discovery_control(p)
    return pd.DataFrame({"gene": np.asarray(genes), "z": z, "p": p, "padj": padj, "delta": delta})


def deg_lists(table: pd.DataFrame, *, top: int = 50, alpha: float = 0.05) -> dict[str, np.ndarray]:
    """Positions of the `top` genes of each direction with adjusted p below `alpha`, best first; Figure 5 read so.

    Parameters
    ----------
    table : DataFrame
        That of :func:`differential_genes`. A gene is *sensitive* where ``z`` is above 0, *resistant* where it is below.
    top, alpha : int and float
        The most genes of a list, and the limit of ``padj``: above 1, every gene passes. A list may be empty.
    """
    z, passed = table["z"].to_numpy(), table["padj"].to_numpy() < alpha
    lists = {}
    for name, sign in zip(DIRECTIONS, (1, -1), strict=True):
        order = np.argsort(-sign * z, kind="stable")
        lists[name] = order[(passed & (sign * z > 0))[order]][:top]
    return lists


def recovery(scores: Mapping[str, np.ndarray], planted: np.ndarray, ks: Sequence[int] = (10, 20, 50)) -> pd.DataFrame:
    """How well rankings find planted genes.

    Parameters
    ----------
    scores : mapping of str to (genes,)
        Rankings by name; larger values are more important.
    planted : (genes,) bool
        Which genes were planted. One alone, or all but one, is an error: the interval needs two of each.
    ks : sequence of int
        Numbers of best genes for ``precision@k``, the share of them that is planted.

    Returns
    -------
    DataFrame
        One row for each ranking: ``ranking``; ``auroc``, with its 95 % interval ``low, high``; ``ap``, the average
        precision; ``precision@k``. The areas are NaN where no gene, or every gene, is planted.
    """
    planted, rows = np.asarray(planted, dtype=bool), []
    for name, value in scores.items():
        areas = (np.nan,) * 4
        if planted.any() and not planted.all():
            areas = *stats.auc_interval(planted.astype(int), value), average_precision_score(planted, value)
        best = planted[np.argsort(-np.asarray(value), kind="stable")]
        row = dict(zip(("ranking", "auroc", "low", "high", "ap"), (name, *areas), strict=True))
        rows.append(row | {f"precision@{k}": best[:k].mean() for k in ks})
    return pd.DataFrame(rows)


def stability(scores: np.ndarray, k: int = 50) -> pd.DataFrame:
    """Agreement of every pair of rankings, the rows of `scores` (rankings, genes), in which larger is more important.

    Returns
    -------
    DataFrame
        One row for each pair: ``a, b``, rows of `scores`; ``spearman`` over all genes; ``jaccard@k`` of the `k` best.
    """
    best = [set(np.argsort(-s, kind="stable")[:k].tolist()) for s in scores]
    rows = [
        (i, j, sps.spearmanr(scores[i], scores[j]).statistic, len(best[i] & best[j]) / len(best[i] | best[j]))
        for i, j in combinations(range(len(scores)), 2)
    ]
    return pd.DataFrame(rows, columns=["a", "b", "spearman", f"jaccard@{k}"])


def ranks_of(named: Sequence[str], genes: Sequence[str], scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Rank of genes, by name, under each ranking.

    Parameters
    ----------
    named, genes : sequence of str
        Genes that are looked up, and the names of all genes that are ranked.
    scores : mapping of str to (genes,)
        Rankings by name; larger values are more important.

    Returns
    -------
    DataFrame
        One row for each of `named`: ``gene``; ``measured``, whether it is among `genes`; its rank under each ranking, 1
        for the best, missing where it is not measured; ``of``, the number of `genes`.
    """
    ranks = pd.DataFrame(scores).set_axis(np.asarray(genes)).rank(ascending=False, method="min")
    table = ranks.reindex(list(named)).astype("Int64").rename_axis("gene").reset_index()
    table.insert(1, "measured", table["gene"].isin(genes))
    return table.assign(of=len(genes))


def enrichment(
    hits: Sequence[str], background: Sequence[str], sets: Mapping[str, Sequence[str]], *, min_size: int = 5
) -> pd.DataFrame:
    """Hypergeometric over-representation of gene sets among `hits`.

    Parameters
    ----------
    hits, background : sequence of str
        A list of genes, and those from which it was taken, the measured genes: against the whole genome every list
        looks enriched for what is measured well.
    sets : mapping of str to sequence of str
        Gene sets by name.
    min_size : int
        How many genes of a set must be in the background for it to be tested.

    Returns
    -------
    DataFrame
        One row for each set tested, by p: ``set``; ``size``, its measured genes; ``overlap``, its hits; ``expected``,
        hits by chance; ``p``; ``padj``, Benjamini-Hochberg over the sets tested.

    Raises
    ------
    ValueError
        If a hit is not in the background.
    """
    background, hits = set(background), set(hits)
    if not hits <= background:
        raise ValueError(f"hits: {sorted(hits - background)[:5]} not in the background, expected measured genes only")
    rows, n = [], len(background)
    for name, members in sets.items():
        measured = background.intersection(members)
        if len(measured) >= min_size:
            overlap = len(hits & measured)
            p = sps.hypergeom.sf(overlap - 1, n, len(measured), len(hits))
            rows.append((name, len(measured), overlap, len(measured) * len(hits) / n, p))
    table = pd.DataFrame(rows, columns=["set", "size", "overlap", "expected", "p"])
    table["padj"] = sps.false_discovery_control(table["p"]) if len(table) else []
    return table.sort_values(["p", "set"], ignore_index=True)
