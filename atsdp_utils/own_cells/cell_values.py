"""Values of a person's cells on the genes used: one depth, logarithms, half precision; rows taken a chunk at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data.preprocess import TARGET_SUM, Standardizer
from atsdp_utils.own_cells.cellfile import CellFile, Matrix, dense_chunks
from atsdp_utils.own_cells.checks import MAX_LOG


def shared_matrix(
    file: CellFile, symbol: np.ndarray, chosen: np.ndarray, kind: str, chunk: int
) -> tuple[Matrix, list[str]]:
    """Values on the genes `chosen`, (cells, genes) float32, log-normalised to one depth (z-scored ones as they are).

    `file` holds genes of the bulk only, called `symbol`: nothing else adds to the depth of a cell. Logarithms are
    undone first, so that it does not matter to what depth, and over which genes, they were scaled. Genes measured
    twice are then summed; of values that are neither counts nor their logarithms the most variable is kept. Values are
    rounded to half precision, so that neither the precision of a file nor the order of a sum changes what is learned.
    """
    X, position = file.X, pd.Index(chosen).get_indexer(symbol)
    columns = np.flatnonzero(position >= 0)
    twice = len(columns) - len(chosen)
    logs = kind == "lognorm" and X.min() >= 0 and X.max() <= MAX_LOG
    if kind == "counts" or logs:
        way = "their counts are summed"
        linear = (lambda V: np.expm1(_half(V).astype(np.float64))) if logs else (lambda V: V.astype(np.float64))
        total = np.concatenate([linear(block).sum(1) for block in dense_chunks(X, chunk)])
        places = np.arange(len(columns)), position[columns]
        pick = sparse.csr_matrix((np.ones(len(columns)), places), (len(columns), len(chosen)))
        Z = _each(X[:, columns], linear) @ pick
        scale = (TARGET_SUM / np.where(total > 0, total, np.inf))[:, None]
        Z = _each(sparse.csr_matrix(Z.multiply(scale)) if sparse.issparse(Z) else Z * scale, np.log1p)
    else:
        way, part = "the most variable of each is kept", X[:, columns]
        spread = streaming_standardizer(part, chunk).scale_ if twice else np.ones(len(columns))
        order = np.lexsort((np.where(np.isinf(spread), 0, -spread), position[columns]))
        first = np.unique(position[columns][order], return_index=True)[1]
        Z = part[:, order[first]]
    return _each(Z, _half), [f"{twice} of the genes used are measured more than once: {way}"] if twice else []


def _half(V: np.ndarray) -> np.ndarray:
    """Values rounded to half precision, as float32."""
    limit = np.finfo(np.float16).max
    return np.clip(V, -limit, limit).astype(np.float16).astype(np.float32)


def _each(X: Matrix, change: Callable) -> Matrix:
    """X with every value changed; zero stays zero."""
    if not sparse.issparse(X):
        return change(X)
    return sparse.csr_matrix((change(X.data), X.indices, X.indptr), shape=X.shape)


def canonical(Z: Matrix, rows: np.ndarray, chunk: int) -> np.ndarray:
    """`rows` of Z in an order that depends on their values alone: draws and batches then do not know that of a file."""
    blocks = dense_chunks(Z[rows], chunk)
    keys = [hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest() for block in blocks for row in block]
    return rows[np.argsort(keys, kind="stable")]


def streaming_standardizer(X: Matrix, chunk: int) -> Standardizer:
    """A fitted :class:`preprocess.Standardizer`, from two passes over chunks of X."""
    n = X.shape[0]
    mean = sum(block.sum(0, dtype=np.float64) for block in dense_chunks(X, chunk)) / n
    variance = sum(((block - mean) ** 2).sum(0) for block in dense_chunks(X, chunk)) / n
    scaler = Standardizer()
    scaler.mean_, scaler.scale_ = mean, np.where(variance > 1e-12, np.sqrt(variance), np.inf)
    return scaler


def some_rows(n: int, size: int, seed: int) -> np.ndarray:
    """At most `size` of n rows, drawn at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:size])


def within(X: np.ndarray) -> np.ndarray:
    """Rows standardised over their own genes, as the bulk is published."""
    return (X - X.mean(1, keepdims=True)) / np.maximum(X.std(1, keepdims=True), 1e-6)
