"""Download of single files: resumed where it stopped, checked on arrival, and held to the hash of first use.

pooch finds, verifies and places a file; its own downloader starts over after an interruption, so it is given
:class:`Resuming`. Nothing here falls back to other data: what cannot be had is a :class:`GeoError`.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import logging
import os
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atsdp_utils.foundation.cache import write_text
from atsdp_utils.foundation.checksums import sha256

CHUNK = 1 << 16
#: Bytes of a file at most, as it comes and unpacked: about ten times the largest of the real ones.
MAX_DOWNLOAD, MAX_UNPACKED = 1 << 31, 1 << 32
#: Answers after which asking again may help.
PASSING = {408, 425, 429, 500, 502, 503, 504}


class GeoError(RuntimeError):
    """A file of the paper's data could not be had, or is not what was expected."""


@dataclass(frozen=True)
class Remote:
    """A file and the address it comes from."""

    name: str
    url: str


def check_content(path: Path, name: str) -> None:
    """Read `path` to its end as the format that `name` announces.

    Raises
    ------
    GeoError
        If it is a web page, cut short, damaged, or far larger than the file should be.
    """
    with open(path, "rb") as handle:
        start = handle.read(512).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise GeoError(f"{name}: is a web page (an error page of a server?), expected {Path(name).suffix} data")
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
        raise GeoError(f"{name}: is damaged or not {Path(name).suffix} data ({error})") from None


def _within(size: int, most: int, name: str) -> None:
    """Refuse what would fill memory or disk."""
    if size > most:
        raise GeoError(f"{name}: found more than {size - 1:,} bytes, expected at most {most:,}")


class Resuming:
    """Downloader for pooch that goes on from the bytes that ``<name>.part`` already holds.

    Parameters
    ----------
    part
        Where the partial file is kept between attempts and between runs.
    name
        Name of the file, for progress, messages and the check of its content.
    attempts, pause
        Number of tries, and seconds before the second one (doubled each time).
    """

    def __init__(self, part: Path, name: str, attempts: int = 5, pause: float = 2.0, timeout: float = 60.0):
        self.part, self.name, self.attempts, self.pause, self.timeout = part, name, attempts, pause, timeout

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download `url` to `output_file` (the interface that pooch asks for)."""
        import requests
        import urllib3

        for attempt in range(1, self.attempts + 1):
            try:
                self._receive(url)
                break
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                answer = getattr(error, "response", None)
                if attempt == self.attempts or (answer is not None and answer.status_code not in PASSING):
                    raise
                time.sleep(self.pause * 2 ** (attempt - 1))
            except GeoError:
                self.part.unlink(missing_ok=True)  # not the file: nothing to go on from
                raise
        try:
            check_content(self.part, self.name)
        except GeoError:
            self.part.unlink()  # complete, and not the file: nothing to go on from
            raise
        os.replace(self.part, output_file)

    def _receive(self, url: str) -> None:
        """Append what is missing to the partial file; raise if the connection ends early."""
        import requests
        from tqdm import tqdm

        have = self.part.stat().st_size if self.part.exists() else 0
        # identity: a transport compression would make byte positions meaningless
        headers = (
            {"Range": f"bytes={have}-", "Accept-Encoding": "identity"} if have else {"Accept-Encoding": "identity"}
        )
        with requests.get(url, headers=headers, stream=True, timeout=self.timeout) as answer:
            if answer.status_code == 416:  # nothing after byte `have`: complete, or the file on the server is another
                if answer.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                    return
                self.part.unlink()
                raise requests.ConnectionError("the partial file did not fit the server's; starting over")
            answer.raise_for_status()
            if answer.status_code != 206:
                have = 0  # the server does not resume
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            _within(total or 0, MAX_DOWNLOAD, self.name)
            progress = tqdm(desc=self.name, total=total, initial=have, unit="B", unit_scale=True, mininterval=1)
            with open(self.part, "ab" if have else "wb") as out, progress:
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    out.write(chunk)
                    _within(out.tell(), MAX_DOWNLOAD, self.name)
                    progress.update(len(chunk))
        size = self.part.stat().st_size
        if total is not None and size < total:
            raise requests.ConnectionError(f"connection ended after {size:,} of {total:,} bytes")


def read_lock(lock: Path) -> dict[str, str]:
    """File name to SHA-256, as first used."""
    return json.loads(lock.read_text()) if lock.exists() else {}


def _record(lock: Path, name: str, digest: str) -> None:
    text = json.dumps({**read_lock(lock), name: digest}, indent=2, sort_keys=True) + "\n"
    write_text(lock, text)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two notebooks that need one file do not write the same partial file."""
    with open(folder / ".lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fetch(remote: Remote, folder: Path, lock: Path, *, attempts: int = 5, pause: float = 2.0) -> Path:
    """Return the path of a file, downloading it if `folder` does not hold it.

    A file placed by hand is taken as it is. On first use its content is checked and its SHA-256 is written to `lock`;
    from then on any other content is an error.

    Raises
    ------
    GeoError
        If the download fails, or the content is damaged, or differs from that of first use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, known = folder / remote.name, read_lock(lock).get(remote.name)
    with _alone(folder):
        if not path.exists():
            _download(remote, path, known, Resuming(folder / f"{remote.name}.part", remote.name, attempts, pause))
        digest = sha256(path)
        if known is None:
            try:
                check_content(path, remote.name)
            except GeoError as error:
                raise GeoError(f"{error}. Delete {path} and run again, or put the right file there.") from None
            _record(lock, remote.name, digest)
        elif digest != known:
            raise GeoError(
                f"{remote.name}: SHA-256 is {digest[:12]}…, at first use it was {known[:12]}…. Delete {path} and run "
                f"again; if GEO has changed the file on purpose, remove its line from {lock}."
            )
    return path


def _download(remote: Remote, path: Path, known: str | None, downloader: Resuming) -> None:
    """Let pooch retrieve one file and say, if it cannot, which file, from where, why, and what to do."""
    import pooch
    import requests
    import urllib3

    pooch.get_logger().setLevel(logging.WARNING)
    way_out = f"Tried {remote.url}. Run again, or place the file by hand at {path}."
    try:
        pooch.retrieve(remote.url, known and f"sha256:{known}", path.name, path.parent, downloader=downloader)
    except GeoError as error:
        raise GeoError(f"{error}. {way_out}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        kept = downloader.part.stat().st_size if downloader.part.exists() else 0
        why = f"{type(error).__name__}: {error}"
        raise GeoError(
            f"{remote.name}: download failed ({why}); {kept:,} bytes are kept and the next run goes on from there. "
            f"{way_out}"
        ) from None
    except ValueError:  # pooch: the hash does not match
        raise GeoError(
            f"{remote.name}: the server sent another content than that of first use (SHA-256 {(known or '')[:12]}…). "
            f"{way_out} If GEO has changed it on purpose, remove its line from the lock file."
        ) from None
