"""Scores of the cells of a file for one drug, what they rest on, and what must be known before they are used."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from atsdp_utils.evaluation import metrics
from atsdp_utils.foundation import config
from atsdp_utils.foundation.config import RESISTANT, SENSITIVE
from atsdp_utils.models.plus import ATSDPPlus, expit, logit
from atsdp_utils.own_cells.checks import NOT_SCORED, REASONS

#: Share of lines of each class that a conformal set may miss.
ALPHA = 0.1
#: Held-out lines of a class from which on a conformal set can leave that class out: 1 / (n + 1) <= ALPHA.
FEWEST = math.ceil(1 / ALPHA) - 1
#: Names of conformal sets, by whether resistant and sensitive are in them, and of none where lines are too few.
SETS, NO_SET = np.array([["neither", SENSITIVE], [RESISTANT, "both"]]), "no set"


def pooled(members: np.ndarray) -> np.ndarray:
    """P(sensitive), (cells,): the members' mean logit; `members` is (members, cells)."""
    return expit(logit(members).mean(0))


def agreement(members: np.ndarray) -> dict[str, float]:
    """How far networks agree: lowest and mean Spearman correlation of two, share of cells that all label alike."""
    members = members[:, ~np.isnan(members[0])]
    if len(members) < 2:
        return {"lowest": np.nan, "mean": np.nan, "same": np.nan}
    pairs = pd.DataFrame(members.T).corr("spearman").to_numpy()[np.triu_indices(len(members), 1)]
    same = np.isin((members >= 0.5).sum(0), (0, len(members))).mean()
    return {"lowest": float(pairs.min()), "mean": float(pairs.mean()), "same": float(same)}


@dataclass
class Prediction:
    """Scores and what is known about them."""

    members: np.ndarray  # (members, cells) P(sensitive) by each network; NaN for a cell that could not be scored
    p: np.ndarray  # (cells,) P(sensitive), `pooled`
    calibrated: np.ndarray  # (cells,) P(sensitive) by isotonic regression on held-out lines, NaN too without a class
    sets: np.ndarray | None  # (cells, 2) bool, conformal sets: resistant, sensitive; None if lines are too few
    reason: np.ndarray  # (cells,) str: `checks.SCORED`, or why a row has no score
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
    :data:`FEWEST`, every set holds that class whatever the score, so no set is given; without a line of a class there
    is no calibrated probability either.
    """
    scored, calibrated = ~np.isnan(p), np.full(len(p), np.nan)
    if not held.min():
        return calibrated, None
    z = logit(p[scored])
    calibrated[scored] = model.calibration_.proba(z)
    if held.min() < FEWEST:
        return calibrated, None
    sets = np.zeros((len(p), 2), bool)
    sets[scored] = model.calibration_.sets(z, ALPHA)
    return calibrated, sets


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
    facts, lines, agree = found.facts, found.bulk_classes, agreement(found.members)["mean"]
    called = (found.label[~np.isnan(found.p)] == SENSITIVE).mean()
    held = {label: facts[f"held_out_{label}"] for label in (RESISTANT, SENSITIVE)}
    rarer, fewest = RESISTANT if lines[0] < lines[1] else SENSITIVE, min(held, key=held.get)
    none = "no conformal sets" if held[fewest] else "no held-out AUC, calibrated probability or conformal sets"
    weak = "; the calibrated probability rests on those few" if held[fewest] else ""
    share = lines.min() / lines.sum()
    said = [
        (facts["gene_overlap"] < 0.5,
         f"only {facts['gene_overlap']:.0%} of the bulk genes are measured: the score rests on few genes"),
        (share < 0.15 or lines.min() < 40,
         f"only {lines.min()} of {lines.sum()} training lines are {rarer} ({share:.0%}): weakly learned"),
        (facts["held_out_auc"] < 0.65,
         f"AUC on held-out bulk lines is {facts['held_out_auc']:.2f}: hardly predictable even there"),
        (found.sets is None,
         f"only {held[fewest]} held-out lines are {fewest}, sets with a miss rate of {ALPHA:g} need {FEWEST}: "
         f"{none}{weak}"),
        (facts["cells_scored"] < 50,
         f"{facts['cells_scored']} cells: means and standard deviations of genes are uncertain"),
        (agree < 0.5,
         f"the networks disagree (mean rank correlation {agree:.2f}): another seed may turn the order"),
        (called < 0.05 or called > 0.95,
         "nearly all cells get one label: read the order of the scores, not the labels"),
    ]  # fmt: skip
    return [line for holds, line in said if holds]
