"""Which rows of a person's file are no cells: empty droplets, debris, cells of the other species."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data import preprocess
from atsdp_utils.own_cells import readers
from atsdp_utils.own_cells.cell_values import dense_chunks
from atsdp_utils.own_cells.readers import CellFile, Genes, InputError

NOT_SCORED = "not scored"
#: Why a row has no score; ``scored`` where it has one.
SCORED, ZERO, SHALLOW, FOREIGN = (
    "scored", "zero on every gene used", "far less depth than the other cells", "mostly genes of the other species",
)  # fmt: skip
#: A row this many times less deep than the cells that hold most of the file is no cell among them: ten times (the rule
#: of Cell Ranger 2 for droplets) with a smaller share of :data:`GENOME_SIZE` genes than quality control asks for, or
#: thirty times with less than half of the genes that those have, or in a group whose centre lies thirty times lower.
FAR, FARTHER = 10, 30
#: Genes that a whole file measures, about.
GENOME_SIZE = 20_000


def not_cells(file: CellFile, known: CellFile, genes: Genes, kind: str, chunk: int) -> np.ndarray:
    """Why each row is no cell to score, (rows,) str; :data:`SCORED` where nothing is against it.

    Parameters
    ----------
    known
        The file with the genes of the bulk only.
    """
    reason = np.full(file.X.shape[0], SCORED, dtype=object)
    foreign = readers.of_other_species(file, genes)
    if foreign.any():
        share = [_detected(X) / X.shape[1] for X in (file.X[:, np.flatnonzero(foreign)], known.X)]
        reason[share[0] > share[1]] = FOREIGN
    depth, detected = _depth(known.X, kind, chunk)
    own = np.flatnonzero((reason == SCORED) & (detected > 0))
    if kind == "zscored" or not len(own):
        return reason
    order = own[np.argsort(-depth[own])]
    typical = order[np.searchsorted(np.cumsum(depth[order]), depth[order].sum() / 2)]  # half of the file is deeper
    far = (depth < depth[typical] / FAR) & (detected < preprocess.MIN_GENES * known.X.shape[1] / GENOME_SIZE)
    farther = (depth < depth[typical] / FARTHER) & (detected < detected[typical] / 2)
    shallow = far | farther | (depth < _lower_mode(depth[own]))
    reason[(reason == SCORED) & shallow & (detected > 0)] = SHALLOW
    return reason


def _lower_mode(depth: np.ndarray) -> float:
    """Upper end of the shallower of two groups whose centres are :data:`FARTHER` apart; 0 if there are no two such.

    The groups are those of Otsu: the split with the most variance between them, of logarithms of depth.
    """
    logs = np.sort(np.log(depth))
    n, below = np.arange(1, len(logs)), np.cumsum(logs)[:-1]
    apart = (logs.sum() - below) / n[::-1] - below / n
    split = np.argmax(n * n[::-1] * apart**2) if len(n) else 0
    return float(np.exp(logs[split + 1])) if len(n) and apart[split] > np.log(FARTHER) else 0.0


def _detected(X: sparse.csr_matrix | np.ndarray) -> np.ndarray:
    return np.asarray((X != 0).sum(1)).ravel()


def _depth(X: sparse.csr_matrix | np.ndarray, kind: str, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Depth of rows up to a factor and genes detected, (rows,) each.

    Whole counts have their total. Values that were scaled have lost it, but not its trace: the smallest of a row is
    that of one count, so it is the smaller the deeper the row was.
    """
    total, least, whole = [], [], kind == "counts"
    for block in dense_chunks(X, chunk):
        value = np.where(block > 0, block, np.inf).min(1)
        total.append(block.sum(1, dtype=np.float64))
        least.append(value if kind == "counts" else np.expm1(np.minimum(value, readers.MAX_LOG)))
        whole = whole and bool(np.all(block == np.rint(block)))
    return np.concatenate(total) if whole else 1 / np.concatenate(least), _detected(X)


def counted(path: Path, reason: np.ndarray, least: int) -> list[str]:
    """What is said of rows without a score.

    Raises
    ------
    InputError
        If fewer than `least` cells remain.
    """
    why = pd.Series(reason[reason != SCORED]).value_counts()
    n = int((reason == SCORED).sum())
    if n < least:
        others = "".join(f"; {count:,} more are {said}" for said, count in why.items())
        expected = f"at least {least}, better hundreds: genes are standardised over the cells of the file"
        raise InputError(f"{path}: {n} cells with values{others}. Expected {expected}.")
    return [f"{count:,} cells are {said}: marked '{NOT_SCORED}' in atsdp_reason" for said, count in why.items()]
