"""Checks of the paper's reported numbers, from the files of ``data/paper`` alone: no data set, no training.

A printed score must obey the arithmetic of its metric. A check takes one printed row and says what it found; its
docstring, two sentences, is the explanation that readers see. Tolerances allow for four decimals, rounded or cut off.
"""
# ruff: noqa: D205 (an explanation of two sentences is longer than a line)

from __future__ import annotations

import inspect
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from atsdp_utils import config, paths

STEP = 1e-4 + 1e-9  # one unit of the last printed decimal, and room for binary fractions
#: Sensitive and resistant cells. DATA4 has 19 wells without a label; counted as sensitive they make the paper's 1,419.
CLASS_SIZES = {
    ("DATA1", "labelled cells"): (361, 187),
    ("DATA2", "labelled cells"): (403, 165),
    ("DATA3", "labelled cells"): (162, 162),
    ("DATA4", "labelled cells"): (715, 685),
    ("DATA4", "all 1,419 wells"): (734, 685),
}


class Finding(NamedTuple):
    """What a check found in one row: the value it looked at, what that was held against, and whether it breaks."""

    metric: str
    reported: float
    expected: float
    flagged: bool
    finding: str


@cache
def reported() -> pd.DataFrame:
    """Every value the paper prints, long: ``where, dataset, model, metric, value, std``."""
    one = pd.read_csv(paths.PAPER / "table1.csv").melt(["dataset", "sampling"], var_name="metric")
    one = one.assign(where="Table 1", model="ATSDP-NET, " + one.pop("sampling"))
    three = pd.read_csv(paths.PAPER / "table3.csv").rename(columns={"mean": "value"})
    three = three.assign(where="Table 3", model="ATSDP-NET")
    four = pd.read_csv(paths.PAPER / "table4.csv").assign(where="Table 4")
    quoted = pd.read_csv(paths.PAPER / "quoted_values.csv").assign(model="ATSDP-NET")
    quoted["where"] = quoted["where"].str.replace("fig", "Figure ").str.replace("_best_heads=.*", "", regex=True)
    together = pd.concat([one, three, four, quoted], ignore_index=True)
    return together[["where", "dataset", "model", "metric", "value", "std"]]


def printed_rows() -> pd.DataFrame:
    """One row a printed row of five scores: ``where, dataset, model`` and the metrics."""
    scores = reported()[reported()["metric"].isin(config.METRICS)]
    wide = scores.pivot(index=["where", "dataset", "model"], columns="metric", values="value")
    return wide[list(config.METRICS)].dropna().reset_index()


def _elsewhere(r, where: str) -> pd.Series:
    """ATSDP-NET's value and std of the same data set and metric in another place of the paper."""
    ours = reported()[(reported()["where"] == where) & (reported()["model"] == "ATSDP-NET")]
    return ours.set_index(["dataset", "metric"]).loc[(r.dataset, r.metric)]


def f1_bound(r) -> Finding:
    """A harmonic mean is at most the arithmetic one, so F1 ≤ (P + R)/2 for one class, and with it for support-weighted
    or macro averages and for their means over folds. A larger printed F1 cannot come from the printed P and R.
    """
    most = (r.precision + r.recall) / 2  # rounding lifts F1 by half a step at most and lowers the mean by as much
    return Finding("f1", r.f1, most, r.f1 > most + STEP, f"{r.f1 - most:+.4f} from its largest value")


def constant_predictor(r) -> Finding:
    """Always naming a class of share p gives weighted precision p², recall p and F1 2p²/(1 + p). A row that obeys both
    equations has learned nothing; one that obeys only the second may hold a misprint.
    """
    p = r.recall
    text = "precision and F1 follow from the recall"
    if abs(r.precision - p * p) > 2 * STEP:
        text = f"F1 follows from the recall, precision is off by {r.precision - p * p:+.4f}"
    return Finding("precision", r.precision, p * p, abs(r.f1 - 2 * p * p / (1 + p)) <= 2 * STEP, text)


def confusion_matrices(precision: float, recall: float, f1: float, sizes: tuple[int, int]) -> list[tuple[int, int]]:
    """(sensitive, resistant) cells called right whose support-weighted scores are the three given, to one step."""
    n1, n0 = sizes
    n, found = n1 + n0, []
    for right in range(int(np.ceil((recall - STEP) * n)), int(np.floor((recall + STEP) * n)) + 1):
        tp = np.arange(max(0, right - n0), min(n1, right) + 1)
        tn = right - tp
        fn, fp = n1 - tp, n0 - tn
        p = (n1 * tp / np.maximum(tp + fp, 1) + n0 * tn / np.maximum(tn + fn, 1)) / n
        f = (n1 * 2 * tp / (2 * tp + fp + fn) + n0 * 2 * tn / np.maximum(2 * tn + fp + fn, 1)) / n
        hit = (np.abs(p - precision) <= STEP) & (np.abs(f - f1) <= STEP)
        found += [(int(a), int(b)) for a, b in zip(tp[hit], tn[hit], strict=True)]
    return found


def one_pass(r) -> Finding:
    """Precision, recall and F1 of one prediction of all cells come from two whole numbers, and few triples of four
    decimals do. A mean over repeated folds would match only by accident.
    """
    found = []
    for (dataset, counting), (n1, n0) in CLASS_SIZES.items():
        if dataset == r.dataset:
            pairs = confusion_matrices(r.precision, r.recall, r.f1, (n1, n0))
            found += [f"{a} of {n1} sensitive, {b} of {n0} resistant right ({counting})" for a, b in pairs]
    return Finding("recall", r.recall, np.nan, bool(found), " or ".join(found))


def repeats_table3(r) -> Finding:
    """Table 1 compares sampling strategies, Table 3 gives means over ten repeated cross-validations. Equal values to
    four decimals mean that the chosen strategy's row is the final result, entered again.
    """
    other = _elsewhere(r, "Table 3")["value"]
    return Finding(r.metric, r.value, other, r.value == other, "equal to Table 3")


def repeats_heads(r) -> Finding:
    """Table 4 should compare like with like. Where ATSDP-NET's value is that of its best number of heads, a maximum
    over the numbers tried stands against models that had one try.
    """
    other = _elsewhere(r, "Figure 3")["value"]
    return Finding(r.metric, r.value, other, r.value == other, "equal to Figure 3")


def against_means(r) -> Finding:
    """Figure 2b, Table 3 and Table 4 report the same model on the same sets. Where they differ by more than the last
    decimal, they are not the same computation.
    """
    value, std = _elsewhere(r, "Table 3")[["value", "std"]]
    text = f"{(r.value - value) / std:+.2f} standard deviations from Table 3"
    return Finding(r.metric, r.value, value, abs(r.value - value) > STEP, text)


def ap_range(auc: float, share: float) -> tuple[float, float]:
    """Bounds of the average precision of a ranking with this AUC, where a share of the cells is sensitive.

    With u the share of sensitive and v(u) that of resistant cells ranked before, AP is the integral of u / (u + rho v)
    and 1 - AUC that of v, rho = (1 - share) / share. The largest AP puts a share AUC of the sensitive cells first and
    the rest last (exact for many cells); the lower bound takes v = (sqrt(u / lambda) - u) / rho, cut to [0, 1], the
    minimum when v need not increase. The bounds are concave and convex in AUC, so they also hold for means over folds.
    """
    rho = (1 - share) / share
    u = (np.arange(4000) + 0.5) / 4000

    def before(log_lambda: float) -> np.ndarray:
        return np.clip((np.sqrt(u / np.exp(log_lambda)) - u) / rho, 0, 1)

    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle).mean() > 1 - auc else (low, middle)
    return float((u / (u + rho * before(low))).mean()), float(1 - rho * np.log((1 + rho) / (auc + rho)))


def auc_and_ap(r) -> Finding:
    """AUC and the share of sensitive cells bound the average precision from both sides. Outside there is no ranking;
    within a tenth of an end, as flagged here, it takes one close to the extreme.
    """
    n1, n0 = CLASS_SIZES[r.dataset, "labelled cells"]
    least, most = ap_range(r.auc, n1 / (n1 + n0))
    place = (r.ap - least) / (most - least)
    text = f"{place:.0%} of the way from {least:.4f} to {most:.4f}, where a coin toss has {n1 / (n1 + n0):.4f}"
    return Finding("ap", r.ap, np.nan, not 0.1 <= place <= 0.9, text)


def below_half(r) -> Finding:
    """A ranking that knows nothing has an AUC of one half, with a known standard error. More than three of them below,
    a model has the sign of the classes reversed, which training with their labels should not do.
    """
    n1, n0 = CLASS_SIZES[r.dataset, "labelled cells"]
    z = (r.auc - 0.5) / np.sqrt((n1 + n0 + 1) / (12 * n1 * n0))
    return Finding("auc", r.auc, 0.5, z < -3, f"{z:+.1f} standard errors")


def spread(r) -> Finding:
    """A standard deviation over repeats on the same cells shows splits and seeds, not which cells were drawn. Where it
    is smaller than the sampling error of an accuracy (the weighted recall), mean ± std is too narrow for new cells.
    """
    n = sum(CLASS_SIZES[r.dataset, "labelled cells"])
    error = np.sqrt(r.value * (1 - r.value) / n)
    return Finding("recall", r.std, error, r.std < error, f"{r.std / error:.0%} of the sampling error over {n:,} cells")


def r_or_square(r) -> Finding:
    """The abstract prints R where sections 3.5 and 3.7 print R² for correlations of gene scores, and the captions say
    Pearson. One is the square of the other, so one number cannot be both.
    """
    text = f"as r it explains {r.value**2:.3f} of the variance, as R² it would mean r = {np.sqrt(r.value):.3f}"
    return Finding(r.metric, r.value, r.value**2, True, text)


#: Title, check, and which values it reads: a query on :func:`reported`, or none for :func:`printed_rows`.
CHECKS = (
    ("F1 against precision and recall", f1_bound, ""),
    ("Predictors that name one class", constant_predictor, ""),
    ("Rows that are one confusion matrix", one_pass, ""),
    ("Table 1 against Table 3", repeats_table3, "where == 'Table 1'"),
    ("Table 4 against the best heads of Figure 3", repeats_heads, "where == 'Table 4' and model == 'ATSDP-NET'"),
    ("One quantity, several values", against_means, "where in ('Table 4', 'Figure 2b') and model == 'ATSDP-NET'"),
    ("AUC against average precision", auc_and_ap, ""),
    ("AUC below one half", below_half, ""),
    ("Standard deviations against sampling error", spread, "where == 'Table 3' and metric == 'recall'"),
    ("r or R²", r_or_square, "metric == 'pearson_r'"),
)


def run() -> tuple[pd.DataFrame, pd.DataFrame]:
    """All checks: one row a check (``check, title, examined, flagged, explanation``), and every flagged row."""
    overview, flagged = [], []
    for title, check, query in CHECKS:
        rows = reported().query(query) if query else printed_rows()
        found = pd.DataFrame([check(r) for r in rows.itertuples()])
        found = pd.concat([rows[["where", "dataset", "model"]].reset_index(drop=True), found], axis=1)
        explanation = " ".join(inspect.getdoc(check).split())
        overview.append((check.__name__, title, len(found), int(found["flagged"].sum()), explanation))
        flagged.append(found[found["flagged"]].drop(columns="flagged").assign(check=check.__name__))
    columns = ["check", "title", "examined", "flagged", "explanation"]
    rows = pd.concat(flagged, ignore_index=True)
    return pd.DataFrame(overview, columns=columns), rows[["check", *rows.columns.drop("check")]]
