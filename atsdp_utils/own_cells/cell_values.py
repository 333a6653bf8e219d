"""Values of a person's cells: what they are, which rows are no cells, and what they become on the genes used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data.preprocess import MIN_GENES, TARGET_SUM, Standardizer
from atsdp_utils.own_cells.cellfile import CellFile, Genes, InputError, Matrix, dense, dense_chunks, of_other_species

#: Log-normalised values stay below this; counts and TPM do not.
MAX_LOG = 30
#: Below this share of its standard deviation the mean of a z-scored gene lies (median over genes and the first
#: thousands of cells: a file may hold some of the cells that were scaled together).
CENTRED = 0.3
NOT_SCORED = "not scored"
#: Why a row has no score; ``scored`` where it has one.
SCORED, ZERO, SHALLOW, FOREIGN = REASONS = (
    "scored", "zero on every gene used", "far less depth than the other cells", "mostly genes of the other species",
)  # fmt: skip
#: A row this many times less deep than the cells that hold most of the file is no cell among them: ten times (the rule
#: of Cell Ranger 2 for droplets) with a smaller share of the genes of a whole file than quality control asks for, or
#: thirty times with less than half of the genes that those have, or in a group whose centre lies thirty times lower.
FAR, FARTHER, GENOME_SIZE = 10, 30, 20_000


def detect_values(file: CellFile, asked: str = "auto") -> tuple[str, list[str]]:
    """Whether the values are ``counts``, ``lognorm`` or ``zscored``, with remarks; what was asked has the last word.

    Unlogged but scaled values (TPM, CPM) count as counts: dividing by the total and taking logs treats both the same.
    """
    v = file.X.data if sparse.issparse(file.X) else file.X.ravel()
    if not np.isfinite(v).all():
        X = sparse.coo_matrix(file.X)
        bad = np.flatnonzero(~np.isfinite(X.data))
        where = f"cell {file.obs.index[X.row[bad[0]]]}, gene {next(iter(file.names.values()))[X.col[bad[0]]]}"
        raise InputError(
            f"{file.path}: {len(bad):,} values are missing (NaN) or infinite, first {X.data[bad[0]]} at {where}. "
            "Expected finite numbers; drop those cells or genes, or fill in zeros where nothing was detected."
        )
    low, high = float(file.X.min()), float(file.X.max())
    if low == high:
        raise InputError(f"{file.path}: every value is {low:g}. Expected expression; is it in another --layer?")
    some = v[:: max(1, v.size // 2_000_000)]
    whole = bool(np.all(some == np.rint(some)))
    seen = f"values from {low:.3g} to {high:.3g}, {'integers' if whole else 'not integers'}"
    guess = "counts" if whole or high > MAX_LOG else "lognorm"
    if low < 0:
        negative = f"{file.path}: {(v < 0).sum():,} of {np.prod(file.X.shape):,} values are negative ({seen})"
        if asked == "counts":
            raise InputError(f"{negative}. Expected no negative counts; take raw counts or another --values.")
        part = dense(file.X[:5000]).astype(np.float64)
        off_centre = np.median(np.abs(part.mean(0)) / np.maximum(part.std(0), 1e-9))
        guess = "zscored" if not whole and off_centre < CENTRED else "neither counts, lognorm nor zscored"
        if asked == "auto" and guess != "zscored":
            raise InputError(
                f"{negative}, and the genes are not centred at zero. Expected no negative counts or logarithms, or "
                "z-scores; take raw counts, or say what they are: --values lognorm (corrected for batches), zscored."
            )
    kind, notes = guess if asked == "auto" else asked, []
    if kind != guess:
        notes.append(f"values look like {guess} ({seen}) but are taken as {asked}, as asked")
    if kind == "counts" and not whole:
        notes.append("neither integers nor logarithms (TPM, CPM?): values are scaled and logged like counts")
    return kind, notes


def not_cells(file: CellFile, known: CellFile, genes: Genes, kind: str, chunk: int) -> np.ndarray:
    """Why each row is no cell to score, (rows,) str; `known` is the file with the genes of the bulk only."""
    reason, detected = np.full(file.X.shape[0], SCORED, dtype=object), _detected(known.X)
    foreign = of_other_species(file, genes)
    if foreign.any():
        share = _detected(file.X[:, np.flatnonzero(foreign)]) / foreign.sum()
        reason[share > detected / known.X.shape[1]] = FOREIGN
    own = np.flatnonzero((reason == SCORED) & (detected > 0))
    if kind == "zscored" or not len(own):
        return reason
    depth = _depth(known.X, kind, chunk)
    order = own[np.argsort(-depth[own])]
    typical = order[np.searchsorted(np.cumsum(depth[order]), depth[order].sum() / 2)]  # half of the file is deeper
    far = (depth < depth[typical] / FAR) & (detected < MIN_GENES * known.X.shape[1] / GENOME_SIZE)
    farther = (depth < depth[typical] / FARTHER) & (detected < detected[typical] / 2)
    shallow = far | farther | (depth < _lower_mode(depth[own]))
    reason[own[shallow[own]]] = SHALLOW
    return reason


def _detected(X: Matrix) -> np.ndarray:
    return np.asarray((X != 0).sum(1)).ravel()


def _depth(X: Matrix, kind: str, chunk: int) -> np.ndarray:
    """Depth of rows up to a factor, (rows,): the total of whole counts, else from the smallest value."""
    total, least, whole = [], [], kind == "counts"
    for block in dense_chunks(X, chunk):
        value = np.where(block > 0, block, np.inf).min(1)
        total.append(block.sum(1, dtype=np.float64))
        # scaled values have lost their total, but the smallest of a row is that of one count: the smaller, the deeper
        least.append(value if kind == "counts" else np.expm1(np.minimum(value, MAX_LOG)))
        whole = whole and bool(np.all(block == np.rint(block)))
    return np.concatenate(total) if whole else 1 / np.concatenate(least)


def _lower_mode(depth: np.ndarray) -> float:
    """Upper end of the shallower of two groups (Otsu's) whose centres are :data:`FARTHER` apart; 0 if there is none."""
    logs = np.sort(np.log(depth))
    n, below = np.arange(1, len(logs)), np.cumsum(logs)[:-1]
    apart = (logs.sum() - below) / n[::-1] - below / n
    split = np.argmax(n * n[::-1] * apart**2) if len(n) else 0
    return float(np.exp(logs[split + 1])) if len(n) and apart[split] > np.log(FARTHER) else 0.0


def counted(path: Path, reason: np.ndarray, least: int) -> list[str]:
    """What is said of rows without a score; an :class:`InputError` if fewer than `least` cells remain."""
    why = pd.Series(reason[reason != SCORED]).value_counts()
    n = int((reason == SCORED).sum())
    if n < least:
        others = "".join(f"; {count:,} more are {said}" for said, count in why.items())
        expected = f"at least {least}, better hundreds: genes are standardised over the cells of the file"
        raise InputError(f"{path}: {n} cells with values{others}. Expected {expected}.")
    return [f"{count:,} cells are {said}: marked '{NOT_SCORED}' in atsdp_reason" for said, count in why.items()]


def shared_matrix(
    file: CellFile, symbol: np.ndarray, chosen: np.ndarray, kind: str, chunk: int
) -> tuple[Matrix, list[str]]:
    """Values on the genes `chosen`, (cells, genes) float32, log-normalised to one depth (z-scored ones as they are).

    `file` holds genes of the bulk only, called `symbol`: nothing else adds to the depth of a cell. Logarithms are
    undone first, so that it does not matter to what depth they were scaled. Of genes measured twice counts are summed;
    of other values the most variable is kept. Values are rounded to half precision, so that neither the precision of a
    file nor the order of a sum changes what is learned.
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


def within(X: np.ndarray) -> np.ndarray:
    """Rows standardised over their own genes, as the bulk is published."""
    return (X - X.mean(1, keepdims=True)) / np.maximum(X.std(1, keepdims=True), 1e-6)
