"""Delimited text as cells x genes; what holds words, or is called like an annotation of cells or genes, is no value."""

import csv
import gzip
import itertools
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import spearmanr

from atsdp_utils.data import gene_names
from atsdp_utils.own_cells import cellfile
from atsdp_utils.own_cells.cellfile import CellFile, InputError, names_of_no_gene

#: Fewer cells tell nothing of each other; so many lines are looked at on either side, and so many cells within.
FEWEST, EDGE, WITHIN = 10, 8, 50
#: Below this rank correlation with the sum of cells lies none that has as many genes as half of them (measured: 0.16);
#: what has as many as any of them, and is less alike, was not measured.
ALIKE = 0.1
#: What a line may be of all cells beside it.
STATISTICS = {"sum": np.sum, "mean": np.mean, "median": np.median, "maximum": np.max, "minimum": np.min,
              "number of values": np.count_nonzero}  # fmt: skip
#: What stands above the names of rows.
CORNERS = ("", "barcode", "cell", "cells", "gene", "genes", "symbol")
#: What is measured of a cell, at an end of a column's name.
MEASURE = r"(est_?counts?|expected_?count|counts?|abundance|tpm|[fr]pkm|cpm|(?:eff(?:ective)?_?)?length)"
MEASURED = re.compile(rf"(?i){MEASURE}[ ._-](.+)|(.+)[ ._-]{MEASURE}")
PLAIN = ". Write 1234.5 for numbers, without thousands or signs, and leave out rows of words or a second heading."


@dataclass(frozen=True)
class Layout:
    """How a table is written."""

    header: list[str]
    names: list[str]  # first field of every row
    top: int  # line of the heading
    sep: str
    decimal: str
    in_columns: int  # known genes a side
    in_rows: int

    @property
    def genes_in_rows(self) -> bool:
        """The side whose names are known genes is the genes' side."""
        return self.in_rows > self.in_columns

    def is_number(self, value: str) -> bool:
        """Whether a field holds a number, or says that there is none."""
        try:
            plain = value if self.decimal == "." else value.replace(".", "x").replace(",", ".")
            float(plain.replace("_", "x") or "nan")  # Python takes 1_000 for a number
        except ValueError:
            return value in ("NA", "N/A", "n/a", "#NA", "#N/A", "NULL", "null", "None", "<NA>")
        return True

    def is_word(self, value: str) -> bool:
        """Whether a field holds no number, nor one that is marked (< 1), missing (-) or has thousands set apart."""
        return not self.is_number(re.sub(r"(?<=\d)[ ,'](?=\d{3})|^[<>~-]", "", value))


def read(path: Path, labels: str | None) -> CellFile:
    """Cells x genes or genes x cells; `labels` names a column or row of labels."""
    look = _layout(path)
    header, sample, beside, skipped = _heading(path, look, labels)
    void = {i for i, name in enumerate(header) if i and not name + sample[0][i]}  # as a spreadsheet leaves them
    text = _columns_of_words(look, header, sample, labels) | void
    X, words = _numbers_and_words(path, look, header, text, skipped)
    columns = np.array([name for i, name in enumerate(header) if i not in text], dtype=str)
    if look.genes_in_rows and not len(columns):
        what = f"every column is called like an annotation ({cellfile.listed(header[1:], 4)})"
        expected = "Expected a column a cell; if these are cells, rename them."
        raise InputError(f"{path}: {what}: a table of markers or statistics? {expected}")
    rows = np.array([f"cell_{i}" for i in range(X.shape[0])])
    beside_names = 0 in text and header[0] != labels
    if beside_names and (look.genes_in_rows or words[0].is_unique or not _describes(header[0], None)):
        rows = words.pop(0).to_numpy(str)
    words = words.drop(columns=sorted(void)).rename(columns=dict(enumerate(header)))
    if look.genes_in_rows:
        notes = [f"genes in rows, cells in columns ({look.in_rows} of {len(look.names)} row names are known genes)"]
        obs = pd.DataFrame([[v for i, v in enumerate(line) if i not in text] for line in beside]).T
        obs = obs.set_axis([line[0] for line in beside], axis=1).set_axis(columns)
        names = {"the first column": rows} | {f"column {c}": words[[c]].iloc[:, 0].to_numpy(str) for c in words}
        X, aside = X.T, [*obs.columns, *words.columns]
    else:
        notes = [f"cells in rows, genes in columns ({look.in_columns} of {len(columns)} column names are known genes)"]
        obs, names, aside = words.set_axis(rows), {"the header": columns}, [*words.columns, *(v[0] for v in beside)]
    notes += [f"not read as values: {cellfile.listed(aside, 6)}"] if len(aside) else []
    numbers = (str(c) for c, values in words.items() if look.genes_in_rows and values.map(look.is_number).all())
    numbered = [c for c in numbers if re.search(r"\d", c)]
    way = f"{cellfile.listed(numbered, 4)}: columns called like annotations, not read as cells; if cells, rename them"
    ways = [way] if len(numbered) > 2 else []
    return _of_cells(CellFile(path, "table", cellfile.checked(X), names, obs, notes, ways), look.genes_in_rows)


def _of_cells(file: CellFile, genes_in_rows: bool) -> CellFile:
    """Without lines whose values are no cell's: annotations of genes, whatever their name, and sums of the others."""
    X, called = file.X, file.obs.index
    found = [m for m in map(MEASURED.fullmatch, called) if m]
    kinds = sorted({(m[1] or m[4]).lower() for m in found})
    if len(found) > len(called) / 2 and len({m[2] or m[3] for m in found}) <= len(found) / 2 and len(kinds) > 1:
        said = f"several measures of one cell ({', '.join(kinds)}), as {found[0][0]} and {found[-1][0]}"
        raise InputError(f"{file.path}: {said}. Expected one value a cell and gene: keep the counts alone.")
    strange = _annotations(X) if genes_in_rows else []
    named = cellfile.listed(called[strange], 4)
    if len(strange) > max(3, len(called) // 20):
        way = "Expected a column a cell: delete what is none."
        raise InputError(f"{file.path}: annotations of genes? No other column has values like those of {named}. {way}")
    rest = np.setdiff1d(np.arange(len(called)), strange)
    sums = {rest[i]: what for i, what in _statistics(X[rest]).items()}
    cells = np.setdiff1d(rest, list(sums))
    notes = [*file.notes, *(f"{called[i]}: the {what} of the others, no cell" for i, what in sums.items())]
    way = f"not read as cells, for no other column has values like theirs: {named}. If they are cells, write an h5ad"
    ways = [*file.warnings, way] if strange else file.warnings
    return replace(file, X=X[cells], obs=file.obs.iloc[cells], notes=notes, warnings=ways)


def _annotations(X: sparse.csr_matrix) -> list[int]:
    """Lines before the first cell and behind the last that go along with no other: lengths and places of genes."""
    n = X.shape[0]
    if n < FEWEST:
        return []
    within = np.unique(np.linspace(n // 4, 3 * n // 4, WITHIN).astype(int))
    strange = _unlike(_finite(X[within]))
    sides = (range(within[0]), range(n - 1, within[-1], -1))
    own = [itertools.takewhile(lambda i: strange(_finite(X[[i]])[0]), side) for side in sides]
    return [i for side in own for i in itertools.islice(side, max(4, n // 20 + 1))]


def _finite(X: sparse.csr_matrix) -> np.ndarray:
    return np.nan_to_num(X.toarray().astype(np.float64), posinf=0, neginf=0)


def _unlike(V: np.ndarray) -> Callable[[np.ndarray], bool]:
    """What tells values of another kind from those of the cells V."""
    if V.min() < 0:  # z-scores
        spread, broken = np.median(V.std(1)), (V % 1 != 0).any(1).all()
        return lambda v: v.any() and (v.std() > 50 * spread > 0 or (broken and not (v % 1).any()))
    share = V / np.maximum(V.sum(1, keepdims=True), np.finfo(float).tiny)
    total, genes = share.sum(0), (V != 0).sum(1)
    own = [_alike(V[i], total - share[i]) for i in np.flatnonzero(genes >= np.median(genes))]
    lowest = min(ALIKE, *own) if np.median(own) > 2 * ALIKE else -1  # cells that are unlike each other tell nothing
    return lambda v: np.count_nonzero(v) >= genes.max() and _alike(v, total) < lowest


def _alike(v: np.ndarray, w: np.ndarray) -> float:
    """Rank correlation; 0 for values that do not vary."""
    return float(spearmanr(v, w).statistic) if np.ptp(v) and np.ptp(w) else 0.0


def _statistics(X: sparse.csr_matrix) -> dict[int, str]:
    """Lines at an end that are the sum, the mean, … of all cells behind or before them, on some million values."""
    n, found = X.shape[0], {}
    genes = np.argsort(-X.getnnz(axis=0), kind="stable")[:: 1 + X.shape[0] * X.shape[1] // 20_000_000]
    V = _finite(X[:, genes])
    edge = EDGE if n >= 4 * EDGE else n // 4 if n >= FEWEST else 0
    for i in (*range(edge - 1, -1, -1), *range(n - edge, n)):
        others = [j for j in (range(i + 1, n) if i < edge else range(i)) if j not in found]
        if _statistic(V[i, :20], V[others, :20], 1) and (what := _statistic(V[i], V[others], cellfile.MIN_SHARED)):
            found[i] = what
    return found


def _statistic(line: np.ndarray, others: np.ndarray, least: int) -> str:
    """What a line is of all others, but for the digits that it was rounded to; '' where cells are like it, too."""
    digits = next((d for d in range(7) if (abs(line - line.round(d)) <= 1e-5 * abs(line)).all()), np.inf)
    near, there = 1e-3 * abs(line) + 0.51 * 10.0**-digits, line != 0
    if there.sum() < least or (abs(others - line) <= near)[:, there].mean() > 0.5:
        return ""
    return next((what for what, of in STATISTICS.items() if (abs(of(others, axis=0) - line) <= near).all()), "")


def _columns_of_words(look: Layout, header: list[str], sample: list[list[str]], labels: str | None) -> set[int]:
    """Columns that are no values: names, words in most rows, and what is called like an annotation."""
    fields = [[row[i] for row in sample if row[i : i + 1] not in ([], [""])] for i in range(len(header))]
    text = {0} | {i for i, values in enumerate(fields) if 2 * sum(map(look.is_word, values)) > len(values)}
    if not look.genes_in_rows and header[0] and all(map(look.is_number, look.names)):
        numbered = len(set(look.names)) == len(look.names) and all(v.isdigit() for v in look.names)
        if not numbered or gene_names.known([header[0]]):
            text.discard(0)  # no column of names: the first field of the header is a gene
    text |= {i for i, name in enumerate(header) if _describes(name, labels)}
    if look.genes_in_rows:
        of_genes = names_of_no_gene()[cellfile.OF_GENES]
        text |= {i for i, name in enumerate(header) if of_genes.fullmatch(name)}
    return text


def is_gzip(path: Path) -> bool:
    """Judged by its first bytes."""
    with open(path, "rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def opened(path: Path, mode: str = "rb", **form):
    """The content of a file, unpacked if it is gzipped."""
    return (gzip.open if is_gzip(path) else open)(path, mode, **form)


def _open(path: Path):
    return opened(path, "rt", encoding="utf-8-sig", newline="")


def _layout(path: Path) -> Layout:
    """The layout of a table; a comma between semicolons or tabs is a decimal mark. Short lines precede the heading."""
    names, seconds, marks, empty, widths = [], [], set(), True, {}  # lines of each number of separators
    with _open(path) as handle:
        head = list(itertools.islice(handle, 40))
        sep, top = _separator(head)
        for line in itertools.chain(head[top + 1 :], handle):
            empty = empty and not line.strip(f"{sep} \r\n")
            start = [v.strip().strip("\"'") for v in line.split(sep, 2)]
            if sep != " " and '"' not in line and line.strip():
                widths.setdefault(line.count(sep), []).append(top + 2 + len(names))
            names.append(start[0])
            seconds.append(start[1] if len(start) > 2 else "")
            if sep in ";\t" and "," in line:
                behind = re.findall(rf"{sep}-?(\d+),(\d+)(?=[{sep}\s])", line)
                points = re.findall(rf"{sep}-?\d+\.\d+(?=[{sep}\s])", line)
                if len(behind) > len(points):  # else a column of words
                    marks |= {"either" if len(v) == 3 and whole != "0" else "decimal" for whole, v in behind}
    if empty:
        raise InputError(f"{path}: no row below the header. Expected names and numbers, one row a cell or a gene.")
    most = max(widths, key=lambda n: len(widths[n]), default=0)
    if fewer := [(lines[0], n) for n, lines in widths.items() if n < most]:
        found = f"line {min(fewer)[0]}: {min(fewer)[1] + 1} fields, in others {most + 1}"
        line = names[min(fewer)[0] - top - 2][:30]
        way = "was the file cut short (copy it again), or is this no row of it (delete it)?"
        raise InputError(f"{path}: {found}; it begins with {line!r}. Expected as many: {way}")
    if marks == {"either"}:
        raise InputError(f"{path}: numbers such as 1,234: thousands or decimals? Write them without the comma.")
    header = _fields(head[top], sep) if head else []
    in_columns, in_rows = (gene_names.known(side, gene_names.NAMINGS[:1]) for side in (header, names))
    if max(in_columns, in_rows) < cellfile.MIN_SHARED:  # else the larger tables of names need not be opened
        in_columns, in_rows = gene_names.known(header), gene_names.known(names)
    in_rows = max(in_rows, gene_names.known(seconds, gene_names.NAMINGS[:2]))
    if not in_columns and not in_rows:
        columns, rows = (", ".join(name[:30] for name in side[:3]) for side in (header[1:], names))
        shown = f"columns {columns} …, rows {rows} …"
        hint = " A column called gene: a table of markers? Give the matrix." * ("gene" in map(str.lower, header))
        raise InputError(f"{path}: no side holds known genes ({shown}). Expected symbols or Ensembl ids.{hint}")
    look = Layout(header, names, top, sep, "," if marks else ".", in_columns, in_rows)
    if look.genes_in_rows and len(header) < 7 and max(len(set(names)), len(set(seconds))) < len(names) / 2:
        raise InputError(f"{path}: a row a value ({', '.join(header)})? Make it genes x cells: pandas.pivot_table.")
    if look.genes_in_rows and all(map(look.is_number, header[1:])):
        same = len({*header[1:]}) < len(header) - 1  # cells have names of their own
        below = (_fields(line, sep)[1:] for line in head[top + 1 : top + 2])  # below labels the heading comes next
        if gene_names.known([header[0]]) or (same and all(map(look.is_number, next(below, ())))):
            numbered = ["", *(f"cell_{i}" for i in range(len(header) - 1))]  # no heading: its fields are the first gene
            look = replace(look, header=numbered, names=[header[0], *names], top=top - 1)
    return look


def _separator(head: list[str]) -> tuple[str, int]:
    """What separates the fields of most of the first lines, and the first of these lines, the heading."""
    found = []
    for sep in "\t;, ":
        counts = [line.rstrip(f"{sep}\r\n").count(sep) for line in head]
        usual = sorted(counts)[len(counts) // 2] if counts else 0
        full = [i for i, n in enumerate(counts) if 2 * n >= usual > 0]
        found.append((len(full), max(counts, default=0), sep, min(full, default=0)))
    return max(found, key=lambda each: each[:2])[2:]


def _fields(line: str, sep: str) -> list[str]:
    return [v.strip() for v in next(csv.reader([line.rstrip("\r\n")], delimiter=sep, skipinitialspace=True))]


def _heading(
    path: Path, look: Layout, labels: str | None
) -> tuple[list[str], list[list[str]], list[list[str]], list[int]]:
    """Fields of the heading and of the first rows, rows that describe the cells, and lines that hold no numbers."""
    below = range(look.top + 1, look.top + 1 + len(look.names))
    sums, named = names_of_no_gene()[cellfile.SUMS], enumerate(look.names, look.top + 1)
    beside = [i for i, name in named if (_describes(name, labels) if look.genes_in_rows else sums.fullmatch(name))]
    rest, lines, ends = [], {}, True
    with _open(path) as handle:
        for i, line in enumerate(handle):
            ends = ends and (i not in below or not line.strip() or line.rstrip("\r\n").endswith(look.sep))
            if i in beside or (i in below and len(rest) < 20 and line.strip(f"{look.sep} \r\n")):
                lines[i] = _fields(line, look.sep)
                if i not in beside:
                    rest.append(i)
    header, sample, skipped = look.header, [lines[i] for i in rest], [*range(look.top + 1), *beside]
    rows = [lines[i] for i in beside]
    if look.genes_in_rows and _describes(header[0], labels) and not any(map(look.is_number, sample[0][1:])):
        rows, skipped = [header, *rows], [*skipped, rest[0]]  # labels stand above the names of the cells
        header, *sample = sample
    if len(header) == len(sample[0]) - 1:
        header = _one_more(path, look, header, sample[0], ends)
    if len(header) < 2 or any(len(line) != len(header) for line in (sample[0], *rows)):
        found = f"{len(header)} fields in the header, {len(sample[0])} below it"
        raise InputError(f"{path}: {found}. Expected as many, two or more.")
    return header, sample, rows, skipped


def _one_more(path: Path, look: Layout, header: list[str], first: list[str], ends: bool) -> list[str]:
    """A heading that is one field short: R writes none above the row names, or every row `ends` in a separator."""
    named = not all(map(look.is_number, look.names))
    if named and gene_names.known(header[:1]):
        return ["", *header]
    if ends:
        return [*header, ""]
    if named and look.is_number(first[1]) and header[0].lower() in CORNERS:
        raise InputError(f"{path}: a column without a heading, behind {header[-1]}. Give it a heading, or delete it.")
    return ["", *header]


def _no_number(path: Path, look: Layout, header: list[str], numbers: list[int], skipped: list[int]) -> str:
    """The first field that should hold a number and does not, and where it stands."""
    with _open(path) as handle:
        rows = ((i, _fields(line, look.sep)) for i, line in enumerate(handle) if i not in skipped and line.strip())
        wrong = ((i, header[j], r[j]) for i, r in rows for j in numbers if j < len(r) and not look.is_number(r[j]))
        return next((f"line {i + 1}, column {name}: {value!r}" for i, name, value in wrong), "")


def _describes(name: str, labels: str | None) -> bool:
    """Whether a column or row called so describes cells."""
    return name == labels or any(names_of_no_gene()[k].fullmatch(name) for k in (cellfile.OF_CELLS, cellfile.SUMS))


def _numbers_and_words(
    path: Path, look: Layout, header: list[str], text: set[int], skipped: list[int]
) -> tuple[sparse.csr_matrix, pd.DataFrame]:
    """Numbers, sparse, and the columns of words; read in pieces of some million values."""
    names, blocks, words = list(range(len(header))), [], []
    numbers = [i for i in names if i not in text]
    dtypes = {i: str if i in text else np.float32 for i in names}
    try:
        with _open(path) as handle:
            pieces = pd.read_csv(
                handle, sep=look.sep, skipinitialspace=True, header=None, skiprows=skipped, names=names, dtype=dtypes,
                index_col=False, decimal=look.decimal, chunksize=max(1, 10_000_000 // len(names)), low_memory=False,
            )  # fmt: skip
            for piece in (p.dropna(how="all") for p in pieces):
                blocks.append(sparse.csr_matrix(piece[numbers].to_numpy(np.float32)))
                words.append(piece[sorted(text)].fillna(""))
    except (OSError, EOFError, zlib.error, ValueError, UnicodeDecodeError) as error:
        short = _no_number(path, look, header, numbers, skipped) or " ".join(str(error).split())[:160]
        raise InputError(f"{path}: expected numbers below and beside the names ({short}){PLAIN}") from error
    return sparse.csr_matrix(sparse.vstack(blocks)), pd.concat(words, ignore_index=True)
