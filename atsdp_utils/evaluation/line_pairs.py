"""Is the sensitive line of a pair ranked above the resistant one? Pairs of lines and drugs as units, never cells.

Scores and labels are (lines, drugs); labels are 1 sensitive, 0 resistant, NaN or -1 none.
"""

import math
from itertools import permutations

import numpy as np


def counts(scores, labels, lines=None) -> tuple[np.ndarray, np.ndarray]:
    """Pairs ranked right (ties are half) and pairs there are, (draws, drugs); `lines` says how often each is drawn."""
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    if scores.shape != labels.shape or scores.ndim != 2:
        raise ValueError(f"scores, labels: got shapes {scores.shape}, {labels.shape}, expected two of (lines, drugs)")
    if not np.isfinite(scores[(labels == 0) | (labels == 1)]).all():
        raise ValueError("scores: a labelled line has no finite score")
    lines = np.ones((1, len(scores))) if lines is None else np.asarray(lines, float)
    right, there = np.zeros((2, len(lines), scores.shape[1]))
    for d, (s, y) in enumerate(zip(scores.T, labels.T, strict=True)):
        up, down = y == 1, y == 0
        won = (s[up][:, None] > s[down]) + 0.5 * (s[up][:, None] == s[down])
        right[:, d] = ((lines[:, up] @ won) * lines[:, down]).sum(1)
        there[:, d] = lines[:, up].sum(1) * lines[:, down].sum(1)
    return right, there


def share(scores, labels) -> float:
    """Share of sensitive-resistant pairs ranked right, over all drugs: a pair of lines and a drug counts once."""
    right, there = counts(scores, labels)
    return float(right.sum() / there.sum())


def orders(scores, labels) -> np.ndarray:
    """:func:`share` after each order of the labelled lines, the order as it is first; drugs move together."""
    scores, labels = np.asarray(scores, float), np.asarray(labels, float)
    used = np.flatnonzero(np.isin(labels, (0, 1)).any(1))
    if math.factorial(len(used)) > 50_000:
        raise ValueError(f"labels: {len(used)} labelled lines have too many orders to go through")
    return np.array([share(scores[list(order)], labels[used]) for order in permutations(used)])


def p_of_orders(found: np.ndarray) -> float:
    """One-sided p-value of the first of :func:`orders`: the share of orders that do as well, itself among them."""
    return float(np.mean(found >= found[0] - 1e-12))


def drawn(shape: tuple[int, int], draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each line and each drug comes when both are drawn again with replacement, (draws, lines or drugs)."""
    rng = np.random.default_rng(seed)
    return tuple(rng.multinomial(n, np.full(n, 1 / n), draws) for n in shape)


def resampled_share(scores, labels, draws: int, seed: int = 0) -> np.ndarray:
    """:func:`share` of lines and drugs that are both drawn again, (draws,); NaN where no pair is drawn.

    Equal seeds draw the same lines and drugs, so differences between scores are paired.
    """
    lines, drugs = drawn(np.shape(scores), draws, seed)
    return _mean(*counts(scores, labels, lines), drugs)


def resampled_auc(scores, labels, draws: int, seed: int = 0) -> np.ndarray:
    """The same of the mean over drugs of their AUC, over those that have a pair in the draw."""
    lines, drugs = drawn(np.shape(scores), draws, seed)
    right, there = counts(scores, labels, lines)
    return _mean(right / np.maximum(there, 1), there > 0, drugs)


def _mean(right: np.ndarray, of: np.ndarray, drugs: np.ndarray) -> np.ndarray:
    total = (drugs * of).sum(1)
    return (drugs * right).sum(1) / np.where(total, total, np.nan)
