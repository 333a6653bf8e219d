"""Checks and splits of training rows, without torch."""

from __future__ import annotations

import numpy as np


def check_rows(X: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows as float32 (n, genes), labels as int64 (n,), weights as float32 (n,) with mean 1."""
    X, y = np.asarray(X, np.float32), np.asarray(y)
    if X.ndim != 2 or len(X) != len(y):
        raise ValueError(f"X, y: got shapes {X.shape} and {y.shape}, expected (n, genes) and (n,)")
    if not np.isfinite(X).all():
        raise ValueError("X: holds values that are not finite; impute or drop them before fitting")
    if set(np.unique(y).tolist()) != {0, 1}:
        raise ValueError(f"y: got classes {np.unique(y).tolist()}, expected both 0 (resistant) and 1 (sensitive)")
    weight = np.ones(len(y), np.float32) if weight is None else np.asarray(weight, np.float32)
    if weight.shape != (len(y),):
        raise ValueError(f"weight: got shape {weight.shape}, expected ({len(y)},)")
    return X, y.astype(np.int64), weight / weight.mean()


def hold_out(X: np.ndarray, y: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split rows by class into (kept, held out), both sorted index arrays.

    Identical rows, as random oversampling makes them, stay on one side: otherwise the held-out loss would be a
    training loss. A class with fewer than four distinct rows is not split, so `held out` may miss a class or be empty.
    """
    ordinals: dict[bytes, int] = {}
    distinct = np.array([ordinals.setdefault(row.tobytes(), len(ordinals)) for row in X])
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), bool)
    for label in (0, 1):
        rows = np.unique(distinct[y == label])
        if len(rows) >= 4:
            held |= np.isin(distinct, rng.choice(rows, max(1, round(share * len(rows))), replace=False)) & (y == label)
    return np.flatnonzero(~held), np.flatnonzero(held)
