"""Checks and splits of training rows, without torch."""

from dataclasses import dataclass

import numpy as np

from atsdp_utils.data import preprocess


def check_rows(X: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training rows as float32 (n, genes) and labels as int64 (n,)."""
    X, y = np.asarray(X, np.float32), np.asarray(y)
    if X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"X, y: got shapes {X.shape} and {y.shape}, expected (n, genes) and (n,)")
    if not np.isfinite(X).all():
        raise ValueError("X: holds values that are not finite; impute or drop them before fitting")
    if set(np.unique(y).tolist()) != {0, 1}:
        raise ValueError(f"y: got classes {np.unique(y).tolist()}, expected both 0 (resistant) and 1 (sensitive)")
    return X, y.astype(np.int64)


def weighed(balance: str) -> str:
    """The strategy for a model that compares rows: among them a copy would be its original's neighbour.

    Rows stay as they are; where they are to be balanced, both classes weigh the same.
    """
    return "none" if balance == "none" else "class_weight"


@dataclass(frozen=True)
class Split:
    """Training rows of a model that stops early: what it learns from, and what says when to stop."""

    #: Rows that are not held out, as measured.
    kept: np.ndarray
    y_kept: np.ndarray
    #: The same, balanced: what a loss is computed on, with weights of mean 1.
    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    #: Rows that are held out; none where a class has fewer than four rows.
    held: np.ndarray
    y_held: np.ndarray


def split(X: np.ndarray, y: np.ndarray, balance: str, share: float, seed: int) -> Split:
    """Hold rows out, stratified by class, and balance the others.

    Parameters
    ----------
    X, y : (n, genes) and (n,)
        Training rows and their labels, 0 resistant and 1 sensitive, as :func:`check_rows` returns them.
    balance : str
        Strategy of :func:`preprocess.balance`; it sees no row that is held out.
    share : float
        Share of the rows to hold out; none is held out where a class has fewer than four.
    seed : int
        Draws the rows that are held out, and the copies or synthetic rows of the balancing.
    """
    kept, held = np.arange(len(y)), np.arange(0)
    if np.bincount(y).min() >= 4:
        kept, held = preprocess.hold_out(len(y), share, seed, y)
    xb, yb, weight = preprocess.balance(X[kept], y[kept], balance, seed)
    weight = np.ones(len(yb), np.float32) if weight is None else weight / weight.mean()
    return Split(X[kept], y[kept], xb, yb, weight, X[held], y[held])
