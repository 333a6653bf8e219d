"""Download of single files, checked on arrival and held to the hash of first use.

Nothing here falls back to other data: what cannot be had is a :class:`GeoError`.
"""

from __future__ import annotations

import gzip
import json
import logging
import tarfile
import zipfile
import zlib
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from atsdp_utils.foundation.cache import write_text
from atsdp_utils.foundation.checksums import sha256

#: Bytes of a file at most, as it comes and unpacked: about ten times the largest of the real ones.
MAX_DOWNLOAD, MAX_UNPACKED = 1 << 31, 1 << 32
RETRIES = 4
#: File beside the downloads that keeps the SHA-256 of each at first use.
FIRST_USE = "geo.lock.json"


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
