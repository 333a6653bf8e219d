"""One set of counts as people bring it: container x orientation x names of genes x kind of values x contamination."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import io, sparse

from atsdp_utils.data import gdsc, gene_names
from atsdp_utils.models.calibration import Calibration
from atsdp_utils.own_cells import predict

CONTAINERS = (
    "h5ad", "h5ad dense", "h5ad layer", "10x h5", "10x folder", "csv", "tsv.gz", "csv transposed", "tsv transposed",
)  # fmt: skip
NAMINGS = ("symbols", "newer symbols", "Ensembl", "versioned", "prefixed", "placed", "quoted", "lower case", "mouse")
VALUES = ("counts", "cpm", "lognorm", "half", "zscored")
CONTAMINATIONS = (
    "none", "reads", "antibodies", "htseq", "spike-ins", "annotations", "missing", "empties", "shuffled", "negative",
    "other species", "columns of genes", "unknown first gene",
)  # fmt: skip
N = 60


@dataclass
class Case:
    """A file, the options it needs, and what it is expected to give."""

    path: Path
    rows: np.ndarray  # where the cells of the plain file stand in this one
    options: dict[str, str] = field(default_factory=dict)
    message: str | None = None


@cache
def counts() -> pd.DataFrame:
    """Counts of two kinds of cells on 340 genes of the bulk, 40 of them under an older name; cells x genes."""
    bulk = gdsc.load_bulk()
    mouse, ids = gene_names.human_to_mouse(), set(gene_names.ensembl_symbols("human").values())
    newer = {old: new for new, old in gene_names.newer_names().items() if not new.startswith("ENSG")}
    ordered = bulk.genes[np.argsort(-bulk.X.var(0))]
    kept = [g for g in ordered if g in mouse and g in ids][:300] + [g for g in ordered if newer.get(g) in mouse][:40]
    rng = np.random.default_rng(0)
    level, kind = 1 + rng.gamma(0.5, 20, len(kept)), rng.random(N)
    effect = np.exp(np.outer(kind - 0.5, rng.normal(0, 1.5, len(kept))))
    depth = np.exp(rng.normal(0, 0.3, N))
    X = rng.poisson(level * effect * depth[:, None])
    return pd.DataFrame(X.astype(float), [f"cell-{i}" for i in range(N)], kept)


def plain() -> pd.DataFrame:
    """The counts, to be changed."""
    return counts().copy()


def spelled(names: list[str], naming: str) -> list[str]:
    """Genes of the bulk as a file may call them."""
    newer = {old: new for new, old in gene_names.newer_names().items() if not new.startswith("ENSG")}
    today = [newer.get(n, n) for n in names]
    ids, mouse = {s: i for i, s in gene_names.ensembl_symbols("human").items()}, gene_names.human_to_mouse()
    spell = {
        "symbols": lambda n, t: n, "newer symbols": lambda n, t: t, "Ensembl": lambda n, t: ids[t],
        "versioned": lambda n, t: f"{ids[t]}.7", "prefixed": lambda n, t: f"GRCh38_{t}",
        "placed": lambda n, t: f"{n}__chr1", "quoted": lambda n, t: f"'{n}'", "lower case": lambda n, t: n.lower(),
        "mouse": lambda n, t: mouse[t],
    }  # fmt: skip
    return [spell[naming](n, t) for n, t in zip(names, today, strict=True)]


def possible(container: str, naming: str, values: str, contamination: str) -> bool:
    """Whether such a file can be: z-scoring over what is no cell, or columns of genes in an h5ad, are other cases."""
    table = container.split(".")[0].split()[0] in ("csv", "tsv")
    if values == "half" and not container.startswith("h5ad"):
        return False
    if values == "zscored" and contamination in ("empties", "other species", "negative"):
        return False
    if contamination == "columns of genes":
        return "transposed" in container
    if contamination == "unknown first gene":
        return table and "transposed" not in container
    return contamination != "other species" or naming in ("Ensembl", "prefixed")


def make(folder: Path, container: str, naming: str, values: str, contamination: str) -> Case:
    """Write the file of one combination into `folder`."""
    rng, X = np.random.default_rng(1), plain()
    own, case = X.shape[1], Case(folder / "mine", np.arange(N))
    X.columns = spelled(list(X.columns), naming)
    depth = X.sum(axis=1).to_numpy()
    if contamination == "empties":
        drops = rng.poisson(X.mean(axis=0).to_numpy() / 60, (2 * N, own)).astype(float)
        drops[:, 0] += 1  # none is all zero
        X = pd.concat([X, pd.DataFrame(drops, [f"drop-{i}" for i in range(2 * N)], X.columns)])
    if contamination == "other species":
        strange = gene_names.orthologs().iloc[:own]
        names = strange["mouse_id"] if naming == "Ensembl" else "mm10___" + strange["mouse_symbol"]
        theirs = pd.DataFrame(rng.poisson(0.05, (N, own)).astype(float), X.index, names)
        cells = [f"mouse-{i}" for i in range(20)]
        mice = pd.DataFrame(rng.poisson(20, (20, own)).astype(float), cells, names)
        leak = pd.DataFrame(rng.poisson(0.05, (20, own)).astype(float), cells, X.columns)
        X = pd.concat([pd.concat([X, theirs], axis=1), pd.concat([leak, mice], axis=1)])
    V = X / X.sum(axis=1).to_numpy()[:, None] * 1e4 if contamination != "other species" else (
        X / X.iloc[:, :own].sum(axis=1).to_numpy()[:, None] * 1e4)  # fmt: skip
    V = {"counts": X, "cpm": V * 100, "lognorm": np.log1p(V), "half": np.log1p(V),
         "zscored": (np.log1p(V) - np.log1p(V).mean()) / np.log1p(V).std()}[values]  # fmt: skip
    V = V.loc[:, V.notna().any().to_numpy()].copy()
    extra, kind = _columns(contamination, depth, len(V), rng)
    extra.index = V.index
    if contamination == "negative":
        V.iloc[3, 3], case.message = -1, "negative"
    if contamination == "shuffled":
        order = rng.permutation(len(V))
        V, extra, case.rows = V.iloc[order], extra.iloc[order], np.argsort(order)
    if contamination == "unknown first gene":
        V.insert(0, "NOVEL1", rng.poisson(1, len(V)).astype(float))
    kinds = np.array(["Gene Expression"] * V.shape[1] + [kind] * extra.shape[1])
    V = pd.concat([V, extra], axis=1)
    if naming == "mouse":
        case.options["species"] = "mouse"
    if naming == "lower case":
        case.options["species"] = "human"
    _write(case, container, V, kinds, values, contamination)
    return case


def _columns(contamination: str, depth: np.ndarray, n: int, rng) -> tuple[pd.DataFrame, str]:
    """Columns that are no gene, and the kind of feature that a 10x file calls them."""
    many = np.resize(depth, n)[:, None]
    words, numbers, kind = {
        "reads": (["total_reads"], many * rng.lognormal(2, 0.6, (n, 1)), "Gene Expression"),
        "antibodies": ([f"CD{i}_TotalSeqB" for i in range(20)], rng.lognormal(5, 1, (n, 20)), "Antibody Capture"),
        "htseq": (["__no_feature", "__ambiguous"], many * rng.lognormal(0, 0.7, (n, 2)), "Gene Expression"),
        "spike-ins": ([f"ERCC-{i:05}" for i in range(30)], rng.lognormal(4, 2, (n, 30)), "Gene Expression"),
        "annotations": (["age", "G2M_score", "IC50", "tumor_no"], rng.lognormal(3, 1, (n, 4)), "Gene Expression"),
        "missing": (["NOVEL7"], np.full((n, 1), np.nan), "Gene Expression"),
    }.get(contamination, ([], np.zeros((n, 0)), ""))  # fmt: skip
    numbers = numbers if contamination == "missing" else np.round(numbers)
    if contamination == "missing":
        numbers[0] = 1
    return pd.DataFrame(numbers, columns=words), kind


def _write(case: Case, container: str, V: pd.DataFrame, kinds: np.ndarray, values: str, contamination: str) -> None:
    folder, names, cells = case.path.parent, list(map(str, V.columns)), list(V.index)
    X = V.to_numpy(np.float16 if values == "half" else np.float32)
    if container.startswith("h5ad"):
        case.path = folder / "mine.h5ad"
        var = pd.DataFrame({"feature_types": kinds}, names)
        layer = container == "h5ad layer"
        stored = X if "dense" in container or values == "half" else sparse.csr_matrix(X)
        adata = anndata.AnnData(np.zeros_like(X) if layer else stored, pd.DataFrame(index=cells), var)
        if layer:
            adata.layers["mine"] = stored
            case.options["layer"] = "mine"
        adata.write_h5ad(case.path)
    elif container == "10x h5":
        case.path = folder / "mine.h5"
        S = sparse.csr_matrix(X)
        with h5py.File(case.path, "w") as f:
            f["matrix/data"], f["matrix/indices"], f["matrix/indptr"] = S.data, S.indices, S.indptr
            f["matrix/shape"], f["matrix/barcodes"] = S.shape[::-1], [c.encode() for c in cells]
            f["matrix/features/id"] = [b"x%d" % i for i in range(len(names))]
            f["matrix/features/name"] = [n.encode() for n in names]
            f["matrix/features/feature_type"] = [k.encode() for k in kinds]
    elif container == "10x folder":
        case.path.mkdir()
        with gzip.open(case.path / "matrix.mtx.gz", "wb") as f:
            io.mmwrite(f, sparse.coo_matrix(X.T))
        rows = [f"x{i}\t{n}\t{k}" for i, (n, k) in enumerate(zip(names, kinds, strict=True))]
        (case.path / "features.tsv").write_text("\n".join(rows) + "\n")
        (case.path / "barcodes.tsv").write_text("\n".join(cells) + "\n")
    else:
        case.path = folder / f"mine.{container.split()[0]}"
        frame = V.T if "transposed" in container else V
        if contamination == "columns of genes":
            about = pd.DataFrame(
                {"Start": range(1000, 1000 + len(frame)), "End": 9e6, "Length": 2000, "Entrez_Gene_Id": 7}
            )
            frame = pd.concat([about.set_axis(frame.index), frame], axis=1)
        index = contamination != "unknown first gene"
        frame.to_csv(case.path, sep="\t" if "tsv" in container else ",", index=index)


# --- in the place of training -----------------------------------------------------------------------------------------

#: Enough for :class:`Linear`.
SETTINGS = predict.Settings(members=2, max_genes=340, sample=60, chunk=16, jobs=1)


class Linear(predict.Regressions):
    """In the place of a training: one direction, from the lines, so that scores follow every value of the cells."""

    def fit_transfer(self, X, source):
        rows = source.fit_rows
        sensitive, resistant = (source.X[rows][source.y[rows] == c].mean(0, dtype=np.float64) for c in (1, 0))
        noise = np.random.default_rng(self.seed).normal(0, 0.02, (self.members, X.shape[1]))
        self.weight_ = sensitive - resistant + noise
        held, self._calibration = source.test_rows, None
        if len(set(source.y[held].tolist())) == 2:
            self._calibration = Calibration(self._logits(source.X[held], "source").mean(0), source.y[held])
        return self

    def _logits(self, X, domain):
        return self.weight_ @ X.T.astype(np.float64)


def learn_by(monkeypatch, model) -> None:
    """Let `model` learn where nothing else is asked for."""
    monkeypatch.setitem(predict.MODELS, "regression", predict.MODELS["regression"]._replace(made_by=model))
