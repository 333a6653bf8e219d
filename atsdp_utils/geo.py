"""Tier ``geo``: the paper's own files from NCBI GEO, downloaded, checked and read into AnnData.

DATA1 and DATA2 are patients HN120 and HN137 of GSE117872, DATA3 is GSE140440, DATA4 is GSE110894. File names, layouts
and counts were taken from public descriptions before any file could be opened, so every loader checks what it reads
and says precisely what differs. ``obs`` carries ``culture``, ``sensitive`` (missing for drug-holiday cells, controls
and empty wells), ``sensitive_paper`` (the paper's counting: holiday cells are sensitive; ambiguities 19 and 20) and
the columns of the source; ``var`` is indexed by symbol, with ``id`` and the human ``ortholog`` ('' if none).

Command line: ``python -m atsdp_utils.geo download|check [DATA1 ...]``.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import orthologs, paths
from .checksums import verify
from .fetch import GeoError, Remote, fetch, read_lock

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

BASE = "https://ftp.ncbi.nlm.nih.gov/geo/series"
#: Set to ``drop`` to go on without genes whose names a spreadsheet has turned into dates.
MANGLED_VARIABLE = "ATSDP_GEO_MANGLED"
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
MANGLED = re.compile(rf"\d{{1,2}}-{_MONTH}|{_MONTH}-\d{{1,2}}|\d{{4}}-\d\d-\d\d.*|\d(?:\.\d+)?e\+\d+", re.IGNORECASE)

SENSITIVE, RESISTANT, UNLABELLED = True, False, None
#: Condition of a cell to its strict label and the paper's label.
LABELS: dict[str, tuple[bool | None, bool | None]] = {
    "Sensitive": (SENSITIVE, SENSITIVE),
    "Resistant": (RESISTANT, RESISTANT),
    "Holiday": (UNLABELLED, SENSITIVE),
    "DMSO": (SENSITIVE, SENSITIVE),
    "I-BET 400 nM": (SENSITIVE, SENSITIVE),
    "I-BET resistant": (RESISTANT, RESISTANT),
    "I-BET withdrawal": (RESISTANT, RESISTANT),
    "101 CELL CONTROL": (UNLABELLED, UNLABELLED),
    "EMPTY": (UNLABELLED, UNLABELLED),
}
#: Sample names of GSE110894 to conditions; the first pattern that is found counts.
WELLS = {
    r"^EMPTY$": "EMPTY",
    r"CELL CONTROL": "101 CELL CONTROL",
    r"WITHDR|WASH": "I-BET withdrawal",
    r"RESISTAN": "I-BET resistant",
    r"DMSO": "DMSO",
    r"I-?BET": "I-BET 400 nM",
}
#: Sample descriptions of GSE140440 to conditions (resistant is looked for first) and to cell lines.
RESPONSES = {
    r"resistan|(?<![a-z])res(?![a-z])|(?<![a-z])(?:d|doc|dtx|tax|tx)-?r(?![a-z])": "Resistant",
    r"parent|sensitiv|na[iï]ve|wild.?type|untreated|(?<![a-z])(?:par|sens?|wt)(?![a-z])": "Sensitive",
}
PROSTATE_LINES = {r"DU[- ]?145": "DU-145", r"PC[- ]?3(?!\d)": "PC-3"}
COUNT_FILE = re.compile(r"(GSM\d+)[^/\\]*\.counts(?:\.txt)?\.gz", re.IGNORECASE)


@dataclass(frozen=True)
class Expected:
    """What a set must look like.

    Attributes
    ----------
    cells
        Number of cells.
    groups
        Column of ``obs`` to value to number of cells.
    paper
        Cells that the paper counts as sensitive, as resistant, and neither.
    labels
        Embedded table (cell, sensitive) to compare with ``sensitive_paper`` cell by cell.
    listed
        Embedded table (Cell id) that must hold exactly the cells that are not in the group `listed_without`.
    """

    cells: int
    groups: Mapping[str, Mapping[str, int]]
    paper: tuple[int, int, int]
    labels: Path | None = None
    listed: Path | None = None
    listed_without: str = ""


@dataclass(frozen=True)
class Series:
    """One of the paper's sets: where its files are, how they are read, and what must come out."""

    accession: str
    origin: str
    files: tuple[str, ...]
    read: Callable[[Path], AnnData]
    expected: Expected = field(repr=False)

    def remotes(self) -> list[Remote]:
        """Files and their addresses."""
        root = f"{BASE}/{self.accession[:-3]}nnn/{self.accession}"
        return [Remote(f, f"{root}/{'matrix' if 'series_matrix' in f else 'suppl'}/{f}") for f in self.files]


def read_matrix(path: Path, sep: str) -> tuple[csr_matrix, list[str], list[str]]:
    """Read a gzipped text table of genes x cells in blocks.

    Returns
    -------
    X, cells, genes
        (cells, genes) sparse float32, and the names as written (pandas would rename repeated ones).
    """
    from scipy import sparse

    with gzip.open(path, "rt", newline="") as handle:
        header = next(csv.reader(handle, delimiter=sep))
    blocks, genes = [], []
    options = {"sep": sep, "header": None, "skiprows": 1, "index_col": 0, "dtype": {0: str}, "keep_default_na": False}
    for block in pd.read_csv(path, chunksize=2000, low_memory=False, **options):
        try:
            blocks.append(sparse.csr_matrix(block.to_numpy(np.float32)))
        except ValueError as error:
            raise GeoError(f"{path.name}: a value after gene {genes[-1:]} is no number ({error})") from None
        genes += block.index.str.strip().tolist()
    width = blocks[0].shape[1] if blocks else 0
    if len(header) not in (width, width + 1):
        raise GeoError(f"{path.name}: {len(header)} names in the first line, but {width} values in each row")
    return sparse.vstack(blocks).T.tocsr(), [cell.strip() for cell in header[len(header) - width :]], genes


def _no_repeats(names: list[str], file: str) -> None:
    repeated = [f"{name} ({n} times)" for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise GeoError(f"{file}: cell ids must be unique, but {_some(repeated)}")


def _some(items: list, shown: int = 5) -> str:
    return ", ".join(map(str, items[:shown])) + (f" and {len(items) - shown} more" if len(items) > shown else "")


def _columns(table: pd.DataFrame, wanted: tuple[str, ...], file: str) -> None:
    missing = [c for c in wanted if c not in table]
    if missing:
        raise GeoError(f"{file}: column {', '.join(missing)} is missing; found {', '.join(map(str, table.columns))}")


def _first_match(text: str, patterns: Mapping[str, str]) -> str | None:
    return next((value for p, value in patterns.items() if re.search(p, text, re.IGNORECASE)), None)


def _conditions(texts: pd.Series, patterns: Mapping[str, str], file: str) -> pd.Series:
    """Condition of each sample by the first pattern found in its text."""
    found = texts.map(lambda text: _first_match(text, patterns))
    if found.isna().any():
        unknown = [f"{text!r} ({n} cells)" for text, n in texts[found.isna()].value_counts().items()]
        raise GeoError(f"{file}: unknown condition {_some(unknown)}; known are {', '.join(patterns.values())}")
    return found


def _variables(genes: list[str], species: str) -> pd.DataFrame:
    """Table of genes: index symbol (the id where a symbol is missing or taken), ``id``, human ``ortholog``."""
    ids = pd.Series(genes, dtype=str)
    bare = ids.str.replace(r"^(ENS(?:MUS)?G\d+)\.\d+$", r"\1", regex=True)
    if bare.str.match(r"ENS(?:MUS)?G\d").mean() > 0.5:
        symbols = bare.map(orthologs.symbols(species)).fillna(bare)
        symbols = symbols.where(~symbols.duplicated(), bare)
    else:
        symbols = bare
    to_human = orthologs.mouse_to_human() if species == "mouse" else {}
    human = bare.map(to_human).fillna("") if species == "mouse" else symbols.where(~symbols.str.match(r"ENSG\d"), "")
    return pd.DataFrame({"id": ids.to_numpy(), "ortholog": human.to_numpy(str)}, index=symbols.to_numpy(str))


def _assemble(
    X: csr_matrix, cells: list[str], genes: list[str], obs: pd.DataFrame, file: str, species: str = "human"
) -> AnnData:
    """Put the cells of `obs` and all genes together; rows of one gene name are added up.

    Raises
    ------
    GeoError
        If cells are repeated or missing, or gene names are dates.
    """
    import anndata
    from scipy import sparse

    _no_repeats(cells, file)
    position = {cell: i for i, cell in enumerate(cells)}
    missing = [cell for cell in obs.index if cell not in position]
    if missing:
        raise GeoError(f"{file}: {len(missing)} of {len(obs)} annotated cells are not in the matrix: {_some(missing)}")
    X = X[[position[cell] for cell in obs.index]]

    mangled = [gene for gene in genes if MANGLED.fullmatch(gene)]
    if mangled and os.environ.get(MANGLED_VARIABLE) != "drop":
        raise GeoError(
            f"{file}: {len(mangled)} gene names were changed by a spreadsheet: {_some(mangled)}. Names such as 1-Mar "
            f"cannot be told apart any more; set {MANGLED_VARIABLE}=drop to go on without these genes."
        )
    kept = np.array([not MANGLED.fullmatch(gene) for gene in genes])
    codes, names = pd.factorize(np.array(genes, dtype=object)[kept])
    ones = np.ones(len(codes), np.float32)
    sums = sparse.csr_matrix((ones, (np.flatnonzero(kept), codes)), shape=(len(genes), len(names)))
    adata = anndata.AnnData((X @ sums).tocsr(), obs=obs.copy(), var=_variables(list(names), species))
    adata.uns["repeated_gene_rows"], adata.uns["mangled_genes"] = int(kept.sum()) - len(names), mangled
    return adata


def _label(obs: pd.DataFrame, condition: pd.Series) -> None:
    """Write both label columns from the condition of each cell."""
    for column, which in (("sensitive", 0), ("sensitive_paper", 1)):
        obs[column] = pd.array([LABELS[c][which] for c in condition], dtype="boolean")


def read_head_and_neck(folder: Path, origin: str) -> AnnData:
    """GSE117872: TPM of one patient (``HN120`` or ``HN137``)."""
    file = "GSE117872_good_Data_cellinfo.txt.gz"
    info = pd.read_csv(folder / file, sep="\t", dtype=str)
    _columns(info, ("groups", "cell_color", "origin", "cluster"), file)
    info = info.apply(lambda column: column.str.strip())
    selected = info[info["origin"] == origin].reset_index(drop=True)
    if selected.empty:
        raise GeoError(
            f"{file}: no cell has origin {origin}; found {', '.join(sorted(info['origin'].dropna().unique()))}"
        )
    _no_repeats(selected["groups"].tolist(), file)
    known = {f"^{c}$": c for c in ("Sensitive", "Resistant", "Holiday")}
    condition = _conditions(selected["cluster"].fillna(""), known, file)
    obs = selected.set_index("groups").rename_axis("cell").fillna("")
    obs.insert(0, "culture", pd.Categorical(obs["cell_color"]))
    _label(obs, condition)
    file = "GSE117872_good_Data_TPM.txt.gz"
    return _assemble(*read_matrix(folder / file, "\t"), obs, file)


def read_series_matrix(path: Path) -> pd.DataFrame:
    """Sample table of a GEO series matrix: index accession, column ``text`` = title, source and characteristics.

    The names of characteristics ("treatment: ...") are left out of the text: only values describe a sample.
    """
    rows: dict[str, list[list[str]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as handle:
        for line in csv.reader(handle, delimiter="\t"):
            if line and line[0].startswith("!Sample_"):
                rows.setdefault(line[0].removeprefix("!Sample_"), []).append([value.strip() for value in line[1:]])
    if not rows.get("geo_accession"):
        raise GeoError(f"{path.name}: no line !Sample_geo_accession; found {_some(list(rows)) or 'no !Sample_ lines'}")
    accession = rows["geo_accession"][0]
    described = [line for key in ("title", "source_name_ch1", "characteristics_ch1") for line in rows.get(key, [])]
    if not described or any(len(line) != len(accession) for line in described):
        raise GeoError(
            f"{path.name}: the lines that describe the {len(accession)} samples are missing or of other length"
        )
    values = [[re.sub(r"^[^:]{1,40}:\s*", "", value) for value in sample] for sample in zip(*described, strict=True)]
    return pd.DataFrame({"text": [" | ".join(v) for v in values]}, index=pd.Index(accession, name="cell"))


def read_count_files(path: Path) -> tuple[np.ndarray, list[str], list[str], list[str]]:
    """HTSeq counts of every cell in a tar, read in memory: nothing is extracted, so no path in it matters.

    Returns
    -------
    X, cells, genes, ignored
        (cells, genes) float32 without the ``__`` summary rows, accessions, gene names, members that are no counts.

    Raises
    ------
    GeoError
        If a member lies outside the archive's own folder or is a link, a file is damaged, or the genes of two differ.
    """
    rows, cells, ignored, genes = [], [], [], None
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.name.startswith(("/", "\\")) or ".." in parts or not (member.isfile() or member.isdir()):
                raise GeoError(f"{path.name}: unsafe member {member.name!r}; expected plain files GSM….counts.txt.gz")
            match = COUNT_FILE.fullmatch(parts[-1]) if member.isfile() else None
            if match is None:
                ignored.append(member.name)
                continue
            try:
                text = gzip.decompress(archive.extractfile(member).read()).decode()
                table = pd.read_csv(
                    io.StringIO(text), sep="\t", header=None, index_col=0, dtype={0: str}, na_filter=False
                )
                counts = table[~table.index.str.startswith("__")].iloc[:, 0].astype(np.float32)
            except (EOFError, OSError, ValueError, IndexError) as error:
                raise GeoError(
                    f"{path.name}: {member.name} is cut short or no table gene, tab, count ({error})"
                ) from None
            genes = counts.index if genes is None else genes
            if not counts.index.equals(genes):
                if len(counts) != len(genes) or set(counts.index) != set(genes) or counts.index.has_duplicates:
                    raise GeoError(
                        f"{path.name}: {member.name} lists other genes ({len(counts)}) than {cells[0]} ({len(genes)})"
                    )
                counts = counts.reindex(genes)
            rows.append(counts.to_numpy())
            cells.append(match[1].upper())
    if not rows:
        raise GeoError(f"{path.name}: holds no GSM….counts.txt.gz; found {_some(ignored) or 'nothing'}")
    return np.stack(rows), cells, list(genes), ignored


def read_prostate(folder: Path) -> AnnData:
    """GSE140440: read counts of DU-145 and PC-3 cells, parental and docetaxel-resistant."""
    from scipy import sparse

    X, cells, genes, ignored = read_count_files(folder / "GSE140440_RAW.tar")
    _no_repeats(cells, "GSE140440_RAW.tar")
    file = "GSE140440_series_matrix.txt.gz"
    samples = read_series_matrix(folder / file)
    _no_repeats(samples.index.tolist(), file)
    missing = [cell for cell in cells if cell not in samples.index]
    if missing:
        raise GeoError(f"{file}: {len(missing)} of {len(cells)} cells are not described: {_some(missing)}")
    obs = samples.loc[cells]
    condition, line = _conditions(obs["text"], RESPONSES, file), _conditions(obs["text"], PROSTATE_LINES, file)
    obs.insert(0, "culture", pd.Categorical(line.where(condition == "Sensitive", line + " docetaxel-resistant")))
    obs.insert(1, "line", pd.Categorical(line))
    _label(obs, condition)
    adata = _assemble(sparse.csr_matrix(X), cells, genes, obs, "GSE140440_RAW.tar")
    adata.uns["ignored_members"] = ignored
    return adata


def read_leukaemia(folder: Path) -> AnnData:
    """GSE110894: UMI counts of mouse MLL-AF9 leukaemia; conditions from the spreadsheet (header on its fourth row)."""
    file = "GSE110894_SingleCellInfo.xlsx"
    info = pd.read_excel(folder / file, header=3, dtype=str, engine="openpyxl")
    info.columns = info.columns.astype(str).str.strip()
    _columns(info, ("Plate#", "Well position", "Sample name"), f"{file} (names are expected on the fourth row)")
    info[["Plate#", "Sample name"]] = info[["Plate#", "Sample name"]].ffill()  # merged cells hold one value, at the top
    info = info.dropna(subset=["Well position"]).reset_index(drop=True)
    well = info["Well position"].str.split("=").str[0].str.strip()
    info.insert(0, "cell", info["Plate#"].str.strip() + "_" + well)
    _no_repeats(info["cell"].tolist(), file)
    condition = _conditions(info["Sample name"].str.split().str.join(" ").str.upper(), WELLS, file)
    obs = info.set_index("cell").loc[:, lambda t: ~t.columns.str.startswith("Unnamed")].fillna("")
    obs.insert(0, "culture", pd.Categorical(condition))
    _label(obs, condition)
    file = "GSE110894_gene_count.csv.gz"
    return _assemble(*read_matrix(folder / file, ","), obs, file, species="mouse")


def differences(adata: AnnData, expected: Expected) -> list[str]:
    """What of a set is not as expected, one sentence each; empty when all is."""
    obs, found = adata.obs, []

    def compare(what: str, is_: object, should: object) -> None:
        if is_ != should:
            found.append(f"{what}: found {is_}, expected {should}")

    compare("cells", adata.n_obs, expected.cells)
    for column, groups in expected.groups.items():
        counts = obs[column].astype(str).value_counts().to_dict()
        for value, n in groups.items():
            compare(f"cells with {column} {value!r}", counts.get(value, 0), n)
    label = obs["sensitive_paper"]
    names = ("sensitive", "resistant", "without label")
    for name, n, should in zip(names, (label.sum(), (~label).sum(), label.isna().sum()), expected.paper, strict=True):
        compare(f"cells {name} (the paper's counting)", int(n), should)
    if expected.labels is not None:
        table = pd.read_csv(expected.labels).set_index("cell")["sensitive"].astype("boolean")
        found += _unlike("label table", set(obs.index[label.notna()]), set(table.index), expected.labels)
        both = table.index.intersection(obs.index[label.notna()])
        other = both[(table[both] != label[both]).to_numpy(bool)].tolist()
        if other:
            found.append(f"labels: {len(other)} cells differ from {expected.labels.name}: {_some(other)}")
    if expected.listed is not None:
        table = pd.read_csv(expected.listed)["Cell id"]
        column, _, value = expected.listed_without.partition("=")
        found += _unlike("cell list", set(obs.index[obs[column].astype(str) != value]), set(table), expected.listed)
    return found


def _unlike(what: str, here: set[str], there: set[str], file: Path) -> list[str]:
    more, less = sorted(here - there), sorted(there - here)
    return [f"{what}: {_some(more)} not in {file.name}"] * bool(more) + [
        f"{what}: {_some(less)} only in {file.name}"
    ] * bool(less)


def _patient(patient: str, cultures: dict[str, int], holiday: int, **tables: object) -> Expected:
    sensitive = cultures["P"] + cultures["M"] + holiday
    resistant = cultures["PCR"] + cultures["MCR"]
    groups = {"culture": {patient + k: n for k, n in cultures.items()}, "cluster": {"Holiday": holiday}}
    return Expected(sensitive + resistant, groups, (sensitive, resistant, 0), **tables)


_HEAD_AND_NECK = ("GSE117872_good_Data_TPM.txt.gz", "GSE117872_good_Data_cellinfo.txt.gz")
SERIES: dict[str, Series] = {
    "DATA1": Series(
        "GSE117872", "GSE117872, patient HN120 (oral squamous-cell carcinoma, cisplatin)", _HEAD_AND_NECK,
        partial(read_head_and_neck, origin="HN120"),
        _patient("HN120", {"P": 90, "M": 91, "PCR": 95, "MCR": 92}, 180,
                 labels=paths.DATA / "labels_GSE117872_HN120.csv",
                 listed=paths.DATA / "scdeal_scores_GSE117872_HN120.csv.gz", listed_without="cluster=Holiday"),
    ),
    "DATA2": Series(
        "GSE117872", "GSE117872, patient HN137 (oral squamous-cell carcinoma, cisplatin)", _HEAD_AND_NECK,
        partial(read_head_and_neck, origin="HN137"),
        _patient("HN137", {"P": 253, "M": 75, "PCR": 78, "MCR": 87}, 75,
                 labels=paths.DATA / "labels_GSE117872_HN137.csv"),
    ),
    "DATA3": Series(
        "GSE140440", "GSE140440 (DU-145 and PC-3 prostate cancer lines, docetaxel)",
        ("GSE140440_RAW.tar", "GSE140440_series_matrix.txt.gz"), read_prostate,
        Expected(324, {}, (162, 162, 0), labels=paths.DATA / "labels_GSE140440.csv"),
    ),
    "DATA4": Series(
        "GSE110894", "GSE110894 (mouse MLL-AF9 leukaemia, I-BET)",
        ("GSE110894_gene_count.csv.gz", "GSE110894_SingleCellInfo.xlsx"), read_leukaemia,
        Expected(1419, {"culture": {"I-BET resistant": 345, "I-BET withdrawal": 340, "DMSO": 372, "I-BET 400 nM": 343,
                                    "101 CELL CONTROL": 4, "EMPTY": 15}}, (715, 685, 19),
                 listed=paths.DATA / "scdeal_scores_GSE110894.csv.gz", listed_without="culture=EMPTY"),
    ),
}  # fmt: skip


def _series(name: str) -> Series:
    if name not in SERIES:
        raise KeyError(f"name: got {name!r}, expected one of {', '.join(SERIES)}")
    return SERIES[name]


def download(name: str, folder: Path | None = None) -> list[Path]:
    """Download the files of a set that are not there yet; hashes of first use are kept in ``geo.lock.json``.

    Raises
    ------
    GeoError
        With the file, the address tried and the way out. Files that did arrive are kept.
    """
    folder = folder or paths.DOWNLOADS
    return [fetch(remote, folder, folder / "geo.lock.json") for remote in _series(name).remotes()]


def recorded(name: str) -> list[str | None]:
    """What a set is read from: SHA-256 of its files at first use (None: never used), and what becomes of dates."""
    known = read_lock(paths.DOWNLOADS / "geo.lock.json")
    return [*(known.get(file) for file in _series(name).files), os.environ.get(MANGLED_VARIABLE)]


def load(name: str, folder: Path | None = None, expected: Expected | None = None) -> AnnData:
    """One of the paper's sets, downloaded if need be and checked.

    Parameters
    ----------
    name
        ``DATA1`` … ``DATA4``.
    folder
        Where the files are, or go; default ``paths.DOWNLOADS``.
    expected
        What to check against; default the counts and label tables of the real set.

    Raises
    ------
    GeoError
        If a file cannot be had or read, or the set differs from what was expected.
    """
    series, folder = _series(name), folder or paths.DOWNLOADS
    files = download(name, folder)
    expected = expected or series.expected
    for table in (expected.labels, expected.listed):
        if table is not None and table.is_relative_to(paths.DATA):
            verify(table)
    try:
        adata = series.read(folder)
    except GeoError:
        raise
    except Exception as error:  # damage that libraries report in words of their own
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise GeoError(
            f"{name} cannot be read, is a file damaged? ({why}) Files: {', '.join(map(str, files))}. Delete the "
            "damaged one (or all) and run again."
        ) from error
    found = differences(adata, expected)
    if found:
        raise GeoError(
            f"{name} ({series.accession}) is not what was expected:\n  " + "\n  ".join(found) + "\nFiles: "
            f"{', '.join(map(str, files))}. If they are complete, the description in atsdp_utils/geo.py is wrong."
        )
    adata.uns.update(origin=f"NCBI GEO {series.origin}", tier="geo", accession=series.accession)
    return adata


def main(argv: list[str]) -> int:
    """Command line: download (and ``check``: also load) the named sets, all by default; 1 if any failed."""
    action, names = argv[0] if argv else "", argv[1:] or list(SERIES)
    if action not in ("download", "check"):
        print(__doc__)
        return 2
    failed = 0
    for name in names:
        try:
            if action == "download":
                print(f"[OK] {name}: " + ", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in download(name)))
            else:
                adata = load(name)
                print(f"[OK] {name}: {adata.n_obs:,} cells x {adata.n_vars:,} genes, as expected")
        except (GeoError, KeyError) as error:
            failed += 1
            print(f"[FAIL] {name}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
