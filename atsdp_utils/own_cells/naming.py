"""What the genes of a file are called, and which of its names are no gene of the bulk."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.own_cells.cellfile import MIN_SHARED, OF_GENES, CellFile, InputError, listed, names_of_no_gene

OTHER = {"human": "mouse", "mouse": "human"}


@dataclass(frozen=True)
class Genes:
    """Symbols of a file's genes in the bulk's spelling, '' where it has none, and where and how they were found."""

    symbol: np.ndarray
    naming: str
    place: str
    shared: int
    ways: dict[str, int] = field(default_factory=dict)


def recognise(file: CellFile, species: str | None = None) -> Genes:
    """The place and the naming with the most bulk genes; genes of the other species are never translated silently."""
    wanted, first = species or "human", next(iter(file.names.values()))[:4]
    best = _best(file, wanted)
    found = f"{file.path}: {best.shared} of {file.X.shape[1]:,} genes are in the bulk data (first: {', '.join(first)})"
    if best.shared >= MIN_SHARED:
        if "lower case" not in best.naming or species is not None:
            return best
        raise InputError(f"{found}, in lower case, as genes of several species are written. If human: --species human.")
    other = OTHER[wanted]
    rival = _best(file, other)
    if rival.shared >= MIN_SHARED:
        raise InputError(f"{found}, but {rival.shared:,} as {rival.naming}. If they are {other}: --species {other}.")
    hint = ""
    if all(n.isdigit() for n in first):
        hint = " Numbers name no gene; if they are Entrez ids, translate them to symbols."
    elif gene_names.known(file.obs.index) >= MIN_SHARED:
        hint = " The names of the cells are genes: transpose the file."
    of = f"of its {len(gdsc.load_bulk().genes):,}, by HGNC symbol or Ensembl id"
    raise InputError(f"{found}. Expected at least {MIN_SHARED} {of}.{hint}")


def _best(file: CellFile, species: str) -> Genes:
    """The place and the naming of a species that reach most bulk genes; of equals the first."""
    found = []
    for place, names in file.names.items():
        for naming in (n for n in gene_names.NAMINGS if n.startswith(species)):
            symbol, way = gene_names.translate(names, naming)
            ways = pd.Series(way[way != ""]).value_counts().to_dict()
            found.append(Genes(symbol, naming, place, len(set(symbol) - {""}), ways))
    return max(found, key=lambda g: g.shared)


def left_out(file: CellFile, found: Genes) -> list[str]:
    """What is said of names that are no gene of the bulk: their number, and those that are no gene at all."""
    names = file.names[found.place][found.symbol == ""]
    notes = [f"{len(names):,} names are no gene of the bulk and are not used"] if len(names) else []
    for kind, pattern in names_of_no_gene().items():
        there = [n for n in names if kind != OF_GENES and pattern.fullmatch(n)]
        notes += [f"not genes but {kind}: {listed(there, 4)}"] if there else []
    return notes


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
