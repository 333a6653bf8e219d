"""Scores of the cells of a file for one drug, what they rest on, and what must be known before they are used."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from atsdp_utils.data.preprocess import Standardizer
from atsdp_utils.evaluation import metrics, stats
from atsdp_utils.foundation import config
from atsdp_utils.foundation.config import RESISTANT, SENSITIVE
from atsdp_utils.models import calibration
from atsdp_utils.models.plus import ATSDPPlus, expit, logit
from atsdp_utils.own_cells.cell_values import NOT_SCORED, REASONS

#: Share of lines of each class that a conformal set may miss.
ALPHA = 0.1
#: Held-out lines of a class from which on a conformal set can leave that class out: 1 / (n + 1) <= ALPHA.
FEWEST = calibration.fewest(ALPHA)
#: Names of conformal sets, by whether resistant and sensitive are in them, and of none where lines are too few.
SETS, NO_SET = np.array([["neither", SENSITIVE], [RESISTANT, "both"]]), "no set"
#: Names of columns that say where or from whom a cell comes.
ORIGIN = re.compile(
    r"(?i)(orig[._ ]ident|batch|sample|patient|donor|library|lane|plate|culture|data_?set|study|experiment|gs[em])"
    r"([._ ]?(uu)?id|[._ ]name)?s?"
)
BARCODE = re.compile(r"[ACGT]{10,}")
#: Random divisions of a file into halves; fewer cells are no part.
SPLITS, MIN_PART = 5, 10
RANDOM, UNLIKE = "random halves", "most unlike halves"


def pooled(members: np.ndarray) -> np.ndarray:
    """P(sensitive), (cells,): the members' mean logit; `members` is (members, cells)."""
    return expit(logit(members).mean(0))


def agreement(members: np.ndarray) -> dict[str, float]:
    """How far models agree: lowest and mean Spearman correlation of two, share of cells that all label alike."""
    members = members[:, ~np.isnan(members[0])]
    if len(members) < 2:
        return {"lowest": np.nan, "mean": np.nan, "same": np.nan}
    pairs = pd.DataFrame(members.T).corr("spearman").to_numpy()[np.triu_indices(len(members), 1)]
    same = np.isin((members >= 0.5).sum(0), (0, len(members))).mean()
    return {"lowest": float(pairs.min()), "mean": float(pairs.mean()), "same": float(same)}


@dataclass
class Prediction:
    """Scores and what is known about them."""

    members: np.ndarray  # (members, cells) P(sensitive) by each model; NaN for a cell that could not be scored
    p: np.ndarray  # (cells,) P(sensitive), `pooled`
    calibrated: np.ndarray  # (cells,) P(sensitive) by isotonic regression on held-out lines, NaN too without a class
    sets: np.ndarray | None  # (cells, 2) bool, conformal sets: resistant, sensitive; None if lines are too few
    reason: np.ndarray  # (cells,) str: `cell_values.SCORED`, or why a row has no score
    bulk_classes: np.ndarray  # resistant and sensitive lines that trained it
    facts: dict = field(default_factory=dict)  # goes into uns['atsdp']
    unlike: dict[str, float] = field(default_factory=dict)  # how unlike the lines the cells are, `predict.unlikeness`
    layout: tuple[np.ndarray, np.ndarray] | None = None  # rows and (rows, 2) coordinates of the picture
    metrics: dict[str, float] = field(default_factory=dict)  # scores against the person's labels

    @property
    def label(self) -> np.ndarray:
        """(cells,) sensitive, resistant or not scored."""
        called = np.where(self.p >= 0.5, SENSITIVE, RESISTANT)
        return np.where(np.isnan(self.p), NOT_SCORED, called)

    @property
    def columns(self) -> pd.DataFrame:
        """The six columns for ``obs``, without an index."""
        sd = self.members.std(0, ddof=1) if len(self.members) > 1 else np.full(len(self.p), np.nan)
        named = np.full(len(self.p), NO_SET) if self.sets is None else SETS[tuple(self.sets.T.astype(int))]
        named = np.where(np.isnan(self.p), NOT_SCORED, named)
        return pd.DataFrame({
            "atsdp_p_sensitive": self.p,
            "atsdp_label": pd.Categorical(self.label, [RESISTANT, SENSITIVE, NOT_SCORED]),
            "atsdp_p_sd": sd,
            "atsdp_p_calibrated": self.calibrated,
            "atsdp_conformal": pd.Categorical(named, [*np.unique(SETS), NO_SET, NOT_SCORED]),
            "atsdp_reason": pd.Categorical(self.reason, REASONS),
        })  # fmt: skip


def calibrate(model: ATSDPPlus, held: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Calibrated P(sensitive), (cells,), and conformal sets, (cells, 2), of scores `p`, NaN where a cell has none.

    `held` counts the resistant and sensitive held-out lines on which `model` was calibrated. With fewer of a class than
    :data:`FEWEST` every set holds that class, so none is given; without a line of a class, no probability either.
    """
    scored, calibrated, sets = ~np.isnan(p), np.full(len(p), np.nan), None
    if held.min():
        calibrated[scored] = model.calibration_.proba(logit(p[scored]))
    if held.min() >= FEWEST:
        sets = np.zeros((len(p), 2), bool)
        sets[scored] = model.calibration_.sets(logit(p[scored]), ALPHA)
    return calibrated, sets


def auc_limits(y: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """DeLong's limits, the lower no higher than that of a perfect order, as few rows have; NaN with one of a class."""
    if np.bincount(y, minlength=2).min() < 2:
        return np.nan, np.nan
    found = stats.auc_interval(y, p)
    return float(min(found.low, stats.auc_interval(y, y).low)), float(found.high)


def score(y: np.ndarray, found: Prediction) -> dict[str, float]:
    """The paper's five metrics over cells with a label and a score, how many those are, and coverage of the sets.

    ``auc_low`` and ``auc_high`` are the limits of 95 % over cells, NaN with one cell of a class.
    """
    rows = y >= 0
    every, (low, high) = metrics.classification_metrics(y[rows], found.p[rows]), auc_limits(y[rows], found.p[rows])
    out = {"cells": int(rows.sum()), SENSITIVE: int((y == 1).sum()), RESISTANT: int((y == 0).sum())}
    out |= {k: every[k] for k in config.METRICS} | {"auc_low": low, "auc_high": high}
    if found.sets is not None:
        out |= {f"conformal_{k}": v for k, v in metrics.coverage(found.sets[rows], y[rows]).items()}
    return out


def doubts(lines: np.ndarray, auc: float, members: np.ndarray, p: np.ndarray) -> list[str]:
    """What speaks against scores p (cells,) for a drug: few `lines` of a class, `auc`, disagreement, one label."""
    share = lines.min() / lines.sum()
    rarer = RESISTANT if lines[0] < lines[1] else SENSITIVE
    agree = agreement(members)["mean"]
    called = (p[~np.isnan(p)] >= 0.5).mean()
    said = [
        (share < 0.15 or lines.min() < 40,
         f"only {lines.min()} of {lines.sum()} training lines are {rarer} ({share:.0%}): weakly learned"),
        (auc < 0.65, f"AUC on held-out bulk lines is {auc:.2f}: hardly predictable even there"),
        (agree < 0.5,
         f"the models disagree (mean rank correlation {agree:.2f}): another seed may turn the order"),
        (called < 0.05 or called > 0.95,
         "nearly all cells get one label: read the order of the scores, not the labels"),
    ]  # fmt: skip
    return [line for holds, line in said if holds]


def warnings(found: Prediction) -> list[str]:
    """What a reader of the scores must know before using them."""
    facts = found.facts
    held = {label: facts[f"held_out_{label}"] for label in (RESISTANT, SENSITIVE)}
    fewest = min(held, key=held.get)
    lost = "no held-out AUC, calibrated probability or conformal sets"
    if held[fewest]:
        lost = "no conformal sets; the calibrated probability rests on those few"
    said = [
        (facts["gene_overlap"] < 0.5,
         f"only {facts['gene_overlap']:.0%} of the bulk genes are measured: the score rests on few genes"),
        (facts["genes_zero"] > facts["genes_used"] / 2,
         f"{facts['genes_zero']:,} of {facts['genes_used']:,} genes used are zero in every cell: measured at all?"),
        (found.sets is None,
         f"only {held[fewest]} held-out lines are {fewest}, sets with a miss rate of {ALPHA:g} need {FEWEST}: {lost}"),
        (facts["cells_scored"] < 50,
         f"{facts['cells_scored']} cells: means and standard deviations of genes are uncertain"),
    ]  # fmt: skip
    of_drug = doubts(found.bulk_classes, facts["held_out_auc"], found.members, found.p)
    return [line for holds, line in said if holds] + of_drug


def origins(obs: pd.DataFrame) -> dict[str, np.ndarray]:
    """What divides a file into patients, batches or cultures: name of a column or of the barcodes, (cells,) codes."""
    found = {str(c): pd.factorize(obs[c])[0] for c in obs if ORIGIN.fullmatch(str(c))}
    names = pd.Series(obs.index.astype(str))
    if names.str.contains(BARCODE).all():
        found["what stands beside the barcodes"] = pd.factorize(names.str.replace(BARCODE, "", n=1, regex=True))[0]
    return {name: codes for name, codes in found.items() if 1 < len(set(codes[codes >= 0])) < len(obs) / 2}


def origins_said(parts: dict[str, np.ndarray]) -> list[str]:
    """What is said of a file of several patients, batches or cultures."""
    why = "genes are standardised over all of them together, so differences between them count as differences between"
    way = "cells; for an order within one, score it in a file of its own"
    return [f"{len(set(codes[codes >= 0]))} values of {name}: {why} {way}" for name, codes in parts.items()]


def company(
    score: Callable[[np.ndarray], np.ndarray], X: np.ndarray, p: np.ndarray, parts: dict[str, np.ndarray], seed: int
) -> dict[str, dict[str, float]]:
    """By how much scores depend on company: parts of a file standardised by themselves, with models as they are.

    `score` gives P(sensitive), (n,), of standardised cells; X (cells, genes) is not yet standardised; p (cells,) that
    in the whole file. For random halves, halves about the median of the first principal component, and each of `parts`:
    mean share of ``labels_changed``, ``most`` in one division, and mean ``rank_correlation`` of part and whole.
    """
    rng, n = np.random.default_rng([seed, 97]), len(X)
    ways = {RANDOM: [rng.permutation(n) < n // 2 for _ in range(SPLITS)]}
    first = PCA(1, svd_solver="randomized", random_state=0).fit_transform(Standardizer().fit_transform(X))[:, 0]
    ways[UNLIKE] = [np.argsort(np.argsort(first, kind="stable"), kind="stable") < n // 2]
    ways |= {f"parts by {name}": [codes] for name, codes in parts.items()}
    found = {}
    for way, divisions in ways.items():
        compared = []
        for codes in divisions:
            rows = [np.flatnonzero(codes == code) for code in np.unique(codes[codes >= 0])]
            both = [(score(Standardizer().fit_transform(X[r])), p[r]) for r in rows if len(r) >= MIN_PART]
            if len(both) > 1:
                changed = np.concatenate([(q >= 0.5) != (whole >= 0.5) for q, whole in both])
                order = [pd.Series(q).corr(pd.Series(whole), "spearman") for q, whole in both]
                compared.append((changed.mean(), np.mean(order)))
        if compared:
            changed, order = np.array(compared).T
            values = {"labels_changed": changed.mean(), "most": changed.max(), "rank_correlation": order.mean()}
            found[way] = {k: float(v) for k, v in values.items()}
    return found


def company_said(found: dict[str, dict[str, float]]) -> str:
    """What is said before the scores are read."""
    if not found:
        return "too few cells to tell how much the scores of this file depend on which cells are in it"
    said = []
    for way, v in found.items():
        most = f" (at most {v['most']:.1%})" if v["most"] > v["labels_changed"] else ""
        order = f"rank correlation {v['rank_correlation']:.2f} within a part"
        said.append(f"standardised as {way}, {v['labels_changed']:.1%} of the labels change{most}, {order}")
    models = "The models were the same; in files of their own a network would also be aligned anew"
    return f"how much the scores of this file depend on which cells are in it: {'; '.join(said)}. {models}"
