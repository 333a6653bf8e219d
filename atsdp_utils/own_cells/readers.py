"""Reading a person's own cells: h5ad, 10x folders and h5 files, delimited text; and what their genes and values are.

Whatever is wrong with a file ends in an :class:`InputError` that says what was found, what was expected and the way
out. Nothing is unpickled and nothing sparse is made dense.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data import gdsc, gene_names

#: Fewer genes in common with the bulk than this cannot carry a drug signal (the bound of gdsc.shared_genes).
MIN_SHARED = 100
#: Log-normalised values stay below this; counts and TPM do not.
MAX_LOG = 30
#: Below this share of its standard deviation the mean of a z-scored gene lies (median over genes, a file may hold some
#: of the cells that were scaled together).
CENTRED = 0.3
#: Bytes of a dense matrix beyond which a file is refused: it would not fit beside its own copies.
MAX_DENSE = 3e9
#: Names of columns (or rows) of a table that describe cells; no human or mouse gene is called so.
ANNOTATION = re.compile(
    r"(?i)response|labels?|sensitiv(e|ity)|condition|treatment|drug|dose|time_?point|batch|sample|donor|patient|group"
    r"|phase|clusters?|seurat_clusters|leiden|louvain|orig[._]ident|cell[ _.]?(type|line|id|name)s?|barcodes?"
    r"|n_?(count|gene|feature|umi)s?(_\w+)?|total_counts\w*|(pct|percent)[._]\w+|library_size|size_?factors?"
    r"|(umap|tsne|pc)[ _]\d+|(\w+_)?reads?(_\w+)?|(\w+[ _.])?scores?|age|sex|gender|(ln_?|log_?)?ic_?50|auc|viability"
    r"|tumou?r(_?(id|no|number|size))?|doublets?|plate|well|lane|passage|survival"
)
#: Columns of a table with genes in rows that describe genes.
OF_GENES = re.compile(
    r"(?i)chr(omosome)?|start|end|strand|(gene_?|transcript_?)?length|entrez(_?gene)?(_?id)?|ncbi(_?gene)?(_?id)?"
    r"|hgnc(_?id)?|gene_?(id|name|symbol|type|biotype)s?|biotype|description|locus|exons?|gc_?content|position"
)
#: Names that stand among genes and are none, by kind.
TECHNICAL = {
    "totals of HTSeq or STAR": re.compile(r"__\w+|N_(unmapped|multimapping|noFeature|ambiguous)"),
    "spike-ins": re.compile(r"(?i)ERCC[-_.]\d+"),
    "hashtags": re.compile(r"(?i)(hto|hashtag|cmo|multiseq)[-_ .]?\w*"),
    "antibodies": re.compile(
        r"(?i).*(totalseq\w*|[-_. ](ab([-_.]\d+)?|(adts?|antibody|prot(ein)?)([-_.]?\d+)?))|(adt|ab|prot)[-_.:].*"
    ),
    "peaks": re.compile(r"(?i)(chr)?(\d+|x|y|mt?)[:_-]\d+[_-]\d+"),
}
FORMATS = "an .h5ad file, a 10x .h5 file, a 10x folder (matrix.mtx, features.tsv, barcodes.tsv), a .csv or .tsv (.gz)"


class InputError(Exception):
    """Something is wrong with what the person gave; the message is written for them."""


@dataclass
class CellFile:
    """What a file holds, before anything is made of it.

    Attributes
    ----------
    kind
        ``h5ad``, ``10x h5``, ``10x folder`` or ``table``.
    X
        (cells, genes), CSR or dense.
    names
        Candidates for the names of the genes: where they stand in the file -> (genes,) str.
    obs
        Columns on cells; its index names them.
    notes
        What was decided while reading.
    """

    path: Path
    kind: str
    X: sparse.csr_matrix | np.ndarray
    names: dict[str, np.ndarray]
    obs: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def read(path: Path, layer: str | None = None, labels: str | None = None) -> CellFile:
    """Read the cells of `path`, whatever its format.

    Parameters
    ----------
    layer
        A layer of an h5ad file, or ``raw`` for its ``.raw``; None: its ``X``.
    labels
        Column that holds labels; in a delimited file it tells that column from a gene.

    Raises
    ------
    InputError
        If there is no such file, its format is not known, it is damaged, or it holds no cells or genes.
    """
    kind = _kind(path)
    if layer is not None and kind != "h5ad":
        raise InputError(f"--layer {layer}: {path.name} is a {kind}, which has no layers. Leave --layer out.")
    readers = {
        "h5ad": lambda: _read_h5ad(path, layer),
        "10x h5": lambda: _read_10x_h5(path),
        "10x folder": lambda: _read_10x_folder(path),
        "table": lambda: _read_table(path, labels),
    }
    try:
        file = readers[kind]()
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damage that a library reports in words of its own
        raise _unreadable(path, error) from error
    n_cells, n_genes = file.X.shape
    if not n_cells or not n_genes:
        raise InputError(f"{path}: {n_cells} cells x {n_genes} genes. Expected at least one of each.")
    if file.X.dtype.kind not in "biuf":
        raise InputError(f"{path}: values are of type {file.X.dtype}, expected numbers.")
    _drop_missing_genes(file)
    return file


def _drop_missing_genes(file: CellFile) -> None:
    """Leave out genes that are missing (NaN) in every cell, which z-scoring makes of genes that do not vary."""
    first = dense(file.X[[0]]).ravel()
    missing = np.flatnonzero(first != first)
    missing = missing[np.isnan(dense(file.X[:, missing])).all(0)] if len(missing) else missing
    if 0 < len(missing) < len(first):
        keep = np.setdiff1d(np.arange(len(first)), missing)
        file.X, file.names = file.X[:, keep], {place: names[keep] for place, names in file.names.items()}
        file.notes.append(f"{len(missing):,} genes missing (NaN) in every cell are left out")


def dense(X: sparse.csr_matrix | np.ndarray) -> np.ndarray:
    """The values without holes; an array is returned as it is."""
    return X.toarray() if sparse.issparse(X) else X


def _kind(path: Path) -> str:
    """Format of `path`: by content where the content tells, else by name."""
    import h5py

    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Expected {FORMATS}.")
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json")):
            raise InputError(f"{path}: zarr is not read. Write an h5ad: anndata.read_zarr(folder).write_h5ad(file).")
        return "10x folder"
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Was it copied completely?")
    if not os.access(path, os.R_OK):
        raise _unreadable(path, PermissionError())
    if h5py.is_hdf5(path):
        with _hdf5(path) as f:
            keys, ten_x = set(f), _ten_x_group(f)
        if {"obs", "var"} <= keys:
            return "h5ad"
        if ten_x:
            return "10x h5"
        if "mod" in keys:
            way = "mudata.read(file)['rna'].write_h5ad(…)"
            raise InputError(f"{path}: h5mu (several kinds of data) is not read. Write the genes: {way}.")
        if {"matrix", "row_attrs"} <= keys:
            raise InputError(f"{path}: loom is not read. Write an h5ad: scanpy.read_loom(file).write_h5ad(…).")
        raise InputError(f"{path}: HDF5 with {sorted(keys)[:6]}, neither h5ad (obs, var, X) nor 10x (group 'matrix').")
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".h5ad", ".h5")):
        with open(path, "rb") as handle:
            if handle.read(2) == b"\x1f\x8b":
                raise InputError(f"{path}: HDF5 inside gzip, which cannot be read in place. Unpack it first (gunzip).")
        raise InputError(f"{path}: not HDF5, though named so: truncated or another format. Copy it again.")
    if name.endswith((".csv", ".tsv", ".txt", ".tab")):
        return "table"
    if name.endswith(".mtx"):
        raise InputError(f"{path}: a matrix without names. Give the folder that also holds features and barcodes.")
    raise InputError(f"{path}: format {path.suffix or '(no suffix)'} is not supported. Expected {FORMATS}.")


@contextmanager
def _hdf5(path: Path) -> Iterator:
    """An open HDF5 file; whatever its bytes fail with becomes an :class:`InputError`."""
    import h5py

    try:
        with h5py.File(path, "r") as f:
            yield f
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    """What is said of a file that cannot be opened or read."""
    if isinstance(error, PermissionError):
        return InputError(f"{path}: may not be read. Ask for the permission (chmod u+r), or copy the file.")
    if isinstance(error, BlockingIOError) or "unable to lock" in str(error):
        return InputError(f"{path}: locked by another program that has it open. Close it there, or copy the file.")
    return InputError(f"{path}: cannot be read, truncated or damaged? Copy it again. ({_short(error)})")


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:160]


def _csr(X) -> sparse.csr_matrix | np.ndarray:
    """Sparse as CSR with indices checked (a damaged file must not reach compiled code), dense as it is.

    Half precision becomes single: its sums overflow, and scipy does not know it.
    """
    X = X if sparse.issparse(X) else np.asarray(X)
    X = X.astype(np.float32) if X.dtype == np.float16 else X
    if sparse.issparse(X):
        X = sparse.csr_matrix(X)
        X.check_format(full_check=True)
    return X


def _read_h5ad(path: Path, layer: str | None) -> CellFile:
    from anndata.io import read_elem

    with _hdf5(path) as f:
        layers = sorted(f["layers"]) if "layers" in f else []
        raw = next((r for r in ("raw/", "raw.") if f"{r}X" in f), None)  # anndata before 0.7 wrote raw.X
        others = [*layers, *(["raw"] if raw else [])]
        place, var = ("X", "var") if layer is None else (f"layers/{layer}", "var")
        if layer == "raw" and "raw" not in layers and raw:
            place, var = f"{raw}X", f"{raw}var"
        if place not in f:
            have = ", ".join(others) or "none"
            wanted = "no X" if layer is None else f"no layer {layer!r}"
            raise InputError(f"{path}: {wanted} in this file. Layers there: {have}. Choose one with --layer.")
        if hasattr(f[place], "shape") and f[place].size * f[place].dtype.itemsize > MAX_DENSE:
            size = f"{f[place].shape[0]:,} x {f[place].shape[1]:,}"
            raise InputError(f"{path}: a dense matrix of {size}. Store it sparse (scipy.sparse.csr_matrix) first.")
        X, obs, genes = _csr(read_elem(f[place])), _frame(f, read_elem(f["obs"])), _frame(f, read_elem(f[var]))
        if X.ndim != 2 or X.shape != (len(obs), len(genes)):
            raise InputError(f"{path}: {place} has shape {X.shape}, expected {len(obs)} cells x {len(genes)} genes.")
    names = {"the index of var": genes.index.to_numpy(str)}
    for column in genes:
        if not pd.api.types.is_numeric_dtype(genes[column]):
            names[f"var[{column!r}]"] = genes[column].astype(str).to_numpy(str)
    notes = [f"also there, for --layer: {', '.join(others)}"] if others and layer is None else []
    kinds = next((genes[c].astype(str).to_numpy(str) for c in ("feature_types", "feature_type") if c in genes), None)
    return _expression(CellFile(path, "h5ad", X, names, obs, notes), kinds)


def _expression(file: CellFile, kinds: np.ndarray | None) -> CellFile:
    """Without features whose kind says that they are no gene: antibodies, hashtags, peaks, guides."""
    keep = None if kinds is None else kinds == "Gene Expression"
    if keep is None or keep.all():
        return file
    if not keep.any():
        found = ", ".join(sorted(set(kinds))[:4])
        raise InputError(f"{file.path}: no gene among the features, only {found}. Expected some of 'Gene Expression'.")
    note = (
        f"{(~keep).sum():,} features other than gene expression left out ({', '.join(sorted(set(kinds[~keep]))[:4])})"
    )
    return replace(only(file, keep), notes=[*file.notes, note])


def _frame(f, table) -> pd.DataFrame:
    """Columns on cells or genes; anndata before 0.7 wrote a structured array, and the words of categories into uns."""
    if isinstance(table, pd.DataFrame):
        return table
    frame = pd.DataFrame({k: table[k] for k in table.dtype.names})
    for column in frame:
        if table.dtype[column].kind in "SO":
            frame[column] = [v.decode() if isinstance(v, bytes) else v for v in frame[column]]
        elif f"uns/{column}_categories" in f:
            words = f[f"uns/{column}_categories"].asstr()[:]
            frame[column] = pd.Categorical.from_codes(frame[column], words)
    return frame.set_index(table.dtype.names[0])


def _read_10x_h5(path: Path) -> CellFile:
    with _hdf5(path) as f:
        g = f[_ten_x_group(f)]
        shape, barcodes = tuple(int(n) for n in g["shape"][:]), g["barcodes"].asstr()[:]
        X = _csr(sparse.csr_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), shape=shape[::-1]))
        places = {"id": "features/id", "name": "features/name", "feature_type": "features/feature_type"}
        if "features" not in g:  # Cell Ranger 2
            places = {"id": "genes", "name": "gene_names"}
        features = {k: g[place].asstr()[:] for k, place in places.items() if place in g}
    return _ten_x(path, "10x h5", X, features, barcodes)


def _ten_x_group(f) -> str | None:
    """The group of a 10x file that holds the matrix: Cell Ranger 2 has one a genome, of which a human one is taken."""
    if "matrix" in f and hasattr(f["matrix"], "keys"):  # a loom file has a matrix of that name
        return "matrix"
    genomes = [k for k in f if hasattr(f[k], "keys") and {"barcodes", "gene_names"} <= set(f[k])]
    return min(genomes, key=lambda k: k.lower().startswith(("mm", "grcm")), default=None)


def _read_10x_folder(path: Path) -> CellFile:
    from scipy.io import mmread

    found = {part: _one(path, part) for part in ("matrix.mtx", "features.tsv|genes.tsv", "barcodes.tsv")}
    matrix, features, barcodes = found.values()
    try:
        X = _csr(mmread(matrix).T)
        table = pd.read_csv(features, sep="\t", header=None, dtype=str, keep_default_na=False)
        cells = pd.read_csv(barcodes, sep="\t", header=None, dtype=str, keep_default_na=False)[0].to_numpy(str)
    except (OSError, EOFError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: {matrix.name} or its names cannot be read, truncated? ({_short(error)})") from error
    columns = dict(zip(("id", "name", "feature_type"), (table[c].to_numpy(str) for c in table), strict=False))
    return _ten_x(path, "10x folder", X, columns, cells)


def _one(folder: Path, parts: str) -> Path:
    """The one file of `folder` that ends like one of `parts` (``a|b``), gzipped or not."""
    ends = tuple(p + z for p in parts.split("|") for z in ("", ".gz"))
    found = sorted(p for p in folder.iterdir() if p.name.lower().endswith(ends))
    if len(found) != 1:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        expected = parts.replace("|", " or ")
        raise InputError(f"{folder}: {len(found)} files {expected} (.gz), expected one; the folder holds {names}.")
    return found[0]


def _ten_x(path: Path, kind: str, X, features: dict[str, np.ndarray], barcodes: np.ndarray) -> CellFile:
    """Cells x genes of a 10x matrix: gene-expression features only."""
    n_genes = len(features["id"])
    if X.shape != (len(barcodes), n_genes):
        expected = f"{len(barcodes)} barcodes x {n_genes} features"
        way = "Has one of the two a line of headings, or is it of another matrix?"
        raise InputError(f"{path}: the matrix is {X.shape[0]} x {X.shape[1]}, the names are for {expected}. {way}")
    names = {f"features, {k}": features[k] for k in ("id", "name") if k in features}
    file = CellFile(path, kind, X, names, pd.DataFrame(index=pd.Index(barcodes)))
    return _expression(file, features.get("feature_type"))


# --- delimited text ---------------------------------------------------------------------------------------------------


def _read_table(path: Path, labels: str | None) -> CellFile:
    """Cells x genes or genes x cells; the side whose names are known genes is the genes' side.

    Columns beside genes, and rows among genes, that hold words or are called like an annotation describe the cells;
    columns beside genes in rows that are called like one describe the genes. Nothing of these is a value.
    """
    look = _outline(path)
    header, names, sep, decimal = look.header, look.names, look.sep, look.decimal
    in_columns, in_rows = gene_names.known_on_both_sides(header, names, MIN_SHARED)
    in_rows = max(in_rows, gene_names.known(look.seconds, gene_names.NAMINGS[:2]))
    if not in_columns and not in_rows:
        shown = f"columns {', '.join(header[1:4])} …, rows {', '.join(names[:3])} …"
        raise InputError(f"{path}: no side holds known genes ({shown}). Expected symbols or Ensembl ids.")
    genes_in_rows, top = in_rows > in_columns, look.top
    if genes_in_rows and gene_names.known([header[0]]) and all(_is_number(v, decimal) for v in header[1:]):
        header = ["", *(f"cell_{i}" for i in range(len(header) - 1))]  # no header: its fields are the first gene
        names, top = [look.header[0], *names], top - 1
    beside = [i for i, n in enumerate(names, top + 1) if _describes(n, labels)] if genes_in_rows else []
    skipped, rest = [*range(top + 1), *beside], (i for i in range(top + 1, top + 1 + len(names)) if i not in beside)
    at = next(rest)
    (first,) = _lines(path, sep, [at])
    if genes_in_rows and _describes(header[0], labels) and not any(_is_number(v, decimal) for v in first[1:]):
        beside, header = [top, *beside], first  # labels stand above the names of the cells
        skipped.append(at)
        (first,) = _lines(path, sep, [next(rest)])
    rows_beside = _lines(path, sep, beside)
    if len(header) == len(first) - 1:  # as R writes tables: no name above the row names
        header = ["", *header]
    if len(header) < 2 or any(len(line) != len(header) for line in (first, *rows_beside)):
        found = f"{len(header)} fields in the header, {len(first)} below it"
        raise InputError(f"{path}: {found}. Expected as many, two or more.")
    text = {i for i, v in enumerate(first) if i == 0 or not _is_number(v, decimal)}
    if not genes_in_rows and header[0] and not _are_names(header[0], names, decimal):
        text.discard(0)  # no column of names: the first field of the header is a gene
    text |= {i for i, name in enumerate(header) if _describes(name, labels)}
    text |= {i for i, name in enumerate(header) if genes_in_rows and OF_GENES.fullmatch(name)}
    named = 0 in text and (labels is None or header[0] != labels)
    blocks, words = _blocks(path, sep, header, text, skipped, decimal)
    X = _csr(sparse.vstack(blocks)) if blocks else sparse.csr_matrix((0, 0))
    columns = np.array([name for i, name in enumerate(header) if i not in text], dtype=str)
    rows = words[0].to_numpy(str) if named and len(words) else np.array([f"cell_{i}" for i in range(X.shape[0])])
    extra = words[[i for i in words if i != 0 or not named]].rename(columns=dict(enumerate(header)))
    if genes_in_rows:
        notes = [f"genes in rows, cells in columns ({in_rows} of {len(names)} row names are known genes)"]
        obs = pd.DataFrame([[v for i, v in enumerate(line) if i not in text] for line in rows_beside]).T
        obs = obs.set_axis([line[0] for line in rows_beside], axis=1).set_axis(columns)
        places = {"the first column": rows} | {f"column {c}": extra[[c]].iloc[:, 0].to_numpy(str) for c in extra}
        found, aside = CellFile(path, "table", _csr(X.T), places, obs, notes), [*obs.columns, *extra.columns]
    else:
        notes = [f"cells in rows, genes in columns ({in_columns} of {len(columns)} column names are known genes)"]
        found = CellFile(path, "table", X, {"the header": columns}, extra.set_axis(rows), notes)
        aside = found.obs.columns
    if len(aside):
        notes.append(f"not genes: {', '.join(aside[:6])}" + (" …" if len(aside) > 6 else ""))
    return found


def _are_names(heading: str, column: list[str], decimal: str) -> bool:
    """Whether the first column of a table names its cells: words, or whole numbers of which each occurs once."""
    if not all(_is_number(v, decimal) for v in column):
        return True
    return all(v.isdigit() for v in column) and len(set(column)) == len(column) and not gene_names.known([heading])


def _describes(name: str, labels: str | None) -> bool:
    """Whether a column or row called so describes cells."""
    return name == labels or ANNOTATION.fullmatch(name) is not None


def _open_text(path: Path):
    """Text of a file, gzipped or not, judged by its first bytes."""
    with open(path, "rb") as handle:
        zipped = handle.read(2) == b"\x1f\x8b"
    look = {"encoding": "utf-8-sig", "newline": ""}
    return gzip.open(path, "rt", **look) if zipped else open(path, **look)


@contextmanager
def _as_text(path: Path) -> Iterator:
    """An open text file; bytes that are no text become an :class:`InputError`."""
    try:
        with _open_text(path) as handle:
            yield handle
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({_short(error)})") from error


@dataclass(frozen=True)
class Outline:
    """How a table is laid out: heading, first and second field of every row, line of the heading, dialect."""

    header: list[str]
    names: list[str]
    seconds: list[str]
    top: int
    sep: str
    decimal: str


def _outline(path: Path) -> Outline:
    """The layout of a table; a comma between semicolons or tabs is a decimal mark."""
    names, seconds, marks, empty, top = [], [], set(), True, 0
    with _as_text(path) as handle:
        header, below = handle.readline(), handle.readline()
        while _is_remark(header, below):
            header, below, top = below, handle.readline(), top + 1
        sep = max("\t,;", key=header.count)
        sep = sep if sep in header else " "
        for line in itertools.chain([below] if below else [], handle):
            empty = empty and not line.strip()
            start = [v.strip().strip("\"'") for v in line.split(sep, 2)]
            names.append(start[0])
            seconds.append(start[1] if len(start) > 2 else "")
            if sep in ";\t" and "," in line:
                behind = re.findall(rf"{sep}-?\d+,(\d+)(?=[{sep}\s])", line)
                marks |= {"either" if len(digits) == 3 else "decimal" for digits in behind}
    if empty:
        raise InputError(f"{path}: no row below the header. Expected names and numbers, one row a cell or a gene.")
    if marks == {"either"}:
        raise InputError(f"{path}: numbers such as 1,234: thousands or decimals? Write them without the comma.")
    return Outline(_fields(header, sep), names, seconds, top, sep, "," if marks else ".")


def _is_remark(line: str, below: str) -> bool:
    """Whether a line above the heading says something else: a remark, or the sizes of a .gct file."""
    remark = line.startswith("#") and line.count("\t") != below.count("\t")
    return remark or re.fullmatch(r"\d+\t\d+\s*", line) is not None


def _fields(line: str, sep: str) -> list[str]:
    return [v.strip() for v in next(csv.reader([line.rstrip("\r\n")], delimiter=sep))]


def _lines(path: Path, sep: str, wanted: list[int]) -> list[list[str]]:
    """Fields of some lines of a file, in the order asked."""
    found = {}
    with _as_text(path) as handle:
        for i, line in enumerate(handle):
            if i in wanted:
                found[i] = _fields(line, sep)
            if len(found) == len(wanted):
                break
    return [found[i] for i in wanted]


def _is_number(value: str, decimal: str) -> bool:
    try:
        float(value.replace(decimal, ".") or "nan")
    except ValueError:
        return value in ("NA", "N/A", "null")
    return True


def _blocks(
    path: Path, sep: str, header: list[str], text: set[int], skipped: list[int], decimal: str
) -> tuple[list[sparse.csr_matrix], pd.DataFrame]:
    """Numbers as sparse blocks of rows, and the columns of words; read in pieces of some million values."""
    names = list(range(len(header)))
    numbers = [i for i in names if i not in text]
    dtypes = {i: str if i in text else np.float32 for i in names}
    blocks, words = [], []
    try:
        with _open_text(path) as handle:
            pieces = pd.read_csv(
                handle, sep=sep, header=None, skiprows=skipped, names=names, index_col=False, dtype=dtypes,
                decimal=decimal, chunksize=max(1, 10_000_000 // len(names)), low_memory=False,
            )  # fmt: skip
            for piece in pieces:
                blocks.append(sparse.csr_matrix(piece[numbers].to_numpy(np.float32)))
                words.append(piece[sorted(text)].fillna(""))
    except (OSError, EOFError, zlib.error, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected numbers below and beside the names ({_short(error)})") from error
    return blocks, pd.concat(words, ignore_index=True) if words else pd.DataFrame()


# --- genes ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Genes:
    """What the names of a file's genes are.

    Attributes
    ----------
    symbol
        (genes,) symbol in the bulk's spelling, '' where the bulk has no such gene.
    naming
        Such as ``human Ensembl ids``.
    place
        Where in the file the names stand.
    shared
        How many different bulk genes are measured.
    ways
        How many were found as written, after cleaning the name, by a newer name.
    """

    symbol: np.ndarray
    naming: str
    place: str
    shared: int
    ways: dict[str, int] = field(default_factory=dict)


def recognise(file: CellFile, species: str | None = None) -> Genes:
    """Find out what the genes are called: the place and the naming with the most bulk genes.

    Parameters
    ----------
    species
        ``human`` (also if None) or ``mouse``. Genes of the other one are never translated silently.

    Raises
    ------
    InputError
        If fewer than 100 genes are shared with the bulk; it says so if the other species would fit.
    """
    wanted = species or "human"
    best = _best(file, wanted)
    first = ", ".join(next(iter(file.names.values()))[:4])
    found = f"{file.path}: {best.shared} of {file.X.shape[1]:,} genes are in the bulk data (first: {first})"
    if best.shared >= MIN_SHARED and "lower case" in best.naming and species is None:
        raise InputError(f"{found}, in lower case, as genes of several species are written. If human: --species human.")
    if best.shared >= MIN_SHARED:
        return best
    other = "mouse" if wanted == "human" else "human"
    rival = _best(file, other)
    if rival.shared >= MIN_SHARED:
        raise InputError(f"{found}, but {rival.shared:,} as {rival.naming}. If they are {other}: --species {other}.")
    hint = ""
    if all(n.isdigit() for n in next(iter(file.names.values()))[:4]):
        hint = " Numbers name no gene; if they are Entrez ids, translate them to symbols."
    elif gene_names.known(file.obs.index) >= MIN_SHARED:
        hint = " The names of the cells are genes: transpose the file."
    expected = f"Expected at least {MIN_SHARED} of its {len(gdsc.load_bulk().genes):,}, by HGNC symbol or Ensembl id."
    raise InputError(f"{found}. {expected}{hint}")


def _best(file: CellFile, species: str) -> Genes:
    """The place and the naming of a species that reach most bulk genes; of equals the first."""
    found: list[Genes] = []
    for place, names in file.names.items():
        for naming in (n for n in gene_names.NAMINGS if n.startswith(species)):
            symbol, way = gene_names.translate(names, naming)
            ways = pd.Series(way[way != ""]).value_counts().to_dict()
            found.append(Genes(symbol, naming, place, len(set(symbol) - {""}), ways))
    return max(found, key=lambda g: g.shared)


def only(file: CellFile, keep: np.ndarray) -> CellFile:
    """The file with some of its genes, (genes,) bool; values and depth are judged on those that are known."""
    if keep.all():
        return file
    return replace(file, X=file.X[:, np.flatnonzero(keep)], names={k: n[keep] for k, n in file.names.items()})


def left_out(file: CellFile, genes: Genes) -> list[str]:
    """What is said of names that are no gene of the bulk: their number, and those that are no gene at all."""
    names = file.names[genes.place][genes.symbol == ""]
    kinds = TECHNICAL | {"columns on cells": ANNOTATION}
    notes = [f"{len(names):,} names are no gene of the bulk and are not used"] if len(names) else []
    for kind, pattern in kinds.items():
        there = [n for n in names if pattern.fullmatch(n)]
        if there:
            notes.append(f"not genes but {kind}: {', '.join(there[:4])}" + (" …" if len(there) > 4 else ""))
    return notes


def of_other_species(file: CellFile, genes: Genes) -> np.ndarray:
    """(genes,) bool: genes of the species that `genes` was not read as, as a reference of two species has them."""
    other = "mouse" if genes.naming.startswith("human") else "human"
    names, rest = file.names[genes.place], genes.symbol == ""
    if other == "mouse" and sum(n != n.upper() or "ENSMUSG" in n for n in names[rest]) < MIN_SHARED:
        return np.zeros(len(names), bool)  # spares opening the tables of mouse genes
    best = max((gene_names.translate(names, n)[0] for n in gene_names.NAMINGS if n.startswith(other)),
               key=lambda symbol: (symbol[rest] != "").sum())  # fmt: skip
    foreign = rest & (best != "")
    return foreign if foreign.sum() >= MIN_SHARED else np.zeros(len(names), bool)


# --- values -----------------------------------------------------------------------------------------------------------


def detect_values(file: CellFile, asked: str = "auto") -> tuple[str, list[str]]:
    """Decide whether the values are ``counts``, ``lognorm`` or ``zscored``.

    Parameters
    ----------
    asked
        One of these, which is then only checked, or ``auto``.

    Returns
    -------
    tuple
        The decision, and remarks on it. Unlogged but scaled values (TPM, CPM) count as counts: dividing by the total
        and taking logs treats both the same.

    Raises
    ------
    InputError
        If values are missing or infinite, all zero, or cannot be what was asked for.
    """
    v = file.X.data if sparse.issparse(file.X) else file.X.ravel()
    _check_finite(file, v)
    low, high = (float(v.min()), float(v.max())) if v.size else (0.0, 0.0)
    if sparse.issparse(file.X):
        low, high = min(low, 0.0), max(high, 0.0)
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
        centred = not whole and _centred(file.X)
        if asked == "auto" and not centred:
            raise InputError(
                f"{negative}, and the genes are not centred at zero. Expected no negative counts or logarithms, or "
                "z-scores; take raw counts, or say what they are: --values lognorm (corrected for batches), zscored."
            )
        guess = "zscored" if centred else "neither counts, lognorm nor zscored"
    kind, notes = guess if asked == "auto" else asked, []
    if kind != guess:
        notes.append(f"values look like {guess} ({seen}) but are taken as {asked}, as asked")
    if kind == "counts" and not whole:
        notes.append("neither integers nor logarithms (TPM, CPM?): values are scaled and logged like counts")
    return kind, notes


def _centred(X: sparse.csr_matrix | np.ndarray) -> bool:
    """Whether the means of genes are near zero, as z-scoring makes them; asked of the first thousands of cells."""
    part = dense(X[:5000]).astype(np.float64)
    scale = np.maximum(part.std(0), 1e-9)
    return bool(np.median(np.abs(part.mean(0)) / scale) < CENTRED)


def _check_finite(file: CellFile, v: np.ndarray) -> None:
    if v.dtype.kind != "f":
        return
    bad = np.flatnonzero(~np.isfinite(v))
    if not len(bad):
        return
    if sparse.issparse(file.X):
        row, column = np.searchsorted(file.X.indptr, bad[0], side="right") - 1, file.X.indices[bad[0]]
    else:
        row, column = divmod(int(bad[0]), file.X.shape[1])
    where = f"cell {file.obs.index[row]}, gene {next(iter(file.names.values()))[column]}"
    raise InputError(
        f"{file.path}: {len(bad):,} values are missing (NaN) or infinite, first {v[bad[0]]} at {where}. "
        "Expected finite numbers; drop those cells or genes, or fill in zeros where nothing was detected."
    )
