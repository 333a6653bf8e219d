"""What the text formats of the paper's GEO files hold: matrices, series matrices, and count files in a tar.

Every reader takes what it is given as hostile: nothing is extracted, sizes are bounded, and an error names the file,
what was found, and what was expected.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import tarfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from scipy import sparse

from atsdp_utils.data.download import GeoError

#: Text of one HTSeq file at most, in bytes; the real ones hold some 60,000 short lines.
MAX_COUNT_FILE = 1 << 26
#: log2 of a million, the largest value that any logarithm of TPM can take.
MAX_LOG_TPM = 20
COUNT_FILE = re.compile(r"(GSM\d+)[^/\\]*\.counts(?:\.txt)?\.gz", re.IGNORECASE)


def read_matrix(path: Path, sep: str) -> tuple[sparse.csr_matrix, list[str], list[str]]:
    """Gzipped text table of genes x cells: X (cells, genes) float32, cells and genes as written, repeated or not."""
    with gzip.open(path, "rt", newline="") as handle:
        header = next(csv.reader(handle, delimiter=sep), [])
    if len(header) < 2:
        name = {",": "commas", "\t": "tabs"}[sep]
        raise GeoError(f"{path.name}: found no {name} in the first line ({''.join(header)[:40]!r}…), expected {name}")
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
        raise GeoError(f"{path.name}: found {len(header)} names in the first line, expected the {width} of each row")
    return sparse.vstack(blocks).T.tocsr(), [cell.strip() for cell in header[len(header) - width :]], genes


def check_linear(X: sparse.csr_matrix, file: str) -> None:
    """Refuse values that are logarithms or negative: TPM must be as measured."""
    if not np.isfinite(X.data).all():
        raise GeoError(f"{file}: found values that are missing or infinite, expected linear TPM")
    typical = float(np.median(X.max(axis=1).toarray())) if X.shape[0] else 0.0
    if typical <= MAX_LOG_TPM or X.min() < 0:
        found = f"found values from {X.min():.3g}, with {typical:.3g} as the typical largest of a cell"
        expected = f"expected linear TPM (largest above {MAX_LOG_TPM}, none negative)"
        raise GeoError(f"{file}: {found}, {expected}; these look like logarithms or scores")


def check_whole(X: sparse.csr_matrix, file: str) -> None:
    """Refuse values that are no counts."""
    if len(odd := X.data[(X.data < 0) | (X.data != np.rint(X.data))]):
        raise GeoError(f"{file}: found values such as {odd[0]:.4g}, expected counts (whole numbers, none negative)")


def no_repeats(names: list[str], file: str) -> None:
    """Refuse a cell that comes twice."""
    if repeated := [f"{name} ({n} times)" for name, n in Counter(names).items() if n > 1]:
        raise GeoError(f"{file}: found {some(repeated)}, expected every cell once")


def some(items: list) -> str:
    """First five of many, and how many more there are, for a message."""
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def read_series_matrix(path: Path) -> pd.DataFrame:
    """Sample table of a GEO series matrix: ``text`` holds title, source and values of characteristics, by accession."""
    rows: dict[str, list[list[str]]] = {}
    with gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="") as handle:
        for line in csv.reader(handle, delimiter="\t"):
            if line and line[0].startswith("!Sample_"):
                rows.setdefault(line[0].removeprefix("!Sample_"), []).append([value.strip() for value in line[1:]])
    if not rows.get("geo_accession"):
        raise GeoError(f"{path.name}: no line !Sample_geo_accession; found {some(list(rows)) or 'no !Sample_ lines'}")
    accession = rows["geo_accession"][0]
    described = [line for key in ("title", "source_name_ch1", "characteristics_ch1") for line in rows.get(key, [])]
    if not described or any(len(line) != len(accession) for line in described):
        raise GeoError(f"{path.name}: lines that describe the {len(accession)} samples are missing or of other length")
    values = [[re.sub(r"^[^:]{1,40}:\s*", "", value) for value in sample] for sample in zip(*described, strict=True)]
    return pd.DataFrame({"text": [" | ".join(v) for v in values]}, index=pd.Index(accession, name="cell"))


def read_count_files(path: Path) -> tuple[sparse.csr_matrix, list[str], list[str], list[str]]:
    """HTSeq counts of every cell in a tar, read in memory: nothing is extracted, so no path in it matters.

    Returns X (cells, genes) float32, accessions, gene names without ``__`` rows, and members that are no counts.
    """
    found, ignored = [], []
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            parts = Path(member.name).parts
            if member.name.startswith(("/", "\\")) or ".." in parts or not (member.isfile() or member.isdir()):
                raise GeoError(f"{path.name}: found unsafe member {member.name!r}, expected files GSM….counts.txt.gz")
            match = COUNT_FILE.fullmatch(parts[-1]) if member.isfile() else None
            if match is None:
                ignored.append(member.name)
                continue
            counts = _count_file(archive.extractfile(member), f"{path.name}: {member.name}")
            first, genes = found[0] if found else ("", counts)
            if not counts.index.equals(genes.index):
                if counts.index.has_duplicates or sorted(counts.index) != sorted(genes.index):
                    found = f"found {len(counts)}, expected the {len(genes)} of {first}"
                    raise GeoError(f"{path.name}: {member.name} lists other genes: {found}")
                counts = counts.reindex(genes.index)
            found.append((match[1].upper(), counts))
    if not found:
        raise GeoError(f"{path.name}: found {some(ignored) or 'nothing'}, expected files GSM….counts.txt.gz; no GSM")
    cells, counts = zip(*found, strict=True)
    return sparse.csr_matrix(np.stack(counts)), list(cells), list(counts[0].index), ignored


def _count_file(packed: IO[bytes], what: str) -> pd.Series:
    """Counts by gene of one gzipped HTSeq file, without its ``__`` rows."""
    try:
        with gzip.open(packed) as stream:
            text = stream.read(MAX_COUNT_FILE + 1)
        if len(text) > MAX_COUNT_FILE:
            raise ValueError(f"more than {MAX_COUNT_FILE:,} bytes of text")
        options = {"sep": "\t", "header": None, "index_col": 0, "dtype": {0: str}, "na_filter": False}
        table = pd.read_csv(io.StringIO(text.decode()), **options)
        return table[~table.index.str.startswith("__")].iloc[:, 0].astype(np.float32)
    except (EOFError, OSError, ValueError, IndexError, zlib.error) as error:
        why = f"found a file cut short or of other form ({error}), expected gene, tab, count"
        raise GeoError(f"{what}: {why}") from None
