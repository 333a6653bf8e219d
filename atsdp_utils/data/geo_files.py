"""The paper's GEO files: downloaded, held to the hash of first use, and what their text formats hold.

Nothing here falls back to other data: what cannot be had is a :class:`GeoError`. Every reader takes what it is given as
hostile: nothing is extracted, sizes are bounded, and an error names the file, what was found, and what was expected.
"""

import csv
import gzip
import io
import json
import logging
import re
import tarfile
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
from filelock import FileLock
from scipy import sparse
from tqdm import tqdm

from atsdp_utils.foundation.cache import write_text
from atsdp_utils.foundation.checksums import sha256

#: Bytes of a file at most, as it comes and unpacked: about ten times the largest of the real ones.
MAX_DOWNLOAD, MAX_UNPACKED = 1 << 31, 1 << 32
RETRIES = 4
#: File beside the downloads that keeps the SHA-256 of each at first use.
FIRST_USE = "geo.lock.json"
#: Text of one HTSeq file at most, in bytes; the real ones hold some 60,000 short lines.
MAX_COUNT_FILE = 1 << 26
#: log2 of a million, the largest value that any logarithm of TPM can take.
MAX_LOG_TPM = 20
COUNT_FILE = re.compile(r"(GSM\d+)[^/\\]*\.counts(?:\.txt)?\.gz", re.IGNORECASE)


class GeoError(RuntimeError):
    """A file of the paper's data could not be had, or is not what was expected."""


def check_content(path: Path) -> None:
    """Read a file to its end as the format that its name announces; refuse web pages, damage and too large ones."""
    name = path.name
    with open(path, "rb") as handle:
        start = handle.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise GeoError(f"{name}: is a web page (an error page of a server?), expected {path.suffix} data")
    try:
        if name.endswith(".gz"):
            with gzip.open(path) as stream:
                while stream.read(1 << 20):
                    _within(stream.tell(), MAX_UNPACKED, name)
        elif name.endswith(".tar"):
            with tarfile.open(path, "r:") as archive:
                archive.getmembers()
        elif name.endswith(".xlsx"):
            with zipfile.ZipFile(path) as book:
                _within(sum(part.file_size for part in book.infolist()), MAX_UNPACKED, name)
                if broken := book.testzip():
                    raise zipfile.BadZipFile(f"{broken} in it has another check sum")
    except EOFError:
        raise GeoError(f"{name}: is cut short at {path.stat().st_size:,} bytes (end of stream missing)") from None
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile) as error:
        raise GeoError(f"{name}: is damaged or not {path.suffix} data ({error})") from None


def _within(size: int, most: int, name: str) -> None:
    """Refuse what would fill memory or disk."""
    if size > most:
        raise GeoError(f"{name}: found more than {size - 1:,} bytes, expected at most {most:,}")


class _Bounded(tqdm):
    """Progress of a download; one that is announced, or turns out, larger than :data:`MAX_DOWNLOAD` ends."""

    def __bool__(self) -> bool:
        return True  # pooch asks whether there is a bar; tqdm would say no for an unknown length

    def update(self, n: int = 1) -> None:
        _within(max(self.n + n, self.total or 0), MAX_DOWNLOAD, self.desc)
        super().update(n)


def read_lock(folder: Path) -> dict[str, str]:
    """File name to SHA-256, as first used."""
    lock = folder / FIRST_USE
    return json.loads(lock.read_text()) if lock.exists() else {}


def fetch(url: str, folder: Path) -> Path:
    """Path of a file, downloaded if `folder` does not hold it; one placed by hand is taken as it is.

    On first use its content is checked and its SHA-256 is written down; from then on any other is a :class:`GeoError`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / url.rpartition("/")[2]
    with FileLock(folder / ".lock"):  # two notebooks that need one file
        known, here = read_lock(folder).get(path.name), path.exists()
        try:
            if not here:
                _download(url, path, known)
            if known is None:
                check_content(path)
        except GeoError as error:
            if here:
                raise GeoError(f"{error}. Delete {path} and run again, or put the right file there.") from None
            path.unlink(missing_ok=True)
            raise GeoError(f"{error}. Tried {url}. Run again, or place the file by hand at {path}.") from None
        digest = sha256(path)
        if known is None:
            text = json.dumps({**read_lock(folder), path.name: digest}, indent=2, sort_keys=True) + "\n"
            write_text(folder / FIRST_USE, text)
        elif digest != known:
            found = f"SHA-256 is {digest[:12]}…, at first use it was {known[:12]}…"
            way = f"if GEO has changed the file on purpose, remove its line from {folder / FIRST_USE}"
            raise GeoError(f"{path.name}: {found}. Delete {path} and run again; {way}.")
    return path


def _download(url: str, path: Path, known: str | None) -> None:
    """Let pooch retrieve one file, and say why if it cannot."""
    import pooch
    import requests

    def receive(url: str, output: str, catalogue: pooch.Pooch) -> None:
        # identity: a transport compression could unpack to more than was counted
        with _Bounded(desc=path.name, unit="B", unit_scale=True, mininterval=1) as bar:
            ask = pooch.HTTPDownloader(bar, 1 << 16, headers={"Accept-Encoding": "identity"}, timeout=60)
            ask(url, output, catalogue)

    pooch.get_logger().setLevel(logging.WARNING)
    registry = {path.name: known and f"sha256:{known}"}
    files = pooch.create(path.parent, "", registry=registry, urls={path.name: url}, retry_if_failed=RETRIES)
    try:
        files.fetch(path.name, downloader=receive)
    except requests.RequestException as error:
        raise GeoError(f"{path.name}: download failed ({type(error).__name__}: {error})") from None
    except ValueError:  # the hash does not match
        found = f"the server sent another content than that of first use (SHA-256 {known})"
        way = f"if GEO has changed it on purpose, remove its line from {FIRST_USE}"
        raise GeoError(f"{path.name}: {found}; {way}") from None


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
    if len(odd := X.data[(X.data < 0) | (X.data != np.rint(X.data)) | np.isinf(X.data)]):
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
