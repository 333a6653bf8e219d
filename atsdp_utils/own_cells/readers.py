"""Reading a person's own cells; whatever is wrong with a file ends in an :class:`InputError` that says the way out."""

import csv
import gzip
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import sparse
from scipy.io import mmread

from atsdp_utils.data import gene_names
from atsdp_utils.foundation import checksums
from atsdp_utils.own_cells import tables
from atsdp_utils.own_cells.cellfile import (
    FORMATS,
    MIN_SHARED,
    CellFile,
    InputError,
    checked,
    dense,
    listed,
    names_of_no_gene,
)

#: Bytes of a dense matrix beyond which a file is refused: it would not fit beside its own copies.
MAX_DENSE = 3e9
#: Declared bytes of a part of HDF5 from which it must store some, and how many a stored byte can unpack to (deflate).
MAX_HOLLOW, MAX_UNPACKED = 1e9, 1100
#: What kinds of features are called.
GENES = re.compile(r"(?i)(gene.expression|genes?|gex|m?rna|nan|none|<na>)?")
MARKED = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "nan": False, "<na>": False}
KINDS = re.compile(
    r"(?i)gene.expression|gex|rna|.*(prot(ein)?s?\b(?!.coding)|surface|antibody|antigen|abseq|cite|hashtag|hto|adt).*"
    r"|.*(multiplexing|crispr|guide|peak|custom|vdj).*|p?abo|ab|tag|atac"
)
MARKS = re.compile(r"(?i)is_?(adts?|prot(ein)?s?|antibod(y|ies)|hashtags?|htos?)")  # columns of True and False
UNENCODED = "is without encoding attributes, as some programmes write it. Write the file with anndata 0.8 or newer."
#: What tells a file that is not read (suffix, group of HDF5, file of a folder, value of STARTS), and the way out.
OTHERS = checksums.table("formats_not_read.csv", index_col="mark")["way"].to_dict()
#: First bytes that tell what a file is, whatever its name, and its mark there.
STARTS = {
    b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x1f\x8b": "double gzip", b"version https://git-lfs": "git-lfs",
}  # fmt: skip


def read(path: Path, layer: str | None = None, labels: str | None = None) -> CellFile:
    """Read the cells of `path`, whatever its format; antibodies, peaks and genes missing in every cell are left out.

    Parameters
    ----------
    path : Path
        An h5ad, a 10x ``.h5``, a 10x folder, or a delimited table, also gzipped.
    layer, labels : str, optional
        A layer of an h5ad file, or ``raw`` for its ``.raw``, else ``X``; and the name of a column or row of labels in a
        table, which else might be taken for a gene.

    Returns
    -------
    CellFile
        The matrix (cells, genes), with the values as they stand in the file.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no cells, no genes or no numbers.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Expected {FORMATS}.")
    try:
        kind = _kind(path)
        if layer is not None and kind != "h5ad":
            raise InputError(f"--layer {layer}: {path.name} is a {kind}, which has no layers. Leave --layer out.")
        if kind == "h5ad":
            file = _read_h5ad(path, layer)
        elif kind == "table":
            file = tables.read(path, labels)
        else:
            file = _ten_x(path, kind, *(_read_10x_h5 if kind == "10x h5" else _read_10x_folder)(path))
    except (InputError, MemoryError, checksums.DataError):
        raise
    except PermissionError as error:
        raise InputError(f"{path}: may not be read. Ask for the permission (chmod u+r), or copy the file.") from error
    except Exception as error:  # damage that a library reports in words of its own
        short = " ".join(str(error).split())[:160]
        said = f"cannot be read, truncated or damaged? Copy it again. ({short})"
        if re.search("plugin|filter|can't open directory", short):
            said = f"compressed in a way that is not read here. Write it again with gzip or without. ({short})"
        if "does not support dtype" in short:
            said = f"numbers of a byte order or kind that is not read here. Write them again as float32. ({short})"
        if "No read method registered" in short:
            said = f"written by another version of anndata. Write it again without what is named here. ({short})"
        if isinstance(error, BlockingIOError) or "unable to lock" in str(error):
            said = "locked by another program that has it open. Close it there, or copy the file."
        if isinstance(error, UnicodeDecodeError):
            said = "no text in UTF-8. Save it as such (a spreadsheet calls it CSV UTF-8)."
        raise InputError(f"{path}: {said}") from error
    file = _beside_ids(file)
    peak = names_of_no_gene()["peaks"]
    peaks = np.array([peak.fullmatch(n) is not None for n in next(iter(file.names.values()))], bool)
    if peaks.all() and len(peaks):
        raise InputError(f"{path}: all names are of peaks. Expected genes: give the gene expression of these cells.")
    file = file.only(~peaks, f"not genes but peaks: {peaks.sum():,}")
    if not all(file.X.shape):
        raise InputError(f"{path}: {file.X.shape[0]} cells x {file.X.shape[1]} genes. Expected at least one of each.")
    if file.X.dtype.kind not in "biuf":
        raise InputError(f"{path}: values are of type {file.X.dtype}, expected numbers.")
    # z-scoring makes NaN in every cell of genes that do not vary
    missing = np.isnan(dense(file.X[[0]]).ravel())
    missing[missing] = np.isnan(dense(file.X[:, np.flatnonzero(missing)])).all(0)
    if missing.all():
        return file
    return file.only(~missing, f"{missing.sum():,} genes missing (NaN) in every cell are left out")


def _kind(path: Path) -> str:
    """Format of `path`: by content where the content tells, else by name."""
    if path.is_dir():
        if any((path / name).exists() for name in (".zgroup", ".zattrs", "zarr.json")):
            raise InputError(f"{path}: zarr is not read. Write an h5ad: anndata.read_zarr(folder).write_h5ad(file).")
        return "10x folder"
    if not path.is_file():
        raise InputError(f"{path}: a pipe or device is not read, for it is read twice. Give a file (gzipped is fine).")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes). Was it copied completely?")
    if not os.access(path, os.R_OK):
        raise PermissionError
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as f:
            keys, ten_x = set(f), _ten_x_groups(f)
        if {"obs", "var"} <= keys and "mod" not in keys:
            return "h5ad"
        if ten_x:
            return "10x h5"
        said = f"HDF5 with {sorted(keys)[:6]}, neither h5ad (obs, var, X) nor 10x (group 'matrix')."
        raise InputError(f"{path}: {next((way for key, way in OTHERS.items() if key in keys), said)}")
    if zipfile.is_zipfile(path):
        raise InputError(f"{path}: a workbook or another zip archive. Save it as CSV UTF-8, or unpack it.")
    name = path.name.lower().removesuffix(".gz")
    if way := next((way for end, way in OTHERS.items() if name.endswith(end)), ""):
        raise InputError(f"{path}: {way}")
    with tables.opened(path) as handle:
        first = handle.read(32)
    if mark := next((mark for start, mark in STARTS.items() if first.startswith(start)), ""):
        raise InputError(f"{path}: {OTHERS[mark]}")
    if name.endswith((".h5ad", ".h5")):
        if tables.is_gzip(path):
            raise InputError(f"{path}: HDF5 inside gzip. Unpack it first (gunzip).")
        raise InputError(f"{path}: not HDF5, though named so: truncated? Copy it again.")
    if name.endswith((".csv", ".tsv", ".txt", ".tab")):
        return "table"
    said = f"format {Path(name).suffix or '(no suffix)'} is not supported. Expected {FORMATS}. A table? Call it .tsv."
    raise InputError(f"{path}: {said}")


def _read_h5ad(path: Path, layer: str | None) -> CellFile:
    """The layer asked for and no other part of the file, which may be larger than memory."""
    with h5py.File(path, "r") as f:
        layers = sorted(f.get("layers", ()))
        raw = next((r for r in ("raw/", "raw.") if f"{r}X" in f), None)  # anndata before 0.7 wrote raw.X
        others = [*layers, *(["raw"] if raw else [])]
        place, var = ("X", "var") if layer is None else (f"layers/{layer}", "var")
        if layer == "raw" and "raw" not in layers and raw:
            place, var = f"{raw}X", f"{raw}var"
        if place not in f or layer == "" or (layer is None and getattr(f[place], "shape", 0) is None):
            wanted = "no X" if layer is None else f"no layer {layer!r}"
            have = f"Layers there: {', '.join(others)}. Choose one with --layer." if others else "Nor any: store one."
            raise InputError(f"{path}: {wanted} in this file. {have}")
        if hasattr(f[place], "shape") and f[place].size * f[place].dtype.itemsize > MAX_DENSE:
            size = f"{f[place].shape[0]:,} x {f[place].shape[1]:,}"
            raise InputError(f"{path}: a dense matrix of {size}. Store it sparse (scipy.sparse.csr_matrix) first.")
        _not_hollow(path, f[place], f["obs"], f[var])
        X = read_elem(f[place])
        if isinstance(X, dict):
            raise InputError(f"{path}: {place} {UNENCODED}")
        X, obs, genes = checked(X), _frame(f, "obs"), _frame(f, var)
        wide = list(_frame(f, f"{raw}var").index) if raw and layer is None else []
    if X.ndim != 2 or X.shape != (len(obs), len(genes)):
        raise InputError(f"{path}: {place} has shape {X.shape}, expected {len(obs)} cells x {len(genes)} genes.")
    words = {c: genes[c].astype(str).to_numpy(str) for c in genes if not pd.api.types.is_numeric_dtype(genes[c])}
    names = {"the index of var": genes.index.to_numpy(str)} | {f"var[{c!r}]": words[c] for c in words}
    notes = [f"also there, for --layer: {', '.join(others)}"] if others and layer is None else []
    more, have = (gene_names.known(index, gene_names.NAMINGS[:2]) if wide else 0 for index in (wide, genes.index))
    way = [f"raw holds {more:,} genes of the bulk, X {have:,}: --layer raw lets the score rest on more"]
    file = CellFile(path, "h5ad", X, names, obs, notes, way if more > 1.2 * have else [])
    kinds = [w for c, w in words.items() if c in ("feature_types", "feature_type") or _only_kinds(w)]
    marks = {c: genes[c].astype(str).str.lower().map(MARKED) for c in genes if MARKS.fullmatch(c)}
    kinds += [np.where(marks[c].astype(bool), "antibody", "gene") for c in marks if marks[c].notna().all()]
    return _expression(file, *kinds)


def _not_hollow(path: Path, *parts: h5py.Group | h5py.Dataset) -> None:
    """Refuse parts that declare far more than the file can hold, before memory is asked for them."""
    for part in parts:
        for item in _datasets(part):
            size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
            if size > MAX_HOLLOW and size > MAX_UNPACKED * stored:
                said = f"declares {size / 1e9:,.0f} GB and stores {stored:,} bytes"
                raise InputError(f"{path}: {item.name} {said}. Damaged, or not written to its end: write it again.")
        if isinstance(part, h5py.Group) and "indptr" in part:
            shape = [int(n) for n in (part["shape"][:] if "shape" in part else part.attrs.get("shape", ()))]
            if shape and (ends := part["indptr"].size - 1) not in shape:
                said = f"declares {' x '.join(f'{n:,}' for n in shape)} values and stores rows or columns of {ends:,}"
                raise InputError(f"{path}: {part.name} {said}. Damaged, or not written to its end: write it again.")


def _datasets(part: h5py.Group | h5py.Dataset) -> list[h5py.Dataset]:
    items = [part]
    if isinstance(part, h5py.Group):
        part.visititems(lambda name, item: items.append(item))
    return [item for item in items if isinstance(item, h5py.Dataset)]


def _frame(f: h5py.File, place: str) -> pd.DataFrame:
    """Columns on cells or genes; old versions of anndata and SeuratDisk leave codes, and their words elsewhere."""
    frame = read_elem(f[place])
    frame = frame if isinstance(frame, pd.DataFrame) else _unencoded(f, place, frame)
    for column, codes in dict(frame).items():
        for words in (f"{place}/__categories/{column}", f"uns/{column}_categories"):
            if words not in f or not hasattr(f[words], "shape") or codes.dtype.kind != "i":
                continue
            named = f[words][:] if f[words].dtype.kind in "biuf" else f[words].asstr()[:]
            if codes.between(-1, len(named) - 1).all():
                frame[column] = pd.Categorical.from_codes(codes, named)
    return frame


def _unencoded(f: h5py.File, place: str, table: dict | np.ndarray) -> pd.DataFrame:
    """Columns as they are written by hand or from R, or, in a structured array, by anndata before 0.7."""
    names = table.dtype.names or () if isinstance(table, np.ndarray) else list(table)
    called = names[:1] if isinstance(table, np.ndarray) else (f[place].attrs.get("_index"), "_index", "index")
    index = next((name for name in called if name in names), None)
    if index is None:
        raise InputError(f"{f.filename}: {place} {UNENCODED}")
    for k, v in table.items() if isinstance(table, dict) else ():
        if isinstance(v, dict) and {"codes", "categories"} <= set(v):
            words = [w.decode() if isinstance(w, bytes) else w for w in v["categories"]]
            table[k] = np.array([*words, ""], dtype=object)[v["codes"]]
    columns = {k: table[k] for k in names if np.shape(table[k]) == np.shape(table[index])}
    for k, values in columns.items():
        if values.dtype.kind in "OS":
            columns[k] = [v.decode() if isinstance(v, bytes) else v for v in values]
    return pd.DataFrame(columns).set_index(index)


def _only_kinds(column: np.ndarray) -> bool:
    """Whether a column holds kinds of features and nothing else; with most fields empty it is a remark on genes."""
    empty = np.isin(np.char.lower(column.astype(str)), ("", "nan", "none", "<na>"))
    return empty.mean() < 0.5 and all(GENES.fullmatch(kind) or KINDS.fullmatch(kind) for kind in set(column))


def _expression(file: CellFile, *columns: np.ndarray) -> CellFile:
    """Without features of which a column of kinds says that they are no gene: antibodies, hashtags, peaks, guides."""
    keep, others = np.ones(file.X.shape[1], bool), set()
    for kinds in columns:
        of_genes = np.array([GENES.fullmatch(kind) is not None for kind in kinds])
        of_kinds = any(map(KINDS.fullmatch, set(kinds)))  # else others: protein_coding, …
        if of_kinds and (of_genes.any() or _only_kinds(kinds)):  # else symbols
            keep, others = keep & of_genes, others | set(kinds[~of_genes])
    others = ", ".join(sorted(others)[:4])
    if others and not keep.any():
        raise InputError(f"{file.path}: no gene among the features, only {others}. Expected some of 'Gene Expression'.")
    lost = _genes_among(file, ~keep) - _genes_among(file, keep) if others else ()
    if len(lost) >= MIN_SHARED:
        said = f"{len(lost):,} have names of genes of the bulk that no other feature has: were genes left out?"
        file = replace(file, warnings=[*file.warnings, f"{(~keep).sum():,} features are called {others}, but {said}"])
    return file.only(keep, f"{(~keep).sum():,} features other than gene expression left out ({others})")


def _genes_among(file: CellFile, rows: np.ndarray) -> set[str]:
    """Genes of the bulk that some of the features are called like, by any of their names."""
    return {g for names in file.names.values() for g in gene_names.translate(names[rows], "human symbols")[0]} - {""}


def _beside_ids(file: CellFile) -> CellFile:
    """Without antibodies and guides that no type of features tells: they have no Ensembl id, and names of genes."""
    for place, ids in file.names.items():
        plain = [gene_names.plain(name) for name in ids]
        none = np.array([not gene_names.ENSEMBL.fullmatch(n) and not GENES.fullmatch(n) for n in plain])
        if not 0 < none.mean() <= 0.1:
            continue
        for names in (names for other, names in file.names.items() if other != place):
            called = np.array([gene_names.DOUBLED.sub("", gene_names.plain(n)) for n in names])
            if np.isin(called[none], called[~none]).mean() > 0.1:  # else a symbol stands in for an id that is missing
                said = f"{none.sum():,} features without an Ensembl id, called like genes that have one, left out"
                return file.only(~none, f"{said} ({listed(list(names[none]), 3)}): antibodies, guides?")
    return file


def _ten_x_groups(f: h5py.File) -> list[str]:
    """The groups of a 10x file that hold a matrix: Cell Ranger 2 has one a genome."""
    if "matrix" in f and hasattr(f["matrix"], "keys"):  # a loom file has a matrix of that name
        return ["matrix"]
    return [k for k in f if hasattr(f[k], "keys") and {"barcodes", "gene_names"} <= set(f[k])]


def _read_10x_h5(path: Path) -> tuple:
    with h5py.File(path, "r") as f:
        found = {genome: _read_10x_group(f[genome]) for genome in _ten_x_groups(f)}
    if len(found) == 1:
        return found.popitem()[1]
    cells = pd.Index(np.concatenate([barcodes for *_, barcodes in found.values()])).unique()
    rows = ((checked(X).tocoo(), cells.get_indexer(barcodes)) for X, _, barcodes in found.values())
    parts = [sparse.csr_matrix((X.data, (row[X.row], X.col)), (len(cells), X.shape[1])) for X, row in rows]
    named = {k: [f"{genome}_{n}" for genome, (_, of, _) in found.items() for n in of[k]] for k in ("id", "name")}
    return sparse.hstack(parts, "csr"), {k: np.array(names) for k, names in named.items()}, cells.to_numpy(str)


def _read_10x_group(g: h5py.Group) -> tuple:
    _not_hollow(Path(g.file.filename), g)
    X = sparse.csr_matrix((g["data"][:], g["indices"][:], g["indptr"][:]), tuple(map(int, g["shape"][:]))[::-1])
    places = {"id": "features/id", "name": "features/name", "feature_type": "features/feature_type"}
    if "features" not in g:  # Cell Ranger 2
        places = {"id": "genes", "name": "gene_names"}
    return X, {k: g[place].asstr()[:] for k, place in places.items() if place in g}, g["barcodes"].asstr()[:]


def _read_10x_folder(folder: Path) -> tuple:
    found = []
    for parts in (("matrix.mtx",), ("features.tsv", "genes.tsv"), ("barcodes.tsv",)):
        ends = tuple(p + z for p in parts for z in ("", ".gz"))
        inside = sorted(p for p in folder.iterdir() if not p.name.startswith("."))  # macOS leaves ._matrix.mtx
        files = [p for p in inside if p.name.lower().endswith(ends)]
        if len(files) != 1:
            names = ", ".join(p.name for p in inside[:5]) or "nothing"
            if below := sorted(p.parent.name for p in folder.glob("*/*matrix.mtx*")):
                raise InputError(f"{folder}: no matrix here but in {', '.join(below)}. Give {folder / below[0]}.")
            called = [p.name.lower().removesuffix(".gz") for p in inside]
            if way := next((OTHERS[name] for name in called if name in OTHERS), ""):
                raise InputError(f"{folder}: {way}")
            expected = f"expected one so named, a sample a folder; this holds {names}"
            raise InputError(f"{folder}: {len(files)} files {' or '.join(parts)} (.gz), {expected}.")
        found += files
    form = {"sep": "\t", "header": None, "dtype": str, "keep_default_na": False, "quoting": csv.QUOTE_NONE}
    opened = (gzip.open(f, "rt", encoding="utf-8") if tables.is_gzip(f) else f for f in found[1:])
    table, cells = (pd.read_csv(f, **form).replace(r'^"(.*)"$', r"\1", regex=True) for f in opened)
    table, cells = _without_numbers(table, 3), _without_numbers(cells, 2)
    called = ["id", "name", "feature_type"]
    if len(table.columns) == 2 and _only_kinds(table[1].to_numpy(str)):
        called = ["id", "feature_type"]
    columns = dict(zip(called, (table[c].to_numpy(str) for c in table), strict=False))
    return mmread(gzip.open(found[0]) if tables.is_gzip(found[0]) else found[0]).T, columns, cells[0].to_numpy(str)


def _without_numbers(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """Without a first column that numbers the rows, if there are at least so many columns."""
    numbered = any(table[0].tolist() == [str(i + k) for i in range(len(table))] for k in (0, 1))
    return table.iloc[:, 1:].set_axis(table.columns[:-1], axis=1) if numbered and len(table.columns) >= least else table


def _ten_x(path: Path, kind: str, X, features: dict[str, np.ndarray], barcodes: np.ndarray) -> CellFile:
    """A 10x matrix, in more layouts than scanpy reads: without types of features, some files zipped, two genomes."""
    if not {"id", "name"} & set(features) or len({len(names) for names in features.values()}) > 1:
        have = ", ".join(f"{len(names):,} of {k}" for k, names in features.items()) or "none"
        raise InputError(f"{path}: names of features: {have}. Expected as many of 'id', 'name' and 'feature_type'.")
    X, n_genes = checked(X), len(next(iter(features.values())))
    if X.shape == (n_genes, len(barcodes)) and n_genes != len(barcodes):
        X = checked(X.T)  # cells in rows, as scipy and Parse write them; a square matrix is as 10x has it
    if X.shape != (len(barcodes), n_genes):
        expected = f"{len(barcodes)} barcodes x {n_genes} features"
        way = "Has one of the two a line of headings, or is the matrix transposed or another?"
        raise InputError(f"{path}: the matrix is {X.shape[0]} x {X.shape[1]}, the names are for {expected}. {way}")
    names = {f"features, {k}": features[k] for k in ("id", "name") if k in features}
    file = CellFile(path, kind, X, names, pd.DataFrame(index=pd.Index(barcodes)))
    return _expression(file, *([features["feature_type"]] if "feature_type" in features else []))
