"""Bulk expression of the GDSC cell lines and their public labels: the source domain of every transfer."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from atsdp_utils.data.preprocess import Source, Standardizer, columns
from atsdp_utils.foundation import cache, checksums, paths
from atsdp_utils.foundation.checksums import verify

LABEL_FILE = paths.DATA / "scdeal_labels_gdsc_804x83.csv.gz"
#: RMA = RMA_SCALE * z + an offset undoes the z-scoring within lines (log2 units, approximately).
RMA_SCALE = 2.126
#: Two COSMIC ids carry the name TT; this one is kept (data/README.md says why).
TT_COSMIC = 930299


@dataclass(frozen=True)
class Bulk:
    """Bulk expression of cell lines."""

    X: np.ndarray  # (lines, genes) float32, z-scored within each line
    lines: np.ndarray
    genes: np.ndarray
    y: np.ndarray  # (lines,) int8: 1 sensitive, 0 resistant, -1 no label


@lru_cache(maxsize=1)
def _expression() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(verify(paths.DATA / "gdsc_expr_975x6163.npz"), allow_pickle=False) as z:
        return z["X"].astype(np.float32), z["cell_line"].astype(str), z["gene"].astype(str)


def _calls(table: pd.DataFrame) -> pd.DataFrame:
    """1 (sensitive) or 0 (resistant); NaN without a label."""
    return (table == "sensitive").astype("int8").where(table.notna())


@lru_cache(maxsize=1)
def label_table() -> pd.DataFrame:
    """The public label table, 803 GDSC lines by name x 83 drugs: 1 (sensitive), 0 (resistant) or NaN."""
    table = pd.read_csv(verify(LABEL_FILE))
    table = table[(table.cell_line != "TT") | (table.cosmic == TT_COSMIC)]
    return _calls(table.set_index("cell_line").drop(columns="cosmic"))


@lru_cache(maxsize=1)
def labels_of_both_databases() -> pd.DataFrame:
    """The same of GDSC and CCLE together, 1,280 rows by their ids, labels only."""
    return _calls(checksums.table("scdeal_labels_all_1280x83.csv.gz", index_col=0))


def drugs() -> list[str]:
    """The 83 drugs of the label table, in its spelling."""
    return list(label_table().columns)


def all_labels(lines: np.ndarray) -> np.ndarray:
    """Labels of every drug for `lines`, (lines, drugs) int8: 1 sensitive, 0 resistant, -1 no label."""
    return label_table().reindex(lines).fillna(-1).to_numpy(np.int8)


def load_bulk(drug: str | None = None, exclude: tuple[str, ...] = ()) -> Bulk:
    """Bulk expression of the GDSC lines, with the labels of one drug.

    Parameters
    ----------
    drug : str, optional
        One of :func:`drugs`. If none is named every label is -1.
    exclude : tuple of str
        Names of lines to leave out.

    Returns
    -------
    Bulk
        ``y`` is 1 sensitive, 0 resistant, -1 where the label table has no label of that line.

    Raises
    ------
    KeyError
        If the label table lacks the drug.
    """
    X, lines, genes = _expression()
    y = np.full(len(lines), -1, np.int8)
    if drug is not None:
        labels = label_table()
        if drug not in labels:
            raise KeyError(f"drug: got {drug!r}, expected one of the 83 of {LABEL_FILE.name} (see gdsc.drugs())")
        y = labels[drug].reindex(lines).fillna(-1).to_numpy(np.int8)
    keep = ~np.isin(lines, exclude)
    return Bulk(X[keep], lines[keep], genes, y[keep])


@lru_cache(maxsize=128)
def bulk_key(drug: str | None = None) -> str:
    """Key of the bulk values, lines and genes, and of the labels of one drug (None: of no drug)."""
    return cache.key(*_expression()) if drug is None else cache.key(bulk_key(), load_bulk(drug).y)


def shared_genes(bulk: Bulk, genes: np.ndarray, max_genes: int) -> np.ndarray:
    """Genes measured on both sides: the `max_genes` most variable over the bulk lines, in the bulk's order.

    Only the bulk's values and the cells' gene names are looked at, so no cell can leak through gene selection. No label
    is read; the variance is over all lines of `bulk`, also those that are held out later.

    Parameters
    ----------
    bulk : Bulk
        Lines with their genes.
    genes : (n,)
        Names of the genes of the cells, in the bulk's spelling.
    max_genes : int
        Number of genes at most; all shared ones are taken if there are no more.

    Raises
    ------
    ValueError
        If fewer than 100 genes are on both sides.
    """
    both = np.flatnonzero(np.isin(bulk.genes, genes))
    if len(both) < 100:
        raise ValueError(
            f"genes: {len(both)} of {len(genes)} are in the bulk matrix, expected at least 100 (human HGNC symbols); "
            f"first found: {', '.join(map(str, genes[:5]))}"
        )
    variance = bulk.X[:, both].var(0)
    top = np.sort(both[np.argsort(-variance, kind="stable")[:max_genes]])
    return bulk.genes[top]


def held_out_lines(seed: int) -> np.ndarray:
    """Names of the bulk test lines of a seed: a fifth of all lines, the same for every drug and gene space.

    One split for all drugs lets trainings share their autoencoder, and no line is a test line for one drug and a
    training line for another.
    """
    lines = load_bulk().lines
    return np.random.default_rng(seed).permutation(np.sort(lines))[: round(0.2 * len(lines))]


def bulk_source(bulk: Bulk, genes: np.ndarray, seed: int) -> Source:
    """Bulk rows on `genes`, split by :func:`held_out_lines`, standardised on the training lines.

    Held-out lines are among the rows, with their labels, of every drug in ``others``; ``train`` is false for them.

    Parameters
    ----------
    bulk : Bulk
        Lines with the labels of one drug.
    genes : (genes,)
        Names of the columns that are wanted, in this order.
    seed : int
        Draws the lines that are held out.

    Raises
    ------
    KeyError
        If `bulk` lacks one of `genes`.
    """
    train = ~np.isin(bulk.lines, held_out_lines(seed))
    X = columns(bulk.X, bulk.genes, genes)
    return Source(Standardizer().fit(X[train]).transform(X), bulk.y, genes, train, all_labels(bulk.lines))
