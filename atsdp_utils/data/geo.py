"""Tier ``geo``: the paper's own files from NCBI GEO, downloaded, checked and read into AnnData.

File names, layouts and counts (``data/geo.toml``) were taken from public descriptions before any file could be opened,
so every loader checks what it reads and says precisely what differs: what would change a cell or a label is an error,
the rest is in ``uns['reported']``. ``obs`` carries what :mod:`datasets` says (``sensitive_paper`` is the literal
counting: what has no strict label is sensitive), ``condition`` and the columns of the source; ``var`` has ``id``, too.

Command line: ``python -m atsdp_utils.data.geo download|check [DATA1 ...]``.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data import gene_names, geo_files
from atsdp_utils.data.geo_files import GeoError, fetch, no_repeats, read_lock, some
from atsdp_utils.data.preprocess import MIN_GENES
from atsdp_utils.foundation import paths
from atsdp_utils.foundation.checksums import verify

if TYPE_CHECKING:
    from anndata import AnnData

BASE = "https://ftp.ncbi.nlm.nih.gov/geo/series"
#: Set to ``drop`` to go on without genes whose names a spreadsheet has turned into dates.
MANGLED_VARIABLE = "ATSDP_GEO_MANGLED"
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
MANGLED = re.compile(rf"\d{{1,2}}-{_MONTH}|{_MONTH}-\d{{1,2}}|\d{{4}}-\d\d-\d\d.*|\d(?:\.\d+)?e\+\d+", re.IGNORECASE)

WAY_OUT = "Delete the file and run again; if GEO holds the same one, what data/geo.toml expects is wrong"
_RULES = tomllib.loads(verify(paths.DATA / "geo.toml").read_text(encoding="utf-8"))
PATTERNS, LABELS = _RULES.pop("patterns"), _RULES.pop("labels")
_SENSITIVE = {"sensitive": True, "resistant": False, "none": None}


@dataclass(frozen=True)
class Expected:
    """What a set must look like; `labels` and `listed` are embedded tables to compare its cells with."""

    cells: int  # before any filter
    strict: Sequence[int]  # sensitive and resistant cells
    paper: Sequence[int]  # the same with those that only the paper's counting labels
    groups: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # column of ``obs`` to value to cells
    filtered: int | None = None  # cells with MIN_GENES genes, to which other counts refer; None: they refer to all
    blocks: Sequence[int] = ()  # runs of one culture in the order of accession numbers; empty: not checked
    genes: int = 0  # rows of the matrix (0: not known); another number is reported, because no label depends on it
    labels: str = ""  # file with cell, sensitive: must be ``sensitive_paper``
    listed: str = ""  # file with Cell id: exactly the cells whose condition is not `unlisted`
    unlisted: str = ""


@dataclass(frozen=True)
class Series:
    """One of the paper's sets: where its files are, and what must come out."""

    accession: str
    origin: str
    files: Sequence[str]
    expected: Expected = field(repr=False)
    patient: str = ""


SERIES = {name: Series(**rules | {"expected": Expected(**rules["expected"])}) for name, rules in _RULES.items()}


def _columns(table: pd.DataFrame, wanted: Sequence[str], file: str) -> None:
    if missing := [c for c in wanted if c not in table]:
        found = ", ".join(map(str, table.columns))
        raise GeoError(f"{file}: column {', '.join(missing)} is missing; found {found}, expected {', '.join(wanted)}")


def _recognise(texts: pd.Series, patterns: Mapping[str, str], file: str) -> pd.Series:
    """Meaning of each text by the first pattern that is found in it."""
    found = texts.map(lambda text: next((v for p, v in patterns.items() if re.search(p, text, re.IGNORECASE)), None))
    if found.isna().any():
        unknown = [f"{text!r} ({n} cells)" for text, n in texts[found.isna()].value_counts().items()]
        known = ", ".join(dict.fromkeys(patterns.values()))
        raise GeoError(f"{file}: found unknown {some(unknown)}, expected one of {known}")
    return found


def _variables(genes: list[str], species: str) -> pd.DataFrame:
    """Table of genes: index symbol (the id where a symbol is missing or taken), ``id``, human ``ortholog``."""
    ids = pd.Series(genes, dtype=str)
    symbols = bare = ids.str.replace(r"^(ENS(?:MUS)?G\d+)\.\d+$", r"\1", regex=True)
    if bare.str.match(r"ENS(?:MUS)?G\d").mean() > 0.5:
        symbols = bare.map(gene_names.ensembl_symbols(species)).fillna(bare)
        symbols = symbols.where(~symbols.duplicated(), bare)
    to_human = gene_names.mouse_to_human() if species == "mouse" else {}
    human = bare.map(to_human).fillna("") if species == "mouse" else symbols.where(~symbols.str.match(r"ENSG\d"), "")
    return pd.DataFrame({"id": ids.to_numpy(), "ortholog": human.to_numpy(str)}, index=symbols.to_numpy(str))


def _assemble(
    X: sparse.csr_matrix, cells: list[str], genes: list[str], obs: pd.DataFrame, file: str, species: str = "human"
) -> AnnData:
    """Put the cells of `obs` and all genes together; rows of one gene name are added up."""
    import anndata

    no_repeats(cells, file)
    position = pd.Index(cells).get_indexer(obs.index)
    if len(missing := obs.index[position < 0].tolist()):
        turned = " Cells stand in its rows: it is transposed." * bool(set(missing) & set(genes))
        found = f"{len(missing)} of {len(obs)} annotated cells are not in the matrix: {some(missing)}"
        raise GeoError(f"{file}: {found}; found columns {some(cells)}, expected one column a cell.{turned}")
    mangled = [gene for gene in genes if MANGLED.fullmatch(gene)]
    if mangled and os.environ.get(MANGLED_VARIABLE) != "drop":
        found = f"{len(mangled)} gene names were changed by a spreadsheet: {some(mangled)}"
        way = f"set {MANGLED_VARIABLE}=drop to go on without these genes"
        raise GeoError(f"{file}: {found}. Names such as 1-Mar cannot be told apart any more; {way}.")
    kept = np.flatnonzero(~np.isin(genes, mangled))
    codes, names = pd.factorize(np.array(genes, dtype=object)[kept])
    ones = np.ones(len(codes), np.float32)
    sums = sparse.csr_matrix((ones, (kept, codes)), shape=(len(genes), len(names)))
    adata = anndata.AnnData((X[position] @ sums).tocsr(), obs=obs.copy(), var=_variables(list(names), species))
    adata.uns.update(matrix_rows=len(genes), repeated_gene_rows=len(kept) - len(names), mangled_genes=mangled)
    return adata


def _left(what: str, names: set[str]) -> list[str]:
    """A line for what is left out and did not have to stop the loader; none if nothing is."""
    return [f"{len(names)} {what}: {some(sorted(names))}"] if names else []


def _label(obs: pd.DataFrame, culture: pd.Series, condition: pd.Series) -> pd.DataFrame:
    """Culture, condition and both label columns, and behind them the columns of the source."""
    strict, paper = (pd.array([_SENSITIVE[LABELS[c][i]] for c in condition], dtype="boolean") for i in (0, 1))
    first = {"culture": pd.Categorical(culture), "condition": pd.Categorical(condition)}
    return pd.DataFrame({**first, "sensitive": strict, "sensitive_paper": paper}, index=obs.index).join(obs)


def read_head_and_neck(folder: Path, series: Series) -> AnnData:
    """GSE117872: linear TPM of one patient."""
    matrix, file = series.files
    info = pd.read_csv(folder / file, sep="\t", dtype=str)
    _columns(info, ("groups", "cell_color", "origin", "cluster"), f"{file} (tab-separated)")
    info = info.loc[:, ~info.columns.str.startswith("Unnamed")].apply(lambda column: column.str.strip())
    selected = info[info["origin"] == series.patient].reset_index(drop=True)
    if selected.empty:
        found = ", ".join(sorted(info["origin"].dropna().unique()))
        raise GeoError(f"{file}: no cell has origin {series.patient}; found {found}, expected HN120, HN137 and HN148")
    no_repeats(selected["groups"].tolist(), file)
    condition = _recognise(selected["cluster"].fillna(""), PATTERNS["conditions_GSE117872"], file)
    cultures = {f"^{c}$": c for c in series.expected.groups["culture"]}
    _recognise(selected["cell_color"].fillna("")[condition != "Holiday"], cultures, file)
    obs = selected.set_index("groups").rename_axis("cell").fillna("")
    obs = _label(obs, obs["cell_color"], condition)
    X, cells, genes = geo_files.read_matrix(folder / matrix, "\t")
    geo_files.check_linear(X, matrix)
    adata = _assemble(X, cells, genes, obs, matrix)
    adata.uns["reported"] = _left(f"columns of {matrix} without annotation", set(cells) - set(info["groups"]))
    return adata


def read_prostate(folder: Path, series: Series) -> AnnData:
    """GSE140440: read counts of DU-145 and PC-3 cells, parental and docetaxel-resistant."""
    tar, file = series.files
    X, cells, genes, ignored = geo_files.read_count_files(folder / tar)
    no_repeats(cells, tar)
    geo_files.check_whole(X, tar)
    samples = geo_files.read_series_matrix(folder / file)
    no_repeats(samples.index.tolist(), file)
    if missing := [cell for cell in cells if cell not in samples.index]:
        found = f"{len(missing)} of {len(cells)} cells are not described: {some(missing)}"
        there = some(list(samples.index))
        raise GeoError(f"{file}: {found}; found samples {there}, expected one for each count file")
    obs = samples.loc[cells]
    condition, line = (_recognise(obs["text"], PATTERNS[f"{w}_GSE140440"], file) for w in ("conditions", "lines"))
    obs = _label(obs, line.where(condition == "Sensitive", line + " docetaxel-resistant"), condition)
    adata = _assemble(X, cells, genes, obs, tar)
    adata.uns["reported"] = [
        *_left(f"members of {tar} that are no counts", set(ignored)),
        *_left(f"samples of {file} without a count file", set(samples.index) - set(cells)),
        *_version_reported(genes, tar, versioned=True),
    ]
    return adata


def _version_reported(genes: list[str], file: str, *, versioned: bool) -> list[str]:
    """A line if Ensembl ids come with a version where none was expected, or without; both are read."""
    other = [g for g in genes if re.fullmatch(r"ENS(MUS)?G\d+" + r"\.\d+" * (not versioned), g)]
    form = "with" if versioned else "without"
    return [f"{len(other)} ids of {file} such as {other[0]}, expected {form} version"] if other else []


def read_leukaemia(folder: Path, series: Series) -> AnnData:
    """GSE110894: UMI counts of mouse MLL-AF9 leukaemia; conditions from the sheet, of wells that have an index."""
    file, sheet = series.files
    info = pd.read_excel(folder / sheet, header=3, dtype=str, engine="openpyxl")
    info.columns = info.columns.astype(str).str.strip()
    merged = ["Plate#", "Sample name"]  # such cells hold one value, at the top
    where = f"{sheet} (names are expected on the fourth row)"
    _columns(info, (*merged, "Well position", "Well index"), where)
    info[merged] = info[merged].ffill()
    info = info.dropna(subset=["Well position"]).reset_index(drop=True)
    for column in merged:
        if n := int(info[column].isna().sum()):
            found = f"{column} is empty in the first {n} rows"
            raise GeoError(f"{sheet}: {found}, expected its value at the top of each block")
    well = info["Well position"].str.split("=").str[0].str.strip()
    info.insert(0, "cell", info["Plate#"].str.strip() + "_" + well)
    no_repeats(info["cell"].tolist(), sheet)
    without = info["Well index"].isna()
    obs = info[~without].set_index("cell").loc[:, lambda t: ~t.columns.str.startswith("Unnamed")].fillna("")
    names = obs["Sample name"].str.split().str.join(" ").str.upper()
    condition = _recognise(names, PATTERNS["conditions_GSE110894"], sheet)
    obs = _label(obs, condition, condition)
    X, cells, genes = geo_files.read_matrix(folder / file, ",")
    geo_files.check_whole(X, file)
    here = obs.index.isin(cells)
    adata = _assemble(X, cells, genes, obs[here] if here.any() else obs, file, species="mouse")
    adata.uns["reported"] = [
        *_left(f"columns of {file} without annotation", set(cells) - set(obs.index)),
        *_left(f"rows of {sheet} without well index", set(info["cell"][without])),
        *_left(f"wells of {sheet} that {file} lacks", set(obs.index[~here])),
        *_version_reported(genes, file, versioned=False),
    ]
    return adata


#: Reader of the files of a series by its accession.
READERS = {"GSE117872": read_head_and_neck, "GSE140440": read_prostate, "GSE110894": read_leukaemia}


def differences(adata: AnnData, expected: Expected) -> list[str]:
    """What of a set is not as expected, one sentence each; empty when all is."""
    obs, compared = adata.obs, [("cells", adata.n_obs, expected.cells)]
    if expected.filtered is not None:
        obs = obs[np.asarray((adata.X > 0).sum(1)).ravel() >= MIN_GENES]
        compared.append((f"cells with at least {MIN_GENES} genes", len(obs), expected.filtered))
    for column, groups in expected.groups.items():
        counts = obs[column].astype(str).value_counts()
        compared += [(f"cells with {column} {value!r}", counts.get(value, 0), n) for value, n in groups.items()]
    for counting, column in (("strict", "sensitive"), ("paper", "sensitive_paper")):
        what, wanted = f"sensitive and resistant cells, {counting} counting", tuple(getattr(expected, counting))
        compared.append((what, (int(obs[column].sum()), int((~obs[column]).sum())), wanted))
    if expected.blocks:
        runs = tuple(len(list(run)) for _, run in groupby(obs["culture"].sort_index()))
        compared.append(("blocks of one culture in order of accession", runs, tuple(expected.blocks)))
    found = [f"{what}: found {is_}, expected {should}" for what, is_, should in compared if is_ != should]
    if expected.labels:
        file = verify(paths.DATA / expected.labels)
        label = pd.read_csv(file).set_index("cell")["sensitive"].astype("boolean")
        found += _unlike("label table", obs.index, label.index, file)
        both = label.index.intersection(obs.index)
        if other := both[(label[both] != obs["sensitive_paper"][both]).to_numpy(bool)].tolist():
            found.append(f"labels: {len(other)} cells differ from {file.name}: {some(other)}")
    if expected.listed:
        file = verify(paths.DATA / expected.listed)
        here = obs.index[obs["condition"] != expected.unlisted]
        found += _unlike("cell list", here, pd.read_csv(file)["Cell id"], file)
    return found


def _unlike(what: str, here: Iterable[str], there: Iterable[str], file: Path) -> list[str]:
    sides = ("not in", set(here) - set(there)), ("only in", set(there) - set(here))
    return [f"{what}: {some(sorted(names))} {where} {file.name}" for where, names in sides if names]


def download(name: str) -> list[Path]:
    """Download the files of a set that are not there yet; those that did arrive are kept if one fails."""
    if name not in SERIES:
        raise KeyError(f"name: got {name!r}, expected one of {', '.join(SERIES)}")
    accession, files = SERIES[name].accession, SERIES[name].files
    root = f"{BASE}/{accession[:-3]}nnn/{accession}"
    places = (f"{'matrix' if 'series_matrix' in file else 'suppl'}/{file}" for file in files)
    return [fetch(f"{root}/{place}", paths.DOWNLOADS) for place in places]


def recorded(name: str) -> list[str | None]:
    """What a set is read from: SHA-256 of its files at first use (None: never used), and what becomes of dates."""
    known = read_lock(paths.DOWNLOADS)
    return [*(known.get(file) for file in SERIES[name].files), os.environ.get(MANGLED_VARIABLE)]


def load(name: str) -> AnnData:
    """One of the paper's sets (``DATA1`` … ``DATA4``), downloaded if need be.

    A :class:`GeoError` if a file cannot be had or read, or the set differs from what was expected.
    """
    files, series = download(name), SERIES[name]
    here = f"Files: {', '.join(map(str, files))}"
    try:
        adata = READERS[series.accession](files[0].parent, series)
    except GeoError as error:
        raise GeoError(f"{error}. {WAY_OUT}") from None
    except Exception as error:  # damage that libraries report in words of their own
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        way = "Delete the damaged one (or all) and run again"
        raise GeoError(f"{name} cannot be read, is a file damaged? ({why}) {here}. {way}.") from error
    reported = adata.uns["reported"]
    if series.expected.genes not in (0, adata.uns["matrix_rows"]):
        of = f"{adata.uns['matrix_rows']:,} genes in {series.files[0]}"
        reported.append(f"{of}, expected {series.expected.genes:,}")
    if found := differences(adata, series.expected):
        lines = "\n  ".join([*found, *(f"left out: {line}" for line in reported)])
        what = f"{name} ({series.accession}) is not what was expected"
        raise GeoError(f"{what}:\n  {lines}\n{here}. {WAY_OUT}")
    adata.uns.update(origin=f"NCBI GEO {series.origin}", tier="geo", accession=series.accession)
    return adata


def main(argv: list[str]) -> int:
    """Command line: download (and ``check``: also load) the named sets, all by default; status 1 or 2."""
    if argv[:1] not in (["download"], ["check"]):
        print(__doc__)
        return 2
    failed = 0
    for name in argv[1:] or SERIES:
        try:
            print(f"[OK] {name}: " + ", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in download(name)))
            if argv[0] == "check":
                adata = load(name)
                print(f"[OK] {name}: {adata.n_obs:,} cells x {adata.n_vars:,} genes, as expected")
                print("".join(f"     {name}: {line}\n" for line in adata.uns["reported"]), end="")
        except (GeoError, KeyError) as error:
            failed = 1
            print(f"[FAIL] {name}: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
