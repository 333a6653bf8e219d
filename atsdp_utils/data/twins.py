"""Simulated twins of the paper's four sets: same classes and numbers of cells, known truth.

What is real in a twin: the baseline of each culture (GDSC lines of that lineage, mapped by rank onto the means of the
same genes in the counts of a real line, :data:`REFERENCE`), gene-wise dispersion (the same counts), the share of genes
that a cell shows (``data/twins.toml``), and the transferable direction (resistant minus sensitive lines of GDSC, on a
half of the lines that is kept out of the twin's bulk). What is made up: everything else. The truth is in
``obs['progress']``, ``obs['qc_planted']``, ``var['planted']`` and ``uns['truth']``, where no model looks.

Log2 mean of gene g in a cell of culture c with progress t (0 sensitive, 1 resistant end)::

    base[c, g] + (t - 1/2) * (shared * direction[g] + private * specific[c, g] + key * planted[g])

The `shared` dial of each twin was set by a rule (:func:`calibrated`) from the linear reference alone; the rule replaced
earlier dials, with which networks had been scored. See notebook 01.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from atsdp_utils.data import cell_lines, gdsc, preprocess
from atsdp_utils.data.gene_names import PAPER_GENES, human_to_mouse
from atsdp_utils.foundation import config, paths
from atsdp_utils.foundation.checksums import verify

if TYPE_CHECKING:
    from anndata import AnnData

#: Seed of the lines' halves, of the twins, and of the calibration draw (used for nothing else).
DIRECTION_SEED, TWIN_SEED, CALIBRATION_SEED = 11, 2025, 90210
MITO = tuple("ND1 ND2 CO1 CO2 ATP8 ATP6 CO3 ND3 ND4L ND4 ND5 ND6 CYB".split())
RARE_GENES = 150
#: Real counts whose means and dispersions the twins take: the largest single line of mixology (CEL-seq2, UMI).
REFERENCE = "mixology-5", "A549"
#: So many genes every profile reads; planted genes are among them.
GENE_SPACE = 150
#: Values of the `shared` dial among which the rule of :func:`calibrated` chooses, the AUC that it asks for, and the
#: largest that it admits.
DIALS, ENOUGH, TOO_EASY = tuple(i / 10 for i in range(1, 21)), 0.80, 0.90


@dataclass(frozen=True)
class Group:
    """Cells of one condition as in ``data/twins.toml``; `depth` is relative to the twin's, `qc` what removes them."""

    culture: str
    cells: int
    base: str
    progress: tuple[float, float]
    sensitive: bool | None = None
    strict: bool | None = None
    depth: float = 1.0
    mito: float = 0.04
    qc: str = ""


@dataclass(frozen=True)
class Twin:
    """Recipe of one twin. `lines` maps a base to GDSC lines; `depth` is the median total count of a cell.

    `detection` is what real cells of the protocol show: ``genes`` of the median cell among those ``of`` the set.
    """

    lines: dict[str, tuple[str, ...]]
    groups: tuple[Group, ...]
    depth: float
    values: str
    shared: float
    detection: dict[str, str | float]
    private: float = 1.0
    key: float = 2.5
    key_genes: int = 15
    low_quality: int = 12


def _designs() -> dict[str, Twin]:
    table = tomllib.loads(verify(paths.DATA / "twins.toml").read_text())
    states = table.pop("states")
    for twin in table.values():
        twin["groups"] = tuple(Group(**states[group.pop("state")], **group) for group in twin["groups"])
    return {name: Twin(**twin) for name, twin in table.items()}


DESIGNS: dict[str, Twin] = _designs()


@lru_cache(maxsize=8)
def direction_lines(drug: str) -> tuple[str, ...]:
    """The half of the labelled lines on which the drug's direction is estimated (stratified, fixed seed)."""
    from sklearn.model_selection import train_test_split

    bulk = gdsc.load_bulk(drug)
    labelled = np.flatnonzero(bulk.y >= 0)
    half, _ = train_test_split(labelled, test_size=0.5, random_state=DIRECTION_SEED, stratify=bulk.y[labelled])
    return tuple(bulk.lines[np.sort(half)])


def direction(drug: str) -> np.ndarray:
    """Real resistant-minus-sensitive difference of means over :func:`direction_lines`, log2 units, (genes,)."""
    bulk = gdsc.load_bulk(drug)
    half = np.isin(bulk.lines, direction_lines(drug))
    resistant, sensitive = (bulk.X[half & (bulk.y == label)].mean(0) for label in (0, 1))
    return gdsc.RMA_SCALE * (resistant - sensitive)


@lru_cache(maxsize=1)
def count_statistics() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the genes that :data:`REFERENCE` shares with the bulk: means, dispersions, and total count of each cell.

    Means are per 10,000 counts of a cell, sorted; dispersions are those of a negative binomial, gene-wise by moments.
    """
    name, line = REFERENCE
    adata = cell_lines.load_mixology(name)
    X = adata[adata.obs["line"] == line].X.astype(np.float64)
    library = np.asarray(X.sum(1)).ravel()
    X = X[:, adata.var_names.isin(gdsc.load_bulk().genes)]
    scaled = X.multiply(1e4 / library[:, None]).tocsr()
    mean = np.asarray(scaled.mean(0)).ravel()
    variance = np.asarray(scaled.power(2).mean(0)).ravel() - mean**2
    # Var = mu * E[1e4 / L] + phi * mu^2 for a negative binomial scaled by its library size.
    poisson = mean * np.mean(1e4 / library)
    seen = mean > 0
    phi = np.clip((variance[seen] - poisson[seen]) / mean[seen] ** 2, 0.01, 10)
    order = np.argsort(mean[seen])
    return mean[seen][order], phi[order], np.asarray(X.sum(1)).ravel()


def baseline(lines: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Log2 mean and dispersion per gene: the lines' mean expression, mapped by rank onto :func:`count_statistics`."""
    bulk = gdsc.load_bulk()
    missing = set(lines) - set(bulk.lines)
    if missing:
        raise KeyError(f"lines: {', '.join(sorted(missing))} not in the bulk matrix")
    level = bulk.X[np.isin(bulk.lines, lines)].mean(0)
    rank = np.empty(len(level))
    rank[np.argsort(level, kind="stable")] = np.linspace(0, 1, len(level))
    mean, phi, _ = count_statistics()
    grid = np.linspace(0, 1, len(mean))
    return np.log2(np.interp(rank, grid, mean)), np.interp(rank, grid, phi)


def detection(adata: AnnData) -> tuple[float, float]:
    """Share of the genes shared with the bulk that the median cell shows, and of the cells with the median gene."""
    kept, _ = preprocess.quality_control(adata)
    shown = kept[:, kept.var["ortholog"].isin(gdsc.load_bulk().genes)].X > 0
    return tuple(float(np.median(np.asarray(shown.mean(axis)))) for axis in (1, 0))


def make_twin(name: str, seed: int = TWIN_SEED, **dials: float) -> AnnData:
    """Simulate a twin, or a null variant, in which nothing is planted.

    Parameters
    ----------
    name : str
        Name of a simulated set in :data:`config.DATASETS`.
    seed : int
        Rules everything that is drawn.
    **dials : float
        In place of the twin's own `shared`, `private` or `key`; those of a null variant are 0 whatever is given.

    Returns
    -------
    AnnData
        Counts (of DATA1 and DATA2 rounded to counts per million of a cell) before quality control. The columns of
        ``obs`` are ``culture``, ``sensitive``, ``sensitive_paper``, and the truth: ``progress`` (0 is the sensitive, 1
        the resistant end; shuffled in a null variant) and ``qc_planted`` (the filter that should remove the cell, or
        empty). Those of ``var`` are ``ortholog`` and the truth ``planted`` (1 up in resistant cells, -1 up in sensitive
        ones, else 0). ``uns`` has ``origin``, ``tier`` and ``truth``, in JSON the dials, seed and drug.

    Raises
    ------
    TypeError
        If a dial has another name.
    """
    import anndata
    from scipy import sparse

    spec = config.DATASETS[name]
    twin = DESIGNS[spec.paper]
    dial = {"shared": twin.shared, "private": twin.private, "key": twin.key}
    unknown = set(dials) - set(dial)
    if unknown:
        raise TypeError(f"dials: got {', '.join(sorted(unknown))}, expected some of {', '.join(dial)}")
    dial = {k: 0.0 for k in dial} if spec.null else dial | dials
    rng = np.random.default_rng([seed, int(spec.paper[-1])])
    genes = gdsc.load_bulk(spec.drug).genes
    planted = _plant(spec, twin, rng)
    slope = dial["shared"] * direction(spec.drug) + dial["key"] * planted
    base = {b: baseline(lines) for b, lines in twin.lines.items()}
    if spec.null:  # cultures hold unequal shares of the classes: with bases of their own they would predict the label
        base = dict.fromkeys(base, next(iter(base.values())))
    private = {b: rng.normal(0, 1, len(genes)) * (rng.random(len(genes)) < 0.05) for b in twin.lines}

    obs, blocks = [], []
    for group in _with_low_quality(twin):
        n = group.cells
        progress = rng.beta(*group.progress, n)
        level, phi = base[group.base]
        effect = slope + dial["private"] * private[group.base]
        log_mean = level + (progress[:, None] - 0.5) * effect
        mito = np.clip(rng.normal(group.mito, 0.01, n), 0.005, 0.9)
        depth = twin.depth * group.depth * np.exp(rng.normal(0, 0.3, n))
        blocks.append(draw_counts(log_mean, phi, mito, depth, rng))
        obs.append(pd.DataFrame({"culture": group.culture, "sensitive": group.strict,
                                 "sensitive_paper": group.sensitive, "progress": progress,
                                 "qc_planted": group.qc}, index=range(n)))  # fmt: skip
    counts = np.vstack(blocks)
    if twin.values == "TPM-like":
        counts = np.round(counts / counts.sum(1, keepdims=True) * 1e6)
    table = pd.concat(obs, ignore_index=True)
    if spec.null:
        table["progress"] = rng.permutation(table["progress"].to_numpy())
    var = _genes(genes, planted * (not spec.null), spec)
    keep = var["keep"].to_numpy()
    table = table.astype({"culture": "category", "sensitive": "boolean", "sensitive_paper": "boolean"})
    table.index = [f"{name}_{i:04d}" for i in range(len(table))]
    adata = anndata.AnnData(
        sparse.csr_matrix(counts[:, keep].astype(np.float32)), table, var.loc[keep, ["ortholog", "planted"]]
    )
    lines = "; ".join(f"{culture} from {', '.join(names)}" for culture, names in twin.lines.items())
    adata.uns = {
        "origin": f"simulated twin of {spec.paper} ({twin.values}); real lines: {lines}",
        "tier": "simulated",
        "truth": json.dumps({"dials": dial, "seed": seed, "drug": spec.drug}),
    }
    return adata


def _plant(spec: config.Dataset, twin: Twin, rng: np.random.Generator) -> np.ndarray:
    """+1 for genes up in resistant cells, -1 for genes up in sensitive ones, 0 elsewhere, (genes,).

    Drawn among the :data:`GENE_SPACE` genes that every profile reads. So that quality control keeps them, every base
    must express a candidate above its median gene. The genes that the paper names are never planted.
    """
    bulk = gdsc.load_bulk(spec.drug, direction_lines(spec.drug))
    measured = set(human_to_mouse()) if spec.species == "mouse" else set(bulk.genes)
    space = gdsc.shared_genes(bulk, np.array(sorted(measured)), GENE_SPACE)
    levels = (baseline(lines)[0] for lines in twin.lines.values())
    expressed = np.all([level > np.median(level) for level in levels], axis=0)
    candidates = np.flatnonzero(expressed & np.isin(bulk.genes, space) & ~np.isin(bulk.genes, list(PAPER_GENES)))
    chosen = rng.choice(candidates, 2 * twin.key_genes, replace=False)
    planted = np.zeros(len(bulk.genes))
    planted[chosen[: twin.key_genes]] = 1
    planted[chosen[twin.key_genes :]] = -1
    return planted


def _with_low_quality(twin: Twin) -> list[Group]:
    """The groups, and beside them cells that quality control must remove: nearly empty ones and mitochondrial ones."""
    low = replace(twin.groups[0], cells=twin.low_quality, depth=100 / twin.depth, qc="low_genes")
    return [*twin.groups, low, replace(low, depth=1.0, mito=0.25, qc="high_mito")]


def draw_counts(log_mean: np.ndarray, phi: np.ndarray, mito: np.ndarray, depth: np.ndarray, rng) -> np.ndarray:
    """Negative binomial counts (cells, genes + mitochondrial + rare): gamma-Poisson with dispersion `phi` per gene."""
    share = np.exp2(log_mean)
    share *= ((1 - mito) * depth / share.sum(1))[:, None]
    noisy = rng.gamma(1 / phi, phi, share.shape) * share
    mt_share = rng.dirichlet(np.full(len(MITO), 5.0), len(mito)) * (mito * depth)[:, None]
    rare = (rng.random((len(mito), RARE_GENES)) < 1 / (2 * len(mito) + 20)).astype(float)
    return np.hstack([rng.poisson(noisy), rng.poisson(mt_share), rare])


def _genes(genes: np.ndarray, planted: np.ndarray, spec: config.Dataset) -> pd.DataFrame:
    """Gene table indexed by symbol as measured. The mouse twin keeps genes with a one-to-one ortholog only."""
    mito = [f"MT-{g}" for g in MITO]
    rare = [f"SIMRARE{i:04d}" for i in range(RARE_GENES)]
    names = np.concatenate([genes, mito, rare])
    var = pd.DataFrame({"ortholog": np.where(np.isin(names, rare), "", names), "planted": 0, "keep": True}, index=names)
    var.iloc[: len(genes), var.columns.get_loc("planted")] = planted.astype(int)
    if spec.species == "mouse":
        mouse = pd.Series(names, names).map(human_to_mouse())
        mouse[mito] = [f"mt-{g.capitalize()}" for g in MITO]
        mouse[rare] = rare
        var["keep"] = mouse.notna().to_numpy()
        var.index = mouse.fillna("").to_numpy()
    return var


def linear_reference(adata: AnnData, spec: config.Dataset) -> float:
    """AUC over cells of L2 logistic regression trained on the twin's bulk (protocol U): the measure of difficulty.

    It learns from the training lines of seed 0, without :func:`direction_lines`, on all shared genes, and is scored on
    the labelled cells that pass quality control.

    Parameters
    ----------
    adata, spec : AnnData, Dataset
        A twin as :func:`make_twin` gives it, and its entry of :data:`config.DATASETS`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    cells = preprocess.to_cells(adata, spec)
    bulk = gdsc.load_bulk(spec.drug, direction_lines(spec.drug))
    source = gdsc.bulk_source(bulk, gdsc.shared_genes(bulk, cells.genes, 10_000), seed=0)
    X = preprocess.standardised(cells, source)
    rows = source.fit_rows
    fit = LogisticRegression(C=1e-4, class_weight="balanced", max_iter=2000).fit(source.X[rows], source.y[rows])
    return roc_auc_score(cells.y[cells.labelled], fit.decision_function(X[cells.labelled]))


def calibrate(name: str, shared: tuple[float, ...]) -> pd.DataFrame:
    """Linear-reference AUC of a twin over values of the `shared` dial, on the calibration seed.

    Parameters
    ----------
    name : str
        Name of a twin in :data:`config.DATASETS`.
    shared : tuple of float
        Values of the dial; a twin is simulated with each.

    Returns
    -------
    DataFrame
        One row for each value: ``shared, auc_linear, dataset``.
    """
    spec = config.DATASETS[name]
    rows = [(s, linear_reference(make_twin(name, CALIBRATION_SEED, shared=s), spec)) for s in shared]
    return pd.DataFrame(rows, columns=["shared", "auc_linear"]).assign(dataset=name)


def calibrated(scan: pd.DataFrame) -> float:
    """The smallest dial whose linear reference reaches :data:`ENOUGH`; NaN if none, or if it is :data:`TOO_EASY`."""
    enough = scan[scan["auc_linear"] >= ENOUGH].nsmallest(1, "shared")
    return enough["shared"].item() if len(enough) and enough["auc_linear"].item() <= TOO_EASY else np.nan
