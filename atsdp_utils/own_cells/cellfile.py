"""What a file of cells holds, and which of its names are those of no gene."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.foundation import checksums, paths

Matrix = sparse.csr_matrix | np.ndarray
#: Fewer genes in common with the bulk than this cannot carry a drug signal (the bound of gdsc.shared_genes).
MIN_SHARED = 100
#: Kinds of names in ``data/names_of_no_gene.csv`` that describe the cells and the genes of a table.
OF_CELLS, OF_GENES = "columns on cells", "columns on genes"


class InputError(Exception):
    """Something is wrong with what the person gave; the message is written for them."""


@dataclass
class CellFile:
    """What a file holds: X (cells, genes), names of its genes by the place where they stand, columns on cells."""

    path: Path
    kind: str
    X: Matrix
    names: dict[str, np.ndarray]
    obs: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def only(self, keep: np.ndarray, *notes: str) -> CellFile:
        """The file with some of its genes, (genes,) bool, and notes on it."""
        if keep.all():
            return self
        names = {place: names[keep] for place, names in self.names.items()}
        return replace(self, X=self.X[:, np.flatnonzero(keep)], names=names, notes=[*self.notes, *notes])


@lru_cache(maxsize=1)
def names_of_no_gene() -> dict[str, re.Pattern]:
    """Names that stand among genes, or beside them, and are none, by kind; no human or mouse gene is called so."""
    table = pd.read_csv(checksums.verify(paths.DATA / "names_of_no_gene.csv"))
    return {kind: re.compile(f"(?i){'|'.join(rows)}") for kind, rows in table.groupby("kind", sort=False)["pattern"]}


def dense(X: Matrix) -> np.ndarray:
    """The values without holes; an array is returned as it is."""
    return X.toarray() if sparse.issparse(X) else X


def dense_chunks(X: Matrix, chunk: int) -> Iterator[np.ndarray]:
    """Consecutive rows of X as dense float32 arrays of at most `chunk` rows."""
    for start in range(0, X.shape[0], chunk):
        yield np.asarray(dense(X[start : start + chunk]), dtype=np.float32)


def checked(X) -> Matrix:
    """Sparse as CSR with indices checked (a damaged file must not reach compiled code), dense as it is.

    Half precision becomes single: its sums overflow, and scipy does not know it.
    """
    X = X if sparse.issparse(X) else np.asarray(X)
    X = X.astype(np.float32) if X.dtype == np.float16 else X
    if sparse.issparse(X):
        X = sparse.csr_matrix(X)
        X.check_format(full_check=True)
    return X


def listed(names, most: int) -> str:
    """Some names, with dots where there are more."""
    names = list(map(str, names))
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
