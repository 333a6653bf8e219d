"""A person's own cells: file -> shared genes -> models of bulk lines -> ``.atsdp.h5ad``; labels touch no score."""

import os
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score
from tqdm import tqdm

from atsdp_utils import __version__
from atsdp_utils.data import gdsc, preprocess
from atsdp_utils.evaluation import metrics
from atsdp_utils.foundation import cache, config, runtime
from atsdp_utils.foundation.config import RESISTANT, SENSITIVE
from atsdp_utils.interpretation import embedding
from atsdp_utils.models.losses import mmd2
from atsdp_utils.models.plus import ATSDPPlus, expit, logistic
from atsdp_utils.own_cells import cell_values, cellfile, drugs, output, page, prediction, readers
from atsdp_utils.own_cells.cell_values import NOT_SCORED, SCORED, ZERO
from atsdp_utils.own_cells.cellfile import CellFile, InputError, Matrix, contradicted, dense_chunks, left_out, recognise
from atsdp_utils.own_cells.prediction import Prediction, pooled

#: Spellings of labels, lower case.
YES, NO = ("1", "1.0", "true"), ("0", "0.0", "false")
SPELLINGS = (
    dict.fromkeys((*YES, SENSITIVE, "sens", "s", "responder"), 1)
    | dict.fromkeys((*NO, RESISTANT, "res", "r", "non-responder", "nonresponder"), 0)
)  # fmt: skip
#: Columns in which 1 and True mean the resistant: ``nonresponder``, ``survived``, ``NR``; not ``cisplatin_response``.
OF_RESISTANT = re.compile(
    r"(?i)resist|tolera|persist|surviv|viab|alive|(?<![a-z])liv(e|ing)(?![a-z])|refract|relaps|recur|progress|escap"
    r"|(?<![a-z])mrd(?![a-z])|(non|un)[-_ .]?(respon|sens)|fail|residual"
    r"|(?<![a-z])(no[nt]?|poor|low|bad|less)[-_ .]?(p?cr(?![a-z])|resp|sens)"
    r"|(?<![a-z])in(respon|sens)|(?<![a-z])(drug_?)?tol(?![a-z])|ic_?50"
    r"|(?<![^\W_])(nr|dtp|dtep|pd|rd|sd|r|res)(?![^\W_])|(?-i:(?<=[a-z])(R|Res)(?![a-zA-Z]))"
)
#: Fewer training lines of a class carry no lesson.
MIN_LINES = 5
#: A bar and the time left on a terminal, nothing elsewhere.
BAR = {"disable": None, "ncols": 78}


@dataclass(frozen=True)
class Settings:
    """How much is computed for a person's file."""

    model: str = "regression"  # one of MODELS
    members: int = 5  # models whose logits are averaged
    max_genes: int | None = None  # of those shared with the bulk, its most variable ones; None: as many as MODELS says
    arch: config.Architecture = field(default_factory=config.Architecture)
    training: config.Training = config.PROFILES["quick"].training
    sample: int = 3000  # cells that a network and the picture see at most, drawn at random
    min_cells: int = 10  # fewer cannot be standardised
    chunk: int = 4096  # rows that are dense at a time
    jobs: int = min(4, os.cpu_count() or 1)


SETTINGS = Settings()


@dataclass
class Ready:
    """A file that is ready to be scored for any drug."""

    file: CellFile  # the matrix of an h5ad is let go
    known: dict  # goes into uns['atsdp']
    chosen: np.ndarray  # (genes,) genes used
    Z: Matrix  # (scored cells, genes) values, in the order of `canonical`
    where: np.ndarray  # (scored cells,) rows of the file that these are
    reason: np.ndarray  # (rows,) str, why a row has no score
    notes: list[str]  # what a reader of the scores is told of the file
    parts: dict[str, np.ndarray]  # patients, batches or cultures, `prediction.origins`
    scaler: preprocess.Standardizer
    rows: np.ndarray  # which of the scored cells a network and the picture see
    seen: np.ndarray  # (rows, genes) their values by `scaler`
    seed: int
    settings: Settings


def predict(
    path: Path, drug: str, *, out: Path | None = None, report: Path | None = None, labels: str | None = None,
    say: Callable[[str], object] = print, **asked,
) -> Prediction:  # fmt: skip
    """Score the cells of a file for a drug and write scores and a report; both appear complete or not at all.

    Parameters
    ----------
    path : Path
        The file, in any format of :func:`readers.read`. It is only read.
    drug : str
        Any name that :func:`drugs.find_drug` knows.
    out, report : Path, optional
        Where scores (``.h5ad``) and page (``.html``) go; by default beside the file, ``<stem>.<DRUG>.atsdp.h5ad``, and
        beside that, ``.html``.
    labels : str, optional
        A column of ``obs`` that the finished scores are compared with. No score depends on it.
    say : callable
        Receives one line at each step.
    **asked
        Goes to :func:`prepare`: ``layer``, ``values``, ``species``, ``seed`` and ``settings``.

    Returns
    -------
    Prediction
        What was written, for every row of the file in its order.

    Raises
    ------
    InputError
        If something is wrong with what was given. The message says the way out.
    """
    drug = drugs.find_drug(drug)
    out, report = output.destinations(path, drug, out, report)
    given = prepare(path, say, labels=labels, **asked)
    y = None if labels is None else read_labels(given.file, labels, given.reason == SCORED)
    if y is not None:
        say(f"labels: {labels}, {(y == 1).sum():,} scored cells sensitive (1, True), {(y == 0).sum():,} resistant")
    output.check_output(given.file, out, given.settings.members)
    found = _scores(drug, given, say)
    found.facts["warnings"] = [*given.notes, *prediction.warnings(found)]
    if y is not None:
        found.metrics = found.facts["metrics"] = prediction.score(y, found)

    def write(part: str) -> None:
        output.write_h5ad(given.file, found, Path(part))
        cache.write_text(report, page.render(found, y))

    cache.write_atomically(out, write)
    for line in found.facts["warnings"]:
        say(f"warning: {line}")
    say(prediction.company_said(found.facts["company"]))
    n = {label: int((found.label == label).sum()) for label in (SENSITIVE, RESISTANT, NOT_SCORED)}
    say("cells: " + ", ".join(f"{count:,} {label}" for label, count in n.items() if count))
    if found.metrics:
        said = (f"{k} {v}" if isinstance(v, int) else f"{k} {v:.3f}" for k, v in found.metrics.items())
        say("against the labels: " + ", ".join(said))
    say(f"written: {out}\nreport:  {report}")
    return found


def prepare(
    path: Path, say: Callable[[str], object], *, layer: str | None = None, values: str = "auto",
    species: str | None = None, labels: str | None = None, seed: int = 0, settings: Settings = SETTINGS,
) -> Ready:  # fmt: skip
    """Read a file and find out what its genes, values and rows are, or say what is wrong with it.

    Parameters
    ----------
    path, layer, labels, say
        Those of :func:`readers.read`, and what receives one line at each step.
    values : {"auto", "counts", "lognorm", "zscored"}
        What the values are; *auto* finds out (:func:`cell_values.detect_values`).
    species : {"human", "mouse"}, optional
        Of the gene names; without it human, and names in lower case are refused.
    seed, settings : int and Settings
        What draws the cells that a network and the picture see and fixes later trainings, and how much is computed.

    Returns
    -------
    Ready
        Values of the cells that can be scored, for any drug, on genes shared with the bulk; and why other rows cannot.

    Raises
    ------
    InputError
        If the file does not hold cells that can be scored. The message says the way out.
    """
    runtime.one_thread()
    file = readers.read(path, layer, labels)
    say("; ".join([f"{path.name}: {file.kind}, {len(file.obs):,} cells x {file.X.shape[1]:,} genes", *file.notes]))
    genes = recognise(file, species)
    known = file.only(genes.symbol != "")
    X, remarks = cell_values.from_zero(known.X, values)
    known = replace(known, X=X)  # the file may be written again
    every = replace(file, X=cell_values.from_zero(file.X, values)[0]) if remarks else file
    kind, more = cell_values.detect_values(known, values, every.X)
    remarks += more
    say("; ".join([f"values: {kind} ({'detected' if values == 'auto' else 'as asked'})", *remarks]))
    bulk = gdsc.load_bulk()
    chosen = gdsc.shared_genes(bulk, genes.symbol, settings.max_genes or MODELS[settings.model].max_genes)
    ways = ", ".join(f"{n:,} {way}" for way, n in genes.ways.items())
    overlap = f"{genes.shared:,} of {len(bulk.genes):,} of the bulk ({ways}), {len(chosen)} used"
    say("; ".join([f"genes: {genes.naming} in {genes.place}, {overlap}", *left_out(file, genes)]))
    file.obs, changed = output.writable(file.obs)
    X, more = cell_values.counts(known.X, every.X, kind, settings.chunk)
    counted, X = X is not None, known.X if X is None else X
    parts = prediction.origins(file.obs)
    batch = next((codes for name, codes in parts.items() if name.lower() == "batch"), np.zeros(len(file.obs)))
    judged = counted and cell_values.UNKNOWN not in more
    reason, deep = cell_values.not_cells(every, X, genes, judged, batch, settings.min_cells)
    if file.kind == "h5ad":
        file.X = None  # the output is a copy of the file, and the matrix may be most of the memory
    Z, said = cell_values.shared_matrix(X, genes.symbol[genes.symbol != ""], chosen, counted)
    reason[(reason == SCORED) & (np.asarray(abs(Z).sum(1)).ravel() == 0)] = ZERO
    more += deep + said + cell_values.unscored(path, reason, settings.min_cells)
    if counted:
        more += cell_values.absent(X, parts, reason == SCORED)
        more += cell_values.dominant(X, genes.symbol[genes.symbol != ""])
    del known, X, every
    Z, where = Z[reason == SCORED], np.flatnonzero(reason == SCORED)
    silent = int((np.asarray(abs(Z).sum(0)).ravel() == 0).sum())
    if len(chosen) - silent < cellfile.MIN_SHARED:
        found = f"{len(chosen) - silent} of {len(chosen):,} genes of the bulk have a value other than zero in any cell"
        raise InputError(f"{path}: {found}. Expected at least {cellfile.MIN_SHARED}: a panel filled up with zeros?")
    order = cell_values.canonical(Z, settings.chunk)
    Z, where = Z[order], where[order]
    facts = {
        "input": output.plain_name(path), "values": kind, "gene_names": genes.naming,
        "gene_names_in": genes.place, "genes_in_file": len(genes.symbol), "genes_shared": genes.shared,
        "genes_in_bulk": len(bulk.genes), "gene_overlap": genes.shared / len(bulk.genes),
        "gene_names_found": genes.ways, "genes_used": len(chosen), "genes_zero": silent,
        "cells": len(reason), "cells_scored": len(where), "model": settings.model,
    }  # fmt: skip
    notes = [*file.warnings, *contradicted(file, genes), *remarks, *more, *prediction.origins_said(parts), *changed]
    rows = np.sort(np.random.default_rng(seed).permutation(len(where))[: settings.sample])
    scaler = cell_values.streaming_standardizer(Z, settings.chunk)
    if np.isinf(scaler.scale_).all():
        raise InputError(f"{path}: all {len(where)} cells have the same values. Expected cells that differ.")
    seen = scaler.transform(np.vstack(list(dense_chunks(Z[rows], settings.chunk))))
    return Ready(file, facts, chosen, Z, where, reason, notes, parts, scaler, rows, seen, seed, settings)


def read_labels(file: CellFile, column: str, scored: np.ndarray) -> np.ndarray:
    """Labels of a column of obs, (cells,) int8: 1, 0, or -1 where there is none or the cell has no score."""
    called = column.replace("/", "_")  # in the output, where no other column has that name
    called = column if column in file.obs or f"{called}_1" in file.obs else called
    if called not in file.obs:
        have = ", ".join(map(str, file.obs.columns[:8])) or "none"
        raise InputError(f"--labels {column}: no such column on cells. Columns there: {have}. Or leave --labels out.")
    text = file.obs[called].astype("string").str.strip().str.lower()
    given = set(text.dropna()) - {"", "nan", "none", "na"}
    if OF_RESISTANT.search(column) and given <= {*YES, *NO}:
        raise InputError(f"--labels {column}: 1 and True mean sensitive here. Write the words sensitive and resistant.")
    y = text.map(SPELLINGS)
    if unknown := sorted(given - set(SPELLINGS)):
        expected = "Expected 1/0, True/False or sensitive/resistant; empty: no label"
        raise InputError(f"--labels {column}: found {', '.join(unknown[:4])}. {expected}.")
    y = np.where(scored, y.fillna(-1).to_numpy(np.int8), -1)
    if len(set(y[y >= 0])) < 2:
        raise InputError(f"--labels {column}: all cells are of one class. Metrics need both; leave --labels out.")
    return y


class Regressions(ATSDPPlus):
    """Logistic regressions in the place of networks, each on another share of the lines; nothing is aligned."""

    def networks(self, X: np.ndarray, source: preprocess.Source) -> list:
        """Every member, on a share of the training lines that is drawn within class."""
        rows = source.fit_rows
        shares = StratifiedShuffleSplit(self.members, train_size=0.8, random_state=self.seed)
        drawn = (rows[part] for part, _ in shares.split(rows, source.y[rows]))
        return [logistic().fit(source.X[part], source.y[part]) for part in drawn]

    def _networks(self, X: np.ndarray, domain: str = "target") -> np.ndarray:
        return np.stack([one.decision_function(X) for one in self.nets_])


#: What learns from lines and scores cells, by ``--model``. The regression is the default: on held-out clusters of lines
#: no network was above the best simple model (notebook 16). Several are averaged for the spread of the scores.
Model = namedtuple("Model", "made_by recipe max_genes")
MODELS = {
    "regression": Model(Regressions, "plain", config.profile("paper").max_genes),
    "network": Model(ATSDPPlus, config.CHOSEN, config.profile("quick").max_genes),
}


@dataclass
class Learned:
    """Models for a drug, and what is known of their scores of the cells of a file."""

    model: ATSDPPlus
    lines: np.ndarray  # resistant and sensitive lines that trained them
    held: np.ndarray  # the same of lines that no training saw
    auc: float  # of the ensemble on these
    members: np.ndarray  # (members, scored cells) P(sensitive) by each
    company: dict  # by how much they depend on which cells are in the file: `prediction.company`, of the cells drawn


def learn(drug: str, source: preprocess.Source, given: Ready, say: Callable[[str], object]) -> Learned:
    """Train for the drug of `source` and score all cells; an :class:`InputError` if the lines are too few."""
    settings, chunk = given.settings, given.settings.chunk
    lines = np.bincount(source.y[source.fit_rows], minlength=2)
    if lines.min() < MIN_LINES:
        found = f"{lines.min()} training lines of the rarer class"
        raise InputError(f"--drug {drug}: {found}, expected at least {MIN_LINES}.")
    made_by, recipe, _ = MODELS[settings.model]
    say(f"{drug}: {settings.members} x {settings.model}, from {lines[1]} sensitive and {lines[0]} resistant lines")
    model = made_by(seed=given.seed, members=settings.members, recipe=recipe, arch=settings.arch, cfg=settings.training)
    model.fit_transfer(given.seen, source)
    # threads take chunks of cells, each computes on one core
    work = (delayed(model.member_proba)(given.scaler.transform(block)) for block in dense_chunks(given.Z, chunk))
    done = Parallel(settings.jobs, prefer="threads", return_as="generator")(work)
    members = np.concatenate(list(tqdm(done, "scores", -(-given.Z.shape[0] // chunk), leave=False, **BAR)), axis=1)
    X = np.vstack(list(dense_chunks(given.Z[given.rows], chunk)))
    parts = {name: codes[given.where[given.rows]] for name, codes in given.parts.items()}
    drawn = pooled(members[:, given.rows])
    among = prediction.company(lambda cells: pooled(model.member_proba(cells)), X, drawn, parts, given.seed)
    held = np.bincount(source.y[source.test_rows], minlength=2)
    return Learned(model, lines, held, held_out_auc(model, source), members, among)


def held_out_auc(model: ATSDPPlus, source: preprocess.Source) -> float:
    """AUC of the ensemble on held-out lines of the drug; NaN where these are of one class."""
    rows = source.test_rows
    return metrics.classification_metrics(source.y[rows], expit(model.line_logits(source.X[rows])))["auc"]


def model_hash(source: preprocess.Source, seen: np.ndarray, seed: int, settings: Settings) -> str:
    """Twenty hex digits over code, settings, lines, labels and the cells that transfer saw."""
    plain = sorted((k, v) for k, v in asdict(settings).items() if k != "jobs")
    model = MODELS[settings.model]
    made_by = cache.code("own_cells.predict.learn"), runtime.precision(), model.max_genes, config.RECIPES[model.recipe]
    return cache.key(*made_by, plain, source.X, source.y, source.train, source.genes, seen, seed)


def _scores(drug: str, given: Ready, say: Callable[[str], object]) -> Prediction:
    """Learn, score all cells, and gather what the report says of them."""
    seed, settings, n, where = given.seed, given.settings, len(given.reason), given.where
    source = gdsc.bulk_source(gdsc.load_bulk(drug), given.chosen, seed)
    found = learn(drug, source, given, say)
    every, p = np.full((settings.members, n), np.nan), np.full(n, np.nan)
    every[:, where], p[where] = found.members, pooled(found.members)
    calibrated, sets = prediction.calibrate(found.model, found.held, p)
    facts = {"drug": drug, "version": __version__} | given.known | {
        "seed": seed, "members": settings.members, "held_out_auc": found.auc,
        "held_out_sensitive": int(found.held[1]), "held_out_resistant": int(found.held[0]),
        "conformal_alpha": prediction.ALPHA, "model_hash": model_hash(source, given.seen, seed, settings),
        "company": found.company,
    }  # fmt: skip
    unlike, xy = unlikeness(source, given), embedding.umap(given.seen, seed)
    return Prediction(every, p, calibrated, sets, given.reason, found.lines, facts, unlike, (where[given.rows], xy))


def unlikeness(source: preprocess.Source, given: Ready, size: int = 500) -> dict[str, float]:
    """How unlike the bulk lines the cells are, in what the network sees.

    ``mmd2`` between lines and cells; ``mmd2_lines`` between random lines, as many as the cells or half of them, and the
    other lines (the yardstick); ``auc`` of a random forest that tells lines from cells.
    """
    rng = np.random.default_rng(given.seed)
    lines, cells = (A[np.sort(rng.permutation(len(A))[:size])] for A in (source.X, given.seen))
    a, b = torch.tensor(lines), torch.tensor(cells)
    some = torch.tensor(rng.permutation(len(lines)) < min(len(cells), len(lines) // 2))
    both, domain = np.vstack([lines, cells]), np.repeat([0, 1], [len(lines), len(cells)])
    forest = RandomForestClassifier(50, random_state=given.seed, min_samples_leaf=3)
    auc = float(cross_val_score(forest, both, domain, cv=3, scoring="roc_auc").mean())
    return {"mmd2": mmd2(a, b).item(), "mmd2_lines": mmd2(a[~some], a[some]).item(), "auc": auc}
