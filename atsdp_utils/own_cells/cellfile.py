"""What a file of cells holds, what its genes are called, and which of its names are no gene of the bulk."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.foundation import checksums

Matrix = sparse.csr_matrix | np.ndarray
#: Fewer genes in common with the bulk than this cannot carry a drug signal (the bound of gdsc.shared_genes).
MIN_SHARED = 100
#: What is read.
FORMATS = "an .h5ad or 10x .h5, a 10x folder (matrix.mtx, features.tsv, barcodes.tsv), a .csv or .tsv in UTF-8 (.gz)"
#: Kinds of names in ``data/names_of_no_gene.csv`` that describe the cells and the genes of a table.
OF_CELLS, OF_GENES, SUMS = "columns on cells", "columns on genes", "sums over cells"
OTHER = {"human": "mouse", "mouse": "human"}
#: Places of names that tell of other genes than those measured.
OF_OTHERS = re.compile("(?i)paralog|ortholog|homolog|partner|ligand|nearest|closest|neighbou?r")
#: Symbols in upper case that only genes of mice have.
OF_MICE = re.compile(r"GM\d{3,}|[A-Z]*\d\w+RIK\d?")
#: Two places that name other genes for more than this share of the features contradict each other (measured: 0.0002).
APART = 0.2


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
    warnings: list[str] = field(default_factory=list)  # what a reader of the scores must know

    def only(self, keep: np.ndarray, *notes: str) -> "CellFile":
        """The file with some of its genes, (genes,) bool, and notes on it."""
        if keep.all():
            return self
        names = {place: names[keep] for place, names in self.names.items()}
        return replace(self, X=self.X[:, np.flatnonzero(keep)], names=names, notes=[*self.notes, *notes])


@cache
def names_of_no_gene() -> dict[str, re.Pattern]:
    """Names that stand among genes, or beside them, and are none, by kind; no human or mouse gene is called so."""
    table = checksums.table("names_of_no_gene.csv")
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
        X = X if X.format == "csc" else sparse.csr_matrix(X)
        X.check_format(full_check=True)  # before scipy's compiled code turns it
        X = sparse.csr_matrix(X)
        X.sum_duplicates()
    return X


def listed(names, most: int) -> str:
    """Some names, with dots where there are more."""
    return ", ".join(map(str, names[:most])) + (" …" if len(names) > most else "")


@dataclass(frozen=True)
class Genes:
    """Symbols of a file's genes in the bulk's spelling, '' where it has none, and where and how they were found."""

    symbol: np.ndarray
    naming: str
    place: str
    shared: int
    ways: dict[str, int]


def recognise(file: CellFile, species: str | None = None) -> Genes:
    """The place and the naming with the most bulk genes; genes of the other species are never translated silently."""
    wanted, first = species or "human", next(iter(file.names.values()))[:4]
    places = _places(file, wanted)
    best = max(places, key=_reach)
    found = f"{file.path}: {best.shared} of {file.X.shape[1]:,} genes are in the bulk data (first: {', '.join(first)})"
    cells = gene_names.known(file.obs.index[:5000], gene_names.NAMINGS[:1])
    if best.shared >= MIN_SHARED and cells >= min(MIN_SHARED, max(20, len(file.obs) / 5)):
        said = f"{cells} of the cells are called like genes, too: means of perturbed genes, a correlation of genes?"
        raise InputError(f"{file.path}: {said} Expected cells. If they are, give them other names (cell_1, …).")
    if best.shared >= MIN_SHARED:
        if "lower case" not in best.naming or species is not None:
            return _consistent(file.path, best, places)
        raise InputError(f"{found}, in lower case, as genes of several species are written. If human: --species human.")
    other = OTHER[wanted]
    rival = max(_places(file, other), key=_reach)
    if rival.shared >= MIN_SHARED:
        raise InputError(f"{found}, but {rival.shared:,} as {rival.naming}. If they are {other}: --species {other}.")
    hint = ""
    if all(n.isdigit() for n in first):
        hint = " Numbers name no gene; if they are Entrez ids, translate them to symbols."
    elif gene_names.known(file.obs.index) >= MIN_SHARED:
        hint = " The names of the cells are genes: transpose the file."
    elif file.kind == "table":
        hint = " Names of genes are sought in the heading and the first two columns."
    of = f"of its {len(gdsc.load_bulk().genes):,}, by HGNC symbol or Ensembl id"
    raise InputError(f"{found}. Expected at least {MIN_SHARED} {of}.{hint}")


def _places(file: CellFile, species: str) -> list[Genes]:
    """What is found by the naming of a species that reaches most bulk genes, for each place of names.

    Places that tell of other genes than those measured come last, and only if no other reaches enough.
    """
    found = []
    for place, names in file.names.items():
        of = []
        for naming in (n for n in gene_names.NAMINGS if n.startswith(species)):
            symbol, way = gene_names.translate(names, naming)
            ways = pd.Series(way[way != ""]).value_counts().to_dict()
            of.append(Genes(symbol, naming, place, len(set(symbol) - {""}), ways))
        found.append(max(of, key=_reach))
    own = [g for g in found if not OF_OTHERS.search(g.place)]
    return own if any(g.shared >= MIN_SHARED for g in own) else found


def _reach(found: Genes) -> tuple[int, int]:
    return found.shared, -found.ways.get(gene_names.MIXED, 0)


def _consistent(path: Path, best: Genes, places: list[Genes]) -> Genes:
    """`best`, unless another place names other genes: names that slipped, or were sorted, would mix up all values."""
    for other in (g for g in places if g.shared >= MIN_SHARED):
        both = (best.symbol != "") & (other.symbol != "")
        differ = np.flatnonzero(both & (best.symbol != other.symbol))
        if len(differ) > APART * max(both.sum(), MIN_SHARED):
            example = f"{best.symbol[differ[0]]} and {other.symbol[differ[0]]}, feature {differ[0] + 1}"
            said = f"{best.place} and {other.place} name different genes for {len(differ):,} of {both.sum():,} features"
            way = "Has one of them slipped, or been sorted? Delete that one, or put it right"
            raise InputError(f"{path}: {said} (such as {example}). Expected the same. {way}.")
    return best


def left_out(file: CellFile, found: Genes) -> list[str]:
    """What is said of names that are no gene of the bulk: their number, and those that are no gene at all."""
    names = file.names[found.place][found.symbol == ""]
    notes = [f"{len(names):,} names are no gene of the bulk and are not used"] if len(names) else []
    for kind, pattern in names_of_no_gene().items():
        if kind != OF_GENES and (there := list(filter(pattern.fullmatch, names))):
            notes.append(f"not genes but {kind}: {listed(there, 4)}")
    return notes


def contradicted(file: CellFile, found: Genes) -> list[str]:
    """A warning if ids beside the names used are of another species than these were read as."""
    own, used = {"human": "ENSG0", "mouse": "ENSMUSG0"}[found.naming.split()[0]], found.symbol != ""
    for place, names in file.names.items():
        ids = [n for n in map(gene_names.plain, names[used]) if gene_names.ENSEMBL.fullmatch(n)]
        if sum(not n.startswith(own) for n in ids) > used.sum() / 2:
            way = "another species in upper case? Mouse is read by its ids with --species mouse"
            return [f"{found.naming} are used, but {place} holds ids such as {ids[0]}: {way}"]
    mice = [n for n in file.names[found.place] if OF_MICE.fullmatch(n)] if own == "ENSG0" else []
    way = "as genes of mice are called and none of humans: mouse in upper case? Give mouse symbols or ids as they are"
    return [f"{len(mice):,} names such as {listed(mice, 2)}, {way}"] if len(mice) > MIN_SHARED else []


def of_other_species(file: CellFile, found: Genes) -> np.ndarray:
    """(genes,) bool: genes of the species that `found` was not read as, as a reference of two species has them."""
    other = OTHER[found.naming.split()[0]]
    names, rest = file.names[found.place], found.symbol == ""
    none = np.zeros(len(names), bool)
    if other == "mouse" and sum(n != n.upper() or "ENSMUSG" in n for n in names[rest]) < MIN_SHARED:
        return none  # spares opening the tables of mouse genes
    foreign = [rest & (gene_names.translate(names, n)[0] != "") for n in gene_names.NAMINGS if n.startswith(other)]
    most = max(foreign, key=np.sum)
    return most if most.sum() >= MIN_SHARED else none
