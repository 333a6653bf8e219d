"""Scores of a person's own cells: file -> shared genes -> bulk stage -> transfer without labels -> ``.atsdp.h5ad``.

Protocol U: labels, where given, are compared with the finished scores and touch nothing else. A file of 100,000 cells
stays sparse: moments are streamed, transfer sees a random subsample, scores are computed in chunks.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy import sparse
from tqdm import tqdm

from atsdp_utils import __version__
from atsdp_utils.data import gdsc, preprocess
from atsdp_utils.evaluation import metrics
from atsdp_utils.experiments import grid
from atsdp_utils.foundation import cache, config, paths, runtime
from atsdp_utils.interpretation import embedding
from atsdp_utils.models.plus import ATSDPPlus, expit, logit
from atsdp_utils.own_cells import cell_rows, company, drugs, predict_report, readers
from atsdp_utils.own_cells.cell_rows import FOREIGN, NOT_SCORED, SCORED, SHALLOW, ZERO, not_cells
from atsdp_utils.own_cells.cell_values import (
    canonical,
    dense_chunks,
    shared_matrix,
    some_rows,
    streaming_standardizer,
)
from atsdp_utils.own_cells.readers import CellFile, Genes, InputError

SENSITIVE, RESISTANT = "sensitive", "resistant"
#: Spellings of labels, lower case.
SPELLINGS = (
    dict.fromkeys(("1", "1.0", "true", SENSITIVE, "sens", "s", "responder"), 1)
    | dict.fromkeys(("0", "0.0", "false", RESISTANT, "res", "r", "non-responder", "nonresponder"), 0)
)  # fmt: skip
#: Share of lines of each class that a conformal set may miss.
ALPHA = 0.1
#: Names of conformal sets, by whether resistant and sensitive are in them, and of none where lines are too few.
SETS, NO_SET = np.array([["neither", SENSITIVE], [RESISTANT, "both"]]), "no set"
#: Fewer training lines of a class carry no lesson.
MIN_LINES = 5
#: Bytes beyond those of the input that scores, report and a first use of the cache take.
ROOM = 5e7


@dataclass(frozen=True)
class Settings:
    """How much is computed for a person's file; what is computed does not depend on it.

    Attributes
    ----------
    members
        Networks of the ensemble.
    max_genes
        Most variable bulk genes that are used, of those shared.
    sample
        Cells that transfer and the picture see at most, drawn at random.
    min_cells
        Fewer cells cannot be standardised.
    chunk
        Rows that are dense at a time.
    """

    members: int = 5
    max_genes: int = 1000
    arch: config.Architecture = field(default_factory=config.Architecture)
    training: config.Training = config.PROFILES["quick"].training
    sample: int = 3000
    min_cells: int = 10
    chunk: int = 4096
    jobs: int = min(4, os.cpu_count() or 1)


SETTINGS = Settings()


@dataclass
class Prediction:
    """Scores and what is known about them.

    Attributes
    ----------
    members
        P(sensitive) by each network, (members, cells); NaN for a cell that could not be scored.
    p
        (cells,) P(sensitive): the members' mean logit.
    calibrated
        (cells,) P(sensitive) by isotonic regression on held-out lines; NaN too where these lack a class.
    sets
        (cells, 2) bool, conformal sets: resistant, sensitive; None if held-out lines are too few (:func:`calibrate`).
    bulk_classes
        Resistant and sensitive lines that trained it.
    facts
        What goes into ``uns['atsdp']``.
    unlike
        How unlike the lines the cells are, see :func:`unlikeness`.
    layout
        Rows and (rows, 2) coordinates of the picture.
    metrics
        Scores against the person's labels; empty without labels.
    reason
        (cells,) str: :data:`SCORED`, or why a row has no score.
    """

    members: np.ndarray
    p: np.ndarray
    calibrated: np.ndarray
    sets: np.ndarray | None
    bulk_classes: np.ndarray
    facts: dict
    unlike: dict[str, float]
    layout: tuple[np.ndarray, np.ndarray]
    metrics: dict[str, float]
    reason: np.ndarray

    @property
    def label(self) -> np.ndarray:
        """(cells,) sensitive, resistant or not scored."""
        called = np.where(self.p >= 0.5, SENSITIVE, RESISTANT)
        return np.where(np.isnan(self.p), NOT_SCORED, called)

    @property
    def conformal(self) -> pd.Categorical:
        """(cells,) names of the conformal sets, no set or not scored."""
        named = np.full(len(self.p), NO_SET) if self.sets is None else SETS[tuple(self.sets.T.astype(int))]
        return pd.Categorical(np.where(np.isnan(self.p), NOT_SCORED, named), [*np.unique(SETS), NO_SET, NOT_SCORED])

    @property
    def columns(self) -> pd.DataFrame:
        """The six columns for ``obs``, without an index."""
        label = pd.Categorical(self.label, categories=[RESISTANT, SENSITIVE, NOT_SCORED])
        sd = self.members.std(0, ddof=1) if len(self.members) > 1 else np.full(len(self.p), np.nan)
        return pd.DataFrame({
            "atsdp_p_sensitive": self.p, "atsdp_label": label, "atsdp_p_sd": sd,
            "atsdp_p_calibrated": self.calibrated, "atsdp_conformal": self.conformal,
            "atsdp_reason": pd.Categorical(self.reason, [SCORED, ZERO, SHALLOW, FOREIGN]),
        })  # fmt: skip


# --- the pipeline -----------------------------------------------------------------------------------------------------


@dataclass
class Ready:
    """A file that is ready to be scored for any drug.

    Attributes
    ----------
    file, genes, kind
        What was read and what it was taken for; the matrix of an h5ad is let go.
    known
        What goes into ``uns['atsdp']`` of this.
    chosen
        (genes,) genes used.
    Z
        (scored cells, genes) values of the cells that are scored, in the order of :func:`canonical`.
    where
        Rows of the file that these are.
    reason
        (rows,) str, why a row has no score.
    notes
        What a reader of the scores is told of the file.
    parts
        Patients, batches or cultures, :func:`company.origins`.
    scaler
        Moments of the genes over the scored cells.
    rows, seen
        Which of the scored cells transfer and picture see, and their standardised values.
    """

    file: CellFile
    genes: Genes
    kind: str
    known: dict
    chosen: np.ndarray
    Z: sparse.csr_matrix | np.ndarray
    where: np.ndarray
    reason: np.ndarray
    notes: list[str]
    parts: dict[str, np.ndarray]
    scaler: preprocess.Standardizer
    rows: np.ndarray
    seen: np.ndarray


def predict(
    path: Path, drug: str, *, out: Path | None = None, report: Path | None = None, layer: str | None = None,
    values: str = "auto", species: str | None = None, labels: str | None = None, seed: int = 0,
    settings: Settings = SETTINGS, say: Callable[[str], object] = print,
) -> Prediction:  # fmt: skip
    """Score the cells of a file and write the scores and a report; both files appear complete or not at all.

    Parameters
    ----------
    path
        The person's file or folder; it is only read.
    drug
        A name that :func:`atsdp_utils.own_cells.drugs.find_drug` knows.
    out, report
        Files to write; None: beside the input, ``<stem>.<DRUG>.atsdp.h5ad``, and beside that, ``.html``.
    layer, values, species
        See :func:`readers.read`, :func:`readers.detect_values`, :func:`readers.recognise`.
    labels
        Column of ``obs`` to compare the finished scores with.
    say
        Receives one line a step.

    Raises
    ------
    InputError
        If something is wrong with what was given; nothing is written then.
    """
    drug = drugs.find_drug(drug)
    out, report = destinations(path, drug, out, report)
    given = prepare(path, layer, values, species, seed, settings, say, labels=labels)
    y = None if labels is None else read_labels(given.file, labels, given.reason == SCORED)
    check_output(given.file, out, settings.members)
    found = _scores(drug, given, seed, settings, say)
    found.facts["warnings"] = [*given.notes, *warnings(found)]
    if y is not None:
        found.metrics = found.facts["metrics"] = score(y, found)
    publish({
        out: lambda part: write_h5ad(given.file, found, part),
        report: lambda part: part.write_text(predict_report.render(found, y), encoding="utf-8"),
    })  # fmt: skip
    _summarise(found, say)
    say(f"written: {out}\nreport:  {report}")
    return found


def prepare(
    path: Path, layer: str | None, values: str, species: str | None, seed: int, settings: Settings,
    say: Callable[[str], object], *, labels: str | None = None,
) -> Ready:  # fmt: skip
    """Read a file and find out what its genes, values and rows are, as :func:`predict` is asked to.

    Raises
    ------
    InputError
        If something is wrong with the file.
    """
    runtime.one_thread()
    file = readers.read(path, layer, labels)
    say(f"{path.name}: {file.kind}, {file.X.shape[0]:,} cells x {file.X.shape[1]:,} genes" + _joined(file.notes))
    genes = readers.recognise(file, species)
    known = readers.only(file, genes.symbol != "")
    kind, remarks = readers.detect_values(known, values)
    say(f"values: {kind} ({'detected' if values == 'auto' else 'as asked'})" + _joined(remarks))
    bulk = gdsc.load_bulk()
    chosen = gdsc.shared_genes(bulk, genes.symbol, settings.max_genes)
    ways = ", ".join(f"{n:,} {way}" for way, n in genes.ways.items())
    overlap = f"{genes.shared:,} of {len(bulk.genes):,} of the bulk ({ways}), {len(chosen)} used"
    say(f"genes: {genes.naming} in {genes.place}, {overlap}" + _joined(readers.left_out(file, genes)))
    file.obs, changed = writable(file.obs)
    reason = not_cells(file, known, genes, kind, settings.chunk)
    if file.kind == "h5ad":
        # The output is a copy of the file, and the matrix may be most of the memory; `known` may be the file itself.
        known, file.X = replace(known), None
    Z, more = shared_matrix(known, genes.symbol[genes.symbol != ""], chosen, kind, settings.chunk)
    del known
    reason[(reason == SCORED) & (np.asarray(abs(Z).sum(1)).ravel() == 0)] = ZERO
    more += cell_rows.counted(path, reason, settings.min_cells)
    parts = company.origins(file.obs)
    where = canonical(Z, np.flatnonzero(reason == SCORED), settings.chunk)
    Z = Z[where]
    facts = {
        "input": path.name, "values": kind, "gene_names": genes.naming, "gene_names_in": genes.place,
        "genes_in_file": len(genes.symbol), "genes_shared": genes.shared, "genes_in_bulk": len(bulk.genes),
        "gene_overlap": genes.shared / len(bulk.genes), "gene_names_found": genes.ways, "genes_used": len(chosen),
        "cells": len(reason), "cells_scored": len(where),
    }  # fmt: skip
    notes = [*remarks, *more, *company.said_of(parts), *changed]
    rows, scaler = some_rows(len(where), settings.sample, seed), streaming_standardizer(Z, settings.chunk)
    seen = scaler.transform(np.vstack(list(dense_chunks(Z[rows], settings.chunk))))
    return Ready(file, genes, kind, facts, chosen, Z, where, reason, notes, parts, scaler, rows, seen)


def training_lines(drug: str, source: preprocess.Source) -> np.ndarray:
    """Resistant and sensitive lines that a training may use, (2,).

    Raises
    ------
    InputError
        If the rarer class has fewer than :data:`MIN_LINES`.
    """
    lines = np.bincount(source.y[source.fit_rows], minlength=2)
    if lines.min() < MIN_LINES:
        found = f"{lines.min()} training lines of the rarer class"
        raise InputError(f"--drug {drug}: {found}, expected at least {MIN_LINES}.")
    return lines


def learn(source: preprocess.Source, given: Ready, seed: int, settings: Settings) -> tuple[ATSDPPlus, np.ndarray]:
    """Networks for the drug of `source`, aligned to the cells, and P(sensitive) by each, (members, scored cells)."""
    model = SideBySide(seed=seed, members=settings.members, arch=settings.arch, cfg=settings.training)
    model.jobs = settings.jobs
    model.fit_transfer(given.seen, source)
    return model, member_scores(model, given.Z, given.scaler, settings)


def company_of(model: ATSDPPlus, given: Ready, members: np.ndarray, seed: int, settings: Settings) -> dict:
    """By how much the scores depend on which cells are in the file (:func:`company.measure`), on the cells drawn."""
    X = np.vstack(list(dense_chunks(given.Z[given.rows], settings.chunk)))
    parts = {name: codes[given.where[given.rows]] for name, codes in given.parts.items()}
    p = expit(logit(members[:, given.rows]).mean(0))
    return company.measure(lambda cells: expit(logit(model.member_proba(cells)).mean(0)), X, p, parts, seed)


def _scores(drug: str, given: Ready, seed: int, settings: Settings, say) -> Prediction:
    """Learn, score all cells, and gather what the report says of them."""
    source = gdsc.bulk_source(gdsc.load_bulk(drug), given.chosen, seed)
    lines = training_lines(drug, source)
    say(f"{drug}: {settings.members} networks learn from {lines[1]} sensitive, {lines[0]} resistant lines, then align")
    model, members = learn(source, given, seed, settings)
    auc = held_out_auc(model, source)
    cache.write_text(drugs.held_out_file(drug), json.dumps({"auc": auc, "seed": seed, "genes": len(source.genes)}))
    n, where, rows = len(given.reason), given.where, given.rows
    every, p = np.full((settings.members, n), np.nan), np.full(n, np.nan)
    every[:, where], p[where] = members, expit(logit(members).mean(0))
    held = np.bincount(source.y[source.test_rows], minlength=2)
    calibrated, sets = calibrate(model, held, p)
    facts = {"drug": drug, "version": __version__} | given.known | {
        "seed": seed, "members": settings.members, "held_out_auc": auc, "held_out_sensitive": int(held[1]),
        "held_out_resistant": int(held[0]), "conformal_alpha": ALPHA,
        "model_hash": model_hash(source, given.seen, seed, settings),
        "company": company_of(model, given, members, seed, settings),
    }  # fmt: skip
    unlike, xy = unlikeness(source, given.seen, given.Z, given.kind, seed), embedding.umap(given.seen, seed)
    return Prediction(every, p, calibrated, sets, lines, facts, unlike, (where[rows], xy), {}, given.reason)


def _summarise(found: Prediction, say: Callable[[str], object]) -> None:
    for line in found.facts["warnings"]:
        say(f"warning: {line}")
    say(company.sentence(found.facts["company"]))
    n = {label: int((found.label == label).sum()) for label in (SENSITIVE, RESISTANT, NOT_SCORED)}
    say("cells: " + ", ".join(f"{count:,} {label}" for label, count in n.items() if count))
    if found.metrics:
        say("against the labels: " + ", ".join(f"{k} {v:.3f}" for k, v in found.metrics.items() if k != "cells"))


def _joined(notes: list[str]) -> str:
    return "".join(f"; {n}" for n in notes)


def destinations(
    path: Path, drug: str, out: Path | None, report: Path | None, ending: str = ".h5ad"
) -> tuple[Path, Path]:
    """Where scores and report go, checked before any work is done; by default beside the input, a link's own folder."""
    here = Path(os.path.abspath(path))
    stem = here.name if path.is_dir() else re.sub(r"(\.atsdp)?(\.(h5ad|h5|csv|tsv|txt|tab))?(\.gz)?$", "", here.name)
    out = out or here.parent / f"{stem}.{drug}.atsdp{ending}"
    report = report or out.with_suffix(".html")
    for option, target, suffix in (("--out", out, ending), ("--report", report, ".html")):
        if target.suffix != suffix:
            raise InputError(f"{option} {target}: expected a name that ends in {suffix}.")
        if target.exists() and path.exists() and target.samefile(path):
            raise InputError(f"{option} {target}: this is the input, which is never changed. Choose another.")
        if target.is_dir() or not target.resolve().parent.is_dir():
            raise InputError(
                f"{option} {target}: no such folder to write in, or a folder itself. Make the folder first."
            )
        if not os.access(target.resolve().parent, os.W_OK):
            raise InputError(f"{option} {target}: the folder may not be written to. Choose another with {option}.")
    if out.exists() and (other := _drug_of(out)) not in (None, drug):
        raise InputError(f"--out {out}: holds the scores of {other}, which are kept. Choose another name with --out.")
    return out, report


def _drug_of(out: Path) -> str | None:
    """The drug whose scores a file holds; None if it is no file of this command."""
    import h5py

    try:
        with h5py.File(out, "r") as f:
            return f["uns/atsdp/drug"].asstr()[()]
    except (OSError, KeyError, TypeError, ValueError):
        return None


def read_labels(file: CellFile, column: str, scored: np.ndarray) -> np.ndarray:
    """Labels of a column of obs, (cells,) int8: 1, 0, or -1 where there is none or the cell has no score.

    Raises
    ------
    InputError
        If there is no such column, a value is no label, or only one class is labelled.
    """
    if column not in file.obs:
        have = ", ".join(map(str, file.obs.columns[:8])) or "none"
        raise InputError(f"--labels {column}: no such column on cells. Columns there: {have}. Or leave --labels out.")
    text = file.obs[column].astype("string").str.strip().str.lower()
    y = text.map(SPELLINGS)
    unknown = sorted(set(text[y.isna() & text.notna() & ~text.isin(["", "nan", "none", "na"])]))
    if unknown:
        found = ", ".join(unknown[:4])
        raise InputError(
            f"--labels {column}: found {found}. Expected 1/0, True/False or sensitive/resistant; empty: no label."
        )
    y = np.where(scored, y.fillna(-1).to_numpy(np.int8), -1)
    if len(set(y[y >= 0])) < 2:
        counts = f"{(y == 1).sum()} sensitive and {(y == 0).sum()} resistant"
        raise InputError(f"--labels {column}: {counts} cells. Metrics need both classes; leave --labels out.")
    return y


class SideBySide(ATSDPPlus):
    """ATSDP-NET+ with its networks trained in several processes."""

    jobs = 1

    def networks(self, X: np.ndarray, source: preprocess.Source) -> list:
        """Every member, trained side by side."""
        work = (delayed(_alone)(self.network, i, X, source) for i in range(self.members))
        done = grid.pool(self.jobs, max_nbytes=None, return_as="generator")(work)
        return list(progress(done, self.members, "networks"))


def _alone(work: Callable, *given):
    """Body of a worker."""
    runtime.one_thread()
    return work(*given)


def member_scores(model: ATSDPPlus, X, scaler: preprocess.Standardizer, settings: Settings) -> np.ndarray:
    """P(sensitive) by each member, (members, cells); threads take chunks of cells, each computes on one core."""
    blocks = dense_chunks(X, settings.chunk)
    work = (delayed(model.member_proba)(scaler.transform(b)) for b in blocks)
    found = Parallel(settings.jobs, prefer="threads", return_as="generator")(work)
    return np.concatenate(list(progress(found, -(-X.shape[0] // settings.chunk), "scores")), axis=1)


def progress(work: Iterable, total: int, what: str) -> Iterable:
    """`work` with a bar and the time left on a terminal, with nothing elsewhere."""
    return tqdm(work, what, total, leave=False, disable=None if total > 1 else True, ncols=78)


def held_out_auc(model: ATSDPPlus, source: preprocess.Source) -> float:
    """AUC of the ensemble on held-out lines of the drug; NaN where these are of one class."""
    rows = source.test_rows
    return metrics.classification_metrics(source.y[rows], expit(model.line_logits(source.X[rows])))["auc"]


def calibrate(model: ATSDPPlus, held: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """What scores of held-out lines say of the scores `p` (cells,), NaN where a cell has none.

    With fewer lines of a class than 1 / :data:`ALPHA` - 1, every set holds that class whatever the score, so no set is
    given; without a line of a class there is no calibrated probability either.

    Parameters
    ----------
    held
        Resistant and sensitive held-out lines, on which `model` was calibrated.

    Returns
    -------
    tuple
        (cells,) calibrated P(sensitive); (cells, 2) conformal sets or None.
    """
    scored, calibrated = ~np.isnan(p), np.full(len(p), np.nan)
    if not held.min():
        return calibrated, None
    z = logit(p[scored])
    calibrated[scored] = model.calibration_.proba(z)
    if held.min() < _fewest():
        return calibrated, None
    sets = np.zeros((len(p), 2), bool)
    sets[scored] = model.calibration_.sets(z, ALPHA)
    return calibrated, sets


def _fewest() -> int:
    """Held-out lines of a class from which on a conformal set can leave that class out: 1 / (n + 1) <= ALPHA."""
    return math.ceil(1 / ALPHA) - 1


def model_hash(source: preprocess.Source, seen: np.ndarray, seed: int, settings: Settings) -> str:
    """Twenty hex digits over code, settings, lines, labels and the cells that transfer saw."""
    code = (
        cache.code("own_cells.predict.SideBySide", "own_cells.predict.member_scores"),
        runtime.precision(),
        config.RECIPES[config.CHOSEN],
    )
    plain = {k: v for k, v in asdict(settings).items() if k != "jobs"}
    return cache.key(*code, sorted(plain.items()), source.X, source.y, source.train, source.genes, seen, seed)


def unlikeness(
    source: preprocess.Source, seen: np.ndarray, X, kind: str, seed: int, size: int = 500
) -> dict[str, float]:
    """How unlike the bulk lines the cells are, in what the network sees.

    Returns
    -------
    dict
        ``mmd2`` between lines and cells, ``mmd2_lines`` between two random halves of the lines (the yardstick);
        ``auc``: how well a random forest tells lines from cells (0.5: not at all), cross-validated; ``gene_shift``:
        median over genes of the difference of the mean level within a sample, in standard deviations over lines (NaN
        for values already centred per gene, which hides it).
    """
    import torch
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_score

    from atsdp_utils.models.losses import mmd2

    rng = np.random.default_rng(seed)
    lines, cells = (A[np.sort(rng.permutation(len(A))[:size])] for A in (source.X, seen))
    half = len(lines) // 2
    a, b = torch.tensor(lines), torch.tensor(cells)
    both, domain = np.vstack([lines, cells]), np.repeat([0, 1], [len(lines), len(cells)])
    forest = RandomForestClassifier(50, random_state=seed, min_samples_leaf=3)
    auc = cross_val_score(forest, both, domain, cv=3, scoring="roc_auc").mean()
    shift = np.nan
    if kind != "zscored":
        bulk = gdsc.load_bulk()
        reference = _within(preprocess.columns(bulk.X, bulk.genes, source.genes))
        level = _within(next(dense_chunks(X[some_rows(X.shape[0], size, seed)], size)))
        shift = float(np.median(np.abs(level.mean(0) - reference.mean(0)) / np.maximum(reference.std(0), 1e-6)))
    return {"mmd2": mmd2(a, b).item(), "mmd2_lines": mmd2(a[:half], a[half:]).item(), "auc": float(auc),
            "gene_shift": shift}  # fmt: skip


def _within(X: np.ndarray) -> np.ndarray:
    """Rows standardised over their own genes, as the bulk is published."""
    return (X - X.mean(1, keepdims=True)) / np.maximum(X.std(1, keepdims=True), 1e-6)


def agreement(members: np.ndarray) -> dict[str, float]:
    """How far networks agree: lowest and mean Spearman correlation of two, share of cells that all label alike."""
    members = members[:, ~np.isnan(members[0])]
    if len(members) < 2:
        return {"lowest": np.nan, "mean": np.nan, "same": np.nan}
    pairs = pd.DataFrame(members.T).corr("spearman").to_numpy()[np.triu_indices(len(members), 1)]
    same = np.isin((members >= 0.5).sum(0), (0, len(members))).mean()
    return {"lowest": float(pairs.min()), "mean": float(pairs.mean()), "same": float(same)}


def score(y: np.ndarray, found: Prediction) -> dict[str, float]:
    """The paper's five metrics over cells with a label and a score, how many those are, and coverage of the sets."""
    rows = y >= 0
    every = metrics.classification_metrics(y[rows], found.p[rows])
    out = {"cells": int(rows.sum())} | {k: every[k] for k in config.METRICS}
    if found.sets is not None:
        held = found.sets[rows, y[rows]]
        out |= {"conformal_coverage": held.mean()}
        out |= {f"conformal_coverage_{name}": held[y[rows] == c].mean() for c, name in ((1, SENSITIVE), (0, RESISTANT))}
    return out


def warnings(found: Prediction) -> list[str]:
    """What a reader of the scores must know before using them."""
    facts, lines, agree = found.facts, found.bulk_classes, agreement(found.members)
    share, called = lines.min() / lines.sum(), found.label[~np.isnan(found.p)] == SENSITIVE
    out = []
    if facts["gene_overlap"] < 0.5:
        out.append(f"only {facts['gene_overlap']:.0%} of the bulk genes are measured: the score rests on few genes")
    if share < 0.15 or lines.min() < 40:
        rarer = RESISTANT if lines[0] < lines[1] else SENSITIVE
        out.append(f"only {lines.min()} of {lines.sum()} training lines are {rarer} ({share:.0%}): weakly learned")
    if facts["held_out_auc"] < 0.65:
        out.append(f"AUC on held-out bulk lines is {facts['held_out_auc']:.2f}: hardly predictable even there")
    held = {label: facts[f"held_out_{label}"] for label in (RESISTANT, SENSITIVE)}
    if found.sets is None:
        label = min(held, key=held.get)
        none = "no conformal sets" if held[label] else "no held-out AUC, calibrated probability or conformal sets"
        weak = "; the calibrated probability rests on those few" if held[label] else ""
        out.append(
            f"only {held[label]} held-out lines are {label}, sets with a miss rate of {ALPHA:g} need {_fewest()}: "
            f"{none}{weak}"
        )
    if facts["cells_scored"] < 50:
        out.append(f"{facts['cells_scored']} cells: means and standard deviations of genes are uncertain")
    if agree["mean"] < 0.5:
        out.append(
            f"the networks disagree (mean rank correlation {agree['mean']:.2f}): another seed may turn the order"
        )
    if called.mean() < 0.05 or called.mean() > 0.95:
        out.append("nearly all cells get one label: read the order of the scores, not the labels")
    return out


# --- files ------------------------------------------------------------------------------------------------------------


def publish(writers: dict[Path, Callable[[Path], object]]) -> None:
    """Write every file under a temporary name beside it; rename them only when all are complete."""
    parts = {target: target.with_name(f".part-{os.getpid()}-{target.name}") for target in writers}
    try:
        for target, write in writers.items():
            write(parts[target])
        for target, part in parts.items():
            part.replace(target)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def writable(obs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Columns that anndata can write, and what was changed: doubled or reserved names, kinds that it does not know."""
    import anndata
    import h5py
    from anndata.io import write_elem

    plain = ["index_" if str(c) == "_index" else str(c).replace("/", "_") for c in obs.columns]
    names = list(anndata.utils.make_index_unique(pd.Index(plain, dtype=object), join="_"))
    notes = [
        f"column {old} is called {new} in the output" for old, new in zip(obs.columns, names, strict=True) if old != new
    ]
    index = obs.index.astype(str)
    obs = obs.set_axis(names, axis=1).set_axis(index.rename(None) if index.name in names else index)
    with h5py.File("obs", "w", driver="core", backing_store=False) as f, _any_strings():
        for i, name in enumerate(names):
            try:
                write_elem(f, str(i), obs[[name]])
            except Exception:  # anndata has a type of error for each kind that it cannot write
                obs[name] = obs[name].astype("string").fillna("").astype(object)
                notes.append(f"column {name} is written as text, its kind cannot be stored")
    return obs, notes


def _any_strings():
    """Let anndata write strings with missing values."""
    import anndata

    return anndata.settings.override(allow_write_nullable_strings=True)


def check_output(file: CellFile, out: Path, members: int) -> None:
    """Write what the output will hold to a file beside it and remove it; see that the cache may be filled.

    Raises
    ------
    InputError
        If a folder may not be written to or is full.
    """
    n, none = len(file.obs), np.zeros(0)
    missing = np.full((members + 2, n), np.nan)
    blank = Prediction(missing[2:], missing[0], missing[1], None, none, {}, {}, (none, none), {}, np.full(n, SCORED))
    size = sum(p.stat().st_size for p in (file.path.rglob("*") if file.path.is_dir() else [file.path]))
    for folder, needed in ((out.resolve().parent, size + ROOM), (paths.CACHE, ROOM)):
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


def write_obs(part: Path, obs: pd.DataFrame, found: Prediction) -> None:
    """Write columns on cells with the scores, and what they rest on, into an HDF5 file.

    Columns of an earlier run for another drug stay, with the name of their drug.
    """
    import h5py
    from anndata.io import write_elem

    columns, before = found.columns.set_axis(obs.index), _drug_of(part)
    facts = {k: np.array(v, dtype=object) if isinstance(v, list) else v for k, v in found.facts.items()}
    with h5py.File(part, "a") as f, _any_strings():
        uns = f.require_group("uns")
        if before not in (None, facts.get("drug")):
            obs = obs.rename(columns={c: f"{c}_{before}" for c in columns})
            uns.pop(f"atsdp_{before}", None)
            uns.move("atsdp", f"atsdp_{before}")
        kept = obs.drop(columns=[c for c in columns if c in obs])
        write_elem(f, "obs", pd.concat([kept, columns], axis=1))
        write_elem(uns, "atsdp", facts)


def write_h5ad(file: CellFile, found: Prediction, part: Path) -> None:
    """The input with the scores: an h5ad is copied as it is and completed, another format becomes one with names."""
    import anndata

    if file.kind == "h5ad":
        shutil.copyfile(file.path, part)
    else:
        var, _ = writable(pd.DataFrame(file.names, index=pd.Index(next(iter(file.names.values())))))
        anndata.AnnData(file.X, file.obs[[]], var).write_h5ad(part)
    write_obs(part, file.obs, found)
