"""The files that a prediction leaves: where they go, what they can hold, and that they appear complete or not."""

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem

from atsdp_utils.foundation import paths
from atsdp_utils.own_cells.cell_values import SCORED
from atsdp_utils.own_cells.cellfile import FORMATS, CellFile, InputError
from atsdp_utils.own_cells.prediction import Prediction

T = TypeVar("T")
#: A context in which anndata writes strings with missing values.
any_strings = functools.partial(anndata.settings.override, allow_write_nullable_strings=True)
#: Bytes beyond those of the input that scores, report and a first use of the cache take.
ROOM = 5e7
#: What is taken off the name of an input.
ENDING = re.compile(r"(\.atsdp)?(\.(h5ad|h5|csv|tsv|txt|tab))?(\.gz)?$")
#: What every page of this command holds.
PAGE = b"<h2>How it was made</h2>"


def plain_name(path: Path) -> str:
    """Name of a file or folder as text that can be written, whatever its bytes."""
    return os.fsencode(Path(os.path.abspath(path)).name).decode(errors="backslashreplace")


def destinations(path: Path, drug: str, out: Path | None, report: Path | None, ending=".h5ad") -> tuple[Path, Path]:
    """Where scores and report go, checked before any work is done; by default beside the input, a link's own folder."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder. Expected {FORMATS}.")
    here = Path(os.path.abspath(path))
    stem = here.name if path.is_dir() else ENDING.sub("", here.name)
    out = out or here.parent / f"{stem}.{drug}.atsdp{ending}"
    report = report or out.parent / f"{out.stem}.html"
    for option, target, suffix in (("--out", out, ending), ("--report", report, ".html")):
        folder = target.resolve().parent
        if not target.name:
            raise InputError(f"{option} {target}: is a folder. Expected the name of a file.")
        if target.suffix != suffix:
            raise InputError(f"{option} {target}: expected a name that ends in {suffix}.")
        if target.exists() and target.samefile(path):
            raise InputError(f"{option} {target}: this is the input, which is never changed. Choose another.")
        if target.is_dir() or not folder.is_dir():
            raise InputError(f"{option} {target}: no folder to write in, or itself a folder. Make the folder first.")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{option} {target}: the folder may not be written to. Choose another with {option}.")
    there, given = _fact(out, "drug"), _fact(out, "input")
    same = there == drug and ENDING.sub("", given) == ENDING.sub("", plain_name(path))
    if ending == ".h5ad" and out.exists() and not same:
        other = " of ".join(filter(None, (there, given)))
        holds = f"the scores of {other}, which are" if other else "no scores of this command, and is"
        raise InputError(f"--out {out}: holds {holds} kept. Choose another name with --out.")
    if report.exists() and PAGE not in report.read_bytes():
        raise InputError(f"--report {report}: no page of this command, and is kept. Choose another with --report.")
    return out, report


def _stored(out: Path, read: Callable[[h5py.File], T], none: T) -> T:
    """What a file of scores holds; `none` if it is no file of this command."""
    try:
        with h5py.File(out, "r") as f:
            return read(f)
    except (OSError, KeyError, TypeError, ValueError):
        return none


def _fact(out: Path, name: str) -> str:
    """What a file of scores says of itself."""
    return _stored(out, lambda f: f[f"uns/atsdp/{name}"].asstr()[()], "")


def _cells(f: h5py.File) -> set[str]:
    """Names of the cells in an open file."""
    return {*f["obs"][f["obs"].attrs["_index"]].asstr()[:]}


def writable(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Columns that anndata can write, and what was changed: doubled or reserved names, kinds that it does not know."""
    plain = [{"_index": "index_", "": "unnamed", ".": "dot"}.get(str(c), str(c).replace("/", "_")) for c in obs.columns]
    names = list(anndata.utils.make_index_unique(pd.Index(plain, dtype=object), join="_"))
    pairs = zip(obs.columns, names, strict=True)
    notes = [f"column {old} is called {new} in the output" for old, new in pairs if old != new]
    index = obs.index.astype(str)
    obs = obs.set_axis(names, axis=1).set_axis(index.rename(None) if index.name in names else index)
    with h5py.File("obs", "w", driver="core", backing_store=False) as f, any_strings():
        for i, name in enumerate(names):
            try:
                write_elem(f, str(i), obs[[name]])
            except Exception:  # anndata has a type of error for each kind that it cannot write
                obs[name] = obs[name].astype("string").fillna("").astype(object)
                notes.append(f"column {name} is written as text, its kind cannot be stored")
    return obs, notes


def check_output(file: CellFile, out: Path, members: int) -> None:
    """Write what the output will hold to a file beside it and remove it; see that the cache may be filled."""
    n = len(file.obs)
    missing = np.full((members + 2, n), np.nan)
    blank = Prediction(missing[2:], missing[0], missing[1], None, np.full(n, SCORED), np.zeros(0))
    ours, theirs = set(file.obs.index.astype(str)), _stored(out, _cells, set())
    if theirs and len(ours & theirs) < 0.5 * min(len(ours), len(theirs)):
        other = "holds the scores of other cells, which are kept. Choose another name with --out."
        raise InputError(f"--out {out}: {other}")
    for folder, needed in ((out.resolve().parent, _size(file, out) + ROOM), (paths.CACHE, ROOM)):
        way = "choose another with --out" if folder != paths.CACHE else "name another in the variable ATSDP_BUILD"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as trial:
                write_obs(Path(trial) / "obs.h5", file.obs, blank)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise InputError(f"{folder}: cannot be written to ({error.strerror or error}); {way}.") from error
        if free < needed:
            raise InputError(f"{folder}: {free / 1e6:,.0f} MB free, {needed / 1e6:,.0f} MB needed; make room or {way}.")


def _size(file: CellFile, out: Path) -> int:
    """Bytes of the scores, about: an h5ad is copied, another format written without compression, a table is small."""
    if out.suffix != ".h5ad":
        return 0
    if file.kind == "h5ad":
        return file.path.stat().st_size
    X = file.X
    return X.nbytes if isinstance(X, np.ndarray) else X.data.nbytes + X.indices.nbytes + X.indptr.nbytes


def write_obs(part: Path, obs: pd.DataFrame, found: Prediction) -> None:
    """Write columns on cells with the scores and what they rest on, beside those of an earlier run for another drug."""
    columns, before = found.columns.set_axis(obs.index), _fact(part, "drug")
    facts = {k: np.array(v, dtype=object) if isinstance(v, list) else v for k, v in found.facts.items()}
    with h5py.File(part, "a") as f, any_strings():
        uns = f.require_group("uns")
        if before not in ("", facts.get("drug")):
            named = {c: f"{c}_{before}" for c in columns}  # scores of before the last but one may have these names
            obs = obs.drop(columns=[c for c in named.values() if c in obs]).rename(columns=named)
            uns.pop(f"atsdp_{before}", None)
            uns.move("atsdp", f"atsdp_{before}")
        kept = obs.drop(columns=[c for c in columns if c in obs])
        write_elem(f, "obs", pd.concat([kept, columns], axis=1))
        write_elem(uns, "atsdp", facts)


def write_h5ad(file: CellFile, found: Prediction, part: Path) -> None:
    """The input with the scores: an h5ad is copied as it is and completed, another format becomes one with names."""
    if file.kind == "h5ad":
        shutil.copyfile(file.path, part)
    else:
        var, _ = writable(pd.DataFrame(file.names, index=pd.Index(next(iter(file.names.values())))))
        anndata.AnnData(file.X, file.obs[[]], var).write_h5ad(part)
    write_obs(part, file.obs, found)
