"""Values of a person's cells on the genes used: one depth, logarithms, half precision; rows taken a chunk at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data import preprocess
from atsdp_utils.own_cells import readers
from atsdp_utils.own_cells.readers import CellFile


def shared_matrix(
    file: CellFile, symbol: np.ndarray, chosen: np.ndarray, kind: str, chunk: int
) -> tuple[sparse.csr_matrix | np.ndarray, list[str]]:
    """Values on the genes `chosen`, log-normalised to one depth (z-scored ones as they are), in half precision.

    `file` holds genes of the bulk only, called `symbol`: nothing else adds to the depth of a cell. Logarithms are
    undone first, so that it does not matter to what depth, and over which genes, they were scaled. Genes measured
    twice are then summed; of values that are neither counts nor their logarithms the most variable is kept. Values are
    rounded to half precision, so that neither the precision of a file nor the order of a sum changes what is learned.

    Returns
    -------
    tuple
        (cells, genes) float32, sparse if the file is; remarks.
    """
    X, position = file.X, pd.Index(chosen).get_indexer(symbol)
    columns = np.flatnonzero(position >= 0)
    twice = len(columns) - len(chosen)
    logs = kind == "lognorm" and X.min() >= 0 and X.max() <= readers.MAX_LOG
    way = "their counts are summed" if kind == "counts" or logs else "the most variable of each is kept"
    if kind == "counts" or logs:
        linear = (lambda V: np.expm1(_half(V).astype(np.float64))) if logs else (lambda V: V.astype(np.float64))
        total = np.concatenate([linear(block).sum(1) for block in dense_chunks(X, chunk)])
        places = np.arange(len(columns)), position[columns]
        pick = sparse.csr_matrix((np.ones(len(columns)), places), (len(columns), len(chosen)))
        Z = _each(X[:, columns], linear) @ pick
        scale = (preprocess.TARGET_SUM / np.where(total > 0, total, np.inf))[:, None]
        Z = _each(sparse.csr_matrix(Z.multiply(scale)) if sparse.issparse(Z) else Z * scale, np.log1p)
    else:
        part = X[:, columns]
        spread = streaming_standardizer(part, chunk).scale_ if twice else np.ones(len(columns))
        order = np.lexsort((np.where(np.isinf(spread), 0, -spread), position[columns]))
        first = np.unique(position[columns][order], return_index=True)[1]
        Z = part[:, order[first]]
    remarks = [f"{twice} of the genes used are measured more than once: {way}"] if twice else []
    return _each(Z, _half), remarks


def _half(V: np.ndarray) -> np.ndarray:
    """Values rounded to half precision, as float32."""
    limit = np.finfo(np.float16).max
    return np.clip(V, -limit, limit).astype(np.float16).astype(np.float32)


def _each(X: sparse.csr_matrix | np.ndarray, change: Callable) -> sparse.csr_matrix | np.ndarray:
    """X with every value changed; zero stays zero."""
    if not sparse.issparse(X):
        return change(X)
    return sparse.csr_matrix((change(X.data), X.indices, X.indptr), shape=X.shape)


def canonical(Z: sparse.csr_matrix | np.ndarray, rows: np.ndarray, chunk: int) -> np.ndarray:
    """`rows` of Z in an order that depends on their values alone: draws and batches then do not know that of a file."""
    blocks = dense_chunks(Z[rows], chunk)
    keys = [hashlib.blake2b((row + 0.0).tobytes(), digest_size=16).digest() for block in blocks for row in block]
    return rows[np.argsort(keys, kind="stable")]


def dense_chunks(X: sparse.csr_matrix | np.ndarray, chunk: int) -> Iterator[np.ndarray]:
    """Consecutive rows of X as dense float32 arrays of at most `chunk` rows."""
    for start in range(0, X.shape[0], chunk):
        part = X[start : start + chunk]
        yield np.asarray(readers.dense(part), dtype=np.float32)


def streaming_standardizer(X: sparse.csr_matrix | np.ndarray, chunk: int) -> preprocess.Standardizer:
    """A fitted :class:`preprocess.Standardizer`, from two passes over chunks of X."""
    n = X.shape[0]
    mean = sum(block.sum(0, dtype=np.float64) for block in dense_chunks(X, chunk)) / n
    variance = sum(((block - mean) ** 2).sum(0) for block in dense_chunks(X, chunk)) / n
    scaler = preprocess.Standardizer()
    scaler.mean_, scaler.scale_ = mean, np.where(variance > 1e-12, np.sqrt(variance), np.inf)
    return scaler


def some_rows(n: int, size: int, seed: int) -> np.ndarray:
    """At most `size` of n rows, drawn at random, in order."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:size])
